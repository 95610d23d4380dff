//! The log's files: found, mended and continued at open, appended to, rolled over. No thread, no queue: `drainer` has those.
//!
//! A new segment is filled with zeros and synced under another name before it gets its own, so a file with a segment's name always has
//! a good header; and its blocks are on the disk, so that an append is one device flush and cannot run out of space.

use super::{
    disk::{LogDir, LogFile},
    error::{Damage, OpenError},
};
use sha2::{Digest, Sha256};
use std::{io, path::PathBuf};
use strongroom_audit::{ChainHead, FRAMES_OFFSET, Frame, Id, ReadAt, Scanner, SegmentHeader, Step, segment_name};

/// The least size of a segment (one that begins with a longer frame is as long as that needs).
pub const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// The largest size of a segment.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// The size of a segment when the configuration says nothing: 16 MiB.
pub const SEGMENT_BYTES_DEFAULT: u64 = 16 << 20;
const NEXT_NAME: &str = "next.tmp";
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// Bytes behind the last whole frame that were cut at open: writes in flight at a crash. The frames they belonged to came again from
/// the outbox, or the log would not have opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The segment's file name.
    pub file: String,
    /// Where they began.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
    /// SHA-256 of them.
    pub sha256: [u8; 32],
}

/// Why an append did not happen. The position did not move: the same frames may be appended again, except after `Failed`.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Nothing on the disk is in doubt.
    #[error("the audit log cannot grow")]
    Again(#[source] io::Error),
    /// The disk's content is in doubt: a failed sync is never tried again, because the kernel forgets what it could not write
    /// and the second sync would lie.
    #[error("the audit log's disk failed")]
    Failed(#[source] io::Error),
}

impl AppendError {
    /// A failed write: a full disk passes, a broken one does not.
    fn of_write(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::OutOfMemory => {
                Self::Again(error)
            }
            _ if error.raw_os_error() == Some(libc::EIO) => Self::Failed(error),
            _ => Self::Again(error),
        }
    }
}

struct Current {
    file: Box<dyn LogFile>,
    /// Where the next frame goes.
    at: u64,
    size: u64,
}

/// The open log.
pub struct Segments {
    dir: Box<dyn LogDir>,
    cluster: Id,
    segment_bytes: u64,
    current: Option<Current>,
    head: ChainHead,
    buffer: Vec<u8>,
    /// Something is behind the last whole frame.
    tail: Option<Tail>,
}

/// What is behind the last whole frame: left as it is until the store has confirmed what belongs there.
struct Tail {
    file: String,
    offset: u64,
    bytes: u64,
    /// Whole frames are behind it. One write of several frames can leave that after a power cut; so can an edit.
    damage: Option<OpenError>,
}

impl Segments {
    /// Finds the end of the log: walks the last segment, checks its chain. Changes nothing but a leftover of [`NEXT_NAME`].
    /// # Errors
    /// [`OpenError`] when the directory cannot be used or the last segment's header or chain is wrong.
    pub fn open(dir: Box<dyn LogDir>, cluster: Id, segment_bytes: u64) -> Result<Self, OpenError> {
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_bytes) {
            return Err(OpenError::SegmentBytes {
                min: SEGMENT_BYTES_MIN,
                max: SEGMENT_BYTES_MAX,
            });
        }
        let unusable = |error| OpenError::Io(PathBuf::new(), error);
        dir.remove(NEXT_NAME).map_err(unusable)?;
        let last = dir.segments().map_err(unusable)?.last().copied();
        let head = ChainHead::genesis(cluster);
        let mut log = Self {
            dir,
            cluster,
            segment_bytes,
            current: None,
            head,
            buffer: Vec::new(),
            tail: None,
        };
        if let Some(seq) = last {
            log.resume(&segment_name(seq))?;
        }
        Ok(log)
    }

    /// Begins a new segment that claims to follow `before`, behind whatever is there: for repair.
    /// # Errors
    /// [`OpenError::Io`].
    pub fn begin(dir: Box<dyn LogDir>, cluster: Id, segment_bytes: u64, before: ChainHead) -> Result<Self, OpenError> {
        let mut log = Self {
            dir,
            cluster,
            segment_bytes,
            current: None,
            head: before,
            buffer: Vec::new(),
            tail: None,
        };
        log.roll(0).map_err(OpenError::append)?;
        Ok(log)
    }

    /// Why what is behind the last frame may not be a crash's doing.
    pub fn damage(&mut self) -> Option<OpenError> {
        self.tail.as_mut()?.damage.take()
    }

    /// Zeroes what is behind the last whole frame. Only when every frame from there on is at hand.
    /// # Errors
    /// [`OpenError::Io`].
    pub fn cut_tail(&mut self) -> Result<Option<TornTail>, OpenError> {
        let (Some(tail), Some(current)) = (self.tail.take(), &self.current) else {
            return Ok(None);
        };
        let cut = cut(&*current.file, &tail).map_err(|error| OpenError::Io(tail.file.into(), error))?;
        Ok(Some(cut))
    }

    /// The chain after the last frame.
    pub fn head(&self) -> ChainHead {
        self.head
    }

    /// Appends frames that follow each other and the head, durably: all of them when Ok.
    /// # Errors
    /// [`AppendError`]; the head then stays where it was.
    pub fn append(&mut self, frames: &[Frame]) -> Result<(), AppendError> {
        let mut rest = frames;
        while let Some(first) = rest.first() {
            if !self.has_room(first) {
                self.roll(first.bytes.len() as u64)?;
            }
            let fitting = self.fitting(rest);
            let (now, later) = rest.split_at_checked(fitting).unwrap_or((rest, &[]));
            self.write(now)?;
            rest = later;
        }
        Ok(())
    }

    fn has_room(&self, frame: &Frame) -> bool {
        self.current
            .as_ref()
            .is_some_and(|current| current.at + frame.bytes.len() as u64 <= current.size)
    }

    /// How many of `frames` the current segment takes; at least one.
    fn fitting(&self, frames: &[Frame]) -> usize {
        let mut room = self.current.as_ref().map_or(0, |current| current.size - current.at);
        let fit = frames
            .iter()
            .take_while(|frame| match room.checked_sub(frame.bytes.len() as u64) {
                Some(left) => {
                    room = left;
                    true
                }
                None => false,
            });
        fit.count().max(1)
    }

    fn write(&mut self, frames: &[Frame]) -> Result<(), AppendError> {
        let (Some(current), Some(last)) = (&mut self.current, frames.last()) else {
            return Ok(());
        };
        self.buffer.clear();
        for frame in frames {
            self.buffer.extend_from_slice(&frame.bytes);
        }
        current
            .file
            .write_at(&self.buffer, current.at)
            .map_err(AppendError::of_write)?;
        current.file.sync().map_err(AppendError::Failed)?;
        current.at += self.buffer.len() as u64;
        self.head = last.head;
        Ok(())
    }

    /// Begins the next segment, with room for at least one frame of `frame_bytes`.
    fn roll(&mut self, frame_bytes: u64) -> Result<(), AppendError> {
        let before = self.head;
        let size = self.segment_bytes.max(FRAMES_OFFSET + frame_bytes);
        let file = match self.prepare(before, size) {
            Ok(file) => file,
            Err(error) => {
                // Half a file of zeros must not sit on the space that is missing.
                let _ = self.dir.remove(NEXT_NAME);
                return Err(error);
            }
        };
        self.dir
            .rename(NEXT_NAME, &segment_name(before.seq))
            .map_err(AppendError::of_write)?;
        self.dir.sync().map_err(AppendError::Failed)?;
        self.current = Some(Current {
            file,
            at: FRAMES_OFFSET,
            size,
        });
        Ok(())
    }

    /// A whole segment without frames, on the disk, under a passing name. Until it is renamed nothing depends on it, so even a failed
    /// sync for want of space may be tried again, with a new file.
    fn prepare(&self, before: ChainHead, size: u64) -> Result<Box<dyn LogFile>, AppendError> {
        let file = self.dir.create(NEXT_NAME).map_err(AppendError::of_write)?;
        let mut at = 0;
        while at < size {
            let length = (size - at).min(ZEROS.len() as u64);
            let zeros = ZEROS
                .get(..usize::try_from(length).unwrap_or(ZEROS.len()))
                .unwrap_or(&ZEROS);
            file.write_at(zeros, at).map_err(AppendError::of_write)?;
            at += length;
        }
        let header = SegmentHeader {
            cluster: self.cluster,
            before,
        }
        .encode();
        file.write_at(&header, 0).map_err(AppendError::of_write)?;
        file.sync().map_err(AppendError::of_write)?;
        Ok(file)
    }

    /// Takes up the last segment where it ends.
    fn resume(&mut self, name: &str) -> Result<(), OpenError> {
        let unusable = |error| OpenError::Io(name.into(), error);
        let file = self.dir.open(name).map_err(unusable)?;
        let size = file.size().map_err(unusable)?;
        let (header, mut scanner) = Scanner::open(file)
            .map_err(unusable)?
            .map_err(|error| OpenError::Segment {
                file: name.into(),
                error,
            })?;
        if header.cluster != self.cluster {
            return Err(OpenError::Cluster { file: name.into() });
        }
        if segment_name(header.before.seq) != name {
            let error = strongroom_audit::SegmentError::Damaged;
            return Err(OpenError::Segment {
                file: name.into(),
                error,
            });
        }
        let mut head = header.before;
        let damaged = |offset, seq, why| OpenError::Damaged {
            file: name.into(),
            offset,
            seq,
            why,
        };
        let at = loop {
            match scanner.step().map_err(unusable)? {
                Step::Frame { offset, frame } => {
                    head = head
                        .follow(&frame)
                        .map_err(|error| damaged(offset, head.seq, Damage::Link(error)))?;
                }
                Step::End { offset } => break offset,
                Step::Bad {
                    offset, error, next, ..
                } => {
                    let damage = next.map(|_| damaged(offset, head.seq, Damage::Frame(error)));
                    let last = scanner.last_nonzero(offset).map_err(unusable)?.unwrap_or(offset);
                    self.tail = Some(Tail {
                        file: name.into(),
                        offset,
                        bytes: last + 1 - offset,
                        damage,
                    });
                    break offset;
                }
            }
        };
        self.head = head;
        self.current = Some(Current {
            file: scanner.into_file(),
            at,
            size,
        });
        Ok(())
    }
}

/// Hashes and zeroes a tail.
fn cut(file: &dyn LogFile, tail: &Tail) -> io::Result<TornTail> {
    let (offset, bytes) = (tail.offset, tail.bytes);
    let mut hash = Sha256::new();
    let mut block = vec![0; ZEROS.len()];
    let end = offset + bytes;
    let mut at = offset;
    while at < end {
        let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(block.len());
        let Some(part) = block.get_mut(..length) else { break };
        let read = file.read_at(part, at)?;
        if read == 0 {
            break;
        }
        hash.update(part.get(..read).unwrap_or_default());
        at += read as u64;
    }
    at = offset;
    while at < end {
        let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(ZEROS.len());
        file.write_at(ZEROS.get(..length).unwrap_or(&ZEROS), at)?;
        at += length as u64;
    }
    file.sync()?;
    Ok(TornTail {
        file: tail.file.clone(),
        offset,
        bytes,
        sha256: hash.finalize().into(),
    })
}
