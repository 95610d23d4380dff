//! Keys that encrypt and sign for callers.

use crate::world::{World, reason};
use std::{fs, path::Path, process::Command};
use strongroom_client::{Error, Secret, Signature, v1};
use strongroom_tests::{Lab, lab::binary};

fn opened() -> World {
    let world = World::opened(Lab::with_tokens(&[]));
    world.cli().ok(&["mount", "enable", "tr", "--kind", "transit"]);
    world
}

/// A mount of its own with a key for each use, for the clients in other languages.
pub fn keys(world: &World, mount: &str) {
    let cli = world.cli();
    cli.ok(&["mount", "enable", mount, "--kind", "transit"]);
    for (name, kind) in [("aes", "aes256-gcm"), ("sign", "ed25519"), ("mac", "hmac-sha256")] {
        let key = format!("{mount}/{name}");
        cli.ok(&["transit", "key", "create", &key, "--kind", kind]);
    }
}

/// R-OPS-8: a key encrypts, rotates, rewraps, narrows, is trimmed and deleted, over kill -9 and restart; what it made opens in no other place.
#[tokio::test(flavor = "multi_thread")]
async fn keys_work_for_callers_and_outlive_kill_9() {
    let mut world = opened();
    let cli = world.cli();
    for (key, kind) in [
        ("tr/a", "aes256-gcm"),
        ("tr/b", "aes256-gcm"),
        ("tr/mac", "hmac-sha256"),
    ] {
        cli.ok(&["transit", "key", "create", key, "--kind", kind]);
    }
    let client = world.client().await;
    let text = Secret::from("attack at dawn");
    let first = client.encrypt("tr/a", &text, b"c").await.unwrap();
    let mac = client.hmac("tr/mac", b"body").await.unwrap();
    cli.ok(&["transit", "key", "rotate", "tr/a"]);
    drop(client);
    world.take_daemon().kill9();
    world.start();
    world.unseal("daily");
    let client = world.client().await;
    assert_eq!(
        client.decrypt("tr/a", &first, b"c").await.unwrap().expose(),
        text.expose()
    );
    assert!(client.verify("tr/mac", b"body", &mac).await.unwrap());
    assert!(!client.verify("tr/mac", b"bodi", &mac).await.unwrap());
    let second = client.rewrap("tr/a", &first, b"c").await.unwrap();
    assert_eq!((first[24], second[24]), (1, 2), "the version stands in the ciphertext");
    for (key, bytes, context) in [
        ("tr/a", &second, "d"),
        ("tr/b", &second, "c"),
        ("tr/a", &vec![7; 80], "c"),
    ] {
        assert_eq!(
            reason(client.decrypt(key, bytes, context.as_bytes()).await),
            "MALFORMED"
        );
    }
    let mut other = second.clone();
    other[24] = 1;
    assert_eq!(
        reason(client.decrypt("tr/a", &other, b"c").await),
        "MALFORMED",
        "version confusion"
    );
    other[24] = 9;
    assert_eq!(reason(client.decrypt("tr/a", &other, b"c").await), "NOT_POSSIBLE");
    let cli = world.cli();
    cli.ok(&["transit", "key", "configure", "tr/a", "--min-decryption-version", "2"]);
    assert_eq!(reason(client.decrypt("tr/a", &first, b"c").await), "NOT_POSSIBLE");
    cli.ok(&["transit", "key", "trim", "tr/a", "--before", "2"]);
    assert_ne!(
        cli.run(&["transit", "key", "configure", "tr/a", "--min-decryption-version", "1"])
            .code,
        0
    );
    assert_eq!(
        client.decrypt("tr/a", &second, b"c").await.unwrap().expose(),
        text.expose()
    );
    assert_ne!(
        cli.run(&["transit", "key", "delete", "tr/a"]).code,
        0,
        "not allowed yet"
    );
    assert_ne!(cli.run(&["mount", "disable", "tr"]).code, 0, "it holds keys");
    cli.ok(&["transit", "key", "configure", "tr/a", "--allow-deletion", "true"]);
    cli.ok(&["transit", "key", "delete", "tr/a"]);
    cli.ok(&["transit", "key", "create", "tr/a", "--kind", "aes256-gcm"]);
    assert_eq!(
        reason(client.decrypt("tr/a", &second, b"c").await),
        "MALFORMED",
        "the name's new key is another"
    );
}

/// R-OPS-8: a batch answers each item on its own and is bounded; the audit log says how many, never what; rights are one for each use.
#[tokio::test(flavor = "multi_thread")]
async fn batches_are_bounded_and_rights_are_apart() {
    let world = opened();
    let cli = world.cli();
    cli.ok(&["transit", "key", "create", "tr/a", "--kind", "aes256-gcm"]);
    let client = world.client().await;
    let item = |bytes: Vec<u8>| v1::TransitSealed {
        ciphertext: bytes.into(),
        context: Default::default(),
    };
    let good = client.encrypt("tr/a", &Secret::from("x"), b"").await.unwrap();
    let ask = |items| {
        let request = v1::TransitDecryptRequest {
            path: "tr/a".into(),
            items,
        };
        let client = client.clone();
        async move {
            client
                .read(request, |s, r| async move { s.transit().decrypt(r).await })
                .await
        }
    };
    let each = ask(vec![item(good.clone()), item(vec![0; 99]), item(good.clone())])
        .await
        .unwrap()
        .results;
    let opened = |at: usize| matches!(each[at].result, Some(v1::transit_plaintext::Result::Plaintext(_)));
    assert!(each.len() == 3 && opened(0) && !opened(1) && opened(2));
    assert_eq!(reason(ask(Vec::new()).await), "MALFORMED");
    assert_eq!(
        reason(ask((0..257).map(|_| item(Vec::new())).collect()).await),
        "MALFORMED"
    );
    let log = cli.ok(&["--output", "json", "audit", "tail", "--last", "20"]);
    assert!(log.contains("\"items\":3") && log.contains("\"failed\":1"), "{log}");
    let policy =
        "permit(principal in S::Group::\"writers\", action == S::Action::\"encrypt\", resource in S::Path::\"tr\");";
    cli.ok_with(&["policy", "put", "writers", "-"], policy.as_bytes());
    let made = world.token_with("writer", &["writers"], &[]);
    let writer = world.lab.client(made["token"].as_str().unwrap()).await;
    writer.encrypt("tr/a", &Secret::from("x"), b"").await.unwrap();
    assert!(matches!(
        writer.decrypt("tr/a", &good, b"").await,
        Err(Error::Denied(_))
    ));
    assert!(matches!(writer.rewrap("tr/a", &good, b"").await, Err(Error::Denied(_))));
}

/// R-OPS-8: what keys sign is verified by OpenSSL with the public key as it is shown, and a changed input is not.
#[tokio::test(flavor = "multi_thread")]
async fn openssl_verifies_what_keys_sign() {
    let world = opened();
    let cli = world.cli();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    fs::write(file("input"), b"a release").unwrap();
    fs::write(file("other"), b"another release").unwrap();
    let pss = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32"];
    for (kind, hash, options) in [
        ("ed25519", None, &[][..]),
        ("ecdsa-p256", Some("-sha256"), &[]),
        ("ecdsa-p384", Some("-sha384"), &[]),
        ("rsa-pss-2048", Some("-sha256"), &pss),
        ("rsa-pss-3072", Some("-sha256"), &pss),
        ("rsa-pss-4096", Some("-sha256"), &pss),
    ] {
        let key = format!("tr/{kind}");
        cli.ok(&["transit", "key", "create", &key, "--kind", kind]);
        fs::write(
            file("pem"),
            cli.ok(&["transit", "key", "show", &key, "--public-key", "1"]),
        )
        .unwrap();
        let made = world.client().await.sign(&key, b"a release").await.unwrap();
        fs::write(file("sig"), &made.bytes).unwrap();
        let verify = |input: &str| {
            match hash {
                None => Command::new("openssl")
                    .args([
                        "pkeyutl",
                        "-verify",
                        "-pubin",
                        "-rawin",
                        "-inkey",
                        &file("pem"),
                        "-sigfile",
                        &file("sig"),
                        "-in",
                        &file(input),
                    ])
                    .output(),
                Some(hash) => Command::new("openssl")
                    .args(["dgst", hash, "-verify", &file("pem"), "-signature", &file("sig")])
                    .args(options)
                    .arg(file(input))
                    .output(),
            }
            .unwrap()
        };
        let found = verify("input");
        assert!(found.status.success(), "{kind}: {found:?}");
        assert!(!verify("other").status.success(), "{kind}");
        let right = format!("@{}", file("input"));
        let sig = format!("@{}", file("sig"));
        let args = ["transit", "verify", &key, &right, "--signature", &sig, "--key-version"];
        assert_eq!(cli.run(&[&args[..], &["1"]].concat()).code, 0, "{kind}");
        assert_ne!(
            cli.run(&[&args[..], &["2"]].concat()).code,
            0,
            "{kind}: no such version"
        );
        let wrong = Signature {
            bytes: made.bytes,
            key_version: 0,
        };
        assert_eq!(
            reason(world.client().await.verify(&key, b"a release", &wrong).await),
            "MALFORMED"
        );
    }
}

/// An independent ML-DSA-65, beside the binaries: what npm installs stays for the next time, and out of the tree.
fn noble() -> std::path::PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("mldsa");
    let place = binary("strongroom").parent().unwrap().join("test-mldsa");
    fs::create_dir_all(&place).unwrap();
    for name in ["package.json", "package-lock.json", "verify.mjs"] {
        fs::copy(from.join(name), place.join(name)).unwrap();
    }
    let mut npm = Command::new("/usr/bin/npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(&place);
    let ran = npm.output().expect("node and npm (scripts/deps installs them)");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    place
}

/// R-OPS-8: what an ML-DSA-65 key signs, before and after kill -9, is verified by another library with the public key as it is shown, by its own
/// version only, and a changed input is not.
#[tokio::test(flavor = "multi_thread")]
async fn another_library_verifies_post_quantum_signatures() {
    let (mut world, place) = (opened(), noble());
    let cli = world.cli();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    fs::write(file("input"), b"a release").unwrap();
    fs::write(file("other"), b"another release").unwrap();
    cli.ok(&["transit", "key", "create", "tr/pq", "--kind", "ml-dsa-65"]);
    let first = world.client().await.sign("tr/pq", b"a release").await.unwrap();
    cli.ok(&["transit", "key", "rotate", "tr/pq"]);
    world.take_daemon().kill9();
    world.start();
    world.unseal("daily");
    let client = world.client().await;
    let second = client.sign("tr/pq", b"a release").await.unwrap();
    assert_eq!((first.bytes.len(), first.key_version, second.key_version), (3309, 1, 2));
    for version in ["1", "2"] {
        let pem = world
            .cli()
            .ok(&["transit", "key", "show", "tr/pq", "--public-key", version]);
        fs::write(file(version), pem).unwrap();
    }
    fs::write(file("first"), &first.bytes).unwrap();
    fs::write(file("second"), &second.bytes).unwrap();
    for (public, input, signature, valid) in [
        ("1", "input", "first", true),
        ("2", "input", "second", true),
        ("2", "input", "first", false),
        ("1", "other", "first", false),
    ] {
        let mut node = Command::new("/usr/bin/node");
        node.args(["verify.mjs", &file(public), &file(input), &file(signature)])
            .current_dir(&place);
        let ran = node.output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout).trim().to_owned();
        let want = if valid { "valid" } else { "not valid" };
        assert_eq!(said, want, "{public} {input} {signature}: {ran:?}");
    }
    assert!(client.verify("tr/pq", b"a release", &first).await.unwrap());
    assert!(!client.verify("tr/pq", b"another", &first).await.unwrap());
}
