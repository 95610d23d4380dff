//! Any engine, made to fail on purpose: errors, torn writes, stalls, a full disk. For tests and campaigns.

use super::{Engine, EngineError, Failure, Limits, Row, Write};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{io, sync::Arc, time::Duration};

/// What the next commits do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is written; the error is a write error.
    FailBefore,
    /// Everything is written; the error comes all the same.
    FailAfter,
    /// The first so many rows are written, then the error: only an engine without atomic commits would do this.
    Torn(usize),
    /// The sync fails.
    FailSync,
    /// A write error with EIO below it.
    Eio,
    /// It takes this long.
    Stall(Duration),
}

#[derive(Debug, Default)]
struct Plan {
    faults: Vec<Fault>,
    free_bytes: Option<u64>,
    fail_opens: usize,
    fail_reads: bool,
    written: usize,
    synced: usize,
}

/// The handle of a test: shared by every engine opened with it.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<Plan>>);

impl Faults {
    /// The next commit fails so; several queue up.
    pub fn next(&self, fault: Fault) {
        self.0.lock().faults.push(fault);
    }
    /// From now on the disk says it has so much space; `None`: the truth.
    pub fn free_bytes(&self, bytes: Option<u64>) {
        self.0.lock().free_bytes = bytes;
    }
    /// The next so many opens fail.
    pub fn fail_opens(&self, count: usize) {
        self.0.lock().fail_opens = count;
    }
    /// Whether reads fail.
    pub fn fail_reads(&self, fail: bool) {
        self.0.lock().fail_reads = fail;
    }
    /// How many commits were written without a sync, and how many syncs there were, of commits or alone.
    pub fn written_and_synced(&self) -> (usize, usize) {
        let plan = self.0.lock();
        (plan.written, plan.synced)
    }
    /// Asked by the opener.
    /// # Errors
    /// As planned.
    pub fn open<T>(&self, open: impl FnOnce() -> Result<T, EngineError>) -> Result<T, EngineError> {
        {
            let mut plan = self.0.lock();
            if plan.fail_opens > 0 {
                plan.fail_opens -= 1;
                return Err(planned(Failure::Open));
            }
        }
        open()
    }
}

/// See the module.
pub struct Faulty<E> {
    engine: E,
    faults: Faults,
}

impl<E: Engine> Faulty<E> {
    /// Over `engine`.
    pub fn over(engine: E, faults: Faults) -> Self {
        Self { engine, faults }
    }

    fn act(&self, writes: &[Write], synced: bool) -> Result<(), EngineError> {
        let act = |writes| {
            if synced {
                self.engine.commit(writes)
            } else {
                self.engine.write(writes)
            }
        };
        let fault = {
            let mut plan = self.faults.0.lock();
            *(if synced { &mut plan.synced } else { &mut plan.written }) += 1;
            if plan.faults.is_empty() {
                None
            } else {
                Some(plan.faults.remove(0))
            }
        };
        match fault {
            None => act(writes),
            Some(Fault::FailBefore) => Err(planned(Failure::Write)),
            Some(Fault::FailAfter) => act(writes).and(Err(planned(Failure::Write))),
            Some(Fault::Torn(rows)) => act(writes.get(..rows).unwrap_or(writes)).and(Err(planned(Failure::Write))),
            Some(Fault::FailSync) => Err(planned(Failure::Sync)),
            Some(Fault::Eio) => Err(EngineError::new(
                "faulty",
                Failure::Write,
                io::Error::from_raw_os_error(libc::EIO),
            )),
            Some(Fault::Stall(time)) => {
                std::thread::sleep(time);
                act(writes)
            }
        }
    }
}

fn planned(what: Failure) -> EngineError {
    EngineError::new("faulty", what, "on purpose")
}

impl<E: Engine> Engine for Faulty<E> {
    fn name(&self) -> &'static str {
        self.engine.name()
    }
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        if self.faults.0.lock().fail_reads {
            return Err(planned(Failure::Read));
        }
        self.engine.get(key)
    }
    fn scan(&self, from: &[u8], to: &[u8], rows: usize, bytes: usize) -> Result<Vec<Row>, EngineError> {
        if self.faults.0.lock().fail_reads {
            return Err(planned(Failure::Read));
        }
        self.engine.scan(from, to, rows, bytes)
    }
    fn commit(&self, writes: &[Write]) -> Result<(), EngineError> {
        self.act(writes, true)
    }
    fn write(&self, writes: &[Write]) -> Result<(), EngineError> {
        self.act(writes, false)
    }
    fn sync(&self) -> Result<(), EngineError> {
        let mut plan = self.faults.0.lock();
        plan.synced += 1;
        if plan.faults.first() == Some(&Fault::FailSync) {
            plan.faults.remove(0);
            return Err(planned(Failure::Sync));
        }
        drop(plan);
        self.engine.sync()
    }
    fn takes_bulk(&self) -> bool {
        self.engine.takes_bulk()
    }
    fn limits(&self) -> Limits {
        self.engine.limits()
    }
    fn free_bytes(&self) -> Result<u64, EngineError> {
        match self.faults.0.lock().free_bytes {
            Some(bytes) => Ok(bytes),
            None => self.engine.free_bytes(),
        }
    }
}
