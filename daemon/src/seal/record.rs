//! A slot as it is stored: readable while sealed, authenticated by what it opens.
//!
//! ```text
//! magic      4  "SRKS"
//! format     1  1
//! header        u16 length, then (all of it is HKDF info, and AAD of the root key)
//!   cluster    16
//!   slot id    16  random, for the slot's life
//!   set         4  random, new at each re-keying
//!   created     8  milliseconds since 1970
//!   kind        1  1 hsm, 2 quorum, 3 hsm+quorum
//!   k, n        2  0, 0 without a quorum
//!   name        u8 length 1..=64, then a-z 0-9 -
//!   commitments n * 32
//! generation 4  of the root key, from 1
//! root      60  root key under the slot key: nonce, ciphertext, tag; AAD "strongroom.slot.root/1" | header
//! seeds      1  count 0..=16, each:
//!   hsm         u8 length 1..=32, then the HSM's name in the configuration
//!   retire      8  0, or when this blob (and its KEK version) goes, milliseconds since 1970
//!   blob        u16 length, then the HSM crate's form
//! verified   8  0, or when the factors were last proved, milliseconds since 1970
//! key       60  slot key under the root key: AAD "strongroom.slot.record/1" | everything above, magic included
//! check      4  CRC-32 of everything above
//! ```
//! Integers are big endian; nothing may follow. The CRC names accidents; forgery is met by the tags: the header opens the root key, and
//! the root key opens `key`, whose AAD is the whole record.

use super::{
    crypt::Wrapped,
    error::SealError,
    quorum::Commitment,
    spec::{Factors, Quorum, SlotName, SlotSpec},
};
use crate::base::{id::ClusterId, time::Timestamp};
use strongroom_hsm::HsmBlob;

const MAGIC: &[u8; 5] = b"SRKS\x01";
const AAD_ROOT: &[u8] = b"strongroom.slot.root/1";
const AAD_RECORD: &[u8] = b"strongroom.slot.record/1";

/// What a slot is. Changing any of it takes a new root-key copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The vault.
    pub cluster: ClusterId,
    /// The slot, for its life.
    pub id: [u8; 16],
    /// The share set (and seed): new at each re-keying.
    pub set: [u8; 4],
    /// When this set was made.
    pub created: Timestamp,
    /// Its factors.
    pub factors: Factors,
    /// Its name.
    pub name: SlotName,
    /// One a share, in the order of their indices; none without a quorum.
    pub commitments: Vec<Commitment>,
}

/// One HSM's copy of the slot's seed. During a KEK rotation an HSM has two, the newer first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// The HSM's name in the configuration.
    pub hsm: String,
    /// When this copy goes, if it was replaced.
    pub retire: Option<Timestamp>,
    /// The seed, sealed by the HSM.
    pub blob: HsmBlob,
}

/// A stored slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotRecord {
    /// What it is.
    pub header: Header,
    /// Which root key it opens, from 1.
    pub generation: u32,
    /// The root key under the slot key.
    pub root: Wrapped,
    /// Sealed seeds, in the order in which they are tried.
    pub seeds: Vec<Seed>,
    /// When its factors were last proved.
    pub verified: Option<Timestamp>,
    /// The slot key under the root key.
    pub key: Wrapped,
}

impl Header {
    /// The authenticated form.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, k, n) = match self.factors {
            Factors::Hsm => (1, 0, 0),
            Factors::Quorum(quorum) => (2, quorum.k(), quorum.n()),
            Factors::HsmQuorum(quorum) => (3, quorum.k(), quorum.n()),
        };
        let mut out = Vec::with_capacity(128 + self.commitments.len() * 32);
        out.extend(self.cluster.as_bytes());
        out.extend(self.id);
        out.extend(self.set);
        out.extend(self.created.0.to_be_bytes());
        out.extend([kind, k, n, self.name.as_str().len() as u8]);
        out.extend(self.name.as_str().as_bytes());
        out.extend(self.commitments.iter().flatten());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let cluster = ClusterId::from_bytes(reader.array()?);
        let (id, set) = (reader.array()?, reader.array()?);
        let created = Timestamp(reader.u64()?);
        let [kind, k, n] = reader.array()?;
        let factors = match kind {
            1 if (k, n) == (0, 0) => Factors::Hsm,
            2 => Factors::Quorum(Quorum::new(k, n).ok()?),
            3 => Factors::HsmQuorum(Quorum::new(k, n).ok()?),
            _ => return None,
        };
        let name_bytes = reader.u8()?.into();
        let name = std::str::from_utf8(reader.take(name_bytes)?).ok()?.parse().ok()?;
        let commitments = (0..n).map(|_| reader.array()).collect::<Option<_>>()?;
        reader.0.is_empty().then_some(Self {
            cluster,
            id,
            set,
            created,
            factors,
            name,
            commitments,
        })
    }

    /// AAD of the root key's copy.
    pub(super) fn root_aad(&self) -> Vec<u8> {
        [AAD_ROOT, &self.encode()].concat()
    }

    /// What the HSM's blob of the seed is bound to.
    pub(super) fn seed_context(&self) -> Vec<u8> {
        [
            b"strongroom.slot.seed/1",
            &self.cluster.as_bytes()[..],
            &self.id,
            &self.set,
        ]
        .concat()
    }
}

impl SlotRecord {
    /// Longest stored form: a header of 32 commitments and 16 blobs, with room to spare.
    pub const BYTES_MAX: usize = 16 << 10;
    /// Copies of the seed: two an HSM while a KEK rotates.
    pub const SEEDS_MAX: usize = 2 * SlotSpec::HSMS_MAX;

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.sealed_part();
        out.extend(self.key.as_bytes());
        out.extend(crc32fast::hash(&out).to_be_bytes());
        out
    }

    /// All that `key` authenticates.
    fn sealed_part(&self) -> Vec<u8> {
        let header = self.header.encode();
        let mut out = Vec::with_capacity(512 + header.len() + self.seeds.len() * 700);
        out.extend(MAGIC);
        out.extend((header.len() as u16).to_be_bytes());
        out.extend(header);
        out.extend(self.generation.to_be_bytes());
        out.extend(self.root.as_bytes());
        out.push(self.seeds.len() as u8);
        for seed in &self.seeds {
            let blob = seed.blob.to_bytes();
            out.push(seed.hsm.len() as u8);
            out.extend(seed.hsm.as_bytes());
            out.extend(stamp(seed.retire));
            out.extend((blob.len() as u16).to_be_bytes());
            out.extend(blob);
        }
        out.extend(stamp(self.verified));
        out
    }

    /// AAD of the slot key's copy under the root key.
    pub(super) fn record_aad(&self) -> Vec<u8> {
        [AAD_RECORD, &self.sealed_part()].concat()
    }

    /// Reads a stored slot; one slot has one form.
    /// # Errors
    /// `Damaged` on anything that [`Self::encode`] cannot have made. `name` is only for the error.
    pub fn decode(name: &str, bytes: &[u8]) -> Result<Self, SealError> {
        Self::parse(bytes).ok_or_else(|| SealError::Damaged(name.to_owned()))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > Self::BYTES_MAX {
            return None;
        }
        let (body, check) = bytes.split_last_chunk::<4>()?;
        if crc32fast::hash(body).to_be_bytes() != *check {
            return None;
        }
        let mut reader = Reader(body);
        if reader.array()? != *MAGIC {
            return None;
        }
        let header_bytes = reader.u16()?.into();
        let header = Header::decode(reader.take(header_bytes)?)?;
        let generation = reader.u32()?;
        let root = Wrapped::from_bytes(reader.array()?);
        let count = reader.u8()?;
        let seeds = (0..count).map(|_| reader.seed()).collect::<Option<Vec<_>>>()?;
        let verified = reader.stamp()?;
        let key = Wrapped::from_bytes(reader.array()?);
        let fits = reader.0.is_empty()
            && generation > 0
            && seeds.len() <= Self::SEEDS_MAX
            && header.factors.has_hsm() != seeds.is_empty();
        fits.then_some(Self {
            header,
            generation,
            root,
            seeds,
            verified,
            key,
        })
    }
}

fn stamp(time: Option<Timestamp>) -> [u8; 8] {
    time.map_or(0, |time| time.0.max(1)).to_be_bytes()
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(head)
    }
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }
    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }
    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }
    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
    fn stamp(&mut self) -> Option<Option<Timestamp>> {
        self.u64().map(|ms| (ms > 0).then_some(Timestamp(ms)))
    }
    fn seed(&mut self) -> Option<Seed> {
        let name_bytes = self.u8().filter(|bytes| (1..=32).contains(bytes))?.into();
        let hsm = std::str::from_utf8(self.take(name_bytes)?).ok()?.to_owned();
        let retire = self.stamp()?;
        let blob_bytes = self.u16()?.into();
        let blob = HsmBlob::from_bytes(self.take(blob_bytes)?).ok()?;
        Some(Seed { hsm, retire, blob })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A header as tests need it: fixed ids, no commitments.
    pub(in super::super) fn header(name: &str, factors: &str) -> Header {
        Header {
            cluster: ClusterId::from_bytes([7; 16]),
            id: [8; 16],
            set: [9; 4],
            created: Timestamp(1_795_000_000_000),
            factors: factors.parse().unwrap(),
            name: name.parse().unwrap(),
            commitments: Vec::new(),
        }
    }

    fn blob(version: u8, fill: u8) -> HsmBlob {
        let mut bytes = vec![1, 1, 4, b'r', b'o', b'o', b't', 0, 0, 0, version, 0, 60];
        bytes.extend([fill; 60]);
        HsmBlob::from_bytes(&bytes).unwrap()
    }

    fn record() -> SlotRecord {
        let mut header = header("daily", "hsm+quorum:2/3");
        header.commitments = vec![[1; 32], [2; 32], [3; 32]];
        SlotRecord {
            header,
            generation: 1,
            root: Wrapped::from_bytes([4; 60]),
            seeds: vec![
                Seed {
                    hsm: "main".into(),
                    retire: None,
                    blob: blob(2, 5),
                },
                Seed {
                    hsm: "main".into(),
                    retire: Some(Timestamp(77)),
                    blob: blob(1, 6),
                },
            ],
            verified: Some(Timestamp(88)),
            key: Wrapped::from_bytes([10; 60]),
        }
    }

    fn any_record() -> impl Strategy<Value = SlotRecord> {
        let kind = prop_oneof![
            Just(Factors::Hsm),
            (1..=4u8, 0..=4u8).prop_map(|(k, more)| Factors::Quorum(Quorum::new(k, k + more).unwrap())),
            (1..=4u8, 0..=28u8).prop_map(|(k, more)| Factors::HsmQuorum(Quorum::new(k, k + more).unwrap())),
        ];
        let seed = ("[a-z0-9_-]{1,32}", 0..5u64, 1..9u8).prop_map(|(hsm, retire, version)| Seed {
            hsm,
            retire: (retire > 0).then_some(Timestamp(retire)),
            blob: blob(version, version),
        });
        let seeds = proptest::collection::vec(seed, 1..=SlotRecord::SEEDS_MAX);
        (
            kind,
            seeds,
            "[a-z0-9-]{1,64}",
            any::<([u8; 32], u64, u8)>(),
            1..=u32::MAX,
            any::<Option<u32>>(),
        )
            .prop_map(|(factors, seeds, name, (ids, created, fill), generation, verified)| {
                let mut record = record();
                record.header.factors = factors;
                record.header.name = name.parse().unwrap();
                record.header.created = Timestamp(created);
                record.header.id.copy_from_slice(&ids[..16]);
                record.header.commitments = vec![[fill; 32]; factors.quorum().map_or(0, |quorum| quorum.n().into())];
                record.seeds = if factors.has_hsm() { seeds } else { Vec::new() };
                record.generation = generation;
                record.verified = verified.map(|ms| Timestamp(u64::from(ms) + 1));
                record
            })
    }

    /// The stored form is for ever: this one stays readable.
    #[test]
    fn golden() {
        let want = include_str!("testdata/slot-v1.hex").trim();
        assert_eq!(data_encoding::HEXLOWER.encode(&record().encode()), want);
        let bytes = data_encoding::HEXLOWER.decode(want.as_bytes()).unwrap();
        assert_eq!(SlotRecord::decode("daily", &bytes).unwrap(), record());
    }

    /// R-SEAL-2: every flipped bit, cut and addition of a stored slot is refused by name.
    #[test]
    fn every_accident_is_refused() {
        let bytes = record().encode();
        let refused = |bytes: &[u8]| {
            assert_eq!(
                SlotRecord::decode("daily", bytes).unwrap_err().to_string(),
                "the record of slot `daily` is damaged"
            )
        };
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            refused(&flipped);
        }
        (0..bytes.len()).for_each(|at| refused(&bytes[..at]));
        refused(&[&bytes[..], &[0]].concat());
    }

    proptest! {
        /// What is stored comes back, within its bound.
        #[test]
        fn round_trip(record in any_record()) {
            let bytes = record.encode();
            prop_assert!(bytes.len() <= SlotRecord::BYTES_MAX);
            prop_assert_eq!(SlotRecord::decode("x", &bytes).unwrap(), record);
        }

        /// Hostile bytes with a right checksum never panic, and what is taken has one form only.
        #[test]
        fn one_form(record in any_record(), at in any::<prop::sample::Index>(), with: u8, cut in any::<prop::sample::Index>()) {
            let mut bytes = record.encode();
            bytes.truncate(bytes.len() - 4);
            let at = at.index(bytes.len());
            bytes[at] = with;
            if with & 1 > 0 {
                bytes.truncate(cut.index(bytes.len()) + 1);
            }
            bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
            if let Ok(read) = SlotRecord::decode("x", &bytes) {
                prop_assert_eq!(read.encode(), bytes);
            }
        }
    }
}
