//! The daemon's entry.

#[global_allocator]
static ALLOCATOR: strongroomd::base::alloc::Wiping = strongroomd::base::alloc::Wiping;

fn main() {}
