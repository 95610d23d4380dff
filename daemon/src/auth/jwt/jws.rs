//! A compact JWS, taken apart and verified. Nothing in it chooses how it is verified: algorithms and keys are the trust's; the token only
//! says which of them it means.

use super::json;
use crate::auth::Refused;
use aws_lc_rs::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A token's text. GitHub's have about 2 KiB, Kubernetes's 1 KiB.
pub const JWT_BYTES_MAX: usize = 16 << 10;
const KID_BYTES_MAX: usize = 256;
/// Members that bring a key, change how the text is read, or must be understood by whoever takes the token: none is taken.
const FORBIDDEN: [&str; 9] = ["crit", "jwk", "jku", "x5u", "x5c", "b64", "zip", "enc", "epk"];

/// The algorithms there are. No HMAC, no `none`, nothing below 2048 bits of RSA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// RSASSA-PSS with SHA-256.
    PS256,
    /// ECDSA on P-256.
    ES256,
    /// ECDSA on P-384.
    ES384,
    /// Ed25519.
    EdDSA,
}

impl Algorithm {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::RS256,
            "PS256" => Self::PS256,
            "ES256" => Self::ES256,
            "ES384" => Self::ES384,
            // RFC 9864 names the curve.
            "EdDSA" | "Ed25519" => Self::EdDSA,
            _ => return None,
        })
    }
}

/// A public key, for the algorithms of its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// Big-endian modulus and exponent.
    Rsa {
        /// Modulus.
        n: Vec<u8>,
        /// Exponent.
        e: Vec<u8>,
    },
    /// Uncompressed point.
    P256(Vec<u8>),
    /// Uncompressed point.
    P384(Vec<u8>),
    /// 32 bytes.
    Ed25519(Vec<u8>),
}

impl PublicKey {
    /// Whether `algorithm` is of this key's kind: an RSA key verifies no ECDSA.
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        matches!(
            (self, algorithm),
            (Self::Rsa { .. }, Algorithm::RS256 | Algorithm::PS256)
                | (Self::P256(_), Algorithm::ES256)
                | (Self::P384(_), Algorithm::ES384)
                | (Self::Ed25519(_), Algorithm::EdDSA)
        )
    }

    /// Whether `signed` is of `message`. An algorithm that does not fit verifies nothing.
    pub fn verifies(&self, algorithm: Algorithm, message: &[u8], signed: &[u8]) -> bool {
        match (self, algorithm) {
            (Self::Rsa { n, e }, Algorithm::RS256) => {
                let key = RsaPublicKeyComponents { n, e };
                key.verify(&signature::RSA_PKCS1_2048_8192_SHA256, message, signed)
                    .is_ok()
            }
            (Self::Rsa { n, e }, Algorithm::PS256) => {
                let key = RsaPublicKeyComponents { n, e };
                key.verify(&signature::RSA_PSS_2048_8192_SHA256, message, signed)
                    .is_ok()
            }
            (Self::P256(key), Algorithm::ES256) => UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, key)
                .verify(message, signed)
                .is_ok(),
            (Self::P384(key), Algorithm::ES384) => UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, key)
                .verify(message, signed)
                .is_ok(),
            (Self::Ed25519(key), Algorithm::EdDSA) => UnparsedPublicKey::new(&signature::ED25519, key)
                .verify(message, signed)
                .is_ok(),
            _ => false,
        }
    }
}

/// A token that parsed. Nothing in it is believed yet.
pub struct Compact<'t> {
    /// What it says it is signed with.
    pub algorithm: Algorithm,
    /// Which key it means.
    pub kid: Option<String>,
    /// Its header, for members that a caller of this module judges.
    pub header: Map<String, Value>,
    /// The claims, unverified.
    pub claims: Map<String, Value>,
    /// What the signature is over.
    pub signed: &'t [u8],
    /// The signature.
    pub signature: Vec<u8>,
}

/// Takes a token apart. `types`: the `typ` it may have, in lower case; absent counts as allowed only if `""` is among them.
/// # Errors
/// What is wrong with it; texts of strangers are never repeated.
pub fn parse<'t>(text: &'t str, types: &[&str], may_bring_key: bool) -> Result<Compact<'t>, Refused> {
    if text.len() > JWT_BYTES_MAX {
        return Err(Refused::TooLarge);
    }
    let (signed, signature) = text.rsplit_once('.').ok_or(Refused::NotAToken)?;
    let (header, payload) = signed.split_once('.').ok_or(Refused::NotAToken)?;
    if payload.contains('.') {
        return Err(Refused::NotAToken);
    }
    // Strict: no padding, no white space, no loose bits at the end.
    let decode = |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| Refused::NotAToken);
    let header = json::object(&decode(header)?).ok_or(Refused::Header)?;
    let claims = json::object(&decode(payload)?).ok_or(Refused::Claims)?;
    let signature = decode(signature)?;
    let forbidden = |name: &&&str| !(may_bring_key && **name == "jwk") && header.contains_key(**name);
    if let Some(name) = FORBIDDEN.iter().find(forbidden) {
        return Err(if *name == "crit" {
            Refused::Critical
        } else {
            Refused::BringsKey
        });
    }
    let kind = match header.get("typ") {
        None => String::new(),
        Some(Value::String(kind)) => kind.to_ascii_lowercase(),
        Some(_) => return Err(Refused::Header),
    };
    if !types.contains(&kind.as_str()) {
        return Err(Refused::Type);
    }
    let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::parse);
    let kid = match header.get("kid") {
        None => None,
        Some(Value::String(kid)) if kid.len() <= KID_BYTES_MAX => Some(kid.clone()),
        Some(_) => return Err(Refused::Header),
    };
    Ok(Compact {
        algorithm: algorithm.ok_or(Refused::Algorithm)?,
        kid,
        header,
        claims,
        signed: signed.as_bytes(),
        signature,
    })
}
