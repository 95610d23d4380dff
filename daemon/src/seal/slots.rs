//! All slots of one vault, as loaded: a damaged one is kept by name, so that it hurts nobody else and can be removed.

use super::{
    error::SealError,
    record::{Header, SlotRecord},
    slot::{NewSlot, Root, Slot, Tools, make},
    spec::{Factors, SlotName, SlotSpec},
};
use crate::base::{id::ClusterId, limits::SLOTS_MAX, random::Random};
use std::collections::BTreeMap;

/// The slots of one vault.
#[derive(Debug, Clone)]
pub struct Slots {
    cluster: ClusterId,
    /// `None`: the stored record is damaged.
    slots: BTreeMap<SlotName, Option<SlotRecord>>,
}

/// Writes that bring the store to the new state. All go in one commit.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SlotChange {
    /// Records by slot name.
    pub puts: Vec<(SlotName, Vec<u8>)>,
    /// Names that go.
    pub deletes: Vec<SlotName>,
}

impl Slots {
    /// Reads the stored slots.
    pub fn load(cluster: ClusterId, stored: impl IntoIterator<Item = (SlotName, Vec<u8>)>) -> Self {
        let read = |name: SlotName, bytes: &[u8]| {
            let record = SlotRecord::decode(name.as_str(), bytes).ok();
            // A record of another vault or under another's name is damage as well.
            let record = record.filter(|record| record.header.cluster == cluster && record.header.name == name);
            (name, record)
        };
        Self {
            cluster,
            slots: stored.into_iter().map(|(name, bytes)| read(name, &bytes)).collect(),
        }
    }

    /// The vault they belong to.
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// One slot.
    /// # Errors
    /// `NoSuchSlot`, `Damaged`.
    pub fn get(&self, name: &SlotName) -> Result<&SlotRecord, SealError> {
        match self.slots.get(name) {
            Some(Some(record)) => Ok(record),
            Some(None) => Err(SealError::Damaged(name.to_string())),
            None => Err(SealError::NoSuchSlot(name.to_string())),
        }
    }

    /// The readable ones, by name.
    pub fn iter(&self) -> impl Iterator<Item = &SlotRecord> {
        self.slots.values().flatten()
    }

    /// Names of the damaged ones.
    pub fn damaged(&self) -> impl Iterator<Item = &SlotName> {
        self.slots
            .iter()
            .filter(|(_, record)| record.is_none())
            .map(|(name, _)| name)
    }

    /// A record that the store itself did not read: known by name once somebody asks for it.
    pub fn note_damaged(&mut self, name: SlotName) {
        self.slots.insert(name, None);
    }

    /// The slot whose tag a share carries.
    pub fn by_tag(&self, tag: [u8; 4]) -> Option<&SlotName> {
        self.iter()
            .map(|record| &record.header)
            .find(|header| super::quorum::Share::tag(&header.id) == tag)
            .map(|header| &header.name)
    }

    /// Every readable slot, authenticated.
    /// # Errors
    /// `Damaged`, naming the slot to remove first.
    pub fn authenticated(&self, root: &Root) -> Result<Vec<Slot>, SealError> {
        if let Some(name) = self.damaged().next() {
            return Err(SealError::Damaged(name.to_string()));
        }
        self.iter()
            .map(|record| Slot::authenticate(record.clone(), root))
            .collect()
    }

    /// Records changed in place, to be stored.
    pub fn replace(records: impl IntoIterator<Item = SlotRecord>) -> SlotChange {
        SlotChange {
            puts: records
                .into_iter()
                .map(|record| (record.header.name.clone(), record.encode()))
                .collect(),
            deletes: Vec::new(),
        }
    }

    /// A new slot.
    /// # Errors
    /// `SlotExists`, `TooManySlots`, or why it could not be made.
    pub fn add(&self, spec: &SlotSpec, root: &Root, tools: Tools<'_>) -> Result<(SlotChange, NewSlot), SealError> {
        if self.slots.contains_key(&spec.name) {
            return Err(SealError::SlotExists(spec.name.to_string()));
        }
        if self.slots.len() >= SLOTS_MAX {
            return Err(SealError::TooManySlots);
        }
        let made = make(spec, None, self.cluster, root, tools)?;
        Ok((Self::replace([made.record.clone()]), made))
    }

    /// Every slot but `name`, opening `next` instead of `root`.
    /// # Errors
    /// `NoSuchSlot`, `LastSlot`, `Damaged` for another slot than `name`.
    pub fn remove(
        &self,
        name: &SlotName,
        root: &Root,
        next: &Root,
        random: &dyn Random,
    ) -> Result<(SlotChange, Vec<String>), SealError> {
        if !self.slots.contains_key(name) {
            return Err(SealError::NoSuchSlot(name.to_string()));
        }
        let mut rest = self.clone();
        rest.slots.remove(name);
        if rest.iter().next().is_none() {
            return Err(SealError::LastSlot);
        }
        let mut change = rest.rewrap(root, next, random)?;
        change.deletes.push(name.clone());
        Ok((change, rest.only_hsm_warning()))
    }

    /// New shares and seed for a slot, and a new root key for all.
    /// # Errors
    /// `NoSuchSlot`, `Damaged` for another slot, or why it could not be made.
    pub fn rekey(
        &self,
        spec: &SlotSpec,
        root: &Root,
        next: &Root,
        tools: Tools<'_>,
    ) -> Result<(SlotChange, NewSlot), SealError> {
        let former: Option<Header> = match self.slots.get(&spec.name) {
            None => return Err(SealError::NoSuchSlot(spec.name.to_string())),
            Some(record) => record.as_ref().map(|record| record.header.clone()),
        };
        let mut rest = self.clone();
        rest.slots.remove(&spec.name);
        let mut change = rest.rewrap(root, next, tools.random)?;
        let mut made = make(spec, former.as_ref(), self.cluster, next, tools)?;
        change.puts.push((spec.name.clone(), made.record.encode()));
        rest.slots.insert(spec.name.clone(), Some(made.record.clone()));
        made.warnings.extend(rest.only_hsm_warning());
        Ok((change, made))
    }

    /// Every slot, opening `next` instead of `root`.
    /// # Errors
    /// `Damaged`.
    pub fn rewrap(&self, root: &Root, next: &Root, random: &dyn Random) -> Result<SlotChange, SealError> {
        let slots = self.authenticated(root)?;
        Ok(Self::replace(
            slots
                .into_iter()
                .map(|slot| slot.rewrap(next, random))
                .collect::<Result<Vec<_>, _>>()?,
        ))
    }

    /// What the store holds after `change`.
    pub fn apply(&mut self, change: &SlotChange) {
        change.deletes.iter().for_each(|name| _ = self.slots.remove(name));
        let read = |bytes: &[u8]| SlotRecord::decode("", bytes).ok();
        self.slots
            .extend(change.puts.iter().map(|(name, bytes)| (name.clone(), read(bytes))));
    }

    /// Losing the HSM loses the vault when no slot opens without it.
    pub fn only_hsm_warning(&self) -> Vec<String> {
        let breaks_glass = self
            .iter()
            .any(|record| matches!(record.header.factors, Factors::Quorum(_)));
        if breaks_glass {
            Vec::new()
        } else {
            vec!["no slot opens without an HSM: add a quorum slot kept for that day".to_owned()]
        }
    }
}
