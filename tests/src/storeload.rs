//! A load on the store whose right content is a pure function of how far each writer got, for crash, power-cut and flip campaigns: lost
//! acknowledgements, torn batches, wrong values, missing deletions and stray records are all told apart.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use strongroomd::{
    audit::{self, Outcome, Paths, Recorder, Trail},
    base::{id::BootId, locked::LockedKey, random::OsRandom, time::SystemClock},
    store::{Algorithm, Change, CommitError, Disk, DiskConfig, EngineKind, Namespace, Part, Store, Table, UnlockError, View},
};

/// Records a writer goes round in.
const RING: u64 = 32;
const PAGE: usize = 1000;

/// What is written.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub engine: EngineKind,
    /// Writers at once, each with records of its own.
    pub writers: u8,
    /// Bytes of a value: 1 KiB by default, 1 MiB for commits beyond a segment.
    pub value_bytes: usize,
}

/// What a store was found to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All there; how far each writer got.
    Whole(Vec<u64>),
    /// Damage was found and said, by an error or by a refused record.
    Found(String),
    /// Something acknowledged is missing, or something is wrong and nobody said so.
    Wrong(String),
}

impl Load {
    pub fn config(&self, dir: &Path) -> DiskConfig {
        let audit = audit::Settings { dir: dir.join("audit"), segment_bytes: audit::SEGMENT_BYTES_MIN };
        DiskConfig { dir: dir.join("store"), engine: self.engine, reserve_bytes: 0, audit }
    }

    /// Opens the store in `dir`; makes it first if need be.
    pub async fn open(&self, dir: &Path) -> Result<(Disk, Arc<Store>), String> {
        let (disk, _) = Disk::open(&self.config(dir), Arc::new(OsRandom)).map_err(words)?;
        let root = LockedKey::copy_of(&[7; 32]).map_err(words)?;
        let store = match disk.unlock(&root).await {
            Err(UnlockError::Blank) => {
                disk.raw().commit(disk.new_keyring(&root, Algorithm::default()).map_err(words)?, Vec::new()).await.map_err(words)?;
                disk.unlock(&root).await.map_err(words)?
            }
            opened => opened.map_err(words)?,
        };
        Ok((disk, store))
    }

    /// Writes until `stop`, calling `acked(writer, count)` after each commit that was acknowledged; every writer begins where it is.
    pub async fn run(self, store: Arc<Store>, begin: Vec<u64>, acked: impl Fn(u8, u64) + Send + Sync + 'static, stop: Arc<AtomicBool>) -> Result<(), CommitError> {
        let acked = Arc::new(acked);
        let recorder = Recorder::new(BootId::random(&OsRandom), Arc::new(SystemClock::default()), Paths::Clear);
        let writers: Vec<_> = (0..self.writers)
            .map(|writer| {
                let (store, acked, stop, recorder) = (store.clone(), acked.clone(), stop.clone(), recorder.clone());
                let mut count = begin.get(usize::from(writer)).copied().unwrap_or(0);
                tokio::spawn(async move {
                    let view = store.view(Namespace::ROOT, Table::System);
                    while !stop.load(Ordering::Relaxed) {
                        count += 1;
                        let record = Trail::of_system(&recorder, "campaign.write").response(&Outcome::ok());
                        store.commit(self.change(&view, writer, count), vec![record]).await?;
                        acked(writer, count);
                    }
                    Ok::<(), CommitError>(())
                })
            })
            .collect();
        for writer in writers {
            writer.await.map_err(|_| CommitError::Closed)??;
        }
        Ok(())
    }

    /// The batch that brings a writer to `count`: a value, its counter, and each third time a deletion.
    fn change(&self, view: &View, writer: u8, count: u64) -> Change {
        let mut change = Change::new();
        change.put(view, &[Part::Raw(&[writer]), Part::Name("counter")], count.to_be_bytes().to_vec().into());
        change.put(view, &[Part::Raw(&[writer]), Part::Name(&slot(count))], self.value(writer, count).into());
        if count % 3 == 0 {
            change.delete(view, &[Part::Raw(&[writer]), Part::Name(&slot(count + RING / 2))]);
        }
        change
    }

    fn value(&self, writer: u8, count: u64) -> Vec<u8> {
        let mut state = count.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(writer);
        let mut value = Vec::with_capacity(self.value_bytes + 8);
        while value.len() < self.value_bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            value.extend_from_slice(&state.to_be_bytes());
        }
        value.truncate(self.value_bytes);
        value
    }

    /// What must be there after `count` batches.
    fn expected(&self, writer: u8, count: u64) -> BTreeMap<String, Vec<u8>> {
        let mut ring = BTreeMap::new();
        for at in count.saturating_sub(2 * RING).max(1)..=count {
            ring.insert(slot(at), at);
            if at % 3 == 0 {
                ring.remove(&slot(at + RING / 2));
            }
        }
        let values = ring.into_iter().map(|(name, at)| (name, self.value(writer, at)));
        values.chain((count > 0).then(|| ("counter".into(), count.to_be_bytes().to_vec()))).collect()
    }

    /// Opens what a crash left and judges it against what was acknowledged, a count a writer.
    pub async fn verify(&self, dir: &Path, acked: &[u64]) -> Verdict {
        let (disk, store) = match self.open(dir).await {
            Ok(opened) => opened,
            Err(why) => return Verdict::Found(why),
        };
        let mut counts = Vec::new();
        for writer in 0..self.writers {
            let found = match read(&store.view(Namespace::ROOT, Table::System), writer).await {
                Ok(found) => found,
                Err(why) => return Verdict::Found(why),
            };
            let count = found.get("counter").and_then(|bytes| Some(u64::from_be_bytes(bytes[..].try_into().ok()?))).unwrap_or(0);
            let acked = acked.get(usize::from(writer)).copied().unwrap_or(0);
            if count < acked || count > acked + 1 {
                return Verdict::Wrong(format!("writer {writer}: {acked} were acknowledged, the store is at {count}"));
            }
            if found != self.expected(writer, count) {
                return Verdict::Wrong(format!("writer {writer}: the records are not those of {count} batches"));
            }
            counts.push(count);
        }
        disk.close();
        Verdict::Whole(counts)
    }
}

fn slot(count: u64) -> String {
    format!("slot-{:02}", count % RING)
}

async fn read(view: &View, writer: u8) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let (mut found, mut cursor) = (BTreeMap::new(), None);
    loop {
        let page = view.scan(&[Part::Raw(&[writer])], cursor.as_ref(), PAGE).await.map_err(words)?;
        if let Some(damaged) = page.damaged.first() {
            return Err(format!("refused: {damaged}"));
        }
        for entry in page.entries {
            let name = entry.key.first().and_then(|part| part.name()).unwrap_or("?").to_owned();
            found.insert(name, entry.record.value.to_vec());
        }
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(found),
        }
    }
}

fn words(error: impl std::error::Error) -> String {
    let (mut words, mut source) = (error.to_string(), error.source());
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{BufRead, BufReader, Write},
        process::{Command, Stdio},
        time::Duration,
    };

    const CHILD: &str = "STRONGROOM_STORELOAD_CHILD";
    const LOAD: Load = Load { engine: EngineKind::Fjall, writers: 4, value_bytes: 1024 };

    /// Not a test: what [`kill_9_loses_nothing_acknowledged`] runs and kills.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn child() {
        let Ok(dir) = std::env::var(CHILD) else { return };
        let (_disk, store) = LOAD.open(Path::new(&dir)).await.unwrap();
        let mut begin = Vec::new();
        for writer in 0..LOAD.writers {
            let record = store.view(Namespace::ROOT, Table::System).get(&[Part::Raw(&[writer]), Part::Name("counter")]).await.unwrap();
            begin.push(record.map_or(0, |record| u64::from_be_bytes(record.value[..].try_into().unwrap())));
        }
        let acked = |writer, count| {
            let mut out = std::io::stdout().lock();
            writeln!(out, "ack {writer} {count}").and_then(|()| out.flush()).unwrap();
        };
        LOAD.run(store, begin, acked, Arc::default()).await.unwrap();
    }

    /// R-STORE-1: kill -9 at random moments of a mixed load: nothing acknowledged is lost, nothing is half made, the heads agree.
    #[tokio::test]
    async fn kill_9_loses_nothing_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let mut acked = vec![0; usize::from(LOAD.writers)];
        let rounds = std::env::var("STRONGROOM_CRASH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(5u64);
        for round in 0..rounds {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "storeload::tests::child", "--nocapture"])
                .env(CHILD, dir.path())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let out = child.stdout.take().unwrap();
            let reader = std::thread::spawn(move || {
                let acks = BufReader::new(out).lines().map_while(Result::ok);
                acks.filter_map(|line| {
                    // The test runner's own words may stand before the first one.
                    let mut words = line.split_once("ack ")?.1.split(' ');
                    Some((words.next()?.parse::<usize>().ok()?, words.next()?.parse::<u64>().ok()?))
                })
                .collect::<Vec<_>>()
            });
            std::thread::sleep(Duration::from_millis(150 + (round * 137) % 400));
            child.kill().unwrap();
            child.wait().unwrap();
            for (writer, count) in reader.join().unwrap() {
                acked[writer] = count;
            }
            match LOAD.verify(dir.path(), &acked).await {
                Verdict::Whole(counts) => acked = counts,
                other => panic!("round {round}: {other:?}"),
            }
        }
        assert!(acked.iter().sum::<u64>() > 0, "nothing was written");
    }

    /// The judge itself: it finds a lost batch, a wrong value and a stray record.
    #[tokio::test]
    async fn the_judge_finds_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, store) = LOAD.open(dir.path()).await.unwrap();
        let view = store.view(Namespace::ROOT, Table::System);
        for count in 1..=40 {
            store.commit(LOAD.change(&view, 0, count), Vec::new()).await.unwrap();
        }
        disk.close();
        drop((store, view, disk));
        assert_eq!(LOAD.verify(dir.path(), &[40, 0, 0, 0]).await, Verdict::Whole(vec![40, 0, 0, 0]));
        assert!(matches!(LOAD.verify(dir.path(), &[41, 0, 0, 0]).await, Verdict::Wrong(_)));
        let (disk, store) = LOAD.open(dir.path()).await.unwrap();
        let mut change = Change::new();
        change.delete(&store.view(Namespace::ROOT, Table::System), &[Part::Raw(&[0]), Part::Name("slot-07")]);
        store.commit(change, Vec::new()).await.unwrap();
        disk.close();
        drop((store, disk));
        assert!(matches!(LOAD.verify(dir.path(), &[40, 0, 0, 0]).await, Verdict::Wrong(_)));
    }
}
