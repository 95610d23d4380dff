//! The rooms and a real server together: what every kind must live through. The names are those that docs/STATUS.md cites.

use super::{
    Alone, Bench, field,
    lab::{Lab, revoke},
};
use crate::{
    base::{failpoint, id::LeaseId, random::OsRandom},
    engine::{Issued, RoomError},
    lease::{LeaseError, Scope, State},
    policy::{Action, testing::permit},
};
use std::time::Duration;

/// R-LEASE-1, R-LEASE-3, R-ROT-1: the engine alone; no password in the server's log.
pub(crate) async fn conforms<B: Bench>() {
    let bench = B::start();
    Alone::new(&bench).run().await;
}

/// R-LEASE-1, R-LEASE-3: the whole life at the real server: logs in, works, dies at its time with its session open.
pub(crate) async fn a_credential_lives_and_dies<B: Bench>() {
    let lab = Lab::<B>::ready().await;
    assert!(
        lab.all().await.is_empty() && lab.bench.accounts().is_empty(),
        "the configuration test left nothing"
    );
    let (lease, fields) = lab.issue(0).await.unwrap();
    assert_eq!(
        (lease.ttl_secs, lease.max_expires.0 - lease.created.0),
        (3600, 7_200_000),
        "default and maximum"
    );
    assert_eq!(lab.issue(7200).await.unwrap().0.ttl_secs, 7200);
    let beyond = lab.issue(7201).await.map(drop).expect_err("longer than the maximum");
    assert!(beyond.to_string().contains("7200 s"), "{beyond}");
    assert_eq!(lab.all().await.len(), 2, "and nothing was made");
    let mut session = lab.must_log_in(&fields).await;
    assert_eq!(lab.revoke(&lease, Some(Duration::from_secs(10))).await.gone, 1);
    assert!(!session.alive().await && lab.log_in(&fields).await.is_none());
    let (short, fields) = lab.issue(5).await.unwrap();
    let mut session = lab.must_log_in(&fields).await;
    lab.until("expired", async || lab.leases().get(short.id).await.is_err())
        .await;
    assert!(!session.alive().await, "an open session's next statement fails");
    assert!(lab.log_in(&fields).await.is_none(), "a log-in is refused");
    lab.revoke_all().await;
}

/// R-LEASE-2: the daemon dies at each step of issuing and revoking; after the next unseal nothing untracked remains.
pub(crate) async fn a_crash_at_any_step_leaves_nothing_untracked<B: Bench>() {
    let mut lab = Lab::<B>::ready().await;
    for point in ["lease.after-intent", "lease.after-create", "lease.after-activation"] {
        let armed = failpoint::arm(lab.boot, point);
        tokio::select! {
            answer = lab.issue(3600) => panic!("{point}: {:?}", answer.map(|_| ())),
            () = armed.reached() => {}
        }
        lab.nothing_untracked().await;
        lab.open().await;
        lab.nothing_untracked().await;
    }
    // What was activated is a lease like any other; the others are undone once their creators cannot act any more.
    lab.until("intents are undone", async || {
        lab.all().await.iter().all(|lease| lease.state == State::Active) && lab.bench.accounts().len() == 1
    })
    .await;
    let lease = lab.all().await[0].clone();
    for point in ["lease.revoke.before-act", "lease.revoke.after-act"] {
        let armed = failpoint::arm(lab.boot, point);
        lab.revoke(&lease, None).await;
        armed.reached().await;
        lab.nothing_untracked().await;
        lab.open().await;
        if point == "lease.revoke.before-act" {
            assert_eq!(lab.all().await.len(), 1, "a revocation under way is not forgotten");
        }
    }
    lab.all_gone().await;
}

/// R-LEASE-2: the statement that makes the account stands in the server behind a lock when the daemon dies. The account
/// must not appear after it was declared never to have been.
pub(crate) async fn a_create_stuck_in_the_server_never_surfaces<B: Bench>() {
    let mut lab = Lab::<B>::ready().await;
    let Some(holder) = lab.bench.hold().await else {
        return;
    };
    tokio::select! {
        answer = lab.issue(3600) => panic!("{:?}", answer.map(|_| ())),
        () = lab.until("stuck", async || lab.bench.stuck()) => {}
    }
    lab.open().await;
    assert_eq!(lab.all().await.len(), 1);
    lab.until("believed", async || lab.all().await.is_empty()).await;
    drop(holder);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(lab.bench.accounts(), [""; 0]);
}

/// R-LEASE-3: the server goes away during each act; it is tried again for as long as it takes, visibly.
pub(crate) async fn a_server_that_is_down_is_waited_for<B: Bench>() {
    let mut lab = Lab::<B>::ready().await;
    let (lease, fields) = lab.issue(3600).await.unwrap();
    lab.bench.stop();
    assert!(
        matches!(lab.issue(3600).await, Err(RoomError::Engine(error)) if error.is_outage()),
        "no intent for a server that is down"
    );
    let renewed = lab
        .leases()
        .renew(&permit(Action::Renew, "db/readers"), &lab.trail(), lease.id, 0)
        .await;
    assert!(matches!(renewed, Err(LeaseError::Target(error)) if error.outage));
    let done = lab.revoke(&lease, Some(Duration::from_secs(1))).await;
    assert_eq!((done.queued, done.gone), (1, 0));
    lab.until("failures are shown", async || {
        lab.leases().get(lease.id).await.unwrap().attempts > 0
    })
    .await;
    let stuck = lab.leases().get(lease.id).await.unwrap();
    assert!(
        stuck.state == State::Revoking && stuck.last_error.is_some(),
        "{stuck:?}"
    );
    lab.bench.resume();
    lab.all_gone().await;
    assert!(lab.log_in(&fields).await.is_none());
    // It dies in the middle of making an account.
    let Some(holder) = lab.bench.hold().await else {
        return;
    };
    let (answer, ()) = tokio::join!(lab.issue(3600), async {
        lab.until("stuck", async || lab.bench.stuck()).await;
        lab.bench.end_stuck();
    });
    assert!(
        matches!(answer, Err(RoomError::Lease(LeaseError::Target(_)))),
        "{:?}",
        answer.map(|_| ())
    );
    assert_eq!(lab.all().await.len(), 1, "not believed before its time");
    drop(holder);
    lab.all_gone().await;
}

/// R-ROT-1: fifty rotations under a client that reads and logs in all the time. Between its reading and its log-in a rotation may come;
/// who then reads again gets in.
pub(crate) async fn a_static_account_rotates_under_a_client<B: Bench>() {
    let lab = Lab::<B>::ready().await;
    lab.until("first password", async || lab.read_app().await.is_ok()).await;
    let mut long_lived = lab.must_log_in(&lab.read_app().await.unwrap()).await;
    let rotations = async {
        for _ in 0..50 {
            lab.rotate_app().await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let client = async {
        for _ in 0..150 {
            let mut tries = 5;
            while lab.log_in(&lab.read_app().await.unwrap()).await.is_none() {
                tries -= 1;
                assert!(tries > 0, "five passwords in a row were dead");
            }
        }
    };
    tokio::join!(rotations, client);
    assert!(long_lived.alive().await, "open sessions go on");
    let fields = lab.read_app().await.unwrap();
    lab.must_log_in(&fields).await;
    let log = lab.bench.log();
    assert!(!log.contains(std::str::from_utf8(field(&fields, "password")).unwrap()));
}

/// R-ROT-3: the daemon dies at each step of a rotation; the password that is read afterwards works, and rotation goes on.
pub(crate) async fn a_static_rotation_survives_a_crash_at_any_step<B: Bench>() {
    let mut lab = Lab::<B>::ready().await;
    lab.until("first password", async || lab.read_app().await.is_ok()).await;
    for point in ["static.after-intent", "static.after-set", "static.after-test"] {
        let armed = failpoint::arm(lab.boot, point);
        tokio::select! {
            answer = lab.rotate_app() => panic!("{point}: {answer:?}"),
            () = armed.reached() => {}
        }
        lab.open().await;
        lab.must_log_in(&lab.read_app().await.unwrap()).await;
        lab.rotate_app().await.unwrap();
        lab.must_log_in(&lab.read_app().await.unwrap()).await;
    }
}

/// R-ROT-4: who follows a role does not wait for a rotation that its target holds up.
pub(crate) async fn followers_do_not_wait_for_a_rotation<B: Bench>() {
    let lab = Lab::<B>::ready().await;
    lab.until("first password", async || lab.read_app().await.is_ok()).await;
    let before = lab.read_app().await.unwrap();
    let armed = failpoint::arm(lab.boot, "static.after-intent");
    let rotation = lab.rotate_app();
    tokio::pin!(rotation);
    tokio::select! {
        answer = &mut rotation => panic!("not held up: {answer:?}"),
        () = armed.reached() => {}
    }
    let right = permit(Action::Issue, "db/app");
    let look = lab.engines().read(&right, &lab.mount, "app");
    let seen = tokio::time::timeout(Duration::from_secs(2), look).await;
    let Issued::Static { fields, .. } = seen.expect("at once").unwrap() else {
        panic!("not static")
    };
    assert_eq!(field(&fields, "password"), field(&before, "password"));
}

/// R-ROT-1: the root credential rotates five times while leases made by every predecessor are used and revoked.
pub(crate) async fn the_root_credential_rotates_and_successors_revoke_what_predecessors_made<B: Bench>() {
    let lab = Lab::<B>::ready().await;
    let first = lab.bench.root();
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(lab.issue(3600).await.unwrap());
        let (rotated, issued) = tokio::join!(lab.rotate_root(), lab.issue(3600));
        assert_eq!(
            lab.bench.roots(),
            [rotated.unwrap()],
            "one root account, the one that was named"
        );
        made.push(issued.unwrap());
        assert!(lab.bench.log_in(&first.account, first.secret.expose()).await.is_none());
    }
    for (_, fields) in &made {
        lab.must_log_in(fields).await;
    }
    lab.revoke_all().await;
    let log = lab.bench.log();
    assert!(!log.contains(std::str::from_utf8(first.secret.expose()).unwrap()));
}

/// R-ROT-3: the daemon dies at each step of a root rotation; it goes on at the next unseal, and the mount works.
pub(crate) async fn a_root_rotation_survives_a_crash_at_any_step<B: Bench>() {
    let mut lab = Lab::<B>::ready().await;
    for point in [
        "root.after-intent",
        "root.after-create",
        "root.after-test",
        "root.after-switch",
        "root.after-retire",
    ] {
        let armed = failpoint::arm(lab.boot, point);
        tokio::select! {
            answer = lab.rotate_root() => panic!("{point}: {answer:?}"),
            () = armed.reached() => {}
        }
        lab.open().await;
        lab.until("one root account", async || {
            lab.bench.roots().len() == 1 && lab.issue(5).await.is_ok()
        })
        .await;
    }
    lab.rotate_root().await.unwrap();
    lab.all_gone().await;
}

/// R-LEASE-1: a configuration is tested before it is kept; a mount with leases is not forgotten.
pub(crate) async fn a_mount_is_tested_before_it_is_kept<B: Bench>() {
    let lab = Lab::<B>::new().await;
    assert!(matches!(lab.issue(0).await, Err(RoomError::NoRole)));
    let complaint = lab.bench.cripple();
    let refused = lab.configure(false).await.unwrap_err().to_string();
    assert!(refused.contains(complaint), "{refused}");
    assert!(lab.all().await.is_empty(), "the test's own intent is settled");
    let read = permit(Action::MountRead, "db");
    assert!(lab.engines().config(&read, &lab.mount).await.unwrap().is_none());
    lab.bench.mend();
    assert!(lab.configure(false).await.unwrap().len() >= 5);
    let shown = lab.engines().config(&read, &lab.mount).await.unwrap().unwrap();
    let secret = lab.bench.root().secret;
    assert!(shown.contains("127.0.0.1") && !shown.contains(std::str::from_utf8(secret.expose()).unwrap()));
    lab.put_role("readers", &lab.readers()).await.unwrap();
    assert!(matches!(
        lab.put_role("x/y", &lab.readers()).await,
        Err(RoomError::RoleName)
    ));
    lab.put_role("app", &lab.app()).await.unwrap();
    assert!(matches!(
        lab.put_role("other", &lab.app()).await,
        Err(RoomError::AccountTaken(_))
    ));
    assert!(matches!(
        lab.put_role("app", &lab.readers()).await,
        Err(RoomError::WrongRole(_))
    ));
    let (lease, _) = lab.issue(0).await.unwrap();
    let write = permit(Action::MountWrite, "db");
    assert!(matches!(
        lab.engines().forget(&write, &lab.mount).await.map(drop),
        Err(RoomError::LeasesLive)
    ));
    lab.leases()
        .revoke_scope(
            &revoke("db"),
            &lab.trail(),
            Scope::Mount(lab.mount.id),
            Some(Duration::from_secs(10)),
        )
        .await
        .unwrap();
    assert!(lab.leases().get(lease.id).await.is_err());
    let (change, ()) = lab.engines().forget(&write, &lab.mount).await.unwrap();
    lab.store.commit(change, Vec::new()).await.unwrap();
    assert!(matches!(lab.issue(0).await, Err(RoomError::NoRole)));
    assert!(matches!(
        lab.leases().get(LeaseId::random(&OsRandom)).await,
        Err(LeaseError::Unknown)
    ));
}

/// R-LEASE-7: an account with our mark and no lease is reported, and ended when that is asked for; a lease whose account is gone is
/// reported. Nothing else is touched.
pub(crate) async fn strays_and_missing_accounts_are_found<B: Bench>() {
    let lab = Lab::<B>::ready().await;
    let (kept, fields) = lab.issue(3600).await.unwrap();
    let (lost, _) = lab.issue(3600).await.unwrap();
    let clean = lab.reconcile(false).await;
    assert!(clean.is_clean() && clean.accounts == 2, "{clean:?}");
    lab.bench.drop_by_hand(&lost.plan.account);
    let alone = Alone::new(&lab.bench);
    let (plan, secret) = alone.stray().await;
    let mut session = lab.must_log_in(&secret).await;
    for remove in [false, true] {
        let found = lab.reconcile(remove).await;
        assert_eq!(
            (found.accounts, found.strays.as_slice(), found.stray_count),
            (2, [plan.account.clone()].as_slice(), 1),
            "{found:?}"
        );
        assert_eq!(
            (found.missing.as_slice(), found.missing_count),
            ([lost.id].as_slice(), 1)
        );
        assert_eq!((found.foreign.len(), found.removing), (0, usize::from(remove)));
        if !remove {
            assert!(session.alive().await, "a report changes nothing");
        }
    }
    lab.until("the stray is ended", async || {
        !lab.bench.accounts().contains(&plan.account)
    })
    .await;
    assert!(!session.alive().await && lab.log_in(&secret).await.is_none());
    lab.must_log_in(&fields).await;
    assert_eq!(lab.revoke(&lost, Some(Duration::from_secs(10))).await.gone, 1);
    lab.until("the stray's lease is gone", async || lab.all().await.len() == 1)
        .await;
    let clean = lab.reconcile(true).await;
    assert!(clean.is_clean() && clean.removing == 0, "{clean:?}");
    lab.must_log_in(&fields).await;
    assert_eq!(lab.all().await[0].id, kept.id);
    lab.revoke_all().await;
}

/// R-LEASE-7: leases come and go while target and leases are compared.
pub(crate) async fn a_comparison_under_way_takes_nobody_for_a_stray<B: Bench>() {
    let lab = Lab::<B>::ready().await;
    let looks = async {
        for _ in 0..15 {
            let found = lab.reconcile(true).await;
            assert!(found.is_clean(), "{found:?}");
        }
    };
    tokio::join!(traffic(&lab), traffic(&lab), looks);
    lab.all_gone().await;
}

async fn traffic<B: Bench>(lab: &Lab<B>) {
    for _ in 0..15 {
        let (lease, _) = lab.issue(3600).await.unwrap();
        lab.revoke(&lease, Some(Duration::from_secs(10))).await;
    }
}
