//! How often a source may fail to log in: a fixed table of theoretical arrival times (GCRA), so that memory does not grow with sources.
//! Two sources that share a place share its rate: it is only ever stricter.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

const PLACES: usize = 1 << 12;
/// One failure costs this much.
const COST: Duration = Duration::from_secs(2);
/// So many failures at once.
const BURST: u32 = 30;

/// Failures by source.
pub struct Failures {
    key: RandomState,
    places: Box<[AtomicU64]>,
}

impl Default for Failures {
    fn default() -> Self {
        Self {
            key: RandomState::new(),
            places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl Failures {
    fn place(&self, source: &[u8]) -> Option<&AtomicU64> {
        let at = usize::try_from(self.key.hash_one(source)).unwrap_or_default() % PLACES;
        self.places.get(at)
    }

    /// Whether `source` may try now.
    /// # Errors
    /// When it may.
    pub fn admit(&self, source: &[u8], now: Duration) -> Result<(), Duration> {
        let arrives = self.place(source).map_or(0, |place| place.load(Ordering::Relaxed));
        let earliest = Duration::from_millis(arrives).saturating_sub(COST * BURST);
        if earliest <= now { Ok(()) } else { Err(earliest - now) }
    }

    /// `source` failed.
    pub fn failed(&self, source: &[u8], now: Duration) {
        let (now, cost) = (millis(now), millis(COST));
        if let Some(place) = self.place(source) {
            // A lost race charges less than it should, by one failure.
            let _ = place.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |arrives| {
                Some(arrives.max(now).saturating_add(cost))
            });
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R-POL-3: a burst, then one every two seconds; other sources are not kept waiting.
    #[test]
    fn failures_are_bounded_by_source() {
        let limit = Failures::default();
        let at = Duration::from_secs;
        for _ in 0..=BURST {
            assert!(limit.admit(b"a", at(100)).is_ok());
            limit.failed(b"a", at(100));
        }
        let wait = limit.admit(b"a", at(100)).unwrap_err();
        assert!(wait <= COST, "{wait:?}");
        assert!(limit.admit(b"a", at(100) + wait).is_ok());
        let others = (0..100u32).filter(|n| limit.admit(&n.to_be_bytes(), at(100)).is_ok());
        assert!(others.count() >= 98);
    }
}
