//! Reads the log as it grows. Only what is synced is shown; a reader that stops keeps a sequence and resumes there. R-AUDIT-5.

use std::path::Path;
use strongroom_audit::{Line, ReadError, Reader, read};
use tokio::sync::watch;

/// Records handed out at once.
pub const TAIL_RECORDS_MAX: usize = 256;
/// Bytes of records after which a hand-out ends.
pub const TAIL_BYTES_MAX: usize = 256 << 10;

/// Why a tail ends early.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// The log cannot be read on.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The task that read was stopped: the daemon is going down.
    #[error("reading the audit log was stopped")]
    Stopped,
}

/// A place in the growing log.
pub struct Tail {
    reader: Option<Reader>,
    drained: watch::Receiver<u64>,
    /// Where it ends, when it does not follow.
    end: Option<u64>,
}

impl Tail {
    pub(super) fn open(
        dir: &Path,
        from_seq: u64,
        drained: watch::Receiver<u64>,
        follow: bool,
    ) -> Result<Self, ReadError> {
        let end = (!follow).then_some(*drained.borrow());
        Ok(Self {
            reader: Some(read(dir, from_seq)?),
            drained,
            end,
        })
    }

    /// Does not end before record `seq` was shown, even if that one is still on its way to the files.
    #[must_use]
    pub fn through(self, seq: u64) -> Self {
        Self {
            end: self.end.map(|end| end.max(seq)),
            ..self
        }
    }

    /// Some records, in order; waits for them when following. `None` at the end: of what there was at the start, or of the drainer.
    /// # Errors
    /// [`TailError`]; nothing more comes after it.
    pub async fn next(&mut self) -> Result<Option<Vec<Line>>, TailError> {
        let Some(reader) = self.reader.take() else {
            return Ok(None);
        };
        let limit = match self.end {
            Some(end) if reader.next_seq() >= end => return Ok(None),
            end => match self.drained.wait_for(|through| *through > reader.next_seq()).await {
                Ok(through) => end.unwrap_or(u64::MAX).min(*through),
                Err(_) => return Ok(None),
            },
        };
        let work = tokio::task::spawn_blocking(move || some(reader, limit));
        let (reader, lines) = work.await.map_err(|_| TailError::Stopped)?;
        let lines = lines?;
        self.reader = Some(reader);
        Ok((!lines.is_empty()).then_some(lines))
    }
}

fn some(mut reader: Reader, limit: u64) -> (Reader, Result<Vec<Line>, ReadError>) {
    let (mut lines, mut bytes) = (Vec::new(), 0);
    reader.refresh();
    while reader.next_seq() < limit && lines.len() < TAIL_RECORDS_MAX && bytes < TAIL_BYTES_MAX {
        match reader.next_line() {
            Ok(Some(line)) => {
                bytes += line.record.len();
                lines.push(line);
            }
            Ok(None) => break,
            Err(error) if lines.is_empty() => return (reader, Err(error)),
            Err(_) => break,
        }
    }
    (reader, Ok(lines))
}
