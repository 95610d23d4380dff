//! The only place where a name becomes SQL text. Names are never checked for "bad" characters: they are quoted.

use serde::{Deserialize, Serialize};
use std::fmt;

/// PostgreSQL's NAMEDATALEN less its terminator: longer names would be cut in silence, and then name another role.
pub const NAME_BYTES_MAX: usize = 63;

/// A role's or database's name: 1 to 63 bytes without NUL. Prints as a quoted identifier, so that a statement cannot be
/// built from it in any other way.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a PostgreSQL name is 1 to {NAME_BYTES_MAX} bytes without NUL")]
pub struct NameError;

impl Name {
    /// # Errors
    /// `NameError` for what PostgreSQL would cut or refuse.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let fits = (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.contains('\0');
        fits.then(|| Self(text.to_owned())).ok_or(NameError)
    }
    /// The bare name, for parameters and messages, never for SQL text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('"', "\"\""))
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

/// A string constant. `E''` keeps its meaning whatever `standard_conforming_strings` says.
pub fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_one_identifier() {
        for (name, want) in [
            ("readers", "\"readers\""),
            ("a\"; DROP ROLE postgres; --", "\"a\"\"; DROP ROLE postgres; --\""),
            ("Ünï cødé'\\", "\"Ünï cødé'\\\""),
        ] {
            assert_eq!(Name::parse(name).unwrap().to_string(), want);
        }
        for bad in ["", "a\0b", &"x".repeat(64)] {
            assert_eq!(Name::parse(bad), Err(NameError), "{bad:?}");
        }
        assert_eq!(literal("it's \\"), "E'it''s \\\\'");
    }
}
