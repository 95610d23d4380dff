//! Credentials: issue, rotate.

use super::prelude::*;
use crate::{
    base::id::LeaseId,
    engine::{Issued, MountRef, Rotated},
    gate::ops::mount::role_of,
    lease::{LeaseError, State},
};

/// A credential of a role.
pub struct Issue {
    /// Mount and role name.
    pub role: Path,
    /// Asked life; 0: the role's default.
    pub ttl_secs: u64,
}

impl Operation for Issue {
    type Reply = Issued;
    const NAME: &'static str = "creds.issue";
    const CLASS: Class = Class::Act;
    fn describe(&self, trail: &mut Trail) {
        trail.param_u64("ttl_secs", self.ttl_secs);
    }
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::Issue, self.role.clone()))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, trail: &mut Trail) -> Result<Effect<Issued>, Failure> {
        let (mount, name): (MountRef, String) = role_of(rooms, &self.role)?;
        Ok(
            match rooms.engines.issue(permit, trail, &mount, &name, self.ttl_secs).await? {
                issued @ Issued::Dynamic { .. } => Effect::Recorded(issued),
                issued @ Issued::Static { .. } => Effect::Answer(issued),
            },
        )
    }
    fn recalls(&self) -> bool {
        true
    }
    async fn undelivered(reply: Issued, rooms: &Open) {
        withdraw(rooms, Self::lent(&reply).unwrap_or_default()).await;
    }
    fn lent(reply: &Issued) -> Option<Vec<LeaseId>> {
        Some(match reply {
            Issued::Dynamic { lease, .. } => vec![lease.id],
            Issued::Static { .. } => Vec::new(),
        })
    }
}

/// Takes back what nobody received; those of which that failed.
pub async fn withdraw(rooms: &Open, leases: Vec<LeaseId>) -> Vec<LeaseId> {
    let mut left = Vec::new();
    for lease in leases {
        let Err(error) = rooms.leases.withdraw(lease).await else {
            continue;
        };
        match rooms.leases.get(lease).await {
            Err(LeaseError::Unknown) => {}
            // Somebody else's revocation came first.
            Ok(found) if found.state == State::Revoking => {}
            _ => {
                tracing::error!(%lease, cause = %crate::gate::chain(&error), "a credential that nobody received lives until it expires");
                left.push(lease);
            }
        }
    }
    left
}

/// Sets a static role's password anew.
pub struct Rotate {
    /// Mount and role name.
    pub role: Path,
}

impl Operation for Rotate {
    type Reply = Rotated;
    const NAME: &'static str = "creds.rotate";
    const CLASS: Class = Class::Act;
    fn remember(reply: &Rotated) -> Option<Rotated> {
        Some(*reply)
    }
    fn describe(&self, _: &mut Trail) {}
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::Rotate, self.role.clone()))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, trail: &mut Trail) -> Result<Effect<Rotated>, Failure> {
        let (mount, name) = role_of(rooms, &self.role)?;
        Ok(Effect::Recorded(
            rooms.engines.rotate(permit, trail, &mount, &name).await?,
        ))
    }
}
