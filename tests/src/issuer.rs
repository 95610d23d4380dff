//! An issuer of JSON Web Tokens that a test or a campaign plays: one P-256 key, its tokens, and a trust in them.

use data_encoding::BASE64URL_NOPAD;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SigningKey};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// An issuer with one P-256 key.
pub struct Issuer {
    pub name: String,
    key: KeyPair,
}

pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock is past 1970")
        .as_secs()
}

fn b64(value: &Value) -> String {
    BASE64URL_NOPAD.encode(value.to_string().as_bytes())
}

/// The two integers of an ECDSA signature in DER, each in 32 bytes: rcgen signs as X.509 does, JWS has them bare.
fn bare(der: &[u8]) -> Vec<u8> {
    let integer = |at: usize| {
        let length = usize::from(der[at + 1]);
        let bytes = &der[at + 2..at + 2 + length];
        let bytes = bytes.strip_prefix(&[0]).unwrap_or(bytes);
        ([vec![0; 32 - bytes.len()], bytes.to_vec()].concat(), at + 2 + length)
    };
    let (r, next) = integer(2);
    [r, integer(next).0].concat()
}

/// A public P-256 key as a JWK.
pub fn jwk(key: &KeyPair) -> Value {
    let point = key.der_bytes();
    json!({
        "kty": "EC", "crv": "P-256",
        "x": BASE64URL_NOPAD.encode(&point[1..33]), "y": BASE64URL_NOPAD.encode(&point[33..65]),
    })
}

pub fn sign(key: &KeyPair, header: &Value, claims: &Value) -> String {
    let signed = format!("{}.{}", b64(header), b64(claims));
    let signature = bare(&key.sign(signed.as_bytes()).expect("P-256 signs"));
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
}

fn new_key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key")
}

impl Issuer {
    pub fn new(name: &str) -> Self {
        Self {
            name: format!("https://{name}.example.com"),
            key: new_key(),
        }
    }
    /// Somebody who says to be this issuer and does not have its key.
    #[must_use]
    pub fn forged(&self) -> Self {
        Self {
            name: self.name.clone(),
            key: new_key(),
        }
    }
    /// Its key, for whoever takes PEM.
    pub fn public_key_pem(&self) -> String {
        self.key.public_key_pem()
    }
    pub fn jwks(&self) -> Value {
        let mut key = jwk(&self.key);
        key["kid"] = "k1".into();
        json!({"keys": [key]})
    }
    /// A trust in its subjects `job`, who get `groups`.
    pub fn trust(&self, groups: &[&str]) -> Value {
        json!({"jwt": {
            "issuer": self.name, "audience": "strongroom-tests", "algorithms": ["ES256"],
            "keys": {"static": {"jwks": self.jwks()}},
            "bind": [{"claims": {"sub": "job"}, "groups": groups}],
            "attributes": ["sub", "ref"],
        }})
    }
    /// A token of `job` for five minutes, with `more` claims (an object) in place of these or beside them.
    pub fn token(&self, jti: &str, more: Value) -> String {
        let mut claims = json!({
            "iss": self.name, "aud": "strongroom-tests", "sub": "job", "jti": jti, "ref": "main", "iat": now(), "exp": now() + 300,
        });
        if let (Some(claims), Value::Object(more)) = (claims.as_object_mut(), more) {
            claims.extend(more);
        }
        sign(&self.key, &json!({"alg": "ES256", "kid": "k1", "typ": "JWT"}), &claims)
    }
}
