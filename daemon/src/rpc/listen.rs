//! Accepting: TCP under TLS and the Unix socket, bounded in connections and in patience, as one stream for the server.

use super::{RpcError, cork::Corked};
use crate::{
    audit::Peer,
    gate::{Doom, Gate, Origin, Source},
    limit::Held,
};
use rustls::ServerConfig;
use std::{
    future::Future,
    io,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;

/// A pause after `accept` fails (no descriptors left, most likely).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Handshaken connections waiting for the server to take them.
const HANDSHAKEN_MAX: usize = 64;
/// Connections of the Unix socket at once.
const LOCAL_MAX: usize = 1024;

/// One accepted connection; holds its place among the connections until it is dropped.
pub struct Connection {
    stream: Corked<Stream>,
    origin: Origin,
    /// Until the first bytes: who says nothing is not waited for.
    silent: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
    _held: Option<Held>,
}

enum Stream {
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

/// What is common to both listeners.
#[derive(Clone)]
pub struct Doorway {
    gate: Arc<Gate>,
    /// The Unix socket's own: nothing on the network can keep an operator of this machine out.
    local: Arc<Semaphore>,
    places: Arc<Semaphore>,
    handshake: Duration,
    out: mpsc::Sender<io::Result<Connection>>,
}

impl Doorway {
    /// At most `connections_max` at once; a handshake takes at most `handshake`.
    pub fn new(
        gate: Arc<Gate>,
        connections_max: usize,
        handshake: Duration,
    ) -> (Self, mpsc::Receiver<io::Result<Connection>>) {
        let (out, connections) = mpsc::channel(HANDSHAKEN_MAX);
        let places = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
        (
            Self {
                gate,
                local: Arc::new(Semaphore::new(LOCAL_MAX)),
                places,
                handshake,
                out,
            },
            connections,
        )
    }

    /// Accepts TLS connections for ever. Past the limit of all, callers wait in the kernel's queue; whose source is past its own is closed before
    /// a handshake has cost anything.
    pub async fn serve_tls(self, listener: TcpListener, config: Arc<ServerConfig>) {
        let acceptor = TlsAcceptor::from(config);
        while let Ok(place) = Arc::clone(&self.places).acquire_owned().await {
            let Some((stream, addr)) = accepted(listener.accept().await).await else {
                continue;
            };
            let held = match self
                .gate
                .limits()
                .connect(Peer::from(Source::Tls(addr)), self.gate.monotonic())
            {
                Ok(held) => held,
                Err(limit) => {
                    tracing::debug!(%addr, limit, "a connection was closed");
                    self.gate.count_turned_away(limit);
                    continue;
                }
            };
            let (acceptor, doorway) = (acceptor.clone(), self.clone());
            tokio::spawn(async move {
                // An answer is small: waiting to fill a segment only delays it.
                let _ = stream.set_nodelay(true);
                match timeout(doorway.handshake, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        doorway
                            .hand_over(Stream::Tls(Box::new(stream)), Source::Tls(addr), (place, Some(held)))
                            .await
                    }
                    Ok(Err(error)) => tracing::debug!(%addr, %error, "TLS handshake failed"),
                    Err(_) => tracing::debug!(%addr, "TLS handshake timed out"),
                }
            });
        }
    }

    /// Accepts Unix connections for ever; a peer whose credentials the kernel does not tell is dropped.
    pub async fn serve_unix(self, listener: UnixListener) {
        while let Ok(place) = Arc::clone(&self.local).acquire_owned().await {
            let Some((stream, _)) = accepted(listener.accept().await).await else {
                continue;
            };
            match stream.peer_cred() {
                Ok(peer) => {
                    let source = Source::Unix(peer.uid());
                    self.hand_over(Stream::Unix(stream), source, (place, None)).await;
                }
                Err(error) => tracing::warn!(%error, "a Unix peer without credentials was dropped"),
            }
        }
    }

    async fn hand_over(&self, stream: Stream, source: Source, held: (OwnedSemaphorePermit, Option<Held>)) {
        let chain = match &stream {
            Stream::Tls(stream) => stream.get_ref().1.peer_certificates().unwrap_or_default(),
            Stream::Unix(_) => &[],
        };
        let chain = chain.iter().map(|certificate| Box::from(&certificate[..])).collect();
        // An error means that the server has stopped taking connections: dropping this one is right.
        let _ = self
            .out
            .send(Ok(Connection {
                stream: Corked::new(stream),
                origin: Origin {
                    source,
                    doom: Doom::default(),
                    chain,
                },
                silent: Some(Box::pin(sleep(self.handshake))),
                _place: held.0,
                _held: held.1,
            }))
            .await;
    }
}

static REFUSED: AtomicU64 = AtomicU64::new(0);

async fn accepted<T>(result: io::Result<T>) -> Option<T> {
    match result {
        Ok(accepted) => Some(accepted),
        Err(error) => {
            // Many may come at once: one line for a hundred of them.
            if REFUSED.fetch_add(1, Ordering::Relaxed).is_multiple_of(100) {
                tracing::warn!(%error, "connections cannot be accepted");
            }
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Binds the Unix socket, mode 0666: who may do what is decided by the peer's credentials and token, not by the file.
/// A socket left behind by a daemon that is gone is replaced; a live one is an error.
/// # Errors
/// [`RpcError::Bind`].
pub fn bind_unix(path: &Path) -> Result<UnixListener, RpcError> {
    let bind = |source| RpcError::Bind {
        place: path.display().to_string(),
        source,
    };
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(bind(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another daemon answers there",
        )));
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if !std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) => {
            return Err(bind(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is something that is not a socket; it was left alone: correct `listener.socket`",
            )));
        }
        Ok(_) => std::fs::remove_file(path).map_err(bind)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(bind(error)),
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(bind)?;
    }
    let listener = UnixListener::bind(path).map_err(bind)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).map_err(bind)?;
    Ok(listener)
}

impl Connected for Connection {
    type ConnectInfo = Origin;
    fn connect_info(&self) -> Origin {
        self.origin.clone()
    }
}

impl Connection {
    fn living(&self) -> io::Result<()> {
        let doomed = self.origin.doom.has_come();
        if doomed {
            Err(io::ErrorKind::ConnectionAborted.into())
        } else {
            Ok(())
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            this.silent = None;
        }
        match &mut this.silent {
            Some(silence) if read.is_pending() => {
                silence.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
            }
            _ => read,
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.living()?;
        Pin::new(&mut this.stream).poll_write(cx, buf)
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.living()?;
        Pin::new(&mut this.stream).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is no socket is not ours to remove; a socket that nobody answers on is.
    #[tokio::test]
    async fn only_sockets_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious.key");
        std::fs::write(&path, "precious").unwrap();
        assert!(bind_unix(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        let socket = dir.path().join("socket");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let ours = bind_unix(&socket).unwrap();
        assert!(bind_unix(&socket).is_err(), "a live one stays");
        drop(ours);
    }
}
