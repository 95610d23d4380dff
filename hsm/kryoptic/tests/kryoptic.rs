//! The suite on a second vendor's token, and both vendors side by side.
//!
//! Run by `hsm/kryoptic/test.sh` (see README.md there). Needs SoftHSM2 too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // test code outside of `#[test]` functions

#[path = "../../tests/suite/mod.rs"]
mod suite;

use std::fs;
use std::path::{Path, PathBuf};

use strongroom_hsm::{Hsm, HsmConfig, KeyKind, Launcher, Mechanism, Pin, PinSource, TokenSelector, softhsm};
use suite::{Subject, ring, seed};
use zeroize::Zeroizing;

const PROGRAM: &str = env!("CARGO_BIN_EXE_strongroom-hsm-worker");
const PIN: &str = "user-1234-kry"; // 8 bytes at least
const SO_PIN: &str = "so-87654321";

fn subject() -> Subject {
    let module = module();
    let dir = tempfile::tempdir().unwrap();
    let storage = dir.path().join("token");
    for part in [&storage, &dir.path().join("state")] {
        fs::create_dir(part).unwrap();
    }
    let conf = dir.path().join("token.conf");
    let database = storage.join("token.sql");
    fs::write(&conf, format!("[[slots]]\nslot = 1\ndbtype = \"sqlite\"\ndbargs = \"{}\"\n", database.display())).unwrap();
    fs::write(dir.path().join("pin"), PIN).unwrap();
    fs::set_permissions(dir.path().join("pin"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut config = HsmConfig::new(
        "kryoptic",
        module,
        TokenSelector::Label("vault-kry".into()),
        PinSource::File(dir.path().join("pin")),
        dir.path().join("state"),
    );
    config.env.insert("KRYOPTIC_CONF".into(), conf.to_str().unwrap().into());
    let launcher = Launcher::exec(PROGRAM, &["hsm-worker"]);
    let pin = |text: &str| Pin::new(Zeroizing::new(text.as_bytes().to_vec())).unwrap();
    softhsm::provision(&config, &pin(SO_PIN), &pin(PIN), &launcher).unwrap();
    Subject {
        config,
        launcher,
        program: PROGRAM.into(),
        storage,
        mechanisms: &Mechanism::ALL,
        locks_after: Some(10),
        dir,
    }
}

/// Built with this package.
fn module() -> PathBuf {
    let module = Path::new(PROGRAM).parent().unwrap().join("deps/libstrongroom_kryoptic.so");
    assert!(module.exists(), "{} is missing: cargo builds it with this test", module.display());
    module
}

suite!(super::subject);

#[test]
fn thief() {
    suite::keys::thief();
}

/// R-SEAL-2: two HSMs of different vendors hold the same seed, each sealed for itself, and each opens it alone.
#[test]
fn two_vendors_one_seed() {
    let kryoptic = subject();
    let dir = tempfile::tempdir().unwrap();
    let config = softhsm::create(dir.path(), "soft", "vault-soft", &kryoptic.launcher).unwrap();
    let tokens = [kryoptic.start(), Hsm::start(config, kryoptic.launcher.clone()).unwrap()];
    let ring = ring("root");
    let blobs = tokens.each_ref().map(|hsm| {
        hsm.create(&ring, 1, KeyKind::Kek).unwrap();
        hsm.seal(&ring, 1, b"slot 1", &seed(42)).unwrap()
    });
    assert_ne!(blobs[0], blobs[1]);
    for (n, hsm) in tokens.iter().enumerate() {
        assert_eq!(*hsm.open(&blobs[n], b"slot 1").unwrap(), *seed(42));
        let foreign = hsm.open(&blobs[1 - n], b"slot 1").unwrap_err();
        assert_eq!(foreign.kind, strongroom_hsm::ErrorKind::Integrity, "the other's blob is bad data here");
    }
    // With one vendor gone the other still opens.
    tokens[1].stop();
    fs::remove_dir_all(dir.path().join("tokens")).unwrap();
    assert!(tokens[1].open(&blobs[1], b"slot 1").unwrap_err().kind.fail_over());
    assert_eq!(*tokens[0].open(&blobs[0], b"slot 1").unwrap(), *seed(42));
}
