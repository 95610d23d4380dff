//! Role definitions: the part that all kinds share, and the kind's own part as checked JSON.

use super::{EngineError, lease_of};
use crate::base::limits::{DEFINITION_BYTES_MAX, LEASE_TTL_DEFAULT_SECS, LEASE_TTL_MAX_SECS, LEASE_TTL_MIN_SECS};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::time::Duration;

/// Least time between two scheduled rotations of a static account.
pub const ROTATION_PERIOD_MIN_SECS: u64 = 60;
/// Longest time between two scheduled rotations.
pub const ROTATION_PERIOD_MAX_SECS: u64 = 366 * 24 * 3600;
/// A role's name.
pub const ROLE_NAME_BYTES_MAX: usize = 64;

/// A role, parsed and within bounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Definition {
    /// Accounts made on demand.
    Dynamic(DynamicRole),
    /// One existing account, whose password rotates.
    Static(StaticRole),
}

/// Accounts made on demand, leased.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DynamicRole {
    /// Life of a lease when the caller names none, in seconds. JSON: seconds, or a text such as `"1h"`.
    #[serde(default = "ttl_default", deserialize_with = "secs")]
    pub default_ttl: u64,
    /// No lease of the role lives longer, renewed or not, in seconds.
    #[serde(default = "ttl_max", deserialize_with = "secs")]
    pub max_ttl: u64,
    /// The kind's own keys, checked by the kind.
    #[serde(flatten)]
    pub body: Map<String, Value>,
}

/// One existing account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticRole {
    /// The account's name in the target.
    pub account: String,
    /// Seconds between scheduled rotations; 0: only on demand. JSON: seconds, or a text such as `"24h"`.
    #[serde(default, deserialize_with = "secs")]
    pub rotation_period: u64,
}

fn ttl_default() -> u64 {
    LEASE_TTL_DEFAULT_SECS
}
fn ttl_max() -> u64 {
    LEASE_TTL_MAX_SECS
}

/// Seconds as a number, or a text such as `"1h 30m"`.
fn secs<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Secs {
        Number(u64),
        Text(String),
    }
    match Secs::deserialize(from)? {
        Secs::Number(secs) => Ok(secs),
        Secs::Text(text) => humantime::parse_duration(&text)
            .map(|duration| duration.as_secs())
            .map_err(serde::de::Error::custom),
    }
}

impl Definition {
    /// Parses a role's JSON object. `"type"` is `"dynamic"` when absent.
    /// # Errors
    /// `Config` naming the key.
    pub fn parse(json: &str) -> Result<Self, EngineError> {
        let wrong = |error: serde_json::Error| EngineError::Config(format!("role definition: {error}"));
        if json.len() > DEFINITION_BYTES_MAX {
            return Err(EngineError::Config(format!(
                "role definition: longer than {DEFINITION_BYTES_MAX} bytes"
            )));
        }
        let mut object: Map<String, Value> = serde_json::from_str(json).map_err(wrong)?;
        object.entry("type").or_insert_with(|| "dynamic".into());
        let definition: Self = serde_json::from_value(Value::Object(object)).map_err(wrong)?;
        definition.check()?;
        Ok(definition)
    }

    /// Canonical JSON.
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    fn check(&self) -> Result<(), EngineError> {
        let wrong = |text: String| Err(EngineError::Config(text));
        match self {
            Self::Dynamic(role) if !(LEASE_TTL_MIN_SECS..=LEASE_TTL_MAX_SECS).contains(&role.max_ttl) => wrong(
                format!("max_ttl: between {LEASE_TTL_MIN_SECS} and {LEASE_TTL_MAX_SECS} seconds"),
            ),
            Self::Dynamic(role) if !(LEASE_TTL_MIN_SECS..=role.max_ttl).contains(&role.default_ttl) => {
                wrong(format!("default_ttl: between {LEASE_TTL_MIN_SECS} seconds and max_ttl"))
            }
            // MariaDB's accounts have a host behind their name.
            Self::Static(role)
                if lease_of(role.account.split('@').next().unwrap_or_default().trim_matches('\'')).is_some() =>
            {
                wrong(format!(
                    "account: {} has the name of a leased account, which ends with its lease",
                    role.account
                ))
            }
            Self::Static(role)
                if role.rotation_period != 0
                    && !(ROTATION_PERIOD_MIN_SECS..=ROTATION_PERIOD_MAX_SECS).contains(&role.rotation_period) =>
            {
                wrong(format!(
                    "rotation_period: 0, or between {ROTATION_PERIOD_MIN_SECS} and {ROTATION_PERIOD_MAX_SECS} seconds"
                ))
            }
            Self::Dynamic(_) | Self::Static(_) => Ok(()),
        }
    }
}

impl DynamicRole {
    /// The life of a lease: what was asked for (0: the default).
    /// # Errors
    /// `Config` below the minimum and above the role's maximum: nobody is given more or less than was asked for.
    pub fn ttl_secs(&self, asked: u64) -> Result<u64, EngineError> {
        match asked {
            0 => Ok(self.default_ttl),
            1..LEASE_TTL_MIN_SECS => Err(EngineError::Config(format!("ttl_secs: at least {LEASE_TTL_MIN_SECS}"))),
            asked if asked > self.max_ttl => Err(EngineError::Config(format!(
                "ttl_secs: the role's leases live at most {} ({} s); ask for that or less",
                humantime::format_duration(Duration::from_secs(self.max_ttl)),
                self.max_ttl
            ))),
            asked => Ok(asked),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn table() {
        for (json, want) in [
            (r#"{"group":"readers"}"#, Ok((3600, 86400))),
            (
                r#"{"type":"dynamic","group":"readers","default_ttl":"10m","max_ttl":3600}"#,
                Ok((600, 3600)),
            ),
            (r#"{"default_ttl":"2h","max_ttl":"1h"}"#, Err("default_ttl")),
            (r#"{"max_ttl":"25h"}"#, Err("max_ttl")),
            (r#"{"default_ttl":1}"#, Err("default_ttl")),
            (r#"{"default_ttl":-1}"#, Err("role definition")),
            (
                r#"{"type":"static","account":"app","rotation_period":"1s"}"#,
                Err("rotation_period"),
            ),
            (r#"{"type":"static","account":"app","group":"x"}"#, Err("group")),
            (r#"{"type":"other"}"#, Err("other")),
            ("[]", Err("role definition")),
            ("", Err("role definition")),
        ] {
            match (Definition::parse(json), want) {
                (Ok(Definition::Dynamic(role)), Ok(ttls)) => {
                    assert_eq!((role.default_ttl, role.max_ttl), ttls, "{json}")
                }
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{json}: {error}"),
                (got, _) => panic!("{json}: {got:?}"),
            }
        }
    }

    #[test]
    fn ttl_is_the_default_or_what_was_asked_for_within_the_bounds() {
        let Ok(Definition::Dynamic(role)) = Definition::parse(r#"{"default_ttl":"10m","max_ttl":"1h"}"#) else {
            panic!()
        };
        for (asked, want) in [
            (0, Some(600)),
            (1, None),
            (4, None),
            (5, Some(5)),
            (3600, Some(3600)),
            (3601, None),
            (u64::MAX, None),
        ] {
            assert_eq!(role.ttl_secs(asked).ok(), want, "{asked}");
        }
        let refused = role.ttl_secs(3601).unwrap_err().to_string();
        assert!(refused.contains("at most 1h (3600 s)"), "{refused}");
    }

    proptest! {
        /// Fuzz: any text parses, canonically, or is refused; never a panic.
        #[test]
        fn parses_canonically_or_not(json in "\\PC{0,80}|\\{\"(type|account|max_ttl|group)\":(\"static\"|\"[a-z0-9]{0,4}\"|[0-9]{1,15})(,\"account\":\"x\")?\\}") {
            if let Ok(definition) = Definition::parse(&json) {
                prop_assert_eq!(Definition::parse(&definition.json()).unwrap(), definition);
            }
        }
    }
}
