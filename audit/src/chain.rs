//! What is hashed. SHA-256 throughout, each use with a first byte of its own (0x00 and 0x01 are RFC 6962's):
//!
//! ```text
//! leaf(record)   = SHA-256(0x00 | record)                                   as RFC 6962, 2.1: a Merkle tree can share it
//! head(0)        = SHA-256(0x03 | "strongroom audit log v1" | cluster id)    the genesis; 0x01 is left to tree nodes
//! head(n + 1)    = SHA-256(0x02 | n as u64 big-endian | head(n) | leaf(record n))
//! ```
//!
//! Records are hashed as they are stored, byte for byte; how they are grouped in frames and segments does not change a head.

use crate::{
    frame::{Frame, FrameError, FrameView},
    record::{Encoded, Id},
};
use sha2::{Digest, Sha256};
use std::{fmt, str::FromStr};

const LEAF: u8 = 0x00;
const LINK: u8 = 0x02;
const GENESIS: u8 = 0x03;
const LOG_NAME: &[u8] = b"strongroom audit log v1";

/// The state of the log after `seq` records. Text form: `HASH/SEQ`, 64 hex digits and a decimal number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ChainHead {
    /// Records so far; also the sequence of the next one.
    pub seq: u64,
    /// Commits to all of them, their order and the cluster.
    pub hash: [u8; 32],
}

impl ChainHead {
    /// Bytes of [`Self::to_bytes`].
    pub const BYTES: usize = 40;

    /// The head of a log without records.
    pub fn genesis(cluster: Id) -> Self {
        let hash = Sha256::new()
            .chain_update([GENESIS])
            .chain_update(LOG_NAME)
            .chain_update(cluster.0)
            .finalize();
        Self {
            seq: 0,
            hash: hash.into(),
        }
    }

    /// The head after one more record.
    #[must_use]
    pub fn after(self, record: &[u8]) -> Self {
        let leaf = Sha256::new().chain_update([LEAF]).chain_update(record).finalize();
        let mut link = [0; 73];
        let (tag, rest) = link.split_at_mut(1);
        let (seq, rest) = rest.split_at_mut(8);
        let (head, tail) = rest.split_at_mut(32);
        tag.fill(LINK);
        seq.copy_from_slice(&self.seq.to_be_bytes());
        head.copy_from_slice(&self.hash);
        tail.copy_from_slice(&leaf);
        Self {
            seq: self.seq.saturating_add(1),
            hash: Sha256::digest(link).into(),
        }
    }

    /// Goes on by a group of records and gives the frame that stores them.
    /// # Errors
    /// [`FrameError::Empty`] without records, [`FrameError::TooLong`] above [`crate::FRAME_BODY_BYTES_MAX`]; the head then stays.
    pub fn extend(&mut self, records: &[Encoded]) -> Result<Frame, FrameError> {
        let after = records.iter().fold(*self, |head, record| head.after(record.as_bytes()));
        let frame = Frame::encode(self.seq, records, after)?;
        *self = after;
        Ok(frame)
    }

    /// Checks that `frame` follows here and gives the head after it.
    /// # Errors
    /// [`crate::LinkError`] says whether its place or its content is wrong.
    pub fn follow(self, frame: &FrameView<'_>) -> Result<Self, crate::LinkError> {
        if frame.first_seq != self.seq {
            return Err(crate::LinkError::Place {
                expected: self.seq,
                found: frame.first_seq,
            });
        }
        let after = frame.records().fold(self, Self::after);
        if after == frame.head {
            Ok(after)
        } else {
            Err(crate::LinkError::Head { seq: self.seq })
        }
    }

    /// For records of the store: sequence (u64 big-endian), then the hash.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        let (seq, hash) = out.split_at_mut(8);
        seq.copy_from_slice(&self.seq.to_be_bytes());
        hash.copy_from_slice(&self.hash);
        out
    }

    /// The reverse of [`Self::to_bytes`].
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let (seq, hash) = bytes.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
        Self {
            seq: u64::from_be_bytes(*seq),
            hash: hash.try_into().unwrap_or_default(),
        }
    }
}

impl fmt::Display for ChainHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", data_encoding::HEXLOWER.encode(&self.hash), self.seq)
    }
}

impl fmt::Debug for ChainHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChainHead({self})")
    }
}

/// A head noted elsewhere, to compare with: `HASH/SEQ`, or `HASH` alone (it must then occur at any place).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KnownHead {
    /// The hash.
    pub hash: [u8; 32],
    /// After how many records, if known.
    pub seq: Option<u64>,
}

impl KnownHead {
    /// Whether `head` is the one meant.
    pub fn is(&self, head: &ChainHead) -> bool {
        self.hash == head.hash && self.seq.is_none_or(|seq| seq == head.seq)
    }
}

impl From<ChainHead> for KnownHead {
    fn from(head: ChainHead) -> Self {
        Self {
            hash: head.hash,
            seq: Some(head.seq),
        }
    }
}

/// The text was not `HASH` or `HASH/SEQ`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a head is 64 lower-case hex digits, or those, a slash and the number of records")]
pub struct HeadParseError;

impl FromStr for KnownHead {
    type Err = HeadParseError;
    fn from_str(text: &str) -> Result<Self, HeadParseError> {
        let (hash, seq) = match text.split_once('/') {
            Some((hash, seq)) => (hash, Some(seq.parse().map_err(|_| HeadParseError)?)),
            None => (text, None),
        };
        let hash = data_encoding::HEXLOWER
            .decode(hash.as_bytes())
            .map_err(|_| HeadParseError)?;
        Ok(Self {
            hash: hash.try_into().map_err(|_| HeadParseError)?,
            seq,
        })
    }
}

impl FromStr for ChainHead {
    type Err = HeadParseError;
    fn from_str(text: &str) -> Result<Self, HeadParseError> {
        let KnownHead { hash, seq } = text.parse()?;
        Ok(Self {
            seq: seq.ok_or(HeadParseError)?,
            hash,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CLUSTER, records};
    use proptest::prelude::*;

    /// The formula of docs/FORMATS, computed by another program (Python's hashlib) for the cluster 000102..0f and the records `{}`, `{"a":1}`.
    #[test]
    fn heads_are_those_an_independent_program_computes() {
        let genesis = ChainHead::genesis(CLUSTER);
        assert_eq!(
            genesis.to_string(),
            "065e312c8838fb13c598676b33d3c9c9f6c4309e647cc651bfd84c3819f03714/0"
        );
        assert_eq!(
            genesis.after(b"{}").after(br#"{"a":1}"#).to_string(),
            "0eea8855111c7ddae39bb7c488e031cb72b28649929f21f13ee1b104697802d2/2"
        );
    }

    #[test]
    fn grouping_does_not_change_the_head() {
        let (mut whole, mut parts) = (ChainHead::genesis(CLUSTER), ChainHead::genesis(CLUSTER));
        whole.extend(&records(0, 5)).unwrap();
        parts.extend(&records(0, 2)).unwrap();
        parts.extend(&records(2, 3)).unwrap();
        assert_eq!(whole, parts);
    }

    #[test]
    fn a_head_text_is_exact() {
        let head = ChainHead::genesis(CLUSTER);
        let hash = head.to_string().split_once('/').unwrap().0.to_owned();
        assert_eq!(
            hash.parse(),
            Ok(KnownHead {
                hash: head.hash,
                seq: None
            })
        );
        for bad in [
            "",
            "/",
            "/1",
            "00/1",
            &format!("{hash}/"),
            &format!("{hash}/x"),
            &format!("{hash}/-1"),
            &hash.to_uppercase(),
            &hash[1..],
        ] {
            assert_eq!(bad.parse::<KnownHead>(), Err(HeadParseError), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_head_survives_text_and_bytes(seq: u64, hash: [u8; 32]) {
            let head = ChainHead { seq, hash };
            prop_assert_eq!(head.to_string().parse(), Ok(head));
            prop_assert_eq!(ChainHead::from_bytes(&head.to_bytes()), head);
        }

        #[test]
        fn any_text_parses_or_is_refused(text in ".{0,80}") {
            let _ = text.parse::<KnownHead>();
        }
    }
}
