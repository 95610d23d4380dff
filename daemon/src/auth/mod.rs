//! Log-in methods: from a proof of who calls to the caller. Trusts say whom a method believes and what that gives; a log-in writes
//! nothing unless its token lives longer than 15 minutes (R-AUTH-1, R-AUTH-2, R-AUTH-4).
//!
//! May touch: `base`, `policy` (permits, callers), `token` (which makes the token), `store::View` and `store::Change`.
//! Reading order: `trust` (what an operator writes), `refused` (every way to be refused), a method's folder (`jwt/`, `oidc/`, `role/`, `certificate/`, `unix/`), `outside` (the one client for
//! what issuers publish), `dpop` and `nonce` (proof of a key, for each call), `replay` (a token logs in once), `limit` (failures by source), `documents` (trusts in the store), this file.
//!
//! What is proved decides nothing alone: the gate asks policies whether this caller may `log_in` at `sys/login/TRUST` (no permit is needed,
//! a `forbid` counts), and everything after goes by the groups and claims that the token carries.

mod certificate;
mod documents;
mod dpop;
mod error;
pub mod jwt;
mod limit;
mod network;
mod nonce;
pub mod oidc;
mod outside;
mod refused;
mod replay;
mod role;
#[cfg(test)]
mod tests;
mod trust;
pub mod unix;

pub use certificate::thumbprint;
pub use documents::{Put, Summary, Written};
pub use dpop::{Flaw, Proofs, Request as Proven};
pub use error::AuthError;
pub use jwt::{Check, Steps};
pub use nonce::Nonces;
pub use refused::Refused;
pub use replay::Use;
pub use role::{MadeSecret, SecretUse};
pub use trust::{Definition, Trust, login_path, path_of};

use crate::{
    base::{
        id::{SessionId, TrustId},
        random::Random,
        secret::SecretBytes,
        time::Clock,
    },
    policy::Bound,
    store::{Namespace, Store, Table, View},
    token::{Arrival, TokenRoom},
};
use arc_swap::ArcSwap;
use limit::Failures;
use parking_lot::Mutex;
use replay::Replay;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};
use trust::Method;

/// Trusts that are kept, all in memory.
pub const TRUSTS_MAX: usize = 1000;

/// What a caller proves itself by.
pub enum Proof {
    /// A compact JWS.
    Jwt(SecretBytes),
    /// A role id and a secret id of it.
    Role {
        /// Public.
        role_id: TrustId,
        /// Good once.
        secret_id: SecretBytes,
    },
    /// The connection's client certificate.
    Certificate,
    /// The peer of the Unix socket, as the kernel tells.
    Peer,
    /// What a browser or a device brought back.
    Oidc(oidc::Brought),
}

/// What the connection itself says of the caller.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// The peer's user id, on the Unix socket.
    pub uid: Option<u32>,
    /// The peer's address, over TLS.
    pub ip: Option<IpAddr>,
    /// The client's certificates, leaf first.
    pub chain: Arc<[Box<[u8]>]>,
}

impl Proof {
    /// The method's word.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Jwt(_) => "jwt",
            Self::Role { .. } => "role",
            Self::Certificate => "certificate",
            Self::Peer => "unix",
            Self::Oidc(_) => "oidc",
        }
    }
}

/// Who was recognised, and what the record of the log-in must keep.
#[derive(Debug)]
pub struct Recognised {
    /// Whom to make a token for.
    pub arrival: Arrival,
    /// The use of a token that logs in once; taken already.
    pub used: Option<Use>,
    /// The secret id to use up in the log-in's commit.
    pub secret: Option<SecretUse>,
}

/// Why nobody was recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unrecognised {
    /// The reason.
    pub refused: Refused,
    /// The session that a copied secret id began: it is to be ended.
    pub copied: Option<SessionId>,
}

impl From<Refused> for Unrecognised {
    fn from(refused: Refused) -> Self {
        Self { refused, copied: None }
    }
}

/// The facade of the room.
pub struct AuthRoom {
    documents: View,
    secrets: View,
    secrets_known: role::Known,
    tokens: Arc<TokenRoom>,
    trusts: Arc<ArcSwap<BTreeMap<String, Arc<Trust>>>>,
    replay: Replay,
    failures: Failures,
    handles: oidc::Handles,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl AuthRoom {
    /// Reads all trusts. A damaged one is not in force, and said so in the log. What was used before now is told by [`Self::recall`].
    /// # Errors
    /// The store cannot be read.
    pub async fn load(
        store: &Store,
        tokens: Arc<TokenRoom>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, AuthError> {
        let documents = store.view(Namespace::ROOT, Table::Trust);
        let secrets = store.view(Namespace::ROOT, Table::RoleSecret);
        let trusts = documents::load(&documents).await?;
        let known = role::load(&secrets).await?;
        Ok(Self {
            documents,
            secrets,
            secrets_known: Arc::new(Mutex::new(known)),
            tokens,
            // Where nobody can log in, nobody has.
            replay: if trusts.is_empty() {
                Replay::default()
            } else {
                Replay::since(clock.now())
            },
            trusts: Arc::new(ArcSwap::from_pointee(trusts)),
            failures: Failures::default(),
            handles: oidc::Handles::new(&*random)?,
            clock,
            random,
        })
    }

    /// Whether a source may try to log in now.
    /// # Errors
    /// When it may.
    pub fn admit(&self, source: &[u8]) -> Result<(), Duration> {
        self.failures.admit(source, self.clock.monotonic())
    }

    /// A log-in of this source was refused.
    pub fn failed(&self, source: &[u8]) {
        self.failures.failed(source, self.clock.monotonic());
    }

    /// A use of a token that the log tells of.
    pub fn recall(&self, used: Use) {
        self.replay.recall(used, self.clock.now());
    }

    /// How far back the log is to be read, in seconds; `None`: it has been read.
    pub fn recall_secs(&self) -> Option<u64> {
        let longest = |trust: &Arc<Trust>| trust.definition.jwt.as_ref().map(jwt::Jwt::max_age_secs);
        self.replay
            .is_incomplete()
            .then(|| self.trusts.load().values().filter_map(longest).max().unwrap_or(0))
    }

    /// The log has been read.
    pub fn recalled(&self) {
        self.replay.recalled();
    }

    /// A trust in force.
    pub fn trust(&self, name: &str) -> Option<Arc<Trust>> {
        self.trusts.load().get(name).cloned()
    }

    fn by_issuer(&self, issuer: &str) -> Option<Arc<Trust>> {
        self.trusts
            .load()
            .values()
            .find(|trust| trust.issuer() == Some(issuer))
            .cloned()
    }

    /// Recognises whoever brings `proof`, under the trust `name` (empty: the one that names a JWT's issuer). A JWT that logs in once is used
    /// up.
    /// # Errors
    /// [`Refused`].
    pub async fn recognise(
        &self,
        name: &str,
        proof: &Proof,
        from: &Connection,
        bound: Option<Bound>,
    ) -> Result<Recognised, Unrecognised> {
        match proof {
            Proof::Jwt(text) => Ok(self.by_jwt(name, text, bound).await?),
            Proof::Oidc(brought) => Ok(self.by_oidc(name, brought, bound).await?),
            Proof::Role { role_id, secret_id } => {
                match self.find_secret(*role_id, secret_id.expose(), from.ip).await? {
                    role::Found::Good(trust, secret) => {
                        let groups = trust.definition.groups();
                        Ok(Recognised {
                            arrival: arrival(&trust, "role", groups, BTreeMap::new(), bound),
                            used: None,
                            secret: Some(secret),
                        })
                    }
                    role::Found::Copied(session) => Err(Unrecognised {
                        refused: Refused::SecretReused,
                        copied: Some(session),
                    }),
                }
            }
            Proof::Certificate => {
                let trust = self.trust(name).ok_or(Refused::NoTrust)?;
                let Method::Certificate(method) = &trust.method else {
                    return Err(Refused::NoTrust.into());
                };
                let named = method.recognise(&from.chain, self.clock.now())?;
                let attributes = BTreeMap::from([("claim:name".to_owned(), named.subject.clone())]);
                // Never without: what proved the caller is what its token is bound to.
                let bound = from.chain.first().map(|leaf| Bound::Certificate(thumbprint(leaf)));
                Ok(Recognised {
                    arrival: arrival(&trust, &named.subject, named.groups, attributes, bound),
                    used: None,
                    secret: None,
                })
            }
            Proof::Peer => {
                let uid = from.uid.ok_or(Refused::Peer)?;
                let trust = self.trust(name).ok_or(Refused::NoTrust)?;
                let Method::Unix(unix) = &trust.method else {
                    return Err(Refused::NoTrust.into());
                };
                let groups = unix.groups(uid).ok_or(Refused::NoBinding)?;
                let uid = uid.to_string();
                let attributes = BTreeMap::from([("claim:uid".to_owned(), uid.clone())]);
                Ok(Recognised {
                    arrival: arrival(&trust, &uid, groups.clone(), attributes, bound),
                    used: None,
                    secret: None,
                })
            }
        }
    }

    async fn by_jwt(&self, name: &str, text: &SecretBytes, bound: Option<Bound>) -> Result<Recognised, Refused> {
        let text = std::str::from_utf8(text.expose()).map_err(|_| Refused::NotAToken)?;
        let token = jwt::parse(text)?;
        let issuer = jwt::claimed_issuer(&token).ok_or(Refused::UnknownIssuer)?;
        let trust = self.by_issuer(issuer).ok_or(Refused::UnknownIssuer)?;
        let Method::Jwt(method) = &trust.method else {
            return Err(Refused::NoTrust);
        };
        if !name.is_empty() && name != trust.name {
            return Err(Refused::NoTrust);
        }
        let (now, mono) = (self.clock.now(), self.clock.monotonic());
        let told = method
            .verify(&trust.name, &token, now, mono, &mut Steps::default())
            .await?;
        // Last of all: only what would have logged in is used up.
        if let Some(used) = told.once {
            trust.existed(told.issued)?;
            self.replay.take(used, told.issued, self.clock.now())?;
        }
        Ok(Recognised {
            arrival: arrival(&trust, &told.subject, told.groups, told.attributes, bound),
            used: told.once,
            secret: None,
        })
    }

    /// The trust that names a JWT's issuer.
    pub fn trust_of(&self, jwt: &str) -> Result<Arc<Trust>, Refused> {
        let token = jwt::parse(jwt)?;
        let issuer = jwt::claimed_issuer(&token).ok_or(Refused::UnknownIssuer)?;
        self.by_issuer(issuer).ok_or(Refused::UnknownIssuer)
    }

    /// Every check of a JWT, and whom it would log in. Uses nothing up.
    pub async fn explain(&self, trust: &Arc<Trust>, jwt: &str) -> (Vec<Check>, Result<Arrival, Refused>) {
        let mut steps = Steps::kept();
        let outcome = self.explained(trust, jwt, &mut steps).await;
        (steps.told(), outcome)
    }

    async fn explained(&self, trust: &Arc<Trust>, jwt: &str, steps: &mut Steps) -> Result<Arrival, Refused> {
        let token = jwt::parse(jwt)?;
        let Method::Jwt(method) = &trust.method else {
            return Err(Refused::NoTrust);
        };
        let (now, mono) = (self.clock.now(), self.clock.monotonic());
        let told = method.verify(&trust.name, &token, now, mono, steps).await?;
        if let Some(used) = told.once {
            let unused = trust
                .existed(told.issued)
                .and_then(|()| self.replay.look(used, told.issued));
            steps.single_use(unused)?;
        }
        Ok(arrival(trust, &told.subject, told.groups, told.attributes, None))
    }
}

fn arrival(
    trust: &Trust,
    subject: &str,
    groups: BTreeSet<String>,
    mut attributes: BTreeMap<String, String>,
    bound: Option<Bound>,
) -> Arrival {
    attributes.insert("login:method".to_owned(), trust.method.word().to_owned());
    attributes.insert("login:trust".to_owned(), trust.name.clone());
    let terms = &trust.definition.token;
    Arrival {
        trust: trust.name.clone(),
        subject: subject.to_owned(),
        groups,
        attributes,
        ttl_secs: terms.ttl_secs,
        max_ttl_secs: terms.max_ttl_secs(),
        end_leases: terms.end_leases,
        bound,
    }
}

impl fmt::Debug for AuthRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthRoom")
    }
}
