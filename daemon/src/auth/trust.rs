//! A trust: whom one log-in method believes, and what that gives. As it is written (JSON), stored, and in force.

use super::{
    AuthError, Refused,
    certificate::{Certificate, CertificateTrust},
    jwt::{Jwt, JwtTrust},
    oidc::{Oidc, OidcTrust},
    role::Role,
    unix::Unix,
};
use crate::{
    base::{
        id::TrustId,
        limits::{DEFINITION_BYTES_MAX, TOKEN_TTL_MAX_SECS},
        path::Path,
        secret::SecretBytes,
        time::Timestamp,
    },
    token::{SEALED_TTL_MAX_SECS, is_name, trust_id},
};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

const FORMAT: u8 = 1;
const NAME_BYTES_MAX: usize = 48;
/// Groups of one trust.
const GROUPS_MAX: usize = 32;

/// The definition: exactly one method, and what its tokens are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// JSON Web Tokens of one issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
    /// People, by an OpenID provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oidc: Option<Oidc>,
    /// Applications with a role id and a secret id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Client certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// Users of this machine, on the Unix socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unix: Option<Unix>,
    /// What its tokens are.
    #[serde(default)]
    pub token: Terms,
}

/// What a trust's tokens are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Terms {
    /// Their life. With `max_ttl_secs` at most 900 they are sealed: nothing is stored, nothing is renewed.
    pub ttl_secs: u64,
    /// Renewals end there. Default: `ttl_secs`.
    pub max_ttl_secs: u64,
    /// The session's leases end when it merely expires.
    pub end_leases: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            ttl_secs: SEALED_TTL_MAX_SECS,
            max_ttl_secs: 0,
            end_leases: true,
        }
    }
}

impl Terms {
    /// The latest end of its tokens, in seconds.
    pub fn max_ttl_secs(&self) -> u64 {
        self.max_ttl_secs.max(self.ttl_secs)
    }
}

/// The method of a trust, in force.
pub enum Method {
    /// See [`super::jwt`].
    Jwt(Box<JwtTrust>),
    /// See [`super::oidc`].
    Oidc(Box<OidcTrust>),
    /// See [`super::role`].
    Role(Role),
    /// See [`super::certificate`].
    Certificate(CertificateTrust),
    /// See [`super::unix`].
    Unix(Unix),
}

impl Method {
    /// Its word, in attributes, records and listings.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Jwt(_) => "jwt",
            Self::Oidc(_) => "oidc",
            Self::Role(_) => "role",
            Self::Certificate(_) => "certificate",
            Self::Unix(_) => "unix",
        }
    }
}

/// How old a trust is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// Counts its changes.
    pub version: u64,
    /// When it was first written.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
}

/// A trust in force.
pub struct Trust {
    /// Its name.
    pub name: String,
    /// How old it is.
    pub times: Times,
    /// As it was written.
    pub definition: Definition,
    /// How it recognises.
    pub method: Method,
}

impl Definition {
    /// Parses JSON of at most 64 KiB, without repeated keys.
    /// # Errors
    /// [`AuthError::Definition`].
    pub fn parse(text: &str) -> Result<Self, AuthError> {
        let wrong = |error: &dyn std::fmt::Display| AuthError::Definition(error.to_string());
        if text.len() > DEFINITION_BYTES_MAX {
            return Err(wrong(&"more than 64 KiB"));
        }
        let object = super::jwt::json::object(text.as_bytes());
        if object.is_none() && serde_json::from_str::<serde_json::Value>(text).is_ok() {
            return Err(wrong(&"not one JSON object with unique keys, at most 10 levels deep"));
        }
        serde_json::from_str(text).map_err(|error| wrong(&error))
    }

    /// The method in force. `secret` is the client's, of an OIDC trust.
    /// # Errors
    /// [`AuthError::Refused`], with everything that is wrong; `NotAClient`.
    pub fn method(&self, secret: Option<Arc<SecretBytes>>) -> Result<Method, AuthError> {
        if secret.is_some() && self.oidc.is_none() {
            return Err(AuthError::NotAClient);
        }
        let mut faults = self.terms_faults();
        let method = match (&self.jwt, &self.oidc, &self.role, &self.certificate, &self.unix) {
            (Some(jwt), None, None, None, None) => JwtTrust::new(jwt.clone()).map(|trust| Method::Jwt(Box::new(trust))),
            (None, Some(oidc), None, None, None) => {
                OidcTrust::new(oidc.clone(), secret).map(|trust| Method::Oidc(Box::new(trust)))
            }
            (None, None, Some(role), None, None) => role.checked().map(Method::Role),
            (None, None, None, Some(certificate), None) => CertificateTrust::new(certificate).map(Method::Certificate),
            (None, None, None, None, Some(unix)) => unix.checked().map(Method::Unix),
            _ => Err(vec![
                "give exactly one method: `jwt`, `oidc`, `role`, `certificate`, `unix`".to_owned(),
            ]),
        };
        match method {
            Ok(method) if faults.is_empty() => Ok(method),
            Ok(_) => Err(AuthError::Refused(faults)),
            Err(more) => {
                faults.extend(more);
                Err(AuthError::Refused(faults))
            }
        }
    }

    fn terms_faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let day = 1..=TOKEN_TTL_MAX_SECS;
        if !day.contains(&self.token.ttl_secs) || !day.contains(&self.token.max_ttl_secs()) {
            faults.push("token: a token lives 1 second to 24 hours".to_owned());
        }
        let groups = self.groups();
        if groups.len() > GROUPS_MAX {
            faults.push("groups: at most 32".to_owned());
        }
        if !groups.iter().all(|group| is_name(group)) {
            faults.push("groups: a name is 1 to 64 of a-z 0-9 . _ -, and begins with a letter or digit".to_owned());
        }
        faults
    }

    /// Every group that it can give.
    pub fn groups(&self) -> BTreeSet<String> {
        let tokens = (self.jwt.iter().map(|jwt| &jwt.bind)).chain(self.oidc.iter().map(|oidc| &oidc.bind));
        let tokens = tokens.flat_map(|bind| bind.iter().flat_map(|binding| &binding.groups));
        let unix = self
            .unix
            .iter()
            .flat_map(|unix| unix.bind.iter().flat_map(|binding| &binding.groups));
        let role = self.role.iter().flat_map(|role| &role.groups);
        let names = self.certificate.iter().flat_map(|trust| &trust.bind);
        let certificate = names.flat_map(|name| &name.groups);
        tokens.chain(role).chain(certificate).chain(unix).cloned().collect()
    }

    /// As JSON.
    pub fn text(&self) -> String {
        // Maps have text as keys: nothing here can fail.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// What deserves a second look though it is allowed.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.groups().is_empty() {
            warnings.push("no binding gives a group: only policies for everybody, or on claims, will apply".to_owned());
        }
        if self.jwt.as_ref().is_some_and(|jwt| !jwt.single_use()) {
            warnings.push("tokens may be used again until they expire: whoever copies one can log in".to_owned());
        }
        if self.oidc.as_ref().is_some_and(|oidc| oidc.device) {
            warnings.push(
                "the device flow is on: whoever talks somebody into typing a code logs in as them (RFC 8628, 5.4)"
                    .to_owned(),
            );
        }
        if self.token.max_ttl_secs() > SEALED_TTL_MAX_SECS {
            warnings.push("tokens live longer than 15 minutes: each log-in is stored".to_owned());
        }
        warnings
    }
}

impl Trust {
    /// Puts a definition into force.
    /// # Errors
    /// [`AuthError::Refused`], `NotAClient`.
    pub fn new(
        name: &str,
        times: Times,
        definition: Definition,
        secret: Option<Arc<SecretBytes>>,
    ) -> Result<Self, AuthError> {
        let method = definition.method(secret)?;
        Ok(Self {
            name: name.to_owned(),
            times,
            definition,
            method,
        })
    }

    /// Whether it existed when a token was issued: what an earlier trust of this name saw used is not remembered for ever.
    /// # Errors
    /// [`Refused::NotRemembered`].
    pub fn existed(&self, issued: Timestamp) -> Result<(), Refused> {
        let seconds = |at: Timestamp| at.0 / 1000;
        match seconds(issued) >= seconds(self.times.created) {
            true => Ok(()),
            false => Err(Refused::NotRemembered),
        }
    }

    /// Its role id, if it is an app role's.
    pub fn role_id(&self) -> Option<TrustId> {
        self.definition.role.as_ref().map(|_| trust_id(&self.name))
    }

    /// The issuer it names, if it is a JWT trust.
    pub fn issuer(&self) -> Option<&str> {
        self.definition.jwt.as_ref().map(|jwt| jwt.issuer.as_str())
    }

    /// The issuer that a listing shows: of tokens that are brought, or of people.
    pub fn listed_issuer(&self) -> &str {
        let oidc = self.definition.oidc.as_ref().map(|oidc| oidc.issuer.as_str());
        self.issuer().or(oidc).unwrap_or_default()
    }

    /// The client secret of an OIDC trust.
    pub fn client_secret(&self) -> Option<&Arc<SecretBytes>> {
        match &self.method {
            Method::Oidc(method) => method.secret(),
            Method::Jwt(_) | Method::Role(_) | Method::Certificate(_) | Method::Unix(_) => None,
        }
    }

    /// The client secret that stays when `next` is written without one: it is sent where it was sent before, or it goes.
    pub fn kept_secret(&self, next: &Definition) -> Option<Arc<SecretBytes>> {
        let same = (self.definition.oidc.as_ref().zip(next.oidc.as_ref()))
            .is_some_and(|(one, other)| one.same_provider(other));
        self.client_secret().filter(|_| same).cloned()
    }

    /// Its bytes in the store.
    /// # Errors
    /// No known definition causes one.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let secret = self.client_secret().map(|secret| std::str::from_utf8(secret.expose()));
        serde_json::to_vec(&Record {
            format: FORMAT,
            times: self.times,
            definition: self.definition.clone(),
            client_secret: secret.and_then(Result::ok).map(Cow::Borrowed),
        })
    }

    /// From its bytes. `None`: not known ones, or a definition that this version no longer believes.
    pub fn decode(name: &str, bytes: &[u8]) -> Option<Self> {
        let record: Record<'_> = serde_json::from_slice(bytes).ok()?;
        if record.format != FORMAT {
            return None;
        }
        let secret = record
            .client_secret
            .map(|secret| Arc::new(SecretBytes::from(secret.as_bytes())));
        Self::new(name, record.times, record.definition, secret)
            .inspect_err(|error| tracing::error!(trust = name, %error, "a stored trust is not in force"))
            .ok()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record<'r> {
    format: u8,
    times: Times,
    definition: Definition,
    /// Of an OIDC trust; in no definition, so that reading one tells it to nobody.
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    client_secret: Option<Cow<'r, str>>,
}

/// Whether `name` can be a trust's.
pub fn is_trust_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
}

/// Where decisions about a trust are taken: `sys/trust/NAME`.
/// # Errors
/// [`AuthError::Name`].
pub fn path_of(name: &str) -> Result<Path, AuthError> {
    below("sys/trust", name)
}

/// Where a log-in is decided: `sys/login/NAME`.
/// # Errors
/// [`AuthError::Name`].
pub fn login_path(name: &str) -> Result<Path, AuthError> {
    below("sys/login", name)
}

fn below(folder: &str, name: &str) -> Result<Path, AuthError> {
    if !is_trust_name(name) {
        return Err(AuthError::Name);
    }
    Path::parse(&format!("{folder}/{name}")).map_err(|_| AuthError::Name)
}
