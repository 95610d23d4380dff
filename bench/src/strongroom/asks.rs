//! What callers ask of a service that speaks our wire, one function a call. Each looks at the answer.

use super::door::Ask;
use crate::{Fault, limits::VALUE_BYTES, load::Answered};
use bytes::Bytes;
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use strongroom_client::Stubs;
use strongroom_proto::v1;
use strongroom_tests::issuer::Issuer;
use tonic::{Response, Status};

/// Mount of the keys, and the keys.
pub const KEYS: &str = "tr";
/// Encrypts.
pub const AES: &str = "tr/aes";
/// Signs with Ed25519.
pub const ED25519: &str = "tr/ed25519";
/// Signs with ECDSA on P-256.
pub const P256: &str = "tr/p256";

fn right<R>(answer: &R, is_right: impl FnOnce(&R) -> bool, what: &str) -> Result<(), Fault> {
    match is_right(answer) {
        true => Ok(()),
        false => Err(format!("a wrong answer: {what}").into()),
    }
}

fn asks<R, A>(
    what: &'static str,
    is_right: fn(&R) -> bool,
    call: impl Fn(Stubs, u64) -> A + Send + Sync + Clone + 'static,
) -> impl Ask
where
    R: 'static,
    A: Future<Output = Result<Response<R>, Status>> + Send + 'static,
{
    move |stubs, turn| -> Answered<'static> {
        let answer = call(stubs, turn);
        Box::pin(async move { right(&answer.await?.into_inner(), is_right, what) })
    }
}

/// Reads secrets `0..secrets` in turn.
pub fn read(secrets: u64) -> impl Ask {
    let is_right = |reply: &v1::KvGetResponse| {
        reply
            .fields
            .get("value")
            .is_some_and(|value| value.len() == VALUE_BYTES)
    };
    asks("another value", is_right, move |stubs, turn| async move {
        let path = format!("kv/r/s{}", turn % secrets);
        stubs.kv().get(v1::KvGetRequest { path, select: None }).await
    })
}

/// Looks at its own token.
pub fn look_up() -> impl Ask {
    let is_right = |reply: &v1::TokenInfo| reply.identity == "bench";
    asks("another identity", is_right, |stubs, _| async move {
        stubs.token().get(v1::TokenGetRequest::default()).await
    })
}

/// Makes a token of a named identity, which begins a session of its own.
pub fn create() -> impl Ask {
    asks(
        "no token",
        |reply: &v1::TokenCreateResponse| !reply.token.is_empty(),
        |stubs, _| async move {
            let request = v1::TokenCreateRequest {
                identity: "made".into(),
                ttl_secs: 900,
                max_ttl_secs: 900,
                ..Default::default()
            };
            stubs.token().create(request).await
        },
    )
}

/// Logs in, each time with another JWT, signed by this process.
pub fn log_in(issuer: Arc<Issuer>) -> impl Ask {
    asks(
        "no token",
        |reply: &v1::LoginResponse| !reply.token.is_empty(),
        move |stubs, _| {
            let jwt = jwt(&issuer);
            async move {
                let request = v1::LoginRequest {
                    proof: Some(v1::login_request::Proof::Jwt(jwt)),
                    ..Default::default()
                };
                stubs.login().login(request).await
            }
        },
    )
}

static JWTS: AtomicU64 = AtomicU64::new(0);

/// A JWT that no other log-in of this process has.
pub fn jwt(issuer: &Issuer) -> String {
    let jti = format!("bench-{}", JWTS.fetch_add(1, Ordering::Relaxed));
    issuer.token(&jti, serde_json::json!({}))
}

/// Encrypts 1 KiB.
pub fn encrypt() -> impl Ask {
    let is_right = |reply: &v1::TransitEncryptResponse| {
        let first = reply.results.first().and_then(|one| one.result.as_ref());
        matches!(first, Some(v1::transit_ciphertext::Result::Ciphertext(text)) if text.len() > VALUE_BYTES)
    };
    let plaintext = Bytes::from(vec![b'v'; VALUE_BYTES]);
    asks("no ciphertext", is_right, move |stubs, _| {
        let plain = v1::TransitPlain {
            plaintext: plaintext.clone(),
            ..Default::default()
        };
        async move {
            let request = v1::TransitEncryptRequest {
                path: AES.into(),
                items: vec![plain],
            };
            stubs.transit().encrypt(request).await
        }
    })
}

/// Signs 32 bytes.
pub fn sign(key: &'static str) -> impl Ask {
    let is_right = |reply: &v1::TransitSignResponse| reply.results.first().is_some_and(|one| one.signature.len() >= 64);
    asks("no signature", is_right, move |stubs, _| async move {
        let request = v1::TransitSignRequest {
            path: key.into(),
            inputs: vec![Bytes::from_static(&[7; 32])],
        };
        stubs.transit().sign(request).await
    })
}
