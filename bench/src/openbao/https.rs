//! A connection to OpenBao, and what one takes.

use crate::Fault;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, client::conn::http1::SendRequest};
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use std::{path::Path, sync::Arc};

/// Where, and as whom.
#[derive(Clone)]
pub struct Dial {
    port: u16,
    tls: Arc<ClientConfig>,
    pub(super) token: String,
}

impl Dial {
    /// TLS 1.3 only and every handshake in full, as ours; nobody yet.
    pub(super) fn new(port: u16, ca: &Path) -> Result<Self, Fault> {
        Self::of(port, ca, None)
    }

    fn of(port: u16, ca: &Path, identity: Option<(&Path, &Path)>) -> Result<Self, Fault> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca)?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13])?;
        let config = config.with_root_certificates(roots);
        let mut tls = match identity {
            None => config.with_no_client_auth(),
            Some((chain, key)) => config.with_client_auth_cert(
                CertificateDer::pem_file_iter(chain)?.collect::<Result<_, _>>()?,
                PrivateKeyDer::from_pem_file(key)?,
            )?,
        };
        tls.resumption = Resumption::disabled();
        Ok(Self {
            port,
            tls: Arc::new(tls),
            token: String::new(),
        })
    }

    /// The same with another token.
    pub fn with(&self, token: &str) -> Self {
        Self {
            token: token.to_owned(),
            ..self.clone()
        }
    }

    /// The same with a client certificate.
    /// # Errors
    /// A file is no PEM.
    pub fn showing(&self, ca: &Path, certificate: (&Path, &Path)) -> Result<Self, Fault> {
        Ok(Self::of(self.port, ca, Some(certificate))?.with(&self.token))
    }

    /// Connects.
    /// # Errors
    /// No connection, no TLS.
    pub async fn https(&self) -> Result<Https, Fault> {
        let tcp = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await?;
        tcp.set_nodelay(true)?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.tls));
        let stream = connector.connect(ServerName::try_from("localhost")?, tcp).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await?;
        // Ends with the connection; a failure shows in the next request.
        tokio::spawn(connection);
        Ok(Https {
            sender,
            token: self.token.clone(),
        })
    }

    /// A connection for a caller. Its server ends one that has not asked anything within seconds; one that has may rest for minutes.
    /// # Errors
    /// As [`https`](Self::https).
    pub async fn caller(&self) -> Result<Https, Fault> {
        let mut https = self.https().await?;
        https.ask("GET", "sys/health", None).await?;
        Ok(https)
    }
}

/// One connection.
pub struct Https {
    sender: SendRequest<Full<Bytes>>,
    token: String,
}

impl Https {
    /// From now on as somebody else.
    pub fn set_token(&mut self, token: &str) {
        token.clone_into(&mut self.token);
    }

    /// The body of a 2xx answer.
    pub async fn send(&mut self, method: &str, path: &str, body: Bytes) -> Result<Bytes, Fault> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/v1/{path}"))
            .header("host", "localhost");
        if !self.token.is_empty() {
            request = request.header("x-vault-token", &self.token);
        }
        self.sender.ready().await?;
        let answer = self.sender.send_request(request.body(Full::new(body))?).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        match status {
            StatusCode::OK | StatusCode::NO_CONTENT => Ok(body),
            other => Err(format!("{method} {path}: {other} {}", String::from_utf8_lossy(&body)).into()),
        }
    }

    /// The same in JSON.
    pub async fn ask(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Fault> {
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let answer = self.send(method, path, body).await?;
        if answer.is_empty() {
            Ok(Value::Null)
        } else {
            Ok(serde_json::from_slice(&answer)?)
        }
    }
}
