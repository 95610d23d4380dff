//! The only place where a name becomes SQL text. Names are never checked for "bad" characters: they are quoted.

use serde::{Deserialize, Serialize};
use std::fmt;

/// MariaDB refuses longer account names; databases and tables end at 64.
pub const NAME_BYTES_MAX: usize = 80;
/// Any host.
const ANY_HOST: &str = "%";
/// Longest host pattern of an account.
const HOST_BYTES_MAX: usize = 255;

/// Name of an account, role, database or table: 1 to 80 bytes, no NUL, no space at its end (MariaDB compares as if it were
/// not there). Prints as a quoted identifier, so that a statement cannot be built from it in any other way.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a MariaDB name is 1 to {NAME_BYTES_MAX} bytes without NUL and without a space at its end, not NONE or PUBLIC")]
pub struct NameError;

impl Name {
    /// # Errors
    /// `NameError` for what MariaDB would cut, refuse or take for a word of its own.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let fits = (1..=NAME_BYTES_MAX).contains(&text.len())
            && !text.contains('\0')
            && !text.ends_with(' ')
            && !["none", "public"].iter().any(|word| text.eq_ignore_ascii_case(word));
        fits.then(|| Self(text.to_owned())).ok_or(NameError)
    }
    /// The bare name, for parameters and messages, never for SQL text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quoted(&self.0))
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

/// An account: name and host pattern. Prints quoted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Account {
    pub name: Name,
    pub host: String,
}

impl Account {
    /// # Errors
    /// `NameError`, also for a host pattern that cannot be one.
    pub fn new(name: &str, host: &str) -> Result<Self, NameError> {
        let fits = (1..=HOST_BYTES_MAX).contains(&host.len()) && !host.contains(['\0', ' ']);
        let name = Name::parse(name)?;
        fits.then(|| Self {
            name,
            host: host.to_owned(),
        })
        .ok_or(NameError)
    }

    /// `app` (from any host) or `app@10.0.%`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match text.rsplit_once('@') {
            Some((name, host)) => Self::new(name, host),
            None => Self::new(text, ANY_HOST),
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, quoted(&self.host))
    }
}

/// Backticks quote whatever `sql_mode` says; in them only the backtick itself means something.
fn quoted(text: &str) -> String {
    format!("`{}`", text.replace('`', "``"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_one_identifier() {
        for (name, want) in [
            ("readers", "`readers`"),
            ("a`; DROP USER root; -- ", "`a``; DROP USER root; -- x`"),
            ("Ünï'\\\"", "`Ünï'\\\"`"),
        ] {
            let name = if name.ends_with(' ') {
                format!("{name}x")
            } else {
                name.to_owned()
            };
            assert_eq!(Name::parse(&name).unwrap().to_string(), want);
        }
        for bad in ["", "a\0b", "a ", "none", "PUBLIC", &"x".repeat(81)] {
            assert_eq!(Name::parse(bad), Err(NameError), "{bad:?}");
        }
        for (text, want) in [
            ("app", "`app`@`%`"),
            ("app@10.0.%", "`app`@`10.0.%`"),
            ("a@b@localhost", "`a@b`@`localhost`"),
            ("a@`x`", "`a`@```x```"),
        ] {
            assert_eq!(Account::parse(text).unwrap().to_string(), want);
        }
        for bad in ["@", "a@", "@h", "a@b c"] {
            assert!(Account::parse(bad).is_err(), "{bad}");
        }
    }
}
