//! How hostile callers come in: over TLS from ever new addresses of the loopback, for a source that is refused often waits, and its refusals are counted, not recorded.

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, pki_types::pem::PemObject};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};
use strongroom_client::v1;
use strongroom_tests::Lab;
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;
use tonic::{
    Request, Response, Status,
    metadata::MetadataMap,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

/// Calls from one address: two that share a place in a table of failures are still below what one may have.
const CALLS: usize = 10;
/// Every address of 127/8 is this machine.
const FIRST: u32 = 0x7f20_0001;
static NEXT: AtomicU32 = AtomicU32::new(FIRST);

/// What the daemon said.
#[derive(Debug, Default)]
pub struct Answer {
    /// Empty: it was done.
    pub reason: String,
    /// Of a refusal.
    pub request: String,
    /// Of a log-in.
    pub token: String,
    /// The metadata `dpop-nonce`.
    pub nonce: Option<String>,
}

pub struct Door {
    address: SocketAddr,
    tls: TlsConnector,
    channel: Option<(Channel, usize)>,
}

impl Door {
    pub fn new(lab: &Lab) -> Self {
        let mut roots = RootCertStore::empty();
        let ca = rustls::pki_types::CertificateDer::from_pem_file(lab.ca()).unwrap();
        roots.add(ca).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self {
            address: lab.address,
            tls: TlsConnector::from(Arc::new(config)),
            channel: None,
        }
    }

    async fn channel(&mut self) -> Channel {
        match self.channel.take() {
            Some((channel, calls)) if calls < CALLS => {
                self.channel = Some((channel.clone(), calls + 1));
                channel
            }
            _ => {
                let channel = self.connect().await;
                self.channel = Some((channel.clone(), 1));
                channel
            }
        }
    }

    async fn connect(&self) -> Channel {
        let (to, tls) = (self.address, self.tls.clone());
        let from = SocketAddr::from((Ipv4Addr::from_bits(NEXT.fetch_add(1, Ordering::Relaxed)), 0));
        let connector = tower::service_fn(move |_| {
            let tls = tls.clone();
            async move {
                let socket = TcpSocket::new_v4()?;
                socket.bind(from)?;
                let tcp = socket.connect(to).await?;
                let name = "localhost".try_into().expect("a name");
                tls.connect(name, tcp).await.map(TokioIo::new)
            }
        });
        let endpoint = Endpoint::from_shared(format!("https://localhost:{}", to.port())).unwrap();
        endpoint.connect_with_connector(connector).await.unwrap()
    }

    pub async fn log_in(&mut self, message: v1::LoginRequest, proof: Option<&str>) -> Answer {
        let mut request = Request::new(message);
        if let Some(proof) = proof {
            request.metadata_mut().insert("dpop", proof.parse().unwrap());
        }
        let mut login = v1::login_client::LoginClient::new(self.channel().await);
        answer(login.login(request).await, |answer| answer.token)
    }

    /// Reads a secret with `token` and `proof`.
    pub async fn read(&mut self, token: &str, proof: &str) -> Answer {
        let mut request = Request::new(v1::KvGetRequest {
            path: "kv/hostile".to_owned(),
            ..Default::default()
        });
        let metadata = request.metadata_mut();
        metadata.insert("authorization", format!("Bearer {token}").parse().unwrap());
        metadata.insert("dpop", proof.parse().unwrap());
        let mut kv = v1::kv_client::KvClient::new(self.channel().await);
        answer(kv.get(request).await, |_| String::new())
    }
}

fn answer<R>(result: Result<Response<R>, Status>, token: impl FnOnce(R) -> String) -> Answer {
    let nonce = |metadata: &MetadataMap| {
        let nonce = metadata.get("dpop-nonce")?;
        Some(nonce.to_str().unwrap().to_owned())
    };
    match result {
        Ok(response) => Answer {
            nonce: nonce(response.metadata()),
            token: token(response.into_inner()),
            ..Answer::default()
        },
        Err(status) => {
            let info = status.get_details_error_info();
            let info = info.unwrap_or_else(|| panic!("no answer of the daemon's: {status:?}"));
            Answer {
                nonce: nonce(status.metadata()),
                request: info.metadata.get("request_id").cloned().unwrap_or_default(),
                reason: info.reason,
                token: String::new(),
            }
        }
    }
}
