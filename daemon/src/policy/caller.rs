//! Who a request comes from: what a token, once identified, says about its bearer.

use crate::base::{
    id::{Accessor, IdentityId, SessionId},
    time::Timestamp,
};
use arc_swap::ArcSwap;
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

/// The facts of a token that its [`Caller`] is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    pub session: SessionId,
    pub accessor: Accessor,
    pub purpose: Purpose,
    pub issued: Timestamp,
    pub expires: Timestamp,
    pub max_expires: Timestamp,
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
    /// What the token was made for.
    pub fn purpose(&self) -> Purpose {
        self.standing.purpose
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
