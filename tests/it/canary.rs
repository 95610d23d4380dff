//! No secret gets out: every call is driven at trace level with secrets that can be looked for, then everything that is written is searched.
//! R-AUDIT-1.

use crate::{
    needles::Needles,
    wire::methods,
    world::{World, eventually, postgres, value},
};
use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, time::Duration};
use strongroom_client::{Client, Secret, v1};
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

/// The rest of the calls, with a canary wherever a text may stand that nobody else may see.
async fn drive_the_rest(world: &World, client: &Client, secrets: &mut Secrets) {
    let cli = world.cli();
    for args in [
        &["kv", "list", "kv", "--recursive", "--search", "canary"][..],
        &["kv", "history", "kv/canary/a"],
        &["kv", "metadata", "kv/canary/a", "--versions-max", "5"],
        &["kv", "delete", "kv/canary/a"],
        &["kv", "undelete", "kv/canary/a", "--versions", "1"],
        &["kv", "destroy", "kv/canary/b", "--all"],
        &["mount", "list"],
        &["reconcile", "pg"],
        &["mount", "config", "pg"],
        &["role", "get", "pg/readers"],
        &["role", "list", "pg"],
        &["role", "delete", "pg/app"],
        &["lease", "list"],
        &["token", "show"],
        &["token", "renew"],
        &["policy", "list"],
        &["policy", "get", "canary"],
        &["policy", "explain", "read", "kv/canary/a"],
        &["policy", "delete", "canary"],
        &["audit", "head"],
        &["audit", "tail", "--last", "1"],
        &["operator", "slots", "list"],
        &["operator", "quarantine"],
        &["operator", "confirm-time"],
        &["operator", "forgive-pin", "main"],
    ] {
        // Some are refused, and a refusal must not tell more.
        let ran = cli.run(args);
        assert_ne!(ran.code, 2, "the command is one: {ran:?}");
        secrets.none_in("a command's output", format!("{ran:?}").as_bytes());
    }
    let issued = client.issue("pg/readers", None).await.unwrap();
    secrets.add(
        "another issued password",
        issued.field("password").unwrap().expose_str().unwrap(),
    );
    let shown = cli.run(&["lease", "show", issued.lease_id.as_ref().unwrap()]);
    secrets.none_in("a lease", format!("{shown:?}").as_bytes());
    let ended = world.token_with("canary-ended", &[], &[]);
    let token = secrets.add("a token that was revoked", ended["token"].as_str().unwrap());
    cli.ok(&["token", "revoke", ended["accessor"].as_str().unwrap()]);
    world.lab.client(&token).await.get("kv/canary/a").await.unwrap_err();
    let verify = ["--output", "json", "operator", "slots", "verify", "--slot", "daily"];
    let half = cli.run_with(&verify, world.share("daily", 0).as_bytes());
    let session = serde_json::from_str::<serde_json::Value>(&half.out).unwrap()["session"].clone();
    let session = secrets.add("a session's nonce", session.as_str().unwrap());
    cli.ok(&["operator", "abandon", "--session", &session]);
    let wanted = secrets.add("a fetched value", "canary-fetched-9");
    client.put("kv/canary/fetched", &value(&wanted), None).await.unwrap();
    let mut request = v1::FetchRequest::default();
    request.items.push(v1::FetchItem {
        path: "kv/canary/fetched".into(),
        ..Default::default()
    });
    let fetched = client.stubs().delivery().fetch(request).await.unwrap();
    secrets.none_in("Debug of a fetch", format!("{fetched:?}").as_bytes());
    let mut request = v1::WatchRequest::default();
    request.items.push(v1::WatchItem {
        what: Some(v1::watch_item::What::Path("kv/canary/fetched".into())),
        ..Default::default()
    });
    let mut watch = client.stubs().delivery().watch(request).await.unwrap().into_inner();
    let pushed = watch.message().await.unwrap();
    secrets.none_in("Debug of a push", format!("{pushed:?}").as_bytes());
    drive_log_ins(world, secrets);
    let proof = v1::login_request::Proof::Oidc(v1::LoginOidc {
        handle: secrets.add("a handle", "canary-handle-of-a-log-in"),
        code: secrets.add("an authorization code", "canary-authorization-code"),
        iss: None,
        port: 7,
    });
    let request = v1::LoginRequest {
        trust: "canary-people".to_owned(),
        proof: Some(proof),
        binding: 0,
    };
    secrets.none_in("Debug of a log-in", format!("{request:?}").as_bytes());
    let refused = client
        .once(request, |s, r| async move { s.login().login(r).await })
        .await;
    secrets.none_in("a refused code", format!("{:?}", refused.unwrap_err()).as_bytes());
    drive_transit(world, client, secrets).await;
    for args in [
        &["identity", "put", "canary", "--add-group", "canaries"][..],
        &["identity", "show", "canary"],
        &["identity", "list"],
    ] {
        cli.ok(args);
    }
    cli.ok(&["mount", "disable", "pg", "--revoke-leases"]);
    cli.ok(&["operator", "seal"]);
    world.unseal("daily");
}

/// Texts and keys of transit: what is encrypted, signed and made.
async fn drive_transit(world: &World, client: &Client, secrets: &mut Secrets) {
    let cli = world.cli();
    cli.ok(&["mount", "enable", "transit", "--kind", "transit"]);
    for (name, kind) in [("aes", "aes256-gcm"), ("mac", "hmac-sha256"), ("sign", "ed25519")] {
        cli.ok(&["transit", "key", "create", &format!("transit/{name}"), "--kind", kind]);
    }
    let text = secrets.add("a text to encrypt", "canary-transit-text-10");
    let sealed = client
        .encrypt("transit/aes", &Secret::from(&*text), b"context")
        .await
        .unwrap();
    cli.ok(&["transit", "key", "rotate", "transit/aes"]);
    let again = client.rewrap("transit/aes", &sealed, b"context").await.unwrap();
    let opened = client.decrypt("transit/aes", &again, b"context").await.unwrap();
    assert_eq!(opened.expose(), text.as_bytes());
    let refused = client.decrypt("transit/aes", &again, b"other").await.unwrap_err();
    secrets.none_in("a ciphertext's refusal", format!("{refused} {refused:?}").as_bytes());
    let input = secrets.add("an input to sign", "canary-transit-input-11");
    for (key, made) in [
        (
            "transit/sign",
            client.sign("transit/sign", input.as_bytes()).await.unwrap(),
        ),
        (
            "transit/mac",
            client.hmac("transit/mac", input.as_bytes()).await.unwrap(),
        ),
    ] {
        assert!(client.verify(key, input.as_bytes(), &made).await.unwrap());
    }
    client.sign("transit/aes", input.as_bytes()).await.unwrap_err();
    let made = client.data_key("transit/aes", 32, b"", false).await.unwrap();
    secrets.0.add("a data key", made.plaintext.as_ref().unwrap().expose());
    secrets.none_in("Debug of a data key", format!("{made:?}").as_bytes());
    for args in [
        &["transit", "key", "list", "transit"][..],
        &["transit", "key", "show", "transit/aes"],
        &[
            "transit",
            "key",
            "configure",
            "transit/aes",
            "--min-decryption-version",
            "2",
            "--allow-deletion",
            "true",
        ],
        &["transit", "key", "trim", "transit/aes", "--before", "2"],
        &["transit", "key", "delete", "transit/aes"],
    ] {
        cli.ok(args);
    }
}

/// Logging in, with what proves it in every place.
fn drive_log_ins(world: &World, secrets: &mut Secrets) {
    let cli = world.cli();
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let trust = r#"{"role": {"groups": ["canary"]}}"#;
    cli.ok_with(&["trust", "put", "canary", "-"], trust.as_bytes());
    let made = cli.json(&["trust", "make-secret", "canary"]);
    let secret = secrets.add("a secret id", made["secret_id"].as_str().unwrap());
    let role = made["role_id"].as_str().unwrap();
    let args = ["--output", "json", "login", "role", role, "-", "--show"];
    let first = cli.run_with(&args, secret.as_bytes());
    let token = json(&first.out)["token"].clone();
    secrets.add("a sealed token", token.as_str().unwrap());
    // Used again: refused, and an alert.
    secrets.none_in(
        "a refused secret id",
        format!("{:?}", cli.run_with(&args, secret.as_bytes())).as_bytes(),
    );
    let jwt = secrets.add("a JWT", "canary-header.canary-claims-jwt.canary-signature");
    for args in [&["login", "jwt", "-", "--show"][..], &["ci", "explain", "-"]] {
        secrets.none_in(
            "a refused JWT",
            format!("{:?}", cli.run_with(args, jwt.as_bytes())).as_bytes(),
        );
    }
    // No provider is asked: the trust has none.
    let begun = cli.run(&["login", "oidc", "canary", "--no-browser"]);
    assert_ne!(begun.code, 0);
    // A client secret, well-formed and where it does not belong; nobody answers for the provider.
    let client_secret = secrets.add("a client secret", "canary-client-secret-7");
    let file = world.lab.dir().join("canary.secret");
    fs::write(&file, &client_secret).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let source = format!("@{}", file.display());
    let oidc = r#"{"oidc": {"issuer": "https://localhost:1", "client_id": "canary", "allow_private": true, "device": true,
        "bind": [{"claims": {"sub": "canary"}}]}}"#;
    for (name, definition) in [("canary-people", oidc), ("canary", trust)] {
        let args = ["trust", "put", name, "-", "--client-secret", &source];
        secrets.none_in(
            "a trust that was put",
            format!("{:?}", cli.run_with(&args, definition.as_bytes())).as_bytes(),
        );
    }
    for args in [
        &["login", "oidc", "canary-people", "--no-browser"][..],
        &["login", "oidc", "canary-people", "--device"],
        &["trust", "get", "canary-people"],
        &["auth", "list"],
        &["auth", "show", "canary-people"],
    ] {
        secrets.none_in("a log-in of people", format!("{:?}", cli.run(args)).as_bytes());
    }
    for args in [
        &["trust", "get", "canary"][..],
        &["trust", "list"],
        &["trust", "end", "canary"],
        &["trust", "delete", "canary"],
    ] {
        cli.ok(args);
    }
}

/// The name under which an rpc stands in the log: its service and its method, in lower case with hyphens; the operations of roles have the
/// word of their own.
fn operation(method: &str) -> String {
    let (service, method) = method.trim_start_matches("/strongroom.v1.").split_once('/').unwrap();
    let role = method.strip_suffix("Roles").or_else(|| method.strip_suffix("Role"));
    let (service, method) = match (service, role) {
        ("Mount", Some(verb)) => ("role", verb),
        (service, _) => (service, method),
    };
    let mut name = format!("{}.", service.to_lowercase());
    for (at, letter) in method.char_indices() {
        if at > 0 && letter.is_uppercase() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
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
    drive_the_rest(&world, &client, &mut secrets).await;
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
    let recorded: BTreeSet<String> = tailed
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["record"]["op"].to_string())
        .map(|op| op.trim_matches('"').to_owned())
        .collect();
    let missing: Vec<_> = methods().iter().map(|method| operation(method)).collect();
    let missing: Vec<_> = missing.iter().filter(|op| !recorded.contains(*op)).collect();
    assert!(
        missing.is_empty(),
        "every rpc is driven here and recorded, but for {missing:?}"
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
