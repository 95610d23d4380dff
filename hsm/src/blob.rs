//! A sealed seed and its binary form.
//!
//! ```text
//! 0  format      u8  = 1
//! 1  mechanism   u8    1 GCM, 2 KW, 3 CBC+HMAC, 4 OAEP-SHA256
//! 2  ring length u8    1..=64
//! 3  ring              a-z 0-9 . _ -
//! .  version     u32   big endian, from 1
//! .  body length u16   big endian
//! .  body              GCM: iv 12, ciphertext 32, tag 16; KW: 72; CBC+HMAC: iv 16, ciphertext 32, tag 32;
//!                      OAEP: one modulus (256..=512)
//! ```
//! Nothing may follow. Every field but the body is bound into the body (see `binding`), so a relabelled
//! blob does not open.

use sha2::{Digest, Sha256};

use crate::error::HsmError;
use crate::name::{Mechanism, Ring};

/// First byte of the form described above.
const FORMAT: u8 = 1;

/// A seed sealed by one key of one token. Not secret; worthless without the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HsmBlob {
    pub(crate) mechanism: Mechanism,
    pub(crate) ring: Ring,
    pub(crate) version: u32,
    pub(crate) body: Vec<u8>,
}

impl HsmBlob {
    /// Longest binary form.
    pub const BYTES_MAX: usize = 3 + Ring::BYTES_MAX + 4 + 2 + 512;

    /// How it was sealed.
    #[must_use]
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// Whose key sealed it.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Which version of the ring sealed it.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The binary form, at most `BYTES_MAX` long.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let ring = self.ring.as_str().as_bytes();
        let mut out = Vec::with_capacity(Self::BYTES_MAX);
        out.extend([FORMAT, self.mechanism as u8, ring.len() as u8]);
        out.extend(ring);
        out.extend(self.version.to_be_bytes());
        out.extend((self.body.len() as u16).to_be_bytes());
        out.extend(&self.body);
        out
    }

    /// Reads the binary form. One blob has exactly one form.
    /// # Errors
    /// `Invalid` on anything else than `to_bytes` can make.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HsmError> {
        Self::parse(bytes).ok_or_else(|| HsmError::invalid("malformed HSM blob"))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (&[format, mechanism, ring_len], rest) = bytes.split_first_chunk::<3>()?;
        if format != FORMAT {
            return None;
        }
        let mechanism = Mechanism::from_u8(mechanism)?;
        let (ring, rest) = rest.split_at_checked(usize::from(ring_len))?;
        let ring = Ring::new(std::str::from_utf8(ring).ok()?).ok()?;
        let (version, rest) = rest.split_first_chunk::<4>()?;
        let (body_len, body) = rest.split_first_chunk::<2>()?;
        let version = u32::from_be_bytes(*version);
        let fits = version > 0
            && body.len() == usize::from(u16::from_be_bytes(*body_len))
            && mechanism.body_bytes().contains(&body.len());
        fits.then(|| Self {
            mechanism,
            ring,
            version,
            body: body.to_vec(),
        })
    }
}

/// What a seal is bound to: associated data of GCM, input of the HMAC, and hashed inside the others.
/// Every part carries its length, so no two names collide.
pub(crate) fn binding(mechanism: Mechanism, ring: &Ring, version: u32, context: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(128 + context.len());
    for part in [
        b"strongroom.hsm.blob/1",
        &[mechanism as u8][..],
        ring.as_str().as_bytes(),
        &version.to_be_bytes(),
        context,
    ] {
        out.extend((part.len() as u32).to_be_bytes());
        out.extend(part);
    }
    out
}

/// SHA-256 of the binding, for mechanisms without associated data.
pub(crate) fn binding_hash(mechanism: Mechanism, ring: &Ring, version: u32, context: &[u8]) -> [u8; 32] {
    Sha256::digest(binding(mechanism, ring, version, context)).into()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_blob() -> impl Strategy<Value = HsmBlob> {
        (
            0..4usize,
            "[a-z0-9][a-z0-9._-]{0,63}",
            1..=u32::MAX,
            any::<u8>(),
            256..=512usize,
        )
            .prop_map(|(m, ring, version, fill, oaep)| {
                let mechanism = Mechanism::ALL[m];
                let len = if mechanism == Mechanism::OaepSha256 {
                    oaep
                } else {
                    *mechanism.body_bytes().start()
                };
                HsmBlob {
                    mechanism,
                    ring: Ring::new(&ring).unwrap(),
                    version,
                    body: vec![fill; len],
                }
            })
    }

    proptest! {
        /// R-SEAL-1: what is stored comes back, and one blob has one form.
        #[test]
        fn round_trip(blob in any_blob()) {
            let bytes = blob.to_bytes();
            prop_assert!(bytes.len() <= HsmBlob::BYTES_MAX);
            prop_assert_eq!(HsmBlob::from_bytes(&bytes).unwrap(), blob);
        }

        /// Anything accepted is in the one canonical form, and nothing panics.
        #[test]
        fn arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
            if let Ok(blob) = HsmBlob::from_bytes(&bytes) {
                prop_assert_eq!(blob.to_bytes(), bytes);
            }
        }

        /// A cut, a longer or a changed form never reads as the same blob.
        #[test]
        fn mutated(blob in any_blob(), at in any::<prop::sample::Index>(), bit in 0..8u8, extra in 0..4usize) {
            let bytes = blob.to_bytes();
            let at = at.index(bytes.len());
            prop_assert!(HsmBlob::from_bytes(&bytes[..at]).is_err());
            let mut longer = bytes.clone();
            longer.extend(vec![0; extra + 1]);
            prop_assert!(HsmBlob::from_bytes(&longer).is_err());
            let mut changed = bytes;
            changed[at] ^= 1 << bit;
            if let Ok(other) = HsmBlob::from_bytes(&changed) {
                prop_assert_ne!(other, blob);
            }
        }
    }

    /// The stored form is for ever: this text may be added to, never changed.
    #[test]
    fn golden() {
        let blob = HsmBlob {
            mechanism: Mechanism::Gcm,
            ring: Ring::new("root").unwrap(),
            version: 7,
            body: vec![0xAA; 60],
        };
        let mut want = vec![1, 1, 4, b'r', b'o', b'o', b't', 0, 0, 0, 7, 0, 60];
        want.extend([0xAA; 60]);
        assert_eq!(blob.to_bytes(), want);
        let mut v0 = want.clone();
        v0[10] = 0;
        assert!(HsmBlob::from_bytes(&v0).is_err(), "version 0");
    }

    #[test]
    fn bindings_do_not_collide() {
        let a = Ring::new("a").unwrap();
        let ab = Ring::new("ab").unwrap();
        let all = [
            binding(Mechanism::Gcm, &a, 1, b"b"),
            binding(Mechanism::Gcm, &ab, 1, b""),
            binding(Mechanism::Kw, &a, 1, b"b"),
            binding(Mechanism::Gcm, &a, 2, b"b"),
            binding(Mechanism::Gcm, &a, 1, b"c"),
        ];
        for (i, x) in all.iter().enumerate() {
            for (j, y) in all.iter().enumerate() {
                assert_eq!(i == j, x == y);
            }
        }
    }
}
