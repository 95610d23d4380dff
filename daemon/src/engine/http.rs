//! One HTTP/1.1 connection to a target's JSON API. No redirects, no proxies, no cookies; bounded in size and time.
//! Kinds whose target speaks HTTP keep such links in their pools.

use super::{
    EngineError,
    error::cut,
    server::{self, Server},
};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::de::DeserializeOwned;
use std::{
    future::Future,
    net::Ipv6Addr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_rustls::TlsConnector;

/// The longest answer: a list of every account of a large target.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// A text of an error at most.
const ERROR_BYTES_MAX: usize = 240;
/// A link that was idle for longer is not used again: its target may be closing it just then.
const IDLE_MAX: Duration = Duration::from_secs(3);
/// What is no path segment's own character is written as `%XX`; so are dots.
const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Where a target is, and how long it is waited for.
pub(super) struct Address {
    host: String,
    port: u16,
    name: ServerName<'static>,
    authority: HeaderValue,
    tls: Option<TlsConnector>,
    /// To connect.
    pub connect: Duration,
    /// For each answer.
    pub answer: Duration,
}

impl Address {
    /// # Errors
    /// `Config`.
    pub fn new(server: &Server<'_>) -> Result<Self, EngineError> {
        let (host, port) = (server.host, server.port);
        let wrong = || EngineError::Config("configuration: host: a name or an address".to_owned());
        let authority = match host.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]:{port}"),
            Err(_) => format!("{host}:{port}"),
        };
        Ok(Self {
            host: host.to_owned(),
            port,
            name: ServerName::try_from(host.to_owned()).map_err(|_| wrong())?,
            authority: HeaderValue::try_from(authority).map_err(|_| wrong())?,
            tls: server::tls(server.sslmode, server.ca_pem)?.map(|tls| TlsConnector::from(Arc::new(tls))),
            connect: Duration::from_secs(server.connect_timeout_secs),
            answer: Duration::from_secs(server.statement_timeout_secs),
        })
    }

    /// A new connection. Nobody is logged in yet: each request shows who asks.
    /// # Errors
    /// `Unreachable`.
    pub async fn open(&self) -> Result<Link, EngineError> {
        bounded(self.connect, async {
            let stream = TcpStream::connect((self.host.as_str(), self.port))
                .await
                .map_err(lost)?;
            stream.set_nodelay(true).map_err(lost)?;
            match &self.tls {
                None => self.over(stream).await,
                Some(tls) => {
                    let stream = tls.connect(self.name.clone(), stream).await.map_err(lost)?;
                    self.over(stream).await
                }
            }
        })
        .await
    }

    async fn over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S) -> Result<Link, EngineError> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        let driver = tokio::spawn(async move {
            // Whoever waits for an answer hears of it.
            let _ = connection.await;
        });
        Ok(Link {
            sender,
            driver,
            authority: self.authority.clone(),
            limit: self.answer,
            used: Instant::now(),
        })
    }
}

/// One connection. Dropping it closes it, whatever it was at.
pub(super) struct Link {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
    authority: HeaderValue,
    limit: Duration,
    used: Instant,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Link {
    /// Whether it is known to be dead, or might be dying.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed() || self.driver.is_finished() || self.used.elapsed() > IDLE_MAX
    }

    /// Asks, and takes whatever is answered. `who` is the `Authorization` header.
    /// # Errors
    /// `Unreachable`; the link is then of no use.
    pub async fn ask(
        &mut self,
        method: Method,
        path: &str,
        who: Option<&HeaderValue>,
        body: Vec<u8>,
    ) -> Result<Answer, EngineError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.authority.clone())
            .header(header::USER_AGENT, "strongroomd")
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(lost)?;
        if let Some(who) = who {
            request.headers_mut().insert(header::AUTHORIZATION, who.clone());
        }
        let sender = &mut self.sender;
        let answer = bounded(self.limit, async {
            sender.ready().await.map_err(lost)?;
            let answer = sender.send_request(request).await.map_err(lost)?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| EngineError::Unreachable(format!("the answer broke off: {error}")))?;
            Ok(Answer {
                status,
                body: body.to_bytes(),
            })
        })
        .await?;
        self.used = Instant::now();
        Ok(answer)
    }
}

/// What a target said.
pub(super) struct Answer {
    pub status: StatusCode,
    body: Bytes,
}

impl Answer {
    /// The body as JSON of this shape.
    /// # Errors
    /// `Unreachable`: whoever answered is not the target.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, EngineError> {
        // Where, and never what: the answer may have a hash in it.
        serde_json::from_slice(&self.body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            EngineError::Unreachable(format!("an answer of another shape, at line {line}, column {column}"))
        })
    }
}

async fn bounded<T>(limit: Duration, act: impl Future<Output = Result<T, EngineError>>) -> Result<T, EngineError> {
    match tokio::time::timeout(limit, act).await {
        Ok(done) => done,
        Err(_) => Err(EngineError::Unreachable(format!(
            "no answer within {} s",
            limit.as_secs()
        ))),
    }
}

fn lost(error: impl std::error::Error) -> EngineError {
    let mut text = error.to_string();
    if let Some(source) = error.source() {
        text = format!("{text}: {source}");
    }
    EngineError::Unreachable(cut(text, ERROR_BYTES_MAX))
}

/// A path of these segments, whatever is in them.
pub(super) fn path(segments: &[&str]) -> String {
    let mut path = String::new();
    for segment in segments {
        path.push('/');
        for &byte in segment.as_bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => path.push(char::from(byte)),
                _ => {
                    let digit = |half: u8| char::from(HEX.get(usize::from(half)).copied().unwrap_or_default());
                    path.extend(['%', digit(byte >> 4), digit(byte & 15)]);
                }
            }
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever a name is, it stays one segment and comes out as it went in.
        #[test]
        fn a_segment_stays_one(names in proptest::collection::vec(".*", 1..4)) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let made = path(&names);
            let uri: http::Uri = made.parse().unwrap();
            prop_assert_eq!(uri.path(), &made);
            prop_assert!(uri.query().is_none());
            let back: Vec<String> = made.split('/').skip(1).map(decoded).collect();
            prop_assert_eq!(back, names);
        }
    }

    fn decoded(segment: &str) -> String {
        let mut bytes = Vec::new();
        let mut rest = segment.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'%' => {
                    let two = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&two).unwrap(), 16).unwrap()
                }
                plain => plain,
            });
        }
        String::from_utf8(bytes).unwrap()
    }
}
