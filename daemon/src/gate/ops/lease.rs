//! Leases: show, list, renew, revoke. Ids open nothing: every act is decided on the lease's role, or on its being the caller's own.

use super::prelude::*;
use crate::{
    base::id::LeaseId,
    lease::{Lease, LeaseError, Revoked, Scope},
    mount::Kind,
    store::Cursor,
    token::TokenRoom,
};
use std::time::Duration;

/// Roles looked at in one go.
const ROLES_PAGE: usize = 500;
/// Leases looked at in one go.
const LEASES_PAGE: usize = 500;
/// How long a revocation is waited for at most.
const WAIT_MAX: Duration = Duration::from_secs(25);

async fn about(rooms: &Open, caller: &Caller, id: LeaseId, action: Action) -> Result<Target, Failure> {
    match rooms.leases.get(id).await {
        Ok(lease) if lease.identity == caller.identity().id() => Ok(Target::own(action, lease.role)),
        Ok(lease) => Ok(Target::new(action, lease.role)),
        // An act on all leases: who may not do that hears what a forbidden one would give, and [`gone`] has the last word.
        Err(LeaseError::Unknown) => Ok(Target::new(action, everywhere()?)),
        Err(error) => Err(error.into()),
    }
}

/// What is told of a lease that is not there (any more): that, to whoever could see it wherever it was; to others the same as of a forbidden one.
fn gone(rooms: &Open, permit: &Permit, error: LeaseError) -> Failure {
    let LeaseError::Unknown = error else {
        return error.into();
    };
    let mut mounts = rooms
        .mounts
        .all()
        .into_iter()
        .filter(|mount| mount.kind().makes_accounts());
    if mounts.all(|mount| permit.also(permit.action(), mount.path())) {
        Failure::with(
            Reason::NotFound,
            "there is no such lease: it has ended, or its id is wrong; `strongroom lease list` shows those that there are",
        )
    } else {
        Reason::Denied.into()
    }
}

/// Shows a lease.
pub struct Get(pub LeaseId);

impl Operation for Get {
    type Reply = Lease;
    const NAME: &'static str = "lease.get";
    const CLASS: Class = Class::Read;
    fn describe(&self, trail: &mut Trail) {
        trail.param_id("lease", self.0.as_bytes());
    }
    async fn target(&self, rooms: &Open, caller: &Caller) -> Result<Target, Failure> {
        about(rooms, caller, self.0, Action::LeaseRead).await
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, _: &mut Trail) -> Result<Effect<Lease>, Failure> {
        let found = rooms.leases.get(self.0).await;
        Ok(Effect::Answer(found.map_err(|error| gone(rooms, permit, error))?))
    }
}

/// A page of leases.
pub struct List {
    /// A mount or a role; `None`: everywhere.
    pub prefix: Option<Path>,
    /// The token of the page before.
    pub after: Option<Vec<u8>>,
    /// At most this many are looked at.
    pub limit: usize,
}

impl Operation for List {
    type Reply = (Vec<Lease>, Option<Vec<u8>>);
    const NAME: &'static str = "lease.list";
    const TENDS: bool = true;
    const CLASS: Class = Class::Read;
    fn describe(&self, _: &mut Trail) {}
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        match &self.prefix {
            Some(prefix) => Ok(Target::own(Action::LeaseRead, prefix.clone())),
            None => Ok(Target::own(Action::LeaseRead, everywhere()?)),
        }
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, trail: &mut Trail) -> Result<Effect<Self::Reply>, Failure> {
        let scope = match self.prefix.as_ref().map(|prefix| scope(rooms, prefix)).transpose() {
            Ok(scope) => scope,
            // Like a mount without leases that the caller may see.
            Err(Failure {
                reason: Reason::Denied, ..
            }) => return Ok(Effect::Answer((Vec::new(), None))),
            Err(failure) => return Err(failure),
        };
        let question = [Self::NAME, self.prefix.as_ref().map_or("", Path::as_str)];
        let after = rooms.page_start(permit, question, self.after.as_deref())?;
        let after = after.as_deref().map(Cursor::from_bytes);
        let page = rooms.leases.list(scope.as_ref(), after.as_ref(), self.limit).await?;
        let mine = permit.identity();
        let seen = |lease: &Lease| lease.identity == mine || permit.also(Action::LeaseRead, &lease.role);
        let leases: Vec<Lease> = page.leases.into_iter().filter(seen).collect();
        trail.param_u64("entries", leases.len() as u64);
        let next = page
            .next
            .map(|next| rooms.page_token(permit, question, &next.to_bytes()));
        Ok(Effect::Answer((leases, next)))
    }
}

/// Prolongs a lease.
pub struct Renew {
    /// Which.
    pub id: LeaseId,
    /// For how long from now; 0: as before.
    pub ttl_secs: u64,
}

impl Operation for Renew {
    type Reply = (Lease, u64);
    const NAME: &'static str = "lease.renew";
    const CLASS: Class = Class::Act;
    fn remember(reply: &(Lease, u64)) -> Option<(Lease, u64)> {
        Some(reply.clone())
    }
    fn describe(&self, trail: &mut Trail) {
        trail.param_id("lease", self.id.as_bytes());
        trail.param_u64("ttl_secs", self.ttl_secs);
    }
    async fn target(&self, rooms: &Open, caller: &Caller) -> Result<Target, Failure> {
        about(rooms, caller, self.id, Action::Renew).await
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, trail: &mut Trail) -> Result<Effect<Self::Reply>, Failure> {
        let renewed = rooms.leases.renew(permit, trail, self.id, self.ttl_secs).await;
        let lease = renewed.map_err(|error| gone(rooms, permit, error))?;
        let left = rooms.leases.now().secs_until(lease.expires);
        Ok(Effect::Recorded((lease, left)))
    }
}

/// What to revoke.
pub enum What {
    /// One lease.
    One(LeaseId),
    /// All below a mount, or all of a role.
    Prefix(Path),
    /// All of an identity, by its name.
    Identity(String),
    /// All there are.
    All,
}

/// Revokes.
pub struct Revoke {
    /// What.
    pub what: What,
    /// Wait for the proof.
    pub wait: bool,
}

impl Operation for Revoke {
    type Reply = Revoked;
    const NAME: &'static str = "lease.revoke";
    const CLASS: Class = Class::Act;
    fn remember(reply: &Revoked) -> Option<Revoked> {
        Some(*reply)
    }
    fn describe(&self, trail: &mut Trail) {
        if let What::One(id) = &self.what {
            trail.param_id("lease", id.as_bytes());
        }
        if let What::All = &self.what {
            trail.param_bool("all", true);
        }
        trail.param_bool("wait", self.wait);
    }
    async fn target(&self, rooms: &Open, caller: &Caller) -> Result<Target, Failure> {
        match &self.what {
            What::One(id) => about(rooms, caller, *id, Action::Revoke).await,
            What::Prefix(prefix) => Ok(Target::new(Action::Revoke, prefix.clone())),
            What::Identity(name) if name == caller.identity().principal().name() => {
                Ok(Target::own(Action::Revoke, TokenRoom::path_of(name)?))
            }
            What::Identity(name) => Ok(Target::new(Action::Revoke, TokenRoom::path_of(name)?)),
            What::All => Ok(Target::new(Action::Revoke, everywhere()?)),
        }
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, trail: &mut Trail) -> Result<Effect<Revoked>, Failure> {
        let wait = self.wait.then_some(WAIT_MAX);
        let scope = match &self.what {
            What::One(id) => {
                let revoked = rooms.leases.revoke(permit, trail, *id, wait).await;
                return Ok(Effect::Recorded(revoked.map_err(|error| gone(rooms, permit, error))?));
            }
            What::Prefix(prefix) => {
                let scope = scope(rooms, prefix)?;
                if let Scope::Mount(_) = scope {
                    may_revoke_all(rooms, permit, prefix).await?;
                }
                scope
            }
            What::Identity(name) => {
                let (identity, _) = rooms.tokens.identity(name).ok_or(Reason::NotFound)?;
                let scope = Scope::Identity(identity);
                if !permit.own() {
                    may_revoke_each(rooms, permit, &scope).await?;
                }
                scope
            }
            What::All => {
                for mount in rooms.mounts.all() {
                    if mount.kind().makes_accounts() {
                        if !permit.also(Action::Revoke, mount.path()) {
                            return Err(Reason::Denied.into());
                        }
                        may_revoke_all(rooms, permit, mount.path()).await?;
                    }
                }
                Scope::All
            }
        };
        Ok(Effect::Recorded(
            rooms.leases.revoke_scope(permit, trail, scope, wait).await?,
        ))
    }
}

/// Leave for a whole mount is leave for each of its roles: a `forbid` on one of them holds.
/// # Errors
/// `Denied`.
pub async fn may_revoke_all(rooms: &Open, permit: &Permit, mount: &Path) -> Result<(), Failure> {
    let (engine, mut from) = (super::mount::engine_of(rooms, mount)?, None);
    loop {
        let (names, next) = rooms
            .engines
            .list_roles(permit, &engine, from.as_ref(), ROLES_PAGE)
            .await?;
        for name in names {
            let role = mount
                .join(&Path::parse(&name).map_err(|_| Reason::Internal)?)
                .map_err(|_| Reason::Internal)?;
            if !permit.also(Action::Revoke, &role) {
                return Err(Reason::Denied.into());
            }
        }
        match next {
            Some(next) => from = Some(next),
            None => return Ok(()),
        }
    }
}

/// Leave for all leases of somebody is leave for the role of each.
async fn may_revoke_each(rooms: &Open, permit: &Permit, scope: &Scope) -> Result<(), Failure> {
    let mut after = None;
    loop {
        let page = rooms.leases.list(Some(scope), after.as_ref(), LEASES_PAGE).await?;
        if !page.leases.iter().all(|lease| permit.also(Action::Revoke, &lease.role)) {
            return Err(Reason::Denied.into());
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

/// Where leave for all leases is asked for.
fn everywhere() -> Result<Path, Failure> {
    Path::parse("sys/lease").map_err(|_| Reason::Internal.into())
}

/// A mount, or one of its roles.
fn scope(rooms: &Open, prefix: &Path) -> Result<Scope, Failure> {
    let place = rooms.mounts.resolve(prefix)?;
    match (place.mount.kind(), place.rest) {
        (Kind::Kv | Kind::Transit, _) => Err(Reason::Denied.into()),
        (Kind::Postgres | Kind::MariaDb | Kind::RabbitMq | Kind::Redis, None) => Ok(Scope::Mount(place.mount.id())),
        (Kind::Postgres | Kind::MariaDb | Kind::RabbitMq | Kind::Redis, Some(role)) => {
            Ok(Scope::Role(place.mount.id(), role.as_str().to_owned()))
        }
    }
}
