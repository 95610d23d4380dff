//! How many leases an identity, and a mount, may have (R-LEASE-5): counted from the index when first asked for, kept in step by the commits, and
//! forgotten again when too many are known. Leases that are being revoked count: their accounts may live.

use super::{Inner, LeaseError, Scope};
use crate::{
    base::id::{IdentityId, MountId},
    store::{Change, StoreError},
};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};

/// Holders whose counts are known at once.
const KNOWN_MAX: usize = 4096;
/// How often a count is taken anew because leases came or went meanwhile. The last one may be off by those.
const COUNTS_MAX: usize = 8;

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
    /// Leases that came or went since this entry is here.
    changes: u64,
    /// Who counts.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// What is known of holders.
#[derive(Default)]
pub(super) struct Tallies(Mutex<HashMap<Holder, Tally>>);

/// Room for one more lease of a holder, while its intent is being written.
pub(super) struct Reserved {
    tallies: Arc<Tallies>,
    holder: Holder,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(tally) = self.tallies.0.lock().get_mut(&self.holder) {
            tally.pending = tally.pending.saturating_sub(1);
        }
    }
}

impl Tallies {
    /// With the commit of `change` there is one lease more.
    pub fn came(self: &Arc<Self>, change: &mut Change, identity: IdentityId, mount: MountId) {
        self.moved(change, identity, mount, 1);
    }

    /// With the commit of `change` there is one lease less.
    pub fn gone(self: &Arc<Self>, change: &mut Change, identity: IdentityId, mount: MountId) {
        self.moved(change, identity, mount, -1);
    }

    fn moved(self: &Arc<Self>, change: &mut Change, identity: IdentityId, mount: MountId, by: i64) {
        let tallies = Arc::clone(self);
        change.then(move || {
            let mut known = tallies.0.lock();
            for holder in [Holder::Identity(identity), Holder::Mount(mount)] {
                if let Some(tally) = known.get_mut(&holder) {
                    tally.changes += 1;
                    tally.leases = tally.leases.map(|leases| leases.saturating_add_signed(by));
                }
            }
        });
    }

    /// Takes room, if the count is known; `None`: there is none. An error: it must be counted first, by whose turn it is.
    fn take(self: &Arc<Self>, holder: Holder, quota: u64) -> Result<Option<Reserved>, Arc<tokio::sync::Mutex<()>>> {
        let mut known = self.0.lock();
        if known.len() >= KNOWN_MAX && !known.contains_key(&holder) {
            // Counted anew when they are needed.
            known.retain(|_, tally| tally.pending > 0 || Arc::strong_count(&tally.turn) > 1);
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
        }))
    }

    fn changes(&self, holder: Holder) -> u64 {
        self.0.lock().get(&holder).map_or(0, |tally| tally.changes)
    }

    fn counted(&self, holder: Holder, leases: u64, unless_beyond: Option<u64>) -> bool {
        let mut known = self.0.lock();
        let Some(tally) = known.get_mut(&holder) else {
            return true;
        };
        if unless_beyond.is_some_and(|changes| tally.changes != changes) {
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
                let before = self.books.tallies.changes(holder);
                let leases = self.count(&holder.scope()).await?;
                let exactly = (attempt < COUNTS_MAX).then_some(before);
                if self.books.tallies.counted(holder, leases, exactly) {
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
    /// How many holders are known.
    pub fn known(&self) -> usize {
        self.0.lock().len()
    }
}
