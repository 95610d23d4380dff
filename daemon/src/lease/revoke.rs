//! Revocation on demand: one lease, or a scope (mount, role, session, identity, all). A scope is one durable marker, then a walk
//! that turns its leases to `revoking`; after a crash the walk begins again.

use super::{
    CLAIM_SECS, Inner, LeaseError, LeaseRoom, State,
    record::{Books, Held},
};
use crate::{
    audit::{Outcome, Trail},
    base::{
        format::Format1,
        id::{IdentityId, LeaseId, MountId, OpId, SessionId},
        time::Timestamp,
    },
    policy::Permit,
    store::{Change, CommitError, Cursor, Part, StoreError},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    collections::HashSet,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::sync::Notify;
use zeroize::Zeroizing;

/// Leases turned in one commit of a walk.
const WALK_PAGE: usize = 256;
/// Leases one call may wait for; for more it waits until these are gone.
const WATCHED_MAX: usize = 100_000;
/// Key of the markers in the system table.
const MARKERS: &[u8] = b"lease-scope";

/// A set of leases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Every lease there is.
    All,
    /// All of a mount.
    Mount(MountId),
    /// All of a role.
    Role(MountId, String),
    /// All of a log-in.
    Session(SessionId),
    /// All of an identity.
    Identity(IdentityId),
}

/// What a revocation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revoked {
    /// Leases that are to be revoked, those included that were already.
    pub queued: u64,
    /// Of these, proven gone within the time waited.
    pub gone: u64,
}

/// A scope whose walk is not finished.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Marker {
    format: Format1,
    #[serde(skip, default = "nil")]
    id: OpId,
    scope: Scope,
    /// Leases made later are not meant.
    until: Timestamp,
}

fn nil() -> OpId {
    OpId::from_bytes([0; 16])
}

impl Marker {
    pub async fn load_all(books: &Books) -> Result<Vec<Self>, StoreError> {
        let mut markers = Vec::new();
        let mut after = None;
        loop {
            let page = books
                .system
                .scan(&[Part::Raw(MARKERS)], after.as_ref(), WALK_PAGE)
                .await?;
            for entry in page.entries {
                let id = entry
                    .key
                    .first()
                    .and_then(|part| part.raw_array())
                    .map(OpId::from_bytes);
                match (id, serde_json::from_slice::<Self>(&entry.record.value)) {
                    (Some(id), Ok(marker)) => markers.push(Self { id, ..marker }),
                    _ => tracing::error!("a marker of a revocation is damaged; revoke again what it was for"),
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(markers),
            }
        }
    }

    fn put(&self, books: &Books, change: &mut Change) {
        let value = Zeroizing::new(serde_json::to_vec(self).unwrap_or_default());
        change.put(
            &books.system,
            &[Part::Raw(MARKERS), Part::Raw(self.id.as_bytes())],
            value,
        );
    }
}

impl LeaseRoom {
    /// Revokes one lease. With `wait` it waits that long for the proof. Commits by itself: on `Ok` the response record of
    /// `trail` is durable.
    /// # Errors
    /// `Unknown`, `Damaged`, `Commit`.
    pub async fn revoke(
        &self,
        _permit: &Permit,
        trail: &Trail,
        id: LeaseId,
        wait: Option<Duration>,
    ) -> Result<Revoked, LeaseError> {
        let held = self.inner.books.need(id).await?;
        let watcher = wait.map(|_| self.inner.watch(std::iter::once(id)));
        let outcome = Outcome::ok().with_lease(id).with_count(1);
        let record = if wait.is_some() {
            trail.request()
        } else {
            trail.response(&outcome)
        };
        self.inner.turn_one(held, record).await?;
        let gone = self.wait(watcher, wait).await;
        if wait.is_some() {
            self.inner.commit(Change::new(), vec![trail.response(&outcome)]).await?;
        }
        Ok(Revoked { queued: 1, gone })
    }

    /// Revokes all that is in `scope` now. Returns when all of it is `revoking`, or with `wait` when it is proven gone or
    /// that long has passed. Commits by itself, as [`LeaseRoom::revoke`].
    /// # Errors
    /// `Commit`, `Store`. What was begun goes on.
    pub async fn revoke_scope(
        &self,
        _permit: &Permit,
        trail: &Trail,
        scope: Scope,
        wait: Option<Duration>,
    ) -> Result<Revoked, LeaseError> {
        let marker = self.marker(scope);
        let mut change = Change::new();
        marker.put(&self.inner.books, &mut change);
        change.urgent();
        self.inner.commit(change, vec![trail.request()]).await?;
        let watcher = wait.map(|_| self.inner.watch(std::iter::empty()));
        let queued = self.inner.walk(&marker, watcher.as_deref()).await?;
        let gone = self.wait(watcher, wait).await;
        self.inner
            .commit(Change::new(), vec![trail.response(&Outcome::ok().with_count(queued))])
            .await?;
        Ok(Revoked { queued, gone })
    }

    /// Adds to another room's change that all leases in `scope` end: once the change is durable, they do.
    pub fn end_with(&self, change: &mut Change, scope: Scope) {
        let marker = self.marker(scope);
        let inner = Arc::clone(&self.inner);
        marker.put(&self.inner.books, change);
        change.then(move || {
            inner.scopes.lock().push_back(marker);
            inner.wake.notify_one();
        });
    }

    fn marker(&self, scope: Scope) -> Marker {
        Marker {
            format: Format1,
            id: OpId::random(&*self.inner.around.random),
            scope,
            until: self.inner.time.now(),
        }
    }

    async fn wait(&self, watcher: Option<Arc<Watcher>>, wait: Option<Duration>) -> u64 {
        let (Some(watcher), Some(wait)) = (watcher, wait) else {
            return 0;
        };
        // What is not proven in time goes on; the caller learns how far it came.
        let _ = tokio::time::timeout(wait, watcher.done()).await;
        watcher.gone()
    }
}

impl Inner {
    /// Ids of one page of `scope`.
    pub(super) async fn page(
        &self,
        scope: Option<&Scope>,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<(Vec<LeaseId>, Option<Cursor>), StoreError> {
        let books = &self.books;
        let page = match scope {
            None | Some(Scope::All) => books.leases.scan(&[], after, limit).await?,
            Some(Scope::Mount(mount)) => books.by_role.scan(&[Part::Raw(mount.as_bytes())], after, limit).await?,
            Some(Scope::Role(mount, role)) => {
                books
                    .by_role
                    .scan(&[Part::Raw(mount.as_bytes()), Part::Name(role)], after, limit)
                    .await?
            }
            Some(Scope::Session(session)) => {
                books
                    .by_session
                    .scan(&[Part::Raw(session.as_bytes())], after, limit)
                    .await?
            }
            Some(Scope::Identity(identity)) => {
                books
                    .by_identity
                    .scan(&[Part::Raw(identity.as_bytes())], after, limit)
                    .await?
            }
        };
        let id = |entry: &crate::store::Entry| entry.key.last()?.raw_array().map(LeaseId::from_bytes);
        Ok((page.entries.iter().filter_map(id).collect(), page.next))
    }

    /// One lease to `revoking`, whatever its state; tried again when somebody else changed it meanwhile.
    async fn turn_one(&self, mut held: Held, record: crate::audit::Encoded) -> Result<(), LeaseError> {
        loop {
            match self.claim_for_revocation(&held, vec![record.clone()]).await {
                Ok(()) => return Ok(()),
                // Each round needs another change of this one lease in between; renewals and sweeps are few.
                Err(CommitError::Precondition(_)) => held = self.books.need(held.lease.id).await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Turns the leases of a marker to `revoking`, a page a commit, and forgets the marker at the end.
    pub(super) async fn walk(&self, marker: &Marker, watcher: Option<&Watcher>) -> Result<u64, LeaseError> {
        let (mut queued, mut after) = (0, None);
        loop {
            let (ids, next) = self.page(Some(&marker.scope), after.as_ref(), WALK_PAGE).await?;
            if let Some(watcher) = watcher {
                watcher.add(ids.iter().copied());
            }
            queued += self.turn_page(&ids, marker.until, watcher).await?;
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        let key = [Part::Raw(MARKERS), Part::Raw(marker.id.as_bytes())];
        let mut change = Change::new();
        change.delete(&self.books.system, &key);
        self.commit(change, Vec::new()).await?;
        Ok(queued)
    }

    async fn turn_page(&self, ids: &[LeaseId], until: Timestamp, watcher: Option<&Watcher>) -> Result<u64, LeaseError> {
        loop {
            let (mut turned, mut counted, mut change) = (Vec::new(), 0, Change::new());
            change.urgent();
            let now = self.time.now();
            for &id in ids {
                let held = match self.books.get(id).await {
                    Ok(Some(held)) if held.lease.created <= until => held,
                    Ok(Some(_)) => {
                        watcher.inspect(|watcher| watcher.forget(id));
                        continue;
                    }
                    Ok(None) => {
                        self.tell_gone(id);
                        continue;
                    }
                    Err(StoreError::Damaged { .. }) => {
                        self.quarantine(id);
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                };
                counted += 1;
                if held.lease.state != State::Revoking {
                    self.books.turn(&mut change, &held, now, now.plus_secs(CLAIM_SECS));
                    turned.push((held.lease.mount, id));
                }
            }
            if turned.is_empty() {
                return Ok(counted);
            }
            match self.commit(change, Vec::new()).await {
                Ok(_) => {
                    turned.into_iter().for_each(|(mount, id)| self.hand_over(mount, id));
                    return Ok(counted);
                }
                // One of them changed meanwhile: read all again. Those that are gone drop out.
                Err(CommitError::Precondition(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn watch(&self, ids: impl Iterator<Item = LeaseId>) -> Arc<Watcher> {
        let watcher = Arc::new(Watcher::default());
        watcher.add(ids);
        let mut watchers = self.watchers.lock();
        watchers.retain(|known| known.strong_count() > 0);
        watchers.push(Arc::downgrade(&watcher));
        watcher
    }

    /// A lease is gone: whoever waits for it is told.
    pub(super) fn tell_gone(&self, id: LeaseId) {
        self.watchers
            .lock()
            .iter()
            .filter_map(Weak::upgrade)
            .for_each(|watcher| watcher.saw(id));
    }
}

/// Who waits for some leases to be gone.
#[derive(Default)]
pub(super) struct Watcher {
    state: Mutex<Watched>,
    changed: Notify,
}

#[derive(Default)]
struct Watched {
    pending: HashSet<LeaseId>,
    gone: HashSet<LeaseId>,
}

impl Watcher {
    fn add(&self, ids: impl Iterator<Item = LeaseId>) {
        let mut state = self.state.lock();
        for id in ids {
            if state.pending.len() + state.gone.len() < WATCHED_MAX && !state.gone.contains(&id) {
                state.pending.insert(id);
            }
        }
    }

    fn saw(&self, id: LeaseId) {
        let mut state = self.state.lock();
        if state.pending.remove(&id) {
            state.gone.insert(id);
            self.changed.notify_one();
        }
    }

    fn forget(&self, id: LeaseId) {
        self.state.lock().pending.remove(&id);
    }

    fn gone(&self) -> u64 {
        self.state.lock().gone.len() as u64
    }

    async fn done(&self) {
        loop {
            let changed = self.changed.notified();
            if self.state.lock().pending.is_empty() {
                return;
            }
            changed.await;
        }
    }
}
