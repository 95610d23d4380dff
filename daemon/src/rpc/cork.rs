//! What one turn of a connection's task writes leaves together: HTTP/2 flushes once for the headers and data of an answer and again for its
//! trailers, which costs two TLS records and two system calls an answer.
//!
//! A flush after which more may come is put off to the task's next turn, which is asked for at once: every task that is ready runs first, then
//! the bytes go. Nothing waits for a timer or for the peer, and no byte waits behind a flush that nobody asked for again: the next read, write
//! that does not fit, flush without news, or shutdown sends what is held.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes held at most: one full TLS record. More goes straight on.
const HELD_BYTES_MAX: usize = 16 << 10;
/// A larger buffer is given back once it was sent, so that ten thousand idle connections hold little.
const KEPT_BYTES_MAX: usize = 4 << 10;

/// A stream that gathers small writes.
pub struct Corked<S> {
    stream: S,
    held: Vec<u8>,
    /// Of `held`, what the stream has taken.
    sent: usize,
    /// How much was held when a flush was last put off.
    owed: Option<usize>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Corked<S> {
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            held: Vec::new(),
            sent: 0,
            owed: None,
        }
    }

    /// Sends what is held and flushes.
    fn push(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest @ [_, ..]) = self.held.get(self.sent..) {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                taken => self.sent += taken,
            }
        }
        // Values were in there.
        self.held.fill(0);
        self.held.clear();
        self.held.shrink_to(KEPT_BYTES_MAX);
        self.sent = 0;
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.owed = None;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Corked<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // A peer that does not read now must not keep us from reading: the task is woken when it does.
        if this.owed.is_some()
            && let Poll::Ready(Err(error)) = this.push(cx)
        {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut this.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let bytes = bufs.iter().map(|buf| buf.len()).sum::<usize>();
        if this.held.len() + bytes > HELD_BYTES_MAX {
            ready!(this.push(cx))?;
        }
        if bytes > HELD_BYTES_MAX {
            return Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        }
        for buf in bufs {
            this.held.extend_from_slice(buf);
        }
        Poll::Ready(Ok(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.held.is_empty() || this.owed == Some(this.held.len()) {
            return this.push(cx);
        }
        this.owed = Some(this.held.len());
        cx.waker().wake_by_ref();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.push(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Counts what reaches it; takes at most `appetite` bytes a call, and nothing every other call.
    #[derive(Default)]
    struct Peer {
        got: Vec<u8>,
        calls: usize,
        flushed: usize,
        appetite: usize,
        sulks: bool,
        closed: bool,
    }

    impl AsyncRead for Peer {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Peer {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.sulks = !self.sulks;
            if self.appetite < usize::MAX && self.sulks {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let taken = buf.len().min(self.appetite);
            self.got.extend_from_slice(&buf[..taken]);
            self.calls += 1;
            Poll::Ready(Ok(taken))
        }
        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushed = self.got.len();
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.closed = true;
            Poll::Ready(Ok(()))
        }
    }

    /// As a connection's task does: whatever it wrote, it goes on to read until it must wait.
    async fn turn(corked: &mut Corked<Peer>) {
        std::future::poll_fn(|cx| {
            let mut space = [0; 8];
            assert!(
                Pin::new(&mut *corked)
                    .poll_read(cx, &mut ReadBuf::new(&mut space))
                    .is_pending()
            );
            Poll::Ready(())
        })
        .await;
    }

    /// Headers, data and trailers of an answer are one write, in the next turn, which the flush asked for.
    #[tokio::test]
    async fn one_turn_is_one_write() {
        let mut corked = Corked::new(Peer {
            appetite: usize::MAX,
            ..Peer::default()
        });
        for part in [&b"headers"[..], b"data", b"trailers"] {
            corked.write_all(part).await.unwrap();
            corked.flush().await.unwrap();
        }
        assert_eq!(corked.stream.calls, 0);
        tokio::time::timeout(std::time::Duration::from_secs(5), turn(&mut corked))
            .await
            .unwrap();
        assert_eq!((corked.stream.calls, corked.stream.flushed), (1, 19));
        assert_eq!(corked.stream.got, b"headersdatatrailers");
        assert!(corked.held.is_empty());
    }

    #[derive(Debug, Clone)]
    enum Act {
        Write(usize),
        Flush,
        Turn,
    }

    proptest! {
        /// Every byte once, in order, whatever the sizes, the flushes and the peer's appetite; after a shutdown nothing is held.
        #[test]
        fn nothing_is_lost_or_reordered(
            acts in prop::collection::vec(prop_oneof![
                (0usize..40_000).prop_map(Act::Write),
                (0usize..300).prop_map(Act::Write),
                Just(Act::Flush),
                Just(Act::Turn),
            ], 1..40),
            appetite in prop_oneof![Just(usize::MAX), 1usize..5000],
        ) {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let mut corked = Corked::new(Peer { appetite, ..Peer::default() });
                let mut told = VecDeque::new();
                for (index, act) in acts.iter().enumerate() {
                    match act {
                        Act::Write(bytes) => {
                            let part = vec![index as u8; *bytes];
                            corked.write_all(&part).await.unwrap();
                            told.extend(part);
                        }
                        Act::Flush => corked.flush().await.unwrap(),
                        Act::Turn => turn(&mut corked).await,
                    }
                    assert!(corked.held.len() <= HELD_BYTES_MAX);
                }
                corked.shutdown().await.unwrap();
                assert!(corked.stream.closed && corked.stream.flushed == told.len());
                assert!(corked.stream.got.iter().eq(told.iter()));
            });
        }
    }

    /// Who flushes and then waits is polled again without another word from anybody.
    #[test]
    fn a_flush_asks_for_the_next_turn() {
        struct Count(std::sync::atomic::AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: std::sync::Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        }
        let count = std::sync::Arc::new(Count(0.into()));
        let waker = std::task::Waker::from(count.clone());
        let cx = &mut Context::from_waker(&waker);
        let mut corked = Corked::new(Peer {
            appetite: usize::MAX,
            ..Peer::default()
        });
        assert!(Pin::new(&mut corked).poll_flush(cx).is_ready());
        assert_eq!(count.0.load(std::sync::atomic::Ordering::SeqCst), 0, "nothing is owed");
        assert!(Pin::new(&mut corked).poll_write(cx, b"x").is_ready());
        assert!(Pin::new(&mut corked).poll_flush(cx).is_ready());
        assert_eq!(count.0.load(std::sync::atomic::Ordering::SeqCst), 1);
    }

    /// A flush that is asked for again without news in between sends: no caller can wait for ever.
    #[tokio::test]
    async fn a_repeated_flush_sends() {
        let mut corked = Corked::new(tokio::io::duplex(64).0);
        let (near, mut far) = tokio::io::duplex(64);
        corked.stream = near;
        corked.write_all(b"ping").await.unwrap();
        corked.flush().await.unwrap();
        corked.flush().await.unwrap();
        let mut got = [0; 4];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"ping");
    }
}
