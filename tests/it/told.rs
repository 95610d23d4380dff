//! What people are told when something does not go, or goes otherwise than they think: the words, and what comes next.

use crate::world::{World, eventually, failure, postgres};
use serde_json::Value;
use std::{fs, os::unix::fs::PermissionsExt};
use strongroom_tests::{Cli, Lab};

fn refused(cli: &Cli, args: &[&str]) -> Value {
    failure(&cli.run(&[&["--output", "json"], args].concat()))
}

#[track_caller]
fn says(refused: &Value, reason: &str, words: &str) {
    assert_eq!(refused["reason"], reason, "{refused}");
    assert!(refused.to_string().contains(words), "{words:?}: {refused}");
}

/// R-SEAL-3: shares are counted while there is something to count; sealing is not announced to somebody who may not seal; without an HSM slot there is
/// no key in an HSM to rotate.
#[test]
fn operators_hear_what_is_so() {
    let world = World::sealed(Lab::with_tokens(&[]), &["daily=quorum:2/3"]);
    let opened = world.cli().run_with(
        &["operator", "unseal", "--slot", "daily"],
        world.lines("daily").as_bytes(),
    );
    assert_eq!(opened.code, 0, "{opened:?}");
    assert!(
        opened.err.contains("accepted, 1 of 2") && !opened.err.contains("0 of 0"),
        "{opened:?}"
    );
    let nobody = world.lab.cli().with_token(&world.token("nobody", &[]));
    let denied = nobody.run(&["operator", "seal"]);
    assert_eq!(denied.code, 3, "{denied:?}");
    assert!(!denied.err.contains("sealing"), "{denied:?}");
    says(
        &refused(&world.cli(), &["operator", "rotate", "hsm"]),
        "NOT_POSSIBLE",
        "no key slot uses an HSM",
    );
    assert_eq!(world.state(), "open");
}

/// R-OPS-4: an empty STRONGROOM_TOKEN is a mistake; the token that was saved does not act in its place. What needs no token goes on.
#[test]
fn an_empty_token_is_not_another_one() {
    let world = World::open();
    let folder = world.lab.dir().join(".config/strongroom");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("token"), &world.root).unwrap();
    fs::set_permissions(folder.join("token"), PermissionsExt::from_mode(0o600)).unwrap();
    world.lab.cli().ok(&["kv", "list"]);
    let empty = world.lab.cli().with_token("");
    let told = refused(&empty, &["kv", "list"]);
    assert_eq!(told["exit_code"], 2, "{told}");
    assert!(told.to_string().contains("STRONGROOM_TOKEN is set"), "{told}");
    empty.ok(&["operator", "status"]);
    assert!(empty.run(&["doctor"]).out.contains("STRONGROOM_TOKEN is set"));
}

/// R-KV-1: one field as JSON where JSON is asked for; a key twice in `--from-json` is refused, and neither value shown.
#[test]
fn fields_go_in_once_and_come_out_as_asked() {
    let world = World::open();
    let cli = world.cli();
    cli.ok_with(&["kv", "put", "kv/a", "value=-"], b"text");
    cli.ok_with(&["kv", "put", "kv/b", "value=-"], &[0xff, 0]);
    assert_eq!(cli.ok(&["kv", "get", "kv/a", "--field", "value"]), "text");
    let told = cli.json(&["kv", "get", "kv/a", "--field", "value"]);
    assert_eq!(
        told,
        serde_json::json!({"path": "kv/a", "version": 1, "field": "value", "value": "text"})
    );
    let told = cli.json(&["kv", "get", "kv/b", "--field", "value"]);
    assert_eq!(
        (told["value_base64"].clone(), told["value"].clone()),
        ("/wA=".into(), Value::Null)
    );
    let twice = cli.run_with(
        &["kv", "put", "kv/a", "--from-json", "-"],
        br#"{"user":"canary-one","user":"canary-two"}"#,
    );
    assert_eq!(twice.code, 2, "{twice:?}");
    assert!(
        twice.err.contains("twice") && !twice.err.contains("canary"),
        "{twice:?}"
    );
    assert_eq!(cli.ok(&["kv", "get", "kv/a", "--field", "value"]), "text");
}

/// R-LEASE-1, R-LEASE-3, R-OPS-3: of leases, mounts and targets: what is so, to whom it may be told, and what comes next.
#[test]
fn leases_and_targets_are_explained() {
    let mut server = postgres();
    let world = World::open();
    world.mount_postgres(&server);
    let cli = world.cli();
    let lease = || {
        cli.json(&["creds", "issue", "pg/readers"])["lease_id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (ended, lives) = (lease(), lease());
    cli.ok(&["lease", "revoke", &ended]);

    // An ended lease: not there, to whoever may see all of them; to others the same as one that lives.
    world.put_policy("some", "permit(principal in S::Group::\"some\", action == S::Action::\"lease_read\", resource in S::Path::\"sys/lease\");");
    let nobody = world.lab.cli().with_token(&world.token("nobody", &[]));
    let some = world.lab.cli().with_token(&world.token("some", &["some"]));
    for act in ["show", "renew", "revoke"] {
        says(&refused(&cli, &["lease", act, &ended]), "NOT_FOUND", "lease list");
        for cli in [&nobody, &some] {
            let (gone, there) = (
                refused(cli, &["lease", act, &ended]),
                refused(cli, &["lease", act, &lives]),
            );
            assert_eq!(
                (&gone["reason"], &gone["message"]),
                (&there["reason"], &there["message"]),
                "{act}"
            );
            assert_eq!(gone["reason"], "DENIED");
        }
    }

    // A mount with leases: the exact command, which works.
    let told = refused(&cli, &["mount", "disable", "pg"]);
    says(&told, "NOT_POSSIBLE", "`strongroom mount disable pg --revoke-leases`");
    assert!(told["message"].as_str().unwrap().contains("(1)"), "one lease: {told}");

    // Targets: one answers, one is not configured; then the one is away, and a revocation waits for it.
    cli.ok(&["mount", "enable", "later", "--kind", "postgres"]);
    let told = cli.json(&["doctor"]);
    let target = |told: &Value, path: &str| {
        told["checks"]
            .as_array()
            .unwrap()
            .iter()
            .find(|check| check["check"] == "target" && check["detail"].as_str().unwrap().starts_with(path))
            .cloned()
            .unwrap_or_else(|| panic!("{path}: {told}"))
    };
    let pg = target(&told, "pg");
    assert_eq!(pg["health"], "ok", "{pg}");
    assert!(pg["detail"].as_str().unwrap().contains("1 accounts"), "{pg}");
    assert_eq!(target(&told, "later")["health"], "warn", "{told}");
    server.stop().unwrap();
    cli.ok(&["lease", "revoke", &lives, "--no-wait"]);
    eventually("status counts it while it waits", || {
        let told = world.status();
        told["leases_revoking"] == 1 && told["leases_revoking_oldest_secs"].as_u64() >= Some(2)
    });
    assert!(world.daemon().metrics().contains("strongroom_leases_revoking 1"));
    assert!(
        cli.ok(&["operator", "status"])
            .contains("revoking      1, the oldest for")
    );
    let told = cli.run(&["--output", "json", "doctor"]);
    assert_eq!(told.code, 1, "{told:?}");
    let told: Value = serde_json::from_str(&told.out).unwrap();
    let pg = target(&told, "pg");
    assert_eq!(pg["health"], "fail", "{pg}");
    assert!(pg["next"].as_str().unwrap().contains("mount config pg"), "{pg}");
    server.resume().unwrap();
    eventually("it is proven gone", || world.status()["leases_revoking"] == 0);
    cli.ok(&["mount", "disable", "pg", "--revoke-leases"]);
}
