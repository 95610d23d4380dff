//! Background re-encryption after a rotation: step by step through every record, re-sealing by the current data key what an older one sealed.
//! The place it has reached is kept in the store, in the commit of each step: a crash loses no work. A generation may go only after a
//! whole pass that met no record under it, damaged ones included. R-SEAL-5.

use super::{
    CommitError, Inner, Store, StoreError,
    batch::{Condition, Stored},
    change::{Change, Do},
    record,
    table::{self, HEAD_BYTES, RawTable, Table},
};
use bytes::Bytes;
use std::collections::BTreeSet;

/// Records looked at by one step.
pub const REWRAP_ROWS_MAX: usize = 1024;
/// Bytes looked at by one step.
const REWRAP_BYTES: usize = 256 << 10;

/// What a step did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rewrapped {
    /// Records looked at.
    pub seen: usize,
    /// Records sealed anew.
    pub resealed: usize,
    /// The pass is at its end.
    pub finished: bool,
    /// With `finished`: generations that no record needed in the whole pass; to be dropped by `change_keyring`.
    pub unused: Vec<u32>,
}

/// The place, as kept in `Heads/rewrap`: `current u32 | count u8 | old ids met u32* | next key`.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Place {
    /// The generation this pass re-seals to. A pass that began before a rotation starts anew.
    current: u32,
    /// Older generations that records of this pass were under.
    met: BTreeSet<u32>,
    next: Vec<u8>,
}

const ROW: &[u8] = b"rewrap";

impl Place {
    fn start(current: u32) -> Self {
        Self {
            current,
            met: BTreeSet::new(),
            next: vec![0, 0, 0, 0, Table::Mount.id()],
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = self.current.to_be_bytes().to_vec();
        out.push(u8::try_from(self.met.len()).unwrap_or(u8::MAX));
        self.met.iter().for_each(|id| out.extend_from_slice(&id.to_be_bytes()));
        out.extend_from_slice(&self.next);
        out
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let (current, rest) = value.split_first_chunk::<4>()?;
        let (&count, rest) = rest.split_first()?;
        let (met, next) = rest.split_at_checked(usize::from(count) * 4)?;
        let met = met
            .chunks_exact(4)
            .filter_map(|id| Some(u32::from_be_bytes(id.try_into().ok()?)))
            .collect();
        (next.len() >= HEAD_BYTES).then(|| Self {
            current: u32::from_be_bytes(*current),
            met,
            next: next.to_vec(),
        })
    }
}

impl Store {
    /// Does the next step of the pass, at most `rows` records; call again until `finished`. A finished pass begins anew with the next call.
    /// # Errors
    /// [`CommitError`]: the same step is done again by the next call.
    pub async fn rewrap(&self, rows: usize) -> Result<Rewrapped, CommitError> {
        let base = &self.inner.base;
        let keyring = self.keyring().map_err(CommitError::from_read)?;
        let current = keyring.current().ok_or(CommitError::Sealed)?.id;
        let mut place = match base.get_raw(RawTable::Heads, ROW).await {
            Ok(row) => row.and_then(|row| Place::decode(&row.value)),
            Err(StoreError::Damaged { .. }) => None, // only a place: begin anew
            Err(error) => return Err(CommitError::from_read(error)),
        }
        .filter(|place| place.current == current)
        .unwrap_or_else(|| Place::start(current));
        let rows_max = rows.clamp(1, REWRAP_ROWS_MAX);
        let end = vec![u8::MAX; HEAD_BYTES];
        let rows = base
            .physical
            .scan(place.next.clone(), end, rows_max, REWRAP_BYTES)
            .await
            .map_err(CommitError::from_read)?;
        let mut done = Rewrapped {
            seen: rows.len(),
            ..Rewrapped::default()
        };
        let Some((last, _)) = rows.last() else {
            done.finished = true;
            done.unused = keyring
                .generation_ids()
                .into_iter()
                .filter(|id| *id != current && !place.met.contains(id))
                .collect();
            let mut change = Change::new();
            change.put_raw(RawTable::Heads, ROW, Place::start(current).encode());
            self.commit(change, Vec::new()).await?;
            return Ok(done);
        };
        place.next = [&last[..], &[0]].concat();
        let mut change = Change::new();
        for (key, stored) in &rows {
            done.resealed += usize::from(self.reseal(key, stored, &mut place, &mut change)?);
        }
        change.put_raw(RawTable::Heads, ROW, place.encode());
        match self.commit(change, Vec::new()).await {
            Ok(_) => Ok(done),
            // Somebody wrote one of them meanwhile, by the current key: the rest is done one by one.
            Err(CommitError::Precondition(_)) => self.one_by_one(&rows, place, done).await,
            Err(error) => Err(error),
        }
    }

    async fn one_by_one(
        &self,
        rows: &[(Bytes, Stored)],
        mut place: Place,
        mut done: Rewrapped,
    ) -> Result<Rewrapped, CommitError> {
        done.resealed = 0;
        for (key, stored) in rows {
            let mut change = Change::new();
            if self.reseal(key, stored, &mut place, &mut change)? {
                match self.commit(change, Vec::new()).await {
                    Ok(_) => done.resealed += 1,
                    Err(CommitError::Precondition(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        let mut change = Change::new();
        change.put_raw(RawTable::Heads, ROW, place.encode());
        self.commit(change, Vec::new()).await.map(|_| done)
    }

    /// Adds the re-sealing of one record to `change`, if an older key sealed it.
    fn reseal(
        &self,
        key: &Bytes,
        stored: &Stored,
        place: &mut Place,
        change: &mut Change,
    ) -> Result<bool, CommitError> {
        let Some(id) = old_generation(&self.inner, key, stored, place.current) else {
            return Ok(false);
        };
        place.met.insert(id);
        let keyring = self.keyring().map_err(CommitError::from_read)?;
        let Some(plain) = record::open(&keyring, &self.inner.base.ids, key, &stored.bytes) else {
            self.inner.base.quarantine(key, &keyring.names().words(key));
            return Ok(false);
        };
        change.acts.push((key.clone(), Do::Put(plain)));
        change
            .conditions
            .push((key.clone(), Condition::Version(stored.version)));
        change.bulk();
        Ok(true)
    }
}

/// The generation a record is under, if it is an older one.
fn old_generation(inner: &Inner, key: &[u8], stored: &Stored, current: u32) -> Option<u32> {
    let (_, table) = table::parse_head(key)?;
    Table::from_id(table)?; // raw tables of other namespaces, should they ever come, are not sealed
    let header = record::parse_header(&stored.bytes)?;
    let known = inner.keyring().ok()?.generation(header.key_id).is_some();
    (known && header.key_id != current).then_some(header.key_id)
}
