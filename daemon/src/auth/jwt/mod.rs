//! Log-in with a JSON Web Token that another system issued: CI jobs, Kubernetes pods, any OIDC issuer of machines (R-AUTH-2).
//!
//! Trusts: the issuer of each trust, to say the truth in its claims. Limits: a token of 16 KiB, 128 claims, an age of an hour (at most a
//! day); used tokens are remembered, [`super::replay`]. Reading order: `jws` (taken apart, verified), `jwks` and `fetch` (keys), `json` and
//! `claims` (what it says), `definition` and `preset` (whom a trust believes), this file (the checks, in their order).

pub mod claims;
mod definition;
mod fetch;
pub mod json;
mod jwks;
pub mod jws;
mod preset;

pub use definition::{Binding, Jwt, Keys};
pub use jwks::public_key;
pub use preset::Platform;

use super::{Refused, outside::Client, replay::Use};
use crate::base::time::Timestamp;
use claims::Claims;
use fetch::Fetched;
use jwks::KeySet;
use jws::Compact;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How far clocks may differ.
const SKEW_SECS: u64 = 30;
/// Types of tokens that prove who a job is. Others (`at+jwt`, `dpop+jwt`, `logout+jwt`) were made for something else.
const TYPES: [&str; 2] = ["", "jwt"];
const SUBJECT_BYTES_MAX: usize = 512;
/// Bytes of a claim that becomes an attribute; what is longer is left out, unless it is bound.
const ATTRIBUTE_BYTES_MAX: usize = 512;

/// A JWT trust in force.
pub struct JwtTrust {
    /// As it was written.
    pub definition: Jwt,
    keys: KeySource,
}

enum KeySource {
    Static(KeySet),
    Fetched(Box<Fetched>),
}

/// What a believed token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// `sub`.
    pub subject: String,
    /// Groups of the bindings that fit.
    pub groups: BTreeSet<String>,
    /// `claim:NAME`.
    pub attributes: BTreeMap<String, String>,
    /// What to remember it as, if it is to be used once.
    pub once: Option<Use>,
    /// When it was issued.
    pub issued: Timestamp,
}

/// One check, for `ci explain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is checked.
    pub name: &'static str,
    /// Whether it passed.
    pub passed: bool,
    /// In words, without anything secret.
    pub detail: String,
}

/// The checks as they are made. Without a listener nothing is worded.
#[derive(Debug, Default)]
pub struct Steps(Option<Vec<Check>>);

impl Steps {
    /// Keeps what is told.
    pub fn kept() -> Self {
        Self(Some(Vec::new()))
    }
    /// What was told.
    pub fn told(self) -> Vec<Check> {
        self.0.unwrap_or_default()
    }
    fn tell(&mut self, name: &'static str, passed: bool, detail: impl FnOnce() -> String) {
        if let Some(checks) = &mut self.0 {
            checks.push(Check {
                name,
                passed,
                detail: detail(),
            });
        }
    }
    /// Whether the token has not been used.
    /// # Errors
    /// What was found.
    pub fn single_use(&mut self, unused: Result<(), Refused>) -> Result<(), Refused> {
        self.tell("single use", unused.is_ok(), || match unused {
            Ok(()) => "not used before".to_owned(),
            Err(Refused::Replayed) => "it has logged in already".to_owned(),
            Err(_) => {
                "issued before the vault was opened, and the log is still being read: try again, or with a new token"
                    .to_owned()
            }
        });
        unused
    }

    fn check(
        &mut self,
        name: &'static str,
        passed: bool,
        refused: Refused,
        detail: impl FnOnce() -> String,
    ) -> Result<(), Refused> {
        self.tell(name, passed, detail);
        if passed { Ok(()) } else { Err(refused) }
    }
}

/// The token taken apart, of a type that logs in.
/// # Errors
/// [`Refused`].
pub fn parse(text: &str) -> Result<Compact<'_>, Refused> {
    jws::parse(text, &TYPES, false)
}

/// The issuer that a token claims, unverified: only to find the trust to verify it by.
pub fn claimed_issuer<'t>(token: &'t Compact<'_>) -> Option<&'t str> {
    token.claims.get("iss").and_then(Value::as_str)
}

impl JwtTrust {
    /// Puts a definition into force.
    /// # Errors
    /// In words, what is wrong with it.
    pub fn new(definition: Jwt) -> Result<Self, Vec<String>> {
        let faults = definition.faults();
        if !faults.is_empty() {
            return Err(faults);
        }
        let (ca_pem, allow_private) = match &definition.keys {
            Some(Keys::Static { jwks }) => {
                let keys = KeySet::strict(jwks.to_string().as_bytes()).map_err(|fault| vec![fault.to_owned()])?;
                let keys = KeySource::Static(keys);
                return Ok(Self { definition, keys });
            }
            Some(Keys::Fetch {
                ca_pem, allow_private, ..
            }) => (ca_pem.as_deref(), *allow_private),
            None => (None, false),
        };
        let client = Client::new(ca_pem, allow_private).map_err(|error| vec![format!("keys: {error}")])?;
        Self::with_client(definition, &client)
    }

    /// The same for keys that are fetched, by a client that is there already.
    /// # Errors
    /// In words, what is wrong with it.
    pub fn with_client(definition: Jwt, client: &Client) -> Result<Self, Vec<String>> {
        let faults = definition.faults();
        if !faults.is_empty() {
            return Err(faults);
        }
        let url = match &definition.keys {
            Some(Keys::Fetch { url: Some(url), .. }) => url.clone(),
            _ => definition.platform.keys_url(&definition.issuer).unwrap_or_default(),
        };
        let keys = Fetched::new(&url, client.clone()).map_err(|error| vec![format!("keys: {error}")])?;
        let keys = KeySource::Fetched(Box::new(keys));
        Ok(Self { definition, keys })
    }

    /// Makes every check but that of repetition. `now` is wall time, `mono` monotonic.
    /// # Errors
    /// The first check that fails.
    pub async fn verify(
        &self,
        trust: &str,
        token: &Compact<'_>,
        now: Timestamp,
        mono: Duration,
        steps: &mut Steps,
    ) -> Result<Told, Refused> {
        let definition = &self.definition;
        let allowed = definition.algorithms();
        steps.check(
            "algorithm",
            allowed.contains(&token.algorithm),
            Refused::Algorithm,
            || format!("{:?}; the trust takes {allowed:?}", token.algorithm),
        )?;
        let verified = match &self.keys {
            KeySource::Static(keys) => keys.verify(token),
            KeySource::Fetched(fetched) => match fetched.keys(token, mono).await {
                Some(keys) => keys.verify(token),
                None => Err(Refused::KeysUnavailable),
            },
        };
        steps.tell("signature", verified.is_ok(), || match verified {
            Ok(()) => "by a key of the issuer".to_owned(),
            Err(Refused::NoKey) => "the issuer has no such key, or the token names none and several fit".to_owned(),
            Err(Refused::KeysUnavailable) => {
                "the issuer's keys could not be fetched: the daemon's log says why".to_owned()
            }
            Err(_) => "not by the key that it names".to_owned(),
        });
        verified?;
        self.judge(trust, token, now, steps)
    }

    /// What a verified token says, and whether it is enough.
    fn judge(&self, trust: &str, token: &Compact<'_>, now: Timestamp, steps: &mut Steps) -> Result<Told, Refused> {
        let definition = &self.definition;
        let named = token.claims.get("iss").and_then(Value::as_str) == Some(&definition.issuer);
        steps.check("issuer", named, Refused::UnknownIssuer, || {
            format!("must be {}", definition.issuer)
        })?;
        let audience = sole_audience(token) == Some(&definition.audience);
        steps.check("audience", audience, Refused::Audience, || {
            format!("must be {} and no other", definition.audience)
        })?;
        let (issued, expires) = self.times(token, now, steps)?;
        let claims = Claims::flatten(&token.claims).ok_or(Refused::Claims)?;
        let subject = claims
            .text("sub")
            .filter(|subject| (1..=SUBJECT_BYTES_MAX).contains(&subject.len()))
            .ok_or(Refused::Subject)?;
        let groups = self.bindings(&claims, steps)?;
        let attributes = self.attributes(&claims)?;
        let jti = claims.text("jti").filter(|jti| !jti.is_empty());
        let until = Timestamp(expires.saturating_add(SKEW_SECS).saturating_mul(1000));
        Ok(Told {
            subject: subject.to_owned(),
            groups,
            attributes,
            once: definition
                .single_use()
                .then(|| Use::new(trust, jti, token.signed, until)),
            issued: Timestamp(issued.saturating_mul(1000)),
        })
    }

    /// `iat` and `exp` in seconds; both must be there.
    fn times(&self, token: &Compact<'_>, now: Timestamp, steps: &mut Steps) -> Result<(u64, u64), Refused> {
        let (now, age) = (now.0 / 1000, self.definition.max_age_secs());
        let time = |name: &str| match token.claims.get(name) {
            None => Ok(None),
            Some(value) => numeric_date(value).map(Some).ok_or(Refused::Times),
        };
        let read = || {
            Ok((
                time("iat")?.ok_or(Refused::Times)?,
                time("nbf")?,
                time("exp")?.ok_or(Refused::Times)?,
            ))
        };
        let times = read();
        steps.tell("times", times.is_ok(), || {
            "`iat` and `exp` must be there, and be times; `nbf` may".to_owned()
        });
        let (issued, from, expires) = times?;
        steps.check(
            "expiry",
            expires.saturating_add(SKEW_SECS) > now,
            Refused::Expired,
            || format!("expires {}", Timestamp(expires.saturating_mul(1000))),
        )?;
        let begun = issued.max(from.unwrap_or(0)) <= now + SKEW_SECS;
        steps.check("beginning", begun, Refused::NotYet, || {
            format!("issued {}", Timestamp(issued.saturating_mul(1000)))
        })?;
        let young =
            now.saturating_sub(issued) <= age + SKEW_SECS && expires.saturating_sub(issued) <= age && expires > issued;
        steps.check("age", young, Refused::TooOld, || {
            format!(
                "lives {} s; issued and used within {age} s",
                expires.saturating_sub(issued)
            )
        })?;
        Ok((issued, expires))
    }

    /// Groups of all bindings that fit and are no trap.
    fn bindings(&self, claims: &Claims, steps: &mut Steps) -> Result<BTreeSet<String>, Refused> {
        let definition = &self.definition;
        let (mut groups, mut fits, mut trapped) = (BTreeSet::new(), false, false);
        for (at, binding) in definition.bind.iter().enumerate() {
            let unmet: Vec<_> = binding
                .claims
                .iter()
                .filter(|(name, want)| !want.allows(claims, name))
                .collect();
            let trap = definition.platform.trap(claims, binding);
            steps.tell("binding", unmet.is_empty() && trap.is_none(), || {
                let unmet = unmet.iter().map(|(name, want)| {
                    let is = claims.get(name).and_then(claims::Claim::attribute);
                    format!(
                        "`{name}` must be {want}, is {}",
                        is.map_or("absent".to_owned(), |is| format!("`{is}`"))
                    )
                });
                let reasons: Vec<_> = unmet.chain(trap.clone()).collect();
                match reasons.is_empty() {
                    true => format!("bind[{at}] fits"),
                    false => format!("bind[{at}]: {}", reasons.join("; ")),
                }
            });
            if unmet.is_empty() && trap.is_none() {
                fits = true;
                groups.extend(binding.groups.iter().cloned());
            }
            trapped |= unmet.is_empty() && trap.is_some();
        }
        match (fits, trapped) {
            (true, _) => Ok(groups),
            (false, true) => Err(Refused::Trap),
            (false, false) => Err(Refused::NoBinding),
        }
    }

    fn attributes(&self, claims: &Claims) -> Result<BTreeMap<String, String>, Refused> {
        let mut attributes = BTreeMap::new();
        for name in self.definition.attributes() {
            let Some(value) = claims.get(name).and_then(claims::Claim::attribute) else {
                continue;
            };
            if value.len() > ATTRIBUTE_BYTES_MAX {
                return Err(Refused::TooManyClaims);
            }
            attributes.insert(format!("claim:{name}"), value);
        }
        Ok(attributes)
    }
}

/// `aud` if it is one text, or a list of one.
fn sole_audience<'t>(token: &'t Compact<'_>) -> Option<&'t str> {
    match token.claims.get("aud")? {
        Value::String(audience) => Some(audience),
        Value::Array(list) => match list.as_slice() {
            [Value::String(audience)] => Some(audience),
            _ => None,
        },
        _ => None,
    }
}

/// Seconds since 1970 as RFC 7519 has them: a number, whole or not, neither negative nor beyond the year 9999.
pub fn numeric_date(value: &Value) -> Option<u64> {
    const YEAR_9999: u64 = 253_402_300_799;
    let Value::Number(number) = value else { return None };
    let whole = number.as_u64().or_else(|| {
        let number = number.as_f64()?;
        // In range, hence exact enough; the fraction goes.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        (0.0..=1e12).contains(&number).then_some(number as u64)
    })?;
    (whole <= YEAR_9999).then_some(whole)
}
