//! Mounts, their configuration and roles.

use super::prelude::*;
use crate::{
    base::secret::SecretBytes,
    engine::{self, MountRef},
    lease::Scope,
    mount::{Kind, MountError, MountInfo},
    store::{Change, Cursor},
};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};

/// How long disabling waits for the leases that it revokes.
const LEASES_PATIENCE: Duration = Duration::from_secs(25);

/// The engine that a mount of this kind has; secrets need none.
fn engine_kind(kind: Kind) -> Option<engine::Kind> {
    match kind {
        Kind::Kv | Kind::Transit => None,
        Kind::Postgres => Some(engine::Kind::Postgres),
        Kind::MariaDb => Some(engine::Kind::MariaDb),
        Kind::RabbitMq => Some(engine::Kind::RabbitMq),
        Kind::Redis => Some(engine::Kind::Redis),
    }
}

fn reference(mount: &MountInfo) -> Result<MountRef, Failure> {
    let kind = engine_kind(mount.kind()).ok_or_else(|| {
        Failure::with(
            Reason::NotPossible,
            "a kv or transit mount has no configuration and no roles",
        )
    })?;
    Ok(MountRef {
        id: mount.id(),
        path: mount.path().clone(),
        kind,
    })
}

/// The engine mounted exactly at `path`.
pub fn engine_of(rooms: &Open, path: &Path) -> Result<MountRef, Failure> {
    reference(&*rooms.mounts.at(path)?)
}

/// A role's mount and name.
pub fn role_of(rooms: &Open, path: &Path) -> Result<(MountRef, String), Failure> {
    let place = rooms.mounts.resolve(path)?;
    let name = place
        .rest
        .ok_or_else(|| Failure::with(Reason::Malformed, "a role is MOUNT/NAME, such as `pg/readers`"))?;
    Ok((reference(&place.mount)?, name.as_str().to_owned()))
}

/// Enables an engine at a path.
pub struct Enable {
    /// Where.
    pub path: Path,
    /// What.
    pub kind: Kind,
    /// For people.
    pub description: String,
}

impl Operation for Enable {
    type Reply = ();
    const NAME: &'static str = "mount.enable";
    const CLASS: Class = Class::Change;
    fn remember(_: &()) -> Option<()> {
        Some(())
    }
    fn describe(&self, trail: &mut Trail) {
        trail.param_word("kind", self.kind.as_str());
    }
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::MountWrite, self.path.clone()))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, _: &mut Trail) -> Result<Effect<()>, Failure> {
        let (change, _) = rooms.mounts.enable(permit, self.kind, &self.description).await?;
        Ok(Effect::Change(change, ()))
    }
}

/// Disables a mount that is empty, or whose leases are to be revoked.
pub struct Disable {
    /// Where.
    pub path: Path,
    /// Revoke its leases first.
    pub revoke_leases: bool,
}

impl Disable {
    /// Whether nothing is left in the closed mount; leases are revoked when that was asked for.
    async fn emptied(
        &self,
        rooms: &Open,
        permit: &Permit,
        mount: &MountInfo,
        trail: &Trail,
    ) -> Result<Change, Failure> {
        if !mount.kind().makes_accounts() {
            let empty = rooms.kv.is_empty(mount.id()).await? && rooms.transit.is_empty(mount.id()).await?;
            return if empty {
                Ok(Change::new())
            } else {
                Err(MountError::NotEmpty.into())
            };
        }
        if self.revoke_leases {
            super::lease::may_revoke_all(rooms, permit, mount.path()).await?;
            rooms
                .leases
                .revoke_scope(permit, trail, Scope::Mount(mount.id()), Some(LEASES_PATIENCE))
                .await?;
        }
        if rooms.leases.any_of(mount.id()).await? {
            let count = rooms.leases.count(&Scope::Mount(mount.id())).await?;
            let path = mount.path().clone();
            return Err(match (count, self.revoke_leases) {
                (0, _) => MountError::LeaseDamaged,
                (count, true) => MountError::Revoking { mount: path, count },
                (count, false) => MountError::Leases { mount: path, count },
            }
            .into());
        }
        Ok(rooms.engines.forget(permit, &reference(mount)?).await?.0)
    }
}

impl Operation for Disable {
    type Reply = ();
    const NAME: &'static str = "mount.disable";
    const CLASS: Class = Class::Act;
    fn remember(_: &()) -> Option<()> {
        Some(())
    }
    fn describe(&self, trail: &mut Trail) {
        trail.param_bool("revoke_leases", self.revoke_leases);
    }
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::MountWrite, self.path.clone()))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, trail: &mut Trail) -> Result<Effect<()>, Failure> {
        let (closing, mount) = rooms.mounts.close(permit).await?;
        rooms.commit(closing, vec![trail.request()]).await?;
        match self.emptied(rooms, permit, &mount, trail).await {
            Ok(mut change) => {
                change.merge(rooms.mounts.remove(permit).await?);
                Ok(Effect::Change(change, ()))
            }
            Err(failure) => {
                rooms.commit(rooms.mounts.reopen(permit).await?, Vec::new()).await?;
                Err(failure)
            }
        }
    }
}

/// Lists the mounts that the caller may see, with one word on how each stands.
pub struct List;

impl Operation for List {
    type Reply = Vec<(Arc<MountInfo>, &'static str)>;
    const NAME: &'static str = "mount.list";
    const CLASS: Class = Class::Read;
    fn describe(&self, _: &mut Trail) {}
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::own(
            Action::List,
            Path::parse("sys/mount").map_err(|_| Reason::Internal)?,
        ))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, _: &mut Trail) -> Result<Effect<Self::Reply>, Failure> {
        let mut mounts = Vec::new();
        for mount in rooms.mounts.list(permit) {
            let state = match engine_kind(mount.kind()) {
                _ if !mount.is_open() => "closing",
                None => "ready",
                Some(_) if rooms.engines.is_configured(mount.id()).await? => "ready",
                Some(_) => "unconfigured",
            };
            mounts.push((mount, state));
        }
        Ok(Effect::Answer(mounts))
    }
}

/// Reads a mount's configuration.
pub struct GetConfig {
    /// Where.
    pub path: Path,
}

impl Operation for GetConfig {
    type Reply = Option<String>;
    const NAME: &'static str = "mount.get-config";
    const CLASS: Class = Class::Read;
    fn describe(&self, _: &mut Trail) {}
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::MountRead, self.path.clone()))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, _: &mut Trail) -> Result<Effect<Self::Reply>, Failure> {
        Ok(Effect::Answer(
            rooms.engines.config(permit, &engine_of(rooms, &self.path)?).await?,
        ))
    }
}

/// Writes and tests a mount's configuration.
pub struct Configure {
    /// Where.
    pub path: Path,
    /// JSON.
    pub config: String,
    /// The root credential; empty keeps the present one.
    pub root_secret: Bytes,
    /// Write without the test.
    pub skip_test: bool,
}

impl Operation for Configure {
    type Reply = Vec<String>;
    const NAME: &'static str = "mount.configure";
    const CLASS: Class = Class::Act;
    fn remember(reply: &Vec<String>) -> Option<Vec<String>> {
        Some(reply.clone())
    }
    fn describe(&self, trail: &mut Trail) {
        trail.param_bool("root_secret", !self.root_secret.is_empty());
        trail.param_bool("skip_test", self.skip_test);
    }
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::MountWrite, self.path.clone()))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, trail: &mut Trail) -> Result<Effect<Vec<String>>, Failure> {
        let mount = engine_of(rooms, &self.path)?;
        let secret = (!self.root_secret.is_empty()).then(|| SecretBytes::from(&*self.root_secret));
        let checks = rooms
            .engines
            .configure(permit, trail, &mount, &self.config, secret, self.skip_test)
            .await?;
        Ok(Effect::Recorded(checks))
    }
}

/// Rotates the engine's own credential.
pub struct RotateRoot {
    /// Where.
    pub path: Path,
}

impl Operation for RotateRoot {
    type Reply = String;
    const NAME: &'static str = "mount.rotate-root";
    const CLASS: Class = Class::Act;
    fn remember(reply: &String) -> Option<String> {
        Some(reply.clone())
    }
    fn describe(&self, _: &mut Trail) {}
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::Rotate, self.path.clone()))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, trail: &mut Trail) -> Result<Effect<String>, Failure> {
        let mount = engine_of(rooms, &self.path)?;
        Ok(Effect::Recorded(
            rooms.engines.rotate_root(permit, trail, &mount).await?,
        ))
    }
}

/// Compares what a target holds with the mount's leases; may revoke what has none.
pub struct Reconcile {
    /// Where.
    pub path: Path,
    /// Revoke strays.
    pub remove: bool,
}

impl Operation for Reconcile {
    type Reply = engine::Report;
    const NAME: &'static str = "mount.reconcile";
    const CLASS: Class = Class::Act;
    fn remember(reply: &engine::Report) -> Option<engine::Report> {
        Some(reply.clone())
    }
    fn describe(&self, trail: &mut Trail) {
        trail.param_bool("remove", self.remove);
    }
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        let action = if self.remove { Action::Revoke } else { Action::MountRead };
        Ok(Target::new(action, self.path.clone()))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, trail: &mut Trail) -> Result<Effect<Self::Reply>, Failure> {
        let mount = engine_of(rooms, &self.path)?;
        if self.remove {
            super::lease::may_revoke_all(rooms, permit, &self.path).await?;
        }
        let report = rooms.engines.reconcile(permit, trail, &mount, self.remove).await?;
        Ok(Effect::Recorded(report))
    }
}

/// Writes a role.
pub struct PutRole {
    /// Mount and name.
    pub path: Path,
    /// JSON.
    pub definition: String,
}

impl Operation for PutRole {
    type Reply = ();
    const NAME: &'static str = "role.put";
    const CLASS: Class = Class::Change;
    fn remember(_: &()) -> Option<()> {
        Some(())
    }
    fn describe(&self, _: &mut Trail) {}
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::RoleWrite, self.path.clone()))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, _: &mut Trail) -> Result<Effect<()>, Failure> {
        let (mount, name) = role_of(rooms, &self.path)?;
        let (mut change, ()) = rooms.engines.put_role(permit, &mount, &name, &self.definition).await?;
        rooms.mounts.require_open(&mut change, mount.id);
        Ok(Effect::Change(change, ()))
    }
}

/// Reads a role.
pub struct GetRole {
    /// Mount and name.
    pub path: Path,
}

impl Operation for GetRole {
    type Reply = (String, crate::base::time::Timestamp);
    const NAME: &'static str = "role.get";
    const CLASS: Class = Class::Read;
    fn describe(&self, _: &mut Trail) {}
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::RoleRead, self.path.clone()))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, _: &mut Trail) -> Result<Effect<Self::Reply>, Failure> {
        let (mount, name) = role_of(rooms, &self.path)?;
        Ok(Effect::Answer(rooms.engines.get_role(permit, &mount, &name).await?))
    }
}

/// Lists a mount's roles that the caller may read.
pub struct ListRoles {
    /// The mount.
    pub mount: Path,
    /// The token of the page before.
    pub after: Option<Vec<u8>>,
    /// At most this many are looked at.
    pub limit: usize,
}

impl Operation for ListRoles {
    type Reply = (Vec<String>, Option<Vec<u8>>);
    const NAME: &'static str = "role.list";
    const CLASS: Class = Class::Read;
    fn describe(&self, _: &mut Trail) {}
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::MountRead, self.mount.clone()))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, _: &mut Trail) -> Result<Effect<Self::Reply>, Failure> {
        let mount = engine_of(rooms, &self.mount)?;
        let question = [Self::NAME, self.mount.as_str()];
        let after = rooms.page_start(permit, question, self.after.as_deref())?;
        let after = after.as_deref().map(Cursor::from_bytes);
        let (names, next) = rooms
            .engines
            .list_roles(permit, &mount, after.as_ref(), self.limit)
            .await?;
        let seen = |name: &String| {
            let path = Path::parse(name).and_then(|name| self.mount.join(&name));
            path.is_ok_and(|path| permit.also(Action::RoleRead, &path))
        };
        Ok(Effect::Answer((
            names.into_iter().filter(seen).collect(),
            next.map(|next| rooms.page_token(permit, question, &next.to_bytes())),
        )))
    }
}

/// Deletes a role; leases made from it live on.
pub struct DeleteRole {
    /// Mount and name.
    pub path: Path,
}

impl Operation for DeleteRole {
    type Reply = ();
    const NAME: &'static str = "role.delete";
    const CLASS: Class = Class::Change;
    fn remember(_: &()) -> Option<()> {
        Some(())
    }
    fn describe(&self, _: &mut Trail) {}
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::RoleWrite, self.path.clone()))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, _: &mut Trail) -> Result<Effect<()>, Failure> {
        let (mount, name) = role_of(rooms, &self.path)?;
        let (change, ()) = rooms.engines.delete_role(permit, &mount, &name).await?;
        Ok(Effect::Change(change, ()))
    }
}
