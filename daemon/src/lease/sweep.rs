//! What is due: a page of the due index at a time, each row moved or deleted in one commit, so that everything below the
//! mark is done.

use super::{
    CLAIM_SECS, Inner, State,
    queue::Verdict,
    record::{Books, Held, Lease, REVOKING},
};
use crate::{
    base::{format::Format1, id::LeaseId, time::Timestamp},
    store::{Change, CommitError, Cursor, Part, StoreError},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Rows of one commit.
const SWEEP_PAGE: usize = 256;
/// A lease whose record does not open is looked at again after this.
const QUARANTINE_SECS: u64 = 3600;
/// How often a page is tried when its leases change meanwhile.
const ROUNDS_MAX: u32 = 5;
/// Key of [`Kept`] in the system table.
const KEPT: &[u8] = b"lease-time";

/// What survives a restart.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    format: Format1,
    /// Vault time, high water.
    pub vault_time: Timestamp,
    /// Where the last sweep began: what lies below was written while the daemon died, and the slow sweep finds it.
    pub mark: Timestamp,
}

impl Kept {
    pub async fn load(books: &Books) -> Result<Self, StoreError> {
        let record = match books.system.get(&[Part::Raw(KEPT)]).await {
            Ok(record) => record,
            // The mark only saves work, and wall time takes the place of vault time.
            Err(StoreError::Damaged { .. }) => None,
            Err(error) => return Err(error),
        };
        Ok(record
            .and_then(|record| serde_json::from_slice(&record.value).ok())
            .unwrap_or_default())
    }

    pub fn put(&self, books: &Books, change: &mut Change) {
        change.put(
            &books.system,
            &[Part::Raw(KEPT)],
            Zeroizing::new(serde_json::to_vec(self).unwrap_or_default()),
        );
    }
}

/// A row of the due index.
struct Row {
    due: Timestamp,
    id: LeaseId,
    revoking: bool,
}

/// One lease's next step.
enum Step {
    /// The row points nowhere.
    Forget,
    /// Its record does not open.
    PutOff,
    /// To be revoked, or being revoked: looked at again then.
    Turn(Box<Held>, Timestamp),
}

impl Inner {
    /// Takes everything that is due by `now`, and the revoking ones due by `claims_until`. Returns when the next is due.
    pub(super) async fn sweep(
        &self,
        kept: &mut Kept,
        now: Timestamp,
        claims_until: Timestamp,
    ) -> Result<Option<Timestamp>, SweepError> {
        // What is written from here on with an earlier due lowers the mark again, for the next sweep.
        kept.mark = self.books.mark.raise(now);
        let swept = self.sweep_from(kept, now, claims_until).await;
        if swept.is_err() {
            self.books.mark.lower(kept.mark);
        }
        swept
    }

    async fn sweep_from(
        &self,
        kept: &mut Kept,
        now: Timestamp,
        claims_until: Timestamp,
    ) -> Result<Option<Timestamp>, SweepError> {
        let mut from = self.books.due.cursor_at(&[Part::Raw(&kept.mark.0.to_be_bytes())])?;
        loop {
            let (rows, next) = self.rows(&from).await?;
            let upcoming = rows
                .iter()
                .find(|row| row.due > now.max(claims_until))
                .map(|row| row.due);
            let first_left = rows
                .iter()
                .find(|row| row.due > now && !row.revoking)
                .map(|row| row.due);
            let due: Vec<Row> = rows
                .into_iter()
                .filter(|row| row.due <= now || row.revoking && row.due <= claims_until)
                .collect();
            if !due.is_empty() {
                self.take(&due, now, kept).await?;
            }
            match (upcoming, next) {
                (None, Some(next)) => from = next,
                (upcoming, _) => {
                    kept.vault_time = kept.vault_time.max(now);
                    return Ok(first_left.into_iter().chain(upcoming).min());
                }
            }
        }
    }

    async fn rows(&self, from: &Cursor) -> Result<(Vec<Row>, Option<Cursor>), StoreError> {
        let page = self.books.due.scan(&[], Some(from), SWEEP_PAGE).await?;
        let row = |entry: &crate::store::Entry| {
            let due = Timestamp(u64::from_be_bytes(entry.key.first()?.raw_array()?));
            let id = LeaseId::from_bytes(entry.key.get(1)?.raw_array()?);
            Some(Row {
                due,
                id,
                revoking: entry.record.value.first() == Some(&REVOKING),
            })
        };
        Ok((page.entries.iter().filter_map(row).collect(), page.next))
    }

    async fn take(&self, rows: &[Row], now: Timestamp, kept: &mut Kept) -> Result<(), SweepError> {
        for _ in 0..ROUNDS_MAX {
            let mut change = Change::new();
            change.urgent();
            for row in rows {
                match self.step(row, now).await? {
                    Step::Forget => self.books.forget_due(&mut change, row.due, row.id),
                    Step::PutOff => {
                        self.books.forget_due(&mut change, row.due, row.id);
                        self.books
                            .put_due(&mut change, now.plus_secs(QUARANTINE_SECS), row.id, State::Intent);
                    }
                    Step::Turn(held, due) => self.books.turn(&mut change, &held, now, due),
                }
            }
            kept.vault_time = kept.vault_time.max(now);
            kept.put(&self.books, &mut change);
            match self.commit(change, Vec::new()).await {
                Ok(_) => return Ok(()),
                // One of them was renewed, activated or ended meanwhile: read them all again.
                Err(CommitError::Precondition(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(SweepError::Contended)
    }

    async fn step(&self, row: &Row, now: Timestamp) -> Result<Step, StoreError> {
        let held = match self.books.get(row.id).await {
            Ok(Some(held)) => held,
            Ok(None) => return Ok(Step::Forget),
            Err(StoreError::Damaged { .. }) => {
                self.quarantine(row.id);
                return Ok(Step::PutOff);
            }
            Err(error) => return Err(error),
        };
        if held.lease.due != row.due {
            return Ok(Step::Forget);
        }
        // A worker that starts before the commit finds the lease unchanged and leaves it.
        let due = match self
            .lanes
            .lock()
            .offer(held.lease.mount, row.id, now, &*self.around.random)
        {
            Verdict::Queued | Verdict::Known => now.plus_secs(CLAIM_SECS),
            Verdict::Later(at) => at,
        };
        Ok(Step::Turn(Box::new(held), due))
    }

    /// Rows of leases that were claimed but found no place in a lane move to `until`.
    pub(super) async fn put_off(&self, ids: &[(LeaseId, Timestamp)]) -> Result<(), SweepError> {
        for page in ids.chunks(SWEEP_PAGE) {
            for _ in 0..ROUNDS_MAX {
                let mut change = Change::new();
                change.urgent();
                for &(id, until) in page {
                    // What does not open keeps its claim and is found by the sweep.
                    if let Ok(Some(held)) = self.books.get(id).await
                        && held.lease.state == State::Revoking
                    {
                        let lease = Lease {
                            due: until,
                            ..held.lease.clone()
                        };
                        self.books.update(&mut change, &held, &lease);
                    }
                }
                match self.commit(change, Vec::new()).await {
                    Ok(_) => break,
                    Err(CommitError::Precondition(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}

/// Why a sweep stopped. It is tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum SweepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error("the leases of a page kept changing")]
    Contended,
}
