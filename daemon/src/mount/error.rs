//! What can go wrong with mounts.

use super::{DESCRIPTION_BYTES_MAX, MOUNT_SEGMENTS_MAX, MOUNTS_MAX};
use crate::{base::path::Path, policy::Mismatch, store::StoreError};

/// An error of the mount room. Texts may be shown to whoever holds the permit.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// No mount there.
    #[error("there is no mount at this path")]
    NotFound,
    /// The path is taken.
    #[error("there is a mount at this path already")]
    Exists,
    /// A mount above or below.
    #[error("a mount does not lie in another one: there is `{mount}`")]
    Nested {
        /// The other mount.
        mount: Path,
    },
    /// Below `sys`.
    #[error("paths that begin with `sys` are the vault's own")]
    Reserved,
    /// Too many segments.
    #[error("a mount's path has at most {MOUNT_SEGMENTS_MAX} segments")]
    TooDeep,
    /// Too long, or with control characters.
    #[error("a description has at most {DESCRIPTION_BYTES_MAX} bytes and no control characters")]
    Description,
    /// No such kind of engine.
    #[error("the kinds of engine are: kv, mariadb, postgres, rabbitmq, redis, transit")]
    Kind,
    /// All mounts that a vault may have.
    #[error("a vault has at most {MOUNTS_MAX} mounts")]
    Full,
    /// Secrets are in it.
    #[error("the mount holds secrets: destroy them first (`strongroom kv destroy --all PATH`), then disable it")]
    NotEmpty,
    /// Leases live.
    #[error(
        "the mount has leases that live ({count}): `strongroom mount disable {mount} --revoke-leases` revokes them and disables it; `strongroom lease list {mount}` shows them"
    )]
    Leases {
        /// The mount.
        mount: Path,
        /// How many.
        count: u64,
    },
    /// They are revoked, but not all of them are proven gone.
    #[error(
        "leases of the mount are still being revoked ({count}): `strongroom lease list {mount}` shows what keeps them; `strongroom mount disable {mount} --revoke-leases` once more when none is left"
    )]
    Revoking {
        /// The mount.
        mount: Path,
        /// How many.
        count: u64,
    },
    /// A lease whose record does not open.
    #[error(
        "a lease of the mount is damaged: its account may live, and what it is called is not known; `strongroom operator quarantine` names the record"
    )]
    LeaseDamaged,
    /// To be closed before it is removed.
    #[error("the mount is in service")]
    Open,
    /// It is being disabled.
    #[error("the mount is being disabled")]
    Closed,
    /// Changes came faster than this one could follow; try again.
    #[error("mounts are changing at this moment: try again")]
    Busy,
    /// A permit for something else.
    #[error(transparent)]
    Permit(#[from] Mismatch),
    /// A record could not be written as bytes.
    #[error("the record cannot be encoded")]
    Encode(#[from] serde_json::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}
