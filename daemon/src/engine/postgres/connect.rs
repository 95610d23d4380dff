//! Connections to the server: one way to make them, a bounded pool of them, and their errors in the engine's words.

use super::config::{Config, SslMode};
use crate::{
    base::{id::BootId, secret::SecretBytes},
    engine::{EngineError, error::cut},
};
use parking_lot::Mutex;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
};
use tokio_postgres::{
    Client, NoTls, Row,
    error::{DbError, SqlState},
    types::{FromSql, ToSql, Type},
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// A text of an error at most.
pub(super) const ERROR_BYTES_MAX: usize = 240;
/// An idle connection is kept this long.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// What the network may add to the server's own statement timeout.
const ANSWER_GRACE: Duration = Duration::from_secs(2);

/// How to connect, as whom.
pub(super) struct Door {
    config: Config,
    account: String,
    secret: SecretBytes,
    tls: Option<MakeRustlsConnect>,
    application: String,
}

/// The `application_name` of all sessions of one run of the daemon.
pub(super) fn application(boot: BootId) -> String {
    format!("strongroom/{boot}")
}

impl Door {
    pub fn new(config: Config, account: String, secret: SecretBytes, boot: BootId) -> Result<Self, EngineError> {
        let tls = tls(&config)?;
        Ok(Self {
            config,
            account,
            secret,
            tls,
            application: application(boot),
        })
    }

    /// One session, as `account`, in `dbname`.
    pub async fn open(&self, dbname: &str, account: &str, secret: &SecretBytes) -> Result<Session, EngineError> {
        let config = self.settings(dbname, account, secret);
        // Every act outside is bounded, also where the server takes the connection and then says nothing.
        let limit = self.config.connect_timeout();
        let (client, driver) = match &self.tls {
            None => {
                let (client, connection) = bounded(limit, config.connect(NoTls)).await?;
                (client, tokio::spawn(drive(connection)))
            }
            Some(tls) => {
                let (client, connection) = bounded(limit, config.connect(tls.clone())).await?;
                (client, tokio::spawn(drive(connection)))
            }
        };
        let limit = self.config.statement_timeout() + ANSWER_GRACE;
        Ok(Session {
            client,
            driver,
            limit,
            since: Instant::now(),
            system: String::new(),
        })
    }

    /// One session as the root account in the engine's own database; it knows which server it talks to.
    pub async fn open_root(&self) -> Result<Session, EngineError> {
        let mut session = self.open_root_in(self.config.dbname.as_str()).await?;
        let rows = session
            .ask("SELECT system_identifier::text FROM pg_control_system()", &[])
            .await?;
        session.system = one(&rows)?;
        Ok(session)
    }

    /// One session as the root account in `dbname`.
    pub async fn open_root_in(&self, dbname: &str) -> Result<Session, EngineError> {
        self.open(dbname, &self.account, &self.secret).await
    }

    pub fn account(&self) -> &str {
        &self.account
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn application(&self) -> &str {
        &self.application
    }

    fn settings(&self, dbname: &str, account: &str, secret: &SecretBytes) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .user(account)
            .password(secret.expose())
            .dbname(dbname)
            .port(self.config.port)
            .application_name(&self.application)
            .connect_timeout(self.config.connect_timeout())
            .tcp_user_timeout(self.config.statement_timeout() + ANSWER_GRACE)
            .keepalives_idle(Duration::from_secs(30))
            // The creator's deadline rests on this: the server itself ends what runs longer, waits for locks included.
            .options(format!("-c statement_timeout={}s -c search_path=pg_catalog -c idle_in_transaction_session_timeout=30s", self.config.statement_timeout_secs));
        if self.config.host.starts_with('/') {
            config.host_path(&self.config.host);
        } else {
            config.host(&self.config.host);
        }
        config.ssl_mode(if self.tls.is_some() {
            tokio_postgres::config::SslMode::Require
        } else {
            tokio_postgres::config::SslMode::Disable
        });
        // Under TLS the password is never sent in the clear, whatever the server asks for: SCRAM bound to the TLS session, or nothing.
        if self.tls.is_some() {
            config.channel_binding(tokio_postgres::config::ChannelBinding::Require);
        }
        config
    }
}

async fn drive<S, T>(connection: tokio_postgres::Connection<S, T>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a PostgreSQL session ended");
    }
}

/// Bounds an act on the server in time and puts its error into the engine's words.
pub(super) async fn bounded<T>(
    limit: Duration,
    act: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, EngineError> {
    match tokio::time::timeout(limit, act).await {
        Ok(done) => done.map_err(|error| sort(&error)),
        Err(_) => Err(EngineError::Unreachable(format!(
            "no answer within {} s",
            limit.as_secs()
        ))),
    }
}

/// The server's refusal, or an outage. PostgreSQL's messages name objects, never the statement's text.
fn sort(error: &tokio_postgres::Error) -> EngineError {
    let Some(refusal) = error.as_db_error() else {
        let text =
            std::error::Error::source(error).map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
        return EngineError::Unreachable(cut(text, ERROR_BYTES_MAX));
    };
    let code = refusal.code();
    let text = cut(format!("{} ({})", refusal.message(), code.code()), ERROR_BYTES_MAX);
    // Connection trouble, too many connections, shutting down or starting up, read-only after a fail-over.
    let outage = code.code().starts_with("08")
        || code.code().starts_with("57P")
        || code.code().starts_with("53")
        || *code == SqlState::READ_ONLY_SQL_TRANSACTION;
    if outage {
        EngineError::Unreachable(text)
    } else {
        EngineError::Refused(text)
    }
}

/// One session. Dropping it closes the connection, whatever it was at.
pub(super) struct Session {
    client: Client,
    driver: JoinHandle<()>,
    limit: Duration,
    since: Instant,
    /// The server's system identifier, for root sessions: made at initdb, kept by fail-over and standby, unlike an address.
    pub system: String,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Session {
    /// Runs a statement that answers nothing; `Some`: it failed with `unless`, and this is the server's detail.
    pub async fn run_unless(&self, sql: &str, unless: &SqlState) -> Result<Option<String>, EngineError> {
        let act = async {
            match self.client.batch_execute(sql).await {
                Err(error) if error.code() == Some(unless) => Ok(Some(
                    error
                        .as_db_error()
                        .and_then(DbError::detail)
                        .unwrap_or_default()
                        .to_owned(),
                )),
                done => done.map(|()| None),
            }
        };
        bounded(self.limit, act).await
    }

    /// Runs a statement that answers nothing.
    pub async fn run(&self, sql: &str) -> Result<(), EngineError> {
        bounded(self.limit, self.client.batch_execute(sql)).await
    }

    /// Asks with typed parameters, in one round trip.
    pub async fn ask(&self, sql: &str, params: &[(&(dyn ToSql + Sync), Type)]) -> Result<Vec<Row>, EngineError> {
        bounded(self.limit, self.client.query_typed(sql, params)).await
    }

    /// Asks a yes-or-no question about a name.
    pub async fn ask_bool(&self, sql: &str, name: &str) -> Result<bool, EngineError> {
        one(&self.ask(sql, &[(&name, Type::TEXT)]).await?)
    }
}

/// A column of a row.
pub(super) fn column<T: for<'a> FromSql<'a>>(row: &Row, index: usize) -> Result<T, EngineError> {
    row.try_get(index)
        .map_err(|error| EngineError::Refused(cut(error.to_string(), ERROR_BYTES_MAX)))
}

/// The first column of the first row, if there is one.
pub(super) fn first<T: for<'a> FromSql<'a>>(rows: &[Row]) -> Result<Option<T>, EngineError> {
    rows.first().map(|row| column(row, 0)).transpose()
}

/// The first column of the only row.
pub(super) fn one<T: for<'a> FromSql<'a>>(rows: &[Row]) -> Result<T, EngineError> {
    first(rows)?.ok_or_else(|| EngineError::Refused("an answer without a row".to_owned()))
}

/// Whether `account` can log in with `secret`; any refusal of the log-in itself is a no.
pub(super) async fn bounded_login(door: &Door, account: &str, secret: &SecretBytes) -> Result<bool, EngineError> {
    match door.open(door.config.dbname.as_str(), account, secret).await {
        Ok(session) => session.run("SELECT 1").await.map(|()| true),
        Err(EngineError::Refused(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A mount's connections as its root account: at most `connections`, reused.
pub(super) struct Pool {
    pub door: Arc<Door>,
    slots: Arc<Semaphore>,
    size: u32,
    idle: Arc<Mutex<Vec<Session>>>,
}

/// A session of the pool. It goes back only by [`Lent::give_back`]: one that was left in the middle of something is closed.
pub(super) struct Lent {
    session: Session,
    idle: Arc<Mutex<Vec<Session>>>,
    _slot: OwnedSemaphorePermit,
}

impl std::ops::Deref for Lent {
    type Target = Session;
    fn deref(&self) -> &Session {
        &self.session
    }
}

impl Lent {
    pub fn give_back(self) {
        let Self { session, idle, _slot } = self;
        idle.lock().push(session);
    }
}

impl Pool {
    pub fn new(door: Door) -> Self {
        let size = u32::try_from(door.config.connections).unwrap_or(1);
        Self {
            slots: Arc::new(Semaphore::new(door.config.connections)),
            size,
            idle: Arc::default(),
            door: Arc::new(door),
        }
    }

    /// A session: the one used last, or a new one. All in all it takes no longer than [`Pool::patience`].
    pub async fn take(&self) -> Result<Lent, EngineError> {
        let busy = |_| EngineError::Unreachable("no connection became free or answered in time".to_owned());
        tokio::time::timeout(self.patience(), self.take_any())
            .await
            .map_err(busy)?
    }

    /// Longest wait for a session.
    pub fn patience(&self) -> Duration {
        self.door.config.connect_timeout() + self.door.config.statement_timeout()
    }

    async fn take_any(&self) -> Result<Lent, EngineError> {
        let slot = Arc::clone(&self.slots)
            .acquire_owned()
            .await
            .map_err(|_| EngineError::Draining)?;
        let session = match self.reusable() {
            Some(session) => session,
            None => self.door.open_root().await?,
        };
        Ok(Lent {
            session,
            idle: Arc::clone(&self.idle),
            _slot: slot,
        })
    }

    fn reusable(&self) -> Option<Session> {
        let mut idle = self.idle.lock();
        idle.retain(|session| !session.client.is_closed());
        let mut session = idle.pop()?;
        // The pool shrinks from its old end once it is idle.
        idle.retain(|session| session.since.elapsed() < IDLE_MAX);
        session.since = Instant::now();
        Some(session)
    }

    /// Refuses new takers and waits for those that have a session, bounded by `limit`.
    pub async fn drain(&self, limit: Duration) {
        let all = tokio::time::timeout(limit, self.slots.acquire_many(self.size)).await;
        self.slots.close();
        drop(all);
        self.idle.lock().clear();
    }
}

fn tls(config: &Config) -> Result<Option<MakeRustlsConnect>, EngineError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| EngineError::Config(format!("configuration: TLS: {error}")))?;
    let client = match config.sslmode {
        SslMode::Disable => return Ok(None),
        SslMode::Require => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
            .with_no_client_auth(),
        SslMode::VerifyFull => {
            let mut roots = RootCertStore::empty();
            for certificate in config.cas()? {
                roots
                    .add(certificate)
                    .map_err(|error| EngineError::Config(format!("configuration: ca_pem: {error}")))?;
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
    };
    Ok(Some(MakeRustlsConnect::new(client)))
}

/// `sslmode=require` as libpq means it: encrypted, whoever answers. SCRAM with channel binding still proves that whoever
/// ends the TLS session knows the verifier.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
