//! Secrets against the store: reads, and changes that the gate commits.

use super::{
    Fields, KvError,
    meta::{Meta, Settings, VersionState},
};
use crate::{
    base::{
        id::MountId,
        page::PageKey,
        path::Path,
        random::Random,
        time::{Clock, Timestamp},
    },
    mount::{Kind, MountRoom, Place},
    notice::Topic,
    policy::{Action, Permit},
    store::{Change, Namespace, Part, Store, StoreError, Table, Version, View},
};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// Which version to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Select {
    /// The newest.
    #[default]
    Current,
    /// By number.
    Version(u64),
    /// By label.
    Label(String),
}

/// A version that was read.
#[derive(Debug)]
pub struct Secret {
    /// The value.
    pub fields: Fields,
    /// Its number.
    pub version: u64,
    /// When it was written.
    pub created: Timestamp,
    /// Its labels, `current` first.
    pub labels: Vec<String>,
}

/// A version that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Its number.
    pub version: u64,
    /// When.
    pub created: Timestamp,
}

/// What to destroy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destroy {
    /// These versions; none may have a label.
    Versions(Vec<u64>),
    /// The secret: every version and the metadata.
    All,
}

/// A version in the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionInfo {
    /// Its number.
    pub version: u64,
    /// When it was written.
    pub created: Timestamp,
    /// What has become of it.
    pub state: VersionState,
    /// Its labels, `current` first.
    pub labels: Vec<String>,
}

/// All there is to tell of a secret but its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Kept versions, ascending.
    pub versions: Vec<VersionInfo>,
    /// The newest.
    pub current: u64,
    /// How many are kept.
    pub versions_max: u32,
    /// Whether a put must name the current version.
    pub cas_required: bool,
    /// Custom metadata.
    pub custom: BTreeMap<String, String>,
}

/// The facade of the room.
pub struct KvRoom {
    pub(super) meta: View,
    values: View,
    mounts: Arc<MountRoom>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    pub(super) pages: PageKey,
}

/// Where a secret is: its mount and the segments below.
pub(super) struct At<'a> {
    mount: &'a MountId,
    rest: &'a Path,
    whole: &'a Path,
}

impl<'a> At<'a> {
    /// The place, if it is the permit's and could have a secret.
    fn of(permit: &'a Permit, action: Action, place: &'a Place) -> Result<Self, KvError> {
        let rest = place.rest.as_ref().ok_or(KvError::NoSecretPath)?;
        let same = place.mount.kind() == Kind::Kv && permit.path().below(place.mount.path()).as_ref() == Some(rest);
        if !same {
            return Err(crate::policy::Mismatch.into());
        }
        permit.covers(action, permit.path())?;
        Ok(Self {
            mount: place.mount.id_ref(),
            rest,
            whole: permit.path(),
        })
    }

    /// Who watches the secret is told of its changes.
    fn topic(&self) -> Topic {
        Topic::Path(self.whole.clone())
    }

    fn key(&self) -> Vec<Part<'_>> {
        key(self.mount, Some(self.rest))
    }
}

/// Metadata lies under the mount's id and the path's segments.
pub(super) fn key<'a>(mount: &'a MountId, below: Option<&'a Path>) -> Vec<Part<'a>> {
    std::iter::once(Part::Raw(mount.as_bytes()))
        .chain(below.into_iter().flat_map(Path::segments).map(Part::Name))
        .collect()
}

impl KvRoom {
    /// Opens the room; reads nothing.
    /// # Errors
    /// The store is sealed; no locked memory.
    pub fn open(
        store: &Store,
        mounts: Arc<MountRoom>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, KvError> {
        let (meta, values) = (
            store.view(Namespace::ROOT, Table::KvMeta),
            store.view(Namespace::ROOT, Table::KvValue),
        );
        let pages = PageKey::derive(store.keyring()?.audit_key())?;
        Ok(Self {
            meta,
            values,
            mounts,
            clock,
            random,
            pages,
        })
    }

    /// Reads a version: one look-up for a small current one, else two.
    /// # Errors
    /// [`KvError::NotFound`], `NoVersion`, `NoLabel`, `Deleted`, `Destroyed`.
    pub async fn get(&self, permit: &Permit, place: &Place, select: &Select) -> Result<Secret, KvError> {
        let at = At::of(permit, Action::Read, place)?;
        let (mut meta, _) = self.read(&at).await?;
        let version = match select {
            Select::Current => meta.newest,
            Select::Version(version) => *version,
            Select::Label(label) => meta.labelled(label)?,
        };
        let created = meta.live(version)?.created;
        let fields = match meta.inline.take() {
            Some(inline) if version == meta.newest => inline,
            _ => self.value(&at, &meta, version).await?,
        };
        Ok(Secret {
            fields,
            version,
            created,
            labels: owned(meta.labels_of(version)),
        })
    }

    /// Writes the next version. `cas`: the version that must be current, 0 = none.
    /// # Errors
    /// [`KvError::Cas`], `CasRequired`; `Mount(Closed)`.
    pub async fn put(
        &self,
        permit: &Permit,
        place: &Place,
        fields: Fields,
        cas: Option<u64>,
    ) -> Result<(Change, Written), KvError> {
        let at = At::of(permit, Action::Write, place)?;
        let created = self.clock.now();
        let found = self.find(&at).await?;
        let mut change = self.change(&at, place)?;
        let mut meta = match found {
            Some((meta, version)) => {
                change.require_version(&self.meta, &at.key(), version);
                meta
            }
            None => {
                change.require_absent(&self.meta, &at.key());
                let mut id = [0; 16];
                self.random.fill(&mut id);
                Meta::new(id)
            }
        };
        let put = meta.put(fields, cas, created)?;
        for version in put.erase {
            self.erase(&mut change, &at, &meta, version);
        }
        for (version, fields) in put.write {
            change.put(
                &self.values,
                &value_key(&at, &meta, &version.to_be_bytes()),
                fields.into_encoded(),
            );
        }
        change.put(&self.meta, &at.key(), meta.encode());
        Ok((
            change,
            Written {
                version: put.version,
                created,
            },
        ))
    }

    /// Hides versions (none named: the current one) until they are undeleted.
    /// # Errors
    /// [`KvError::NotFound`], `NoVersion`.
    pub async fn delete(&self, permit: &Permit, place: &Place, versions: &[u64]) -> Result<Change, KvError> {
        let at = At::of(permit, Action::Delete, place)?;
        let (mut meta, found) = self.read(&at).await?;
        meta.delete(versions, self.clock.now())?;
        self.replace(&at, place, &meta, found)
    }

    /// Brings hidden versions back (none named: the current one).
    /// # Errors
    /// [`KvError::NotFound`], `NoVersion`, `Destroyed`.
    pub async fn undelete(&self, permit: &Permit, place: &Place, versions: &[u64]) -> Result<Change, KvError> {
        let at = At::of(permit, Action::Undelete, place)?;
        let (mut meta, found) = self.read(&at).await?;
        meta.undelete(versions)?;
        self.replace(&at, place, &meta, found)
    }

    /// Erases for good: versions without a label, or the secret whole.
    /// # Errors
    /// [`KvError::NotFound`], `NoVersion`, `Labelled`.
    pub async fn destroy(&self, permit: &Permit, place: &Place, what: &Destroy) -> Result<Change, KvError> {
        let at = At::of(permit, Action::Destroy, place)?;
        let (mut meta, found) = match self.read(&at).await {
            // The only way to have the path back. Its versions cannot be named any more: they stay in the store, sealed and out of reach.
            Err(KvError::Damaged | KvError::Store(StoreError::Damaged { .. })) if *what == Destroy::All => {
                let mut change = Change::new();
                change.delete(&self.meta, &at.key()).tell(at.topic());
                return Ok(change);
            }
            read => read?,
        };
        let (mut change, gone) = match what {
            Destroy::Versions(versions) => {
                let gone = meta.destroy(versions)?;
                (self.replace(&at, place, &meta, found)?, gone)
            }
            Destroy::All => {
                let mut change = Change::new();
                change
                    .require_version(&self.meta, &at.key(), found)
                    .delete(&self.meta, &at.key())
                    .tell(at.topic());
                (change, meta.recorded().collect())
            }
        };
        for version in gone {
            self.erase(&mut change, &at, &meta, version);
        }
        Ok(change)
    }

    /// All there is to tell but values.
    /// # Errors
    /// [`KvError::NotFound`].
    pub async fn history(&self, permit: &Permit, place: &Place) -> Result<History, KvError> {
        let at = At::of(permit, Action::Metadata, place)?;
        let (meta, _) = self.read(&at).await?;
        let info = |entry: &super::meta::Entry| VersionInfo {
            version: entry.version,
            created: entry.created,
            state: entry.state,
            labels: owned(meta.labels_of(entry.version)),
        };
        Ok(History {
            versions: meta.versions.iter().map(info).collect(),
            current: meta.newest,
            versions_max: meta.versions_max,
            cas_required: meta.cas_required,
            custom: meta.custom.clone(),
        })
    }

    /// Custom metadata, the number of versions kept, labels.
    /// # Errors
    /// [`KvError::NotFound`], and one for each bound.
    pub async fn set(&self, permit: &Permit, place: &Place, settings: &Settings) -> Result<Change, KvError> {
        let at = At::of(permit, Action::Write, place)?;
        let (mut meta, found) = self.read(&at).await?;
        meta.set(settings)?;
        self.replace(&at, place, &meta, found)
    }

    /// Whether a mount holds no secret: what disabling it asks.
    /// # Errors
    /// The store.
    pub async fn is_empty(&self, mount: MountId) -> Result<bool, KvError> {
        let page = self.meta.scan(&key(&mount, None), None, 1).await?;
        Ok(page.entries.is_empty() && page.damaged.is_empty())
    }

    async fn find(&self, at: &At<'_>) -> Result<Option<(Meta, Version)>, KvError> {
        let Some(found) = self.meta.get(&at.key()).await? else {
            return Ok(None);
        };
        let meta = Meta::decode(&found.value).ok_or(KvError::Damaged)?;
        Ok(Some((meta, found.version)))
    }

    async fn read(&self, at: &At<'_>) -> Result<(Meta, Version), KvError> {
        self.find(at).await?.ok_or(KvError::NotFound)
    }

    async fn value(&self, at: &At<'_>, meta: &Meta, version: u64) -> Result<Fields, KvError> {
        let found = self.values.get(&value_key(at, meta, &version.to_be_bytes())).await?;
        found
            .and_then(|record| Fields::decode(record.value))
            .ok_or(KvError::Damaged)
    }

    /// A change in an open mount.
    fn change(&self, at: &At<'_>, place: &Place) -> Result<Change, KvError> {
        if !place.mount.is_open() {
            return Err(crate::mount::MountError::Closed.into());
        }
        let mut change = Change::new();
        self.mounts.require_open(&mut change, place.mount.id());
        change.tell(at.topic());
        Ok(change)
    }

    fn replace(&self, at: &At<'_>, place: &Place, meta: &Meta, found: Version) -> Result<Change, KvError> {
        let mut change = self.change(at, place)?;
        change
            .require_version(&self.meta, &at.key(), found)
            .put(&self.meta, &at.key(), meta.encode());
        Ok(change)
    }

    fn erase(&self, change: &mut Change, at: &At<'_>, meta: &Meta, version: u64) {
        change.delete(&self.values, &value_key(at, meta, &version.to_be_bytes()));
    }
}

fn value_key<'a>(at: &'a At<'_>, meta: &'a Meta, version: &'a [u8; 8]) -> [Part<'a>; 3] {
    [Part::Raw(at.mount.as_bytes()), Part::Raw(&meta.id), Part::Raw(version)]
}

fn owned(labels: Vec<&str>) -> Vec<String> {
    labels.into_iter().map(str::to_owned).collect()
}

impl fmt::Debug for KvRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KvRoom")
    }
}
