//! Vaults that something is wrong with: a damaged policy, and what `doctor` says of the usual troubles.

use crate::world::{World, eventually, failure, reason, value};
use serde_json::Value;
use std::{fs, process::Command, sync::Arc};
use strongroom_tests::{Lab, lab::binary};
use strongroomd::{
    audit::Settings,
    base::random::OsRandom,
    seal::Tokens,
    store::{
        Change, Disk, DiskConfig, EngineKind, Namespace, Part, Table,
        physical::{Engine, Write, fjall::FjallEngine},
    },
    vault::offline,
};
use zeroize::Zeroizing;

/// Puts something that is no policy in a policy's place, as nobody but the vault's own keys could: authentic, and not what the manifest lists.
async fn damage(world: &World, policy: &str) {
    let config = DiskConfig {
        caches: strongroomd::store::Caches::default(),
        dir: world.lab.data(),
        engine: EngineKind::Fjall,
        reserve_bytes: 0,
        audit: Settings {
            dir: world.lab.audit_dir(),
            segment_bytes: 4 << 20,
        },
        evidence: strongroomd::store::Evidence::default(),
    };
    let (disk, _) = tokio::task::spawn_blocking(move || Disk::open(&config, Arc::new(OsRandom)))
        .await
        .unwrap()
        .unwrap();
    let shares = world.shares["daily"].clone();
    let keys = offline::derive(&disk, &"daily".parse().unwrap(), shares, &Tokens::default())
        .await
        .unwrap();
    let view = keys.store.view(Namespace::ROOT, Table::Policy);
    assert!(view.get(&[Part::Name(policy)]).await.unwrap().is_some(), "it is there");
    let mut change = Change::new();
    change.put(&view, &[Part::Name(policy)], Zeroizing::new(b"{}".to_vec()));
    keys.store.commit(change, Vec::new()).await.unwrap();
    keys.store.lock();
    drop(keys);
    tokio::task::spawn_blocking(move || disk.close()).await.unwrap();
}

/// R-STORE-4, R-POL-1: one damaged policy, and nothing is decided on the rest: whatever it forbade stays forbidden. Status names it, a slot's
/// factors open the way back, and once it is written anew everything goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_policy_opens_no_door() {
    let mut world = World::open();
    let client = world.client().await;
    client.put("kv/open/a", &value("x"), None).await.unwrap();
    client.put("kv/shut/a", &value("x"), None).await.unwrap();
    world.put_policy(
        "readers",
        r#"permit(principal in S::Group::"readers", action == S::Action::"read", resource in S::Path::"kv");"#,
    );
    let shut = r#"forbid(principal in S::Group::"readers", action, resource in S::Path::"kv/shut");"#;
    world.put_policy("shut", shut);
    let reader = world.token("reader", &["readers"]);
    world.lab.client(&reader).await.get("kv/open/a").await.unwrap();
    assert!(world.take_daemon().stop().success());
    damage(&world, "shut").await;
    world.start();
    world.unseal("daily");
    let (reads, root) = (world.lab.client(&reader).await, world.client().await);
    for path in ["kv/open/a", "kv/shut/a"] {
        assert_eq!(reason(reads.get(path).await), "POLICIES_DAMAGED", "{path}");
        assert_eq!(
            reason(root.get(path).await),
            "POLICIES_DAMAGED",
            "{path}, for whoever may do everything"
        );
    }
    assert!(
        world.status()["warnings"].to_string().contains("`shut` is damaged"),
        "{}",
        world.status()
    );
    let told = world.cli().run(&["--output", "json", "doctor"]);
    assert!(told.out.contains("`shut` is damaged"), "{told:?}");
    let recovered = world.lab.cli().run_with(
        &["--output", "json", "operator", "recover", "--slot", "daily"],
        world.lines("daily").as_bytes(),
    );
    let recovered: Value =
        serde_json::from_str(&recovered.out).unwrap_or_else(|error| panic!("{error}: {recovered:?}"));
    let rescuer = world.lab.cli().with_token(recovered["token"].as_str().unwrap());
    rescuer.ok_with(&["policy", "put", "shut", "-"], shut.as_bytes());
    reads.get("kv/open/a").await.unwrap();
    assert_eq!(
        reason(reads.get("kv/shut/a").await),
        "DENIED",
        "the same words as before"
    );
}

/// Flips a byte of every row of a table, as a medium that rots.
fn rot(world: &World, table: Table) {
    let dir = world.lab.data().join("engine");
    let engine = FjallEngine::open(&dir).unwrap();
    let head = [0, 0, 0, 0, table.id()];
    let rows = engine
        .scan(&head, &[&head[..], &[u8::MAX; 64]].concat(), 100, usize::MAX)
        .unwrap();
    assert!(!rows.is_empty(), "there is something to rot");
    for (key, row) in rows {
        let mut rotten = row.to_vec();
        *rotten.last_mut().unwrap() ^= 1;
        let write = Write {
            key,
            value: Some(rotten.into()),
        };
        engine.commit(&[write]).unwrap();
    }
}

/// R-STORE-4: one record rots; it is refused by name, listed for operators and nobody else, and leaves the list when it is written anew. The
/// rest goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_is_listed_and_mended() {
    let mut world = World::open();
    world
        .client()
        .await
        .put("kv/rots/here", &value("x"), None)
        .await
        .unwrap();
    assert!(world.take_daemon().stop().success());
    rot(&world, Table::KvMeta);
    world.start();
    world.unseal("daily");
    let client = world.client().await;
    client.put("kv/rots/not", &value("y"), None).await.unwrap();
    let listed = || world.cli().json(&["operator", "quarantine"]);
    assert_eq!(listed()["records"], serde_json::json!([]), "nobody has met it");
    assert_eq!(reason(client.get("kv/rots/here").await), "DAMAGED");
    client.get("kv/rots/not").await.unwrap();
    let told = listed();
    assert!(
        told["records"].as_array().is_some_and(|records| records.len() == 1) && told.to_string().contains("here"),
        "{told}"
    );
    assert_eq!(world.status()["quarantined"], 1);
    let nobody = world.lab.cli().with_token(&world.token("nobody", &[]));
    assert_eq!(
        failure(&nobody.run(&["--output", "json", "operator", "quarantine"]))["reason"],
        "DENIED"
    );
    let destroyed = world.cli().run(&["kv", "destroy", "kv/rots/here", "--all"]);
    assert_eq!(destroyed.code, 0, "{destroyed:?}");
    assert_eq!(listed()["records"], serde_json::json!([]), "off the list");
    client.put("kv/rots/here", &value("z"), Some(0)).await.unwrap();
}

/// R-OPS-1: the demo plays the main job and checks each step; nothing of it goes on running.
#[test]
fn the_demo_runs() {
    let ran = Command::new(binary("demo")).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    let end: String = said
        .chars()
        .rev()
        .take(3000)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .collect();
    assert!(ran.status.success(), "{end}\n{}", String::from_utf8_lossy(&ran.stderr));
}

/// What `doctor` says: its exit code, and each check's health and text by name.
fn doctor(cli: &strongroom_tests::Cli) -> (i32, Value) {
    let ran = cli.run(&["--output", "json", "doctor"]);
    (
        ran.code,
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}")),
    )
}

#[track_caller]
fn says(told: &Value, check: &str, health: &str, words: &str) {
    let found = told["checks"]
        .as_array()
        .unwrap()
        .iter()
        .any(|one| one["check"] == check && one["health"] == health && one.to_string().contains(words));
    assert!(found, "{check} {health} {words}: {told}");
}

/// R-OPS-3: `doctor` names what is wrong and what to do: no daemon, a certificate of somebody else, a sealed vault, no token, an expired one, an
/// HSM that is away, a refused PIN.
#[test]
fn doctor_explains_what_is_wrong() {
    let mut world = World::sealed(Lab::new(), &["daily=hsm+quorum:2/3", "glass=quorum:2/3"]);
    let (code, told) = doctor(&world.cli());
    assert_eq!((code, told["healthy"].clone()), (5, false.into()));
    says(&told, "vault", "fail", "operator unseal");
    world.unseal("daily");
    let (code, told) = doctor(&world.cli());
    assert_eq!(code, 0, "{told}");
    says(&told, "hsm", "ok", "main is up");
    let stranger = Lab::with_tokens(&[]);
    let ran = Command::new(binary("strongroom"))
        .args(["--output", "json", "doctor", "--address"])
        .arg(format!("https://localhost:{}", world.lab.address.port()))
        .arg("--ca-cert")
        .arg(stranger.ca())
        .env_clear()
        .output()
        .unwrap();
    let told: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(ran.status.code(), Some(4), "{told}");
    says(&told, "tls", "fail", "");
    let (_, told) = doctor(&world.lab.cli());
    says(&told, "token", "warn", "token save");
    let short = world.token_with("short", &[], &["--ttl", "1s", "--max-ttl", "1s"]);
    let short = world.lab.cli().with_token(short["token"].as_str().unwrap());
    eventually("its token has expired", || doctor(&short).0 == 3);
    says(&doctor(&short).1, "token", "fail", "log in again");
    an_hsm_that_is_away(&world);
    a_pin_that_is_refused(&mut world);
    assert!(world.take_daemon().stop().success());
    let (code, told) = doctor(&world.cli());
    assert_eq!(code, 4, "{told}");
    says(&told, "connect", "fail", "start the daemon");
}

fn an_hsm_that_is_away(world: &World) {
    let (tokens, away) = (world.lab.dir().join("hsm-main/tokens"), world.lab.dir().join("away"));
    fs::rename(&tokens, &away).unwrap();
    let rotated = world.cli().run(&["--output", "json", "operator", "rotate", "hsm"]);
    assert_eq!(failure(&rotated)["reason"], "HSM_UNAVAILABLE");
    let over_tls = world.cli().over_tls(&world.lab);
    for cli in [world.cli(), over_tls] {
        let (code, told) = doctor(&cli);
        assert_eq!(code, 0, "an open vault goes on: {told}");
        says(&told, "hsm", "warn", "lost HSM");
    }
    fs::rename(&away, &tokens).unwrap();
    eventually("it is back", || {
        world.cli().run(&["operator", "rotate", "hsm"]).code == 0
    });
}

fn a_pin_that_is_refused(world: &mut World) {
    let pin = world.lab.dir().join("hsm-main/pin");
    let right = fs::read(&pin).unwrap();
    assert!(world.take_daemon().stop().success());
    fs::write(&pin, "0000-not-the-pin").unwrap();
    world.start();
    world.unseal("glass");
    world.cli().run(&["operator", "rotate", "hsm"]);
    says(&doctor(&world.cli()).1, "hsm", "warn", "forgive-pin");
    fs::write(&pin, &right).unwrap();
}
