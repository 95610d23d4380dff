//! Transit keys that live in an HSM: a real SoftHSM token, whose objects lie in files that can be counted (R-OPS-8).

use crate::world::{World, eventually, failure, reason};
use std::{fs, path::Path, process::Command, time::Duration};
use strongroom_tests::Lab;

fn opened() -> World {
    let world = World::sealed(Lab::new(), &["daily=hsm+quorum:2/3"]);
    world.unseal("daily");
    world.cli().ok(&["mount", "enable", "tr", "--kind", "transit"]);
    world
}

fn files(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).unwrap().flatten();
    entries
        .map(|entry| match entry.file_type().unwrap().is_dir() {
            true => files(&entry.path()),
            false => usize::from(entry.path().extension().is_some_and(|kind| kind == "object")),
        })
        .sum()
}

/// Objects on the token: a key pair is two.
fn objects(world: &World) -> usize {
    files(&world.lab.dir().join("hsm-main/tokens"))
}

fn create(world: &World, key: &str, kind: &str) {
    let args = [
        "--timeout",
        "90s",
        "transit",
        "key",
        "create",
        key,
        "--kind",
        kind,
        "--hsm",
        "main",
    ];
    world.cli().ok(&args);
}

fn delete(world: &World, key: &str) {
    let cli = world.cli();
    cli.ok(&["transit", "key", "configure", key, "--allow-deletion", "true"]);
    cli.ok(&["transit", "key", "delete", key]);
}

/// R-OPS-8: a key pair made in an HSM signs there, over rotation, kill -9 and restart, and OpenSSL verifies by the public key as it is shown;
/// what is trimmed and deleted is destroyed in the HSM too; what cannot live there is refused.
#[tokio::test(flavor = "multi_thread")]
async fn keys_in_an_hsm_sign_there() {
    let mut world = opened();
    let (base, dir) = (objects(&world), tempfile::tempdir().unwrap());
    let file = |name: &str| dir.path().join(name).display().to_string();
    fs::write(file("input"), b"a release").unwrap();
    fs::write(file("other"), b"another release").unwrap();
    let pss = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32"];
    let kinds = [("ecdsa-p256", &[][..]), ("rsa-pss-3072", &pss)];
    let mut first = Vec::new();
    for (kind, _) in kinds {
        let key = format!("tr/{kind}");
        create(&world, &key, kind);
        first.push(world.client().await.sign(&key, b"a release").await.unwrap());
        world.cli().ok(&["--timeout", "90s", "transit", "key", "rotate", &key]);
        let shown = world.cli().json(&["transit", "key", "show", &key]);
        assert_eq!(
            (shown["hsm"].as_str(), shown["latest_version"].as_u64()),
            (Some("main"), Some(2))
        );
    }
    assert_eq!(objects(&world), base + 8, "two versions of two keys");
    world.take_daemon().kill9();
    world.start();
    world.unseal("daily");
    let client = world.client().await;
    for ((kind, options), first) in kinds.into_iter().zip(first) {
        let key = format!("tr/{kind}");
        let second = client.sign(&key, b"a release").await.unwrap();
        assert_eq!((first.key_version, second.key_version), (1, 2));
        for (made, input, valid) in [
            (&first, "input", true),
            (&second, "input", true),
            (&second, "other", false),
        ] {
            let version = made.key_version.to_string();
            let pem = world
                .cli()
                .ok(&["transit", "key", "show", &key, "--public-key", &version]);
            fs::write(file("pem"), pem).unwrap();
            fs::write(file("sig"), &made.bytes).unwrap();
            let ran = Command::new("openssl")
                .args(["dgst", "-sha256", "-verify", &file("pem"), "-signature", &file("sig")])
                .args(options)
                .arg(file(input))
                .output()
                .unwrap();
            assert_eq!(ran.status.success(), valid, "{kind} {version} {input}: {ran:?}");
        }
        assert!(client.verify(&key, b"a release", &first).await.unwrap());
    }
    let cli = world.cli();
    cli.ok(&[
        "transit",
        "key",
        "configure",
        "tr/ecdsa-p256",
        "--min-decryption-version",
        "2",
    ]);
    cli.ok(&["transit", "key", "trim", "tr/ecdsa-p256", "--before", "2"]);
    eventually("the trimmed version's pair is destroyed", || {
        objects(&world) == base + 6
    });
    client.sign("tr/ecdsa-p256", b"still").await.unwrap();
    delete(&world, "tr/ecdsa-p256");
    delete(&world, "tr/rsa-pss-3072");
    eventually("nothing is left in the HSM", || objects(&world) == base);
    for (kind, hsm, want, word) in [
        ("ed25519", "main", "NOT_POSSIBLE", "ecdsa-p256 and rsa-pss-3072"),
        ("aes256-gcm", "main", "NOT_POSSIBLE", "ecdsa-p256 and rsa-pss-3072"),
        ("ecdsa-p256", "nowhere", "MALFORMED", "no HSM `nowhere`"),
    ] {
        let args = [
            "--output", "json", "transit", "key", "create", "tr/x", "--kind", kind, "--hsm", hsm,
        ];
        let refused = failure(&cli.run(&args));
        let told = refused["message"].as_str().unwrap();
        assert!(
            refused["reason"] == want && told.contains(word),
            "{kind} {hsm}: {refused}"
        );
    }
    assert_eq!(objects(&world), base);
}

/// R-OPS-8, R-SEAL-6: while the HSM is away its keys say so and other keys work; signatures verify without it; what was deleted meanwhile is
/// destroyed once it is back, also after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn an_hsm_that_is_away_stops_its_own_keys_only() {
    let world = opened();
    let (base, client) = (objects(&world), world.client().await);
    create(&world, "tr/here", "ecdsa-p256");
    create(&world, "tr/gone", "ecdsa-p256");
    world
        .cli()
        .ok(&["transit", "key", "create", "tr/soft", "--kind", "ecdsa-p256"]);
    let made = client.sign("tr/here", b"x").await.unwrap();
    let (tokens, away) = (world.lab.dir().join("hsm-main/tokens"), world.lab.dir().join("away"));
    fs::rename(&tokens, &away).unwrap();
    eventually("its keys say that it is away", || {
        let args = ["--output", "json", "--timeout", "20s", "transit", "sign", "tr/here"];
        let ran = world.cli().run_with(&args, b"x");
        ran.code == 4 && failure(&ran)["reason"] == "HSM_UNAVAILABLE"
    });
    client.sign("tr/soft", b"x").await.unwrap();
    assert!(client.verify("tr/here", b"x", &made).await.unwrap());
    let request = |key: &str| strongroom_client::v1::TransitCreateKeyRequest {
        path: key.to_owned(),
        kind: "ecdsa-p256".to_owned(),
        hsm: "main".to_owned(),
        ..Default::default()
    };
    let create = client.once(
        request("tr/late"),
        |s, r| async move { s.transit().create_key(r).await },
    );
    assert_eq!(reason(create.await), "HSM_UNAVAILABLE");
    delete(&world, "tr/gone");
    assert_eq!(files(&away), base + 4, "they are still there");
    fs::rename(&away, &tokens).unwrap();
    eventually("its keys work again", || {
        world.cli().run_with(&["transit", "sign", "tr/here"], b"x").code == 0
    });
    eventually("what was deleted is destroyed", || objects(&world) == base + 2);
    let listed = world.cli().json(&["transit", "key", "list", "tr"]);
    assert_eq!(listed["names"], serde_json::json!(["here", "soft"]));
}

/// R-OPS-8: wherever a making is killed, after the restart the HSM holds the pairs of the versions that there are and no other.
#[tokio::test(flavor = "multi_thread")]
async fn no_crash_leaves_an_object_that_nobody_knows() {
    let mut world = opened();
    let base = objects(&world);
    for (round, delay) in [0_u64, 30, 120, 400, 900].into_iter().enumerate() {
        let key = format!("tr/k{round}");
        let client = world.client().await;
        let request = strongroom_client::v1::TransitCreateKeyRequest {
            path: key.clone(),
            kind: "rsa-pss-3072".to_owned(),
            hsm: "main".to_owned(),
            ..Default::default()
        };
        let asked = tokio::spawn(async move {
            let call = client.once(request, |s, r| async move { s.transit().create_key(r).await });
            drop(call.await);
        });
        tokio::time::sleep(Duration::from_millis(delay)).await;
        world.take_daemon().kill9();
        asked.await.unwrap();
        world.start();
        world.unseal("daily");
        // A worker of the daemon that was killed may still be making a pair, for as long as its deadline; it is destroyed once it is there.
        let began = std::time::Instant::now();
        loop {
            let listed = world.cli().json(&["transit", "key", "list", "tr"]);
            let keys = listed["names"].as_array().unwrap().len();
            let found = objects(&world);
            if found == base + 2 * keys {
                break;
            }
            let late = began.elapsed() > Duration::from_secs(180);
            assert!(
                !late,
                "{found} objects, {base} at first, {keys} keys; {}",
                world.status()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    let log = world.cli().ok(&["--output", "json", "audit", "tail", "--last", "2000"]);
    assert!(
        log.contains("transit.create-key"),
        "the request is recorded before the act"
    );
}
