//! Who a request comes from: what a token, once identified, says about its bearer.

use crate::base::{
    id::{Accessor, IdentityId, SessionId, TrustId},
    time::Timestamp,
};
use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};
use strongroom_policy::{Principal, Purpose};

/// An identity in memory. One value an identity, shared by all its tokens, so that a change of groups or attributes holds for every
/// token at the next request.
pub struct Identity {
    id: IdentityId,
    principal: ArcSwap<Principal>,
}

impl Identity {
    pub(crate) fn new(id: IdentityId, principal: Principal) -> Self {
        Self {
            id,
            principal: ArcSwap::from_pointee(principal),
        }
    }
    /// The stable id; a name may be given to somebody else one day, an id never is.
    pub fn id(&self) -> IdentityId {
        self.id
    }
    /// Name, groups and attributes as they are now, with the Cedar entity made once.
    pub fn principal(&self) -> Arc<Principal> {
        self.principal.load_full()
    }
    /// From now on these groups and attributes.
    pub(crate) fn turns_into(&self, principal: Principal) {
        self.principal.store(Arc::new(principal));
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} {})", self.principal.load().name(), self.id)
    }
}

/// The bearer of a live token. Made by the token room alone; holds nothing secret.
#[derive(Debug)]
pub struct Caller {
    identity: Arc<Identity>,
    standing: Standing,
}

/// The key that a token is bound to: whoever presents the token must hold it (R-AUTH-3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Bound {
    /// SHA-256 of the client certificate of the connection (RFC 8705 `x5t#S256`).
    Certificate([u8; 32]),
    /// SHA-256 of the key that signs DPoP proofs (RFC 7638 thumbprint, RFC 9449 `jkt`).
    Key([u8; 32]),
}

impl From<Bound> for String {
    fn from(bound: Bound) -> Self {
        let (kind, digest) = match bound {
            Bound::Certificate(digest) => ("x5t", digest),
            Bound::Key(digest) => ("jkt", digest),
        };
        format!("{kind}:{}", data_encoding::HEXLOWER.encode(&digest))
    }
}

impl TryFrom<String> for Bound {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, &'static str> {
        let (kind, digest) = text.split_once(':').ok_or("no kind of binding")?;
        let digest = data_encoding::HEXLOWER
            .decode(digest.as_bytes())
            .ok()
            .and_then(|digest| digest.try_into().ok())
            .ok_or("not a digest")?;
        match kind {
            "x5t" => Ok(Self::Certificate(digest)),
            "jkt" => Ok(Self::Key(digest)),
            _ => Err("no such kind of binding"),
        }
    }
}

/// What a log-in left in its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogIn {
    /// Which trust believed it.
    pub trust: TrustId,
    /// Nothing is stored: the token carries all there is to know.
    pub sealed: bool,
    /// The session's leases end when it merely expires.
    pub end_leases: bool,
    /// The key it is bound to.
    pub bound: Option<Bound>,
}

/// The facts of a token that its [`Caller`] is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    pub session: SessionId,
    pub accessor: Accessor,
    pub purpose: Purpose,
    pub issued: Timestamp,
    /// When whoever has it proved who they are: at the session's beginning. A token made from another is no newer in this.
    pub proved: Timestamp,
    pub expires: Timestamp,
    pub max_expires: Timestamp,
    pub log_in: Option<LogIn>,
}

impl Caller {
    pub(crate) fn new(identity: Arc<Identity>, standing: Standing) -> Self {
        Self { identity, standing }
    }
    /// Whom the token speaks for.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }
    /// The log-in that the token came from.
    pub fn session(&self) -> SessionId {
        self.standing.session
    }
    /// The token's public handle.
    pub fn accessor(&self) -> Accessor {
        self.standing.accessor
    }
    /// When the session began that the token belongs to.
    pub fn proved(&self) -> Timestamp {
        self.standing.proved
    }
    /// What the token was made for.
    pub fn purpose(&self) -> Purpose {
        self.standing.purpose
    }
    /// What the log-in said, if the token came from one.
    pub fn log_in(&self) -> Option<LogIn> {
        self.standing.log_in
    }
    /// Whether the token carries all there is to know of it.
    pub fn is_sealed(&self) -> bool {
        self.standing.log_in.is_some_and(|log_in| log_in.sealed)
    }
    /// When the token was made.
    pub fn issued(&self) -> Timestamp {
        self.standing.issued
    }
    /// When the token ends unless it is renewed, as of the request.
    pub fn expires(&self) -> Timestamp {
        self.standing.expires
    }
    /// When the token ends at the latest.
    pub fn max_expires(&self) -> Timestamp {
        self.standing.max_expires
    }
}
