//! Moves frames from the store's outbox into the segments, off the path of any answer. R-AUDIT-1, R-AUDIT-3.
//!
//! A frame is durable before it comes here: the store's commit wrote it to the outbox together with the change and the chain head. So
//! nothing is lost when this thread is behind, cannot write or dies; the store keeps a row until [`Drainer::drained_through`] has
//! passed it. What it must not do is fall behind without end, so commits are refused ([`Drainer::admit`]) while it cannot write.

use super::{
    disk::{LogDir, OsDir},
    error::{Damage, OpenError, Unavailable},
    segments::{AppendError, Segments, TornTail},
    tail::Tail,
};
use crate::base::id::ClusterId;
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use std::{
    collections::VecDeque,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};
use strongroom_audit::{ChainHead, Frame, Id, ReadError, decode_frame};
use tokio::sync::watch;

/// The longest a frame waits for company before it is written.
pub const DRAIN_DELAY: Duration = Duration::from_millis(5);
/// So many waiting bytes are written at once, without delay.
pub const DRAIN_BYTES: usize = 1 << 20;
/// So many waiting bytes stop the committer until some are written.
pub const LAG_BYTES_MAX: usize = 4 << 20;
/// What revocation, sealing and recovery may leave waiting while nothing can be written: it is safe in the outbox meanwhile.
pub const RESERVE_BYTES_MAX: usize = 16 << 20;
/// How often a log that cannot grow is tried again.
pub const RETRY_DELAY: Duration = Duration::from_millis(250);

/// Where the log is and how large its files are.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The directory, made when missing.
    pub dir: PathBuf,
    /// Bytes of a new segment ([`super::SEGMENT_BYTES_MIN`] to [`super::SEGMENT_BYTES_MAX`]).
    pub segment_bytes: u64,
}

/// How much a commit may lean on the outbox while the log cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Refused at once.
    Ordinary,
    /// Revocation, sealing, recovery: goes on until [`RESERVE_BYTES_MAX`] wait.
    Reserved,
}

/// The log that was opened.
pub struct Opened {
    /// Takes frames from now on.
    pub drainer: Drainer,
    /// A torn tail that was cut: the store's first commit carries [`super::Recorder::torn_tail`] of it.
    pub torn: Option<TornTail>,
}

/// The running drainer. Dropping it writes what waits, if it can, and ends the thread.
pub struct Drainer {
    shared: Arc<Shared>,
    drained: watch::Receiver<u64>,
    dir: PathBuf,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// The drainer waits here for frames.
    wake: Condvar,
    /// The committer waits here for room.
    room: Condvar,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Frame>,
    /// Bytes in `frames` and of those being written now.
    bytes: usize,
    unavailable: Option<Unavailable>,
    closing: bool,
}

impl Drainer {
    /// Opens the log in a real directory; see [`Self::open_in`].
    /// # Errors
    /// [`OpenError`].
    pub fn open<E: fmt::Display>(
        settings: &Settings,
        cluster: ClusterId,
        store: ChainHead,
        outbox: impl IntoIterator<Item = Result<Bytes, E>>,
    ) -> Result<Opened, OpenError> {
        let dir = OsDir::open(&settings.dir).map_err(|error| OpenError::Io(settings.dir.clone(), error))?;
        Self::open_in(Box::new(dir), settings, cluster, store, outbox)
    }

    /// Finds the end of the log, finishes it from `outbox` (rows in order of their sequence; rows already in the log are passed over),
    /// requires its head to be `store`'s, and starts the thread.
    /// # Errors
    /// [`OpenError`]; a difference that no crash explains is an error, never mended.
    pub fn open_in<E: fmt::Display>(
        dir: Box<dyn LogDir>,
        settings: &Settings,
        cluster: ClusterId,
        store: ChainHead,
        outbox: impl IntoIterator<Item = Result<Bytes, E>>,
    ) -> Result<Opened, OpenError> {
        let mut log = Segments::open(dir, Id(*cluster.as_bytes()), settings.segment_bytes)
            .map_err(|error| error.within(&settings.dir))?;
        let missing = missing(log.head(), outbox).map_err(|error| log.damage().unwrap_or(error))?;
        let end = missing.last().map_or(log.head(), |frame| frame.head);
        if end != store {
            return Err(log.damage().unwrap_or(OpenError::Heads { log: end, store }));
        }
        // Only now: a log that does not open stays as it was found.
        let torn = log.cut_tail().map_err(|error| error.within(&settings.dir))?;
        log.append(&missing)
            .map_err(|error| OpenError::append(error).within(&settings.dir))?;
        let (publish, drained) = watch::channel(log.head().seq);
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
            room: Condvar::new(),
        });
        let worker = Worker {
            shared: Arc::clone(&shared),
            log,
            publish,
            batch: Vec::new(),
        };
        let thread = std::thread::Builder::new()
            .name("audit-drainer".into())
            .spawn(move || worker.run())
            .map_err(OpenError::Thread)?;
        let drainer = Self {
            shared,
            drained,
            dir: settings.dir.clone(),
            thread: Some(thread),
        };
        Ok(Opened { drainer, torn })
    }

    /// Whether a commit with records may go on now. Asked before the commit, because after it the frame exists.
    /// # Errors
    /// [`Unavailable`] while nothing can be written.
    pub fn admit(&self, lane: Lane) -> Result<(), Unavailable> {
        let queue = self.shared.queue.lock();
        match queue.unavailable {
            None => Ok(()),
            Some(Unavailable::DiskFull | Unavailable::Unwritable)
                if lane == Lane::Reserved && queue.bytes < RESERVE_BYTES_MAX =>
            {
                Ok(())
            }
            Some(why) => Err(why),
        }
    }

    /// Takes a committed frame, in chain order. Waits while more than [`LAG_BYTES_MAX`] are behind, except when nothing can be written:
    /// then it takes the frame (which is safe in the outbox) and [`Self::admit`] refuses the next.
    pub fn submit(&self, frame: Frame) {
        let mut queue = self.shared.queue.lock();
        while queue.bytes >= LAG_BYTES_MAX && queue.unavailable.is_none() {
            self.shared.room.wait(&mut queue);
        }
        let before = queue.bytes;
        queue.bytes += frame.bytes.len();
        queue.frames.push_back(frame);
        if before == 0 || (before < DRAIN_BYTES && queue.bytes >= DRAIN_BYTES) {
            self.shared.wake.notify_one();
        }
    }

    /// Records before this sequence are in the segments, synced: their outbox rows may go.
    pub fn drained_through(&self) -> u64 {
        *self.drained.borrow()
    }

    /// Bytes that are committed but not yet in the segments.
    pub fn lag_bytes(&self) -> usize {
        self.shared.queue.lock().bytes
    }

    /// Why nothing can be written, if so.
    pub fn unavailable(&self) -> Option<Unavailable> {
        self.shared.queue.lock().unavailable
    }

    /// Reads from record `from_seq` on what is in the segments; with `follow` it waits for more.
    /// # Errors
    /// [`ReadError`] when that record is not there any more or a file cannot be read.
    pub fn tail(&self, from_seq: u64, follow: bool) -> Result<Tail, ReadError> {
        Tail::open(&self.dir, from_seq, self.drained.clone(), follow)
    }

    /// The directory of the log.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl fmt::Debug for Drainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Drainer(through {})", self.drained_through())
    }
}

impl Drop for Drainer {
    fn drop(&mut self) {
        self.shared.queue.lock().closing = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The frames of the outbox that go on from `head`. What waits is bounded, so they fit into memory.
fn missing<E: fmt::Display>(
    mut head: ChainHead,
    outbox: impl IntoIterator<Item = Result<Bytes, E>>,
) -> Result<Vec<Frame>, OpenError> {
    let mut frames = Vec::new();
    for row in outbox {
        let row = row.map_err(|error| OpenError::OutboxRead(error.to_string()))?;
        let damaged = |why| OpenError::Outbox { seq: head.seq, why };
        let frame = Frame::from_bytes(row).map_err(|error| damaged(Damage::Frame(error)))?;
        if frame.end_seq() <= head.seq {
            continue;
        }
        if frame.first_seq > head.seq && frames.is_empty() {
            // The log ends before the outbox begins: the heads will not agree, and say more.
            break;
        }
        let view = decode_frame(&frame.bytes).map_err(|error| damaged(Damage::Frame(error)))?;
        head = head.follow(&view).map_err(|error| damaged(Damage::Link(error)))?;
        frames.push(frame);
    }
    Ok(frames)
}

struct Worker {
    shared: Arc<Shared>,
    log: Segments,
    publish: watch::Sender<u64>,
    batch: Vec<Frame>,
}

impl Worker {
    fn run(mut self) {
        while self.collect() {
            if !self.drain() {
                return;
            }
        }
    }

    /// Waits for frames and a little longer for company; false when closing and nothing is left.
    fn collect(&mut self) -> bool {
        let mut queue = self.shared.queue.lock();
        while queue.frames.is_empty() && !queue.closing {
            self.shared.wake.wait(&mut queue);
        }
        if queue.bytes < DRAIN_BYTES && !queue.closing {
            self.shared.wake.wait_for(&mut queue, DRAIN_DELAY);
        }
        self.batch.extend(queue.frames.drain(..));
        !self.batch.is_empty()
    }

    /// Writes the batch, trying again for as long as that can help; false when the thread must end.
    fn drain(&mut self) -> bool {
        loop {
            match self.log.append(&self.batch) {
                Ok(()) => break,
                Err(AppendError::Failed(error)) => {
                    tracing::error!(%error, "the audit log's disk failed: answers stop until the daemon is restarted on a checked medium");
                    self.set_unavailable(Unavailable::Failed);
                    return false;
                }
                Err(AppendError::Again(error)) => {
                    if !self.wait_for_space(&error) {
                        return false;
                    }
                }
            }
            self.forget_written();
        }
        self.forget_written();
        true
    }

    /// Forgets the frames that are in the log now, and tells who waits.
    fn forget_written(&mut self) {
        let head = self.log.head();
        let written = self
            .batch
            .iter()
            .take_while(|frame| frame.end_seq() <= head.seq)
            .count();
        let bytes: usize = self.batch.drain(..written).map(|frame| frame.bytes.len()).sum();
        self.publish.send_replace(head.seq);
        let mut queue = self.shared.queue.lock();
        queue.bytes -= bytes;
        if self.batch.is_empty() && queue.unavailable.take().is_some() {
            tracing::warn!("the audit log is written again: service resumes");
        }
        drop(queue);
        self.shared.room.notify_all();
    }

    fn wait_for_space(&self, error: &io::Error) -> bool {
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let why = if full {
            Unavailable::DiskFull
        } else {
            Unavailable::Unwritable
        };
        if self.shared.queue.lock().unavailable != Some(why) {
            tracing::error!(%error, "the audit log cannot grow: answers stop until it can");
        }
        self.set_unavailable(why);
        let mut queue = self.shared.queue.lock();
        if !queue.closing {
            self.shared.wake.wait_for(&mut queue, RETRY_DELAY);
        }
        // Closing: what waits is in the outbox, and the next start finishes it.
        !queue.closing
    }

    fn set_unavailable(&self, why: Unavailable) {
        self.shared.queue.lock().unavailable = Some(why);
        self.shared.room.notify_all();
    }
}

/// However the thread ends, nobody waits for it any more.
impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.queue.lock().unavailable.get_or_insert(Unavailable::Closed);
        self.shared.room.notify_all();
    }
}

#[cfg(test)]
mod tests;
