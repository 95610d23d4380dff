//! The one task that keeps the room's promises: it sweeps what is due, walks scopes, and runs revocations, until it is
//! dropped. Whatever fails is tried again; nothing here ends it.

use super::{
    Birth, CLAIM_SECS, Counts, Durable, Inner, State, TargetError, Targets,
    queue::{BACKOFF_MAX, BREAKER_MAX, Verdict, backoff},
    record::{Held, Lease},
    sweep::Kept,
};
use crate::{
    audit::Outcome,
    base::{
        id::{LeaseId, MountId},
        time::Timestamp,
    },
    failpoint,
    store::{Change, CommitError, Part},
};
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;

/// The driver looks at least this often; a leap of the clock is noticed then.
pub(super) const SLEEP_MAX_SECS: u64 = 1;
/// Pause after the store refused.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// One attempt at one lease; less than a claim.
const ATTEMPT_MAX: Duration = Duration::from_secs(CLAIM_SECS - 10);
/// Vault time is written down at least this often while the room is open.
const KEEP_EVERY_SECS: u64 = 600;
/// The slow sweep compares all leases with the due index this often,
const COMPARE_EVERY: Duration = Duration::from_secs(3600);
/// so many at a time,
const COMPARE_PAGE: usize = 256;
/// with this pause between.
const COMPARE_PAUSE: Duration = Duration::from_millis(200);
/// How often an outcome is written anew on a lease that was moved meanwhile.
const OUTCOME_ROUNDS_MAX: u32 = 8;
/// An error is kept with its lease, cut to this.
const ERROR_BYTES_MAX: usize = 240;

/// How an attempt ended.
struct Attempt {
    mount: MountId,
    id: LeaseId,
    outage: bool,
}

pub(super) async fn run(inner: Arc<Inner>, targets: Arc<dyn Targets>, mut kept: Kept) {
    let mut attempts: JoinSet<Attempt> = JoinSet::new();
    let mut background: JoinSet<()> = JoinSet::new();
    background.spawn(compare(Arc::clone(&inner)));
    // Claims of the run before bind nobody any more.
    let mut claims_until = inner.time.now().plus_secs(CLAIM_SECS);
    let mut kept_at = kept.vault_time;
    loop {
        while let Some(marker) = { inner.scopes.lock().pop_front() } {
            let inner = Arc::clone(&inner);
            background.spawn(async move { walk(&inner, marker).await });
        }
        let now = inner.time.now();
        let next = match inner.sweep(&mut kept, now, claims_until).await {
            Ok(next) => {
                claims_until = Timestamp(0);
                next
            }
            Err(error) => {
                tracing::warn!(%error, "leases that are due could not be taken; trying again");
                tokio::time::sleep(STORE_PAUSE).await;
                Some(now)
            }
        };
        accept(&inner, now).await;
        if kept.vault_time.0 >= kept_at.0.saturating_add(KEEP_EVERY_SECS * 1000) && keep(&inner, &kept).await {
            kept_at = kept.vault_time;
        }
        start(&inner, &targets, &mut attempts);
        let nap = next
            .map_or(Duration::from_secs(SLEEP_MAX_SECS), |next| inner.time.now().until(next))
            .min(Duration::from_secs(SLEEP_MAX_SECS));
        tokio::select! {
            Some(done) = attempts.join_next(), if !attempts.is_empty() => finish(&inner, done).await,
            () = inner.wake.notified() => {}
            () = tokio::time::sleep(nap.max(Duration::from_millis(1))) => {}
        }
        // All that ended meanwhile, before the next sweep.
        while let Some(done) = attempts.try_join_next() {
            finish(&inner, done).await;
        }
        while background.try_join_next().is_some() {}
    }
}

/// Claimed leases into their lanes; those that find no place are put off in the store.
async fn accept(inner: &Inner, now: Timestamp) {
    let handed: Vec<_> = inner.handed.lock().drain(..).collect();
    let mut later = Vec::new();
    for (mount, id) in handed {
        if let Verdict::Later(at) = inner.lanes.lock().offer(mount, id, now, &*inner.around.random) {
            later.push((id, at));
        }
    }
    if let Err(error) = inner.put_off(&later).await {
        tracing::warn!(%error, "leases could not be put off; their claims run out in {CLAIM_SECS} s");
    }
}

async fn keep(inner: &Inner, kept: &Kept) -> bool {
    let mut change = Change::new();
    kept.put(&inner.books, &mut change);
    inner.commit(change, Vec::new()).await.is_ok()
}

fn start(inner: &Arc<Inner>, targets: &Arc<dyn Targets>, attempts: &mut JoinSet<Attempt>) {
    while let Some((mount, id)) = { inner.lanes.lock().start() } {
        let (inner, targets) = (Arc::clone(inner), Arc::clone(targets));
        attempts.spawn(async move {
            Attempt {
                mount,
                id,
                outage: attempt(&inner, &*targets, id).await,
            }
        });
    }
}

async fn finish(inner: &Inner, done: Result<Attempt, tokio::task::JoinError>) {
    // An attempt that panicked keeps its place in the lane; the panic is logged by its hook, and an unseal clears it.
    let Ok(Attempt { mount, id, outage }) = done else {
        return;
    };
    let closed = inner
        .lanes
        .lock()
        .finish(mount, id, outage, inner.time.now(), &*inner.around.random);
    if let Some((until, waiting)) = closed {
        let jittered = |id| (id, Timestamp(until.0.saturating_add(inner.around.random.below(1000))));
        let later: Vec<_> = waiting.into_iter().map(jittered).collect();
        if let Err(error) = inner.put_off(&later).await {
            tracing::warn!(%error, "leases could not be put off; their claims run out in {CLAIM_SECS} s");
        }
    }
}

/// One attempt at one lease. Returns whether the target as a whole is at fault.
async fn attempt(inner: &Inner, targets: &dyn Targets, id: LeaseId) -> bool {
    let held = match inner.books.get(id).await {
        Ok(Some(held)) if held.lease.state == State::Revoking => held,
        Ok(_) => return false,
        Err(error) => {
            tracing::warn!(lease = %id, %error, "a lease could not be read");
            return false;
        }
    };
    failpoint!(inner.around.boot, "lease.revoke.before-act");
    let lease = &held.lease;
    let birth = Birth {
        activated: lease.activated,
        boot: lease.boot,
        deadline: lease.deadline,
        deadline_passed: lease.deadline <= inner.time.now(),
    };
    let late = |_| TargetError {
        text: "no end within the time of an attempt".to_owned(),
        outage: true,
        not_before: None,
        caller: false,
    };
    let ended = tokio::time::timeout(ATTEMPT_MAX, targets.revoke(&Durable(()), lease, &birth))
        .await
        .map_err(late)
        .and_then(|ended| ended);
    failpoint!(inner.around.boot, "lease.revoke.after-act");
    match ended {
        Ok(()) => {
            forget(inner, held).await;
            false
        }
        Err(error) => {
            note_failure(inner, held, &error).await;
            error.outage
        }
    }
}

/// Writes how an attempt ended. The sweep that claims what a former run had claimed may move a lease's due time while the attempt is under way:
/// then the outcome is written on what is there now, or it would wait for the claim to run out.
async fn write_down(
    inner: &Inner,
    held: Held,
    change: impl Fn(&Held) -> (Change, Vec<crate::audit::Encoded>),
) -> Result<(), CommitError> {
    let mut held = held;
    for _ in 0..OUTCOME_ROUNDS_MAX {
        let (change, records) = change(&held);
        match inner.commit(change, records).await {
            Err(CommitError::Precondition(_)) => {}
            done => return done.map(drop),
        }
        match inner.books.get(held.lease.id).await {
            Ok(Some(now)) if now.lease.state == State::Revoking => held = now,
            Ok(_) => return Ok(()),
            Err(error) => {
                tracing::warn!(lease = %held.lease.id, %error, "a lease could not be read again");
                break;
            }
        }
    }
    Err(CommitError::Precondition(0))
}

async fn forget(inner: &Inner, held: Held) {
    let id = held.lease.id;
    let written = write_down(inner, held, |held| {
        let mut change = Change::new();
        change.urgent();
        inner.books.remove(&mut change, held);
        let record = inner
            .trail("lease.revoked", &held.lease.role)
            .response(&Outcome::ok().with_lease(id));
        (change, vec![record])
    });
    match written.await {
        Ok(()) => {
            Counts::add(&inner.counts.revoked);
            inner.tell_gone(id);
        }
        // Its claim runs out and it is proven gone once more.
        Err(error) => tracing::warn!(lease = %id, %error, "a revoked lease could not be forgotten yet"),
    }
}

async fn note_failure(inner: &Inner, held: Held, error: &TargetError) {
    Counts::add(&inner.counts.failed);
    let now = inner.time.now();
    let waiting = error.not_before.is_some();
    let attempts = if waiting {
        held.lease.attempts
    } else {
        held.lease.attempts.saturating_add(1)
    };
    // A target that is down says nothing about the lease: its account must not outlive the outage by more than the breaker does.
    let most = if error.outage { BREAKER_MAX } else { BACKOFF_MAX };
    let pause = backoff(attempts, most, &*inner.around.random).as_millis();
    let pause = Timestamp(now.0.saturating_add(u64::try_from(pause).unwrap_or(u64::MAX)));
    let due = error.not_before.map_or(pause, |at| at.max(now));
    let mut text = error.text.clone();
    text.truncate(text.floor_char_boundary(ERROR_BYTES_MAX));
    let (id, role) = (held.lease.id, held.lease.role.clone());
    tracing::warn!(lease = %id, %role, attempts, next = %due, error = %error.text, "a lease is not revoked yet");
    let written = write_down(inner, held, |held| {
        let lease = Lease {
            due,
            attempts,
            last_error: Some(text.clone()),
            ..held.lease.clone()
        };
        let mut change = Change::new();
        change.urgent();
        inner.books.update(&mut change, held, &lease);
        // The first failure is evidence; the others are counted in the lease itself.
        let first = attempts == 1 && !waiting;
        let record = first.then(|| {
            inner
                .trail("lease.revoke-failed", &lease.role)
                .response(&Outcome::failed("UNAVAILABLE", "REVOCATION_PENDING").with_lease(lease.id))
        });
        (change, record.into_iter().collect())
    });
    match written.await {
        Ok(()) => inner.wake.notify_one(),
        Err(error) => tracing::warn!(lease = %id, %error, "a failed attempt could not be noted"),
    }
}

async fn walk(inner: &Arc<Inner>, marker: super::revoke::Marker) {
    loop {
        match inner.walk(&marker, None).await {
            Ok(_) => return,
            Err(error) => tracing::warn!(%error, "a scope's revocation could not go on; trying again"),
        }
        tokio::time::sleep(STORE_PAUSE).await;
    }
}

/// The slow sweep: a lease whose due row is missing (a damaged row, a defect) gets it back, and one whose row lies below the
/// mark (written while the daemon died) is swept.
async fn compare(inner: Arc<Inner>) {
    loop {
        let mut after = None;
        while let Ok((ids, next)) = inner.page(None, after.as_ref(), COMPARE_PAGE).await {
            for id in ids {
                if let Err(error) = mend(&inner, id).await {
                    tracing::warn!(lease = %id, %error, "a lease could not be compared with the due index");
                }
            }
            tokio::time::sleep(COMPARE_PAUSE).await;
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        tokio::time::sleep(COMPARE_EVERY).await;
    }
}

async fn mend(inner: &Inner, id: LeaseId) -> Result<(), super::LeaseError> {
    let held = match inner.books.get(id).await {
        Ok(Some(held)) => held,
        Ok(None) => return Ok(()),
        Err(crate::store::StoreError::Damaged { .. }) => {
            inner.quarantine(id);
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let row = [Part::Raw(&held.lease.due.0.to_be_bytes()), Part::Raw(id.as_bytes())];
    if matches!(inner.books.due.get(&row).await, Ok(Some(_))) {
        inner.books.mark.lower(held.lease.due);
        return Ok(());
    }
    // A damaged row is overwritten.
    let mut change = Change::new();
    inner.books.update(&mut change, &held, &held.lease);
    match inner.commit(change, Vec::new()).await {
        Ok(_) => tracing::warn!(lease = %id, "a lease's due row was missing; it is back"),
        Err(CommitError::Precondition(_)) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
