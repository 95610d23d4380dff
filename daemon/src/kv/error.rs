//! What can go wrong with secrets.

use super::{
    CUSTOM_KEY_BYTES_MAX, CUSTOM_MAX, CUSTOM_VALUE_BYTES_MAX, FieldsError, LABEL_BYTES_MAX, LABELS_MAX, VERSIONS_MAX,
};
use crate::{
    base::{locked::LockError, page::PageError},
    mount::MountError,
    policy::Mismatch,
    store::StoreError,
};

/// An error of the KV room. Texts may be shown to whoever holds the permit; none holds a value.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// No secret there.
    #[error("there is no secret at this path")]
    NotFound,
    /// The path is the mount itself.
    #[error("a secret's path goes on below the mount")]
    NoSecretPath,
    /// No such version: never made, or no longer kept.
    #[error("the secret has no version {0}: see its history")]
    NoVersion(u64),
    /// No such label.
    #[error("the secret has no such label")]
    NoLabel,
    /// Hidden; undelete brings it back.
    #[error("version {0} is deleted: `undelete` brings it back")]
    Deleted(u64),
    /// Erased for good.
    #[error("version {0} is destroyed")]
    Destroyed(u64),
    /// `cas` is not the current version.
    #[error("check-and-set failed: the current version is {current} (0: there is none)")]
    Cas {
        /// The current version.
        current: u64,
    },
    /// The secret takes no write without check-and-set.
    #[error("this secret requires check-and-set: give the current version, {current}")]
    CasRequired {
        /// The current version.
        current: u64,
    },
    /// A labelled version is not destroyed.
    #[error(
        "version {version} has the label `{label}`: move the label first (`current` moves with the next put), or destroy all"
    )]
    Labelled {
        /// The version.
        version: u64,
        /// Its label.
        label: String,
    },
    /// Destroy needs to be told what.
    #[error("name the versions to destroy, or all")]
    NothingNamed,
    /// Too many versions named at once.
    #[error("name at most {} versions at once", VERSIONS_MAX)]
    TooManyNamed,
    /// Fields out of bounds.
    #[error(transparent)]
    Fields(#[from] FieldsError),
    /// A label that nobody sets.
    #[error("the label `{0}` is not set by hand")]
    ReservedLabel(&'static str),
    /// A label's name.
    #[error(
        "a label is 1 to {LABEL_BYTES_MAX} of a-z 0-9 -, and begins with a letter or digit; a secret has at most {LABELS_MAX}"
    )]
    Label,
    /// Custom metadata out of bounds.
    #[error(
        "custom metadata has at most {CUSTOM_MAX} entries, keys of 1 to {CUSTOM_KEY_BYTES_MAX} bytes, values of at most {CUSTOM_VALUE_BYTES_MAX}"
    )]
    Custom,
    /// Out of bounds.
    #[error("a secret keeps 1 to {VERSIONS_MAX} versions")]
    VersionsMax,
    /// All 2^64 are used.
    #[error("the secret has had all the versions it can have")]
    Exhausted,
    /// What is stored is not what it should be.
    #[error("the secret's record is damaged")]
    Damaged,
    /// The page token is for another listing.
    #[error(transparent)]
    Page(#[from] PageError),
    /// No locked memory for the key of page tokens.
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
