//! The mounts in memory: immutable, replaced whole.

use super::{MountError, record::MountRecord};
use crate::{
    base::{id::MountId, path::Path, time::Timestamp},
    store::OwnedPart,
};
use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc};

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Versioned static secrets.
    Kv,
    /// PostgreSQL accounts.
    Postgres,
    /// MariaDB accounts.
    MariaDb,
    /// RabbitMQ accounts.
    RabbitMq,
    /// Redis accounts.
    Redis,
    /// Keys that encrypt and sign for callers.
    Transit,
}

impl Kind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::Kv,
        Self::Postgres,
        Self::MariaDb,
        Self::RabbitMq,
        Self::Redis,
        Self::Transit,
    ];

    /// Whether it makes accounts in a target, and so has roles and leases.
    pub const fn makes_accounts(self) -> bool {
        match self {
            Self::Kv | Self::Transit => false,
            Self::Postgres | Self::MariaDb | Self::RabbitMq | Self::Redis => true,
        }
    }

    /// The word on the wire and in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kv => "kv",
            Self::Postgres => "postgres",
            Self::MariaDb => "mariadb",
            Self::RabbitMq => "rabbitmq",
            Self::Redis => "redis",
            Self::Transit => "transit",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = MountError;
    fn from_str(word: &str) -> Result<Self, MountError> {
        Self::ALL
            .iter()
            .find(|kind| kind.as_str() == word)
            .copied()
            .ok_or(MountError::Kind)
    }
}

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountInfo {
    id: MountId,
    path: Path,
    kind: Kind,
    description: String,
    created: Timestamp,
    open: bool,
}

impl MountInfo {
    pub(super) fn new(id: MountId, path: Path, kind: Kind, description: &str, created: Timestamp) -> Self {
        Self {
            id,
            path,
            kind,
            description: description.to_owned(),
            created,
            open: true,
        }
    }
    pub(super) fn opened(&self, open: bool) -> Self {
        Self { open, ..self.clone() }
    }
    /// Its id: a path that is enabled again gets another.
    pub fn id(&self) -> MountId {
        self.id
    }
    /// Its id, to borrow from.
    pub(crate) fn id_ref(&self) -> &MountId {
        &self.id
    }
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// Which engine.
    pub fn kind(&self) -> Kind {
        self.kind
    }
    /// The operator's words.
    pub fn description(&self) -> &str {
        &self.description
    }
    /// When it was enabled.
    pub fn created(&self) -> Timestamp {
        self.created
    }
    /// In service; `false` while it is being disabled, also after a crash in the middle.
    pub fn is_open(&self) -> bool {
        self.open
    }
}

/// A path, as its mount and what is below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The mount.
    pub mount: Arc<MountInfo>,
    /// Below the mount; `None`: the mount itself.
    pub rest: Option<Path>,
}

impl Place {
    /// The place, if its engine is of this kind.
    /// # Errors
    /// [`MountError::NotFound`]: a secret is not to be had from a database.
    pub fn of_kind(self, kind: Kind) -> Result<Self, MountError> {
        if self.mount.kind == kind {
            Ok(self)
        } else {
            Err(MountError::NotFound)
        }
    }
}

/// All mounts.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    generation: u64,
    /// By path, in order.
    mounts: BTreeMap<Box<str>, Arc<MountInfo>>,
    /// While records are read: those open marks that came before their mount would otherwise be lost.
    marks: Vec<MountId>,
}

impl Table {
    /// Takes one record of the store.
    pub fn load(&mut self, key: &[OwnedPart], value: &[u8]) {
        match key {
            [OwnedPart::Raw(word)] if word == b"generation" => {
                self.generation = value.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
            }
            [id] => match id
                .raw_array()
                .map(MountId::from_bytes)
                .and_then(|id| MountRecord::decode(id, value))
            {
                Some(info) => drop(self.mounts.insert(info.path.as_str().into(), Arc::new(info))),
                None => tracing::error!("a mount's record cannot be used: the mount is left out"),
            },
            [id, OwnedPart::Raw(word)] if word == b"open" => self.marks.extend(id.raw_array().map(MountId::from_bytes)),
            _ => tracing::error!("a record in the mount table is none of its kinds"),
        }
    }

    /// After the last record: which mounts are open.
    pub fn settled(mut self) -> Self {
        for mount in self.mounts.values_mut() {
            let open = self.marks.contains(&mount.id);
            *mount = Arc::new(mount.opened(open));
        }
        self.marks = Vec::new();
        self
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<MountInfo>> {
        self.mounts.values()
    }

    pub fn at(&self, path: &Path) -> Option<&Arc<MountInfo>> {
        self.mounts.get(path.as_str())
    }

    pub fn by_id(&self, id: MountId) -> Option<&Arc<MountInfo>> {
        self.mounts.values().find(|mount| mount.id == id)
    }

    /// Mounts do not nest, so at most one is above a path.
    pub fn resolve(&self, path: &Path) -> Option<Place> {
        let text = path.as_str();
        let ends = text
            .match_indices('/')
            .map(|(at, _)| at)
            .chain([text.len()])
            .take(super::MOUNT_SEGMENTS_MAX);
        let mount = ends.filter_map(|end| self.mounts.get(text.get(..end)?)).next()?;
        Some(Place {
            mount: mount.clone(),
            rest: path.below(&mount.path),
        })
    }

    /// A mount at `path`, above it or below it.
    pub fn near(&self, path: &Path) -> Option<&Path> {
        self.mounts
            .values()
            .map(|mount| &mount.path)
            .find(|mount| mount.is_within(path) || path.is_within(mount))
    }

    pub fn with(&self, info: MountInfo) -> Self {
        let mut next = Self {
            generation: self.generation + 1,
            ..self.clone()
        };
        next.mounts.insert(info.path.as_str().into(), Arc::new(info));
        next
    }

    pub fn without(&self, path: &Path) -> Self {
        let mut next = Self {
            generation: self.generation + 1,
            ..self.clone()
        };
        next.mounts.remove(path.as_str());
        next
    }
}
