//! Every live token in memory: what `identify` looks at on every request. It follows the store's commits, in their order.

use super::record::{IdentityRecord, LogInRecord, Mac, SessionRecord};
use crate::{
    base::{
        id::{Accessor, IdentityId, SessionId},
        time::Timestamp,
    },
    policy::{Caller, Identity, LogIn, Standing},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
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
    /// Sessions that are over, between one that lives and those they made: so that revoking the former still reaches the latter.
    links: HashMap<SessionId, Link>,
    identities: HashMap<IdentityId, Arc<Identity>>,
    names: BTreeMap<String, IdentityId>,
    /// How many tokens speak for whom.
    held: HashMap<IdentityId, usize>,
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
    /// Whom its tokens speak for; `None` when that record is damaged.
    identity: Option<Arc<Identity>>,
    made: BTreeSet<SessionId>,
}

struct Link {
    maker: SessionId,
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

    /// Whom a session's tokens speak for.
    pub fn whose(&self, session: SessionId) -> Option<&Arc<Identity>> {
        self.sessions.get(&session)?.identity.as_ref()
    }

    /// Whether the session is stored and live.
    pub fn has(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    /// Sessions of log-ins for which `ended` holds, at most `limit`.
    pub fn log_ins(&self, limit: usize, ended: impl Fn(SessionId, &SessionRecord) -> bool) -> Vec<SessionId> {
        self.sessions
            .iter()
            .filter(|(id, session)| session.record.log_in.is_some() && ended(**id, &session.record))
            .map(|(id, _)| *id)
            .take(limit)
            .collect()
    }

    /// An identity by its name.
    pub fn named(&self, name: &str) -> Option<&Arc<Identity>> {
        self.identities.get(self.names.get(name)?)
    }

    /// Identities with their tokens, in order of name, after `after`, at most `limit`.
    pub fn by_name(&self, after: Option<&str>, limit: usize) -> Vec<(Arc<Identity>, usize)> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let names = self.names.range::<str, _>((after, Bound::Unbounded));
        let known = names.filter_map(|(_, id)| Some((self.identities.get(id)?.clone(), self.tokens_of(*id))));
        known.take(limit).collect()
    }

    /// How many tokens speak for an identity, or for a subject of a trust whose log-ins are stored.
    pub fn tokens_of(&self, identity: IdentityId) -> usize {
        self.held.get(&identity).copied().unwrap_or_default()
    }

    /// An identity was made or changed.
    pub fn learn(&mut self, record: &IdentityRecord) -> Result<(), PrincipalError> {
        let principal = principal(record)?;
        match self.identities.get(&record.id) {
            Some(known) => known.turns_into(principal),
            None => {
                self.identities
                    .insert(record.id, Arc::new(Identity::new(record.id, principal)));
                self.names.insert(record.name.clone(), record.id);
            }
        }
        Ok(())
    }

    /// The session's record is now this.
    pub fn put(&mut self, id: SessionId, record: SessionRecord) {
        // Prepared before a revocation further up and committed after it: the session is over already, or never begins.
        if self.ending.contains(&id) {
            return;
        }
        if record.made_by.is_some_and(|maker| self.ending.contains(&maker)) {
            self.ending.insert(id);
            return;
        }
        let made = self.take(id).map(|former| former.made).unwrap_or_default();
        if let Some(siblings) = record.made_by.and_then(|maker| self.made_by(maker)) {
            siblings.insert(id);
        }
        let identity = match &record.log_in {
            None => self.identities.get(&record.identity).cloned(),
            Some(log_in) => logged_in(record.identity, log_in),
        };
        *self.held.entry(record.identity).or_default() += record.tokens.len();
        for (accessor, token) in &record.tokens {
            self.accessors.insert(*accessor, id);
            // Without its identity (a damaged record) a token opens nothing.
            if let Some(identity) = &identity {
                let standing = Standing {
                    session: id,
                    accessor: *accessor,
                    purpose: record.purpose,
                    issued: token.issued,
                    proved: record.created,
                    expires: token.expires,
                    max_expires: token.max_expires,
                    log_in: record.log_in.as_ref().map(|log_in| LogIn {
                        trust: log_in.trust,
                        sealed: log_in.sealed,
                        end_leases: record.end_leases,
                        bound: log_in.bound,
                    }),
                };
                let caller = Arc::new(Caller::new(identity.clone(), standing));
                self.by_mac.insert(
                    key(&token.mac),
                    Entry {
                        mac: token.mac,
                        epoch: token.epoch,
                        caller,
                    },
                );
            }
        }
        self.due.insert((record.expires(), id));
        self.sessions.insert(id, Session { record, identity, made });
    }

    /// A link as it is stored.
    pub fn link(&mut self, id: SessionId, maker: SessionId) {
        self.links.insert(
            id,
            Link {
                maker,
                made: BTreeSet::new(),
            },
        );
    }

    /// What a session or a link made.
    fn made_by(&mut self, maker: SessionId) -> Option<&mut BTreeSet<SessionId>> {
        match self.sessions.get_mut(&maker) {
            Some(session) => Some(&mut session.made),
            None => self.links.get_mut(&maker).map(|link| &mut link.made),
        }
    }

    fn knows(&self, id: SessionId) -> bool {
        self.sessions.contains_key(&id) || self.links.contains_key(&id)
    }

    /// The maker of a session that is to end, where a link must remain: when the session made others (`even_childless`: or may be about to).
    pub fn link_needed(&self, id: SessionId, even_childless: bool) -> Option<SessionId> {
        let session = self.sessions.get(&id)?;
        session
            .record
            .made_by
            .filter(|maker| self.knows(*maker) && (even_childless || !session.made.is_empty()))
    }

    /// The session is over, by itself. `link`: its maker, when a link was stored; `leases`: whether they are marked to be revoked.
    pub fn finish(&mut self, id: SessionId, link: Option<SessionId>, leases: bool) {
        let Some(former) = self.take(id) else { return };
        match link {
            Some(maker) => drop(self.links.insert(
                id,
                Link {
                    maker,
                    made: former.made,
                },
            )),
            None => self.forget_made(former.record.made_by, id),
        }
        if leases {
            self.ended.insert(id, Ended::Alone);
        }
    }

    fn forget_made(&mut self, maker: Option<SessionId>, id: SessionId) {
        if let Some(siblings) = maker.and_then(|maker| self.made_by(maker)) {
            siblings.remove(&id);
        }
    }

    fn take(&mut self, id: SessionId) -> Option<Session> {
        let former = self.sessions.remove(&id)?;
        for (accessor, token) in &former.record.tokens {
            self.accessors.remove(accessor);
            self.by_mac.remove(&key(&token.mac));
        }
        self.due.remove(&(former.record.expires(), id));
        if let Some(held) = self.held.get_mut(&former.record.identity) {
            *held = held.saturating_sub(former.record.tokens.len());
            if *held == 0 {
                self.held.remove(&former.record.identity);
            }
        }
        Some(former)
    }

    /// The session was revoked: its tokens open nothing from now on, nor those of any session it made.
    pub fn revoke(&mut self, id: SessionId) {
        self.ended.insert(id, Ended::Tree);
        if let Some(former) = self.take(id) {
            self.forget_made(former.record.made_by, id);
            self.end_made(former.made);
        }
    }

    fn end_made(&mut self, made: BTreeSet<SessionId>) {
        let mut open: Vec<SessionId> = made.into_iter().collect();
        while let Some(next) = open.pop() {
            let made = self
                .take(next)
                .map(|session| session.made)
                .or_else(|| self.links.remove(&next).map(|link| link.made));
            if let Some(made) = made {
                self.ending.insert(next);
                open.extend(made);
            }
        }
    }

    /// After reading all records: who made whom, and what a revocation before a crash had ended.
    pub fn settle(&mut self, ended: BTreeMap<SessionId, Ended>) {
        let sessions = self
            .sessions
            .iter()
            .filter_map(|(id, session)| Some((session.record.made_by?, *id)));
        let made: Vec<_> = sessions
            .chain(self.links.iter().map(|(id, link)| (link.maker, *id)))
            .collect();
        let mut dead = BTreeSet::new();
        for (maker, id) in made {
            if ended.get(&maker) == Some(&Ended::Tree) {
                dead.insert(id);
            } else if let Some(siblings) = self.made_by(maker) {
                siblings.insert(id);
            }
        }
        self.ended = ended;
        self.end_made(dead);
    }

    /// What the sweep removes next, at most `limit` of each.
    pub fn sweepable(&self, now: Timestamp, limit: usize) -> Sweepable {
        let stale = |(_, link): &(&SessionId, &Link)| link.made.is_empty() || !self.knows(link.maker);
        Sweepable {
            ending: self.ending.iter().take(limit).copied().collect(),
            expired: self
                .due
                .iter()
                .take_while(|(at, _)| *at <= now)
                .take(limit)
                .map(|(_, id)| *id)
                .collect(),
            links: self.links.iter().filter(stale).take(limit).map(|(id, _)| *id).collect(),
        }
    }

    /// The records of a session that ended with its maker are gone; its leases are marked. What it made ends too: that is why the mark
    /// says so until the last of them is swept.
    pub fn swept(&mut self, id: SessionId) {
        self.ending.remove(&id);
        self.ended.insert(id, Ended::Tree);
    }

    /// A link is gone: nothing depends on it.
    pub fn unlink(&mut self, id: SessionId) {
        if let Some(link) = self.links.remove(&id) {
            self.forget_made(Some(link.maker), id);
        }
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
        let sessions = self.sessions_under(id);
        let tokens = |id| self.sessions.get(id).map_or(0, |session| session.record.tokens.len());
        sessions.iter().map(tokens).sum()
    }

    /// The session, and every live one that it made, directly or not.
    pub fn sessions_under(&self, id: SessionId) -> Vec<SessionId> {
        let (mut under, mut open) = (Vec::new(), vec![id]);
        while let Some(id) = open.pop() {
            if let Some(session) = self.sessions.get(&id) {
                under.push(id);
                open.extend(&session.made);
            } else if let Some(link) = self.links.get(&id) {
                open.extend(&link.made);
            }
        }
        under
    }
}

/// Work for the sweep.
pub(super) struct Sweepable {
    /// Sessions (and links) that ended with their maker.
    pub ending: Vec<SessionId>,
    /// Sessions whose tokens have all expired.
    pub expired: Vec<SessionId>,
    /// Links that nothing depends on.
    pub links: Vec<SessionId>,
}

fn logged_in(id: IdentityId, log_in: &LogInRecord) -> Option<Arc<Identity>> {
    Principal::new(
        *id.as_bytes(),
        &log_in.name,
        log_in.groups.clone(),
        log_in.attributes.clone(),
    )
    .ok()
    .map(|principal| Arc::new(Identity::new(id, principal)))
}

/// An identity as policies see it.
pub(super) fn principal(record: &IdentityRecord) -> Result<Principal, PrincipalError> {
    Principal::new(
        *record.id.as_bytes(),
        &record.name,
        record.groups.clone(),
        record.attributes.clone(),
    )
}
