//! What an OpenID provider publishes of itself, and what it answers: the two authorization grants, and nothing else.
//!
//! All of it is a stranger's text until it is parsed here: bounded, its keys unique, its URLs such as [`crate::auth::outside`] asks.

use super::definition::Oidc;
use crate::{
    auth::{
        Refused,
        jwt::{JwtTrust, json},
        outside::{Client, OutsideError, form, url},
    },
    base::secret::SecretBytes,
};
use data_encoding::BASE64;
use hyper::{StatusCode, Uri};
use serde_json::{Map, Value};
use std::{sync::Arc, time::Duration};

/// Bytes of an answer. ID tokens have at most 16 KiB, what is published a few.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// A code, as it came from browser or provider.
pub const CODE_BYTES_MAX: usize = 4096;
/// What a person types.
const USER_CODE_BYTES_MAX: usize = 64;
/// Between two questions, when the provider says nothing (RFC 8628, 3.2), and at most.
const INTERVAL_SECS: u64 = 5;
const INTERVAL_SECS_MAX: u64 = 60;

/// A provider whose publication was read.
pub struct Provider {
    /// When, by the monotonic clock.
    pub at: Duration,
    /// Where browsers go.
    pub authorization: String,
    token: Uri,
    device: Option<Uri>,
    /// It names itself beside each code (RFC 9207).
    pub names_itself: bool,
    /// It takes the client's secret in the header; otherwise in the form.
    basic: bool,
    /// Its ID tokens.
    pub tokens: Arc<JwtTrust>,
    /// Where the keys are.
    keys: String,
}

/// A device flow that the provider has begun (RFC 8628, 3.2).
pub struct Device {
    /// What to ask with.
    pub device_code: String,
    /// What a person types.
    pub user_code: String,
    /// Where.
    pub url: String,
    /// The same with the code in it; may be empty.
    pub url_complete: String,
    /// It is good so long.
    pub life_secs: u64,
    /// How often to ask.
    pub interval_secs: u64,
}

/// Who the vault is to the provider.
pub struct Us<'c> {
    pub http: &'c Client,
    pub id: &'c str,
    pub secret: Option<&'c SecretBytes>,
}

impl Provider {
    /// Reads the publication.
    /// # Errors
    /// [`OutsideError`].
    pub async fn discover(oidc: &Oidc, client: &Client, at: Duration) -> Result<Self, OutsideError> {
        let place = url(&oidc.discovery_url()).ok_or(OutsideError::Url)?;
        Self::parse(oidc, client, &client.get(&place, ANSWER_BYTES_MAX).await?, at).map_err(OutsideError::Answer)
    }

    fn parse(oidc: &Oidc, client: &Client, bytes: &[u8], at: Duration) -> Result<Self, &'static str> {
        let told = json::object(bytes).ok_or("not a JSON object with unique keys")?;
        let text = |name: &str| told.get(name).and_then(Value::as_str);
        // Byte for byte: a publication of somebody else would send people and codes to somebody else.
        if text("issuer") != Some(&oidc.issuer) {
            return Err("it publishes another `issuer` than the trust names");
        }
        let asked = |name: &str| text(name).and_then(url);
        let lists = |name: &str, value: &str| match told.get(name) {
            None => None,
            Some(Value::Array(list)) => Some(list.iter().any(|one| one == value)),
            Some(_) => Some(false),
        };
        if lists("code_challenge_methods_supported", "S256") == Some(false) {
            return Err("it does not take PKCE with S256");
        }
        let keys = text("jwks_uri").ok_or("no `jwks_uri`")?;
        let tokens =
            JwtTrust::with_client(oidc.jwt(keys.to_owned()), client).map_err(|_| "its `jwks_uri` is not usable")?;
        Ok(Self {
            at,
            authorization: (asked("authorization_endpoint").map(|url| url.to_string()))
                .ok_or("no usable `authorization_endpoint`")?,
            token: asked("token_endpoint").ok_or("no usable `token_endpoint`")?,
            device: asked("device_authorization_endpoint"),
            names_itself: told.get("authorization_response_iss_parameter_supported") == Some(&Value::Bool(true)),
            // RFC 8414, 2: what it takes when it says nothing.
            basic: lists("token_endpoint_auth_methods_supported", "client_secret_basic") != Some(false),
            tokens: Arc::new(tokens),
            keys: keys.to_owned(),
        })
    }

    /// Keys that were fetched from the same place stay known.
    pub fn keep_keys(&mut self, known: &Self) {
        if known.keys == self.keys {
            self.tokens = Arc::clone(&known.tokens);
        }
    }

    /// Begins a device flow.
    /// # Errors
    /// `NoFlow`: the provider has none. `ProviderUnavailable`.
    pub async fn begin_device(&self, client: &Us<'_>, scope: &str) -> Result<Device, Refused> {
        let place = self.device.as_ref().ok_or(Refused::NoFlow)?;
        let (status, told) = self.ask(client, place, &[("scope", scope)]).await?;
        if status != StatusCode::OK {
            return Err(refused(&told));
        }
        device(&told).ok_or_else(|| unusable("its device authorization lacks a part"))
    }

    /// An ID token for `grant`.
    /// # Errors
    /// What the provider says: `Pending`, `SlowDown`, `ProviderDenied`, `Expired`, `Code`. `ProviderUnavailable`.
    pub async fn id_token(&self, client: &Us<'_>, grant: &[(&str, &str)]) -> Result<SecretBytes, Refused> {
        let (status, told) = self.ask(client, &self.token, grant).await?;
        if status != StatusCode::OK {
            return Err(refused(&told));
        }
        let token = told.get("id_token").and_then(Value::as_str);
        token
            .map(|token| SecretBytes::from(token.as_bytes()))
            .ok_or_else(|| unusable("its answer has no ID token"))
    }

    async fn ask(
        &self,
        client: &Us<'_>,
        place: &Uri,
        pairs: &[(&str, &str)],
    ) -> Result<(StatusCode, Map<String, Value>), Refused> {
        let (mut pairs, mut header) = (pairs.to_vec(), None);
        let secret = client
            .secret
            .map(|secret| std::str::from_utf8(secret.expose()).unwrap_or_default());
        match secret {
            Some(secret) if self.basic => header = Some(basic(client.id, secret)),
            Some(secret) => pairs.extend([("client_id", client.id), ("client_secret", secret)]),
            None => pairs.push(("client_id", client.id)),
        }
        let body = form(&pairs);
        let asked = client.http.post(place, &body, header.as_ref(), ANSWER_BYTES_MAX);
        let (status, body) = asked.await.map_err(|error| unavailable(&error))?;
        let told = json::object(SecretBytes::new(body).expose());
        told.map(|told| (status, told))
            .ok_or_else(|| unusable("its answer is no JSON object"))
    }
}

/// RFC 6749, 2.3.1: both parts are form-encoded first.
fn basic(id: &str, secret: &str) -> SecretBytes {
    let (id, secret) = (form(&[(id, "")]), form(&[(secret, "")]));
    let bare = |form: &SecretBytes| form.expose().strip_suffix(b"=").unwrap_or_default().to_vec();
    let pair = SecretBytes::new([&bare(&id)[..], b":", &bare(&secret)].concat());
    SecretBytes::new([b"Basic ", BASE64.encode(pair.expose()).as_bytes()].concat())
}

/// The provider's `error`, as a refusal (RFC 6749, 5.2; RFC 8628, 3.5).
fn refused(told: &Map<String, Value>) -> Refused {
    match told.get("error").and_then(Value::as_str).unwrap_or_default() {
        "authorization_pending" => Refused::Pending,
        "slow_down" => Refused::SlowDown,
        "access_denied" => Refused::ProviderDenied,
        "expired_token" => Refused::Expired,
        "invalid_grant" => Refused::Code,
        "invalid_client" | "unauthorized_client" => {
            unusable("it does not know the vault: client_id or client secret are wrong")
        }
        "invalid_scope" => unusable("it does not give a scope that the trust asks for"),
        "unsupported_grant_type" => unusable("the vault may not use this flow there"),
        _ => unusable("it refused, and gave no reason that is known"),
    }
}

fn device(told: &Map<String, Value>) -> Option<Device> {
    let text = |name: &str, max: usize| {
        let text = told.get(name).and_then(Value::as_str)?;
        ((1..=max).contains(&text.len()) && text.bytes().all(|byte| (0x20..0x7f).contains(&byte)))
            .then(|| text.to_owned())
    };
    let number = |name: &str| told.get(name).and_then(Value::as_u64);
    // A person opens it: https, as everything else, though a query is usual in the complete one.
    let link = |name: &str| text(name, 1024).filter(|link| link.starts_with("https://") && !link.contains(' '));
    Some(Device {
        device_code: text("device_code", CODE_BYTES_MAX)?,
        user_code: text("user_code", USER_CODE_BYTES_MAX)?,
        url: link("verification_uri").or_else(|| link("verification_url"))?,
        url_complete: link("verification_uri_complete").unwrap_or_default(),
        life_secs: number("expires_in")?,
        interval_secs: number("interval").unwrap_or(INTERVAL_SECS).clamp(1, INTERVAL_SECS_MAX),
    })
}

pub fn unavailable(error: &OutsideError) -> Refused {
    tracing::warn!(cause = %error, "an OpenID provider could not be asked");
    Refused::ProviderUnavailable
}

fn unusable(why: &'static str) -> Refused {
    unavailable(&OutsideError::Answer(why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn oidc() -> Oidc {
        serde_json::from_value(json!({
            "issuer": "https://id.example.com", "client_id": "vault", "bind": [{"claims": {"sub": "ann"}, "groups": ["g"]}],
        }))
        .unwrap()
    }

    fn published() -> Value {
        json!({
            "issuer": "https://id.example.com", "authorization_endpoint": "https://id.example.com/auth",
            "token_endpoint": "https://id.example.com/token", "jwks_uri": "https://id.example.com/keys",
            "code_challenge_methods_supported": ["plain", "S256"],
        })
    }

    /// R-AUTH-1: what a provider publishes is believed only when it is its own, complete, and safe to ask.
    #[test]
    fn a_publication_is_taken_or_refused() {
        let client = Client::new(None, false).unwrap();
        let parse =
            |told: &Value| Provider::parse(&oidc(), &client, told.to_string().as_bytes(), Duration::ZERO).map(drop);
        assert_eq!(parse(&published()), Ok(()));
        for (name, value, why) in [
            ("issuer", json!("https://id.example.com/"), "another `issuer`"),
            ("issuer", json!("https://evil.example.com"), "another `issuer`"),
            ("issuer", Value::Null, "another `issuer`"),
            ("token_endpoint", json!("http://id.example.com/token"), "token_endpoint"),
            (
                "token_endpoint",
                json!("https://a:b@id.example.com/token"),
                "token_endpoint",
            ),
            ("token_endpoint", Value::Null, "token_endpoint"),
            (
                "authorization_endpoint",
                json!("javascript:alert(1)"),
                "authorization_endpoint",
            ),
            ("authorization_endpoint", json!(7), "authorization_endpoint"),
            ("jwks_uri", json!("file:///etc/passwd"), "jwks_uri"),
            ("jwks_uri", Value::Null, "jwks_uri"),
            ("code_challenge_methods_supported", json!(["plain"]), "S256"),
            ("code_challenge_methods_supported", json!("S256"), "S256"),
        ] {
            let mut told = published();
            told[name] = value.clone();
            let error = parse(&told).unwrap_err();
            assert!(error.contains(why), "{name} {value}: {error}");
        }
        let twice = published()
            .to_string()
            .replacen('{', r#"{"issuer":"https://evil.example.com","#, 1);
        assert!(Provider::parse(&oidc(), &client, twice.as_bytes(), Duration::ZERO).is_err());
    }

    /// RFC 6749, 5.2 and RFC 8628, 3.5: what a provider says when it gives no token.
    #[test]
    fn refusals_of_a_provider_are_told_apart() {
        for (word, want) in [
            ("authorization_pending", Refused::Pending),
            ("slow_down", Refused::SlowDown),
            ("access_denied", Refused::ProviderDenied),
            ("expired_token", Refused::Expired),
            ("invalid_grant", Refused::Code),
            ("invalid_client", Refused::ProviderUnavailable),
            ("server_error", Refused::ProviderUnavailable),
            ("", Refused::ProviderUnavailable),
        ] {
            assert_eq!(refused(json!({"error": word}).as_object().unwrap()), want, "{word}");
        }
        assert_eq!(refused(&Map::new()), Refused::ProviderUnavailable);
    }

    #[test]
    fn a_device_authorization_is_whole_and_bounded() {
        let whole = json!({
            "device_code": "d", "user_code": "WDJB-MJHT", "verification_uri": "https://id.example.com/device", "expires_in": 900, "interval": 0,
        });
        let parsed = device(whole.as_object().unwrap()).unwrap();
        assert_eq!(
            (parsed.interval_secs, parsed.life_secs, parsed.url_complete.as_str()),
            (1, 900, "")
        );
        for (name, value) in [
            ("device_code", Value::Null),
            ("device_code", json!("")),
            ("device_code", json!("d".repeat(5000))),
            ("user_code", json!("A\u{1b}[31mB")),
            ("user_code", json!("A".repeat(65))),
            ("verification_uri", json!("http://id.example.com/device")),
            ("verification_uri", json!("https://id.example.com/a b")),
            ("expires_in", json!("900")),
        ] {
            let mut told = whole.clone();
            told[name] = value.clone();
            assert!(device(told.as_object().unwrap()).is_none(), "{name} {value}");
        }
    }

    /// RFC 6749, 2.3.1: the secret's own signs do not change the header.
    #[test]
    fn the_clients_header_is_encoded_twice() {
        let header = basic("a:b", "p%ü&=");
        let text = std::str::from_utf8(header.expose()).unwrap();
        let pair = BASE64.decode(text.strip_prefix("Basic ").unwrap().as_bytes()).unwrap();
        assert_eq!(pair, b"a%3Ab:p%25%C3%BC%26%3D");
    }
}
