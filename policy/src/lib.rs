//! What callers may do: Cedar policies over canonical paths, behind a slice index.
//!
//! A function of its arguments: no store, no clock, no I/O, no daemon. It may use `cedar-policy` and
//! nothing of Strongroom. The language is in `schema.cedarschema`; `README.md` shows it.
//!
//! Reading order: [`words`] (actions, paths, entity names), [`request`] (who, where, when), [`bounds`] and
//! [`check`] (hostile text to a validated document), [`compile`] (a policy taken apart), [`set`]
//! (documents to decisions), `step_up` (what a `forbid` asks for), `powers` (what no document gives), `prospect` (who could).
//!
//! The rules, each held up by a test:
//! - deny wins; unknown means no;
//! - Cedar *skips* a policy that fails to evaluate, so a failing `forbid` would open a door: any
//!   evaluation error is a refusal;
//! - the index only leaves out what cannot match: a decision is the one Cedar makes over all policies;
//! - text is bounded before Cedar sees it, and strictly validated; warnings count as errors.

#![forbid(unsafe_code)]

mod bounds;
mod check;
mod compile;
mod error;
mod powers;
mod prospect;
mod request;
mod set;
mod step_up;
mod words;

pub use check::{Checked, check};
pub use error::{BuildError, PrincipalError, Problem, Problems};
pub use powers::needs_no_policy;
pub use prospect::{Clause, Prospect};
pub use request::{Binding, Context, Peer, Principal, Purpose, Request};
pub use set::{Decision, PolicySet, Reason};
pub use step_up::StepUps;
pub use words::{Action, ROOT, SCHEMA_TEXT};

/// Policies to begin with, `(name, text)`, each valid and tested: `setup` is what a new vault starts
/// from, the others are to be copied and changed.
pub const EXAMPLES: [(&str, &str); 6] = [
    ("setup", include_str!("../examples/setup.cedar")),
    ("admin", include_str!("../examples/admin.cedar")),
    ("auditor", include_str!("../examples/auditor.cedar")),
    ("team-reader", include_str!("../examples/team-reader.cedar")),
    ("app-postgres", include_str!("../examples/app-postgres.cedar")),
    ("department", include_str!("../examples/department.cedar")),
];

/// The bounds of this room, in one place.
pub mod limits {
    /// A policy document, in bytes.
    pub const TEXT_BYTES_MAX: usize = 64 * 1024;
    /// Cedar policies in one document.
    pub const POLICIES_PER_DOCUMENT_MAX: usize = 256;
    /// Operator characters in one Cedar policy. Bounds the depth of its syntax tree, and with it the
    /// stack that checking, evaluating and dropping it take.
    pub const OPERATORS_PER_POLICY_MAX: usize = 1_000;
    /// Open brackets at any point of a document. Lower than the above, because the parser's own
    /// frames are larger.
    pub const NESTING_MAX: usize = 32;
    /// The stack of the thread that checks a document: several times what the deepest tree needs.
    pub const STACK_BYTES: usize = 8 * 1024 * 1024;
    /// Problems reported for one document; the rest are only counted.
    pub const PROBLEMS_MAX: usize = 20;
    /// Bytes of one message, of ours or of Cedar.
    pub const MESSAGE_BYTES_MAX: usize = 400;
    /// Documents in a set.
    pub const DOCUMENTS_MAX: usize = 1_024;
    /// Cedar policies in a set.
    pub const POLICIES_MAX: usize = 16_384;
    /// Policies whose scope matches one request. Cedar is linear in them; beyond this the request is
    /// refused, and the operator is told that policies are too broad.
    pub const CANDIDATES_MAX: usize = 64;
    /// A canonical path, in bytes.
    pub const PATH_BYTES_MAX: usize = 512;
    /// Segments of a canonical path.
    pub const SEGMENTS_MAX: usize = 32;
    /// The name of an identity or a group, or the key of an attribute, in bytes.
    pub const NAME_BYTES_MAX: usize = 128;
    /// The value of an attribute, in bytes.
    pub const VALUE_BYTES_MAX: usize = 512;
    /// Groups of one identity.
    pub const GROUPS_MAX: usize = 64;
    /// Attributes of one identity.
    pub const ATTRIBUTES_MAX: usize = 32;
}

#[cfg(test)]
mod tests;
