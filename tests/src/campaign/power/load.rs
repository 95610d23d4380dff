//! The load on the disk that will lose power: several writers, each of whose state is a pure function of a counter, so that a lost
//! acknowledgement, a torn batch, a wrong value, a wrong order and a stray row all show. Runs as a process (`campaign power-load`).

use crate::campaign::{Dice, Tried, doing, report::say, trail::Notary};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};
use strongroomd::{
    audit,
    base::{locked::LockedKey, random::OsRandom},
    store::{Algorithm, Change, Disk, DiskConfig, EngineKind, Namespace, Part, Store, StoreError, Table, View},
};
use zeroize::Zeroizing;

/// What is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// 1 KiB values.
    Default,
    /// 24-byte values, many writers.
    Small,
    /// Values of 1 MiB (256 KiB on sled, which takes no larger commit).
    Large,
}

/// A load on an engine.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub kind: Kind,
    pub engine: EngineKind,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Default, Self::Small, Self::Large];
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Small => "small",
            Self::Large => "large",
        }
    }
}

impl Load {
    /// Every kind on fjall, then on sled.
    pub fn every() -> impl Iterator<Item = Self> {
        [EngineKind::Fjall, EngineKind::Sled]
            .into_iter()
            .flat_map(|engine| Kind::ALL.map(|kind| Self { kind, engine }))
    }
    pub fn parse(kind: &str, engine: &str) -> Tried<Self> {
        let kind = Kind::ALL
            .into_iter()
            .find(|known| known.name() == kind)
            .ok_or("no such load")?;
        let engine = [EngineKind::Fjall, EngineKind::Sled]
            .into_iter()
            .find(|known| known.name() == engine)
            .ok_or("no such engine")?;
        Ok(Self { kind, engine })
    }
    pub const fn writers(self) -> u64 {
        match self.kind {
            Kind::Default => 4,
            Kind::Small => 8,
            Kind::Large => 2,
        }
    }
    const fn value_bytes(self) -> usize {
        match (self.kind, self.engine) {
            (Kind::Default, _) => 1024,
            (Kind::Small, _) => 24,
            (Kind::Large, EngineKind::Sled) => 256 << 10,
            (Kind::Large, _) => 1 << 20,
        }
    }
    /// Slots that a writer fills in turn.
    pub const fn ring(self) -> u64 {
        match self.kind {
            Kind::Large => 4,
            _ => 64,
        }
    }
    const fn segment_bytes(self) -> u64 {
        match self.kind {
            Kind::Small => 64 << 10,
            _ => 256 << 10,
        }
    }
    /// Operations of a writer between opening and closing.
    fn cycle(self, dice: &mut Dice) -> u64 {
        match self.kind {
            Kind::Large => dice.between(2, 12),
            _ => dice.between(20, 600),
        }
    }

    fn config(self, dir: &Path) -> DiskConfig {
        let audit = audit::Settings {
            dir: dir.join("audit"),
            segment_bytes: self.segment_bytes(),
        };
        DiskConfig {
            caches: strongroomd::store::Caches::default(),
            evidence: strongroomd::store::Evidence::default(),
            dir: dir.join("store"),
            engine: self.engine,
            reserve_bytes: 0,
            audit,
        }
    }
    pub fn audit_dir(dir: &Path) -> PathBuf {
        dir.join("audit")
    }
    pub fn open(self, dir: &Path) -> Tried<(Disk, Option<audit::TornTail>)> {
        Disk::open(&self.config(dir), Arc::new(OsRandom)).map_err(|error| causes(&error).into())
    }

    /// What operation `op` of `writer` writes into its slot; every third one deletes instead.
    fn value(self, writer: u64, op: u64) -> Option<Vec<u8>> {
        (op % 3 != 2).then(|| Dice::new(writer << 40 | op).bytes(self.value_bytes()))
    }
    /// The slots of a writer after `done` operations.
    pub fn slots(self, writer: u64, done: u64) -> BTreeMap<String, Vec<u8>> {
        let live = (done + 1).saturating_sub(self.ring()).max(1)..=done;
        live.filter_map(|op| Some((self.slot(op), self.value(writer, op)?)))
            .collect()
    }
    fn slot(self, op: u64) -> String {
        format!("slot-{}", op % self.ring())
    }
    /// The due rows of a writer after `done` operations.
    pub fn due(self, done: u64) -> std::ops::RangeInclusive<u64> {
        (done + 1).saturating_sub(self.ring()).max(1)..=done
    }
}

/// An error and its causes in one line.
pub fn causes(error: &dyn std::error::Error) -> String {
    let (mut words, mut at) = (error.to_string(), error.source());
    while let Some(cause) = at {
        (words, at) = (format!("{words}: {cause}"), cause.source());
    }
    words.replace('\n', " ")
}

/// The root key of every store that a campaign makes.
pub fn root() -> Tried<LockedKey> {
    LockedKey::copy_of(&[7; 32]).map_err(doing("locked memory"))
}

/// The tables a load writes.
#[derive(Clone)]
pub struct Tables {
    pub slots: View,
    pub counters: View,
    pub due: View,
}

impl Tables {
    pub fn of(store: &Store) -> Self {
        let view = |table| store.view(Namespace::ROOT, table);
        Self {
            slots: view(Table::KvValue),
            counters: view(Table::KvMeta),
            due: view(Table::LeaseDue),
        }
    }
    /// How far a writer came.
    pub async fn counter(&self, writer: u64) -> Result<u64, StoreError> {
        let record = self.counters.get(&counter_key(&writer.to_be_bytes())).await?;
        Ok(record.map_or(0, |record| {
            record
                .value
                .first_chunk()
                .map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes))
        }))
    }
}

fn counter_key(writer: &[u8]) -> [Part<'_>; 2] {
    [Part::Raw(writer), Part::Name("counter")]
}

async fn operate(load: Load, store: &Store, notary: &Notary, tables: &Tables, writer: u64, op: u64) -> Tried<()> {
    let (who, slot) = (writer.to_be_bytes(), load.slot(op));
    let (now, gone) = (op.to_be_bytes(), op.saturating_sub(load.ring()).to_be_bytes());
    let mut change = Change::new();
    let slot_key = [Part::Raw(&who), Part::Name(&slot)];
    match load.value(writer, op) {
        Some(value) => change.put(&tables.slots, &slot_key, Zeroizing::new(value)),
        None => change.delete(&tables.slots, &slot_key),
    };
    change.put(&tables.counters, &counter_key(&who), Zeroizing::new(now.to_vec()));
    change.put(
        &tables.due,
        &[Part::Raw(&who), Part::Raw(&now)],
        Zeroizing::new(now.to_vec()),
    );
    change.delete(&tables.due, &[Part::Raw(&who), Part::Raw(&gone)]);
    store
        .commit(change, vec![notary.note("campaign.write", writer, op)])
        .await
        .map_err(|error| causes(&error))?;
    say(format_args!("write {writer} {op}"));
    if op.is_multiple_of(4) {
        // A read's evidence: committed alone.
        let note = notary.note("campaign.read", writer, op);
        store
            .commit(Change::new(), vec![note])
            .await
            .map_err(|error| causes(&error))?;
        say(format_args!("read {writer} {op}"));
    }
    Ok(())
}

async fn cycle(load: Load, dir: &Path, dice: &mut Dice, phase: &str) -> Tried<()> {
    say(format_args!("phase {phase}"));
    let (disk, torn) = load.open(dir)?;
    let notary = Arc::new(Notary::new());
    if !disk.is_initialised().await? {
        let change = disk.new_keyring(&root()?, Algorithm::default())?;
        disk.raw()
            .commit(change, Vec::new())
            .await
            .map_err(|error| causes(&error))?;
    }
    let store = disk.unlock(&root()?).await.map_err(|error| causes(&error))?;
    if let Some(torn) = torn {
        store
            .commit(Change::new(), vec![notary.torn_tail(&torn)])
            .await
            .map_err(|error| causes(&error))?;
    }
    say("ready");
    say("phase load");
    let mut writers = Vec::new();
    for writer in 0..load.writers() {
        let (store, tables, notary, ops) = (store.clone(), Tables::of(&store), notary.clone(), load.cycle(dice));
        writers.push(tokio::spawn(async move {
            let from = tables.counter(writer).await?;
            for op in from + 1..=from + ops {
                operate(load, &store, &notary, &tables, writer, op).await?;
            }
            Tried::Ok(())
        }));
    }
    for writer in writers {
        writer.await??;
    }
    say("phase closing");
    drop(store);
    tokio::task::spawn_blocking(move || disk.close()).await?;
    Ok(())
}

/// The process: opens, writes, closes, over and over, until it is killed. Says what it does and what was acknowledged.
pub async fn run(load: Load, dir: &Path, seed: u64) -> Tried<()> {
    let mut dice = Dice::new(seed);
    let mut phase = if dir.join("store").exists() {
        "reopening"
    } else {
        "making"
    };
    loop {
        if let Err(error) = cycle(load, dir, &mut dice, phase).await {
            say(format_args!("stopped {error}"));
            return Err(error);
        }
        phase = "reopening";
    }
}
