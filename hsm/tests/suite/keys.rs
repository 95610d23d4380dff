//! Sealing, opening, rotating, signing.

use std::process::{Command, Stdio};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism as M;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass};
use cryptoki::session::UserType;
use cryptoki::types::AuthPin;
use strongroom_hsm::{ErrorKind, HsmBlob, KeyInfo, KeyKind, Mechanism, MechanismChoice};

use super::{Subject, ring, seed};

/// R-SEAL-1: the mechanisms are chosen by trial, and the trial's result here is known.
pub fn mechanisms(mut subject: Subject) {
    let hsm = subject.start();
    let trials = hsm.self_test().unwrap();
    assert_eq!(trials.iter().map(|t| t.mechanism).collect::<Vec<_>>(), Mechanism::ALL);
    for trial in trials {
        let works = subject.mechanisms.contains(&trial.mechanism);
        assert_eq!(trial.failure.is_none(), works, "{trial:?}");
    }
    assert_eq!(
        hsm.list(&ring("strongroom-self-test")).unwrap(),
        [],
        "the self-test cleans up"
    );
    drop(hsm);
    for mechanism in Mechanism::ALL {
        subject.config.mechanism = MechanismChoice::Only(mechanism);
        let hsm = subject.start();
        let ring = ring(mechanism.as_str());
        let made = hsm.create(&ring, 1, KeyKind::Kek);
        if !subject.mechanisms.contains(&mechanism) {
            assert!(made.is_err(), "{mechanism:?}");
            assert_eq!(hsm.list(&ring).unwrap(), [], "no half key stays");
            continue;
        }
        let want = KeyInfo {
            ring: ring.clone(),
            version: 1,
            kind: KeyKind::Kek,
            mechanism: Some(mechanism),
        };
        assert_eq!(made.unwrap(), want);
        let blob = hsm.seal(&ring, 1, b"context", &seed(1)).unwrap();
        let blob = HsmBlob::from_bytes(&blob.to_bytes()).unwrap();
        assert_eq!((blob.mechanism(), blob.ring(), blob.version()), (mechanism, &ring, 1));
        assert_eq!(*hsm.open(&blob, b"context").unwrap(), *seed(1));
        assert_eq!(hsm.list(&ring).unwrap(), [want]);
    }
}

/// R-SEAL-1: a blob opens only as what it was sealed as, and every bit of it counts. Nothing of that harms
/// the token: it opens the true blob right after, with the same worker.
pub fn names_and_contexts_are_bound(mut subject: Subject) {
    for mechanism in subject.mechanisms {
        subject.config.mechanism = MechanismChoice::Only(*mechanism);
        let hsm = subject.start();
        let (ring, other) = (ring(mechanism.as_str()), ring(&format!("{}-other", mechanism.as_str())));
        for (ring, version) in [(&ring, 1), (&ring, 2), (&other, 1)] {
            hsm.create(ring, version, KeyKind::Kek).unwrap();
        }
        let blob = hsm.seal(&ring, 1, b"context", &seed(1)).unwrap();
        let worker = hsm.health().worker;
        let kind = |blob: &HsmBlob, context: &[u8]| hsm.open(blob, context).err().map(|e| e.kind);

        assert_eq!(kind(&blob, b"contexT"), Some(ErrorKind::Integrity));
        assert_eq!(kind(&blob, b""), Some(ErrorKind::Integrity));
        let bytes = blob.to_bytes();
        let body = 3 + ring.as_str().len() + 6;
        let relabelled = |at: usize, value: &[u8]| {
            let mut bytes = bytes.clone();
            bytes[at..at + value.len()].copy_from_slice(value);
            HsmBlob::from_bytes(&bytes).unwrap()
        };
        assert_eq!(
            kind(&relabelled(body - 6, &2_u32.to_be_bytes()), b"context"),
            Some(ErrorKind::Integrity),
            "version"
        );
        let mut renamed = bytes[..2].to_vec();
        renamed.push(other.as_str().len() as u8);
        renamed.extend(other.as_str().as_bytes());
        renamed.extend(&bytes[body - 6..]);
        assert_eq!(
            kind(&HsmBlob::from_bytes(&renamed).unwrap(), b"context"),
            Some(ErrorKind::Integrity),
            "ring"
        );
        for at in (body..bytes.len()).step_by(7) {
            let forged = relabelled(at, &[bytes[at] ^ 0x01]);
            assert_eq!(
                kind(&forged, b"context"),
                Some(ErrorKind::Integrity),
                "{mechanism:?}, byte {at}"
            );
        }
        assert_eq!(*hsm.open(&blob, b"context").unwrap(), *seed(1));
        assert_eq!(hsm.health().worker, worker, "bad data is no reason for a new worker");
    }
}

pub fn auto_takes_the_first(subject: Subject) {
    let (hsm, ring) = subject.start_with_kek();
    assert_eq!(
        hsm.list(&ring).unwrap()[0].mechanism,
        subject.mechanisms.first().copied()
    );
    assert_eq!(
        hsm.seal(&ring, 1, &[0; 1025], &seed(0)).unwrap_err().kind,
        ErrorKind::Invalid
    );
    let blob = hsm.seal(&ring, 1, &[0; 1024], &seed(0)).unwrap();
    assert_eq!(*hsm.open(&blob, &[0; 1024]).unwrap(), *seed(0));
    let again = hsm.seal(&ring, 1, &[0; 1024], &seed(0)).unwrap();
    assert_ne!(blob, again, "sealing is randomised, or at least not a fixed point");
}

/// R-SEAL-5: KEKs rotate; old blobs open until their version is destroyed, and a new key of an old name opens
/// nothing.
pub fn rotation(subject: Subject) {
    let (hsm, ring) = subject.start_with_kek();
    let old = hsm.seal(&ring, 1, b"c", &seed(9)).unwrap();
    assert_eq!(hsm.reseal(&old, 2, b"c").unwrap_err().kind, ErrorKind::KeyMissing);
    hsm.create(&ring, 2, KeyKind::Kek).unwrap();
    let new = hsm.reseal(&old, 2, b"c").unwrap();
    assert_eq!(new.version(), 2);
    for blob in [&old, &new] {
        assert_eq!(*hsm.open(blob, b"c").unwrap(), *seed(9));
    }
    hsm.destroy(&ring, 1).unwrap();
    assert_eq!(hsm.open(&old, b"c").unwrap_err().kind, ErrorKind::KeyMissing);
    assert_eq!(*hsm.open(&new, b"c").unwrap(), *seed(9));
    hsm.create(&ring, 1, KeyKind::Kek).unwrap();
    assert_eq!(hsm.open(&old, b"c").unwrap_err().kind, ErrorKind::Integrity);
    let versions: Vec<u32> = hsm.list(&ring).unwrap().iter().map(|k| k.version).collect();
    assert_eq!(versions, [1, 2]);
}

pub fn create_and_destroy(subject: Subject) {
    let (hsm, root) = subject.start_with_kek();
    assert_eq!(
        hsm.create(&root, 1, KeyKind::Kek).unwrap_err().kind,
        ErrorKind::KeyExists
    );
    assert_eq!(
        hsm.create(&root, 1, KeyKind::SignEs256).unwrap_err().kind,
        ErrorKind::KeyExists
    );
    assert_eq!(hsm.create(&root, 0, KeyKind::Kek).unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(hsm.destroy(&root, 9).unwrap_err().kind, ErrorKind::KeyMissing);
    assert_eq!(
        hsm.sign(&root, 1, &[0; 32]).unwrap_err().kind,
        ErrorKind::KeyMissing,
        "a KEK does not sign"
    );
    // A ring whose name begins like another's is another.
    hsm.create(&ring("roo"), 1, KeyKind::Kek).unwrap();
    hsm.create(&root, 12, KeyKind::Kek).unwrap();
    let count = |name| hsm.list(&ring(name)).unwrap().len();
    assert_eq!((count("root"), count("roo"), count("ro")), (2, 1, 0));
    hsm.destroy(&root, 1).unwrap();
    assert_eq!((count("root"), count("roo")), (1, 1));
}

/// R-AUDIT-2, R-TOK-7: what the token signs, another implementation verifies with the exported key.
pub fn signatures_verify_elsewhere(subject: Subject) {
    let hsm = subject.start();
    let dir = subject.dir.path();
    let digest: [u8; 32] = std::array::from_fn(|i| i as u8 * 3);
    std::fs::write(dir.join("digest"), digest).unwrap();
    for (name, kind) in [("es", KeyKind::SignEs256), ("ps", KeyKind::SignPs256)] {
        let ring = ring(name);
        hsm.create(&ring, 1, kind).unwrap();
        assert_eq!(hsm.list(&ring).unwrap()[0].kind, kind);
        assert_eq!(
            hsm.seal(&ring, 1, b"", &seed(0)).unwrap_err().kind,
            ErrorKind::KeyMissing,
            "it does not seal"
        );
        std::fs::write(dir.join("key"), hsm.public_key(&ring, 1).unwrap()).unwrap();
        let mut signature = hsm.sign(&ring, 1, &digest).unwrap();
        if kind == KeyKind::SignEs256 {
            signature = der(&signature);
        }
        let verify = |signature: &[u8]| {
            std::fs::write(dir.join("sig"), signature).unwrap();
            let mut openssl = Command::new("openssl");
            openssl.current_dir(dir).stdout(Stdio::null()).stderr(Stdio::null());
            openssl.args("pkeyutl -verify -pubin -keyform DER -inkey key -in digest -sigfile sig".split(' '));
            if kind == KeyKind::SignPs256 {
                openssl.args(["-pkeyopt", "digest:sha256", "-pkeyopt", "rsa_padding_mode:pss"]);
                openssl.args(["-pkeyopt", "rsa_pss_saltlen:32"]);
            }
            openssl.status().expect("openssl").success()
        };
        assert!(verify(&signature), "{kind:?}");
        let last = signature.len() - 1;
        signature[last] ^= 1;
        assert!(!verify(&signature), "{kind:?}: the verifier must be able to say no");
    }
}

/// `r || s` as the DER that OpenSSL reads.
fn der(raw: &[u8]) -> Vec<u8> {
    let integer = |n: &[u8]| {
        let mut n: Vec<u8> = n.iter().copied().skip_while(|b| *b == 0).collect();
        if n.first().is_none_or(|b| *b >= 0x80) {
            n.insert(0, 0);
        }
        [&[2, n.len() as u8], &n[..]].concat()
    };
    let both = [integer(&raw[..32]), integer(&raw[32..])].concat();
    [&[0x30, both.len() as u8], &both[..]].concat()
}

/// The variable that makes this test binary the thief of `key_never_leaves`.
pub const THIEF: &str = "STRONGROOM_TEST_THIEF";

/// R-SEAL-1: the KEK is non-extractable in fact. Another process, with the PIN, tries to read, unlock, copy and
/// wrap it. (`C_Initialize` is per process and the module's variables too, hence the other process.)
pub fn key_never_leaves(mut subject: Subject) {
    let secret: Vec<Mechanism> = subject
        .mechanisms
        .iter()
        .copied()
        .filter(|m| *m != Mechanism::OaepSha256)
        .collect();
    for mechanism in &secret {
        subject.config.mechanism = MechanismChoice::Only(*mechanism);
        subject
            .start()
            .create(&ring(mechanism.as_str()), 1, KeyKind::Kek)
            .unwrap();
    }
    let strongroom_hsm::TokenSelector::Label(label) = &subject.config.token else {
        panic!("label")
    };
    let thief = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "thief", "--nocapture"])
        .envs(&subject.config.env)
        .env(
            THIEF,
            format!(
                "{}\n{label}\n{}",
                subject.config.module.display(),
                subject.pin_file().display()
            ),
        )
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&thief.stdout);
    assert!(
        thief.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&thief.stderr)
    );
    // CBC+HMAC has two keys.
    let keys = secret.len() + usize::from(secret.contains(&Mechanism::CbcHmac));
    assert!(said.contains(&format!("{keys} keys stayed")), "{said}");
}

/// The body of the test `thief`: does nothing unless started by `key_never_leaves`.
pub fn thief() {
    let Ok(orders) = std::env::var(THIEF) else { return };
    let [module, label, pin]: [&str; 3] = orders.lines().collect::<Vec<_>>().try_into().unwrap();
    let pkcs11 = Pkcs11::new(module).unwrap();
    pkcs11
        .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
        .unwrap();
    let slots = pkcs11.get_slots_with_token().unwrap();
    let slot = slots
        .into_iter()
        .find(|s| pkcs11.get_token_info(*s).is_ok_and(|t| t.label() == label))
        .unwrap();
    let session = pkcs11.open_rw_session(slot).unwrap();
    let pin = std::fs::read_to_string(pin).unwrap();
    session
        .login(
            UserType::User,
            Some(&AuthPin::new(pin.trim().to_owned().into_boxed_str())),
        )
        .unwrap();

    let wrapping = [
        Attribute::Token(false),
        Attribute::Wrap(true),
        Attribute::Unwrap(true),
        Attribute::Decrypt(true),
        Attribute::ValueLen(32.into()),
    ];
    let wrapping = session.generate_key(&M::AesKeyGen, &wrapping).unwrap();
    let keys = session
        .find_objects(&[Attribute::Token(true), Attribute::Class(ObjectClass::SECRET_KEY)])
        .unwrap();
    for key in &keys {
        let value = session.get_attributes(*key, &[AttributeType::Value]);
        assert!(value.is_err() || value.is_ok_and(|v| v.is_empty()), "read");
        for change in [Attribute::Extractable(true), Attribute::Sensitive(false)] {
            assert!(
                session.update_attributes(*key, std::slice::from_ref(&change)).is_err(),
                "set {:?}",
                change.attribute_type()
            );
            let copy = session.copy_object(*key, &[Attribute::Token(false), change]);
            assert!(copy.is_err(), "copied");
        }
        assert!(
            session.copy_object(*key, &[Attribute::Token(false)]).is_err(),
            "copied as it is"
        );
        for mechanism in [M::AesKeyWrap, M::AesKeyWrapPad, M::AesCbcPad([0; 16])] {
            assert!(session.wrap_key(&mechanism, wrapping, *key).is_err(), "wrapped");
        }
    }
    // The thief is not just clumsy: a key that may leave does.
    let loose = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Token(false),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
        Attribute::Value(vec![7; 32]),
    ];
    let loose = session.create_object(&loose).unwrap();
    session.wrap_key(&M::AesKeyWrap, wrapping, loose).unwrap();
    #[allow(clippy::print_stdout)] // its answer to the test that started it
    {
        println!("{} keys stayed", keys.len());
    }
}

/// One handle, many threads: every call is answered, in its own words.
pub fn many_callers(subject: Subject) {
    let (hsm, ring) = subject.start_with_kek();
    let spawns = hsm.health().spawns;
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (hsm, ring) = (hsm.clone(), &ring);
            scope.spawn(move || {
                for round in 0..10 {
                    let (context, seed) = ([n, round], seed(n * 10 + round));
                    let blob = hsm.seal(ring, 1, &context, &seed).unwrap();
                    assert_eq!(*hsm.open(&blob, &context).unwrap(), *seed);
                }
            });
        }
    });
    assert_eq!(hsm.health().spawns, spawns);
}
