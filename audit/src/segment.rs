//! A segment: one file of frames, zero-filled ahead, named by its first sequence. All numbers big-endian.
//!
//! ```text
//!     0  8  magic "SRAUDIT\n"
//!     8  4  version 1
//!    12 16  cluster id
//!    28  8  sequence of the first record
//!    36 32  chain head before it
//!    68  4  CRC-32 (IEEE) of everything before
//!    72     zeros
//!  4096     frames, back to back; zeros to the end of the file are room for more
//! ```

use crate::{chain::ChainHead, record::Id};
use std::{io, path::Path, path::PathBuf};

const MAGIC: [u8; 8] = *b"SRAUDIT\n";
const VERSION: u32 = 1;
const SUFFIX: &str = ".audit";

/// The header proper; the rest of its page is zeros.
pub const SEGMENT_HEADER_BYTES: usize = 72;
static ZEROS: [u8; FRAMES_OFFSET as usize] = [0; FRAMES_OFFSET as usize];

/// Where frames begin: the header's page is never written again.
pub const FRAMES_OFFSET: u64 = 4096;

/// Why a file is not a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// Shorter than a header.
    #[error("the file is shorter than a segment header")]
    Truncated,
    /// It does not begin like one.
    #[error("the file is not an audit segment")]
    Magic,
    /// A later format.
    #[error("the segment has version {0}, which this program does not know")]
    Version(u32),
    /// CRC-32 differs, or the rest of the header's page is not zero.
    #[error("the segment's header is damaged")]
    Damaged,
}

/// The start of a segment file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// Whose log it is.
    pub cluster: Id,
    /// The chain before its first record.
    pub before: ChainHead,
}

impl SegmentHeader {
    /// The header as stored.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&self.cluster.0);
        out.extend_from_slice(&self.before.to_bytes());
        out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
        out.try_into().unwrap_or([0; SEGMENT_HEADER_BYTES])
    }

    /// Reads the first [`FRAMES_OFFSET`] bytes of a file (fewer make it damaged or truncated). Never panics.
    /// # Errors
    /// [`SegmentError`].
    pub fn decode(page: &[u8]) -> Result<Self, SegmentError> {
        let (header, rest) = page
            .split_at_checked(SEGMENT_HEADER_BYTES)
            .ok_or(SegmentError::Truncated)?;
        let (covered, checksum) = header.split_last_chunk::<4>().ok_or(SegmentError::Truncated)?;
        let (magic, fields) = covered.split_first_chunk::<8>().ok_or(SegmentError::Truncated)?;
        if *magic != MAGIC {
            return Err(SegmentError::Magic);
        }
        if crc32fast::hash(covered) != u32::from_be_bytes(*checksum) || ZEROS.get(..rest.len()) != Some(rest) {
            return Err(SegmentError::Damaged);
        }
        let (version, fields) = fields.split_first_chunk::<4>().ok_or(SegmentError::Truncated)?;
        if u32::from_be_bytes(*version) != VERSION {
            return Err(SegmentError::Version(u32::from_be_bytes(*version)));
        }
        let (cluster, head) = fields.split_first_chunk::<16>().ok_or(SegmentError::Truncated)?;
        let head = head.try_into().map_err(|_| SegmentError::Truncated)?;
        Ok(Self {
            cluster: Id(*cluster),
            before: ChainHead::from_bytes(head),
        })
    }
}

/// The file name of the segment whose first record is `seq`: twenty digits, so that names sort by sequence.
pub fn segment_name(seq: u64) -> String {
    format!("{seq:020}{SUFFIX}")
}

/// The sequence in a segment's file name; `None` for other files.
pub fn segment_seq(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The segments of a directory in order: first sequence and path. Other files are left alone.
/// # Errors
/// When the directory cannot be listed.
pub fn segment_files(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if let Some(seq) = entry.file_name().to_str().and_then(segment_seq) {
            files.push((seq, entry.path()));
        }
    }
    files.sort_unstable();
    Ok(files)
}
