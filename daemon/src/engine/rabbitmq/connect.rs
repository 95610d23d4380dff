//! Sessions at the management API, and its answers in the engine's words.

use super::config::Config;
use crate::{
    base::secret::SecretBytes,
    engine::{
        EngineError,
        error::cut,
        http::{Address, Answer, Link},
        pool,
    },
};
use data_encoding::BASE64;
use http::{HeaderValue, Method, StatusCode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::time::Duration;
use zeroize::Zeroizing;

/// A text of an error at most.
const ERROR_BYTES_MAX: usize = 240;
/// What the API says to who knows the password of an account without its tag `management`.
const NO_MANAGEMENT: &str = "Not management user";
/// What it says of what is not there.
const NOT_THERE: &str = "Object Not Found";

/// How to connect, as whom.
pub(super) struct Door {
    config: Config,
    address: Address,
    account: String,
    secret: SecretBytes,
}

impl Door {
    pub fn new(config: Config, account: String, secret: SecretBytes) -> Result<Self, EngineError> {
        Ok(Self {
            address: config.address()?,
            config,
            account,
            secret,
        })
    }

    pub fn account(&self) -> &str {
        &self.account
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A session as `account`; the password is shown with the first request, not before.
    pub async fn open(&self, account: &str, secret: &SecretBytes) -> Result<Session, EngineError> {
        Ok(Session {
            who: basic(account, secret)?,
            link: self.address.open().await?,
        })
    }
}

impl pool::Door for Door {
    type Session = Session;
    fn connections(&self) -> usize {
        self.config.connections
    }
    fn patience(&self) -> Duration {
        self.address.connect + self.address.answer
    }
    async fn open_root(&self) -> Result<Session, EngineError> {
        self.open(&self.account, &self.secret).await
    }
    fn is_closed(session: &Session) -> bool {
        session.link.is_closed()
    }
}

pub(super) type Pool = pool::Pool<Door>;

/// RFC 7617.
fn basic(account: &str, secret: &SecretBytes) -> Result<HeaderValue, EngineError> {
    let pair = Zeroizing::new([account.as_bytes(), b":", secret.expose()].concat());
    let text = Zeroizing::new(format!("Basic {}", BASE64.encode(&pair)));
    let mut who = HeaderValue::from_str(&text)
        .map_err(|_| EngineError::Config("account: cannot be shown to the server".to_owned()))?;
    who.set_sensitive(true);
    Ok(who)
}

/// Requests as one account, on one connection.
pub(super) struct Session {
    link: Link,
    who: HeaderValue,
}

#[derive(Deserialize)]
struct Complaint {
    error: String,
    #[serde(default)]
    reason: serde_json::Value,
}

impl Session {
    async fn ask(&mut self, method: Method, path: &str, body: Vec<u8>) -> Result<Answer, EngineError> {
        self.link.ask(method, path, Some(&self.who), body).await
    }

    /// What is at `path`; `None`: nothing.
    pub async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<Option<T>, EngineError> {
        let answer = self.ask(Method::GET, path, Vec::new()).await?;
        if answer.status == StatusCode::OK {
            return answer.json().map(Some);
        }
        absent(&answer).map(|()| None)
    }

    pub async fn put(&mut self, path: &str, body: &impl Serialize) -> Result<(), EngineError> {
        let body = serde_json::to_vec(body).map_err(|error| EngineError::Config(error.to_string()))?;
        let answer = self.ask(Method::PUT, path, body).await?;
        match answer.status {
            StatusCode::CREATED | StatusCode::NO_CONTENT => Ok(()),
            _ => Err(refusal(&answer)),
        }
    }

    /// `false`: there was nothing.
    pub async fn delete(&mut self, path: &str) -> Result<bool, EngineError> {
        let answer = self.ask(Method::DELETE, path, Vec::new()).await?;
        if answer.status == StatusCode::NO_CONTENT {
            return Ok(true);
        }
        absent(&answer).map(|()| false)
    }
}

/// Only RabbitMQ's own word for it is an absence: a proxy on the way may say 404 as well.
fn absent(answer: &Answer) -> Result<(), EngineError> {
    if answer.status != StatusCode::NOT_FOUND {
        return Err(refusal(answer));
    }
    match answer.json::<Complaint>() {
        Ok(complaint) if complaint.error == NOT_THERE => Ok(()),
        _ => Err(EngineError::Unreachable(
            "404, but not from the management API: is `host` the server?".to_owned(),
        )),
    }
}

/// The server's refusal, or an outage. Its messages never repeat a password: none is sent but to log in.
fn refusal(answer: &Answer) -> EngineError {
    let status = answer.status;
    let text = match answer.json::<Complaint>() {
        Ok(complaint) => match complaint.reason {
            serde_json::Value::String(reason) => format!("{status}: {reason}"),
            other => format!("{status}: {}: {other}", complaint.error),
        },
        Err(_) => status.to_string(),
    };
    let text = cut(text, ERROR_BYTES_MAX);
    if status.is_server_error() {
        EngineError::Unreachable(text)
    } else {
        EngineError::Refused(text)
    }
}

/// Whether `account` can log in with `secret`. An account without the tag `management` is told that it lacks it if the
/// password is right, and that the log-in failed if not.
pub(super) async fn login(door: &Door, account: &str, secret: &SecretBytes) -> Result<bool, EngineError> {
    let mut session = door.open(account, secret).await?;
    let answer = session.ask(Method::GET, "/api/whoami", Vec::new()).await?;
    match answer.status {
        StatusCode::OK => Ok(true),
        StatusCode::UNAUTHORIZED => {
            let complaint: Complaint = answer.json()?;
            Ok(complaint.reason.as_str() == Some(NO_MANAGEMENT))
        }
        _ => Err(refusal(&answer)),
    }
}
