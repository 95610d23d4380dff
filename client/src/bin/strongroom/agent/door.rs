//! Who may come in: the agent's socket accepts the users that `[[allow]]` names, each within a number of connections of its own, so that no
//! user of the machine keeps another out.

use super::config::Allowed;
use futures::stream::{Stream, unfold};
use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tonic::transport::server::{Connected, UdsConnectInfo};

/// Connections of one user at once; one more is closed.
const CONNECTIONS_MAX: usize = 128;
/// A pause after `accept` fails (no descriptors left, most likely).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A connection; keeps its place until it is dropped.
#[derive(Debug)]
pub struct Visitor {
    stream: UnixStream,
    _place: OwnedSemaphorePermit,
}

/// Places by user id.
struct Places(BTreeMap<u32, Arc<Semaphore>>);

impl Places {
    fn of(allowed: &Allowed) -> Self {
        let place = |uid: &u32| (*uid, Arc::new(Semaphore::new(CONNECTIONS_MAX)));
        Self(allowed.keys().map(place).collect())
    }

    /// A place for this user; `None`: it has none to come in, or no more of them.
    fn take(&self, uid: u32) -> Option<OwnedSemaphorePermit> {
        Arc::clone(self.0.get(&uid)?).try_acquire_owned().ok()
    }
}

/// The connections of the users that may have something. Others are closed before a byte of them is read.
pub fn visitors(listener: UnixListener, allowed: &Allowed) -> impl Stream<Item = io::Result<Visitor>> + use<> {
    unfold((listener, Places::of(allowed)), |(listener, places)| async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let place = stream.peer_cred().ok().and_then(|peer| places.take(peer.uid()));
                    if let Some(_place) = place {
                        return Some((Ok(Visitor { stream, _place }), (listener, places)));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

impl Connected for Visitor {
    type ConnectInfo = UdsConnectInfo;
    fn connect_info(&self) -> UdsConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Visitor {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Visitor {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
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
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt as _;
    use tokio::io::AsyncReadExt as _;

    /// R-OPS-6: a user without `[[allow]]` gets no place; one who has one cannot take another's.
    #[tokio::test]
    async fn each_user_has_places_of_its_own() {
        let allowed = |uids: &[u32]| uids.iter().map(|uid| (*uid, [].into())).collect::<Allowed>();
        let places = Places::of(&allowed(&[1, 2]));
        let mine: Vec<_> = (0..CONNECTIONS_MAX).map(|_| places.take(1).unwrap()).collect();
        assert!(places.take(1).is_none() && places.take(3).is_none());
        assert!(places.take(2).is_some());
        drop(mine);
        assert!(places.take(1).is_some());

        let me = rustix::process::geteuid().as_raw();
        let dir = tempfile::tempdir().unwrap();
        for (users, let_in) in [(allowed(&[me]), true), (allowed(&[me + 1]), false)] {
            let path = dir.path().join(let_in.to_string());
            let listener = UnixListener::bind(&path).unwrap();
            let mut visitors = Box::pin(visitors(listener, &users));
            let mut caller = UnixStream::connect(&path).await.unwrap();
            let mut byte = [0];
            tokio::select! {
                visitor = visitors.next() => assert!(let_in && visitor.unwrap().is_ok()),
                read = caller.read(&mut byte) => assert_eq!((let_in, read.unwrap()), (false, 0)),
            }
        }
    }
}
