//! One vault on tokens of two vendors: the real daemon and command line of the workspace, as processes. R-SEAL-2.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // test code outside of `#[test]` functions

mod token;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use strongroom_hsm::{HsmConfig, PinSource, TokenSelector, softhsm};

/// How long a token may take to be missed, or to come back.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the workspace built: `cargo build --workspace`.
fn binary(name: &str) -> PathBuf {
    let dir = std::env::var_os("STRONGROOM_BIN_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/debug"),
        PathBuf::from,
    );
    let path = dir.join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo build --workspace` first (make kryoptic does)",
        path.display()
    );
    path
}

/// A daemon with `[hsm.soft]` (SoftHSM2) and `[hsm.kry]` (kryoptic).
struct Vault {
    daemon: Child,
    dir: tempfile::TempDir,
}

impl Drop for Vault {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn section(config: &HsmConfig) -> String {
    let (TokenSelector::Label(label), PinSource::File(pin)) = (&config.token, &config.pin) else {
        panic!("these tokens have labels, and PINs in files")
    };
    let env: Vec<_> = config.env.iter().map(|(key, value)| format!("{key} = {value:?}")).collect();
    format!(
        "[hsm.{}]\nmodule = {:?}\ntoken = {label:?}\npin_file = {pin:?}\nenv = {{ {} }}\n",
        config.name,
        config.module,
        env.join(", ")
    )
}

impl Vault {
    /// Initialised with one slot, open, with the secret `kv/a`.
    fn with(slot: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().canonicalize().unwrap();
        let soft = softhsm::create(&at.join("soft"), "soft", "vault-soft", &token::launcher()).unwrap();
        let kry = token::create(&at.join("kry"), "kry");
        let config = at.join("strongroom.toml");
        let text = format!(
            "[listener]\nsocket = \"{at}/s.sock\"\nmetrics_off = true\n[store]\npath = \"{at}/data\"\nreserve_mib = 8\n[audit]\nsegment_mib = 4\n[log]\nformat = \"text\"\n{}{}",
            section(&soft),
            section(&kry),
            at = at.display(),
        );
        fs::write(&config, text).unwrap();
        let log = fs::File::create(at.join("daemon.log")).unwrap();
        let daemon = Command::new(binary("strongroomd"))
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let vault = Self { daemon, dir };
        // 5: there, and not initialised.
        vault.eventually("the daemon answers", |vault| vault.run(&["operator", "status"]).status.code() == Some(5));
        vault.ok(&["operator", "init", "--slot", slot, "--save-token"]);
        vault.ok(&["mount", "enable", "kv", "--kind", "kv"]);
        vault.ok(&["kv", "put", "kv/a", "--literal", "value=kept"]);
        vault
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(binary("strongroom"))
            .args(args)
            .env_clear()
            .env("HOME", self.dir.path())
            .env("STRONGROOM_ADDR", format!("unix:{}", self.dir.path().join("s.sock").display()))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        let log = fs::read_to_string(self.dir.path().join("daemon.log")).unwrap_or_default();
        assert!(ran.status.success(), "{args:?}: {ran:?}\n{log}");
        String::from_utf8(ran.stdout).unwrap()
    }

    #[track_caller]
    fn eventually(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            let log = fs::read_to_string(self.dir.path().join("daemon.log")).unwrap_or_default();
            assert!(began.elapsed() < PATIENCE, "still not: {what}\n{log}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Takes away what a vendor's token keeps.
    fn lose(&self, token: &str) {
        fs::rename(self.dir.path().join(token), self.dir.path().join("away")).unwrap();
    }

    fn find(&self, token: &str) {
        fs::rename(self.dir.path().join("away"), self.dir.path().join(token)).unwrap();
    }

    fn opens(&self, slot: &str) -> bool {
        self.run(&["operator", "unseal", "--slot", slot]).status.success()
    }

    /// Sealed, `slot` opens it, and the secret is there.
    #[track_caller]
    fn opens_anew(&self, slot: &str) {
        self.eventually(&format!("{slot} opens"), |vault| vault.opens(slot));
        assert_eq!(self.ok(&["kv", "get", "kv/a", "--field", "value"]), "kept");
    }

    fn seal(&self) {
        self.ok(&["operator", "seal"]);
        assert_eq!(self.run(&["operator", "status"]).status.code(), Some(5));
    }
}

const SOFT: &str = "soft/tokens";
const KRYOPTIC: &str = "kry/token";

/// R-SEAL-2: one slot whose seed two vendors hold: each opens the vault while the other is away; with both away nothing does.
#[test]
fn two_vendors_open_one_slot() {
    let vault = Vault::with("pair=hsm@soft,kry");
    for lost in [SOFT, KRYOPTIC] {
        vault.lose(lost);
        vault.seal();
        vault.opens_anew("pair");
        vault.find(lost);
    }
    vault.lose(SOFT);
    fs::rename(vault.dir.path().join(KRYOPTIC), vault.dir.path().join("away-too")).unwrap();
    vault.seal();
    assert!(!vault.opens("pair"), "no token, no seed");
    vault.find(SOFT);
    vault.opens_anew("pair");
}

/// R-SEAL-2, R-SEAL-4: a slot for each vendor, the second added online by the first: each opens the vault without the other's token, and not without its
/// own.
#[test]
fn each_vendor_opens_its_own_slot() {
    let vault = Vault::with("daily=hsm@soft");
    vault.ok(&["operator", "slots", "add", "other=hsm@kry", "--with-slot", "daily"]);
    for (lost, closed, open) in [(SOFT, "daily", "other"), (KRYOPTIC, "other", "daily")] {
        vault.lose(lost);
        vault.seal();
        assert!(!vault.opens(closed), "{closed} needs its token");
        vault.opens_anew(open);
        vault.find(lost);
    }
}
