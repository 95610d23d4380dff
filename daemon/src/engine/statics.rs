//! Static accounts: an existing account's password, set anew on a schedule and on demand. R-ROT-1, R-ROT-3.
//!
//! The new password is durable before the target hears of it (`pending`), is seen to work, and only then becomes `current`.
//! A crash in between leaves `pending`; the next rotation sets the same one again, which does no harm.

use super::{
    Engine, EngineError, EngineRoom, Engines, Issued, MountRef, RoomError, StaticRole,
    error::cut,
    password,
    stored::{Held, Kept, StaticRecord, load, named_key, replace},
};
use crate::{
    audit::{Encoded, Outcome, Trail},
    base::{format::Format1, id::MountId, path::Path, time::Timestamp},
    failpoint,
    notice::Topic,
    policy::Permit,
    store::{Change, Cursor, StoreError},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use strongroom_policy::Action;
use tokio::task::JoinSet;

/// Backoff of a failing scheduled rotation: doubled each time, never terminal.
const RETRY_MIN_SECS: u64 = 5;
const RETRY_MAX_SECS: u64 = 3600;
/// When an account that was just made has its first password, as a rule.
const FIRST_PASSWORD: Duration = Duration::from_millis(500);
/// The schedule is looked at this often, and whenever an account is added.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Of an error that is kept.
const ERROR_BYTES_MAX: usize = 240;
/// Accounts read at once.
const PAGE: usize = 256;

/// What a rotation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotated {
    /// When the new password became the present one.
    pub rotated: Timestamp,
    /// When it rotates next, if it does so by itself.
    pub rotates: Option<Timestamp>,
}

/// A static role whose password could not be set anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failing {
    /// Its path.
    pub role: Path,
    /// In a row.
    pub attempts: u32,
    /// What the last one met.
    pub error: String,
}

impl StaticRecord {
    /// An account that gets its first password at once.
    pub(super) fn new(role: Path, period: u64, now: Timestamp) -> Self {
        Self {
            format: Format1,
            role,
            period,
            current: None,
            previous: None,
            pending: None,
            rotated: None,
            due: Some(now),
            attempts: 0,
            last_error: None,
        }
    }
}

/// When an account with a new period rotates next.
pub(super) fn next_due(record: &StaticRecord, period: u64, now: Timestamp) -> Option<Timestamp> {
    match (record.rotated, period) {
        (None, _) => Some(record.due.unwrap_or(now)),
        (Some(_), 0) => None,
        (Some(rotated), period) => Some(rotated.plus_secs(period)),
    }
}

impl EngineRoom {
    /// Sets a static role's password anew, now. Commits by itself; on `Ok` the response record is durable.
    /// # Errors
    /// `WrongRole` for a dynamic role; `Engine`: the rotation goes on by itself.
    pub async fn rotate(
        &self,
        permit: &Permit,
        trail: &Trail,
        mount: &MountRef,
        name: &str,
    ) -> Result<Rotated, RoomError> {
        permit.covers(Action::Rotate, &mount.role_path(name)?)?;
        let record = self.engines.role(mount.id, name).await?.ok_or(RoomError::NoRole)?.value;
        match record.definition {
            super::Definition::Static(role) => self.engines.rotate(mount.id, &role.account, trail).await,
            super::Definition::Dynamic(_) => Err(RoomError::WrongRole(
                "only static roles rotate; leases of a dynamic role are revoked",
            )),
        }
    }

    /// A static role's password as the store has it, and nothing made. Never waits for a rotation, never contacts the target: who follows a
    /// role is told again once the next password works. While an interrupted rotation is not settled this may be the one before.
    /// # Errors
    /// `NoRole`; `WrongRole` for a dynamic role; `NotRotated`.
    pub async fn read(&self, permit: &Permit, mount: &MountRef, name: &str) -> Result<Issued, RoomError> {
        permit.covers(Action::Issue, &mount.role_path(name)?)?;
        let record = self.engines.role(mount.id, name).await?.ok_or(RoomError::NoRole)?.value;
        match record.definition {
            super::Definition::Static(role) => {
                let held = self.engines.account(mount.id, &role.account).await?;
                self.present(mount, &role, held.value).await
            }
            super::Definition::Dynamic(_) => Err(RoomError::WrongRole(
                "a dynamic role has no present password: watch its leases, by their ids",
            )),
        }
    }

    /// The present password. Where a rotation was interrupted, whichever password the target takes.
    pub(super) async fn read_static(&self, mount: &MountRef, role: &StaticRole) -> Result<Issued, RoomError> {
        let mut held = self.engines.account(mount.id, &role.account).await?;
        if held.value.pending.is_some() || held.value.current.is_none() {
            let turn = self.engines.turn(mount.id, &role.account);
            let _turn = turn.lock().await;
            held = self.engines.account(mount.id, &role.account).await?;
            if held.value.pending.is_some() {
                let engine = self.engines.engine(mount.id).await?;
                held = self.engines.settle(&*engine, mount.id, &role.account, held).await?;
            }
        }
        self.present(mount, role, held.value).await
    }

    async fn present(&self, mount: &MountRef, role: &StaticRole, record: StaticRecord) -> Result<Issued, RoomError> {
        let engine = self.engines.engine(mount.id).await?;
        let Some(Kept(secret)) = record.current else {
            let now = self.engines.around.clock.now();
            return Err(RoomError::NotRotated {
                why: record.last_error,
                again: record
                    .due
                    .map_or(FIRST_PASSWORD, |due| now.until(due))
                    .max(FIRST_PASSWORD),
            });
        };
        Ok(Issued::Static {
            fields: engine.static_fields(&role.account, &secret),
            rotated: record.rotated,
            rotates: record.due,
        })
    }
}

impl Engines {
    async fn account(&self, mount: MountId, account: &str) -> Result<Held<StaticRecord>, RoomError> {
        load(&self.statics, &named_key(&mount, account), "static account")
            .await?
            .ok_or(RoomError::NoRole)
    }

    /// One rotation: intent, set, log in, done.
    pub(super) async fn rotate(&self, mount: MountId, account: &str, trail: &Trail) -> Result<Rotated, RoomError> {
        let turn = self.turn(mount, account);
        let _turn = turn.lock().await;
        let engine = self.engine(mount).await?;
        let held = self.account(mount, account).await?;
        let mut record = held.value;
        if record.pending.is_none() {
            record.pending = Some(Kept(password(&*self.around.random)));
        }
        let held = self
            .put_account(mount, account, held.version, record, vec![trail.request()])
            .await?;
        failpoint!(self.around.boot, "static.after-intent");
        match self.set(&*engine, account, &held).await {
            Ok(()) => {
                self.publish(mount, account, held, Some(trail.response(&Outcome::ok())))
                    .await
            }
            Err(error) => {
                self.note_failure(mount, account, held, &error).await;
                Err(error.into())
            }
        }
    }

    async fn set(&self, engine: &dyn Engine, account: &str, held: &Held<StaticRecord>) -> Result<(), EngineError> {
        // Our caller has just put it there.
        let Some(pending) = &held.value.pending else {
            return Ok(());
        };
        engine.set_password(&held.durable(), account, &pending.0).await?;
        failpoint!(self.around.boot, "static.after-set");
        if !engine.try_password(account, &pending.0).await? {
            return Err(EngineError::Refused(format!(
                "{account} cannot log in with its new password"
            )));
        }
        failpoint!(self.around.boot, "static.after-test");
        Ok(())
    }

    /// The pending password works: it is the present one now.
    async fn publish(
        &self,
        mount: MountId,
        account: &str,
        held: Held<StaticRecord>,
        record: Option<Encoded>,
    ) -> Result<Rotated, RoomError> {
        let now = self.around.clock.now();
        let mut next = held.value;
        if let Some(pending) = next.pending.take() {
            next.previous = next.current.replace(pending);
        }
        let rotates = (next.period != 0).then(|| now.plus_secs(next.period));
        let next = StaticRecord {
            rotated: Some(now),
            due: rotates,
            attempts: 0,
            last_error: None,
            ..next
        };
        let record = record.unwrap_or_else(|| self.trail("creds.rotate", &next.role).response(&Outcome::ok()));
        // Told now and at the role's end only: an intent or a failure changes nothing for who follows it.
        let mut change = Change::new();
        change.tell(Topic::Path(next.role.clone()));
        self.put_account_in(change, mount, account, held.version, next, vec![record])
            .await?;
        Ok(Rotated { rotated: now, rotates })
    }

    /// An interrupted rotation: if the target takes the pending password, that is the present one.
    async fn settle(
        &self,
        engine: &dyn Engine,
        mount: MountId,
        account: &str,
        held: Held<StaticRecord>,
    ) -> Result<Held<StaticRecord>, RoomError> {
        let Some(pending) = &held.value.pending else {
            return Ok(held);
        };
        if engine.try_password(account, &pending.0).await? {
            self.publish(mount, account, held, None).await?;
            return self.account(mount, account).await;
        }
        Ok(held)
    }

    async fn note_failure(&self, mount: MountId, account: &str, held: Held<StaticRecord>, error: &EngineError) {
        let attempts = held.value.attempts.saturating_add(1);
        let pause = RETRY_MIN_SECS.saturating_mul(1 << attempts.min(10)).min(RETRY_MAX_SECS);
        let due = Some(self.around.clock.now().plus_secs(pause));
        // A target's words, as long as it pleases.
        let error = cut(error.to_string(), ERROR_BYTES_MAX);
        let next = StaticRecord {
            attempts,
            due,
            last_error: Some(error.clone()),
            ..held.value
        };
        tracing::warn!(role = %next.role, attempts, %error, "a password was not rotated yet");
        if let Err(error) = self.put_account(mount, account, held.version, next, Vec::new()).await {
            tracing::warn!(%error, "a failed rotation could not be noted");
        }
    }

    async fn put_account(
        &self,
        mount: MountId,
        account: &str,
        version: crate::store::Version,
        record: StaticRecord,
        records: Vec<Encoded>,
    ) -> Result<Held<StaticRecord>, RoomError> {
        self.put_account_in(Change::new(), mount, account, version, record, records)
            .await
    }

    async fn put_account_in(
        &self,
        mut change: Change,
        mount: MountId,
        account: &str,
        version: crate::store::Version,
        record: StaticRecord,
        records: Vec<Encoded>,
    ) -> Result<Held<StaticRecord>, RoomError> {
        replace(
            &mut change,
            &self.statics,
            &named_key(&mount, account),
            Some(version),
            &record,
        );
        let committed = self.store.commit(change, records).await?;
        Ok(Held {
            value: record,
            version: committed.version,
        })
    }

    /// Accounts whose time has come, by their mounts. On the way, those whose rotation fails are noted for the status.
    async fn due_accounts(&self) -> Result<BTreeMap<MountId, Vec<(String, Path)>>, StoreError> {
        let now = self.around.clock.now();
        let (mut due, mut from): (BTreeMap<_, Vec<_>>, Option<Cursor>) = (BTreeMap::new(), None);
        let mut failing = Vec::new();
        loop {
            let page = self.statics.scan(&[], from.as_ref(), PAGE).await?;
            for entry in page.entries {
                let mount = entry
                    .key
                    .first()
                    .and_then(|part| part.raw_array())
                    .map(MountId::from_bytes);
                let account = entry.key.get(1).and_then(|part| part.name());
                let record = serde_json::from_slice::<StaticRecord>(&entry.record.value).ok();
                let (Some(mount), Some(account), Some(record)) = (mount, account, record) else {
                    continue;
                };
                if record.attempts > 0 {
                    failing.push(Failing {
                        role: record.role.clone(),
                        attempts: record.attempts,
                        error: record.last_error.unwrap_or_default(),
                    });
                }
                if record.due.is_some_and(|at| at <= now) {
                    due.entry(mount).or_default().push((account.to_owned(), record.role));
                }
            }
            match page.next {
                Some(next) => from = Some(next),
                None => {
                    self.failing.store(Arc::new(failing));
                    return Ok(due);
                }
            }
        }
    }
}

/// The schedule. Each mount has a lane of its own, so that a target that hangs delays no other; within it one account after the other.
pub(super) async fn keep_rotating(engines: Arc<Engines>) {
    let mut lanes = JoinSet::new();
    let mut busy = HashMap::new();
    loop {
        // What could not be begun because its mount was busy is looked for as soon as that is over; else at the next look, so that a rotation
        // that fails before it can be noted is not tried without pause.
        let mut again = false;
        match engines.due_accounts().await {
            Ok(due) => {
                for (mount, accounts) in due {
                    if busy.values().any(|running| *running == mount) {
                        again = true;
                    } else {
                        let lane = lanes.spawn(rotate_all(Arc::clone(&engines), mount, accounts));
                        busy.insert(lane.id(), mount);
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "the rotation schedule could not be read"),
        }
        let look = tokio::time::Instant::now() + LOOK_EVERY;
        loop {
            // Also of one that panicked, which its hook has logged.
            let ended = tokio::select! {
                Some(ended) = lanes.join_next_with_id(), if !lanes.is_empty() => match ended {
                    Ok((id, ())) => id,
                    Err(error) => error.id(),
                },
                () = engines.wake.notified() => break,
                () = tokio::time::sleep_until(look) => break,
            };
            busy.remove(&ended);
            if again {
                break;
            }
        }
    }
}

async fn rotate_all(engines: Arc<Engines>, mount: MountId, accounts: Vec<(String, Path)>) {
    for (account, role) in accounts {
        let trail = engines.trail("creds.rotate", &role);
        if let Err(error) = engines.rotate(mount, &account, &trail).await {
            tracing::warn!(%role, %error, "a scheduled rotation failed; it is tried again");
        }
    }
}

/// Root rotations that were interrupted go on, all at the same time.
pub(super) async fn keep_resuming(engines: Arc<Engines>) {
    loop {
        super::root::resume_all(&engines).await;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
