//! Static secrets: get, put, list, delete, undelete, destroy, history, metadata.

use super::prelude::*;
use crate::{
    kv::{self, Destroy as What, Fields, History as Told, ListQuery, Listing, Secret, Settings, Written},
    mount::{Kind, Place},
};
use bytes::Bytes;
use std::collections::BTreeMap;

fn place(rooms: &Open, path: &Path) -> Result<Place, Failure> {
    Ok(rooms.mounts.resolve(path)?.of_kind(Kind::Kv)?)
}

fn note_versions(trail: &mut Trail, versions: &[u64]) {
    trail.param_u64("versions", versions.len() as u64);
    if let [only] = versions {
        trail.param_u64("version", *only);
    }
}

/// Reads a version.
pub struct Get {
    /// The secret.
    pub path: Path,
    /// Which version.
    pub select: kv::Select,
}

impl Operation for Get {
    type Reply = Secret;
    const NAME: &'static str = "kv.get";
    const CLASS: Class = Class::Read;
    fn describe(&self, _: &mut Trail) {}
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::Read, self.path.clone()))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, trail: &mut Trail) -> Result<Effect<Secret>, Failure> {
        let secret = rooms.kv.get(permit, &place(rooms, &self.path)?, &self.select).await?;
        trail.param_u64("version", secret.version);
        Ok(Effect::Answer(secret))
    }
}

/// Writes the next version.
pub struct Put {
    /// The secret.
    pub path: Path,
    /// Its fields, as they came.
    pub fields: BTreeMap<String, Bytes>,
    /// Check-and-set.
    pub cas: Option<u64>,
}

impl Operation for Put {
    type Reply = Written;
    const NAME: &'static str = "kv.put";
    const CLASS: Class = Class::Change;
    fn remember(reply: &Written) -> Option<Written> {
        Some(*reply)
    }
    fn describe(&self, trail: &mut Trail) {
        trail.param_u64("fields", self.fields.len() as u64);
        note_cas(trail, self.cas);
    }
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::Write, self.path.clone()))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, trail: &mut Trail) -> Result<Effect<Written>, Failure> {
        let fields = Fields::new(self.fields.iter().map(|(name, value)| (name.as_str(), &**value)))
            .map_err(kv::KvError::from)?;
        let (change, written) = rooms
            .kv
            .put(permit, &place(rooms, &self.path)?, fields, self.cas)
            .await?;
        trail.param_u64("version", written.version);
        Ok(Effect::Change(change, written))
    }
}

/// Lists a mount or a folder; without a path, the mounts.
pub struct List {
    /// The folder.
    pub path: Option<Path>,
    /// How.
    pub query: ListQuery,
}

impl Operation for List {
    type Reply = Listing;
    const NAME: &'static str = "kv.list";
    const CLASS: Class = Class::Read;
    fn describe(&self, trail: &mut Trail) {
        trail.param_bool("recursive", self.query.recursive);
        trail.param_bool("search", !self.query.search.is_empty());
    }
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        match &self.path {
            Some(path) => Ok(Target::new(Action::List, path.clone())),
            None => Ok(Target::own(
                Action::List,
                Path::parse("sys/mount").map_err(|_| Reason::Internal)?,
            )),
        }
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, trail: &mut Trail) -> Result<Effect<Listing>, Failure> {
        let listing = match &self.path {
            Some(path) => rooms.kv.list(permit, &place(rooms, path)?, &self.query).await?,
            None => mounts(rooms, permit, &self.query),
        };
        trail.param_u64("entries", listing.entries.len() as u64);
        Ok(Effect::Answer(listing))
    }
}

/// The mounts of secrets that the caller may see; there are never more than fit in one answer.
fn mounts(rooms: &Open, permit: &Permit, query: &ListQuery) -> Listing {
    let kv = rooms
        .mounts
        .list(permit)
        .into_iter()
        .filter(|mount| mount.kind() == Kind::Kv);
    let entries = kv
        .map(|mount| kv::ListEntry {
            name: format!("{}/", mount.path()),
            folder: true,
        })
        .filter(|entry| query.wants(&entry.name))
        .collect();
    Listing {
        entries,
        next: None,
        damaged: 0,
    }
}

macro_rules! by_versions {
    ($($(#[$doc:meta])* $op:ident = $name:literal, $action:ident, $method:ident;)*) => {$(
        $(#[$doc])*
        pub struct $op {
            /// The secret.
            pub path: Path,
            /// Which versions; none named: the current one.
            pub versions: Vec<u64>,
        }
        impl Operation for $op {
            type Reply = ();
            const NAME: &'static str = $name;
            const CLASS: Class = Class::Change;
    fn remember(_: &()) -> Option<()> {
        Some(())
    }
            fn describe(&self, trail: &mut Trail) {
                note_versions(trail, &self.versions);
            }
            async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
                Ok(Target::new(Action::$action, self.path.clone()))
            }
            async fn handle(&self, rooms: &Open, permit: &Permit, _: &mut Trail) -> Result<Effect<()>, Failure> {
                let change = rooms.kv.$method(permit, &place(rooms, &self.path)?, &self.versions).await?;
                Ok(Effect::Change(change, ()))
            }
        }
    )*};
}

by_versions! {
    /// Hides versions.
    Delete = "kv.delete", Delete, delete;
    /// Shows them again.
    Undelete = "kv.undelete", Undelete, undelete;
}

/// Erases versions, or the whole secret, for good.
pub struct Destroy {
    /// The secret.
    pub path: Path,
    /// What of it.
    pub what: What,
}

impl Operation for Destroy {
    type Reply = ();
    const NAME: &'static str = "kv.destroy";
    const TENDS: bool = true;
    const CLASS: Class = Class::Change;
    fn remember(_: &()) -> Option<()> {
        Some(())
    }
    fn describe(&self, trail: &mut Trail) {
        match &self.what {
            What::All => trail.param_bool("all", true),
            What::Versions(versions) => note_versions(trail, versions),
        }
    }
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::Destroy, self.path.clone()))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, _: &mut Trail) -> Result<Effect<()>, Failure> {
        Ok(Effect::Change(
            rooms.kv.destroy(permit, &place(rooms, &self.path)?, &self.what).await?,
            (),
        ))
    }
}

/// Tells of every version, without values.
pub struct History {
    /// The secret.
    pub path: Path,
}

impl Operation for History {
    type Reply = Told;
    const NAME: &'static str = "kv.history";
    const CLASS: Class = Class::Read;
    fn describe(&self, _: &mut Trail) {}
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::Metadata, self.path.clone()))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, _: &mut Trail) -> Result<Effect<Told>, Failure> {
        Ok(Effect::Answer(
            rooms.kv.history(permit, &place(rooms, &self.path)?).await?,
        ))
    }
}

/// Changes what is not a value.
pub struct SetMetadata {
    /// The secret.
    pub path: Path,
    /// What changes.
    pub settings: Settings,
}

impl Operation for SetMetadata {
    type Reply = ();
    const NAME: &'static str = "kv.set-metadata";
    const CLASS: Class = Class::Change;
    fn remember(_: &()) -> Option<()> {
        Some(())
    }
    fn describe(&self, trail: &mut Trail) {
        trail.param_u64("labels", self.settings.labels.len() as u64);
        trail.param_bool("custom", self.settings.custom.is_some());
    }
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::Write, self.path.clone()))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, _: &mut Trail) -> Result<Effect<()>, Failure> {
        Ok(Effect::Change(
            rooms.kv.set(permit, &place(rooms, &self.path)?, &self.settings).await?,
            (),
        ))
    }
}
