//! The engine room's facade: configure a mount, keep its roles, issue from them. Static accounts and the root credential are
//! in `statics` and `root`.

use super::{
    Definition, Engine, EngineError, Fields, Kind, Root, Surroundings,
    definition::ROLE_NAME_BYTES_MAX,
    reconcile,
    statics::{self, Failing},
    stored::{Held, RoleRecord, Setup, StaticRecord, load, mount_key, named_key, replace},
};
use crate::{
    audit::{Recorder, Trail},
    base::{
        format::Format1,
        id::{LeaseId, MountId},
        path::{Path, PathError},
        time::Timestamp,
    },
    lease::{Ask, Birth, Durable, Lease, LeaseError, LeaseRoom, TargetError, Targets},
    notice::Topic,
    policy::{Mismatch, Permit},
    store::{Change, CommitError, Cursor, Namespace, Store, StoreError, Table, View},
};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};
use strongroom_policy::Action;
use tokio::task::JoinHandle;

/// Why the engine room did not do it.
#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    /// The mount has no configuration yet.
    #[error("the mount is not configured")]
    Unconfigured,
    /// No such role.
    #[error("no such role")]
    NoRole,
    /// A role's name is one path segment of at most 64 bytes.
    #[error("a role's name is one path segment of at most {ROLE_NAME_BYTES_MAX} bytes")]
    RoleName,
    /// The other kind of role.
    #[error("{0}")]
    WrongRole(&'static str),
    /// The account is another role's.
    #[error("the account belongs to the role {0}")]
    AccountTaken(Path),
    /// Leases of the mount live.
    #[error("leases of the mount live; revoke them first")]
    LeasesLive,
    /// A rotation is under way.
    #[error("a rotation of the mount's root credential is under way; try again")]
    Rotating,
    /// The first rotation of a static account is not done.
    #[error("the account's password is not set yet{}", why.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    NotRotated {
        /// Of the last attempt that failed.
        why: Option<String>,
        /// When the next attempt will have been made.
        again: Duration,
    },
    /// The target, or what is configured of it.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The lease.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The permit is for something else.
    #[error(transparent)]
    Permit(#[from] Mismatch),
    /// The role's path would be too long.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The store could not be read.
    #[error("the store cannot be read")]
    Store(#[from] StoreError),
    /// The change could not be made durable.
    #[error("the change could not be made durable")]
    Commit(#[from] CommitError),
}

impl From<EngineError> for TargetError {
    fn from(error: EngineError) -> Self {
        let not_before = match &error {
            EngineError::NotYet(at) => Some(*at),
            _ => None,
        };
        let caller = matches!(error, EngineError::Config(_));
        Self {
            text: super::error::cut(error.to_string(), 240),
            outage: error.is_outage(),
            not_before,
            caller,
        }
    }
}

/// A mount, as the mount room resolved it.
#[derive(Debug, Clone)]
pub struct MountRef {
    /// Its id.
    pub id: MountId,
    /// Its path.
    pub path: Path,
    /// What is mounted there.
    pub kind: Kind,
}

impl MountRef {
    pub(super) fn role_path(&self, name: &str) -> Result<Path, RoomError> {
        let segment = Path::parse(name).map_err(|_| RoomError::RoleName)?;
        if name.len() > ROLE_NAME_BYTES_MAX || segment.segments().count() != 1 {
            return Err(RoomError::RoleName);
        }
        Ok(self.path.join(&segment)?)
    }
}

/// What `issue` gives.
#[derive(Debug)]
pub enum Issued {
    /// A new account. The response record is durable.
    Dynamic {
        /// Its lease.
        lease: Box<Lease>,
        /// User name, password, where to connect.
        fields: Fields,
    },
    /// An existing account's present password. A read: the caller records it.
    Static {
        /// User name, password, where to connect.
        fields: Fields,
        /// When it was set.
        rotated: Option<Timestamp>,
        /// When it is set next.
        rotates: Option<Timestamp>,
    },
}

/// One rotation of an account, or of a root credential, at a time.
type Turn = Arc<tokio::sync::Mutex<()>>;

/// The engines that are open, and the views of this room. Shared with the lease room, for which it is the world outside.
pub struct Engines {
    pub(super) store: Arc<Store>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) around: Surroundings,
    pub(super) setups: View,
    pub(super) roles: View,
    pub(super) statics: View,
    live: Mutex<HashMap<MountId, Arc<dyn Engine>>>,
    turns: Mutex<HashMap<(MountId, String), Turn>>,
    pub(super) findings: Mutex<HashMap<MountId, usize>>,
    /// Static roles whose password could not be set anew, as of the last look at the schedule.
    pub(super) failing: ArcSwap<Vec<Failing>>,
    pub(super) wake: tokio::sync::Notify,
}

/// See the module. Dropping it ends scheduled rotations; what was under way is found again at the next unseal.
pub struct EngineRoom {
    pub(super) engines: Arc<Engines>,
    pub(super) leases: Arc<LeaseRoom>,
    rotations: JoinHandle<()>,
    resumptions: JoinHandle<()>,
    comparisons: JoinHandle<()>,
}

impl Drop for EngineRoom {
    fn drop(&mut self) {
        self.rotations.abort();
        self.resumptions.abort();
        self.comparisons.abort();
    }
}

impl Engines {
    /// Over an open store. Give it to [`LeaseRoom::open`], then open the [`EngineRoom`].
    pub fn new(store: &Arc<Store>, recorder: &Arc<Recorder>, around: Surroundings) -> Arc<Self> {
        let view = |table| store.view(Namespace::ROOT, table);
        Arc::new(Self {
            store: Arc::clone(store),
            recorder: Arc::clone(recorder),
            around,
            setups: view(Table::EngineConfig),
            roles: view(Table::Role),
            statics: view(Table::StaticAccount),
            live: Mutex::default(),
            turns: Mutex::default(),
            findings: Mutex::default(),
            failing: ArcSwap::default(),
            wake: tokio::sync::Notify::new(),
        })
    }

    pub(super) async fn setup(&self, mount: MountId) -> Result<Option<Held<Setup>>, StoreError> {
        load(&self.setups, &mount_key(&mount), "engine configuration").await
    }

    pub(super) async fn role(&self, mount: MountId, name: &str) -> Result<Option<Held<RoleRecord>>, StoreError> {
        load(&self.roles, &named_key(&mount, name), "role").await
    }

    /// The mount's engine: the one that is open, or one made of its record.
    pub(super) async fn engine(&self, mount: MountId) -> Result<Arc<dyn Engine>, RoomError> {
        if let Some(engine) = self.live.lock().get(&mount) {
            return Ok(Arc::clone(engine));
        }
        let setup = self.setup(mount).await?.ok_or(RoomError::Unconfigured)?.value;
        let engine = setup.kind.open(
            &setup.config,
            &Root {
                account: setup.account,
                secret: setup.secret.0,
            },
            &self.around,
        )?;
        // A change of the record meanwhile has put its own engine here: that one counts.
        Ok(Arc::clone(self.live.lock().entry(mount).or_insert(engine)))
    }

    /// Once `change` is durable, `engine` is the mount's.
    pub(super) fn switch_with(self: &Arc<Self>, change: &mut Change, mount: MountId, engine: Arc<dyn Engine>) {
        let engines = Arc::clone(self);
        change.then(move || drop(engines.live.lock().insert(mount, engine)));
    }

    /// The mount is gone: its engine ends with the last that uses it.
    pub(super) fn close(&self, mount: MountId) {
        self.live.lock().remove(&mount);
        self.findings.lock().remove(&mount);
    }

    /// A record of something the room does on its own.
    pub(super) fn trail(&self, op: &'static str, path: &Path) -> Trail {
        let mut trail = Trail::of_system(&self.recorder, op);
        trail.path(path);
        trail
    }

    /// The lock of one account of a mount. The table is bounded by the accounts there are.
    pub(super) fn turn(&self, mount: MountId, account: &str) -> Turn {
        Arc::clone(self.turns.lock().entry((mount, account.to_owned())).or_default())
    }
}

#[async_trait::async_trait]
impl Targets for Engines {
    async fn revoke(&self, durable: &Durable, lease: &Lease, birth: &Birth) -> Result<(), TargetError> {
        let engine = self.engine(lease.mount).await.map_err(outside)?;
        engine.revoke(durable, &lease.plan, birth).await.map_err(Into::into)
    }

    async fn renew(&self, durable: &Durable, lease: &Lease, expires: Timestamp) -> Result<(), TargetError> {
        let engine = self.engine(lease.mount).await.map_err(outside)?;
        engine.renew(durable, &lease.plan, expires).await.map_err(Into::into)
    }
}

fn outside(error: RoomError) -> TargetError {
    match error {
        RoomError::Engine(error) => error.into(),
        other => TargetError {
            text: other.to_string(),
            outage: true,
            not_before: None,
            caller: false,
        },
    }
}

impl EngineRoom {
    /// Opens the room: rotations that were under way go on.
    pub fn open(engines: Arc<Engines>, leases: Arc<LeaseRoom>) -> Self {
        let rotations = tokio::spawn(statics::keep_rotating(Arc::clone(&engines)));
        let resumptions = tokio::spawn(statics::keep_resuming(Arc::clone(&engines)));
        let comparisons = tokio::spawn(reconcile::keep_comparing(Arc::clone(&engines), Arc::clone(&leases)));
        Self {
            engines,
            leases,
            rotations,
            resumptions,
            comparisons,
        }
    }

    /// Writes a role after its kind has checked it against the target. A static role's account gets its first password soon
    /// after the commit.
    /// # Errors
    /// `Engine` for what cannot work, `AccountTaken`.
    pub async fn put_role(
        &self,
        permit: &Permit,
        mount: &MountRef,
        name: &str,
        json: &str,
    ) -> Result<(Change, ()), RoomError> {
        let path = mount.role_path(name)?;
        permit.covers(Action::RoleWrite, &path)?;
        let definition = Definition::parse(json)?;
        let engine = self.engines.engine(mount.id).await?;
        engine.check_role(&definition).await?;
        let present = self.engines.role(mount.id, name).await?;
        let mut change = Change::new();
        match (&definition, present.as_ref().map(|held| &held.value.definition)) {
            (Definition::Static(role), Some(Definition::Static(before))) if before.account == role.account => {}
            (Definition::Dynamic(_), Some(Definition::Dynamic(_)) | None) | (Definition::Static(_), None) => {}
            _ => {
                return Err(RoomError::WrongRole(
                    "a role keeps its type and account; delete it and make another",
                ));
            }
        }
        if let Definition::Static(role) = &definition {
            self.put_static(&mut change, mount.id, &path, role).await?;
        }
        let created = present
            .as_ref()
            .map_or_else(|| self.leases.now(), |held| held.value.created);
        let record = RoleRecord {
            format: Format1,
            definition,
            created,
        };
        replace(
            &mut change,
            &self.engines.roles,
            &named_key(&mount.id, name),
            present.map(|held| held.version),
            &record,
        );
        Ok((change, ()))
    }

    /// A role's definition, JSON, and when it was made.
    /// # Errors
    /// `NoRole`.
    pub async fn get_role(
        &self,
        permit: &Permit,
        mount: &MountRef,
        name: &str,
    ) -> Result<(String, Timestamp), RoomError> {
        permit.covers(Action::RoleRead, &mount.role_path(name)?)?;
        let record = self.engines.role(mount.id, name).await?.ok_or(RoomError::NoRole)?.value;
        Ok((record.definition.json(), record.created))
    }

    /// Names of a mount's roles, a page in stored order. Which of them the caller may see is the gate's matter.
    /// # Errors
    /// `Store`.
    pub async fn list_roles(
        &self,
        _permit: &Permit,
        mount: &MountRef,
        from: Option<&Cursor>,
        limit: usize,
    ) -> Result<(Vec<String>, Option<Cursor>), RoomError> {
        let page = self
            .engines
            .roles
            .scan_names(&mount_key(&mount.id), from, limit)
            .await?;
        Ok((page.children.into_iter().map(|child| child.name).collect(), page.next))
    }

    /// Deletes a role. Leases made from it live on by their plans. A static role's account keeps its last password, which is
    /// forgotten here.
    /// # Errors
    /// `NoRole`.
    pub async fn delete_role(&self, permit: &Permit, mount: &MountRef, name: &str) -> Result<(Change, ()), RoomError> {
        permit.covers(Action::RoleWrite, &mount.role_path(name)?)?;
        let held = self.engines.role(mount.id, name).await?.ok_or(RoomError::NoRole)?;
        let mut change = Change::new();
        let key = named_key(&mount.id, name);
        change
            .require_version(&self.engines.roles, &key, held.version)
            .delete(&self.engines.roles, &key);
        if let Definition::Static(role) = &held.value.definition {
            change.tell(Topic::Path(permit.path().clone()));
            // A rotation that is under way ends first, and none begins in between: the password that is forgotten here is the account's.
            let turn = self.engines.turn(mount.id, &role.account);
            let _turn = turn.lock().await;
            let key = named_key(&mount.id, &role.account);
            if let Some(account) = load::<StaticRecord>(&self.engines.statics, &key, "static account").await? {
                change
                    .require_version(&self.engines.statics, &key, account.version)
                    .delete(&self.engines.statics, &key);
            }
        }
        Ok((change, ()))
    }

    /// A credential of a role: a new leased account, or a static account's present password.
    /// # Errors
    /// `NoRole`, `Engine`, `Lease`. What was begun outside is being undone.
    pub async fn issue(
        &self,
        permit: &Permit,
        trail: &Trail,
        mount: &MountRef,
        name: &str,
        ttl_secs: u64,
    ) -> Result<Issued, RoomError> {
        let path = mount.role_path(name)?;
        permit.covers(Action::Issue, &path)?;
        let record = self.engines.role(mount.id, name).await?.ok_or(RoomError::NoRole)?;
        let role = match record.value.definition {
            Definition::Static(role) => return self.read_static(mount, &role).await,
            Definition::Dynamic(role) => role,
        };
        let ttl_secs = role.ttl_secs(ttl_secs)?;
        let id = LeaseId::random(&*self.engines.around.random);
        let mut engine = self.engines.engine(mount.id).await?;
        let plan = match engine.plan(id, name, &role).await {
            Err(EngineError::Draining) => {
                engine = self.engines.engine(mount.id).await?;
                engine.plan(id, name, &role).await?
            }
            plan => plan?,
        };
        let ask = Ask {
            id,
            mount: mount.id,
            role: path,
            config_version: record.version.0,
            plan,
            ttl_secs,
            max_ttl_secs: role.max_ttl,
            deadline: engine.deadline(),
        };
        let create = |durable: Durable, lease: Lease| async move {
            match engine.create(&durable, &lease.plan, &role, lease.expires).await {
                // The root credential was just rotated; nothing was sent.
                Err(EngineError::Draining) => {
                    let engine = self.engines.engine(lease.mount).await.map_err(outside)?;
                    engine
                        .create(&durable, &lease.plan, &role, lease.expires)
                        .await
                        .map_err(TargetError::from)
                }
                made => made.map_err(TargetError::from),
            }
        };
        let (lease, fields) = self.leases.issue(permit, trail, ask, create).await?;
        Ok(Issued::Dynamic {
            lease: Box::new(lease),
            fields,
        })
    }

    async fn put_static(
        &self,
        change: &mut Change,
        mount: MountId,
        path: &Path,
        role: &super::StaticRole,
    ) -> Result<(), RoomError> {
        let key = named_key(&mount, &role.account);
        let present: Option<Held<StaticRecord>> = load(&self.engines.statics, &key, "static account").await?;
        let now = self.engines.around.clock.now();
        let (version, record) = match present {
            Some(held) if held.value.role != *path => return Err(RoomError::AccountTaken(held.value.role)),
            Some(held) => {
                let due = statics::next_due(&held.value, role.rotation_period, now);
                (
                    Some(held.version),
                    StaticRecord {
                        period: role.rotation_period,
                        due,
                        ..held.value
                    },
                )
            }
            None => (None, StaticRecord::new(path.clone(), role.rotation_period, now)),
        };
        replace(change, &self.engines.statics, &key, version, &record);
        let engines = Arc::clone(&self.engines);
        change.then(move || engines.wake.notify_one());
        Ok(())
    }
}
