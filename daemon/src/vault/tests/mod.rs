//! The vault over a store in memory that can fail, and HSMs that can fail; real rooms are only a name here.

mod keys;
mod lifecycle;
mod slots;

use super::*;
use crate::{
    audit::{Outcome, Paths, Recorder, Trail},
    base::{
        id::BootId,
        limits::KEK_GRACE_SECS,
        random::OsRandom,
        time::{ManualClock, Timestamp},
    },
    seal::{Factors, Operation, SealError, ShareText, SlotSpec, Token, hsm::fake::Fake, offline},
    store::{
        EngineKind, Namespace, Part, Table,
        physical::faulty::Fault,
        testing::{Rig, disk},
    },
};
use proptest::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use strongroom_hsm::ErrorKind;
use zeroize::Zeroizing;

/// Rooms that keep one record.
pub(super) struct Kept {
    store: Arc<Store>,
    closed: AtomicUsize,
}

#[async_trait]
impl Rooms for Kept {
    async fn close(&self) {
        self.closed.fetch_add(1, Ordering::SeqCst);
    }
}

const DRAIN: Duration = Duration::from_millis(300);
const KEY: &[Part<'static>] = &[Part::Raw(b"k")];

impl Kept {
    pub(super) async fn put(&self, value: &str) -> Result<(), CommitError> {
        let view = self.store.view(Namespace::ROOT, Table::System);
        let mut change = Change::new();
        change.put(&view, KEY, Zeroizing::new(value.as_bytes().to_vec()));
        self.store.commit(change, Vec::new()).await.map(drop)
    }
    async fn get(&self) -> Result<Option<String>, StoreError> {
        let record = self.store.view(Namespace::ROOT, Table::System).get(KEY).await?;
        Ok(record.map(|record| String::from_utf8(record.value.to_vec()).unwrap()))
    }
}

struct Bench {
    rig: Rig,
    hsm: Arc<Fake>,
    second: Arc<Fake>,
    clock: Arc<ManualClock>,
    vault: Arc<Vault<Kept>>,
}

pub(super) fn parts(disk: Disk, tokens: Tokens, clock: Arc<ManualClock>) -> Parts<Kept> {
    let build: Build<Kept> = Box::new(|store| {
        Box::pin(async move {
            Ok(Arc::new(Kept {
                store,
                closed: AtomicUsize::new(0),
            }))
        })
    });
    Parts {
        disk,
        tokens,
        algorithm: Algorithm::default(),
        drain: DRAIN,
        clock,
        random: Arc::new(OsRandom),
        build,
    }
}

impl Bench {
    async fn new() -> Self {
        let (rig, hsm, second) = (Rig::default(), Fake::new("main"), Fake::new("second"));
        let clock = Arc::new(ManualClock::at(Timestamp(1_795_000_000_000)));
        let tokens = Tokens::new(vec![hsm.clone() as Arc<dyn Token>, second.clone()]);
        let vault = Arc::new(Vault::new(parts(rig.open(), tokens, clock.clone())).await.unwrap());
        Self {
            rig,
            hsm,
            second,
            clock,
            vault,
        }
    }

    /// The daemon died and is started again.
    async fn restart(&mut self) {
        self.vault.disk().close();
        let tokens = Tokens::new(vec![self.hsm.clone() as Arc<dyn Token>, self.second.clone()]);
        self.vault = Arc::new(
            Vault::new(parts(self.rig.open(), tokens, self.clock.clone()))
                .await
                .unwrap(),
        );
    }

    async fn init(&self, specs: &[(&str, &str)]) -> Vec<Vec<ShareText>> {
        let made = self.vault.init(
            specs.iter().map(|(name, factors)| spec(name, factors)).collect(),
            evidence("init"),
            |_| async { Ok(()) },
        );
        let made = made.await.unwrap();
        made.first.unwrap();
        made.shares.into_iter().map(|(_, shares)| shares).collect()
    }

    /// Brings `shares` one by one; the last answer.
    async fn bring(&self, slot: &str, shares: &[&ShareText], operation: Operation) -> Result<Done, VaultError> {
        let mut session = None;
        let given: Vec<Option<&str>> = if shares.is_empty() {
            vec![None]
        } else {
            shares.iter().map(|share| Some(share.expose())).collect()
        };
        for share in given {
            let input = PresentInput {
                slot: slot.parse().unwrap(),
                session,
                share,
                operation: Some(operation.clone()),
                local_root: share.is_none(),
            };
            match self.vault.present(input, evidence(operation.word())).await? {
                Answer::Waiting(progress) => session = Some(progress.session),
                Answer::Done { done, shares: took } => {
                    assert_eq!(usize::from(took), shares.len());
                    return Ok(done);
                }
            }
        }
        panic!("shares were missing")
    }

    async fn unseal(&self, slot: &str, shares: &[&ShareText]) -> Result<(), VaultError> {
        self.bring(slot, shares, Operation::Unseal).await.map(drop)
    }

    /// Operations on record, oldest first. The last frame may be on its way to the log still: closing waits for it.
    fn recorded(&self) -> Vec<String> {
        self.vault.disk().close();
        let frames = self.rig.kept.frames.lock();
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.bytes.to_vec()).collect();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        text.split("\"op\":\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap().to_owned())
            .collect()
    }
}

pub(super) fn spec(name: &str, factors: &str) -> SlotSpec {
    SlotSpec::parse(name, factors, &[]).unwrap()
}

pub(super) fn evidence(op: &'static str) -> Evidence<'static> {
    let recorder = Recorder::new(
        BootId::random(&OsRandom),
        Arc::new(ManualClock::default()),
        Paths::Clear,
    );
    Box::new(move |_| vec![Trail::of_system(&recorder, op).response(&Outcome::ok())])
}

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}
