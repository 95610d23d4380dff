//! Encryption as a service (R-OPS-8): named keys that encrypt, sign and authenticate for callers who never hold them.
//!
//! May touch: `base`, `mount` (places), `policy::Permit`, `store` (views, changes, XAES-256-GCM).
//! Reading order: `kind`, `envelope` (a ciphertext), `record`, `material` (versions and algorithms), `keys` (a key's life), `resident` (keys in HSMs),
//! `room` (their use).
//! README.md says what callers may rely on.

mod envelope;
mod error;
mod keys;
mod kind;
mod material;
mod record;
mod resident;
mod room;
#[cfg(test)]
mod tests;

pub use envelope::OVERHEAD_BYTES;
pub use error::TransitError;
pub use keys::{KeyShown, VersionShown};
pub use kind::KeyKind;
pub use record::Facts;
pub use resident::{Doomed, Making, SignerError, Signers};
pub use room::{DataKey, Made, Text, ToVerify, TransitRoom};

/// Items of one call.
pub const BATCH_ITEMS_MAX: usize = 256;
/// The caller's associated data of one item.
pub const CONTEXT_BYTES_MAX: usize = 4096;
/// Versions that a key keeps.
pub const VERSIONS_MAX: u32 = 1000;
/// How long data keys are.
pub const DATA_KEY_BYTES: [usize; 2] = [32, 64];
/// Versions in memory, ready for use.
const READY_MAX: usize = 256;
