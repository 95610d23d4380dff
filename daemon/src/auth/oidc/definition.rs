//! An OIDC trust as an operator writes it, and what makes one too wide to be believed.

use crate::auth::{
    jwt::{Binding, Jwt, Keys, Platform, jws::Algorithm},
    outside,
};
use serde::{Deserialize, Serialize};

/// Where the browser is sent when the trust names nothing: any port, as native applications do (RFC 8252, 7.3).
const REDIRECT: &str = "http://127.0.0.1/callback";
/// Never another host: what stands there waits for its own browser only (RFC 8252, 8.3).
const LOOPBACK: &str = "http://127.0.0.1";
const REDIRECT_BYTES_MAX: usize = 128;
const SCOPES_MAX: usize = 16;
const SCOPE_BYTES_MAX: usize = 128;
/// An ID token comes straight from the provider, and is as old as the answer; how long it says to be good does not matter here.
const LIFE_SECS_MAX: u64 = 24 * 3600;

/// `oidc` of a trust: people, who prove themselves to an OpenID provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oidc {
    /// `iss`, byte for byte; what the provider publishes of itself is below it.
    pub issuer: String,
    /// As the provider knows the vault: the only audience of its ID tokens.
    pub client_id: String,
    /// What is asked for beside `openid`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// Where the browser comes back to: `http://127.0.0.1[:PORT]/PATH`. Without a port the caller chooses one. Default: `/callback`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<String>,
    /// Whether people may log in from a terminal without a browser (RFC 8628). Whoever talks somebody into typing a code logs in as them.
    #[serde(default)]
    pub device: bool,
    /// What ID tokens may be signed with. Default: RS256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub algorithms: Vec<Algorithm>,
    /// Who may log in, and what it gives them. One must fit; all that fit count.
    pub bind: Vec<Binding>,
    /// Claims that policies see as `claim:NAME`. Default: `sub`, `acr`, `amr`, and all that are bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Vec<String>>,
    /// Authorities of the provider's certificates, PEM. Default: the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    /// The provider may have a private address.
    #[serde(default)]
    pub allow_private: bool,
}

impl Oidc {
    /// What is published of the provider (OpenID Connect Discovery 1.0, 4).
    pub fn discovery_url(&self) -> String {
        format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'))
    }

    /// Where the browser comes back to when the caller can wait at `port`: there, or at the one port that the trust names.
    pub fn redirect_at(&self, port: u16) -> String {
        let (fixed, path) = redirect(self.redirect.as_deref().unwrap_or(REDIRECT)).unwrap_or((None, "/callback"));
        format!("{LOOPBACK}:{}{path}", fixed.unwrap_or(port))
    }

    /// What is asked for.
    pub fn scope(&self) -> String {
        let more = self
            .scopes
            .iter()
            .map(String::as_str)
            .filter(|scope| *scope != "openid");
        ["openid"].into_iter().chain(more).collect::<Vec<_>>().join(" ")
    }

    /// ID tokens as a JWT trust sees them, with their keys at `keys_url`.
    pub fn jwt(&self, keys_url: String) -> Jwt {
        Jwt {
            platform: Platform::Person,
            issuer: self.issuer.clone(),
            audience: self.client_id.clone(),
            keys: Some(Keys::Fetch {
                url: Some(keys_url),
                ca_pem: self.ca_pem.clone(),
                allow_private: self.allow_private,
            }),
            algorithms: self.algorithms.clone(),
            bind: self.bind.clone(),
            attributes: self.attributes.clone(),
            // The log-in itself is used up, not its token.
            single_use: Some(false),
            max_age_secs: Some(LIFE_SECS_MAX),
        }
    }

    /// Whether what a client secret is sent to is still the same: whoever may write a trust is not therefore told its secret.
    pub fn same_provider(&self, other: &Self) -> bool {
        let of = |oidc: &Self| {
            (
                oidc.issuer.clone(),
                oidc.client_id.clone(),
                oidc.ca_pem.clone(),
                oidc.allow_private,
            )
        };
        of(self) == of(other)
    }

    /// Everything that is wrong with it, in words; empty when it may be believed.
    pub fn faults(&self) -> Vec<String> {
        let discovery = self.discovery_url();
        let mut faults = outside::faults("issuer", &discovery, self.ca_pem.as_deref());
        let of_tokens = self.jwt(discovery).faults();
        let seen = of_tokens.into_iter().filter(|fault| !fault.starts_with("keys:"));
        faults.extend(seen.map(|fault| fault.replacen("audience:", "client_id:", 1)));
        if redirect(self.redirect.as_deref().unwrap_or(REDIRECT)).is_none() {
            faults.push(
                "redirect: http://127.0.0.1/PATH or http://127.0.0.1:PORT/PATH, of a-z A-Z 0-9 / . _ -".to_owned(),
            );
        }
        let is_scope = |scope: &String| {
            (1..=SCOPE_BYTES_MAX).contains(&scope.len())
                && scope
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
        };
        if self.scopes.len() > SCOPES_MAX || !self.scopes.iter().all(is_scope) {
            faults.push("scopes: at most 16, each 1 to 128 visible ASCII characters (RFC 6749, 3.3)".to_owned());
        }
        faults
    }
}

/// Port, if any, and path.
fn redirect(text: &str) -> Option<(Option<u16>, &str)> {
    let rest = text
        .strip_prefix(LOOPBACK)
        .filter(|_| text.len() <= REDIRECT_BYTES_MAX)?;
    let (port, path) = rest.split_at(rest.find('/')?);
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        None => return None,
        Some(digits) if digits.starts_with(['0', '+']) => return None,
        Some(digits) => Some(digits.parse().ok()?),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    path.bytes().all(plain).then_some((port, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_is_the_loopback() {
        for (text, want) in [
            ("http://127.0.0.1/callback", Some((None, "/callback"))),
            ("http://127.0.0.1:8250/a/b", Some((Some(8250), "/a/b"))),
            ("http://127.0.0.1/", Some((None, "/"))),
            ("http://127.0.0.1", None),
            ("https://127.0.0.1/callback", None),
            ("http://localhost/callback", None),
            ("http://127.0.0.1.evil.example/callback", None),
            ("http://127.0.0.1@evil.example/callback", None),
            ("http://127.0.0.1:80@evil.example/callback", None),
            ("http://127.0.0.1:0/callback", None),
            ("http://127.0.0.1:+80/callback", None),
            ("http://127.0.0.1:70000/callback", None),
            ("http://127.0.0.1/callback?x=1", None),
            ("http://127.0.0.1/callback#x", None),
            ("http://127.0.0.1/call back", None),
        ] {
            assert_eq!(redirect(text), want, "{text}");
        }
    }
}
