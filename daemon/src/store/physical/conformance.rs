//! What every engine must do, tried through the committer against a model: random batches with preconditions, scans, reopening. R-STORE-3.

use super::Engine;
use crate::base::{id::OpId, random::OsRandom};
use crate::store::{
    Disk, EngineKind, Version,
    batch::{Batch, Condition, Envelope, Lane},
    error::CommitError,
    table::{self, Namespace, Table},
    testing::{Rig, disk},
};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
enum Step {
    Commit {
        conditions: Vec<(u8, Wanted)>,
        writes: Vec<(u8, Option<u16>)>,
    },
    Scan {
        from: u8,
        to: u8,
        rows: usize,
    },
    Reopen,
}

#[derive(Debug, Clone, Copy)]
enum Wanted {
    Absent,
    Exists,
    Present,
    Old,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let wanted = prop_oneof![
        Just(Wanted::Absent),
        Just(Wanted::Exists),
        Just(Wanted::Present),
        Just(Wanted::Old)
    ];
    let commit = (
        prop::collection::vec((0..12u8, wanted), 0..3),
        prop::collection::vec((0..12u8, prop::option::weighted(0.7, 0..3000u16)), 0..5),
    )
        .prop_map(|(conditions, writes)| Step::Commit { conditions, writes });
    let scan = (0..12u8, 0..13u8, 1..8usize).prop_map(|(from, to, rows)| Step::Scan { from, to, rows });
    prop::collection::vec(prop_oneof![8 => commit, 3 => scan, 1 => Just(Step::Reopen)], 1..40)
}

/// Keys of one table, such that some are prefixes of others.
fn key(index: u8) -> Bytes {
    let mut key = table::head(Namespace::ROOT, Table::System.id()).to_vec();
    key.extend(std::iter::repeat_n(index / 3, 1 + usize::from(index % 3)));
    key.into()
}

fn value(seed: u16, step: usize) -> Vec<u8> {
    (0..seed).map(|at| (at as u8) ^ (step as u8)).collect()
}

type Model = BTreeMap<Bytes, (Version, Vec<u8>)>;

async fn run(open: impl Fn() -> Disk, steps: Vec<Step>) {
    let mut disk = open();
    let mut model = Model::new();
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Reopen => {
                disk.close();
                drop(disk);
                disk = open();
            }
            Step::Scan { from, to, rows } => scan(&disk, &model, key(from), key(to), rows).await,
            Step::Commit { conditions, writes } => commit(&disk, &mut model, conditions, writes, number).await,
        }
        for index in 0..12 {
            let found = disk
                .base()
                .physical
                .get(&key(index))
                .await
                .unwrap()
                .map(|stored| (stored.version, stored.bytes.to_vec()));
            assert_eq!(
                found,
                model.get(&key(index)).cloned(),
                "key {index} after step {number}"
            );
        }
    }
    disk.close();
}

async fn commit(
    disk: &Disk,
    model: &mut Model,
    conditions: Vec<(u8, Wanted)>,
    writes: Vec<(u8, Option<u16>)>,
    step: usize,
) {
    let conditions: Vec<_> = conditions
        .into_iter()
        .map(|(index, wanted)| {
            let now = model.get(&key(index)).map_or(Version(0), |(version, _)| *version);
            let condition = match wanted {
                Wanted::Absent => Condition::Absent,
                Wanted::Exists => Condition::Exists,
                Wanted::Present => Condition::Version(now),
                Wanted::Old => Condition::Version(Version(now.0.saturating_sub(1))),
            };
            (key(index), condition)
        })
        .collect();
    let broken = conditions
        .iter()
        .position(|(key, condition)| !condition.holds(model.get(key).map(|(version, _)| *version)));
    let rows = writes.iter().map(|(index, seed)| {
        let row = seed.map(|seed| {
            let mut row = Envelope::with_capacity(usize::from(seed));
            row.buffer().extend_from_slice(&value(seed, step));
            row
        });
        (key(*index), row)
    });
    let op = OpId::random(&OsRandom);
    let batch = Batch {
        op,
        lane: Lane::Normal,
        conditions,
        writes: rows.collect(),
        audit: Vec::new(),
        then: Vec::new(),
        relaxed: false,
        tending: false,
    };
    let physical = &disk.base().physical;
    match (physical.commit(batch).await, broken) {
        (Ok(done), None) => {
            let outcome = physical.outcome(op).await.unwrap().map(|done| done.version);
            assert_eq!(outcome, (!writes.is_empty()).then_some(done.version));
            for (index, seed) in writes {
                match seed {
                    Some(seed) => drop(model.insert(key(index), (done.version, value(seed, step)))),
                    None => drop(model.remove(&key(index))),
                }
            }
        }
        (Err(CommitError::Precondition(at)), Some(expected)) => {
            assert_eq!(at, expected);
            assert_eq!(physical.outcome(op).await.unwrap(), None);
        }
        (answer, broken) => panic!("{answer:?}, the model says {broken:?}"),
    }
}

async fn scan(disk: &Disk, model: &Model, from: Bytes, to: Bytes, rows: usize) {
    let found = disk
        .base()
        .physical
        .scan(from.to_vec(), to.to_vec(), rows, usize::MAX)
        .await
        .unwrap();
    let found: Vec<_> = found
        .into_iter()
        .map(|(key, stored)| (key, (stored.version, stored.bytes.to_vec())))
        .collect();
    let expected: Vec<_> = model
        .iter()
        .filter(|(key, _)| **key >= from && **key < to)
        .take(rows)
        .map(|(key, row)| (key.clone(), row.clone()))
        .collect();
    assert_eq!(found, expected);
}

fn try_all(cases: u32, strategy_run: impl Fn(Vec<Step>)) {
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest::test_runner::TestRunner::new(config)
        .run(&steps(), |steps| {
            strategy_run(steps);
            Ok(())
        })
        .unwrap();
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap()
        .block_on(future);
}

#[test]
fn memory_and_faulty_conform() {
    try_all(48, |steps| {
        let rig = Rig::default();
        block_on(run(|| rig.open(), steps));
    });
}

#[test]
fn fjall_conforms() {
    try_all(12, |steps| {
        let dir = tempfile::tempdir().unwrap();
        block_on(run(|| disk(EngineKind::Fjall, dir.path()), steps));
    });
}

#[test]
fn sled_conforms() {
    try_all(12, |steps| {
        let dir = tempfile::tempdir().unwrap();
        block_on(run(|| disk(EngineKind::Sled, dir.path()), steps));
    });
}

/// A scan stops for bytes but gives at least one row, on every engine.
#[test]
fn scans_are_bounded_by_bytes() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let engines: [Box<dyn Engine>; 3] = [
        Box::new(super::memory::MemoryEngine::default()),
        Box::new(super::fjall::FjallEngine::open(dirs[0].path()).unwrap()),
        Box::new(super::sled::SledEngine::open(dirs[1].path()).unwrap()),
    ];
    for engine in engines {
        let writes: Vec<_> = (0..12)
            .map(|index| super::Write {
                key: key(index),
                value: Some(vec![index; 1000].into()),
            })
            .collect();
        engine.commit(&writes).unwrap();
        assert_eq!(
            engine.scan(&key(0), &key(12), 100, 0).unwrap().len(),
            1,
            "{}",
            engine.name()
        );
        assert_eq!(
            engine.scan(&key(0), &key(12), 100, 2500).unwrap().len(),
            3,
            "{}",
            engine.name()
        );
        assert_eq!(engine.scan(&key(5), &key(5), 100, 2500).unwrap().len(), 0);
        assert!(engine.free_bytes().unwrap() > 0 && engine.takes_bulk());
    }
}
