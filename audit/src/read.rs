//! Reads a log in order, for `tail`. Checksums and order are checked, the chain is not: that is `verify`'s work.

use crate::{
    frame::FrameView,
    scan::{Scanner, Step},
    segment::{SegmentError, segment_files},
};
use std::{
    collections::VecDeque,
    fs::File,
    io,
    path::{Path, PathBuf},
};

/// A record and its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// Its sequence.
    pub seq: u64,
    /// The JSON, as stored.
    pub record: Vec<u8>,
}

/// Why a log cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file cannot be read.
    #[error("cannot read {0}")]
    Io(PathBuf, #[source] io::Error),
    /// A file is not a segment.
    #[error("{0}: {1}")]
    Segment(PathBuf, SegmentError),
    /// A frame is damaged or missing.
    #[error("{file}: damaged at byte {offset}, record {seq}; `strongroom audit verify` says more")]
    Damaged {
        /// The segment.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// Which record should be there.
        seq: u64,
    },
    /// The log begins later.
    #[error("record {wanted} is not in this log; the first one is {first}")]
    Gone {
        /// The record asked for.
        wanted: u64,
        /// The first there is.
        first: u64,
    },
}

/// A place in a log. After `None` it may be asked again: the log may have grown.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    open: Option<(PathBuf, Scanner<File>)>,
    next_seq: u64,
    from_seq: u64,
    ready: VecDeque<Line>,
}

/// Reads the log in `dir` from record `from_seq` on.
/// # Errors
/// [`ReadError::Gone`] when the log begins later; [`ReadError::Io`].
pub fn read(dir: &Path, from_seq: u64) -> Result<Reader, ReadError> {
    let mut reader = Reader {
        dir: dir.into(),
        open: None,
        next_seq: from_seq,
        from_seq,
        ready: VecDeque::new(),
    };
    reader.open_segment(from_seq)?;
    Ok(reader)
}

impl Reader {
    /// The next record; `None` at the end of what is there now (a torn tail counts as the end).
    /// # Errors
    /// [`ReadError`]; asking again gives it again.
    pub fn next_line(&mut self) -> Result<Option<Line>, ReadError> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            if !self.next_frame()? {
                return Ok(None);
            }
        }
    }

    /// Forgets what was read ahead: the file may have grown since.
    pub fn refresh(&mut self) {
        if let Some((_, scanner)) = &mut self.open {
            scanner.seek(scanner.offset());
        }
    }

    /// The sequence [`Self::next_line`] will give next.
    pub fn next_seq(&self) -> u64 {
        self.ready
            .front()
            .map_or(self.next_seq.max(self.from_seq), |line| line.seq)
    }

    /// Opens the segment that holds `seq`, the last one that begins at or before it.
    fn open_segment(&mut self, seq: u64) -> Result<bool, ReadError> {
        let files = segment_files(&self.dir).map_err(|error| ReadError::Io(self.dir.clone(), error))?;
        let Some((_, path)) = files.iter().rev().find(|(first, _)| *first <= seq) else {
            return match files.first() {
                Some((first, _)) => Err(ReadError::Gone {
                    wanted: seq,
                    first: *first,
                }),
                None => Ok(false),
            };
        };
        let file = File::open(path).map_err(|error| ReadError::Io(path.clone(), error))?;
        let opened = Scanner::open(file).map_err(|error| ReadError::Io(path.clone(), error))?;
        let (header, scanner) = opened.map_err(|error| ReadError::Segment(path.clone(), error))?;
        self.next_seq = header.before.seq;
        self.open = Some((path.clone(), scanner));
        Ok(true)
    }

    fn next_frame(&mut self) -> Result<bool, ReadError> {
        if self.open.is_none() && !self.open_segment(self.next_seq)? {
            return Ok(false);
        }
        let Some((path, scanner)) = &mut self.open else {
            return Ok(false);
        };
        let (next_seq, from) = (self.next_seq, self.from_seq);
        let damaged = |offset| ReadError::Damaged {
            file: path.clone(),
            offset,
            seq: next_seq,
        };
        match scanner.step().map_err(|error| ReadError::Io(path.clone(), error))? {
            Step::Frame { frame, .. } if frame.first_seq == next_seq => {
                self.next_seq = frame.head.seq;
                self.ready.extend(lines(&frame, from));
                Ok(true)
            }
            Step::Frame { offset, .. }
            | Step::Bad {
                offset, next: Some(_), ..
            } => {
                scanner.seek(offset);
                Err(damaged(offset))
            }
            Step::End { offset } | Step::Bad { offset, next: None, .. } => {
                scanner.seek(offset);
                self.go_on_behind()
            }
        }
    }

    /// At the end of a segment: on to the next one if there is one.
    fn go_on_behind(&mut self) -> Result<bool, ReadError> {
        let Some((path, scanner)) = &self.open else {
            return Ok(false);
        };
        let (path, offset) = (path.clone(), scanner.offset());
        let files = segment_files(&self.dir).map_err(|error| ReadError::Io(self.dir.clone(), error))?;
        let Some((first, _)) = files.iter().find(|(_, other)| *other > path) else {
            return Ok(false);
        };
        if *first != self.next_seq {
            return Err(ReadError::Damaged {
                file: path,
                offset,
                seq: self.next_seq,
            });
        }
        self.open_segment(self.next_seq)
    }
}

fn lines(frame: &FrameView<'_>, from_seq: u64) -> impl Iterator<Item = Line> {
    (frame.first_seq..)
        .zip(frame.records())
        .filter(move |(seq, _)| *seq >= from_seq)
        .map(|(seq, record)| Line {
            seq,
            record: record.to_vec(),
        })
}

impl Iterator for Reader {
    type Item = Result<Line, ReadError>;
    fn next(&mut self) -> Option<Self::Item> {
        self.next_line().transpose()
    }
}
