//! The audit log: everything is in it, nothing secret is, and the verifier finds what was changed.

use crate::world::{World, eventually, failure, shared, value};
use serde_json::Value;
use std::{
    fs,
    io::Write,
    os::unix::fs::FileExt,
    path::Path,
    process::{Command, Output, Stdio},
};
use strongroom_tests::{Cli, lab::binary};

/// Every record of what was answered up to now.
pub fn records(cli: &Cli) -> Vec<Value> {
    let out = cli.ok(&["--output", "json", "audit", "tail", "--last", "10000"]);
    let line = |line: &str| serde_json::from_str::<Value>(line).unwrap()["record"].take();
    out.lines().map(line).collect()
}

fn of<'a>(records: &'a [Value], op: &str) -> Vec<&'a Value> {
    records.iter().filter(|record| record["op"] == op).collect()
}

/// Copies the log's files; they follow the store within milliseconds.
fn copy(world: &World, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(world.lab.audit_dir()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// R-AUDIT-1, R-AUDIT-5: allowed, refused and malformed requests stand in the log with who, what, where and how it ended.
#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_recorded() {
    let world = World::open();
    let client = world.client().await;
    client.put("kv/recorded/a", &value("x"), None).await.unwrap();
    client.get("kv/recorded/a").await.unwrap();
    let nobody = world.lab.client(&world.token("nobody", &[])).await;
    nobody.get("kv/recorded/a").await.unwrap_err();
    client.get("kv/%00").await.unwrap_err();
    let stranger = world.lab.client("srm_at_unknown").await;
    stranger.get("kv/recorded/a").await.unwrap_err();
    let records = records(&world.cli());
    let outcome = |op: &str, code: &str| {
        of(&records, op)
            .into_iter()
            .filter(|r| r["outcome"]["code"] == code)
            .cloned()
            .collect::<Vec<_>>()
    };
    let put = &outcome("kv.put", "OK")[0];
    assert_eq!(
        (put["path"].clone(), put["identity"]["name"].clone()),
        ("kv/recorded/a".into(), "setup".into()),
        "{put}"
    );
    assert_eq!(outcome("kv.get", "OK").len(), 1);
    let denied = &outcome("kv.get", "PERMISSION_DENIED")[0];
    assert_eq!(
        (denied["identity"]["name"].clone(), denied["policy"]["decision"].clone()),
        ("nobody".into(), "deny".into()),
        "{denied}"
    );
    assert_eq!(outcome("kv.get", "INVALID_ARGUMENT").len(), 1, "a malformed request");
    assert_eq!(outcome("kv.get", "UNAUTHENTICATED").len(), 1, "a stranger");
    assert!(
        !of(&records, "operator.init").is_empty() && of(&records, "operator.present").len() >= 2,
        "also while sealed"
    );
}

/// R-AUDIT-2: the verifier, offline: clean from genesis to a head kept elsewhere; every flipped byte, a removed file and a cut end are found.
#[tokio::test(flavor = "multi_thread")]
async fn the_verifier_finds_what_was_changed() {
    let world = World::open();
    let client = world.client().await;
    for n in 0..20 {
        client.put(&format!("kv/many/{n}"), &value("x"), None).await.unwrap();
    }
    let cli = world.cli();
    let head = cli.json(&["audit", "head"])["head"].as_str().unwrap().to_owned();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("log");
    copy(&world, &dir);
    let at = dir.display().to_string();
    let verify = |more: &[&str]| {
        let ran = cli.run(&[&["--output", "json", "audit", "verify", &at], more].concat());
        (ran.code, serde_json::from_str::<Value>(&ran.out).unwrap_or_default())
    };
    let (code, clean) = verify(&["--genesis", &world.genesis, "--head", &head]);
    assert_eq!((code, clean["verdict"].clone()), (0, "clean".into()), "{clean}");
    let other = format!("{}/{}", "0".repeat(64), head.split('/').nth(1).unwrap());
    assert_ne!(verify(&["--head", &other]).0, 0, "a head that is not its own");
    let file = fs::read_dir(&dir).unwrap().next().unwrap().unwrap().path();
    let bytes = fs::read(&file).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let open = fs::File::options().write(true).open(&file).unwrap();
    for at in (0..used).step_by(used / 61) {
        open.write_all_at(&[bytes[at] ^ 0x10], at as u64).unwrap();
        let (code, found) = verify(&["--genesis", &world.genesis, "--head", &head]);
        assert_ne!(code, 0, "byte {at} of {used}: {found}");
        open.write_all_at(&[bytes[at]], at as u64).unwrap();
    }
    assert_eq!(verify(&[]).0, 0, "mended again");
    open.set_len(used as u64 - 10).unwrap();
    let (code, torn) = verify(&["--head", &head]);
    assert!(code != 0, "cut off: {torn}");
}

/// R-AUDIT-5: `tail` follows what comes; `hash` finds a value in the log without showing it.
#[tokio::test(flavor = "multi_thread")]
async fn tail_follows_and_hash_finds() {
    let world = &shared().world;
    let client = world.client().await;
    let request = strongroom_client::v1::AuditTailRequest {
        from_seq: None,
        last: 1,
        follow: true,
    };
    let mut stream = client.stubs().audit().tail(request).await.unwrap().into_inner();
    client.put("kv/followed/a", &value("x"), None).await.unwrap();
    let seen = async {
        while let Some(item) = stream.message().await.unwrap() {
            if item.record_json.contains("kv/followed/a") {
                return true;
            }
        }
        false
    };
    assert!(
        tokio::time::timeout(crate::world::PATIENCE, seen).await.unwrap(),
        "the record came down the open stream"
    );
    let cli = world.cli();
    let one = cli.ok_with(&["audit", "hash", "-"], b"a-candidate-value-of-some-length");
    let two = cli.ok_with(&["audit", "hash", "-"], b"a-candidate-value-of-some-length");
    assert_eq!(one, two);
    assert!(!one.contains("candidate"));
    let nobody = world.lab.cli().with_token(&world.token("no-auditor", &[]));
    assert_eq!(
        failure(&nobody.run(&["--output", "json", "audit", "tail"]))["reason"],
        "DENIED"
    );
}

/// R-AUDIT-5: a tail shows whatever was acknowledged before it was asked for, and begins at any record, the first included.
#[tokio::test(flavor = "multi_thread")]
async fn a_tail_begins_anywhere_and_lags_behind_nothing() {
    let world = World::open();
    let client = world.client().await;
    for n in 0..50 {
        let path = format!("kv/acknowledged/{n}");
        client.put(&path, &value("x"), None).await.unwrap();
        let request = strongroom_client::v1::AuditTailRequest {
            last: 1,
            ..Default::default()
        };
        let mut stream = client.stubs().audit().tail(request).await.unwrap().into_inner();
        let last = stream.message().await.unwrap().expect("a record");
        assert!(last.record_json.contains(&path), "{n}: {last:?}");
        assert!(stream.message().await.unwrap().is_none(), "one was asked for");
    }
    let from = |seq: &str| {
        let out = world.cli().ok(&["--output", "json", "audit", "tail", "--from", seq]);
        let seq_of = |line: &str| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap();
        out.lines().map(seq_of).collect::<Vec<_>>()
    };
    let all = from("0");
    assert!(all.len() > 50 && all.iter().copied().eq(0..all.len() as u64), "{all:?}");
    assert_eq!(from("7")[0], 7);
    assert!(from("999999").is_empty(), "what is not there yet");
}

/// R-AUDIT-1: a flood of refusals is answered, counted and summed up; it does not fill the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_refusals_is_summed_up() {
    let world = World::open();
    let nobody = world.lab.client(&world.token("nobody", &[])).await;
    let before = world.status()["audit_seq"].as_u64().unwrap();
    for _ in 0..300 {
        nobody.get("kv/secret").await.unwrap_err();
    }
    let grown = world.status()["audit_seq"].as_u64().unwrap() - before;
    assert!(grown < 150, "300 refusals made {grown} records");
    let cli = world.cli();
    let summed = || {
        of(&records(&cli), "refusals.summary")
            .iter()
            .map(|r| r["outcome"]["count"].as_u64().unwrap_or_default())
            .sum::<u64>()
    };
    eventually("the summary", || summed() > 100);
}

/// R-AUDIT-1: with `paths = "hash"` no path stands in clear.
#[tokio::test(flavor = "multi_thread")]
async fn paths_can_be_hashed() {
    let mut lab = strongroom_tests::Lab::with_tokens(&[]);
    lab.audit = "paths = \"hash\"".to_owned();
    let world = World::opened(lab);
    world
        .client()
        .await
        .put("kv/a-telling-name", &value("x"), None)
        .await
        .unwrap();
    let all = records(&world.cli());
    assert!(!of(&all, "kv.put").is_empty());
    assert!(
        !all.iter().any(|record| record.to_string().contains("telling")),
        "{all:?}"
    );
}

fn strongroomd(world: &World, args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(binary("strongroomd"))
        .arg("--config")
        .arg(world.lab.config_file())
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

/// R-AUDIT-2, R-STORE-6: with its log cut off the daemon does not start; only a slot's fresh factors and the word that a loss is accepted let
/// it go on, and the gap stands in the log for ever.
#[test]
fn a_lost_log_needs_the_factors_of_a_slot() {
    let mut world = World::open();
    for n in 0..10 {
        world
            .cli()
            .ok_with(&["kv", "put", &format!("kv/lost/{n}"), "-"], b"kept");
    }
    assert!(world.take_daemon().stop().success());
    let file = fs::read_dir(world.lab.audit_dir())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let bytes = fs::read(&file).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(used as u64 / 2)
        .unwrap();
    let refused = strongroomd(&world, &[], "");
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && words.contains("log"), "{words}");
    let shares = world.lines("daily");
    let stranger = World::open();
    for (args, stdin) in [
        (&["repair", "--slot", "daily"][..], shares.as_str()),
        (&["repair", "--accept-loss", "--slot", "daily"], ""),
        (
            &["repair", "--accept-loss", "--slot", "daily"],
            &stranger.lines("daily"),
        ),
    ] {
        assert!(!strongroomd(&world, args, stdin).status.success(), "{args:?}");
    }
    let repaired = strongroomd(&world, &["repair", "--accept-loss", "--slot", "daily"], &shares);
    assert!(
        repaired.status.success(),
        "{}",
        String::from_utf8_lossy(&repaired.stderr)
    );
    world.start();
    world.unseal("daily");
    assert_eq!(world.cli().ok(&["kv", "get", "kv/lost/3", "--field", "value"]), "kept");
    let dir = world.lab.audit_dir().display().to_string();
    let verified = world.cli().run(&["--output", "json", "audit", "verify", &dir]);
    assert_ne!(verified.code, 0, "the gap is named for ever: {verified:?}");
}
