//! One call: its deadline, its idempotency key, and whether it may be repeated.

use crate::{
    connect::{Address, Builder, Prover},
    error::{Error, Refusal, find},
    secret::Secret,
    transport::{Bearer, Transport, bearer},
    v1,
};
use std::{
    error::Error as _,
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status, transport::Channel};

/// Attempts of one call, the first included.
const ATTEMPTS_MAX: u32 = 4;
/// Pause before the second attempt; doubles, with jitter, up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The generated stubs of every service, over one connection.
#[derive(Clone)]
pub struct Stubs(Transport);

impl Stubs {
    /// The seal and its key slots.
    #[must_use]
    pub fn operator(&self) -> v1::operator_client::OperatorClient<Transport> {
        v1::operator_client::OperatorClient::new(self.0.clone())
    }
    /// Versioned secrets.
    #[must_use]
    pub fn kv(&self) -> v1::kv_client::KvClient<Transport> {
        v1::kv_client::KvClient::new(self.0.clone())
    }
    /// Keys that work for callers.
    #[must_use]
    pub fn transit(&self) -> v1::transit_client::TransitClient<Transport> {
        v1::transit_client::TransitClient::new(self.0.clone())
    }
    /// Engines and their roles.
    #[must_use]
    pub fn mount(&self) -> v1::mount_client::MountClient<Transport> {
        v1::mount_client::MountClient::new(self.0.clone())
    }
    /// Credentials in real systems.
    #[must_use]
    pub fn creds(&self) -> v1::creds_client::CredsClient<Transport> {
        v1::creds_client::CredsClient::new(self.0.clone())
    }
    /// Secrets and credentials in one round trip, and their changes.
    #[must_use]
    pub fn delivery(&self) -> v1::delivery_client::DeliveryClient<Transport> {
        v1::delivery_client::DeliveryClient::new(self.0.clone())
    }
    /// Leases.
    #[must_use]
    pub fn lease(&self) -> v1::lease_client::LeaseClient<Transport> {
        v1::lease_client::LeaseClient::new(self.0.clone())
    }
    /// API tokens.
    #[must_use]
    pub fn token(&self) -> v1::token_client::TokenClient<Transport> {
        v1::token_client::TokenClient::new(self.0.clone())
    }
    /// Policies.
    #[must_use]
    pub fn policy(&self) -> v1::policy_client::PolicyClient<Transport> {
        v1::policy_client::PolicyClient::new(self.0.clone())
    }
    /// Logging in.
    #[must_use]
    pub fn login(&self) -> v1::login_client::LoginClient<Transport> {
        v1::login_client::LoginClient::new(self.0.clone())
    }
    /// Whom log-ins believe.
    #[must_use]
    pub fn trust(&self) -> v1::trust_client::TrustClient<Transport> {
        v1::trust_client::TrustClient::new(self.0.clone())
    }
    /// Named identities and their groups.
    #[must_use]
    pub fn identity(&self) -> v1::identity_client::IdentityClient<Transport> {
        v1::identity_client::IdentityClient::new(self.0.clone())
    }
    /// The audit log.
    #[must_use]
    pub fn audit(&self) -> v1::audit_client::AuditClient<Transport> {
        v1::audit_client::AuditClient::new(self.0.clone())
    }
}

/// A request that changes something and therefore carries an idempotency key.
pub trait Change: Clone {
    /// Sets the key; [`Client::change`] does it.
    fn set_idempotency_key(&mut self, key: String);
}

macro_rules! changes {
    ($($message:ident),* $(,)?) => {$(
        impl Change for v1::$message {
            fn set_idempotency_key(&mut self, key: String) {
                self.idempotency_key = key;
            }
        }
    )*};
}

changes!(
    CredsIssueRequest,
    CredsRotateRequest,
    ConfirmTimeRequest,
    TransitCreateKeyRequest,
    TransitRotateKeyRequest,
    TransitConfigureKeyRequest,
    TransitTrimKeyRequest,
    TransitDeleteKeyRequest,
    FetchRequest,
    IdentityPutRequest,
    KvDeleteRequest,
    KvDestroyRequest,
    KvPutRequest,
    KvSetMetadataRequest,
    KvUndeleteRequest,
    LeaseRenewRequest,
    LeaseRevokeRequest,
    MountConfigureRequest,
    MountDisableRequest,
    MountEnableRequest,
    MountRotateRootRequest,
    MountReconcileRequest,
    PolicyDeleteRequest,
    PolicyPutRequest,
    PresentRequest,
    RoleDeleteRequest,
    RolePutRequest,
    RotateRequest,
    SealRequest,
    TokenCreateRequest,
    TokenRenewRequest,
    TokenRevokeRequest,
    TrustDeleteRequest,
    TrustEndRequest,
    TrustMakeSecretRequest,
    TrustPutRequest,
);

/// A connection to one Strongroom. Cheap to clone; clones share the connection and the token.
#[derive(Clone)]
pub struct Client {
    stubs: Stubs,
    token: Bearer,
    has_proof_key: bool,
    address: Arc<Address>,
    timeout: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// What may be done when no answer comes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// Reads: as often as the limits allow.
    Read,
    /// Changes with an idempotency key: the same.
    Keyed,
    /// Changes without one: never.
    Never,
}

impl Client {
    /// Where to start.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn new(
        channel: Channel,
        address: Address,
        token: Option<http::HeaderValue>,
        prover: Option<Prover>,
        timeout: Duration,
    ) -> Self {
        let token: Bearer = Arc::new(RwLock::new(token));
        let has_proof_key = prover.is_some();
        let stubs = Stubs(Transport::new(channel, Arc::clone(&token), prover));
        Self {
            stubs,
            token,
            has_proof_key,
            address: Arc::new(address),
            timeout,
        }
    }

    /// Whether its calls carry proofs of a key.
    pub(crate) const fn has_proof_key(&self) -> bool {
        self.has_proof_key
    }

    /// Sends another token from now on, in every clone of this client and in its kept leases.
    /// # Errors
    /// [`Error::Config`] if it cannot be a token.
    pub fn set_token(&self, token: impl Into<Secret>) -> Result<(), Error> {
        let value = bearer(&token.into())?;
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = Some(value);
        Ok(())
    }

    /// The same client with another deadline for each call.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self {
            timeout,
            ..self.clone()
        }
    }

    /// The address this client talks to.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The generated stubs: no deadline, no retry, plain `Status`. For streams.
    #[must_use]
    pub fn stubs(&self) -> Stubs {
        self.stubs.clone()
    }

    /// Turns a stub's `Status` into an [`Error`].
    #[must_use]
    pub fn error(&self, status: &Status) -> Error {
        Error::from_status(status, &self.address.to_string())
    }

    /// A call that changes nothing: repeated while it is `Unavailable` and the deadline allows it.
    ///
    /// ```no_run
    /// # use strongroom_client::{Client, Error, v1};
    /// # async fn run(client: Client) -> Result<(), Error> {
    /// let status = client
    ///     .read(v1::StatusRequest {}, |stubs, request| async move { stubs.operator().status(request).await })
    ///     .await?;
    /// # let _ = status.version;
    /// # Ok(())
    /// # }
    /// ```
    /// # Errors
    /// Those of the call.
    pub async fn read<Q, R, F, A>(&self, request: Q, call: F) -> Result<R, Error>
    where
        Q: Clone,
        F: Fn(Stubs, Request<Q>) -> A,
        A: Future<Output = Result<Response<R>, Status>>,
    {
        self.attempt(request, call, Repeat::Read).await
    }

    /// A call that changes something: gets a random idempotency key, and is repeated under that key
    /// while it is `Unavailable`.
    /// # Errors
    /// Those of the call; [`Error::Indeterminate`] when it was sent and no answer came.
    pub async fn change<Q, R, F, A>(&self, mut request: Q, call: F) -> Result<R, Error>
    where
        Q: Change,
        F: Fn(Stubs, Request<Q>) -> A,
        A: Future<Output = Result<Response<R>, Status>>,
    {
        request.set_idempotency_key(random_key()?);
        self.attempt(request, call, Repeat::Keyed).await
    }

    /// A call that must be sent at most once (`Init`).
    /// # Errors
    /// Those of the call; [`Error::Indeterminate`] when it was sent and no answer came.
    pub async fn once<Q, R, F, A>(&self, request: Q, call: F) -> Result<R, Error>
    where
        Q: Clone,
        F: Fn(Stubs, Request<Q>) -> A,
        A: Future<Output = Result<Response<R>, Status>>,
    {
        self.attempt(request, call, Repeat::Never).await
    }

    async fn attempt<Q, R, F, A>(&self, message: Q, call: F, repeat: Repeat) -> Result<R, Error>
    where
        Q: Clone,
        F: Fn(Stubs, Request<Q>) -> A,
        A: Future<Output = Result<Response<R>, Status>>,
    {
        let deadline = Instant::now() + self.timeout;
        let mut pause = PAUSE_FIRST;
        let mut unanswered = false;
        let mut attempt = 1;
        loop {
            let mut request = Request::new(message.clone());
            request.set_timeout(deadline.saturating_duration_since(Instant::now()));
            let error = match tokio::time::timeout_at(deadline, call(self.stubs(), request)).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => {
                    unanswered |= may_have_acted(&status);
                    self.error(&status)
                }
                Err(_) => {
                    unanswered = true;
                    let words = format!("no answer from {} within {:?}", self.address, self.timeout);
                    Error::Unavailable(Refusal::local("DEADLINE", words))
                }
            };
            let wait = waiting(pause, &error)?;
            // The daemon has waited for the target or the HSM already: another attempt would only end at our own deadline, as nobody's answer.
            let waited = matches!(error.reason(), Some("TARGET_UNAVAILABLE" | "HSM_UNAVAILABLE"))
                && error.retry_after().is_zero();
            let over = attempt == ATTEMPTS_MAX || Instant::now() + wait >= deadline;
            let last = repeat == Repeat::Never || waited || over;
            if !error.is_retryable() || last {
                return Err(settle(error, repeat != Repeat::Read && unanswered));
            }
            tracing::debug!(attempt, %error, "trying again");
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(PAUSE_MAX);
            attempt += 1;
        }
    }
}

/// Whether the daemon may have carried out the call that ended like this. A status that the transport
/// made has a source; a failed connection sent nothing; the daemon finishes what a deadline cut off.
fn may_have_acted(status: &Status) -> bool {
    match status.source() {
        Some(source) => find::<tonic::ConnectError>(source).is_none(),
        None => matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled),
    }
}

/// A change that was sent and never answered is neither done nor not done, whatever became of its repetition that did not get to be made:
/// the daemon came back sealed meanwhile, or is reached by TLS no more, or a limit came first.
fn settle(error: Error, sent_change_unanswered: bool) -> Error {
    let doubtful = |words: &str| format!("the change was sent and may have been made: {words}");
    match error {
        Error::Unavailable(refusal) | Error::Sealed(refusal) | Error::Exhausted(refusal) if sent_change_unanswered => {
            Error::Indeterminate(Refusal {
                message: doubtful(&refusal.message),
                ..refusal
            })
        }
        Error::Tls(words) if sent_change_unanswered => Error::Indeterminate(Refusal::local("TLS", doubtful(&words))),
        other => other,
    }
}

/// 128 random bits in hex.
fn random_key() -> Result<String, Error> {
    let mut key = [0_u8; 16];
    getrandom::fill(&mut key).map_err(|e| no_random(&e))?;
    Ok(data_encoding::HEXLOWER.encode(&key))
}

/// A pause before the next attempt: as long as the daemon asked for, and some more, so that those it told the same do not come together.
pub(crate) fn waiting(pause: Duration, error: &Error) -> Result<Duration, Error> {
    let (own, asked) = (jitter(pause)?, error.retry_after());
    Ok(if asked.is_zero() {
        own
    } else {
        (asked + own / 4).max(own)
    })
}

/// Between a half and all of `pause`, so that many clients do not come back at the same moment.
pub(crate) fn jitter(pause: Duration) -> Result<Duration, Error> {
    let dice = getrandom::u32().map_err(|e| no_random(&e))?;
    Ok(pause.mul_f64(0.5 + 0.5 * f64::from(dice) / f64::from(u32::MAX)))
}

fn no_random(error: &getrandom::Error) -> Error {
    Error::Internal(Refusal::local(
        "NO_RANDOM",
        format!("this system gives no random numbers: {error}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R-STORE-1: a daemon that was killed in a change and answers "sealed" to its repetition says nothing about the change.
    #[test]
    fn an_unanswered_change_stays_doubtful_when_the_daemon_comes_back_sealed() {
        let sealed = || Error::Sealed(Refusal::local("SEALED", "the vault is sealed"));
        assert!(matches!(settle(sealed(), true), Error::Indeterminate(_)));
        assert!(matches!(settle(sealed(), false), Error::Sealed(_)));
        // The same when the repetition does not get through TLS any more, or a limit refuses it.
        assert!(matches!(settle(Error::Tls("no".into()), true), Error::Indeterminate(_)));
        assert!(matches!(settle(Error::Tls("no".into()), false), Error::Tls(_)));
        let limited = || Error::Exhausted(Refusal::local("RATE_LIMITED", "asked too often"));
        assert!(matches!(settle(limited(), true), Error::Indeterminate(_)));
        assert!(matches!(settle(limited(), false), Error::Exhausted(_)));
    }

    #[test]
    fn jitter_stays_between_half_and_whole() {
        for _ in 0..100 {
            let wait = jitter(PAUSE_FIRST).unwrap();
            assert!(wait >= PAUSE_FIRST / 2 && wait <= PAUSE_FIRST, "{wait:?}");
        }
    }

    /// R-POL-3: what the daemon says is waited for.
    #[test]
    fn retry_info_is_honoured() {
        let mut refusal = Refusal::local("RATE_LIMITED", "asked too often");
        assert!(
            !Error::Exhausted(refusal.clone()).is_retryable(),
            "a quota does not come back by waiting"
        );
        refusal.retry_after = Some(Duration::from_secs(3));
        let told = Error::Exhausted(refusal);
        assert!(told.is_retryable());
        let wait = waiting(PAUSE_FIRST, &told).unwrap();
        assert!(
            wait > Duration::from_secs(3) && wait < Duration::from_secs(4),
            "{wait:?}"
        );
        let own = waiting(PAUSE_FIRST, &Error::Unavailable(Refusal::local("", "away"))).unwrap();
        assert!(own <= PAUSE_FIRST);
    }

    #[test]
    fn only_a_sent_change_is_indeterminate() {
        let lost = || Error::Unavailable(Refusal::local("DEADLINE", "no answer"));
        assert!(matches!(settle(lost(), false), Error::Unavailable(_)));
        assert!(matches!(settle(lost(), true), Error::Indeterminate(_)));
        let denied = Error::Denied(Refusal::local("DENIED", "no"));
        assert_eq!(settle(denied.clone(), true), denied);
    }
}
