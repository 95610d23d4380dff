//! Logging in, and what a proof would give. The proof is the only credential: these operations identify their callers by it.

use super::prelude::*;
use crate::{
    audit::{Outcome, Source},
    auth::{self, Check, Connection, Flaw, Proof, Refused, SecretUse, oidc::Beginning},
    base::{id::IdentityId, secret::SecretBytes},
    gate::Call,
    policy::Bound,
    token::{Arrival, Created, subject_id},
};
use parking_lot::Mutex;
use std::{net::IpAddr, sync::Arc};

/// The parameter under which a record keeps the use of a token that logs in once, and when it may be forgotten.
pub const USED_PARAM: &str = "used";
/// See [`USED_PARAM`]; seconds since 1970.
pub const USED_UNTIL_PARAM: &str = "used_until";

/// A log-in.
pub struct LogIn {
    trust: String,
    proof: Proof,
    bind: Binding,
    /// Found while identifying, used up by the commit.
    secret: Mutex<Option<SecretUse>>,
}

/// A token, and whom it is for.
pub struct LoggedIn {
    /// The token.
    pub created: Created,
    /// Its bearer.
    pub caller: Arc<Caller>,
}

impl LogIn {
    /// Under the trust of this name; empty: the one that follows from the proof.
    pub fn new(trust: String, proof: Proof, bind: Binding) -> Self {
        Self {
            trust,
            proof,
            bind,
            secret: Mutex::default(),
        }
    }
}

/// What the token is to be bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// Nothing, unless the method binds by itself.
    None,
    /// The connection's client certificate.
    Certificate,
    /// The key of the call's DPoP proof.
    Key,
}

impl LogIn {
    /// The caller's key, as this very call shows it.
    fn bound(&self, call: &Call) -> Result<Option<Bound>, Refused> {
        match self.bind {
            Binding::None => Ok(None),
            Binding::Certificate => call
                .certificate()
                .map(Bound::Certificate)
                .map(Some)
                .ok_or(Refused::Possession),
            Binding::Key => match call.key_held(None) {
                Ok(thumbprint) => Ok(Some(Bound::Key(thumbprint))),
                Err(Flaw::Nonce) => Err(Refused::ProofNonce),
                Err(_) => Err(Refused::Possession),
            },
        }
    }
}

/// What failures are counted by: an address, the network of an IPv6 one, a user id.
fn source_key(source: Source) -> Vec<u8> {
    match source {
        Source::Unix(uid) => uid.to_be_bytes().to_vec(),
        Source::Tls(addr) => match addr.ip().to_canonical() {
            IpAddr::V4(v4) => [&[4], &v4.octets()[..]].concat(),
            IpAddr::V6(v6) => [&[6], &v6.octets()[..8]].concat(),
        },
    }
}

/// What the caller is told. Who sent a token that its issuer signed may know what is wrong with it; anybody else hears no more than no.
fn refusal(refused: Refused) -> Failure {
    let failure = match refused {
        Refused::Pending => return Failure::new(Reason::LoginPending),
        Refused::SlowDown => return Failure::new(Reason::LoginSlowDown),
        Refused::ProofNonce => return Failure::new(Reason::UseDpopNonce),
        Refused::TooManyFlows => {
            let words = "too many log-ins with a typed code at once: try again in a moment, or with a browser";
            return Failure::with(Reason::Overloaded, words).retry_after(std::time::Duration::from_secs(5));
        }
        Refused::KeysUnavailable | Refused::ProviderUnavailable => {
            return Failure::new(Reason::LoginRefused).retry_after(std::time::Duration::from_secs(30));
        }
        told if told.is_told() => Failure::with(
            Reason::LoginRefused,
            format!("{}: {}", Reason::LoginRefused.text(), told.word()),
        ),
        _ => Failure::new(Reason::LoginRefused),
    };
    match refused {
        Refused::NotRemembered => failure.retry_after(std::time::Duration::from_secs(5)),
        _ => failure,
    }
}

/// Where policies decide about a log-in: no permit is needed, a `forbid` counts.
fn target(caller: &Caller) -> Result<Target, Failure> {
    let principal = caller.identity().principal();
    let trust = principal.name().strip_prefix("login:").unwrap_or_default();
    Ok(Target::own(Action::LogIn, auth::login_path(trust)?))
}

/// Refuses whoever was refused too often.
fn admit(rooms: &Open, source: &[u8]) -> Result<(), Failure> {
    (rooms.auth.admit(source))
        .map_err(|wait| Failure::with(Reason::Overloaded, "too many refused log-ins from here").retry_after(wait))
}

impl Operation for LogIn {
    type Reply = LoggedIn;
    const NAME: &'static str = "login.login";
    const CLASS: Class = Class::Change;

    fn describe(&self, trail: &mut Trail) {
        trail.param_word("method", self.proof.word());
        trail.param_word(
            "binding",
            match self.bind {
                Binding::None => "none",
                Binding::Certificate => "certificate",
                Binding::Key => "dpop",
            },
        );
    }

    async fn identify(&self, rooms: &Open, call: &Call, trail: &mut Trail) -> Result<Arc<Caller>, Failure> {
        let source = source_key(call.origin.source);
        admit(rooms, &source)?;
        let (uid, ip) = match call.origin.source {
            Source::Unix(uid) => (Some(uid), None),
            Source::Tls(addr) => (None, Some(addr.ip())),
        };
        let chain = Arc::clone(&call.origin.chain);
        let from = Connection { uid, ip, chain };
        let recognised = match self.bound(call) {
            Ok(bound) => rooms.auth.recognise(&self.trust, &self.proof, &from, bound).await,
            Err(refused) => Err(refused.into()),
        };
        match recognised {
            Ok(found) => {
                if let Some(used) = found.used {
                    trail.param_id(USED_PARAM, &used.id);
                    trail.param_u64(USED_UNTIL_PARAM, used.until.0.div_ceil(1000));
                }
                *self.secret.lock() = found.secret;
                Ok(rooms.tokens.arrive(found.arrival)?)
            }
            Err(unrecognised) => {
                // Whoever the issuer signed for is no stranger who tries.
                if !unrecognised.refused.is_told() {
                    rooms.auth.failed(&source);
                }
                trail.param_word("refused", unrecognised.refused.word());
                if let Some(session) = unrecognised.copied {
                    // Nobody knows whether the first or the second is the thief: the first loses what it has.
                    let mut alert = trail.alert("login.secret-copied");
                    alert.param_id("ended", session.as_bytes());
                    let change = rooms.tokens.end_session(session)?;
                    rooms.commit(change, vec![alert.response(&Outcome::ok())]).await?;
                    rooms.settle_soon().notify_one();
                }
                Err(refusal(unrecognised.refused))
            }
        }
    }

    async fn target(&self, _: &Open, caller: &Caller) -> Result<Target, Failure> {
        target(caller)
    }

    async fn handle(&self, rooms: &Open, permit: &Permit, trail: &mut Trail) -> Result<Effect<LoggedIn>, Failure> {
        let (mut change, created) = rooms.tokens.log_in(permit)?;
        let secret = *self.secret.lock();
        if let Some(secret) = secret {
            let used = rooms.auth.use_up(secret, permit.session()).await;
            change.merge(used.map_err(refusal)?);
        }
        trail.param_bool("sealed", permit.caller().is_sealed());
        trail.param_time("expires", created.expires);
        let reply = LoggedIn {
            created,
            caller: Arc::clone(permit.caller()),
        };
        Ok(Effect::Change(change, reply))
    }

    fn recalls(&self) -> bool {
        true
    }

    /// A token that nobody received is ended.
    async fn undelivered(reply: LoggedIn, rooms: &Open) {
        let ended = match rooms.tokens.end_session(reply.caller.session()) {
            Ok(change) => rooms.commit(change, Vec::new()).await.map(drop).map_err(Failure::from),
            Err(error) => Err(error.into()),
        };
        if let Err(failure) = ended {
            tracing::warn!(%failure, "a token that nobody received lives until it expires");
        }
    }
}

/// Begins the log-in of a person at an OpenID provider. Nobody is known yet: the caller is nobody in particular, of the trust that is named.
pub struct Begin {
    /// The trust.
    pub trust: String,
    /// Where the caller waits for its browser, on its own machine; 0: it has none.
    pub port: u16,
}

impl Operation for Begin {
    type Reply = Beginning;
    const NAME: &'static str = "login.begin";
    const CLASS: Class = Class::Read;
    fn describe(&self, trail: &mut Trail) {
        trail.param_bool("device", self.port == 0);
    }
    async fn identify(&self, rooms: &Open, call: &Call, trail: &mut Trail) -> Result<Arc<Caller>, Failure> {
        let source = source_key(call.origin.source);
        admit(rooms, &source)?;
        match rooms.auth.beginner(&self.trust) {
            Ok(beginner) => Ok(rooms.tokens.arrive(beginner)?),
            Err(refused) => {
                rooms.auth.failed(&source);
                trail.param_word("refused", refused.word());
                Err(refusal(refused))
            }
        }
    }
    async fn target(&self, _: &Open, caller: &Caller) -> Result<Target, Failure> {
        target(caller)
    }
    async fn handle(&self, rooms: &Open, _: &Permit, trail: &mut Trail) -> Result<Effect<Beginning>, Failure> {
        match rooms.auth.begin(&self.trust, self.port).await {
            Ok(beginning) => Ok(Effect::Answer(beginning)),
            Err(refused) => {
                trail.param_word("refused", refused.word());
                Err(refusal(refused))
            }
        }
    }
}

/// Tells what a JWT would give.
pub struct Explain {
    /// The token; it is not used up, and not recorded.
    pub jwt: SecretBytes,
}

/// What a JWT would give.
pub struct Explained {
    /// The trust that names its issuer.
    pub trust: String,
    /// Every check, in order.
    pub checks: Vec<Check>,
    /// Whom it would log in, or the word of the refusal.
    pub outcome: Result<(IdentityId, Arrival), &'static str>,
}

impl Explain {
    fn text(&self) -> Result<&str, Failure> {
        std::str::from_utf8(self.jwt.expose()).map_err(|_| Failure::with(Reason::Malformed, "jwt: not text"))
    }
}

impl Operation for Explain {
    type Reply = Explained;
    const NAME: &'static str = "login.explain";
    const CLASS: Class = Class::Read;
    fn describe(&self, _: &mut Trail) {}
    async fn target(&self, rooms: &Open, _: &Caller) -> Result<Target, Failure> {
        let path = match rooms.auth.trust_of(self.text()?) {
            Ok(trust) => auth::path_of(&trust.name)?,
            // No trust: whoever may read all of them may know that.
            Err(_) => Path::parse("sys/trust").map_err(|_| Reason::Internal)?,
        };
        Ok(Target::new(Action::TrustRead, path))
    }
    async fn handle(&self, rooms: &Open, _: &Permit, trail: &mut Trail) -> Result<Effect<Explained>, Failure> {
        let explained = match rooms.auth.trust_of(self.text()?) {
            Err(refused) => Explained {
                trust: String::new(),
                checks: Vec::new(),
                outcome: Err(refused.word()),
            },
            Ok(trust) => {
                let (checks, outcome) = rooms.auth.explain(&trust, self.text()?).await;
                Explained {
                    trust: trust.name.clone(),
                    checks,
                    outcome: outcome
                        .map(|arrival| (subject_id(&arrival.trust, &arrival.subject), arrival))
                        .map_err(Refused::word),
                }
            }
        };
        trail.param_word(
            "outcome",
            explained.outcome.as_ref().err().copied().unwrap_or("accepted"),
        );
        Ok(Effect::Answer(explained))
    }
}
