//! What a token can answer, sorted by what to do about it.

use std::fmt;

/// Longest detail text that crosses the socketpair (bytes).
pub(crate) const DETAIL_BYTES_MAX: usize = 512;

/// The kinds of failure. Each names the action that is right; the handle has already done what can be
/// done by itself (a fresh worker, one retry) when a caller sees one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ErrorKind {
    /// The token refused the PIN. Nothing is tried again until an operator says so.
    AuthFailed = 1,
    /// The token has locked the PIN. Only its security officer can reset it.
    AuthLocked = 2,
    /// No log-in was tried: a former one was refused, or the token warns that tries are running out.
    /// `Hsm::forgive_pin` allows one more.
    AuthHeld = 3,
    /// The PIN is not there yet: not prompted, or its file cannot be read.
    PinNeeded = 4,
    /// The blob, its name or its context is not what was sealed. Trying again cannot help.
    Integrity = 5,
    /// The token holds no such key, said after a fresh `C_Initialize`.
    KeyMissing = 6,
    /// `create`: this version of the ring exists.
    KeyExists = 7,
    /// Several keys answer to one name, or half of a key: an operator must destroy it.
    KeyConflict = 8,
    /// The session or its log-in is gone and a fresh worker did not bring it back.
    SessionLost = 9,
    /// The token is absent, broken or unreachable.
    Device = 10,
    /// The token cannot do this at all.
    Unsupported = 11,
    /// No answer before the deadline; the worker was killed. A `create` or `destroy` may have happened.
    Timeout = 12,
    /// The worker died during the call. A `create` or `destroy` may have happened.
    Crashed = 13,
    /// The worker is not up and may not be started yet (back-off).
    Unavailable = 14,
    /// `stop` was called while the call waited.
    Stopped = 15,
    /// The queue of this token is full.
    Busy = 16,
    /// The configuration or an argument is out of bounds.
    Invalid = 17,
    /// The worker answered something else than was asked. A defect; the worker was killed.
    Protocol = 18,
}

impl ErrorKind {
    /// All kinds, in the order of their wire numbers.
    pub const ALL: [Self; 18] = [
        Self::AuthFailed,
        Self::AuthLocked,
        Self::AuthHeld,
        Self::PinNeeded,
        Self::Integrity,
        Self::KeyMissing,
        Self::KeyExists,
        Self::KeyConflict,
        Self::SessionLost,
        Self::Device,
        Self::Unsupported,
        Self::Timeout,
        Self::Crashed,
        Self::Unavailable,
        Self::Stopped,
        Self::Busy,
        Self::Invalid,
        Self::Protocol,
    ];

    pub(crate) fn from_u8(n: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|k| *k as u8 == n)
    }

    /// Whether the blob of another token is worth trying: everything but a mistake of the caller.
    #[must_use]
    pub fn fail_over(self) -> bool {
        !matches!(self, Self::Invalid | Self::KeyExists | Self::Stopped)
    }

    /// What an operator reads.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::AuthFailed => "the token refused the PIN; correct it, then allow another try",
            Self::AuthLocked => "the token locked the PIN; its security officer must reset it",
            Self::AuthHeld => "log-in is held back to save the token's tries; check the PIN, then allow another try",
            Self::PinNeeded => "the PIN is not available",
            Self::Integrity => "sealed data, its name or its context does not match",
            Self::KeyMissing => "the token holds no such key",
            Self::KeyExists => "this key version exists already",
            Self::KeyConflict => "the key is incomplete or not unique on the token",
            Self::SessionLost => "the session with the token was lost",
            Self::Device => "the token does not work or is absent",
            Self::Unsupported => "the token does not support this",
            Self::Timeout => "the token did not answer in time",
            Self::Crashed => "the worker with the PKCS#11 module died",
            Self::Unavailable => "the token's worker is not up; it is tried again shortly",
            Self::Stopped => "the token's worker was stopped",
            Self::Busy => "too many calls wait for the token",
            Self::Invalid => "invalid argument or configuration",
            Self::Protocol => "the worker broke the protocol",
        }
    }
}

/// A failure: its kind, and where it came from (function and `CKR_` name; never a value or a PIN).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HsmError {
    /// What to do about it.
    pub kind: ErrorKind,
    /// For the log: which call, which return value.
    pub detail: String,
}

impl HsmError {
    pub(crate) fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        let mut detail: String = detail.into();
        if detail.len() > DETAIL_BYTES_MAX {
            let cut = (0..=DETAIL_BYTES_MAX)
                .rev()
                .find(|n| detail.is_char_boundary(*n))
                .unwrap_or(0);
            detail.truncate(cut);
        }
        Self { kind, detail }
    }

    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, detail)
    }

    pub(crate) fn protocol(detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Protocol, detail)
    }
}

impl fmt::Display for HsmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() {
            f.write_str(self.kind.text())
        } else {
            write!(f, "{} ({})", self.kind.text(), self.detail)
        }
    }
}

impl std::error::Error for HsmError {}
