//! The suite on a second vendor's token, and both vendors side by side.
//!
//! Run by `hsm/kryoptic/test.sh` (see README.md there). Needs SoftHSM2 too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // test code outside of `#[test]` functions

#[path = "../../tests/suite/mod.rs"]
mod suite;
mod token;

use std::fs;

use strongroom_hsm::{Hsm, KeyKind, Mechanism, softhsm};
use suite::{Subject, ring, seed};

fn subject() -> Subject {
    let dir = tempfile::tempdir().unwrap();
    Subject {
        config: token::create(dir.path(), "kryoptic"),
        launcher: token::launcher(),
        program: token::PROGRAM.into(),
        storage: dir.path().join("token"),
        mechanisms: &Mechanism::ALL,
        locks_after: Some(10),
        dir,
    }
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
