//! The Strongroom daemon, as rooms. `docs/ARCHITECTURE.md` is the map; edges go downwards only (`tidy` holds them).

#[cfg(all(feature = "bench-no-audit", not(debug_assertions)))]
compile_error!("bench-no-audit takes the evidence of reads away: it is for benches, and no release is built with it");

pub mod assemble;
pub mod audit;
pub mod auth;
pub mod base;
pub mod config;
pub mod engine;
pub mod gate;
pub mod http;
pub mod kv;
pub mod lease;
pub mod limit;
pub mod mount;
pub mod notice;
pub mod policy;
pub mod process;
pub mod rpc;
pub mod seal;
pub mod store;
pub mod token;
pub mod transit;
pub mod vault;

/// The unit tests run with the daemon's allocator: they look for keys in their own memory.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: base::alloc::Wiping = base::alloc::Wiping;
