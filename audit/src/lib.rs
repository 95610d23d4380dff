//! The audit log's format, chain and verifier: what is hashed, how records are framed in segment files, and how to tell whether
//! anything was changed. No daemon and no writing; reads segment files only. Used by the daemon (which writes them) and by the
//! client (`strongroom audit verify`, offline). `docs/FORMATS.md`, "Audit log", has the byte tables. R-AUDIT-1, R-AUDIT-2.
//!
//! Reading order: `record` (one line of JSON), `chain` (what is hashed), `frame` (a group of records with one checksum),
//! `segment` (a file of frames), `scan` (walking a file that may be damaged), `read` (in order, for `tail`), `verify`.
//!
//! What this does not do yet: heads are not signed. Whoever can edit the files can recompute the whole chain, so a verdict is only
//! as good as a head (`HASH/SEQ`) that was kept somewhere else and is given to the verifier.

mod chain;
mod frame;
mod read;
mod record;
mod scan;
mod segment;
#[cfg(test)]
mod testing;
mod verify;

pub use chain::{ChainHead, HeadParseError, KnownHead};
pub use frame::{FRAME_BODY_BYTES_MAX, FRAME_BYTES_MAX, Frame, FrameError, FrameView, LinkError, decode_frame};
pub use read::{Line, ReadError, Reader, read};
pub use record::{
    Asked, Encoded, Id, Identity, LISTED_MAX, NAME_BYTES_MAX, Outcome, ParamValue, Params, Policy, RECORD_BYTES_MAX,
    RECORD_VERSION, Record, Source, Stage, TEXT_BYTES_MAX, Transport,
};
pub use scan::{ReadAt, Scanner, Step};
pub use segment::{
    FRAMES_OFFSET, SEGMENT_HEADER_BYTES, SegmentError, SegmentHeader, segment_files, segment_name, segment_seq,
};
pub use verify::{FINDINGS_MAX, Finding, Options, Report, TornTail, VerifyError, Wrong, verify};
