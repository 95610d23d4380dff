//! The keyring: data keys by generation, the names key, token peppers by epoch, the audit-hash key. Sealed by the root key:
//! `format 0x01 | nonce 12 | ciphertext | tag 16`, AES-256-GCM, AAD = purpose, format, cluster id. In memory its keys are only in locked pages.

use super::{
    error::UnlockError,
    names::NameCipher,
    record::{Algorithm, DataCipher},
    xaes::{self, GCM_NONCE_BYTES, TAG_BYTES},
};
use crate::base::{
    id::ClusterId,
    locked::{LockError, Locked, LockedKey, scrubbed},
    random::Random,
};
use std::sync::Arc;
use zeroize::Zeroizing;

const FORMAT: u8 = 1;
const PURPOSE: &[u8] = b"strongroom keyring v1";
/// Generations at once: old ones go when re-encryption is done.
pub const GENERATIONS_MAX: usize = 16;
/// Pepper epochs at once.
pub const PEPPERS_MAX: usize = 8;
const GENERATION_BYTES: usize = 4 + 1 + 8 + 32;
const PEPPER_BYTES: usize = 4 + 32;
/// Fits a slot of locked memory, and the stack that is wiped.
const PLAIN_BYTES_MAX: usize = 4 + GENERATIONS_MAX * GENERATION_BYTES + PEPPERS_MAX * PEPPER_BYTES + 64 + 32;

/// One data key.
pub(super) struct Generation {
    pub id: u32,
    pub algorithm: Algorithm,
    /// The barrier sequence when it was made: no record under it has a lower one.
    pub first_sequence: u64,
    key: LockedKey,
    pub cipher: DataCipher,
}

impl Generation {
    fn new(id: u32, algorithm: Algorithm, first_sequence: u64, key: LockedKey) -> Result<Arc<Self>, LockError> {
        let cipher = DataCipher::new(algorithm, &key)?;
        Ok(Arc::new(Self {
            id,
            algorithm,
            first_sequence,
            key,
            cipher,
        }))
    }
}

/// A pepper for token hashes.
pub struct Pepper {
    epoch: u32,
    key: LockedKey,
}

impl Pepper {
    /// Kept beside each hash, to find the pepper again.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }
    /// The HMAC key.
    pub fn key(&self) -> &LockedKey {
        &self.key
    }
}

/// What to change in a keyring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyringEdit {
    /// A new data key seals from now on, with this algorithm.
    AddGeneration(Algorithm),
    /// Forget an old data key: nothing is sealed by it any more.
    DropGeneration(u32),
    /// A new pepper from now on.
    AddPepper,
    /// Forget a pepper: no token uses it.
    DropPepper(u32),
}

/// Why an edit is refused.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// Finish re-encryption first.
    #[error("the keyring has as many generations or peppers as it may: let re-encryption finish, then drop old ones")]
    Full,
    /// The current one, or none.
    #[error("the key to drop is in use, or does not exist")]
    Drop,
    /// No locked memory.
    #[error(transparent)]
    Memory(#[from] LockError),
}

/// See the module. Cheap to copy on change: keys are shared.
pub struct Keyring {
    /// In order of age; the last one seals.
    generations: Vec<Arc<Generation>>,
    names_key: Arc<Locked<[u8; 64]>>,
    names: Arc<NameCipher>,
    peppers: Vec<Arc<Pepper>>,
    audit: Arc<LockedKey>,
}

impl Keyring {
    /// Fresh keys: generation 1, pepper epoch 1.
    /// # Errors
    /// No locked memory.
    pub(super) fn create(algorithm: Algorithm, first_sequence: u64, random: &dyn Random) -> Result<Self, LockError> {
        let names_key = Locked::new(|| {
            let mut key = [0; 64];
            random.fill(&mut key);
            key
        })?;
        Ok(Self {
            generations: vec![Generation::new(
                1,
                algorithm,
                first_sequence,
                LockedKey::random(random)?,
            )?],
            names: Arc::new(NameCipher::new(&names_key)?),
            names_key: Arc::new(names_key),
            peppers: vec![Arc::new(Pepper {
                epoch: 1,
                key: LockedKey::random(random)?,
            })],
            audit: Arc::new(LockedKey::random(random)?),
        })
    }

    /// The keyring with these edits made, in order.
    /// # Errors
    /// [`KeyringError`].
    pub(super) fn edited(
        &self,
        edits: &[KeyringEdit],
        first_sequence: u64,
        random: &dyn Random,
    ) -> Result<Self, KeyringError> {
        let mut next = Self {
            generations: self.generations.clone(),
            names_key: self.names_key.clone(),
            names: self.names.clone(),
            peppers: self.peppers.clone(),
            audit: self.audit.clone(),
        };
        for edit in edits {
            next.edit(*edit, first_sequence, random)?;
        }
        Ok(next)
    }

    fn edit(&mut self, edit: KeyringEdit, first_sequence: u64, random: &dyn Random) -> Result<(), KeyringError> {
        match edit {
            KeyringEdit::AddGeneration(algorithm) => {
                if self.generations.len() >= GENERATIONS_MAX {
                    return Err(KeyringError::Full);
                }
                let id = self.generations.last().map_or(1, |last| last.id.saturating_add(1));
                self.generations.push(Generation::new(
                    id,
                    algorithm,
                    first_sequence,
                    LockedKey::random(random)?,
                )?);
            }
            KeyringEdit::DropGeneration(id) => {
                let at = self
                    .generations
                    .iter()
                    .position(|generation| generation.id == id)
                    .ok_or(KeyringError::Drop)?;
                if at + 1 == self.generations.len() {
                    return Err(KeyringError::Drop);
                }
                self.generations.remove(at);
            }
            KeyringEdit::AddPepper => {
                if self.peppers.len() >= PEPPERS_MAX {
                    return Err(KeyringError::Full);
                }
                let epoch = self.peppers.last().map_or(1, |last| last.epoch.saturating_add(1));
                self.peppers.push(Arc::new(Pepper {
                    epoch,
                    key: LockedKey::random(random)?,
                }));
            }
            KeyringEdit::DropPepper(epoch) => {
                let at = self
                    .peppers
                    .iter()
                    .position(|pepper| pepper.epoch == epoch)
                    .ok_or(KeyringError::Drop)?;
                if at + 1 == self.peppers.len() {
                    return Err(KeyringError::Drop);
                }
                self.peppers.remove(at);
            }
        }
        Ok(())
    }

    /// The data key that seals.
    pub(super) fn current(&self) -> Option<&Arc<Generation>> {
        self.generations.last()
    }

    /// The data key with this id.
    pub(super) fn generation(&self, id: u32) -> Option<&Arc<Generation>> {
        self.generations.iter().rev().find(|generation| generation.id == id)
    }

    /// Ids of all data keys, oldest first; the last one seals.
    pub fn generation_ids(&self) -> Vec<u32> {
        self.generations.iter().map(|generation| generation.id).collect()
    }

    /// The cipher of names.
    pub(super) fn names(&self) -> &NameCipher {
        &self.names
    }

    /// The pepper for new tokens.
    pub fn current_pepper(&self) -> Option<&Arc<Pepper>> {
        self.peppers.last()
    }

    /// Every pepper, oldest first.
    pub fn peppers(&self) -> &[Arc<Pepper>] {
        &self.peppers
    }

    /// The pepper of an epoch.
    pub fn pepper(&self, epoch: u32) -> Option<&Arc<Pepper>> {
        self.peppers.iter().rev().find(|pepper| pepper.epoch == epoch)
    }

    /// The key of the audit log's keyed hashes.
    pub fn audit_key(&self) -> &Arc<LockedKey> {
        &self.audit
    }

    /// Shows every key, with its name in words: for offline recovery and for the memory scan (R-SEAL-7). Nothing in the daemon calls it.
    pub fn each_key(&self, mut see: impl FnMut(&str, &[u8])) {
        for generation in &self.generations {
            see(&format!("data key {}", generation.id), generation.key.expose());
        }
        for pepper in &self.peppers {
            see(&format!("pepper {}", pepper.epoch), pepper.key.expose());
        }
        see("names key", &**self.names_key);
        see("audit-hash key", self.audit.expose());
    }

    /// Seals the keyring by `root`.
    pub(super) fn seal(&self, root: &LockedKey, cluster: ClusterId, random: &dyn Random) -> Vec<u8> {
        let mut nonce = [0; GCM_NONCE_BYTES];
        random.fill(&mut nonce);
        scrubbed(|| {
            let mut plain = Zeroizing::new([0u8; PLAIN_BYTES_MAX]);
            let length = self.write(&mut plain);
            let text = plain.get_mut(..length).unwrap_or_default();
            let tag = xaes::gcm_seal(&xaes::gcm(root.expose()), &nonce, &aad(cluster), text).unwrap_or_default();
            [&[FORMAT][..], &nonce, text, &tag].concat()
        })
    }

    /// Opens a sealed keyring.
    /// # Errors
    /// [`UnlockError`]: never a panic, whatever the bytes.
    pub(super) fn open(root: &LockedKey, cluster: ClusterId, sealed: &[u8]) -> Result<Self, UnlockError> {
        let (&format, rest) = sealed.split_first().ok_or(UnlockError::Keyring)?;
        if format != FORMAT {
            return Err(UnlockError::Format(format));
        }
        let (nonce, rest) = rest
            .split_first_chunk::<GCM_NONCE_BYTES>()
            .ok_or(UnlockError::Keyring)?;
        let (text, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(UnlockError::Keyring)?;
        let mut opened = false;
        let plain = Locked::new(|| {
            let mut plain = [0u8; PLAIN_BYTES_MAX];
            if let Some(into) = plain.get_mut(..text.len()) {
                into.copy_from_slice(text);
                opened = xaes::gcm_open(&xaes::gcm(root.expose()), nonce, &aad(cluster), into, tag).is_ok();
            }
            plain
        })?;
        if !opened {
            return Err(UnlockError::Keyring);
        }
        Self::read(plain.get(..text.len()).ok_or(UnlockError::Keyring)?)
    }

    /// Writes the plaintext; returns its length. Counts are bounded by `edit`, so it fits.
    fn write(&self, out: &mut [u8; PLAIN_BYTES_MAX]) -> usize {
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            if let Some(into) = out.get_mut(at..at + bytes.len()) {
                into.copy_from_slice(bytes);
                at += bytes.len();
            }
        };
        put(&u16::try_from(self.generations.len()).unwrap_or(0).to_be_bytes());
        for generation in &self.generations {
            put(&generation.id.to_be_bytes());
            put(&[generation.algorithm.id()]);
            put(&generation.first_sequence.to_be_bytes());
            put(generation.key.expose());
        }
        put(&u16::try_from(self.peppers.len()).unwrap_or(0).to_be_bytes());
        for pepper in &self.peppers {
            put(&pepper.epoch.to_be_bytes());
            put(pepper.key.expose());
        }
        put(&**self.names_key);
        put(self.audit.expose());
        at
    }

    fn read(plain: &[u8]) -> Result<Self, UnlockError> {
        let mut rest = plain;
        let mut generations = Vec::new();
        for _ in 0..u16::from_be_bytes(*take(&mut rest)?) {
            let (id, [algorithm], first) = (*take::<4>(&mut rest)?, *take::<1>(&mut rest)?, *take::<8>(&mut rest)?);
            let algorithm = Algorithm::from_id(algorithm).ok_or(UnlockError::Keyring)?;
            let key = LockedKey::copy_of(take(&mut rest)?)?;
            generations.push(Generation::new(
                u32::from_be_bytes(id),
                algorithm,
                u64::from_be_bytes(first),
                key,
            )?);
        }
        let mut peppers = Vec::new();
        for _ in 0..u16::from_be_bytes(*take(&mut rest)?) {
            let epoch = u32::from_be_bytes(*take(&mut rest)?);
            peppers.push(Arc::new(Pepper {
                epoch,
                key: LockedKey::copy_of(take(&mut rest)?)?,
            }));
        }
        let names_key = take::<64>(&mut rest)?;
        let names_key = Locked::new(|| *names_key)?;
        let audit = Arc::new(LockedKey::copy_of(take(&mut rest)?)?);
        if generations.is_empty() || peppers.is_empty() || !rest.is_empty() {
            return Err(UnlockError::Keyring);
        }
        Ok(Self {
            generations,
            names: Arc::new(NameCipher::new(&names_key)?),
            names_key: Arc::new(names_key),
            peppers,
            audit,
        })
    }
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], UnlockError> {
    let (taken, after) = rest.split_first_chunk::<N>().ok_or(UnlockError::Keyring)?;
    *rest = after;
    Ok(taken)
}

fn aad(cluster: ClusterId) -> Vec<u8> {
    [PURPOSE, &[FORMAT], cluster.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::OsRandom;

    /// The fullest keyring fits its locked memory and opens with every key in its place; more is refused.
    #[test]
    fn the_fullest_keyring_seals_and_opens() {
        let cluster = ClusterId::from_bytes([1; 16]);
        let root = LockedKey::random(&OsRandom).unwrap();
        let mut edits = vec![KeyringEdit::AddGeneration(Algorithm::Aes256Gcm); GENERATIONS_MAX - 1];
        edits.extend([KeyringEdit::AddPepper; PEPPERS_MAX - 1]);
        let full = Keyring::create(Algorithm::Xaes256Gcm, 7, &OsRandom)
            .unwrap()
            .edited(&edits, 9, &OsRandom)
            .unwrap();
        for more in [KeyringEdit::AddGeneration(Algorithm::default()), KeyringEdit::AddPepper] {
            assert!(matches!(full.edited(&[more], 9, &OsRandom), Err(KeyringError::Full)));
        }
        let opened = Keyring::open(&root, cluster, &full.seal(&root, cluster, &OsRandom)).unwrap();
        assert_eq!(opened.generations.len(), GENERATIONS_MAX);
        for (one, other) in full.generations.iter().zip(&opened.generations) {
            assert_eq!(
                (one.id, one.algorithm, one.first_sequence),
                (other.id, other.algorithm, other.first_sequence)
            );
            assert_eq!(one.key.expose(), other.key.expose());
        }
        for (one, other) in full.peppers.iter().zip(&opened.peppers) {
            assert_eq!((one.epoch, one.key.expose()), (other.epoch, other.key.expose()));
        }
        assert_eq!(
            (**full.names_key, full.audit.expose()),
            (**opened.names_key, opened.audit.expose())
        );
    }

    /// What is in use cannot be dropped; ids are not used again.
    #[test]
    fn only_what_is_old_is_dropped() {
        let one = Keyring::create(Algorithm::default(), 0, &OsRandom).unwrap();
        for current in [
            KeyringEdit::DropGeneration(1),
            KeyringEdit::DropPepper(1),
            KeyringEdit::DropGeneration(9),
            KeyringEdit::DropPepper(9),
        ] {
            assert!(matches!(one.edited(&[current], 0, &OsRandom), Err(KeyringError::Drop)));
        }
        let rotate = [
            KeyringEdit::AddGeneration(Algorithm::default()),
            KeyringEdit::DropGeneration(1),
            KeyringEdit::AddPepper,
            KeyringEdit::DropPepper(1),
        ];
        let two = one.edited(&rotate, 0, &OsRandom).unwrap();
        assert_eq!(
            (
                two.generation_ids(),
                two.peppers().len(),
                two.current_pepper().unwrap().epoch()
            ),
            (vec![2], 1, 2)
        );
    }
}
