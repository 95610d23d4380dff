//! The mount table: which engine is at which path.
//!
//! May touch: `base`, `policy::Permit`, `store::View` and `store::Change`. All mounts are in memory, behind one pointer: a look-up takes
//! no lock. One record a mount and a *generation* record that every change of the table replaces, so that no two changes made at once can
//! nest one mount in another.
//! Reading order: [`MountRoom`], `table`, `record`.
//!
//! A mount that lives has an *open mark* in the store, its own record. What must not outlive the mount (a lease, a version of a secret)
//! is committed on the condition that the mark is there ([`MountRoom::require_open`]). Disabling is therefore three steps, each durable:
//! [`MountRoom::close`] takes the mark away; then the gate sees that nothing is left (a kv mount must hold no secret, leases must be
//! gone or are revoked); then [`MountRoom::remove`], or [`MountRoom::reopen`].

mod error;
mod record;
mod table;
#[cfg(test)]
mod tests;

pub use error::MountError;
pub use table::{Kind, MountInfo, Place};

use crate::{
    base::{id::MountId, path::Path, random::Random, time::Clock},
    policy::{Action, Permit},
    store::{Change, Namespace, Part, Store, Table as StoreTable, Version, View},
};
use arc_swap::ArcSwap;
use record::MountRecord;
use std::{fmt, sync::Arc};
use table::Table;
use zeroize::Zeroizing;

/// Mounts of one vault.
pub const MOUNTS_MAX: usize = 1024;
/// A mount's description, in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 256;
/// Segments of a mount's path.
pub const MOUNT_SEGMENTS_MAX: usize = 4;
/// Paths that begin so are the vault's own: policies, tokens, groups.
pub const RESERVED: &str = "sys";

const GENERATION: &[Part<'static>] = &[Part::Raw(b"generation")];
const LOAD_ENTRIES: usize = 1000;
const CATCH_UP_TRIES: usize = 1000;

/// The facade of the room.
pub struct MountRoom {
    view: View,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    table: Arc<ArcSwap<Table>>,
}

impl MountRoom {
    /// Reads the table. A damaged record leaves its mount out: nothing of it can be reached, and nothing is lost.
    /// # Errors
    /// The store.
    pub async fn load(store: &Store, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Result<Self, MountError> {
        let view = store.view(Namespace::ROOT, StoreTable::Mount);
        let (mut table, mut after) = (Table::default(), None);
        loop {
            let page = view.scan(&[], after.as_ref(), LOAD_ENTRIES).await?;
            for entry in page.entries {
                table.load(&entry.key, &entry.record.value);
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok(Self {
            view,
            clock,
            random,
            table: Arc::new(ArcSwap::from_pointee(table.settled())),
        })
    }

    /// Which mount `path` is in, and what is below it. Takes no lock.
    /// # Errors
    /// [`MountError::NotFound`]: answered like a path that is forbidden.
    pub fn resolve(&self, path: &Path) -> Result<Place, MountError> {
        self.table.load().resolve(path).ok_or(MountError::NotFound)
    }

    /// The mount exactly at `path`.
    /// # Errors
    /// [`MountError::NotFound`].
    pub fn at(&self, path: &Path) -> Result<Arc<MountInfo>, MountError> {
        self.table.load().at(path).cloned().ok_or(MountError::NotFound)
    }

    /// The mount with this id, for leases that name it.
    pub fn by_id(&self, id: MountId) -> Option<Arc<MountInfo>> {
        self.table.load().by_id(id).cloned()
    }

    /// All mounts in order of path: for the daemon itself.
    pub fn all(&self) -> Vec<Arc<MountInfo>> {
        self.table.load().all().cloned().collect()
    }

    /// The mounts that the caller may see, in order of path: those it may `mount_read` or `list`.
    pub fn list(&self, permit: &Permit) -> Vec<Arc<MountInfo>> {
        let seen = |mount: &&Arc<MountInfo>| {
            [Action::MountRead, Action::List]
                .iter()
                .any(|action| permit.also(*action, mount.path()))
        };
        self.table.load().all().filter(seen).cloned().collect()
    }

    /// Makes `change` conditional: only while the mount is open.
    pub fn require_open(&self, change: &mut Change, mount: MountId) {
        change.require_exists(&self.view, &open_mark(&mount));
    }

    /// Enables an engine at the permit's path. A mount does not lie in another one; `sys` is the vault's own.
    /// # Errors
    /// See [`MountError`]; the texts say what to do.
    pub async fn enable(
        &self,
        permit: &Permit,
        kind: Kind,
        description: &str,
    ) -> Result<(Change, Arc<MountInfo>), MountError> {
        let path = permit.path();
        permit.covers(Action::MountWrite, path)?;
        if path.segments().next() == Some(RESERVED) {
            return Err(MountError::Reserved);
        }
        if path.segments().count() > MOUNT_SEGMENTS_MAX {
            return Err(MountError::TooDeep);
        }
        if description.len() > DESCRIPTION_BYTES_MAX || description.chars().any(char::is_control) {
            return Err(MountError::Description);
        }
        let basis = self.basis().await?;
        if let Some(near) = basis.table.near(path) {
            return Err(if near == path {
                MountError::Exists
            } else {
                MountError::Nested { mount: near.clone() }
            });
        }
        if basis.table.all().count() >= MOUNTS_MAX {
            return Err(MountError::Full);
        }
        let id = MountId::random(&*self.random);
        let info = MountInfo::new(id, path.clone(), kind, description, self.clock.now());
        let mut change = self.next(&basis, basis.table.with(info.clone()));
        change.put(&self.view, &key(&id), MountRecord::of(&info).encode()?).put(
            &self.view,
            &open_mark(&id),
            Zeroizing::new(Vec::new()),
        );
        Ok((change, Arc::new(info)))
    }

    /// First step of disabling: from its commit on nothing new comes to be in the mount. A mount that is closed already stays so.
    /// # Errors
    /// [`MountError::NotFound`], `Busy`.
    pub async fn close(&self, permit: &Permit) -> Result<(Change, Arc<MountInfo>), MountError> {
        let (basis, info) = self.own(permit).await?;
        let mut change = self.next(&basis, basis.table.with(info.opened(false)));
        change.delete(&self.view, &open_mark(&info.id()));
        Ok((change, info))
    }

    /// Instead of the last step: the mount is in service again.
    /// # Errors
    /// [`MountError::NotFound`], `Busy`.
    pub async fn reopen(&self, permit: &Permit) -> Result<Change, MountError> {
        let (basis, info) = self.own(permit).await?;
        let mut change = self.next(&basis, basis.table.with(info.opened(true)));
        change.put(&self.view, &open_mark(&info.id()), Zeroizing::new(Vec::new()));
        Ok(change)
    }

    /// Last step: the path is free. The caller has seen that the closed mount is empty.
    /// # Errors
    /// [`MountError::NotFound`]; `Open` when it was not closed first; `Busy`.
    pub async fn remove(&self, permit: &Permit) -> Result<Change, MountError> {
        let (basis, info) = self.own(permit).await?;
        if info.is_open() {
            return Err(MountError::Open);
        }
        let mut change = self.next(&basis, basis.table.without(info.path()));
        change.delete(&self.view, &key(&info.id()));
        Ok(change)
    }

    async fn own(&self, permit: &Permit) -> Result<(Basis, Arc<MountInfo>), MountError> {
        permit.covers(Action::MountWrite, permit.path())?;
        let basis = self.basis().await?;
        let info = basis.table.at(permit.path()).cloned().ok_or(MountError::NotFound)?;
        Ok((basis, info))
    }

    /// The table in memory, in agreement with the generation record.
    async fn basis(&self) -> Result<Basis, MountError> {
        for _ in 0..CATCH_UP_TRIES {
            let table = self.table.load_full();
            let (generation, version) = match self.view.get(GENERATION).await? {
                Some(found) => (
                    found.value.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)),
                    Some(found.version),
                ),
                None => (Some(0), None),
            };
            if generation == Some(table.generation()) {
                return Ok(Basis { table, version });
            }
            // Committed, and memory follows in a moment, before the acknowledgement.
            tokio::task::yield_now().await;
        }
        Err(MountError::Busy)
    }

    fn next(&self, basis: &Basis, next: Table) -> Change {
        let mut change = Change::new();
        match basis.version {
            Some(version) => change.require_version(&self.view, GENERATION, version),
            None => change.require_absent(&self.view, GENERATION),
        };
        change.put(
            &self.view,
            GENERATION,
            Zeroizing::new(next.generation().to_be_bytes().to_vec()),
        );
        let table = self.table.clone();
        change.then(move || table.store(Arc::new(next)));
        change
    }
}

struct Basis {
    table: Arc<Table>,
    version: Option<Version>,
}

fn key(id: &MountId) -> [Part<'_>; 1] {
    [Part::Raw(id.as_bytes())]
}

/// Beside the mount's record: below it by its key.
fn open_mark(id: &MountId) -> [Part<'_>; 2] {
    [Part::Raw(id.as_bytes()), Part::Raw(b"open")]
}

impl fmt::Debug for MountRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MountRoom")
    }
}
