//! Requests in flight. Their number is adapted: additive increase while most answers come in time, multiplicative decrease while most do not
//! (AIMD, as TCP does). What has no place is refused at once, which costs little, instead of waiting behind what is slow already.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// How often the number is looked at.
const WINDOW_MICROS: u64 = 100_000;
/// Fewer answers than this in a window say nothing.
const SAMPLES_MIN: u64 = 8;
/// However slow answers are, so many are let in.
const PLACES_MIN: usize = 32;

/// Places, and who has taken how many.
pub struct Places {
    most: usize,
    target_micros: u64,
    limit: AtomicUsize,
    taken: AtomicUsize,
    /// Answers of this window: late ones in the upper half, all of them in the lower.
    seen: AtomicU64,
    window_ends: AtomicU64,
}

/// A place; given back when it is dropped, which may be after the caller has left.
#[derive(Debug)]
pub struct Seat(Arc<Places>);

impl Places {
    /// Always `most` of them.
    pub fn fixed(most: usize) -> Self {
        Self::adaptive(most, Duration::MAX)
    }

    /// At most `most`; fewer while more than half of the answers take longer than `target`.
    pub fn adaptive(most: usize, target: Duration) -> Self {
        Self {
            most,
            target_micros: micros(target),
            limit: AtomicUsize::new(most),
            taken: AtomicUsize::new(0),
            seen: AtomicU64::new(0),
            window_ends: AtomicU64::new(0),
        }
    }

    /// A place, if there is one.
    pub fn take(self: &Arc<Self>) -> Option<Seat> {
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        let seat = Seat(Arc::clone(self));
        (before < self.limit.load(Ordering::Relaxed)).then_some(seat)
    }

    /// How many one identity may have: all, or half of them while three of four are taken.
    pub fn share(&self) -> usize {
        let limit = self.limit.load(Ordering::Relaxed);
        let scarce = self.taken.load(Ordering::Relaxed).saturating_mul(4) > limit.saturating_mul(3);
        if scarce { limit.div_ceil(2) } else { usize::MAX }
    }

    /// Taken, and how many there are now.
    pub fn load(&self) -> (usize, usize) {
        (self.taken.load(Ordering::Relaxed), self.limit.load(Ordering::Relaxed))
    }

    /// A request was answered after `took`. The first one after a window's end adapts the number.
    pub fn observe(&self, took: Duration, now: Duration) {
        let late = u64::from(micros(took) > self.target_micros);
        self.seen.fetch_add((late << 32) | 1, Ordering::Relaxed);
        let (now, ends) = (micros(now), self.window_ends.load(Ordering::Relaxed));
        // Also when the clock went back: nothing waits for it.
        if now < ends && ends - now <= WINDOW_MICROS {
            return;
        }
        let mine = self.window_ends.compare_exchange(
            ends,
            now.saturating_add(WINDOW_MICROS),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        if mine.is_ok() {
            let seen = self.seen.swap(0, Ordering::Relaxed);
            self.adapt(seen >> 32, seen & u64::from(u32::MAX));
        }
    }

    fn adapt(&self, late: u64, all: u64) {
        let now = self.limit.load(Ordering::Relaxed);
        let next = if all < SAMPLES_MIN || late * 2 <= all {
            (now + (now / 16).max(4)).min(self.most)
        } else {
            (now - now / 8).max(PLACES_MIN.min(self.most))
        };
        self.limit.store(next, Ordering::Relaxed);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Places {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Places")
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
