//! The two primitives of a slot: a key from two halves, and one key under another.

use crate::base::{
    locked::{LockError, LockedKey, scrubbed},
    random::Random,
};
use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{AeadInOut, Nonce, Tag},
};
use hkdf::HkdfExtract;
use sha2::Sha256;

/// A 32-byte key under AES-256-GCM: nonce, ciphertext, tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapped([u8; Self::BYTES]);

impl Wrapped {
    /// Nonce 12, ciphertext 32, tag 16.
    pub const BYTES: usize = 60;

    /// Takes stored bytes; whether they open is only known by opening.
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }
    /// The stored form.
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// Seals `plain` under `key`, bound to `aad`. The nonce is random: a key wraps a handful of times in its life, far from the
    /// 2^32 of NIST SP 800-38D, 8.3.
    /// # Errors
    /// [`LockError`] when there is no locked memory.
    pub fn seal(key: &LockedKey, aad: &[u8], plain: &LockedKey, random: &dyn Random) -> Result<Self, LockError> {
        let mut nonce = [0; 12];
        random.fill(&mut nonce);
        let mut tag = None;
        // Encrypted in locked memory: the plain key is never copied anywhere else.
        let body = LockedKey::fill_with(|body| {
            body.copy_from_slice(plain.expose());
            let cipher = Aes256Gcm::new(key.expose().into());
            tag = cipher
                .encrypt_inout_detached(&nonce.into(), aad, body.as_mut_slice().into())
                .ok();
        })?;
        // GCM refuses only inputs of many gigabytes.
        let tag = tag.ok_or(LockError::Full)?;
        let mut out = [0; Self::BYTES];
        let parts = nonce.iter().chain(body.expose()).chain(tag.iter());
        out.iter_mut().zip(parts).for_each(|(to, from)| *to = *from);
        Ok(Self(out))
    }

    /// Opens what [`Self::seal`] made with the same key and `aad`; `None` when any of the three differs.
    /// # Errors
    /// [`LockError`] when there is no locked memory.
    pub fn open(&self, key: &LockedKey, aad: &[u8]) -> Result<Option<LockedKey>, LockError> {
        let mut nonce = Nonce::<Aes256Gcm>::default();
        let mut tag = Tag::<Aes256Gcm>::default();
        nonce.iter_mut().zip(&self.0).for_each(|(to, from)| *to = *from);
        tag.iter_mut()
            .zip(self.0.iter().skip(44))
            .for_each(|(to, from)| *to = *from);
        let mut opened = false;
        let plain = LockedKey::fill_with(|plain| {
            plain
                .iter_mut()
                .zip(self.0.iter().skip(12))
                .for_each(|(to, from)| *to = *from);
            let cipher = Aes256Gcm::new(key.expose().into());
            opened = cipher
                .decrypt_inout_detached(&nonce, aad, plain.as_mut_slice().into(), &tag)
                .is_ok();
        })?;
        Ok(opened.then_some(plain))
    }
}

/// `HKDF-SHA256(salt = cluster, ikm = half(hsm) | half(quorum), info = header)`, where a present half is 0x20 and its 32 bytes and an
/// absent one a single 0x00: no combination of halves can stand for another.
/// # Errors
/// [`LockError`] when there is no locked memory.
pub fn slot_key(
    cluster: &[u8; 16],
    hsm: Option<&LockedKey>,
    quorum: Option<&LockedKey>,
    header: &[u8],
) -> Result<LockedKey, LockError> {
    let mut fits = true;
    let key = LockedKey::fill_with(|out| {
        let mut extract = HkdfExtract::<Sha256>::new(Some(cluster));
        for half in [hsm, quorum] {
            match half {
                Some(key) => {
                    extract.input_ikm(&[0x20]);
                    extract.input_ikm(key.expose());
                }
                None => extract.input_ikm(&[0]),
            }
        }
        fits = scrubbed(|| extract.finalize().1.expand(header, out).is_ok());
    })?;
    // 32 bytes are one block of HKDF: expand cannot refuse. Were it to, an all-zero key must not go out.
    if fits { Ok(key) } else { Err(LockError::Full) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::OsRandom;

    fn key(byte: u8) -> LockedKey {
        LockedKey::copy_of(&[byte; 32]).unwrap()
    }

    /// R-SEAL-2: a wrapped key opens only with its key and its binding, and no byte of it may change.
    #[test]
    fn wrapping_holds() {
        let wrapped = Wrapped::seal(&key(1), b"header", &key(2), &OsRandom).unwrap();
        assert_eq!(wrapped.open(&key(1), b"header").unwrap().unwrap().expose(), &[2; 32]);
        assert!(wrapped.open(&key(3), b"header").unwrap().is_none());
        assert!(wrapped.open(&key(1), b"headeR").unwrap().is_none());
        for at in 0..Wrapped::BYTES {
            let mut bytes = *wrapped.as_bytes();
            bytes[at] ^= 0x10;
            assert!(
                Wrapped::from_bytes(bytes).open(&key(1), b"header").unwrap().is_none(),
                "byte {at}"
            );
        }
    }

    /// R-SEAL-2: hsm-only, quorum-only and both are different keys, and each input counts. The first is a known answer, computed with
    /// Python's hmac module (`HKDF-SHA256`, RFC 5869).
    #[test]
    fn halves_cannot_stand_for_each_other() {
        let derive = |hsm: Option<u8>, quorum: Option<u8>, cluster: u8, header: &[u8]| {
            let (hsm, quorum) = (hsm.map(key), quorum.map(key));
            *slot_key(&[cluster; 16], hsm.as_ref(), quorum.as_ref(), header)
                .unwrap()
                .expose()
        };
        let known = data_encoding::HEXLOWER.encode(&derive(Some(1), Some(2), 7, b"header"));
        assert_eq!(
            known,
            "b8e3b087ec068ec4a8098b90270145efbb1307dfea9fe9c464cec217909af6bb"
        );
        let all = [
            derive(Some(1), Some(2), 7, b"header"),
            derive(Some(2), Some(1), 7, b"header"),
            derive(Some(1), None, 7, b"header"),
            derive(None, Some(1), 7, b"header"),
            derive(None, None, 7, b"header"),
            derive(Some(1), Some(2), 8, b"header"),
            derive(Some(1), Some(2), 7, b"headeR"),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(all.iter().skip(at + 1).all(|other| other != one), "{at}");
        }
    }
}
