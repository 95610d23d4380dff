//! Logging in as an application does: by what its platform gives it, and again whenever the token comes to its end.

use crate::{
    call::Client,
    connect::read_token,
    error::Error,
    secret::Secret,
    v1::{self, LoginBinding, login_request::Proof},
};
use std::{path::PathBuf, time::Duration};

/// By what an application logs in. All of it can be repeated; a secret id, which is good once, is for `strongroom login role` and a token file.
#[derive(Debug, Clone)]
pub struct LogIn {
    proof: Shown,
    trust: String,
}

#[derive(Debug, Clone)]
enum Shown {
    JwtFile(PathBuf),
    Certificate,
    Peer,
}

impl LogIn {
    /// A JWT that its platform keeps fresh in a file, such as a Kubernetes service-account token; read for each log-in. A JWT with a `jti` logs in
    /// once. The daemon finds the trust by the JWT's issuer.
    #[must_use]
    pub fn jwt_file(file: impl Into<PathBuf>) -> Self {
        Self {
            proof: Shown::JwtFile(file.into()),
            trust: String::new(),
        }
    }

    /// By this trust, and the certificate of [`Builder::client_certificate`](crate::Builder::client_certificate); the token is bound to it.
    #[must_use]
    pub fn certificate(trust: impl Into<String>) -> Self {
        Self {
            proof: Shown::Certificate,
            trust: trust.into(),
        }
    }

    /// By this trust, and the user whose process this is, over the Unix socket.
    #[must_use]
    pub fn peer(trust: impl Into<String>) -> Self {
        Self {
            proof: Shown::Peer,
            trust: trust.into(),
        }
    }

    async fn request(&self, has_key: bool) -> Result<v1::LoginRequest, Error> {
        let (proof, binding) = match &self.proof {
            Shown::JwtFile(file) => {
                let jwt = read_token(file).await?;
                (Proof::Jwt(jwt.expose_str()?.to_owned()), LoginBinding::None)
            }
            Shown::Certificate => (Proof::Certificate(v1::LoginCertificate {}), LoginBinding::Certificate),
            Shown::Peer => (Proof::Peer(v1::LoginPeer {}), LoginBinding::None),
        };
        let binding = if has_key { LoginBinding::Dpop } else { binding };
        Ok(v1::LoginRequest {
            trust: self.trust.clone(),
            proof: Some(proof),
            binding: binding.into(),
        })
    }
}

/// Where a client's token comes from, and comes from again when it has ended.
#[derive(Debug, Clone)]
pub(crate) enum TokenSource {
    /// It was given: there is no other.
    Given,
    File(PathBuf),
    /// And how long the token of the first log-in lives; zero: there was none yet.
    LogIn(LogIn, Duration),
}

impl TokenSource {
    pub const fn life(&self) -> Duration {
        match self {
            Self::LogIn(_, life) => *life,
            Self::Given | Self::File(_) => Duration::ZERO,
        }
    }
}

impl Client {
    /// Logs in, and uses the token from now on, in every clone; how long it lives. With a [`Builder::proof_key`](crate::Builder::proof_key) it is
    /// bound to that. Never repeated by itself: a proof may be good once only.
    /// # Errors
    /// [`Error::Unauthenticated`] when the proof is not believed; `Config` when its file cannot be read.
    pub async fn log_in(&self, by: &LogIn) -> Result<Duration, Error> {
        let request = by.request(self.has_proof_key()).await?;
        let done = self
            .once(request, |s, r| async move { s.login().login(r).await })
            .await?;
        self.set_token(Secret::from(done.token))?;
        Ok(Duration::from_secs(done.ttl_secs))
    }
}
