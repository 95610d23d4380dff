//! One who waits: a bit an item, and a bell.

use super::{ITEMS_MAX, Notices, Topic};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use tokio::{sync::Notify, time::Instant};

#[derive(Default)]
pub(super) struct Flags {
    items: AtomicU64,
    doubted: AtomicBool,
    closed: AtomicBool,
    bell: Notify,
}

impl Flags {
    pub fn mark(&self, item: u32) {
        self.items.fetch_or(1_u64.rotate_left(item), Ordering::AcqRel);
        self.bell.notify_one();
    }
    pub fn doubt(&self) {
        self.doubted.store(true, Ordering::Release);
        self.bell.notify_one();
    }
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.bell.notify_one();
    }
}

/// What a watcher hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// This item may have changed, or its alarm has rung.
    Item(usize),
    /// Whether it may still watch is in doubt.
    Doubt,
    /// It is over: the vault is sealed, or the daemon stops.
    Closed,
}

/// A place among those who are told; given back when dropped.
pub struct Watcher {
    notices: Arc<Notices>,
    id: u64,
    topics: Vec<Topic>,
    flags: Arc<Flags>,
    alarms: Vec<Option<Instant>>,
    /// The item after the last one heard of: items take turns.
    turn: u32,
}

impl Watcher {
    pub(super) fn new(notices: Arc<Notices>, id: u64, topics: Vec<Topic>, flags: Arc<Flags>) -> Self {
        Self {
            notices,
            id,
            alarms: vec![None; topics.len()],
            topics,
            flags,
            turn: 0,
        }
    }

    /// As if the item had changed.
    pub fn mark(&self, item: usize) {
        if let Ok(item) = u32::try_from(item) {
            self.flags.mark(item);
        }
    }

    /// Rings at `at` (`None`: not at all) instead of when it was to ring before.
    pub fn alarm(&mut self, item: usize, at: Option<Instant>) {
        if let (Ok(seat), Some(alarm)) = (u8::try_from(item), self.alarms.get_mut(item)) {
            self.notices.set_alarm((self.id, seat), &self.flags, *alarm, at);
            *alarm = at;
        }
    }

    /// Waits for the next. Cancel safe: what was not returned is heard of later.
    pub async fn next(&mut self) -> Call {
        loop {
            if self.flags.closed.load(Ordering::Acquire) {
                return Call::Closed;
            }
            if self.flags.doubted.swap(false, Ordering::AcqRel) {
                return Call::Doubt;
            }
            if let Some(item) = self.take() {
                return Call::Item(item);
            }
            self.flags.bell.notified().await;
        }
    }

    /// The next marked item in turn, unmarked.
    fn take(&mut self) -> Option<usize> {
        let marked = self.flags.items.load(Ordering::Acquire).rotate_right(self.turn);
        if marked == 0 {
            return None;
        }
        let item = (self.turn + marked.trailing_zeros()) % u64::BITS;
        self.flags.items.fetch_and(!1_u64.rotate_left(item), Ordering::AcqRel);
        self.turn = (item + 1) % u64::BITS;
        usize::try_from(item).ok()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.notices.leave(self.id, &self.topics, &self.alarms);
    }
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Watcher({})", self.id)
    }
}

const _: () = assert!(ITEMS_MAX <= u64::BITS as usize);
