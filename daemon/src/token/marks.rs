//! What ends a log-in's token before its time, for tokens that no record speaks of: sessions that were revoked, and watermarks of
//! identities and trusts (whatever was issued at or before one is over). Stored, bounded, in memory; a row goes when all it ends has
//! expired by itself.

use super::{TokenError, TokenRoom};
use crate::{
    base::{
        id::{IdentityId, SessionId, TrustId},
        limits::TOKEN_TTL_MAX_SECS,
        time::Timestamp,
    },
    policy::Caller,
    store::{Change, Part},
};
use std::collections::HashMap;
use zeroize::Zeroizing;

/// Sessions ended one by one at a time. Past it the identity's watermark is moved instead.
pub(super) const ENDED_MAX: usize = if cfg!(test) { 8 } else { 1 << 17 };
/// Watermarks at a time.
const WATERMARKS_MAX: usize = 1 << 14;
/// A log-in session that was revoked, and when its row may go.
pub(super) const ENDED: Part<'static> = Part::Raw(b"login-ended");
/// The watermark of an identity or a trust.
pub(super) const WATERMARK: Part<'static> = Part::Raw(b"login-watermark");

/// In memory.
#[derive(Default)]
pub(super) struct Marks {
    sessions: HashMap<SessionId, Timestamp>,
    watermarks: HashMap<[u8; 16], Timestamp>,
    /// Stored sessions may be over by a watermark: the sweep looks.
    pub recheck: bool,
}

impl Marks {
    pub fn end(&mut self, session: SessionId, until: Timestamp) {
        self.sessions.insert(session, until);
    }
    fn forget_session(&mut self, session: SessionId) {
        self.sessions.remove(&session);
    }
    fn forget_watermark(&mut self, of: [u8; 16]) {
        self.watermarks.remove(&of);
    }
    pub fn watermark(&mut self, of: [u8; 16], at: Timestamp) {
        let mark = self.watermarks.entry(of).or_default();
        *mark = at.max(*mark);
        self.recheck = true;
    }
    /// Whether a token of these was ended.
    pub fn ended(&self, session: SessionId, identity: IdentityId, trust: TrustId, issued: Timestamp) -> bool {
        self.sessions.contains_key(&session)
            || [identity.as_bytes(), trust.as_bytes()]
                .into_iter()
                .any(|of| self.watermarks.get(of).is_some_and(|mark| issued <= *mark))
    }
    /// Rows that end nothing any more, at most `limit` of each kind.
    fn stale(&self, now: Timestamp, limit: usize) -> (Vec<SessionId>, Vec<[u8; 16]>) {
        let sessions = self.sessions.iter().filter(|(_, until)| **until <= now);
        let marks = self
            .watermarks
            .iter()
            .filter(|(_, at)| at.plus_secs(TOKEN_TTL_MAX_SECS) <= now);
        (
            sessions.map(|(id, _)| *id).take(limit).collect(),
            marks.map(|(of, _)| *of).take(limit).collect(),
        )
    }
}

impl TokenRoom {
    /// Whether the caller's log-in was ended.
    pub(super) fn log_in_ended(&self, caller: &Caller) -> bool {
        caller.log_in().is_some_and(|log_in| {
            let identity = caller.identity().id();
            self.log_ins
                .read()
                .ended(caller.session(), identity, log_in.trust, caller.issued())
        })
    }

    /// Ends one sealed session. `identity`: whose, when it is known; its watermark is moved when there is no room for another session.
    pub(super) fn end_sealed(
        &self,
        change: &mut Change,
        session: SessionId,
        identity: Option<IdentityId>,
        until: Timestamp,
    ) -> Result<(), TokenError> {
        if self.log_ins.read().sessions.len() >= ENDED_MAX {
            let identity = identity.ok_or(TokenError::Full("ended log-ins"))?;
            return self.move_watermark(change, *identity.as_bytes());
        }
        let marks = self.log_ins.clone();
        change
            .urgent()
            .put(
                &self.marks,
                &[ENDED, Part::Raw(session.as_bytes())],
                Zeroizing::new(until.0.to_be_bytes().to_vec()),
            )
            .then(move || marks.write().end(session, until));
        Ok(())
    }

    /// Ends every token of a trust that was issued until now.
    /// # Errors
    /// `Full`.
    pub fn end_trust(&self, trust: TrustId) -> Result<Change, TokenError> {
        let mut change = Change::new();
        self.move_watermark(&mut change, *trust.as_bytes())?;
        Ok(change)
    }

    fn move_watermark(&self, change: &mut Change, of: [u8; 16]) -> Result<(), TokenError> {
        let marks = self.log_ins.clone();
        {
            let known = marks.read();
            if known.watermarks.len() >= WATERMARKS_MAX && !known.watermarks.contains_key(&of) {
                return Err(TokenError::Full("watermarks"));
            }
        }
        let at = self.clock.now();
        change
            .urgent()
            .put(
                &self.marks,
                &[WATERMARK, Part::Raw(&of)],
                Zeroizing::new(at.0.to_be_bytes().to_vec()),
            )
            .then(move || marks.write().watermark(of, at));
        Ok(())
    }

    /// Removes rows that end nothing any more, and ends stored sessions that a watermark has ended.
    pub(super) fn sweep_log_ins(&self, change: &mut Change, now: Timestamp, limit: usize) {
        let (sessions, watermarks) = self.log_ins.read().stale(now, limit);
        for session in sessions {
            let marks = self.log_ins.clone();
            change
                .delete(&self.marks, &[ENDED, Part::Raw(session.as_bytes())])
                .then(move || marks.write().forget_session(session));
        }
        for of in watermarks {
            let marks = self.log_ins.clone();
            change
                .delete(&self.marks, &[WATERMARK, Part::Raw(&of)])
                .then(move || marks.write().forget_watermark(of));
        }
        if !std::mem::take(&mut self.log_ins.write().recheck) {
            return;
        }
        let marks = self.log_ins.read();
        let over = self.table.read().log_ins(limit, |id, record| {
            record
                .log_in
                .as_ref()
                .is_some_and(|log_in| marks.ended(id, record.identity, log_in.trust, record.created))
        });
        drop(marks);
        // There may be more than one round takes.
        self.log_ins.write().recheck = !over.is_empty();
        for session in over {
            self.end_whole(change, session);
        }
    }
}

/// A row as it is stored.
pub(super) fn parse(value: &[u8]) -> Option<Timestamp> {
    value.try_into().ok().map(u64::from_be_bytes).map(Timestamp)
}
