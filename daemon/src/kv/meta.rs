//! What a secret is, and every change it can undergo. A pure state machine: no store, no clock.

use super::{
    CUSTOM_KEY_BYTES_MAX, CUSTOM_MAX, CUSTOM_VALUE_BYTES_MAX, Fields, INLINE_BYTES_MAX, KvError, LABEL_BYTES_MAX,
    LABELS_MAX, VERSIONS_DEFAULT, VERSIONS_MAX,
};
use crate::base::time::Timestamp;
use std::collections::BTreeMap;

/// The label of the newest version. Moves on put alone.
pub const CURRENT: &str = "current";
/// The label that follows: the version that was current before.
pub const PREVIOUS: &str = "previous";
/// The label that rotation sets; nobody else.
pub const PENDING: &str = "pending";

/// What has become of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionState {
    /// It can be read.
    Live,
    /// Hidden since then.
    Deleted(Timestamp),
    /// Its value is gone.
    Destroyed,
}

/// One version in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub version: u64,
    pub created: Timestamp,
    pub state: VersionState,
}

/// A secret without the values of its versions, but for a small current one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Meta {
    /// Names its value records: random, so that a secret made anew at a path cannot meet an old one's values.
    pub id: [u8; 16],
    /// The newest and current version; 0: none yet.
    pub newest: u64,
    pub versions_max: u32,
    pub cas_required: bool,
    /// Without `current`, which is `newest`.
    pub labels: BTreeMap<String, u64>,
    pub custom: BTreeMap<String, String>,
    /// Ascending.
    pub versions: Vec<Entry>,
    /// The value of `newest`, if it is small.
    pub inline: Option<Fields>,
}

/// Changes of what is not a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Takes the place of all custom metadata.
    pub custom: Option<BTreeMap<String, String>>,
    /// 1 to 1000; older versions are destroyed on the next put.
    pub versions_max: Option<u32>,
    /// Whether a put must name the current version.
    pub cas_required: Option<bool>,
    /// Label to version; 0 removes the label.
    pub labels: BTreeMap<String, u64>,
}

/// What a put does to value records.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Put {
    pub version: u64,
    /// Values to write into records of their own: the former current one that lay in the metadata, a large new one.
    pub write: Vec<(u64, Fields)>,
    /// Values to erase.
    pub erase: Vec<u64>,
}

impl Meta {
    pub fn new(id: [u8; 16]) -> Self {
        Self {
            id,
            newest: 0,
            versions_max: VERSIONS_DEFAULT,
            cas_required: false,
            labels: BTreeMap::new(),
            custom: BTreeMap::new(),
            versions: Vec::new(),
            inline: None,
        }
    }

    /// The next version. `cas`: the version that must be current, 0 for none.
    pub fn put(&mut self, fields: Fields, cas: Option<u64>, now: Timestamp) -> Result<Put, KvError> {
        let current = self.newest;
        match cas {
            None if self.cas_required => return Err(KvError::CasRequired { current }),
            Some(cas) if cas != current => return Err(KvError::Cas { current }),
            _ => {}
        }
        let version = current.checked_add(1).ok_or(KvError::Exhausted)?;
        if current > 0 {
            self.labels.insert(PREVIOUS.to_owned(), current);
        }
        self.newest = version;
        self.versions.push(Entry {
            version,
            created: now,
            state: VersionState::Live,
        });
        let erase = self.prune();
        let mut put = Put {
            version,
            erase,
            write: Vec::new(),
        };
        if let Some(former) = self.inline.take().filter(|_| self.entry(current).is_ok()) {
            put.write.push((current, former));
        }
        match fields.encoded().len() <= INLINE_BYTES_MAX {
            true => self.inline = Some(fields),
            false => put.write.push((version, fields)),
        }
        Ok(put)
    }

    /// Versions beyond the maximum go, the oldest first; a label of the operator's (or of rotation) holds its version. Answers those
    /// whose values may have a record.
    fn prune(&mut self) -> Vec<u64> {
        // What an operator's label holds is beside the maximum: the newest and the one before it stay whatever was labelled.
        let labelled = |version: u64| {
            self.labels
                .iter()
                .any(|(label, at)| *at == version && label != PREVIOUS && label != CURRENT)
        };
        let counted = self.versions.iter().filter(|entry| !labelled(entry.version)).count();
        let excess = counted.saturating_sub(usize::try_from(self.versions_max).unwrap_or(usize::MAX));
        let held = |version: u64| {
            self.labels
                .iter()
                .any(|(label, at)| *at == version && label != PREVIOUS)
                || version == self.newest
        };
        let gone: Vec<Entry> = self
            .versions
            .iter()
            .filter(|entry| !held(entry.version))
            .take(excess)
            .copied()
            .collect();
        self.versions.retain(|entry| !gone.contains(entry));
        self.labels
            .retain(|_, version| !gone.iter().any(|entry| entry.version == *version));
        gone.iter()
            .filter(|entry| entry.state != VersionState::Destroyed)
            .map(|entry| entry.version)
            .collect()
    }

    /// Hides versions; none named: the current one. What is hidden or destroyed stays as it is.
    pub fn delete(&mut self, versions: &[u64], now: Timestamp) -> Result<(), KvError> {
        let newest = [self.newest];
        self.change(
            if versions.is_empty() { &newest } else { versions },
            |_, state| match state {
                VersionState::Live => Ok(VersionState::Deleted(now)),
                VersionState::Deleted(_) | VersionState::Destroyed => Ok(state),
            },
        )
    }

    /// Brings hidden versions back; none named: the current one.
    pub fn undelete(&mut self, versions: &[u64]) -> Result<(), KvError> {
        let newest = [self.newest];
        self.change(
            if versions.is_empty() { &newest } else { versions },
            |version, state| match state {
                VersionState::Live | VersionState::Deleted(_) => Ok(VersionState::Live),
                VersionState::Destroyed => Err(KvError::Destroyed(version)),
            },
        )
    }

    /// Erases versions for good. One that is labelled is refused, `current` and `previous` included. Answers whose values to erase.
    pub fn destroy(&mut self, versions: &[u64]) -> Result<Vec<u64>, KvError> {
        if versions.is_empty() {
            return Err(KvError::NothingNamed);
        }
        for version in versions {
            if let Some(label) = self.labels_of(*version).first() {
                return Err(KvError::Labelled {
                    version: *version,
                    label: (*label).to_owned(),
                });
            }
        }
        self.change(versions, |_, _| Ok(VersionState::Destroyed))?;
        Ok(versions.to_vec())
    }

    /// All named versions change, or none does.
    fn change(
        &mut self,
        named: &[u64],
        to: impl Fn(u64, VersionState) -> Result<VersionState, KvError>,
    ) -> Result<(), KvError> {
        if named.len() > usize::try_from(VERSIONS_MAX).unwrap_or(usize::MAX) {
            return Err(KvError::TooManyNamed);
        }
        let mut next = self.versions.clone();
        for version in named {
            let entry = next
                .iter_mut()
                .find(|entry| entry.version == *version)
                .ok_or(KvError::NoVersion(*version))?;
            entry.state = to(*version, entry.state)?;
        }
        self.versions = next;
        Ok(())
    }

    /// Changes settings: all of them, or none.
    pub fn set(&mut self, settings: &Settings) -> Result<(), KvError> {
        if settings
            .versions_max
            .is_some_and(|versions| !(1..=VERSIONS_MAX).contains(&versions))
        {
            return Err(KvError::VersionsMax);
        }
        if settings.custom.as_ref().is_some_and(|custom| !custom_fits(custom)) {
            return Err(KvError::Custom);
        }
        let mut labels = self.labels.clone();
        for (label, version) in &settings.labels {
            match (label.as_str(), *version) {
                (CURRENT, _) => return Err(KvError::ReservedLabel(CURRENT)),
                (PENDING, 1..) => return Err(KvError::ReservedLabel(PENDING)),
                (_, 0) => drop(labels.remove(label)),
                (label, _) if !is_label(label) => return Err(KvError::Label),
                (_, version) => match self.entry(version)?.state {
                    VersionState::Destroyed => return Err(KvError::Destroyed(version)),
                    VersionState::Live | VersionState::Deleted(_) => drop(labels.insert(label.clone(), version)),
                },
            }
        }
        if labels
            .keys()
            .filter(|label| ![PREVIOUS, PENDING].contains(&label.as_str()))
            .count()
            > LABELS_MAX
        {
            return Err(KvError::Label);
        }
        self.labels = labels;
        self.versions_max = settings.versions_max.unwrap_or(self.versions_max);
        self.cas_required = settings.cas_required.unwrap_or(self.cas_required);
        if let Some(custom) = &settings.custom {
            self.custom.clone_from(custom);
        }
        Ok(())
    }

    /// A version in the history.
    pub fn entry(&self, version: u64) -> Result<&Entry, KvError> {
        self.versions
            .iter()
            .rfind(|entry| entry.version == version)
            .ok_or(KvError::NoVersion(version))
    }

    /// A version that can be read.
    pub fn live(&self, version: u64) -> Result<&Entry, KvError> {
        let entry = self.entry(version)?;
        match entry.state {
            VersionState::Live => Ok(entry),
            VersionState::Deleted(_) => Err(KvError::Deleted(version)),
            VersionState::Destroyed => Err(KvError::Destroyed(version)),
        }
    }

    /// Which version a label is on.
    pub fn labelled(&self, label: &str) -> Result<u64, KvError> {
        if label == CURRENT {
            return Ok(self.newest);
        }
        self.labels.get(label).copied().ok_or(KvError::NoLabel)
    }

    /// The labels of a version, `current` first.
    pub fn labels_of(&self, version: u64) -> Vec<&str> {
        let others = self
            .labels
            .iter()
            .filter(|(_, at)| **at == version)
            .map(|(label, _)| label.as_str());
        (version == self.newest)
            .then_some(CURRENT)
            .into_iter()
            .chain(others)
            .collect()
    }

    /// Versions whose values may have records of their own.
    pub fn recorded(&self) -> impl Iterator<Item = u64> {
        let inline = self.inline.as_ref().map(|_| self.newest);
        let kept = self
            .versions
            .iter()
            .filter(|entry| entry.state != VersionState::Destroyed)
            .map(|entry| entry.version);
        kept.filter(move |version| Some(*version) != inline)
    }
}

fn custom_fits(custom: &BTreeMap<String, String>) -> bool {
    let fits = |(key, value): (&String, &String)| {
        (1..=CUSTOM_KEY_BYTES_MAX).contains(&key.len()) && value.len() <= CUSTOM_VALUE_BYTES_MAX
    };
    custom.len() <= CUSTOM_MAX && custom.iter().all(fits)
}

fn is_label(label: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let all = label
        .bytes()
        .enumerate()
        .all(|(at, byte)| plain(byte) || (at > 0 && byte == b'-'));
    (1..=LABEL_BYTES_MAX).contains(&label.len()) && all
}
