//! A validated Cedar policy, taken apart once for all decisions: its scope for the index, its condition
//! for Cedar.

use std::sync::Arc;

use cedar_policy::pst;
use cedar_policy::{ActionConstraint, Effect, EntityUid, Policy, PolicySet, PrincipalConstraint, ResourceConstraint};

use crate::request::needs_of;
use crate::step_up::StepUps;
use crate::words::actions_of;

/// One Cedar policy.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub id: Arc<str>,
    pub effect: Effect,
    /// Of a `forbid`: what would let the caller through.
    pub step_up: Option<StepUps>,
    /// The actions it can apply to, a bit each.
    pub actions: u64,
    pub principal: Head,
    pub resource: Head,
    /// Its `when` and `unless`; without, a scope that matches is all there is to it.
    pub condition: Option<Condition>,
}

/// What a scope says about the principal or the resource.
#[derive(Debug)]
pub(crate) enum Head {
    /// Nothing: it can match anything.
    Any,
    /// Exactly this entity.
    Is(EntityUid),
    /// This entity or what is in it.
    In(EntityUid),
}

/// The conditions of a policy.
#[derive(Debug)]
pub(crate) struct Condition {
    /// What it can look at, as [`needs_of`] has it.
    pub needs: u16,
    /// As it is written, for people.
    pub text: Box<str>,
    /// The policy with an open scope, alone in a set: it is evaluated by itself, so that a failure of
    /// one is seen as such, and after its scope has matched, so that only the condition is left.
    pub alone: PolicySet,
}

/// What Cedar says went wrong.
type Failure = Box<dyn miette::Diagnostic + Send + Sync>;

/// Takes a policy apart.
/// # Errors
/// Cedar cannot put the parts together again; no valid policy is known to cause it.
pub(crate) fn compile(policy: &Policy) -> Result<Compiled, Failure> {
    Ok(Compiled {
        id: policy.id().to_string().into(),
        effect: policy.effect(),
        step_up: StepUps::of(policy).ok().flatten(),
        actions: match policy.action_constraint() {
            ActionConstraint::Any => u64::MAX,
            ActionConstraint::Eq(action) => actions_of(&action),
            ActionConstraint::In(list) => list.iter().fold(0, |set, action| set | actions_of(action)),
        },
        // Every principal is an identity and every resource a path: the validator refuses an `is` of
        // anything else as impossible.
        principal: match policy.principal_constraint() {
            PrincipalConstraint::Any | PrincipalConstraint::Is(_) => Head::Any,
            PrincipalConstraint::Eq(uid) => Head::Is(uid),
            PrincipalConstraint::In(uid) | PrincipalConstraint::IsIn(_, uid) => Head::In(uid),
        },
        resource: match policy.resource_constraint() {
            ResourceConstraint::Any | ResourceConstraint::Is(_) => Head::Any,
            ResourceConstraint::Eq(uid) => Head::Is(uid),
            ResourceConstraint::In(uid) | ResourceConstraint::IsIn(_, uid) => Head::In(uid),
        },
        condition: if policy.has_non_scope_constraint() {
            Some(condition(policy)?)
        } else {
            None
        },
    })
}

fn condition(policy: &Policy) -> Result<Condition, Failure> {
    let mut open = policy.to_pst()?.body().clone();
    let clauses: Vec<_> = open.clauses().iter().map(ToString::to_string).collect();
    let needs = clauses.iter().fold(0, |needs, clause| needs | needs_of(clause));
    open.principal = pst::PrincipalConstraint::Any;
    open.action = pst::ActionConstraint::Any;
    open.resource = pst::ResourceConstraint::Any;
    let open = Policy::from_pst(pst::StaticPolicy::try_from(open)?.into())?;
    Ok(Condition {
        needs,
        text: clauses.join(" ").into(),
        alone: PolicySet::from_policies([open])?,
    })
}
