//! What each caller holds at once (connections, requests in flight), in constant memory. Callers that share a cell share its bound.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

/// Counts by a keyed hash of the holder.
pub struct Counts {
    key: RandomState,
    cells: Box<[AtomicU32]>,
}

/// One that is held; given back when it is dropped.
pub struct Held {
    counts: Arc<Counts>,
    at: usize,
}

impl Counts {
    /// `cells` of them, at least one.
    pub fn new(cells: usize) -> Self {
        Self {
            key: RandomState::new(),
            cells: (0..cells.max(1)).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.cells.len() * size_of::<AtomicU32>()
    }

    /// One more for `holder`, if it then holds at most `max`.
    pub fn take(self: &Arc<Self>, holder: impl Hash, max: usize) -> Option<Held> {
        let hash = usize::try_from(self.key.hash_one(holder) >> 1).unwrap_or_default();
        let at = hash % self.cells.len();
        let before = self.cells.get(at)?.fetch_add(1, Ordering::Relaxed);
        // Made before it is looked at, so that a refusal gives back what it took.
        let held = Held {
            counts: Arc::clone(self),
            at,
        };
        (usize::try_from(before).unwrap_or(usize::MAX) < max).then_some(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(cell) = self.counts.cells.get(self.at) {
            cell.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held")
    }
}
