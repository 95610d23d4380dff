//! The offline verifier: walks every segment of a directory and names what is wrong, where. Constant memory.

use crate::{
    chain::{ChainHead, KnownHead},
    frame::{FrameError, FrameView, LinkError},
    record::{Id, Record},
    scan::{ReadAt, Scanner, Step},
    segment::{SegmentError, segment_files, segment_name},
};
use std::{fmt, fs::File, io, path::Path, path::PathBuf};

/// A report lists this many findings and counts the rest.
pub const FINDINGS_MAX: usize = 100;

/// What to compare the log with.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The log must be this cluster's; otherwise any one cluster's.
    pub cluster: Option<Id>,
    /// Heads noted elsewhere; each must occur. Without any, a log that was cut short or wholly recomputed looks whole.
    pub heads: Vec<KnownHead>,
    /// Where the first segment begins, when earlier ones were archived; otherwise the log must begin at its genesis.
    pub start: Option<ChainHead>,
}

/// What is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wrong {
    /// The file is not a segment.
    Segment(SegmentError),
    /// Its name does not agree with its header.
    Name,
    /// It belongs to another cluster than the first one, or than the one asked for.
    Cluster,
    /// The first segment does not begin at the genesis of its cluster, or at the start that was given.
    Start,
    /// The segment does not follow the one before: a segment is missing, or records are, or were changed.
    Segments {
        /// The chain after the segment before.
        expected: ChainHead,
        /// The chain this one says it follows.
        found: ChainHead,
    },
    /// Bytes that are no frame, in front of good frames or where none may be missing.
    Frame(FrameError, u64),
    /// A frame out of its place, or one whose records were changed.
    Link(LinkError),
    /// A record is not JSON of a known shape, though the chain covers it: it was written so.
    Record,
    /// A head noted elsewhere does not occur: the log was cut short, or rewritten.
    HeadMissing(KnownHead),
    /// At the place of a head noted elsewhere the log has another one: it was rewritten.
    HeadDiffers(KnownHead, ChainHead),
    /// There is no log.
    Nothing,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(error) => write!(f, "{error}"),
            Self::Name => f.write_str("the file's name does not agree with its header"),
            Self::Cluster => f.write_str("the segment belongs to another cluster"),
            Self::Start => f.write_str(
                "the log does not begin at its genesis: earlier segments are missing, or the header was changed",
            ),
            Self::Segments { expected, found } => {
                write!(
                    f,
                    "the segment does not follow the one before: expected head {expected}, found {found}"
                )
            }
            Self::Frame(error, bytes) => write!(f, "{error} ({bytes} bytes are damaged or were overwritten)"),
            Self::Link(error) => write!(f, "{error}"),
            Self::Record => f.write_str("a record that is not JSON of a known shape"),
            Self::HeadMissing(head) => {
                let hash = data_encoding::HEXLOWER.encode(&head.hash);
                let seq = head.seq.map(|seq| format!("/{seq}")).unwrap_or_default();
                write!(
                    f,
                    "the head {hash}{seq} that was noted is not in the log: it was cut short or rewritten"
                )
            }
            Self::HeadDiffers(_, found) => {
                write!(f, "the log has head {found} where another was noted: it was rewritten")
            }
            Self::Nothing => f.write_str("there are no segments here"),
        }
    }
}

/// One thing that is wrong, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The segment's file name; the directory when no file is concerned.
    pub file: PathBuf,
    /// Byte in it.
    pub offset: u64,
    /// The record that should be there.
    pub seq: u64,
    /// What is wrong.
    pub what: Wrong,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: byte {}, record {}: {}",
            self.file.display(),
            self.offset,
            self.seq,
            self.what
        )
    }
}

/// Bytes behind the last good frame with nothing valid after them: a write that a crash cut short, and the daemon mends at its next
/// start from the store's outbox. A changed last frame looks the same, so it is not clean either.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TornTail {
    /// The last segment.
    pub file: PathBuf,
    /// Where the bytes begin.
    pub offset: u64,
    /// Up to the last one that is not zero.
    pub bytes: u64,
    /// The record that should be there.
    pub seq: u64,
}

/// The verdict.
#[derive(Clone, Debug)]
pub struct Report {
    /// Segment files read.
    pub segments: u64,
    /// Records seen in good frames.
    pub records: u64,
    /// Where the log begins.
    pub first: Option<ChainHead>,
    /// The head of the log, to be noted elsewhere. Means nothing when there are findings.
    pub head: Option<ChainHead>,
    /// What is wrong, the first [`FINDINGS_MAX`] of them.
    pub findings: Vec<Finding>,
    /// Findings beyond those.
    pub more_findings: u64,
    /// A write that was cut short at the very end.
    pub torn: Option<TornTail>,
}

impl Report {
    /// Nothing wrong, and nothing torn.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.torn.is_none()
    }
}

/// The files could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {0}")]
pub struct VerifyError(pub PathBuf, #[source] pub io::Error);

/// Verifies the log in `dir`. Run it on a copy, or expect a torn tail while a daemon writes.
/// # Errors
/// Only when files cannot be read; everything wrong with their content is in the report.
pub fn verify(dir: &Path, options: &Options) -> Result<Report, VerifyError> {
    let files = segment_files(dir).map_err(|error| VerifyError(dir.into(), error))?;
    let mut walk = Walk::new(options);
    let count = files.len();
    for (index, (seq, path)) in files.into_iter().enumerate() {
        let result = File::open(&path).and_then(|file| walk.segment(seq, file, index + 1 == count));
        result.map_err(|error| VerifyError(path, error))?;
    }
    Ok(walk.finish(dir))
}

struct Walk<'o> {
    options: &'o Options,
    cluster: Option<Id>,
    head: Option<ChainHead>,
    /// Heads of `options` not seen yet.
    wanted: Vec<KnownHead>,
    /// After damage the next frame's records cannot be tied to a head before them: it is believed once, to find what follows.
    lost: bool,
    file: PathBuf,
    report: Report,
}

impl<'o> Walk<'o> {
    fn new(options: &'o Options) -> Self {
        let report = Report {
            segments: 0,
            records: 0,
            first: None,
            head: None,
            findings: Vec::new(),
            more_findings: 0,
            torn: None,
        };
        let wanted = options.heads.clone();
        Self {
            options,
            cluster: options.cluster,
            head: None,
            wanted,
            lost: false,
            file: PathBuf::new(),
            report,
        }
    }

    fn find(&mut self, offset: u64, seq: u64, what: Wrong) {
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(Finding {
                file: self.file.clone(),
                offset,
                seq,
                what,
            });
        } else {
            self.report.more_findings += 1;
        }
    }

    fn segment<R: ReadAt>(&mut self, name_seq: u64, file: R, last: bool) -> io::Result<()> {
        self.report.segments += 1;
        self.file = segment_name(name_seq).into();
        let (header, mut scanner) = match Scanner::open(file)? {
            Ok(opened) => opened,
            Err(error) => {
                self.find(0, name_seq, Wrong::Segment(error));
                self.lost = true;
                return Ok(());
            }
        };
        if header.before.seq != name_seq {
            self.find(0, header.before.seq, Wrong::Name);
        }
        if *self.cluster.get_or_insert(header.cluster) != header.cluster {
            self.find(0, header.before.seq, Wrong::Cluster);
        }
        self.join(header.cluster, header.before);
        self.frames(&mut scanner, last)
    }

    /// Ties a segment's beginning to what came before it.
    fn join(&mut self, cluster: Id, before: ChainHead) {
        match self.head {
            None => {
                let start = self.options.start.unwrap_or_else(|| ChainHead::genesis(cluster));
                if before != start && !self.lost {
                    self.find(0, before.seq, Wrong::Start);
                }
                self.report.first = Some(before);
            }
            Some(expected) if expected != before && !self.lost => {
                self.find(
                    0,
                    expected.seq,
                    Wrong::Segments {
                        expected,
                        found: before,
                    },
                );
            }
            Some(_) => {}
        }
        self.lost = false;
        self.reach(before);
    }

    fn frames<R: ReadAt>(&mut self, scanner: &mut Scanner<R>, last: bool) -> io::Result<()> {
        loop {
            let seq = self.head.map_or(0, |head| head.seq);
            match scanner.step()? {
                Step::Frame { offset, frame } => self.frame(offset, &frame),
                Step::End { .. } => return Ok(()),
                Step::Bad {
                    offset,
                    next: None,
                    bytes,
                    ..
                } if last => {
                    self.report.torn = Some(TornTail {
                        file: self.file.clone(),
                        offset,
                        bytes,
                        seq,
                    });
                    return Ok(());
                }
                Step::Bad {
                    offset,
                    error,
                    next,
                    bytes,
                } => {
                    self.find(offset, seq, Wrong::Frame(error, bytes));
                    self.lost = true;
                    if next.is_none() {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn frame(&mut self, offset: u64, frame: &FrameView<'_>) {
        self.report.records += u64::from(frame.count);
        let Some(before) = self.head.filter(|_| !self.lost) else {
            self.lost = false;
            return self.reach(frame.head);
        };
        if let Err(error) = before.follow(frame) {
            self.find(offset, before.seq, Wrong::Link(error));
            return self.reach(frame.head);
        }
        let mut head = before;
        for record in frame.records() {
            if serde_json::from_slice::<Record<'_>>(record).is_err() {
                self.find(offset, head.seq, Wrong::Record);
            }
            // Hashed a second time only when a head inside the frame may be the one that was noted.
            if !self.wanted.is_empty() {
                head = head.after(record);
                self.reach(head);
            } else {
                head.seq += 1;
            }
        }
        self.reach(frame.head);
    }

    /// The log is known to have had this head.
    fn reach(&mut self, head: ChainHead) {
        self.head = Some(head);
        if self.wanted.is_empty() {
            return;
        }
        let differs: Vec<_> = self
            .wanted
            .iter()
            .filter(|known| known.seq == Some(head.seq) && !known.is(&head))
            .copied()
            .collect();
        self.wanted
            .retain(|known| !known.is(&head) && known.seq != Some(head.seq));
        for known in differs {
            self.find(0, head.seq, Wrong::HeadDiffers(known, head));
        }
    }

    fn finish(mut self, dir: &Path) -> Report {
        if self.report.segments == 0 {
            self.file = dir.into();
            self.find(0, 0, Wrong::Nothing);
        }
        let seq = self.head.map_or(0, |head| head.seq);
        for known in std::mem::take(&mut self.wanted) {
            self.find(0, seq, Wrong::HeadMissing(known));
        }
        self.report.head = self.head;
        self.report
    }
}

#[cfg(test)]
mod tests;
