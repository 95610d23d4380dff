//! Judges a damaged store: the damage must be said, or change nothing. Never a wrong answer, never a door opened by a damaged `forbid`.

use super::{
    fixture::{self, Expected, FORBIDDEN, engine_dir},
    rooms::{Read, Rooms},
};
use crate::campaign::power::load::causes;
use std::{collections::BTreeMap, path::Path};
use strongroomd::{
    base::{locked::LockedKey, time::Timestamp},
    policy::Action,
    store::{
        RawTable, Store, Table,
        physical::{Engine, fjall::FjallEngine},
    },
};

/// What became of a damaged store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    pub class: Class,
    pub words: String,
    /// The policies were found damaged.
    pub policies: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// It did not open, and said why.
    Refused,
    /// It opened; the damage was named, the rest is right.
    Found,
    /// Everything reads back.
    Harmless,
    /// Something is wrong and nobody said so.
    Wrong,
    /// A forbidden thing was allowed.
    Door,
    /// A panic, an abort, a hang.
    Panic,
}

impl Class {
    pub const ALL: [Self; 6] = [
        Self::Refused,
        Self::Found,
        Self::Harmless,
        Self::Wrong,
        Self::Door,
        Self::Panic,
    ];
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Found => "found",
            Self::Harmless => "harmless",
            Self::Wrong => "wrong",
            Self::Door => "door",
            Self::Panic => "panic",
        }
    }
}

impl Verdict {
    pub fn new(class: Class, words: impl Into<String>) -> Self {
        Self {
            class,
            words: words.into(),
            policies: false,
        }
    }
}

/// Opens the store in `dir` as the daemon would, reads everything in every way there is, and verifies the audit log.
pub async fn judge(dir: &Path, expected: &Expected) -> Verdict {
    let disk = match fixture::open(dir) {
        Ok(disk) => disk,
        Err(error) => return Verdict::new(Class::Refused, error.to_string()),
    };
    let Ok(root) = LockedKey::copy_of(&expected.root) else {
        return Verdict::new(Class::Panic, "no locked memory");
    };
    let mut verdict = match disk.unlock(&root).await {
        Ok(store) => content(&store, expected).await,
        Err(error) => Verdict::new(Class::Refused, causes(&error)),
    };
    disk.close();
    drop(disk);
    if matches!(verdict.class, Class::Harmless | Class::Found) {
        evidence(dir, expected, &mut verdict);
    }
    verdict
}

async fn content(store: &Store, expected: &Expected) -> Verdict {
    let mut verdict = match fixture::rows(store).await {
        Ok((rows, damaged)) => {
            let (lost, extra) = (
                expected.rows.difference(&rows).count(),
                rows.difference(&expected.rows).count(),
            );
            if extra > 0 || lost > damaged.len() {
                return Verdict::new(
                    Class::Wrong,
                    format!("{lost} records are missing, {extra} are not what they were, said: {damaged:?}"),
                );
            }
            Verdict::new(
                if damaged.is_empty() {
                    Class::Harmless
                } else {
                    Class::Found
                },
                damaged.join(", "),
            )
        }
        Err(error) => Verdict::new(Class::Found, error.to_string()),
    };
    match Rooms::load(store, Timestamp(expected.now)).await {
        Ok(rooms) => {
            verdict.policies = !rooms.policy.damage().is_empty();
            if let Err((class, words)) = answers(&rooms, expected, verdict.class == Class::Found).await {
                (verdict.class, verdict.words) = (class, words);
            }
        }
        Err(error) => (verdict.class, verdict.words) = (Class::Found, error.to_string()),
    }
    verdict
}

/// What callers would be told. `said`: damage was reported, so that something may be missing, but nothing may be different.
async fn answers(rooms: &Rooms, expected: &Expected, said: bool) -> Result<(), (Class, String)> {
    let wrong = |words: &str| Err((Class::Wrong, words.to_owned()));
    for (index, token) in expected.tokens.iter().enumerate() {
        let Ok(caller) = rooms.token.identify(token) else {
            if said {
                continue;
            }
            return wrong("a token opens nothing");
        };
        match rooms.ask(&caller, Action::Read, FORBIDDEN) {
            Ok(None) => {}
            _ => return Err((Class::Door, format!("token {index} may read what is forbidden"))),
        }
        for (path, value) in expected.secrets.iter().filter(|(path, _)| path != FORBIDDEN) {
            match rooms.read(&caller, path).await {
                Ok(Read::Value(fields)) if fields == [("value".to_owned(), value.clone())] => {}
                Ok(Read::Value(_)) => return wrong("a secret is not what it was"),
                Ok(Read::Refused | Read::Failed) if said => {}
                _ => return wrong("a secret cannot be read"),
            }
        }
    }
    Ok(())
}

fn evidence(dir: &Path, expected: &Expected, verdict: &mut Verdict) {
    let found = match strongroom_audit::verify(&dir.join("audit"), &strongroom_audit::Options::default()) {
        Err(error) => causes(&error),
        Ok(report) if !report.is_clean() => {
            let words: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
            format!("{} {:?}", words.join("; "), report.torn)
        }
        Ok(report) if report.records < expected.audit_records => {
            let words = format!(
                "{} audit records where there were {}, and the verifier says nothing",
                report.records, expected.audit_records
            );
            *verdict = Verdict {
                policies: verdict.policies,
                ..Verdict::new(Class::Wrong, words)
            };
            return;
        }
        Ok(_) => return,
    };
    if verdict.class == Class::Harmless {
        (verdict.class, verdict.words) = (Class::Found, found);
    }
}

/// The engine's rows as they are stored, by key.
pub fn stored_rows(dir: &Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, String> {
    let engine = FjallEngine::open(&engine_dir(dir)).map_err(|error| causes(&error))?;
    let mut rows = BTreeMap::new();
    for id in RawTable::ALL
        .iter()
        .map(|table| table.id())
        .chain(Table::ALL.iter().map(|table| table.id()))
    {
        let (from, to) = ([0, 0, 0, 0, id], [0, 0, 0, 0, id + 1]);
        let found = engine
            .scan(&from, &to, usize::MAX, usize::MAX)
            .map_err(|error| causes(&error))?;
        rows.extend(found.into_iter().map(|(key, row)| (key.to_vec(), row.to_vec())));
    }
    Ok(rows)
}

/// The control: the same store read through the bare engine, without barrier, heads or audit log. It must be caught giving wrong answers.
pub fn judge_bare(dir: &Path, expected: &BTreeMap<Vec<u8>, Vec<u8>>) -> Verdict {
    match stored_rows(dir) {
        Err(error) => Verdict::new(Class::Refused, error),
        Ok(rows) if rows == *expected => Verdict::new(Class::Harmless, ""),
        Ok(rows) => {
            let words = format!("{} rows where there were {}, or other ones", rows.len(), expected.len());
            Verdict::new(Class::Wrong, words)
        }
    }
}
