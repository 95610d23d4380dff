//! Every warning and error in the daemon's log must be of a class that a fault of the same round, or of the one before, explains.

use super::KILLS;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
};

/// Words of a message, words of its cause (all when empty), and the faults that explain it.
const CLASSES: &[(&str, &str, &[&str])] = &[
    // It is tried again, and each round waits until it is gone.
    (
        "a lease is not revoked yet",
        "the target cannot be reached",
        &["database cut off", "database slow"],
    ),
    // A proof that was still to come asked by the log-in that was retired meanwhile; the successor proves it.
    (
        "a lease is not revoked yet",
        "is not permitted to log in",
        &["root rotation"],
    ),
    // The answer to what made its account was lost; the intent waits out the longest that it may still come into being.
    (
        "a lease is not revoked yet",
        "too early to believe that the account was never made",
        &[
            "database cut off",
            "database slow",
            "seal and unseal",
            "kill -9",
            "kill -9 while it unseals",
        ],
    ),
    ("a torn tail of the audit log was cut off", "", &KILLS),
    // The sweep revokes what an issue could not take back itself.
    (
        "an intent could not be given up at once",
        "",
        &["database cut off", "seal and unseal"],
    ),
    ("sealed while requests were still inside", "", &["seal and unseal"]),
];

/// See the module.
pub struct Alarms {
    log: PathBuf,
    read: u64,
    before: BTreeSet<&'static str>,
    /// Lines that were explained, by class.
    pub explained: BTreeMap<&'static str, u64>,
}

impl Alarms {
    pub fn of(log: PathBuf) -> Self {
        Self {
            log,
            read: 0,
            before: BTreeSet::new(),
            explained: BTreeMap::new(),
        }
    }

    /// Reads what came since the last time; lines that no fault explains. `faults` are those of the round that ends.
    pub fn unexplained(&mut self, faults: &[&'static str]) -> std::io::Result<Vec<String>> {
        let mut text = String::new();
        let mut file = File::open(&self.log)?;
        file.seek(SeekFrom::Start(self.read))?;
        self.read += file.read_to_string(&mut text)? as u64;
        let may: BTreeSet<_> = self.before.iter().chain(faults).copied().collect();
        self.before = faults.iter().copied().collect();
        let lines = text.lines().filter(|line| !self.is_explained(line, &may));
        Ok(lines.map(str::to_owned).collect::<Vec<_>>())
    }

    /// A line that is not of the log's form is a panic, or somebody's print: an alarm of no class.
    fn is_explained(&mut self, line: &str, may: &BTreeSet<&'static str>) -> bool {
        let Ok(parsed) = serde_json::from_str::<serde_json::Value>(line) else {
            return line.trim().is_empty();
        };
        if !matches!(parsed["level"].as_str(), Some("WARN" | "ERROR")) {
            return true;
        }
        let (message, fields) = (
            parsed["fields"]["message"].as_str().unwrap_or_default(),
            parsed["fields"].to_string(),
        );
        let class = CLASSES.iter().find(|(words, cause, faults)| {
            message.contains(words) && fields.contains(cause) && faults.iter().any(|fault| may.contains(fault))
        });
        if let Some((words, ..)) = class {
            *self.explained.entry(words).or_default() += 1;
        }
        class.is_some()
    }

    /// Whether lines that nothing explains are noticed: one of no class, and each class in a time without its faults.
    pub fn control(&mut self) -> u64 {
        let line = |words: &str, cause: &str| {
            serde_json::json!({"level": "ERROR", "fields": {"message": words, "cause": cause}}).to_string()
        };
        let none = BTreeSet::new();
        let lines = CLASSES.iter().map(|(words, cause, _)| line(words, cause));
        let lines: Vec<_> = lines.chain([line("THE STORE IS STOPPED", "")]).collect();
        u64::from(lines.iter().all(|line| !self.is_explained(line, &none)))
    }
}
