//! The Strongroom daemon, as rooms. `docs/ARCHITECTURE.md` is the map; edges go downwards only (`tidy` holds them).

pub mod base;
pub mod config;
