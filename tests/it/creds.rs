//! Credentials in a real PostgreSQL: dynamic and static, by the command line and the library.

use crate::world::{PATIENCE, Shared, World, eventually, failure, postgres, reason, shared};
use std::time::Duration;
use strongroom_client::{Client, Error, LeaseState, LeasedCredential, v1};
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
    let beyond = failure(&cli.run(&["--output", "json", "creds", "issue", "pg/by-cli", "--ttl", "121s"]));
    assert_eq!(beyond["reason"], "MALFORMED");
    assert!(
        beyond["message"].as_str().unwrap().contains("at most 2m (120 s)"),
        "{beyond}"
    );
    assert_eq!(accounts(shared, "sr\\_by-cli\\_%"), 0, "nothing was made");
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

/// R-ROT-1: an account that was just made a static role is waited for by whoever asks at once; one that cannot be set says why and when to
/// try again; one whose role is deleted in the middle of a rotation is nobody's.
#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_static_role_is_waited_for() {
    let server = postgres();
    let world = World::open();
    world.mount_postgres(&server);
    let (cli, client) = (world.cli(), world.client().await);
    let role = [
        "role",
        "put",
        "pg/app",
        "type=static",
        "account=app",
        "rotation_period=24h",
    ];
    for round in 0..5 {
        cli.ok(&role);
        let made = client
            .issue("pg/app", None)
            .await
            .unwrap_or_else(|error| panic!("{round}: {error:?}"));
        assert_eq!(text(&made, "username"), "app");
        let rotating = tokio::spawn({
            let client = client.clone();
            let request = v1::CredsRotateRequest {
                role: "pg/app".into(),
                ..Default::default()
            };
            async move {
                client
                    .change(request, |s, r| async move { s.creds().rotate(r).await })
                    .await
            }
        });
        tokio::time::sleep(Duration::from_millis(round * 3)).await;
        cli.ok(&["role", "delete", "pg/app"]);
        // It was done before, or finds nothing to rotate; an indeterminate end would be a lost password.
        if let Err(error) = rotating.await.unwrap() {
            assert!(
                matches!(error.reason(), Some("NOT_FOUND" | "CONFLICT")),
                "{round}: {error:?}"
            );
        }
    }
    server.admin("postgres", "ALTER ROLE app CONNECTION LIMIT 0").unwrap();
    cli.ok(&role);
    eventually("operators hear of it", || {
        world.status()["warnings"]
            .to_string()
            .contains("the password of `pg/app` could not be set anew")
    });
    let error = client
        .with_timeout(Duration::from_secs(3))
        .issue("pg/app", None)
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Some("TARGET_UNAVAILABLE"), "{error:?}");
    assert!(error.refusal().unwrap().retry_after.is_some(), "{error:?}");
}

/// R-LEASE-1, R-POL-1: the leases of one identity end by its name, of all in an emergency at once; a `forbid` on one role holds against both.
#[tokio::test(flavor = "multi_thread")]
async fn revoke_by_identity_and_all_at_once() {
    let server = postgres();
    let world = World::open();
    world.mount_postgres(&server);
    world.put_policy(
        "issuers",
        r#"permit(principal in S::Group::"issuers", action == S::Action::"issue", resource in S::Path::"pg");
permit(principal in S::Group::"revokers", action == S::Action::"revoke", resource);"#,
    );
    let one = world.lab.client(&world.token("one", &["issuers"])).await;
    let two = world.lab.client(&world.token("two", &["issuers"])).await;
    for _ in 0..2 {
        one.issue("pg/readers", None).await.unwrap();
        two.issue("pg/readers", None).await.unwrap();
    }
    let accounts = || {
        let sql = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'sr\\_readers\\_%'";
        server.admin("postgres", sql).unwrap().parse::<u32>().unwrap()
    };
    assert_eq!(accounts(), 4);
    let revoker = world.lab.cli().with_token(&world.token("revoker", &["revokers"]));
    world.put_policy(
        "kept",
        r#"forbid(principal in S::Group::"revokers", action == S::Action::"revoke", resource in S::Path::"pg/readers");"#,
    );
    let by_name = ["--output", "json", "lease", "revoke", "--identity", "one"];
    let all = ["--output", "json", "lease", "revoke", "--all"];
    for args in [&by_name[..], &all] {
        assert_eq!(failure(&revoker.run(args))["reason"], "DENIED", "{args:?}");
    }
    world.cli().ok(&["policy", "delete", "kept"]);
    let other = world.lab.cli().with_token(&world.token("two", &[]));
    assert_eq!(failure(&other.run(&by_name))["reason"], "DENIED", "not one's own");
    let done = revoker.json(&by_name[2..]);
    assert_eq!((done["queued"].clone(), done["gone"].clone()), (2.into(), 2.into()));
    assert_eq!(accounts(), 2);
    let own = other.json(&["lease", "revoke", "--identity", "two"]);
    assert_eq!(own["gone"], 2, "what is one's own needs no policy: {own}");
    one.issue("pg/readers", None).await.unwrap();
    assert_eq!(revoker.json(&all[2..])["gone"], 1);
    assert_eq!(accounts(), 0);
    let nobody = ["--output", "json", "lease", "revoke", "--identity", "nobody"];
    assert_eq!(failure(&revoker.run(&nobody))["reason"], "NOT_FOUND");
}

/// R-LEASE-1, R-LEASE-2: a mount that is disabled while credentials are being made in it leaves no account behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_mount_is_disabled_under_load() {
    let server = postgres();
    let world = World::open();
    for round in 0..4 {
        world.mount_postgres(&server);
        let client = world.client().await;
        let issuing: Vec<_> = (0..12)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { client.issue("pg/readers", None).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(round * 15)).await;
        let disabled = world.cli().run(&["mount", "disable", "pg", "--revoke-leases"]);
        for issued in issuing {
            // Each was made, and revoked with the mount, or was refused.
            drop(issued.await.unwrap());
        }
        if disabled.code != 0 {
            world.cli().ok(&["mount", "disable", "pg", "--revoke-leases"]);
        }
        let sql = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'sr\\_readers\\_%'";
        assert_eq!(
            server.admin("postgres", sql).unwrap(),
            "0",
            "round {round}: {disabled:?}"
        );
    }
}

/// R-LEASE-1, R-POL-2: a page token is good for the same listing of the same caller alone.
#[tokio::test(flavor = "multi_thread")]
async fn page_tokens_are_for_their_listing() {
    let shared = shared();
    let (cli, client) = (shared.world.cli(), shared.world.client().await);
    for n in 0..3 {
        cli.ok(&["role", "put", &format!("pg/paged-{n}"), "group=readers"]);
        cli.ok_with(
            &["policy", "put", &format!("paged-{n}"), "-"],
            b"forbid(principal, action, resource in S::Path::\"kv/paged-nothing\");",
        );
        client.issue("pg/paged-0", None).await.unwrap();
    }
    let leases = |client: Client, prefix: &str, page_token: String| {
        let request = v1::LeaseListRequest {
            prefix: prefix.into(),
            page_size: 1,
            page_token,
        };
        async move {
            client
                .read(request, |s, r| async move { s.lease().list(r).await })
                .await
        }
    };
    let roles = |page_token: String| {
        let (client, mount) = (client.clone(), "pg".to_owned());
        let request = v1::RoleListRequest {
            mount,
            page_size: 1,
            page_token,
        };
        async move {
            client
                .read(request, |s, r| async move { s.mount().list_roles(r).await })
                .await
        }
    };
    let policies = |page_token: String| {
        let client = client.clone();
        let request = v1::PolicyListRequest {
            page_size: 1,
            page_token,
        };
        async move {
            client
                .read(request, |s, r| async move { s.policy().list(r).await })
                .await
        }
    };
    let of_leases = leases(client.clone(), "pg/paged-0", String::new())
        .await
        .unwrap()
        .next_page_token;
    let of_roles = roles(String::new()).await.unwrap().next_page_token;
    let of_policies = policies(String::new()).await.unwrap().next_page_token;
    leases(client.clone(), "pg/paged-0", of_leases.clone()).await.unwrap();
    roles(of_roles.clone()).await.unwrap();
    policies(of_policies.clone()).await.unwrap();
    let other = shared.world.lab.client(&shared.world.token("pager", &[])).await;
    assert_eq!(
        reason(leases(other, "pg/paged-0", of_leases.clone()).await),
        "MALFORMED"
    );
    assert_eq!(
        reason(leases(client.clone(), "pg", of_leases.clone()).await),
        "MALFORMED"
    );
    for wrong in [of_policies, "AAAA".to_owned()] {
        assert_eq!(reason(roles(wrong).await), "MALFORMED");
    }
    assert_eq!(reason(policies(of_roles).await), "MALFORMED");
    cli.ok(&["lease", "revoke", "--prefix", "pg/paged-0"]);
    (0..3).for_each(|n| drop(cli.ok(&["policy", "delete", &format!("paged-{n}")])));
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

/// R-LEASE-2: an act that takes longer than its caller's deadline is told as such, goes on to its end, and leaves nothing that nobody has.
#[tokio::test(flavor = "multi_thread")]
async fn an_act_over_its_deadline_leaves_nothing() {
    let shared = shared();
    let client = shared.world.client().await;
    shared.world.cli().ok(&[
        "role",
        "put",
        "pg/late",
        "group=readers",
        "default_ttl=10m",
        "max_ttl=1h",
    ]);
    let mut late = 0;
    for millis in [1, 2, 4, 8, 16, 32] {
        let request = v1::CredsIssueRequest {
            role: "pg/late".into(),
            ..Default::default()
        };
        let asked = client.with_timeout(Duration::from_millis(millis));
        match asked
            .once(request, |s, r| async move { s.creds().issue(r).await })
            .await
        {
            Ok(made) => drop(client.revoke(&made.lease_id).await.unwrap()),
            Err(error) => {
                assert!(
                    matches!(error, Error::Indeterminate(_) | Error::Unavailable(_)),
                    "{millis} ms: {error:?}"
                );
                late += 1;
            }
        }
    }
    assert!(late > 0, "one of them was late");
    eventually("no account and no lease remain", || {
        accounts(shared, "sr\\_late\\_%") == 0
            && shared.world.cli().json(&["lease", "list", "pg/late"])["leases"]
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
    let too_short = client.issue("pg/readers", Some(Duration::from_secs(4))).await;
    assert_eq!(
        reason(too_short),
        "MALFORMED",
        "nobody is given a longer life than was asked for"
    );
    let longest = client
        .issue("pg/readers", Some(Duration::from_secs(3600)))
        .await
        .unwrap();
    assert_eq!(longest.ttl, Duration::from_secs(3600));
    client.revoke(&longest.lease_id.unwrap()).await.unwrap();
    let too_long = client.issue("pg/readers", Some(Duration::from_secs(3601))).await;
    assert!(
        too_long
            .as_ref()
            .is_err_and(|error| error.to_string().contains("at most 1h")),
        "{too_long:?}"
    );
    assert_eq!(reason(too_long), "MALFORMED", "nor a shorter one");
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

/// R-LEASE-2: of a credential that is asked for twice under one idempotency key one account remains: whoever asks again has not got the first.
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
    let again = issue().await.unwrap();
    assert_ne!(again.lease_id, made.lease_id);
    eventually("the first is gone", || accounts(shared, "sr\\_once\\_%") == 1);
    assert!(client.revoke(&again.lease_id).await.unwrap());
    assert_eq!(accounts(shared, "sr\\_once\\_%"), 0);
}

/// R-LEASE-7: an account that carries the mark and has no lease is found, told, and ended when that is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_stray_is_found_and_removed_by_command_line() {
    let shared = shared();
    let cli = shared.world.cli();
    let stray = "sr_stray_00112233445566778899aabbccddeeff";
    let sql = format!("CREATE ROLE {stray} LOGIN PASSWORD 'x' IN ROLE readers ROLE strongroom_manager");
    shared.server.admin("postgres", &sql).unwrap();
    let found = cli.json(&["reconcile", "pg"]);
    assert_eq!(found["strays"], serde_json::json!([stray]), "{found}");
    assert_eq!((found["removing"].clone(), accounts(shared, stray)), (0.into(), 1));
    let found = cli.json(&["reconcile", "pg", "--remove"]);
    assert_eq!(found["removing"], 1, "{found}");
    eventually("the stray is gone", || accounts(shared, stray) == 0);
    let found = cli.ok(&["reconcile", "pg"]);
    assert!(found.contains("0 strays"), "{found}");
    let types = cli.json(&["mount", "types"]).to_string();
    assert!(["mariadb", "rabbitmq", "redis"].iter().all(|kind| types.contains(kind)));
}
