//! What can go wrong with the log. Texts name what to do; paths of this machine go to the operator, never to a caller.

use super::segments::AppendError;
use std::{
    io,
    path::{Path, PathBuf},
};
use strongroom_audit::{ChainHead, FrameError, LinkError, SegmentError};

/// Why no record can be accepted now: every commit that carries one is refused (fail closed). Texts are fixed and may be shown to callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// No space. Goes away by itself when space returns.
    #[error(
        "the audit log's disk is full: nothing can be recorded, so nothing is answered; free space, service resumes by itself"
    )]
    DiskFull,
    /// A file cannot be made or written for a reason that may pass.
    #[error("the audit log cannot be written: nothing is answered; see the daemon's log, service resumes by itself")]
    Unwritable,
    /// A write or a sync failed in a way after which the disk's content is unknown. Stays until the daemon is restarted.
    #[error("the audit log's disk failed: nothing is answered until the medium is checked and the daemon is restarted")]
    Failed,
    /// The daemon is going down.
    #[error("the audit log is closed: the daemon is stopping")]
    Closed,
}

/// Why the log does not open. Without a log there is no start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or a file cannot be used.
    #[error("the audit log at {0} cannot be opened")]
    Io(PathBuf, #[source] io::Error),
    /// `audit.segment_bytes` is out of bounds.
    #[error("audit.segment_bytes must be between {min} and {max}")]
    SegmentBytes {
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// The last segment's header is damaged.
    #[error("{file}: {error}; check with `strongroom audit verify`, then `strongroomd repair --accept-loss`")]
    Segment {
        /// The segment.
        file: String,
        /// What is wrong.
        error: SegmentError,
    },
    /// The last segment belongs to another vault.
    #[error(
        "{file}: this is another vault's audit log: give this one a directory of its own (`audit.path`), or restore the store that it belongs to"
    )]
    Cluster {
        /// The segment.
        file: String,
    },
    /// Damage in front of good frames: not a crash, a change.
    #[error(
        "{file}: damaged at byte {offset}, record {seq}: {why}; check with `strongroom audit verify`, then `strongroomd repair --accept-loss`"
    )]
    Damaged {
        /// The segment.
        file: String,
        /// Where.
        offset: u64,
        /// Which record should be there.
        seq: u64,
        /// What is wrong.
        why: Damage,
    },
    /// A row of the store's outbox is damaged or does not follow.
    #[error(
        "the store's audit outbox is damaged at record {seq}: {why}; `strongroomd repair --accept-loss` is the way on"
    )]
    Outbox {
        /// Which record should be there.
        seq: u64,
        /// What is wrong.
        why: Damage,
    },
    /// The outbox cannot be read.
    #[error("the store's audit outbox cannot be read: {0}")]
    OutboxRead(String),
    /// Log and store disagree: one of them lost its end, or was put back to an earlier state.
    #[error(
        "the audit log ends at {log}, the store says {store}: one of them was cut short or rolled back. If no backup helps, \
         `strongroomd repair --accept-loss` goes on and records the gap"
    )]
    Heads {
        /// The log's head, outbox included.
        log: ChainHead,
        /// The store's.
        store: ChainHead,
    },
    /// The drainer's thread could not be started.
    #[error("no thread for the audit log")]
    Thread(#[source] io::Error),
}

impl OpenError {
    /// Of an append while opening.
    pub(super) fn append(error: AppendError) -> Self {
        match error {
            AppendError::Again(error) | AppendError::Failed(error) => Self::Io(PathBuf::new(), error),
        }
    }

    /// Names a file by its whole path.
    pub(super) fn within(self, dir: &Path) -> Self {
        match self {
            Self::Io(file, error) => Self::Io(dir.join(file), error),
            other => other,
        }
    }
}

/// What is wrong with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It is not one.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// It does not follow.
    #[error("{0}")]
    Link(#[from] LinkError),
}
