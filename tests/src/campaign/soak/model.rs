//! What secrets must be. Each has one writer, whose writes carry the version that must be current, so that every version has one value; a
//! write that got no answer may be the next version, or none. A read is right when its version and value are so, and not older than what was
//! known when it was sent.

use crate::campaign::kill::value;
use std::collections::{BTreeMap, BTreeSet};
use strongroom_client::Error;

/// What is known of one secret.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Number of the value of each version.
    history: BTreeMap<u64, u64>,
    /// Sent and not answered: one of them may be the next version.
    doubtful: BTreeSet<u64>,
    /// Versions that the stream told of.
    told: BTreeSet<u64>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Model {
    secrets: BTreeMap<String, Known>,
    numbers: u64,
    /// Right answers, by kind of call.
    pub right: BTreeMap<&'static str, u64>,
    /// Calls that a fault may have refused, by kind of error.
    pub refused: BTreeMap<&'static str, u64>,
    /// Writes that a reader saw before their answer came, or without one.
    pub seen_early: u64,
    pub wrong: Vec<String>,
}

impl Known {
    fn newest(&self) -> u64 {
        self.history.last_key_value().map_or(0, |(version, _)| *version)
    }
}

impl Model {
    pub fn count(&mut self, what: &'static str) {
        *self.right.entry(what).or_default() += 1;
    }

    pub fn wrong(&mut self, words: String) {
        self.wrong.push(words);
    }

    /// The newest version that is known to be there.
    pub fn newest(&self, path: &str) -> u64 {
        self.secrets.get(path).map_or(0, Known::newest)
    }

    /// A write is about to be sent: number of its value, and the version that it asks to be current.
    pub fn send(&mut self, path: &str) -> (u64, u64) {
        self.numbers += 1;
        let known = self.secrets.entry(path.to_owned()).or_default();
        known.doubtful.insert(self.numbers);
        (self.numbers, known.newest())
    }

    /// It was acknowledged.
    pub fn made(&mut self, path: &str, version: u64, number: u64) {
        let known = self.secrets.entry(path.to_owned()).or_default();
        let newest = known.newest();
        let right = if version == newest + 1 {
            known.history.insert(version, number);
            // They all asked for an older version to be current.
            known.doubtful.clear();
            true
        } else {
            known.history.get(&version) == Some(&number)
        };
        if right {
            self.count("writes");
        } else {
            self.wrong(format!(
                "{path}: a write was acknowledged as version {version} after version {newest}"
            ));
        }
    }

    /// It was refused in words that say that nothing was changed.
    pub fn unsent(&mut self, path: &str, number: u64) {
        let known = self.secrets.entry(path.to_owned()).or_default();
        known.doubtful.remove(&number);
        if known.history.values().any(|made| *made == number) {
            self.wrong(format!("{path}: a write was refused and made all the same"));
        }
    }

    /// An answer to a read that was sent when `floor` was the newest known version.
    pub fn read(&mut self, what: &'static str, path: &str, floor: u64, version: u64, bytes: &[u8]) {
        let known = self.secrets.entry(path.to_owned()).or_default();
        let newest = known.newest();
        let right = version >= floor
            && match known.history.get(&version) {
                Some(number) => value(path, *number) == bytes,
                None if version == newest + 1 => {
                    let made = known.doubtful.iter().copied().find(|sent| value(path, *sent) == bytes);
                    if let Some(made) = made {
                        known.history.insert(version, made);
                        known.doubtful.clear();
                        self.seen_early += 1;
                    }
                    made.is_some()
                }
                None => false,
            };
        if right {
            self.count(what);
        } else {
            self.wrong(format!(
                "{what}: {path}: version {version} with a value of {} bytes is not what was written; known: {floor} before, {newest} after",
                bytes.len()
            ));
        }
    }

    /// The stream told of a version; `last` is what it told before.
    pub fn told(&mut self, path: &str, last: u64, version: u64, bytes: &[u8]) {
        if version <= last {
            self.wrong(format!(
                "watch: {path}: version {version} was told after version {last}"
            ));
        }
        self.read("deliveries", path, last, version, bytes);
        self.secrets.entry(path.to_owned()).or_default().told.insert(version);
    }

    /// Versions that are there and that the stream did not tell of.
    pub fn untold(&self, path: &str) -> Vec<u64> {
        let Some(known) = self.secrets.get(path) else {
            return Vec::new();
        };
        let versions = known.history.keys();
        versions
            .filter(|version| !known.told.contains(version))
            .copied()
            .collect()
    }

    /// Whether a fault that is played here may be the reason.
    pub fn explained(error: &Error) -> bool {
        matches!(
            error,
            Error::Unavailable(_) | Error::Indeterminate(_) | Error::Sealed(_)
        ) || is_not_remembered(error)
    }

    /// A call failed: counted, or wrong; whether it is explained.
    pub fn refusal(&mut self, what: &str, error: &Error) -> bool {
        let explained = Self::explained(error);
        if explained {
            *self.refused.entry(error.kind()).or_default() += 1;
        } else {
            self.wrong(format!("{what}: {error}"));
        }
        explained
    }

    /// Calls that were refused until now.
    pub fn refusals(&self) -> u64 {
        self.refused.values().sum()
    }
}

/// After an unseal the log is read for who has logged in; until then, tokens from before the unseal are refused.
fn is_not_remembered(error: &Error) -> bool {
    error.reason() == Some("LOGIN_REFUSED") && error.to_string().contains("not-remembered")
}
