//! The daemon with its keys on the ordinary heap: the positive control of the memory scan. The search that finds no key in `strongroomd` must
//! find them here. Everything else is the same.

#[global_allocator]
static ALLOCATOR: strongroomd::base::alloc::Wiping = strongroomd::base::alloc::Wiping;

fn main() -> std::process::ExitCode {
    #[cfg(debug_assertions)]
    strongroomd::base::locked::keep_on_plain_heap();
    strongroomd::assemble::command()
}
