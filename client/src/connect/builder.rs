//! [`Builder`]: address, trust, token, deadline.

use super::{Address, First, ProofKey, Prover, channel, tls};
use crate::{
    cache::{Asked, Cache},
    call::Client,
    error::Error,
    held::Secrets,
    login::{LogIn, TokenSource},
    secret::Secret,
    transport::bearer,
    want::Want,
};
use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

/// Longest time one call may take, retries included, unless [`Builder::timeout`] says otherwise.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Largest token file read; a token has 56 characters, a sealed one up to about 4,200.
const TOKEN_FILE_BYTES_MAX: u64 = 8192;

/// Makes a [`Client`]. Nothing is read or connected before [`connect`](Builder::connect).
#[derive(Debug, Default)]
pub struct Builder {
    address: Option<String>,
    trust: tls::Trust,
    identity: Option<(PathBuf, PathBuf)>,
    proof_key: Option<PathBuf>,
    token: Option<Secret>,
    token_file: Option<PathBuf>,
    timeout: Option<Duration>,
    cache: Option<Cache>,
    log_in: Option<LogIn>,
}

impl Builder {
    /// `https://host:8470` or `unix:/run/strongroom/strongroom.sock` (the default).
    #[must_use]
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// The CA certificates (PEM) to believe instead of the system's.
    #[must_use]
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.trust = tls::Trust::Pem(pem.into());
        self
    }

    /// A PEM file of CA certificates to believe instead of the system's.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.trust = tls::Trust::File(path.into());
        self
    }

    /// PEM files of a certificate (chain, leaf first) and its key, shown to the daemon over TLS: to log in by it, and for tokens that are
    /// bound to it. Read at `connect`.
    #[must_use]
    pub fn client_certificate(mut self, chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((chain.into(), key.into()));
        self
    }

    /// PEM file (PKCS#8) of the P-256 key that the token is bound to: each call carries a DPoP proof of it (RFC 9449). Over TLS only, and to the
    /// address that the daemon knows as its `listener.origin`. Read at `connect`. [`ProofKey::generate`](crate::ProofKey::generate) makes one.
    #[must_use]
    pub fn proof_key(mut self, file: impl Into<PathBuf>) -> Self {
        self.proof_key = Some(file.into());
        self
    }

    /// The API token (`srm_at_...`), sent with every call.
    #[must_use]
    pub fn token(mut self, token: impl Into<Secret>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// A file whose only line is the token. Read once, at `connect`.
    #[must_use]
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.token_file = Some(path.into());
        self
    }

    /// Longest time one call may take, retries included. Default 15 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Logs in by this when there is no token, and [`secrets`](Self::secrets) again before each token ends.
    #[must_use]
    pub fn log_in(mut self, by: LogIn) -> Self {
        self.log_in = Some(by);
        self
    }

    /// Keeps the last known values of [`secrets`](Self::secrets) on disk, encrypted, so that the application starts while the daemon is away or
    /// sealed. Leased accounts are not kept: who asks for one waits for the daemon. Other calls do not use it.
    #[must_use]
    pub fn cache(mut self, cache: Cache) -> Self {
        self.cache = Some(cache);
        self
    }

    /// Connects, fetches these secrets and credentials, and holds them fresh from then on: see [`Secrets`]. The token is renewed too, and
    /// read again from its file when it has ended.
    /// # Errors
    /// As [`connect`](Self::connect) and [`Client::fetch`].
    pub async fn secrets<W: Into<Want>>(self, wants: impl IntoIterator<Item = W>) -> Result<Secrets, Error> {
        self.hold(Asked {
            wants: wants.into_iter().map(Into::into).collect(),
            bundle: String::new(),
        })
        .await
    }

    /// The same for what a bundle lists ([`Client::fetch_bundle`]), to be had by the names of the bundle, or by their paths. What is listed later is
    /// held from the next start on.
    /// # Errors
    /// As [`secrets`](Self::secrets) and [`Client::fetch_bundle`].
    pub async fn bundle(self, path: impl Into<String>) -> Result<Secrets, Error> {
        self.hold(Asked {
            wants: Vec::new(),
            bundle: path.into(),
        })
        .await
    }

    async fn hold(self, asked: Asked) -> Result<Secrets, Error> {
        Asked::once(asked.wants.iter().map(|want| want.path.as_str()))?;
        let bundle = Some(asked.bundle.as_str()).filter(|bundle| !bundle.is_empty());
        let fetched = match self.start().await {
            Ok((client, source)) => client
                .fetch_all(&asked.wants, bundle)
                .await
                .map(|fetched| (client, source, fetched)),
            Err(error) => Err(error),
        };
        let (error, cache) = match (fetched, &self.cache) {
            (Ok((client, source, fetched)), _) => {
                if let Err(error) = Asked::once(fetched.iter().map(|(want, _)| want.path.as_str())) {
                    for lease in fetched.iter().filter_map(|(_, one)| one.lease_id()) {
                        // One that cannot be revoked now ends at its expiry.
                        let _ = client.revoke(lease).await;
                    }
                    return Err(error);
                }
                let source = (source, self.cache.clone());
                return Ok(Secrets::hold(client, source, asked.bundle, fetched, None));
            }
            (Err(error), None) => return Err(error),
            (Err(error), Some(cache)) => (error, cache),
        };
        match error {
            Error::Unavailable(_) | Error::Sealed(_) => {}
            Error::Denied(_) | Error::Unauthenticated(_) | Error::NotFound(_) => {
                cache.forget();
                return Err(error);
            }
            _ => return Err(error),
        }
        match cache.load(SystemTime::now(), &asked) {
            Ok((when, known)) => {
                tracing::warn!(%error, "the daemon does not answer: the values that were last known are used");
                let client = self.make(First::WithACall).await?;
                let source = (self.token_source(), self.cache.clone());
                Ok(Secrets::hold(client, source, asked.bundle, known, Some((error, when))))
            }
            Err(why) => {
                tracing::warn!(why, "there is no cache to start from");
                Err(error)
            }
        }
    }

    /// Connects now; later the connection renews itself when it breaks. Must run inside a Tokio runtime.
    /// # Errors
    /// [`Error::Config`] for a wrong address, CA or token; [`Error::Tls`] when the server is not trusted;
    /// [`Error::Unavailable`] when it cannot be reached within 5 s.
    pub async fn connect(self) -> Result<Client, Error> {
        Ok(self.start().await?.0)
    }

    fn token_source(&self) -> TokenSource {
        match (&self.token, &self.token_file, &self.log_in) {
            (Some(_), _, _) | (None, None, None) => TokenSource::Given,
            (None, Some(file), _) => TokenSource::File(file.clone()),
            (None, None, Some(by)) => TokenSource::LogIn(by.clone(), Duration::ZERO),
        }
    }

    async fn start(&self) -> Result<(Client, TokenSource), Error> {
        let client = self.make(First::Now).await?;
        let source = match self.token_source() {
            TokenSource::LogIn(by, _) => {
                let life = client.log_in(&by).await?;
                TokenSource::LogIn(by, life)
            }
            other => other,
        };
        Ok((client, source))
    }

    async fn make(&self, first: First) -> Result<Client, Error> {
        let address: Address = match &self.address {
            Some(text) => text.parse()?,
            None => Address::Unix(super::DEFAULT_SOCKET.into()),
        };
        let tls = match address {
            Address::Tls { .. } => Some(tls::config(&self.trust, self.identity.as_ref())?),
            Address::Unix(_) => None,
        };
        let bearer = match (&self.token, &self.token_file) {
            (Some(token), _) => Some(bearer(token)?),
            (None, Some(path)) => Some(bearer(&read_token(path).await?)?),
            (None, None) => None,
        };
        let prover = match (&self.proof_key, &address) {
            (None, _) => None,
            (Some(path), Address::Tls { .. }) => Some(Prover::new(ProofKey::read(path)?, address.origin())),
            (Some(_), Address::Unix(_)) => {
                return Err(Error::Config(
                    "a proof key is of use over TLS only: give an https:// address".to_owned(),
                ));
            }
        };
        let agent = concat!("strongroom-client/", env!("CARGO_PKG_VERSION"));
        let channel = channel(&address, tls, agent, first)
            .await
            .map_err(|e| Error::from_transport(&e, &address.to_string()))?;
        Ok(Client::new(
            channel,
            address,
            bearer,
            prover,
            self.timeout.unwrap_or(TIMEOUT),
        ))
    }
}

/// The token that a file holds.
pub(crate) async fn read_token(path: &std::path::Path) -> Result<Secret, Error> {
    let fault = |e: std::io::Error| Error::Config(format!("token file {}: {e}", path.display()));
    if tokio::fs::metadata(path).await.map_err(fault)?.len() > TOKEN_FILE_BYTES_MAX {
        return Err(Error::Config(format!(
            "token file {}: too large to be a token",
            path.display()
        )));
    }
    let text = Secret::new(tokio::fs::read(path).await.map_err(fault)?);
    Ok(Secret::from(text.expose().trim_ascii()))
}
