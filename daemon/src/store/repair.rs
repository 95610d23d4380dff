//! What `strongroomd repair` needs of a store whose audit log disagrees with it: to open it without the log, so that a slot's factors can be
//! proved, and then to make it follow the log that was repaired (`audit::repair`).

use super::{
    Disk, DiskConfig,
    commit::{Drain, Evidence, Heads, Space, outbox_key},
    disk::{lock, read_heads, same_engine},
    error::{OpenError, StoreError},
    physical::{Embedded, Write},
    table::{self, RawTable},
};
use crate::base::random::Random;
use std::{sync::Arc, time::Duration};
use strongroom_audit::{ChainHead, Frame};

const ROWS: usize = 1024;
const BYTES: usize = 4 << 20;

/// Takes no records: nothing that needs evidence can be done.
struct NoLog;

impl Drain for NoLog {
    fn ready(&self, _: bool) -> Result<(), String> {
        Err("the log is being repaired".to_owned())
    }
    fn submit(&self, _: Frame) {}
    fn drained_through(&self) -> u64 {
        0
    }
}

impl Disk {
    /// Opens the store without its log, and says where the store thinks the log ends. Nothing can be committed with evidence.
    /// # Errors
    /// [`OpenError`], but none about the log.
    pub fn open_without_log(config: &DiskConfig, random: Arc<dyn Random>) -> Result<(Self, ChainHead), OpenError> {
        let engine_dir = config.dir.join("engine");
        let lock = lock(&config.dir)?;
        same_engine(&config.dir, config.engine)?;
        let mut end = None;
        let disk = Self::open_with(
            (config.engine.opener(&engine_dir, config.caches), config.caches),
            Some(lock),
            (Space::new(None, 0, Duration::ZERO), Evidence::Synced),
            random,
            |_, head, _| {
                end = Some(head);
                Ok(Arc::new(NoLog))
            },
        )?;
        end.map(|head| (disk, head)).ok_or(OpenError::Raw(RawTable::Heads))
    }

    /// Makes a closed store follow a repaired log: its head becomes the log's, and its outbox, which the log has or has not, is emptied, in
    /// one commit. Not done, store and log still disagree, and the repair is done again.
    /// # Errors
    /// [`OpenError`].
    pub fn follow_log(config: &DiskConfig, head: ChainHead) -> Result<(), OpenError> {
        let _lock = lock(&config.dir)?;
        same_engine(&config.dir, config.engine)?;
        let embedded = Embedded::open(
            config.engine.opener(&config.dir.join("engine"), config.caches),
            config.caches.record_bytes,
        )?;
        let heads = Heads {
            chain: head,
            outbox_from: head.seq,
            ..read_heads(&embedded)?
        };
        let mut writes = vec![Write {
            key: Heads::key(),
            value: Some(heads.row()),
        }];
        let (mut from, end) = (
            outbox_key(0),
            table::successor(&table::raw_key(RawTable::Outbox, &[])).unwrap_or_default(),
        );
        loop {
            let rows = embedded.scan_rows(&from, &end, ROWS, BYTES).map_err(unreadable)?;
            let Some((last, _)) = rows.last() else { break };
            let mut next = last.to_vec();
            next.push(0);
            from = next.into();
            writes.extend(rows.into_iter().map(|(key, _)| Write { key, value: None }));
        }
        embedded.commit(&writes).map_err(unreadable)?;
        embedded.close();
        Ok(())
    }
}

fn unreadable(error: StoreError) -> OpenError {
    OpenError::Io {
        path: "the store, to make it follow the log".to_owned(),
        source: std::io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Caches;
    use crate::{
        audit::{Outcome, Paths, Recorder, Settings, Trail, repair},
        base::{id::BootId, random::OsRandom, time::SystemClock},
        store::{Change, EngineKind},
    };

    fn record(recorder: &Arc<Recorder>) -> strongroom_audit::Encoded {
        Trail::of_system(recorder, "test").response(&Outcome::ok())
    }

    /// R-AUDIT-2: a log that was cut does not open; repair goes on, and the gap stays visible.
    #[tokio::test]
    async fn a_cut_log_is_repaired_and_the_store_follows() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Settings {
            dir: dir.path().join("audit"),
            segment_bytes: 1 << 20,
        };
        let config = DiskConfig {
            caches: Caches::default(),
            evidence: Evidence::default(),
            dir: dir.path().into(),
            engine: EngineKind::Fjall,
            reserve_bytes: 0,
            audit: audit.clone(),
        };
        let random: Arc<dyn Random> = Arc::new(OsRandom);
        let recorder = Recorder::new(BootId::random(&*random), Arc::new(SystemClock::default()), Paths::Clear);
        let open = || Disk::open(&config, Arc::clone(&random));
        let (disk, _) = open().unwrap();
        // Until the first records are only in the log: what the outbox still has, opening would write again.
        for count in 1..=500 {
            disk.raw().commit(Change::new(), vec![record(&recorder)]).await.unwrap();
            if count > 5 && disk.drainer().unwrap().drained_through() > 3 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        disk.raw().commit(Change::new(), vec![record(&recorder)]).await.unwrap();
        disk.close();
        drop(disk);
        std::fs::remove_dir_all(&audit.dir).unwrap();
        assert!(open().is_err(), "a log that is gone is noticed");
        let (disk, store) = Disk::open_without_log(&config, Arc::clone(&random)).unwrap();
        let cluster = disk.ids().cluster;
        assert!(
            disk.raw().commit(Change::new(), vec![record(&recorder)]).await.is_err(),
            "nothing is done without evidence"
        );
        disk.close();
        drop(disk);
        let repaired = repair(&audit, &recorder, cluster, store).unwrap();
        Disk::follow_log(&config, repaired.head).unwrap();
        let (disk, _) = open().unwrap();
        disk.raw().commit(Change::new(), vec![record(&recorder)]).await.unwrap();
        disk.close();
        assert!(repaired.head.seq > 5);
    }
}
