//! Goldens of every format of the store: what once was written is read for ever. `STRONGROOM_WRITE_GOLDENS=1` writes new ones.

use super::*;
use data_encoding::HEXLOWER;
use std::fmt::Write;

const GOLDEN: &str = include_str!("../goldens/store-v1.txt");

/// A store made with fixed dice: every row is the same every time.
async fn make(rig: &Rig) {
    let disk = rig.open_by(FixedDice::new()).unwrap();
    let store = init(&disk, Algorithm::Xaes256Gcm).await;
    let view = store.view(Namespace::ROOT, Table::KvValue);
    let mut change = Change::new();
    change.put(
        &view,
        &[
            Part::Raw(&[1; 16]),
            Part::Name("prod"),
            Part::Name("db"),
            Part::Raw(&1u32.to_be_bytes()),
        ],
        value(b"xaes"),
    );
    store
        .commit(change, vec![evidence("kv.put"), evidence("kv.get")])
        .await
        .unwrap();
    let edits = [KeyringEdit::AddGeneration(Algorithm::Aes256Gcm), KeyringEdit::AddPepper];
    store
        .change_keyring(&root(), &edits, Change::new(), Vec::new())
        .await
        .unwrap();
    put(
        &store,
        &view,
        &[
            Part::Raw(&[1; 16]),
            Part::Name("prod"),
            Part::Name("db"),
            Part::Raw(&2u32.to_be_bytes()),
        ],
        b"gcm",
    )
    .await;
    let mut raw = Change::new();
    raw.put_raw(RawTable::Slots, &[1], b"slot".to_vec());
    disk.raw().commit(raw, Vec::new()).await.unwrap();
    disk.close();
}

fn text(rig: &Rig) -> String {
    let mut out = String::new();
    for (key, row) in rig.memory.read().iter() {
        writeln!(out, "{} {}", HEXLOWER.encode(key), HEXLOWER.encode(row)).unwrap();
    }
    out
}

#[tokio::test]
async fn the_format_of_today_is_the_golden() {
    let rig = Rig::behind();
    make(&rig).await;
    if std::env::var_os("STRONGROOM_WRITE_GOLDENS").is_some() {
        std::fs::write(
            concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/goldens/store-v1.txt"),
            text(&rig),
        )
        .unwrap();
    } else {
        assert_eq!(text(&rig), GOLDEN);
    }
}

#[tokio::test]
async fn the_golden_reads() {
    let rig = Rig::behind();
    for line in GOLDEN.lines() {
        let (key, row) = line.split_once(' ').unwrap();
        let bytes = |hex: &str| bytes::Bytes::from(HEXLOWER.decode(hex.as_bytes()).unwrap());
        rig.memory.write().insert(bytes(key), bytes(row));
    }
    let disk = rig.open();
    let store = disk.unlock(&root()).await.unwrap();
    assert_eq!(store.keyring().unwrap().peppers().len(), 2);
    let page = store
        .view(Namespace::ROOT, Table::KvValue)
        .scan(&[Part::Raw(&[1; 16])], None, 10)
        .await
        .unwrap();
    let read: Vec<_> = page
        .entries
        .iter()
        .map(|entry| (format!("{:?}", entry.key), entry.record.value.to_vec()))
        .collect();
    assert_eq!(
        read,
        [
            ("[prod, db, 00000001]".into(), b"xaes".to_vec()),
            ("[prod, db, 00000002]".into(), b"gcm".to_vec())
        ]
    );
    assert_eq!(
        &disk.raw().get(RawTable::Slots, &[1]).await.unwrap().unwrap().value[..],
        b"slot"
    );
}
