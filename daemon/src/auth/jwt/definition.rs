//! A JWT trust as an operator writes it, and what makes one too wide to be believed.

use super::{
    claims::{Scalar, Want},
    jwks::KeySet,
    jws::Algorithm,
    preset::Platform,
};
use crate::auth::outside;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

const BINDINGS_MAX: usize = 64;
const WANTED_CLAIMS_MAX: usize = 32;
const WANTED_VALUES_MAX: usize = 32;
/// Leaves room for `login:method` and `login:trust` among the attributes of a principal.
const ATTRIBUTES_MAX: usize = 28;
const TEXT_BYTES_MAX: usize = 512;
/// The longest time a token may be used after it was issued, and the default.
pub const MAX_AGE_SECS_MAX: u64 = 24 * 3600;
const MAX_AGE_SECS: u64 = 3600;

/// `jwt` of a trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jwt {
    /// What is known of the issuer's tokens.
    #[serde(default)]
    pub platform: Platform,
    /// `iss`, byte for byte.
    pub issuer: String,
    /// `aud`: the token's only one, byte for byte.
    pub audience: String,
    /// The issuer's keys. Default: fetched from where the platform publishes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Keys>,
    /// What tokens may be signed with. Default: as the platform does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub algorithms: Vec<Algorithm>,
    /// Who may log in, and what it gives them. One must fit; all that fit count.
    pub bind: Vec<Binding>,
    /// Claims that policies see as `claim:NAME`. Default: the platform's, and all that are bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Vec<String>>,
    /// A token logs in once only. Default: yes, but for Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub single_use: Option<bool>,
    /// A token issued longer ago is refused, and one that would live longer. Default one hour, at most a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_secs: Option<u64>,
}

/// Where keys come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub enum Keys {
    /// Written down.
    Static {
        /// A key set (RFC 7517).
        jwks: serde_json::Value,
    },
    /// Fetched, and kept for an hour.
    Fetch {
        /// https only. Default: where the platform publishes them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        url: Option<String>,
        /// Authorities of the server's certificate, PEM. Default: the system's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ca_pem: Option<String>,
        /// The server may have a private address.
        #[serde(default)]
        allow_private: bool,
    },
}

/// Who may log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// What claims must be: all of them, each exactly one of its values.
    pub claims: BTreeMap<String, Want>,
    /// What whoever fits gets.
    #[serde(default)]
    pub groups: BTreeSet<String>,
}

impl Jwt {
    /// What its tokens may be signed with.
    pub fn algorithms(&self) -> &[Algorithm] {
        if self.algorithms.is_empty() {
            self.platform.algorithms()
        } else {
            &self.algorithms
        }
    }

    /// How long ago a token may have been issued, in seconds.
    pub fn max_age_secs(&self) -> u64 {
        self.max_age_secs.unwrap_or(MAX_AGE_SECS)
    }

    /// Whether a token logs in once.
    pub fn single_use(&self) -> bool {
        self.single_use.unwrap_or_else(|| self.platform.single_use())
    }

    /// Claims that policies see.
    pub fn attributes(&self) -> BTreeSet<&str> {
        match &self.attributes {
            Some(names) => names.iter().map(String::as_str).collect(),
            None => {
                let bound = self.bind.iter().flat_map(|binding| binding.claims.keys());
                (self.platform.attributes().iter().copied())
                    .chain(bound.map(String::as_str))
                    .collect()
            }
        }
    }

    /// Everything that is wrong with it, in words; empty when it may be believed.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = self.plain_faults();
        for (at, binding) in self.bind.iter().enumerate() {
            let reasons = binding.faults().into_iter().chain(self.platform.too_wide(binding));
            faults.extend(reasons.map(|reason| format!("bind[{at}]: {reason}")));
        }
        faults
    }

    fn plain_faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut need = |holds: bool, fault: &str| {
            if !holds {
                faults.push(fault.to_owned());
            }
        };
        let short =
            |text: &str| (1..=TEXT_BYTES_MAX).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic());
        need(short(&self.issuer), "issuer: 1 to 512 visible ASCII characters");
        need(
            self.issuer.starts_with("https://") || matches!(self.keys, Some(Keys::Static { .. })),
            "issuer: an issuer whose keys are fetched begins with https://",
        );
        need(
            short(&self.audience),
            "audience: 1 to 512 visible ASCII characters; choose one of your own",
        );
        need(
            self.audience != self.issuer,
            "audience: the issuer's own name is in tokens for everybody",
        );
        need(
            self.platform != Platform::Github || !self.audience.starts_with("https://github.com/"),
            "audience: the owner's URL is GitHub's default, which tokens for everybody have: choose one of your own",
        );
        need(!self.algorithms().is_empty(), "algorithms: name at least one");
        need(!self.bind.is_empty(), "bind: nobody may log in without a binding");
        need(self.bind.len() <= BINDINGS_MAX, "bind: at most 64");
        need(
            self.attributes().len() <= ATTRIBUTES_MAX,
            "attributes: at most 28 claims, the bound ones included unless you name them",
        );
        need(
            (60..=MAX_AGE_SECS_MAX).contains(&self.max_age_secs()),
            "max_age_secs: 60 to 86400",
        );
        match &self.keys {
            Some(Keys::Static { jwks }) => {
                if let Err(fault) = KeySet::strict(jwks.to_string().as_bytes()) {
                    faults.push(format!("keys: {fault}"));
                }
            }
            Some(Keys::Fetch { url, ca_pem, .. }) => {
                let url = url.clone().or_else(|| self.platform.keys_url(&self.issuer));
                faults.extend(key_faults(url.as_deref(), ca_pem.as_deref()));
            }
            None => faults.extend(key_faults(self.platform.keys_url(&self.issuer).as_deref(), None)),
        }
        faults
    }
}

fn key_faults(url: Option<&str>, ca_pem: Option<&str>) -> Vec<String> {
    let nowhere =
        || "keys: this platform has no place where keys are published: give `fetch.url` or `static.jwks`".to_owned();
    match url {
        Some(url) => outside::faults("keys", url, ca_pem),
        None => vec![nowhere()],
    }
}

impl Binding {
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.claims.len() > WANTED_CLAIMS_MAX {
            faults.push("at most 32 claims".to_owned());
        }
        for (name, want) in &self.claims {
            let values = want.values();
            if values.is_empty() || values.len() > WANTED_VALUES_MAX {
                faults.push(format!("`{name}`: 1 to 32 values"));
            }
            if ["aud", "iss", "exp", "nbf", "iat", "jti"].contains(&name.as_str()) {
                faults.push(format!("`{name}` is checked by itself and binds nobody"));
            }
            for value in values {
                match value {
                    Scalar::Text(text) if text.is_empty() || text.len() > TEXT_BYTES_MAX => {
                        faults.push(format!("`{name}`: 1 to 512 bytes"));
                    }
                    Scalar::Text(text) if text.contains(['*', '?']) => {
                        faults.push(format!(
                            "`{name}`: values are exact, there are no wildcards: `{text}` would fit only itself"
                        ));
                    }
                    _ => {}
                }
            }
        }
        faults
    }
}
