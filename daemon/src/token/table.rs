//! Every live token in memory: what `identify` looks at on every request. It follows the store's commits, in their order.

use super::record::{IdentityRecord, Mac, SessionRecord};
use crate::{
    base::{
        id::{Accessor, IdentityId, SessionId},
        time::Timestamp,
    },
    policy::{Caller, Identity, Standing},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};
use strongroom_policy::{Principal, PrincipalError};
use subtle::ConstantTimeEq;

/// All of it, behind one lock: readers share, the commit thread writes for a moment.
#[derive(Default)]
pub(super) struct Table {
    /// By the first half of the keyed hash, which nobody can choose.
    by_mac: HashMap<u128, Entry>,
    accessors: HashMap<Accessor, SessionId>,
    sessions: HashMap<SessionId, Session>,
    identities: HashMap<IdentityId, Arc<Identity>>,
    names: HashMap<String, IdentityId>,
    /// When each session's last token ends.
    due: BTreeSet<(Timestamp, SessionId)>,
    /// Sessions that ended with the one that made them; their records are still to be removed.
    ending: BTreeSet<SessionId>,
    /// Sessions whose leases are to be revoked: marked in the store until the lease room has done so.
    ended: BTreeMap<SessionId, Ended>,
}

struct Entry {
    mac: Mac,
    epoch: u32,
    caller: Arc<Caller>,
}

struct Session {
    record: SessionRecord,
    made: BTreeSet<SessionId>,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// By itself: its leases end, what it made does not.
    Alone,
    /// Revoked: all it made ends too.
    Tree,
}

fn key(mac: &Mac) -> u128 {
    mac.0.first_chunk().map_or(0, |half| u128::from_ne_bytes(*half))
}

impl Table {
    /// Whose token this is, if it is one. The whole hash is compared in constant time.
    pub fn find(&self, mac: &Mac, epoch: u32) -> Option<Arc<Caller>> {
        let entry = self.by_mac.get(&key(mac))?;
        let same = bool::from(entry.mac.0.ct_eq(&mac.0)) && entry.epoch == epoch;
        same.then(|| entry.caller.clone())
    }

    /// Live tokens, and those that wait for the sweep.
    pub fn tokens(&self) -> usize {
        self.accessors.len()
    }

    /// Identities.
    pub fn identities(&self) -> usize {
        self.identities.len()
    }

    /// A token's session.
    pub fn session_of(&self, accessor: Accessor) -> Option<(SessionId, &SessionRecord)> {
        let id = *self.accessors.get(&accessor)?;
        self.sessions.get(&id).map(|session| (id, &session.record))
    }

    /// An identity.
    pub fn identity(&self, id: IdentityId) -> Option<&Arc<Identity>> {
        self.identities.get(&id)
    }

    /// An identity by its name.
    pub fn named(&self, name: &str) -> Option<&Arc<Identity>> {
        self.identities.get(self.names.get(name)?)
    }

    /// An identity was made or changed.
    pub fn learn(&mut self, record: &IdentityRecord) -> Result<(), PrincipalError> {
        let principal = principal(record)?;
        match self.identities.get(&record.id) {
            Some(known) => known.turns_into(principal),
            None => {
                self.identities.insert(record.id, Arc::new(Identity::new(record.id, principal)));
                self.names.insert(record.name.clone(), record.id);
            }
        }
        Ok(())
    }

    /// The session's record is now this. Tokens that were there keep their callers.
    pub fn put(&mut self, id: SessionId, record: SessionRecord) {
        let made = match self.take(id) {
            Some(former) => former.made,
            // When records are read, what a session made may come before it.
            None => BTreeSet::new(),
        };
        if let Some(maker) = record.made_by.and_then(|maker| self.sessions.get_mut(&maker)) {
            maker.made.insert(id);
        }
        for (accessor, token) in &record.tokens {
            self.accessors.insert(*accessor, id);
            // Without its identity (a damaged record) a token opens nothing.
            if let Some(identity) = self.identities.get(&record.identity) {
                let standing = Standing {
                    session: id,
                    accessor: *accessor,
                    purpose: record.purpose,
                    issued: token.issued,
                    expires: token.expires,
                    max_expires: token.max_expires,
                };
                let caller = Arc::new(Caller::new(identity.clone(), standing));
                self.by_mac.insert(key(&token.mac), Entry { mac: token.mac, epoch: token.epoch, caller });
            }
        }
        self.due.insert((record.expires(), id));
        self.sessions.insert(id, Session { record, made });
    }

    /// The session is no more.
    pub fn remove(&mut self, id: SessionId) {
        if let Some(former) = self.take(id)
            && let Some(maker) = former.record.made_by.and_then(|maker| self.sessions.get_mut(&maker))
        {
            maker.made.remove(&id);
        }
    }

    fn take(&mut self, id: SessionId) -> Option<Session> {
        let former = self.sessions.remove(&id)?;
        for (accessor, token) in &former.record.tokens {
            self.accessors.remove(accessor);
            self.by_mac.remove(&key(&token.mac));
        }
        self.due.remove(&(former.record.expires(), id));
        Some(former)
    }

    /// The session ended: its tokens open nothing from now on, nor, with [`Ended::Tree`], those of any session it made.
    pub fn end(&mut self, id: SessionId, how: Ended) {
        let made = self.sessions.get(&id).map(|session| session.made.clone()).unwrap_or_default();
        self.remove(id);
        self.ended.insert(id, how);
        if how == Ended::Tree {
            self.end_made(made);
        }
    }

    fn end_made(&mut self, made: BTreeSet<SessionId>) {
        let mut open: Vec<SessionId> = made.into_iter().collect();
        while let Some(next) = open.pop() {
            if let Some(session) = self.take(next) {
                self.ending.insert(next);
                open.extend(session.made);
            }
        }
    }

    /// After reading all records: who made whom, and what a revocation before a crash had ended.
    pub fn settle(&mut self, ended: BTreeMap<SessionId, Ended>) {
        let made: Vec<(SessionId, SessionId)> =
            self.sessions.iter().filter_map(|(id, session)| Some((session.record.made_by?, *id))).collect();
        let mut dead = BTreeSet::new();
        for (maker, id) in made {
            if ended.get(&maker) == Some(&Ended::Tree) {
                dead.insert(id);
            } else if let Some(maker) = self.sessions.get_mut(&maker) {
                maker.made.insert(id);
            }
        }
        self.ended = ended;
        self.end_made(dead);
    }

    /// Sessions whose records the sweep removes next, at most `limit`: those that end with their maker, then those that have expired.
    pub fn sweepable(&self, now: Timestamp, limit: usize) -> (Vec<SessionId>, Vec<SessionId>) {
        let ending: Vec<_> = self.ending.iter().take(limit).copied().collect();
        let expired = self.due.iter().take_while(|(at, _)| *at <= now).take(limit - ending.len()).map(|(_, id)| *id).collect();
        (ending, expired)
    }

    /// The record of a session that ended with its maker is gone; its leases are marked.
    pub fn swept(&mut self, id: SessionId) {
        self.ending.remove(&id);
        self.ended.insert(id, Ended::Alone);
    }

    /// Sessions whose leases are to be revoked, at most `limit`.
    pub fn ended(&self, limit: usize) -> Vec<SessionId> {
        self.ended.keys().take(limit).copied().collect()
    }

    /// Whether the mark of `id` may go: not while records remain of what it made.
    pub fn may_settle(&self, id: SessionId) -> bool {
        match self.ended.get(&id) {
            Some(Ended::Alone) => true,
            Some(Ended::Tree) => self.ending.is_empty(),
            None => false,
        }
    }

    /// The mark is gone.
    pub fn forget(&mut self, id: SessionId) {
        self.ended.remove(&id);
    }

    /// Tokens of the session and of all it made.
    pub fn tokens_under(&self, id: SessionId) -> usize {
        let mut count = 0;
        let mut open = vec![id];
        while let Some(session) = open.pop().and_then(|id| self.sessions.get(&id)) {
            count += session.record.tokens.len();
            open.extend(&session.made);
        }
        count
    }
}

/// An identity as policies see it.
pub(super) fn principal(record: &IdentityRecord) -> Result<Principal, PrincipalError> {
    Principal::new(*record.id.as_bytes(), &record.name, record.groups.clone(), record.attributes.clone())
}
