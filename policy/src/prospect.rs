//! Who could: what the policies would say to a caller in circumstances that are not known (R-POL-2). Conditions that look at nothing but the caller and the path are
//! settled by Cedar; those that look at the call (address, time, transport, ...) are named, not guessed.

use std::collections::BTreeSet;
use std::sync::Arc;

use cedar_policy::{Authorizer, Effect, Policy, pst};

use crate::compile::{Compiled, Head};
use crate::limits::CANDIDATES_MAX;
use crate::request::{Binding, Context, Peer, Principal, Purpose, Request, looks_at_the_call, needs_of};
use crate::set::{PolicySet, is_path};
use crate::words::{Action, LANGUAGE};

/// A policy that counts, and on which condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// `name#id`.
    pub id: Arc<str>,
    /// Its `when` and `unless` as written; empty: it counts whatever the circumstances.
    pub condition: String,
}

/// What would be said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prospect {
    /// What would permit it.
    pub permits: Vec<Clause>,
    /// What would forbid it.
    pub forbids: Vec<Clause>,
    /// More than 64 policies match, or one of them fails whatever the circumstances: all is refused.
    pub refused: bool,
}

impl Prospect {
    /// Whether there are circumstances in which it could be allowed, as far as is known.
    #[must_use]
    pub fn could(&self) -> bool {
        !self.refused && !self.permits.is_empty() && self.forbids.iter().all(|forbid| !forbid.condition.is_empty())
    }

    /// Whether it is allowed in all circumstances.
    #[must_use]
    pub fn always(&self) -> bool {
        self.could() && self.forbids.is_empty() && self.permits.iter().any(|permit| permit.condition.is_empty())
    }
}

/// Circumstances that no settled condition looks at.
const ANY_CALL: Context = Context {
    own: false,
    peer: Peer::Unix,
    now_unix_secs: 0,
    purpose: Purpose::Session,
    token_age_secs: 0,
    binding: Binding::None,
    strength: 1,
};

impl PolicySet {
    /// What `principal` could do. `known`: its attributes are all there; else conditions that look at the principal stay open too.
    #[must_use]
    pub fn prospect(&self, principal: &Principal, known: bool, action: Action, path: &str) -> Prospect {
        let request = Request {
            principal,
            action,
            path,
            context: &ANY_CALL,
        };
        let mut prospect = Prospect::default();
        if !is_path(path) {
            return prospect;
        }
        for (index, policy) in self.candidates(&request).enumerate() {
            if index >= CANDIDATES_MAX {
                prospect.refused = true;
                return prospect;
            }
            let clause = match settle(policy, &request, known) {
                Settled::Counts => String::new(),
                Settled::Not => continue,
                Settled::Fails => {
                    prospect.refused = true;
                    continue;
                }
                Settled::If(condition) => condition.to_owned(),
            };
            let list = match policy.effect {
                Effect::Permit => &mut prospect.permits,
                Effect::Forbid => &mut prospect.forbids,
            };
            list.push(Clause {
                id: policy.id.clone(),
                condition: clause,
            });
        }
        prospect
    }

    /// Groups, and ids of identities, that policies which permit `action` on `path` name: whoever is or gets one of them could.
    #[must_use]
    pub fn named_by(&self, action: Action, path: &str) -> (BTreeSet<String>, BTreeSet<String>) {
        let (mut groups, mut ids) = (BTreeSet::new(), BTreeSet::new());
        let Ok(nobody) = Principal::new([0; 16], "nobody", BTreeSet::new(), std::collections::BTreeMap::new()) else {
            return (groups, ids);
        };
        let request = Request {
            principal: &nobody,
            action,
            path,
            context: &ANY_CALL,
        };
        if !is_path(path) {
            return (groups, ids);
        }
        for policy in self.reaching(&request).filter(|policy| policy.effect == Effect::Permit) {
            let (Head::Is(uid) | Head::In(uid)) = &policy.principal else {
                continue;
            };
            let named = uid.id().unescaped().to_owned();
            if *uid.type_name() == LANGUAGE.group {
                groups.insert(named);
            } else {
                ids.insert(named);
            }
        }
        (groups, ids)
    }
}

enum Settled<'a> {
    Counts,
    Not,
    Fails,
    If(&'a str),
}

fn settle<'a>(policy: &'a Compiled, request: &Request<'_>, known: bool) -> Settled<'a> {
    let Some(condition) = &policy.condition else {
        return Settled::Counts;
    };
    if is_open(condition.needs, &condition.text, known) {
        return match never(&condition.alone, request, known) {
            true => Settled::Not,
            false => Settled::If(&condition.text),
        };
    }
    match evaluate(&condition.alone, condition.needs, request) {
        None => Settled::Fails,
        Some(true) => Settled::Counts,
        Some(false) => Settled::Not,
    }
}

/// Whether it depends on what is not known. Where the word does not stand, the principal is not looked at.
fn is_open(needs: u16, text: &str, known: bool) -> bool {
    looks_at_the_call(needs) || (!known && text.contains("principal"))
}

/// Whether the policy applies; `None`: it cannot be evaluated.
fn evaluate(alone: &cedar_policy::PolicySet, needs: u16, request: &Request<'_>) -> Option<bool> {
    let (asked, entities) = request.express(needs)?;
    let response = Authorizer::new().is_authorized(&asked, alone, &entities);
    match response.diagnostics().errors().next() {
        Some(_) => None,
        None => Some(response.diagnostics().reason().next().is_some()),
    }
}

/// Whether a part of the condition that is known keeps the policy from applying whatever the rest is: a term of a `when { a && b }` that is
/// false, or of an `unless { a || b }` that is true. A term that fails alone may be guarded by another, and says nothing.
fn never(alone: &cedar_policy::PolicySet, request: &Request<'_>, known: bool) -> bool {
    let Some(policy) = alone.policies().next().and_then(|policy| policy.to_pst().ok()) else {
        return false;
    };
    let body = policy.body();
    body.clauses().iter().flat_map(terms).any(|term| {
        let text = term.to_string();
        let needs = needs_of(&text);
        if is_open(needs, &text, known) {
            return false;
        }
        let single = || {
            let single = body.clone().try_with_clauses(vec![term]).ok()?;
            let policy = Policy::from_pst(pst::StaticPolicy::try_from(single).ok()?.into()).ok()?;
            evaluate(&cedar_policy::PolicySet::from_policies([policy]).ok()?, needs, request)
        };
        single() == Some(false)
    })
}

/// A clause as several that all must hold.
fn terms(clause: &pst::Clause) -> Vec<pst::Clause> {
    let (whole, joint) = match clause {
        pst::Clause::When(whole) => (whole, pst::BinaryOp::And),
        pst::Clause::Unless(whole) => (whole, pst::BinaryOp::Or),
    };
    let (mut open, mut terms) = (vec![whole.clone()], Vec::new());
    while let Some(term) = open.pop() {
        match (&*term, clause) {
            (pst::Expr::BinaryOp { op, left, right }, _) if *op == joint => open.extend([left.clone(), right.clone()]),
            (_, pst::Clause::When(_)) => terms.push(pst::Clause::When(term)),
            (_, pst::Clause::Unless(_)) => terms.push(pst::Clause::Unless(term)),
        }
    }
    terms
}
