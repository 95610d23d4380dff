//! What can go wrong with the vault as a whole.

use super::RoomsError;
use crate::{
    base::locked::LockError,
    seal::SealError,
    store::{CommitError, KeyringChangeError, StoreError, UnlockError},
};

/// Errors of this room.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The state does not allow it.
    #[error("{0}")]
    NotPossible(&'static str),
    /// A slot, share, session or HSM.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The keyring does not open.
    #[error(transparent)]
    Unlock(#[from] UnlockError),
    /// The store does not read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The change was not made (or, `Indeterminate`, may have been).
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The keyring was not changed.
    #[error(transparent)]
    Keyring(#[from] KeyringChangeError),
    /// No locked memory.
    #[error(transparent)]
    Memory(#[from] LockError),
    /// The rooms did not open; the vault stays sealed.
    #[error("the vault's rooms did not open")]
    Rooms(#[source] RoomsError),
    /// A task of ours was ended from outside.
    #[error("the daemon is going down")]
    Interrupted,
}
