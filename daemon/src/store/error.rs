//! What can go wrong in the store.

use super::{physical::EngineError, table::RawTable};
use crate::base::{id::OpId, locked::LockError};

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A record did not open: edited, moved, swapped, truncated, or rotten. It is on the quarantine list.
    #[error("the record is damaged and is refused: {record}")]
    Damaged {
        /// Table and key in words; never content.
        record: String,
    },
    /// The barrier's keys are gone: the vault was sealed.
    #[error("the store is sealed")]
    Sealed,
    /// The engine failed and is being reopened.
    #[error("the storage engine failed and is being reopened; try again")]
    Poisoned,
    /// A device error stopped the store until an operator restarts it.
    #[error("the store is stopped: {reason}; check the disk, then restart the daemon")]
    Stopped {
        /// What happened.
        reason: String,
    },
    /// A key or a limit that no caller may pass.
    #[error("not a valid record key: {0}")]
    Key(&'static str),
    /// The engine failed.
    #[error("the storage engine failed")]
    Engine(#[from] EngineError),
}

/// Why a commit failed. Nothing of the batch was made, unless it says so.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The precondition with this index (in order of `require_*` calls) does not hold.
    #[error("precondition {0} does not hold")]
    Precondition(usize),
    /// Free space is below the reserve. Service resumes by itself.
    #[error("the disk is nearly full: free some space, service resumes by itself")]
    Full,
    /// The batch is larger than the engine takes in one commit, in bytes.
    #[error("the change is larger than the storage engine takes at once ({max_bytes} bytes)")]
    TooLarge {
        /// The engine's limit.
        max_bytes: usize,
    },
    /// It may or may not have been made; `outcome` settles it once the store is open again.
    #[error("the storage engine failed: whether the change was made is not known yet")]
    Indeterminate(OpId),
    /// The engine had failed; the change was not made.
    #[error("the storage engine failed and is being reopened; the change was not made")]
    Poisoned,
    /// A device error stopped the store until an operator restarts it.
    #[error("the store is stopped: {reason}; check the disk, then restart the daemon")]
    Stopped {
        /// What happened.
        reason: String,
    },
    /// The daemon is going down.
    #[error("the store is closed")]
    Closed,
    /// The audit log takes no records: nothing may be done or answered.
    #[error("the audit log takes no records: {0}")]
    AuditUnavailable(String),
    /// The barrier's keys are gone.
    #[error("the store is sealed")]
    Sealed,
    /// This key has sealed all it may (2^32 records): rotate.
    #[error("the data key has sealed as many records as it may: rotate the keyring")]
    KeySpent,
    /// A key that no caller may pass.
    #[error("not a valid record key: {0}")]
    Key(&'static str),
    /// No locked memory for a key.
    #[error(transparent)]
    Memory(#[from] LockError),
}

/// Why the store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the store at {path} is in use by another process")]
    Locked {
        /// The directory.
        path: String,
    },
    /// Written by a later version.
    #[error("the store has format {found}, this daemon knows up to {known}: use a newer strongroomd")]
    Newer {
        /// As the store says.
        found: u32,
        /// As this build knows.
        known: u32,
    },
    /// Made by another engine.
    #[error("the store was made by the engine `{found}`, the configuration says `{configured}`")]
    Engine {
        /// As the directory says.
        found: String,
        /// As the configuration says.
        configured: String,
    },
    /// A raw record that everything depends on does not read.
    #[error("the {} record is damaged: restore the store from a backup", .0.words())]
    Raw(RawTable),
    /// The audit log does not open, or disagrees with the store.
    #[error(transparent)]
    Audit(#[from] crate::audit::OpenError),
    /// The engine does not open.
    #[error("the storage engine does not open")]
    Physical(#[from] EngineError),
    /// A file beside the engine's.
    #[error("cannot use {path}")]
    Io {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Why the keyring does not open.
#[derive(Debug, thiserror::Error)]
pub enum UnlockError {
    /// No keyring: the vault is blank.
    #[error("the store has no keyring: it was never initialised")]
    Blank,
    /// The root key does not open it, or it is damaged.
    #[error("the keyring does not open with this root key, or is damaged")]
    Keyring,
    /// Newer layout.
    #[error("the keyring has format {0}, which this daemon does not know")]
    Format(u8),
    /// No locked memory.
    #[error(transparent)]
    Memory(#[from] LockError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Reserving the barrier's sequence failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl CommitError {
    /// The same refusal for another waiter.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Stopped { reason } => Self::Stopped { reason: reason.clone() },
            Self::AuditUnavailable(reason) => Self::AuditUnavailable(reason.clone()),
            Self::Full => Self::Full,
            _ => Self::Poisoned,
        }
    }

    /// A precondition could not be looked up.
    pub(super) fn from_read(error: StoreError) -> Self {
        match error {
            StoreError::Stopped { reason } => Self::Stopped { reason },
            StoreError::Sealed => Self::Sealed,
            StoreError::Key(words) => Self::Key(words),
            StoreError::Damaged { .. } | StoreError::Poisoned | StoreError::Engine(_) => Self::Poisoned,
        }
    }
}
