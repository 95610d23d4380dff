//! The daemon as a process: configuration, signals, one owner of a store.

use crate::{
    wire::handshake,
    world::{PATIENCE, World, eventually, value},
};
use rustix::process::Signal;
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Command, Output, Stdio},
    time::Instant,
};
use strongroom_tests::{Lab, daemon::http, lab::binary};

fn strongroomd(lab: &Lab, args: &[&str]) -> Output {
    Command::new(binary("strongroomd"))
        .arg("--config")
        .arg(lab.config_file())
        .args(args)
        .output()
        .unwrap()
}

/// R-OPS-4: `check-config` says that a file is right, or names key and line; the daemon refuses to start with the same words.
#[test]
fn configuration_errors_name_key_and_line() {
    let lab = Lab::with_tokens(&[]);
    let file = lab.write_config();
    assert!(strongroomd(&lab, &["check-config"]).status.success());
    let right = fs::read_to_string(&file).unwrap();
    for (wrong, words) in [
        (
            right.replace("[store]\n", "[store]\nbakend = \"fjall\"\n"),
            ["bakend", "line"],
        ),
        (
            right.replace("[store]\n", "[store]\nbackend = \"sled\"\n"),
            ["accept_risk", "line"],
        ),
        (
            right.replace("level = \"debug\"", "level = \"loud\""),
            ["log.level", "line"],
        ),
        (right.replace("tls_key", "# tls_key"), ["tls_key", "line"]),
    ] {
        assert_ne!(wrong, right);
        fs::write(&file, wrong).unwrap();
        for args in [&["check-config"][..], &[]] {
            let output = strongroomd(&lab, args);
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success(), "{words:?}");
            assert!(words.iter().all(|word| told.contains(word)), "{words:?}: {told}");
        }
    }
}

/// R-OPS-4: `check-config` and the start look at what the file names, before anything is made: key, line, what to do, and no value.
#[test]
fn missing_files_are_named_before_the_start() {
    let lab = Lab::new();
    let right = fs::read_to_string(lab.write_config()).unwrap();
    let told = |args: &[&str]| {
        let output = strongroomd(&lab, args);
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let (fine, words) = told(&["check-config"]);
    assert!(fine && words.contains("configuration is right"), "{words}");
    let data = lab.data().display().to_string();
    for (from, to, words) in [
        (
            "/server.pem\"".to_owned(),
            "/elsewhere.pem\"".to_owned(),
            ["line 3", "listener.tls_cert"],
        ),
        (
            "/server.pem\"".to_owned(),
            "/server.key\"".to_owned(),
            ["line 3", "listener.tls_cert"],
        ),
        (
            "/server.pem\"".to_owned(),
            "/ca.pem\"".to_owned(),
            ["line 4", "listener.tls_key"],
        ),
        (
            "pin_file = \"".to_owned(),
            "pin_file = \"/nowhere".to_owned(),
            ["line", "hsm.main.pin_file"],
        ),
        (
            "module = \"".to_owned(),
            "module = \"/nowhere".to_owned(),
            ["line", "hsm.main.module"],
        ),
        (
            "segment_mib = 4".to_owned(),
            format!("segment_mib = 4\npath = \"{data}\""),
            ["line", "audit.path"],
        ),
    ] {
        let wrong = right.replacen(&from, &to, 1);
        assert_ne!(wrong, right);
        fs::write(lab.config_file(), wrong).unwrap();
        // A daemon starts without its HSMs: the next test.
        let ways = [&["check-config"][..], &[]];
        let ways = &ways[..if words[1].starts_with("hsm.") { 1 } else { 2 }];
        for args in ways {
            let (fine, told) = told(args);
            assert!(!fine, "{words:?}");
            assert!(words.iter().all(|word| told.contains(word)), "{words:?}: {told}");
            assert!(!told.contains("nowhere"), "{told}");
        }
    }
    assert!(!lab.data().exists(), "nothing was made");
}

/// R-SEAL-6: a PIN file that is gone keeps nobody out who has another slot's factors; status tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_pin_does_not_keep_the_daemon_down() {
    let mut lab = Lab::new();
    lab.hsms[0].pin = strongroom_hsm::PinSource::File(lab.dir().join("gone"));
    let world = World::opened(lab);
    let status = world.status();
    assert_eq!(status["state"], "open");
    assert_eq!(status["hsms"].as_array().map(Vec::len), Some(1), "{status}");
}

/// SIGTERM drains: what was acknowledged is there after a new start, what was in flight got an answer, the exit code is 0.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains() {
    let mut world = World::open();
    let client = world.client().await;
    let writes: Vec<_> = (0..32)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { (n, client.put(&format!("kv/drained/{n}"), &value("x"), None).await) })
        })
        .collect();
    world.daemon().signal(Signal::TERM);
    let mut acknowledged = Vec::new();
    for write in writes {
        if let (n, Ok(_)) = write.await.unwrap() {
            acknowledged.push(n);
        }
    }
    drop(client);
    assert!(world.take_daemon().ended().success(), "exit code 0");
    world.start();
    world.unseal("daily");
    let client = world.client().await;
    for n in acknowledged {
        client.get(&format!("kv/drained/{n}")).await.unwrap();
    }
}

/// R-OPS-2: SIGHUP takes a new certificate without a restart; one that is broken leaves the old in place.
#[tokio::test(flavor = "multi_thread")]
async fn sighup_takes_a_new_certificate() {
    let lab = Lab::with_tokens(&[]);
    let daemon = lab.start();
    let served = || async { handshake(&lab, &[&rustls::version::TLS13]).await };
    let first = served().await.unwrap().1;
    lab.renew_certificates();
    assert_eq!(
        served().await.err().map(|_| ()),
        Some(()),
        "the client trusts the new CA alone"
    );
    daemon.signal(Signal::HUP);
    let began = Instant::now();
    let second = loop {
        match served().await {
            Ok((_, certificate)) => break certificate,
            Err(error) => assert!(began.elapsed() < PATIENCE, "still the old one: {error}"),
        }
    };
    assert_ne!(first, second);
    fs::write(lab.dir().join("server.pem"), "no certificate").unwrap();
    daemon.signal(Signal::HUP);
    eventually("the log names the file", || {
        daemon.log_text().contains("the certificate stays the old one")
    });
    assert_eq!(served().await.unwrap().1, second);
}

/// R-STORE-1: a store has one owner: a second daemon on the same directory does not start, and harms nothing.
#[test]
fn a_store_has_one_owner() {
    let world = World::open();
    let mut second = Lab::with_tokens(&[]);
    second.extra = String::new();
    let text = fs::read_to_string(second.write_config()).unwrap();
    let stolen = text.replace(
        &second.data().display().to_string(),
        &world.lab.data().display().to_string(),
    );
    fs::write(second.config_file(), stolen).unwrap();
    let output = strongroomd(&second, &[]);
    assert!(!output.status.success(), "{output:?}");
    world.cli().ok_with(&["kv", "put", "kv/a", "-"], b"x");
}

/// R-OPS-3: health, readiness and metrics over HTTP; the log is JSON with request ids.
#[test]
fn metrics_and_health_are_served() {
    let world = World::sealed(Lab::with_tokens(&[]), &["daily=quorum:2/3"]);
    assert!(!world.daemon().is_ready(), "sealed is alive, not ready");
    world.unseal("daily");
    assert!(world.daemon().is_ready());
    world.cli().ok(&["mount", "enable", "kv", "--kind", "kv"]);
    let metrics = world.daemon().metrics();
    for word in ["strongroom_", "mount.enable", "# EOF"] {
        assert!(metrics.contains(word), "{word}: {metrics}");
    }
    assert!(http(world.lab.metrics, "/nothing").unwrap().starts_with("HTTP/1.1 404"));
    for line in world.daemon().log_text().lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

/// R-OPS-1: `strongroomd dev` is unsealed, says how it is used, is used so, and leaves nothing.
#[test]
fn a_throw_away_daemon_is_ready_at_once() {
    let mut child = Command::new(binary("strongroomd"))
        .args(["dev", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let told = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let mut said = Vec::new();
    for line in told {
        said.push(line.trim().to_owned());
        if line.contains("Ctrl-C") {
            break;
        }
    }
    let told = |name: &str| {
        let line = said
            .iter()
            .find_map(|line| line.strip_prefix(&format!("export {name}=")));
        line.unwrap_or_else(|| panic!("{name}: {said:?}")).to_owned()
    };
    let token = told("STRONGROOM_TOKEN").replace("$(cat ", "").replace(')', "");
    let ca = told("STRONGROOM_CACERT");
    let strongroom = |args: &[&str]| {
        let mut ran = Command::new(binary("strongroom"))
            .args(args)
            .env_clear()
            .env("STRONGROOM_ADDR", told("STRONGROOM_ADDR"))
            .env("STRONGROOM_CACERT", &ca)
            .env("STRONGROOM_TOKEN", fs::read_to_string(&token).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = ran.stdin.take().unwrap().write_all(b"s3cret");
        String::from_utf8(ran.wait_with_output().unwrap().stdout).unwrap()
    };
    strongroom(&["mount", "enable", "kv", "--kind", "kv"]);
    strongroom(&["kv", "put", "kv/hello", "-"]);
    assert_eq!(strongroom(&["kv", "get", "kv/hello", "--field", "value"]), "s3cret");
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::INT).unwrap();
    assert!(child.wait().unwrap().success());
    let dir = std::path::Path::new(&ca).parent().unwrap();
    assert!(!dir.exists(), "nothing of it remains, not even its directory");
}

/// R-STORE-3: the other engine that may be chosen does the same job, and status says what was accepted with it.
#[tokio::test(flavor = "multi_thread")]
async fn sled_is_selectable() {
    let mut lab = Lab::with_tokens(&[]);
    lab.store = "backend = \"sled\"\naccept_risk = \"sled may lose acknowledged writes on power loss\"".to_owned();
    let mut world = World::opened(lab);
    world.client().await.put("kv/a", &value("kept"), None).await.unwrap();
    world.restart();
    world.unseal("daily");
    let read = world.client().await.get("kv/a").await.unwrap();
    assert_eq!(read.field("value").unwrap().expose(), b"kept");
    let status = world.status();
    assert_eq!(status["store_backend"], "sled");
    assert!(status["warnings"].to_string().contains("power loss"), "{status}");
}
