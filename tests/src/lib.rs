//! What every end-to-end test, the demo, the campaigns and the benches stand on: a laboratory in a directory of its own with a SoftHSM token,
//! TLS, a configuration and the real binaries. Nothing here is a mock; nothing is left running when a [`Lab`] is dropped.
//! Reading order: `lab` (the directory), `daemon` (the process), `cli` (the command line), then what a test needs.
#![allow(missing_docs)] // test support; names and headers say it
#![allow(clippy::expect_used, clippy::panic)] // a laboratory that does not come up is a failed test

pub mod campaign;
pub mod cli;
pub mod daemon;
pub mod demo;
pub mod issuer;
pub mod lab;

pub use cli::{Cli, Ran};
pub use daemon::Daemon;
pub use lab::Lab;
