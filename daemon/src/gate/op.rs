//! What an operation says of itself, so that the one path in `run.rs` can take it: its name, what it needs, how it is handled.

use super::{Call, Failure, Open, ops::audit::TOKEN_PARAM};
use crate::{
    audit::Trail,
    base::{id::LeaseId, path::Path},
    policy::{Caller, Claim, Permit},
    store::Change,
};
use futures::future::BoxFuture;
use std::{future::Future, sync::Arc};
use strongroom_audit::Encoded;
use strongroom_policy::Action;

/// What must be permitted, and where.
#[derive(Debug)]
pub struct Target {
    /// The action, as policies name it.
    pub action: Action,
    /// The canonical path it is done to.
    pub path: Path,
    /// Whether the thing acted upon is the caller's own.
    pub claim: Claim,
}

impl Target {
    /// `action` on `path`, as anybody.
    pub const fn new(action: Action, path: Path) -> Self {
        Self {
            action,
            path,
            claim: Claim::Policy,
        }
    }
    /// `action` on the caller's own.
    pub const fn own(action: Action, path: Path) -> Self {
        Self {
            action,
            path,
            claim: Claim::Own,
        }
    }
}

/// How the evidence is kept (design, "One way through").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// One record, durable before the answer.
    Read,
    /// One record in the same commit as the change. Runs in a task of its own, to the end.
    Change,
    /// An act outside: the operation commits by itself, before the act and after it. Runs in a task of its own, to the end.
    Act,
}

/// What handling gave.
pub enum Effect<R> {
    /// An answer; nothing changed.
    Answer(R),
    /// A change still to be committed, and the answer once it is.
    Change(Change, R),
    /// Refused on the way, with the records of the parts that were. They share the budget of refusals with the request's own.
    Refused(Vec<Encoded>, Failure),
    /// Done and recorded already.
    Recorded(R),
    /// To be done, and recorded by itself, after this request has let go of the rooms: sealing.
    Leave(BoxFuture<'static, Result<R, Failure>>),
}

/// One kind of request. A value of it is a request that parsed.
pub trait Operation: Send + Sync + 'static {
    /// What the caller gets.
    type Reply: Send + Sync + 'static;
    /// Its name in the audit log and in metrics, such as `kv.get`.
    const NAME: &'static str;
    /// How the evidence is kept.
    const CLASS: Class;
    /// It tells how things stand or makes room, and goes on from half of the reserve when the disk is full. (What must go on to the last byte says
    /// so in its change: revoke, seal, recovery.)
    const TENDS: bool = false;

    /// Puts the parameters that may be known into the record.
    fn describe(&self, trail: &mut Trail);

    /// Who asks: the bearer of the call's token. A log-in identifies its caller by the proof it brings.
    fn identify(
        &self,
        rooms: &Open,
        call: &Call,
        trail: &mut Trail,
    ) -> impl Future<Output = Result<Arc<Caller>, Failure>> + Send {
        let found = rooms.identify(call);
        if let (Err(_), Some(token)) = (&found, &call.token) {
            trail.param_hashed(TOKEN_PARAM, token.expose());
        }
        async move { found }
    }

    /// What must be permitted. A thing that cannot be found is `Denied`: it answers like a forbidden one.
    fn target(&self, rooms: &Open, caller: &Caller) -> impl Future<Output = Result<Target, Failure>> + Send;

    /// Does it. A `Change` may be asked for again when another writer came first.
    fn handle(
        &self,
        rooms: &Open,
        permit: &Permit,
        trail: &mut Trail,
    ) -> impl Future<Output = Result<Effect<Self::Reply>, Failure>> + Send;

    /// The same answer once more, for a change that is asked for twice under one idempotency key. `None` for what is shown once.
    fn remember(_reply: &Self::Reply) -> Option<Self::Reply> {
        None
    }

    /// The leases of the accounts that an answer tells of. `Some`: whoever asks again under its idempotency key has not got the answer, so
    /// these are revoked, and it is done anew.
    fn lent(_reply: &Self::Reply) -> Option<Vec<LeaseId>> {
        None
    }

    /// Whether an answer that cannot be delivered must be taken back.
    fn recalls(&self) -> bool {
        false
    }

    /// The answer could not be delivered: takes back what only its receiver could have used.
    fn undelivered(_reply: Self::Reply, _rooms: &Open) -> impl Future<Output = ()> + Send {
        async {}
    }
}
