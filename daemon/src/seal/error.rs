//! What can go wrong with slots, shares and sessions. Nothing here carries a key, a share or a PIN.

use crate::base::locked::LockError;
use strongroom_hsm::HsmError;

/// A share that was not taken, and why. Each names what its holder should do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// The text is no share, or its checksum does not fit.
    #[error("this is not a share, or it was mistyped: its checksum does not fit")]
    Mistyped,
    /// A share of another vault.
    #[error("this share belongs to another vault")]
    OtherCluster,
    /// A share of another slot.
    #[error("this share belongs to another slot{}", name.as_deref().map(|name| format!(": `{name}`")).unwrap_or_default())]
    OtherSlot {
        /// The slot's name, when this vault still has it.
        name: Option<String>,
    },
    /// A share of this slot from before it was re-keyed.
    #[error("this share is old: the slot was re-keyed since; use the share that was given out then")]
    Old,
    /// The frame is right, its content is not what was given out.
    #[error("this share is forged: it was never given out for this slot")]
    Forged,
    /// Already presented in this session.
    #[error("this share was presented already; another one is needed")]
    Duplicate,
    /// The slot has no quorum.
    #[error("this slot takes no shares")]
    NotWanted,
    /// The slot has a quorum and no share came.
    #[error("this slot needs a share")]
    Missing,
}

/// A session that cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// No such session: never opened, expired, given up, or finished.
    #[error("there is no such session: it expired, was given up or is done; open another by leaving the session out")]
    Unknown,
    /// The session was opened for another slot.
    #[error("this session is for another slot")]
    OtherSlot,
    /// The session was opened for another operation.
    #[error("this session is bound to another operation")]
    OtherOperation,
    /// Nothing says what the session is for.
    #[error("the first share of a session must say for which operation it is")]
    OperationMissing,
    /// The slot was re-keyed or removed under the session.
    #[error("the slot was changed since this session was opened; start again")]
    SlotChanged,
    /// All shares are there and the operation runs.
    #[error("this session is complete and its operation is running")]
    Busy,
    /// This share opened another session that others have joined.
    #[error(
        "this share opened another session that others joined: go on with it, abandon it, or wait until it expires"
    )]
    AlreadyOpen,
    /// Every session is taken.
    #[error("too many sessions are open; they expire by themselves")]
    Full,
}

/// Errors of this room.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// A share was refused.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// A session was refused.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A name, factor or specification out of bounds.
    #[error("{0}")]
    Spec(&'static str),
    /// No slot of that name.
    #[error("there is no slot `{0}`")]
    NoSuchSlot(String),
    /// The name is taken.
    #[error("there is a slot `{0}` already")]
    SlotExists(String),
    /// The last slot stays.
    #[error("the last slot cannot be removed: nothing would open the vault again")]
    LastSlot,
    /// More slots than a vault keeps.
    #[error("a vault has at most {} slots", crate::base::limits::SLOTS_MAX)]
    TooManySlots,
    /// An HSM that the configuration does not have.
    #[error("there is no [hsm.{0}] in the configuration")]
    NoSuchHsm(String),
    /// A slot's record is damaged or was changed.
    #[error("the record of slot `{0}` is damaged")]
    Damaged(String),
    /// The factors do not open the slot.
    #[error("the factors do not open slot `{0}`: its record or its HSM's key is not the one they were made for")]
    DoesNotOpen(String),
    /// No HSM of the slot gave its half; each with its reason.
    #[error("no HSM of this slot answered: {}", list(.0))]
    Hsm(Vec<(String, HsmError)>),
    /// An HSM refused a step of a rotation or of a new slot.
    #[error("[hsm.{name}]: {source}")]
    HsmStep {
        /// The HSM's name in the configuration.
        name: String,
        /// What it said.
        source: HsmError,
    },
    /// What was sealed just now did not come back the same.
    #[error("[hsm.{0}] did not give back what it sealed; nothing was changed")]
    HsmMismatch(String),
    /// An `hsm`-only slot has no secret of its holder: only root on this machine may present it.
    #[error("this slot opens by the HSM alone: only root, over the Unix socket, may present it")]
    LocalRootOnly,
    /// No locked memory.
    #[error(transparent)]
    Memory(#[from] LockError),
}

fn list(failures: &[(String, HsmError)]) -> String {
    failures
        .iter()
        .map(|(name, error)| format!("[hsm.{name}] {error}"))
        .collect::<Vec<_>>()
        .join("; ")
}
