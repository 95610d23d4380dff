//! Documents to decisions: an immutable set behind a slice index.
//!
//! Cedar is linear in its policies (4 us for one, 83 us for 100), so a decision looks only at those
//! whose scope can match. Leaving out the others is sound because a policy whose scope does not match
//! contributes nothing, and the order of policies means nothing in Cedar. Matching a scope is exact, so
//! Cedar evaluates only conditions, one policy at a time, so that one that fails is seen to fail.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use cedar_policy::{Authorizer, Effect};
use sha2::{Digest, Sha256};

use crate::check::{Checked, check, short};
use crate::compile::{Compiled, Head};
use crate::error::BuildError;
use crate::limits::{CANDIDATES_MAX, DOCUMENTS_MAX, POLICIES_MAX};
use crate::request::Request;
use crate::step_up::StepUps;
use crate::words::{LANGUAGE, ROOT, canonical};

/// All policies in force. Immutable: a change makes a new set, so a decision sees one version whole.
#[derive(Clone, Debug)]
pub struct PolicySet {
    documents: BTreeMap<String, (u64, Checked)>,
    /// The path of the scope -> policies. Those without one are at the root, which is above all.
    by_path: HashMap<String, Vec<Arc<Compiled>>>,
    hash: [u8; 32],
}

impl PolicySet {
    /// Checks and compiles documents `(name, version, text)`, in any order.
    /// # Errors
    /// Any document that is not valid fails the whole set: what it holds may be the `forbid`.
    pub fn build<N, T>(documents: impl IntoIterator<Item = (N, u64, T)>) -> Result<Self, BuildError>
    where
        N: AsRef<str>,
        T: AsRef<str>,
    {
        let mut checked = Vec::new();
        for (name, version, text) in documents {
            let name = name.as_ref();
            let document = check(name, text.as_ref()).map_err(|problems| BuildError::Invalid {
                name: name.to_owned(),
                problems,
            })?;
            checked.push((version, document));
        }
        Self::assemble(checked)
    }

    /// This set with `document` added, or in the place of its namesake.
    /// # Errors
    /// The set would be too large.
    pub fn with(&self, version: u64, document: Checked) -> Result<Self, BuildError> {
        let others = self.documents.iter().filter(|(name, _)| *name != document.name());
        let others: Vec<_> = others.map(|(_, kept)| kept.clone()).collect();
        Self::assemble(others.into_iter().chain([(version, document)]))
    }

    /// This set without the document `name`, if it has one.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        let mut documents = self.documents.clone();
        documents.remove(name);
        Self::index(documents)
    }

    /// From documents that are checked already.
    pub(crate) fn assemble(checked: impl IntoIterator<Item = (u64, Checked)>) -> Result<Self, BuildError> {
        let mut documents = BTreeMap::new();
        let mut policies = 0;
        for (version, document) in checked {
            policies += document.policies.len();
            let name = document.name().to_owned();
            if documents.insert(name.clone(), (version, document)).is_some() {
                return Err(BuildError::Twice(name));
            }
            if documents.len() > DOCUMENTS_MAX {
                return Err(BuildError::TooManyDocuments);
            }
            if policies > POLICIES_MAX {
                return Err(BuildError::TooManyPolicies);
            }
        }
        Ok(Self::index(documents))
    }

    fn index(documents: BTreeMap<String, (u64, Checked)>) -> Self {
        let mut by_path: HashMap<String, Vec<Arc<Compiled>>> = HashMap::new();
        let mut hash = Sha256::new_with_prefix(b"strongroom policy set 1");
        for (name, (version, document)) in &documents {
            hash.update(u64::try_from(name.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(name);
            hash.update(version.to_be_bytes());
            hash.update(document.text_hash());
            for policy in document.policies.iter() {
                let path = match &policy.resource {
                    Head::Is(uid) | Head::In(uid) if *uid.type_name() == LANGUAGE.path => uid.id().unescaped(),
                    Head::Any | Head::Is(_) | Head::In(_) => ROOT,
                };
                by_path.entry(path.to_owned()).or_default().push(policy.clone());
            }
        }
        PolicySet {
            documents,
            by_path,
            hash: hash.finalize().into(),
        }
    }

    /// SHA-256 over names, versions and texts: which set decided, for audit records.
    #[must_use]
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// Names and versions of the documents, in order of name.
    pub fn documents(&self) -> impl Iterator<Item = (&str, u64)> {
        self.documents
            .iter()
            .map(|(name, (version, _))| (name.as_str(), *version))
    }

    /// Decides. Never fails: what cannot be decided is refused, with the reason.
    #[must_use]
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        if !is_path(request.path) {
            return Decision::refused(Reason::NotARequest, 0);
        }
        let candidates: Vec<&Compiled> = self.candidates(request).take(CANDIDATES_MAX + 1).collect();
        let considered = u32::try_from(candidates.len()).unwrap_or(u32::MAX);
        if candidates.is_empty() {
            return Decision::refused(Reason::NoPermit, 0);
        }
        if candidates.len() > CANDIDATES_MAX {
            return Decision::refused(Reason::TooManyPolicies, considered);
        }
        let (mut permits, mut forbids, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        let mut step_ups = Some(StepUps::default());
        let conditions = candidates.iter().filter_map(|policy| policy.condition.as_ref());
        let needs = conditions
            .map(|condition| condition.needs)
            .reduce(|all, needs| all | needs);
        let cedar = needs.and_then(|needs| request.express(needs));
        for policy in candidates {
            let applies = match (&policy.condition, &cedar) {
                (None, _) => true,
                (Some(_), None) => return Decision::refused(Reason::NotARequest, considered),
                (Some(condition), Some((request, entities))) => {
                    let response = Authorizer::new().is_authorized(request, &condition.alone, entities);
                    errors.extend(response.diagnostics().errors().map(|error| short(&error.to_string())));
                    response.diagnostics().reason().next().is_some()
                }
            };
            match (applies, policy.effect) {
                (false, _) => {}
                (true, Effect::Permit) => permits.push(policy.id.clone()),
                (true, Effect::Forbid) => {
                    // One that asks for nothing cannot be satisfied, whatever the others ask.
                    step_ups = step_ups.zip(policy.step_up).map(|(all, one)| all.and(one));
                    forbids.push(policy.id.clone());
                }
            }
        }
        // Without these forbids it would be allowed: told only then.
        let otherwise = errors.is_empty() && (!permits.is_empty() || request.has_a_power());
        let mut decision = Decision::weigh(permits, forbids, errors, considered);
        if decision.reason == Reason::Forbidden && otherwise {
            decision.step_up = step_ups.unwrap_or_default();
        }
        decision
    }

    /// The policies whose scope matches.
    pub(crate) fn candidates<'a>(&'a self, request: &'a Request<'_>) -> impl Iterator<Item = &'a Compiled> {
        let principal = request.principal;
        self.reaching(request).filter(|policy| match &policy.principal {
            Head::Any => true,
            Head::Is(uid) => *uid == principal.uid,
            Head::In(uid) => *uid == principal.uid || principal.parents.contains(uid),
        })
    }

    /// The policies whose scope matches in action and path, whoever asks.
    pub(crate) fn reaching<'a>(&'a self, request: &'a Request<'_>) -> impl Iterator<Item = &'a Compiled> {
        let at = |prefix: &'a str| {
            let whole = prefix == request.path;
            let policies = self.by_path.get(prefix).map(Vec::as_slice).unwrap_or_default();
            policies
                .iter()
                .map(Arc::as_ref)
                .filter(move |policy| whole || !matches!(policy.resource, Head::Is(_)))
        };
        request
            .prefixes()
            .flat_map(at)
            .filter(|policy| policy.actions & request.action.bit() != 0)
    }
}

/// Whether anything can be asked about this path.
pub(crate) fn is_path(path: &str) -> bool {
    path == ROOT || canonical(path).is_ok()
}

/// No policies: everything is refused.
impl Default for PolicySet {
    fn default() -> Self {
        Self::index(BTreeMap::new())
    }
}

/// Why a decision is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A permit applied, and no forbid.
    Permitted,
    /// A forbid applied.
    Forbidden,
    /// No permit applied.
    NoPermit,
    /// A policy could not be evaluated, and it could have been the forbid.
    Error,
    /// More than 64 policies have a scope that matches.
    TooManyPolicies,
    /// The path is not canonical, or the clock is beyond what a policy can be asked about.
    NotARequest,
    /// A token of `operator recover` is for policies, trusts and tokens only.
    BeyondRecovery,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Permitted => "a policy permits it and none forbids it",
            Reason::Forbidden => "a policy forbids it",
            Reason::NoPermit => "no policy permits it",
            Reason::Error => "a policy could not be evaluated, so it counts as a refusal",
            Reason::TooManyPolicies => "more than 64 policies apply: make them narrower",
            Reason::BeyondRecovery => "a recovery token is for policies and tokens only",
            Reason::NotARequest => "the path or the time is not one that policies can be asked about",
        })
    }
}

/// The answer, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// True only when a permit applied, no forbid did, and every policy concerned could be evaluated.
    pub allowed: bool,
    /// Why.
    pub reason: Reason,
    /// Ids of the policies that decided, in order: the permits, or the forbids when any applied.
    pub deciding: Vec<Arc<str>>,
    /// What went wrong in evaluating, with the policy's id; not empty means refused.
    pub errors: Vec<String>,
    /// How many policies were looked at; 65 stands for more than 64.
    pub considered: u32,
    /// Not empty when every forbid that applied says what would satisfy it (`@step_up`), and nothing else stands in the way.
    pub step_up: StepUps,
}

/// No policy said anything.
impl Default for Decision {
    fn default() -> Self {
        Decision::refused(Reason::NoPermit, 0)
    }
}

impl Decision {
    pub(crate) fn refused(reason: Reason, considered: u32) -> Self {
        Decision {
            allowed: false,
            reason,
            deciding: Vec::new(),
            errors: Vec::new(),
            considered,
            step_up: StepUps::default(),
        }
    }

    /// The rules, in one place: forbid wins, an error refuses, no permit refuses.
    fn weigh(permits: Vec<Arc<str>>, forbids: Vec<Arc<str>>, errors: Vec<String>, considered: u32) -> Self {
        let (allowed, reason, mut deciding) = match (forbids.is_empty(), errors.is_empty(), permits.is_empty()) {
            (false, _, _) => (false, Reason::Forbidden, forbids),
            (true, false, _) => (false, Reason::Error, Vec::new()),
            (true, true, true) => (false, Reason::NoPermit, Vec::new()),
            (true, true, false) => (true, Reason::Permitted, permits),
        };
        deciding.sort();
        Decision {
            allowed,
            reason,
            deciding,
            errors,
            considered,
            step_up: StepUps::default(),
        }
    }
}
