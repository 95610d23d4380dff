//! Judges what a power cut left: opens the store through its checks and compares everything with what was acknowledged before the cut. Runs
//! as a process (`campaign power-check`), so that a panic or an abort is a finding too.

use super::load::{Load, Tables, causes, root};
use crate::campaign::{
    Tried,
    report::say,
    trail::{Notary, read_note},
};
use std::{collections::BTreeMap, path::Path};
use strongroomd::store::{Change, Cursor, Part, Store, View};

/// What had been acknowledged. As text: `ready;W,W,..;R,R,..`: whether the store was made, the last write of each writer, its last read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acks {
    pub ready: bool,
    pub writes: Vec<u64>,
    pub reads: Vec<u64>,
}

impl Acks {
    pub fn none(writers: u64) -> Self {
        let zeros: Vec<_> = (0..writers).map(|_| 0).collect();
        Self {
            ready: false,
            writes: zeros.clone(),
            reads: zeros,
        }
    }
    pub fn to_text(&self) -> String {
        let list = |numbers: &[u64]| numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        format!("{};{};{}", u8::from(self.ready), list(&self.writes), list(&self.reads))
    }
    pub fn parse(text: &str) -> Tried<Self> {
        let list = |text: &str| text.split(',').map(str::parse).collect::<Result<Vec<u64>, _>>();
        match text.split(';').collect::<Vec<_>>()[..] {
            [ready, writes, reads] => Ok(Self {
                ready: ready == "1",
                writes: list(writes)?,
                reads: list(reads)?,
            }),
            _ => Err("not a list of acknowledgements".into()),
        }
    }
}

/// What is wrong: a word for the figures, and details.
pub struct Wrong(&'static str, String);

impl Wrong {
    fn new(kind: &'static str) -> impl Fn(String) -> Self {
        move |words| Self(kind, words)
    }
}

/// The process: one line, `ok ACKS` (what is there now) or `bad KIND DETAILS`.
pub async fn run(load: Load, dir: &Path, acks: &Acks) {
    match judge(load, dir, acks).await {
        Ok(found) => say(format_args!("ok {}", found.to_text())),
        Err(Wrong(kind, words)) => say(format_args!("bad {kind} {words}")),
    }
}

async fn judge(load: Load, dir: &Path, acks: &Acks) -> Result<Acks, Wrong> {
    let unopenable = Wrong::new("unopenable");
    let (disk, torn) = load.open(dir).map_err(|error| unopenable(error.to_string()))?;
    let initialised = disk
        .is_initialised()
        .await
        .map_err(|error| unopenable(causes(&error)))?;
    if !initialised {
        return if acks.ready {
            Err(Wrong("lost", "the store is blank".into()))
        } else {
            Ok(Acks::none(load.writers()))
        };
    }
    let store = match root() {
        Ok(root) => disk.unlock(&root).await.map_err(|error| unopenable(causes(&error)))?,
        Err(error) => return Err(unopenable(error.to_string())),
    };
    let tables = Tables::of(&store);
    let mut found = Acks {
        ready: true,
        ..Acks::none(load.writers())
    };
    for (writer, acked) in acks.writes.iter().enumerate() {
        let done = state(load, &tables, writer as u64).await?;
        if done < *acked {
            return Err(Wrong(
                "lost",
                format!("writer {writer}: {acked} acknowledged, {done} there"),
            ));
        }
        if let Some(count) = found.writes.get_mut(writer) {
            *count = done;
        }
    }
    goes_on(&store, torn.as_ref()).await?;
    drop((store, tables));
    disk.close();
    drop(disk);
    evidence(dir, acks, &mut found)?;
    Ok(found)
}

/// The state of a writer must be that of its counter, exactly.
async fn state(load: Load, tables: &Tables, writer: u64) -> Result<u64, Wrong> {
    let damaged = Wrong::new("damaged");
    let done = tables.counter(writer).await.map_err(|error| damaged(causes(&error)))?;
    let who = writer.to_be_bytes();
    let slots = rows(&tables.slots, &who).await?;
    let slots: BTreeMap<_, _> = slots
        .into_iter()
        .filter_map(|(key, value)| Some((key.last()?.name()?.to_owned(), value)))
        .collect();
    let expected = load.slots(writer, done);
    if slots != expected {
        let differs = |name: &&String| slots.get(*name) != expected.get(*name);
        let names: Vec<_> = slots.keys().chain(expected.keys()).filter(differs).take(4).collect();
        return Err(Wrong(
            "torn",
            format!("writer {writer} at {done}: slots {names:?} are not what its counter says"),
        ));
    }
    let due = rows(&tables.due, &who).await?;
    let due: Vec<_> = due
        .into_iter()
        .filter_map(|(key, _)| key.last()?.raw_array().map(u64::from_be_bytes))
        .collect();
    if !due.iter().copied().eq(load.due(done)) {
        return Err(Wrong(
            "torn",
            format!("writer {writer} at {done}: its due rows are {due:?}"),
        ));
    }
    Ok(done)
}

type Rows = Vec<(Vec<strongroomd::store::OwnedPart>, Vec<u8>)>;

async fn rows(view: &View, writer: &[u8]) -> Result<Rows, Wrong> {
    let (mut found, mut next) = (Rows::new(), None::<Cursor>);
    loop {
        let page = view
            .scan(&[Part::Raw(writer)], next.as_ref(), 1000)
            .await
            .map_err(|error| Wrong("damaged", causes(&error)))?;
        if let Some(record) = page.damaged.first() {
            return Err(Wrong("damaged", record.clone()));
        }
        found.extend(
            page.entries
                .into_iter()
                .map(|entry| (entry.key, entry.record.value.to_vec())),
        );
        next = page.next;
        if next.is_none() {
            return Ok(found);
        }
    }
}

/// Service must resume by itself.
async fn goes_on(store: &Store, torn: Option<&strongroomd::audit::TornTail>) -> Result<(), Wrong> {
    let notary = Notary::new();
    let mut records: Vec<_> = torn.map(|torn| notary.torn_tail(torn)).into_iter().collect();
    records.push(notary.note("campaign.check", 0, 0));
    store
        .commit(Change::new(), records)
        .await
        .map_err(|error| Wrong("stuck", causes(&error)))
        .map(drop)
}

/// The log must be whole, and tell of exactly the changes that were made, in order: neither exists without the other.
fn evidence(dir: &Path, acks: &Acks, found: &mut Acks) -> Result<(), Wrong> {
    let audit = Wrong::new("audit");
    let dir = Load::audit_dir(dir);
    let report =
        strongroom_audit::verify(&dir, &strongroom_audit::Options::default()).map_err(|error| audit(causes(&error)))?;
    if !report.is_clean() {
        let words: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
        return Err(audit(format!("{} {:?}", words.join("; "), report.torn)));
    }
    let mut log = strongroom_audit::read(&dir, 0).map_err(|error| audit(causes(&error)))?;
    let mut told: Vec<_> = acks.writes.iter().map(|_| 0).collect();
    while let Some(line) = log.next_line().map_err(|error| audit(causes(&error)))? {
        let Some((op, writer, number)) = read_note(&line.record) else {
            continue;
        };
        let writer = usize::try_from(writer).unwrap_or(usize::MAX);
        match (op.as_str(), told.get_mut(writer), found.reads.get_mut(writer)) {
            ("campaign.write", Some(last), _) if number == *last + 1 => *last = number,
            ("campaign.read", Some(last), Some(read)) if number > *read && number <= *last => *read = number,
            ("campaign.check", ..) => {}
            _ => {
                return Err(audit(format!(
                    "record {}: {op} {number} of writer {writer} is out of order",
                    line.seq
                )));
            }
        }
    }
    if told != found.writes {
        return Err(audit(format!(
            "the log tells of {told:?} changes, the store has {:?}",
            found.writes
        )));
    }
    match acks.reads.iter().zip(&found.reads).find(|(acked, read)| acked > read) {
        Some((acked, read)) => Err(audit(format!(
            "a read that was answered is not in the log: {acked} answered, {read} there"
        ))),
        None => Ok(()),
    }
}
