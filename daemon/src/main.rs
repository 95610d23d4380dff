//! The entry of `strongroomd`: its allocator, and nothing else.

#[global_allocator]
static ALLOCATOR: strongroomd::base::alloc::Wiping = strongroomd::base::alloc::Wiping;

fn main() -> std::process::ExitCode {
    strongroomd::assemble::command()
}
