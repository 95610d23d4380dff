//! Who may do what: policy documents in the store, the set in force in memory, and the only maker of [`Permit`].
//!
//! May touch: `base`, the policy crate, `store::View` and `store::Change`. It knows callers (made by the token room) and never tokens.
//! Reading order: [`caller`] (who asks), [`decide`] (the rules), [`permit`] (their proof), `force` (what is in force), `record` (bytes),
//! `documents` (reading and writing them).
//!
//! Rules, each held up by a test: deny wins, unknown means no, and an evaluation error is a no (the policy crate); while a listed
//! document is missing or damaged everything is refused but a recovery token, for policies and tokens only; a change is in force when its
//! commit is acknowledged, in commit order.

mod caller;
mod decide;
mod documents;
mod error;
mod force;
mod permit;
mod record;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub(crate) use caller::Standing;
pub use caller::{Bound, Caller, Identity, LogIn};
pub use decide::{Asked, Claim, Decision, Facts, Refusal};
pub use documents::{Explained, Policy, Whom};
pub use error::PolicyError;
pub use permit::{Mismatch, Permit};
pub use strongroom_policy::{Action, Peer, Principal, Purpose, needs_no_policy};

use crate::{
    base::{path::Path, time::Clock},
    store::{Change, Namespace, Store, Table, View},
};
use arc_swap::ArcSwap;
use force::InForce;
use std::{fmt, sync::Arc};

/// The facade of the room.
pub struct PolicyRoom {
    documents: View,
    manifest: View,
    clock: Arc<dyn Clock>,
    force: Arc<ArcSwap<InForce>>,
}

impl PolicyRoom {
    /// What `init` commits: an empty manifest, so that a missing one is noticed ever after.
    /// # Errors
    /// [`PolicyError::Encode`], which no known data cause.
    pub fn found(store: &Store) -> Result<Change, PolicyError> {
        documents::found(store)
    }

    /// Reads what is in force. Damage does not fail it: it refuses what it must, and says so in [`Self::damage`].
    /// # Errors
    /// The store cannot be read at all.
    pub async fn load(store: &Store, clock: Arc<dyn Clock>) -> Result<Self, PolicyError> {
        let documents = store.view(Namespace::ROOT, Table::Policy);
        let manifest = store.view(Namespace::ROOT, Table::PolicyManifest);
        let force = documents::load(&documents, &manifest).await?;
        Ok(Self {
            documents,
            manifest,
            clock,
            force: Arc::new(ArcSwap::from_pointee(force)),
        })
    }

    /// Whether `caller` may do `action` at `path` now, from `peer`. Never fails; every answer is for the audit record.
    pub fn decide(&self, caller: &Arc<Caller>, action: Action, path: &Path, claim: Claim, peer: Peer) -> Decision {
        let ask = decide::ask(caller, action, claim, peer, self.clock.now());
        self.force.load_full().decide(caller, ask, path)
    }

    /// Which set of policies is in force: SHA-256 over names, versions and texts.
    pub fn set_hash(&self) -> [u8; 32] {
        *self.force.load().set().hash()
    }

    /// What is wrong, for status and `doctor`: names of damaged documents; `None` in their place when the manifest itself is lost.
    /// Empty when all is well.
    pub fn damage(&self) -> Vec<Option<String>> {
        let force = self.force.load();
        force
            .list_lost
            .then_some(None)
            .into_iter()
            .chain(force.damaged.iter().cloned().map(Some))
            .collect()
    }
}

impl fmt::Debug for PolicyRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PolicyRoom")
    }
}
