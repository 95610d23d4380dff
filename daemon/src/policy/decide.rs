//! One question to the policies, and the powers that no document gives: set-up, recovery, and what is one's own.

use super::{
    caller::{Bound, Caller},
    force::InForce,
    permit::Permit,
};
use crate::base::path::Path;
use std::{fmt, sync::Arc};
use strongroom_policy::{
    Action, Binding, Context, Decision as Verdict, Peer, Principal, Purpose, Reason, Request, StepUps,
};

/// The attribute in which log-ins say their method.
const METHOD: &str = "login:method";

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
    /// They say no until the caller has logged in in such a way.
    StepUp(StepUps),
    /// A listed policy document (or the list) is missing or does not open, so nobody knows what is forbidden: everything but the
    /// recovery token is refused until it is written again.
    Damaged,
}

impl Refusal {
    /// A fixed word for audit records and errors.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Policy(Reason::Forbidden) => "forbidden",
            Self::Policy(Reason::Error) => "policy-error",
            Self::Policy(Reason::TooManyPolicies) => "too-many-policies",
            Self::Policy(Reason::BeyondRecovery) => "beyond-recovery",
            Self::Policy(Reason::NotARequest) => "not-a-request",
            Self::Policy(Reason::NoPermit | Reason::Permitted) => "no-permit",
            Self::StepUp(_) => "step-up",
            Self::Damaged => "policies-damaged",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(reason) => fmt::Display::fmt(reason, f),
            Self::StepUp(needs) => fmt::Display::fmt(needs, f),
            Self::Damaged => f.write_str("a stored policy is missing or damaged: everything is refused until it is written again with a recovery token"),
        }
    }
}

/// A question as policies saw it, but for the principal, the path, and where and when it came.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// The action's word.
    pub action: &'static str,
    /// As an act on one's own.
    pub own: bool,
    /// The token's purpose.
    pub purpose: &'static str,
    /// The token's age, in seconds.
    pub age_secs: u64,
    /// The key that the token is bound to.
    pub binding: &'static str,
    /// How surely it is who it says.
    pub strength: u8,
}

impl Asked {
    fn of(ask: &Ask) -> Self {
        Self {
            action: ask.action.as_str(),
            own: ask.claim == Claim::Own,
            purpose: ask.context.purpose.as_str(),
            age_secs: ask.context.token_age_secs,
            binding: ask.context.binding.as_str(),
            strength: ask.context.strength,
        }
    }
}

/// What decided. Goes into the audit record, so that a change of policy can be replayed over the past (R-POL-2).
#[derive(Debug, Clone)]
pub struct Facts {
    /// Which set of policies decided: SHA-256 over names, versions and texts.
    pub set_hash: [u8; 32],
    /// What was asked, for the same end.
    pub asked: Asked,
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

impl InForce {
    /// What the policy crate weighs, and nothing while a document is damaged, except with a recovery token.
    pub(super) fn weigh(&self, ask: &Ask, path: &str) -> Result<Verdict, Refusal> {
        if self.is_damaged() && ask.context.purpose != Purpose::Recover {
            return Err(Refusal::Damaged);
        }
        let context = Context {
            own: ask.claim == Claim::Own,
            ..ask.context
        };
        Ok(self.set().weigh(&Request {
            principal: &ask.principal,
            action: ask.action,
            path,
            context: &context,
        }))
    }

    /// [`Self::weigh`] for a caller, with the permit.
    pub(super) fn decide(self: &Arc<Self>, caller: &Arc<Caller>, ask: Ask, path: &Path) -> Decision {
        let (verdict, refusal) = match self.weigh(&ask, path.as_str()) {
            Ok(verdict) if verdict.allowed => (verdict, None),
            Ok(verdict) => {
                let refusal = match verdict.step_up {
                    none if none.is_empty() => Refusal::Policy(verdict.reason),
                    needs => Refusal::StepUp(needs),
                };
                (verdict, Some(refusal))
            }
            Err(refusal) => (Verdict::default(), Some(refusal)),
        };
        let facts = Facts {
            set_hash: *self.set().hash(),
            asked: Asked::of(&ask),
            deciding: verdict.deciding,
            errors: verdict.errors,
            considered: verdict.considered,
            outcome: refusal.map_or("permitted", Refusal::code),
        };
        let permit = match refusal {
            None => Ok(Permit {
                caller: caller.clone(),
                ask,
                path: path.clone(),
                force: self.clone(),
            }),
            Some(refusal) => Err(refusal),
        };
        Decision { permit, facts }
    }
}

/// The circumstances of `caller`'s call.
pub(super) fn ask(caller: &Caller, action: Action, claim: Claim, peer: Peer, now: crate::base::time::Timestamp) -> Ask {
    let context = Context {
        own: claim == Claim::Own,
        peer,
        now_unix_secs: i64::try_from(now.0 / 1000).unwrap_or(i64::MAX),
        purpose: caller.purpose(),
        token_age_secs: caller.proved().secs_until(now),
        binding: match caller.log_in().and_then(|log_in| log_in.bound) {
            None => Binding::None,
            Some(Bound::Certificate(_)) => Binding::Certificate,
            Some(Bound::Key(_)) => Binding::Key,
        },
        strength: strength(caller),
    };
    Ask {
        principal: caller.identity().principal(),
        action,
        claim,
        context,
    }
}

/// See `auth_strength` in the schema. An app role's secret can be copied like a token; what others vouch for is more; a certified key is most. A key
/// that the caller chose itself proves possession (`token_binding`), and nothing of who it is.
fn strength(caller: &Caller) -> u8 {
    if caller.log_in().is_none() {
        return 1;
    }
    let principal = caller.identity().principal();
    match principal.attributes().get(METHOD).map(String::as_str) {
        None | Some("role") => 1,
        Some("certificate") => 3,
        Some(_) => 2,
    }
}
