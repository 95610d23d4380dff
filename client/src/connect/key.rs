//! The key that a token is bound to (DPoP, RFC 9449): with each call goes a proof that the caller holds it, so that the token alone is of no use.

use crate::error::Error;
use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use http::HeaderValue;
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use std::{
    fmt,
    path::Path,
    sync::{PoisonError, RwLock},
    time::SystemTime,
};
use zeroize::Zeroizing;

/// Bytes of a proof's own name.
const JTI_BYTES: usize = 16;
/// Characters of a PEM line.
const PEM_LINE: usize = 64;

/// A P-256 key that signs proofs (ES256). `Debug` shows nothing of it.
pub struct ProofKey {
    pair: EcdsaKeyPair,
    /// The proof's header, encoded.
    header: String,
}

impl fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProofKey(redacted)")
    }
}

impl ProofKey {
    /// A new key, and the text of the PEM file (PKCS#8) that [`Builder::proof_key`](crate::Builder::proof_key) reads.
    /// # Errors
    /// [`Error::Config`] when the system gives no randomness.
    pub fn generate() -> Result<(Self, Zeroizing<String>), Error> {
        let fault = |_| Error::Config("no key could be made".to_owned());
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).map_err(fault)?;
        let body = Zeroizing::new(BASE64.encode(document.as_ref()));
        let mut pem = Zeroizing::new(String::with_capacity(512));
        pem.push_str("-----BEGIN PRIVATE KEY-----\n");
        for (at, letter) in body.chars().enumerate() {
            if at > 0 && at % PEM_LINE == 0 {
                pem.push('\n');
            }
            pem.push(letter);
        }
        pem.push_str("\n-----END PRIVATE KEY-----\n");
        Ok((Self::from_pkcs8(document.as_ref(), "the new key")?, pem))
    }

    /// Reads a PEM file.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let name = path.display().to_string();
        let key =
            PrivatePkcs8KeyDer::from_pem_file(path).map_err(|e| Error::Config(format!("proof key {name}: {e}")))?;
        Self::from_pkcs8(key.secret_pkcs8_der(), &name)
    }

    fn from_pkcs8(der: &[u8], name: &str) -> Result<Self, Error> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map_err(|_| {
            Error::Config(format!(
                "proof key {name}: not a P-256 key in PKCS#8; `login --dpop` makes one"
            ))
        })?;
        // An uncompressed point: 4, x, y.
        let half = |from: usize| {
            pair.public_key()
                .as_ref()
                .get(from..from + 32)
                .map(|half| BASE64URL_NOPAD.encode(half))
        };
        let (Some(x), Some(y)) = (half(1), half(33)) else {
            return Err(Error::Config(format!("proof key {name}: not a P-256 key")));
        };
        let jwk = serde_json::json!({"kty": "EC", "crv": "P-256", "x": x, "y": y});
        let header = serde_json::json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk});
        Ok(Self {
            pair,
            header: BASE64URL_NOPAD.encode(header.to_string().as_bytes()),
        })
    }

    /// A proof for one call at `address`, with `token` and the daemon's `nonce` if there are.
    fn proof(&self, address: &str, token: Option<&[u8]>, nonce: Option<&str>) -> Option<HeaderValue> {
        let mut jti = [0; JTI_BYTES];
        getrandom::fill(&mut jti).ok()?;
        let issued = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
        let mut claims = serde_json::json!({
            "htm": "POST",
            "htu": address,
            "iat": issued,
            "jti": BASE64URL_NOPAD.encode(&jti),
        });
        if let Some(token) = token {
            claims["ath"] = BASE64URL_NOPAD.encode(digest(&SHA256, token).as_ref()).into();
        }
        if let Some(nonce) = nonce {
            claims["nonce"] = nonce.into();
        }
        let text = format!(
            "{}.{}",
            self.header,
            BASE64URL_NOPAD.encode(claims.to_string().as_bytes())
        );
        let signature = self.pair.sign(&SystemRandom::new(), text.as_bytes()).ok()?;
        format!("{text}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
            .parse()
            .ok()
    }
}

/// A key, and the address that its proofs are for.
#[derive(Debug)]
pub(crate) struct Prover {
    pub key: ProofKey,
    /// `https://HOST:PORT`.
    pub origin: String,
    /// What the daemon told last that a proof must carry.
    nonce: RwLock<Option<String>>,
}

impl Prover {
    pub fn new(key: ProofKey, origin: String) -> Self {
        Self {
            key,
            origin,
            nonce: RwLock::default(),
        }
    }

    /// The metadata `dpop` of one call of `path`.
    pub fn proof(&self, path: &str, bearer: Option<&HeaderValue>) -> Option<HeaderValue> {
        let token = bearer.and_then(|bearer| bearer.as_bytes().strip_prefix(b"Bearer "));
        let nonce = self.nonce.read().unwrap_or_else(PoisonError::into_inner).clone();
        self.key
            .proof(&format!("{}{path}", self.origin), token, nonce.as_deref())
    }

    /// From now on proofs carry this.
    pub fn learn(&self, nonce: &str) {
        let mut known = self.nonce.write().unwrap_or_else(PoisonError::into_inner);
        if known.as_deref() != Some(nonce) {
            *known = Some(nonce.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    /// R-AUTH-3: what a file holds is the key that was made; its proofs carry what RFC 9449 asks for, and verify under the key that they bring.
    #[test]
    fn a_key_goes_through_its_file_and_signs_for_one_call() {
        let (made, pem) = ProofKey::generate().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), pem.as_bytes()).unwrap();
        let key = ProofKey::read(file.path()).unwrap();
        assert_eq!(key.header, made.header);
        let prover = Prover::new(key, "https://localhost:8470".to_owned());
        let bearer: HeaderValue = "Bearer srm_x".parse().unwrap();
        let proofs = [None, Some("n-1")].map(|nonce| {
            if let Some(nonce) = nonce {
                prover.learn(nonce);
            }
            prover.proof("/strongroom.v1.Kv/Get", Some(&bearer)).unwrap()
        });
        assert_ne!(proofs[0], proofs[1], "each has a name of its own");
        let carries = |proof: &HeaderValue| {
            let claims = proof.to_str().unwrap().split('.').nth(1).unwrap().to_owned();
            let claims: serde_json::Value =
                serde_json::from_slice(&BASE64URL_NOPAD.decode(claims.as_bytes()).unwrap()).unwrap();
            claims["nonce"].clone()
        };
        assert_eq!(proofs.each_ref().map(carries), [serde_json::Value::Null, "n-1".into()]);
        let text = proofs[0].to_str().unwrap();
        let (signed, signature) = text.rsplit_once('.').unwrap();
        let claims: serde_json::Value = serde_json::from_slice(
            &BASE64URL_NOPAD
                .decode(signed.split_once('.').unwrap().1.as_bytes())
                .unwrap(),
        )
        .unwrap();
        assert_eq!(claims["htu"], "https://localhost:8470/strongroom.v1.Kv/Get");
        assert_eq!(
            claims["ath"],
            BASE64URL_NOPAD.encode(digest(&SHA256, b"srm_x").as_ref())
        );
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, made.pair.public_key().as_ref());
        public.verify(signed.as_bytes(), &signature).unwrap();
        assert!(!format!("{made:?}").contains(&made.header));
        std::fs::write(file.path(), "rubbish").unwrap();
        assert!(matches!(ProofKey::read(file.path()), Err(Error::Config(text)) if text.contains("proof key")));
    }
}
