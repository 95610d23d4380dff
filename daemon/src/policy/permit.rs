//! The proof that a decision was taken.

use super::{
    caller::Caller,
    decide::{Ask, Claim, Decision},
    force::InForce,
};
use crate::base::{
    id::{Accessor, IdentityId, SessionId},
    path::Path,
};
use std::{fmt, sync::Arc};
use strongroom_policy::{Action, Principal};

/// Leave to do one action at one path, once, under the policies that were in force. Only [`PolicyRoom`](super::PolicyRoom) makes one;
/// rooms and engines take it, so that nothing can be done that was not decided (R-POL-1).
pub struct Permit {
    pub(super) caller: Arc<Caller>,
    pub(super) ask: Ask,
    pub(super) path: Path,
    pub(super) force: Arc<InForce>,
}

/// A permit was used for something else than it was given for: a mistake in the program, refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the permit is for another action or path")]
pub struct Mismatch;

impl Permit {
    /// Who may.
    pub fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }
    /// The identity as it was when it was decided.
    pub fn principal(&self) -> &Arc<Principal> {
        &self.ask.principal
    }
    /// The identity's id.
    pub fn identity(&self) -> IdentityId {
        self.caller.identity().id()
    }
    /// The log-in that the token came from.
    pub fn session(&self) -> SessionId {
        self.caller.session()
    }
    /// The token's public handle.
    pub fn accessor(&self) -> Accessor {
        self.caller.accessor()
    }
    /// What may be done.
    pub fn action(&self) -> Action {
        self.ask.action
    }
    /// Where: the full canonical path, mount included.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// Whether it was asked as an act on what is the caller's own.
    pub fn own(&self) -> bool {
        self.ask.claim == Claim::Own
    }

    /// Whether the same caller, in the same call, under the same policies, may also do `action` at `path`: what listings filter by, and
    /// what a call that touches several things asks. Never as an act on something owned.
    pub fn also(&self, action: Action, path: &Path) -> bool {
        let ask = Ask {
            action,
            claim: Claim::Policy,
            ..self.ask.clone()
        };
        self.force
            .weigh(&ask, path.as_str())
            .is_ok_and(|verdict| verdict.allowed)
    }

    /// Another permit for the same caller, in the same call, under the same policies: for a call that does several things, each decided on
    /// its own and recorded with what decided it.
    pub fn further(&self, action: Action, path: &Path, claim: Claim) -> Decision {
        let ask = Ask {
            action,
            claim,
            ..self.ask.clone()
        };
        self.force.decide(&self.caller, ask, path)
    }

    /// That this permit is for `action` at `path`, given by a policy (or a set-up or recovery token), not for an act on one's own.
    /// # Errors
    /// [`Mismatch`].
    pub fn covers(&self, action: Action, path: &Path) -> Result<(), Mismatch> {
        if self.own() {
            Err(Mismatch)
        } else {
            self.covers_own(action, path)
        }
    }

    /// That this permit is for `action` at `path`, be it as anybody or as an act on one's own: for rooms that know whose a thing is.
    /// # Errors
    /// [`Mismatch`].
    pub fn covers_own(&self, action: Action, path: &Path) -> Result<(), Mismatch> {
        if self.ask.action == action && self.path == *path {
            Ok(())
        } else {
            Err(Mismatch)
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Permit({} {} for {:?})",
            self.ask.action,
            self.path,
            self.caller.identity()
        )
    }
}
