//! Plain HTTP on the loopback: Prometheus metrics, liveness, readiness. No secrets pass here, and no requests but GET.
//! May touch: base, gate. Reading order: this file.

use crate::gate::Gate;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore};

/// Scrapers at once.
const CONNECTIONS_MAX: usize = 32;
/// A request line and its headers must arrive within this.
const HEADER_PATIENCE: Duration = Duration::from_secs(5);

/// Serves until the task is dropped.
/// # Errors
/// The address cannot be bound.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Answers `/metrics`, `/health` (the process lives) and `/ready` (the vault is open).
pub async fn serve(listener: TcpListener, gate: Arc<Gate>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let gate = Arc::clone(&gate);
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let gate = Arc::clone(&gate);
                async move { Ok::<_, Infallible>(answer(&gate, &request).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_PATIENCE)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a metrics connection ended early");
            }
            drop(place);
        });
    }
}

async fn answer<B>(gate: &Gate, request: &Request<B>) -> Response<Full<Bytes>> {
    let (status, kind, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => (
            StatusCode::OK,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            gate.metrics_text().await,
        ),
        (&Method::GET, "/health") => (StatusCode::OK, "text/plain", "alive\n".to_owned()),
        (&Method::GET, "/ready") => match gate.is_open() {
            true => (StatusCode::OK, "text/plain", "open\n".to_owned()),
            false => (StatusCode::SERVICE_UNAVAILABLE, "text/plain", "sealed\n".to_owned()),
        },
        (&Method::GET, _) => (
            StatusCode::NOT_FOUND,
            "text/plain",
            "there are /metrics, /health and /ready\n".to_owned(),
        ),
        _ => (StatusCode::METHOD_NOT_ALLOWED, "text/plain", "GET only\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
