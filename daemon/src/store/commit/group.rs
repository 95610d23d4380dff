//! The committer's thread: one group at a time, and what follows when the engine fails.

use super::{
    Drain, Evidence, Heads,
    heads::{Outcomes, outbox_key, outcome_key},
    panicked,
    queue::{Item, Queue},
    refuse,
    space::Space,
};
use crate::store::{
    StoreError,
    batch::{Answer, Batch, Committed, Hook, Lane, Need, Stored, Version},
    error::CommitError,
    physical::{Embedded, Write, is_final, is_full},
};
use bytes::Bytes;
use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};
use strongroom_audit::{ChainHead, Encoded, Frame};
use tokio::sync::oneshot;
use tracing::{error, warn};

/// Drained outbox rows deleted with one group.
const DRAINED_ROWS_MAX: usize = 64;
/// Between two attempts to reopen a failed engine.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);
/// The longest that evidence waits for a sync where answers may leave before it, and the most of it.
const UNSYNCED_MAX: Duration = Duration::from_millis(50);
const UNSYNCED_BYTES_MAX: usize = 1 << 20;
/// Room for the committer's own rows in an engine's limit.
const OWN_ROWS_BYTES: usize = 32 << 10;

pub(super) struct Worker {
    embedded: Arc<Embedded>,
    heads: Heads,
    /// First and end sequence of the frames whose outbox rows are still there.
    outbox: VecDeque<(u64, u64)>,
    drain: Arc<dyn Drain>,
    space: Space,
    groups: u64,
    evidence: Evidence,
    unsynced: Unsynced,
    /// A group whose commit failed, until the reopened store says whether it was made.
    doubt: Option<Group>,
    failed_at: Option<Instant>,
    stopped: Option<String>,
}

/// Frames that are written and not yet synced. They stay out of the log's files, which must never know more than the store.
#[derive(Default)]
struct Unsynced {
    frames: Vec<Frame>,
    bytes: usize,
    since: Option<Instant>,
}

impl Unsynced {
    fn push(&mut self, frame: Frame) {
        self.since.get_or_insert_with(Instant::now);
        self.bytes += frame.bytes.len();
        self.frames.push(frame);
    }

    /// When they must be synced.
    fn due(&self) -> Option<Instant> {
        let patience = if self.bytes < UNSYNCED_BYTES_MAX {
            UNSYNCED_MAX
        } else {
            Duration::ZERO
        };
        self.since.map(|since| since + patience)
    }
}

struct Accepted {
    answer: oneshot::Sender<Answer>,
    done: Committed,
    op: crate::base::id::OpId,
    then: Vec<Hook>,
}

/// A group that is ready for the engine.
struct Group {
    accepted: Vec<Accepted>,
    overlay: HashMap<Bytes, Option<Bytes>>,
    frame: Option<Frame>,
    heads: Heads,
    outcomes: Outcomes,
    /// Nothing in it but the evidence of reads and refusals.
    relaxed: bool,
}

impl Worker {
    pub fn new(
        embedded: Arc<Embedded>,
        heads: Heads,
        outbox: Vec<u64>,
        drain: Arc<dyn Drain>,
        space: Space,
        evidence: Evidence,
    ) -> Self {
        // Old rows are known by their first sequence; the next row's first is their end, the last one ends at the head.
        let ends = outbox.iter().skip(1).copied().chain([heads.chain.seq]);
        let outbox = outbox.iter().copied().zip(ends).collect();
        Self {
            embedded,
            heads,
            outbox,
            drain,
            space,
            groups: heads.commit_seq,
            evidence,
            unsynced: Unsynced::default(),
            doubt: None,
            failed_at: None,
            stopped: None,
        }
    }

    pub fn run(&mut self, queue: &Arc<Queue>) {
        loop {
            let bytes_max = self.embedded.limits().commit_bytes_max.saturating_sub(OWN_ROWS_BYTES);
            let due = self.due();
            let Some(items) = queue.take(bytes_max, due, || self.embedded.takes_bulk()) else {
                break;
            };
            if items.is_empty() {
                self.sync();
                continue;
            }
            let batches = items.into_iter().map(|item| {
                let Item { batch, answer, place } = item;
                drop(place);
                (batch, answer)
            });
            self.group(batches.collect(), bytes_max);
        }
        self.sync();
        self.embedded.close();
    }

    fn group(&mut self, items: Vec<(Batch, oneshot::Sender<Answer>)>, bytes_max: usize) {
        let most = items
            .iter()
            .map(|(batch, _)| batch.need())
            .max()
            .unwrap_or(Need::Ordinary);
        if let Err(error) = self.usable() {
            return items.into_iter().for_each(|(_, answer)| refuse(answer, error.again()));
        }
        let met = self.space.look(&self.embedded, most);
        let drains = [false, true].map(|reserved| self.drain.ready(reserved));
        let mut group = Group::begin(self.heads);
        let mut records = Vec::new();
        for (batch, answer) in items {
            let fit = match &drains[usize::from(batch.lane == Lane::Urgent)] {
                Err(reason) if !batch.audit.is_empty() => Err(CommitError::AuditUnavailable(reason.clone())),
                _ if batch.need() < met => Err(CommitError::Full),
                _ if batch.weight() > bytes_max => Err(CommitError::TooLarge { max_bytes: bytes_max }),
                _ => self.check(&batch, &group.overlay),
            };
            match fit {
                Ok(()) => group.admit(batch, answer, &mut records),
                Err(error) => refuse(answer, error),
            }
        }
        if let Err(error) = group.seal_records(&records) {
            return group.refuse_all(&CommitError::AuditUnavailable(error));
        }
        if group.is_empty() {
            return group.finish();
        }
        self.make(group);
    }

    fn check(&self, batch: &Batch, overlay: &HashMap<Bytes, Option<Bytes>>) -> Result<(), CommitError> {
        for (index, (key, condition)) in batch.conditions.iter().enumerate() {
            let version = match overlay.get(key) {
                Some(row) => row.clone().map(|row| Stored::parse(row).version),
                None => self.embedded.version(key).map_err(CommitError::from_read)?,
            };
            if !condition.holds(version) {
                return Err(CommitError::Precondition(index));
            }
        }
        Ok(())
    }

    fn make(&mut self, mut group: Group) {
        let (rows, drained) = self.rows(&mut group);
        let synced = self.evidence == Evidence::Synced || !group.relaxed;
        let commit = catch_unwind(AssertUnwindSafe(|| match synced {
            true => self.embedded.commit(&rows),
            false => self.embedded.write(&rows),
        }));
        match commit.unwrap_or_else(|_| Err(panicked())) {
            Ok(()) => {
                self.outbox.drain(..drained);
                self.made(group);
                if synced {
                    self.release();
                } else if self.unsynced.due().is_some_and(|due| due <= Instant::now()) {
                    self.sync();
                }
            }
            Err(cause) => self.failed(group, cause),
        }
    }

    /// Everything of one engine commit: the changes, the frame, the heads, the outcomes; drained rows go.
    fn rows(&self, group: &mut Group) -> (Vec<Write>, usize) {
        let mut rows: Vec<Write> = Vec::with_capacity(group.overlay.len() + 4);
        rows.push(Write {
            key: Heads::key(),
            value: None,
        }); // its place; see below
        rows.extend(group.overlay.iter().map(|(key, value)| Write {
            key: key.clone(),
            value: value.clone(),
        }));
        if let Some(frame) = &group.frame {
            rows.push(Write {
                key: outbox_key(frame.first_seq),
                value: Some(frame.bytes.clone()),
            });
        }
        if !group.outcomes.is_empty() {
            let key = outcome_key(self.groups);
            let row = group.outcomes.row(&key, Version(group.heads.commit_seq));
            rows.push(Write { key, value: Some(row) });
        }
        let through = self.drain.drained_through();
        let drained = self
            .outbox
            .iter()
            .take(DRAINED_ROWS_MAX)
            .take_while(|(_, end)| *end <= through)
            .count();
        rows.extend(self.outbox.iter().take(drained).map(|(first, _)| Write {
            key: outbox_key(*first),
            value: None,
        }));
        if let Some((_, end)) = drained.checked_sub(1).and_then(|last| self.outbox.get(last)) {
            group.heads.outbox_from = *end;
        }
        // The heads go first: an engine that tore the commit would be found out by the missing frame.
        if let Some(first) = rows.first_mut() {
            first.value = Some(group.heads.row());
        }
        (rows, drained)
    }

    /// The group is durable: caches, hooks, waiters, drainer, in this order.
    fn made(&mut self, mut group: Group) {
        self.heads = group.heads;
        if !group.outcomes.is_empty() {
            self.groups += 1;
        }
        for (key, row) in group.overlay.drain() {
            self.embedded.remember(&key, row.map(Stored::parse));
        }
        self.embedded.remember(&Heads::key(), None);
        let frame = group.frame.take();
        if !group.run_hooks() {
            self.stop("a change was made but what had to follow it in memory failed".into());
        }
        group.finish();
        if let Some(frame) = frame {
            self.outbox.push_back((frame.first_seq, frame.end_seq()));
            self.unsynced.push(frame);
        }
    }

    /// What was written is durable now: its frames go to the drainer.
    fn release(&mut self) {
        for frame in std::mem::take(&mut self.unsynced).frames {
            self.drain.submit(frame);
        }
    }

    /// When to sync what was only written, or to try a failed engine again for its sake; never once the store is stopped.
    fn due(&self) -> Option<Instant> {
        let due = self.unsynced.due().filter(|_| self.stopped.is_none())?;
        Some(self.failed_at.map_or(due, |at| at + REOPEN_PAUSE))
    }

    /// Makes evidence durable that was only written.
    fn sync(&mut self) {
        if self.unsynced.frames.is_empty() || self.usable().is_err() || self.unsynced.frames.is_empty() {
            return;
        }
        let sync = catch_unwind(AssertUnwindSafe(|| self.embedded.sync()));
        match sync.unwrap_or_else(|_| Err(panicked())) {
            Ok(()) => self.release(),
            Err(cause) => self.failed(Group::begin(self.heads), cause),
        }
    }

    fn failed(&mut self, group: Group, cause: StoreError) {
        let mut told: &dyn std::error::Error = &cause;
        let mut words = cause.to_string();
        while let Some(source) = told.source() {
            (told, words) = (source, format!("{words}: {source}"));
        }
        if is_final(&cause) {
            group.refuse_indeterminate();
            return self.stop(words);
        }
        error!(cause = %words, "the storage engine failed at a commit; reopening it");
        self.doubt = Some(group);
        self.reopen();
        // Whoever is still in doubt is told so now; the hooks stay until the store is open again.
        if let Some(doubt) = &mut self.doubt {
            doubt.tell_indeterminate();
        }
    }

    /// Whether a group may be tried: reopens a failed engine, not too often.
    fn usable(&mut self) -> Result<(), CommitError> {
        if let Some(reason) = &self.stopped {
            return Err(CommitError::Stopped { reason: reason.clone() });
        }
        if self.failed_at.is_some_and(|at| at.elapsed() >= REOPEN_PAUSE) {
            self.reopen();
        }
        match (&self.stopped, self.failed_at) {
            (Some(reason), _) => Err(CommitError::Stopped { reason: reason.clone() }),
            (None, Some(_)) => Err(CommitError::Poisoned),
            (None, None) => Ok(()),
        }
    }

    /// Reopens through the checks of open: the heads must be those before or after the group in doubt; that settles it.
    fn reopen(&mut self) {
        self.failed_at = Some(Instant::now());
        let mut opened = self.embedded.reopen();
        if opened.as_ref().is_err_and(|cause| is_full(cause)) && self.space.make_room() {
            opened = self.embedded.reopen();
        }
        let heads = match opened.and_then(|()| self.embedded.get_row(&Heads::key())) {
            Ok(row) => row.and_then(Heads::parse),
            Err(cause) => return warn!(%cause, "the storage engine does not open yet"),
        };
        let doubt = self.doubt.take();
        let made = doubt.as_ref().is_some_and(|group| heads == Some(group.heads));
        let torn = doubt.as_ref().is_some_and(|group| self.is_torn(group, made));
        if torn || !(made || heads == Some(self.heads)) {
            if let Some(group) = doubt {
                group.refuse_indeterminate();
            }
            return self
                .stop("after reopening, the store is not where it was: changes are missing or half made".into());
        }
        self.failed_at = None;
        warn!(
            made,
            "the storage engine is open again; a change that was in doubt is settled"
        );
        match doubt {
            Some(group) if made => self.made(group),
            Some(group) => group.refuse_all(&CommitError::Poisoned),
            None => {}
        }
        // An engine that opens makes durable what it found.
        self.release();
    }

    /// Whether the engine, against its promise, made a part of a group.
    fn is_torn(&self, group: &Group, made: bool) -> bool {
        let frame = group
            .frame
            .iter()
            .map(|frame| (outbox_key(frame.first_seq), Some(frame.bytes.clone())));
        let mut rows = group
            .overlay
            .iter()
            .map(|(key, row)| (key.clone(), row.clone()))
            .chain(frame);
        !rows.all(|(key, row)| match self.embedded.get_row(&key) {
            Ok(found) => (found == row) == made || found.is_none() && row.is_none(),
            Err(_) => false,
        })
    }

    fn stop(&mut self, reason: String) {
        error!(%reason, "THE STORE IS STOPPED. Nothing is read or written until the disk was checked and the daemon restarted");
        self.embedded.stop(reason.clone());
        self.stopped = Some(reason);
    }
}

impl Group {
    fn begin(heads: Heads) -> Self {
        Self {
            accepted: Vec::new(),
            overlay: HashMap::new(),
            frame: None,
            heads,
            outcomes: Outcomes::default(),
            relaxed: true,
        }
    }

    /// Takes a batch whose preconditions hold.
    fn admit(&mut self, batch: Batch, answer: oneshot::Sender<Answer>, records: &mut Vec<Encoded>) {
        self.relaxed &= batch.relaxed && batch.writes.is_empty() && batch.lane != Lane::Urgent;
        let Batch {
            op,
            writes,
            audit,
            then,
            ..
        } = batch;
        if !writes.is_empty() {
            self.heads.commit_seq += 1;
            self.outcomes.push(op, Version(self.heads.commit_seq));
        }
        let version = Version(self.heads.commit_seq);
        for (key, row) in writes {
            let row = row.map(|row| row.stamp(version));
            match self.overlay.entry(key) {
                Entry::Occupied(mut entry) => drop(entry.insert(row)),
                Entry::Vacant(entry) => drop(entry.insert(row)),
            }
        }
        let audit_seq = (!audit.is_empty()).then_some(self.heads.chain.seq + records.len() as u64);
        records.extend(audit);
        self.accepted.push(Accepted {
            answer,
            done: Committed { version, audit_seq },
            op,
            then,
        });
    }

    /// Extends the chain by the group's records.
    fn seal_records(&mut self, records: &[Encoded]) -> Result<(), String> {
        if records.is_empty() {
            return Ok(());
        }
        let mut chain: ChainHead = self.heads.chain;
        self.frame = Some(chain.extend(records).map_err(|error| error.to_string())?);
        self.heads.chain = chain;
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.overlay.is_empty() && self.frame.is_none()
    }

    /// Runs the hooks in order; `false` when one panicked.
    fn run_hooks(&mut self) -> bool {
        let hooks = self
            .accepted
            .iter_mut()
            .flat_map(|accepted| std::mem::take(&mut accepted.then));
        // Every one runs, also after one that panicked.
        hooks
            .map(|hook| catch_unwind(AssertUnwindSafe(hook)).is_err())
            .filter(|panicked| *panicked)
            .count()
            == 0
    }

    fn finish(self) {
        for accepted in self.accepted {
            drop(accepted.answer.send(Ok(accepted.done)));
        }
    }

    fn refuse_all(self, error: &CommitError) {
        self.accepted
            .into_iter()
            .for_each(|accepted| refuse(accepted.answer, error.again()));
    }

    fn refuse_indeterminate(self) {
        self.accepted
            .into_iter()
            .for_each(|accepted| refuse(accepted.answer, CommitError::Indeterminate(accepted.op)));
    }

    /// Answers the waiters but keeps the hooks.
    fn tell_indeterminate(&mut self) {
        for accepted in &mut self.accepted {
            let (nobody, _) = oneshot::channel();
            refuse(
                std::mem::replace(&mut accepted.answer, nobody),
                CommitError::Indeterminate(accepted.op),
            );
        }
    }
}
