//! Proof that a caller holds the key its token is bound to, for each request (RFC 9449, carried in the metadata `dpop`): a JWS of type
//! `dpop+jwt`, signed by the key that it brings, over method, address, time, a name of its own, and the token's digest.
//!
//! Addresses are compared with the configured origin, never with what a request says of itself. A proof is taken once: two generations of names
//! are kept, each for as long as proofs are young. When they are full no proof is taken (forgetting early would take one twice).

use super::{
    Refused,
    jwt::{jws, numeric_date, public_key},
};
use crate::base::time::Timestamp;
use data_encoding::BASE64URL_NOPAD;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

/// A proof may be this old, and this far ahead.
const AGE_SECS: u64 = 60;
const AHEAD_SECS: u64 = 2;
/// Names of proofs in one generation, 16 bytes each.
const SEEN_MAX: usize = if cfg!(test) { 32 } else { 1 << 19 };
const JTI_BYTES_MAX: usize = 256;
/// The type of a proof.
const TYPES: [&str; 1] = ["dpop+jwt"];

/// What a proof must be for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'r> {
    /// `https://HOST:PORT`, as configured.
    pub origin: &'r str,
    /// `/strongroom.v1.Kv/Get`.
    pub path: &'r str,
    /// The token presented with it; none when logging in.
    pub token: Option<&'r [u8]>,
    /// The key that it must be of (RFC 7638 thumbprint), if that is known. Any other is refused before anything is verified or remembered.
    pub expected: Option<[u8; 32]>,
}

#[derive(Default)]
struct Seen {
    /// Since when the younger generation is filled: by a clock that nobody sets.
    since: Option<Instant>,
    young: HashSet<[u8; 16]>,
    old: HashSet<[u8; 16]>,
}

/// Proofs of late.
pub struct Proofs {
    /// Of calls with a token that is bound to a key, and of log-ins: who only asks to log in fills nothing that others need.
    calls: Mutex<Seen>,
    log_ins: Mutex<Seen>,
    /// Proofs from before this run may have been taken by the one before, as may those that were ahead of it by then.
    began: Timestamp,
}

impl Proofs {
    /// None yet.
    pub fn since(began: Timestamp) -> Self {
        Self {
            calls: Mutex::default(),
            log_ins: Mutex::default(),
            began,
        }
    }

    /// Takes a proof, once. The thumbprint of the key that made it (RFC 7638, SHA-256).
    /// # Errors
    /// [`Refused::Possession`], whatever is wrong with it.
    pub fn take(&self, proof: &str, request: Request<'_>, now: Timestamp) -> Result<[u8; 32], Refused> {
        let wrong = Refused::Possession;
        let proof = jws::parse(proof, &TYPES, true).map_err(|_| wrong)?;
        let Some(Value::Object(jwk)) = proof.header.get("jwk") else {
            return Err(wrong);
        };
        let thumbprint = thumbprint(jwk).ok_or(wrong)?;
        if request.expected.is_some_and(|expected| expected != thumbprint) {
            return Err(wrong);
        }
        let key = public_key(jwk).map_err(|_| wrong)?;
        let text = |name: &str| proof.claims.get(name).and_then(Value::as_str);
        let address = text("htu").and_then(|address| address.strip_prefix(request.origin));
        let path = address.map(|path| path.split(['?', '#']).next().unwrap_or_default());
        if !key.fits(proof.algorithm) || text("htm") != Some("POST") || path != Some(request.path) {
            return Err(wrong);
        }
        let issued = proof.claims.get("iat").and_then(numeric_date).ok_or(wrong)?;
        let seconds = now.0 / 1000;
        if issued + AGE_SECS < seconds
            || issued > seconds + AHEAD_SECS
            || issued * 1000 < self.began.plus_secs(AHEAD_SECS).0
        {
            return Err(wrong);
        }
        let jti = text("jti")
            .filter(|jti| (1..=JTI_BYTES_MAX).contains(&jti.len()))
            .ok_or(wrong)?;
        let digest = request
            .token
            .map(|token| BASE64URL_NOPAD.encode(&Sha256::digest(token)));
        if text("ath") != digest.as_deref() {
            return Err(wrong);
        }
        if !key.verifies(proof.algorithm, proof.signed, &proof.signature) {
            return Err(wrong);
        }
        // Last of all: only what would be taken is remembered.
        let seen = if request.token.is_some() {
            &self.calls
        } else {
            &self.log_ins
        };
        seen.lock().remember(&thumbprint, jti, Instant::now())?;
        Ok(thumbprint)
    }
}

impl Seen {
    fn remember(&mut self, key: &[u8; 32], jti: &str, now: Instant) -> Result<(), Refused> {
        let digest = Sha256::digest([&key[..], jti.as_bytes()].concat());
        let mut name = [0; 16];
        name.iter_mut().zip(digest.iter()).for_each(|(to, from)| *to = *from);
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) > Duration::from_secs(AGE_SECS + AHEAD_SECS) {
            // What fell out of the older generation is too old to be taken anyway.
            self.old = std::mem::take(&mut self.young);
            self.since = Some(now);
        }
        if self.young.len() >= SEEN_MAX || self.old.contains(&name) || !self.young.insert(name) {
            return Err(Refused::Possession);
        }
        Ok(())
    }
}

/// RFC 7638: SHA-256 of the required members, in the order of their names, without white space.
fn thumbprint(jwk: &Map<String, Value>) -> Option<[u8; 32]> {
    let names: &[&str] = match jwk.get("kty")?.as_str()? {
        "RSA" => &["e", "kty", "n"],
        "EC" => &["crv", "kty", "x", "y"],
        "OKP" => &["crv", "kty", "x"],
        _ => return None,
    };
    let members = names
        .iter()
        .map(|name| {
            Some(format!(
                "\"{name}\":{}",
                serde_json::to_string(jwk.get(*name)?.as_str()?).ok()?
            ))
        })
        .collect::<Option<Vec<_>>>()?;
    Some(Sha256::digest(format!("{{{}}}", members.join(","))).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SigningKey};
    use serde_json::json;

    const NOW: u64 = 1_795_000_000;
    const REQUEST: Request<'_> = Request {
        origin: "https://vault.example.com:8470",
        path: "/strongroom.v1.Kv/Get",
        token: Some(b"srm_st_x"),
        expected: None,
    };

    fn key() -> KeyPair {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
    }

    fn jwk(key: &KeyPair) -> Value {
        let point = key.der_bytes();
        let half = |at: usize| BASE64URL_NOPAD.encode(&point[at..at + 32]);
        json!({"kty": "EC", "crv": "P-256", "x": half(1), "y": half(33)})
    }

    /// rcgen signs as X.509 does, in DER; JWS has the two integers bare.
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

    fn signed(key: &KeyPair, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let text = format!("{}.{}", part(header), part(claims));
        let signature = BASE64URL_NOPAD.encode(&bare(&key.sign(text.as_bytes()).unwrap()));
        format!("{text}.{signature}")
    }

    fn header(key: &KeyPair) -> Value {
        json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk(key)})
    }

    fn claims(jti: &str) -> Value {
        let ath = BASE64URL_NOPAD.encode(&Sha256::digest(b"srm_st_x"));
        json!({"htm": "POST", "htu": "https://vault.example.com:8470/strongroom.v1.Kv/Get", "iat": NOW, "jti": jti, "ath": ath})
    }

    fn with(mut value: Value, name: &str, to: Value) -> Value {
        match to {
            Value::Null => drop(value.as_object_mut().unwrap().remove(name)),
            to => value[name] = to,
        }
        value
    }

    /// R-AUTH-3, RFC 9449 section 4.3: each check alone refuses; only the proof as it should be is taken, and only once.
    #[test]
    fn every_check_of_a_proof_refuses_alone() {
        let (proofs, key, other) = (Proofs::since(Timestamp((NOW - 100) * 1000)), key(), key());
        let take = |text: &str| proofs.take(text, REQUEST, Timestamp(NOW * 1000));
        let good = signed(&key, &header(&key), &claims("a"));
        let jkt = take(&good).unwrap();
        assert_eq!(Some(jkt), thumbprint(jwk(&key).as_object().unwrap()));
        assert_eq!(take(&good), Err(Refused::Possession), "once");
        assert_eq!(take(&signed(&key, &header(&key), &claims("b"))), Ok(jkt));
        assert_eq!(
            take(&signed(&other, &header(&other), &claims("a"))).map(|other| other != jkt),
            Ok(true)
        );
        let query = with(
            claims("q"),
            "htu",
            json!("https://vault.example.com:8470/strongroom.v1.Kv/Get?x=1#y"),
        );
        assert_eq!(take(&signed(&key, &header(&key), &query)), Ok(jkt));
        for (name, value) in [
            ("htm", json!("GET")),
            ("htm", json!("post")),
            ("htm", Value::Null),
            ("htu", json!("https://vault.example.com:8470/strongroom.v1.Kv/Put")),
            ("htu", json!("https://evil.example.com:8470/strongroom.v1.Kv/Get")),
            ("htu", json!("http://vault.example.com:8470/strongroom.v1.Kv/Get")),
            ("htu", json!("https://vault.example.com/strongroom.v1.Kv/Get")),
            ("htu", json!("/strongroom.v1.Kv/Get")),
            ("htu", Value::Null),
            ("iat", json!(NOW - 61)),
            ("iat", json!(NOW + 3)),
            ("iat", json!(NOW.to_string())),
            ("iat", Value::Null),
            ("jti", json!("")),
            ("jti", json!("j".repeat(300))),
            ("jti", Value::Null),
            ("ath", json!("AAAA")),
            ("ath", Value::Null),
        ] {
            let proof = signed(&key, &header(&key), &with(claims("x"), name, value.clone()));
            assert_eq!(take(&proof), Err(Refused::Possession), "{name} {value}");
        }
        let private = with(jwk(&key), "d", json!("AAAA"));
        for (name, value) in [
            ("typ", json!("JWT")),
            ("typ", Value::Null),
            ("alg", json!("none")),
            ("alg", json!("HS256")),
            ("alg", json!("RS256")),
            ("alg", json!("ES384")),
            ("jwk", jwk(&other)),
            ("jwk", private),
            ("jwk", json!({"kty": "oct", "k": "AAAA"})),
            ("jwk", Value::Null),
            ("crit", json!(["x"])),
            ("jku", json!("https://evil.example.com")),
        ] {
            let proof = signed(&key, &with(header(&key), name, value.clone()), &claims("x"));
            assert_eq!(take(&proof), Err(Refused::Possession), "{name} {value}");
        }
        for text in ["", "a.b.c", &good[..good.len() - 4], &format!("{good}x")] {
            assert_eq!(take(text), Err(Refused::Possession), "{text}");
        }
        let expecting = |key: &KeyPair, jti: &str| {
            let request = Request {
                expected: Some(jkt),
                ..REQUEST
            };
            proofs.take(&signed(key, &header(key), &claims(jti)), request, Timestamp(NOW * 1000))
        };
        assert_eq!(
            expecting(&other, "e1"),
            Err(Refused::Possession),
            "another key than the token's"
        );
        assert_eq!(expecting(&key, "e1"), Ok(jkt));
        // What the run before may have taken: everything up to as far ahead of its end as it took anything.
        let begun = Proofs::since(Timestamp(NOW * 1000));
        for (ahead, taken) in [(0, false), (1, false), (2, true)] {
            let at = NOW + ahead;
            let proof = signed(&key, &header(&key), &with(claims("z"), "iat", json!(at)));
            assert_eq!(
                begun.take(&proof, REQUEST, Timestamp(at * 1000)).is_ok(),
                taken,
                "{ahead} s after the start"
            );
        }
    }

    /// RFC 7638, section 3.1: the example.
    #[test]
    fn thumbprints_are_those_of_the_rfc() {
        let jwk = json!({
            "kty": "RSA", "alg": "RS256", "kid": "2011-04-29", "e": "AQAB",
            "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        });
        let digest = thumbprint(jwk.as_object().unwrap()).unwrap();
        assert_eq!(
            BASE64URL_NOPAD.encode(&digest),
            "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
        );
    }

    /// Names of proofs are bounded; when they are full nothing is taken rather than something twice. Log-ins have a table of their own, and no clock
    /// that can be set makes anything forgotten.
    #[test]
    fn a_full_memory_takes_nothing() {
        let (mut seen, began) = (Seen::default(), Instant::now());
        let mut take = |jti: &str, secs: u64| seen.remember(&[7; 32], jti, began + Duration::from_secs(secs)).is_ok();
        assert!(take("first", 0));
        for n in 1..SEEN_MAX {
            assert!(take(&n.to_string(), 0));
        }
        assert!(!take("more", 1));
        assert!(
            take("later", 63) && !take("later", 63) && !take("first", 64),
            "the older generation counts"
        );
        assert!(take("first", 127), "too old by then to be taken for another reason");
        let (proofs, key) = (Proofs::since(Timestamp(0)), key());
        let log_in = Request { token: None, ..REQUEST };
        let stranger = with(claims("x"), "ath", Value::Null);
        assert!(
            proofs
                .take(&signed(&key, &header(&key), &stranger), log_in, Timestamp(NOW * 1000))
                .is_ok()
        );
        assert!(proofs.calls.lock().young.is_empty());
        assert_eq!(proofs.log_ins.lock().young.len(), 1);
    }
}
