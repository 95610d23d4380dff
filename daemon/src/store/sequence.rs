//! The barrier's sequence: one number a sealed record, reserved durably in blocks before use, never used twice, gaps allowed. It is in every
//! record's header, and it counts what a data key has sealed (gaps count too: that errs on the safe side).

use super::{
    base::Ops,
    batch::{Batch, Lane},
    error::CommitError,
    frame,
    local::Physical,
    table::{self, RawTable},
};
use bytes::Bytes;
use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers reserved with one commit; as many may be lost with a restart.
pub(super) const SEQUENCE_BLOCK: u64 = 1 << 16;

pub(super) struct Sequence {
    next: AtomicU64,
    /// Numbers below it are reserved in the store.
    reserved: AtomicU64,
    reserving: tokio::sync::Mutex<()>,
}

impl Sequence {
    /// Goes on from what the store says was reserved.
    pub fn from(reserved: u64) -> Self {
        Self {
            next: reserved.into(),
            reserved: reserved.into(),
            reserving: tokio::sync::Mutex::new(()),
        }
    }

    /// Its row's key.
    pub fn key() -> Bytes {
        table::raw_key(RawTable::Heads, b"sequence")
    }

    /// What a row says.
    pub fn parse(framed: &[u8]) -> Option<u64> {
        Some(u64::from_be_bytes(
            frame::decode(&Self::key(), framed)?.try_into().ok()?,
        ))
    }

    pub fn now(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// `count` numbers from the one returned on.
    pub async fn take(&self, physical: &dyn Physical, ops: &Ops, count: u64) -> Result<u64, CommitError> {
        let first = self.next.fetch_add(count, Ordering::SeqCst);
        let end = first.saturating_add(count);
        if end <= self.reserved.load(Ordering::SeqCst) {
            return Ok(first);
        }
        let _one = self.reserving.lock().await;
        if end > self.reserved.load(Ordering::SeqCst) {
            let upto = end.saturating_add(SEQUENCE_BLOCK);
            let row = (Self::key(), Some(frame::encode(&Self::key(), &upto.to_be_bytes())));
            let op = ops.next();
            // Urgent: nothing can be written before it.
            let batch = Batch {
                op,
                lane: Lane::Urgent,
                conditions: Vec::new(),
                writes: vec![row],
                audit: Vec::new(),
                then: Vec::new(),
                relaxed: false,
                tending: false,
            };
            physical.commit(batch).await?;
            self.reserved.store(upto, Ordering::SeqCst);
        }
        Ok(first)
    }
}
