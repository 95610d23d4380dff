//! What can go wrong with a lease.

use crate::{
    base::time::Timestamp,
    store::{CommitError, StoreError},
};

/// Why the world outside did not do it; the engine room's errors in the words that this room needs.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct TargetError {
    /// For people; no secret in it, 240 bytes at most.
    pub text: String,
    /// The target as a whole is at fault: the breaker counts it.
    pub outage: bool,
    /// Not before then, when that is known.
    pub not_before: Option<Timestamp>,
    /// The caller's own mistake (role, configuration), not the target's.
    pub caller: bool,
}

/// Why an act on a lease failed.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// No such lease (or not any more).
    #[error("no such lease")]
    Unknown,
    /// It is being revoked, or past its time.
    #[error("the lease has ended")]
    Ended,
    /// Its maximum life is reached.
    #[error("the lease is at its maximum life")]
    AtMaximum,
    /// Another change of the same lease is under way.
    #[error("another change of the lease is under way; try again")]
    Busy,
    /// The session was revoked while its credential was being made; the credential is being revoked.
    #[error("the session has ended")]
    SessionEnded,
    /// The mount is being disabled.
    #[error("the mount is being disabled")]
    MountClosed,
    /// As many as there may be.
    #[error(
        "the {what} has {max} leases, as many as `limits.{key}` allows: revoke some (`strongroom lease revoke`), or let them end"
    )]
    Quota {
        /// Of whom.
        what: &'static str,
        /// The key of the configuration.
        key: &'static str,
        /// What it allows.
        max: u64,
    },
    /// The target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The record does not open; others are not affected.
    #[error("the lease's record is damaged; it is on the quarantine list")]
    Damaged,
    /// The store could not be read.
    #[error("the store cannot be read")]
    Store(#[source] StoreError),
    /// The change could not be made durable. A credential that was made is withheld and being revoked.
    #[error("the change could not be made durable")]
    Commit(#[source] CommitError),
}

impl From<StoreError> for LeaseError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Damaged { .. } => Self::Damaged,
            other => Self::Store(other),
        }
    }
}

impl From<CommitError> for LeaseError {
    fn from(error: CommitError) -> Self {
        Self::Commit(error)
    }
}
