//! A share as its holder keeps it.
//!
//! ```text
//! srs1- and 80 characters of base32 (RFC 4648 alphabet, written in lower case, no padding) of these 50 bytes:
//!  0  cluster   4  first bytes of the cluster id
//!  4  slot      4  first bytes of the slot id
//!  8  set       4  random, new at each re-keying
//! 12  k         1
//! 13  index     1  1..=n
//! 14  value    32
//! 46  check     4  SHA-256("strongroom.share.checksum/1" | bytes 0..46), first bytes
//! ```
//! Written in groups of eight with hyphens. Read in upper or lower case; white space and hyphens after the prefix do not count.

use super::super::{error::ShareError, record::Header};
use crate::base::{
    locked::{LockError, LockedKey, scrubbed},
    secret::SecretBytes,
};
use sha2::{Digest, Sha256};
use std::fmt;
use zeroize::Zeroizing;

const PREFIX: &str = "srs1-";
const BYTES: usize = 50;
const DIGITS: usize = 80;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// One share, its value in locked memory.
pub struct Share {
    pub(super) cluster: [u8; 4],
    pub(super) slot: [u8; 4],
    pub(super) set: [u8; 4],
    pub(super) k: u8,
    pub(super) index: u8,
    pub(super) value: LockedKey,
}

impl Share {
    /// Longest text that is looked at, in bytes: the written form with some room for white space.
    pub const TEXT_BYTES_MAX: usize = 256;

    /// The part of an id that a share carries.
    pub fn tag(id: &[u8; 16]) -> [u8; 4] {
        let [a, b, c, d, ..] = *id;
        [a, b, c, d]
    }

    /// Which share of the set, from 1.
    pub const fn index(&self) -> u8 {
        self.index
    }

    /// The tag of the slot it says it is for.
    pub const fn slot_tag(&self) -> [u8; 4] {
        self.slot
    }

    /// The secret part: for `offline` only.
    pub(in crate::seal) fn into_value(self) -> LockedKey {
        self.value
    }

    pub(super) fn from_raw(header: &Header, k: u8, raw: &[u8]) -> Result<Self, LockError> {
        let index = raw.first().copied().unwrap_or_default();
        let value = LockedKey::fill_with(|value| {
            value
                .iter_mut()
                .zip(raw.iter().skip(1))
                .for_each(|(to, from)| *to = *from)
        })?;
        let (cluster, slot) = (Self::tag(header.cluster.as_bytes()), Self::tag(&header.id));
        Ok(Self {
            cluster,
            slot,
            set: header.set,
            k,
            index,
            value,
        })
    }

    /// Reads a holder's text.
    /// # Errors
    /// [`ShareError::Mistyped`] for anything that is not a whole share with its checksum, and when there is no locked memory to hold it.
    pub fn parse(text: &str) -> Result<Self, ShareError> {
        scrubbed(|| Self::parse_frame(text)).ok_or(ShareError::Mistyped)
    }

    fn parse_frame(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.len() > Self::TEXT_BYTES_MAX {
            return None;
        }
        let (prefix, rest) = text.split_at_checked(PREFIX.len())?;
        if !prefix.eq_ignore_ascii_case(PREFIX) {
            return None;
        }
        let mut frame = Zeroizing::new([0; BYTES]);
        let (mut bits, mut held, mut digits, mut at) = (Zeroizing::new(0u32), 0, 0, 0);
        for character in rest.bytes().filter(|byte| !byte.is_ascii_whitespace() && *byte != b'-') {
            *bits = (*bits << 5) | digit(character)?;
            held += 5;
            digits += 1;
            if held >= 8 {
                held -= 8;
                *frame.get_mut(at)? = (*bits >> held) as u8;
                *bits &= (1 << held) - 1;
                at += 1;
            }
        }
        if digits != DIGITS {
            return None;
        }
        let (body, check) = frame.split_last_chunk::<4>()?;
        if checksum(body) != *check {
            return None;
        }
        let (cluster, rest) = body.split_first_chunk::<4>()?;
        let (slot, rest) = rest.split_first_chunk::<4>()?;
        let (set, rest) = rest.split_first_chunk::<4>()?;
        let ([k, index], value) = rest.split_first_chunk::<2>()?;
        let value = LockedKey::copy_of(value.try_into().ok()?).ok()?;
        Some(Self {
            cluster: *cluster,
            slot: *slot,
            set: *set,
            k: *k,
            index: *index,
            value,
        })
    }

    /// The holder's text: 94 characters.
    pub fn text(&self) -> ShareText {
        scrubbed(|| {
            let mut frame = Zeroizing::new([0; BYTES]);
            let parts = self
                .cluster
                .iter()
                .chain(&self.slot)
                .chain(&self.set)
                .chain([&self.k, &self.index])
                .chain(self.value.expose());
            frame.iter_mut().zip(parts).for_each(|(to, from)| *to = *from);
            if let Some((body, check)) = frame.split_last_chunk_mut::<4>() {
                *check = checksum(body);
            }
            // One allocation of the final size: nothing is left behind by growing.
            let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + DIGITS + DIGITS / 8));
            text.push_str(PREFIX);
            let (mut bits, mut held, mut digits) = (Zeroizing::new(0u32), 0, 0);
            for byte in frame.iter() {
                *bits = (*bits << 8) | u32::from(*byte);
                held += 8;
                while held >= 5 {
                    held -= 5;
                    if digits > 0 && digits % 8 == 0 {
                        text.push('-');
                    }
                    text.push(letter(*bits >> held));
                    *bits &= (1 << held) - 1;
                    digits += 1;
                }
            }
            ShareText(text)
        })
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

/// A share's text on its way to its holder: wiped on drop, never printed.
pub struct ShareText(Zeroizing<String>);

impl ShareText {
    /// Of a text that [`Share::text`] gave.
    pub(in crate::seal) fn again(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }
    /// The text. Shown once, to whoever made the slot.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::ops::Deref for ShareText {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ShareText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShareText(redacted)")
    }
}

impl From<ShareText> for SecretBytes {
    fn from(text: ShareText) -> Self {
        Self::from(text.0.as_bytes())
    }
}

fn checksum(body: &[u8]) -> [u8; 4] {
    let hash: [u8; 32] = Sha256::new_with_prefix(b"strongroom.share.checksum/1")
        .chain_update(body)
        .finalize()
        .into();
    let [a, b, c, d, ..] = hash;
    [a, b, c, d]
}

/// Without a table, so that the value does not show in the cache (the alphabet's order is arithmetic).
fn digit(character: u8) -> Option<u32> {
    match character {
        b'a'..=b'z' => Some(u32::from(character - b'a')),
        b'A'..=b'Z' => Some(u32::from(character - b'A')),
        b'2'..=b'7' => Some(u32::from(character - b'2') + 26),
        _ => None,
    }
}

fn letter(value: u32) -> char {
    char::from(ALPHABET.get((value & 31) as usize).copied().unwrap_or(b'a'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn share(value: u8) -> Share {
        let value = LockedKey::copy_of(&[value; 32]).unwrap();
        Share {
            cluster: [1, 2, 3, 4],
            slot: [5, 6, 7, 8],
            set: [9, 10, 11, 12],
            k: 3,
            index: 5,
            value,
        }
    }

    fn same(a: &Share, b: &Share) -> bool {
        (a.cluster, a.slot, a.set, a.k, a.index) == (b.cluster, b.slot, b.set, b.k, b.index)
            && a.value.expose() == b.value.expose()
    }

    /// The written form is for ever: people keep it in safes.
    #[test]
    fn golden() {
        let text = share(0xa5).text();
        assert_eq!(
            &*text,
            "srs1-aebagbaf-aydqqcik-bmgagbnf-uws2ljnf-uws2ljnf-uws2ljnf-uws2ljnf-uws2ljnf-uws2ljnf-uvyuaoqj"
        );
        assert_eq!(text.len(), 94);
        assert_eq!(
            format!("{text:?} {:?}", share(0xa5)),
            "ShareText(redacted) Share { index: 5, .. }"
        );
    }

    /// R-SEAL-3: case, spaces and hyphens do not count; every single wrong, missing or doubled character is noticed.
    #[test]
    fn typing_is_forgiven_but_not_mistakes() {
        let share = share(0x3c);
        let text = share.text();
        let spaced: String = text[5..].chars().filter(|c| *c != '-').flat_map(|c| [c, ' ']).collect();
        for good in [
            text.to_uppercase(),
            format!("  {}\r\n", &*text),
            format!("SRS1-{spaced}"),
        ] {
            assert!(same(&Share::parse(&good).unwrap(), &share), "{good}");
        }
        let mistyped = |text: &str| assert_eq!(Share::parse(text).err(), Some(ShareError::Mistyped), "{text}");
        for at in 0..text.len() {
            if at > 4 && text[at..].starts_with('-') {
                continue;
            }
            mistyped(&format!("{}{}", &text[..at], &text[at + 1..]));
            if at == 4 {
                continue;
            }
            mistyped(&format!("{}{}{}", &text[..at], &text[at..=at], &text[at..]));
            for wrong in ["a", "7", "0", "é", "!"]
                .iter()
                .filter(|wrong| ***wrong != text[at..=at])
            {
                mistyped(&format!("{}{wrong}{}", &text[..at], &text[at + 1..]));
            }
        }
        mistyped("");
        mistyped("srs1-");
        mistyped(&text[5..]);
        mistyped(&format!("srs2-{}", &text[5..]));
        mistyped(&" ".repeat(300));
    }

    proptest! {
        /// Every share survives its text.
        #[test]
        fn round_trip(ids in any::<[u8; 12]>(), k: u8, index: u8, value: [u8; 32]) {
            let [cluster, slot, set] = std::array::from_fn(|part| std::array::from_fn(|at| ids[part * 4 + at]));
            let share = Share { cluster, slot, set, k, index, value: LockedKey::copy_of(&value).unwrap() };
            prop_assert!(same(&Share::parse(&share.text()).unwrap(), &share));
        }

        /// No text panics, and none but a written share is taken.
        #[test]
        fn garbage_is_mistyped(text in "\\PC{0,120}", digits in "[a-z2-7]{80}") {
            prop_assert!(Share::parse(&text).is_err());
            let framed = format!("srs1-{digits}");
            prop_assert!(Share::parse(&framed).is_err());
        }
    }
}
