//! HSM trouble, live: a token that vanishes, a worker that is killed, a worker that hangs. R-SEAL-6.

use crate::{
    audit::records,
    seal::Load,
    world::{World, eventually},
};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use strongroom_tests::Lab;

fn open() -> World {
    let world = World::sealed(Lab::new(), &["daily=hsm+quorum:2/3"]);
    world.unseal("daily");
    world.cli().ok(&["mount", "enable", "kv", "--kind", "kv"]);
    world
}

/// Processes below the daemon whose command line has this word.
pub fn below(daemon: u32, word: &str) -> Vec<Pid> {
    let mut found = Vec::new();
    let mut parents = vec![daemon];
    while let Some(parent) = parents.pop() {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let of = stat
                .rsplit(')')
                .next()
                .and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
            if of == Some(parent) {
                parents.push(pid);
                let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
                if line.contains(word) {
                    found.push(Pid::from_raw(pid as i32).unwrap());
                }
            }
        }
    }
    found
}

/// Whether the HSM did something that only it can do.
fn rotates(world: &World) -> bool {
    world.cli().run(&["--timeout", "60s", "operator", "rotate", "hsm"]).code == 0
}

fn hsm_state(world: &World) -> String {
    world.status()["hsms"][0]["state"].as_str().unwrap().to_owned()
}

/// R-SEAL-6: the token's files are moved away and back: requests go on, the loss is reported, and it recovers in process.
#[test]
fn a_token_that_vanishes_comes_back() {
    let world = open();
    let load = Load::start(&world);
    let tokens = world.lab.dir().join("hsm-main/tokens");
    let away = world.lab.dir().join("away");
    fs::rename(&tokens, &away).unwrap();
    let refused = world
        .cli()
        .run(&["--output", "json", "--timeout", "60s", "operator", "rotate", "hsm"]);
    let error = crate::world::failure(&refused);
    assert_eq!(
        (error["reason"].clone(), error["exit_code"].clone()),
        ("HSM_UNAVAILABLE".into(), 4.into()),
        "{error}"
    );
    eventually("status reports it", || hsm_state(&world) != "up");
    fs::rename(&away, &tokens).unwrap();
    eventually("it is back", || rotates(&world));
    assert_eq!(hsm_state(&world), "up");
    load.none_failed();
    world.cli().ok(&["operator", "seal"]);
    world.unseal("daily");
}

/// R-SEAL-2, R-SEAL-6: an `hsm` slot opens the vault when the token comes after the daemon; until then status says why it is sealed. Once somebody
/// has sealed the vault it stays so.
#[test]
fn an_hsm_that_comes_late_opens_the_vault() {
    let mut world = World::sealed(Lab::new(), &["auto=hsm", "glass=quorum:1/2"]);
    eventually("it opens by itself", || world.state() == "open");
    world.take_daemon().kill9();
    let tokens = world.lab.dir().join("hsm-main/tokens");
    let away = world.lab.dir().join("away");
    fs::rename(&tokens, &away).unwrap();
    world.start();
    let status = world.status();
    assert_eq!(status["state"], "sealed", "{status}");
    assert!(
        status["warnings"]
            .to_string()
            .contains("no `hsm` slot opened the vault"),
        "{status}"
    );
    fs::rename(&away, &tokens).unwrap();
    eventually("the token is back", || world.state() == "open");
    world.cli().ok(&["operator", "seal"]);
    std::thread::sleep(std::time::Duration::from_secs(6));
    assert_eq!(world.state(), "sealed");
}

/// R-SEAL-6: a worker that is killed is started anew by the daemon that lived on.
#[test]
fn a_worker_that_is_killed_is_replaced() {
    let world = open();
    let load = Load::start(&world);
    for round in 0..3 {
        assert!(rotates(&world) || round > 0, "there is a worker");
        below(world.daemon().pid(), "hsm-worker")
            .into_iter()
            .for_each(|pid| kill_process(pid, Signal::KILL).unwrap());
        eventually("a new worker works", || rotates(&world));
    }
    load.none_failed();
    assert!(
        world.status()["hsms"][0]["respawns"].as_u64().unwrap() >= 1,
        "{}",
        world.status()
    );
}

/// R-SEAL-6: the supervisor that starts workers is killed under a running daemon, which can start no program itself any more: the one that
/// waited takes its place, and nobody notices who does not need the HSM.
#[test]
fn a_supervisor_that_is_killed_is_replaced() {
    let world = open();
    let load = Load::start(&world);
    assert!(rotates(&world));
    let supervisors = below(world.daemon().pid(), "hsm-supervisor");
    assert_eq!(supervisors.len(), 2, "one works, one waits");
    kill_process(supervisors[0], Signal::KILL).unwrap();
    eventually("a worker of the other one works", || rotates(&world));
    load.none_failed();
    world.cli().ok(&["operator", "seal"]);
    world.unseal("daily");
}

/// R-SEAL-6: a worker that hangs is found out, killed and replaced; nobody waits for it who does not need the HSM.
#[test]
fn a_worker_that_hangs_is_replaced() {
    let world = open();
    assert!(rotates(&world));
    let load = Load::start(&world);
    let workers = below(world.daemon().pid(), "hsm-worker");
    assert!(!workers.is_empty(), "there is a worker");
    workers.iter().for_each(|pid| kill_process(*pid, Signal::STOP).unwrap());
    eventually("a new worker works", || rotates(&world));
    load.none_failed();
    for pid in workers {
        let alive = fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_nonzero()))
            .is_ok_and(|line| line.contains("hsm-worker"));
        assert!(!alive, "the hung worker is gone");
    }
}

/// R-SEAL-2: a slot with a sealed seed on two tokens opens with either: one is lost, the vault still opens.
#[test]
fn either_of_two_tokens_opens_a_slot() {
    let mut world = World::sealed(
        Lab::with_tokens(&["one", "two"]),
        &["auto=hsm@one,two", "glass=quorum:2/3"],
    );
    eventually("open after init", || world.state() == "open");
    for lost in ["one", "two"] {
        let (tokens, away) = (
            world.lab.dir().join(format!("hsm-{lost}/tokens")),
            world.lab.dir().join("away"),
        );
        assert!(world.take_daemon().stop().success());
        fs::rename(&tokens, &away).unwrap();
        world.start();
        eventually("the other token opens it", || world.state() == "open");
        assert!(world.take_daemon().stop().success());
        fs::rename(&away, &tokens).unwrap();
        world.start();
        eventually("both are there", || world.state() == "open");
    }
}

/// R-SEAL-6: a refused PIN is told, never repeated by itself, not even by a new start; once it is mended a person says so, and the session goes
/// on with the shares it has.
#[test]
fn a_refused_pin_waits_for_a_person() {
    let mut world = World::sealed(Lab::new(), &["daily=hsm+quorum:2/3", "glass=quorum:2/3"]);
    let pin = world.lab.dir().join("hsm-main/pin");
    let right = fs::read(&pin).unwrap();
    assert!(world.take_daemon().stop().success());
    let unseal = |world: &World| {
        let lines = world.lines("daily");
        world.cli().run_with(
            &["--output", "json", "operator", "unseal", "--slot", "daily"],
            lines.as_bytes(),
        )
    };
    // A file that others can read gives no PIN.
    fs::set_permissions(&pin, std::os::unix::fs::PermissionsExt::from_mode(0o604)).unwrap();
    world.start();
    let loose = crate::world::failure(&unseal(&world));
    assert!(loose.to_string().contains("chmod 0600"), "{loose}");
    assert!(world.take_daemon().stop().success());
    fs::set_permissions(&pin, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::write(&pin, "0000-not-the-pin").unwrap();
    world.start();
    let refused = crate::world::failure(&unseal(&world));
    assert_eq!(refused["reason"], "HSM_PIN_REFUSED", "{refused}");
    fs::write(&pin, &right).unwrap();
    world.restart();
    let held = crate::world::failure(&unseal(&world));
    let session = held["next"]
        .as_str()
        .unwrap()
        .split("--session ")
        .nth(1)
        .expect("the session goes on")
        .to_owned();
    assert_eq!(hsm_state(&world), "held", "{}", world.status());
    world.lab.cli().ok(&["operator", "forgive-pin", "main"]);
    world.lab.cli().ok(&[
        "operator",
        "unseal",
        "--slot",
        "daily",
        "--session",
        session.trim(),
        "--again",
    ]);
    assert_eq!(world.state(), "open");
    assert_eq!(hsm_state(&world), "up");
    // R-AUDIT-1: which HSM was forgiven; what names none is not repeated.
    world.lab.cli().run(&["operator", "forgive-pin", "stranger"]);
    let forgiven: Vec<_> = records(&world.cli())
        .into_iter()
        .filter(|record| record["op"] == "operator.forgive-pin")
        .collect();
    assert_eq!(forgiven.len(), 2, "{forgiven:?}");
    assert_eq!(forgiven[0]["params"]["hsm"], "main", "{forgiven:?}");
    assert!(!forgiven[1].to_string().contains("stranger"), "{forgiven:?}");
}
