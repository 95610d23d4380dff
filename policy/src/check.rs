//! Hostile text to a validated policy document.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::Arc;

use cedar_policy::{EntityUid, Policy, PolicyId, ValidationMode, Validator};
use miette::Diagnostic;
use sha2::{Digest, Sha256};

use crate::bounds;
use crate::compile::{Compiled, compile};
use crate::error::{Problem, Problems};
use crate::limits::{MESSAGE_BYTES_MAX, POLICIES_PER_DOCUMENT_MAX, PROBLEMS_MAX, STACK_BYTES};
use crate::step_up::StepUps;
use crate::words::{LANGUAGE, ROOT, canonical};

/// A policy document that parsed and is valid: the only thing a set is made of. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Checked {
    name: Arc<str>,
    text_hash: [u8; 32],
    pub(crate) policies: Arc<[Arc<Compiled>]>,
}

impl Checked {
    /// The document's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 of the text.
    #[must_use]
    pub fn text_hash(&self) -> &[u8; 32] {
        &self.text_hash
    }

    /// The ids of its Cedar policies, in order: `name#1`, `name#2`, or `name#id` where a policy has an
    /// `@id("id")`.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.policies.iter().map(|policy| &*policy.id)
    }
}

#[cfg(test)]
impl Checked {
    /// The same policies under another name, for tests of large sets.
    pub(crate) fn renamed(&self, name: &str) -> Self {
        Checked {
            name: name.into(),
            ..self.clone()
        }
    }
}

/// Parses and validates a document. The schema is strict, warnings of the validator are errors (a
/// policy that can never apply is a typing mistake, and a dangerous one in a `forbid`), templates are
/// refused, and so are literals that no request can ever have.
///
/// `name` is `[a-z0-9-]{1,64}`; `text` is at most 64 KiB with 1 to 256 Cedar policies. Takes about a
/// millisecond a policy, for hostile text up to a second: keep it off threads that must not wait.
/// # Errors
/// Everything found wrong, with places.
pub fn check(name: &str, text: &str) -> Result<Checked, Problems> {
    let report = Report { text };
    check_name(name)?;
    bounds::check(text).map_err(|excess| report.one(Some(excess.at), excess.message, excess.help))?;
    // Nothing is known to make Cedar panic; if something does, the text is refused.
    roomy(|| validate(name, text))
        .unwrap_or_else(|| Err(report.one(None, "the policy could not be checked", "write it in a simpler way")))
}

/// Runs `work` on a stack of its own, whatever stack the caller has left; `None` if it panics.
fn roomy<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("policy-check".to_owned())
            .stack_size(STACK_BYTES);
        thread.spawn_scoped(scope, work).ok()?.join().ok()
    })
}

fn validate(name: &str, text: &str) -> Result<Checked, Problems> {
    let report = Report { text };
    let parsed = cedar_policy::PolicySet::from_str(text)
        .map_err(|errors| collect(errors.iter().map(|error| report.cedar(error)).collect()))?;
    let policies = number(name, &parsed)?;
    let named = cedar_policy::PolicySet::from_policies(policies.iter().cloned())
        .map_err(|error| collect(vec![report.cedar(&error)]))?;
    let result = Validator::new(LANGUAGE.schema.clone()).validate_with_level(&named, ValidationMode::Strict, 1);
    let mut found: Vec<Problem> = result.validation_errors().map(|error| report.cedar(error)).collect();
    found.extend(result.validation_warnings().map(|warning| report.cedar(warning)));
    found.extend(policies.iter().flat_map(dead_literals));
    found.extend(policies.iter().filter_map(|policy| {
        let why = StepUps::of(policy).err()?;
        Some(Problem::new(
            &format!("for policy `{}`, @step_up is not right", policy.id()),
            why,
        ))
    }));
    if !found.is_empty() {
        return Err(collect(found));
    }
    finish(name, text, &policies)
}

/// As [`check`], without validation: for tests of what must hold even for policies that are not valid.
#[cfg(test)]
pub(crate) fn unchecked(name: &str, text: &str) -> Checked {
    finish(name, text, &number(name, &text.parse().unwrap()).unwrap()).unwrap()
}

fn check_name(name: &str) -> Result<(), Problems> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    match (1..=64).contains(&name.len()) && name.bytes().all(plain) {
        true => Ok(()),
        false => Err(collect(vec![Problem::new(
            "a policy name has 1 to 64 of the characters a-z 0-9 -",
            "",
        )])),
    }
}

/// Gives the parsed policies their ids: `name#id` after an `@id("id")`, else `name#1`, `name#2`, ...
fn number(name: &str, parsed: &cedar_policy::PolicySet) -> Result<Vec<Policy>, Problems> {
    if parsed.templates().next().is_some() {
        let help = "write the principal or resource instead of ?principal or ?resource";
        return Err(collect(vec![Problem::new("templates are not accepted", help)]));
    }
    let count = parsed.num_of_policies();
    if count == 0 || count > POLICIES_PER_DOCUMENT_MAX {
        return Err(collect(vec![Problem::new(
            "a document has 1 to 256 Cedar policies",
            "",
        )]));
    }
    let mut ids = BTreeSet::new();
    let mut policies = Vec::with_capacity(count);
    // Cedar's own ids count from policy0 in the order of the text.
    for (index, policy) in (0..count)
        .filter_map(|i| parsed.policy(&PolicyId::new(format!("policy{i}"))))
        .enumerate()
    {
        let id = policy
            .annotation("id")
            .map_or_else(|| (index + 1).to_string(), str::to_owned);
        check_name(&id).map_err(|_| {
            collect(vec![Problem::new(
                &format!("@id({id:?}) is not an id"),
                "1 to 64 of the characters a-z 0-9 -",
            )])
        })?;
        if !ids.insert(id.clone()) {
            return Err(collect(vec![Problem::new(
                &format!("two policies have the id {id:?}"),
                "ids are unique in a document",
            )]));
        }
        policies.push(policy.new_id(PolicyId::new(format!("{name}#{id}"))));
    }
    Ok(policies)
}

/// Literals that the schema allows but no request can have: the policy would silently never match.
fn dead_literals(policy: &Policy) -> Vec<Problem> {
    let dead = |uid: EntityUid| {
        let (kind, id) = (uid.type_name(), uid.id().unescaped());
        let why = if *kind == LANGUAGE.path && id != ROOT {
            canonical(id).err()?
        } else if *kind == LANGUAGE.identity && !is_identity(id) {
            "an identity is named by its id of 32 lower-case hex digits; use a group, or `principal.name`"
        } else {
            return None;
        };
        Some(Problem::new(
            &format!("for policy `{}`, {uid} can never match", policy.id()),
            why,
        ))
    };
    policy.entity_literals().into_iter().filter_map(dead).collect()
}

fn is_identity(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn finish(name: &str, text: &str, policies: &[Policy]) -> Result<Checked, Problems> {
    let report = Report { text };
    let compiled = policies.iter().map(|policy| compile(policy).map(Arc::new));
    let compiled: Result<Arc<[_]>, _> = compiled.collect();
    Ok(Checked {
        name: name.into(),
        text_hash: Sha256::digest(text).into(),
        policies: compiled.map_err(|error| collect(vec![report.cedar(error.as_ref())]))?,
    })
}

/// Turns what Cedar says into problems with places in the text.
struct Report<'a> {
    text: &'a str,
}

impl Report<'_> {
    fn one(&self, at: Option<usize>, message: &str, help: &str) -> Problems {
        collect(vec![Problem {
            place: at.map(|at| self.place(at)),
            ..Problem::new(message, help)
        }])
    }

    fn cedar(&self, error: &dyn Diagnostic) -> Problem {
        let at = error
            .labels()
            .and_then(|mut labels| labels.next())
            .map(|label| label.offset());
        let help = error.help().map(|help| help.to_string()).unwrap_or_default();
        Problem {
            place: at.map(|at| self.place(at)),
            ..Problem::new(&error.to_string(), &help)
        }
    }

    /// Line and column, from 1, of a byte of the text; an offset inside a character counts as after it.
    fn place(&self, at: usize) -> (u32, u32) {
        let before = self.text.as_bytes().get(..at).unwrap_or(self.text.as_bytes());
        let line_start = before
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |newline| newline + 1);
        // A character has one byte that is no continuation.
        let starts = |bytes: &[u8]| bytes.iter().filter(|b| **b & 0xC0 != 0x80).count();
        let line = before.iter().filter(|b| **b == b'\n').count();
        let column = starts(before.get(line_start..).unwrap_or_default());
        (
            u32::try_from(line + 1).unwrap_or(u32::MAX),
            u32::try_from(column + 1).unwrap_or(u32::MAX),
        )
    }
}

impl Problem {
    /// Without a place; an empty `help` is none.
    fn new(message: &str, help: &str) -> Self {
        Problem {
            place: None,
            message: short(message),
            help: Some(short(help)).filter(|help| !help.is_empty()),
        }
    }
}

/// At most [`MESSAGE_BYTES_MAX`] bytes of a message, cut between characters.
pub(crate) fn short(message: &str) -> String {
    let end = message.floor_char_boundary(MESSAGE_BYTES_MAX);
    message.get(..end).unwrap_or_default().to_owned()
}

/// In order of place. The validator says the same of each action that a policy covers: one problem for
/// one place is enough.
fn collect(mut list: Vec<Problem>) -> Problems {
    list.sort_by_key(|problem| problem.place.unwrap_or_default());
    list.dedup_by(|next, kept| next.place.is_some() && next.place == kept.place);
    let more = list.len().saturating_sub(PROBLEMS_MAX);
    list.truncate(PROBLEMS_MAX);
    Problems { list, more }
}
