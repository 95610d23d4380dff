//! What every token must do, as functions over a token. SoftHSM and kryoptic run the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // test code outside of `#[test]` functions

pub mod faults;
pub mod keys;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use strongroom_hsm::{Health, Hsm, HsmConfig, HsmError, Launcher, Mechanism, Ring, State};
use zeroize::Zeroizing;

/// A token of one test: its own directory, its own worker.
pub struct Subject {
    /// Made by the vendor's file.
    pub config: HsmConfig,
    pub launcher: Launcher,
    /// The program behind the launcher, for tests that need another one.
    pub program: PathBuf,
    /// The directory (or file) that is the token; moved away to "pull it out".
    pub storage: PathBuf,
    /// The mechanisms that must pass the self-test here; the others must not.
    pub mechanisms: &'static [Mechanism],
    /// After so many wrong PINs it locks, if it ever does.
    pub locks_after: Option<u32>,
    pub dir: tempfile::TempDir,
}

impl Subject {
    pub fn start(&self) -> Hsm {
        Hsm::start(self.config.clone(), self.launcher.clone()).unwrap()
    }

    /// With a KEK in version 1 of ring `root`.
    pub fn start_with_kek(&self) -> (Hsm, Ring) {
        let hsm = self.start();
        let ring = ring("root");
        hsm.create(&ring, 1, strongroom_hsm::KeyKind::Kek).unwrap();
        (hsm, ring)
    }

    pub fn pin_file(&self) -> PathBuf {
        self.dir.path().join("pin")
    }

    pub fn wrong_pin(&mut self) -> PathBuf {
        let file = self.dir.path().join("wrong-pin");
        fs::write(&file, "wrong-but-long-enough\n").unwrap();
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        self.config.pin = strongroom_hsm::PinSource::File(file.clone());
        file
    }
}

pub fn ring(name: &str) -> Ring {
    Ring::new(name).unwrap()
}

pub fn seed(n: u8) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(std::array::from_fn(|i| n.wrapping_add(i as u8)))
}

/// Waits for a state of health; panics with the last one after 10 s.
pub fn wait(hsm: &Hsm, want: State) -> Health {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let health = hsm.health();
        if health.state == want {
            return health;
        }
        assert!(Instant::now() < end, "waited for {want:?}: {health:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Calls until it works; panics with the last error after 10 s.
pub fn until_ok<T>(mut call: impl FnMut() -> Result<T, HsmError>) -> T {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        match call() {
            Ok(value) => return value,
            Err(e) => assert!(Instant::now() < end, "{e:?}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub fn alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Not ended, and not a zombie that whoever inherited it has not reaped.
pub fn running(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z')
}

pub fn signal(pid: u32, name: &str) {
    let signal = match name {
        "KILL" => rustix::process::Signal::KILL,
        "STOP" => rustix::process::Signal::STOP,
        _ => panic!("{name}"),
    };
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// The tests, for a vendor's `fn subject() -> Subject`.
#[macro_export]
macro_rules! suite {
    ($subject:path) => {
        $crate::suite!(@one $subject, keys, [
            mechanisms, names_and_contexts_are_bound, auto_takes_the_first, rotation, create_and_destroy,
            signatures_verify_elsewhere, key_never_leaves, many_callers
        ]);
        $crate::suite!(@one $subject, faults, [
            wrong_pin, prompted_pin, token_gone_and_back, worker_killed, worker_hung, pin_is_in_no_process,
            stop_and_start, supervised,
            supervisor_killed, landlocked, locked_pin
        ]);
    };
    (@one $subject:path, $room:ident, [$($name:ident),*]) => {
        mod $room {
            $(
                #[test]
                fn $name() {
                    $crate::suite::$room::$name($subject());
                }
            )*
        }
    };
}
