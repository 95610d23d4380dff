//! The wire: listeners, bounds, conversions, services, statuses. Parses every message into an operation of the gate and knows no room.
//! May touch: base, audit (source and tail), gate, proto.
//!
//! Reading order: `listen`, `cork` and `tls` (connections), `layer` (bounds), `services` (one impl a service), `parse` (small parsers that all use), `status` (failures).

mod cork;
mod keyed;
mod layer;
mod listen;
mod methods;
mod parse;
mod services;
mod status;
mod tls;

pub use layer::{Called, Taken};
pub use tls::{Certificate, TlsError, provider};

use crate::{config::Config, gate::Gate, process};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

/// HTTP/2 keeps idle connections honest.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(30);
/// A connection is told to come anew after this long, and ended some time later.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(3600);
const CONNECTION_GRACE: Duration = Duration::from_secs(300);
const KEEPALIVE_PATIENCE: Duration = Duration::from_secs(20);
/// Header lists larger than this are refused.
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// Rapid resets are an attack beyond this (CVE-2023-44487).
const PENDING_RESETS_MAX: usize = 32;

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// A listener cannot be bound.
    #[error("cannot listen on {place}")]
    Bind {
        /// Address or path.
        place: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Certificate or key unusable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The server ended by itself.
    #[error("the gRPC server stopped")]
    Server(#[from] tonic::transport::Error),
    /// The reflection service cannot be made.
    #[error("the reflection service cannot be made")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Where a daemon listens.
#[derive(Debug, Clone)]
pub struct Place {
    /// TLS, if there is a certificate; port 0 has become a real one.
    pub address: Option<std::net::SocketAddr>,
    /// The Unix socket.
    pub socket: PathBuf,
}

/// Both listeners, bound and not yet serving.
pub struct Bound {
    tls: Option<(tokio::net::TcpListener, Arc<rustls::ServerConfig>)>,
    unix: tokio::net::UnixListener,
    socket: PathBuf,
    /// To be reloaded on SIGHUP.
    pub certificate: Option<Arc<Certificate>>,
    address: Option<std::net::SocketAddr>,
}

/// Binds what the configuration names.
/// # Errors
/// [`RpcError`].
pub async fn bind(config: &Config) -> Result<Bound, RpcError> {
    let listener = &config.listener;
    let mut bound = Bound {
        tls: None,
        unix: listen::bind_unix(listener.socket.get_ref())?,
        socket: listener.socket.get_ref().clone(),
        certificate: None,
        address: None,
    };
    if let (Some(cert), Some(key)) = (&listener.tls_cert, &listener.tls_key) {
        let certificate = Certificate::load(cert.get_ref(), key.get_ref())?;
        let tls = tls::server_config(Arc::clone(&certificate), listener.tls12)?;
        let address = *listener.address.get_ref();
        let failed = |source| RpcError::Bind {
            place: address.to_string(),
            source,
        };
        let tcp = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
        bound.address = Some(tcp.local_addr().map_err(failed)?);
        bound.certificate = Some(certificate);
        bound.tls = Some((tcp, tls));
    }
    Ok(bound)
}

impl Bound {
    /// Where it listens.
    pub fn place(&self) -> Place {
        Place {
            address: self.address,
            socket: self.socket.clone(),
        }
    }

    /// Serves until `stop` turns true; then answers what is in flight and returns.
    /// # Errors
    /// [`RpcError`].
    pub async fn serve(
        self,
        config: &Config,
        gate: Arc<Gate>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), RpcError> {
        let limits = &config.limits;
        let (doorway, connections) = listen::Doorway::new(
            Arc::clone(&gate),
            process::connections_that_fit(limits.connections_max),
            Duration::from_secs(limits.handshake_secs),
        );
        let mut accepting = tokio::task::JoinSet::new();
        if let Some((listener, tls)) = self.tls {
            accepting.spawn(doorway.clone().serve_tls(listener, tls));
        }
        accepting.spawn(doorway.serve_unix(self.unix));
        let deadline = Duration::from_secs(limits.request_secs_default);
        let admission = layer::AdmissionLayer::new(Arc::clone(&gate), deadline);
        let (reporter, health) = tonic_health::server::health_reporter();
        let health_follows = tokio::spawn(services::report_health(reporter, Arc::clone(&gate)));
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(strongroom_proto::DESCRIPTOR)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        let router = Server::builder()
            .max_concurrent_streams(limits.streams_per_connection_max)
            .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
            .http2_keepalive_timeout(Some(KEEPALIVE_PATIENCE))
            .max_connection_age(CONNECTION_AGE_MAX)
            .max_connection_age_grace(CONNECTION_GRACE)
            .http2_max_header_list_size(HEADERS_BYTES_MAX)
            .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS_MAX))
            .layer(admission)
            .add_service(health)
            .add_service(reflection);
        let ending = Arc::clone(&gate);
        let served = services::add(router, gate)
            .serve_with_incoming_shutdown(ReceiverStream::new(connections), async move {
                // An error means that whoever could say stop is gone: stop.
                let _ = stop.wait_for(|stop| *stop).await;
                ending.dismiss();
            })
            .await;
        accepting.shutdown().await;
        health_follows.abort();
        // The file is ours alone; a successor binds anew if this fails.
        let _ = std::fs::remove_file(&self.socket);
        Ok(served?)
    }
}
