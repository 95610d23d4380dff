//! Nonces of the daemon's for DPoP proofs (RFC 9449, 8 and 9): a MAC over a span of time, under a key of this run. Nothing is remembered of them.
//!
//! A nonce says that a proof was made for this run of the daemon, and not long before it came: proofs that were made ahead, by somebody who had the
//! key for a moment, are of no use, and none that a former run took is taken again. It is no secret, and the same for everybody.

use crate::base::random::Random;
use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac};
use data_encoding::BASE64URL_NOPAD;
use std::time::Duration;
use zeroize::Zeroizing;

const CONTEXT: &[u8] = b"strongroom dpop nonce v1";
/// Bytes of a nonce.
const BYTES: usize = 16;

/// Makes and knows them.
pub struct Nonces(hmac::Key);

impl Nonces {
    /// A nonce is told in one span, and good in that one and the next.
    pub const SPAN: Duration = Duration::from_secs(120);

    /// Of a new run.
    pub fn new(random: &dyn Random) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        random.fill(&mut *key);
        Self::of(&key)
    }

    pub(super) fn of(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The one of this moment, by a clock that nobody sets.
    pub fn at(&self, mono: Duration) -> String {
        BASE64URL_NOPAD.encode(&self.of_span(span(mono)))
    }

    /// Whether it is the one of now, or of a span ago.
    pub fn knows(&self, nonce: &str, mono: Duration) -> bool {
        let Ok(nonce) = BASE64URL_NOPAD.decode(nonce.as_bytes()) else {
            return false;
        };
        let now = span(mono);
        let before = now.checked_sub(1);
        [Some(now), before]
            .into_iter()
            .flatten()
            .any(|span| verify_slices_are_equal(&nonce, &self.of_span(span)).is_ok())
    }

    fn of_span(&self, span: u64) -> [u8; BYTES] {
        let mut hash = hmac::Context::with_key(&self.0);
        hash.update(CONTEXT);
        hash.update(&span.to_be_bytes());
        let mut nonce = [0; BYTES];
        nonce
            .iter_mut()
            .zip(hash.sign().as_ref())
            .for_each(|(to, from)| *to = *from);
        nonce
    }
}

fn span(mono: Duration) -> u64 {
    mono.as_secs() / Nonces::SPAN.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R-AUTH-3, RFC 9449 section 8: a nonce is good in its span and the next, and in no other run.
    #[test]
    fn a_nonce_is_good_for_two_spans() {
        let (ours, others) = (Nonces::of(&[1; 32]), Nonces::of(&[2; 32]));
        let at = |secs: u64| Duration::from_secs(secs);
        for begun in [0, 119, 120, 7 * 120 + 60] {
            let nonce = ours.at(at(begun));
            let first = begun / 120 * 120;
            for (secs, good) in [
                (first, true),
                (first + 239, true),
                (first + 240, false),
                (first + 100_000, false),
            ] {
                assert_eq!(ours.knows(&nonce, at(secs)), good, "of {begun}, at {secs}");
            }
            assert!(
                begun < 120 || !ours.knows(&nonce, at(first - 1)),
                "not before it was told"
            );
            assert!(!others.knows(&nonce, at(begun)));
        }
        let nonce = ours.at(at(0));
        for wrong in [
            "",
            "A",
            &nonce[1..],
            &format!("{nonce}A"),
            &format!("{nonce}="),
            &nonce.to_lowercase(),
        ] {
            assert!(!ours.knows(wrong, at(0)), "{wrong}");
        }
    }
}
