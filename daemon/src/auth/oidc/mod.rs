//! Log-in of people, whom an OpenID provider knows: authorization code with PKCE in a browser (RFC 6749, 7636, 8252), or a code that is typed
//! elsewhere (RFC 8628). The daemon is the client: it asks the token endpoint itself, and no ID token is ever taken from a caller (R-AUTH-1).
//!
//! Trusts: the provider of each trust, to say who somebody is and what their claims are. Limits: a log-in that was begun is done within ten
//! minutes, once, by whoever has its handle; nothing of it is kept until then. Reading order: `definition` (whom a trust believes), `provider` (what
//! is asked outside), `begun` (handles), `flows` (typed codes under way), this file (the two halves of a log-in). ADR 0018; guide: docs/guides/people.md.

mod begun;
mod definition;
mod flows;
mod provider;
#[cfg(test)]
mod tests;

pub use begun::Handles;
pub use definition::Oidc;
pub use provider::CODE_BYTES_MAX;

use super::{
    AuthRoom, Recognised, Refused, arrival,
    jwt::{self, Steps, numeric_date},
    outside::{Client, form},
    replay::Use,
    trust::{Method, Trust},
};
use crate::{
    base::{secret::SecretBytes, time::Timestamp},
    policy::Bound,
    token::Arrival,
};
use arc_swap::ArcSwapOption;
use begun::Begun;
use data_encoding::BASE64URL_NOPAD;
use flows::Flows;
use provider::{Provider, Us, unavailable};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::sync::Mutex;

/// A log-in that was begun is done by then. A person has to find a password and a second factor.
const LIFE_SECS: u64 = 600;
/// What a provider publishes is read again when it is older.
const FRESH: Duration = Duration::from_secs(3600);
/// Between two readings, whatever asks for them.
const PAUSE: Duration = Duration::from_secs(30);
/// What cannot be read anew is used no longer.
const STALE: Duration = Duration::from_secs(24 * 3600);
/// How far the provider's clock may be behind.
const SKEW_SECS: u64 = 30;
/// A client secret's length.
const SECRET_BYTES_MAX: usize = 1024;

/// An OIDC trust in force.
pub struct OidcTrust {
    /// As it was written.
    pub definition: Oidc,
    secret: Option<Arc<SecretBytes>>,
    http: Client,
    /// Log-ins with a typed code: they take none of the others' places.
    flows: Flows,
    flows_http: Client,
    provider: ArcSwapOption<Provider>,
    /// When it was last read; one reading at a time.
    tried: Mutex<Option<Duration>>,
}

/// The first half of a log-in.
pub struct Beginning {
    /// Whoever has it, and the code, logs in.
    pub handle: SecretBytes,
    /// Where a person goes.
    pub url: String,
    /// How the second half comes about.
    pub flow: Flow,
    /// By when.
    pub ends: Timestamp,
}

/// How a log-in goes on.
pub enum Flow {
    /// The browser brings a code.
    Browser {
        /// It must bring this too.
        state: String,
        /// To here.
        redirect: String,
    },
    /// A person types a code.
    Device {
        /// What to ask with.
        device_code: SecretBytes,
        /// What is typed.
        user_code: String,
        /// The URL that has it already; may be empty.
        url_complete: String,
        /// How often to ask, in seconds.
        interval_secs: u64,
    },
}

/// What a caller brings for the second half.
pub struct Brought {
    /// Of the first half.
    pub handle: SecretBytes,
    /// The authorization code, or the device code.
    pub code: SecretBytes,
    /// `iss` beside the code, if it came (RFC 9207).
    pub issuer: Option<String>,
    /// Where the caller waited for the browser; 0: the device flow.
    pub port: u16,
}

impl OidcTrust {
    /// Puts a definition into force.
    /// # Errors
    /// In words, what is wrong with it.
    pub fn new(definition: Oidc, secret: Option<Arc<SecretBytes>>) -> Result<Self, Vec<String>> {
        let mut faults = definition.faults();
        let text = secret.as_ref().is_none_or(|secret| {
            (1..=SECRET_BYTES_MAX).contains(&secret.len())
                && secret.expose().iter().all(|byte| (0x20..0x7f).contains(byte))
        });
        if !text {
            faults.push("client secret: 1 to 1024 printable ASCII characters".to_owned());
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let http = Client::new(definition.ca_pem.as_deref(), definition.allow_private);
        let http = http.map_err(|error| vec![format!("issuer: {error}")])?;
        Ok(Self {
            flows: Flows::default(),
            flows_http: http.apart(flows::AT_ONCE_MAX),
            http,
            definition,
            secret,
            provider: ArcSwapOption::empty(),
            tried: Mutex::new(None),
        })
    }

    /// Its client secret, for the record.
    pub const fn secret(&self) -> Option<&Arc<SecretBytes>> {
        self.secret.as_ref()
    }

    fn us(&self, browser: bool) -> Us<'_> {
        Us {
            http: if browser { &self.http } else { &self.flows_http },
            id: &self.definition.client_id,
            secret: self.secret.as_deref(),
        }
    }

    /// The provider, as it last described itself.
    async fn provider(&self, mono: Duration) -> Result<Arc<Provider>, Refused> {
        let within = |age: Duration| {
            let provider = self.provider.load_full();
            provider.filter(|provider| mono.saturating_sub(provider.at) < age)
        };
        if let Some(provider) = within(FRESH) {
            return Ok(provider);
        }
        let mut tried = self.tried.lock().await;
        if within(FRESH).is_none() && tried.is_none_or(|at| mono.saturating_sub(at) >= PAUSE) {
            let found = Provider::discover(&self.definition, &self.http, mono).await;
            // Only now: who left in the middle has not tried.
            *tried = Some(mono);
            match found {
                Ok(mut found) => {
                    if let Some(known) = self.provider.load_full() {
                        found.keep_keys(&known);
                    }
                    self.provider.store(Some(Arc::new(found)));
                }
                Err(error) => drop(unavailable(&error)),
            }
        }
        within(STALE).ok_or(Refused::ProviderUnavailable)
    }

    /// What an ID token must say beside what every JWT must (OpenID Connect Core 1.0, 3.1.3.7): that it is for this client and this log-in.
    fn is_of(&self, claims: &Map<String, Value>, begun: &Begun, nonce: &str, browser: bool) -> Result<(), Refused> {
        let text = |name: &str| claims.get(name).map(|value| value.as_str().unwrap_or_default());
        if text("azp").is_some_and(|party| party != self.definition.client_id) {
            return Err(Refused::Audience);
        }
        match text("nonce") {
            Some(told) if told == nonce => {}
            // RFC 8628 has no nonce: there the device code, which the handle names, is the tie.
            None if !browser => {}
            _ => return Err(Refused::Nonce),
        }
        let issued = claims.get("iat").and_then(numeric_date).ok_or(Refused::Times)?;
        match issued.saturating_add(SKEW_SECS) >= begun.began.0 / 1000 {
            true => Ok(()),
            false => Err(Refused::TooOld),
        }
    }
}

/// What a begun log-in belongs to: the trust as it is now, and the flow. A trust that was written anew meanwhile may send codes elsewhere.
fn tie(trust: &Trust, browser: bool) -> String {
    let flow = if browser { "browser" } else { "device" };
    format!(
        "{}\n{}\n{}\n{flow}",
        trust.name, trust.times.version, trust.times.created.0
    )
}

fn oidc_of(trust: &Trust) -> Result<&OidcTrust, Refused> {
    match &trust.method {
        Method::Oidc(method) => Ok(method),
        _ => Err(Refused::NoTrust),
    }
}

impl AuthRoom {
    /// Begins a log-in under the trust `name`: with a browser that comes back to `port` of the caller's machine, or (0) with a code to type.
    /// # Errors
    /// [`Refused`].
    pub async fn begin(&self, name: &str, port: u16) -> Result<Beginning, Refused> {
        let trust = self.trust(name).ok_or(Refused::NoTrust)?;
        let method = oidc_of(&trust)?;
        if port == 0 && !method.definition.device {
            return Err(Refused::NoFlow);
        }
        let provider = method.provider(self.clock.monotonic()).await?;
        if port != 0 {
            return Ok(self.begin_browser(&trust, &method.definition, &provider, port));
        }
        method.flows.admit(self.clock.monotonic())?;
        let begun = provider
            .begin_device(&method.us(false), &method.definition.scope())
            .await?;
        let life_secs = begun.life_secs.min(LIFE_SECS);
        let log_in = Handles::begin(&*self.random, self.clock.now(), life_secs);
        let [interval, life] = [begun.interval_secs, life_secs].map(Duration::from_secs);
        method
            .flows
            .begun(log_in.name(), interval, life, self.clock.monotonic());
        Ok(Beginning {
            handle: self.handles.text(&log_in, &tie(&trust, false), &begun.device_code),
            url: begun.url,
            flow: Flow::Device {
                device_code: SecretBytes::new(begun.device_code.into_bytes()),
                user_code: begun.user_code,
                url_complete: begun.url_complete,
                interval_secs: begun.interval_secs,
            },
            ends: log_in.ends,
        })
    }

    fn begin_browser(&self, trust: &Trust, oidc: &Oidc, provider: &Provider, port: u16) -> Beginning {
        let begun = Handles::begin(&*self.random, self.clock.now(), LIFE_SECS);
        let (redirect, state) = (oidc.redirect_at(port), self.handles.state(&begun));
        let challenge = BASE64URL_NOPAD.encode(&Sha256::digest(self.handles.verifier(&begun).expose()));
        let query = form(&[
            ("response_type", "code"),
            ("client_id", &oidc.client_id),
            ("redirect_uri", &redirect),
            ("scope", &oidc.scope()),
            ("state", &state),
            ("nonce", &self.handles.nonce(&begun)),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ]);
        let query = String::from_utf8_lossy(query.expose());
        Beginning {
            handle: self.handles.text(&begun, &tie(trust, true), &redirect),
            url: format!("{}?{query}", provider.authorization),
            flow: Flow::Browser { state, redirect },
            ends: begun.ends,
        }
    }

    /// The second half: asks the provider whose code it is.
    pub(super) async fn by_oidc(
        &self,
        name: &str,
        brought: &Brought,
        bound: Option<Bound>,
    ) -> Result<Recognised, Refused> {
        let trust = self.trust(name).ok_or(Refused::NoTrust)?;
        let method = oidc_of(&trust)?;
        let code = std::str::from_utf8(brought.code.expose()).map_err(|_| Refused::Code)?;
        let browser = brought.port != 0;
        let redirect = method.definition.redirect_at(brought.port);
        let place = if browser { &redirect } else { code };
        let begun = self
            .handles
            .open(&brought.handle, &tie(&trust, browser), place, self.clock.now())?;
        if !browser && !method.definition.device {
            return Err(Refused::NoFlow);
        }
        let (nonce, verifier) = (self.handles.nonce(&begun), self.handles.verifier(&begun));
        // Before anything is asked: who has logged in with it asks no more.
        let used = Use::new(&trust.name, Some(&nonce), &[], begun.ends);
        self.replay.look(used, begun.began)?;
        let mono = self.clock.monotonic();
        let provider = method.provider(mono).await?;
        match &brought.issuer {
            Some(issuer) if *issuer != method.definition.issuer => return Err(Refused::UnknownIssuer),
            None if browser && provider.names_itself => return Err(Refused::UnknownIssuer),
            _ => {}
        }
        let verifier = std::str::from_utf8(verifier.expose()).unwrap_or_default();
        let grant = match browser {
            true => vec![
                ("grant_type", "authorization_code"),
                ("code", code),
                ("redirect_uri", &redirect),
                ("code_verifier", verifier),
            ],
            false => vec![
                ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
                ("device_code", code),
            ],
        };
        let id_token = if browser {
            provider.id_token(&method.us(true), &grant).await?
        } else {
            method.flows.turn(&begun.name(), mono)?;
            let asked = provider.id_token(&method.us(false), &grant).await;
            let refused = asked.as_ref().err().copied();
            method.flows.answered(&begun.name(), refused, self.clock.monotonic());
            asked?
        };
        let token = jwt::parse(std::str::from_utf8(id_token.expose()).map_err(|_| Refused::NotAToken)?)?;
        let now = self.clock.now();
        let told = (provider.tokens)
            .verify(&trust.name, &token, now, mono, &mut Steps::default())
            .await
            // Its fault, and not the person's.
            .map_err(|refused| match refused {
                Refused::KeysUnavailable => Refused::ProviderUnavailable,
                refused => refused,
            })?;
        method.is_of(&token.claims, &begun, &nonce, browser)?;
        self.replay.take(used, begun.began, now)?;
        Ok(Recognised {
            arrival: arrival(&trust, &told.subject, told.groups, told.attributes, bound),
            used: Some(used),
            secret: None,
        })
    }

    /// Whom the first half is for, before anybody is known: nobody in particular, of this trust.
    pub fn beginner(&self, name: &str) -> Result<Arrival, Refused> {
        let trust = self.trust(name).ok_or(Refused::NoTrust)?;
        oidc_of(&trust)?;
        Ok(arrival(&trust, "", BTreeSet::new(), BTreeMap::new(), None))
    }
}
