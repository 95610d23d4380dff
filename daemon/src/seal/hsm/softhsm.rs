//! Slots on real tokens: SoftHSM2, each in its own directory with its own worker process. Needs `softhsm2`; fails without.

use super::{Token, Tokens, destroy, retire, rotate};
use crate::{
    base::{id::ClusterId, random::OsRandom, time::Timestamp},
    seal::{Operation, Presented, Root, SealError, Sessions, Slot, SlotSpec, Slots, Step, Tools},
};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};
use strongroom_hsm::{ErrorKind, Hsm, HsmConfig, Launcher, PinSource, softhsm};

const WORKER: &str = "STRONGROOM_TEST_HSM_WORKER";

/// The test binary is also its own HSM worker.
#[test]
#[ignore = "run by the other tests of this file as a process of its own"]
fn worker() {
    if std::env::var_os(WORKER).is_some() {
        strongroom_hsm::worker::main();
    }
}

fn launcher() -> Launcher {
    let args = ["--exact", "seal::hsm::softhsm::worker", "--ignored", "--nocapture"];
    Launcher::exec_with(
        std::env::current_exe().unwrap(),
        &args,
        BTreeMap::from([(WORKER.to_owned(), "1".to_owned())]),
    )
}

/// Two tokens and a vault's slots without a store.
pub(crate) struct Two {
    dir: tempfile::TempDir,
    first: Hsm,
    second: Hsm,
    pub(crate) tokens: Tokens,
    root: Root,
    slots: Slots,
}

fn start(config: HsmConfig) -> Hsm {
    Hsm::start(config, launcher()).unwrap()
}

impl Two {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| start(softhsm::create(&dir.path().join(name), name, name, &launcher()).unwrap());
        let (first, second) = (make("first"), make("second"));
        let tokens = Tokens::new(vec![
            Arc::new(first.clone()) as Arc<dyn Token>,
            Arc::new(second.clone()),
        ]);
        let root = Root::first(&OsRandom).unwrap();
        Self {
            dir,
            first,
            second,
            tokens,
            root,
            slots: Slots::load(ClusterId::random(&OsRandom), []),
        }
    }

    fn add(&mut self, name: &str, factors: &str) -> Vec<crate::seal::ShareText> {
        let tools = Tools {
            tokens: &self.tokens,
            random: &OsRandom,
            now: Timestamp(1),
        };
        let (change, made) = self
            .slots
            .add(&SlotSpec::parse(name, factors, &[]).unwrap(), &self.root, tools)
            .unwrap();
        self.slots.apply(&change);
        made.shares
    }

    fn storage(&self, name: &str) -> PathBuf {
        self.dir.path().join(name).join("tokens")
    }

    fn open(&self, name: &str) -> Result<Root, SealError> {
        self.slots.get(&name.parse().unwrap()).unwrap().open(None, &self.tokens)
    }

    fn store(&mut self, slots: Vec<Slot>) {
        let change = Slots::replace(slots.into_iter().map(|slot| slot.bind(&self.root, &OsRandom).unwrap()));
        self.slots.apply(&change);
    }
}

/// R-SEAL-1, R-SEAL-2, R-SEAL-6: two tokens each open one slot; one is pulled out, then both, then one comes back by itself.
#[test]
fn two_tokens_open_one_slot() {
    let mut two = Two::new();
    two.add("auto", "hsm");
    let shares = two.add("daily", "hsm+quorum:2/3");
    assert_eq!(two.open("auto").unwrap().key.expose(), two.root.key.expose());
    let away = |two: &Two, name: &str| {
        std::fs::rename(two.storage(name), two.dir.path().join(format!("{name}-away"))).unwrap()
    };
    away(&two, "first");
    assert_eq!(
        two.open("auto").unwrap().key.expose(),
        two.root.key.expose(),
        "the second token opens it"
    );

    let sessions = Sessions::new(Arc::new(crate::base::time::SystemClock::default()), Arc::new(OsRandom));
    let slot = "daily".parse().unwrap();
    let present = |share: &str, session| {
        sessions
            .present(
                &two.slots,
                &Presented {
                    slot: &slot,
                    session,
                    share: Some(share),
                    operation: Some(&Operation::Unseal),
                },
            )
            .unwrap()
    };
    let Step::Waiting(progress) = present(&shares[0], None) else {
        panic!()
    };
    let Step::Complete(complete) = present(&shares[2], Some(progress.session)) else {
        panic!()
    };
    let half = complete.combine().unwrap();
    let record = two.slots.get(&slot).unwrap();
    assert_eq!(
        record.open(Some(&half), &two.tokens).unwrap().key.expose(),
        two.root.key.expose()
    );

    away(&two, "second");
    assert!(
        matches!(record.open(Some(&half), &two.tokens), Err(SealError::Hsm(failures)) if failures.len() == 2),
        "the operators alone open nothing"
    );
    std::fs::rename(two.dir.path().join("first-away"), two.storage("first")).unwrap();
    // A vanished token is believed gone for a moment; then a fresh worker finds it again.
    let back = (0..100).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        record.open(Some(&half), &two.tokens).ok()
    });
    assert_eq!(back.unwrap().key.expose(), two.root.key.expose());
}

/// R-SEAL-2, R-SEAL-6: a refused PIN costs the token one try, is not repeated, and the next HSM opens the slot.
#[test]
fn a_wrong_pin_is_tried_once() {
    let mut two = Two::new();
    two.add("auto", "hsm");
    let wrong = two.dir.path().join("wrong");
    std::fs::write(&wrong, "not-the-pin-at-all").unwrap();
    std::fs::set_permissions(&wrong, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut config = softhsm::create(&two.dir.path().join("first"), "first", "first", &launcher()).unwrap();
    two.first.stop();
    config.pin = PinSource::File(wrong);
    let first = start(config);
    two.tokens = Tokens::new(vec![Arc::new(first.clone()), Arc::new(two.second.clone())]);
    for _ in 0..3 {
        assert_eq!(two.open("auto").unwrap().key.expose(), two.root.key.expose());
    }
    two.tokens = Tokens::new(vec![Arc::new(first)]);
    let Err(SealError::Hsm(failures)) = two.open("auto") else {
        panic!("it opened")
    };
    assert_eq!(
        failures[0].1.kind,
        ErrorKind::AuthHeld,
        "held back, not refused again: {:?}",
        failures[0].1
    );
}

/// R-SEAL-5: a KEK rotates on a real token: both versions open until the old one is destroyed, then only the new copy does.
#[test]
fn a_kek_rotates_on_a_real_token() {
    let mut two = Two::new();
    two.add("auto", "hsm");
    let before = two.slots.clone();
    let mut slots = two.slots.authenticated(&two.root).unwrap();
    assert_eq!(rotate(&two.first, &mut slots, Timestamp(10)).unwrap(), 2);
    two.store(slots);
    two.second.stop();
    std::fs::rename(two.storage("second"), two.dir.path().join("second-away")).unwrap();
    let opens = |two: &Two, slots: &Slots| {
        slots
            .get(&"auto".parse().unwrap())
            .unwrap()
            .open(None, &two.tokens)
            .is_ok()
    };
    assert!(
        opens(&two, &two.slots) && opens(&two, &before),
        "the grace: both copies open"
    );
    let mut slots = two.slots.authenticated(&two.root).unwrap();
    assert!(retire(&two.tokens, &mut slots, Timestamp(10)).unwrap());
    two.store(slots);
    // Only the first token is there; the second has nothing to destroy.
    assert_eq!(
        destroy(&two.tokens, &two.slots.iter().cloned().collect::<Vec<_>>()).unwrap(),
        1
    );
    assert!(opens(&two, &two.slots) && !opens(&two, &before), "version 1 is gone");
}
