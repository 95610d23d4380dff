//! A flood of refusals must neither fill the disk nor go unrecorded. R-AUDIT-1, R-AUDIT-3.
//!
//! Each source has a small allowance of refusals with a record of their own; what is over it is counted, and the count becomes one
//! record a period. All refusals share one budget of bytes; when that is spent the caller gets no answer at all, only the count.
//! Memory is a fixed table: sources that find no place in it share one entry.

use super::trail::{Outcome, Recorder, Source, Trail};
use crate::base::time::Timestamp;
use parking_lot::Mutex;
use std::{hash::BuildHasher, net::IpAddr, sync::Arc, time::Duration};
use strongroom_audit::Encoded;

/// Refusals in a row from one source that get records of their own.
pub const REFUSALS_BURST: u32 = 20;
/// And one more after each of these.
pub const REFUSALS_EVERY: Duration = Duration::from_millis(500);
/// Bytes of refusal records in a row, of all sources together.
pub const REFUSAL_BYTES_BURST: u64 = 1 << 20;
/// And so many more each second: 1.4 GB a day at the very most.
pub const REFUSAL_BYTES_PER_SEC: u64 = 16 << 10;
/// Sources told apart at once.
pub const REFUSAL_SOURCES_MAX: usize = 1024;
/// How often [`Refusals::flush`] should be called.
pub const REFUSALS_FLUSH_EVERY: Duration = Duration::from_secs(10);
const BYTES_TOLERANCE: Duration = Duration::from_secs(REFUSAL_BYTES_BURST / REFUSAL_BYTES_PER_SEC);
const WAYS: usize = 4;
/// Summaries made by one flush; the rest is summed up in the shared entry.
const SUMMARIES_MAX: usize = 64;

/// What to do with a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Record it, then answer.
    Write,
    /// Answer; the count stands for the record.
    Count,
    /// The shared budget is spent: close the connection without an answer. Counted.
    Drop,
}

/// One record for many refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// From where; `None`: several sources together.
    pub source: Option<Peer>,
    /// How many were not recorded.
    pub count: u64,
    /// Since when.
    pub since: Timestamp,
}

impl Summary {
    /// The record: "`count` more like it".
    pub fn record(&self, recorder: &Arc<Recorder>) -> Encoded {
        let mut trail = Trail::of_system(recorder, "refusals.summary");
        match self.source {
            Some(Peer::Net(prefix)) => trail.param_prefix("from", prefix),
            Some(Peer::Uid(uid)) => trail.param_u64("uid", uid.into()),
            None => trail.param_word("from", "several"),
        }
        trail.param_time("since", self.since);
        trail.response(&Outcome::ok().with_count(self.count))
    }
}

/// A source as the table knows it: an IPv4 address, an IPv6 /64 (whoever has one has 2^64 addresses), or a local user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// The address; for IPv6 its first 64 bits.
    Net(IpAddr),
    /// A user of this machine.
    Uid(u32),
}

impl From<Source> for Peer {
    fn from(source: Source) -> Self {
        match source {
            Source::Unix(uid) => Self::Uid(uid),
            Source::Tls(addr) => match addr.ip().to_canonical() {
                IpAddr::V6(ip) => Self::Net(IpAddr::V6((u128::from(ip) & (u128::MAX << 64)).into())),
                ip => Self::Net(ip),
            },
        }
    }
}

#[derive(Clone, Copy)]
struct Entry {
    peer: Option<Peer>,
    /// When its allowance is whole again, in monotonic time (GCRA).
    full_at: Duration,
    counted: u64,
    since: Timestamp,
}

const EMPTY: Entry = Entry {
    peer: None,
    full_at: Duration::ZERO,
    counted: 0,
    since: Timestamp(0),
};

struct Table {
    entries: Box<[[Entry; WAYS]]>,
    /// Sources without a place.
    others: Entry,
    /// When the byte budget is whole again.
    bytes_full_at: Duration,
}

/// The table. One for the daemon.
pub struct Refusals {
    table: Mutex<Table>,
    hasher: std::hash::RandomState,
}

impl Default for Refusals {
    fn default() -> Self {
        let entries = vec![[EMPTY; WAYS]; REFUSAL_SOURCES_MAX / WAYS].into_boxed_slice();
        let table = Table {
            entries,
            others: EMPTY,
            bytes_full_at: Duration::ZERO,
        };
        Self {
            table: Mutex::new(table),
            hasher: std::hash::RandomState::new(),
        }
    }
}

impl Refusals {
    /// What to do with a refusal of `bytes` (its encoded record) from `source`, at wall time `now` and monotonic time `mono`.
    pub fn admit(&self, source: Source, bytes: usize, now: Timestamp, mono: Duration) -> Admission {
        let peer = Peer::from(source);
        let place = self.hasher.hash_one(peer);
        let table = &mut *self.table.lock();
        let spent = table.bytes_full_at.saturating_sub(mono) > BYTES_TOLERANCE;
        let entry = table.entry(peer, place, mono);
        if spent {
            count(entry, now);
            return Admission::Drop;
        }
        if !allowed(
            &mut entry.full_at,
            mono,
            REFUSALS_EVERY,
            REFUSALS_EVERY * (REFUSALS_BURST - 1),
        ) {
            count(entry, now);
            return Admission::Count;
        }
        let cost = Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000 / REFUSAL_BYTES_PER_SEC));
        table.bytes_full_at = table.bytes_full_at.max(mono) + cost;
        Admission::Write
    }

    /// A request was turned away before anything could be known of it: it stands in its source's next summary.
    pub fn count(&self, source: Source, now: Timestamp) {
        let peer = Peer::from(source);
        let place = self.hasher.hash_one(peer);
        let table = &mut *self.table.lock();
        count(table.entry(peer, place, Duration::ZERO), now);
    }

    /// The counts since the last flush, each once: make them records. Bounded; what is more is summed up in one.
    pub fn flush(&self) -> Vec<Summary> {
        let table = &mut *self.table.lock();
        let mut summaries = Vec::new();
        for entry in table.entries.iter_mut().flatten().filter(|entry| entry.counted > 0) {
            if summaries.len() < SUMMARIES_MAX {
                summaries.push(Summary {
                    source: entry.peer,
                    count: entry.counted,
                    since: entry.since,
                });
            } else {
                table.others.since = earlier(&table.others, entry.since);
                table.others.counted += entry.counted;
            }
            entry.counted = 0;
        }
        if table.others.counted > 0 {
            summaries.push(Summary {
                source: None,
                count: table.others.counted,
                since: table.others.since,
            });
            table.others.counted = 0;
        }
        summaries
    }

    /// A summary that could not be recorded: the next flush has it again, in the entry of its source where that one is still known.
    pub fn put_back(&self, summary: Summary) {
        let place = summary.source.map(|peer| self.hasher.hash_one(peer));
        let table = &mut *self.table.lock();
        let entry = match (summary.source, place) {
            (Some(peer), Some(place)) => table.known(peer, place),
            _ => &mut table.others,
        };
        entry.since = earlier(entry, summary.since);
        entry.counted = entry.counted.saturating_add(summary.count);
    }
}

impl std::fmt::Debug for Refusals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Refusals")
    }
}

impl Table {
    /// The entry of `peer` if it has one, else the shared one.
    fn known(&mut self, peer: Peer, place: u64) -> &mut Entry {
        let own = self
            .entries
            .get_mut(set_of(place))
            .and_then(|ways| ways.iter_mut().find(|entry| entry.peer == Some(peer)));
        own.unwrap_or(&mut self.others)
    }

    /// The entry of `peer`: its own, one that nobody needs any more, or the shared one.
    fn entry(&mut self, peer: Peer, place: u64, mono: Duration) -> &mut Entry {
        let Some(ways) = self.entries.get_mut(set_of(place)) else {
            return &mut self.others;
        };
        let own = ways.iter().position(|entry| entry.peer == Some(peer));
        let free = || {
            ways.iter()
                .position(|entry| entry.counted == 0 && entry.full_at <= mono)
        };
        match own.or_else(free).and_then(|way| ways.get_mut(way)) {
            Some(entry) => {
                if entry.peer != Some(peer) {
                    *entry = Entry {
                        peer: Some(peer),
                        ..EMPTY
                    };
                }
                entry
            }
            None => &mut self.others,
        }
    }
}

fn set_of(place: u64) -> usize {
    usize::try_from(place % (REFUSAL_SOURCES_MAX / WAYS) as u64).unwrap_or(0)
}

fn count(entry: &mut Entry, now: Timestamp) {
    entry.since = earlier(entry, now);
    entry.counted = entry.counted.saturating_add(1);
}

fn earlier(entry: &Entry, now: Timestamp) -> Timestamp {
    if entry.counted == 0 { now } else { entry.since.min(now) }
}

/// GCRA: one more, if the bucket is not over `tolerance` ahead.
fn allowed(full_at: &mut Duration, now: Duration, cost: Duration, tolerance: Duration) -> bool {
    let from = (*full_at).max(now);
    if from - now > tolerance {
        return false;
    }
    *full_at = from + cost;
    true
}

#[cfg(test)]
mod tests;
