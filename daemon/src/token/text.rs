//! The text of a token: `srm_at_`, 43 base62 digits of 32 random bytes, 6 base62 digits of a CRC-32 over all before.
//! Secret scanners know it by its prefix and tell it from look-alikes by the checksum (R-TOK-5); rubbish is turned away before any
//! cryptography. The checksum is no proof of anything.

use crate::base::{random::Random, secret::SecretBytes};
use std::fmt;
use zeroize::{Zeroize, Zeroizing};

const PREFIX: &[u8; 7] = b"srm_at_";
/// Of a secret id of an app role.
const SECRET_PREFIX: &[u8; 7] = b"srm_si_";
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 62^43 > 2^256.
const BODY_DIGITS: usize = 43;
/// 62^6 > 2^32.
pub(super) const SUM_DIGITS: usize = 6;
const SUMMED: usize = PREFIX.len() + BODY_DIGITS;
/// Length of every token, in bytes.
pub const TOKEN_BYTES: usize = SUMMED + SUM_DIGITS;

/// A token's text. Shown once, to whoever it is made for; never printed, compared or cloned.
pub struct TokenText(SecretBytes);

impl TokenText {
    /// A fresh token: 256 random bits.
    pub(super) fn random(random: &dyn Random) -> Self {
        Self::random_of(PREFIX, random)
    }

    /// A fresh secret id: as much chance, another prefix.
    pub(super) fn secret_id(random: &dyn Random) -> Self {
        Self::random_of(SECRET_PREFIX, random)
    }

    fn random_of(prefix: &[u8; 7], random: &dyn Random) -> Self {
        let mut key = Zeroizing::new([0u8; 32]);
        random.fill(&mut *key);
        let mut text = Zeroizing::new([0u8; TOKEN_BYTES]);
        text[..PREFIX.len()].copy_from_slice(prefix);
        base62(&mut *key, &mut text[PREFIX.len()..SUMMED]);
        let sum = checksum(&text[..SUMMED]);
        text[SUMMED..].copy_from_slice(&sum);
        Self(SecretBytes::from(&text[..]))
    }

    /// A sealed token's text.
    pub(super) fn sealed(text: &[u8]) -> Self {
        Self(SecretBytes::from(text))
    }

    /// The text, for the one answer that shows it. Always ASCII.
    pub fn expose(&self) -> &str {
        std::str::from_utf8(self.0.expose()).unwrap_or_default()
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText(redacted)")
    }
}

/// Whether `text` has the exact length, alphabet and checksum of a token: all that may reach the keyed hash.
pub(super) fn well_formed(text: &[u8]) -> bool {
    well_formed_as(PREFIX, text)
}

/// The same of a secret id.
pub(super) fn is_secret_id(text: &[u8]) -> bool {
    well_formed_as(SECRET_PREFIX, text)
}

fn well_formed_as(prefix: &[u8; 7], text: &[u8]) -> bool {
    let Ok(text) = <&[u8; TOKEN_BYTES]>::try_from(text) else {
        return false;
    };
    if !text.starts_with(prefix) || !text[PREFIX.len()..].iter().all(u8::is_ascii_alphanumeric) {
        return false;
    }
    text[SUMMED..] == checksum(&text[..SUMMED])
}

/// The last characters of every token.
pub(super) fn checksum(text: &[u8]) -> [u8; SUM_DIGITS] {
    let mut sum = [0u8; SUM_DIGITS];
    base62(&mut crc32fast::hash(text).to_be_bytes(), &mut sum);
    sum
}

/// The big-endian number in `number`, as base62 digits with leading zeros; `number` is wiped by the division.
fn base62(number: &mut [u8], out: &mut [u8]) {
    for digit in out.iter_mut().rev() {
        let mut remainder = 0u32;
        for byte in number.iter_mut() {
            let value = remainder << 8 | u32::from(*byte);
            *byte = (value / 62) as u8; // value < 62 * 256
            remainder = value % 62;
        }
        *digit = DIGITS[remainder as usize];
    }
    number.zeroize();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::OsRandom;
    use proptest::prelude::*;

    struct Fixed(u8);
    impl Random for Fixed {
        fn fill(&self, out: &mut [u8]) {
            out.fill(self.0);
        }
    }

    /// R-TOK-5: golden values (made by another implementation); changing the format breaks scanners and every live token.
    #[test]
    fn golden() {
        assert_eq!(
            TokenText::random(&Fixed(0)).expose(),
            "srm_at_00000000000000000000000000000000000000000002j02ey"
        );
        assert_eq!(
            TokenText::random(&Fixed(0x5a)).expose(),
            "srm_at_LQNUGZHT5u543eF8cvF8tKdPlcVkNSYQAq1KIqZ6f7430KOp7"
        );
    }

    /// R-TOK-5: at least 256 bits: every bit of the random key changes the text.
    #[test]
    fn the_largest_number_fits_and_bits_are_not_lost() {
        let mut seen = std::collections::BTreeSet::new();
        for bit in 0..256 {
            let mut number = [0u8; 32];
            number[bit / 8] = 1 << (bit % 8);
            let mut out = [0u8; BODY_DIGITS];
            base62(&mut number, &mut out);
            assert!(seen.insert(out));
        }
        let mut out = [0u8; BODY_DIGITS];
        base62(&mut [0xff; 32], &mut out);
        assert!(seen.insert(out));
        assert!(well_formed(TokenText::random(&Fixed(0xff)).expose().as_bytes()));
    }

    #[test]
    fn debug_says_nothing() {
        assert_eq!(format!("{:?}", TokenText::random(&OsRandom)), "TokenText(redacted)");
    }

    proptest! {
        /// R-TOK-5, and CVE-2026-27840 of another project (truncated tokens stayed valid): every other text is refused.
        #[test]
        fn only_the_exact_text_is_well_formed(at in 0..TOKEN_BYTES, byte: u8, cut in 0..TOKEN_BYTES, more in ".{1,8}") {
            let token = TokenText::random(&OsRandom);
            let text = token.expose().as_bytes();
            prop_assert!(well_formed(text));
            prop_assert!(!well_formed(&text[..cut]));
            prop_assert!(!well_formed(&text[cut + 1..]));
            prop_assert!(!well_formed(&[text, more.as_bytes()].concat()));
            let mut changed = text.to_vec();
            changed[at] = byte;
            prop_assert_eq!(well_formed(&changed), byte == text[at]);
        }
        /// Fuzz: any bytes are answered, never a panic.
        #[test]
        fn any_bytes(text: Vec<u8>) {
            prop_assert!(!well_formed(&text) || text.len() == TOKEN_BYTES);
        }
    }
}
