//! Key sets (RFC 7517): public keys for signatures, bounded. What is not usable is left out of a fetched set and refused in one that an
//! operator writes down.

use super::{
    json,
    jws::{Algorithm, Compact, PublicKey},
};
use crate::auth::Refused;
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Map, Value};

/// Keys of one set. Issuers have two to ten.
pub const KEYS_MAX: usize = 100;
/// Bytes of a set.
pub const JWKS_BYTES_MAX: usize = 64 << 10;
/// Members that only private or symmetric keys have.
const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "k"];
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    kid: Option<String>,
    /// The one algorithm it is for, if it says so.
    algorithm: Option<Algorithm>,
    public: PublicKey,
}

/// Public keys of an issuer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeySet(Vec<Key>);

impl KeySet {
    /// The usable keys of a set that was fetched.
    /// # Errors
    /// In words: not a set, too many keys, none usable.
    pub fn lenient(bytes: &[u8]) -> Result<Self, &'static str> {
        let keys: Vec<_> = members(bytes)?
            .iter()
            .filter_map(|key| key.as_object().and_then(|key| parse(key).ok()))
            .collect();
        if keys.is_empty() {
            return Err("no usable key in the set");
        }
        Ok(Self(keys))
    }

    /// A set that an operator wrote down: every key must be usable, and no two may be meant by one `kid`.
    /// # Errors
    /// In words.
    pub fn strict(bytes: &[u8]) -> Result<Self, &'static str> {
        let members = members(bytes)?;
        let keys = members
            .iter()
            .map(|key| parse(key.as_object().ok_or("a key is not an object")?))
            .collect::<Result<Vec<_>, _>>()?;
        let twice = |(at, key): (usize, &Key)| keys.iter().skip(at + 1).any(|other| other.kid == key.kid);
        match keys.is_empty() {
            true => Err("the set has no key"),
            false if keys.iter().enumerate().any(twice) => Err("two keys have one `kid`, or none"),
            false => Ok(Self(keys)),
        }
    }

    /// Whether `kid` (or, without one, the only fitting key) is in the set.
    pub fn has(&self, token: &Compact<'_>) -> bool {
        self.candidate(token).is_some()
    }

    /// The one key that the token can mean: by its `kid`; without one only if no other fits. Several are never tried.
    fn candidate(&self, token: &Compact<'_>) -> Option<&Key> {
        let fits = |key: &&Key| {
            key.public.fits(token.algorithm)
                && key.algorithm.is_none_or(|only| only == token.algorithm)
                && (token.kid.is_none() || key.kid == token.kid)
        };
        let mut found = self.0.iter().filter(fits);
        found.next().filter(|_| found.next().is_none())
    }

    /// Verifies the token's signature.
    /// # Errors
    /// [`Refused::NoKey`], [`Refused::Signature`].
    pub fn verify(&self, token: &Compact<'_>) -> Result<(), Refused> {
        let key = self.candidate(token).ok_or(Refused::NoKey)?;
        if key.public.verifies(token.algorithm, token.signed, &token.signature) {
            Ok(())
        } else {
            Err(Refused::Signature)
        }
    }
}

fn members(bytes: &[u8]) -> Result<Vec<Value>, &'static str> {
    if bytes.len() > JWKS_BYTES_MAX {
        return Err("a key set has at most 64 KiB");
    }
    match json::object(bytes)
        .ok_or("not a JSON object with unique keys")?
        .remove("keys")
    {
        Some(Value::Array(keys)) if keys.len() <= KEYS_MAX => Ok(keys),
        Some(Value::Array(_)) => Err("a key set has at most 100 keys"),
        _ => Err("a key set has a list `keys`"),
    }
}

fn parse(key: &Map<String, Value>) -> Result<Key, &'static str> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    if text("use").is_some_and(|purpose| purpose != "sig") {
        return Err("a key is not for signatures (`use`)");
    }
    if let Some(Value::Array(ops)) = key.get("key_ops")
        && !ops.iter().any(|op| op == "verify")
    {
        return Err("a key is not for verifying (`key_ops`)");
    }
    let algorithm = match text("alg") {
        None => None,
        Some("RS256") => Some(Algorithm::RS256),
        Some("PS256") => Some(Algorithm::PS256),
        Some("ES256") => Some(Algorithm::ES256),
        Some("ES384") => Some(Algorithm::ES384),
        Some("EdDSA" | "Ed25519") => Some(Algorithm::EdDSA),
        Some(_) => return Err("a key's `alg` is none of RS256, PS256, ES256, ES384, EdDSA"),
    };
    let kid = match key.get("kid") {
        None => None,
        Some(Value::String(kid)) => Some(kid.clone()),
        Some(_) => return Err("a `kid` is not text"),
    };
    let public = public_key(key)?;
    if algorithm.is_some_and(|only| !public.fits(only)) {
        return Err("a key's `alg` does not fit its kind");
    }
    Ok(Key { kid, algorithm, public })
}

/// The public key of a JWK.
/// # Errors
/// In words: private, of another kind, of a wrong size.
pub fn public_key(key: &Map<String, Value>) -> Result<PublicKey, &'static str> {
    if PRIVATE.iter().any(|name| key.contains_key(*name)) {
        return Err("a private or symmetric key: only public keys belong here");
    }
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let bytes = |name: &str| {
        let text = text(name).ok_or("a member of a key is missing")?;
        BASE64URL_NOPAD
            .decode(text.as_bytes())
            .map_err(|_| "a member of a key is not base64url without padding")
    };
    let point = |length: usize| -> Result<Vec<u8>, &'static str> {
        let (x, y) = (bytes("x")?, bytes("y")?);
        if x.len() != length || y.len() != length {
            return Err("a coordinate has a wrong length");
        }
        Ok([&[4][..], &x, &y].concat())
    };
    match (text("kty"), text("crv")) {
        (Some("RSA"), _) => {
            let (n, e) = (bytes("n")?, bytes("e")?);
            if !RSA_BYTES.contains(&n.len())
                || n.first() == Some(&0)
                || e.is_empty()
                || e.len() > 4
                || e.first() == Some(&0)
            {
                return Err("an RSA key has 2048 to 8192 bits and a small exponent");
            }
            Ok(PublicKey::Rsa { n, e })
        }
        (Some("EC"), Some("P-256")) => point(32).map(PublicKey::P256),
        (Some("EC"), Some("P-384")) => point(48).map(PublicKey::P384),
        (Some("OKP"), Some("Ed25519")) => match bytes("x")? {
            x if x.len() == 32 => Ok(PublicKey::Ed25519(x)),
            _ => Err("an Ed25519 key has 32 bytes"),
        },
        _ => Err("a key is of a kind that is not taken: RSA, P-256, P-384, Ed25519 are"),
    }
}
