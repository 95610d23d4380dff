use super::{
    testing::{ALL, caller, path, permit_under},
    *,
};
use crate::{
    base::time::{ManualClock, Timestamp},
    store::{CommitError, Part, testing},
};
use strongroom_policy::Reason;
use zeroize::Zeroizing;

struct Fixture {
    store: Arc<Store>,
    room: PolicyRoom,
    admin: Arc<Caller>,
    recover: Arc<Caller>,
}

async fn reload(store: Arc<Store>) -> Fixture {
    let clock = Arc::new(ManualClock::at(Timestamp(1_795_000_000_000)));
    let room = PolicyRoom::load(&store, clock).await.unwrap();
    Fixture {
        store,
        room,
        admin: caller("admin", &[], Purpose::Setup),
        recover: caller("recover", &[], Purpose::Recover),
    }
}

async fn fixture() -> Fixture {
    let store = testing::store().await;
    store
        .commit(PolicyRoom::found(&store).unwrap(), Vec::new())
        .await
        .unwrap();
    reload(store).await
}

impl Fixture {
    fn decide(&self, who: &Arc<Caller>, action: Action, at: &str) -> Decision {
        self.room.decide(who, action, &path(at), Claim::Policy, Peer::Unix)
    }
    fn permit(&self, who: &Arc<Caller>, action: Action, at: &str) -> Permit {
        self.decide(who, action, at).permit.unwrap()
    }
    fn refusal(&self, who: &Arc<Caller>, action: Action, at: &str) -> Refusal {
        self.decide(who, action, at).permit.unwrap_err()
    }
    async fn prepare(
        &self,
        who: &Arc<Caller>,
        name: &str,
        text: &str,
        cas: Option<u64>,
    ) -> Result<(Change, u64), PolicyError> {
        self.room
            .put(
                &self.permit(who, Action::PolicyWrite, &format!("sys/policy/{name}")),
                name,
                text,
                cas,
            )
            .await
    }
    async fn put_as(&self, who: &Arc<Caller>, name: &str, text: &str) -> u64 {
        let (change, version) = self.prepare(who, name, text, None).await.unwrap();
        self.store.commit(change, Vec::new()).await.unwrap();
        version
    }
    async fn put(&self, name: &str, text: &str) -> u64 {
        self.put_as(&self.admin, name, text).await
    }
}

const READERS: &str =
    r#"permit(principal in S::Group::"readers", action == S::Action::"read", resource in S::Path::"kv");"#;
const NOT_PROD: &str = r#"forbid(principal, action, resource in S::Path::"kv/prod");"#;

/// R-POL-1: deny wins, unknown means no; in force when the commit is acknowledged and not before; gone with its document.
#[tokio::test]
async fn documents_decide_from_their_commit_on() {
    let f = fixture().await;
    let reader = caller("ann", &["readers"], Purpose::Session);
    let other = caller("bob", &[], Purpose::Session);
    let may = |who: &Arc<Caller>, at: &str| f.decide(who, Action::Read, at).permit.is_ok();
    assert!(!may(&reader, "kv/dev/a"));
    let (change, version) = f.prepare(&f.admin, "readers", READERS, Some(0)).await.unwrap();
    assert!(!may(&reader, "kv/dev/a"), "not in force before its commit");
    f.store.commit(change, Vec::new()).await.unwrap();
    assert!(
        version == 1
            && may(&reader, "kv/dev/a")
            && may(&reader, "kv/prod/a")
            && !may(&reader, "kvx/a")
            && !may(&other, "kv/dev/a")
    );
    f.put("not-prod", NOT_PROD).await;
    assert!(may(&reader, "kv/dev/a") && !may(&reader, "kv/prod/a"));
    assert_eq!(f.refusal(&reader, Action::Read, "kv/prod/a").code(), "forbidden");
    let (hash, f) = (f.room.set_hash(), reload(f.store.clone()).await);
    assert_eq!(hash, f.room.set_hash(), "the same set after unseal");
    let decision = f.decide(&reader, Action::Read, "kv/prod/a");
    assert_eq!(decision.facts.deciding, [std::sync::Arc::<str>::from("not-prod#1")]);
    let change = f
        .room
        .delete(
            &f.permit(&f.admin, Action::PolicyWrite, "sys/policy/not-prod"),
            "not-prod",
        )
        .await
        .unwrap();
    f.store.commit(change, Vec::new()).await.unwrap();
    assert!(f.decide(&reader, Action::Read, "kv/prod/a").permit.is_ok());
}

/// R-POL-1: a document is checked when it is written; versions and check-and-set.
#[tokio::test]
async fn writing() {
    let f = fixture().await;
    let put = |text: &'static str, cas| f.prepare(&f.admin, "app", text, cas);
    assert!(matches!(
        put("permit(principal, action, resource) when { context.nonsense };", None).await,
        Err(PolicyError::Invalid(_))
    ));
    assert!(matches!(
        put(READERS, Some(3)).await,
        Err(PolicyError::Cas { current: 0 })
    ));
    assert_eq!((f.put("app", READERS).await, f.put("app", NOT_PROD).await), (1, 2));
    assert!(matches!(
        put(READERS, Some(0)).await,
        Err(PolicyError::Cas { current: 2 })
    ));
    assert!(put(READERS, Some(2)).await.is_ok());
    let read = |name: &'static str| f.permit(&f.admin, Action::PolicyRead, &format!("sys/policy/{name}"));
    let got = f.room.get(&read("app"), "app").await.unwrap();
    assert_eq!((got.version, got.text.as_str()), (2, NOT_PROD));
    assert!(matches!(
        f.room.get(&read("none"), "none").await,
        Err(PolicyError::NotFound)
    ));
    assert!(
        matches!(f.room.get(&read("none"), "app").await, Err(PolicyError::Permit(_))),
        "a permit is for one path"
    );
    for name in ["", "A", "a/b", "a.b", &"a".repeat(65)] {
        assert!(matches!(PolicyRoom::path_of(name), Err(PolicyError::Name)), "{name:?}");
    }
    let delete = f
        .room
        .delete(&f.permit(&f.admin, Action::PolicyWrite, "sys/policy/none"), "none")
        .await;
    assert!(matches!(delete, Err(PolicyError::NotFound)));
}

/// Two changes made at once: the second commit is refused whole, and made again on top of the first.
#[tokio::test]
async fn a_race_loses_nothing() {
    let f = fixture().await;
    let (one, _) = f.prepare(&f.admin, "one", READERS, None).await.unwrap();
    let (two, _) = f.prepare(&f.admin, "two", NOT_PROD, None).await.unwrap();
    f.store.commit(one, Vec::new()).await.unwrap();
    assert!(matches!(
        f.store.commit(two, Vec::new()).await,
        Err(CommitError::Precondition(0))
    ));
    f.put("two", NOT_PROD).await;
    let names = f
        .room
        .list(&f.permit(&f.admin, Action::PolicyRead, "sys/policy"), None, 10)
        .unwrap();
    assert_eq!(names, (vec!["one".to_owned(), "two".to_owned()], false));
}

/// Listings show what the caller may read, page by page.
#[tokio::test]
async fn listing() {
    let f = fixture().await;
    for name in ["a", "b", "c", "d"] {
        f.put(name, READERS).await;
    }
    f.put(
        "hide",
        r#"forbid(principal, action == S::Action::"policy_read", resource == S::Path::"sys/policy/b");"#,
    )
    .await;
    let permit = f.permit(&f.admin, Action::PolicyRead, "sys/policy");
    let page = |after: Option<&str>, limit| f.room.list(&permit, after, limit).unwrap();
    assert_eq!(page(None, 2), (vec!["a".to_owned(), "c".to_owned()], true));
    assert_eq!(page(Some("c"), 2), (vec!["d".to_owned(), "hide".to_owned()], false));
}

/// The powers that no document gives, and their limits.
#[test]
fn powers() {
    use Action::*;
    let may = |purpose, policies: &str, action, claim| {
        permit_under(policies, &caller("x", &[], purpose), action, "sys/token/x", claim).is_some()
    };
    let none = r#"permit(principal in S::Group::"nobody", action, resource);"#;
    let forbid = "forbid(principal, action, resource);";
    let failing = "forbid(principal, action, resource) when { context.token_age_secs * 9223372036854775807 > 1 };";
    for action in Action::ALL {
        let (action, own) = (*action, needs_no_policy(*action));
        let token_or_policy = matches!(
            action,
            PolicyRead | PolicyWrite | TokenCreate | TokenRead | TokenRenew | TokenRevoke | TrustRead | TrustWrite
        );
        for (purpose, policies, claim, want) in [
            (Purpose::Session, none, Claim::Policy, false),
            (Purpose::Session, none, Claim::Own, own),
            (Purpose::Session, ALL, Claim::Policy, true),
            (Purpose::Session, forbid, Claim::Own, false),
            (Purpose::Session, failing, Claim::Own, false),
            (Purpose::Setup, none, Claim::Policy, true),
            (Purpose::Setup, forbid, Claim::Policy, false),
            (Purpose::Setup, failing, Claim::Policy, false),
            (Purpose::Recover, forbid, Claim::Policy, token_or_policy),
            (Purpose::Recover, failing, Claim::Policy, token_or_policy),
            (Purpose::Recover, ALL, Claim::Policy, token_or_policy),
        ] {
            assert_eq!(
                may(purpose, policies, action, claim),
                want,
                "{action} {purpose:?} {policies} {claim:?}"
            );
        }
    }
    // Nothing that yields a secret, writes or gives is anybody's own.
    for action in [
        Read,
        Write,
        Delete,
        Undelete,
        Destroy,
        Issue,
        Rotate,
        MountWrite,
        RoleWrite,
        PolicyWrite,
        Seal,
        SlotWrite,
        KeyRotate,
        TimeConfirm,
    ] {
        assert!(!needs_no_policy(action));
    }
}

/// A permit is for one action at one path; what else the caller may do is asked of the same policies, and never as its own.
#[test]
fn a_permit_is_narrow() {
    let who = caller("x", &["readers"], Purpose::Session);
    let permit = permit_under(READERS, &who, Action::Read, "kv/a", Claim::Policy).unwrap();
    assert_eq!(permit.covers(Action::Read, &path("kv/a")), Ok(()));
    assert_eq!(permit.covers(Action::Write, &path("kv/a")), Err(Mismatch));
    assert_eq!(permit.covers(Action::Read, &path("kv/b")), Err(Mismatch));
    assert!(
        permit.also(Action::Read, &path("kv/b"))
            && !permit.also(Action::Write, &path("kv/b"))
            && !permit.also(Action::Read, &path("pg/b"))
    );
    let own = permit_under(READERS, &who, Action::TokenRenew, "sys/token/x", Claim::Own).unwrap();
    assert!(own.own() && !own.also(Action::TokenRenew, &path("sys/token/x")));
    assert_eq!(
        own.covers(Action::TokenRenew, &path("sys/token/x")),
        Err(Mismatch),
        "only where the room knows whose a thing is"
    );
    assert_eq!(own.covers_own(Action::TokenRenew, &path("sys/token/x")), Ok(()));
}

/// R-POL-2: `explain` says which policies decide, about the caller and, on another permit, about others.
#[tokio::test]
async fn explain() {
    let f = fixture().await;
    f.put("readers", READERS).await;
    f.put("not-prod", NOT_PROD).await;
    let reader = caller("ann", &["readers"], Purpose::Session);
    let own = f
        .room
        .decide(&reader, Action::PolicyRead, &path("sys/policy"), Claim::Own, Peer::Unix)
        .permit
        .unwrap();
    let said = |at: &str| f.room.explain(&own, Whom::Caller, Action::Read, &path(at)).unwrap();
    assert_eq!(
        (said("kv/a").allowed, said("kv/a").deciding),
        (true, vec!["readers#1".into()])
    );
    assert_eq!(
        (said("kv/prod/a").allowed, said("kv/prod/a").deciding),
        (false, vec!["not-prod#1".into()])
    );
    assert_eq!(
        (
            said("pg/a").allowed,
            said("pg/a").deciding.len(),
            said("pg/a").reason.as_str()
        ),
        (false, 0, "no policy permits it")
    );
    let others = f.room.explain(
        &own,
        Whom::Other(f.admin.identity().principal()),
        Action::Read,
        &path("kv/a"),
    );
    assert!(
        matches!(others, Err(PolicyError::Permit(_))),
        "about others only with policy_read"
    );
    assert!(
        matches!(f.room.list(&own, None, 10), Err(PolicyError::Permit(_))),
        "the documents are nobody's own"
    );
    let permit = f.permit(&f.admin, Action::PolicyRead, "sys/policy");
    let others = f
        .room
        .explain(
            &permit,
            Whom::Other(reader.identity().principal()),
            Action::Read,
            &path("kv/a"),
        )
        .unwrap();
    assert!(others.allowed);
    let nobody = f
        .room
        .explain(
            &permit,
            Whom::Other(f.admin.identity().principal()),
            Action::Read,
            &path("kv/a"),
        )
        .unwrap();
    assert!(!nobody.allowed, "the asker's own powers are not the other's");
}

enum Harm {
    Missing,
    Replayed,
    Rubbish,
    NoManifest,
    RubbishManifest,
}

/// R-POL-1, R-STORE-4: whatever happens to the record of a `forbid`, no door opens: everything is refused but recovery, which repairs it.
#[tokio::test]
async fn a_damaged_forbid_opens_no_door() {
    for harm in [
        Harm::Missing,
        Harm::Replayed,
        Harm::Rubbish,
        Harm::NoManifest,
        Harm::RubbishManifest,
    ] {
        let f = fixture().await;
        f.put("readers", READERS).await;
        f.put(
            "not-prod",
            r#"forbid(principal, action, resource in S::Path::"kv/other");"#,
        )
        .await;
        let documents = f.store.view(Namespace::ROOT, Table::Policy);
        let manifest = f.store.view(Namespace::ROOT, Table::PolicyManifest);
        let forbid = [Part::Name("not-prod")];
        let former = documents.get(&forbid).await.unwrap().unwrap().value;
        f.put("not-prod", NOT_PROD).await;
        let mut change = Change::new();
        match harm {
            Harm::Missing => change.delete(&documents, &forbid),
            Harm::Replayed => change.put(&documents, &forbid, former),
            Harm::Rubbish => change.put(&documents, &forbid, Zeroizing::new(b"rubbish".to_vec())),
            Harm::NoManifest => change.delete(&manifest, &[Part::Raw(b"manifest")]),
            Harm::RubbishManifest => change.put(&manifest, &[Part::Raw(b"manifest")], Zeroizing::new(b"{}".to_vec())),
        };
        f.store.commit(change, Vec::new()).await.unwrap();
        let f = reload(f.store.clone()).await;
        assert_eq!(f.room.damage().len(), 1);
        let reader = caller("ann", &["readers"], Purpose::Session);
        for (who, action, at) in [
            (&reader, Action::Read, "kv/prod/a"),
            (&reader, Action::Read, "kv/dev/a"),
            (&f.admin, Action::Read, "kv/dev/a"),
            (&f.admin, Action::PolicyWrite, "sys/policy/not-prod"),
        ] {
            assert_eq!(f.refusal(who, action, at), Refusal::Damaged);
        }
        let own = f.room.decide(
            &reader,
            Action::TokenRenew,
            &path("sys/token/ann"),
            Claim::Own,
            Peer::Unix,
        );
        assert_eq!(own.permit.unwrap_err(), Refusal::Damaged);
        assert_eq!(
            f.refusal(&f.recover, Action::Read, "kv/dev/a"),
            Refusal::Policy(Reason::BeyondRecovery)
        );
        f.put_as(&f.recover, "not-prod", NOT_PROD).await;
        assert!(f.room.damage().is_empty());
        for f in [&f, &reload(f.store.clone()).await] {
            assert!(f.decide(&reader, Action::Read, "kv/dev/a").permit.is_ok());
            assert_eq!(f.refusal(&reader, Action::Read, "kv/prod/a").code(), "forbidden");
        }
    }
}

/// A document that this version's schema does not take is damage, not an empty set.
#[tokio::test]
async fn a_document_that_is_not_valid_any_more_refuses_everything() {
    let f = fixture().await;
    f.put("readers", READERS).await;
    let text = "forbid(principal, action, resource) when { context.of_the_future };";
    let document = record::Document::new(2, Timestamp(0), text);
    let manifest = record::Manifest::new(1, [("readers".to_owned(), record::Listed::of(&document))].into());
    let mut change = Change::new();
    change.put(
        &f.room.documents,
        &[Part::Name("readers")],
        record::encode(&document).unwrap(),
    );
    change.put(
        &f.room.manifest,
        &[Part::Raw(b"manifest")],
        record::encode(&manifest).unwrap(),
    );
    f.store.commit(change, Vec::new()).await.unwrap();
    let f = reload(f.store.clone()).await;
    assert_eq!(f.room.damage(), [Some("readers".to_owned())]);
    assert_eq!(f.refusal(&f.admin, Action::Read, "kv/a"), Refusal::Damaged);
    let change = f
        .room
        .delete(
            &f.permit(&f.recover, Action::PolicyWrite, "sys/policy/readers"),
            "readers",
        )
        .await
        .unwrap();
    f.store.commit(change, Vec::new()).await.unwrap();
    assert!(f.decide(&f.admin, Action::Read, "kv/a").permit.is_ok());
}

/// docs/FORMATS: the stored forms stay; a change of them is a new format.
#[test]
fn golden() {
    let document = record::Document::new(2, Timestamp(5), "abc");
    let manifest = record::Manifest::new(7, [("a".to_owned(), record::Listed::of(&document))].into());
    let text = |bytes: Zeroizing<Vec<u8>>| String::from_utf8_lossy(&bytes).into_owned();
    assert_eq!(
        text(record::encode(&document).unwrap()),
        r#"{"format":1,"version":2,"updated":5,"text":"abc"}"#
    );
    let want = r#"{"format":1,"serial":7,"policies":{"a":{"version":2,"updated":5,"sha256":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}}}"#;
    assert_eq!(text(record::encode(&manifest).unwrap()), want);
}
