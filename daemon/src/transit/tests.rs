//! Algorithms and records; keys in a real store are driven end to end.

use super::{
    KeyKind, TransitError,
    envelope::{Envelope, Head},
    material::{Fresh, Material, pem},
    record::VersionRecord,
};
use crate::base::{
    id::{MountId, TransitKeyId},
    random::OsRandom,
    time::Timestamp,
};
use aws_lc_rs::signature::{KeyPair as _, ML_DSA_65_SIGNING, PqdsaKeyPair};
use data_encoding::{BASE64, HEXLOWER};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

fn material(kind: KeyKind) -> Material {
    Material::load(kind, &Fresh::make(kind, &OsRandom).unwrap()).unwrap()
}

/// R-OPS-8: a ciphertext opens as it was made, in its mount, under its context, by its key; no byte of it may be another.
#[test]
fn a_ciphertext_opens_unchanged_in_its_place_only() {
    let (one, other) = (material(KeyKind::Aes256Gcm), material(KeyKind::Aes256Gcm));
    let (mount, elsewhere) = (MountId::from_bytes([1; 16]), MountId::from_bytes([2; 16]));
    let head = Head {
        key: TransitKeyId::from_bytes([3; 16]),
        version: 1,
    };
    let sealed = one.seal(&OsRandom, head, &mount, b"context", b"plain").unwrap();
    let open = |by: &Material, bytes: &[u8], mount, context: &[u8]| {
        let envelope = Envelope::parse(bytes).ok_or(TransitError::Ciphertext)?;
        by.open(&envelope, mount, context)
    };
    assert_eq!(&open(&one, &sealed, &mount, b"context").unwrap()[..], b"plain");
    assert!(open(&one, &sealed, &elsewhere, b"context").is_err(), "another mount");
    assert!(open(&one, &sealed, &mount, b"contexts").is_err(), "another context");
    assert!(open(&one, &sealed, &mount, b"").is_err(), "no context");
    assert!(
        open(&other, &sealed, &mount, b"context").is_err(),
        "another version's key"
    );
    for at in 0..sealed.len() {
        for bit in 0..8 {
            let mut near = sealed.clone();
            near[at] ^= 1 << bit;
            assert!(open(&one, &near, &mount, b"context").is_err(), "byte {at}, bit {bit}");
        }
        assert!(open(&one, &sealed[..at], &mount, b"context").is_err(), "cut at {at}");
    }
    assert_ne!(sealed, one.seal(&OsRandom, head, &mount, b"context", b"plain").unwrap());
}

/// R-OPS-8: what a version made is verified by it, and by no other version and no other kind.
#[test]
fn signatures_and_macs_verify_by_their_version_only() {
    for kind in KeyKind::ALL.iter().copied().filter(|kind| *kind != KeyKind::Aes256Gcm) {
        let (one, other) = (material(kind), material(kind));
        let made = one.sign_all([&b"message"[..]].into_iter()).unwrap().remove(0);
        assert!(one.verifies(b"message", &made).unwrap(), "{kind:?}");
        assert!(!one.verifies(b"massage", &made).unwrap(), "{kind:?}");
        assert!(!other.verifies(b"message", &made).unwrap(), "{kind:?}");
        assert!(!one.verifies(b"message", b"").unwrap(), "{kind:?}");
        assert!(!one.verifies(b"message", &made[..made.len() - 1]).unwrap(), "{kind:?}");
        for at in (0..made.len()).step_by(7) {
            let mut near = made.clone();
            near[at] ^= 1;
            assert!(!one.verifies(b"message", &near).unwrap(), "{kind:?}, byte {at}");
        }
    }
}

/// R-OPS-8: another library's ML-DSA-65 makes of a seed the public key that ours makes, and a signature that ours takes.
#[test]
fn ml_dsa_agrees_with_another_library() {
    let vector: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/vectors/ml-dsa-65.json")).unwrap();
    let text = |name: &str| vector[name].as_str().unwrap();
    let private = Zeroizing::new(HEXLOWER.decode(text("seed").as_bytes()).unwrap());
    let pair = PqdsaKeyPair::from_seed(&ML_DSA_65_SIGNING, &private).unwrap();
    let public = pair.public_key().as_ref().to_vec();
    assert_eq!(HEXLOWER.encode(&Sha256::digest(&public)), text("public_sha256"));
    let ours = Material::load(KeyKind::MlDsa65, &Fresh { private, public }).unwrap();
    let made = BASE64.decode(text("signature").as_bytes()).unwrap();
    assert!(ours.verifies(text("message").as_bytes(), &made).unwrap());
    assert!(!ours.verifies(b"another release", &made).unwrap());
}

/// R-OPS-8: a version's record survives its bytes, for every kind; a shorter or longer one is none.
#[test]
fn version_records_survive_their_bytes() {
    for kind in KeyKind::ALL.iter().copied() {
        let fresh = Fresh::make(kind, &OsRandom).unwrap();
        let record = VersionRecord {
            created: Timestamp(7),
            fresh,
        };
        let bytes = record.encode();
        let again = VersionRecord::decode(&bytes).unwrap();
        assert_eq!(
            (again.created, &again.fresh.public),
            (record.created, &record.fresh.public)
        );
        assert_eq!(again.fresh.private, record.fresh.private);
        assert!(VersionRecord::decode(&bytes[..bytes.len() - 1]).is_none());
        assert!(VersionRecord::decode(&[&bytes[..], &[0]].concat()).is_none());
        assert_eq!(pem(kind, &record.fresh.public).is_empty(), !kind.signs());
        assert_eq!(kind.as_str().parse::<KeyKind>().unwrap(), kind);
    }
    assert!(matches!("none".parse::<KeyKind>(), Err(TransitError::Kind)));
}
