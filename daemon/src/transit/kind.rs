//! What a key is for: one kind, one algorithm, for as long as it lives. There is no choice of algorithm in a request.

use super::TransitError;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// A kind of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum KeyKind {
    /// AES-256-GCM with 192-bit nonces (XAES-256-GCM).
    Aes256Gcm,
    /// HMAC-SHA-256.
    HmacSha256,
    /// Ed25519 (RFC 8032, the pure one).
    Ed25519,
    /// ECDSA on P-256 with SHA-256; signatures in DER.
    EcdsaP256,
    /// ECDSA on P-384 with SHA-384; signatures in DER.
    EcdsaP384,
    /// RSASSA-PSS, SHA-256, a salt of 32 bytes, 2048 bits.
    RsaPss2048,
    /// The same with 3072 bits.
    RsaPss3072,
    /// The same with 4096 bits.
    RsaPss4096,
    /// ML-DSA-65 (FIPS 204), the pure one, with an empty context.
    MlDsa65,
}

impl KeyKind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::Aes256Gcm,
        Self::HmacSha256,
        Self::Ed25519,
        Self::EcdsaP256,
        Self::EcdsaP384,
        Self::RsaPss2048,
        Self::RsaPss3072,
        Self::RsaPss4096,
        Self::MlDsa65,
    ];

    /// The word on the wire and in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes256-gcm",
            Self::HmacSha256 => "hmac-sha256",
            Self::Ed25519 => "ed25519",
            Self::EcdsaP256 => "ecdsa-p256",
            Self::EcdsaP384 => "ecdsa-p384",
            Self::RsaPss2048 => "rsa-pss-2048",
            Self::RsaPss3072 => "rsa-pss-3072",
            Self::RsaPss4096 => "rsa-pss-4096",
            Self::MlDsa65 => "ml-dsa-65",
        }
    }

    /// Whether it makes signatures that a public key verifies.
    pub const fn signs(self) -> bool {
        !matches!(self, Self::Aes256Gcm | Self::HmacSha256)
    }

    /// Whether its keys can live in an HSM: what the hsm crate makes there.
    pub const fn lives_in_hsms(self) -> bool {
        matches!(self, Self::EcdsaP256 | Self::RsaPss3072)
    }

    /// That it is `wanted`.
    pub(super) fn must(self, holds: bool, what: &'static str) -> Result<(), TransitError> {
        let kind = self.as_str();
        if holds {
            Ok(())
        } else {
            Err(TransitError::WrongKind { kind, what })
        }
    }
}

impl FromStr for KeyKind {
    type Err = TransitError;
    fn from_str(word: &str) -> Result<Self, TransitError> {
        let found = Self::ALL.iter().find(|kind| kind.as_str() == word);
        found.copied().ok_or(TransitError::Kind)
    }
}

impl TryFrom<String> for KeyKind {
    type Error = TransitError;
    fn try_from(word: String) -> Result<Self, TransitError> {
        word.parse()
    }
}

impl From<KeyKind> for String {
    fn from(kind: KeyKind) -> Self {
        kind.as_str().to_owned()
    }
}
