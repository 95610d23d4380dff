//! The keyed hash that tokens are kept as: whoever steals the store cannot try tokens, whoever writes to it cannot add one.

use super::record::Mac;
use crate::{
    base::locked::{LockError, Locked, LockedKey, scrubbed},
    store::Keyring,
};
use hmac::{Hmac, KeyInit, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

/// One epoch's pepper, expanded: two compressions less for each token.
struct Pepper {
    epoch: u32,
    keyed: Locked<Hmac<Sha256>>,
}

/// The peppers by epoch, the current one first. An older one lives until no record uses it.
pub(super) struct Peppers(Vec<Pepper>);

impl Pepper {
    #[allow(clippy::expect_used)] // HMAC takes keys of every length
    fn new(epoch: u32, key: &LockedKey) -> Result<Self, LockError> {
        let keyed = Locked::new(|| Hmac::new_from_slice(key.expose()).expect("HMAC takes any key"))?;
        Ok(Self { epoch, keyed })
    }

    fn mac(&self, text: &[u8]) -> Mac {
        Mac(scrubbed(|| {
            let mut mac = (*self.keyed).clone();
            mac.update(text);
            mac.finalize().into_bytes().into()
        }))
    }
}

impl Peppers {
    /// The keyring's.
    /// # Errors
    /// No locked memory.
    pub fn of(keyring: &Keyring) -> Result<Self, LockError> {
        Self::new(keyring.peppers().iter().map(|pepper| (pepper.epoch(), pepper.key())))
    }

    /// In any order.
    /// # Errors
    /// No locked memory.
    fn new<'a>(keys: impl IntoIterator<Item = (u32, &'a LockedKey)>) -> Result<Self, LockError> {
        let mut peppers = keys
            .into_iter()
            .map(|(epoch, key)| Pepper::new(epoch, key))
            .collect::<Result<Vec<_>, _>>()?;
        peppers.sort_by_key(|pepper| std::cmp::Reverse(pepper.epoch));
        Ok(Self(peppers))
    }

    /// The epoch of new tokens.
    pub fn current(&self) -> u32 {
        self.0.first().map_or(0, |pepper| pepper.epoch)
    }

    /// A key for `context` out of an epoch's pepper; `None` when that one is gone. No context is the text of a token.
    pub fn derive(&self, epoch: u32, context: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
        let pepper = self.0.iter().find(|pepper| pepper.epoch == epoch)?;
        Some(Zeroizing::new(pepper.mac(context).0))
    }

    /// What `text` may be kept as, the current epoch first.
    pub fn candidates(&self, text: &[u8]) -> impl Iterator<Item = (Mac, u32)> {
        self.0.iter().map(move |pepper| (pepper.mac(text), pepper.epoch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{locked::LockedKey, random::OsRandom};

    /// R-TOK-5: stored only as a keyed hash; checked against HMAC put together by hand (RFC 2104).
    #[test]
    fn is_hmac_sha_256_under_the_epoch_s_key() {
        use sha2::Digest;
        let key = LockedKey::copy_of(&[0xaa; 32]).unwrap();
        let old = LockedKey::random(&OsRandom).unwrap();
        let peppers = Peppers::new([(1, &old), (2, &key)]).unwrap();
        let pad = |with: u8| [[0xaa ^ with; 32], [with; 32]].concat();
        let inner = Sha256::digest([&pad(0x36)[..], &[0xdd; 50]].concat());
        let want: [u8; 32] = Sha256::digest([&pad(0x5c)[..], &inner[..]].concat()).into();
        let candidates: Vec<_> = peppers.candidates(&[0xdd; 50]).collect();
        assert_eq!(candidates.len(), 2);
        assert_eq!(candidates[0], (Mac(want), 2));
        assert!(candidates[1].0 != Mac(want) && candidates[1].1 == 1);
    }
}
