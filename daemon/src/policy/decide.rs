//! One question to the policies, and the powers that no document gives: set-up, recovery, and what is one's own.

use super::{caller::Caller, force::InForce, permit::Permit};
use crate::base::path::Path;
use std::{fmt, sync::Arc};
use strongroom_policy::{Action, Context, Peer, Principal, Purpose, Reason, Request};

/// How a caller comes to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// As anybody: a policy must permit it.
    Policy,
    /// The lease or token acted upon is the caller's own, which the asking room has established. Some actions then need no permit
    /// ([`needs_no_policy`]); a `forbid` still wins.
    Own,
}

/// The caller's side of a question.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub principal: Arc<Principal>,
    pub action: Action,
    pub claim: Claim,
    pub context: Context,
}

/// The answer to one question, with what the audit record says about it.
#[derive(Debug)]
pub struct Decision {
    /// Leave, or why not.
    pub permit: Result<Permit, Refusal>,
    /// Facts for the audit record.
    pub facts: Facts,
}

/// Why there is no permit. For the log; callers hear "permission denied", or that policies are damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The policies say no.
    Policy(Reason),
    /// A listed policy document (or the list) is missing or does not open, so nobody knows what is forbidden: everything but the
    /// recovery token is refused until it is written again.
    Damaged,
    /// A recovery token is for policies and tokens only.
    BeyondRecovery,
}

impl Refusal {
    /// A fixed word for audit records and errors.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Policy(Reason::Forbidden) => "forbidden",
            Self::Policy(Reason::Error) => "policy-error",
            Self::Policy(Reason::TooManyPolicies) => "too-many-policies",
            Self::Policy(Reason::NotARequest) => "not-a-request",
            Self::Policy(Reason::NoPermit | Reason::Permitted) => "no-permit",
            Self::Damaged => "policies-damaged",
            Self::BeyondRecovery => "beyond-recovery",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(reason) => fmt::Display::fmt(reason, f),
            Self::Damaged => f.write_str("a stored policy is missing or damaged: everything is refused until it is written again with a recovery token"),
            Self::BeyondRecovery => f.write_str("a recovery token is for policies and tokens only"),
        }
    }
}

/// What decided. Goes into the audit record, so that a change of policy can be replayed over the past (R-POL-2).
#[derive(Debug, Clone)]
pub struct Facts {
    /// Which set of policies decided: SHA-256 over names, versions and texts.
    pub set_hash: [u8; 32],
    /// Ids of the policies that decided, `name#id`; a power that no document gives reads `builtin:setup`, `builtin:recover` or
    /// `builtin:own`.
    pub deciding: Vec<Arc<str>>,
    /// What went wrong in evaluating; not empty means refused.
    pub errors: Vec<String>,
    /// How many policies were looked at.
    pub considered: u32,
    /// The outcome as a fixed word: `permitted`, or [`Refusal::code`].
    pub outcome: &'static str,
}

/// As [`strongroom_policy::Decision`], with the powers of the token added.
pub(super) struct Verdict {
    pub allowed: bool,
    pub refusal: Refusal,
    pub deciding: Vec<Arc<str>>,
    pub errors: Vec<String>,
    pub considered: u32,
}

impl Verdict {
    fn builtin(power: &'static str) -> Self {
        Self {
            allowed: true,
            refusal: Refusal::Policy(Reason::Permitted),
            deciding: vec![power.into()],
            errors: Vec::new(),
            considered: 0,
        }
    }
    fn refused(refusal: Refusal) -> Self {
        Self {
            allowed: false,
            refusal,
            deciding: Vec::new(),
            errors: Vec::new(),
            considered: 0,
        }
    }
}

impl InForce {
    /// The whole of who may do what:
    /// a recovery token: policies and tokens, whatever the documents say or how they fare (it is the way back when they refuse everyone);
    /// any other: nothing while a document is damaged; then what the documents say; and where they say neither yes nor no, a set-up
    /// token may do everything, and everybody some acts on what is their own.
    pub(super) fn weigh(&self, ask: &Ask, path: &str) -> Verdict {
        if ask.context.purpose == Purpose::Recover {
            return if recovers(ask.action) {
                Verdict::builtin("builtin:recover")
            } else {
                Verdict::refused(Refusal::BeyondRecovery)
            };
        }
        if self.is_damaged() {
            return Verdict::refused(Refusal::Damaged);
        }
        let context = Context {
            own: ask.claim == Claim::Own,
            ..ask.context
        };
        let said = self.set().decide(&Request {
            principal: &ask.principal,
            action: ask.action,
            path,
            context: &context,
        });
        if !said.allowed && said.reason == Reason::NoPermit {
            if ask.context.purpose == Purpose::Setup {
                return Verdict {
                    considered: said.considered,
                    ..Verdict::builtin("builtin:setup")
                };
            }
            if ask.claim == Claim::Own && needs_no_policy(ask.action) {
                return Verdict {
                    considered: said.considered,
                    ..Verdict::builtin("builtin:own")
                };
            }
        }
        Verdict {
            allowed: said.allowed,
            refusal: Refusal::Policy(said.reason),
            deciding: said.deciding,
            errors: said.errors,
            considered: said.considered,
        }
    }

    /// [`Self::weigh`] for a caller, with the permit.
    pub(super) fn decide(self: &Arc<Self>, caller: &Arc<Caller>, ask: Ask, path: &Path) -> Decision {
        let verdict = self.weigh(&ask, path.as_str());
        let facts = Facts {
            set_hash: *self.set().hash(),
            deciding: verdict.deciding,
            errors: verdict.errors,
            considered: verdict.considered,
            outcome: if verdict.allowed {
                "permitted"
            } else {
                verdict.refusal.code()
            },
        };
        let permit = match verdict.allowed {
            true => Ok(Permit {
                caller: caller.clone(),
                ask,
                path: path.clone(),
                force: self.clone(),
            }),
            false => Err(verdict.refusal),
        };
        Decision { permit, facts }
    }
}

/// What a token of `operator recover` may do: write policies and trusts and hand out tokens again, nothing else.
const fn recovers(action: Action) -> bool {
    use Action::*;
    match action {
        PolicyRead | PolicyWrite | TokenCreate | TokenRead | TokenRenew | TokenRevoke | TrustRead | TrustWrite => true,
        Read | Write | Delete | Undelete | Destroy | List | Metadata | Issue | Rotate | LeaseRead | Renew | Revoke
        | MountRead | MountWrite | RoleRead | RoleWrite | AuditRead | Seal | SlotRead | SlotWrite | KeyRotate
        | TimeConfirm | LogIn => false,
    }
}

/// What needs no permit where it concerns what is the caller's own: its token (and tokens made from it), its leases, the names of the
/// mounts it may see, and what policies say about itself; and a log-in, which proves itself.
pub const fn needs_no_policy(action: Action) -> bool {
    use Action::*;
    match action {
        TokenCreate | TokenRead | TokenRenew | TokenRevoke | LeaseRead | Renew | Revoke | List | PolicyRead | LogIn => {
            true
        }
        Read | Write | Delete | Undelete | Destroy | Metadata | Issue | Rotate | MountRead | MountWrite | RoleRead
        | RoleWrite | PolicyWrite | AuditRead | Seal | SlotRead | SlotWrite | KeyRotate | TimeConfirm | TrustRead
        | TrustWrite => false,
    }
}

/// The circumstances of `caller`'s call.
pub(super) fn ask(caller: &Caller, action: Action, claim: Claim, peer: Peer, now: crate::base::time::Timestamp) -> Ask {
    let context = Context {
        own: claim == Claim::Own,
        peer,
        now_unix_secs: i64::try_from(now.0 / 1000).unwrap_or(i64::MAX),
        purpose: caller.purpose(),
        token_age_secs: caller.issued().secs_until(now),
    };
    Ask {
        principal: caller.identity().principal(),
        action,
        claim,
        context,
    }
}
