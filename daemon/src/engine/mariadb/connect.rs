//! Connections to the server, which of them are ours, and their errors in the engine's words.

use super::config::Config;
use crate::{
    base::secret::SecretBytes,
    engine::{
        EngineError,
        error::cut,
        ours::{Entered, Ours},
        pool,
        server::SslMode,
    },
};
use mysql_async::{
    Conn, OptsBuilder, Params, Row, SslOpts,
    prelude::{FromValue, Queryable},
};
use std::{future::Future, sync::Arc, time::Duration};

/// A text of an error at most.
pub(super) const ERROR_BYTES_MAX: usize = 240;
/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// What the network may add to the server's own statement timeout.
const ANSWER_GRACE: Duration = Duration::from_secs(2);

/// How to connect, as whom.
pub(super) struct Door {
    config: Config,
    account: String,
    secret: SecretBytes,
    pub ours: Arc<Ours>,
}

impl Door {
    pub fn new(config: Config, account: String, secret: SecretBytes) -> Self {
        let ours = Ours::of(format!("mariadb {:?}", (&config.host, config.port, &account)));
        Self {
            config,
            account,
            secret,
            ours,
        }
    }

    pub fn account(&self) -> &str {
        &self.account
    }

    pub fn secret(&self) -> &SecretBytes {
        &self.secret
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// One session as `account`. Bounded, also where the server takes the connection and then says nothing.
    pub async fn open(&self, account: &str, secret: &SecretBytes) -> Result<Session, EngineError> {
        let opts = self.settings(account, secret)?;
        let _entering = self.ours.entering.read().await;
        let conn = bounded(self.config.connect_timeout(), Conn::new(opts)).await?;
        Ok(Session::new(conn, self.config.statement_timeout() + ANSWER_GRACE, None))
    }

    fn settings(&self, account: &str, secret: &SecretBytes) -> Result<OptsBuilder, EngineError> {
        let password =
            std::str::from_utf8(secret.expose()).map_err(|_| EngineError::Config("password: not UTF-8".to_owned()))?;
        let opts = OptsBuilder::default()
            .user(Some(account))
            .pass(Some(password))
            // Never the socket that the server names: it is asked for here, or not used.
            .prefer_socket(false)
            // Neither is asked of the server at log-in then; the first bounds what is read.
            .max_allowed_packet(Some(ANSWER_BYTES_MAX))
            .wait_timeout(Some(28_800))
            .tcp_keepalive(Some(Duration::from_secs(30)))
            .ssl_opts(self.tls());
        Ok(if self.config.host.starts_with('/') {
            opts.socket(Some(self.config.host.as_str()))
        } else {
            opts.ip_or_hostname(self.config.host.as_str())
                .tcp_port(self.config.port)
        })
    }

    fn tls(&self) -> Option<SslOpts> {
        match self.config.sslmode {
            SslMode::Disable => None,
            SslMode::Require => Some(SslOpts::default().with_danger_accept_invalid_certs(true)),
            SslMode::VerifyFull => {
                let ca = self.config.ca_pem.clone().unwrap_or_default().into_bytes();
                Some(
                    SslOpts::default()
                        .with_disable_built_in_roots(true)
                        .with_root_certs(vec![ca.into()]),
                )
            }
        }
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
    async fn open_root(&self) -> Result<Session, EngineError> {
        let opts = self.settings(&self.account, &self.secret)?;
        let limit = self.config.statement_timeout() + ANSWER_GRACE;
        let secs = self.config.statement_timeout_secs;
        let mut session = {
            let _entering = self.ours.entering.read().await;
            let conn = bounded(self.config.connect_timeout(), Conn::new(opts)).await?;
            Session::new(conn, limit, Some(&self.ours))
        };
        // The creator's deadline rests on this: the server itself ends what runs longer, waits for locks included.
        session
            .run(&format!(
                "SET SESSION max_statement_time = {secs}, lock_wait_timeout = {secs}, innodb_lock_wait_timeout = {secs}, sql_mode = ''"
            ))
            .await?;
        Ok(session)
    }
    fn is_closed(session: &Session) -> bool {
        session.broken
    }
}

pub(super) type Pool = pool::Pool<Door>;
pub(super) type Lent = pool::Lent<Session>;

/// Bounds an act on the server in time and puts its error into the engine's words.
async fn bounded<T>(
    limit: Duration,
    act: impl Future<Output = Result<T, mysql_async::Error>>,
) -> Result<T, EngineError> {
    match tokio::time::timeout(limit, act).await {
        Ok(done) => done.map_err(|error| sort(&error)),
        Err(_) => Err(EngineError::Unreachable(format!(
            "no answer within {} s",
            limit.as_secs()
        ))),
    }
}

/// `CREATE`, `ALTER` or `DROP USER` failed: the account is there, or is not.
pub(super) const CANNOT_USER: u16 = 1396;
/// `KILL` of a connection that has gone.
pub(super) const NO_SUCH_THREAD: u16 = 1094;
/// Too many connections, starting or stopping, out of resources, blocked host, killed, read-only after a fail-over.
const OUTAGES: &[u16] = &[
    1040, 1041, 1053, 1077, 1079, 1129, 1158, 1159, 1160, 1161, 1203, 1290, 1836, 1927, 1970,
];

/// The server's refusal, or an outage. MariaDB's messages name objects; a syntax error quotes the statement, which holds
/// verifiers at most.
fn sort(error: &mysql_async::Error) -> EngineError {
    match error {
        mysql_async::Error::Server(refusal) => {
            let text = cut(format!("{} ({})", refusal.message, refusal.code), ERROR_BYTES_MAX);
            if OUTAGES.contains(&refusal.code) {
                EngineError::Unreachable(text)
            } else {
                EngineError::Refused(text)
            }
        }
        other => EngineError::Unreachable(cut(other.to_string(), ERROR_BYTES_MAX)),
    }
}

/// One session. Dropping it closes the connection, whatever it was at.
pub(super) struct Session {
    conn: Conn,
    limit: Duration,
    broken: bool,
    _entered: Option<Entered>,
}

impl Session {
    fn new(conn: Conn, limit: Duration, ours: Option<&Arc<Ours>>) -> Self {
        Self {
            _entered: ours.map(|ours| ours.enter(u64::from(conn.id()))),
            conn,
            limit,
            broken: false,
        }
    }

    /// Runs a statement that answers nothing.
    pub async fn run(&mut self, sql: &str) -> Result<(), EngineError> {
        self.run_unless(sql, 0).await.map(drop)
    }

    /// Runs a statement that answers nothing; `false`: it failed with the code `unless`.
    pub async fn run_unless(&mut self, sql: &str, unless: u16) -> Result<bool, EngineError> {
        let act = async {
            match self.conn.query_drop(sql).await {
                Err(mysql_async::Error::Server(refusal)) if refusal.code == unless => Ok(false),
                done => done.map(|()| true),
            }
        };
        let done = bounded(self.limit, act).await;
        self.noted(done)
    }

    /// Asks with parameters.
    pub async fn ask(&mut self, sql: &str, params: impl Into<Params> + Send) -> Result<Vec<Row>, EngineError> {
        let act = self.conn.exec::<Row, _, _>(sql, params.into());
        let done = bounded(self.limit, act).await;
        self.noted(done)
    }

    /// Whether a question about a name has an answer.
    pub async fn any(&mut self, sql: &str, name: &str) -> Result<bool, EngineError> {
        Ok(!self.ask(sql, (name,)).await?.is_empty())
    }

    fn noted<T>(&mut self, done: Result<T, EngineError>) -> Result<T, EngineError> {
        self.broken |= matches!(done, Err(EngineError::Unreachable(_)));
        done
    }
}

/// A column of a row; what the server sends there may be anything.
pub(super) fn column<T: FromValue>(row: &Row, index: usize) -> Result<T, EngineError> {
    match row.get_opt(index) {
        Some(Ok(value)) => Ok(value),
        _ => Err(EngineError::Refused(
            "an answer without the column asked for".to_owned(),
        )),
    }
}

/// Whether `account` can log in with `secret`; any refusal of the log-in itself is a no.
pub(super) async fn login(door: &Door, account: &str, secret: &SecretBytes) -> Result<bool, EngineError> {
    match door.open(account, secret).await {
        Ok(mut session) => session.run("DO 1").await.map(|()| true),
        Err(EngineError::Refused(_)) => Ok(false),
        Err(error) => Err(error),
    }
}
