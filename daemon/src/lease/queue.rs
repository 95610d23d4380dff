//! Who is revoked next: one lane a target, each with its own workers, queue and breaker, so that a dead target delays nobody
//! else. Pure: no I/O, no clock of its own.

use crate::base::{
    id::{LeaseId, MountId},
    random::Random,
    time::Timestamp,
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

/// Revocations of one target at once.
pub const LANE_WORKERS: usize = 16;
/// Revocations at once in all.
pub const WORKERS_MAX: usize = 64;
/// Leases waiting in memory for one target; the others wait in the store.
pub const LANE_QUEUE_MAX: usize = 16_384;
/// First and last step of the backoff. It is never terminal.
pub const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// See [`BACKOFF_MIN`].
pub const BACKOFF_MAX: Duration = Duration::from_secs(3600);
/// Outages in a row after which a target is left alone for a while.
const BREAKER_AFTER: u32 = 3;
/// A target is probed at least this often, whatever its history: people wait for it to come back.
pub(super) const BREAKER_MAX: Duration = Duration::from_secs(60);
/// What comes too early for a full lane is looked at again after this, and up to as long again.
const FULL_PAUSE: Duration = Duration::from_secs(10);

/// Full jitter: uniform in 0..=min(max, min * 2^attempts), at least a tenth of `BACKOFF_MIN`.
pub(super) fn backoff(attempts: u32, max: Duration, random: &dyn Random) -> Duration {
    let ceiling = BACKOFF_MIN
        .saturating_mul(1u32.checked_shl(attempts.min(16)).unwrap_or(u32::MAX))
        .min(max);
    let millis = u64::try_from(ceiling.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(random.below(millis + 1).max(100))
}

/// What to do with a lease whose turn it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It waits in a lane now.
    Queued,
    /// It is in a lane already.
    Known,
    /// Not before then: its lane is full or its target is down.
    Later(Timestamp),
}

#[derive(Default)]
struct Lane {
    waiting: VecDeque<LeaseId>,
    running: usize,
    outages: u32,
    open_until: Timestamp,
}

/// All lanes.
#[derive(Default)]
pub(super) struct Lanes {
    lanes: HashMap<MountId, Lane>,
    known: HashSet<LeaseId>,
    running: usize,
}

impl Lanes {
    /// Takes a lease in, or says when to come again.
    pub fn offer(&mut self, mount: MountId, id: LeaseId, now: Timestamp, random: &dyn Random) -> Verdict {
        if self.known.contains(&id) {
            return Verdict::Known;
        }
        let lane = self.lanes.entry(mount).or_default();
        if lane.open_until > now {
            return Verdict::Later(later(lane.open_until, Duration::from_millis(random.below(1000))));
        }
        if lane.waiting.len() >= LANE_QUEUE_MAX {
            return Verdict::Later(later(now, FULL_PAUSE + Duration::from_millis(random.below(10_000))));
        }
        lane.waiting.push_back(id);
        self.known.insert(id);
        Verdict::Queued
    }

    /// The next that may start, lanes taking turns. A target under suspicion gets one at a time: the probe.
    pub fn start(&mut self) -> Option<(MountId, LeaseId)> {
        if self.running >= WORKERS_MAX {
            return None;
        }
        let ready = |lane: &Lane| {
            !lane.waiting.is_empty() && lane.running < if lane.outages >= BREAKER_AFTER { 1 } else { LANE_WORKERS }
        };
        let (&mount, lane) = self
            .lanes
            .iter_mut()
            .filter(|(_, lane)| ready(lane))
            .min_by_key(|(_, lane)| lane.running)?;
        let id = lane.waiting.pop_front()?;
        lane.running += 1;
        self.running += 1;
        Some((mount, id))
    }

    /// One ended. After too many outages in a row the lane closes until the returned instant; what waits in it is given
    /// back, to be put off in the store.
    pub fn finish(
        &mut self,
        mount: MountId,
        id: LeaseId,
        outage: bool,
        now: Timestamp,
        random: &dyn Random,
    ) -> Option<(Timestamp, Vec<LeaseId>)> {
        self.known.remove(&id);
        self.running = self.running.saturating_sub(1);
        let lane = self.lanes.get_mut(&mount)?;
        lane.running = lane.running.saturating_sub(1);
        lane.outages = if outage { lane.outages.saturating_add(1) } else { 0 };
        if lane.outages < BREAKER_AFTER {
            if lane.outages == 0 && lane.running == 0 && lane.waiting.is_empty() {
                self.lanes.remove(&mount);
            }
            return None;
        }
        lane.open_until = later(now, backoff(lane.outages - BREAKER_AFTER + 1, BREAKER_MAX, random));
        let until = lane.open_until;
        let back: Vec<LeaseId> = lane.waiting.drain(..).collect();
        back.iter().for_each(|id| {
            self.known.remove(id);
        });
        Some((until, back))
    }

    /// Targets that are left alone for now.
    pub fn closed(&self, now: Timestamp) -> usize {
        self.lanes.values().filter(|lane| lane.open_until > now).count()
    }

    /// Leases in memory, waiting or running.
    pub fn len(&self) -> usize {
        self.known.len()
    }
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    Timestamp(now.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::OsRandom;

    fn id(n: u8) -> LeaseId {
        LeaseId::from_bytes([n; 16])
    }
    fn mount(n: u8) -> MountId {
        MountId::from_bytes([n; 16])
    }

    /// R-LEASE-5: a target that fails does not take the workers of another.
    #[test]
    fn a_dead_target_delays_nobody_else() {
        let mut lanes = Lanes::default();
        let now = Timestamp(1_000_000);
        for n in 0..40 {
            assert_eq!(lanes.offer(mount(1), id(n), now, &OsRandom), Verdict::Queued);
        }
        assert_eq!(lanes.offer(mount(1), id(0), now, &OsRandom), Verdict::Known);
        let started: Vec<_> = std::iter::from_fn(|| lanes.start()).collect();
        assert_eq!(started.len(), LANE_WORKERS);
        assert_eq!(lanes.offer(mount(2), id(200), now, &OsRandom), Verdict::Queued);
        assert_eq!(lanes.start(), Some((mount(2), id(200))));
        for (n, (target, lease)) in started.into_iter().enumerate() {
            let closed = lanes.finish(target, lease, true, now, &OsRandom);
            assert_eq!(closed.is_some(), n + 1 >= BREAKER_AFTER as usize);
            if n + 1 == BREAKER_AFTER as usize {
                assert_eq!(
                    closed.unwrap().1.len(),
                    40 - LANE_WORKERS,
                    "what waited goes back to the store"
                );
            }
        }
        assert_eq!(lanes.closed(now), 1);
        assert!(matches!(lanes.offer(mount(1), id(1), now, &OsRandom), Verdict::Later(at) if at > now));
        let after = now.plus_secs(120);
        assert_eq!(lanes.offer(mount(1), id(1), after, &OsRandom), Verdict::Queued);
        assert_eq!(lanes.offer(mount(1), id(2), after, &OsRandom), Verdict::Queued);
        assert_eq!(lanes.start(), Some((mount(1), id(1))), "one probe");
        assert_eq!(lanes.start(), None);
        assert_eq!(lanes.finish(mount(1), id(1), false, after, &OsRandom), None);
        assert_eq!(lanes.start(), Some((mount(1), id(2))), "and then business as usual");
    }

    /// R-LEASE-3: backoff grows to an hour and never ends.
    #[test]
    fn backoff_is_bounded_and_jittered() {
        for attempts in [0, 1, 5, 16, u32::MAX] {
            let ceiling = Duration::from_secs(1u64 << attempts.min(16)).min(BACKOFF_MAX);
            let all: Vec<_> = (0..200).map(|_| backoff(attempts, BACKOFF_MAX, &OsRandom)).collect();
            assert!(
                all.iter()
                    .all(|pause| *pause <= ceiling && *pause >= Duration::from_millis(100))
            );
            assert!(all.iter().any(|pause| *pause > ceiling / 2) && all.iter().any(|pause| *pause < ceiling / 2));
        }
    }
}
