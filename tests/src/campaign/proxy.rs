//! A TCP proxy in front of PostgreSQL, or of the daemon, that can stop the world at one statement: before the server hears it, or after the
//! server has done it and before the daemon hears so. What is held can be dropped, or delivered late, as a network would. It can also cut
//! every connection, and let every piece come late.

use super::{Tried, doing};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, watch},
    task::JoinHandle,
};

/// Where the statement is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hold {
    /// On its way to the server.
    Request,
    /// The server has answered; the answer is on its way back.
    Answer,
}

/// What becomes of what is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Held,
    Delivered,
    Dropped,
}

struct Arm {
    pattern: &'static str,
    hold: Hold,
    reached: Arc<Notify>,
    fate: watch::Receiver<Fate>,
}

#[derive(Default)]
struct Shared {
    arm: Mutex<Option<Arm>>,
    open: AtomicU64,
    cut: watch::Sender<u64>,
    lag_millis: AtomicU64,
    lagged: AtomicU64,
}

/// The proxy; ends when dropped.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// An armed proxy. Dropping it drops what is held.
pub struct Held {
    reached: Arc<Notify>,
    fate: watch::Sender<Fate>,
}

impl Held {
    /// Until a matching statement is held.
    pub async fn reached(&self) {
        self.reached.notified().await;
    }
    pub fn release(&self, fate: Fate) {
        self.fate.send_replace(fate);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.fate.send_if_modified(|fate| {
            let open = *fate == Fate::Held;
            if open {
                *fate = Fate::Dropped;
            }
            open
        });
    }
}

impl Proxy {
    /// Listens on a port of its own for connections to `server` (a port on the loopback).
    pub async fn start(server: u16) -> Tried<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .map_err(doing("the proxy's port"))?;
        let (port, shared) = (listener.local_addr()?.port(), Arc::new(Shared::default()));
        let all = shared.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let shared = all.clone();
                tokio::spawn(async move {
                    if let Ok(far) = TcpStream::connect(("127.0.0.1", server)).await {
                        join(near, far, shared);
                    }
                });
            }
        });
        Ok(Self {
            port,
            shared,
            accepting,
        })
    }

    /// The next statement that contains `pattern` is held.
    pub fn arm(&self, pattern: &'static str, hold: Hold) -> Held {
        let (reached, (fate, seen)) = (Arc::new(Notify::new()), watch::channel(Fate::Held));
        *self.lock() = Some(Arm {
            pattern,
            hold,
            reached: reached.clone(),
            fate: seen,
        });
        Held { reached, fate }
    }

    pub fn disarm(&self) {
        *self.lock() = None;
    }

    /// Ends every connection; how many there were.
    pub fn cut(&self) -> u64 {
        let open = self.shared.open.load(Ordering::SeqCst);
        self.shared.cut.send_modify(|cuts| *cuts += 1);
        open
    }

    /// From now on every piece, each way, comes this much later (zero: at once).
    pub fn lag(&self, lag: Duration) {
        let millis = u64::try_from(lag.as_millis()).unwrap_or(u64::MAX);
        self.shared.lag_millis.store(millis, Ordering::SeqCst);
    }

    /// Pieces that came late until now.
    pub fn lagged(&self) -> u64 {
        self.shared.lagged.load(Ordering::SeqCst)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arm>> {
        self.shared.arm.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Shared {
    async fn lag(&self) {
        let millis = self.lag_millis.load(Ordering::SeqCst);
        if millis > 0 {
            self.lagged.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
    }

    /// Takes the arm if this chunk is what it waits for.
    fn matches(&self, chunk: &[u8]) -> Option<Arm> {
        let mut arm = self.arm.lock().unwrap_or_else(PoisonError::into_inner);
        let pattern = arm.as_ref()?.pattern.as_bytes();
        chunk
            .windows(pattern.len())
            .any(|window| window == pattern)
            .then(|| arm.take())?
    }
}

fn join(near: TcpStream, far: TcpStream, shared: Arc<Shared>) {
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let (answers, gate) = watch::channel(None::<watch::Receiver<Fate>>);
    let notify = Arc::new(Mutex::new(None));
    let dropped = Arc::new(AtomicBool::new(false));
    let mut cut = shared.cut.subscribe();
    tokio::spawn(async move {
        shared.open.fetch_add(1, Ordering::SeqCst);
        let there = requests(
            near_in,
            far_out,
            shared.clone(),
            answers,
            notify.clone(),
            dropped.clone(),
        );
        let back = replies(far_in, near_out, shared.clone(), gate, notify, dropped);
        tokio::select! {
            _ = async { tokio::join!(there, back) } => {}
            _ = cut.changed() => {}
        }
        shared.open.fetch_sub(1, Ordering::SeqCst);
    });
}

type Slot = Arc<Mutex<Option<Arc<Notify>>>>;

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: Arc<Shared>,
    answers: watch::Sender<Option<watch::Receiver<Fate>>>,
    notify: Slot,
    dropped: Arc<AtomicBool>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        shared.lag().await;
        let chunk = buffer.get(..read).unwrap_or_default();
        match shared.matches(chunk) {
            Some(arm) if arm.hold == Hold::Request => {
                arm.reached.notify_one();
                if !delivered(arm.fate).await {
                    dropped.store(true, Ordering::Relaxed);
                    return;
                }
            }
            Some(arm) => {
                *notify.lock().unwrap_or_else(PoisonError::into_inner) = Some(arm.reached);
                answers.send_replace(Some(arm.fate));
            }
            None => {}
        }
        if to.write_all(chunk).await.is_err() {
            return;
        }
    }
}

async fn replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: Arc<Shared>,
    gate: watch::Receiver<Option<watch::Receiver<Fate>>>,
    notify: Slot,
    dropped: Arc<AtomicBool>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        shared.lag().await;
        let held = gate.borrow().clone();
        if let Some(fate) = held {
            if let Some(reached) = notify.lock().unwrap_or_else(PoisonError::into_inner).take() {
                reached.notify_one();
            }
            if !delivered(fate).await {
                return;
            }
        }
        if dropped.load(Ordering::Relaxed) || to.write_all(buffer.get(..read).unwrap_or_default()).await.is_err() {
            return;
        }
    }
}

async fn delivered(mut fate: watch::Receiver<Fate>) -> bool {
    match fate.wait_for(|fate| *fate != Fate::Held).await {
        Ok(fate) => *fate == Fate::Delivered,
        Err(_) => false,
    }
}
