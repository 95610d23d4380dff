//! Issue: intent, act, activation; nothing is handed out in between. Renew: target first, then the record.

use super::{
    CLAIM_SECS, Counts, Durable, Inner, LeaseError, LeaseRoom, Plan, State, TargetError,
    record::{Held, Lease},
};
use crate::{
    audit::{Outcome, Trail},
    base::{
        format::Format1,
        id::{IdentityId, LeaseId, MountId, SessionId},
        path::Path,
        time::Timestamp,
    },
    failpoint,
    policy::Permit,
    store::{Change, CommitError},
};
use std::{future::Future, time::Duration};

/// What is asked for.
pub struct Ask {
    /// Chosen beforehand: the account's name comes from it.
    pub id: LeaseId,
    /// The mount.
    pub mount: MountId,
    /// Mount path and role name.
    pub role: Path,
    /// Version of the mount's configuration.
    pub config_version: u64,
    /// How to undo.
    pub plan: Plan,
    /// Life until the first renewal, in seconds.
    pub ttl_secs: u64,
    /// Life with all renewals, in seconds.
    pub max_ttl_secs: u64,
    /// No statement of the creator runs longer than this after the intent.
    pub deadline: Duration,
}

/// Indexes of the preconditions: on the lease, on its session, on its mount.
const LEASE: usize = 0;
const SESSION: usize = 1;

impl LeaseRoom {
    /// Makes a credential: durable intent, `create`, durable activation; only then is it returned. If anything fails after
    /// the intent, the credential is withheld and revoked by the intent. Commits by itself, evidence included: on `Ok` the
    /// response record of `trail` is durable, on `Err` the caller records the failure.
    /// # Errors
    /// `Quota`, `SessionEnded`, `Target`, `Commit`.
    pub async fn issue<T, F>(
        &self,
        permit: &Permit,
        trail: &Trail,
        ask: Ask,
        create: impl FnOnce(Durable, Lease) -> F,
    ) -> Result<(Lease, T), LeaseError>
    where
        F: Future<Output = Result<T, TargetError>>,
    {
        let intent = self.intend(permit.identity(), permit.session(), trail, ask).await?;
        failpoint!(self.inner.around.boot, "lease.after-intent");
        let made = create(Durable(()), intent.lease.clone()).await;
        failpoint!(self.inner.around.boot, "lease.after-create");
        let made = match made {
            Ok(made) => made,
            Err(error) => {
                self.abandon(&intent).await;
                return Err(error.into());
            }
        };
        match self.activate(&intent, trail).await {
            Ok(lease) => {
                failpoint!(self.inner.around.boot, "lease.after-activation");
                Counts::add(&self.inner.counts.issued);
                Ok((lease, made))
            }
            Err(error) => {
                Counts::add(&self.inner.counts.withheld);
                self.abandon(&intent).await;
                Err(error)
            }
        }
    }

    /// Tries something that makes an account and drops it again (a configuration test), under an intent as `issue` does. On
    /// success `and_then` joins the commit that forgets the intent. An error says whether the account is known to be gone;
    /// if not, the intent stays and is revoked. Commits by itself, as `issue`.
    /// # Errors
    /// `SessionEnded`, `Target`, `Commit`.
    pub async fn trial<T, F>(
        &self,
        permit: &Permit,
        trail: &Trail,
        ask: Ask,
        act: impl FnOnce(Durable, Lease) -> F,
        and_then: impl FnOnce(&mut Change),
    ) -> Result<T, LeaseError>
    where
        F: Future<Output = Result<T, (TargetError, bool)>>,
    {
        let intent = self.intend(permit.identity(), permit.session(), trail, ask).await?;
        let tried = act(Durable(()), intent.lease.clone()).await;
        let mut change = Change::new();
        self.inner.books.remove(&mut change, &intent);
        match tried {
            Ok(made) => {
                and_then(&mut change);
                self.inner.commit(change, vec![trail.response(&Outcome::ok())]).await?;
                Ok(made)
            }
            Err((error, true)) => {
                self.inner.commit(change, Vec::new()).await?;
                Err(error.into())
            }
            Err((error, false)) => {
                self.abandon(&intent).await;
                Err(error.into())
            }
        }
    }

    /// An account that is there without a lease gets one that is being revoked: it ends as all others do, with proof and for as
    /// long as it takes. On `Ok` the request's record is durable.
    /// # Errors
    /// `Busy` when the lease exists by now, `SessionEnded`, `MountClosed`, `Commit`.
    pub async fn adopt(&self, permit: &Permit, trail: &Trail, ask: Ask) -> Result<(), LeaseError> {
        let (now, session) = (self.inner.time.now(), permit.session());
        let lease = Lease {
            state: State::Revoking,
            activated: true,
            due: now.plus_secs(CLAIM_SECS),
            ..self.draft(permit.identity(), session, ask)
        };
        let mut change = Change::new();
        self.inner.books.insert(&mut change, &lease, None);
        self.inner.require_grounds(&mut change, session, lease.mount);
        match self.inner.commit(change, vec![trail.request()]).await {
            Ok(_) => {
                self.inner.hand_over(lease.mount, lease.id);
                Ok(())
            }
            Err(CommitError::Precondition(LEASE)) => Err(LeaseError::Busy),
            Err(error) => Err(groundless(error)),
        }
    }

    fn draft(&self, identity: IdentityId, session: SessionId, ask: Ask) -> Lease {
        let Ask {
            id,
            mount,
            role,
            config_version,
            plan,
            ttl_secs,
            max_ttl_secs,
            deadline,
        } = ask;
        let created = self.inner.time.now();
        let deadline = Timestamp(
            created
                .0
                .saturating_add(u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX)),
        );
        let max_expires = created.plus_secs(max_ttl_secs);
        Lease {
            format: Format1,
            id,
            mount,
            role,
            config_version,
            plan,
            identity,
            session,
            boot: self.inner.around.boot,
            created,
            expires: created.plus_secs(ttl_secs).min(max_expires),
            max_expires,
            ttl_secs,
            deadline,
            due: deadline,
            state: State::Intent,
            activated: false,
            attempts: 0,
            last_error: None,
        }
    }

    async fn intend(
        &self,
        identity: IdentityId,
        session: SessionId,
        trail: &Trail,
        ask: Ask,
    ) -> Result<Held, LeaseError> {
        let room = self.inner.reserve(identity, ask.mount).await?;
        let lease = self.draft(identity, session, ask);
        let (mount, deadline) = (lease.mount, lease.deadline);
        let mut change = Change::new();
        self.inner.books.insert(&mut change, &lease, Some(room));
        self.inner.require_grounds(&mut change, session, mount);
        let committed = self
            .inner
            .commit(change, vec![trail.request()])
            .await
            .map_err(groundless)?;
        self.inner.wake_by(deadline);
        Ok(Held {
            lease,
            version: committed.version,
        })
    }

    async fn activate(&self, intent: &Held, trail: &Trail) -> Result<Lease, LeaseError> {
        let lease = Lease {
            state: State::Active,
            activated: true,
            due: intent.lease.expires,
            ..intent.lease.clone()
        };
        let mut change = Change::new();
        self.inner.books.update(&mut change, intent, &lease);
        self.inner.require_grounds(&mut change, lease.session, lease.mount);
        let record = trail.response(&Outcome::ok().with_lease(lease.id));
        match self.inner.commit(change, vec![record]).await {
            Ok(_) => {
                self.inner.wake_by(lease.due);
                Ok(lease)
            }
            // `Ended`: the sweep was faster, for the deadline had passed.
            Err(error) => Err(groundless(error)),
        }
    }

    /// What was begun is undone now rather than at its deadline. If even this cannot be written, the sweep finds the
    /// intent at its deadline.
    async fn abandon(&self, intent: &Held) {
        if let Err(error) = self.inner.claim_for_revocation(intent, Vec::new()).await {
            tracing::warn!(lease = %intent.lease.id, %error, "an intent could not be given up at once; the sweep will");
        }
    }

    /// The answer with this lease could not be delivered: it is revoked at once.
    /// # Errors
    /// As for [`LeaseRoom::revoke`].
    pub async fn withdraw(&self, id: LeaseId) -> Result<(), LeaseError> {
        Counts::add(&self.inner.counts.withheld);
        let held = self.inner.books.need(id).await?;
        let record = self
            .inner
            .trail("lease.withdraw", &held.lease.role)
            .response(&Outcome::ok().with_lease(id));
        self.inner
            .claim_for_revocation(&held, vec![record])
            .await
            .map_err(Into::into)
    }

    /// Prolongs a lease to `ttl_secs` from now (0: its own), never beyond its maximum: the target first, then the record.
    /// Commits by itself: on `Ok` the response record is durable.
    /// # Errors
    /// `Unknown`, `Ended`, `AtMaximum`, `Busy`, `Target`, `Commit`.
    pub async fn renew(
        &self,
        _permit: &Permit,
        trail: &Trail,
        id: LeaseId,
        ttl_secs: u64,
    ) -> Result<Lease, LeaseError> {
        let _turn = Turn::take(&self.inner, id)?;
        let held = self.inner.books.need(id).await?;
        let now = self.inner.time.now();
        if held.lease.state != State::Active || held.lease.expires <= now {
            return Err(LeaseError::Ended);
        }
        let ttl_secs = if ttl_secs == 0 { held.lease.ttl_secs } else { ttl_secs };
        let expires = now.plus_secs(ttl_secs).min(held.lease.max_expires);
        // A shorter life is a wish that can be granted; nothing to gain at the maximum is a mistake worth telling.
        if expires == held.lease.expires && expires == held.lease.max_expires {
            return Err(LeaseError::AtMaximum);
        }
        let committed = self.inner.commit(Change::new(), vec![trail.request()]).await?;
        failpoint!(self.inner.around.boot, "lease.renew.after-intent");
        self.targets
            .renew(&Durable::after(&committed), &held.lease, expires)
            .await?;
        failpoint!(self.inner.around.boot, "lease.renew.after-act");
        let lease = Lease {
            expires,
            due: expires,
            ..held.lease.clone()
        };
        let mut change = Change::new();
        self.inner.books.update(&mut change, &held, &lease);
        // Not the session: a lease outlives it unless it was revoked, and then the lease is no longer active.
        self.inner.around.grounds.mount_open(&mut change, lease.mount);
        match self
            .inner
            .commit(change, vec![trail.response(&Outcome::ok().with_lease(id))])
            .await
        {
            Ok(_) => {
                self.inner.wake_by(lease.due);
                Counts::add(&self.inner.counts.renewed);
                Ok(lease)
            }
            Err(CommitError::Precondition(LEASE)) => Err(LeaseError::Ended),
            Err(CommitError::Precondition(_)) => Err(LeaseError::MountClosed),
            Err(error) => Err(LeaseError::Commit(error)),
        }
    }
}

impl Inner {
    fn require_grounds(&self, change: &mut Change, session: SessionId, mount: MountId) {
        self.around.grounds.session_live(change, session);
        self.around.grounds.mount_open(change, mount);
    }

    /// The driver sleeps until something is due, a minute at most; what is due earlier wakes it.
    fn wake_by(&self, due: Timestamp) {
        if due <= self.time.now().plus_secs(super::driver::SLEEP_MAX_SECS) {
            self.wake.notify_one();
        }
    }

    /// To `revoking`, claimed, and straight into its lane.
    pub(super) async fn claim_for_revocation(
        &self,
        held: &Held,
        records: Vec<crate::audit::Encoded>,
    ) -> Result<(), CommitError> {
        let now = self.time.now();
        let mut change = Change::new();
        self.books.turn(&mut change, held, now, now.plus_secs(CLAIM_SECS));
        change.urgent();
        self.commit(change, records).await?;
        self.hand_over(held.lease.mount, held.lease.id);
        Ok(())
    }
}

/// Which of the grounds is gone.
fn groundless(error: CommitError) -> LeaseError {
    match error {
        CommitError::Precondition(LEASE) => LeaseError::Ended,
        CommitError::Precondition(SESSION) => LeaseError::SessionEnded,
        CommitError::Precondition(_) => LeaseError::MountClosed,
        other => LeaseError::Commit(other),
    }
}

/// One renewal of a lease at a time: two could leave the target with the shorter limit and the record with the longer.
struct Turn<'r>(&'r Inner, LeaseId);

impl<'r> Turn<'r> {
    fn take(inner: &'r Inner, id: LeaseId) -> Result<Self, LeaseError> {
        if inner.renewing.lock().insert(id) {
            Ok(Self(inner, id))
        } else {
            Err(LeaseError::Busy)
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.renewing.lock().remove(&self.1);
    }
}
