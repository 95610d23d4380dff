//! Applications and pipelines: secrets held fresh by the library, its example programs, and `fetch`, `watch`, `run` of the command line.

use crate::{
    login::{Issuer, put_trust},
    world::{PATIENCE, World, eventually, failure, shared, value},
};
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
    time::Duration,
};
use strongroom_client::{Cache, Client, Error, Health, LogIn, Secrets, Want, blocking};
use strongroom_tests::lab::binary;
use tokio::time::timeout;

fn text(secrets: &Secrets, path: &str, field: &str) -> String {
    secrets
        .get(path)
        .unwrap()
        .field(field)
        .unwrap()
        .expose_str()
        .unwrap()
        .to_owned()
}

/// Waits until a change makes it true.
async fn becomes(secrets: &Secrets, what: &str, mut holds: impl FnMut(&Secrets) -> bool) {
    let mut changes = secrets.changes();
    let wait = async {
        while !holds(secrets) {
            changes.changed().await.unwrap();
        }
    };
    timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("still not: {what}"));
}

fn accounts(like: &str) -> String {
    let sql = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{like}'");
    shared().server.admin("postgres", &sql).unwrap()
}

/// R-OPS-6, R-KV-3, R-KV-4: one call gives an application all it needs; what changes is there without another, an account that is at its end is
/// replaced before it ends, and all that was leased is gone after `close`.
#[tokio::test(flavor = "multi_thread")]
async fn the_library_holds_secrets_fresh() {
    let world = &shared().world;
    let root = world.client().await;
    root.put("kv/held/mail", &value("one"), None).await.unwrap();
    world.cli().ok(&[
        "role",
        "put",
        "pg/held",
        "group=readers",
        "default_ttl=5s",
        "max_ttl=8s",
    ]);
    let wants = ["kv/held/mail", "pg/held", "pg/app"].map(Want::new);
    eventually("the static account has its password", || {
        world.cli().run(&["creds", "issue", "pg/app"]).code == 0
    });
    let secrets = world.client_builder().secrets(wants).await.unwrap();
    assert_eq!(text(&secrets, "kv/held/mail", "value"), "one");
    let (first, password) = (
        text(&secrets, "pg/held", "username"),
        text(&secrets, "pg/app", "password"),
    );

    root.put("kv/held/mail", &value("two"), None).await.unwrap();
    becomes(&secrets, "the new version", |s| {
        text(s, "kv/held/mail", "value") == "two"
    })
    .await;
    world.cli().ok(&["creds", "rotate", "pg/app"]);
    becomes(&secrets, "the new password", |s| {
        text(s, "pg/app", "password") != password
    })
    .await;
    becomes(&secrets, "another account", |s| text(s, "pg/held", "username") != first).await;
    assert_eq!(
        accounts(&first),
        "1",
        "the first still works while the second takes over"
    );
    let second = text(&secrets, "pg/held", "username");
    assert!(matches!(secrets.get("kv/other"), Err(Error::NotFound(_))));
    world.cli().ok(&["kv", "delete", "kv/held/mail"]);
    becomes(&secrets, "deleted", |s| s.get("kv/held/mail").is_err()).await;
    assert_eq!(*secrets.health().borrow(), Health::Fresh);
    assert_eq!(secrets.close().await, 0);
    assert_eq!(accounts(&second), "0");
}

/// R-OPS-6: while the daemon is away or sealed the last known values are there; afterwards it goes on, and what was missed comes.
#[tokio::test(flavor = "multi_thread")]
async fn held_secrets_outlive_the_daemon() {
    let mut world = World::open();
    world.client().await.put("kv/a", &value("before"), None).await.unwrap();
    let secrets = world.client_builder().secrets(["kv/a"]).await.unwrap();
    let mut health = secrets.health();
    world.take_daemon().kill9();
    timeout(PATIENCE, health.wait_for(|health| matches!(health, Health::Stale(_))))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(text(&secrets, "kv/a", "value"), "before");
    world.start();
    world.unseal("daily");
    world.client().await.put("kv/a", &value("after"), None).await.unwrap();
    becomes(&secrets, "what was missed", |s| text(s, "kv/a", "value") == "after").await;
    timeout(PATIENCE, health.wait_for(|health| *health == Health::Fresh))
        .await
        .unwrap()
        .unwrap();
    world.cli().ok(&["operator", "seal"]);
    timeout(
        PATIENCE,
        health.wait_for(|health| matches!(health, Health::Stale(Error::Sealed(_)))),
    )
    .await
    .unwrap()
    .unwrap();
    assert_eq!(text(&secrets, "kv/a", "value"), "after");
}

/// R-OPS-6: with a cache on disk an application starts while the daemon is away or sealed, and is fresh once it is back; without one, or for a
/// leased account, it does not.
#[tokio::test(flavor = "multi_thread")]
async fn an_application_starts_from_its_cache() {
    let mut world = World::open();
    world.client().await.put("kv/a", &value("before"), None).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (file, key) = (dir.path().join("cache"), dir.path().join("key"));
    fs::write(&key, [7; 32]).unwrap();
    let cached = |world: &World| world.client_builder().cache(Cache::with_key_file(&file, &key).unwrap());
    let secrets = cached(&world).secrets(["kv/a"]).await.unwrap();
    let holds = |words: &[u8]| fs::read(&file).is_ok_and(|bytes| bytes.windows(words.len()).any(|part| part == words));
    eventually("the cache is written", || holds(b"SRMCACHE"));
    assert!(!holds(b"before"), "it is encrypted");
    drop(secrets);
    world.take_daemon().kill9();

    let none = world.client_builder().secrets(["kv/a"]).await.unwrap_err();
    assert!(matches!(none, Error::Unavailable(_)), "{none}");
    let other = cached(&world).secrets(["kv/a", "pg/held"]).await.unwrap_err();
    assert!(matches!(other, Error::Unavailable(_)), "{other}");
    let secrets = cached(&world).secrets(["kv/a"]).await.unwrap();
    assert_eq!(text(&secrets, "kv/a", "value"), "before");
    let mut health = secrets.health();
    assert!(matches!(&*health.borrow(), Health::Stale(Error::Unavailable(_))));
    world.start();
    world.unseal("daily");
    world.client().await.put("kv/a", &value("after"), None).await.unwrap();
    becomes(&secrets, "what was missed", |s| text(s, "kv/a", "value") == "after").await;
    let fresh = timeout(PATIENCE, health.wait_for(|health| *health == Health::Fresh)).await;
    fresh.unwrap().unwrap();
    drop((health, secrets));

    world.cli().ok(&["operator", "seal"]);
    let secrets = cached(&world).secrets(["kv/a"]).await.unwrap();
    assert!(matches!(&*secrets.health().borrow(), Health::Stale(Error::Sealed(_))));
    let now = text(&secrets, "kv/a", "value");
    assert!(["before", "after"].contains(&now.as_str()), "{now}");
}

/// R-OPS-6, R-AUTH-4: an application logs in by what its platform keeps in a file, and again before each token ends; its account is replaced while
/// the one before still works, and that one goes with its session.
#[tokio::test(flavor = "multi_thread")]
async fn an_application_logs_in_again() {
    let world = &shared().world;
    let issuer = Issuer::new("platform");
    let mut trust = issuer.trust(&["relogin"]);
    trust["token"] = serde_json::json!({"ttl_secs": 6});
    put_trust(world, "platform", &trust);
    world.put_policy(
        "relogin",
        r#"permit (principal in S::Group::"relogin", action == S::Action::"read", resource in S::Path::"kv/relogin");
permit (principal in S::Group::"relogin", action == S::Action::"issue", resource in S::Path::"pg/relogin");"#,
    );
    let role = [
        "role",
        "put",
        "pg/relogin",
        "group=readers",
        "default_ttl=5m",
        "max_ttl=5m",
    ];
    world.cli().ok(&role);
    let root = world.client().await;
    root.put("kv/relogin/a", &value("one"), None).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (file, beside) = (dir.path().join("jwt"), dir.path().join("next"));
    let platform = tokio::spawn({
        let file = file.clone();
        async move {
            for n in 0.. {
                fs::write(&beside, issuer.token(&format!("relogin-{n}"), serde_json::json!({}))).unwrap();
                fs::rename(&beside, &file).unwrap();
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
    });
    tokio::task::block_in_place(|| eventually("there is a token", || file.exists()));
    let builder = Client::builder()
        .address(format!("https://localhost:{}", world.lab.address.port()))
        .ca_file(world.lab.ca())
        .log_in(LogIn::jwt_file(&file));
    let secrets = builder.secrets(["kv/relogin/a", "pg/relogin"]).await.unwrap();
    let first = text(&secrets, "pg/relogin", "username");
    becomes(&secrets, "another account", |s| {
        text(s, "pg/relogin", "username") != first
    })
    .await;
    tokio::task::block_in_place(|| eventually("the first one is gone", || accounts(&first) == "0"));
    root.put("kv/relogin/a", &value("two"), None).await.unwrap();
    becomes(&secrets, "heard with a later token", |s| {
        text(s, "kv/relogin/a", "value") == "two"
    })
    .await;
    platform.abort();
    secrets.close().await;
}

/// R-OPS-6, R-AUTH-4: a token that has ended is read again from its file, which somebody else keeps fresh.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_is_read_from_its_file() {
    let world = &shared().world;
    world
        .client()
        .await
        .put("kv/refile/a", &value("1"), None)
        .await
        .unwrap();
    world.put_policy(
        "refile",
        r#"permit (principal in S::Group::"refile", action == S::Action::"read", resource in S::Path::"kv/refile");"#,
    );
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let made = world.token_with("refile", &["refile"], &[]);
    fs::write(&file, made["token"].as_str().unwrap()).unwrap();
    let builder = Client::builder()
        .address(format!("https://localhost:{}", world.lab.address.port()))
        .ca_file(world.lab.ca())
        .token_file(&file);
    let secrets = builder.secrets(["kv/refile/a"]).await.unwrap();
    fs::write(&file, world.token("refile", &["refile"])).unwrap();
    world.cli().ok(&["token", "revoke", made["accessor"].as_str().unwrap()]);
    let mut health = secrets.health();
    timeout(PATIENCE, health.wait_for(|health| matches!(health, Health::Stale(_))))
        .await
        .unwrap()
        .unwrap();
    world
        .client()
        .await
        .put("kv/refile/a", &value("2"), None)
        .await
        .unwrap();
    becomes(&secrets, "with the new token", |s| {
        text(s, "kv/refile/a", "value") == "2"
    })
    .await;
}

/// R-OPS-6: without an async runtime the same.
#[test]
fn blocking_programs_hold_secrets_too() {
    let world = &shared().world;
    let client = blocking::connect(world.client_builder()).unwrap();
    client.put("kv/blocking", &value("1"), None).unwrap();
    let secrets = blocking::secrets(world.client_builder(), ["kv/blocking"]).unwrap();
    client.put("kv/blocking", &value("2"), None).unwrap();
    assert!(secrets.wait_for_change(PATIENCE));
    let held = secrets.get("kv/blocking").unwrap();
    assert_eq!(held.field("value").unwrap().expose(), b"2");
    assert_eq!((secrets.health(), secrets.close()), (Health::Fresh, 0));
}

/// A program of ours, pointed at the shared world; its standard output is read line by line.
struct Program {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Program {
    fn start(name: &str, args: &[&str]) -> Self {
        let world = &shared().world;
        let token = world.lab.dir().join("program-token");
        fs::write(&token, &world.root).unwrap();
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
        let mut command = Command::new(binary(name));
        command
            .args(args)
            .env(
                "STRONGROOM_ADDR",
                format!("https://localhost:{}", world.lab.address.port()),
            )
            .env("STRONGROOM_CACERT", world.lab.ca())
            .env("STRONGROOM_TOKEN", &world.root)
            .env("STRONGROOM_TOKEN_FILE", &token)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }
    /// Its exit code, and what it still had to say.
    fn ended(mut self) -> (i32, String) {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code().unwrap_or(-1), rest)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// R-OPS-6: the library's example programs do what they say.
#[test]
fn the_examples_run() {
    let world = &shared().world;
    world.cli().ok_with(&["kv", "put", "kv/example", "value=-"], b"first");
    let mut app = Program::start("examples/app", &["kv/example", "pg/readers"]);
    assert_eq!(app.line(), "kv/example: version 1, fields [\"value\"]");
    let account = app.line().trim_start_matches("account ").to_owned();
    assert_eq!(accounts(&account), "1");
    app.line();
    app.signal(rustix::process::Signal::INT);
    let (code, rest) = app.ended();
    assert_eq!((code, rest.trim()), (0, "revoked, proven gone: true"));
    assert_eq!(accounts(&account), "0");

    let mut held = Program::start("examples/secrets", &["kv/example", "pg/readers"]);
    assert!(held.line().contains("version: 1") && held.line().starts_with("pg/readers: Lease"));
    let mut waiting = Program::start("examples/blocking", &["kv/example"]);
    assert!(waiting.line().contains("Fresh"));
    world.cli().ok_with(&["kv", "put", "kv/example", "value=-"], b"second");
    assert!(held.line().contains("version: 2"));
    assert!(waiting.line().contains("version: 2"));
    assert_eq!(waiting.ended(), (0, "leases not proven gone: 0\n".to_owned()));
    held.signal(rustix::process::Signal::INT);
    let (code, rest) = held.ended();
    assert!(
        code == 0 && rest.ends_with("leases not proven gone: 0\n"),
        "{code} {rest}"
    );
}

/// R-KV-3: `fetch` on the command line, as a table and as JSON; refused as a whole with exit code 3.
#[test]
fn fetch_by_command_line() {
    let cli = shared().world.cli();
    cli.ok_with(&["kv", "put", "kv/cli-fetch/a", "value=-"], b"one");
    cli.ok_with(&["kv", "put", "kv/cli-fetch/b", "value=-"], b"two");
    cli.ok(&[
        "kv",
        "put",
        "kv/cli-fetch/bundle",
        "--literal",
        "b=ref:kv/cli-fetch/b",
        "a=ref:kv/cli-fetch/a?label=current",
    ]);
    let bundle = cli.json(&["fetch", "--bundle", "kv/cli-fetch/bundle"]);
    assert_eq!(
        (&bundle["items"][0]["name"], &bundle["items"][1]["path"]),
        (&"a".into(), &"kv/cli-fetch/b".into())
    );
    let table = cli.ok(&["fetch", "kv/cli-fetch/b", "kv/cli-fetch/a"]);
    assert_eq!(
        table,
        "PATH            FIELD  VALUE\nkv/cli-fetch/b  value  two\nkv/cli-fetch/a  value  one\n"
    );
    let json = cli.json(&["fetch", "kv/cli-fetch/a", "pg/readers", "--ttl", "30s"]);
    let [secret, lease] = &json["items"].as_array().unwrap()[..] else {
        panic!("{json}")
    };
    assert_eq!(
        (&secret["kind"], &secret["fields"]["value"], &secret["version"]),
        (&"secret".into(), &"one".into(), &1.into())
    );
    assert_eq!(lease["kind"], "lease");
    assert!(lease["remaining_secs"].as_u64().unwrap() <= 30);
    cli.ok(&["lease", "revoke", lease["lease_id"].as_str().unwrap()]);
    let stranger = shared()
        .world
        .lab
        .cli()
        .with_token(&shared().world.token("nobody", &[]));
    let refused = failure(&stranger.run(&["--output", "json", "fetch", "kv/cli-fetch/a"]));
    assert_eq!(
        (&refused["exit_code"], &refused["reason"]),
        (&3.into(), &"DENIED".into())
    );
}

/// R-KV-4: `watch` prints the present, then changes; values only when asked for.
#[test]
fn watch_by_command_line() {
    let cli = shared().world.cli();
    cli.ok_with(&["kv", "put", "kv/cli-watch", "value=-"], b"canary-one");
    let mut watching = Program::start("strongroom", &["watch", "kv/cli-watch", "--count", "2"]);
    assert_eq!(watching.line(), "kv/cli-watch  version 1");
    cli.ok_with(&["kv", "put", "kv/cli-watch", "value=-"], b"canary-two");
    assert_eq!(watching.ended(), (0, "kv/cli-watch  version 2\n".to_owned()));
    let json = cli.ok(&["--output", "json", "watch", "kv/cli-watch", "--values", "--count", "1"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["event"], &json["fields"]["value"]),
        (&"changed".into(), &"canary-two".into())
    );
}

/// R-OPS-6: `run` gives a command its secrets in the environment and in private files, masks them on request, passes signals and the exit code,
/// and takes back what was leased.
#[test]
fn run_gives_and_takes_back() {
    let cli = shared().world.cli();
    cli.ok_with(&["kv", "put", "kv/run", "value=-"], b"canary-of-run");
    let script = |script: &str, more: &[&str]| {
        let mut args = vec!["run", "--env", "SECRET=kv/run#value", "--file", "PLACE=kv/run#value"];
        args.extend(more);
        args.extend(["--", "/bin/sh", "-c", script]);
        cli.run(&args)
    };
    let ran = script(
        "cat $PLACE; echo \" $SECRET ${STRONGROOM_TOKEN-none}\"; stat -c %a $PLACE; echo $PLACE >&2; exit 7",
        &[],
    );
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (7, "canary-of-run canary-of-run none\n600\n")
    );
    assert!(
        !std::path::Path::new(ran.err.trim()).exists(),
        "the file is gone: {}",
        ran.err
    );
    let ran = script("cat $PLACE; echo \" $SECRET\"; echo $SECRET >&2", &["--mask"]);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("*** ***\n", "***\n"));
    assert_eq!(script("kill -9 $$", &[]).code, 128 + 9);
    assert_eq!(cli.run(&["run", "--", "/nonexistent/command"]).code, 127);
    assert_eq!(cli.run(&["run", "--env", "A=kv/run#absent", "--", "/bin/true"]).code, 1);
    let absent = cli.run(&[
        "run",
        "--env",
        "A=kv/run-absent#value",
        "--",
        "/bin/sh",
        "-c",
        "echo started",
    ]);
    assert_eq!((absent.code, absent.out.as_str()), (1, ""));

    cli.ok(&["role", "put", "pg/run", "group=readers", "default_ttl=5s", "max_ttl=1m"]);
    let script = "trap 'echo stopping; exit 3' TERM; echo $PGUSER; while :; do sleep 0.1; done";
    let mut running = Program::start(
        "strongroom",
        &["run", "--env", "PGUSER=pg/run#username", "--", "/bin/sh", "-c", script],
    );
    let account = running.line();
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(accounts(&account), "1", "renewed past its five seconds");
    running.signal(rustix::process::Signal::TERM);
    assert_eq!(running.ended(), (3, "stopping\n".to_owned()));
    assert_eq!(accounts(&account), "0");
}
