mod list;
mod model;

use super::*;
use crate::{
    base::{
        random::OsRandom,
        time::{Clock, ManualClock, Timestamp},
    },
    mount::{Kind, MountError, MountRoom, Place},
    policy::{
        Action, Claim, Mismatch, Permit, Purpose,
        testing::{self as permits, permit, permit_under},
    },
    store::{Change, CommitError, Committed, Namespace, Store, Table, testing},
};
use model::{Model, Op, agrees, op, step};
use proptest::{collection, prelude::*, sample::select};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

struct Fixture {
    store: Arc<Store>,
    mounts: Arc<MountRoom>,
    kv: KvRoom,
    clock: Arc<ManualClock>,
}

async fn fixture() -> Fixture {
    let store = testing::store().await;
    let clock = Arc::new(ManualClock::at(Timestamp(1_000_000)));
    let mounts = Arc::new(
        MountRoom::load(&store, clock.clone(), Arc::new(OsRandom))
            .await
            .unwrap(),
    );
    for (path, kind) in [("kv", Kind::Kv), ("pg", Kind::Postgres)] {
        let (change, _) = mounts
            .enable(&permit(Action::MountWrite, path), kind, "")
            .await
            .unwrap();
        store.commit(change, Vec::new()).await.unwrap();
    }
    let kv = KvRoom::open(&store, mounts.clone(), clock.clone(), Arc::new(OsRandom)).unwrap();
    Fixture {
        store,
        mounts,
        kv,
        clock,
    }
}

fn fields(text: &[u8]) -> Fields {
    Fields::new([("value", text)]).unwrap()
}

fn value(secret: &Secret) -> Vec<u8> {
    secret.fields.expose().next().unwrap().1.to_vec()
}

impl Fixture {
    fn place(&self, at: &str) -> Place {
        self.mounts.resolve(&permits::path(at)).unwrap()
    }
    async fn commit(&self, change: Change) -> Result<Committed, CommitError> {
        self.store.commit(change, Vec::new()).await
    }
    async fn put(&self, at: &str, text: &[u8], cas: Option<u64>) -> Result<u64, KvError> {
        let (change, written) = self
            .kv
            .put(&permit(Action::Write, at), &self.place(at), fields(text), cas)
            .await?;
        self.commit(change).await.unwrap();
        Ok(written.version)
    }
    async fn get(&self, at: &str, select: Select) -> Result<Secret, KvError> {
        self.kv.get(&permit(Action::Read, at), &self.place(at), &select).await
    }
    async fn done(&self, change: Result<Change, KvError>) -> Result<(), KvError> {
        self.commit(change?).await.unwrap();
        Ok(())
    }
    async fn destroy(&self, at: &str, what: Destroy) -> Result<(), KvError> {
        self.done(
            self.kv
                .destroy(&permit(Action::Destroy, at), &self.place(at), &what)
                .await,
        )
        .await
    }
    async fn set(&self, at: &str, settings: &Settings) -> Result<(), KvError> {
        self.done(self.kv.set(&permit(Action::Write, at), &self.place(at), settings).await)
            .await
    }
    async fn values(&self) -> usize {
        self.store
            .view(Namespace::ROOT, Table::KvValue)
            .scan(&[], None, 1000)
            .await
            .unwrap()
            .entries
            .len()
    }
}

/// R-KV-1: versions, labels, check-and-set, soft delete, undelete, destroy: one secret's life.
#[tokio::test]
async fn a_secret_s_life() {
    let f = fixture().await;
    let at = "kv/prod/db";
    let get = |select| f.get(at, select);
    assert!(matches!(get(Select::Current).await, Err(KvError::NotFound)));
    assert!(matches!(
        f.put(at, b"one", Some(1)).await,
        Err(KvError::Cas { current: 0 })
    ));
    assert_eq!(f.put(at, b"one", Some(0)).await.unwrap(), 1);
    assert!(matches!(
        f.put(at, b"two", Some(0)).await,
        Err(KvError::Cas { current: 1 })
    ));
    f.clock.advance(Duration::from_secs(1));
    assert_eq!(f.put(at, b"two", Some(1)).await.unwrap(), 2);
    let current = get(Select::Current).await.unwrap();
    assert_eq!(
        (
            value(&current),
            current.version,
            current.created,
            current.labels.clone()
        ),
        (b"two".to_vec(), 2, f.clock.now(), vec![CURRENT.to_owned()])
    );
    let previous = get(Select::Label(PREVIOUS.into())).await.unwrap();
    assert_eq!(
        (value(&previous), previous.version, previous.labels.clone()),
        (b"one".to_vec(), 1, vec![PREVIOUS.to_owned()])
    );
    assert!(matches!(get(Select::Version(3)).await, Err(KvError::NoVersion(3))));
    assert!(matches!(get(Select::Label("x".into())).await, Err(KvError::NoLabel)));

    f.done(f.kv.delete(&permit(Action::Delete, at), &f.place(at), &[]).await)
        .await
        .unwrap();
    assert!(matches!(get(Select::Current).await, Err(KvError::Deleted(2))));
    assert_eq!(value(&get(Select::Version(1)).await.unwrap()), b"one");
    assert!(
        matches!(f.put(at, b"three", Some(0)).await, Err(KvError::Cas { current: 2 })),
        "a hidden secret is there"
    );
    f.done(f.kv.undelete(&permit(Action::Undelete, at), &f.place(at), &[]).await)
        .await
        .unwrap();
    assert_eq!(value(&get(Select::Current).await.unwrap()), b"two");

    for version in [1, 2] {
        assert!(
            matches!(
                f.destroy(at, Destroy::Versions(vec![version])).await,
                Err(KvError::Labelled { .. })
            ),
            "{version}"
        );
    }
    assert!(matches!(
        f.destroy(at, Destroy::Versions(vec![])).await,
        Err(KvError::NothingNamed)
    ));
    f.set(
        at,
        &Settings {
            labels: [(PREVIOUS.to_owned(), 0)].into(),
            ..Settings::default()
        },
    )
    .await
    .unwrap();
    f.destroy(at, Destroy::Versions(vec![1])).await.unwrap();
    assert!(matches!(get(Select::Version(1)).await, Err(KvError::Destroyed(1))));
    assert!(matches!(
        f.kv.undelete(&permit(Action::Undelete, at), &f.place(at), &[1]).await,
        Err(KvError::Destroyed(1))
    ));
    assert_eq!(f.values().await, 0, "the destroyed value is gone from the store");

    f.destroy(at, Destroy::All).await.unwrap();
    assert!(matches!(get(Select::Current).await, Err(KvError::NotFound)));
    assert_eq!(f.put(at, b"anew", Some(0)).await.unwrap(), 1);
}

/// R-KV-1: older versions go on put, but for those an operator's label holds; a large value has a record of its own.
#[tokio::test]
async fn versions_max_and_labels() {
    let f = fixture().await;
    let (at, large) = ("kv/a", vec![7; INLINE_BYTES_MAX + 1]);
    assert!(matches!(f.set(at, &Settings::default()).await, Err(KvError::NotFound)));
    f.put(at, &large, None).await.unwrap();
    f.set(
        at,
        &Settings {
            versions_max: Some(2),
            labels: [("good".to_owned(), 1)].into(),
            ..Settings::default()
        },
    )
    .await
    .unwrap();
    for _ in 2..=5 {
        f.put(at, &large, None).await.unwrap();
    }
    let history = f.kv.history(&permit(Action::Metadata, at), &f.place(at)).await.unwrap();
    assert_eq!(
        history.versions.iter().map(|entry| entry.version).collect::<Vec<_>>(),
        [1, 4, 5],
        "the held version is beside the maximum"
    );
    assert_eq!((history.current, history.versions_max, f.values().await), (5, 2, 3));
    assert_eq!(value(&f.get(at, Select::Label("good".into())).await.unwrap()), large);
    f.set(
        at,
        &Settings {
            versions_max: Some(1),
            labels: [("good".to_owned(), 0)].into(),
            ..Settings::default()
        },
    )
    .await
    .unwrap();
    f.put(at, b"small", None).await.unwrap();
    assert_eq!(
        (f.values().await, value(&f.get(at, Select::Current).await.unwrap())),
        (0, b"small".to_vec())
    );
    assert!(matches!(
        f.get(at, Select::Label(PREVIOUS.into())).await,
        Err(KvError::NoLabel)
    ));
}

#[tokio::test]
async fn settings_have_bounds() {
    let f = fixture().await;
    let at = "kv/a";
    f.put(at, b"v", None).await.unwrap();
    let label = |name: &str, version| Settings {
        labels: [(name.to_owned(), version)].into(),
        ..Settings::default()
    };
    let custom = |count: usize, key: usize, value: usize| {
        let entry = |number: usize| (format!("{number:0key$}"), "v".repeat(value));
        Settings {
            custom: Some((0..count).map(entry).collect()),
            ..Settings::default()
        }
    };
    let versions = |versions| Settings {
        versions_max: Some(versions),
        ..Settings::default()
    };
    let labels = |count: usize| Settings {
        labels: (0..count).map(|number| (format!("l{number}"), 1)).collect(),
        ..Settings::default()
    };
    for (settings, want) in [
        (versions(0), "keeps 1 to 1000"),
        (versions(1000), ""),
        (versions(1001), "keeps 1 to 1000"),
        (custom(64, 128, 512), ""),
        (custom(65, 3, 1), "custom metadata"),
        (custom(1, 129, 1), "custom metadata"),
        (custom(1, 1, 513), "custom metadata"),
        (label(CURRENT, 1), "`current` is not set by hand"),
        (label(CURRENT, 0), "`current` is not set by hand"),
        (label(PENDING, 1), "`pending` is not set by hand"),
        (label(PENDING, 0), ""),
        (label("a/b", 1), "a label is"),
        (label(&"l".repeat(33), 1), "a label is"),
        (label("x", 2), "no version 2"),
        (labels(16), ""),
        (label("one-more", 1), "a label is"),
    ] {
        let got = f
            .set(at, &settings)
            .await
            .map_or_else(|error| error.to_string(), |()| String::new());
        assert!(
            got.contains(want) && got.is_empty() == want.is_empty(),
            "{settings:?}: {got}"
        );
    }
    f.set(
        at,
        &Settings {
            cas_required: Some(true),
            ..Settings::default()
        },
    )
    .await
    .unwrap();
    assert!(matches!(
        f.put(at, b"w", None).await,
        Err(KvError::CasRequired { current: 1 })
    ));
    f.put(at, b"w", Some(1)).await.unwrap();
    assert_eq!(
        f.get(at, Select::Version(1)).await.unwrap().labels.len(),
        17,
        "sixteen and `previous`"
    );
}

/// A permit for one path or action does not act on another; a secret is only in a kv mount, below it.
#[tokio::test]
async fn a_permit_is_for_its_path() {
    let f = fixture().await;
    f.put("kv/a", b"v", None).await.unwrap();
    let get = |action, at: &'static str, place: &'static str| {
        let (permit, place) = (permit(action, at), f.place(place));
        let kv = &f.kv;
        async move { kv.get(&permit, &place, &Select::Current).await }
    };
    assert!(get(Action::Read, "kv/a", "kv/a").await.is_ok());
    assert!(matches!(
        get(Action::Read, "kv/b", "kv/a").await,
        Err(KvError::Permit(Mismatch))
    ));
    assert!(matches!(
        get(Action::Write, "kv/a", "kv/a").await,
        Err(KvError::Permit(Mismatch))
    ));
    assert!(matches!(
        get(Action::Read, "pg/a", "pg/a").await,
        Err(KvError::Permit(Mismatch))
    ));
    assert!(matches!(
        get(Action::Read, "kv", "kv").await,
        Err(KvError::NoSecretPath)
    ));
    let own = permit_under(
        permits::ALL,
        &permits::caller("ann", &[], Purpose::Session),
        Action::List,
        "kv",
        Claim::Own,
    )
    .unwrap();
    let listed = f.kv.list(&own, &f.place("kv"), &ListQuery::default()).await;
    assert!(
        matches!(listed, Err(KvError::Permit(Mismatch))),
        "a folder is nobody's own"
    );
}

/// What is committed in a mount that was closed in between is refused: no acknowledged version is in a mount that is gone.
#[tokio::test]
async fn a_closed_mount_takes_nothing() {
    let f = fixture().await;
    let write = |permit: Permit| {
        let (place, kv) = (f.place("kv/a"), &f.kv);
        async move { kv.put(&permit, &place, fields(b"v"), None).await }
    };
    let (early, _) = write(permit(Action::Write, "kv/a")).await.unwrap();
    let (close, _) = f.mounts.close(&permit(Action::MountWrite, "kv")).await.unwrap();
    f.commit(close).await.unwrap();
    assert!(matches!(f.commit(early).await, Err(CommitError::Precondition(_))));
    assert!(matches!(
        write(permit(Action::Write, "kv/a")).await,
        Err(KvError::Mount(MountError::Closed))
    ));
    assert!(f.kv.is_empty(f.place("kv").mount.id()).await.unwrap());
}

/// R-KV-1: of two writers at once one is refused whole, whatever `cas` they gave.
#[tokio::test]
async fn two_writers_at_once() {
    let f = fixture().await;
    let at = "kv/a";
    for cas in [None, Some(1)] {
        let (one, written) =
            f.kv.put(
                &permit(Action::Write, at),
                &f.place(at),
                fields(b"one"),
                cas.filter(|_| false),
            )
            .await
            .unwrap();
        let (two, same) =
            f.kv.put(&permit(Action::Write, at), &f.place(at), fields(b"two"), cas)
                .await
                .unwrap();
        assert_eq!(written.version, same.version);
        f.commit(one).await.unwrap();
        assert!(matches!(f.commit(two).await, Err(CommitError::Precondition(_))));
        assert_eq!(
            value(&f.get(at, Select::Version(written.version)).await.unwrap()),
            b"one"
        );
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// R-KV-1: some 2,500 random operations: the room does what the model does, refuses what it refuses, and keeps exactly the values it
    /// keeps.
    #[test]
    fn behaves_like_its_model(ops in collection::vec(op(), 1..80)) {
        run(async {
            let f = fixture().await;
            let mut model = None;
            for (number, op) in ops.iter().enumerate() {
                let size = if let Op::Put { size, .. } = op { *size } else { 0 };
                let value = vec![u8::try_from(number).unwrap(); size];
                let want = Model::apply(&mut model, op, &value);
                let got = step(&f, "kv/a/b", op, &value).await;
                assert_eq!(got.is_ok(), want.is_ok(), "{op:?}: {got:?}");
            }
            agrees(&f, "kv/a/b", model.as_ref()).await;
        });
    }

    /// Fuzz of the stored form: any bytes are metadata, and then exactly their encoding, or are refused; never a panic.
    #[test]
    fn any_bytes_are_metadata_or_refused(bytes in collection::vec(any::<u8>(), 0..80), ops in collection::vec(op(), 0..12), at: prop::sample::Index, to: u8) {
        let mut meta = meta::Meta::new([3; 16]);
        for op in &ops {
            let _ = match op {
                Op::Put { size, cas } => meta.put(fields(&vec![1; *size]), *cas, Timestamp(5)).map(drop),
                Op::Delete(versions) => meta.delete(versions, Timestamp(6)),
                Op::Destroy(versions) => meta.destroy(versions).map(drop),
                Op::Label(label, version) => meta.set(&Settings { labels: [(label.clone(), *version)].into(), ..Settings::default() }),
                _ => Ok(()),
            };
        }
        let encoded = meta.encode();
        prop_assert!(meta::Meta::decode(&encoded).as_ref() == Some(&meta));
        let mut near = encoded.to_vec();
        let at = at.index(near.len());
        near[at] = to;
        for bytes in [&bytes[..], &near, &encoded[..at], &[&encoded[..], &[0]].concat()] {
            if let Some(meta) = meta::Meta::decode(bytes) {
                prop_assert_eq!(&meta.encode()[..], bytes);
            }
        }
    }
}

/// docs/FORMATS: the stored form stays; a change of it is a new format.
#[test]
fn golden() {
    let mut meta = meta::Meta::new([0xab; 16]);
    meta.put(fields(&[7; INLINE_BYTES_MAX]), None, Timestamp(1)).unwrap();
    meta.put(fields(b"v"), Some(1), Timestamp(2)).unwrap();
    meta.set(&Settings {
        custom: Some([("k".to_owned(), "w".to_owned())].into()),
        cas_required: Some(true),
        ..Settings::default()
    })
    .unwrap();
    meta.delete(&[1], Timestamp(3)).unwrap();
    let want = [
        "01 abababababababababababababababab 0000000000000002 0000000a 01",
        "01 08 70726576696f7573 0000000000000001",
        "01 01 6b 0001 77",
        "0002 0000000000000001 0000000000000001 01 0000000000000003 0000000000000002 0000000000000002 00 0000000000000000",
        "000c 01 05 76616c7565 00000001 76",
    ];
    assert_eq!(
        data_encoding::HEXLOWER.encode(&meta.encode()),
        want.join("").replace(' ', "")
    );
}
