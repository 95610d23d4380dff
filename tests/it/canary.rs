//! No secret gets out: every call is driven at trace level with secrets that can be looked for, then everything that is written is searched.
//! R-AUDIT-1.

use crate::{
    needles::Needles,
    world::{World, eventually, postgres, value},
};
use std::{fs, time::Duration};
use strongroom_client::Client;
use strongroom_tests::Lab;
use strongroomd::engine::postgres::testing::ROOT_SECRET;

/// What callers sent or got that nobody else may see.
#[derive(Default)]
struct Secrets(Needles);

impl Secrets {
    /// Also as the encodings in which it could hide.
    fn add(&mut self, name: &str, secret: impl Into<String>) -> String {
        let secret = secret.into();
        assert!(secret.len() > 6, "{name} is long enough to look for");
        self.0.add(name, secret.as_bytes());
        self.0.add(
            &format!("{name}, in hex"),
            data_encoding::HEXLOWER.encode(secret.as_bytes()).as_bytes(),
        );
        self.0.add(
            &format!("{name}, in base64"),
            data_encoding::BASE64_NOPAD.encode(secret.as_bytes()).as_bytes(),
        );
        let debug = format!("{:?}", secret.as_bytes());
        self.0
            .add(&format!("{name}, as a list"), debug.trim_matches(['[', ']']).as_bytes());
        secret
    }

    #[track_caller]
    fn none_in(&self, place: &str, bytes: &[u8]) {
        assert!(!bytes.is_empty(), "{place} says something");
        if let Some((name, at)) = self.0.found_at(bytes).first() {
            let around = &bytes[at.saturating_sub(400)..(at + 100).min(bytes.len())];
            panic!("{name} stands in {place}: ...{}...", String::from_utf8_lossy(around));
        }
    }
}

/// Secrets in every place where a caller may put one, well-formed and not; what callers are told is searched at once.
async fn drive(world: &World, client: &Client, secrets: &mut Secrets) {
    let cli = world.cli();
    let written = secrets.add("a KV value", "canary-kv-value-0");
    client.put("kv/canary/a", &value(&written), None).await.unwrap();
    let read = client.get("kv/canary/a").await.unwrap();
    secrets.none_in("Debug of a secret", format!("{read:?}").as_bytes());
    let refused = secrets.add("a value that was refused", "canary-kv-refused-1");
    for (path, cas) in [
        ("kv/canary/a", Some(7)),
        ("kv//bad", None),
        ("nowhere/at/all", None),
        ("kv", None),
    ] {
        let error = client.put(path, &value(&refused), cas).await.unwrap_err();
        secrets.none_in("an error", format!("{error} {error:?}").as_bytes());
    }
    let large = secrets.add("a value too large", "canary-too-large-2").repeat(1 << 16);
    client.put("kv/canary/large", &value(&large), None).await.unwrap_err();
    let by_cli = secrets.add("a value by the command line", "canary-cli-value-3");
    for args in [
        &["kv", "put", "kv/canary/b", "-"][..],
        &["kv", "put", "kv/../x", "-"],
        &["kv", "put", "kv/canary/b", "-", "--cas", "9"],
    ] {
        let ran = cli.run_with(args, by_cli.as_bytes());
        secrets.none_in("a command's output", format!("{ran:?}").as_bytes());
    }
    let candidate = secrets.add(
        "a candidate for audit hash",
        "canary-candidate-4-long-enough-to-be-hashed",
    );
    cli.ok_with(&["audit", "hash", "-"], candidate.as_bytes());
    let stranger = secrets.add(
        "a wrong token",
        "srm_at_canarytoken5canarytoken5canarytoken5canarytok123456",
    );
    let error = world.lab.client(&stranger).await.get("kv/canary/a").await.unwrap_err();
    secrets.none_in("an error", format!("{error} {error:?}").as_bytes());
    let share = secrets.add("what is no share", "srs1-canaryshare6");
    let ran = cli.run_with(
        &["--output", "json", "operator", "recover", "--slot", "daily"],
        share.as_bytes(),
    );
    secrets.none_in("a refused share's answer", format!("{ran:?}").as_bytes());
    let made = world.token_with("canary", &["canaries"], &[]);
    let token = secrets.add("a token", made["token"].as_str().unwrap());
    world.lab.client(&token).await.get("kv/canary/a").await.unwrap_err();
    let text = "permit(principal, action, resource) when { \"canary-policy\" == 7 };";
    cli.run_with(&["policy", "put", "canary", "-"], text.as_bytes());
}

async fn drive_engine(world: &World, client: &Client, secrets: &mut Secrets) {
    let cli = world.cli();
    let wrong = secrets.add("a wrong root password", "canary-wrong-root-7");
    let config = world.lab.dir().join("pg.json").display().to_string();
    let ran = cli.run_with(
        &["mount", "config", "pg", "--from-json", &config, "--root-secret", "-"],
        wrong.as_bytes(),
    );
    assert_ne!(ran.code, 0);
    secrets.none_in("a refused root password's answer", format!("{ran:?}").as_bytes());
    let issued = client.issue("pg/readers", Some(Duration::from_secs(60))).await.unwrap();
    secrets.add(
        "an issued password",
        issued.field("password").unwrap().expose_str().unwrap(),
    );
    secrets.none_in("Debug of a credential", format!("{issued:?}").as_bytes());
    client.renew(issued.lease_id.as_ref().unwrap(), None).await.unwrap();
    client.revoke(issued.lease_id.as_ref().unwrap()).await.unwrap();
    cli.ok(&[
        "role",
        "put",
        "pg/app",
        "type=static",
        "account=app",
        "rotation_period=24h",
    ]);
    eventually("it has its first password", || {
        cli.run(&["creds", "issue", "pg/app"]).code == 0
    });
    for turn in 0..2 {
        let account = client.issue("pg/app", None).await.unwrap();
        secrets.add(
            &format!("a static password {turn}"),
            account.field("password").unwrap().expose_str().unwrap(),
        );
        cli.ok(&["creds", "rotate", "pg/app"]);
    }
    cli.ok(&["mount", "rotate-root", "pg"]);
}

/// R-AUDIT-1, R-OPS-3: neither log (at trace level), audit log, metrics, status, errors nor `Debug` hold a value, token, share, password or PIN.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_gets_out() {
    let server = postgres();
    let mut lab = Lab::new();
    lab.log_level = "trace";
    let mut world = World::sealed(lab, &["daily=hsm+quorum:2/3", "glass=quorum:2/3"]);
    world.unseal("daily");
    world.cli().ok(&["mount", "enable", "kv", "--kind", "kv"]);
    world.mount_postgres(&server);
    let client = world.client().await;
    let mut secrets = Secrets::default();
    secrets.add("the set-up token", &world.root);
    secrets.add("the engine's root password", ROOT_SECRET);
    let strongroom_hsm::PinSource::File(pin) = &world.lab.hsms[0].pin else {
        panic!("lab PINs lie in files")
    };
    secrets.add("the PIN", fs::read_to_string(pin).unwrap().trim());
    for (slot, shares) in &world.shares {
        for (n, share) in shares.iter().enumerate() {
            secrets.add(&format!("share {n} of {slot}"), share);
            secrets.add(
                &format!("share {n} of {slot} without hyphens"),
                share.trim_start_matches("srs1-").replace('-', ""),
            );
        }
    }
    drive(&world, &client, &mut secrets).await;
    drive_engine(&world, &client, &mut secrets).await;
    let rekeyed = world.cli().run_with(
        &[
            "--output",
            "json",
            "operator",
            "slots",
            "rekey",
            "glass=quorum:2/3",
            "--with-slot",
            "daily",
        ],
        world.lines("daily").as_bytes(),
    );
    let rekeyed: serde_json::Value = serde_json::from_str(&rekeyed.out).unwrap();
    for (n, share) in rekeyed["shares"]["shares"].as_array().unwrap().iter().enumerate() {
        secrets.add(&format!("new share {n}"), share.as_str().unwrap());
    }
    for key in ["data", "root", "hsm"] {
        world.cli().ok(&["operator", "rotate", key]);
    }
    secrets.none_in("status", world.status().to_string().as_bytes());
    secrets.none_in("metrics", world.daemon().metrics().as_bytes());
    let tailed = world
        .cli()
        .ok(&["--output", "json", "audit", "tail", "--last", "10000"]);
    secrets.none_in("the audit log's tail", tailed.as_bytes());
    assert!(
        tailed.contains("kv/canary/a"),
        "paths stand in clear, so the search sees"
    );
    let log = world.daemon().log.clone();
    assert!(world.take_daemon().stop().success());
    let text = fs::read(&log).unwrap();
    assert!(
        String::from_utf8_lossy(&text).contains("\"DEBUG\""),
        "it says more than usual"
    );
    secrets.none_in("the daemon's log", &text);
    for entry in fs::read_dir(world.lab.audit_dir()).unwrap().flatten() {
        secrets.none_in("the audit log's files", &fs::read(entry.path()).unwrap());
    }
    secrets.none_in("PostgreSQL's log", strip(&server.log()).as_bytes());
}

/// The set-up by hand (`prepare`) names the root password once; the engine never does.
fn strip(log: &str) -> String {
    log.lines()
        .filter(|line| !line.contains("CREATE ROLE strongroom LOGIN"))
        .collect::<Vec<_>>()
        .join("\n")
}
