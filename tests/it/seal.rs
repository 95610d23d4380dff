//! The seal and its key slots, by the command line.

use crate::world::{World, eventually, failure, shared, value};
use serde_json::Value;
use std::{
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};
use strongroom_tests::{Lab, Ran, lab::binary};
use strongroomd::seal::quorum::Share;

/// One share towards `verb`, as one holder types it.
fn present(world: &World, verb: &[&str], session: &str, share: &str) -> Ran {
    let mut args = vec!["--output", "json"];
    args.extend(verb);
    if !session.is_empty() {
        args.extend(["--session", session]);
    }
    world.cli().run_with(&args, share.as_bytes())
}

fn answered(ran: &Ran) -> Value {
    assert_eq!(ran.code, 0, "{ran:?}");
    serde_json::from_str(&ran.out).unwrap()
}

fn nonce(answer: &Value) -> String {
    assert_eq!(answer["done"], false, "{answer}");
    answer["session"].as_str().unwrap().to_owned()
}

const UNSEAL: [&str; 4] = ["operator", "unseal", "--slot", "daily"];

/// R-SEAL-2, R-SEAL-3: `hsm+quorum` opens share by share in one session; neither half opens alone; a second slot opens without the HSM;
/// sealed it answers status alone, and a restart seals.
#[test]
fn a_vault_opens_share_by_share_and_closes() {
    let mut world = World::sealed(Lab::new(), &["daily=hsm+quorum:2/3", "glass=quorum:2/3"]);
    let status = world.lab.cli().run(&["--output", "json", "operator", "status"]);
    assert_eq!(status.code, 5, "not open: {status:?}");
    let first = answered(&present(&world, &UNSEAL, "", world.share("daily", 2)));
    assert_eq!((first["have"].clone(), first["need"].clone()), (1.into(), 2.into()));
    let session = nonce(&first);
    let told = world.status();
    assert_eq!(told["sessions"][0]["have"], 1);
    assert!(
        !told.to_string().contains(&session),
        "status tells sessions without their nonces"
    );
    let refused = world.cli().run(&["--output", "json", "kv", "list"]);
    assert_eq!(
        (refused.code, failure(&refused)["reason"].clone()),
        (5, "SEALED".into())
    );
    assert_eq!(
        answered(&present(&world, &UNSEAL, &session, world.share("daily", 0)))["done"],
        true
    );
    let cli = world.cli();
    cli.ok(&["mount", "enable", "kv", "--kind", "kv"]);
    cli.ok_with(&["kv", "put", "kv/a", "-"], b"kept");
    cli.ok(&["operator", "seal"]);
    assert_eq!(world.state(), "sealed");
    world.unseal("glass");
    assert_eq!(cli.ok(&["kv", "get", "kv/a", "--field", "value"]), "kept");
    world.restart();
    assert_eq!(world.state(), "sealed");
    world.unseal("daily");
    assert_eq!(cli.ok(&["kv", "get", "kv/a", "--field", "value"]), "kept");
}

/// A share with the right frame and another value, as somebody would forge who has seen one.
fn forged(share: &str) -> String {
    use sha2::{Digest, Sha256};
    let alphabet = data_encoding::Specification {
        symbols: "abcdefghijklmnopqrstuvwxyz234567".to_owned(),
        ..data_encoding::Specification::default()
    };
    let base32 = alphabet.encoding().unwrap();
    let digits = share.trim_start_matches("srs1-").replace('-', "");
    let mut frame = base32.decode(digits.as_bytes()).unwrap();
    frame[20] ^= 1;
    let check = Sha256::new_with_prefix(b"strongroom.share.checksum/1")
        .chain_update(&frame[..46])
        .finalize();
    frame[46..].copy_from_slice(&check[..4]);
    let text = format!("srs1-{}", base32.encode(&frame));
    assert!(Share::parse(&text).is_ok(), "the forgery has a right checksum");
    text
}

/// R-SEAL-3: what is wrong with a share is named before anything is tried, and costs the session nothing.
#[test]
fn wrong_shares_are_named() {
    let world = World::sealed(Lab::with_tokens(&[]), &["daily=quorum:2/3", "glass=quorum:2/3"]);
    let stranger = World::sealed(Lab::with_tokens(&[]), &["daily=quorum:2/3"]);
    let good = world.share("daily", 0).to_owned();
    let session = nonce(&answered(&present(&world, &UNSEAL, "", &good)));
    let last = if good.ends_with('a') { "b" } else { "a" };
    let mistyped = format!("{}{last}", &good[..good.len() - 1]);
    for (share, words) in [
        (mistyped, "mistyped"),
        (forged(world.share("daily", 1)), "forged"),
        (stranger.share("daily", 1).to_owned(), "another vault"),
        (world.share("glass", 1).to_owned(), "another slot: `glass`"),
        (good, "already"),
        ("srs1-".to_owned() + &"a".repeat(80), "mistyped"),
        ("gibberish".to_owned(), "mistyped"),
    ] {
        let refused = failure(&present(&world, &UNSEAL, &session, &share));
        assert_eq!(refused["reason"], "FACTOR_REFUSED", "{words}: {refused}");
        assert!(
            refused["message"].as_str().unwrap().contains(words),
            "{words}: {refused}"
        );
        assert!(
            !refused.to_string().contains(&share),
            "a share is never repeated: {refused}"
        );
    }
    assert_eq!(
        world.status()["sessions"].as_array().unwrap().len(),
        1,
        "refused shares open no sessions"
    );
    assert_eq!(
        answered(&present(&world, &UNSEAL, &session, world.share("daily", 1)))["done"],
        true
    );
}

/// R-SEAL-3: two half-finished sessions on one slot know nothing of each other; who has no share opens none, who has the nonce gives one up.
#[test]
fn two_sessions_do_not_disturb_each_other() {
    let world = World::sealed(Lab::with_tokens(&[]), &["daily=quorum:3/5"]);
    let one = nonce(&answered(&present(&world, &UNSEAL, "", world.share("daily", 0))));
    let two = nonce(&answered(&present(&world, &UNSEAL, "", world.share("daily", 1))));
    assert_ne!(one, two);
    let have = |session: &str, index: usize| {
        answered(&present(&world, &UNSEAL, session, world.share("daily", index)))["have"].clone()
    };
    assert_eq!((have(&one, 2), have(&two, 3)), (2.into(), 2.into()));
    for guess in ["0000000000000000", "zz", ""] {
        let refused = world.lab.cli().run(&["operator", "abandon", "--session", guess]);
        assert_ne!(refused.code, 0, "{guess:?} is nobody's nonce");
    }
    world.lab.cli().ok(&["operator", "abandon", "--session", &one]);
    let gone = failure(&present(&world, &UNSEAL, &one, world.share("daily", 4)));
    assert!(gone["message"].as_str().unwrap().contains("no such session"), "{gone}");
    assert_eq!(
        answered(&present(&world, &UNSEAL, &two, world.share("daily", 4)))["done"],
        true
    );
    assert_eq!(world.state(), "open");
}

/// R-SEAL-4: slots are added, verified, re-keyed and removed while requests go on; none of them fails; what was removed or replaced opens
/// nothing, what was added does. An admin token alone changes no slot.
#[test]
fn slots_change_under_load() {
    let mut world = World::sealed(Lab::with_tokens(&[]), &["daily=quorum:2/3"]);
    world.unseal("daily");
    world.cli().ok(&["mount", "enable", "kv", "--kind", "kv"]);
    let load = Load::start(&world);
    let cli = world.cli();
    let daily = world.lines("daily");
    let slots = |args: &[&str], stdin: &str| -> Value {
        let args = [&["--output", "json", "operator", "slots"], args].concat();
        answered(&cli.run_with(&args, stdin.as_bytes()))
    };
    let added = slots(&["add", "glass=quorum:2/2", "--with-slot", "daily"], &daily);
    let glass: Vec<_> = added["shares"]["shares"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(glass.len(), 2);
    slots(&["verify", "--slot", "glass"], &glass.join("\n"));
    let listed = cli.json(&["operator", "slots", "list"]);
    let of = |name: &str| {
        listed["slots"]
            .as_array()
            .unwrap()
            .iter()
            .find(|slot| slot["name"] == name)
            .cloned()
            .unwrap()
    };
    assert!(!of("glass")["verified_at"].as_str().unwrap().is_empty(), "{listed}");
    let rekeyed = slots(
        &["rekey", "daily=quorum:2/2", "--with-slot", "glass"],
        &glass.join("\n"),
    );
    let fresh: Vec<_> = rekeyed["shares"]["shares"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s.as_str().unwrap().to_owned())
        .collect();
    let refused = cli.run_with(
        &[
            "--output",
            "json",
            "operator",
            "slots",
            "remove",
            "daily",
            "--with-slot",
            "daily",
        ],
        daily.as_bytes(),
    );
    assert!(
        failure(&refused)["message"].as_str().unwrap().contains("old"),
        "{refused:?}"
    );
    slots(&["remove", "glass", "--with-slot", "daily"], &fresh.join("\n"));
    load.none_failed();
    world.restart();
    let old = cli.run_with(
        &["--output", "json", "operator", "unseal", "--slot", "glass"],
        glass.join("\n").as_bytes(),
    );
    assert_ne!(old.code, 0, "a removed slot opens nothing: {old:?}");
    cli.ok_with(&UNSEAL, fresh.join("\n").as_bytes());
    assert_eq!(world.state(), "open");
}

/// R-SEAL-4: an answer with new shares that was lost on its way is asked for again with the share that completed the session.
#[test]
fn lost_shares_are_asked_for_again() {
    let world = World::open();
    let add = ["operator", "slots", "add", "glass=quorum:2/2", "--with-slot", "daily"];
    let session = nonce(&answered(&present(&world, &add, "", world.share("daily", 0))));
    let made = answered(&present(&world, &add, &session, world.share("daily", 2)));
    assert_eq!(made["shares"]["shares"].as_array().unwrap().len(), 2, "{made}");
    let again = answered(&present(&world, &add, &session, world.share("daily", 2)));
    assert_eq!(again["shares"], made["shares"]);
    for other in [world.share("daily", 0), world.share("daily", 1)] {
        let refused = failure(&present(&world, &add, &session, other));
        assert_eq!(refused["reason"], "FACTOR_REFUSED", "not by another holder: {refused}");
    }
    let shares = made["shares"]["shares"].as_array().unwrap();
    let lines: Vec<_> = shares.iter().filter_map(Value::as_str).collect();
    let verify = ["operator", "slots", "verify", "--slot", "glass"];
    let verified = present(&world, &verify, "", &lines.join("\n"));
    assert_eq!(answered(&verified)["done"], true);
}

/// R-LEASE-1: a leap of the clock is confirmed only where there is one, and only by whom policies let.
#[test]
fn there_is_no_leap_to_confirm() {
    let world = &shared().world;
    let confirm = ["--output", "json", "operator", "confirm-time"];
    assert_eq!(failure(&world.cli().run(&confirm))["reason"], "NOT_POSSIBLE");
    let nobody = world.lab.cli().with_token(&world.token("no-operator", &[]));
    assert_eq!(failure(&nobody.run(&confirm))["reason"], "DENIED");
}

/// Writes and reads on a thread of their own, until they are asked for.
pub struct Load {
    stop: Arc<AtomicBool>,
    working: JoinHandle<Result<u32, String>>,
}

impl Load {
    pub fn start(world: &World) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let builder = world.client_builder();
        let working = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let client = runtime.block_on(builder.connect()).unwrap();
            let mut done = 0;
            while !until.load(Ordering::Relaxed) {
                let text = format!("value {done}");
                runtime.block_on(async {
                    client
                        .put("kv/load/one", &value(&text), None)
                        .await
                        .map_err(|error| format!("put {done}: {error:?}"))?;
                    let read = client
                        .get("kv/load/one")
                        .await
                        .map_err(|error| format!("get {done}: {error:?}"))?;
                    (read.field("value").unwrap().expose() == text.as_bytes())
                        .then_some(())
                        .ok_or("another value".to_owned())
                })?;
                done += 1;
            }
            Ok(done)
        });
        Self { stop, working }
    }

    /// Stops it; every request must have been answered well.
    #[track_caller]
    pub fn none_failed(self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        let done = self
            .working
            .join()
            .unwrap()
            .unwrap_or_else(|error| panic!("a request failed: {error}"));
        assert!(done > 5, "the load did something: {done}");
        done
    }
}

/// R-SEAL-3 (`operator recover`): a slot's fresh factors give a token for policy and tokens alone, in an open vault.
#[test]
fn recovery_mends_policies_and_reads_nothing() {
    let world = World::open();
    world.put_policy("nobody", "forbid(principal, action, resource);");
    assert_eq!(world.cli().run(&["kv", "list"]).code, 3, "a policy refuses everyone");
    let made = answered(&world.lab.cli().run_with(
        &["--output", "json", "operator", "recover", "--slot", "daily"],
        world.lines("daily").as_bytes(),
    ));
    assert_eq!(made["token_ttl_secs"], 3600, "{made}");
    let rescuer = world.lab.cli().with_token(made["token"].as_str().unwrap());
    assert_eq!(
        rescuer.run(&["kv", "put", "kv/a", "--literal", "a=b"]).code,
        3,
        "not a way to secrets"
    );
    rescuer.ok(&["policy", "delete", "nobody"]);
    world.cli().ok(&["kv", "list"]);
    eventually("the recovery stands in the log", || {
        world.daemon().log_text().contains("recovery token")
    });
}

/// R-SEAL-2: an `hsm`-only slot opens by itself at start, and the log says so.
#[test]
fn an_hsm_slot_opens_by_itself() {
    let mut world = World::sealed(Lab::new(), &["auto=hsm", "glass=quorum:2/3"]);
    eventually("open after init", || world.state() == "open");
    world.cli().ok(&["mount", "enable", "kv", "--kind", "kv"]);
    world.cli().ok_with(&["kv", "put", "kv/a", "-"], b"kept");
    world.take_daemon().kill9();
    world.start();
    eventually("open after a start", || world.state() == "open");
    assert_eq!(world.cli().ok(&["kv", "get", "kv/a", "--field", "value"]), "kept");
    assert!(world.daemon().log_text().contains("needs no operator"));
}

/// R-SEAL-3: `init` is for root or the daemon's own user, on the Unix socket: not over TLS, not for another local user, not twice.
#[test]
fn init_is_for_the_owner_alone() {
    let lab = Lab::with_tokens(&[]);
    let daemon = lab.start();
    let init = ["--output", "json", "operator", "init", "--slot", "daily=quorum:2/3"];
    let over_tls = lab.cli().over_tls(&lab).run(&init);
    assert_eq!(failure(&over_tls)["reason"], "OWNER_ONLY");
    if rustix::process::geteuid().is_root() {
        std::fs::set_permissions(lab.dir(), std::fs::Permissions::from_mode(0o711)).unwrap();
        let program = lab.dir().join("strongroom");
        std::fs::copy(binary("strongroom"), &program).unwrap();
        let ran = Command::new(program)
            .args(init)
            .env_clear()
            .env("STRONGROOM_ADDR", format!("unix:{}", lab.socket().display()))
            .uid(65_534)
            .output()
            .unwrap();
        let err = String::from_utf8_lossy(&ran.stderr);
        assert!(err.contains("OWNER_ONLY"), "another user: {err}");
    } else {
        eprintln!("NOT TESTED: another local user (needs root)");
    }
    lab.cli().ok(&init);
    assert_eq!(failure(&lab.cli().run(&init))["reason"], "NOT_POSSIBLE", "not twice");
    drop(daemon);
}

/// R-SEAL-3: `doctor` and `status` of an open vault say so.
#[test]
fn doctor_finds_a_healthy_vault() {
    let world = World::open();
    let told = world.cli().json(&["doctor"]);
    assert_eq!(told["healthy"], true, "{told}");
    assert_eq!(world.status()["state"], "open");
}
