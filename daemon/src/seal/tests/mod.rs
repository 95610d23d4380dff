//! Slots as a whole: every kind opens with its factors and with nothing less; holders come together; slots change under an open root key.

mod sessions;
mod slots;

use super::{
    hsm::fake::{CountingRandom, Fake},
    quorum::Share,
    slot::make,
    *,
};
use crate::base::{
    id::ClusterId,
    limits::{SLOT_SESSION_TTL_SECS, SLOT_SESSIONS_MAX, SLOTS_MAX},
    locked::LockedKey,
    random::OsRandom,
    time::{ManualClock, Timestamp},
};
use std::{sync::Arc, time::Duration};
use strongroom_hsm::ErrorKind;

const CLUSTER: ClusterId = ClusterId::from_bytes([7; 16]);

/// A vault's slots without a store.
struct Bench {
    hsm: Arc<Fake>,
    tokens: Tokens,
    root: Root,
    slots: Slots,
    clock: Arc<ManualClock>,
    sessions: Sessions,
}

impl Bench {
    fn new() -> Self {
        let hsm = Fake::new("main");
        let clock = Arc::new(ManualClock::default());
        Self {
            tokens: Tokens::new(vec![hsm.clone()]),
            hsm,
            root: Root::first(&OsRandom).unwrap(),
            slots: Slots::load(CLUSTER, []),
            sessions: Sessions::new(clock.clone(), Arc::new(OsRandom)),
            clock,
        }
    }
    fn tools(&self) -> Tools<'_> {
        Tools {
            tokens: &self.tokens,
            random: &OsRandom,
            now: Timestamp(1_795_000_000_000),
        }
    }
    fn add(&mut self, name: &str, factors: &str) -> Vec<ShareText> {
        let (change, made) = self.slots.add(&spec(name, factors), &self.root, self.tools()).unwrap();
        self.slots.apply(&change);
        made.shares
    }
    fn present(
        &self,
        slot: &str,
        session: Option<Nonce>,
        share: &str,
        operation: Option<Operation>,
    ) -> Result<Step, SealError> {
        let slot = slot.parse().unwrap();
        self.sessions.present(
            &self.slots,
            &Presented {
                slot: &slot,
                session,
                share: Some(share),
                operation: operation.as_ref(),
            },
        )
    }
    fn opens(&self, slot: &str, shares: &[&ShareText]) -> bool {
        let record = self.slots.get(&slot.parse().unwrap()).unwrap();
        let shares: Vec<Share> = shares.iter().map(|text| Share::parse(text).unwrap()).collect();
        let half = if shares.is_empty() {
            None
        } else {
            quorum::combine(&shares).unwrap().ok()
        };
        record
            .open(half.as_ref(), &self.tokens)
            .is_ok_and(|root| root.key.expose() == self.root.key.expose())
    }
}

fn spec(name: &str, factors: &str) -> SlotSpec {
    SlotSpec::parse(name, factors, &[]).unwrap()
}

fn waiting(step: Result<Step, SealError>) -> Progress {
    match step.unwrap() {
        Step::Waiting(progress) => progress,
        Step::Complete(complete) => panic!("complete: {complete:?}"),
    }
}

fn complete(step: Result<Step, SealError>) -> Complete {
    match step.unwrap() {
        Step::Complete(complete) => complete,
        Step::Waiting(progress) => panic!("waiting: {progress:?}"),
    }
}

fn refused(step: Result<Step, SealError>) -> String {
    step.unwrap_err().to_string()
}
