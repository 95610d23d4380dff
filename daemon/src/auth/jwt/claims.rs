//! Claims as a trust sees them: flat, typed, bounded. `{"a":{"b":"x"}}` is `a/b` = `x`; a list keeps its members.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, fmt};

/// Claims of one token after flattening.
const CLAIMS_MAX: usize = 128;
/// Members of a list.
const LIST_MAX: usize = 64;

/// A typed value: `true` is never `"true"`, nor `1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// `true` or `false`.
    Bool(bool),
    /// An integer.
    Integer(i64),
    /// Text.
    Text(String),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Text(value) => f.write_str(value),
        }
    }
}

/// A claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// One value.
    One(Scalar),
    /// A list of values.
    List(Vec<Scalar>),
}

impl Claim {
    /// Whether it is this value, or a list that has it.
    pub fn is(&self, want: &Scalar) -> bool {
        match self {
            Self::One(value) => value == want,
            Self::List(values) => values.contains(want),
        }
    }
    /// As an attribute for policies: text; a list's members with commas between. `None` when a member has a comma itself.
    pub fn attribute(&self) -> Option<String> {
        match self {
            Self::One(value) => Some(value.to_string()),
            Self::List(values) => {
                let texts: Vec<_> = values.iter().map(ToString::to_string).collect();
                texts.iter().all(|text| !text.contains(',')).then(|| texts.join(","))
            }
        }
    }
}

/// Every claim by its flat name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims(BTreeMap<String, Claim>);

impl Claims {
    /// Flattens. `None`: too many, a list of objects, or two claims of one flat name (`{"a/b":1,"a":{"b":2}}`).
    pub fn flatten(map: &Map<String, Value>) -> Option<Self> {
        let mut claims = Self::default();
        claims.add("", map)?;
        Some(claims)
    }

    fn add(&mut self, prefix: &str, map: &Map<String, Value>) -> Option<()> {
        for (key, value) in map {
            let name = if prefix.is_empty() {
                key.clone()
            } else {
                format!("{prefix}/{key}")
            };
            let claim = match value {
                // A claim without a value is no claim.
                Value::Null => continue,
                Value::Object(below) => {
                    self.add(&name, below)?;
                    continue;
                }
                Value::Array(list) if list.len() <= LIST_MAX => {
                    Claim::List(list.iter().map(scalar).collect::<Option<_>>()?)
                }
                Value::Array(_) => return None,
                // Fractions are nothing to bind to.
                single => match scalar(single) {
                    Some(value) => Claim::One(value),
                    None => continue,
                },
            };
            if self.0.len() >= CLAIMS_MAX || self.0.insert(name, claim).is_some() {
                return None;
            }
        }
        Some(())
    }

    /// A claim.
    pub fn get(&self, name: &str) -> Option<&Claim> {
        self.0.get(name)
    }
    /// A claim that is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name) {
            Some(Claim::One(Scalar::Text(text))) => Some(text),
            _ => None,
        }
    }
    /// Whether a claim is this value.
    pub fn is(&self, name: &str, want: &Scalar) -> bool {
        self.get(name).is_some_and(|claim| claim.is(want))
    }
}

fn scalar(value: &Value) -> Option<Scalar> {
    match value {
        Value::Bool(value) => Some(Scalar::Bool(*value)),
        Value::Number(number) => number.as_i64().map(Scalar::Integer),
        Value::String(text) => Some(Scalar::Text(text.clone())),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// What a claim must be: a value, or one of several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Want {
    /// This.
    One(Scalar),
    /// One of these.
    Any(Vec<Scalar>),
}

impl Want {
    /// The values that are allowed.
    pub fn values(&self) -> &[Scalar] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Any(values) => values,
        }
    }
    /// Whether the claim is one of them.
    pub fn allows(&self, claims: &Claims, name: &str) -> bool {
        self.values().iter().any(|value| claims.is(name, value))
    }
}

impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.values().iter().map(|value| format!("`{value}`")).collect();
        f.write_str(&texts.join(" or "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(text: &str) -> Option<Claims> {
        Claims::flatten(&crate::auth::jwt::json::object(text.as_bytes())?)
    }

    #[test]
    fn claims_are_flat_typed_and_bounded() {
        let claims = flat(r#"{"a":{"b":{"c":"x"}},"n":7,"f":1.5,"z":null,"l":["1",2],"t":true}"#).unwrap();
        assert_eq!(claims.text("a/b/c"), Some("x"));
        assert!(claims.is("l", &Scalar::Integer(2)) && claims.is("l", &Scalar::Text("1".into())));
        assert!(!claims.is("l", &Scalar::Integer(1)) && !claims.is("t", &Scalar::Text("true".into())));
        assert!(claims.get("f").is_none() && claims.get("z").is_none());
        for refused in [r#"{"a/b":1,"a":{"b":2}}"#, r#"{"l":[{"x":1}]}"#, r#"{"l":[null]}"#] {
            assert!(flat(refused).is_none(), "{refused}");
        }
        let many: Vec<_> = (0..=CLAIMS_MAX).map(|at| format!("\"c{at}\":1")).collect();
        assert!(flat(&format!("{{{}}}", many.join(","))).is_none());
        let comma = flat(r#"{"l":["a,b","c"],"m":["a","b"]}"#).unwrap();
        assert_eq!(comma.get("l").unwrap().attribute(), None);
        assert_eq!(comma.get("m").unwrap().attribute().as_deref(), Some("a,b"));
    }

    #[test]
    fn a_want_is_exact() {
        let want: Want = serde_json::from_str(r#"["refs/heads/main",7]"#).unwrap();
        for (text, allowed) in [
            (r#"{"ref":"refs/heads/main"}"#, true),
            (r#"{"ref":7}"#, true),
            (r#"{"ref":"7"}"#, false),
            (r#"{"ref":"refs/heads/main2"}"#, false),
            (r#"{"ref":"REFS/heads/main"}"#, false),
            (r#"{"ref":" refs/heads/main"}"#, false),
            (r#"{}"#, false),
        ] {
            assert_eq!(want.allows(&flat(text).unwrap(), "ref"), allowed, "{text}");
        }
    }
}
