//! The policies in force: one immutable value, swapped whole, so that a decision sees one state of affairs.

use super::record::{Document, Listed, Manifest};
use std::collections::{BTreeMap, BTreeSet};
use strongroom_policy::{BuildError, Checked, PolicySet};

/// What the manifest lists, and what of it could be read.
#[derive(Debug, Clone)]
pub(super) struct InForce {
    /// The manifest's serial number this value agrees with.
    pub serial: u64,
    pub listed: BTreeMap<String, Listed>,
    /// Listed documents that are missing, do not open, or are not what was listed.
    pub damaged: BTreeSet<String>,
    /// The manifest itself is missing or does not open: nobody knows what should be there.
    pub list_lost: bool,
    set: PolicySet,
}

impl InForce {
    /// What `manifest` lists, from the documents that were found. `None`: there is no readable manifest.
    pub fn assemble(manifest: Option<Manifest>, mut found: BTreeMap<String, Document>) -> Result<Self, BuildError> {
        let list_lost = manifest.is_none();
        let manifest = manifest.unwrap_or_else(|| Manifest::of_found(&found));
        found.retain(|name, document| manifest.policies.get(name).is_some_and(|listed| listed.is_of(document)));
        let set = loop {
            match PolicySet::build(
                found
                    .iter()
                    .map(|(name, document)| (name, document.version, &document.text)),
            ) {
                Ok(set) => break set,
                // A document that this version's schema no longer takes counts as damaged: it may hold the `forbid`.
                Err(BuildError::Invalid { name, .. }) if found.remove(&name).is_some() => {}
                Err(error) => return Err(error),
            }
        };
        let damaged = manifest
            .policies
            .keys()
            .filter(|name| !found.contains_key(*name))
            .cloned()
            .collect();
        Ok(Self {
            serial: manifest.serial,
            listed: manifest.policies,
            damaged,
            list_lost,
            set,
        })
    }

    /// Whether anything that could hold a `forbid` is not known.
    pub fn is_damaged(&self) -> bool {
        self.list_lost || !self.damaged.is_empty()
    }

    /// The documents that could be read. Only to be asked when nothing [is damaged](Self::is_damaged).
    pub fn set(&self) -> &PolicySet {
        &self.set
    }

    /// The next state, with `document` written as `name`.
    pub fn with(&self, name: &str, listed: Listed, checked: Checked) -> Result<Self, BuildError> {
        let mut next = Self {
            set: self.set.with(listed.version, checked)?,
            ..self.next()
        };
        next.damaged.remove(name);
        next.listed.insert(name.to_owned(), listed);
        Ok(next)
    }

    /// The next state, with `name` gone.
    pub fn without(&self, name: &str) -> Self {
        let mut next = Self {
            set: self.set.without(name),
            ..self.next()
        };
        next.damaged.remove(name);
        next.listed.remove(name);
        next
    }

    /// Writing goes with writing the manifest, so it is not lost any more.
    fn next(&self) -> Self {
        Self {
            serial: self.serial + 1,
            list_lost: false,
            ..self.clone()
        }
    }

    /// The manifest that says so.
    pub fn manifest(&self) -> Manifest {
        Manifest::new(self.serial, self.listed.clone())
    }
}
