//! How many leases an identity, and a mount, may have (R-LEASE-5): counted from the index when first asked for, kept in step by the commits, and
//! forgotten again when too many are known. Leases that are being revoked count: their accounts may live.

use super::{Inner, LeaseError, Scope};
use crate::{
    base::id::{IdentityId, MountId},
    store::{Change, StoreError},
};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};

/// Holders whose counts are known at once.
const KNOWN_MAX: usize = 4096;
/// How often a count is taken anew because leases came or went meanwhile. The last one may be off by those.
const COUNTS_MAX: usize = 8;
/// Before a count while leases come or go.
const COUNT_PAUSE: Duration = Duration::from_millis(3);

/// The limits. An operator's: `[limits]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Leases of one identity.
    pub per_identity: u64,
    /// Leases of one mount.
    pub per_mount: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Holder {
    Identity(IdentityId),
    Mount(MountId),
}

impl Holder {
    const fn scope(self) -> Scope {
        match self {
            Self::Identity(id) => Scope::Identity(id),
            Self::Mount(id) => Scope::Mount(id),
        }
    }
}

#[derive(Default)]
struct Tally {
    /// `None`: to be counted.
    leases: Option<u64>,
    /// Intents that are being written.
    pending: u64,
    /// Changes that are on their way: the store may have them already, `leases` has not.
    moving: u64,
    /// Changes that were begun since this entry is here.
    changes: u64,
    /// Who counts.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Tally {
    fn is_idle(&self) -> bool {
        self.pending == 0 && self.moving == 0 && Arc::strong_count(&self.turn) == 1
    }
}

/// What is known of holders.
#[derive(Default)]
pub(super) struct Tallies(Mutex<HashMap<Holder, Tally>>);

/// Room for one more lease of a holder: until its intent is made, or given up.
pub(super) struct Reserved {
    tallies: Arc<Tallies>,
    holder: Holder,
    held: bool,
}

impl Reserved {
    /// The lease that the room was for is counted by itself from now on.
    fn spend(mut self, known: &mut HashMap<Holder, Tally>) {
        self.held = false;
        if let Some(tally) = known.get_mut(&self.holder) {
            tally.pending = tally.pending.saturating_sub(1);
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.held
            && let Some(tally) = self.tallies.0.lock().get_mut(&self.holder)
        {
            tally.pending = tally.pending.saturating_sub(1);
        }
    }
}

/// A change on its way to the store: one lease more or less, once it is made.
struct Moving {
    tallies: Arc<Tallies>,
    holders: [Holder; 2],
}

impl Moving {
    fn begin(tallies: &Arc<Tallies>, holders: [Holder; 2]) -> Self {
        let mut known = tallies.0.lock();
        for holder in holders {
            let tally = known.entry(holder).or_default();
            tally.moving += 1;
            tally.changes += 1;
        }
        drop(known);
        Self {
            tallies: Arc::clone(tallies),
            holders,
        }
    }

    /// It was made. The room that was kept for it goes in the same moment, so that nobody sees it counted twice.
    fn made(self, by: i64, room: Option<[Reserved; 2]>) {
        let mut known = self.tallies.0.lock();
        for holder in self.holders {
            if let Some(tally) = known.get_mut(&holder) {
                tally.leases = tally.leases.map(|leases| leases.saturating_add_signed(by));
            }
        }
        room.into_iter().flatten().for_each(|room| room.spend(&mut known));
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        let mut known = self.tallies.0.lock();
        for holder in self.holders {
            let Some(tally) = known.get_mut(&holder) else { continue };
            tally.moving = tally.moving.saturating_sub(1);
            if tally.leases.is_none() && tally.is_idle() {
                known.remove(&holder);
            }
        }
    }
}

impl Tallies {
    /// With the commit of `change` there is one lease more, which takes the room that was reserved for it.
    pub fn came(
        self: &Arc<Self>,
        change: &mut Change,
        (identity, mount): (IdentityId, MountId),
        room: Option<[Reserved; 2]>,
    ) {
        self.moved(change, identity, mount, 1, room);
    }

    /// With the commit of `change` there is one lease less.
    pub fn gone(self: &Arc<Self>, change: &mut Change, identity: IdentityId, mount: MountId) {
        self.moved(change, identity, mount, -1, None);
    }

    fn moved(
        self: &Arc<Self>,
        change: &mut Change,
        identity: IdentityId,
        mount: MountId,
        by: i64,
        room: Option<[Reserved; 2]>,
    ) {
        let moving = Moving::begin(self, [Holder::Identity(identity), Holder::Mount(mount)]);
        change.then(move || moving.made(by, room));
    }

    /// Takes room, if the count is known; `None`: there is none. An error: it must be counted first, by whose turn it is.
    fn take(self: &Arc<Self>, holder: Holder, quota: u64) -> Result<Option<Reserved>, Arc<tokio::sync::Mutex<()>>> {
        let mut known = self.0.lock();
        if known.len() >= KNOWN_MAX && !known.contains_key(&holder) {
            // Counted anew when they are needed.
            known.retain(|_, tally| !tally.is_idle());
        }
        let tally = known.entry(holder).or_default();
        let Some(leases) = tally.leases else {
            return Err(Arc::clone(&tally.turn));
        };
        if leases + tally.pending >= quota {
            return Ok(None);
        }
        tally.pending += 1;
        Ok(Some(Reserved {
            tallies: Arc::clone(self),
            holder,
            held: true,
        }))
    }

    /// The changes begun so far; `None` while one is on its way, which a count may or may not see.
    fn still(&self, holder: Holder) -> Option<u64> {
        match self.0.lock().get(&holder) {
            Some(tally) if tally.moving > 0 => None,
            Some(tally) => Some(tally.changes),
            None => Some(0),
        }
    }

    /// Takes a count that began when `still` was so; whether it was taken. Without: whatever happened meanwhile.
    fn counted(&self, holder: Holder, leases: u64, still: Option<u64>) -> bool {
        let mut known = self.0.lock();
        let Some(tally) = known.get_mut(&holder) else {
            return true;
        };
        if still.is_some_and(|changes| tally.changes != changes) {
            return false;
        }
        tally.leases = Some(leases);
        true
    }
}

impl Inner {
    /// Room for one more lease of this identity on this mount; held until its intent is durable.
    /// # Errors
    /// `Quota`; the store cannot be read.
    pub(super) async fn reserve(&self, identity: IdentityId, mount: MountId) -> Result<[Reserved; 2], LeaseError> {
        let quotas = self.around.quotas;
        let of_identity = self.room(Holder::Identity(identity), quotas.per_identity).await?;
        let of_identity = of_identity.ok_or(LeaseError::Quota {
            what: "identity",
            key: "leases_per_identity_max",
            max: quotas.per_identity,
        })?;
        let of_mount = self.room(Holder::Mount(mount), quotas.per_mount).await?;
        let of_mount = of_mount.ok_or(LeaseError::Quota {
            what: "mount",
            key: "leases_per_mount_max",
            max: quotas.per_mount,
        })?;
        Ok([of_identity, of_mount])
    }

    async fn room(&self, holder: Holder, quota: u64) -> Result<Option<Reserved>, StoreError> {
        loop {
            let turn = match self.books.tallies.take(holder, quota) {
                Ok(room) => return Ok(room),
                Err(turn) => turn,
            };
            let turn = turn.lock().await;
            for attempt in 1..=COUNTS_MAX {
                let still = self.books.tallies.still(holder);
                let last = attempt == COUNTS_MAX;
                if still.is_none() && !last {
                    tokio::time::sleep(COUNT_PAUSE).await;
                    continue;
                }
                let leases = self.count(&holder.scope()).await?;
                if self.books.tallies.counted(holder, leases, still.filter(|_| !last)) {
                    break;
                }
            }
            drop(turn);
        }
    }
}

#[cfg(test)]
impl Tallies {
    /// What is known of an identity.
    pub fn of_identity(&self, identity: IdentityId) -> Option<u64> {
        self.0.lock().get(&Holder::Identity(identity))?.leases
    }
    /// Whether nothing is on its way.
    pub fn is_still(&self) -> bool {
        self.0.lock().values().all(Tally::is_idle)
    }
    /// How many holders are known.
    pub fn known(&self) -> usize {
        self.0.lock().len()
    }
}
