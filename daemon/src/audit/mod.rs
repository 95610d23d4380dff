//! The audit log's writing side: what may stand in a record, and how records reach the disk. R-AUDIT-1, R-AUDIT-3.
//! May touch: base, and the audit crate, which owns the format, the chain and the verifier.
//!
//! Reading order: `trail` (the facts of one request; the only way to make a record), `hash` (keyed hashes of what must not be read),
//! `refusals` (a flood of refusals cannot fill the disk), `disk` (the directory, behind a trait), `segments` (files: mended at open,
//! appended to, rolled over), `drainer` (the thread that moves frames from the store's outbox into them), `tail`, `repair`, `error`.
//!
//! The room never commits: records ride in the store's commits, together with the change they speak of.

mod disk;
mod drainer;
mod error;
#[cfg(test)]
mod fake;
mod hash;
mod refusals;
mod repair;
mod segments;
mod tail;
mod trail;

pub use disk::{LogDir, LogFile, OsDir};
pub use drainer::{
    DRAIN_BYTES, DRAIN_DELAY, Drainer, LAG_BYTES_MAX, Lane, Opened, RESERVE_BYTES_MAX, RETRY_DELAY, Settings,
};
pub use error::{Damage, OpenError, Unavailable};
pub use hash::{AuditHasher, HASHED_BYTES_MIN};
pub use refusals::{Admission, Peer, REFUSALS_FLUSH_EVERY, Refusals, Summary};
pub use repair::{Repaired, repair};
pub use segments::{SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, TornTail};
pub use strongroom_audit::{ChainHead, Encoded, Frame, Line, ReadError};
pub use tail::{TAIL_BYTES_MAX, TAIL_RECORDS_MAX, Tail, TailError};
pub use trail::{Asked, Decided, Outcome, Paths, Recorder, Source, Trail, Who};
