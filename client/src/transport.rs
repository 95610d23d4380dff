//! What every call goes through: the token, and where there is a key for it a DPoP proof, made again once when the daemon asks for its nonce
//! (RFC 9449, 8).

use crate::{connect::Prover, error::Error, secret::Secret};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::AUTHORIZATION};
use http_body_util::{BodyExt, Full};
use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    task::{Context, Poll},
};
use tonic::{Status, body::Body, transport::Channel};
use tonic_types::StatusExt as _;
use tower::{Service, ServiceExt as _};
use zeroize::Zeroizing;

const PROOF: &str = "dpop";
const PROOF_NONCE: &str = "dpop-nonce";
/// The daemon's word for a proof that is good, but for its nonce.
const USE_NONCE: &str = "USE_DPOP_NONCE";

/// The header value of a token, or none. Shared by all clones of a client.
pub(crate) type Bearer = Arc<RwLock<Option<HeaderValue>>>;

/// The header value of a token; never printed, never indexed by HTTP/2 header compression.
pub(crate) fn bearer(token: &Secret) -> Result<HeaderValue, Error> {
    let wrong = || Error::Config("the token is not one: it holds characters that no token has".to_owned());
    let text = token.expose_str().map_err(|_| wrong())?.trim();
    if text.is_empty() || text.contains(char::is_whitespace) {
        return Err(wrong());
    }
    let header = Zeroizing::new(format!("Bearer {text}"));
    let mut value = HeaderValue::from_str(&header).map_err(|_| wrong())?;
    value.set_sensitive(true);
    Ok(value)
}

/// The channel with token and proof, as the generated stubs take it.
#[derive(Clone)]
pub struct Transport {
    channel: Channel,
    bearer: Bearer,
    prover: Option<Arc<Prover>>,
}

type Answer = Result<Response<Body>, tonic::transport::Error>;

impl Transport {
    pub(crate) fn new(channel: Channel, bearer: Bearer, prover: Option<Prover>) -> Self {
        Self {
            channel,
            bearer,
            prover: prover.map(Arc::new),
        }
    }
}

impl Service<Request<Body>> for Transport {
    type Response = Response<Body>;
    type Error = tonic::transport::Error;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let bearer = self.bearer.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(bearer) = bearer {
            request.headers_mut().insert(AUTHORIZATION, bearer);
        }
        // The clone may not be ready yet; the one that was asked is.
        let clone = self.channel.clone();
        let channel = std::mem::replace(&mut self.channel, clone);
        match &self.prover {
            None => {
                let mut channel = channel;
                Box::pin(channel.call(request))
            }
            Some(prover) => Box::pin(proven(channel, Arc::clone(prover), request)),
        }
    }
}

/// One call with a proof. A request is one message, so it can be sent twice: what the daemon asked a nonce for it has not looked at.
async fn proven(mut channel: Channel, prover: Arc<Prover>, request: Request<Body>) -> Answer {
    let (parts, body) = request.into_parts();
    let message = match body.collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(status) => return Ok(status.into_http()),
    };
    let again = message.clone();
    let Some(request) = signed(&prover, &parts, message) else {
        return Ok(unproven());
    };
    let answer = channel.call(request).await?;
    if !learn(&prover, &answer) {
        return Ok(answer);
    }
    let Some(request) = signed(&prover, &parts, again) else {
        return Ok(unproven());
    };
    let answer = channel.ready().await?.call(request).await?;
    learn(&prover, &answer);
    Ok(answer)
}

fn signed(prover: &Prover, parts: &http::request::Parts, message: Bytes) -> Option<Request<Body>> {
    let proof = prover.proof(parts.uri.path(), parts.headers.get(AUTHORIZATION))?;
    let mut parts = parts.clone();
    parts.headers.insert(PROOF, proof);
    Some(Request::from_parts(parts, Body::new(Full::new(message))))
}

/// Keeps the nonce that an answer tells; whether the call was refused for want of it.
fn learn(prover: &Prover, answer: &Response<Body>) -> bool {
    let Some(nonce) = answer.headers().get(PROOF_NONCE).and_then(|nonce| nonce.to_str().ok()) else {
        return false;
    };
    prover.learn(nonce);
    Status::from_header_map(answer.headers())
        .and_then(|status| status.get_details_error_info())
        .is_some_and(|info| info.reason == USE_NONCE)
}

fn unproven() -> Response<Body> {
    Status::internal("no proof of the key could be made").into_http()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R-TOK-5: the header never shows a token; what cannot be one is refused before anything is sent.
    #[test]
    fn the_token_header_is_sensitive_and_checked() {
        let value = bearer(&Secret::from("srm_at_canary\n")).unwrap();
        assert!(!format!("{value:?}").contains("canary"));
        assert_eq!(value.to_str().unwrap(), "Bearer srm_at_canary");
        for wrong in ["", "  \n", "two words", "tab\there", "nul\0"] {
            let error = bearer(&Secret::from(wrong)).unwrap_err();
            assert!(matches!(error, Error::Config(_)), "{wrong:?}");
        }
    }
}
