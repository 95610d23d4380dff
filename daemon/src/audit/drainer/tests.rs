use super::*;
use crate::{
    audit::{
        Outcome, Recorder, Trail,
        fake::{Act, FakeDisk, Kept},
        trail::Paths,
    },
    base::{
        id::BootId,
        path::Path as VaultPath,
        time::{ManualClock, Timestamp},
    },
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use strongroom_audit::{Encoded, KnownHead, Options, read, segment_name, verify};

const CLUSTER: ClusterId = ClusterId::from_bytes([7; 16]);

fn genesis() -> ChainHead {
    ChainHead::genesis(Id(*CLUSTER.as_bytes()))
}

fn settings() -> Settings {
    Settings {
        dir: "audit".into(),
        segment_bytes: 64 << 10,
    }
}

fn recorder() -> Arc<Recorder> {
    Recorder::new(
        BootId::from_bytes([1; 16]),
        Arc::new(ManualClock::at(Timestamp(0))),
        Paths::Clear,
    )
}

/// A record of about `bytes` bytes, different for each `number`.
fn record(number: u64, bytes: usize) -> Encoded {
    let mut trail = Trail::of_system(&recorder(), "test");
    trail.param_u64("number", number);
    let names: Vec<&'static str> = vec![
        "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p",
    ];
    for name in names.into_iter().take(bytes / 512) {
        trail.param_path(name, &VaultPath::parse(&"x".repeat(500)).unwrap());
    }
    trail.response(&Outcome::ok())
}

/// What the store does: one commit writes head and outbox row, and forgets the rows that are drained.
#[derive(Clone)]
struct FakeStore {
    head: ChainHead,
    outbox: BTreeMap<u64, Bytes>,
    records: Vec<Encoded>,
}

impl FakeStore {
    fn new() -> Self {
        Self {
            head: genesis(),
            outbox: BTreeMap::new(),
            records: Vec::new(),
        }
    }
    fn commit(&mut self, records: Vec<Encoded>, drained: u64) -> Frame {
        let frame = self.head.extend(&records).unwrap();
        self.outbox.insert(frame.first_seq, frame.bytes.clone());
        self.outbox
            .retain(|_, bytes| Frame::from_bytes(bytes.clone()).unwrap().end_seq() > drained);
        self.records.extend(records);
        frame
    }
    fn commit_sized(&mut self, bytes: usize, drained: u64) -> Frame {
        self.commit(vec![record(self.head.seq, bytes)], drained)
    }
    fn open(&self, disk: &FakeDisk) -> Result<Opened, OpenError> {
        Drainer::open_in(Box::new(disk.clone()), &settings(), CLUSTER, self.head, self.rows())
    }
    fn rows(&self) -> Vec<Result<Bytes, String>> {
        self.outbox.values().cloned().map(Ok).collect()
    }
    /// The log on `disk` is whole and holds exactly the records that were committed.
    fn check(&self, disk: &FakeDisk, what: &str) {
        let dir = tempfile::tempdir().unwrap();
        disk.copy_to(dir.path());
        let report = verify(
            dir.path(),
            &Options {
                heads: vec![self.head.into()],
                ..Options::default()
            },
        )
        .unwrap();
        assert!(report.is_clean(), "{what}: {:?} {:?}", report.findings, report.torn);
        let lines: Vec<_> = read(dir.path(), 0).unwrap().map(Result::unwrap).collect();
        assert_eq!(lines.len(), self.records.len(), "{what}");
        assert!(
            lines
                .iter()
                .zip(&self.records)
                .all(|(line, record)| line.record == record.as_bytes()),
            "{what}"
        );
    }
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A run: every state of the store with the number of disk acts at that moment, and all acts. Batches of one to three frames, sizes
/// that roll over several segments.
fn run() -> (Vec<(usize, FakeStore)>, Vec<Act>) {
    let disk = FakeDisk::default();
    let mut store = FakeStore::new();
    let mut log = Segments::open(Box::new(disk.clone()), Id(*CLUSTER.as_bytes()), 64 << 10).unwrap();
    let mut states = vec![(0, store.clone())];
    for turn in 0..14 {
        let mut batch = Vec::new();
        for part in 0..=turn % 3 {
            batch.push(store.commit_sized(600 + 4000 * ((turn + part) % 3), log.head().seq));
            states.push((disk.acts().len(), store.clone()));
        }
        log.append(&batch).unwrap();
    }
    assert!(disk.names().len() >= 2, "{:?}", disk.names());
    store.check(&disk, "the run itself");
    (states, disk.acts())
}

/// R-AUDIT-1, R-AUDIT-2: whenever the power goes, and whatever of the unsynced writes the disk kept, the log comes back whole.
#[test]
fn a_power_cut_at_any_act_loses_nothing() {
    let (states, acts) = run();
    for cut in 0..=acts.len() {
        let (_, store) = states.iter().rfind(|(at, _)| *at <= cut).unwrap();
        let seeds = (0..4).map(|seed| Kept::Some(seed * 1000 + cut as u64));
        for kept in [Kept::Nothing, Kept::Everything].into_iter().chain(seeds) {
            let what = format!("cut behind act {cut} of {}, kept {kept:?}", acts.len());
            let disk = FakeDisk::after_cut(&acts[..cut], kept);
            let opened = store.open(&disk).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(opened.drainer.drained_through(), store.head.seq, "{what}");
            drop(opened);
            store.check(&disk, &what);
        }
    }
}

/// A frame torn at any byte is cut, noted and written again.
#[test]
fn a_tail_torn_at_any_byte_is_mended_and_noted() {
    let disk = FakeDisk::default();
    let mut store = FakeStore::new();
    let mut log = Segments::open(Box::new(disk.clone()), Id(*CLUSTER.as_bytes()), 64 << 10).unwrap();
    log.append(&[store.commit_sized(0, 0)]).unwrap();
    let frame = store.commit_sized(0, 1);
    log.append(std::slice::from_ref(&frame)).unwrap();
    let acts: Vec<_> = disk
        .acts()
        .into_iter()
        .rev()
        .skip_while(|act| matches!(act, Act::Sync(_)))
        .collect();
    let acts: Vec<_> = acts.into_iter().rev().collect();
    for bytes in 0..frame.bytes.len() {
        let what = format!("torn at byte {bytes} of {}", frame.bytes.len());
        let disk = FakeDisk::after_cut(&acts, Kept::LastWrite(bytes));
        let opened = store.open(&disk).unwrap_or_else(|error| panic!("{what}: {error}"));
        let kept = frame.bytes[..bytes]
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        match &opened.torn {
            None => assert_eq!(kept, 0, "{what}"),
            Some(torn) => {
                use sha2::Digest;
                let hash: [u8; 32] = sha2::Sha256::digest(&frame.bytes[..kept]).into();
                assert_eq!((torn.bytes, torn.sha256), (kept as u64, hash), "{what}");
                let note = format!("{:?}", recorder().torn_tail(torn));
                assert!(
                    note.contains(r#""stage":"recovery""#) && note.contains(&format!(r#""bytes_dropped":{kept}"#)),
                    "{note}"
                );
            }
        }
        drop(opened);
        store.check(&disk, &what);
    }
}

/// One write of several frames can lose the first and keep the second: mended while the outbox has them, refused when it has not,
/// and then nothing on the disk is touched.
#[test]
fn whole_frames_behind_a_torn_one_are_mended_only_from_the_outbox() {
    let disk = FakeDisk::default();
    let mut store = FakeStore::new();
    let mut log = Segments::open(Box::new(disk.clone()), Id(*CLUSTER.as_bytes()), 64 << 10).unwrap();
    let batch = [store.commit_sized(2000, 0), store.commit_sized(2000, 0)];
    log.append(&batch).unwrap();
    disk.change(&segment_name(0), |bytes| bytes[4096..4600].fill(0));
    let before = disk.contents();
    let without = FakeStore {
        outbox: BTreeMap::new(),
        ..store.clone()
    };
    let refused = without.open(&disk).err().unwrap();
    assert!(
        matches!(
            refused,
            OpenError::Damaged {
                offset: 4096,
                seq: 0,
                ..
            }
        ),
        "{refused}"
    );
    assert!(
        refused.to_string().contains("strongroomd repair --accept-loss"),
        "{refused}"
    );
    assert!(disk.contents() == before);
    assert!(store.open(&disk).unwrap().torn.is_some());
    store.check(&disk, "mended");
}

#[test]
fn a_log_that_does_not_agree_with_the_store_is_refused_and_left_alone() {
    let disk = FakeDisk::default();
    let mut store = FakeStore::new();
    let mut log = Segments::open(Box::new(disk.clone()), Id(*CLUSTER.as_bytes()), 64 << 10).unwrap();
    let early = store.clone();
    log.append(&[store.commit_sized(0, 0)]).unwrap();
    log.append(&[store.commit_sized(0, 1)]).unwrap();
    let mut later = store.clone();
    later.commit_sized(0, 2);
    let before = disk.contents();
    let check = |what: &str, store: &FakeStore, wanted: &str| {
        let error = store
            .open(&disk)
            .err()
            .unwrap_or_else(|| panic!("{what}: opened"))
            .to_string();
        assert!(
            error.contains(wanted) && error.contains("strongroomd repair --accept-loss"),
            "{what}: {error}"
        );
        assert!(disk.contents() == before, "{what}: the disk was touched");
    };
    check(
        "the store was rolled back",
        &early,
        "one of them was cut short or rolled back",
    );
    check(
        "the store is ahead, nothing to finish from",
        &FakeStore {
            outbox: BTreeMap::new(),
            ..later.clone()
        },
        "one of them was cut short",
    );
    let mut gap = later.clone();
    gap.commit_sized(0, 2);
    gap.outbox.remove(&2);
    check(
        "the first row of the outbox is missing",
        &gap,
        "one of them was cut short",
    );
    let mut gap = later.clone();
    gap.commit_sized(0, 2);
    gap.commit_sized(0, 2);
    gap.outbox.remove(&3);
    check(
        "a row of the outbox is missing",
        &gap,
        "expected record 3, found record 4",
    );
    let mut flipped = later.clone();
    let row: Vec<u8> = flipped.outbox[&2]
        .iter()
        .enumerate()
        .map(|(at, byte)| byte ^ u8::from(at == 30))
        .collect();
    flipped.outbox.insert(2, row.into());
    check(
        "a row of the outbox is damaged",
        &flipped,
        "the frame's checksum is wrong",
    );
    disk.change(&segment_name(0), |bytes| bytes[4096 + 30] ^= 1);
    let damaged = store.open(&disk).err().unwrap();
    assert!(matches!(damaged, OpenError::Damaged { seq: 0, .. }), "{damaged}");
    disk.change(&segment_name(0), |bytes| bytes[4096 + 30] ^= 1);
    disk.change(&segment_name(0), |bytes| bytes[30] ^= 1);
    assert!(matches!(store.open(&disk).err().unwrap(), OpenError::Segment { .. }));
    disk.change(&segment_name(0), |bytes| bytes[30] ^= 1);
    let other = Drainer::open_in(
        Box::new(disk.clone()),
        &settings(),
        ClusterId::from_bytes([8; 16]),
        store.head,
        store.rows(),
    );
    assert!(matches!(other.err().unwrap(), OpenError::Cluster { .. }));
    let small = Settings {
        segment_bytes: 1,
        ..settings()
    };
    let small = Drainer::open_in(Box::new(disk.clone()), &small, CLUSTER, store.head, store.rows());
    assert!(matches!(small.err().unwrap(), OpenError::SegmentBytes { .. }));
    assert!(store.open(&disk).is_ok());
    disk.forget_all();
    assert!(
        matches!(store.open(&disk).err().unwrap(), OpenError::Heads { .. }),
        "the log was removed"
    );
}

/// R-AUDIT-3: a full disk refuses the next commit with a clear error, the reserved lane goes on for a while, and service resumes by
/// itself; nothing is lost meanwhile.
#[test]
fn a_full_disk_stops_commits_and_resumes_by_itself() {
    let disk = FakeDisk::default();
    let mut store = FakeStore::new();
    let drainer = store.open(&disk).unwrap().drainer;
    disk.set_free(Some((64 << 10) + 1000));
    while drainer.admit(Lane::Ordinary).is_ok() {
        drainer.submit(store.commit_sized(8000, drainer.drained_through()));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(drainer.unavailable(), Some(Unavailable::DiskFull));
    assert_eq!(drainer.admit(Lane::Ordinary), Err(Unavailable::DiskFull));
    wait_until("half a segment is given back", || disk.names() == [segment_name(0)]);
    for _ in 0..5 {
        assert_eq!(drainer.admit(Lane::Reserved), Ok(()));
        drainer.submit(store.commit_sized(8000, drainer.drained_through()));
    }
    assert!(drainer.drained_through() < store.head.seq);
    disk.set_free(None);
    wait_until("resumes", || {
        drainer.admit(Lane::Ordinary).is_ok() && drainer.drained_through() == store.head.seq
    });
    assert_eq!((drainer.lag_bytes(), drainer.unavailable()), (0, None));
    drop(drainer);
    store.check(&disk, "after the disk was full");
}

#[test]
fn the_reserve_is_bounded() {
    let disk = FakeDisk::default();
    let mut store = FakeStore::new();
    let drainer = store.open(&disk).unwrap().drainer;
    disk.set_free(Some(0));
    drainer.submit(store.commit_sized(0, 0));
    wait_until("full", || drainer.unavailable().is_some());
    let group: Vec<_> = (0..200).map(|number| record(number, 8000)).collect();
    let mut taken = 0;
    while drainer.admit(Lane::Reserved).is_ok() {
        drainer.submit(store.commit(group.clone(), 0));
        taken += 1;
    }
    assert!((5..20).contains(&taken), "{taken}");
    assert!(drainer.lag_bytes() < RESERVE_BYTES_MAX + strongroom_audit::FRAME_BYTES_MAX);
    disk.set_free(None);
    wait_until("resumes", || drainer.drained_through() == store.head.seq);
}

/// After a failed sync nobody knows what is on the disk, and a second sync would lie: no more of them until a restart, which finishes
/// the log from the outbox.
#[test]
fn a_failed_sync_is_never_tried_again() {
    let disk = FakeDisk::default();
    let mut store = FakeStore::new();
    let drainer = store.open(&disk).unwrap().drainer;
    drainer.submit(store.commit_sized(0, 0));
    wait_until("drained", || drainer.drained_through() == 1);
    disk.fail_syncs(Some(libc::EIO));
    drainer.submit(store.commit_sized(0, 1));
    wait_until("failed", || drainer.unavailable() == Some(Unavailable::Failed));
    let syncs = disk.syncs();
    disk.fail_syncs(None);
    drainer.submit(store.commit_sized(0, 1));
    std::thread::sleep(RETRY_DELAY * 2);
    assert_eq!((disk.syncs(), drainer.drained_through()), (syncs, 1));
    for lane in [Lane::Ordinary, Lane::Reserved] {
        assert_eq!(drainer.admit(lane), Err(Unavailable::Failed));
    }
    drop(drainer);
    assert_eq!(store.open(&disk).unwrap().drainer.drained_through(), 3);
    store.check(&disk, "after a restart");
}

/// The committer waits when the drainer is too far behind, and goes on when it has caught up.
#[test]
fn the_lag_is_bounded() {
    let disk = FakeDisk::default();
    let mut store = FakeStore::new();
    let drainer = store.open(&disk).unwrap().drainer;
    disk.hold(true);
    let group: Vec<_> = (0..200).map(|number| record(number, 8000)).collect();
    let frames: Vec<_> = (0..8).map(|_| store.commit(group.clone(), 0)).collect();
    let frame_bytes = frames[0].bytes.len();
    std::thread::scope(|threads| {
        let committer = threads.spawn(|| frames.into_iter().for_each(|frame| drainer.submit(frame)));
        wait_until("behind", || drainer.lag_bytes() >= LAG_BYTES_MAX);
        std::thread::sleep(Duration::from_millis(50));
        let (finished, lag) = (committer.is_finished(), drainer.lag_bytes());
        disk.hold(false);
        assert!(!finished && lag < LAG_BYTES_MAX + frame_bytes, "{finished} {lag}");
    });
    wait_until("caught up", || drainer.drained_through() == store.head.seq);
    drop(drainer);
    store.check(&disk, "frames longer than a segment get one of their own");
}

#[test]
fn a_frame_is_drained_within_moments_and_closing_drains_the_rest() {
    let disk = FakeDisk::default();
    let mut store = FakeStore::new();
    let drainer = store.open(&disk).unwrap().drainer;
    drainer.submit(store.commit_sized(0, 0));
    wait_until("drained", || drainer.drained_through() == 1);
    for _ in 0..50 {
        drainer.submit(store.commit_sized(100, 0));
    }
    drop(drainer);
    store.check(&disk, "closed");
}

/// R-AUDIT-5: a tail shows every record once, in order, follows, and resumes from a sequence; on a real directory.
#[tokio::test]
async fn tail_follows_and_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        dir: dir.path().join("log/audit"),
        segment_bytes: 64 << 10,
    };
    let mut store = FakeStore::new();
    let open = |store: &FakeStore| {
        Drainer::open(&settings, CLUSTER, store.head, store.rows())
            .unwrap()
            .drainer
    };
    let drainer = open(&store);
    let mut follower = drainer.tail(0, true).unwrap();
    let mut seen = Vec::new();
    for turn in 0..60 {
        drainer.submit(store.commit_sized(turn * 150, drainer.drained_through()));
        if turn % 7 == 0 {
            seen.extend(follower.next().await.unwrap().unwrap());
        }
    }
    while seen.len() < 60 {
        seen.extend(follower.next().await.unwrap().unwrap());
    }
    assert!(seen.iter().map(|line| line.seq).eq(0..60));
    assert!(
        seen.iter()
            .zip(&store.records)
            .all(|(line, record)| line.record == record.as_bytes())
    );
    let mut rest = Vec::new();
    let mut resumed = drainer.tail(41, false).unwrap();
    while let Some(lines) = resumed.next().await.unwrap() {
        rest.extend(lines);
    }
    assert!(rest == seen[41..]);
    assert!(drainer.tail(60, false).unwrap().next().await.unwrap().is_none());
    let waiting = tokio::spawn(async move { follower.next().await.unwrap() });
    drop(drainer);
    assert!(waiting.await.unwrap().is_none(), "a follower ends with the drainer");
    drop(open(&store));
    let head: KnownHead = store.head.to_string().parse().unwrap();
    assert!(
        verify(
            &settings.dir,
            &Options {
                heads: vec![head],
                ..Options::default()
            }
        )
        .unwrap()
        .is_clean()
    );
}
