//! The suite on SoftHSM2, and what needs a module that misbehaves.
//!
//! Needs SoftHSM2 (`apt-get install softhsm2`) and `openssl`; fails without.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // test code outside of `#[test]` functions

mod suite;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use strongroom_hsm::{ErrorKind, Hsm, HsmConfig, KeyKind, Launcher, Mechanism, State, TokenSelector, softhsm};
use suite::{Subject, ring, seed, until_ok, wait};

const PROGRAM: &str = env!("CARGO_BIN_EXE_strongroom-hsm-worker");

fn subject() -> Subject {
    let dir = tempfile::tempdir().unwrap();
    let launcher = Launcher::exec(PROGRAM, &["hsm-worker"]);
    let config = softhsm::create(dir.path(), "soft", "vault-test", &launcher).unwrap();
    Subject {
        config,
        launcher,
        program: PROGRAM.into(),
        storage: dir.path().join("tokens"),
        // RSA-OAEP only with SHA-1 (ARGUMENTS_BAD for SHA-256), which is not offered.
        mechanisms: &[Mechanism::Gcm, Mechanism::Kw, Mechanism::CbcHmac],
        locks_after: None,
        dir,
    }
}

suite!(super::subject);

#[test]
fn thief() {
    suite::keys::thief();
}

/// SoftHSM behind the module that misbehaves.
struct Faulty {
    subject: Subject,
    dir: PathBuf,
}

fn faulty() -> Faulty {
    let mut subject = subject();
    let module = Path::new(PROGRAM)
        .parent()
        .unwrap()
        .join("examples/libfaulty_module.so");
    assert!(
        module.exists(),
        "{} is built by `cargo test -p strongroom-hsm` without --test",
        module.display()
    );
    let dir = subject.dir.path().join("faulty");
    fs::create_dir(&dir).unwrap();
    let real = std::mem::replace(&mut subject.config.module, module);
    subject
        .config
        .env
        .insert("FAULTY_REAL".into(), real.to_str().unwrap().into());
    subject
        .config
        .env
        .insert("FAULTY_DIR".into(), dir.to_str().unwrap().into());
    Faulty { subject, dir }
}

impl Faulty {
    fn set(&self, fault: &str) {
        fs::write(self.dir.join("fault.new"), fault).unwrap();
        fs::rename(self.dir.join("fault.new"), self.dir.join("fault")).unwrap();
    }

    fn heal(&self) {
        let _ = fs::remove_file(self.dir.join("fault"));
    }

    fn count(&self, what: &str) -> usize {
        fs::read(self.dir.join(what)).map_or(0, |b| b.len())
    }
}

/// R-SEAL-6: counted in the module: one refused PIN is one `C_Login`, whatever calls, probes and restarts follow.
/// The token gives no warning afterwards, so it is our own record that holds.
#[test]
fn wrong_pin_reaches_the_token_once() {
    let mut faulty = faulty();
    faulty.subject.config.deadlines.probe = Duration::from_millis(20);
    faulty.set("refused-login");
    for _restart in 0..3 {
        let hsm = faulty.subject.start();
        wait(&hsm, State::Held);
        for _ in 0..3 {
            hsm.list(&ring("root")).unwrap_err();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(faulty.count("logins"), 1);
    let hsm = faulty.subject.start();
    wait(&hsm, State::Held);
    hsm.forgive_pin();
    let end = Instant::now() + Duration::from_secs(10);
    while faulty.count("logins") < 2 {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(faulty.count("logins"), 2, "one try each time an operator says so");
}

/// R-SEAL-6: whatever the token warns of, no try is spent without an operator.
#[test]
fn warnings_stop_the_login() {
    for warning in ["warn-low", "warn-final", "warn-locked"] {
        let faulty = faulty();
        faulty.set(warning);
        let hsm = faulty.subject.start();
        let health = wait(&hsm, State::Held);
        assert_eq!(health.last_error.unwrap().kind, ErrorKind::AuthHeld, "{warning}");
        assert!(health.pin.any());
        assert_eq!(faulty.count("logins"), 0, "{warning}");
        hsm.forgive_pin();
        wait(&hsm, State::Up);
        assert_eq!(faulty.count("logins"), 1, "{warning}");
    }
}

/// `CKR_PIN_LOCKED`, which SoftHSM never says by itself.
#[test]
fn locked_answer() {
    let faulty = faulty();
    faulty.set("locked-login");
    let hsm = faulty.subject.start();
    assert_eq!(wait(&hsm, State::Held).last_error.unwrap().kind, ErrorKind::AuthLocked);
    assert_eq!(faulty.count("logins"), 1);
}

/// R-SEAL-6: a module that aborts takes its worker with it and nothing else; two log-ins whose outcome nobody saw
/// are the most.
#[test]
fn aborts() {
    let faulty = faulty();
    let (hsm, ring) = faulty.subject.start_with_kek();
    let blob = hsm.seal(&ring, 1, b"c", &seed(1)).unwrap();
    faulty.set("abort-decrypt");
    assert_eq!(hsm.open(&blob, b"c").unwrap_err().kind, ErrorKind::Crashed);
    faulty.heal();
    assert_eq!(*until_ok(|| hsm.open(&blob, b"c")), *seed(1));
    faulty.set("abort-load");
    hsm.stop();
    assert_eq!(hsm.open(&blob, b"c").unwrap_err().kind, ErrorKind::Crashed);
    faulty.heal();
    assert_eq!(*until_ok(|| hsm.open(&blob, b"c")), *seed(1));
    let before = faulty.count("logins");
    faulty.set("abort-login");
    hsm.stop();
    let end = Instant::now() + Duration::from_secs(10);
    while hsm.open(&blob, b"c").unwrap_err().kind != ErrorKind::AuthHeld {
        assert!(Instant::now() < end);
    }
    assert_eq!(faulty.count("logins") - before, 2);
    faulty.heal();
    hsm.forgive_pin();
    assert_eq!(*until_ok(|| hsm.open(&blob, b"c")), *seed(1));
}

/// A module that hangs inside a call.
#[test]
fn hangs() {
    let mut faulty = faulty();
    faulty.subject.config.deadlines.call = Duration::from_secs(1);
    let (hsm, ring) = faulty.subject.start_with_kek();
    let blob = hsm.seal(&ring, 1, b"c", &seed(1)).unwrap();
    faulty.set("hang-decrypt");
    assert_eq!(hsm.open(&blob, b"c").unwrap_err().kind, ErrorKind::Timeout);
    faulty.heal();
    assert_eq!(*until_ok(|| hsm.open(&blob, b"c")), *seed(1));
}

/// The canary: an unclear answer with a working key is bad data, with a key that fails too it is the device.
#[test]
fn canary_decides() {
    let faulty = faulty();
    let (hsm, ring) = faulty.subject.start_with_kek();
    let blob = hsm.seal(&ring, 1, b"c", &seed(1)).unwrap();
    faulty.set("general-decrypt once");
    assert_eq!(
        hsm.open(&blob, b"c").unwrap_err().kind,
        ErrorKind::Integrity,
        "the canary opened"
    );
    faulty.set("general-decrypt");
    assert_eq!(
        hsm.open(&blob, b"c").unwrap_err().kind,
        ErrorKind::Device,
        "the canary failed too"
    );
    assert_eq!(hsm.health().state, State::Down);
    faulty.heal();
    assert_eq!(*until_ok(|| hsm.open(&blob, b"c")), *seed(1));
}

/// Lost sessions and device errors: one retry with a new worker, invisible to the caller.
#[test]
fn passing_errors_are_retried_once() {
    for fault in [
        "session-encrypt-init once",
        "active-encrypt-init once",
        "device-encrypt once",
        "general-encrypt once",
    ] {
        let faulty = faulty();
        let (hsm, ring) = faulty.subject.start_with_kek();
        let before = (hsm.health().spawns, faulty.count("initializes"));
        faulty.set(fault);
        let blob = hsm.seal(&ring, 1, b"c", &seed(1)).unwrap();
        assert_eq!(*hsm.open(&blob, b"c").unwrap(), *seed(1));
        let after = (hsm.health().spawns, faulty.count("initializes"));
        assert_eq!(after, (before.0 + 1, before.1 + 1), "{fault}");
        assert_eq!(hsm.health().state, State::Up);
    }
}

/// `create` is never repeated: what it did is unknown.
#[test]
fn create_is_not_repeated() {
    let faulty = faulty();
    let hsm = faulty.subject.start();
    wait(&hsm, State::Up);
    faulty.set("abort-generate once");
    assert_eq!(
        hsm.create(&ring("root"), 1, KeyKind::Kek).unwrap_err().kind,
        ErrorKind::Crashed
    );
    assert_eq!(until_ok(|| hsm.list(&ring("root"))), []);
}

/// "No such key" and "no keys" are believed only after a fresh `C_Initialize`.
#[test]
fn vanished_keys_come_back() {
    let faulty = faulty();
    let (hsm, ring) = faulty.subject.start_with_kek();
    let blob = hsm.seal(&ring, 1, b"c", &seed(1)).unwrap();
    let spawns = hsm.health().spawns;
    let old = || std::thread::sleep(Duration::from_millis(2100)); // older than "fresh"
    old();
    faulty.set("vanish once");
    assert_eq!(*hsm.open(&blob, b"c").unwrap(), *seed(1));
    assert_eq!(hsm.health().spawns, spawns + 1);
    old();
    faulty.set("vanish once");
    assert_eq!(hsm.list(&ring).unwrap().len(), 1);
    assert_eq!(hsm.health().spawns, spawns + 2);
    // What cannot be repeated does not ask a worker that may be blind.
    assert_eq!(
        hsm.create(&ring, 1, KeyKind::Kek).unwrap_err().kind,
        ErrorKind::KeyExists
    );
    hsm.destroy(&ring, 1).unwrap();
}

/// A token that answers but no longer does its work is noticed without any call, and its recovery too.
#[test]
fn deep_probe_notices() {
    let mut faulty = faulty();
    faulty.subject.config.deadlines.probe = Duration::from_millis(10);
    let (hsm, ring) = faulty.subject.start_with_kek();
    hsm.seal(&ring, 1, b"c", &seed(1)).unwrap();
    faulty.set("device-encrypt");
    let health = wait(&hsm, State::Down);
    assert_eq!(health.last_error.unwrap().kind, ErrorKind::Device);
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(
            hsm.health().state,
            State::Down,
            "it does not seem to recover in between"
        );
    }
    faulty.heal();
    wait(&hsm, State::Up);
}

/// A token whose mechanism list lies: the next one is taken, by trial.
#[test]
fn mechanism_that_fails_is_passed_over() {
    let faulty = faulty();
    faulty.set("unsupported-encrypt-init");
    let hsm = faulty.subject.start();
    let info = hsm.create(&ring("root"), 1, KeyKind::Kek).unwrap();
    assert_eq!(info.mechanism, Some(Mechanism::Kw), "wraps without C_Encrypt");
}

/// R-SEAL-6: a start never waits for the token, and what is wrong is told.
#[test]
fn start_never_blocks() {
    let good = subject();
    type Spoil = fn(&mut HsmConfig);
    let cases: [(&str, Spoil); 4] = [
        ("no module", |c| c.module = "/nonexistent/module.so".into()),
        ("not a module", |c| c.module = "/bin/true".into()),
        ("no such token", |c| c.token = TokenSelector::Label("other".into())),
        ("no PIN file", |c| {
            c.pin = strongroom_hsm::PinSource::File("/nonexistent/pin".into())
        }),
    ];
    for (what, spoil) in cases {
        let mut config = good.config.clone();
        spoil(&mut config);
        let begun = Instant::now();
        let hsm = Hsm::start(config, good.launcher.clone()).unwrap();
        assert_eq!(hsm.health().state, State::Starting, "{what}");
        assert!(begun.elapsed() < Duration::from_secs(1), "{what}");
        let error = hsm.list(&ring("root")).unwrap_err();
        assert!(
            matches!(
                error.kind,
                ErrorKind::Device | ErrorKind::PinNeeded | ErrorKind::Unavailable
            ),
            "{what}: {error:?}"
        );
    }
}

/// A token found by serial, and another one beside it left alone.
#[test]
fn by_serial_among_two() {
    let subject = subject();
    let mut other = subject.config.clone();
    other.token = TokenSelector::Label("second".into());
    let pin = |text: &[u8]| strongroom_hsm::Pin::new(zeroize::Zeroizing::new(text.to_vec())).unwrap();
    softhsm::provision(
        &other,
        &pin(b"so-pin-of-it"),
        &pin(b"user-pin-of-it"),
        &subject.launcher,
    )
    .unwrap();
    let again = softhsm::provision(
        &other,
        &pin(b"so-pin-of-it"),
        &pin(b"user-pin-of-it"),
        &subject.launcher,
    );
    assert_eq!(again.unwrap_err().kind, ErrorKind::KeyExists);
    let serial = wait(&subject.start(), State::Up).token.unwrap().serial;
    let mut config = subject.config.clone();
    config.token = TokenSelector::Serial(serial);
    let hsm = Hsm::start(config, subject.launcher.clone()).unwrap();
    assert_eq!(wait(&hsm, State::Up).token.unwrap().label, "vault-test");
}
