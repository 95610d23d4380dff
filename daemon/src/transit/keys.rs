//! A key's life: made, rotated, narrowed, trimmed, deleted; changes that the gate commits.

use super::{
    Facts, KeyKind, TransitError, TransitRoom, VERSIONS_MAX,
    material::{Fresh, pem},
    record::VersionRecord,
    resident::Making,
    room::{At, version_key},
};
use crate::{
    base::{
        id::{MountId, TransitKeyId},
        time::Timestamp,
    },
    mount::{Kind, MountError, Place},
    policy::{Action, Permit},
    store::{Change, Children, Cursor, Part},
};
use std::sync::Arc;
use zeroize::Zeroizing;

/// A version, for whoever may look at the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionShown {
    /// Its number.
    pub version: u32,
    /// When it was made.
    pub created: Timestamp,
    /// SubjectPublicKeyInfo in PEM; empty for a symmetric key.
    pub public_pem: String,
}

/// A key, without what is secret of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyShown {
    /// Its facts.
    pub facts: Facts,
    /// Its versions, ascending.
    pub versions: Vec<VersionShown>,
}

impl TransitRoom {
    fn change(&self, place: &Place) -> Result<Change, TransitError> {
        if !place.mount.is_open() {
            return Err(MountError::Closed.into());
        }
        let mut change = Change::new();
        self.mounts.require_open(&mut change, place.mount.id());
        Ok(change)
    }

    /// A fresh version's record. On a thread of its own: an RSA key takes its time.
    async fn fresh(
        &self,
        change: &mut Change,
        kind: KeyKind,
        making: Option<Making>,
    ) -> Result<VersionRecord, TransitError> {
        if let Some(making) = making {
            let (object, public) = self.make(change, making).await?;
            let private = Zeroizing::new(object.as_bytes().to_vec());
            return Ok(VersionRecord {
                created: self.clock.now(),
                fresh: Fresh { private, public },
            });
        }
        let random = Arc::clone(&self.random);
        let make = move || Fresh::make(kind, &*random);
        let fresh = if kind.signs() { self.apart(make).await? } else { make()? };
        Ok(VersionRecord {
            created: self.clock.now(),
            fresh,
        })
    }

    /// A key that is to be made in an HSM, and what must be durable before it is: the gate commits that, then calls [`Self::create`].
    /// # Errors
    /// [`TransitError::Exists`], `NotThere`, `Signer`.
    pub async fn intend_key(
        &self,
        permit: &Permit,
        place: &Place,
        kind: KeyKind,
        hsm: &str,
    ) -> Result<(Making, Change), TransitError> {
        let at = At::of(permit, Action::Write, place)?;
        if self.keys.get(&at.key()).await?.is_some() {
            return Err(TransitError::Exists);
        }
        self.change(place)?;
        self.intend(kind, hsm)
    }

    /// The same for a further version; `None`: this key is in no HSM.
    /// # Errors
    /// [`TransitError::NotFound`], `Full`, `Signer`.
    pub async fn intend_version(
        &self,
        permit: &Permit,
        place: &Place,
    ) -> Result<Option<(Making, Change)>, TransitError> {
        let at = At::of(permit, Action::Rotate, place)?;
        let (facts, _) = self.find(&at).await?;
        next_version(&facts)?;
        self.change(place)?;
        facts.hsm.as_deref().map(|hsm| self.intend(facts.kind, hsm)).transpose()
    }

    /// Makes a key with its first version.
    /// # Errors
    /// [`TransitError::Exists`], `Signer`.
    pub async fn create(
        &self,
        permit: &Permit,
        place: &Place,
        kind: KeyKind,
        making: Option<Making>,
    ) -> Result<Change, TransitError> {
        let at = At::of(permit, Action::Write, place)?;
        let mut change = self.change(place)?;
        if self.keys.get(&at.key()).await?.is_some() {
            return Err(TransitError::Exists);
        }
        let hsm = making.as_ref().map(|making| making.hsm.clone());
        let first = self.fresh(&mut change, kind, making).await?;
        let facts = Facts::new(TransitKeyId::random(&*self.random), kind, first.created, hsm);
        let number = 1_u32.to_be_bytes();
        let key = version_key(at.mount, &facts.id, &number).map(Part::Raw);
        change
            .require_absent(&self.keys, &at.key())
            .put(&self.keys, &at.key(), facts.encode()?)
            .put(&self.versions, &key, first.encode());
        Ok(change)
    }

    /// Adds a version, which is the newest from the commit on.
    /// # Errors
    /// [`TransitError::NotFound`], `Full`, `Signer`.
    pub async fn rotate(
        &self,
        permit: &Permit,
        place: &Place,
        making: Option<Making>,
    ) -> Result<(Change, u32), TransitError> {
        let at = At::of(permit, Action::Rotate, place)?;
        let (mut facts, found) = self.find(&at).await?;
        let next = next_version(&facts)?;
        // The name was given to another key meanwhile.
        if making.as_ref().map(|making| &making.hsm) != facts.hsm.as_ref() {
            return Err(TransitError::Moved);
        }
        let mut change = self.change(place)?;
        let fresh = self.fresh(&mut change, facts.kind, making).await?;
        facts.latest = next;
        let number = next.to_be_bytes();
        let key = version_key(at.mount, &facts.id, &number).map(Part::Raw);
        change
            .require_version(&self.keys, &at.key(), found)
            .put(&self.keys, &at.key(), facts.encode()?)
            .put(&self.versions, &key, fresh.encode());
        Ok((change, next))
    }

    /// Sets the least version in use, and whether the key may be deleted.
    /// # Errors
    /// [`TransitError::NotFound`], `Versions`.
    pub async fn configure(
        &self,
        permit: &Permit,
        place: &Place,
        least: Option<u32>,
        deletable: Option<bool>,
    ) -> Result<Change, TransitError> {
        let at = At::of(permit, Action::Write, place)?;
        let (mut facts, found) = self.find(&at).await?;
        if let Some(least) = least {
            if !(facts.oldest..=facts.latest).contains(&least) {
                return Err(versions(&facts));
            }
            facts.least = least;
        }
        facts.deletable = deletable.unwrap_or(facts.deletable);
        let mut change = self.change(place)?;
        change
            .require_version(&self.keys, &at.key(), found)
            .put(&self.keys, &at.key(), facts.encode()?);
        Ok(change)
    }

    /// Erases, for good, the versions before `oldest`, which must not be in use any more.
    /// # Errors
    /// [`TransitError::NotFound`], `Versions`.
    pub async fn trim(&self, permit: &Permit, place: &Place, oldest: u32) -> Result<Change, TransitError> {
        let at = At::of(permit, Action::Destroy, place)?;
        let (mut facts, found) = self.find(&at).await?;
        if !(facts.oldest..=facts.least).contains(&oldest) {
            return Err(versions(&facts));
        }
        let mut change = self.change(place)?;
        self.erase(&mut change, &at, &facts, facts.oldest..oldest).await?;
        facts.oldest = oldest;
        change
            .require_version(&self.keys, &at.key(), found)
            .put(&self.keys, &at.key(), facts.encode()?);
        Ok(change)
    }

    /// Erases the key, for good, if that was allowed before.
    /// # Errors
    /// [`TransitError::NotFound`], `NotDeletable`.
    pub async fn delete(&self, permit: &Permit, place: &Place) -> Result<Change, TransitError> {
        let at = At::of(permit, Action::Destroy, place)?;
        let (facts, found) = self.find(&at).await?;
        if !facts.deletable {
            return Err(TransitError::NotDeletable);
        }
        let mut change = Change::new();
        change
            .require_version(&self.keys, &at.key(), found)
            .delete(&self.keys, &at.key());
        let all = facts.oldest..facts.latest.saturating_add(1);
        self.erase(&mut change, &at, &facts, all).await?;
        Ok(change)
    }

    async fn erase(
        &self,
        change: &mut Change,
        at: &At<'_>,
        facts: &Facts,
        gone: std::ops::Range<u32>,
    ) -> Result<(), TransitError> {
        let id = facts.id;
        for version in gone.clone() {
            let number = version.to_be_bytes();
            let key = version_key(at.mount, &id, &number).map(Part::Raw);
            if let Some(hsm) = &facts.hsm {
                let found = self.versions.get(&key).await?.ok_or(TransitError::Damaged)?;
                let record = VersionRecord::decode(&found.value).ok_or(TransitError::Damaged)?;
                self.doom(change, record.object().ok_or(TransitError::Damaged)?, hsm)?;
            }
            change.delete(&self.versions, &key);
        }
        let ready = Arc::clone(&self.ready);
        change.then(move || gone.for_each(|version| drop(ready.remove(&(id, version)))));
        Ok(())
    }

    /// A key's facts and its versions' public halves.
    /// # Errors
    /// [`TransitError::NotFound`], `Damaged`.
    pub async fn show(&self, permit: &Permit, place: &Place) -> Result<KeyShown, TransitError> {
        let at = At::of(permit, Action::Metadata, place)?;
        let (facts, _) = self.find(&at).await?;
        let mut shown = Vec::new();
        for version in facts.oldest..=facts.latest {
            let number = version.to_be_bytes();
            let key = version_key(at.mount, &facts.id, &number).map(Part::Raw);
            let found = self.versions.get(&key).await?.ok_or(TransitError::Damaged)?;
            let record = VersionRecord::decode(&found.value).ok_or(TransitError::Damaged)?;
            shown.push(VersionShown {
                version,
                created: record.created,
                public_pem: pem(facts.kind, &record.fresh.public),
            });
        }
        Ok(KeyShown { facts, versions: shown })
    }

    /// Names of a mount's keys.
    /// # Errors
    /// The store.
    pub async fn list(
        &self,
        permit: &Permit,
        place: &Place,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Children, TransitError> {
        if place.mount.kind() != Kind::Transit || place.rest.is_some() {
            return Err(MountError::NotFound.into());
        }
        permit.covers(Action::List, place.mount.path())?;
        let mount = place.mount.id();
        Ok(self
            .keys
            .scan_names(&[Part::Raw(mount.as_bytes())], after, limit)
            .await?)
    }

    /// Whether a mount holds no key: what disabling it asks.
    /// # Errors
    /// The store.
    pub async fn is_empty(&self, mount: MountId) -> Result<bool, TransitError> {
        let page = self.keys.scan(&[Part::Raw(mount.as_bytes())], None, 1).await?;
        Ok(page.entries.is_empty() && page.damaged.is_empty())
    }
}

fn next_version(facts: &Facts) -> Result<u32, TransitError> {
    let next = facts.latest.checked_add(1).ok_or(TransitError::Full)?;
    match next - facts.oldest < VERSIONS_MAX {
        true => Ok(next),
        false => Err(TransitError::Full),
    }
}

fn versions(facts: &Facts) -> TransitError {
    TransitError::Versions {
        oldest: facts.oldest,
        latest: facts.latest,
        least: facts.least,
    }
}
