//! A frame: one group of records, one checksum. All numbers big-endian.
//!
//! ```text
//!  0  4  magic "SRF1"
//!  4  4  length of the whole frame, checksum included
//!  8  8  sequence of the first record
//! 16  4  number of records, at least 1
//! 20  .. records, each a 16-bit length and its bytes (the body of a C2SP tlog-tiles entry bundle)
//! .. 32  chain head after the last record
//! ..  4  CRC-32 (IEEE) of everything before
//! ```

use crate::{chain::ChainHead, record::Encoded};
use bytes::{BufMut, Bytes, BytesMut};

const MAGIC: [u8; 4] = *b"SRF1";
pub(crate) const FRAME_HEADER_BYTES: usize = 20;
const TRAILER_BYTES: usize = 36;
pub(crate) const FRAME_BYTES_MIN: usize = FRAME_HEADER_BYTES + 2 + TRAILER_BYTES;

/// Records of one frame together, each counted with its 16-bit length ([`Encoded::frame_bytes`]): 2 MiB.
pub const FRAME_BODY_BYTES_MAX: usize = 2 << 20;
/// The longest frame.
pub const FRAME_BYTES_MAX: usize = FRAME_HEADER_BYTES + FRAME_BODY_BYTES_MAX + TRAILER_BYTES;

/// Why bytes are not a frame, or records do not make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A frame without records is none.
    #[error("a frame has at least one record")]
    Empty,
    /// Over [`FRAME_BODY_BYTES_MAX`].
    #[error("the records of a frame are longer than {FRAME_BODY_BYTES_MAX} bytes together")]
    TooLong,
    /// The bytes end inside the frame.
    #[error("the frame is cut off")]
    Truncated,
    /// It does not begin like one.
    #[error("no frame begins here")]
    Magic,
    /// The length is impossible.
    #[error("the frame's length is impossible")]
    Length,
    /// CRC-32 differs.
    #[error("the frame's checksum is wrong")]
    Checksum,
    /// The records do not fill the body exactly.
    #[error("the frame's records do not add up")]
    Body,
}

/// A frame that does not belong where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Records are missing, repeated or out of order before it.
    #[error("expected record {expected}, found record {found}")]
    Place {
        /// The sequence that should come.
        expected: u64,
        /// The sequence that came.
        found: u64,
    },
    /// Its records, or some before it, are not those the chain was made of.
    #[error("the chain does not hold at record {seq}: the records of this frame or before it were changed")]
    Head {
        /// First record of the frame.
        seq: u64,
    },
}

/// An encoded frame and what it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Sequence of the first record.
    pub first_seq: u64,
    /// Number of records.
    pub count: u32,
    /// The chain after it.
    pub head: ChainHead,
    /// The bytes, for the outbox and the segment file.
    pub bytes: Bytes,
}

impl Frame {
    pub(crate) fn encode(first_seq: u64, records: &[Encoded], head: ChainHead) -> Result<Self, FrameError> {
        let body: usize = records.iter().map(Encoded::frame_bytes).sum();
        let count = u32::try_from(records.len()).map_err(|_| FrameError::TooLong)?;
        if count == 0 {
            return Err(FrameError::Empty);
        }
        if body > FRAME_BODY_BYTES_MAX {
            return Err(FrameError::TooLong);
        }
        let length = FRAME_HEADER_BYTES + body + TRAILER_BYTES;
        let mut out = BytesMut::with_capacity(length);
        out.put_slice(&MAGIC);
        out.put_u32(u32::try_from(length).map_err(|_| FrameError::TooLong)?);
        out.put_u64(first_seq);
        out.put_u32(count);
        for record in records {
            let bytes = record.as_bytes();
            out.put_u16(u16::try_from(bytes.len()).map_err(|_| FrameError::TooLong)?);
            out.put_slice(bytes);
        }
        out.put_slice(&head.hash);
        out.put_u32(crc32fast::hash(&out));
        Ok(Self {
            first_seq,
            count,
            head,
            bytes: out.freeze(),
        })
    }

    /// Takes stored bytes (an outbox row) that must be exactly one frame.
    /// # Errors
    /// [`FrameError`]; nothing about the chain is checked here.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, FrameError> {
        let view = decode_frame(&bytes)?;
        if view.length != bytes.len() {
            return Err(FrameError::Length);
        }
        let (first_seq, count, head) = (view.first_seq, view.count, view.head);
        Ok(Self {
            first_seq,
            count,
            head,
            bytes,
        })
    }

    /// Sequence after its last record.
    pub fn end_seq(&self) -> u64 {
        self.head.seq
    }
}

/// A frame that was read: well-formed and with the right checksum; its place in the chain is for [`ChainHead::follow`] to check.
#[derive(Clone, Copy, Debug)]
pub struct FrameView<'a> {
    /// Sequence of the first record.
    pub first_seq: u64,
    /// Number of records, at least 1.
    pub count: u32,
    /// The chain after it, as it says.
    pub head: ChainHead,
    /// Bytes of the whole frame.
    pub length: usize,
    body: &'a [u8],
}

impl<'a> FrameView<'a> {
    /// The records, in order.
    pub fn records(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = self.body;
        std::iter::from_fn(move || {
            let (record, after) = split_record(rest)?;
            rest = after;
            Some(record)
        })
    }
}

fn split_record(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = body.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// What a frame's first 20 bytes say, within bounds.
pub(crate) struct FrameHeader {
    pub length: usize,
    pub first_seq: u64,
    pub count: u32,
}

pub(crate) fn decode_header(bytes: &[u8]) -> Result<FrameHeader, FrameError> {
    let (magic, rest) = bytes.split_first_chunk::<4>().ok_or(FrameError::Truncated)?;
    if *magic != MAGIC {
        return Err(FrameError::Magic);
    }
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(FrameError::Truncated)?;
    let (first_seq, rest) = rest.split_first_chunk::<8>().ok_or(FrameError::Truncated)?;
    let (count, _) = rest.split_first_chunk::<4>().ok_or(FrameError::Truncated)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| FrameError::Length)?;
    if !(FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&length) {
        return Err(FrameError::Length);
    }
    Ok(FrameHeader {
        length,
        first_seq: u64::from_be_bytes(*first_seq),
        count: u32::from_be_bytes(*count),
    })
}

/// Reads the frame at the start of `bytes`; what follows it is left alone. Never panics, whatever the bytes.
/// # Errors
/// [`FrameError`].
pub fn decode_frame(bytes: &[u8]) -> Result<FrameView<'_>, FrameError> {
    let header = decode_header(bytes)?;
    let whole = bytes.get(..header.length).ok_or(FrameError::Truncated)?;
    let (covered, checksum) = whole.split_last_chunk::<4>().ok_or(FrameError::Length)?;
    if crc32fast::hash(covered) != u32::from_be_bytes(*checksum) {
        return Err(FrameError::Checksum);
    }
    view(whole)
}

/// [`decode_frame`] of bytes whose checksum was found right.
pub(crate) fn view(bytes: &[u8]) -> Result<FrameView<'_>, FrameError> {
    let header = decode_header(bytes)?;
    let whole = bytes.get(..header.length).ok_or(FrameError::Truncated)?;
    let (covered, _) = whole.split_last_chunk::<4>().ok_or(FrameError::Length)?;
    let (rest, hash) = covered.split_last_chunk::<32>().ok_or(FrameError::Length)?;
    let body = rest.get(FRAME_HEADER_BYTES..).ok_or(FrameError::Length)?;
    let seq = header
        .first_seq
        .checked_add(u64::from(header.count))
        .ok_or(FrameError::Body)?;
    let head = ChainHead { seq, hash: *hash };
    let view = FrameView {
        first_seq: header.first_seq,
        count: header.count,
        head,
        length: header.length,
        body,
    };
    let (mut rest, mut count) = (body, 0u32);
    while let Some((_, after)) = split_record(rest) {
        (rest, count) = (after, count.saturating_add(1));
    }
    if rest.is_empty() && count == header.count && count > 0 {
        Ok(view)
    } else {
        Err(FrameError::Body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        SEGMENT_HEADER_BYTES, SegmentHeader,
        testing::{CLUSTER, records},
    };
    use proptest::prelude::*;

    fn frame(count: usize) -> Frame {
        ChainHead::genesis(CLUSTER).extend(&records(0, count)).unwrap()
    }

    #[test]
    fn a_frame_survives_its_bytes() {
        let frame = frame(3);
        let view = decode_frame(&frame.bytes).unwrap();
        assert_eq!(
            (view.first_seq, view.count, view.head, view.length),
            (0, 3, frame.head, frame.bytes.len())
        );
        let found: Vec<_> = view.records().map(<[u8]>::to_vec).collect();
        let wanted: Vec<_> = records(0, 3).iter().map(|record| record.as_bytes().to_vec()).collect();
        assert_eq!(found, wanted);
        assert_eq!(Frame::from_bytes(frame.bytes.clone()), Ok(frame));
    }

    #[test]
    fn a_frame_has_bounds() {
        let mut head = ChainHead::genesis(CLUSTER);
        assert_eq!(head.extend(&[]), Err(FrameError::Empty));
        let record = records(0, 1).remove(0);
        let too_many = vec![record.clone(); FRAME_BODY_BYTES_MAX / record.frame_bytes() + 1];
        assert_eq!(head.extend(&too_many), Err(FrameError::TooLong));
        assert_eq!(
            head,
            ChainHead::genesis(CLUSTER),
            "a refused group leaves the chain alone"
        );
        let most = vec![record.clone(); FRAME_BODY_BYTES_MAX / record.frame_bytes()];
        assert!(head.extend(&most).unwrap().bytes.len() <= FRAME_BYTES_MAX);
    }

    /// R-AUDIT-2: no flipped bit of a frame goes unseen.
    #[test]
    fn every_flipped_bit_is_refused() {
        let good = frame(2).bytes;
        for place in 0..good.len() {
            for bit in 0..8 {
                let mut bytes = good.to_vec();
                bytes[place] ^= 1 << bit;
                assert!(Frame::from_bytes(bytes.into()).is_err(), "byte {place} bit {bit}");
            }
        }
        for length in 0..good.len() {
            assert!(decode_frame(&good[..length]).is_err(), "cut at {length}");
        }
    }

    /// What an attacker can do who mends the checksum: the counts and lengths still have to add up, and nothing panics.
    fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
        if let Some((covered, checksum)) = bytes.split_last_chunk_mut::<4>() {
            *checksum = crc32fast::hash(covered).to_be_bytes();
        }
        bytes
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = decode_frame(&bytes);
            let _ = SegmentHeader::decode(&bytes);
        }

        #[test]
        fn a_resealed_frame_adds_up_or_is_refused(place in 0usize..700, value: u8) {
            let mut bytes = frame(2).bytes.to_vec();
            let place = place % bytes.len();
            bytes[place] = value;
            let bytes = resealed(bytes);
            if let Ok(view) = decode_frame(&bytes) {
                prop_assert_eq!(view.records().count(), view.count as usize);
                let body: usize = view.records().map(|record| record.len() + 2).sum();
                prop_assert_eq!(body + FRAME_HEADER_BYTES + TRAILER_BYTES, view.length);
            }
        }

        #[test]
        fn a_segment_header_survives_or_is_refused(seq: u64, hash: [u8; 32], place in 0..SEGMENT_HEADER_BYTES, flip in 1u8..) {
            let header = SegmentHeader { cluster: CLUSTER, before: ChainHead { seq, hash } };
            let mut bytes = header.encode();
            prop_assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
            bytes[place] ^= flip;
            prop_assert!(SegmentHeader::decode(&bytes).is_err());
        }
    }
}
