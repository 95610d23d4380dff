//! What happens when the engine, the disk or the audit log fails.

use super::*;
use crate::{
    base::random::OsRandom,
    store::{
        commit::{Evidence, Space},
        physical::{
            Engine,
            faulty::{Fault, Faults, Faulty},
            fjall::FjallEngine,
        },
    },
};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

const KEY: [Part<'static>; 1] = [Part::Name("a")];

fn change(view: &View, bytes: &[u8], hooks: &Arc<AtomicUsize>) -> Change {
    let hooks = hooks.clone();
    let mut change = Change::new();
    change.put(view, &KEY, value(bytes)).then(move || {
        hooks.fetch_add(1, Ordering::SeqCst);
    });
    change
}

struct Case {
    rig: Rig,
    disk: Disk,
    store: Arc<Store>,
    view: View,
    hooks: Arc<AtomicUsize>,
}

impl Case {
    async fn new(rig: Rig) -> Self {
        let disk = rig.open();
        let store = init(&disk, Algorithm::default()).await;
        let view = store.view(Namespace::ROOT, Table::System);
        put(&store, &view, &KEY, b"before").await;
        Self {
            rig,
            disk,
            store,
            view,
            hooks: Arc::default(),
        }
    }
    async fn commit(&self, bytes: &[u8]) -> Result<Committed, CommitError> {
        self.store
            .commit(change(&self.view, bytes, &self.hooks), vec![evidence("test")])
            .await
    }
    async fn value(&self) -> Vec<u8> {
        self.view.get(&KEY).await.unwrap().unwrap().value.to_vec()
    }
    /// Hooks run and frames handed on. A frame follows its answer, and is handed on before the next group.
    async fn counts(&self) -> (usize, usize) {
        let mut next = Change::new();
        next.put_raw(RawTable::Fence, b"x", Vec::new()).urgent();
        drop(self.store.commit(next, Vec::new()).await);
        (self.hooks.load(Ordering::SeqCst), self.rig.kept.frames.lock().len())
    }
}

/// A write error reopens the store in process; whether the change was made is settled, and memory and audit log follow that.
#[tokio::test]
async fn a_failed_write_is_settled_by_reopening() {
    let case = Case::new(Rig::default()).await;
    case.rig.faults.next(Fault::FailBefore);
    assert!(matches!(case.commit(b"one").await, Err(CommitError::Poisoned)));
    assert_eq!((case.value().await, case.counts().await), (b"before".to_vec(), (0, 0)));

    case.rig.faults.next(Fault::FailAfter);
    assert!(case.commit(b"two").await.is_ok());
    assert_eq!((case.value().await, case.counts().await), (b"two".to_vec(), (1, 1)));

    assert!(case.commit(b"three").await.is_ok());
    assert_eq!((case.value().await, case.counts().await), (b"three".to_vec(), (2, 2)));
}

/// The same on the real engine: it is closed and opened again under the running store.
#[tokio::test]
async fn fjall_is_reopened_in_process() {
    let dir = tempfile::tempdir().unwrap();
    let (path, faults) = (dir.path().to_owned(), Faults::default());
    let given = faults.clone();
    let opener = move || Ok(Box::new(Faulty::over(FjallEngine::open(&path)?, given.clone())) as Box<dyn Engine>);
    let kept = Arc::new(Kept::default());
    let disk = Disk::open_with(
        (Box::new(opener), Caches::default()),
        None,
        (Space::new(None, 0, Duration::ZERO), Evidence::Synced),
        Arc::new(OsRandom),
        move |_, _, _| Ok(kept),
    )
    .unwrap();
    let store = init(&disk, Algorithm::default()).await;
    let view = store.view(Namespace::ROOT, Table::System);
    for (number, fault) in [Fault::FailBefore, Fault::FailAfter, Fault::FailBefore]
        .into_iter()
        .enumerate()
    {
        put(&store, &view, &[Part::Raw(&[1, number as u8])], b"before").await;
        faults.next(fault);
        let mut change = Change::new();
        change.put(&view, &[Part::Raw(&[2, number as u8])], value(b"during"));
        assert_eq!(
            store.commit(change, vec![evidence("test")]).await.is_ok(),
            fault == Fault::FailAfter
        );
        let found = view.get(&[Part::Raw(&[2, number as u8])]).await.unwrap();
        assert_eq!(found.is_some(), fault == Fault::FailAfter);
        assert_eq!(
            *view.get(&[Part::Raw(&[1, number as u8])]).await.unwrap().unwrap().value,
            b"before"
        );
    }
    disk.close();
}

/// While the store does not open again its waiters are told that they do not know; hooks run when it does.
#[tokio::test]
async fn an_indeterminate_commit_is_settled_later() {
    let case = Case::new(Rig::default()).await;
    case.rig.faults.next(Fault::FailAfter);
    case.rig.faults.fail_opens(1);
    let Err(CommitError::Indeterminate(op)) = case.commit(b"one").await else {
        panic!("not indeterminate")
    };
    assert!(matches!(
        case.view.get(&[Part::Name("b")]).await,
        Err(StoreError::Poisoned)
    ));
    assert!(matches!(case.commit(b"two").await, Err(CommitError::Poisoned)));
    assert_eq!(case.counts().await, (0, 0));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(case.commit(b"three").await.is_ok());
    assert!(case.store.outcome(op).await.unwrap().is_some());
    assert_eq!((case.value().await, case.counts().await), (b"three".to_vec(), (2, 2)));
}

/// After a failed sync, EIO or a commit that was half made nothing goes on: a second fsync would lie.
#[tokio::test]
async fn a_failed_sync_stops_the_store() {
    for fault in [Fault::FailSync, Fault::Eio, Fault::Torn(1), Fault::Torn(2)] {
        let case = Case::new(Rig::default()).await;
        case.rig.faults.next(fault);
        assert!(
            matches!(case.commit(b"one").await, Err(CommitError::Indeterminate(_))),
            "{fault:?}"
        );
        assert!(
            matches!(case.commit(b"two").await, Err(CommitError::Stopped { .. })),
            "{fault:?}"
        );
        assert!(
            matches!(case.view.get(&KEY).await, Err(StoreError::Stopped { .. })),
            "{fault:?}"
        );
        assert_eq!(case.counts().await, (0, 0));
        case.disk.close();
    }
}

#[tokio::test]
async fn a_stall_only_takes_time_and_keeps_the_order() {
    let case = Case::new(Rig::default()).await;
    case.rig.faults.next(Fault::Stall(Duration::from_millis(50)));
    let (one, two) = tokio::join!(case.commit(b"one"), case.commit(b"two"));
    assert!(one.unwrap().version < two.unwrap().version);
    assert_eq!(case.value().await, b"two");
}

/// R-AUDIT-3: a full disk refuses with a clear error, revocation goes on, service resumes by itself.
#[tokio::test]
async fn a_full_disk_refuses_and_resumes() {
    let case = Case::new(Rig {
        reserve_bytes: 1 << 20,
        ..Rig::default()
    })
    .await;
    case.rig.faults.free_bytes(Some(1000));
    assert!(matches!(case.commit(b"one").await, Err(CommitError::Full)));
    assert!(matches!(
        case.store.commit(Change::new(), vec![evidence("read")]).await,
        Err(CommitError::Full)
    ));
    assert_eq!(case.disk.audit_head().await.unwrap().seq, 0);
    let mut revoke = change(&case.view, b"revoked", &case.hooks);
    revoke.urgent();
    assert!(case.store.commit(revoke, vec![evidence("revoke")]).await.is_ok());
    assert_eq!(case.disk.audit_head().await.unwrap().seq, 1);
    case.rig.faults.free_bytes(None);
    assert!(case.commit(b"two").await.is_ok());
    assert_eq!((case.value().await, case.counts().await), (b"two".to_vec(), (2, 2)));
}

/// R-AUDIT-1: no record, no change.
#[tokio::test]
async fn without_an_audit_log_nothing_is_done() {
    let case = Case::new(Rig::default()).await;
    *case.rig.kept.unavailable.lock() = Some("disk full".into());
    assert!(matches!(case.commit(b"one").await, Err(CommitError::AuditUnavailable(why)) if why == "disk full"));
    *case.rig.kept.unavailable.lock() = None;
    assert!(case.commit(b"two").await.is_ok());
    assert_eq!(case.counts().await, (1, 1));
}

#[tokio::test]
async fn a_hook_that_panics_stops_the_store() {
    let case = Case::new(Rig::default()).await;
    let mut change = change(&case.view, b"one", &case.hooks);
    change.then(|| panic!("on purpose"));
    assert!(case.store.commit(change, Vec::new()).await.is_ok());
    assert!(matches!(case.commit(b"two").await, Err(CommitError::Stopped { .. })));
}

#[tokio::test]
async fn what_is_queued_is_made_before_closing_and_nothing_after() {
    let case = Case::new(Rig::default()).await;
    let waiting = async { case.commit(b"one").await };
    let (made, ()) = tokio::join!(waiting, async { case.disk.close() });
    assert!(made.is_ok());
    assert!(matches!(case.commit(b"two").await, Err(CommitError::Closed)));
}

/// R-STORE-1: batches of one group do not see each other half made: 8 writers count one number up by check-and-set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_and_set_counts_exactly() {
    let case = Arc::new(Case::new(Rig::default()).await);
    put(&case.store, &case.view, &KEY, &0u64.to_be_bytes()).await;
    let writers = (0..8).map(|_| {
        let case = case.clone();
        tokio::spawn(async move {
            for _ in 0..50 {
                loop {
                    let now = case.view.get(&KEY).await.unwrap().unwrap();
                    let next = u64::from_be_bytes(now.value[..].try_into().unwrap()) + 1;
                    let mut change = Change::new();
                    change
                        .put(&case.view, &KEY, value(&next.to_be_bytes()))
                        .require_version(&case.view, &KEY, now.version);
                    match case.store.commit(change, vec![evidence("count")]).await {
                        Ok(_) => break,
                        Err(CommitError::Precondition(0)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(case.value().await, 400u64.to_be_bytes());
    case.counts().await;
    assert_eq!(
        case.rig.kept.frames.lock().iter().map(|frame| frame.count).sum::<u32>(),
        400
    );
}

/// Too large is told by size, for every engine that has a limit, and nothing is made.
#[tokio::test]
async fn a_change_beyond_the_engine_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let disk = disk(EngineKind::Sled, dir.path());
    let store = init(&disk, Algorithm::default()).await;
    let view = store.view(Namespace::ROOT, Table::KvValue);
    let big = |bytes: usize| {
        let mut change = Change::new();
        change.put(&view, &KEY, value(&vec![1; bytes]));
        change
    };
    assert!(matches!(
        store.commit(big(400 << 10), Vec::new()).await,
        Err(CommitError::TooLarge { .. })
    ));
    assert!(store.commit(big(300 << 10), Vec::new()).await.is_ok());
    disk.close();
}

/// A device that is one process's only; newer formats and other engines are refused with words.
#[tokio::test]
async fn open_refuses_what_it_must() {
    let dir = tempfile::tempdir().unwrap();
    let config = |engine| DiskConfig {
        caches: Caches::default(),
        evidence: Evidence::default(),
        dir: dir.path().join("store"),
        engine,
        reserve_bytes: 0,
        audit: crate::audit::Settings {
            dir: dir.path().join("audit"),
            segment_bytes: crate::audit::SEGMENT_BYTES_MIN,
        },
    };
    let random = || Arc::new(crate::base::random::OsRandom);
    let (disk, torn) = Disk::open(&config(EngineKind::Fjall), random()).unwrap();
    assert!(torn.is_none());
    assert!(matches!(
        Disk::open(&config(EngineKind::Fjall), random()),
        Err(OpenError::Locked { .. })
    ));
    let (cluster, store) = (disk.ids().cluster, init(&disk, Algorithm::default()).await);
    store.commit(Change::new(), vec![evidence("read")]).await.unwrap();
    drop(store);
    disk.close();
    drop(disk);
    assert!(matches!(
        Disk::open(&config(EngineKind::Sled), random()),
        Err(OpenError::Engine { .. })
    ));
    let (disk, _) = Disk::open(&config(EngineKind::Fjall), random()).unwrap();
    assert_eq!(disk.ids().cluster, cluster);
    let mut change = Change::new();
    let newer = [&2u32.to_be_bytes()[..], &[0; 32]].concat();
    change
        .put_raw(RawTable::Format, &[], newer.clone())
        .put_raw(RawTable::Heads, b"format", newer);
    disk.raw().commit(change, Vec::new()).await.unwrap();
    disk.close();
    drop(disk);
    assert!(matches!(
        Disk::open(&config(EngineKind::Fjall), random()),
        Err(OpenError::Newer { found: 2, known: 1 })
    ));
}

fn written() -> Rig {
    Rig {
        evidence: Evidence::Written,
        ..Rig::default()
    }
}

/// D1, where the operator chose it: a read's record is written before its answer and synced soon after it by itself, and only then handed to
/// the log; what changes something, and what is urgent, is synced before its answer and takes along what waited.
#[tokio::test]
async fn evidence_of_reads_may_be_synced_a_moment_later() {
    let case = Case::new(written()).await;
    let (faults, kept) = (case.rig.faults.clone(), case.rig.kept.clone());
    let handed = || kept.frames.lock().len();
    let read = || case.store.commit(Change::relaxed(), vec![evidence("read")]);
    let before = faults.written_and_synced();
    for count in 1..=3 {
        read().await.unwrap();
        assert_eq!(faults.written_and_synced(), (before.0 + count, before.1));
        assert_eq!(handed(), 0, "not in the log before it is durable");
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(
        faults.written_and_synced(),
        (before.0 + 3, before.1 + 1),
        "one sync for all, and none for nothing"
    );
    assert_eq!(handed(), 3);

    read().await.unwrap();
    case.commit(b"one").await.unwrap();
    assert_eq!(faults.written_and_synced().1, before.1 + 2);
    assert_eq!(
        case.counts().await,
        (1, 5),
        "the change's sync carried the read's frame, in order"
    );
    let mut urgent = Change::new();
    urgent.urgent();
    let synced = faults.written_and_synced().1;
    case.store.commit(urgent, vec![evidence("seal")]).await.unwrap();
    assert_eq!(faults.written_and_synced().1, synced + 1);
    let firsts: Vec<_> = kept.frames.lock().iter().map(|frame| frame.first_seq).collect();
    assert!(firsts.is_sorted());
}

/// What waits for its sync is neither lost nor handed on too early when the engine fails, the sync fails, or the store closes.
#[tokio::test]
async fn unsynced_evidence_outlives_failures() {
    let case = Case::new(written()).await;
    let handed = || case.rig.kept.frames.lock().len();
    let read = || case.store.commit(Change::relaxed(), vec![evidence("read")]);
    read().await.unwrap();
    case.rig.faults.next(Fault::FailBefore);
    assert!(matches!(read().await, Err(CommitError::Poisoned)));
    read().await.unwrap();
    case.disk.close();
    assert_eq!(handed(), 2);

    let case = Case::new(written()).await;
    read_then_fail_the_sync(&case).await;
    assert!(
        case.rig.kept.frames.lock().is_empty(),
        "nobody knows what is on the disk"
    );
    assert!(matches!(case.commit(b"one").await, Err(CommitError::Stopped { .. })));
}

async fn read_then_fail_the_sync(case: &Case) {
    case.store
        .commit(Change::relaxed(), vec![evidence("read")])
        .await
        .unwrap();
    case.rig.faults.next(Fault::FailSync);
    tokio::time::sleep(Duration::from_millis(500)).await;
}

/// What is neither a read nor a refusal is synced before its answer, though it changes nothing in the store: shares that are told, acts outside.
#[tokio::test]
async fn other_evidence_is_never_late() {
    let case = Case::new(written()).await;
    let before = case.rig.faults.written_and_synced();
    case.store
        .commit(Change::new(), vec![evidence("shares")])
        .await
        .unwrap();
    assert_eq!(case.rig.faults.written_and_synced(), (before.0, before.1 + 1));
}
