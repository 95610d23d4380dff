//! What no document gives: the powers of the tokens of `init` and of `operator recover`, and acts on what is one's own.

use std::sync::Arc;

use crate::request::{Purpose, Request};
use crate::set::{Decision, PolicySet, Reason};
use crate::step_up::StepUps;
use crate::words::Action;

impl PolicySet {
    /// The whole of who may do what, while no document is damaged:
    /// a recovery token: policies, trusts and tokens, whatever the documents say (it is the way back when they refuse everyone);
    /// any other: what the documents say; and where they say neither yes nor no, a set-up token may do everything, and everybody some
    /// acts on what is their own.
    #[must_use]
    pub fn weigh(&self, request: &Request<'_>) -> Decision {
        if request.context.purpose == Purpose::Recover {
            return match recovers(request.action) {
                true => Decision::builtin("builtin:recover", 0),
                false => Decision::refused(Reason::BeyondRecovery, 0),
            };
        }
        let said = self.decide(request);
        match said.reason {
            Reason::NoPermit if request.context.purpose == Purpose::Setup => {
                Decision::builtin("builtin:setup", said.considered)
            }
            Reason::NoPermit if request.has_a_power() => Decision::builtin("builtin:own", said.considered),
            _ => said,
        }
    }
}

impl Request<'_> {
    /// Whether it is allowed where documents say neither yes nor no.
    pub(crate) fn has_a_power(&self) -> bool {
        self.context.purpose == Purpose::Setup || (self.context.own && needs_no_policy(self.action))
    }
}

impl Decision {
    fn builtin(power: &'static str, considered: u32) -> Self {
        Decision {
            allowed: true,
            reason: Reason::Permitted,
            deciding: vec![Arc::from(power)],
            errors: Vec::new(),
            considered,
            step_up: StepUps::default(),
        }
    }
}

/// What a token of `operator recover` may do: write policies and trusts and hand out tokens again, nothing else.
const fn recovers(action: Action) -> bool {
    use Action::*;
    match action {
        PolicyRead | PolicyWrite | TokenCreate | TokenRead | TokenRenew | TokenRevoke | TrustRead | TrustWrite => true,
        Read | Write | Delete | Undelete | Destroy | List | Metadata | Issue | Rotate | LeaseRead | Renew | Revoke
        | MountRead | MountWrite | RoleRead | RoleWrite | AuditRead | Seal | SlotRead | SlotWrite | KeyRotate
        | TimeConfirm | LogIn | Encrypt | Decrypt | Rewrap | Sign | Verify => false,
    }
}

/// What needs no permit where it concerns what is the caller's own: its token (and tokens made from it), its leases, the names of the
/// mounts it may see, and what policies say about itself; and a log-in, which proves itself.
#[must_use]
pub const fn needs_no_policy(action: Action) -> bool {
    use Action::*;
    match action {
        TokenCreate | TokenRead | TokenRenew | TokenRevoke | LeaseRead | Renew | Revoke | List | PolicyRead | LogIn => {
            true
        }
        Read | Write | Delete | Undelete | Destroy | Metadata | Issue | Rotate | MountRead | MountWrite | RoleRead
        | RoleWrite | PolicyWrite | AuditRead | Seal | SlotRead | SlotWrite | KeyRotate | TimeConfirm | TrustRead
        | TrustWrite | Encrypt | Decrypt | Rewrap | Sign | Verify => false,
    }
}
