//! Every byte of every record kind, flipped: found or harmless, never a panic or a wrong answer. R-STORE-2, R-STORE-4.

use super::*;
use bytes::Bytes;

const NAMES: [&str; 2] = ["alpha", "beta"];

/// A store with every kind of row: format, slots, keyring, heads, sequence, outbox, outcomes, quarantine, rewrap's place, and values.
async fn full(rig: &Rig) {
    let disk = rig.open();
    let store = init(&disk, Algorithm::default()).await;
    let view = store.view(Namespace::ROOT, Table::KvMeta);
    for name in NAMES {
        let mut change = Change::new();
        change.put(&view, &[Part::Raw(&[3; 4]), Part::Name(name)], value(name.as_bytes()));
        store.commit(change, vec![evidence("put")]).await.unwrap();
    }
    store
        .change_keyring(
            &root(),
            &[KeyringEdit::AddGeneration(Algorithm::Aes256Gcm)],
            Change::new(),
            vec![evidence("rotate")],
        )
        .await
        .unwrap();
    put(&store, &view, &[Part::Raw(&[3; 4]), Part::Name("gcm")], b"gcm").await;
    let mut raw = Change::new();
    raw.put_raw(RawTable::Slots, &[1], b"slot".to_vec())
        .put_raw(RawTable::Fence, &[1], b"fence".to_vec());
    disk.raw().commit(raw, Vec::new()).await.unwrap();
    while !store.rewrap(1).await.unwrap().finished {}
    disk.base().quarantine(b"\0\0\0\0\x32gone", "gone");
    tokio::task::yield_now().await; // the list is written by a task of its own
    store.commit(Change::new(), vec![evidence("read")]).await.unwrap();
    disk.close();
}

/// Opens and reads all there is. What it gives is right or refused.
async fn check(rig: &Rig, what: &str) {
    let Ok(disk) = rig.open_by(Arc::new(crate::base::random::OsRandom)) else {
        return;
    };
    for (table, id, expected) in [(RawTable::Slots, &[1], &b"slot"[..]), (RawTable::Fence, &[1], b"fence")] {
        match disk.raw().get(table, id).await {
            Ok(Some(record)) => assert_eq!(&record.value[..], expected, "{what}"),
            Ok(None) | Err(StoreError::Damaged { .. }) => {}
            Err(error) => panic!("{what}: {error}"),
        }
        disk.raw().list(table).await.unwrap();
    }
    if let Ok(store) = disk.unlock(&root()).await {
        let view = store.view(Namespace::ROOT, Table::KvMeta);
        for name in NAMES.into_iter().chain(["gcm"]) {
            match view.get(&[Part::Raw(&[3; 4]), Part::Name(name)]).await {
                Ok(Some(record)) => assert_eq!(&record.value[..], name.as_bytes(), "{what}"),
                Ok(None) | Err(StoreError::Damaged { .. }) => {}
                Err(error) => panic!("{what}: {error}"),
            }
        }
        for entry in view.scan(&[], None, 100).await.unwrap().entries {
            assert_eq!(
                entry.key.last().unwrap().name().unwrap().as_bytes(),
                &entry.record.value[..],
                "{what}"
            );
        }
        for child in view
            .scan_names(&[Part::Raw(&[3; 4])], None, 100)
            .await
            .unwrap()
            .children
        {
            assert!(["alpha", "beta", "gcm"].contains(&child.name.as_str()), "{what}");
        }
        drop(store.outcome(OpId::from_bytes([1; 16])).await);
        store.quarantined();
        drop(store.rewrap(100).await);
        put(&store, &view, &[Part::Name("new")], b"new").await;
        assert_eq!(
            *view.get(&[Part::Name("new")]).await.unwrap().unwrap().value,
            b"new",
            "{what}"
        );
    }
    disk.close();
}

async fn with(rows: &[(Bytes, Bytes)], at: usize, row: Option<(Bytes, Bytes)>, what: &str) {
    let rig = Rig::behind();
    {
        let mut map = rig.memory.write();
        map.extend(rows.iter().cloned());
        map.remove(&rows[at].0);
        map.extend(row);
    }
    check(&rig, what).await;
}

#[tokio::test]
async fn every_flipped_byte_is_found_or_harmless() {
    let rig = Rig::behind();
    full(&rig).await;
    let rows: Vec<_> = rig
        .memory
        .read()
        .iter()
        .map(|(key, row)| (key.clone(), row.clone()))
        .collect();
    let tables: std::collections::BTreeSet<u8> = rows.iter().map(|(key, _)| key[4]).collect();
    for table in RawTable::ALL.iter().map(|table| table.id()).chain([Table::KvMeta.id()]) {
        assert!(tables.contains(&table), "no row of table {table:#x} is tried");
    }
    for (at, (key, row)) in rows.iter().enumerate() {
        for byte in 0..row.len() {
            let mut flipped = row.to_vec();
            flipped[byte] ^= 1 << (byte % 8);
            with(
                &rows,
                at,
                Some((key.clone(), flipped.into())),
                &format!("row {at} {:#x} byte {byte}", key[4]),
            )
            .await;
        }
        for byte in 0..key.len() {
            let mut flipped = key.to_vec();
            flipped[byte] ^= 1 << (byte % 8);
            with(
                &rows,
                at,
                Some((flipped.into(), row.clone())),
                &format!("key {at} {:#x} byte {byte}", key[4]),
            )
            .await;
        }
        for end in [0, 1, 7, 8, 9, 20, row.len().saturating_sub(1)] {
            with(
                &rows,
                at,
                Some((key.clone(), row.slice(..end.min(row.len())))),
                &format!("row {at} cut at {end}"),
            )
            .await;
        }
        with(&rows, at, None, &format!("row {at} removed")).await;
    }
}

/// The same, sharper, for what must be found: a value's, name's or keyring's byte that changes what is read is refused by name.
#[tokio::test]
async fn a_flipped_value_or_keyring_is_refused() {
    let rig = Rig::behind();
    full(&rig).await;
    let rows: Vec<_> = rig
        .memory
        .read()
        .iter()
        .map(|(key, row)| (key.clone(), row.clone()))
        .collect();
    for (at, (key, row)) in rows.iter().enumerate() {
        for byte in 8..row.len() {
            let rig = Rig::behind();
            let mut flipped = row.to_vec();
            flipped[byte] ^= 0x40;
            rig.memory.write().extend(rows.iter().cloned());
            rig.memory.write().insert(key.clone(), flipped.into());
            if key[4] == RawTable::Keyring.id() || key[5..] == b"keyring"[..] {
                // Its twin opens the store; the damage is told all the same.
                let store = rig.open().unlock(&root()).await.unwrap();
                assert_eq!(store.quarantined().0.len(), 2, "keyring byte {byte}");
            } else if key[4] == Table::KvMeta.id() {
                let disk = rig.open();
                let store = disk.unlock(&root()).await.unwrap();
                let page = store
                    .view(Namespace::ROOT, Table::KvMeta)
                    .scan(&[], None, 100)
                    .await
                    .unwrap();
                assert_eq!((page.entries.len(), page.damaged.len()), (2, 1), "row {at} byte {byte}");
            } else if key[5..] == b"head"[..] || key[4] == RawTable::Outbox.id() {
                assert!(rig.open_by(FixedDice::new()).is_err(), "head or frame, byte {byte}");
            } else if key[4] == RawTable::Format.id() {
                let ids = rig.open().ids();
                let whole = Rig::behind();
                whole.memory.write().extend(rows.iter().cloned());
                assert_eq!(ids, whole.open().ids(), "format byte {byte}");
            }
        }
    }
}

/// Without both copies there is nothing to guess: the store says which record is lost.
#[tokio::test]
async fn a_keyring_or_format_lost_twice_is_refused_by_name() {
    for (table, twin) in [(RawTable::Keyring, "keyring"), (RawTable::Format, "format")] {
        let rig = Rig::behind();
        full(&rig).await;
        for (key, row) in rig.memory.write().iter_mut() {
            if key[4] == table.id() || key[5..] == *twin.as_bytes() {
                let mut flipped = row.to_vec();
                flipped[9] ^= 1;
                *row = flipped.into();
            }
        }
        if table == RawTable::Format {
            assert!(matches!(
                rig.open_by(FixedDice::new()),
                Err(OpenError::Raw(RawTable::Format))
            ));
        } else {
            let disk = rig.open();
            assert!(matches!(
                disk.unlock(&root()).await,
                Err(UnlockError::Store(StoreError::Damaged { .. }))
            ));
            assert!(disk.is_initialised().await.unwrap());
        }
    }
}

/// The keyring's own sealing, without the frame around it: whoever mends the checksum still has no key.
#[test]
fn every_flipped_byte_of_a_sealed_keyring_is_refused() {
    let cluster = crate::base::id::ClusterId::from_bytes([4; 16]);
    let keyring = Keyring::create(Algorithm::default(), 0, &*FixedDice::new()).unwrap();
    let sealed = keyring.seal(&root(), cluster, &*FixedDice::new());
    assert!(Keyring::open(&root(), cluster, &sealed).is_ok());
    assert!(Keyring::open(&root(), crate::base::id::ClusterId::from_bytes([5; 16]), &sealed).is_err());
    for byte in 0..sealed.len() {
        let mut flipped = sealed.clone();
        flipped[byte] ^= 0x10;
        assert!(Keyring::open(&root(), cluster, &flipped).is_err(), "byte {byte}");
        assert!(
            Keyring::open(&root(), cluster, &sealed[..byte]).is_err(),
            "cut at {byte}"
        );
    }
    assert!(Keyring::open(&root(), cluster, &[sealed, vec![0; 2000]].concat()).is_err());
}
