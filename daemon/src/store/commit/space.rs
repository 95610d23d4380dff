//! Free space: looked at before the engine sees a group. Below the reserve ordinary batches are refused and service resumes by itself;
//! revoke, seal and recovery live on a file that was filled ahead and is given up for them.

use crate::store::physical::Embedded;
use std::{
    fs, io,
    path::PathBuf,
    time::{Duration, Instant},
};
use tracing::{info, warn};

/// The reserve of one store.
pub struct Space {
    /// Bytes that ordinary batches leave free.
    keep_free: u64,
    /// The file to give up; `None` where there is no disk.
    file: Option<PathBuf>,
    held: bool,
    low: bool,
    /// While there is plenty, the disk is asked again only after this long.
    every: Duration,
    looked: Option<Instant>,
}

impl Space {
    /// Keeps `reserve_bytes` in `file`, and refuses ordinary batches below as much free space again. The disk is asked not more often than
    /// `every` while there is plenty: what the engine writes in that time must be small beside the reserve.
    pub fn new(file: Option<PathBuf>, reserve_bytes: u64, every: Duration) -> Self {
        let mut space = Self {
            keep_free: reserve_bytes,
            file,
            held: false,
            low: false,
            every,
            looked: None,
        };
        space.fill();
        space
    }

    /// Whether ordinary batches may go on. Urgent ones always may; the first to come when it is low gives the reserve up.
    pub fn look(&mut self, embedded: &Embedded, urgent: bool) -> bool {
        if !self.low && self.held == self.file.is_some() && self.looked.is_some_and(|at| at.elapsed() < self.every) {
            return true;
        }
        self.looked = Some(Instant::now());
        let free = embedded.free_bytes().unwrap_or(u64::MAX); // an engine that cannot say will tell at the write
        let low = free < self.keep_free;
        if low != self.low {
            self.low = low;
            if low {
                warn!(
                    free_bytes = free,
                    "disk nearly full: changes and audited answers are refused until there is space"
                );
            } else {
                info!(free_bytes = free, "disk space is back: service resumes");
            }
        }
        if low && urgent && self.held {
            self.give_up();
        } else if !self.held && free > self.keep_free.saturating_mul(3) {
            self.fill();
        }
        !low
    }

    fn give_up(&mut self) {
        if let Some(file) = &self.file {
            warn!("giving up the disk reserve for revoke, seal or recovery");
            drop(fs::remove_file(file));
        }
        self.held = false;
    }

    fn fill(&mut self) {
        let Some(path) = &self.file else { return };
        if fs::metadata(path).is_ok_and(|meta| meta.len() == self.keep_free) {
            self.held = true;
            return;
        }
        let filled = fs::File::create(path).and_then(|file| {
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, self.keep_free)
                .map_err(io::Error::from)
        });
        self.held = filled.is_ok();
        if !self.held {
            drop(fs::remove_file(path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::physical::{
        Engine,
        faulty::{Faults, Faulty},
        memory::MemoryEngine,
    };

    /// The reserve is real blocks, given up to the first urgent batch on a full disk, filled again when there is space.
    #[test]
    fn the_reserve_is_given_up_and_filled_again() {
        const RESERVE: u64 = 1 << 20;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reserve");
        let faults = Faults::default();
        let opened = faults.clone();
        let opener = move || Ok(Box::new(Faulty::over(MemoryEngine::default(), opened.clone())) as Box<dyn Engine>);
        let embedded = Embedded::open(Box::new(opener), 1 << 20).unwrap();
        let mut space = Space::new(Some(path.clone()), RESERVE, Duration::ZERO);
        let blocks = || std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&path).unwrap()) * 512;
        assert!(blocks() >= RESERVE);
        faults.free_bytes(Some(RESERVE - 1));
        assert!(!space.look(&embedded, false));
        assert!(path.exists(), "ordinary batches do not touch it");
        assert!(!space.look(&embedded, true));
        assert!(!path.exists());
        faults.free_bytes(Some(2 * RESERVE));
        assert!(space.look(&embedded, false));
        assert!(!path.exists(), "there is not enough yet to put any aside");
        faults.free_bytes(Some(4 * RESERVE));
        assert!(space.look(&embedded, false));
        assert!(blocks() >= RESERVE);
    }
}
