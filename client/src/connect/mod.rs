//! From an address to a channel: TLS 1.3 over TCP, or a Unix socket. Plain text over a network is not
//! offered. Reading order: `address`, `tls`, `key`, `builder`.

mod address;
mod builder;
mod key;
mod tls;

pub use address::{Address, DEFAULT_PORT, DEFAULT_SOCKET};
pub use builder::Builder;
pub(crate) use builder::read_token;
pub use key::ProofKey;
pub(crate) use key::Prover;

use hyper_util::rt::TokioIo;
use std::{io, sync::Arc, time::Duration};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

/// Longest wait for a connection, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A dead peer is noticed after this plus [`PING_TIMEOUT`].
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a connection was not made; found again in the source chain of tonic's errors.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectFailure {
    /// No such host, refused, no permission for the socket.
    #[error("{0}")]
    Reach(String),
    /// Reached, but TLS failed.
    #[error("{0}")]
    Tls(String),
}

/// When the first connection is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum First {
    /// Now, so that a wrong address or CA is told at once.
    Now,
    /// With the first call.
    WithACall,
}

/// A connection that renews itself when it breaks.
pub(crate) async fn channel(
    address: &Address,
    roots: Option<Arc<rustls::ClientConfig>>,
    user_agent: &str,
    first: First,
) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(address.origin())?
        .user_agent(user_agent)?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    // Each connector is a type of its own.
    macro_rules! dial {
        ($connector:expr) => {
            match first {
                First::Now => endpoint.connect_with_connector($connector).await,
                First::WithACall => Ok(endpoint.connect_with_connector_lazy($connector)),
            }
        };
    }
    match (address.clone(), roots) {
        (Address::Unix(path), _) => {
            let connector = tower::service_fn(move |_| {
                let path = path.clone();
                async move { unix(&path).await.map(TokioIo::new) }
            });
            dial!(connector)
        }
        (Address::Tls { host, port }, Some(config)) => {
            let tls = TlsConnector::from(config);
            let connector = tower::service_fn(move |_| {
                let (tls, host) = (tls.clone(), host.clone());
                async move { over_tls(&tls, &host, port).await.map(TokioIo::new) }
            });
            dial!(connector)
        }
        (Address::Tls { .. }, None) => {
            let connector = tower::service_fn(|_| async {
                Err::<TokioIo<TcpStream>, _>(ConnectFailure::Tls("no trust roots".to_owned()))
            });
            dial!(connector)
        }
    }
}

#[cfg(unix)]
async fn unix(path: &std::path::Path) -> Result<tokio::net::UnixStream, ConnectFailure> {
    tokio::net::UnixStream::connect(path)
        .await
        .map_err(|e| ConnectFailure::Reach(reach(&e)))
}

#[cfg(not(unix))]
async fn unix(_: &std::path::Path) -> Result<TcpStream, ConnectFailure> {
    Err(ConnectFailure::Reach(
        "Unix sockets are not available on this platform".to_owned(),
    ))
}

async fn over_tls(
    tls: &TlsConnector,
    host: &str,
    port: u16,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, ConnectFailure> {
    let name = rustls::pki_types::ServerName::try_from(host.to_owned())
        .map_err(|_| ConnectFailure::Reach(format!("`{host}` is not a host name or address")))?;
    let tcp = TcpStream::connect((host, port))
        .await
        .map_err(|e| ConnectFailure::Reach(reach(&e)))?;
    tcp.set_nodelay(true)
        .map_err(|e| ConnectFailure::Reach(e.to_string()))?;
    tls.connect(name, tcp).await.map_err(|e| tls::explain(&e))
}

/// The system's words, plus what they usually mean here.
fn reach(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("{error}; is strongroomd running there?"),
        io::ErrorKind::NotFound => format!("{error}; strongroomd makes its socket when it starts"),
        io::ErrorKind::PermissionDenied => format!("{error}; this user may not open the socket"),
        _ => error.to_string(),
    }
}
