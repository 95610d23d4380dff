//! A mount's connections as its root account: bounded, reused, drained when another engine takes the mount over.

use super::EngineError;
use parking_lot::Mutex;
use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// An idle connection is kept this long.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// A kind's way to its server.
pub(super) trait Door: Send + Sync + 'static {
    /// A connection. Dropping it closes it, whatever it was at.
    type Session: Send + 'static;
    /// Connections at most.
    fn connections(&self) -> usize;
    /// Longest wait for a session: to connect, or for another's statement to end.
    fn patience(&self) -> Duration;
    /// A new session as the root account.
    fn open_root(&self) -> impl Future<Output = Result<Self::Session, EngineError>> + Send;
    /// Whether a session is known to be dead.
    fn is_closed(session: &Self::Session) -> bool;
}

struct Idle<S> {
    session: S,
    since: Instant,
}

/// See the module.
pub(super) struct Pool<D: Door> {
    pub door: Arc<D>,
    slots: Arc<Semaphore>,
    size: u32,
    idle: Arc<Mutex<Vec<Idle<D::Session>>>>,
}

/// A session of the pool. It goes back only by [`Lent::give_back`]: one that was left in the middle of something is closed.
pub(super) struct Lent<S> {
    session: S,
    idle: Arc<Mutex<Vec<Idle<S>>>>,
    _slot: OwnedSemaphorePermit,
}

impl<S> std::ops::Deref for Lent<S> {
    type Target = S;
    fn deref(&self) -> &S {
        &self.session
    }
}

impl<S> std::ops::DerefMut for Lent<S> {
    fn deref_mut(&mut self) -> &mut S {
        &mut self.session
    }
}

impl<S> Lent<S> {
    pub fn give_back(self) {
        let Self { session, idle, _slot } = self;
        idle.lock().push(Idle {
            session,
            since: Instant::now(),
        });
    }
}

impl<D: Door> Pool<D> {
    pub fn new(door: D) -> Self {
        let connections = door.connections();
        Self {
            slots: Arc::new(Semaphore::new(connections)),
            size: u32::try_from(connections).unwrap_or(1),
            idle: Arc::default(),
            door: Arc::new(door),
        }
    }

    /// A session: the one used last, or a new one. All in all it takes no longer than [`Door::patience`].
    pub async fn take(&self) -> Result<Lent<D::Session>, EngineError> {
        let busy = |_| EngineError::Unreachable("no connection became free or answered in time".to_owned());
        tokio::time::timeout(self.door.patience(), self.take_any())
            .await
            .map_err(busy)?
    }

    async fn take_any(&self) -> Result<Lent<D::Session>, EngineError> {
        let slot = Arc::clone(&self.slots)
            .acquire_owned()
            .await
            .map_err(|_| EngineError::Draining)?;
        let session = match self.reusable() {
            Some(session) => session,
            None => self.door.open_root().await?,
        };
        Ok(Lent {
            session,
            idle: Arc::clone(&self.idle),
            _slot: slot,
        })
    }

    fn reusable(&self) -> Option<D::Session> {
        let mut idle = self.idle.lock();
        idle.retain(|idle| !D::is_closed(&idle.session));
        let newest = idle.pop()?;
        // The pool shrinks from its old end once it is idle.
        idle.retain(|idle| idle.since.elapsed() < IDLE_MAX);
        Some(newest.session)
    }

    /// Refuses new takers and waits for those that have a session, bounded by `limit`.
    pub async fn drain(&self, limit: Duration) {
        let all = tokio::time::timeout(limit, self.slots.acquire_many(self.size)).await;
        self.slots.close();
        drop(all);
        self.idle.lock().clear();
    }
}
