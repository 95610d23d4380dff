//! `strongroomd repair --accept-loss`: goes on after log and store were found to disagree, and says so in the log. R-AUDIT-2.
//!
//! Nothing is thrown away and nothing is smoothed over. A whole log that reaches further than the store is kept, and the store follows
//! it. Otherwise the log goes on in a new segment that claims the store's head, so the verifier names the gap for ever; segments that
//! would lie at or behind that place are renamed to `NAME.lost`. Either way the next record says what was lost.
//!
//! The caller (who has checked a slot's fresh factors) then writes [`Repaired::head`] as the store's head and empties its outbox in one
//! commit. Until that is done log and store still disagree, so an interruption is noticed and repaired again.

use super::{
    disk::{LogDir, OsDir},
    drainer::Settings,
    error::OpenError,
    segments::Segments,
    trail::Recorder,
};
use crate::base::id::ClusterId;
use std::{io, path::PathBuf, sync::Arc};
use strongroom_audit::{ChainHead, Id, segment_name};

/// What was found and done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// The log's head now, the record of the gap included: what the store must have as its head.
    pub head: ChainHead,
    /// Where the log ended; `None` when its last segment is damaged.
    pub log: Option<ChainHead>,
    /// Where the store thought it ended.
    pub store: ChainHead,
    /// Segments that were renamed to `NAME.lost`.
    pub set_aside: u64,
}

/// Makes the log open again; see above.
/// # Errors
/// [`OpenError`] when the directory cannot be used, or the log is another vault's or of a later format: that is no loss to accept.
pub fn repair(
    settings: &Settings,
    recorder: &Arc<Recorder>,
    cluster: ClusterId,
    store: ChainHead,
) -> Result<Repaired, OpenError> {
    let dir = || OsDir::open(&settings.dir).map(|dir| -> Box<dyn LogDir> { Box::new(dir) });
    repair_in(dir, settings, recorder, cluster, store).map_err(|error| error.within(&settings.dir))
}

pub(super) fn repair_in(
    dir: impl Fn() -> io::Result<Box<dyn LogDir>>,
    settings: &Settings,
    recorder: &Arc<Recorder>,
    cluster: ClusterId,
    store: ChainHead,
) -> Result<Repaired, OpenError> {
    let unusable = |error| OpenError::Io(PathBuf::new(), error);
    let open = || {
        Segments::open(
            dir().map_err(unusable)?,
            Id(*cluster.as_bytes()),
            settings.segment_bytes,
        )
    };
    let (mut log, found, set_aside) = match whole(open())? {
        Some(log) if log.head().seq >= store.seq => {
            let head = log.head();
            (log, Some(head), 0)
        }
        behind => {
            let found = behind.map(|log| log.head());
            let set_aside = set_aside(&*dir().map_err(unusable)?, store.seq).map_err(unusable)?;
            // What is left ends before the store's head, damaged or not: the new segment claims the store's.
            let log = Segments::begin(
                dir().map_err(unusable)?,
                Id(*cluster.as_bytes()),
                settings.segment_bytes,
                store,
            )?;
            (log, found, set_aside)
        }
    };
    let torn = log.cut_tail()?;
    let mut repaired = Repaired {
        head: log.head(),
        log: found,
        store,
        set_aside,
    };
    let mut records: Vec<_> = torn.iter().map(|torn| recorder.torn_tail(torn)).collect();
    records.push(recorder.accepted_loss(&repaired));
    let frame = repaired.head.extend(&records);
    let frame = frame.map_err(|error| OpenError::Outbox {
        seq: store.seq,
        why: error.into(),
    })?;
    log.append(&[frame]).map_err(OpenError::append)?;
    Ok(repaired)
}

/// The log if its last segment is whole; `None` when it is damaged in a way that may be accepted.
fn whole(opened: Result<Segments, OpenError>) -> Result<Option<Segments>, OpenError> {
    use strongroom_audit::SegmentError;
    match opened {
        Ok(mut log) => Ok(log.damage().is_none().then_some(log)),
        Err(OpenError::Segment {
            error: SegmentError::Version(_),
            ..
        }) => opened.map(Some),
        Err(OpenError::Segment { .. } | OpenError::Damaged { .. }) => Ok(None),
        Err(_) => opened.map(Some),
    }
}

fn set_aside(dir: &dyn LogDir, from_seq: u64) -> io::Result<u64> {
    let mut count = 0;
    for seq in dir.segments()?.into_iter().filter(|seq| *seq >= from_seq) {
        dir.rename(&segment_name(seq), &format!("{}.lost", segment_name(seq)))?;
        count += 1;
    }
    dir.sync()?;
    Ok(count)
}

#[cfg(test)]
mod tests;
