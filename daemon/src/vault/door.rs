//! What every request passes: one atomic load and one reference count. The count is also how sealing knows that everybody has left.

use crate::store::Store;
use arc_swap::ArcSwapOption;
use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::oneshot;

/// Why nobody gets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// Never initialised.
    #[error("the vault is not initialised")]
    Blank,
    /// Sealed.
    #[error("the vault is sealed")]
    Sealed,
}

/// A request inside. While any lives the rooms do; after a seal that could not wait longer they live on without keys.
pub struct Guard<R>(Arc<Inside<R>>);

impl<R> Clone for Guard<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R> Deref for Guard<R> {
    type Target = R;
    fn deref(&self) -> &R {
        &self.0.rooms
    }
}

/// The rooms and whoever waits for the last guard.
pub(super) struct Inside<R> {
    pub rooms: Arc<R>,
    pub store: Arc<Store>,
    /// Dropped with the last guard: the receiver learns by that.
    _occupied: oneshot::Sender<()>,
}

pub(super) struct Door<R> {
    inside: ArcSwapOption<Inside<R>>,
    /// Resolves when the last guard of the present opening is gone.
    left: parking_lot::Mutex<Option<oneshot::Receiver<()>>>,
    initialised: AtomicBool,
}

/// A closed door's inside: to be waited for.
pub(super) struct Leaving<R> {
    pub rooms: Arc<R>,
    pub store: Arc<Store>,
    /// Resolves when nobody is inside any more.
    pub left: oneshot::Receiver<()>,
}

impl<R> Door<R> {
    pub fn new(initialised: bool) -> Self {
        Self {
            inside: ArcSwapOption::empty(),
            left: parking_lot::Mutex::new(None),
            initialised: AtomicBool::new(initialised),
        }
    }

    pub fn enter(&self) -> Result<Guard<R>, Closed> {
        match self.inside.load_full() {
            Some(inside) => Ok(Guard(inside)),
            None if self.initialised.load(Ordering::Acquire) => Err(Closed::Sealed),
            None => Err(Closed::Blank),
        }
    }

    pub fn initialised(&self) {
        self.initialised.store(true, Ordering::Release);
    }

    pub fn open(&self, rooms: Arc<R>, store: Arc<Store>) {
        let (occupied, left) = oneshot::channel();
        *self.left.lock() = Some(left);
        self.inside.store(Some(Arc::new(Inside {
            rooms,
            store,
            _occupied: occupied,
        })));
    }

    /// Nobody new gets in from here on. `None`: it was closed.
    pub fn close(&self) -> Option<Leaving<R>> {
        let inside = self.inside.swap(None)?;
        let left = self.left.lock().take()?;
        Some(Leaving {
            rooms: inside.rooms.clone(),
            store: inside.store.clone(),
            left,
        })
    }
}
