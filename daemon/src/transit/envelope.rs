//! A ciphertext: what it is, which key and version opens it, and all of that under its tag (docs/FORMATS.md, "Ciphertexts").
//! `"SRT" | format 1 u8 | algorithm 1 u8 | key id 16 | version u32 BE | nonce 24 | text | tag 16`.

use crate::{
    base::id::{MountId, TransitKeyId},
    store::{Namespace, TAG_BYTES, XAES_NONCE_BYTES},
};

const MAGIC: [u8; 5] = *b"SRT\x01\x01";
const DOMAIN: &[u8] = b"strongroom transit 1\0";
/// `magic, format, algorithm | key id | version`.
pub(super) const HEAD_BYTES: usize = 25;
/// What a ciphertext is longer than its text.
pub const OVERHEAD_BYTES: usize = HEAD_BYTES + XAES_NONCE_BYTES + TAG_BYTES;

/// Which key, and which version of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub key: TransitKeyId,
    pub version: u32,
}

impl Head {
    pub fn encode(self) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        let bytes = MAGIC
            .iter()
            .chain(self.key.as_bytes())
            .copied()
            .chain(self.version.to_be_bytes());
        head.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        head
    }

    /// The associated data: whose, where, which key and version, and the caller's context, which comes last: nothing before it varies in length.
    pub fn associated(self, mount: &MountId, context: &[u8]) -> Vec<u8> {
        let namespace = Namespace::ROOT.0.to_be_bytes();
        [DOMAIN, &namespace, mount.as_bytes(), &self.encode(), context].concat()
    }
}

/// A ciphertext in its parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Envelope<'a> {
    pub head: Head,
    pub nonce: &'a [u8; XAES_NONCE_BYTES],
    pub text: &'a [u8],
    pub tag: &'a [u8; TAG_BYTES],
}

impl<'a> Envelope<'a> {
    /// Its parts, if these are a ciphertext's bytes.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&MAGIC)?;
        let (key, rest) = rest.split_first_chunk::<16>()?;
        let (version, rest) = rest.split_first_chunk::<4>()?;
        let (nonce, rest) = rest.split_first_chunk()?;
        let (text, tag) = rest.split_last_chunk()?;
        let head = Head {
            key: TransitKeyId::from_bytes(*key),
            version: u32::from_be_bytes(*version),
        };
        Some(Self { head, nonce, text, tag })
    }

    /// The bytes of a ciphertext.
    pub fn join(head: Head, nonce: &[u8; XAES_NONCE_BYTES], text: &[u8], tag: &[u8; TAG_BYTES]) -> Vec<u8> {
        [&head.encode()[..], nonce, text, tag].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// R-OPS-8: what is parsed is what was joined, and any bytes parse to themselves or not at all.
        #[test]
        fn a_ciphertext_parses_to_itself(id: [u8; 16], version: u32, nonce: [u8; 24], text: Vec<u8>, tag: [u8; 16], rubbish: Vec<u8>) {
            let head = Head { key: TransitKeyId::from_bytes(id), version };
            let bytes = Envelope::join(head, &nonce, &text, &tag);
            prop_assert_eq!(bytes.len(), text.len() + OVERHEAD_BYTES);
            prop_assert_eq!(Envelope::parse(&bytes), Some(Envelope { head, nonce: &nonce, text: &text, tag: &tag }));
            prop_assert_eq!(Envelope::parse(&bytes[..OVERHEAD_BYTES - 1]), None);
            for some in [&rubbish[..], &[&MAGIC[..], &rubbish].concat()] {
                if let Some(parsed) = Envelope::parse(some) {
                    prop_assert_eq!(Envelope::join(parsed.head, parsed.nonce, parsed.text, parsed.tag), some);
                }
            }
        }
    }
}
