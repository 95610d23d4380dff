//! Ending what has ended: records of expired and of orphaned sessions, in bounded batches, and the marks by which the lease room learns
//! whose leases to revoke. All of it goes on after a crash from what is stored.

use super::{
    TokenError, TokenRoom,
    record,
    table::Ended,
};
use crate::{
    base::id::SessionId,
    store::{Change, Cursor, Entry, Part, StoreError, View},
};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// Sessions removed in one commit.
const SWEEP_SESSIONS: usize = 256;
/// Records read at a time when loading.
const LOAD_ENTRIES: usize = 1000;
const MARK: Part<'static> = Part::Raw(b"session-ended");

impl TokenRoom {
    /// One bounded batch of removals, `None` when there is nothing to remove now. To be called now and then, and again after a commit,
    /// until `None`. A lost precondition means that a session was renewed in between: call again later.
    /// # Errors
    /// The store.
    pub async fn sweep(&self) -> Result<Option<Change>, TokenError> {
        let now = self.clock.now();
        let (ending, expired) = self.table.read().sweepable(now, SWEEP_SESSIONS);
        if ending.is_empty() && expired.is_empty() {
            return Ok(None);
        }
        let mut change = Change::new();
        for session in ending {
            let table = self.table.clone();
            change.delete(&self.sessions, &[Part::Raw(session.as_bytes())]);
            mark(&mut change, &self.marks, session, Ended::Alone);
            change.then(move || table.write().swept(session));
        }
        for session in expired {
            let key = [Part::Raw(session.as_bytes())];
            let table = self.table.clone();
            match self.read(session).await {
                // Renewed, and memory follows in a moment.
                Ok((record, _)) if record.expires() > now => {}
                Ok((record, version)) => {
                    change.require_version(&self.sessions, &key, version).delete(&self.sessions, &key);
                    if record.end_leases {
                        mark(&mut change, &self.marks, session, Ended::Alone);
                        change.then(move || table.write().end(session, Ended::Alone));
                    } else {
                        change.then(move || table.write().remove(session));
                    }
                }
                Err(TokenError::NotFound) => table.write().remove(session),
                // It opens nothing any more; whether its leases should end cannot be read, so they do. The record stays in quarantine.
                Err(TokenError::Damaged(_) | TokenError::Store(StoreError::Damaged { .. })) => {
                    mark(&mut change, &self.marks, session, Ended::Alone);
                    change.then(move || table.write().end(session, Ended::Alone));
                }
                Err(error) => return Err(error),
            }
        }
        Ok((!change.is_empty()).then_some(change))
    }

    /// Sessions that ended and whose leases are to be revoked, at most `limit`; again and again until [`Self::settled`] is committed.
    pub fn ended(&self, limit: usize) -> Vec<SessionId> {
        self.table.read().ended(limit)
    }

    /// The leases of `session` are queued or gone: the mark may go. `None`: not yet, for sessions that it made are still to be swept.
    pub fn settled(&self, session: SessionId) -> Option<Change> {
        if !self.table.read().may_settle(session) {
            return None;
        }
        let table = self.table.clone();
        let mut change = Change::new();
        change.delete(&self.marks, &[MARK, Part::Raw(session.as_bytes())]).then(move || table.write().forget(session));
        Some(change)
    }
}

/// Leaves the mark that the leases of `session` are to be revoked.
pub(super) fn mark(change: &mut Change, marks: &View, session: SessionId, how: Ended) {
    let value = match how {
        Ended::Alone => b"alone".to_vec(),
        Ended::Tree => b"tree".to_vec(),
    };
    change.put(marks, &[MARK, Part::Raw(session.as_bytes())], Zeroizing::new(value));
}

/// Reads identities, sessions and marks, page by page.
pub(super) async fn load(room: &TokenRoom) -> Result<(), TokenError> {
    each(&room.identities, &[], |entry| {
        match record::identity(&entry.record.value) {
            Some(record) if room.table.write().learn(&record).is_ok() => {}
            _ => tracing::error!("an identity's record cannot be used: its tokens open nothing"),
        }
    })
    .await?;
    each(&room.sessions, &[], |entry| {
        match (session_of(&entry), record::session(&entry.record.value)) {
            (Some(session), Some(record)) => room.table.write().put(session, record),
            _ => tracing::error!("a session's record cannot be used: its tokens open nothing"),
        }
    })
    .await?;
    let mut ended = BTreeMap::new();
    each(&room.marks, &[MARK], |entry| {
        if let Some(session) = session_of(&entry) {
            // A mark that does not read ends more rather than less.
            ended.insert(session, if entry.record.value.as_slice() == b"alone" { Ended::Alone } else { Ended::Tree });
        }
    })
    .await?;
    room.table.write().settle(ended);
    Ok(())
}

fn session_of(entry: &Entry) -> Option<SessionId> {
    entry.key.first()?.raw_array().map(SessionId::from_bytes)
}

async fn each(view: &View, prefix: &[Part<'_>], mut take: impl FnMut(Entry)) -> Result<(), TokenError> {
    let mut after: Option<Cursor> = None;
    loop {
        let page = view.scan(prefix, after.as_ref(), LOAD_ENTRIES).await?;
        page.entries.into_iter().for_each(&mut take);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}
