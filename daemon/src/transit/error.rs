//! What can go wrong with keys and what they are used for.

use super::{BATCH_ITEMS_MAX, CONTEXT_BYTES_MAX, DATA_KEY_BYTES, SignerError, VERSIONS_MAX};
use crate::{
    base::{limits::VALUE_BYTES_MAX, locked::LockError},
    mount::MountError,
    policy::Mismatch,
    store::StoreError,
};

/// An error of the transit room. Texts may be shown to whoever holds the permit; none holds content.
#[derive(Debug, thiserror::Error)]
pub enum TransitError {
    /// No key there.
    #[error("there is no key of this name")]
    NotFound,
    /// There is one already.
    #[error("there is a key of this name already")]
    Exists,
    /// A key is directly in its mount.
    #[error("a key is MOUNT/NAME, such as `transit/orders`")]
    Name,
    /// No such kind.
    #[error(
        "the kinds of key are: aes256-gcm, hmac-sha256, ed25519, ecdsa-p256, ecdsa-p384, rsa-pss-2048, rsa-pss-3072, rsa-pss-4096, ml-dsa-65"
    )]
    Kind,
    /// A key does what its kind does and nothing else.
    #[error("a key of the kind {kind} cannot {what}")]
    WrongKind {
        /// The key's.
        kind: &'static str,
        /// What was asked.
        what: &'static str,
    },
    /// Not in an HSM.
    #[error("a key of the kind {0} cannot live in an HSM: ecdsa-p256 and rsa-pss-3072 can")]
    NotThere(&'static str),
    /// The key's HSM.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// Another key has the name.
    #[error("the key was made anew meanwhile: look at it again")]
    Moved,
    /// How many at once.
    #[error("give 1 to {BATCH_ITEMS_MAX} items")]
    Batch,
    /// A context out of bounds.
    #[error("a context has at most {CONTEXT_BYTES_MAX} bytes")]
    Context,
    /// A text out of bounds.
    #[error("a text has at most {VALUE_BYTES_MAX} bytes")]
    TooLarge,
    /// A data key's size.
    #[error("a data key has {} or {} bytes", DATA_KEY_BYTES[0], DATA_KEY_BYTES[1])]
    DataKey,
    /// Not a ciphertext of this format.
    #[error("this is no ciphertext of a transit key, format 1")]
    Ciphertext,
    /// Another key's.
    #[error("this ciphertext was made by another key")]
    OtherKey,
    /// Changed, moved, or with another context.
    #[error("the ciphertext does not open: it was changed, or its context is another")]
    DoesNotOpen,
    /// Trimmed, never made, or below the least that is allowed.
    #[error("version {0} of the key is not in use: see `strongroom transit key show`")]
    NoVersion(u32),
    /// Verification names what made it.
    #[error("name the version of the key that made it")]
    VersionMissing,
    /// The bounds of versions.
    #[error("versions from {oldest} to {latest} are there; the least in use is {least}")]
    Versions {
        /// The oldest kept.
        oldest: u32,
        /// The newest.
        latest: u32,
        /// The least in use.
        least: u32,
    },
    /// Too many kept.
    #[error("a key keeps at most {VERSIONS_MAX} versions: trim it")]
    Full,
    /// Deleting was not allowed before.
    #[error(
        "the key may not be deleted: allow it first, with `strongroom transit key configure KEY --allow-deletion true`"
    )]
    NotDeletable,
    /// What is stored is not what it should be.
    #[error("the key's record is damaged")]
    Damaged,
    /// The library refused; it says no more.
    #[error("the cryptographic library refused")]
    Crypto,
    /// A record could not be written.
    #[error("the key's record cannot be encoded")]
    Encode(#[from] serde_json::Error),
    /// No locked memory.
    #[error(transparent)]
    Memory(#[from] LockError),
    /// The mount.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A permit for something else.
    #[error(transparent)]
    Permit(#[from] Mismatch),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}
