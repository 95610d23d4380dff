//! The bytes of a key's records: its facts (JSON), and one record for each version:
//! `format 1 u8 | created u64 | public length u16 | public | private length u16 | private`, all numbers big-endian. Of a key in an HSM the private
//! half is the name of the object there.

use super::{KeyKind, material::Fresh};
use crate::base::{
    format::Format1,
    id::{TransitKeyId, TransitObjectId},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// What there is to know of a key but its versions' material.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    format: Format1,
    /// Its id: a name that is used again gets another.
    pub id: TransitKeyId,
    /// What it is for.
    pub kind: KeyKind,
    /// The newest version, which encrypts and signs.
    pub latest: u32,
    /// The oldest that is kept.
    pub oldest: u32,
    /// The oldest that still decrypts and verifies.
    pub least: u32,
    /// Whether it may be deleted.
    pub deletable: bool,
    /// When it was made.
    pub created: Timestamp,
    /// The HSM that its private halves never leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hsm: Option<String>,
}

impl Facts {
    pub(super) fn new(id: TransitKeyId, kind: KeyKind, created: Timestamp, hsm: Option<String>) -> Self {
        let (latest, oldest, least) = (1, 1, 1);
        Self {
            format: Format1,
            id,
            kind,
            latest,
            oldest,
            least,
            deletable: false,
            created,
            hsm,
        }
    }

    pub(super) fn encode(&self) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
        serde_json::to_vec(self).map(Zeroizing::new)
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let facts: Self = serde_json::from_slice(bytes).ok()?;
        let ordered = 1 <= facts.oldest && facts.oldest <= facts.least && facts.least <= facts.latest;
        ordered.then_some(facts)
    }

    /// Whether a version decrypts and verifies.
    pub(super) fn uses(&self, version: u32) -> bool {
        (self.least..=self.latest).contains(&version)
    }
}

/// A version's record.
pub(super) struct VersionRecord {
    pub created: Timestamp,
    pub fresh: Fresh,
}

impl VersionRecord {
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let (public, private) = (&self.fresh.public, &self.fresh.private);
        let mut out = Zeroizing::new(Vec::with_capacity(13 + public.len() + private.len()));
        out.push(1);
        out.extend_from_slice(&self.created.0.to_be_bytes());
        for half in [&public[..], private] {
            // Keys are a few KiB; a longer one would not decode.
            out.extend_from_slice(&u16::try_from(half.len()).unwrap_or(u16::MAX).to_be_bytes());
            out.extend_from_slice(half);
        }
        out
    }

    /// Of a key in an HSM: the object there.
    pub fn object(&self) -> Option<TransitObjectId> {
        <[u8; 16]>::try_from(&self.fresh.private[..])
            .ok()
            .map(TransitObjectId::from_bytes)
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (created, rest) = bytes.strip_prefix(&[1])?.split_first_chunk()?;
        let (public, rest) = half(rest)?;
        let (private, rest) = half(rest)?;
        rest.is_empty().then(|| Self {
            created: Timestamp(u64::from_be_bytes(*created)),
            fresh: Fresh {
                private: Zeroizing::new(private.to_vec()),
                public: public.to_vec(),
            },
        })
    }
}

fn half(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u16::from_be_bytes(*length).into())
}
