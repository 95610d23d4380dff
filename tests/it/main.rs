//! Every end-to-end test: the real daemon, command line and client library, on SoftHSM and PostgreSQL. One file a topic; `world` is what they
//! stand on. Most share one open daemon with paths of their own; what seals, kills or starves a daemon has one to itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests

mod agent;
mod apps;
mod audit;
mod bound;
mod broken;
mod canary;
mod creds;
mod cut;
mod delivery;
mod full;
mod fuzz;
mod hostile;
mod hsm;
mod kv;
mod limits;
mod login;
mod memory;
mod needles;
mod overload;
mod people;
mod policy;
mod process;
mod python;
mod resident;
mod rotate;
mod seal;
mod token;
mod told;
mod transit;
mod typescript;
mod wire;
mod world;
