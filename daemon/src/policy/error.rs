//! What can go wrong with policy documents.

use super::permit::Mismatch;
use crate::{base::path::PathError, store::StoreError};
use strongroom_policy::{BuildError, PrincipalError, Problems};

/// An error of the policy room. Texts may be shown to whoever holds the permit.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The document is not valid; everything found wrong, with places.
    #[error("the policy is not valid: {0}")]
    Invalid(#[from] Problems),
    /// The set would be too large.
    #[error("the policies do not fit together")]
    Set(#[from] BuildError),
    /// The name is not `[a-z0-9-]{1,64}`.
    #[error("a policy's name is 1 to 64 of a-z 0-9 -")]
    Name,
    /// No such document.
    #[error("there is no such policy")]
    NotFound,
    /// `cas` is not the document's version.
    #[error("check-and-set failed: the policy is at version {current} (0: it does not exist)")]
    Cas {
        /// The version it has.
        current: u64,
    },
    /// The hypothetical identity breaks a bound.
    #[error(transparent)]
    Principal(#[from] PrincipalError),
    /// The document is damaged: it has to be written again, or deleted.
    #[error("the policy is damaged: write it again or delete it, with a recovery token where needed")]
    Damaged,
    /// Changes came faster than this one could follow; try again.
    #[error("the policies are changing at this moment: try again")]
    Busy,
    /// A permit for something else.
    #[error(transparent)]
    Permit(#[from] Mismatch),
    /// A record could not be written as bytes.
    #[error("the record cannot be encoded")]
    Encode(#[from] serde_json::Error),
    /// A worker was stopped.
    #[error("the daemon is stopping")]
    Stopping,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<PathError> for PolicyError {
    fn from(_: PathError) -> Self {
        Self::Name
    }
}
