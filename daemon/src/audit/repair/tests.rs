use super::*;
use crate::{
    audit::{Drainer, Outcome, Trail, fake::FakeDisk, trail::Paths},
    base::{
        id::BootId,
        time::{ManualClock, Timestamp},
    },
};
use bytes::Bytes;
use strongroom_audit::{Encoded, Options, Wrong, read, verify};

const CLUSTER: ClusterId = ClusterId::from_bytes([7; 16]);

fn recorder() -> Arc<Recorder> {
    Recorder::new(
        BootId::from_bytes([1; 16]),
        Arc::new(ManualClock::at(Timestamp(0))),
        Paths::Clear,
    )
}

fn settings() -> Settings {
    Settings {
        dir: "audit".into(),
        segment_bytes: 64 << 10,
    }
}

fn record() -> Encoded {
    Trail::of_system(&recorder(), "test").response(&Outcome::ok())
}

/// A log of five records, and the heads on the way.
fn five() -> (FakeDisk, Vec<ChainHead>) {
    let disk = FakeDisk::default();
    let mut log = Segments::open(Box::new(disk.clone()), Id(*CLUSTER.as_bytes()), 64 << 10).unwrap();
    let mut heads = vec![log.head()];
    for _ in 0..5 {
        let mut head = log.head();
        log.append(&[head.extend(&[record()]).unwrap()]).unwrap();
        heads.push(head);
    }
    (disk, heads)
}

fn repaired(disk: &FakeDisk, store: ChainHead) -> Repaired {
    let dir = || Ok(Box::new(disk.clone()) as Box<dyn LogDir>);
    repair_in(dir, &settings(), &recorder(), CLUSTER, store).unwrap()
}

fn opens(disk: &FakeDisk, store: ChainHead) -> bool {
    let none = std::iter::empty::<Result<Bytes, String>>();
    Drainer::open_in(Box::new(disk.clone()), &settings(), CLUSTER, store, none).is_ok()
}

/// What the verifier finds wrong, and the text of the last record.
fn verdict(disk: &FakeDisk, head: ChainHead) -> (Vec<Wrong>, String) {
    let dir = tempfile::tempdir().unwrap();
    disk.copy_to(dir.path());
    let report = verify(
        dir.path(),
        &Options {
            heads: vec![head.into()],
            ..Options::default()
        },
    )
    .unwrap();
    let last = read(dir.path(), head.seq - 1).unwrap().next_line().unwrap().unwrap();
    (
        report.findings.into_iter().map(|finding| finding.what).collect(),
        String::from_utf8(last.record).unwrap(),
    )
}

#[test]
fn a_store_that_was_rolled_back_follows_the_log() {
    let (disk, heads) = five();
    assert!(!opens(&disk, heads[3]));
    let done = repaired(&disk, heads[3]);
    assert_eq!((done.head.seq, done.log, done.set_aside), (6, Some(heads[5]), 0));
    assert!(
        !opens(&disk, heads[3]),
        "until the store has the new head they disagree"
    );
    assert!(opens(&disk, done.head));
    let (wrong, last) = verdict(&disk, done.head);
    assert_eq!(wrong, []);
    for part in [
        r#""stage":"recovery""#,
        r#""op":"audit.accept_loss""#,
        &heads[5].to_string(),
        &heads[3].to_string(),
    ] {
        assert!(last.contains(part), "{last}");
    }
}

#[test]
fn a_log_that_was_cut_short_goes_on_behind_a_gap_that_stays_visible() {
    let (disk, heads) = five();
    let mut store = heads[5];
    store.extend(&[record(), record()]).unwrap();
    assert!(!opens(&disk, store));
    let done = repaired(&disk, store);
    assert_eq!((done.head.seq, done.log, done.set_aside), (8, Some(heads[5]), 0));
    assert!(!opens(&disk, store) && opens(&disk, done.head));
    let (wrong, last) = verdict(&disk, done.head);
    assert_eq!(
        wrong,
        [Wrong::Segments {
            expected: heads[5],
            found: store
        }]
    );
    assert!(last.contains("audit.accept_loss"), "{last}");
}

#[test]
fn a_damaged_last_segment_is_left_where_it_is_or_set_aside() {
    let (disk, heads) = five();
    disk.change(&segment_name(0), |bytes| bytes[4096 + 40] ^= 1);
    let kept = disk.contents();
    let done = repaired(&disk, heads[5]);
    assert_eq!((done.head.seq, done.log, done.set_aside), (6, None, 0));
    assert!(opens(&disk, done.head));
    assert_eq!(disk.contents()[&segment_name(0)], kept[&segment_name(0)]);
    assert!(matches!(verdict(&disk, done.head).0[..], [Wrong::Frame(..)]));

    let (disk, heads) = five();
    disk.change(&segment_name(0), |bytes| bytes[0] ^= 1);
    let kept = disk.contents();
    let done = repaired(&disk, heads[0]);
    assert_eq!((done.head.seq, done.set_aside), (1, 1));
    assert!(opens(&disk, done.head));
    assert_eq!(
        disk.contents()[&format!("{}.lost", segment_name(0))],
        kept[&segment_name(0)]
    );
    assert_eq!(verdict(&disk, done.head).0, []);
}

#[test]
fn another_vaults_log_is_no_loss_to_accept() {
    let (disk, heads) = five();
    let dir = || Ok(Box::new(disk.clone()) as Box<dyn LogDir>);
    let before = disk.contents();
    let other = repair_in(dir, &settings(), &recorder(), ClusterId::from_bytes([8; 16]), heads[5]);
    assert!(matches!(other, Err(OpenError::Cluster { .. })));
    assert!(disk.contents() == before);
}
