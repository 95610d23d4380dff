//! Proof that a caller holds the key its token is bound to, for each request (RFC 9449, carried in the metadata `dpop`): a JWS of type
//! `dpop+jwt`, signed by the key that it brings, over method, address, time, a name of its own, the token's digest, and a nonce of ours.
//!
//! Addresses are compared with the configured origin, never with what a request says of itself. A proof is taken once: two generations of names
//! are kept, each for as long as proofs are young. When they are full no proof is taken (forgetting early would take one twice).

use super::{
    Refused,
    jwt::{jws, numeric_date, public_key},
    nonce::Nonces,
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

/// What is wrong with a proof. The word stands in the audit record; whoever sent it hears `POSSESSION`, or `USE_DPOP_NONCE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// There is none, or more than one, or no address that it could be for.
    Absent,
    /// It is no JWS of this type and of an algorithm that is taken, or its header wants to be obeyed.
    Form(Refused),
    /// It brings no public key that is taken, or one that does not fit its algorithm.
    Key,
    /// Of another key than the token's.
    OtherKey,
    /// `htm`.
    Method,
    /// `htu`.
    Address,
    /// `iat` is missing, too old, ahead, or from before this run.
    Time,
    /// `jti`.
    Name,
    /// `ath`.
    Token,
    /// Its signature.
    Signature,
    /// It has no nonce of ours, or an old one.
    Nonce,
    /// It was taken before.
    Replayed,
    /// As many are remembered as can be.
    Full,
}

impl Flaw {
    /// The word in the audit record.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Form(refused) => refused.word(),
            Self::Key => "key",
            Self::OtherKey => "other-key",
            Self::Method => "htm",
            Self::Address => "htu",
            Self::Time => "iat",
            Self::Name => "jti",
            Self::Token => "ath",
            Self::Signature => "signature",
            Self::Nonce => "nonce",
            Self::Replayed => "replayed",
            Self::Full => "full",
        }
    }
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
    /// Where proofs must carry one of ours, none of them was made for another run.
    nonces: Option<Nonces>,
}

impl Proofs {
    /// None yet.
    pub fn new(began: Timestamp, nonces: Option<Nonces>) -> Self {
        Self {
            calls: Mutex::default(),
            log_ins: Mutex::default(),
            began,
            nonces,
        }
    }

    /// What a proof must carry from now on, if anything. `mono` is monotonic.
    pub fn nonce(&self, mono: Duration) -> Option<String> {
        self.nonces.as_ref().map(|nonces| nonces.at(mono))
    }

    /// Takes a proof, once. The thumbprint of the key that made it (RFC 7638, SHA-256).
    /// # Errors
    /// The first thing that is wrong with it. [`Flaw::Nonce`] only when the rest is right.
    pub fn take(&self, proof: &str, request: Request<'_>, now: Timestamp, mono: Duration) -> Result<[u8; 32], Flaw> {
        let proof = jws::parse(proof, &TYPES, true).map_err(Flaw::Form)?;
        let Some(Value::Object(jwk)) = proof.header.get("jwk") else {
            return Err(Flaw::Key);
        };
        let thumbprint = thumbprint(jwk).ok_or(Flaw::Key)?;
        if request.expected.is_some_and(|expected| expected != thumbprint) {
            return Err(Flaw::OtherKey);
        }
        let key = public_key(jwk).map_err(|_| Flaw::Key)?;
        let text = |name: &str| proof.claims.get(name).and_then(Value::as_str);
        let address = text("htu").and_then(|address| address.strip_prefix(request.origin));
        let path = address.map(|path| path.split(['?', '#']).next().unwrap_or_default());
        let digest = request
            .token
            .map(|token| BASE64URL_NOPAD.encode(&Sha256::digest(token)));
        let jti = text("jti").filter(|jti| (1..=JTI_BYTES_MAX).contains(&jti.len()));
        require(key.fits(proof.algorithm), Flaw::Key)?;
        require(text("htm") == Some("POST"), Flaw::Method)?;
        require(path == Some(request.path), Flaw::Address)?;
        require(self.is_timely(proof.claims.get("iat"), now), Flaw::Time)?;
        let jti = jti.ok_or(Flaw::Name)?;
        require(text("ath") == digest.as_deref(), Flaw::Token)?;
        let verified = key.verifies(proof.algorithm, proof.signed, &proof.signature);
        require(verified, Flaw::Signature)?;
        let is_known = |nonces: &Nonces| text("nonce").is_some_and(|nonce| nonces.knows(nonce, mono));
        require(self.nonces.as_ref().is_none_or(is_known), Flaw::Nonce)?;
        // Last of all: only what would be taken is remembered.
        let seen = if request.token.is_some() {
            &self.calls
        } else {
            &self.log_ins
        };
        seen.lock().remember(&thumbprint, jti, Instant::now())?;
        Ok(thumbprint)
    }

    fn is_timely(&self, issued: Option<&Value>, now: Timestamp) -> bool {
        let seconds = now.0 / 1000;
        let is_of_this_run = |issued: u64| self.nonces.is_some() || issued * 1000 >= self.began.plus_secs(AHEAD_SECS).0;
        issued.and_then(numeric_date).is_some_and(|issued| {
            issued + AGE_SECS >= seconds && issued <= seconds + AHEAD_SECS && is_of_this_run(issued)
        })
    }
}

fn require(holds: bool, flaw: Flaw) -> Result<(), Flaw> {
    if holds { Ok(()) } else { Err(flaw) }
}

impl Seen {
    fn remember(&mut self, key: &[u8; 32], jti: &str, now: Instant) -> Result<(), Flaw> {
        let digest = Sha256::digest([&key[..], jti.as_bytes()].concat());
        let mut name = [0; 16];
        name.iter_mut().zip(digest.iter()).for_each(|(to, from)| *to = *from);
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) > Duration::from_secs(AGE_SECS + AHEAD_SECS) {
            // What fell out of the older generation is too old to be taken anyway.
            self.old = std::mem::take(&mut self.young);
            self.since = Some(now);
        }
        if self.young.contains(&name) || self.old.contains(&name) {
            return Err(Flaw::Replayed);
        }
        require(self.young.len() < SEEN_MAX, Flaw::Full)?;
        self.young.insert(name);
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

    /// R-AUTH-3, RFC 9449 section 4.3: each check alone refuses, by its own word; only the proof as it should be is taken, and only once.
    #[test]
    fn every_check_of_a_proof_refuses_alone() {
        let (proofs, key, other) = (Proofs::new(Timestamp((NOW - 100) * 1000), None), key(), key());
        let take = |text: &str| proofs.take(text, REQUEST, Timestamp(NOW * 1000), Duration::ZERO);
        let good = signed(&key, &header(&key), &claims("a"));
        let jkt = take(&good).unwrap();
        assert_eq!(Some(jkt), thumbprint(jwk(&key).as_object().unwrap()));
        assert_eq!(take(&good), Err(Flaw::Replayed), "once");
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
        for (name, value, flaw) in [
            ("htm", json!("GET"), Flaw::Method),
            ("htm", json!("post"), Flaw::Method),
            ("htm", Value::Null, Flaw::Method),
            (
                "htu",
                json!("https://vault.example.com:8470/strongroom.v1.Kv/Put"),
                Flaw::Address,
            ),
            (
                "htu",
                json!("https://evil.example.com:8470/strongroom.v1.Kv/Get"),
                Flaw::Address,
            ),
            (
                "htu",
                json!("http://vault.example.com:8470/strongroom.v1.Kv/Get"),
                Flaw::Address,
            ),
            (
                "htu",
                json!("https://vault.example.com/strongroom.v1.Kv/Get"),
                Flaw::Address,
            ),
            ("htu", json!("/strongroom.v1.Kv/Get"), Flaw::Address),
            ("htu", Value::Null, Flaw::Address),
            ("iat", json!(NOW - 61), Flaw::Time),
            ("iat", json!(NOW + 3), Flaw::Time),
            ("iat", json!(NOW.to_string()), Flaw::Time),
            ("iat", Value::Null, Flaw::Time),
            ("jti", json!(""), Flaw::Name),
            ("jti", json!("j".repeat(300)), Flaw::Name),
            ("jti", Value::Null, Flaw::Name),
            ("ath", json!("AAAA"), Flaw::Token),
            ("ath", Value::Null, Flaw::Token),
        ] {
            let proof = signed(&key, &header(&key), &with(claims("x"), name, value.clone()));
            assert_eq!(take(&proof), Err(flaw), "{name} {value}");
        }
        let private = with(jwk(&key), "d", json!("AAAA"));
        for (name, value, word) in [
            ("typ", json!("JWT"), "type"),
            ("typ", Value::Null, "type"),
            ("alg", json!("none"), "algorithm"),
            ("alg", json!("HS256"), "algorithm"),
            ("alg", json!("RS256"), "key"),
            ("alg", json!("ES384"), "key"),
            ("jwk", jwk(&other), "signature"),
            ("jwk", private, "key"),
            ("jwk", json!({"kty": "oct", "k": "AAAA"}), "key"),
            ("jwk", Value::Null, "key"),
            ("crit", json!(["x"]), "crit"),
            ("jku", json!("https://evil.example.com"), "brings-key"),
        ] {
            let proof = signed(&key, &with(header(&key), name, value.clone()), &claims("x"));
            assert_eq!(take(&proof).map_err(Flaw::word), Err(word), "{name} {value}");
        }
        for text in ["", "a.b.c", &good[..good.len() - 4], &format!("{good}x")] {
            assert!(take(text).is_err(), "{text}");
        }
        let expecting = |key: &KeyPair, jti: &str| {
            let request = Request {
                expected: Some(jkt),
                ..REQUEST
            };
            let proof = signed(key, &header(key), &claims(jti));
            proofs.take(&proof, request, Timestamp(NOW * 1000), Duration::ZERO)
        };
        assert_eq!(expecting(&other, "e1"), Err(Flaw::OtherKey));
        assert_eq!(expecting(&key, "e1"), Ok(jkt));
    }

    /// R-AUTH-3: without nonces, what the run before may have taken is not taken: everything up to as far ahead of its end as it took anything.
    /// RFC 9449, section 8: with them only proofs with one of ours are, from the first moment on; what lacks one is not used up by being sent.
    #[test]
    fn proofs_for_another_run_are_not_taken() {
        let (key, began) = (key(), Timestamp(NOW * 1000));
        let at = |proofs: &Proofs, claims: &Value, secs: u64| {
            let proof = signed(&key, &header(&key), claims);
            proofs
                .take(&proof, REQUEST, Timestamp(secs * 1000), Duration::from_secs(secs - NOW))
                .map(drop)
        };
        let bare = Proofs::new(began, None);
        for (ahead, taken) in [(0, Err(Flaw::Time)), (1, Err(Flaw::Time)), (2, Ok(()))] {
            let issued = NOW + ahead;
            assert_eq!(
                at(&bare, &with(claims("z"), "iat", json!(issued)), issued),
                taken,
                "{ahead} s after"
            );
        }
        let run = |key: u8| Proofs::new(began, Some(Nonces::of(&[key; 32])));
        let (proofs, before) = (run(1), run(2));
        let told = proofs.nonce(Duration::ZERO).unwrap();
        for nonce in [
            Value::Null,
            json!(""),
            json!("x"),
            json!(7),
            json!(before.nonce(Duration::ZERO)),
        ] {
            assert_eq!(
                at(&proofs, &with(claims("n"), "nonce", nonce.clone()), NOW),
                Err(Flaw::Nonce),
                "{nonce}"
            );
        }
        let carrying = with(claims("n"), "nonce", json!(told));
        assert_eq!(at(&proofs, &carrying, NOW), Ok(()), "in the first second");
        assert_eq!(at(&proofs, &carrying, NOW), Err(Flaw::Replayed));
        let late = NOW + 2 * Nonces::SPAN.as_secs();
        let carrying = with(carrying, "iat", json!(late));
        assert_eq!(at(&proofs, &carrying, late), Err(Flaw::Nonce), "old");
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
        let (proofs, key) = (Proofs::new(Timestamp(0), None), key());
        let log_in = Request { token: None, ..REQUEST };
        let stranger = with(claims("x"), "ath", Value::Null);
        assert!(
            proofs
                .take(
                    &signed(&key, &header(&key), &stranger),
                    log_in,
                    Timestamp(NOW * 1000),
                    Duration::ZERO
                )
                .is_ok()
        );
        assert!(proofs.calls.lock().young.is_empty());
        assert_eq!(proofs.log_ins.lock().young.len(), 1);
    }
}
