//! The store as rooms use it.

mod barrier;
mod crash;
mod faults;
mod flips;
mod goldens;
mod hostile;
mod rate;

use super::{testing::*, *};
use zeroize::Zeroizing;

fn value(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(bytes.to_vec())
}

async fn put(store: &Store, view: &View, key: &[Part<'_>], bytes: &[u8]) -> Committed {
    let mut change = Change::new();
    change.put(view, key, value(bytes));
    store.commit(change, Vec::new()).await.unwrap()
}

/// R-STORE-1, R-STORE-2: what was acknowledged is there after reopening, under the right root key only; R-STORE-3: on every engine.
#[tokio::test]
async fn a_record_survives_reopening_on_every_engine() {
    for kind in [EngineKind::Fjall, EngineKind::Sled] {
        let dir = tempfile::tempdir().unwrap();
        let disk_one = disk(kind, dir.path());
        let store = init(&disk_one, Algorithm::default()).await;
        let view = store.view(Namespace::ROOT, Table::KvMeta);
        let key = [Part::Raw(&[1; 16]), Part::Name("prod"), Part::Name("db")];
        let done = put(&store, &view, &key, b"secret").await;
        assert_eq!(*view.get(&key).await.unwrap().unwrap().value, b"secret");
        drop((store, view));
        disk_one.close();
        drop(disk_one);
        let disk = disk(kind, dir.path());
        assert!(matches!(
            disk.unlock(&LockedKey::copy_of(&[8; 32]).unwrap()).await,
            Err(UnlockError::Keyring)
        ));
        let store = disk.unlock(&root()).await.unwrap();
        let record = store
            .view(Namespace::ROOT, Table::KvMeta)
            .get(&key)
            .await
            .unwrap()
            .unwrap();
        assert_eq!((&record.value[..], record.version), (&b"secret"[..], done.version));
    }
}

#[tokio::test]
async fn names_list_by_folder_and_records_by_page() {
    let store = store().await;
    let view = store.view(Namespace::ROOT, Table::KvMeta);
    let mount = Part::Raw(&[1; 16]);
    for path in ["a", "a/b", "a/c/d", "e", "f/g/h", "f/i"] {
        let key: Vec<_> = [mount].into_iter().chain(path.split('/').map(Part::Name)).collect();
        put(&store, &view, &key, path.as_bytes()).await;
    }
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let page = view.scan_names(&[mount], cursor.as_ref(), 1).await.unwrap();
        seen.extend(
            page.children
                .into_iter()
                .map(|child| (child.name, child.is_record, child.is_folder)),
        );
        let Some(next) = page.next else { break };
        cursor = Some(next);
    }
    seen.sort();
    assert_eq!(
        seen,
        [
            ("a".into(), true, true),
            ("e".into(), true, false),
            ("f".into(), false, true)
        ]
    );

    let (mut paths, mut cursor) = (Vec::new(), None);
    loop {
        let page = view.scan(&[mount], cursor.as_ref(), 2).await.unwrap();
        for entry in page.entries {
            let path: Vec<_> = entry.key.iter().map(|part| part.name().unwrap()).collect();
            assert_eq!(path.join("/").as_bytes(), &entry.record.value[..]);
            paths.push(path.join("/"));
        }
        let Some(next) = page.next else { break };
        cursor = Some(next);
    }
    paths.sort();
    assert_eq!(paths, ["a", "a/b", "a/c/d", "e", "f/g/h", "f/i"]);
    assert_eq!(
        view.scan(&[mount, Part::Name("f")], None, 10)
            .await
            .unwrap()
            .entries
            .len(),
        2
    );
}
