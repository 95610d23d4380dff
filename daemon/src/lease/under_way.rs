//! How many leases are being revoked, and since when the oldest of them: read off an index of their own, which their commits keep, so that it is
//! right after a restart and costs no memory.

use super::{
    LeaseRoom,
    record::{Books, Lease},
};
use crate::{
    base::{id::LeaseId, time::Timestamp},
    store::{Change, Part, StoreError},
};
use std::time::Duration;
use zeroize::Zeroizing;

/// As many are looked at; of more, it is "so many at least".
pub const COUNTED_MAX: u64 = 10_000;
/// Rows read at once.
const PAGE: usize = 1000;
/// Whoever asks again within this time hears the same: anybody may ask, as often as they like.
const KEPT: Duration = Duration::from_secs(1);

/// Revocations that are not proven yet, whether they run, wait for their turn or for the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UnderWay {
    /// How many, at most [`COUNTED_MAX`].
    pub leases: u64,
    /// How long the oldest of them has been; 0 when there is none.
    pub oldest_secs: u64,
}

/// When it was counted, on the monotonic clock, and what.
pub(super) type Counted = Option<(Duration, UnderWay)>;

impl Books {
    /// A lease turns to `revoking`, whatever it was, and is looked at again at `due`. One precondition.
    pub fn turn(&self, change: &mut Change, held: &super::record::Held, now: Timestamp, due: Timestamp) {
        let lease = Lease {
            state: super::State::Revoking,
            due,
            ..held.lease.clone()
        };
        self.update(change, held, &lease);
        if held.lease.state != super::State::Revoking {
            self.begun(change, lease.id, now);
        }
    }

    pub(super) fn begun(&self, change: &mut Change, id: LeaseId, now: Timestamp) {
        let since = Zeroizing::new(now.0.to_be_bytes().to_vec());
        change.put(&self.revoking, &[Part::Raw(id.as_bytes())], since);
    }
}

impl LeaseRoom {
    /// Counts them. A row that does not open counts, with no age.
    /// # Errors
    /// When the store cannot be read.
    pub async fn under_way(&self) -> Result<UnderWay, StoreError> {
        let now = self.inner.around.clock.monotonic();
        let kept = *self.inner.counted.lock();
        if let Some((at, counted)) = kept
            && now.saturating_sub(at) < KEPT
        {
            return Ok(counted);
        }
        let (mut leases, mut oldest, mut after) = (0, None, None);
        loop {
            let page = self.inner.books.revoking.scan(&[], after.as_ref(), PAGE).await?;
            leases += (page.entries.len() + page.damaged.len()) as u64;
            let since = page.entries.iter().filter_map(|entry| {
                let bytes = entry.record.value.first_chunk::<8>()?;
                Some(Timestamp(u64::from_be_bytes(*bytes)))
            });
            oldest = since.chain(oldest).min();
            match page.next {
                Some(next) if leases < COUNTED_MAX => after = Some(next),
                _ => break,
            }
        }
        let counted = UnderWay {
            leases: leases.min(COUNTED_MAX),
            oldest_secs: oldest.map_or(0, |since| since.secs_until(self.now())),
        };
        *self.inner.counted.lock() = Some((now, counted));
        Ok(counted)
    }
}
