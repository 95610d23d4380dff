//! Credentials in a real PostgreSQL: dynamic and static, by the command line and the library.

use crate::world::{PATIENCE, Shared, eventually, failure, reason, shared};
use std::time::Duration;
use strongroom_client::{Error, LeaseState, LeasedCredential, v1};
use tokio_postgres::NoTls;

/// Logs in as a credential says and counts what it may read.
async fn works(shared: &Shared, user: &str, password: &str) -> Result<i64, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(shared.server.port())
        .dbname("postgres")
        .user(user)
        .password(password);
    config.connect_timeout(Duration::from_secs(5));
    let (client, connection) = config.connect(NoTls).await?;
    let wire = tokio::spawn(connection);
    let counted = client
        .query_one("SELECT count(*) FROM items", &[])
        .await
        .map(|row| row.get(0));
    wire.abort();
    counted
}

fn text(made: &LeasedCredential, name: &str) -> String {
    made.field(name).unwrap().expose_str().unwrap().to_owned()
}

fn accounts(shared: &Shared, like: &str) -> u32 {
    shared
        .server
        .admin(
            "postgres",
            &format!("SELECT count(*) FROM pg_roles WHERE rolname LIKE '{like}'"),
        )
        .unwrap()
        .parse()
        .unwrap()
}

/// R-LEASE-1, R-LEASE-3: issued by the command line, it works, is listed, renewed, revoked with proof, and then refused with the right password.
#[tokio::test(flavor = "multi_thread")]
async fn issue_renew_revoke_by_command_line() {
    let shared = shared();
    let cli = shared.world.cli();
    cli.ok(&[
        "role",
        "put",
        "pg/by-cli",
        "group=readers",
        "default_ttl=1m",
        "max_ttl=2m",
    ]);
    let made = cli.json(&["creds", "issue", "pg/by-cli"]);
    let field = |name: &str| made["fields"][name].as_str().unwrap().to_owned();
    assert_eq!(works(shared, &field("username"), &field("password")).await.unwrap(), 3);
    let id = made["lease_id"].as_str().unwrap();
    let told = cli.json(&["lease", "show", id]);
    assert_eq!(
        (told["state"].clone(), told["role"].clone()),
        ("active".into(), "pg/by-cli".into())
    );
    assert_eq!(told["account"], field("username"));
    assert!(
        !told.to_string().contains(&field("password")),
        "a lease does not know its password"
    );
    assert_eq!(cli.json(&["lease", "list", "pg/by-cli"])["leases"][0]["id"], id);
    let renewed = cli.json(&["lease", "renew", id, "--ttl", "1h"]);
    assert!(
        (60..=120).contains(&renewed["ttl_secs"].as_u64().unwrap()),
        "to the role's maximum: {renewed}"
    );
    let until = shared.server.admin(
        "postgres",
        &format!(
            "SELECT rolvaliduntil FROM pg_roles WHERE rolname = '{}'",
            field("username")
        ),
    );
    assert!(!until.unwrap().is_empty(), "the target carries the limit too");
    assert_eq!(cli.json(&["lease", "revoke", id])["gone"], 1);
    assert_eq!(accounts(shared, &field("username")), 0);
    assert!(works(shared, &field("username"), &field("password")).await.is_err());
    assert_eq!(
        failure(&cli.run(&["--output", "json", "lease", "show", id]))["exit_code"],
        3,
        "a lease that is gone is nobody's"
    );
}

/// R-LEASE-1: by prefix all leases of a role end, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn revoke_by_prefix() {
    let shared = shared();
    let (cli, client) = (shared.world.cli(), shared.world.client().await);
    for role in ["pg/prefix", "pg/prefixed"] {
        cli.ok(&["role", "put", role, "group=readers", "default_ttl=1m", "max_ttl=2m"]);
    }
    for _ in 0..3 {
        client.issue("pg/prefix", None).await.unwrap();
    }
    let other = client.issue("pg/prefixed", None).await.unwrap();
    let done = cli.json(&["lease", "revoke", "--prefix", "pg/prefix"]);
    assert_eq!((done["queued"].clone(), done["gone"].clone()), (3.into(), 3.into()));
    assert_eq!(
        works(shared, &text(&other, "username"), &text(&other, "password"))
            .await
            .unwrap(),
        3
    );
    assert!(client.revoke(other.lease_id.as_ref().unwrap()).await.unwrap());
}

/// R-LEASE-1: nobody revokes, the time comes: the session that is open ends, the account is gone.
#[tokio::test(flavor = "multi_thread")]
async fn it_ends_at_its_expiry() {
    let shared = shared();
    let client = shared.world.client().await;
    let made = client.issue("pg/readers", Some(Duration::from_secs(5))).await.unwrap();
    let (user, password) = (text(&made, "username"), text(&made, "password"));
    assert_eq!(works(shared, &user, &password).await.unwrap(), 3);
    eventually("gone at its expiry", || accounts(shared, &user) == 0);
    assert!(works(shared, &user, &password).await.is_err());
}

/// R-OPS-6: `issue_kept` renews in the background past the life it was given, tells when nothing more can be had, and takes it back at `close`.
#[tokio::test(flavor = "multi_thread")]
async fn the_library_keeps_a_lease() {
    let shared = shared();
    let client = shared.world.client().await;
    shared.world.cli().ok(&[
        "role",
        "put",
        "pg/kept",
        "group=readers",
        "default_ttl=5s",
        "max_ttl=14s",
    ]);
    let kept = client.issue_kept("pg/kept", None).await.unwrap();
    let (user, password) = (text(kept.credential(), "username"), text(kept.credential(), "password"));
    let mut state = kept.state();
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(
        works(shared, &user, &password).await.unwrap(),
        3,
        "alive beyond its five seconds"
    );
    let until_final = async {
        while !matches!(*state.borrow_and_update(), LeaseState::Final { .. } | LeaseState::Ended) {
            state.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, until_final)
        .await
        .expect("told before it ends");
    drop(kept);
    eventually("gone at its maximum", || accounts(shared, &user) == 0);
    let kept = client.issue_kept("pg/kept", None).await.unwrap();
    let user = text(kept.credential(), "username");
    assert!(kept.close().await.unwrap(), "proven gone");
    assert_eq!(accounts(shared, &user), 0);
}

/// R-ROT-1, R-ROT-2: a static account's password is read, rotates on demand, and the old one is over; no lease hangs on it.
#[tokio::test(flavor = "multi_thread")]
async fn static_accounts_rotate() {
    let shared = shared();
    let (cli, client) = (shared.world.cli(), shared.world.client().await);
    eventually("it has its first password", || {
        cli.run(&["creds", "issue", "pg/app"]).code == 0
    });
    let old = client.issue("pg/app", None).await.unwrap();
    assert_eq!(old.lease_id, None);
    assert_eq!(works(shared, "app", &text(&old, "password")).await.unwrap(), 3);
    cli.ok(&["creds", "rotate", "pg/app"]);
    let new = cli.ok(&["creds", "issue", "pg/app", "--field", "password"]);
    assert_ne!(new, text(&old, "password"));
    assert_eq!(works(shared, "app", &new).await.unwrap(), 3);
    assert!(works(shared, "app", &text(&old, "password")).await.is_err());
    assert!(matches!(
        client.issue_kept("pg/app", None).await,
        Err(Error::Invalid(_))
    ));
    let dynamic = cli.run(&["--output", "json", "creds", "rotate", "pg/readers"]);
    assert_eq!(
        failure(&dynamic)["reason"],
        "NOT_POSSIBLE",
        "leases of a dynamic role are revoked, not rotated"
    );
    assert!(!shared.server.log().contains(&new), "the server never sees a password");
}

/// R-ROT-1: the engine's own root credential rotates; what its predecessor made is still revoked.
#[tokio::test(flavor = "multi_thread")]
async fn the_root_credential_rotates() {
    let shared = shared();
    let (cli, client) = (shared.world.cli(), shared.world.client().await);
    let made = client.issue("pg/readers", None).await.unwrap();
    let first = cli.json(&["mount", "rotate-root", "pg"])["account"].clone();
    let second = cli.json(&["mount", "rotate-root", "pg"])["account"].clone();
    assert_ne!(first, second);
    assert!(client.revoke(made.lease_id.as_ref().unwrap()).await.unwrap());
    cli.ok(&["mount", "config", "pg", "--test"]);
}

/// R-LEASE-2: a caller that leaves while its credential is made leaves nothing behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_leaves_nothing() {
    let shared = shared();
    let client = shared.world.client().await;
    shared.world.cli().ok(&[
        "role",
        "put",
        "pg/left",
        "group=readers",
        "default_ttl=10m",
        "max_ttl=1h",
    ]);
    for after_ms in [0, 1, 2, 5, 10, 20, 40] {
        let client = client.clone();
        let issuing = tokio::spawn(async move { client.issue("pg/left", None).await.map(drop) });
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        issuing.abort();
        if let Ok(Ok(())) = issuing.await {
            // It was faster than we: then it was delivered, and is ours to give back.
            shared.world.cli().ok(&["lease", "revoke", "--prefix", "pg/left"]);
        }
    }
    eventually("no account and no lease remain", || {
        accounts(shared, "sr\\_left\\_%") == 0
            && shared.world.cli().json(&["lease", "list", "pg/left"])["leases"]
                .as_array()
                .is_some_and(Vec::is_empty)
    });
}

/// R-LEASE-1, R-POL-1: ids are no capabilities: somebody else's lease is neither shown nor renewed nor revoked.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_id_is_no_capability() {
    let shared = shared();
    let world = &shared.world;
    world.put_policy(
        "lease-owners",
        r#"permit(principal in S::Group::"lease-owners", action == S::Action::"issue", resource in S::Path::"pg");
permit(principal in S::Group::"lease-owners", action in S::Action::"leases", resource in S::Path::"pg") when { context.own };"#,
    );
    let mine = world.lab.client(&world.token("lease-owner", &["lease-owners"])).await;
    let theirs = world.lab.client(&world.token("lease-other", &["lease-owners"])).await;
    let made = mine.issue("pg/readers", None).await.unwrap();
    let id = made.lease_id.clone().unwrap();
    assert!(matches!(theirs.renew(&id, None).await, Err(Error::Denied(_))));
    assert!(matches!(theirs.revoke(&id).await, Err(Error::Denied(_))));
    let unknown = "0123456789abcdef0123456789abcdef";
    assert_eq!(
        reason(theirs.revoke(unknown).await),
        reason(theirs.revoke(&id).await),
        "unknown and foreign answer alike"
    );
    mine.renew(&id, None).await.unwrap();
    assert!(mine.revoke(&id).await.unwrap());
}

/// R-LEASE-1: bounds of a lease are kept and mistakes told: no such role, no such group, a mount that is no engine's.
#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_told() {
    let shared = shared();
    let client = shared.world.client().await;
    let shortest = client.issue("pg/readers", Some(Duration::from_secs(1))).await.unwrap();
    assert_eq!(
        shortest.ttl,
        Duration::from_secs(5),
        "what is too short becomes the least there is"
    );
    client.revoke(&shortest.lease_id.unwrap()).await.unwrap();
    assert_eq!(reason(client.issue("pg/none", None).await), "NOT_FOUND");
    assert_eq!(reason(client.issue("nowhere/readers", None).await), "DENIED");
    assert!(client.issue("kv/readers", None).await.is_err());
    for wrong in [
        "not json",
        "[]",
        r#"{"group":"readers","surprise":1}"#,
        r#"{"default_ttl":"1h"}"#,
        r#"{"group":"readers","default_ttl":"2s"}"#,
    ] {
        let request = v1::RolePutRequest {
            path: "pg/wrong".into(),
            definition_json: wrong.into(),
            ..Default::default()
        };
        let refused = client
            .change(request, |s, r| async move { s.mount().put_role(r).await })
            .await;
        assert_eq!(reason(refused), "MALFORMED", "{wrong}");
    }
    let no_group = [
        "--output",
        "json",
        "role",
        "put",
        "pg/no-group",
        "group=not_there",
        "default_ttl=1m",
        "max_ttl=1m",
    ];
    let refused = failure(&shared.world.cli().run(&no_group));
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("not_there does not exist"),
        "{refused}"
    );
}

/// R-LEASE-2: a credential asked for twice under one idempotency key is made once, and its password is shown once.
#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_makes_one_account() {
    let shared = shared();
    let client = shared.world.client().await;
    shared.world.cli().ok(&[
        "role",
        "put",
        "pg/once",
        "group=readers",
        "default_ttl=1m",
        "max_ttl=1m",
    ]);
    let issue = || {
        let client = client.clone();
        let request = v1::CredsIssueRequest {
            role: "pg/once".into(),
            idempotency_key: "an-account-once".into(),
            ..Default::default()
        };
        async move {
            client
                .once(request, |s, r| async move { s.creds().issue(r).await })
                .await
        }
    };
    let made = issue().await.unwrap();
    assert_eq!(reason(issue().await), "ALREADY_DONE");
    assert_eq!(accounts(shared, "sr\\_once\\_%"), 1);
    assert!(client.revoke(&made.lease_id).await.unwrap());
}
