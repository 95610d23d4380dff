//! kill -9 of a process that writes, over and over. The power-cut and flip campaigns (crate tests) go further.

use super::*;
use crate::{audit, base::random::OsRandom};
use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

const CHILD: &str = "STRONGROOM_CRASH_CHILD";
const WRITERS: u8 = 4;
/// Records of a writer; a third of its batches also delete one.
const RING: u64 = 8;

async fn open(dir: &Path) -> (Disk, Arc<Store>) {
    let audit = audit::Settings {
        dir: dir.join("audit"),
        segment_bytes: audit::SEGMENT_BYTES_MIN,
    };
    let config = DiskConfig {
        caches: Caches::default(),
        evidence: Evidence::default(),
        dir: dir.join("store"),
        engine: EngineKind::Fjall,
        reserve_bytes: 0,
        audit,
    };
    let (disk, _) = Disk::open(&config, Arc::new(OsRandom)).unwrap();
    match disk.unlock(&root()).await {
        Err(UnlockError::Blank) => (disk.clone(), init(&disk, Algorithm::default()).await),
        store => (disk, store.unwrap()),
    }
}

/// The batch that brings a writer to `count`.
fn step(view: &View, writer: u8, count: u64) -> Change {
    let mut change = Change::new();
    change.put(view, &[Part::Raw(&[writer])], value(&count.to_be_bytes()));
    change.put(
        view,
        &[Part::Raw(&[writer]), Part::Raw(&[(count % RING) as u8])],
        value(&count.to_be_bytes().repeat(100)),
    );
    if count.is_multiple_of(3) {
        change.delete(
            view,
            &[Part::Raw(&[writer]), Part::Raw(&[((count + RING / 2) % RING) as u8])],
        );
    }
    change
}

/// Where a writer is; its records must be exactly those of that many batches.
async fn read(store: &Store, writer: u8) -> u64 {
    let view = store.view(Namespace::ROOT, Table::System);
    let Some(count) = view.get(&[Part::Raw(&[writer])]).await.unwrap() else {
        return 0;
    };
    let count = u64::from_be_bytes(count.value[..].try_into().unwrap());
    let mut ring = std::collections::BTreeMap::new();
    for at in count.saturating_sub(3 * RING).max(1)..=count {
        ring.insert((at % RING) as u8, at.to_be_bytes().repeat(100));
        if at % 3 == 0 {
            ring.remove(&(((at + RING / 2) % RING) as u8));
        }
    }
    let page = view.scan(&[Part::Raw(&[writer])], None, 100).await.unwrap();
    assert!(page.damaged.is_empty());
    let found = page
        .entries
        .into_iter()
        .filter_map(|entry| Some((*entry.key.first()?.raw()?.first()?, entry.record.value.to_vec())));
    assert_eq!(
        found.collect::<std::collections::BTreeMap<_, _>>(),
        ring,
        "writer {writer} at {count}"
    );
    count
}

/// Not a test by itself: the process that is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let (_disk, store) = open(Path::new(&dir)).await;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let view = store.view(Namespace::ROOT, Table::System);
                for count in read(&store, writer).await + 1.. {
                    store
                        .commit(step(&view, writer, count), vec![evidence("write")])
                        .await
                        .unwrap();
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "ack {writer} {count}")
                        .and_then(|()| out.flush())
                        .unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

/// R-STORE-1: nothing acknowledged is lost, nothing is half made, store and audit log agree. `STRONGROOM_CRASH_ROUNDS` makes it longer.
#[tokio::test]
async fn kill_9_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut acked = [0; WRITERS as usize];
    let rounds = std::env::var("STRONGROOM_CRASH_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(4u64);
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::crash::child", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let reader = std::thread::spawn(move || {
            let acks = out.lines().map_while(Result::ok).filter_map(|line| {
                let (writer, count) = line.split_once("ack ")?.1.split_once(' ')?;
                Some((writer.parse::<usize>().ok()?, count.parse::<u64>().ok()?))
            });
            acks.collect::<Vec<_>>()
        });
        tokio::time::sleep(Duration::from_millis(150 + (round * 137) % 400)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        for (writer, count) in reader.join().unwrap() {
            acked[writer] = count;
        }
        let (disk, store) = open(dir.path()).await;
        for writer in 0..WRITERS {
            let (count, acked) = (read(&store, writer).await, &mut acked[usize::from(writer)]);
            assert!(
                count == *acked || count == *acked + 1,
                "round {round}, writer {writer}: {acked} acknowledged, {count} there"
            );
            *acked = count;
        }
        drop(store);
        disk.close();
    }
    assert!(acked.iter().sum::<u64>() > 0, "nothing was written");
}
