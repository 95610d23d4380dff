//! Who wants to hear of which change, and the one task that tells them (R-KV-4, R-ROT-4).
//!
//! May touch: `base`. The store posts a topic when a change that names it is durable, in commit order; the gate waits and looks for itself.
//! Reading order: this file (topics, the table, telling), `watcher` (one who waits).
//!
//! A notice carries nothing: a watcher learns *that* something it asked about may have changed, and looks. So one that is slow costs one bit an
//! item, whatever happens meanwhile, and what it sees then is the newest. Nothing here polls: one task tells, in turns of [`TOLD_AT_ONCE`], and
//! keeps every alarm in one ordered table.

#[cfg(test)]
mod tests;
mod watcher;

pub use watcher::{Call, Watcher};

use crate::base::{
    id::{IdentityId, LeaseId},
    path::Path,
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Bound,
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};
use watcher::Flags;

/// Items of one watcher: one bit each.
pub const ITEMS_MAX: usize = 64;
/// Watchers at once.
pub const WATCHERS_MAX: usize = 1 << 15;
/// Watchers of one identity, so that none takes all the places.
pub const WATCHERS_OF_ONE_MAX: usize = 1 << 14;
/// Watchers told before others get a turn.
const TOLD_AT_ONCE: usize = 256;
/// Between two looks at whether watchers may still watch.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Something that changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Topic {
    /// A secret, or a role with an account of its own.
    Path(Path),
    /// A lease.
    Lease(LeaseId),
}

/// Why nobody more can watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// All places are taken.
    #[error("{WATCHERS_MAX} streams are open: no more can be")]
    Everywhere,
    /// This identity has its share.
    #[error("this identity has {WATCHERS_OF_ONE_MAX} streams open: no more can be")]
    Identity,
    /// The vault is being sealed, or the daemon stops.
    #[error("no streams are opened any more")]
    Closed,
}

/// Whether a watcher may still watch. Asked every two seconds; must not wait.
pub type Welcome = Box<dyn Fn() -> bool + Send + Sync>;

struct Entry {
    flags: Arc<Flags>,
    owner: IdentityId,
    welcome: Arc<Welcome>,
}

/// Order in which watchers of a topic are told, and of alarms: by watcher, then by item.
type Seat = (u64, u8);

#[derive(Default)]
struct Table {
    topics: HashMap<Topic, BTreeMap<Seat, Arc<Flags>>>,
    watchers: BTreeMap<u64, Entry>,
    owners: HashMap<IdentityId, usize>,
    alarms: BTreeMap<(Instant, Seat), Arc<Flags>>,
    /// Topics that somebody watches and that changed: bounded by the former.
    posted: HashSet<Topic>,
    next: u64,
    closed: bool,
}

/// See the module. One for an open store.
#[derive(Default)]
pub struct Notices {
    table: Mutex<Table>,
    wake: Notify,
}

impl Notices {
    /// These may have changed. Cheap, and never waits: called on the commit thread.
    pub fn post(&self, topics: impl IntoIterator<Item = Topic>) {
        let mut table = self.table.lock();
        let mut any = false;
        for topic in topics {
            if table.topics.contains_key(&topic) {
                any |= table.posted.insert(topic);
            }
        }
        drop(table);
        if any {
            self.wake.notify_one();
        }
    }

    /// Watches `topics`, one an item, in their order. What is posted from here on is heard of.
    /// # Errors
    /// [`Full`].
    pub fn watch(self: &Arc<Self>, owner: IdentityId, topics: Vec<Topic>, welcome: Welcome) -> Result<Watcher, Full> {
        let mut table = self.table.lock();
        if table.closed {
            return Err(Full::Closed);
        }
        if table.watchers.len() >= WATCHERS_MAX {
            return Err(Full::Everywhere);
        }
        let of_owner = table.owners.entry(owner).or_default();
        if *of_owner >= WATCHERS_OF_ONE_MAX {
            return Err(Full::Identity);
        }
        *of_owner += 1;
        let id = table.next;
        table.next += 1;
        let flags = Arc::new(Flags::default());
        for (item, topic) in (0_u8..).zip(&topics) {
            table
                .topics
                .entry(topic.clone())
                .or_default()
                .insert((id, item), Arc::clone(&flags));
        }
        table.watchers.insert(
            id,
            Entry {
                flags: Arc::clone(&flags),
                owner,
                welcome: Arc::new(welcome),
            },
        );
        drop(table);
        Ok(Watcher::new(Arc::clone(self), id, topics, flags))
    }

    /// How many watch.
    pub fn count(&self) -> usize {
        self.table.lock().watchers.len()
    }

    /// The end, for everybody.
    pub fn close(&self) {
        let mut table = self.table.lock();
        table.closed = true;
        table.watchers.values().for_each(|entry| entry.flags.close());
    }

    /// Tells, until the task is dropped.
    pub async fn run(self: Arc<Self>) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let alarm = self.next_alarm();
            tokio::select! {
                () = self.wake.notified() => {}
                () = until(alarm) => {}
                _ = look.tick() => self.look().await,
            }
            self.ring();
            self.tell().await;
        }
    }

    fn next_alarm(&self) -> Option<Instant> {
        self.table.lock().alarms.first_key_value().map(|((at, _), _)| *at)
    }

    /// Alarms whose time has come.
    fn ring(&self) {
        let now = Instant::now();
        let mut table = self.table.lock();
        while let Some(entry) = table.alarms.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, (_, item)), flags) = entry.remove_entry();
            flags.mark(item.into());
        }
    }

    async fn tell(&self) {
        let posted = std::mem::take(&mut self.table.lock().posted);
        for topic in posted {
            let mut after = Bound::Unbounded;
            while let Some(last) = self.tell_some(&topic, after) {
                after = Bound::Excluded(last);
                tokio::task::yield_now().await;
            }
        }
    }

    /// Tells the next few; the last of them, unless these were all.
    fn tell_some(&self, topic: &Topic, after: Bound<Seat>) -> Option<Seat> {
        let table = self.table.lock();
        let (mut told, mut last) = (0, None);
        for (seat, flags) in table.topics.get(topic)?.range((after, Bound::Unbounded)) {
            if told == TOLD_AT_ONCE {
                return last;
            }
            flags.mark(seat.1.into());
            (told, last) = (told + 1, Some(*seat));
        }
        None
    }

    /// Watchers that may not watch any more are told to look.
    async fn look(&self) {
        let mut after = Bound::Unbounded;
        loop {
            let some: Vec<(u64, Arc<Flags>, Arc<Welcome>)> = {
                let table = self.table.lock();
                let rest = table.watchers.range((after, Bound::Unbounded));
                rest.take(TOLD_AT_ONCE)
                    .map(|(id, entry)| (*id, Arc::clone(&entry.flags), Arc::clone(&entry.welcome)))
                    .collect()
            };
            let Some((last, ..)) = some.last() else { return };
            after = Bound::Excluded(*last);
            for (_, flags, welcome) in some {
                if !welcome() {
                    flags.doubt();
                }
            }
            tokio::task::yield_now().await;
        }
    }

    fn leave(&self, id: u64, topics: &[Topic], alarms: &[Option<Instant>]) {
        let mut table = self.table.lock();
        if let Some(entry) = table.watchers.remove(&id)
            && let Some(of_owner) = table.owners.get_mut(&entry.owner)
        {
            *of_owner -= 1;
            if *of_owner == 0 {
                table.owners.remove(&entry.owner);
            }
        }
        for (item, topic) in (0_u8..).zip(topics) {
            if let Some(seats) = table.topics.get_mut(topic) {
                seats.remove(&(id, item));
                if seats.is_empty() {
                    table.topics.remove(topic);
                }
            }
        }
        for (item, alarm) in (0_u8..).zip(alarms) {
            if let Some(at) = alarm {
                table.alarms.remove(&(*at, (id, item)));
            }
        }
    }

    fn set_alarm(&self, seat: Seat, flags: &Arc<Flags>, former: Option<Instant>, at: Option<Instant>) {
        let mut table = self.table.lock();
        if let Some(former) = former {
            table.alarms.remove(&(former, seat));
        }
        let Some(at) = at else { return };
        table.alarms.insert((at, seat), Arc::clone(flags));
        let first = table
            .alarms
            .first_key_value()
            .is_some_and(|(key, _)| *key == (at, seat));
        drop(table);
        if first {
            self.wake.notify_one();
        }
    }
}

async fn until(alarm: Option<Instant>) {
    match alarm {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl std::fmt::Debug for Notices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Notices({} watchers)", self.count())
    }
}
