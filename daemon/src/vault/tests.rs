//! The vault over a store in memory that can fail, and HSMs that can fail; real rooms are only a name here.

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
    let build: Build<Kept> = Box::new(|store| Box::pin(async move { Ok(Arc::new(Kept { store, closed: AtomicUsize::new(0) })) }));
    Parts { disk, tokens, algorithm: Algorithm::default(), drain: DRAIN, clock, random: Arc::new(OsRandom), build }
}

impl Bench {
    async fn new() -> Self {
        let (rig, hsm, second) = (Rig::default(), Fake::new("main"), Fake::new("second"));
        let clock = Arc::new(ManualClock::at(Timestamp(1_795_000_000_000)));
        let tokens = Tokens::new(vec![hsm.clone() as Arc<dyn Token>, second.clone()]);
        let vault = Arc::new(Vault::new(parts(rig.open(), tokens, clock.clone())).await.unwrap());
        Self { rig, hsm, second, clock, vault }
    }

    /// The daemon died and is started again.
    async fn restart(&mut self) {
        self.vault.disk().close();
        let tokens = Tokens::new(vec![self.hsm.clone() as Arc<dyn Token>, self.second.clone()]);
        self.vault = Arc::new(Vault::new(parts(self.rig.open(), tokens, self.clock.clone())).await.unwrap());
    }

    async fn init(&self, specs: &[(&str, &str)]) -> Vec<Vec<ShareText>> {
        let made = self.vault.init(specs.iter().map(|(name, factors)| spec(name, factors)).collect(), evidence("init"), |_| async { Ok(()) });
        let made = made.await.unwrap();
        made.first.unwrap();
        made.shares.into_iter().map(|(_, shares)| shares).collect()
    }

    /// Brings `shares` one by one; the last answer.
    async fn bring(&self, slot: &str, shares: &[&ShareText], operation: Operation) -> Result<Done, VaultError> {
        let mut session = None;
        let given: Vec<Option<&str>> = if shares.is_empty() { vec![None] } else { shares.iter().map(|share| Some(share.expose())).collect() };
        for share in given {
            let input = PresentInput { slot: slot.parse().unwrap(), session, share, operation: Some(operation.clone()), local_root: share.is_none() };
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
        text.split("\"op\":\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
    }
}

pub(super) fn spec(name: &str, factors: &str) -> SlotSpec {
    SlotSpec::parse(name, factors, &[]).unwrap()
}

pub(super) fn evidence(op: &'static str) -> Evidence<'static> {
    let recorder = Recorder::new(BootId::random(&OsRandom), Arc::new(ManualClock::default()), Paths::Clear);
    Box::new(move |_| vec![Trail::of_system(&recorder, op).response(&Outcome::ok())])
}

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// R-SEAL-3: blank, sealed, open and sealed again; every act on record; what was written before is read after.
#[tokio::test]
async fn a_vault_lives() {
    let mut bench = Bench::new().await;
    assert_eq!((bench.vault.state(), bench.vault.enter().err()), (VaultState::Blank, Some(Closed::Blank)));
    let made = bench.vault.init(vec![spec("daily", "hsm+quorum:2/3"), spec("glass", "quorum:2/2")], evidence("init"), |rooms: Arc<Kept>| async move {
        rooms.put("set up").await?;
        Ok(7)
    });
    let made = made.await.unwrap();
    assert_eq!(made.first.unwrap(), 7);
    let shares: Vec<Vec<ShareText>> = made.shares.into_iter().map(|(_, shares)| shares).collect();
    assert_eq!((bench.vault.state(), bench.vault.enter().err()), (VaultState::Sealed, Some(Closed::Sealed)));
    let again = bench.vault.init(vec![spec("daily", "hsm")], evidence("init"), |_| async { Ok(()) }).await;
    assert!(words(again.err().unwrap()).contains("initialised already"));

    bench.restart().await;
    assert_eq!(bench.vault.state(), VaultState::Sealed);
    bench.unseal("daily", &[&shares[0][2], &shares[0][0]]).await.unwrap();
    let guard = bench.vault.enter().unwrap();
    assert_eq!(guard.get().await.unwrap().as_deref(), Some("set up"));
    guard.put("in use").await.unwrap();
    let again = bench.unseal("glass", &[&shares[1][0], &shares[1][1]]).await;
    assert!(words(again.unwrap_err()).contains("open already"));
    drop(guard);
    let sealing = bench.vault.seal(evidence("seal")).await;
    assert!(sealing.drained && sealing.unrecorded.is_none());
    assert_eq!(bench.vault.enter().err(), Some(Closed::Sealed));
    assert!(bench.hsm.stops() > 0, "the HSM's worker held the seed");
    bench.unseal("glass", &[&shares[1][0], &shares[1][1]]).await.unwrap();
    assert_eq!(bench.vault.enter().unwrap().get().await.unwrap().as_deref(), Some("in use"));
    assert_eq!(bench.recorded(), ["init", "unseal", "seal", "unseal"]);
}

/// R-SEAL-3, R-SEAL-7: sealing waits for requests in flight, and not for ever: who stays finds no key.
#[tokio::test]
async fn sealing_waits_and_then_goes_on() {
    let bench = Bench::new().await;
    let shares = bench.init(&[("glass", "quorum:1/1")]).await;
    bench.unseal("glass", &[&shares[0][0]]).await.unwrap();
    let guard = bench.vault.enter().unwrap();
    let vault = bench.vault.clone();
    let sealing = tokio::spawn(async move { vault.seal(evidence("seal")).await });
    while bench.vault.enter().is_ok() {
        tokio::task::yield_now().await;
    }
    guard.put("still here").await.unwrap();
    assert!(!sealing.is_finished());
    drop(guard);
    assert!(sealing.await.unwrap().drained);

    bench.unseal("glass", &[&shares[0][0]]).await.unwrap();
    let stays = bench.vault.enter().unwrap();
    let before = tokio::time::Instant::now();
    let sealing = bench.vault.seal(evidence("seal")).await;
    assert!(!sealing.drained && before.elapsed() >= DRAIN);
    assert!(matches!(stays.get().await, Err(StoreError::Sealed)));
    assert!(matches!(stays.put("too late").await, Err(CommitError::Sealed)));
    assert_eq!(stays.closed.load(Ordering::SeqCst), 1);
}

/// R-SEAL-3: a broken audit log stops an unseal, never a seal.
#[tokio::test]
async fn without_a_log_nothing_opens_but_everything_closes() {
    let bench = Bench::new().await;
    let shares = bench.init(&[("glass", "quorum:1/1")]).await;
    bench.unseal("glass", &[&shares[0][0]]).await.unwrap();
    *bench.rig.kept.unavailable.lock() = Some("disk full".into());
    let sealing = bench.vault.seal(evidence("seal")).await;
    assert!(sealing.unrecorded.is_some());
    assert_eq!(bench.vault.state(), VaultState::Sealed);
    let refused = bench.unseal("glass", &[&shares[0][0]]).await;
    assert!(matches!(refused, Err(VaultError::Commit(CommitError::AuditUnavailable(_)))), "{refused:?}");
    assert_eq!(bench.vault.state(), VaultState::Sealed);
    *bench.rig.kept.unavailable.lock() = None;
    // The session is complete: no share is needed again.
    let session = bench.vault.sessions.list();
    assert_eq!((session.len(), session[0].have, session[0].need), (1, 1, 1));
    bench.unseal("glass", &[&shares[0][0]]).await.unwrap();
}

/// R-SEAL-2: an `hsm` slot opens by itself at start, by whichever HSM answers; operators' slots do not. Nobody but root presents it.
#[tokio::test]
async fn an_hsm_slot_opens_by_itself() {
    let mut bench = Bench::new().await;
    let shares = bench.init(&[("auto", "hsm"), ("daily", "hsm+quorum:1/2")]).await;
    bench.hsm.fail(ErrorKind::Device);
    assert_eq!(bench.vault.open_by_itself(evidence("unseal")).await.unwrap().unwrap().as_str(), "auto");
    assert_eq!(bench.vault.open_by_itself(evidence("unseal")).await.unwrap(), None);
    bench.restart().await;
    bench.second.fail(ErrorKind::Timeout);
    let error = words(bench.vault.open_by_itself(evidence("unseal")).await.unwrap_err());
    assert!(error.contains("[hsm.main]") && error.contains("[hsm.second]"), "{error}");
    bench.second.heal();
    let remote = PresentInput { slot: "auto".parse().unwrap(), session: None, share: None, operation: Some(Operation::Unseal), local_root: false };
    assert!(matches!(bench.vault.present(remote, evidence("unseal")).await, Err(VaultError::Seal(SealError::LocalRootOnly))));
    bench.unseal("auto", &[]).await.unwrap();
    bench.vault.seal(evidence("seal")).await;
    bench.unseal("daily", &[&shares[1][1]]).await.unwrap();

    let other = Bench::new().await;
    other.init(&[("daily", "hsm+quorum:1/2")]).await;
    assert_eq!(other.vault.open_by_itself(evidence("unseal")).await.unwrap(), None);
}

/// R-SEAL-4, R-SEAL-5: slots are added, verified, re-keyed and removed while requests go on; what lost access cannot come back.
#[tokio::test]
async fn slots_change_online() {
    let mut bench = Bench::new().await;
    let shares = bench.init(&[("daily", "hsm+quorum:2/3")]).await;
    let daily = [&shares[0][0], &shares[0][1]];
    bench.unseal("daily", &daily).await.unwrap();
    let guard = bench.vault.enter().unwrap();
    guard.put("one").await.unwrap();

    let Done::Slot { slot, shares: glass, .. } = bench.bring("daily", &daily, Operation::AddSlot(spec("glass", "quorum:1/2"))).await.unwrap() else { panic!() };
    assert_eq!((slot.as_str(), glass.len()), ("glass", 2));
    let verified = |bench: &Bench| bench.vault.slots().iter().find(|slot| slot.name.as_str() == "glass").unwrap().verified;
    assert_eq!(verified(&bench), None);
    bench.bring("glass", &[&glass[0]], Operation::VerifySlot).await.unwrap();
    assert_eq!(verified(&bench), Some(bench.clock.now()));
    let Done::Recover { slot } = bench.bring("glass", &[&glass[1]], Operation::Recover).await.unwrap() else { panic!() };
    assert_eq!(slot.as_str(), "glass");

    let root = |bench: &Bench, share: &ShareText| {
        let slots = bench.vault.slots.load();
        offline::derive(slots.get(&"glass".parse().unwrap()).unwrap(), &[share.expose()], &Tokens::default()).map(|keys| keys.root)
    };
    let first = root(&bench, &glass[0]).unwrap();
    let Done::Slot { shares: new, .. } = bench.bring("daily", &daily, Operation::RekeySlot(spec("glass", "quorum:1/2"))).await.unwrap() else { panic!() };
    assert!(words(bench.bring("glass", &[&glass[0]], Operation::VerifySlot).await.unwrap_err()).contains("old"));
    let second = root(&bench, &new[0]).unwrap();
    assert_eq!((first.generation, second.generation), (1, 2));
    assert_ne!(first.key.expose(), second.key.expose());
    assert!(bench.vault.disk().unlock(&first.key).await.is_err(), "the former root key opens nothing");

    guard.put("two").await.unwrap();
    let Done::Removed { warnings } = bench.bring("glass", &[&new[1]], Operation::RemoveSlot("daily".parse().unwrap())).await.unwrap() else { panic!() };
    assert!(warnings.is_empty());
    assert!(words(bench.bring("glass", &[&new[1]], Operation::RemoveSlot("glass".parse().unwrap())).await.unwrap_err()).contains("last slot"));
    assert_eq!(guard.get().await.unwrap().as_deref(), Some("two"), "requests went on");
    drop(guard);
    bench.restart().await;
    assert_eq!(bench.vault.slots().len(), 1);
    bench.unseal("glass", &[&new[0]]).await.unwrap();
    assert_eq!(bench.vault.enter().unwrap().get().await.unwrap().as_deref(), Some("two"));
    let ops = bench.recorded();
    let wanted = ["init", "unseal", "add_slot", "verify_slot", "recover", "rekey_slot", "remove_slot", "unseal"];
    assert_eq!(ops, wanted);
}

/// R-SEAL-4, R-SEAL-5: while slots are added, re-keyed and removed and every key rotates, no request fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_keys_change() {
    let bench = Bench::new().await;
    let shares = bench.init(&[("daily", "hsm+quorum:1/1")]).await;
    let daily = [&shares[0][0]];
    bench.unseal("daily", &daily).await.unwrap();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (vault, stop) = (bench.vault.clone(), stop.clone());
            tokio::spawn(async move {
                let mut calls = 0;
                while !stop.load(Ordering::SeqCst) {
                    let guard = vault.enter().unwrap();
                    guard.put("busy").await.unwrap();
                    assert_eq!(guard.get().await.unwrap().as_deref(), Some("busy"));
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    for _ in 0..5 {
        let Done::Slot { shares: glass, .. } = bench.bring("daily", &daily, Operation::AddSlot(spec("glass", "quorum:1/1"))).await.unwrap() else { panic!() };
        bench.bring("daily", &daily, Operation::VerifySlot).await.unwrap();
        bench.vault.rotate_data_keys(evidence("rotate")).await.unwrap();
        bench.vault.rotate_root(evidence("rotate")).await.unwrap();
        bench.vault.rotate_kek("main", evidence("rotate")).await.unwrap();
        let rekey = Operation::RekeySlot(spec("glass", "hsm+quorum:1/1"));
        bench.bring("glass", &[&glass[0]], rekey).await.unwrap();
        bench.bring("daily", &daily, Operation::RemoveSlot("glass".parse().unwrap())).await.unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    for caller in callers {
        assert!(caller.await.unwrap() > 5, "they were busy all the time");
    }
}

/// R-SEAL-2: an old slot record put back into the store opens nothing and authorises nothing.
#[tokio::test]
async fn a_removed_slot_cannot_be_put_back() {
    let mut bench = Bench::new().await;
    let shares = bench.init(&[("daily", "quorum:1/1"), ("gone", "quorum:1/1")]).await;
    bench.unseal("daily", &[&shares[0][0]]).await.unwrap();
    let old = bench.vault.slots.load().get(&"gone".parse().unwrap()).unwrap().encode();
    bench.bring("daily", &[&shares[0][0]], Operation::RemoveSlot("gone".parse().unwrap())).await.unwrap();
    let mut forged = Change::new();
    forged.put_raw(RawTable::Slots, b"gone", old);
    bench.vault.disk().raw().commit(forged, Vec::new()).await.unwrap();
    bench.restart().await;
    assert!(matches!(bench.unseal("gone", &[&shares[1][0]]).await, Err(VaultError::Unlock(_))));
    assert!(bench.bring("gone", &[&shares[1][0]], Operation::VerifySlot).await.is_err());
    bench.unseal("daily", &[&shares[0][0]]).await.unwrap();
    let add = Operation::AddSlot(spec("mine", "quorum:1/1"));
    assert!(matches!(bench.bring("gone", &[&shares[1][0]], add).await, Err(VaultError::Seal(SealError::DoesNotOpen(_)))));
    // It blocks root rotations until it is removed, by name.
    assert!(matches!(bench.vault.rotate_root(evidence("rotate")).await, Err(VaultError::Seal(SealError::Damaged(name))) if name == "gone"));
    bench.bring("daily", &[&shares[0][0]], Operation::RemoveSlot("gone".parse().unwrap())).await.unwrap();
    assert_eq!(bench.vault.rotate_root(evidence("rotate")).await.unwrap(), 4);
}

/// R-SEAL-5: root key and data keys rotate online; shares stay good and data readable.
#[tokio::test]
async fn root_and_data_keys_rotate() {
    let mut bench = Bench::new().await;
    let shares = bench.init(&[("daily", "hsm+quorum:2/3"), ("auto", "hsm")]).await;
    assert!(words(bench.vault.rotate_root(evidence("rotate")).await.unwrap_err()).contains("sealed"));
    bench.unseal("daily", &[&shares[0][0], &shares[0][1]]).await.unwrap();
    bench.vault.enter().unwrap().put("kept").await.unwrap();
    assert_eq!(bench.vault.rotate_root(evidence("rotate")).await.unwrap(), 2);
    assert_eq!(bench.vault.rotate_data_keys(evidence("rotate")).await.unwrap(), 2);
    assert_eq!(bench.vault.rotate_root(evidence("rotate")).await.unwrap(), 3);
    for slot in ["daily", "auto"] {
        bench.restart().await;
        let shares: &[&ShareText] = if slot == "daily" { &[&shares[0][1], &shares[0][2]] } else { &[] };
        bench.unseal(slot, shares).await.unwrap();
        assert_eq!(bench.vault.enter().unwrap().get().await.unwrap().as_deref(), Some("kept"));
    }
}

/// R-SEAL-5: old data is sealed anew in the background and old data keys end, whatever dies in between; keys can rotate without end.
#[tokio::test]
async fn data_is_reencrypted_and_old_keys_end() {
    let mut bench = Bench::new().await;
    let shares = bench.init(&[("glass", "quorum:1/1")]).await;
    bench.unseal("glass", &[&shares[0][0]]).await.unwrap();
    bench.vault.enter().unwrap().put("kept").await.unwrap();
    let generations = |bench: &Bench| bench.vault.enter().unwrap().store.keyring().unwrap().generation_ids();
    assert!(bench.vault.reencrypt(evidence("drop")).await.unwrap().finished);
    for round in 2..24 {
        assert_eq!(bench.vault.rotate_data_keys(evidence("rotate")).await.unwrap(), round);
        if round % 4 == 0 {
            bench.rig.faults.next(Fault::FailBefore);
            assert!(bench.vault.reencrypt(evidence("drop")).await.is_err());
            bench.restart().await;
            bench.unseal("glass", &[&shares[0][0]]).await.unwrap();
        }
        assert_eq!(generations(&bench), [round - 1, round]);
        // The pass that moves the last record still met the old key; the pass after it did not.
        let mut dropped = Vec::new();
        for _ in 0..6 {
            dropped.extend(bench.vault.reencrypt(evidence("drop")).await.unwrap().dropped);
        }
        assert_eq!((dropped, generations(&bench)), (vec![round - 1], vec![round]));
    }
    bench.restart().await;
    bench.unseal("glass", &[&shares[0][0]]).await.unwrap();
    assert_eq!(bench.vault.enter().unwrap().get().await.unwrap().as_deref(), Some("kept"));
}

/// R-SEAL-5, R-SEAL-6: an HSM's KEK rotates in steps; whatever dies in between, the slot opens by both HSMs and the rest is made up for.
#[tokio::test]
async fn a_kek_rotation_survives_a_crash_at_every_step() {
    for (step, fault) in [None, Some(Fault::FailBefore), Some(Fault::FailAfter)].into_iter().enumerate() {
        let mut bench = Bench::new().await;
        bench.init(&[("auto", "hsm")]).await;
        bench.unseal("auto", &[]).await.unwrap();
        if let Some(fault) = fault {
            bench.rig.faults.next(fault);
        }
        let rotated = bench.vault.rotate_kek("main", evidence("rotate")).await;
        assert_eq!(rotated.is_ok(), fault != Some(Fault::FailBefore), "{step}: {rotated:?}");
        assert_eq!(bench.hsm.versions(), [1, 2]);
        bench.restart().await;
        bench.second.fail(ErrorKind::Device);
        bench.unseal("auto", &[]).await.unwrap();
        let kept = bench.vault.tend(evidence("tend")).await.unwrap();
        assert_eq!(kept, Tended { retired: false, destroyed: 0 }, "the grace has not passed");
        if fault == Some(Fault::FailBefore) {
            assert_eq!(bench.vault.rotate_kek("main", evidence("rotate")).await.unwrap(), 2, "the orphan is taken");
        }
        bench.clock.advance(Duration::from_secs(KEK_GRACE_SECS));
        // The commit that drops the old copy dies: nothing is destroyed.
        bench.rig.faults.next(Fault::FailBefore);
        assert!(bench.vault.tend(evidence("tend")).await.is_err());
        assert_eq!(bench.hsm.versions(), [1, 2]);
        // The copy is dropped, and the daemon dies before the key is destroyed.
        bench.hsm.fail_after(1);
        assert!(bench.vault.tend(evidence("tend")).await.is_err());
        bench.hsm.heal();
        assert_eq!(bench.hsm.versions(), [1, 2]);
        bench.restart().await;
        bench.unseal("auto", &[]).await.unwrap();
        assert_eq!(bench.vault.tend(evidence("tend")).await.unwrap(), Tended { retired: false, destroyed: 1 });
        assert_eq!(bench.hsm.versions(), [2]);
        bench.second.heal();
        bench.hsm.fail(ErrorKind::Device);
        bench.restart().await;
        bench.unseal("auto", &[]).await.unwrap();
    }
}

/// R-SEAL-4: a crash in the middle of `init`, of a re-keying or of a root rotation leaves the old state or the new one, whole.
#[tokio::test]
async fn changes_are_whole_or_not_at_all() {
    for fault in [Fault::FailBefore, Fault::FailAfter] {
        let made = fault == Fault::FailAfter;
        let mut bench = Bench::new().await;
        bench.rig.faults.next(fault);
        let init = bench.vault.init(vec![spec("daily", "hsm+quorum:1/2")], evidence("init"), |_| async { Ok(()) }).await;
        assert_eq!(init.is_ok(), made, "an answer that was only late is not lost");
        bench.restart().await;
        assert_eq!(bench.vault.state(), if made { VaultState::Sealed } else { VaultState::Blank });
        let old = match init {
            Ok(made) => made.shares.into_iter().next().unwrap().1,
            Err(_) => bench.init(&[("daily", "hsm+quorum:1/2")]).await.remove(0),
        };
        bench.unseal("daily", &[&old[0]]).await.unwrap();
        bench.vault.enter().unwrap().put("kept").await.unwrap();

        bench.rig.faults.next(fault);
        let rekeyed = bench.bring("daily", &[&old[0]], Operation::RekeySlot(spec("daily", "hsm+quorum:1/2"))).await;
        assert_eq!(rekeyed.is_ok(), made, "{rekeyed:?}");
        bench.restart().await;
        let now = match rekeyed {
            Ok(Done::Slot { shares, .. }) => {
                assert!(words(bench.unseal("daily", &[&old[0]]).await.unwrap_err()).contains("old"));
                shares
            }
            _ => old,
        };
        bench.unseal("daily", &[&now[1]]).await.unwrap();
        assert_eq!(bench.vault.enter().unwrap().get().await.unwrap().as_deref(), Some("kept"));

        bench.rig.faults.next(fault);
        assert_eq!(bench.vault.rotate_root(evidence("rotate")).await.is_ok(), made);
        // Memory follows the disk: the next change is made under the root key that the store has.
        bench.vault.rotate_root(evidence("rotate")).await.unwrap();
        bench.restart().await;
        bench.unseal("daily", &[&now[0]]).await.unwrap();
        assert_eq!(bench.vault.enter().unwrap().get().await.unwrap().as_deref(), Some("kept"));
    }
}

/// A vault cannot be made without slots, or with a slot that cannot be made; it stays blank.
#[tokio::test]
async fn a_refused_init_leaves_it_blank() {
    let bench = Bench::new().await;
    let init = |specs| bench.vault.init(specs, evidence("init"), |_| async { Ok(()) });
    assert!(words(init(Vec::new()).await.err().unwrap()).contains("at least one slot"));
    assert!(matches!(init(vec![spec("a", "quorum:1/1"), spec("a", "hsm")]).await.err(), Some(VaultError::Seal(SealError::SlotExists(_)))));
    bench.second.fail(ErrorKind::Device);
    assert!(matches!(init(vec![spec("a", "hsm")]).await.err(), Some(VaultError::Seal(SealError::HsmStep { name, .. })) if name == "second"));
    assert!(bench.vault.state() == VaultState::Blank && bench.rig.kept.frames.lock().is_empty());
    assert!(bench.vault.rotate_root(evidence("rotate")).await.is_err() && bench.vault.open_by_itself(evidence("x")).await.unwrap().is_none());
    bench.second.heal();
    let made = init(vec![spec("a", "hsm"), spec("b", "quorum:1/2")]).await.unwrap();
    assert!(made.warnings.iter().any(|warning| warning.contains("k = 1")), "{:?}", made.warnings);
    assert_eq!(bench.vault.slots().iter().map(|slot| (slot.factors.clone(), slot.hsms.len())).collect::<Vec<_>>(), [("hsm".into(), 2), ("quorum:1/2".into(), 0)]);
}

/// R-SEAL-3: the door is cheap: a request pays for it every time. The bound is loose, for a slow and busy machine.
#[tokio::test]
async fn entering_costs_next_to_nothing() {
    let bench = Bench::new().await;
    let shares = bench.init(&[("glass", "quorum:1/1")]).await;
    bench.unseal("glass", &[&shares[0][0]]).await.unwrap();
    let per_entry = (0..20).map(|_| {
        let start = std::time::Instant::now();
        (0..10_000).for_each(|_| drop(bench.vault.enter()));
        start.elapsed().as_nanos() / 10_000
    });
    let best = per_entry.min().unwrap();
    println!("{best} ns an entry");
    assert!(best < 2_000, "{best} ns");
}

/// R-SEAL-4: the same on the default engine, and what the offline derivation finds is what the daemon uses.
#[tokio::test]
async fn on_a_real_engine() {
    let dir = tempfile::tempdir().unwrap();
    let hsm = Fake::new("main");
    let clock = Arc::new(ManualClock::at(Timestamp(1_795_000_000_000)));
    let open = || async { Vault::new(parts(disk(EngineKind::Fjall, dir.path()), Tokens::new(vec![hsm.clone()]), clock.clone())).await.unwrap() };
    let vault = open().await;
    let made = vault.init(vec![spec("auto", "hsm")], evidence("init"), |rooms: Arc<Kept>| async move { Ok(rooms.put("first").await?) }).await.unwrap();
    made.first.unwrap();
    vault.disk().close();
    drop(vault);
    let vault = open().await;
    assert!(vault.open_by_itself(evidence("unseal")).await.unwrap().is_some());
    assert_eq!(vault.enter().unwrap().get().await.unwrap().as_deref(), Some("first"));
    let slots = vault.slots.load();
    let keys = offline::derive(slots.get(&"auto".parse().unwrap()).unwrap(), &[], &Tokens::new(vec![hsm.clone()])).unwrap();
    assert!(vault.disk().unlock(&keys.root.key).await.is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// R-SEAL-2, R-SEAL-4, R-SEAL-5: against a model: whatever operators do in whatever order, exactly the slots that exist open, each by
    /// its newest shares, and the data is there.
    #[test]
    fn any_order_of_acts(acts in proptest::collection::vec((0..6u8, 0..3usize), 1..10)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut bench = Bench::new().await;
            let mut model: BTreeMap<String, Vec<ShareText>> = BTreeMap::new();
            model.insert("s0".into(), bench.init(&[("s0", "hsm+quorum:2/2")]).await.remove(0));
            bench.unseal("s0", &model["s0"].iter().collect::<Vec<_>>()).await.unwrap();
            bench.vault.enter().unwrap().put("kept").await.unwrap();
            for (act, which) in acts {
                let name = format!("s{which}");
                let by = model.keys().next().unwrap().clone();
                let factors = ["hsm+quorum:2/2", "quorum:2/2", "quorum:1/1"][which];
                let operation = match act {
                    0 => Operation::AddSlot(spec(&name, factors)),
                    1 => Operation::RemoveSlot(name.parse().unwrap()),
                    2 => Operation::RekeySlot(spec(&name, factors)),
                    3 => { bench.vault.rotate_root(evidence("rotate")).await.unwrap(); continue }
                    4 => { let _ = bench.vault.rotate_kek("main", evidence("rotate")).await; continue }
                    _ => {
                        bench.clock.advance(Duration::from_secs(KEK_GRACE_SECS));
                        bench.vault.tend(evidence("tend")).await.unwrap();
                        bench.restart().await;
                        bench.unseal(&by, &model[&by].iter().collect::<Vec<_>>()).await.unwrap();
                        continue
                    }
                };
                let done = bench.bring(&by, &model[&by].iter().collect::<Vec<_>>(), operation.clone()).await;
                match (&operation, done) {
                    (Operation::AddSlot(_), done) if model.contains_key(&name) => assert!(done.is_err()),
                    (Operation::RemoveSlot(_), done) if !model.contains_key(&name) || model.len() == 1 => assert!(done.is_err()),
                    (Operation::RekeySlot(_), done) if !model.contains_key(&name) => assert!(done.is_err()),
                    (Operation::RemoveSlot(_), done) => { done.unwrap(); model.remove(&name); }
                    (_, done) => {
                        let Done::Slot { shares, .. } = done.unwrap() else { panic!() };
                        model.insert(name, shares);
                    }
                }
            }
            for (name, shares) in &model {
                bench.restart().await;
                bench.unseal(name, &shares.iter().collect::<Vec<_>>()).await.unwrap();
                assert_eq!(bench.vault.enter().unwrap().get().await.unwrap().as_deref(), Some("kept"));
            }
            assert_eq!(bench.vault.slots().len(), model.len());
            assert!(bench.vault.slots().iter().all(|slot| slot.factors.parse::<Factors>().is_ok()));
        });
    }
}
