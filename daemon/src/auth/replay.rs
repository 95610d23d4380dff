//! Tokens that were used: each logs in once. In memory and bounded; the audit log's records of log-ins are its durable form, and the set
//! is read back from the log's tail after an unseal. Until that is done, tokens issued before the unseal are refused: they may have been
//! used before it.

use super::Refused;
use crate::base::time::Timestamp;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap};

/// Used tokens remembered at once: 32 bytes each and an index, about 100 MiB. More log-ins than this within the longest life of a token are
/// refused until some expire.
const USED_MAX: usize = if cfg!(test) { 64 } else { 1 << 20 };

/// What a used token is remembered as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Use {
    /// 128 bits of SHA-256 over the trust and the token's `jti`, or over the signed text where it has none.
    pub id: [u8; 16],
    /// When it has expired and may be forgotten.
    pub until: Timestamp,
}

impl Use {
    /// Of a token of `trust`. Signatures are not part of it: ECDSA's can be changed by anybody.
    pub fn new(trust: &str, jti: Option<&str>, signed: &[u8], until: Timestamp) -> Self {
        let (kind, what): (&[u8], &[u8]) = match jti {
            Some(jti) => (b"jti", jti.as_bytes()),
            None => (b"text", signed),
        };
        let mut hash = Sha256::new();
        for part in [b"strongroom used token v1", kind, trust.as_bytes(), what] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let digest: [u8; 32] = hash.finalize().into();
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        Self { id, until }
    }
}

#[derive(Default)]
struct Set {
    used: HashMap<[u8; 16], Timestamp>,
    due: BTreeSet<(Timestamp, [u8; 16])>,
    /// Tokens issued before this instant may have been used by others than those in the set.
    unknown_before: Option<Timestamp>,
}

/// The set.
#[derive(Default)]
pub struct Replay(Mutex<Set>);

impl Replay {
    /// An empty set of a vault that was just opened at `now`; the log is still to be read.
    pub fn since(now: Timestamp) -> Self {
        let set = Set {
            unknown_before: Some(now),
            ..Set::default()
        };
        Self(Mutex::new(set))
    }

    /// Uses a token, once.
    /// # Errors
    /// [`Refused::Replayed`], [`Refused::NotRemembered`], [`Refused::RememberedFull`].
    pub fn take(&self, token: Use, issued: Timestamp, now: Timestamp) -> Result<(), Refused> {
        let mut set = self.0.lock();
        set.forget(now);
        if set.used.contains_key(&token.id) {
            return Err(Refused::Replayed);
        }
        if set.unknown_before.is_some_and(|before| issued <= before) {
            return Err(Refused::NotRemembered);
        }
        if set.used.len() >= USED_MAX {
            return Err(Refused::RememberedFull);
        }
        set.add(token);
        Ok(())
    }

    /// Whether a token could be used.
    /// # Errors
    /// As [`Self::take`].
    pub fn look(&self, token: Use, issued: Timestamp) -> Result<(), Refused> {
        let set = self.0.lock();
        match () {
            () if set.used.contains_key(&token.id) => Err(Refused::Replayed),
            () if set.unknown_before.is_some_and(|before| issued <= before) => Err(Refused::NotRemembered),
            () => Ok(()),
        }
    }

    /// A use that the log tells of.
    pub fn recall(&self, token: Use, now: Timestamp) {
        if token.until > now {
            self.0.lock().add(token);
        }
    }

    /// The log has been read: all that was used is in the set.
    pub fn recalled(&self) {
        self.0.lock().unknown_before = None;
    }

    /// Whether the log is still to be read.
    pub fn is_incomplete(&self) -> bool {
        self.0.lock().unknown_before.is_some()
    }

    /// How many are remembered.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.lock().used.len()
    }
}

impl Set {
    fn add(&mut self, token: Use) {
        if let Some(former) = self.used.insert(token.id, token.until) {
            self.due.remove(&(former, token.id));
        }
        self.due.insert((token.until, token.id));
    }
    fn forget(&mut self, now: Timestamp) {
        while let Some((until, id)) = self.due.first().copied().filter(|(until, _)| *until <= now) {
            self.due.remove(&(until, id));
            self.used.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(jti: &str, until: u64) -> Use {
        Use::new("t", Some(jti), b"", Timestamp(until))
    }

    /// R-AUTH-2: once, whatever the order; forgotten when it has expired; never more than the bound.
    #[test]
    fn a_token_is_used_once() {
        let set = Replay::default();
        let at = Timestamp;
        assert_eq!(set.take(token("a", 100), at(5), at(10)), Ok(()));
        assert_eq!(set.take(token("a", 100), at(5), at(99)), Err(Refused::Replayed));
        assert_eq!(set.take(token("b", 100), at(5), at(99)), Ok(()));
        assert_eq!(set.len(), 2);
        assert_eq!(set.take(token("c", 300), at(5), at(200)), Ok(()));
        assert_eq!(set.len(), 1, "what has expired is forgotten");
        for more in 1..USED_MAX {
            assert_eq!(set.take(token(&more.to_string(), 300), at(5), at(200)), Ok(()));
        }
        assert_eq!(set.take(token("x", 300), at(5), at(200)), Err(Refused::RememberedFull));
        assert_eq!(set.take(token("x", 400), at(5), at(300)), Ok(()));
    }

    /// R-AUTH-4: after an unseal, what may have been used before it is refused until the log has been read.
    #[test]
    fn what_is_not_remembered_is_refused() {
        let set = Replay::since(Timestamp(50));
        let take = |jti, issued| set.take(token(jti, 1000), Timestamp(issued), Timestamp(60));
        assert_eq!(take("a", 50), Err(Refused::NotRemembered));
        assert_eq!(take("b", 51), Ok(()));
        set.recall(token("c", 1000), Timestamp(60));
        set.recall(token("d", 59), Timestamp(60));
        set.recalled();
        assert_eq!(take("c", 10), Err(Refused::Replayed));
        assert_eq!(take("a", 50), Ok(()));
        assert_eq!(take("b", 51), Err(Refused::Replayed));
    }

    #[test]
    fn trusts_and_kinds_do_not_share_names() {
        let until = Timestamp(1);
        let ids = [
            Use::new("t", Some("x"), b"y", until),
            Use::new("u", Some("x"), b"y", until),
            Use::new("t", None, b"x", until),
            Use::new("tx", Some(""), b"y", until),
        ];
        for (at, one) in ids.iter().enumerate() {
            assert!(ids[at + 1..].iter().all(|other| one.id != other.id));
        }
        assert_eq!(
            Use::new("t", Some("x"), b"1", until),
            Use::new("t", Some("x"), b"2", until)
        );
    }
}
