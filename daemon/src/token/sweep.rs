//! Ending what has ended: records of expired and of orphaned sessions, in bounded batches, and the marks by which the lease room learns
//! whose leases to revoke. All of it goes on after a crash from what is stored.

use super::{TokenError, TokenRoom, marks, record, table::Ended};
use crate::{
    base::id::SessionId,
    store::{Change, Cursor, Entry, OwnedPart, Part, StoreError, View},
};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// Sessions removed in one commit.
const SWEEP_SESSIONS: usize = if cfg!(test) { 2 } else { 256 };
/// Records read at a time when loading.
const LOAD_ENTRIES: usize = 1000;
/// Whose leases are to be revoked.
const MARK: Part<'static> = Part::Raw(b"session-ended");
/// A session that is over, and its maker.
const LINK: Part<'static> = Part::Raw(b"session-link");

impl TokenRoom {
    /// One bounded batch of removals, `None` when there is nothing to remove now. To be called now and then, and again after a commit,
    /// until `None`. A lost precondition means that a session was renewed in between: call again later.
    /// # Errors
    /// The store.
    pub async fn sweep(&self) -> Result<Option<Change>, TokenError> {
        let now = self.clock.now();
        let work = self.table.read().sweepable(now, SWEEP_SESSIONS);
        let mut change = Change::new();
        for session in work.ending {
            let table = self.table.clone();
            change
                .delete(&self.sessions, &[Part::Raw(session.as_bytes())])
                .delete(&self.marks, &[LINK, Part::Raw(session.as_bytes())]);
            mark(&mut change, &self.marks, session, Ended::Tree);
            change.then(move || table.write().swept(session));
        }
        for session in work.links {
            let table = self.table.clone();
            change
                .delete(&self.marks, &[LINK, Part::Raw(session.as_bytes())])
                .then(move || table.write().unlink(session));
        }
        for session in work.expired {
            match self.read(session).await {
                // Renewed, and memory follows in a moment.
                Ok((record, _)) if record.expires() > now => {}
                Ok((record, version)) => {
                    change.require_version(&self.sessions, &[Part::Raw(session.as_bytes())], version);
                    self.finish(&mut change, session, false, record.end_leases);
                }
                Err(TokenError::NotFound) => self.table.write().finish(session, None, false),
                // It opens nothing any more; whether its leases should end cannot be read, so they do.
                Err(TokenError::Damaged(_) | TokenError::Store(StoreError::Damaged { .. })) => {
                    self.finish(&mut change, session, false, true);
                }
                Err(error) => return Err(error),
            }
        }
        self.sweep_log_ins(&mut change, now, SWEEP_SESSIONS);
        Ok((!change.is_empty()).then_some(change))
    }

    /// The session is over by itself: its record goes; a link stays where what it made must still be reached from its maker; its leases are
    /// marked if they are to end.
    pub(super) fn finish(&self, change: &mut Change, session: SessionId, even_childless: bool, leases: bool) {
        let link = self.table.read().link_needed(session, even_childless);
        change.delete(&self.sessions, &[Part::Raw(session.as_bytes())]);
        if let Some(maker) = link {
            change.put(
                &self.marks,
                &[LINK, Part::Raw(session.as_bytes())],
                Zeroizing::new(maker.as_bytes().to_vec()),
            );
        }
        if leases {
            mark(change, &self.marks, session, Ended::Alone);
        }
        let table = self.table.clone();
        change.then(move || table.write().finish(session, link, leases));
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
        change
            .delete(&self.marks, &[MARK, Part::Raw(session.as_bytes())])
            .then(move || table.write().forget(session));
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
    each(&room.marks, &[LINK], |entry| {
        match (session_of(&entry), entry.record.value.first_chunk()) {
            (Some(session), Some(maker)) => room.table.write().link(session, SessionId::from_bytes(*maker)),
            _ => tracing::error!("a session's link cannot be used"),
        }
    })
    .await?;
    each(&room.marks, &[marks::ENDED], |entry| {
        if let (Some(session), Some(until)) = (session_of(&entry), marks::parse(&entry.record.value)) {
            room.log_ins.write().end(session, until);
        }
    })
    .await?;
    each(&room.marks, &[marks::WATERMARK], |entry| {
        let of = entry.key.first().and_then(OwnedPart::raw_array);
        // A mark that does not read ends more rather than less.
        let at = marks::parse(&entry.record.value).unwrap_or_else(|| room.clock.now());
        if let Some(of) = of {
            room.log_ins.write().watermark(of, at);
        }
    })
    .await?;
    let mut ended = BTreeMap::new();
    each(&room.marks, &[MARK], |entry| {
        if let Some(session) = session_of(&entry) {
            // A mark that does not read ends more rather than less.
            ended.insert(
                session,
                if entry.record.value.as_slice() == b"alone" {
                    Ended::Alone
                } else {
                    Ended::Tree
                },
            );
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
