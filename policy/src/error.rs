//! What can be wrong with a policy document, a set of them, or a principal.

use std::fmt;

/// One thing wrong with a policy document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line and column in characters, both from 1; absent when the problem has no one place.
    pub place: Option<(u32, u32)>,
    /// What is wrong, at most 400 bytes. May quote the policy.
    pub message: String,
    /// What to do about it, at most 400 bytes.
    pub help: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.place {
            write!(f, "line {line}, column {column}: ")?;
        }
        f.write_str(&self.message)?;
        self.help.as_ref().map_or(Ok(()), |help| write!(f, " ({help})"))
    }
}

/// Everything wrong with a policy document: never empty, at most 20 listed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems {
    /// The first problems in order of place.
    pub list: Vec<Problem>,
    /// Problems that are not listed.
    pub more: usize,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.list.iter().enumerate() {
            write!(f, "{}{problem}", if i == 0 { "" } else { "\n" })?;
        }
        if self.more > 0 {
            write!(f, "\nand {} more", self.more)?;
        }
        Ok(())
    }
}

/// Why documents do not make a set. A set is all or nothing: a document left out could be the one
/// with the `forbid`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A stored document is not (or no longer) valid.
    #[error("policy `{name}` is not valid: {problems}")]
    Invalid {
        /// The document.
        name: String,
        /// What is wrong with it.
        problems: Problems,
    },
    /// Two documents have one name.
    #[error("policy `{0}` is there twice")]
    Twice(String),
    /// More than 1,024 documents.
    #[error("at most 1,024 policies can be stored: delete one first, or join some")]
    TooManyDocuments,
    /// More than 16,384 Cedar policies.
    #[error("all policies together hold at most 16,384 statements: delete some first")]
    TooManyPolicies,
}

/// Why data do not make a principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrincipalError {
    /// A name, group or attribute key is empty or longer than 128 bytes.
    #[error("names, groups and attribute keys have 1 to 128 bytes")]
    Name,
    /// An attribute value is longer than 512 bytes.
    #[error("an attribute value has at most 512 bytes")]
    Value,
    /// More than 64 groups.
    #[error("an identity is in at most 64 groups")]
    Groups,
    /// More than 32 attributes.
    #[error("an identity has at most 32 attributes")]
    Attributes,
    /// Cedar did not accept the entity; no data of the kinds above are known to cause it.
    #[error("the identity cannot be expressed to the policy engine")]
    Entity,
}
