//! Group commit: one thread takes what is queued (no timer), checks each batch's preconditions against the engine and the group so far,
//! extends the audit chain, makes one synced engine commit, runs the hooks, wakes all, and hands the frame to the drainer.
//! State, evidence (outbox), chain head and outcomes are one engine commit: neither exists without the other. R-STORE-1, R-AUDIT-1.
//! Reading order: this file, `queue`, `group` (one group), `heads` (the rows it keeps of itself), `space`.

mod group;
mod heads;
mod queue;
mod space;

pub(super) use heads::{Heads, OUTCOME_GROUPS, outbox_key, outcome_key, parse_outcomes};
pub(super) use space::{Low, Space};

use super::{
    batch::{Answer, Batch, Committed},
    error::{CommitError, StoreError},
    physical::Embedded,
    table,
};
use crate::{
    audit::{Drainer, Lane},
    base::id::OpId,
};
use parking_lot::Mutex;
use queue::Queue;
use std::{sync::Arc, thread::JoinHandle};
use strongroom_audit::Frame;

/// Where frames go after their commit; the audit room's drainer is one.
pub trait Drain: Send + Sync + 'static {
    /// Whether records may be taken; `reserved`: for revoke, seal or recovery. While it says no, nothing that carries evidence is committed.
    /// # Errors
    /// Why not, in words for the operator.
    fn ready(&self, reserved: bool) -> Result<(), String>;
    /// Takes a frame that is durable in the outbox, in order. Blocks when it is too far behind.
    fn submit(&self, frame: Frame);
    /// Records before this sequence are durable in segments: their outbox rows may go.
    fn drained_through(&self) -> u64;
}

impl Drain for Drainer {
    fn ready(&self, reserved: bool) -> Result<(), String> {
        self.admit(if reserved { Lane::Reserved } else { Lane::Ordinary })
            .map_err(|why| why.to_string())
    }
    fn submit(&self, frame: Frame) {
        Self::submit(self, frame);
    }
    fn drained_through(&self) -> u64 {
        Self::drained_through(self)
    }
}

/// When the evidence of reads and refusals must be durable. That of changes, revocation, sealing and recovery always is before the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Evidence {
    /// Before the answer.
    #[default]
    Synced,
    /// Written before the answer, which the death of the daemon does not undo; synced at most 50 ms later, which a power loss may.
    Written,
}

/// The committer's handle.
pub struct Committer {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Committer {
    /// Starts the thread over an engine whose heads were read.
    pub(super) fn start(
        embedded: Arc<Embedded>,
        heads: Heads,
        outbox: Vec<u64>,
        drain: Arc<dyn Drain>,
        space: Space,
        evidence: Evidence,
    ) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::new());
        let mut worker = group::Worker::new(embedded, heads, outbox, drain, space, evidence);
        let taken = queue.clone();
        let thread = std::thread::Builder::new()
            .name("store-commit".into())
            .spawn(move || worker.run(&taken))?;
        Ok(Self {
            queue,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Makes a batch durable.
    pub async fn commit(&self, batch: Batch) -> Answer {
        #[cfg(feature = "bench-no-audit")]
        if batch.lane != super::batch::Lane::Urgent && batch.writes.is_empty() {
            batch.then.into_iter().for_each(|hook| hook());
            return Ok(Committed {
                version: super::batch::Version(0),
                audit_seq: None,
            });
        }
        self.queue.submit(batch).await
    }

    /// Batches waiting now.
    pub fn depth(&self) -> usize {
        self.queue.depth()
    }
}

impl Committer {
    /// Makes what is queued, then ends the thread.
    pub fn close(&self) {
        self.queue.close();
        if let Some(thread) = self.thread.lock().take() {
            drop(thread.join());
        }
    }
}

/// Whether the batch with this id was made, as far back as outcomes are kept (the last 256 groups).
pub(super) fn outcome(embedded: &Embedded, op: OpId) -> Result<Option<Committed>, StoreError> {
    let mut damaged = None;
    for slot in 0..OUTCOME_GROUPS {
        let key = outcome_key(slot);
        let Some(row) = embedded.get_row(&key)? else { continue };
        match parse_outcomes(&key, row) {
            Some(outcomes) => {
                if let Some(version) = outcomes.version_of(op) {
                    return Ok(Some(Committed {
                        version,
                        audit_seq: None,
                    }));
                }
            }
            None => damaged = Some(table::digest_words(&key)),
        }
    }
    // "Not made" may only be said when every row was read.
    damaged.map_or(Ok(None), |record| Err(StoreError::Damaged { record }))
}

fn refuse(answer: tokio::sync::oneshot::Sender<Answer>, error: CommitError) {
    drop(answer.send(Err(error)));
}

fn panicked() -> StoreError {
    StoreError::Stopped {
        reason: "the storage engine panicked at a commit".into(),
    }
}
