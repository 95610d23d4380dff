//! Connections to the server, and their errors in the engine's words.

use super::config::Config;
use crate::{
    base::secret::SecretBytes,
    engine::{
        EngineError,
        error::cut,
        ours::{Entered, Ours},
        pool, server,
    },
};
use redis::{
    AsyncConnectionConfig, ErrorKind, RedisConnectionInfo, RedisError, RedisResult, ServerErrorKind, Value,
    aio::MultiplexedConnection,
};
use rustls::pki_types::ServerName;
use std::{future::Future, sync::Arc, time::Duration};
use tokio::{
    net::{TcpStream, UnixStream},
    task::JoinHandle,
};
use tokio_rustls::TlsConnector;

/// A text of an error at most.
const ERROR_BYTES_MAX: usize = 240;

/// How to connect, as whom.
pub(super) struct Door {
    config: Config,
    account: String,
    secret: SecretBytes,
    tls: Option<TlsConnector>,
    pub ours: Arc<Ours>,
}

impl Door {
    pub fn new(config: Config, account: String, secret: SecretBytes) -> Result<Self, EngineError> {
        let tls = server::tls(config.sslmode, config.ca_pem.as_deref())?;
        let ours = Ours::of(format!("redis {:?}", (&config.host, config.port, &account)));
        Ok(Self {
            tls: tls.map(|tls| TlsConnector::from(Arc::new(tls))),
            config,
            account,
            secret,
            ours,
        })
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
        let limit = self.config.connect_timeout();
        match tokio::time::timeout(limit, self.connect(account, secret)).await {
            Ok(opened) => opened,
            Err(_) => Err(late(limit)),
        }
    }

    async fn connect(&self, account: &str, secret: &SecretBytes) -> Result<Session, EngineError> {
        let password =
            std::str::from_utf8(secret.expose()).map_err(|_| EngineError::Config("password: not UTF-8".to_owned()))?;
        let info = RedisConnectionInfo::default()
            .set_username(account)
            .set_password(password)
            .set_skip_set_lib_name();
        let unreachable = |error: std::io::Error| EngineError::Unreachable(cut(error.to_string(), ERROR_BYTES_MAX));
        let limit = self.config.statement_timeout();
        let host = self.config.host.as_str();
        if host.starts_with('/') {
            let stream = UnixStream::connect(host).await.map_err(unreachable)?;
            return Session::over(&info, stream, limit).await;
        }
        let stream = TcpStream::connect((host, self.config.port))
            .await
            .map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        match &self.tls {
            None => Session::over(&info, stream, limit).await,
            Some(tls) => {
                let name = ServerName::try_from(host.to_owned())
                    .map_err(|_| EngineError::Config("configuration: host: not a name for TLS".to_owned()))?;
                let stream = tls.connect(name, stream).await.map_err(unreachable)?;
                Session::over(&info, stream, limit).await
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
        let _entering = self.ours.entering.read().await;
        let mut session = self.open(&self.account, &self.secret).await?;
        let id = session.number(&["CLIENT", "ID"]).await?;
        session.entered = Some(self.ours.enter(id));
        Ok(session)
    }
    fn is_closed(session: &Session) -> bool {
        session.broken || session.driver.is_finished()
    }
}

pub(super) type Pool = pool::Pool<Door>;
pub(super) type Lent = pool::Lent<Session>;

fn late(limit: Duration) -> EngineError {
    EngineError::Unreachable(format!("no answer within {} s", limit.as_secs()))
}

/// The server's refusal, or an outage. Redis's messages never repeat a password.
fn sort(error: &RedisError) -> EngineError {
    let refused = match error.kind() {
        ErrorKind::AuthenticationFailed => true,
        ErrorKind::Server(kind) => !matches!(
            kind,
            ServerErrorKind::BusyLoading
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::TryAgain
        ),
        ErrorKind::Extension => true,
        _ => false,
    };
    let text = cut(error.to_string(), ERROR_BYTES_MAX);
    if refused {
        EngineError::Refused(text)
    } else {
        EngineError::Unreachable(text)
    }
}

/// One session. Dropping it closes the connection, whatever it was at.
pub(super) struct Session {
    connection: MultiplexedConnection,
    driver: JoinHandle<()>,
    limit: Duration,
    broken: bool,
    entered: Option<Entered>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Session {
    /// Logs in over `stream`.
    async fn over<S>(info: &RedisConnectionInfo, stream: S, limit: Duration) -> Result<Self, EngineError>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        // The time limits are ours.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let opened = MultiplexedConnection::new_with_config(info, stream, config).await;
        let (connection, driver) = opened.map_err(|error| sort(&error))?;
        Ok(Self {
            connection,
            driver: tokio::spawn(driver),
            limit,
            broken: false,
            entered: None,
        })
    }

    /// Says a command and takes whatever the server answers.
    pub async fn say<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Result<Value, EngineError> {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word.as_ref());
        }
        let done = bounded(self.limit, self.connection.send_packed_command(&command)).await;
        self.broken |= matches!(done, Err(EngineError::Unreachable(_)));
        done
    }

    /// Says a command that answers a number.
    pub async fn number<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Result<u64, EngineError> {
        match self.say(words).await? {
            Value::Int(number) => Ok(u64::try_from(number).unwrap_or(0)),
            _ => Err(EngineError::Refused("an answer that is no number".to_owned())),
        }
    }
}

async fn bounded(limit: Duration, act: impl Future<Output = RedisResult<Value>>) -> Result<Value, EngineError> {
    match tokio::time::timeout(limit, act).await {
        Ok(Ok(Value::ServerError(error))) => Err(sort(&error.into())),
        Ok(done) => done.map_err(|error| sort(&error)),
        Err(_) => Err(late(limit)),
    }
}

/// Bytes of an answer as text; `None` for anything else.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) => Some(text.clone()),
        Value::VerbatimString { text, .. } => Some(text.clone()),
        _ => None,
    }
}

/// Whether `account` can log in with `secret`; a refusal of the log-in is a no.
pub(super) async fn login(door: &Door, account: &str, secret: &SecretBytes) -> Result<bool, EngineError> {
    match door.open(account, secret).await {
        Ok(_) => Ok(true),
        Err(EngineError::Refused(_)) => Ok(false),
        Err(error) => Err(error),
    }
}
