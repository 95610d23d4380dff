//! The library and the command line against a scripted daemon. The fake is there for what a real daemon
//! cannot be made to do on order: fail in a chosen way, never answer, die in the middle of a call. What
//! the commands do on a real daemon is tested by the `tests` crate.
#![cfg(unix)]
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::panic)] // a harness: what fails must fail the test

mod audit;
mod calls;
mod cli;
mod fake;
mod kept;
mod tls;
