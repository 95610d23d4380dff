//! Connections to the server: one way to make them, and their errors in the engine's words.

use super::config::Config;
use crate::{
    base::{id::BootId, secret::SecretBytes},
    engine::{EngineError, error::cut, pool, server},
};
use std::{
    future::Future,
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;
use tokio_postgres::{
    Client, NoTls, Row,
    error::{DbError, SqlState},
    types::{FromSql, ToSql, Type},
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// A text of an error at most.
pub(super) const ERROR_BYTES_MAX: usize = 240;
/// A statement that met another one at the same role ("tuple concurrently updated") is said again after this pause, for so long. Less than the margin
/// of the creator's deadline: whatever starts later might come into being after it was believed never to have been.
const CONCURRENT_PAUSE: Duration = Duration::from_millis(20);
const CONCURRENT_MAX: Duration = Duration::from_secs(1);
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
        // SCRAM with channel binding proves that whoever ends the TLS session knows the verifier, also where nobody's
        // certificate is checked.
        let tls = server::tls(config.sslmode, config.ca_pem.as_deref())?.map(MakeRustlsConnect::new);
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
            system: String::new(),
        })
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

impl pool::Door for Door {
    type Session = Session;
    fn connections(&self) -> usize {
        self.config.connections
    }
    fn patience(&self) -> Duration {
        self.config.connect_timeout() + self.config.statement_timeout()
    }
    /// In the engine's own database; the session knows which server it talks to.
    async fn open_root(&self) -> Result<Session, EngineError> {
        let mut session = self.open_root_in(self.config.dbname.as_str()).await?;
        let rows = session
            .ask("SELECT system_identifier::text FROM pg_control_system()", &[])
            .await?;
        session.system = one(&rows)?;
        Ok(session)
    }
    fn is_closed(session: &Session) -> bool {
        session.client.is_closed()
    }
}

pub(super) type Pool = pool::Pool<Door>;
pub(super) type Lent = pool::Lent<Session>;

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
            match self.execute(sql).await {
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
        bounded(self.limit, self.execute(sql)).await
    }

    /// Two statements that touch one role at once: PostgreSQL refuses the later one as a whole, so it is simply said again.
    async fn execute(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        let began = Instant::now();
        let met = |error: &tokio_postgres::Error| {
            let refusal = error.as_db_error();
            refusal.is_some_and(|refusal| refusal.message().contains("tuple concurrently"))
        };
        loop {
            match self.client.batch_execute(sql).await {
                Err(error) if met(&error) && began.elapsed() + CONCURRENT_PAUSE < CONCURRENT_MAX => {
                    tokio::time::sleep(CONCURRENT_PAUSE).await;
                }
                done => return done,
            }
        }
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
