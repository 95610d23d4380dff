//! Fetch and watch, on the real daemon and a real PostgreSQL, by the library.

use crate::world::{PATIENCE, World, eventually, reason, shared, value};
use std::{collections::BTreeSet, time::Duration};
use strongroom_client::{Client, Delivered, Error, Event, Fields, Follow, Kind, Secret, Select, Want, WatchStream};
use strongroomd::engine::postgres::testing::MANAGER;
use tokio::time::timeout;

fn text(delivered: &Delivered, name: &str) -> String {
    delivered.field(name).unwrap().expose_str().unwrap().to_owned()
}

fn version(delivered: &Delivered) -> u64 {
    match delivered.kind {
        Kind::Secret { version, .. } => version,
        ref other => panic!("no secret: {other:?}"),
    }
}

/// The next event, within the patience.
async fn next(stream: &mut WatchStream) -> Event {
    timeout(PATIENCE, stream.next())
        .await
        .expect("an event")
        .expect("no end")
}

async fn changed(stream: &mut WatchStream) -> (usize, Delivered) {
    match next(stream).await {
        Event::Changed(item, delivered) => (item, delivered),
        other => panic!("not changed: {other:?}"),
    }
}

async fn silence(stream: &mut WatchStream) {
    let early = timeout(Duration::from_millis(700), stream.next()).await;
    assert!(early.is_err(), "nothing was to come: {early:?}");
}

/// How a stream ends.
async fn end(stream: &mut WatchStream) -> Error {
    timeout(PATIENCE, stream.next())
        .await
        .expect("it ends")
        .expect_err("an end")
}

/// Records of an operation at a path, as the log has them.
fn records(world: &World, op: &str, path: &str) -> Vec<serde_json::Value> {
    let out = world.cli().ok(&["--output", "json", "audit", "tail", "--last", "2000"]);
    let parsed = out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    parsed
        .map(|line| line["record"].clone())
        .filter(|record| record["op"] == op && record["path"] == path)
        .collect()
}

async fn app(world: &World, name: &str, policy: &str) -> Client {
    world.put_policy(name, policy);
    world.lab.client(&world.token(name, &[name])).await
}

/// R-KV-3: secrets, a version, a static and a dynamic credential come in one call, in order, each with its remaining life; each is recorded
/// on its own under one request id.
#[tokio::test(flavor = "multi_thread")]
async fn fetch_brings_everything_in_one_call() {
    let shared = shared();
    let (world, client) = (&shared.world, shared.world.client().await);
    client.put("kv/fetch/a", &value("first"), None).await.unwrap();
    client.put("kv/fetch/a", &value("second"), None).await.unwrap();
    client.put("kv/fetch/b", &value("other"), None).await.unwrap();
    eventually("the static account has its password", || {
        world.cli().run(&["creds", "issue", "pg/app"]).code == 0
    });
    let wants = [
        Want::new("kv/fetch/a"),
        Want::new("pg/readers").ttl(Duration::from_secs(60)),
        Want::new("kv/fetch/a").select(Select::Version(1)),
        Want::new("pg/app"),
        Want::new("kv/fetch/b"),
    ];
    let fetched = client.fetch(wants).await.unwrap();
    let paths: Vec<_> = fetched.iter().map(|item| item.path.as_str()).collect();
    assert_eq!(
        paths,
        ["kv/fetch/a", "pg/readers", "kv/fetch/a", "pg/app", "kv/fetch/b"]
    );
    assert_eq!(
        [
            text(&fetched[0], "value"),
            text(&fetched[2], "value"),
            text(&fetched[4], "value")
        ],
        ["second", "first", "other"]
    );
    assert_eq!((version(&fetched[0]), version(&fetched[2])), (2, 1));
    assert_eq!(fetched[0].remaining, None);
    let left = fetched[1].remaining.unwrap().as_secs();
    assert!((50..=60).contains(&left), "{left}");
    let lease = fetched[1].lease_id().unwrap();
    let day = fetched[3].remaining.unwrap().as_secs();
    assert!((80_000..=86_400).contains(&day), "to its next rotation: {day}");
    assert_eq!(text(&fetched[3], "username"), "app");
    assert!(client.revoke(lease).await.unwrap());
    let (reads, issues) = (
        records(world, "kv.get", "kv/fetch/a"),
        records(world, "creds.issue", "pg/readers"),
    );
    let request = &reads[0]["request"];
    assert_eq!(reads.iter().filter(|read| &read["request"] == request).count(), 2);
    assert!(
        issues
            .iter()
            .any(|issue| &issue["request"] == request && issue["outcome"]["code"] == "OK")
    );
}

/// R-KV-3: all or nothing. One part that is refused or fails refuses all, names itself, is recorded; no account stays behind.
#[tokio::test(flavor = "multi_thread")]
async fn fetch_is_all_or_nothing() {
    let shared = shared();
    let world = &shared.world;
    let root = world.client().await;
    root.put("kv/nothing/yes", &value("x"), None).await.unwrap();
    root.put("kv/nothing/no", &value("x"), None).await.unwrap();
    let admin = |sql: &str| shared.server.admin("postgres", sql).unwrap();
    admin(&format!("CREATE ROLE brittle NOLOGIN; GRANT brittle TO {MANAGER};"));
    for (role, group) in [("pg/whole", "group=readers"), ("pg/broken", "group=brittle")] {
        let cli = world.cli();
        cli.ok(&["role", "put", role, group, "default_ttl=1m", "max_ttl=2m"]);
    }
    admin("DROP ROLE brittle;");
    let client = app(
        world,
        "nothing",
        r#"permit (principal in S::Group::"nothing", action in [S::Action::"read", S::Action::"issue"], resource)
           unless { resource == S::Path::"kv/nothing/no" };"#,
    )
    .await;
    let table = [
        (vec!["kv/nothing/yes", "kv/nothing/no"], "DENIED", "kv/nothing/no"),
        (vec!["pg/whole", "kv/nothing/no"], "DENIED", "kv/nothing/no"),
        (
            vec!["kv/nothing/yes", "kv/nothing/absent"],
            "NOT_FOUND",
            "kv/nothing/absent",
        ),
        (vec!["pg/whole", "pg/absent"], "NOT_FOUND", "pg/absent"),
        (vec!["pg/whole", "pg/broken"], "TARGET_REFUSED", "pg/broken"),
        (vec!["kv/nothing/yes", "elsewhere/x"], "DENIED", "elsewhere/x"),
    ];
    for (paths, want, named) in table {
        let error = client.fetch(paths.clone()).await.expect_err("refused");
        assert_eq!(
            (error.reason(), error.to_string().contains(named)),
            (Some(want), true),
            "{paths:?}: {error}"
        );
    }
    assert_eq!(reason(client.fetch(Vec::<String>::new()).await), "MALFORMED");
    assert_eq!(reason(client.fetch(vec!["kv/nothing/yes"; 65]).await), "MALFORMED");
    assert_eq!(reason(client.fetch(vec!["pg/whole"; 17]).await), "TOO_LARGE");
    assert!(
        !records(world, "kv.get", "kv/nothing/no").is_empty(),
        "the refusal is recorded"
    );
    eventually("no account of a refused fetch stays", || {
        let leases = world.cli().json(&["lease", "list", "pg/whole"]);
        leases["leases"].as_array().unwrap().is_empty()
    });
}

/// R-KV-3: a bundle is a secret that lists what is needed, under names; it takes the right to read it, and those to what it lists; what is no bundle
/// is said without its value.
#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_brings_what_it_lists() {
    let world = &shared().world;
    let root = world.client().await;
    root.put("kv/bundled/mail", &value("old"), None).await.unwrap();
    root.put("kv/bundled/mail", &value("new"), None).await.unwrap();
    root.put("kv/bundles/shadow", &value("canary-of-no-bundle"), None)
        .await
        .unwrap();
    let lists = |pairs: &[(&str, &str)]| {
        let pair = |(name, text): &(&str, &str)| ((*name).to_owned(), Secret::from(*text));
        pairs.iter().map(pair).collect::<Fields>()
    };
    let shop = [
        ("mail", "ref:kv/bundled/mail"),
        ("db", "ref:pg/readers?ttl=90s"),
        ("first", "ref:kv/bundled/mail?version=1"),
    ];
    root.put("kv/bundles/shop", &lists(&shop), None).await.unwrap();
    let fetched = root.fetch_bundle("kv/bundles/shop").await.unwrap();
    let told: Vec<_> = fetched
        .iter()
        .map(|one| (one.name.as_str(), one.path.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("db", "pg/readers"),
            ("first", "kv/bundled/mail"),
            ("mail", "kv/bundled/mail")
        ]
    );
    assert!(fetched[0].remaining.unwrap().as_secs() <= 90);
    assert_eq!(
        (text(&fetched[1], "value"), text(&fetched[2], "value")),
        ("old".into(), "new".into())
    );
    root.revoke(fetched[0].lease_id().unwrap()).await.unwrap();
    for read in [
        records(world, "kv.get", "kv/bundles/shop"),
        records(world, "kv.get", "kv/bundled/mail"),
    ] {
        assert!(!read.is_empty(), "the bundle and its parts are recorded");
    }

    world.put_policy(
        "bundles",
        r#"permit (principal in S::Group::"bundles", action == S::Action::"read", resource in S::Path::"kv/bundles");"#,
    );
    let client = world.lab.client(&world.token("bundles", &["bundles"])).await;
    let refused = client.fetch_bundle("kv/bundles/shop").await.unwrap_err();
    assert_eq!(refused.kind(), "denied", "the bundle alone opens nothing: {refused}");
    let stranger = world.lab.client(&world.token("no-bundles", &[])).await;
    assert_eq!(
        stranger.fetch_bundle("kv/bundles/shop").await.unwrap_err().kind(),
        "denied"
    );
    let no_bundle = root.fetch_bundle("kv/bundles/shadow").await.unwrap_err();
    assert_eq!(no_bundle.kind(), "conflict", "{no_bundle}");
    assert!(
        no_bundle.to_string().contains("`value`") && !no_bundle.to_string().contains("canary"),
        "{no_bundle}"
    );
    assert_eq!(reason(root.fetch_bundle("pg/readers").await), "NOT_POSSIBLE");

    let twice = world.client_builder().bundle("kv/bundles/shop").await.unwrap_err();
    assert_eq!(twice.reason(), Some("ASKED_TWICE"), "{twice}");
    let left = world.cli().json(&["lease", "list", "pg/readers"]);
    assert!(
        !left.to_string().contains("\"ttl_secs\":90"),
        "its account was taken back: {left}"
    );
    let held = [("mail", "ref:kv/bundled/mail"), ("app", "ref:pg/app")];
    root.put("kv/bundles/held", &lists(&held), None).await.unwrap();
    let secrets = world.client_builder().bundle("kv/bundles/held").await.unwrap();
    let (named, by_path) = (secrets.get("mail").unwrap(), secrets.get("kv/bundled/mail").unwrap());
    assert_eq!(
        (text(&named, "value"), text(&by_path, "value")),
        ("new".into(), "new".into())
    );
    root.put("kv/bundled/mail", &value("newest"), None).await.unwrap();
    let newest = || secrets.get("mail").is_ok_and(|mail| text(&mail, "value") == "newest");
    tokio::task::block_in_place(|| eventually("what a bundle lists is followed", newest));
    secrets.close().await;
}

/// R-KV-3: an answer that is too large says so before any account is made.
#[tokio::test(flavor = "multi_thread")]
async fn fetch_is_bounded() {
    let client = shared().world.client().await;
    let large = "x".repeat(1_000_000);
    client.put("kv/fetch/large", &value(&large), None).await.unwrap();
    assert_eq!(client.fetch(vec!["kv/fetch/large"; 3]).await.unwrap().len(), 3);
    assert_eq!(reason(client.fetch(vec!["kv/fetch/large"; 4]).await), "TOO_LARGE");
}

/// R-KV-4: first the present, then every change, also absence; what was fetched or seen does not come again, even after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn watch_pushes_changes_and_resumes() {
    let mut world = World::open();
    let client = world.client().await;
    client.put("kv/w/a", &value("1"), None).await.unwrap();
    let mut stream = client
        .watch([Follow::path("kv/w/a"), Follow::path("kv/w/b")])
        .await
        .unwrap();
    let (mut first, mut seen) = (BTreeSet::new(), Vec::new());
    for _ in 0..2 {
        match next(&mut stream).await {
            Event::Changed(item, delivered) => {
                seen.push(text(&delivered, "value"));
                first.insert(item);
            }
            Event::Gone(item, path) => {
                assert_eq!(path, "kv/w/b");
                first.insert(item);
            }
            other @ (Event::Lease { .. } | Event::Refused { .. }) => panic!("{other:?}"),
        }
    }
    assert_eq!((first, seen), ([0, 1].into(), vec!["1".to_owned()]));
    client.put("kv/w/b", &value("new"), Some(0)).await.unwrap();
    let (item, delivered) = changed(&mut stream).await;
    assert_eq!(
        (item, version(&delivered), text(&delivered, "value")),
        (1, 1, "new".to_owned())
    );
    world.cli().ok(&["kv", "metadata", "kv/w/a", "--set", "owner=team"]);
    silence(&mut stream).await;
    world.cli().ok(&["kv", "delete", "kv/w/a"]);
    assert!(matches!(next(&mut stream).await, Event::Gone(0, _)));
    world.cli().ok(&["kv", "undelete", "kv/w/a", "--versions", "1"]);
    assert_eq!(changed(&mut stream).await.0, 0);

    world.restart();
    assert!(matches!(end(&mut stream).await, Error::Unavailable(_)));
    world.unseal("daily");
    let client = world.client().await;
    client.put("kv/w/b", &value("newer"), None).await.unwrap();
    let mut stream = stream.resumed().await.unwrap();
    let (item, delivered) = changed(&mut stream).await;
    assert_eq!(
        (item, text(&delivered, "value")),
        (1, "newer".to_owned()),
        "only what is new"
    );
    silence(&mut stream).await;

    let fetched = client.fetch(["kv/w/a", "kv/w/b"]).await.unwrap();
    let follow = fetched.iter().map(|item| Follow::path(&item.path).resume(&item.resume));
    let mut stream = client.watch(follow).await.unwrap();
    silence(&mut stream).await;
    client.put("kv/w/a", &value("2"), None).await.unwrap();
    assert_eq!(text(&changed(&mut stream).await.1, "value"), "2");
    assert_eq!(
        reason(client.watch([Follow::path("kv/w/a").resume("forged")]).await),
        "MALFORMED"
    );
}

/// R-KV-4: a reader that does not read gets the newest, not a backlog.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_gets_the_newest() {
    let client = shared().world.client().await;
    // Larger than what fits between the daemon and a reader that sleeps.
    let padding = "x".repeat(400_000);
    let mut stream = client.watch([Follow::path("kv/slow")]).await.unwrap();
    assert!(matches!(next(&mut stream).await, Event::Gone(0, _)));
    for number in 1..=20 {
        client
            .put("kv/slow", &value(&format!("{number} {padding}")), None)
            .await
            .unwrap();
    }
    let mut versions = Vec::new();
    while versions.last() != Some(&20) {
        versions.push(version(&changed(&mut stream).await.1));
    }
    assert!(versions.is_sorted() && versions.len() < 15, "{versions:?}");
}

/// R-KV-4: each delivery is recorded with who, what and why it was allowed, the stream's beginning and end too; nothing of the value.
#[tokio::test(flavor = "multi_thread")]
async fn every_delivery_is_recorded() {
    let world = &shared().world;
    let client = app(
        world,
        "recorded",
        r#"permit (principal in S::Group::"recorded", action == S::Action::"read", resource in S::Path::"kv/recorded");"#,
    )
    .await;
    let root = world.client().await;
    root.put("kv/recorded/a", &value("canary-in-a-stream"), None)
        .await
        .unwrap();
    let mut stream = client.watch([Follow::path("kv/recorded/a")]).await.unwrap();
    changed(&mut stream).await;
    root.put("kv/recorded/a", &value("canary-in-a-stream"), None)
        .await
        .unwrap();
    changed(&mut stream).await;
    drop(stream);
    let pushes = records(world, "delivery.push", "kv/recorded/a");
    let shown: Vec<_> = pushes
        .iter()
        .map(|push| (push["params"]["version"].clone(), push["identity"]["name"].clone()))
        .collect();
    assert_eq!(shown, [(1.into(), "recorded".into()), (2.into(), "recorded".into())]);
    assert!(
        pushes[0]["policy"]["deciding"][0]
            .as_str()
            .unwrap()
            .starts_with("recorded")
    );
    let request = pushes[0]["request"].clone();
    eventually("its end is recorded", || {
        let out = world.cli().ok(&["--output", "json", "audit", "tail", "--last", "2000"]);
        out.lines().any(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let record = &line["record"];
            record["op"] == "delivery.watch-end" && record["request"] == request && record["params"]["delivered"] == 2
        })
    });
    let log = world.cli().ok(&["--output", "json", "audit", "tail", "--last", "2000"]);
    assert!(!log.contains("canary-in-a-stream"));
}

/// R-KV-4: a policy that takes the right away, the token's end, and the seal end a stream, each with its own word; none delivers after it.
#[tokio::test(flavor = "multi_thread")]
async fn streams_end_with_their_rights() {
    let world = World::open();
    let policy = |action: &str| {
        format!(
            r#"permit (principal in S::Group::"ends", action == S::Action::"{action}", resource in S::Path::"kv/ends");"#
        )
    };
    let client = app(&world, "ends", &policy("read")).await;
    let root = world.client().await;
    root.put("kv/ends/a", &value("1"), None).await.unwrap();
    let all = [Follow::path("kv/other"), Follow::path("kv/another")];
    let refused = client.watch(all).await.expect_err("nothing is left");
    assert!(
        matches!(&refused, Error::Denied(why) if why.message.starts_with("kv/other: ")),
        "{refused}"
    );

    let mut stream = client.watch([Follow::path("kv/ends/a")]).await.unwrap();
    changed(&mut stream).await;
    world.put_policy("ends", &policy("list"));
    root.put("kv/ends/a", &value("2"), None).await.unwrap();
    assert!(
        matches!(end(&mut stream).await, Error::Denied(_)),
        "decided anew at each delivery"
    );
    world.put_policy("ends", &policy("read"));
    let mut stream = client.watch([Follow::path("kv/ends/a")]).await.unwrap();
    changed(&mut stream).await;
    world.put_policy("ends", &policy("list"));
    assert!(
        matches!(end(&mut stream).await, Error::Denied(_)),
        "ends although nothing changes"
    );
    world.put_policy("ends", &policy("read"));

    let mut stream = client.watch([Follow::path("kv/ends/a")]).await.unwrap();
    changed(&mut stream).await;
    let made = world.token_with("ends", &["ends"], &[]);
    let short = world.lab.client(made["token"].as_str().unwrap()).await;
    let mut other = short.watch([Follow::path("kv/ends/a")]).await.unwrap();
    changed(&mut other).await;
    world.cli().ok(&["token", "revoke", made["accessor"].as_str().unwrap()]);
    assert!(matches!(end(&mut other).await, Error::Unauthenticated(_)));
    silence(&mut stream).await;

    world.cli().ok(&["operator", "seal"]);
    assert!(matches!(end(&mut stream).await, Error::Sealed(_)));
    assert!(matches!(stream.resumed().await.expect_err("sealed"), Error::Sealed(_)));
    world.unseal("daily");
    let mut stream = stream.resumed().await.unwrap();
    root.put("kv/ends/a", &value("3"), None).await.unwrap();
    assert_eq!(text(&changed(&mut stream).await.1, "value"), "3");
}

/// The paths of a stream's items that its opening is recorded for, each with its outcome, in order.
fn opened(world: &World, of: &str) -> Vec<(String, String)> {
    let shown = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let out = world.cli().ok(&["--output", "json", "audit", "tail", "--last", "2000"]);
    let parsed = out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["record"].clone());
    parsed
        .filter(|record| record["op"] == "delivery.watch" && record["identity"]["name"] == of)
        .map(|record| (shown(&record["path"]), shown(&record["outcome"]["code"])))
        .collect()
}

/// R-KV-4, R-AUDIT-1: what is refused, at the opening or later, or cannot be read, is told of that one item and the others go on, the last one ends
/// the stream; every item of an opening stands in the log.
#[tokio::test(flavor = "multi_thread")]
async fn one_refused_item_does_not_end_the_stream() {
    let world = World::open();
    let policy = |but: &str| {
        format!(
            r#"permit (principal in S::Group::"one", action in S::Action::"read", resource in S::Path::"kv/one")
               unless {{ resource == S::Path::"kv/one/{but}" }};"#
        )
    };
    let client = app(&world, "one", &policy("x")).await;
    let root = world.client().await;
    for path in ["kv/one/x", "kv/one/a", "kv/one/b"] {
        root.put(path, &value("1"), None).await.unwrap();
    }
    let follows = ["kv/one/a", "kv/one/x", "pg/none", "kv/one/b", "kv/one/absent"].map(Follow::path);
    let mut stream = client.watch(follows).await.unwrap();
    let mut told = std::collections::BTreeMap::new();
    for _ in 0..5 {
        let (item, what) = match next(&mut stream).await {
            Event::Changed(item, delivered) => (item, delivered.path),
            Event::Gone(item, path) => (item, format!("gone {path}")),
            Event::Refused { item, path, error } => (item, format!("{} {path}", error.reason().unwrap())),
            other @ Event::Lease { .. } => panic!("{other:?}"),
        };
        told.insert(item, what);
    }
    let told: Vec<_> = told.into_values().collect();
    assert_eq!(
        told,
        [
            "kv/one/a",
            "DENIED kv/one/x",
            "DENIED pg/none",
            "kv/one/b",
            "gone kv/one/absent"
        ]
    );
    let want = [
        ("kv/one/a", "OK"),
        ("kv/one/x", "PERMISSION_DENIED"),
        ("pg/none", "PERMISSION_DENIED"),
        ("kv/one/b", "OK"),
        ("kv/one/absent", "OK"),
        ("sys/delivery", "OK"),
    ];
    assert_eq!(
        opened(&world, "one"),
        want.map(|(path, code)| (path.to_owned(), code.to_owned()))
    );

    world.put_policy("one", &policy("a"));
    match next(&mut stream).await {
        Event::Refused {
            item: 0,
            path,
            error: Error::Denied(why),
        } => {
            assert_eq!((path.as_str(), why.reason.as_str()), ("kv/one/a", "DENIED"));
        }
        other => panic!("{other:?}"),
    }
    root.put("kv/one/a", &value("unseen"), None).await.unwrap();
    root.put("kv/one/b", &value("2"), None).await.unwrap();
    let (item, delivered) = changed(&mut stream).await;
    assert_eq!((item, text(&delivered, "value").as_str()), (3, "2"));
    silence(&mut stream).await;
    world.put_policy(
        "one",
        "permit (principal in S::Group::\"one\", action == S::Action::\"list\", resource);",
    );
    let mut ended = Vec::new();
    let end = loop {
        match timeout(PATIENCE, stream.next()).await.expect("it ends") {
            Ok(Event::Refused { item, .. }) => ended.push(item),
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!((ended, matches!(end, Error::Denied(_))), (vec![3], true), "{end}");
    world.put_policy("one", &policy("x"));
    let mut stream = stream.resumed().await.unwrap();
    let mut told = BTreeSet::new();
    for _ in 0..3 {
        match next(&mut stream).await {
            Event::Changed(item, delivered) => told.insert((item, text(&delivered, "value"))),
            Event::Refused { item, .. } => told.insert((item, "refused".to_owned())),
            other => panic!("{other:?}"),
        };
    }
    let want = [(0, "unseen"), (1, "refused"), (2, "refused")];
    assert_eq!(told, want.map(|(item, what)| (item, what.to_owned())).into());
}

/// R-ROT-4: a rotated password is pushed and works; without values only word of it comes.
#[tokio::test(flavor = "multi_thread")]
async fn rotations_are_pushed() {
    let shared = shared();
    let (world, client) = (&shared.world, shared.world.client().await);
    eventually("the static account has its password", || {
        world.cli().run(&["creds", "issue", "pg/app"]).code == 0
    });
    let mut stream = client.watch([Follow::path("pg/app")]).await.unwrap();
    let mut word = client.watch_with(vec![Follow::path("pg/app")], false).await.unwrap();
    let before = text(&changed(&mut stream).await.1, "password");
    assert!(changed(&mut word).await.1.fields.is_empty());
    world.cli().ok(&["creds", "rotate", "pg/app"]);
    let (_, after) = changed(&mut stream).await;
    assert_ne!(text(&after, "password"), before);
    assert!(matches!(after.kind, Kind::Account { .. }));
    assert_eq!(
        after.field("password").unwrap().expose(),
        client
            .issue("pg/app", None)
            .await
            .unwrap()
            .field("password")
            .unwrap()
            .expose()
    );
    assert!(changed(&mut word).await.1.fields.is_empty());
    assert_eq!(reason(client.watch([Follow::path("pg/readers")]).await), "NOT_POSSIBLE");
}

/// R-ROT-4: a lease's coming expiry is told ahead of time, a renewal moves it, its end is told; another's lease looks like one that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn coming_expiry_is_told() {
    let shared = shared();
    let (world, client) = (&shared.world, shared.world.client().await);
    world.cli().ok(&[
        "role",
        "put",
        "pg/warned",
        "group=readers",
        "default_ttl=8s",
        "max_ttl=60s",
    ]);
    let made = client.issue("pg/warned", None).await.unwrap();
    let id = made.lease_id.unwrap();
    let mut stream = client
        .watch([Follow::lease(&id).warn(Duration::from_secs(6))])
        .await
        .unwrap();
    let told = |event| match event {
        Event::Lease {
            state,
            remaining,
            renewable,
            ..
        } => (state, remaining.as_secs(), renewable),
        other => panic!("{other:?}"),
    };
    let (state, left, renewable) = told(next(&mut stream).await);
    assert!(
        state == "expiring" && (4..=6).contains(&left) && renewable,
        "{state} {left}"
    );
    client.renew(&id, Some(Duration::from_secs(30))).await.unwrap();
    silence(&mut stream).await;
    let stranger = world.lab.client(&world.token("stranger", &[])).await;
    let mut theirs = stranger.watch([Follow::lease(&id)]).await.unwrap();
    assert_eq!(told(next(&mut theirs).await).0, "gone");
    client.revoke(&id).await.unwrap();
    let mut states = Vec::new();
    while states.last().is_none_or(|state| state != "gone") {
        states.push(told(next(&mut stream).await).0);
    }
    assert!(states.len() <= 2, "{states:?}");
}

/// Streams of [`a_crowd_hears_of_a_change`]: `STRONGROOM_CROWD` for more.
const CROWD: usize = 1000;
/// Streams of one connection of the crowd.
const CROWD_A_CONNECTION: usize = 200;

fn resident_kib(world: &World) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.daemon().pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// R-KV-4: thousands of streams wait at little cost, all hear of a change, and other calls are answered meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_hears_of_a_change() {
    let crowd = std::env::var("STRONGROOM_CROWD")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(CROWD);
    let world = World::open();
    let root = world.client().await;
    root.put("kv/crowd", &value("1"), None).await.unwrap();
    let seen = root.fetch(["kv/crowd"]).await.unwrap().remove(0).resume;
    let before = resident_kib(&world);
    let mut streams = Vec::new();
    while streams.len() < crowd {
        let client = world.client().await;
        for _ in 0..CROWD_A_CONNECTION.min(crowd - streams.len()) {
            streams.push(client.watch([Follow::path("kv/crowd").resume(&seen)]).await.unwrap());
        }
    }
    let grown = resident_kib(&world).saturating_sub(before);
    assert!(grown / (crowd as u64) < 100, "{grown} KiB for {crowd} streams");
    let waiting: Vec<_> = streams
        .into_iter()
        .map(|mut stream| {
            tokio::spawn(async move {
                let heard = changed(&mut stream).await.1;
                (std::time::Instant::now(), version(&heard))
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = std::time::Instant::now();
    root.put("kv/crowd", &value("2"), None).await.unwrap();
    let other = std::time::Instant::now();
    root.get("kv/crowd").await.unwrap();
    let other = other.elapsed();
    let mut after = Vec::new();
    for one in waiting {
        let (at, version) = one.await.unwrap();
        assert_eq!(version, 2);
        after.push(at.saturating_duration_since(began));
    }
    after.sort_unstable();
    let at = |part: usize| after[(after.len() - 1) * part / 100];
    eprintln!(
        "{crowd} streams: {grown} KiB; p50 {:?}, p99 {:?}, last {:?}; a get meanwhile {other:?}",
        at(50),
        at(99),
        at(100)
    );
    assert!(other < Duration::from_secs(5), "a get meanwhile took {other:?}");
}
