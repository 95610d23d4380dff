//! Names of keys on a token, and what kinds there are.

use sha2::{Digest, Sha256};

use crate::error::HsmError;

/// The name of a ring: a line of key versions, of which the newest seals. 1 to 64 characters of
/// `a-z 0-9 . _ -`, beginning with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ring(String);

impl Ring {
    /// Longest name (bytes).
    pub const BYTES_MAX: usize = 64;

    /// Parses a name.
    /// # Errors
    /// `Invalid` when the name is empty, too long or has other characters.
    pub fn new(name: &str) -> Result<Self, HsmError> {
        let fits = (1..=Self::BYTES_MAX).contains(&name.len())
            && name
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
            && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if fits {
            Ok(Self(name.to_owned()))
        } else {
            Err(HsmError::invalid("ring name: 1 to 64 of a-z 0-9 . _ -"))
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// Seals and opens seeds.
    Kek,
    /// ECDSA on P-256 over a SHA-256 digest.
    SignEs256,
    /// RSA-PSS 3072 with SHA-256, salt of 32 bytes, over a SHA-256 digest.
    SignPs256,
}

/// How a seed is sealed. The numbers are part of the blob format and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Mechanism {
    /// AES-256-GCM, context as associated data.
    Gcm = 1,
    /// AES key wrap (RFC 3394) of seed and context hash.
    Kw = 2,
    /// AES-256-CBC, then HMAC-SHA-256 over context, IV and ciphertext, under a second key.
    CbcHmac = 3,
    /// RSA-3072 OAEP with SHA-256 of seed and context hash.
    OaepSha256 = 4,
}

impl Mechanism {
    /// In the order of preference.
    pub const ALL: [Self; 4] = [Self::Gcm, Self::Kw, Self::CbcHmac, Self::OaepSha256];

    pub(crate) fn from_u8(n: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|m| *m as u8 == n)
    }

    /// Length of a sealed body in bytes: fixed, but for OAEP (the modulus: RSA-2048 to RSA-4096).
    pub(crate) fn body_bytes(self) -> std::ops::RangeInclusive<usize> {
        match self {
            Self::Gcm => 60..=60,
            Self::Kw => 72..=72,
            Self::CbcHmac => 80..=80,
            Self::OaepSha256 => 256..=512,
        }
    }

    /// The name used in configuration and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gcm => "gcm",
            Self::Kw => "kw",
            Self::CbcHmac => "cbc-hmac",
            Self::OaepSha256 => "oaep-sha256",
        }
    }
}

/// One role of one object on the token. A KEK's mechanism is told by which part exists, so that it needs
/// no record of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    Gcm,
    Kw,
    Cbc,
    Mac,
    Oaep,
    Es256,
    Ps256,
}

impl Part {
    pub(crate) const ALL: [Self; 7] = [
        Self::Gcm,
        Self::Kw,
        Self::Cbc,
        Self::Mac,
        Self::Oaep,
        Self::Es256,
        Self::Ps256,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Gcm => "gcm",
            Self::Kw => "kw",
            Self::Cbc => "cbc",
            Self::Mac => "mac",
            Self::Oaep => "oaep",
            Self::Es256 => "es256",
            Self::Ps256 => "ps256",
        }
    }

    /// What the part says about its key; `None` for the second half of a pair.
    pub(crate) fn means(self) -> Option<(KeyKind, Option<Mechanism>)> {
        match self {
            Self::Gcm => Some((KeyKind::Kek, Some(Mechanism::Gcm))),
            Self::Kw => Some((KeyKind::Kek, Some(Mechanism::Kw))),
            Self::Cbc => Some((KeyKind::Kek, Some(Mechanism::CbcHmac))),
            Self::Mac => None,
            Self::Oaep => Some((KeyKind::Kek, Some(Mechanism::OaepSha256))),
            Self::Es256 => Some((KeyKind::SignEs256, None)),
            Self::Ps256 => Some((KeyKind::SignPs256, None)),
        }
    }
}

/// `CKA_LABEL`: for people.
pub(crate) fn label(ring: &Ring, version: u32) -> String {
    format!("{}/v{version}", ring.as_str())
}

/// The version in a `CKA_LABEL` of this ring.
pub(crate) fn version_of(ring: &Ring, label: &str) -> Option<u32> {
    let digits = label.strip_prefix(ring.as_str())?.strip_prefix("/v")?;
    let version: u32 = digits.parse().ok()?;
    (version.to_string() == digits).then_some(version)
}

/// `CKA_ID`: for us. SHA-256(ring, 0, version, 0, part), first 16 bytes.
pub(crate) fn id(ring: &Ring, version: u32, part: Part) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(ring.as_str());
    hash.update([0]);
    hash.update(version.to_be_bytes());
    hash.update([0]);
    hash.update(part.as_str());
    hash.finalize().iter().copied().take(16).collect()
}

/// A key as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    /// The ring.
    pub ring: Ring,
    /// The version, from 1.
    pub version: u32,
    /// What it is for.
    pub kind: KeyKind,
    /// How it seals; `None` for signing keys.
    pub mechanism: Option<Mechanism>,
}
