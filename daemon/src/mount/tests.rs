use super::*;
use crate::{
    base::{
        random::OsRandom,
        time::{ManualClock, Timestamp},
    },
    policy::{
        Claim, Purpose,
        testing::{self as permits, path, permit},
    },
    store::{CommitError, testing},
};
use proptest::{collection, prelude::*};

struct Fixture {
    store: Arc<Store>,
    room: MountRoom,
}

async fn load(store: Arc<Store>) -> Fixture {
    let clock = Arc::new(ManualClock::at(Timestamp(1)));
    let room = MountRoom::load(&store, clock, Arc::new(OsRandom)).await.unwrap();
    Fixture { store, room }
}

async fn fixture() -> Fixture {
    load(testing::store().await).await
}

fn write(at: &str) -> Permit {
    permit(Action::MountWrite, at)
}

impl Fixture {
    async fn commit(&self, change: Change) -> Result<(), CommitError> {
        self.store.commit(change, Vec::new()).await.map(drop)
    }
    async fn enable(&self, at: &str) -> Result<(), MountError> {
        let (change, _) = self.room.enable(&write(at), Kind::Kv, "words").await?;
        self.commit(change).await.unwrap();
        Ok(())
    }
    fn resolved(&self, at: &str) -> Option<(String, Option<String>)> {
        let place = self.room.resolve(&path(at)).ok()?;
        Some((place.mount.path().to_string(), place.rest.map(|rest| rest.to_string())))
    }
}

/// A path is in the mount above it, segment by segment, and nowhere else.
#[tokio::test]
async fn resolving() {
    let f = fixture().await;
    for at in ["kv", "kv-old", "team/a/kv"] {
        f.enable(at).await.unwrap();
    }
    for f in [&f, &load(f.store.clone()).await] {
        for (at, want) in [
            ("kv", Some(("kv", None))),
            ("kv/a/b", Some(("kv", Some("a/b")))),
            ("kv-old/a", Some(("kv-old", Some("a")))),
            ("kv-new/a", None),
            ("team/a/kv/x", Some(("team/a/kv", Some("x")))),
            ("team/a", None),
            ("team/a/kvx/y", None),
            ("sys/policy/a", None),
        ] {
            let want = want.map(|(mount, rest): (&str, Option<&str>)| (mount.to_owned(), rest.map(str::to_owned)));
            assert_eq!(f.resolved(at), want, "{at}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_enabled() {
    let f = fixture().await;
    f.enable("team/kv").await.unwrap();
    for (at, want) in [
        ("team/kv", "already"),
        ("team", "there is `team/kv`"),
        ("team/kv/x", "there is `team/kv`"),
        ("sys", "the vault's own"),
        ("sys/policy", "the vault's own"),
        ("a/b/c/d/e", "at most 4 segments"),
        ("team/kv2", ""),
        ("system", ""),
    ] {
        let got = f
            .enable(at)
            .await
            .map_or_else(|error| error.to_string(), |()| String::new());
        assert!(got.contains(want) && got.is_empty() == want.is_empty(), "{at}: {got}");
    }
    for words in ["x".repeat(257), "a\nb".to_owned()] {
        assert!(matches!(
            f.room.enable(&write("z"), Kind::Kv, &words).await,
            Err(MountError::Description)
        ));
    }
    assert!(matches!(
        f.room.enable(&permit(Action::MountRead, "z"), Kind::Kv, "").await,
        Err(MountError::Permit(_))
    ));
    assert!(matches!("vault".parse::<Kind>(), Err(MountError::Kind)) && matches!("kv".parse(), Ok(Kind::Kv)));
}

/// Two enables at once, one above the other: the second commit is refused, so mounts never nest.
#[tokio::test]
async fn a_race_cannot_nest() {
    for others in [0, 1] {
        let f = fixture().await;
        if others == 1 {
            f.enable("other").await.unwrap();
        }
        let (above, _) = f.room.enable(&write("team"), Kind::Kv, "").await.unwrap();
        let (below, _) = f.room.enable(&write("team/kv"), Kind::Kv, "").await.unwrap();
        f.commit(below).await.unwrap();
        assert!(matches!(f.commit(above).await, Err(CommitError::Precondition(0))));
        assert_eq!(f.room.all().len(), others + 1);
    }
}

/// Disabling: closed first, durable, and back in service or gone; what was to be committed in it is refused from the first step on.
#[tokio::test]
async fn disabling() {
    let f = fixture().await;
    f.enable("kv").await.unwrap();
    let id = f.room.at(&path("kv")).unwrap().id();
    let guarded = || {
        let mut change = Change::new();
        f.room.require_open(&mut change, id);
        change.put(
            &f.store.view(Namespace::ROOT, StoreTable::System),
            &[Part::Name("x")],
            Zeroizing::new(vec![]),
        );
        change
    };
    f.commit(guarded()).await.unwrap();
    assert!(matches!(f.room.remove(&write("kv")).await, Err(MountError::Open)));
    let (change, info) = f.room.close(&write("kv")).await.unwrap();
    assert!(info.is_open());
    f.commit(change).await.unwrap();
    assert!(matches!(f.commit(guarded()).await, Err(CommitError::Precondition(0))));
    let f2 = load(f.store.clone()).await;
    assert!(!f2.room.at(&path("kv")).unwrap().is_open(), "closed across a crash");
    f2.commit(f2.room.reopen(&write("kv")).await.unwrap()).await.unwrap();
    f2.commit(guarded()).await.unwrap();
    let f = load(f.store.clone()).await;
    let (change, _) = f.room.close(&write("kv")).await.unwrap();
    f.commit(change).await.unwrap();
    f.commit(f.room.remove(&write("kv")).await.unwrap()).await.unwrap();
    assert!(f.resolved("kv/a").is_none() && load(f.store.clone()).await.room.all().is_empty());
    f.enable("kv").await.unwrap();
    assert_ne!(
        f.room.at(&path("kv")).unwrap().id(),
        id,
        "a path that is enabled again is another mount"
    );
}

/// R-KV-2: the list of mounts shows what the caller may see.
#[tokio::test]
async fn listing() {
    let f = fixture().await;
    for at in ["a", "b", "c"] {
        f.enable(at).await.unwrap();
    }
    let policies = r#"permit(principal, action == S::Action::"list", resource in S::Path::"a");
        permit(principal, action == S::Action::"mount_read", resource in S::Path::"c");"#;
    let who = permits::caller("ann", &[], Purpose::Session);
    let permit = permits::permit_under(policies, &who, Action::List, "sys/mounts", Claim::Own).unwrap();
    assert_eq!(
        f.room
            .list(&permit)
            .iter()
            .map(|mount| mount.path().as_str())
            .collect::<Vec<_>>(),
        ["a", "c"]
    );
}

/// R-STORE-4: a damaged record leaves its own mount out.
#[tokio::test]
async fn damage_is_contained() {
    let f = fixture().await;
    f.enable("a").await.unwrap();
    f.enable("b").await.unwrap();
    let id = f.room.at(&path("a")).unwrap().id();
    let mut change = Change::new();
    change.put(&f.room.view, &key(&id), Zeroizing::new(b"{}".to_vec()));
    f.commit(change).await.unwrap();
    let f = load(f.store.clone()).await;
    assert!(f.resolved("a/x").is_none() && f.resolved("b/x").is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever is enabled and disabled in whatever order: no mount lies in another, and each path is in the mount that is above it.
    #[test]
    fn mounts_never_nest(acts in collection::vec((any::<bool>(), "[ab](/[ab]){0,3}"), 1..20), probe in "[ab](/[ab]){0,5}") {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let f = fixture().await;
            for (enable, at) in acts {
                if enable {
                    let _ = f.enable(&at).await;
                } else if let Ok((change, _)) = f.room.close(&write(&at)).await {
                    f.commit(change).await.unwrap();
                    f.commit(f.room.remove(&write(&at)).await.unwrap()).await.unwrap();
                }
            }
            let all = f.room.all();
            for (one, other) in all.iter().flat_map(|one| all.iter().map(move |other| (one, other))) {
                assert!(one == other || !one.path().is_within(other.path()));
            }
            let above = all.iter().find(|mount| path(&probe).is_within(mount.path()));
            assert_eq!(f.room.resolve(&path(&probe)).ok().map(|place| place.mount), above.cloned());
        });
    }
}
