//! The barrier: what storage sees, rotation, re-encryption, limits.

use super::*;
use crate::store::{physical::memory::Memory, sequence::Sequence};

fn contains(memory: &Memory, needle: &[u8]) -> bool {
    memory.read().iter().any(|(key, row)| {
        [key, row]
            .iter()
            .any(|bytes| bytes.windows(needle.len()).any(|window| window == needle))
    })
}

/// R-STORE-2: neither values nor names are stored in plain; raw parts are (the control).
#[tokio::test]
async fn storage_sees_no_plaintext() {
    let rig = Rig::default();
    let store = init(&rig.open(), Algorithm::default()).await;
    let view = store.view(Namespace::ROOT, Table::KvMeta);
    put(
        &store,
        &view,
        &[
            Part::Raw(b"raw-control"),
            Part::Name("folder-canary"),
            Part::Name("name-canary"),
        ],
        b"value-canary",
    )
    .await;
    assert!(contains(&rig.memory, b"raw-control"));
    for canary in [&b"folder-canary"[..], b"name-canary", b"value-canary"] {
        assert!(!contains(&rig.memory, canary));
    }
}

/// R-STORE-2: a record that was moved, swapped or cut is refused by name, and never stops anything; R-STORE-4: it is listed, and mended by a new write.
#[tokio::test]
async fn moved_swapped_and_cut_records_are_refused_and_listed() {
    let rig = Rig::default();
    let disk = rig.open();
    let store = init(&disk, Algorithm::default()).await;
    let view = store.view(Namespace::ROOT, Table::System);
    let keys = ["one", "two", "three", "four"].map(|name| [Part::Name(name)]);
    for key in &keys {
        put(&store, &view, key, format!("{key:?}").as_bytes()).await;
    }
    let stored: Vec<_> = keys.iter().map(|key| view.stored_key(key).unwrap()).collect();
    {
        let mut map = rig.memory.write();
        let (one, two) = (map[&stored[0]].clone(), map[&stored[1]].clone());
        map.insert(stored[0].clone(), two);
        map.insert(stored[1].clone(), one);
        let cut = map[&stored[2]].slice(..20);
        map.insert(stored[2].clone(), cut);
    }
    disk.close();
    let disk = rig.open();
    let store = disk.unlock(&root()).await.unwrap();
    let view = store.view(Namespace::ROOT, Table::System);
    for (key, name) in keys.iter().zip(["one", "two", "three"]) {
        let Err(StoreError::Damaged { record }) = view.get(key).await else {
            panic!("{name} was not refused")
        };
        assert_eq!(record, format!("system {name}"));
    }
    let page = view.scan(&[], None, 10).await.unwrap();
    assert_eq!((page.entries.len(), page.damaged.len()), (1, 3));
    assert_eq!((store.quarantined().0.len(), store.quarantined().1), (3, 6));
    tokio::task::yield_now().await; // the list is written by tasks of their own
    store.commit(Change::new(), vec![evidence("any")]).await.unwrap();
    disk.close();
    let disk = rig.open();
    let store = disk.unlock(&root()).await.unwrap();
    let view = store.view(Namespace::ROOT, Table::System);
    assert_eq!(store.quarantined().0.len(), 3, "the list survives a restart");
    put(&store, &view, &keys[0], b"mended").await;
    assert_eq!(*view.get(&keys[0]).await.unwrap().unwrap().value, b"mended");
    assert_eq!(store.quarantined().0.len(), 2);
}

/// R-SEAL-5: after a rotation old data stays readable; re-encryption resumes after a crash; the old key goes only when nothing needs it.
#[tokio::test]
async fn rotation_and_reencryption() {
    let rig = Rig::default();
    let mut disk = rig.open();
    let mut store = init(&disk, Algorithm::default()).await;
    let key = |index: u32| index.to_be_bytes();
    let view = store.view(Namespace::ROOT, Table::System);
    for index in 0..50 {
        put(&store, &view, &[Part::Raw(&key(index))], &key(index)).await;
    }
    let edits = [KeyringEdit::AddGeneration(Algorithm::Aes256Gcm), KeyringEdit::AddPepper];
    store
        .change_keyring(&root(), &edits, Change::new(), Vec::new())
        .await
        .unwrap();
    assert_eq!(store.keyring().unwrap().generation_ids(), [1, 2]);
    assert_eq!(store.keyring().unwrap().peppers().len(), 2);
    let (mut resealed, mut passes) = (0, 0);
    let unused = loop {
        let done = store.rewrap(7).await.unwrap();
        resealed += done.resealed;
        if done.finished {
            passes += 1;
            if !done.unused.is_empty() {
                break done.unused;
            }
        }
        if done.seen > 0 && resealed == 14 {
            disk.close(); // as if it had crashed here
            disk = rig.open();
            store = disk.unlock(&root()).await.unwrap();
        }
    };
    assert_eq!((resealed, passes, unused), (50, 2, vec![1]));
    store
        .change_keyring(&root(), &[KeyringEdit::DropGeneration(1)], Change::new(), Vec::new())
        .await
        .unwrap();
    disk.close();
    let store = rig.open().unlock(&root()).await.unwrap();
    assert_eq!(store.keyring().unwrap().generation_ids(), [2]);
    let page = store
        .view(Namespace::ROOT, Table::System)
        .scan(&[], None, 100)
        .await
        .unwrap();
    assert_eq!((page.entries.len(), page.damaged.len()), (50, 0));
    for entry in page.entries {
        assert_eq!(entry.key[0].raw().unwrap(), &entry.record.value[..]);
    }
}

/// A damaged record under the old key holds that key back: it might be restored.
#[tokio::test]
async fn a_damaged_record_keeps_its_generation() {
    let rig = Rig::default();
    let disk = rig.open();
    let store = init(&disk, Algorithm::default()).await;
    let view = store.view(Namespace::ROOT, Table::System);
    put(&store, &view, &[Part::Name("a")], b"a").await;
    let stored = view.stored_key(&[Part::Name("a")]).unwrap();
    let mut row = rig.memory.read()[&stored].to_vec();
    *row.last_mut().unwrap() ^= 1;
    rig.memory.write().insert(stored, row.into());
    store
        .change_keyring(
            &root(),
            &[KeyringEdit::AddGeneration(Algorithm::default())],
            Change::new(),
            Vec::new(),
        )
        .await
        .unwrap();
    for _ in 0..3 {
        while !store.rewrap(100).await.unwrap().finished {}
    }
    assert!(store.rewrap(100).await.unwrap().seen > 0);
    assert_eq!(
        store.rewrap(100).await.unwrap(),
        Rewrapped {
            finished: true,
            ..Rewrapped::default()
        }
    );
}

/// A new root key takes effect with the commit that carries it; the old one opens nothing any more.
#[tokio::test]
async fn a_new_root_key_replaces_the_old_one_atomically() {
    let rig = Rig::default();
    let disk = rig.open();
    let store = init(&disk, Algorithm::default()).await;
    let new = LockedKey::copy_of(&[9; 32]).unwrap();
    let mut refused = Change::new();
    refused.require_raw_absent(RawTable::Keyring, &[]);
    assert!(store.change_keyring(&new, &[], refused, Vec::new()).await.is_err());
    assert!(disk.unlock(&root()).await.is_ok());
    let mut slots = Change::new();
    slots.put_raw(RawTable::Slots, b"1", b"slot".to_vec());
    store
        .change_keyring(&new, &[], slots, vec![evidence("rekey")])
        .await
        .unwrap();
    assert!(matches!(disk.unlock(&root()).await, Err(UnlockError::Keyring)));
    let store = disk.unlock(&new).await.unwrap();
    let (listed, damaged) = store.raw().list(RawTable::Slots).await.unwrap();
    assert_eq!(
        (listed[0].0.as_slice(), &listed[0].1.value[..], damaged.len()),
        (&b"1"[..], &b"slot"[..], 0)
    );
}

/// R-SEAL-7: a locked store gives nothing, whoever still holds a view.
#[tokio::test]
async fn a_locked_store_is_sealed_for_every_view() {
    let rig = Rig::default();
    let disk = rig.open();
    assert!(matches!(disk.unlock(&root()).await, Err(UnlockError::Blank)));
    assert!(!disk.is_initialised().await.unwrap());
    let store = init(&disk, Algorithm::default()).await;
    let view = store.view(Namespace::ROOT, Table::System);
    put(&store, &view, &[Part::Name("a")], b"a").await;
    store.lock();
    assert!(matches!(view.get(&[Part::Name("a")]).await, Err(StoreError::Sealed)));
    let mut change = Change::new();
    change.put(&view, &[Part::Name("a")], value(b"b"));
    assert!(matches!(
        store.commit(change, Vec::new()).await,
        Err(CommitError::Sealed)
    ));
    let mut raw = Change::new();
    raw.put_raw(RawTable::Fence, b"x", b"y".to_vec());
    disk.raw().commit(raw, vec![evidence("status")]).await.unwrap();
    assert!(disk.is_initialised().await.unwrap());
}

/// AES-256-GCM: rotation is asked for at 2^30 records, sealing refused at 2^32 (NIST SP 800-38D, 8.3); the count survives restarts.
#[tokio::test]
async fn a_counted_key_is_spent() {
    let rig = Rig::default();
    let reserved = |count: u64| {
        let row = crate::store::frame::encode(&Sequence::key(), &count.to_be_bytes()).stamp(Version(1));
        rig.memory.write().insert(Sequence::key(), row);
    };
    let disk = rig.open();
    let store = init(&disk, Algorithm::Aes256Gcm).await;
    let view = store.view(Namespace::ROOT, Table::System);
    put(&store, &view, &[Part::Name("a")], b"a").await;
    assert!(!store.wants_rotation());
    disk.close();
    reserved(1 << 30);
    let disk = rig.open();
    let store = disk.unlock(&root()).await.unwrap();
    assert!(store.wants_rotation());
    disk.close();
    reserved((1 << 32) - 1);
    let disk = rig.open();
    let store = disk.unlock(&root()).await.unwrap();
    let view = store.view(Namespace::ROOT, Table::System);
    put(&store, &view, &[Part::Name("b")], b"last").await;
    let mut change = Change::new();
    change.put(&view, &[Part::Name("c")], value(b"one too many"));
    assert!(matches!(
        store.commit(change, Vec::new()).await,
        Err(CommitError::KeySpent)
    ));
    store
        .change_keyring(
            &root(),
            &[KeyringEdit::AddGeneration(Algorithm::Aes256Gcm)],
            Change::new(),
            Vec::new(),
        )
        .await
        .unwrap();
    assert!(!store.wants_rotation());
    put(&store, &view, &[Part::Name("c")], b"c").await;
    assert_eq!(*view.get(&[Part::Name("a")]).await.unwrap().unwrap().value, b"a");
}

/// The sequence never goes back, even when its row is lost: numbers of stored records are not used again.
#[tokio::test]
async fn the_sequence_never_repeats() {
    let rig = Rig::default();
    let disk = rig.open();
    let store = init(&disk, Algorithm::default()).await;
    let view = store.view(Namespace::ROOT, Table::System);
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..3u8 {
        let (disk, store, view) = if round == 0 {
            (disk.clone(), store.clone(), view.clone())
        } else {
            let disk = rig.open();
            let store = disk.unlock(&root()).await.unwrap();
            let view = store.view(Namespace::ROOT, Table::System);
            (disk, store, view)
        };
        for index in 0..5u8 {
            put(&store, &view, &[Part::Raw(&[round, index])], b"x").await;
            let key = view.stored_key(&[Part::Raw(&[round, index])]).unwrap();
            let header = crate::store::record::parse_header(&rig.memory.read()[&key][8..]).unwrap();
            assert!(seen.insert(header.sequence), "used twice");
        }
        disk.close();
        if round == 1 {
            rig.memory.write().remove(&Sequence::key());
        }
    }
}
