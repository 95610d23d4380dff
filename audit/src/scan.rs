//! Walks the frames of one segment that may be damaged, torn, or still being written. Memory stays under a few MiB.

use crate::{
    frame::{FRAME_BYTES_MIN, FRAME_HEADER_BYTES, FrameError, FrameView, decode_frame, decode_header, view},
    segment::{FRAMES_OFFSET, SegmentError, SegmentHeader},
};
use std::io;

const WINDOW_BYTES: usize = 128 << 10;
static ZEROS: [u8; WINDOW_BYTES] = [0; WINDOW_BYTES];
/// Places in one file where a frame is looked for behind damage: a bound against files made to be slow.
const CANDIDATES_MAX: u32 = 4096;

/// A file, or what a test puts in its place.
pub trait ReadAt {
    /// Reads some bytes at `offset`; 0 only at the end.
    /// # Errors
    /// As the system says.
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Length in bytes.
    /// # Errors
    /// As the system says.
    fn size(&self) -> io::Result<u64>;
}

impl ReadAt for std::fs::File {
    #[cfg(unix)]
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, out, offset)
    }
    #[cfg(windows)]
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(self, out, offset)
    }
    fn size(&self) -> io::Result<u64> {
        self.metadata().map(|facts| facts.len())
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.get(offset..))
            .unwrap_or_default();
        let length = rest.len().min(out.len());
        if let (Some(to), Some(from)) = (out.get_mut(..length), rest.get(..length)) {
            to.copy_from_slice(from);
        }
        Ok(length)
    }
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

impl<R: ReadAt + ?Sized> ReadAt for &R {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        (**self).read_at(out, offset)
    }
    fn size(&self) -> io::Result<u64> {
        (**self).size()
    }
}

impl<R: ReadAt + ?Sized> ReadAt for Box<R> {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        (**self).read_at(out, offset)
    }
    fn size(&self) -> io::Result<u64> {
        (**self).size()
    }
}

/// What is at the scanner's place.
#[derive(Debug)]
pub enum Step<'a> {
    /// A well-formed frame; the scanner is behind it now.
    Frame {
        /// Where it begins.
        offset: u64,
        /// What it holds.
        frame: FrameView<'a>,
    },
    /// Zeros to the end of the file.
    End {
        /// Where they begin.
        offset: u64,
    },
    /// Bytes that are not a frame.
    Bad {
        /// Where they begin.
        offset: u64,
        /// What is wrong with them.
        error: FrameError,
        /// Where the next well-formed frame begins, and the scanner is now; `None`: there is none, the scanner is at the end.
        next: Option<u64>,
        /// Bytes up to the next frame, or up to the last byte that is not zero.
        bytes: u64,
    },
}

/// A place in a segment file.
#[derive(Debug)]
pub struct Scanner<R> {
    file: R,
    at: u64,
    /// Read ahead: the first `held` bytes are those of the file at `window_at`.
    window: Vec<u8>,
    window_at: u64,
    held: usize,
}

impl<R: ReadAt> Scanner<R> {
    /// Reads the header; the place is the first frame.
    /// # Errors
    /// Outside: the file cannot be read. Inside: it is no segment.
    pub fn open(file: R) -> io::Result<Result<(SegmentHeader, Self), SegmentError>> {
        let mut scanner = Self {
            file,
            at: FRAMES_OFFSET,
            window: Vec::new(),
            window_at: 0,
            held: 0,
        };
        let page = scanner.bytes_at(0, FRAMES_OFFSET as usize)?;
        Ok(match SegmentHeader::decode(page) {
            Ok(_) if page.len() < FRAMES_OFFSET as usize => Err(SegmentError::Truncated),
            Ok(header) => Ok((header, scanner)),
            Err(error) => Err(error),
        })
    }

    /// Where the scanner is.
    pub fn offset(&self) -> u64 {
        self.at
    }

    /// Goes to `offset` and forgets what was read ahead: the file may have grown.
    pub fn seek(&mut self, offset: u64) {
        self.at = offset;
        self.held = 0;
    }

    /// The file again.
    pub fn into_file(self) -> R {
        self.file
    }

    /// What is here, going on behind it.
    /// # Errors
    /// When the file cannot be read.
    pub fn step(&mut self) -> io::Result<Step<'_>> {
        let offset = self.at;
        match self.frame_at(offset)? {
            Ok(length) => {
                self.at = offset + length as u64;
                match view(self.bytes_at(offset, length)?) {
                    Ok(frame) => Ok(Step::Frame { offset, frame }),
                    Err(error) => Ok(Step::Bad {
                        offset,
                        error,
                        next: None,
                        bytes: length as u64,
                    }),
                }
            }
            Err(error) => self.bad(offset, error),
        }
    }

    fn bad(&mut self, offset: u64, error: FrameError) -> io::Result<Step<'_>> {
        let Some(last) = self.last_nonzero(offset)? else {
            self.at = self.file.size()?.max(offset);
            return Ok(Step::End { offset });
        };
        let next = self.find_frame(offset + 1)?;
        self.at = next.unwrap_or(self.file.size()?.max(offset));
        Ok(Step::Bad {
            offset,
            error,
            next,
            bytes: next.unwrap_or(last + 1) - offset,
        })
    }

    /// The length of the well-formed frame at `offset`.
    fn frame_at(&mut self, offset: u64) -> io::Result<Result<usize, FrameError>> {
        let header = match decode_header(self.bytes_at(offset, FRAME_HEADER_BYTES)?) {
            Ok(header) => header,
            Err(error) => return Ok(Err(error)),
        };
        let bytes = self.bytes_at(offset, header.length)?;
        Ok(decode_frame(bytes).map(|frame| frame.length))
    }

    fn find_frame(&mut self, from: u64) -> io::Result<Option<u64>> {
        let mut at = from;
        for _ in 0..CANDIDATES_MAX {
            let Some(candidate) = self.find_header(at)? else {
                return Ok(None);
            };
            if self.frame_at(candidate)?.is_ok() {
                return Ok(Some(candidate));
            }
            at = candidate + 1;
        }
        Ok(None)
    }

    /// The next place from `from` on that begins like a frame.
    fn find_header(&mut self, from: u64) -> io::Result<Option<u64>> {
        let mut at = from;
        loop {
            let bytes = self.bytes_at(at, WINDOW_BYTES)?;
            if bytes.len() < FRAME_BYTES_MIN {
                return Ok(None);
            }
            let place = bytes
                .windows(FRAME_HEADER_BYTES)
                .position(|start| decode_header(start).is_ok());
            match place {
                Some(place) => return Ok(Some(at + place as u64)),
                None => at += (bytes.len() - FRAME_HEADER_BYTES + 1) as u64,
            }
        }
    }

    /// The last byte at or behind `from` that is not zero.
    /// # Errors
    /// When the file cannot be read.
    pub fn last_nonzero(&mut self, from: u64) -> io::Result<Option<u64>> {
        let (mut at, mut last) = (from, None);
        loop {
            let bytes = self.bytes_at(at, WINDOW_BYTES)?;
            if bytes.is_empty() {
                return Ok(last);
            }
            // Compared whole first: nearly always it is the unused end of a segment.
            if ZEROS.get(..bytes.len()) != Some(bytes)
                && let Some(place) = bytes.iter().rposition(|byte| *byte != 0)
            {
                last = Some(at + place as u64);
            }
            at += bytes.len() as u64;
        }
    }

    /// Up to `length` bytes at `offset`; fewer only at the end of the file.
    fn bytes_at(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        let start = offset
            .checked_sub(self.window_at)
            .and_then(|start| usize::try_from(start).ok());
        if start.is_none_or(|start| start.saturating_add(length) > self.held) {
            self.refill(offset, length.max(WINDOW_BYTES))?;
        }
        let start = usize::try_from(offset - self.window_at).unwrap_or(usize::MAX);
        let bytes = self.window.get(start..self.held).unwrap_or_default();
        Ok(bytes.get(..length).unwrap_or(bytes))
    }

    fn refill(&mut self, offset: u64, length: usize) -> io::Result<()> {
        if self.window.len() < length {
            self.window = vec![0; length];
        }
        (self.window_at, self.held) = (offset, 0);
        while let Some(rest) = self.window.get_mut(self.held..length).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + self.held as u64) {
                Ok(0) => break,
                Ok(read) => self.held += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.held = 0;
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}
