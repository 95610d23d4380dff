//! Page tokens: where a listing goes on, opaque, and good for the same question of the same caller only.

use super::locked::{LockError, Locked, LockedKey, scrubbed};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use zeroize::Zeroizing;

const SUM_BYTES: usize = 16;

/// The key of page tokens. Tokens outlive a restart, not a change of the secret it is derived from.
pub struct PageKey(Locked<Hmac<Sha256>>);

/// The token was not made here, or for another question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the page token does not belong to this listing: start without one")]
pub struct PageError;

impl PageKey {
    /// Derives the key from a secret of the keyring.
    /// # Errors
    /// No locked memory.
    #[allow(clippy::expect_used)] // 32 bytes are within HKDF's bound, and HMAC takes keys of every length
    pub fn derive(secret: &LockedKey) -> Result<Self, LockError> {
        let make = || {
            let mut key = Zeroizing::new([0u8; 32]);
            Hkdf::<Sha256>::new(None, secret.expose())
                .expand(b"strongroom page tokens v1", &mut *key)
                .expect("32 bytes fit");
            Hmac::new_from_slice(&*key).expect("HMAC takes any key")
        };
        Locked::new(make).map(Self)
    }

    /// The token for going on at `cursor` with this question: every word that tells it from another (who, which listing, which path,
    /// which choices).
    pub fn seal(&self, question: &[&[u8]], cursor: &[u8]) -> Vec<u8> {
        let sum = self.sum(question, cursor).finalize().into_bytes();
        [&sum[..SUM_BYTES], cursor].concat()
    }

    /// The cursor of a token.
    /// # Errors
    /// [`PageError`].
    pub fn open(&self, question: &[&[u8]], token: &[u8]) -> Result<Vec<u8>, PageError> {
        let (sum, cursor) = token.split_at_checked(SUM_BYTES).ok_or(PageError)?;
        self.sum(question, cursor)
            .verify_truncated_left(sum)
            .map_err(|_| PageError)?;
        Ok(cursor.to_vec())
    }

    fn sum(&self, question: &[&[u8]], cursor: &[u8]) -> Hmac<Sha256> {
        scrubbed(|| {
            let mut sum = (*self.0).clone();
            for word in question.iter().chain([&cursor]) {
                sum.update(&u64::try_from(word.len()).unwrap_or(u64::MAX).to_be_bytes());
                sum.update(word);
            }
            sum
        })
    }
}

impl fmt::Debug for PageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PageKey(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// R-KV-2: a page token opens for its question and no other, and no other bytes open at all.
        #[test]
        fn opens_for_its_question_only(question: [Vec<u8>; 2], cursor: Vec<u8>, at: prop::sample::Index, flip in 1u8.., rubbish: Vec<u8>) {
            let key = PageKey::derive(&LockedKey::copy_of(&[7; 32]).unwrap()).unwrap();
            let other = PageKey::derive(&LockedKey::copy_of(&[8; 32]).unwrap()).unwrap();
            let words = [&question[0][..], &question[1][..]];
            let token = key.seal(&words, &cursor);
            prop_assert_eq!(key.open(&words, &token), Ok(cursor));
            prop_assert_eq!(other.open(&words, &token), Err(PageError));
            prop_assert_eq!(key.open(&[&question.concat()], &token), Err(PageError));
            prop_assert_eq!(key.open(&[words[0], words[1], b""], &token), Err(PageError));
            prop_assert_eq!(key.open(&words, &rubbish), Err(PageError));
            let mut near = token;
            let at = at.index(near.len());
            near[at] ^= flip;
            prop_assert_eq!(key.open(&words, &near), Err(PageError));
        }
    }
}
