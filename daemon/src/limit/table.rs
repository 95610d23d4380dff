//! Rates of many callers in constant memory: theoretical arrival times (GCRA) in sets of four cells, found by a keyed hash.
//!
//! A cell is a tag of its caller and the time when the caller's allowance is whole again. A cell whose time has passed is free: to forget it
//! loses nothing. A caller that finds four others in debt takes over the cell of the least, and the debt: whoever has no cell owes no more than each
//! of the four says, so callers are only ever limited more, never less.

use super::Rate;
use std::{
    hash::{BuildHasher, Hash, RandomState},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

const WAYS: usize = 4;
/// Microseconds in a cell: 8.9 years of them, after which a daemon must have been restarted once.
const TIME_BITS: u32 = 48;
const TIME_MAX: u64 = (1 << TIME_BITS) - 1;

/// One allowance, of a caller or of everybody.
#[derive(Default)]
pub struct Cell(AtomicU64);

/// Half a cache line: one look is one miss at most.
#[derive(Default)]
#[repr(align(32))]
struct Set([Cell; WAYS]);

/// The allowances of many.
pub struct Table {
    key: RandomState,
    sets: Box<[Set]>,
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(TIME_MAX).min(TIME_MAX)
}

/// When the allowance is whole again after one more at `now`, or how long to wait for it. More than a whole burst of debt can only come of a
/// clock that went back, and is forgotten: nobody waits for the past.
fn next(whole_at: u64, rate: Rate, now: u64) -> Result<u64, Duration> {
    let latest = now.saturating_add(rate.burst_micros());
    let from = if whole_at > latest { now } else { whole_at.max(now) };
    let then = from.saturating_add(rate.every_micros());
    match then.checked_sub(latest) {
        None | Some(0) => Ok(then.min(TIME_MAX)),
        Some(wait) => Err(Duration::from_micros(wait)),
    }
}

impl Cell {
    /// One more at `now`.
    /// # Errors
    /// How long to wait.
    pub fn admit(&self, rate: Rate, now: Duration) -> Result<(), Duration> {
        if rate.is_off() {
            return Ok(());
        }
        let now = micros(now);
        let mut old = self.0.load(Ordering::Relaxed);
        loop {
            let new = next(old, rate, now)?;
            match self
                .0
                .compare_exchange_weak(old, new, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return Ok(()),
                Err(seen) => old = seen,
            }
        }
    }
}

impl Table {
    /// For `callers` at once, rounded up to whole sets; at least one set.
    pub fn new(callers: usize) -> Self {
        let sets = callers.div_ceil(WAYS).max(1);
        Self {
            key: RandomState::new(),
            sets: (0..sets).map(|_| Set::default()).collect(),
        }
    }

    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.sets.len() * size_of::<Set>()
    }

    /// One more of `caller` at `now`. Two first calls at the same instant may take two cells, which lends one burst, once.
    /// # Errors
    /// How long to wait.
    pub fn admit(&self, caller: impl Hash, rate: Rate, now: Duration) -> Result<(), Duration> {
        if rate.is_off() {
            return Ok(());
        }
        let hash = self.key.hash_one(caller);
        let (tag, now) = (hash >> TIME_BITS, micros(now));
        let at = usize::try_from(hash & TIME_MAX).unwrap_or_default() % self.sets.len();
        // The index is below the length: there is always a set.
        let Some(Set(cells)) = self.sets.get(at) else {
            return Ok(());
        };
        loop {
            let (cell, old) = choose(cells, tag, now);
            let (owner, whole_at) = (old >> TIME_BITS, old & TIME_MAX);
            // What another owes may be more than this caller ever could: it is no clock that went back.
            let owed = match owner == tag {
                true => whole_at,
                false => whole_at.min(now.saturating_add(rate.burst_micros())),
            };
            // The caller takes the cell over with all that is owed there. Its former owner owes no more than any cell of the set says.
            let new = next(owed, rate, now)? | (tag << TIME_BITS);
            if cell
                .0
                .compare_exchange_weak(old, new, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
            {
                return Ok(());
            }
        }
    }
}

/// The caller's own cell, else a free one, else the one of the least debt; and what was in it.
fn choose(cells: &[Cell; WAYS], tag: u64, now: u64) -> (&Cell, u64) {
    let [first, rest @ ..] = cells;
    let rank = |value: u64| match (value >> TIME_BITS == tag, value & TIME_MAX) {
        (true, _) => 0,
        (false, time) if time <= now => 1,
        (false, time) => time,
    };
    let value = first.0.load(Ordering::Relaxed);
    let mut best = (first, value, rank(value));
    for cell in rest {
        let value = cell.0.load(Ordering::Relaxed);
        let rank = rank(value);
        if rank < best.2 {
            best = (cell, value, rank);
        }
    }
    (best.0, best.1)
}
