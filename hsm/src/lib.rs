//! Strongroom's HSM layer: PKCS#11 tokens that seal 32-byte seeds and sign digests. It knows no vault.
//!
//! A token's module is foreign code that may hang, abort or leak, so it lives in a process of its own: the
//! worker, one thread, one session, the only place that holds module, PIN and plaintext seeds on the token's
//! side. The daemon holds an [`Hsm`]: blocking calls with a deadline to an actor thread that owns the worker.
//!
//! Reading order: `name` and `blob` (what is stored), `error` (what can go wrong), `handle` and `actor` (the
//! daemon's side), `gate` (log-ins are never repeated), `wire`, `launch` and `supervisor` (processes),
//! `worker` (the token's side; the only room that touches PKCS#11), `softhsm` (throw-away tokens).
//!
//! Deliberately absent: sessions in the daemon, PIN in arguments or environment, slot numbers, AES-CBC
//! without a MAC, RSA-OAEP with SHA-1, retries of a log-in.

mod actor;
mod blob;
mod config;
mod error;
mod gate;
mod handle;
mod harden;
mod launch;
mod name;
mod pin;
pub mod softhsm;
pub mod supervisor;
mod wire;
pub mod worker;

pub use blob::HsmBlob;
pub use config::{Deadlines, HsmConfig, MechanismChoice, PinSource, TokenSelector};
pub use error::{ErrorKind, HsmError};
pub use handle::{Health, Hsm, QUEUE_MAX, State};
pub use launch::Launcher;
pub use name::{KeyInfo, KeyKind, Mechanism, Ring};
pub use pin::{PIN_BYTES_MAX, Pin};
pub use wire::{CONTEXT_BYTES_MAX, KEYS_MAX, PinFlags, TokenIdentity, Trial};
