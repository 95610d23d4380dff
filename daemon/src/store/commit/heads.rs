//! The rows the committer keeps of itself: the heads (commit sequence, audit chain), and which batches the last groups made.

use crate::{
    base::id::OpId,
    store::{
        batch::{Stored, Version},
        frame,
        table::{self, RawTable},
    },
};
use bytes::Bytes;
use strongroom_audit::ChainHead;

/// Groups whose outcomes are kept: a ring of rows, overwritten, never deleted.
pub const OUTCOME_GROUPS: u64 = 256;

/// Where the store stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heads {
    /// Versions up to this one were given.
    pub commit_seq: u64,
    /// The audit log's head.
    pub chain: ChainHead,
    /// Outbox rows before this sequence are gone: their tombstones need not be walked.
    pub outbox_from: u64,
}

impl Heads {
    /// Its key.
    pub fn key() -> Bytes {
        table::raw_key(RawTable::Heads, b"head")
    }
    /// Its row.
    pub fn row(&self) -> Bytes {
        let mut value = self.commit_seq.to_be_bytes().to_vec();
        value.extend_from_slice(&self.outbox_from.to_be_bytes());
        value.extend_from_slice(&self.chain.to_bytes());
        frame::encode(&Self::key(), &value).stamp(Version(self.commit_seq))
    }
    /// Reads its row; `None` when it is damaged.
    pub fn parse(row: Bytes) -> Option<Self> {
        let stored = Stored::parse(row);
        Self::of_value(frame::decode(&Self::key(), &stored.bytes)?)
    }
    /// Reads what is inside the row's frame.
    pub fn of_value(value: &[u8]) -> Option<Self> {
        let (seq, rest) = value.split_first_chunk::<8>()?;
        let (from, chain) = rest.split_first_chunk::<8>()?;
        let chain = ChainHead::from_bytes(chain.try_into().ok()?);
        Some(Self {
            commit_seq: u64::from_be_bytes(*seq),
            chain,
            outbox_from: u64::from_be_bytes(*from),
        })
    }
}

/// The row of a group in the ring.
pub fn outcome_key(group: u64) -> Bytes {
    let slot = u8::try_from(group % OUTCOME_GROUPS).unwrap_or_default();
    table::raw_key(RawTable::Outcomes, &[slot])
}

/// Which batches a group made.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcomes(Vec<(OpId, Version)>);

impl Outcomes {
    pub fn push(&mut self, op: OpId, version: Version) {
        self.0.push((op, version));
    }
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    pub fn version_of(&self, op: OpId) -> Option<Version> {
        self.0.iter().find(|(made, _)| *made == op).map(|(_, version)| *version)
    }
    pub fn row(&self, key: &[u8], version: Version) -> Bytes {
        let mut value = Vec::with_capacity(self.0.len() * 24);
        for (op, version) in &self.0 {
            value.extend_from_slice(op.as_bytes());
            value.extend_from_slice(&version.0.to_be_bytes());
        }
        frame::encode(key, &value).stamp(version)
    }
}

/// Reads a row of the ring; `None` when it is damaged.
pub fn parse_outcomes(key: &[u8], row: Bytes) -> Option<Outcomes> {
    let stored = Stored::parse(row);
    let value = frame::decode(key, &stored.bytes)?;
    let mut outcomes = Outcomes::default();
    for entry in value.chunks(24) {
        let (op, version) = entry.split_first_chunk::<16>()?;
        outcomes.push(
            OpId::from_bytes(*op),
            Version(u64::from_be_bytes(version.try_into().ok()?)),
        );
    }
    Some(outcomes)
}

/// The key of the frame whose first record has this sequence.
pub fn outbox_key(first_seq: u64) -> Bytes {
    table::raw_key(RawTable::Outbox, &first_seq.to_be_bytes())
}
