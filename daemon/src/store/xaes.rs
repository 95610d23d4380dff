//! XAES-256-GCM as C2SP specifies it (https://c2sp.org/XAES-256-GCM): a 192-bit nonce, random for practically any number of records,
//! over AES-256-GCM with a key derived a nonce. Also the plain AES-256-GCM of the second algorithm. Callers run inside
//! [`crate::base::locked::scrubbed`]: derived keys and key schedules pass over the stack.

use aes::{
    Aes256Enc,
    cipher::{Array, BlockCipherEncrypt, KeyInit, consts::U12},
};
use aes_gcm::{
    AesGcm,
    aead::{AeadInOut, inout::InOutBuf},
};
use zeroize::{Zeroize, Zeroizing};

/// AES-256-GCM with a 96-bit nonce; half the key schedule, since GCM never decrypts a block.
pub(crate) type Gcm = AesGcm<Aes256Enc, U12>;
/// Bytes of a tag.
pub(crate) const TAG_BYTES: usize = 16;
/// Bytes of AES-256-GCM's nonce.
pub(crate) const GCM_NONCE_BYTES: usize = 12;
/// Bytes of XAES-256-GCM's nonce.
pub(crate) const XAES_NONCE_BYTES: usize = 24;

/// The tag does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unsealed;

/// A new AES-256-GCM cipher.
pub(crate) fn gcm(key: &[u8; 32]) -> Gcm {
    Gcm::new(key.into())
}

/// Encrypts `text` in place.
pub(crate) fn gcm_seal(
    cipher: &Gcm,
    nonce: &[u8; GCM_NONCE_BYTES],
    aad: &[u8],
    text: &mut [u8],
) -> Result<[u8; TAG_BYTES], Unsealed> {
    cipher
        .encrypt_inout_detached(nonce.into(), aad, InOutBuf::from(text))
        .map(Into::into)
        .map_err(|_| Unsealed)
}

/// Decrypts `text` in place, only once the tag was checked.
pub(crate) fn gcm_open(
    cipher: &Gcm,
    nonce: &[u8; GCM_NONCE_BYTES],
    aad: &[u8],
    text: &mut [u8],
    tag: &[u8; TAG_BYTES],
) -> Result<(), Unsealed> {
    cipher
        .decrypt_inout_detached(nonce.into(), aad, InOutBuf::from(text), tag.into())
        .map_err(|_| Unsealed)
}

/// A key of XAES-256-GCM: the AES schedule and the CMAC subkey K1.
pub(crate) struct Xaes {
    aes: Aes256Enc,
    k1: Zeroizing<[u8; 16]>,
}

impl Xaes {
    /// Steps 1 and 2 of the algorithm.
    pub fn new(key: &[u8; 32]) -> Self {
        let aes = Aes256Enc::new(key.into());
        let mut block = Array::from([0; 16]);
        aes.encrypt_block(&mut block);
        let l = u128::from_be_bytes(block.into());
        let k1 = (l << 1) ^ ((l >> 127) * 0x87);
        block.zeroize();
        Self {
            aes,
            k1: Zeroizing::new(k1.to_be_bytes()),
        }
    }

    /// Steps 3 to 6: the GCM cipher and the nonce of one record.
    fn derive<'n>(&self, nonce: &'n [u8; XAES_NONCE_BYTES]) -> (Gcm, &'n [u8; GCM_NONCE_BYTES]) {
        let (first, last) = halves(nonce);
        let mut key = Zeroizing::new([0; 32]);
        for (counter, half) in (1u8..).zip(key.chunks_exact_mut(16)) {
            let mut block = Array::from([0; 16]);
            block[1] = counter;
            block[2] = b'X';
            block[4..].copy_from_slice(first);
            block.iter_mut().zip(self.k1.iter()).for_each(|(byte, k1)| *byte ^= k1);
            self.aes.encrypt_block(&mut block);
            half.copy_from_slice(&block);
            block.zeroize();
        }
        (gcm(&key), last)
    }

    /// Encrypts `text` in place.
    pub fn seal(
        &self,
        nonce: &[u8; XAES_NONCE_BYTES],
        aad: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], Unsealed> {
        let (cipher, nonce) = self.derive(nonce);
        gcm_seal(&cipher, nonce, aad, text)
    }

    /// Decrypts `text` in place, only once the tag was checked.
    pub fn open(
        &self,
        nonce: &[u8; XAES_NONCE_BYTES],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), Unsealed> {
        let (cipher, nonce) = self.derive(nonce);
        gcm_open(&cipher, nonce, aad, text, tag)
    }
}

fn halves(nonce: &[u8; XAES_NONCE_BYTES]) -> (&[u8; 12], &[u8; 12]) {
    const ZERO: &[u8; 12] = &[0; 12];
    // A 24-byte array has both halves: the fallbacks are never taken.
    (nonce.first_chunk().unwrap_or(ZERO), nonce.last_chunk().unwrap_or(ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
    }

    /// R-STORE-2: the construction is C2SP's, by its published vectors (MSB of L 0, then 1).
    #[test]
    fn c2sp_vectors() {
        for (key, plain, aad, sealed) in [
            (
                [1; 32],
                "XAES-256-GCM",
                "",
                "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271",
            ),
            (
                [3; 32],
                "XAES-256-GCM",
                "c2sp.org/XAES-256-GCM",
                "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d",
            ),
        ] {
            let xaes = Xaes::new(&key);
            let mut text = plain.as_bytes().to_vec();
            let tag = xaes
                .seal(b"ABCDEFGHIJKLMNOPQRSTUVWX", aad.as_bytes(), &mut text)
                .unwrap();
            assert_eq!([&text[..], &tag].concat(), hex(sealed));
            xaes.open(b"ABCDEFGHIJKLMNOPQRSTUVWX", aad.as_bytes(), &mut text, &tag)
                .unwrap();
            assert_eq!(text, plain.as_bytes());
            let mut wrong = tag;
            wrong[0] ^= 1;
            let before = text.clone();
            assert_eq!(
                xaes.open(b"ABCDEFGHIJKLMNOPQRSTUVWX", aad.as_bytes(), &mut text, &wrong),
                Err(Unsealed)
            );
            assert_eq!(text, before, "nothing is decrypted before the tag was checked");
        }
    }

    /// R-STORE-2: C2SP's accumulated vector, 10,000 random keys, nonces, texts and associated data.
    #[test]
    fn c2sp_accumulated_vector() {
        use sha3::{
            Shake128,
            digest::{ExtendableOutput, Update, XofReader},
        };
        let mut dice = Shake128::default().finalize_xof();
        let mut sealed = Shake128::default();
        for _ in 0..10_000 {
            let (mut key, mut nonce, mut length) = ([0; 32], [0; XAES_NONCE_BYTES], [0; 1]);
            dice.read(&mut key);
            dice.read(&mut nonce);
            dice.read(&mut length);
            let mut text = vec![0; usize::from(length[0])];
            dice.read(&mut text);
            dice.read(&mut length);
            let mut aad = vec![0; usize::from(length[0])];
            dice.read(&mut aad);
            let xaes = Xaes::new(&key);
            let plain = text.clone();
            let tag = xaes.seal(&nonce, &aad, &mut text).unwrap();
            sealed.update(&text);
            sealed.update(&tag);
            xaes.open(&nonce, &aad, &mut text, &tag).unwrap();
            assert_eq!(text, plain);
        }
        let mut hash = [0; 32];
        sealed.finalize_xof().read(&mut hash);
        assert_eq!(
            hash.to_vec(),
            hex("e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939")
        );
    }
}
