//! What the committer takes: a batch of stored (already encrypted) writes with preconditions, records of evidence, and hooks.

use super::error::CommitError;
use crate::base::id::OpId;
use bytes::Bytes;
use strongroom_audit::Encoded;

/// The commit sequence that wrote a record; grows, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Version(pub u64);

const VERSION_BYTES: usize = 8;

/// A record as it came from the engine.
#[derive(Clone, Debug)]
pub struct Stored {
    /// 0 when the envelope was cut off: no commit has it.
    pub version: Version,
    /// Behind the version.
    pub bytes: Bytes,
}

impl Stored {
    /// Takes the version off. A row too short for one keeps version 0 and no bytes: nothing opens that.
    pub fn parse(mut row: Bytes) -> Self {
        if row.len() < VERSION_BYTES {
            return Self {
                version: Version(0),
                bytes: Bytes::new(),
            };
        }
        let version = row.split_to(VERSION_BYTES);
        Self {
            version: Version(u64::from_be_bytes(version[..].try_into().unwrap_or_default())),
            bytes: row,
        }
    }
}

/// A value with room for its version in front, so that the committer copies nothing.
#[derive(Debug)]
pub struct Envelope(Vec<u8>);

impl Envelope {
    /// Room for `bytes` of value.
    pub fn with_capacity(bytes: usize) -> Self {
        let mut envelope = Vec::with_capacity(VERSION_BYTES + bytes);
        envelope.extend_from_slice(&[0; VERSION_BYTES]);
        Self(envelope)
    }
    /// Where the value goes; it is only ever appended to.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
    /// Bytes of the row.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// The row.
    pub fn stamp(mut self, version: Version) -> Bytes {
        if let Some(head) = self.0.first_chunk_mut::<VERSION_BYTES>() {
            *head = version.0.to_be_bytes();
        }
        self.0.into()
    }
}

/// What must hold of a record for its batch to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// No such record.
    Absent,
    /// There is one.
    Exists,
    /// There is one, of exactly this version.
    Version(Version),
}

impl Condition {
    pub(super) fn holds(self, version: Option<Version>) -> bool {
        match self {
            Self::Absent => version.is_none(),
            Self::Exists => version.is_some(),
            Self::Version(wanted) => version == Some(wanted),
        }
    }
}

/// Who goes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Lane {
    /// Revoke, seal, recovery: first, and from the reserve when the disk is full.
    Urgent,
    /// Everything else.
    #[default]
    Normal,
    /// Large values: grouped apart, held back while the engine would stall.
    Bulk,
}

/// For whom the last of the disk is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Need {
    /// None of it.
    Ordinary,
    /// An operator looks how things stand, or makes room: half of the reserve.
    Tending,
    /// Revoke, seal, recovery: all of it.
    Urgent,
}

/// Runs on the commit thread, in commit order, once its batch is durable.
pub type Hook = Box<dyn FnOnce() + Send>;

/// One atomic change with its evidence.
pub struct Batch {
    /// Settles it when its commit is indeterminate.
    pub op: OpId,
    /// Who goes first.
    pub lane: Lane,
    /// All must hold, in the order in which they were asked for.
    pub conditions: Vec<(Bytes, Condition)>,
    /// Stored key, and row or deletion. The last write of a key counts.
    pub writes: Vec<(Bytes, Option<Envelope>)>,
    /// Records of evidence; they ride in the same commit.
    pub audit: Vec<Encoded>,
    /// What follows.
    pub then: Vec<Hook>,
    /// The evidence of a read or a refusal, and nothing else.
    pub relaxed: bool,
    /// See [`Need::Tending`].
    pub tending: bool,
}

impl Batch {
    /// What it may use of a disk that is nearly full.
    pub fn need(&self) -> Need {
        match (self.lane, self.tending) {
            (Lane::Urgent, _) => Need::Urgent,
            (_, true) => Need::Tending,
            _ => Need::Ordinary,
        }
    }
    /// Bytes it takes in an engine commit, about.
    pub fn weight(&self) -> usize {
        let writes: usize = self
            .writes
            .iter()
            .map(|(key, row)| key.len() + row.as_ref().map_or(0, Envelope::len) + 32)
            .sum();
        writes + self.audit_weight() + 64
    }
    /// Bytes it takes in an audit frame.
    pub fn audit_weight(&self) -> usize {
        self.audit.iter().map(Encoded::frame_bytes).sum()
    }
}

/// A batch that is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Committed {
    /// The version its records have; of an audit-only batch, that of the last change before it.
    pub version: Version,
    /// Sequence of its first audit record, if it had any.
    pub audit_seq: Option<u64>,
}

/// The answer to one batch.
pub type Answer = Result<Committed, CommitError>;
