//! A record inside the barrier:
//! `format 0x01 | algorithm | key id u32 | barrier sequence u64 | nonce 24 or 12 | ciphertext | tag 16`, numbers big-endian.
//! AAD = those 14 bytes of header, cluster id, store id, the full stored key (which begins with the namespace): a record that was moved,
//! swapped or edited does not open. Exactly the key it names is tried, no other. R-STORE-2.

use super::{
    batch::Envelope,
    keyring::{Generation, Keyring},
    xaes::{self, GCM_NONCE_BYTES, Gcm, TAG_BYTES, XAES_NONCE_BYTES, Xaes},
};
use crate::base::{
    id::{ClusterId, StoreId},
    locked::{LockError, Locked, LockedKey, scrubbed},
    random::Random,
};
use zeroize::Zeroizing;

const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 14;

/// How records are sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Algorithm {
    /// XAES-256-GCM: random 192-bit nonces, no practical limit.
    #[default]
    Xaes256Gcm,
    /// AES-256-GCM: random 96-bit nonces, counted: rotate at 2^30 records, refused at 2^32 (NIST SP 800-38D, 8.3).
    Aes256Gcm,
}

impl Algorithm {
    pub(super) const fn id(self) -> u8 {
        match self {
            Self::Xaes256Gcm => 1,
            Self::Aes256Gcm => 2,
        }
    }
    pub(super) const fn from_id(id: u8) -> Option<Self> {
        match id {
            1 => Some(Self::Xaes256Gcm),
            2 => Some(Self::Aes256Gcm),
            _ => None,
        }
    }
    const fn nonce_bytes(self) -> usize {
        match self {
            Self::Xaes256Gcm => XAES_NONCE_BYTES,
            Self::Aes256Gcm => GCM_NONCE_BYTES,
        }
    }
}

/// An expanded data key, in locked memory; used by reference.
pub(super) enum DataCipher {
    Xaes(Locked<Xaes>),
    Gcm(Locked<Gcm>),
}

impl DataCipher {
    pub fn new(algorithm: Algorithm, key: &LockedKey) -> Result<Self, LockError> {
        Ok(match algorithm {
            Algorithm::Xaes256Gcm => Self::Xaes(Locked::new(|| Xaes::new(key.expose()))?),
            Algorithm::Aes256Gcm => Self::Gcm(Locked::new(|| xaes::gcm(key.expose()))?),
        })
    }
}

/// Whose records: part of every AAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// The vault.
    pub cluster: ClusterId,
    /// This copy of its store.
    pub store: StoreId,
}

fn aad(header: &[u8; HEADER_BYTES], ids: &Ids, key: &[u8]) -> Vec<u8> {
    [&header[..], ids.cluster.as_bytes(), ids.store.as_bytes(), key].concat()
}

fn header(algorithm: Algorithm, key_id: u32, sequence: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let (format, rest) = header.split_at_mut(2);
    let (id, rest) = rest.split_at_mut(4);
    format.copy_from_slice(&[FORMAT, algorithm.id()]);
    id.copy_from_slice(&key_id.to_be_bytes());
    rest.copy_from_slice(&sequence.to_be_bytes());
    header
}

/// Seals `plain` for `key`, as the row that is to be stored.
pub(super) fn seal(
    generation: &Generation,
    ids: &Ids,
    sequence: u64,
    key: &[u8],
    plain: &[u8],
    random: &dyn Random,
) -> Envelope {
    let header = header(generation.algorithm, generation.id, sequence);
    let nonce_bytes = generation.algorithm.nonce_bytes();
    let mut nonce = [0; XAES_NONCE_BYTES];
    random.fill(&mut nonce[..nonce_bytes]);
    let mut row = Envelope::with_capacity(HEADER_BYTES + nonce_bytes + plain.len() + TAG_BYTES);
    let buffer = row.buffer();
    buffer.extend_from_slice(&header);
    buffer.extend_from_slice(&nonce[..nonce_bytes]);
    let start = buffer.len();
    buffer.extend_from_slice(plain);
    let aad = aad(&header, ids, key);
    let text = buffer.get_mut(start..).unwrap_or_default();
    // Sealing fails only past 64 GiB, and values end at 1 MiB; an all-zero tag would be refused at reading.
    let tag = scrubbed(|| match &generation.cipher {
        DataCipher::Xaes(cipher) => cipher.seal(&nonce, &aad, text),
        DataCipher::Gcm(cipher) => {
            xaes::gcm_seal(cipher, nonce.first_chunk().unwrap_or(&[0; GCM_NONCE_BYTES]), &aad, text)
        }
    });
    buffer.extend_from_slice(&tag.unwrap_or_default());
    row
}

/// What a record says of itself, before anything is proved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub algorithm: Algorithm,
    pub key_id: u32,
    pub sequence: u64,
}

/// Reads a record's header.
pub(super) fn parse_header(record: &[u8]) -> Option<Header> {
    let (header, _) = record.split_first_chunk::<HEADER_BYTES>()?;
    let (&[format, algorithm], rest) = header.split_first_chunk::<2>()?;
    let (id, sequence) = rest.split_first_chunk::<4>()?;
    let algorithm = Algorithm::from_id(algorithm).filter(|_| format == FORMAT)?;
    let sequence = u64::from_be_bytes(sequence.try_into().ok()?);
    Some(Header {
        algorithm,
        key_id: u32::from_be_bytes(*id),
        sequence,
    })
}

/// Opens the record stored at `key`; `None` when it is damaged.
pub(super) fn open(keyring: &Keyring, ids: &Ids, key: &[u8], record: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let Header { algorithm, key_id, .. } = parse_header(record)?;
    let generation = keyring
        .generation(key_id)
        .filter(|generation| generation.algorithm == algorithm)?;
    let (header, rest) = record.split_first_chunk::<HEADER_BYTES>()?;
    let (nonce, rest) = rest.split_at_checked(algorithm.nonce_bytes())?;
    let (text, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
    let aad = aad(header, ids, key);
    let mut plain = Zeroizing::new(text.to_vec());
    scrubbed(|| match &generation.cipher {
        DataCipher::Xaes(cipher) => cipher.open(nonce.first_chunk()?, &aad, &mut plain, tag).ok(),
        DataCipher::Gcm(cipher) => xaes::gcm_open(cipher, nonce.first_chunk()?, &aad, &mut plain, tag).ok(),
    })?;
    Some(plain)
}
