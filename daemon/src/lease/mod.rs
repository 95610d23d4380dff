//! Leases: promises to revoke. `intent -> active -> revoking -> gone`; nothing outside is touched before its intent is
//! durable, and nothing is forgotten before its end is proven. R-LEASE-1, R-LEASE-2, R-LEASE-3.
//! May touch: base, notice (topics), store, audit. The world outside is behind [`Targets`], which the engine room implements.
//!
//! Reading order: `record` (what is on disk), `clock` (vault time), this file, `quota` (how many), `issue` (issue and renew), `revoke` (by id,
//! by scope), `sweep` (what is due), `queue` (whose turn), `driver` (the one task that runs it all), `under_way` (how many are being revoked), `error`.
//!
//! The due index orders every lease by the next instant at which something must be done about it: an intent by its
//! creator's deadline, an active lease by its expiry, a revoking one by its next attempt. Taking a row means moving it
//! ahead by [`CLAIM_SECS`] in the same commit, so no row is due twice and everything below the mark is done. Memory holds
//! one page of it and the lanes.

mod clock;
mod driver;
mod error;
mod issue;
mod queue;
mod quota;
mod record;
mod revoke;
mod sweep;
#[cfg(test)]
mod tests;
mod under_way;

pub use clock::{HOLD_MAX, Hold, JUMP_MAX_MS};
pub use error::{LeaseError, TargetError};
pub use issue::Ask;
pub use queue::{BACKOFF_MAX, BACKOFF_MIN, LANE_QUEUE_MAX, LANE_WORKERS, WORKERS_MAX};
pub use quota::Quotas;
pub use record::{Lease, Plan, State};
pub use revoke::{Revoked, Scope};
pub use under_way::{COUNTED_MAX, UnderWay};

use crate::{
    audit::{Recorder, Trail},
    base::{
        id::{BootId, LeaseId, MountId, SessionId},
        path::Path,
        random::Random,
        time::{Clock, Timestamp},
    },
    store::{Change, CommitError, Committed, Cursor, Part, Store, StoreError},
};
use clock::VaultClock;
use parking_lot::Mutex;
use record::Books;
use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{sync::Notify, task::JoinHandle};

/// How far ahead a taken row is moved: longer than any attempt. At unseal claims of the run before count for nothing.
const CLAIM_SECS: u64 = 120;
/// Names read at once to count leases.
const COUNT_PAGE: usize = 1000;
/// Leases whose damaged records are remembered by name.
const QUARANTINED_MAX: usize = 1000;

/// Proof that what is about to change outside is durable here. An engine does nothing without one.
pub struct Durable(());

impl Durable {
    /// After the commit that said so.
    pub fn after(_: &Committed) -> Self {
        Self(())
    }
    /// Of a record that was read from the store: what is in there is durable.
    pub(crate) fn of_record(_: crate::store::Version) -> Self {
        Self(())
    }
    /// For engines' own tests, which have no store.
    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        Self(())
    }
}

/// What is known of an account's making; decides whether its absence can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Birth {
    /// It was there once.
    pub activated: bool,
    /// The run of the daemon whose sessions might still be making it.
    pub boot: BootId,
    /// No statement of theirs runs later.
    pub deadline: Timestamp,
    /// That is past.
    pub deadline_passed: bool,
}

impl Birth {
    /// Of an account that its maker has just seen, in a configuration test.
    pub fn of_test(boot: BootId) -> Self {
        Self {
            activated: true,
            boot,
            deadline: Timestamp(0),
            deadline_passed: true,
        }
    }
}

/// The world outside, as this room needs it.
#[async_trait::async_trait]
pub trait Targets: Send + Sync + 'static {
    /// Ends a lease's account and proves it. Bounded in time; may be repeated.
    async fn revoke(&self, durable: &Durable, lease: &Lease, birth: &Birth) -> Result<(), TargetError>;
    /// Moves the target's own time limit.
    async fn renew(&self, durable: &Durable, lease: &Lease, expires: Timestamp) -> Result<(), TargetError>;
}

/// What must hold for a lease to be made: other rooms' knowledge, which assemble brings here. Each method adds exactly one
/// precondition.
pub trait Grounds: Send + Sync + 'static {
    /// The session is live.
    fn session_live(&self, change: &mut Change, session: SessionId);
    /// The mount is in service.
    fn mount_open(&self, change: &mut Change, mount: MountId);
}

/// What the room is given from around it.
#[derive(Clone)]
pub struct Surroundings {
    /// The open store.
    pub store: Arc<Store>,
    /// Makes the records of what the room does on its own.
    pub recorder: Arc<Recorder>,
    /// Wall and monotonic time.
    pub clock: Arc<dyn Clock>,
    /// Chance, for ids and jitter.
    pub random: Arc<dyn Random>,
    /// This run of the daemon.
    pub boot: BootId,
    /// See [`Grounds`].
    pub grounds: Arc<dyn Grounds>,
    /// How many leases there may be.
    pub quotas: Quotas,
}

/// What happened since the room opened; for metrics.
#[derive(Debug, Default)]
pub struct Counts {
    /// Handed out.
    pub issued: AtomicU64,
    /// Prolonged.
    pub renewed: AtomicU64,
    /// Proven gone.
    pub revoked: AtomicU64,
    /// Attempts at revoking that failed.
    pub failed: AtomicU64,
    /// Made outside but never handed out.
    pub withheld: AtomicU64,
}

impl Counts {
    fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// How the room stands; for status, metrics and `doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Revocations waiting or running in memory.
    pub in_lanes: usize,
    /// Targets that are left alone for now.
    pub targets_down: usize,
    /// A leap of the wall clock that is not believed yet.
    pub hold: Option<Hold>,
    /// Leases whose records do not open; the first 1,000.
    pub quarantined: Vec<LeaseId>,
}

struct Inner {
    around: Surroundings,
    books: Books,
    time: VaultClock,
    lanes: Mutex<queue::Lanes>,
    counts: Counts,
    /// Revoking leases that were claimed by their commit and wait for the driver.
    handed: Mutex<VecDeque<(MountId, LeaseId)>>,
    /// Scopes that wait for the driver's walk.
    scopes: Mutex<VecDeque<revoke::Marker>>,
    wake: Notify,
    watchers: Mutex<Vec<std::sync::Weak<revoke::Watcher>>>,
    renewing: Mutex<HashSet<LeaseId>>,
    quarantined: Mutex<HashSet<LeaseId>>,
    counted: Mutex<under_way::Counted>,
}

/// The room. Dropping it stops all that it does; what was under way is found again at the next unseal.
pub struct LeaseRoom {
    inner: Arc<Inner>,
    targets: Arc<dyn Targets>,
    driver: JoinHandle<()>,
}

impl Drop for LeaseRoom {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A page of leases, in stored order.
#[derive(Debug)]
pub struct LeasePage {
    /// The leases; those whose records do not open are left out and counted in [`Standing::quarantined`].
    pub leases: Vec<Lease>,
    /// Where the next page begins.
    pub next: Option<Cursor>,
}

impl LeaseRoom {
    /// Opens the room: recovers what the last run left and begins to keep time. Reads a few records, however many leases there are.
    /// # Errors
    /// When the store cannot be read.
    pub async fn open(around: Surroundings, targets: Arc<dyn Targets>) -> Result<Self, StoreError> {
        let books = Books::of(&around.store);
        let kept = sweep::Kept::load(&books).await?;
        books.mark.raise(kept.mark);
        let scopes = revoke::Marker::load_all(&books).await?;
        let time = VaultClock::resume(Arc::clone(&around.clock), kept.vault_time);
        let inner = Arc::new(Inner {
            around,
            books,
            time,
            lanes: Mutex::default(),
            counts: Counts::default(),
            handed: Mutex::default(),
            scopes: Mutex::new(scopes.into()),
            wake: Notify::new(),
            watchers: Mutex::default(),
            renewing: Mutex::default(),
            quarantined: Mutex::default(),
            counted: Mutex::default(),
        });
        let driver = tokio::spawn(driver::run(Arc::clone(&inner), Arc::clone(&targets), kept));
        Ok(Self { inner, targets, driver })
    }

    /// Vault time.
    pub fn now(&self) -> Timestamp {
        self.inner.time.now()
    }

    /// An operator says that the wall clock's leap is right.
    pub fn confirm_time(&self) {
        self.inner.time.confirm();
        self.inner.wake.notify_one();
    }

    /// Counters.
    pub fn counts(&self) -> &Counts {
        &self.inner.counts
    }

    /// How the room stands.
    pub fn standing(&self) -> Standing {
        let now = self.inner.time.now();
        let (in_lanes, targets_down) = {
            let lanes = self.inner.lanes.lock();
            (lanes.len(), lanes.closed(now))
        };
        let quarantined = self.inner.quarantined.lock().iter().copied().collect();
        Standing {
            in_lanes,
            targets_down,
            hold: self.inner.time.hold(),
            quarantined,
        }
    }

    /// One lease.
    /// # Errors
    /// `Unknown`, `Damaged`.
    pub async fn get(&self, id: LeaseId) -> Result<Lease, LeaseError> {
        Ok(self.inner.books.need(id).await?.lease)
    }

    /// A page of the leases in `scope` (`None`: all), at most `limit`. Who may see which is the gate's matter.
    /// # Errors
    /// When the store cannot be read.
    pub async fn list(
        &self,
        scope: Option<&Scope>,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<LeasePage, LeaseError> {
        let (ids, next) = self.inner.page(scope, after, limit).await?;
        let mut leases = Vec::with_capacity(ids.len());
        for id in ids {
            match self.inner.books.get(id).await {
                Ok(Some(held)) => leases.push(held.lease),
                Ok(None) => {}
                Err(StoreError::Damaged { .. }) => self.inner.quarantine(id),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(LeasePage { leases, next })
    }

    /// How many leases are in `scope`. Reads the names of all of them, not the leases.
    /// # Errors
    /// When the store cannot be read.
    pub async fn count(&self, scope: &Scope) -> Result<u64, LeaseError> {
        Ok(self.inner.count(scope).await?)
    }

    /// Whether a lease of the mount is left, be it one whose record or name does not open: its account may live.
    /// # Errors
    /// When the store cannot be read.
    pub async fn any_of(&self, mount: MountId) -> Result<bool, LeaseError> {
        let page = self
            .inner
            .books
            .by_role
            .scan(&[Part::Raw(mount.as_bytes())], None, 1)
            .await?;
        Ok(!page.entries.is_empty() || !page.damaged.is_empty() || page.next.is_some())
    }
}

impl Inner {
    async fn count(&self, scope: &Scope) -> Result<u64, StoreError> {
        let (mut count, mut after) = (0, None);
        loop {
            let (ids, next) = self.page(Some(scope), after.as_ref(), COUNT_PAGE).await?;
            count += ids.len() as u64;
            match next {
                Some(next) => after = Some(next),
                None => return Ok(count),
            }
        }
    }

    async fn commit(&self, change: Change, records: Vec<crate::audit::Encoded>) -> Result<Committed, CommitError> {
        self.around.store.commit(change, records).await
    }

    /// A record of something the room does on its own.
    fn trail(&self, op: &'static str, role: &Path) -> Trail {
        let mut trail = Trail::of_system(&self.around.recorder, op);
        trail.path(role);
        trail
    }

    fn quarantine(&self, id: LeaseId) {
        let mut quarantined = self.quarantined.lock();
        if quarantined.len() < QUARANTINED_MAX && quarantined.insert(id) {
            tracing::error!(lease = %id, "a lease's record is damaged; the lease is quarantined, all others go on");
        }
    }

    /// A revoking lease that its commit has claimed: straight to the driver.
    fn hand_over(&self, mount: MountId, id: LeaseId) {
        self.handed.lock().push_back((mount, id));
        self.wake.notify_one();
    }
}
