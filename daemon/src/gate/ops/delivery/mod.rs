//! What applications need, delivered: `fetch` (all at once, or nothing), `watch` (as it changes), and what both share: deciding each part on
//! its own, and looking at it. Reading order: this file, `fetch`, `bundle`, `watch`, `mark` (what a consumer has seen).

mod bundle;
pub mod fetch;
pub mod mark;
pub mod watch;

use super::prelude::*;
use crate::{
    engine::Issued,
    kv::{self, Select},
    mount::Kind,
    policy::Claim,
};
pub use mark::Mark;

/// Parts of one call.
pub const ITEMS_MAX: usize = crate::notice::ITEMS_MAX;

/// Every live token may ask for deliveries; each part is decided on its own. A `forbid` on `list` at this path closes the service.
fn counter() -> Result<Target, Failure> {
    let path = Path::parse("sys/delivery").map_err(|_| Reason::Internal)?;
    Ok(Target::own(Action::List, path))
}

/// A part that was decided, with the facts for its own record.
struct Part {
    trail: Trail,
    permit: Result<Permit, Failure>,
}

/// Decides one part, as the gate decides a request.
fn decide(permit: &Permit, of: &Trail, op: &'static str, action: Action, path: &Path, claim: Claim) -> Part {
    let mut trail = of.part(op);
    trail.path(path);
    let decision = permit.further(action, path, claim);
    trail.decided(crate::gate::run::decided(&decision));
    Part {
        trail,
        permit: decision.permit.map_err(Failure::from),
    }
}

/// What is asked for lies here, and takes this right to have.
fn right(rooms: &Open, path: &Path) -> Result<(Kind, Action), Failure> {
    Ok(match rooms.mounts.resolve(path)?.mount.kind() {
        // A key has nothing to deliver: it works where it is.
        Kind::Transit => return Err(Reason::Denied.into()),
        kind @ Kind::Kv => (kind, Action::Read),
        kind @ (Kind::Postgres | Kind::MariaDb | Kind::RabbitMq | Kind::Redis) => (kind, Action::Issue),
    })
}

/// The failure of a part, which says which: `PATH: ...`.
pub fn of_part(path: &Path, failure: Failure) -> Failure {
    Failure {
        message: format!("{path}: {}", failure.message).into(),
        ..failure
    }
}

/// Whether a failure is about one item of many, so that the others can go on.
pub fn concerns_one(failure: &Failure) -> bool {
    matches!(
        failure.reason,
        Reason::Denied
            | Reason::StepUpRequired
            | Reason::NotFound
            | Reason::NotPossible
            | Reason::TooLarge
            | Reason::Damaged
            | Reason::Malformed
            | Reason::Internal
    )
}

/// A secret's selected version.
async fn secret(rooms: &Open, permit: &Permit, path: &Path, select: &Select) -> Result<kv::Secret, Failure> {
    let place = rooms.mounts.resolve(path)?.of_kind(Kind::Kv)?;
    Ok(rooms.kv.get(permit, &place, select).await?)
}

/// A delivered part: what it is, and what is known of it.
#[derive(Debug)]
pub enum Goods {
    /// A version of a secret.
    Secret(kv::Secret),
    /// A credential: a new account under a lease, or an account's present password.
    Credential(Issued),
}

impl Goods {
    /// What a consumer that has this has seen.
    pub fn mark(&self) -> Mark {
        match self {
            Self::Secret(secret) => Mark::of_version(secret.version, secret.created),
            Self::Credential(Issued::Static { rotated, .. }) => Mark::of_rotation(*rotated),
            // Of no use to a watch, which looks at leases by their ids.
            Self::Credential(Issued::Dynamic { lease, .. }) => Mark::of_rotation(Some(lease.created)),
        }
    }

    /// Bytes of the values.
    fn bytes(&self) -> usize {
        match self {
            Self::Secret(secret) => secret
                .fields
                .expose()
                .map(|(name, value)| name.len() + value.len())
                .sum(),
            Self::Credential(Issued::Dynamic { fields, .. } | Issued::Static { fields, .. }) => {
                fields.iter().map(|(name, value)| name.len() + value.len()).sum()
            }
        }
    }
}
