//! The reconciler: what a target holds that carries our mark, against the leases and intents that we hold. R-LEASE-7.
//!
//! A stray is an account with our mark and no lease: an older backup was restored here, or somebody made it by hand. It is
//! ended like any other account, by adopting it as a lease that is being revoked: proof, retries and records come with that.
//! A missing account is one whose lease says it lives. Both are looked at twice, for leases come and go meanwhile.

use super::{Engine, EngineRoom, Engines, MountRef, RoomError, lease_of};
use crate::{
    audit::{Outcome, Trail},
    base::{
        id::{LeaseId, MountId},
        limits::LEASE_TTL_MIN_SECS,
        path::Path,
    },
    lease::{Ask, LeaseError, LeaseRoom, Plan, Scope, State},
    policy::Permit,
    store::{Change, Cursor, StoreError},
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use strongroom_policy::Action;

/// After unseal: recovery has undone what a crash left by then, or it is a stray.
const FIRST_AFTER: Duration = Duration::from_secs(90);
/// How often every configured mount is compared.
const EVERY: Duration = Duration::from_secs(3600);
/// Leases read at once.
const PAGE: usize = 1000;
/// Names in a report; more are counted.
const NAMES_MAX: usize = 1000;

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Accounts in the target that carry the mount's mark.
    pub accounts: usize,
    /// Of them, those without a lease; the first 1,000 by name.
    pub strays: Vec<String>,
    /// How many there are.
    pub stray_count: usize,
    /// Of those, how many are being revoked now.
    pub removing: usize,
    /// Accounts with the mark whose names this project did not make: never touched.
    pub foreign: Vec<String>,
    /// Leases that say they live, whose accounts are not there; the first 1,000.
    pub missing: Vec<LeaseId>,
    /// How many there are.
    pub missing_count: usize,
}

impl Report {
    /// Nothing to say.
    pub fn is_clean(&self) -> bool {
        self.stray_count == 0 && self.missing_count == 0 && self.foreign.is_empty()
    }
}

struct Found {
    accounts: usize,
    strays: Vec<(LeaseId, Plan)>,
    foreign: Vec<String>,
    missing: Vec<LeaseId>,
}

impl Found {
    fn report(&self, removing: usize) -> Report {
        let mut strays: Vec<String> = self.strays.iter().map(|(_, plan)| plan.account.clone()).collect();
        strays.sort_unstable();
        strays.truncate(NAMES_MAX);
        Report {
            accounts: self.accounts,
            strays,
            stray_count: self.strays.len(),
            removing,
            foreign: self.foreign.iter().take(NAMES_MAX).cloned().collect(),
            missing: self.missing.iter().take(NAMES_MAX).copied().collect(),
            missing_count: self.missing.len(),
        }
    }
}

impl EngineRoom {
    /// Strays and missing accounts that the last scheduled comparisons found, all mounts together; for metrics.
    pub fn findings(&self) -> usize {
        self.engines.findings.lock().values().sum()
    }

    /// Static roles whose password could not be set anew, as of the last look at the schedule.
    pub fn failing(&self) -> Arc<Vec<super::Failing>> {
        self.engines.failing.load_full()
    }

    /// Compares a mount's target with its leases; with `remove`, strays are revoked. On `Ok` the response record is durable.
    /// # Errors
    /// `Unconfigured`, `Engine` when the target cannot be asked, `Store`.
    pub async fn reconcile(
        &self,
        permit: &Permit,
        trail: &Trail,
        mount: &MountRef,
        remove: bool,
    ) -> Result<Report, RoomError> {
        let action = if remove { Action::Revoke } else { Action::MountRead };
        permit.covers(action, &mount.path)?;
        let found = compare(&self.engines, &self.leases, mount.id).await?;
        let mut removing = 0;
        if remove {
            let role = mount.role_path("strays")?;
            for (id, plan) in &found.strays {
                removing += usize::from(adopt(&self.leases, permit, trail, mount.id, &role, *id, plan).await?);
            }
        }
        let record = trail.response(&Outcome::ok());
        self.engines.store.commit(Change::new(), vec![record]).await?;
        Ok(found.report(removing))
    }
}

/// A stray becomes a lease that is being revoked; `false`: it has one by now.
async fn adopt(
    leases: &LeaseRoom,
    permit: &Permit,
    trail: &Trail,
    mount: MountId,
    role: &Path,
    id: LeaseId,
    plan: &Plan,
) -> Result<bool, RoomError> {
    let ask = Ask {
        id,
        mount,
        role: role.clone(),
        config_version: 0,
        plan: plan.clone(),
        ttl_secs: LEASE_TTL_MIN_SECS,
        max_ttl_secs: LEASE_TTL_MIN_SECS,
        deadline: Duration::ZERO,
    };
    match leases.adopt(permit, trail, ask).await {
        Ok(()) => Ok(true),
        Err(LeaseError::Busy) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn compare(engines: &Engines, leases: &LeaseRoom, mount: MountId) -> Result<Found, RoomError> {
    let engine = engines.engine(mount).await?;
    // In this order: an account is made after its intent is durable, and is there before its lease is active.
    let active = active(leases, mount).await?;
    let there = marked(&*engine).await?;
    let accounts = there.len();
    let mut missing: Vec<(String, LeaseId)> = active
        .into_iter()
        .filter(|(name, _)| !there.contains_key(name))
        .collect();
    let (mut strays, mut foreign) = (Vec::new(), Vec::new());
    for (name, plan) in there {
        match lease_of(&name) {
            None => foreign.push(name),
            Some(id) if !is_known(leases, id).await? => strays.push((id, plan)),
            Some(_) => {}
        }
    }
    if !strays.is_empty() || !missing.is_empty() {
        let again = marked(&*engine).await?;
        strays.retain(|(_, plan)| again.contains_key(&plan.account));
        missing.retain(|(name, _)| !again.contains_key(name));
    }
    let mut gone = Vec::new();
    for (_, id) in missing {
        match leases.get(id).await {
            Ok(lease) if lease.state == State::Active => gone.push(id),
            // It ended while we looked, or is quarantined and reported there.
            Ok(_) | Err(LeaseError::Unknown | LeaseError::Damaged) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Found {
        accounts,
        strays,
        foreign,
        missing: gone,
    })
}

async fn marked(engine: &dyn Engine) -> Result<HashMap<String, Plan>, RoomError> {
    let plans = engine.marked().await?;
    Ok(plans.into_iter().map(|plan| (plan.account.clone(), plan)).collect())
}

/// A lease whose record is damaged is known: it is not a stray.
async fn is_known(leases: &LeaseRoom, id: LeaseId) -> Result<bool, RoomError> {
    match leases.get(id).await {
        Ok(_) | Err(LeaseError::Damaged) => Ok(true),
        Err(LeaseError::Unknown) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The accounts that live by their leases.
async fn active(leases: &LeaseRoom, mount: MountId) -> Result<HashMap<String, LeaseId>, RoomError> {
    let (mut accounts, mut from): (HashMap<_, _>, Option<Cursor>) = (HashMap::new(), None);
    loop {
        let page = leases.list(Some(&Scope::Mount(mount)), from.as_ref(), PAGE).await?;
        let live = page.leases.into_iter().filter(|lease| lease.state == State::Active);
        accounts.extend(live.map(|lease| (lease.plan.account, lease.id)));
        match page.next {
            Some(next) => from = Some(next),
            None => return Ok(accounts),
        }
    }
}

/// The schedule: soon after unseal, then every hour. It reports and removes nothing: that takes somebody who may revoke.
pub(super) async fn keep_comparing(engines: Arc<Engines>, leases: Arc<LeaseRoom>) {
    tokio::time::sleep(FIRST_AFTER).await;
    loop {
        match engines.configured().await {
            Ok(mounts) => {
                for (mount, path) in mounts {
                    note(&engines, &leases, mount, &path).await;
                }
            }
            Err(error) => tracing::warn!(%error, "the mounts could not be read for a comparison with their targets"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// One scheduled comparison: a finding is recorded and logged.
async fn note(engines: &Arc<Engines>, leases: &LeaseRoom, mount: MountId, path: &Path) {
    let report = match compare(engines, leases, mount).await {
        Ok(found) => found.report(0),
        Err(error) => {
            tracing::warn!(mount = %path, %error, "a target could not be compared with its leases");
            return;
        }
    };
    engines
        .findings
        .lock()
        .insert(mount, report.stray_count + report.missing_count);
    if report.is_clean() {
        return;
    }
    tracing::error!(
        mount = %path, strays = report.stray_count, missing = report.missing_count, foreign = report.foreign.len(),
        "a target and its leases differ: see `strongroom reconcile`"
    );
    let record = engines.trail("mount.reconcile", path).response(&Outcome::ok());
    if let Err(error) = engines.store.commit(Change::new(), vec![record]).await {
        tracing::warn!(%error, "a finding of the reconciler could not be recorded");
    }
}

impl Engines {
    /// Every mount that has a configuration.
    async fn configured(&self) -> Result<Vec<(MountId, Path)>, StoreError> {
        let (mut found, mut from): (Vec<_>, Option<Cursor>) = (Vec::new(), None);
        loop {
            let page = self.setups.scan(&[], from.as_ref(), 256).await?;
            for entry in page.entries {
                let mount = entry
                    .key
                    .first()
                    .and_then(|part| part.raw_array())
                    .map(MountId::from_bytes);
                let setup = serde_json::from_slice::<super::stored::Setup>(&entry.record.value).ok();
                found.extend(mount.zip(setup).map(|(mount, setup)| (mount, setup.path)));
            }
            match page.next {
                Some(next) => from = Some(next),
                None => return Ok(found),
            }
        }
    }
}
