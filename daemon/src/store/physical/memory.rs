//! The memory engine, for tests and `dev`: durable as long as its [`Memory`] lives.

use super::{Engine, EngineError, Limits, Row, Write};
use bytes::Bytes;
use parking_lot::RwLock;
use std::{collections::BTreeMap, ops::Bound, sync::Arc};

/// The "disk": what a reopened engine finds again.
pub type Memory = Arc<RwLock<BTreeMap<Bytes, Bytes>>>;

/// See the module.
#[derive(Debug, Default)]
pub struct MemoryEngine(Memory);

impl MemoryEngine {
    /// On this "disk".
    pub fn open(memory: Memory) -> Self {
        Self(memory)
    }
}

impl Engine for MemoryEngine {
    fn name(&self) -> &'static str {
        "memory"
    }
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.0.read().get(key).cloned())
    }
    fn scan(&self, from: &[u8], to: &[u8], rows: usize, bytes: usize) -> Result<Vec<Row>, EngineError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let (mut found, mut taken) = (Vec::new(), 0);
        for (key, value) in self
            .0
            .read()
            .range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)))
            .take(rows)
        {
            taken += value.len();
            found.push((key.clone(), value.clone()));
            if taken > bytes {
                break;
            }
        }
        Ok(found)
    }
    fn commit(&self, writes: &[Write]) -> Result<(), EngineError> {
        let mut map = self.0.write();
        for write in writes {
            match &write.value {
                Some(value) => drop(map.insert(write.key.clone(), value.clone())),
                None => drop(map.remove(&write.key)),
            }
        }
        Ok(())
    }
    fn takes_bulk(&self) -> bool {
        true
    }
    fn limits(&self) -> Limits {
        Limits {
            commit_bytes_max: 16 << 20,
        }
    }
    fn free_bytes(&self) -> Result<u64, EngineError> {
        Ok(u64::MAX)
    }
}
