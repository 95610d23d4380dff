//! The gate: the one path every request takes, and everything that a request may ask for.
//!
//! May touch: every room above the store, and `vault`. Nothing else calls them on behalf of a caller.
//! Reading order: `who` (a call), `bounds` (how many and how often), `op` (what an operation says of itself), `run` (the path), `operate` (the few calls that a vault which is
//! not open answers), `ops/` (one file a service), `outcome` (how it ended, for records and metrics), `failure` and `errors` (what callers
//! are told), `rooms` (what opens with the vault), `signers` (HSMs that hold callers' keys), `watch` (streams of deliveries), `tend` (what the gate does on its own), `recall` (what
//! the log tells of log-ins).

mod bounds;
mod errors;
mod failure;
mod metrics;
mod op;
mod operate;
pub mod ops;
mod outcome;
mod recall;
mod repeat;
mod rooms;
mod run;
mod signers;
mod tend;
mod watch;
mod who;

pub use crate::lease::Quotas;
pub use bounds::Place;
pub use failure::{Failure, Reason, chain};
pub use metrics::{Metrics, Readings};
pub use op::{Class, Effect, Operation, Target};
pub use operate::{Founded, HsmState, Presented, Status};
pub use outcome::{code_name, code_of};
pub use rooms::{Foundations, Open, Rooms};
pub use signers::HsmSigners;
pub use watch::{Delivery, Watching};
pub use who::{Call, ChangeKey, Doom, Origin, Shown, Source, is_owner};

use crate::{
    audit::{Trail, Who},
    auth::{self, Flaw, Nonces, Proofs},
    base::{id::RequestId, secret::SecretBytes, time::Timestamp},
    limit::Limiter,
    policy::{Caller, Peer},
    store::Change,
    vault::{Closed, Vault},
};
use std::sync::Arc;
use strongroom_audit::Encoded;
use strongroom_hsm::Hsm;

/// Facts of the configuration that status tells.
#[derive(Debug, Clone)]
pub struct Setting {
    /// `fjall`, `sled`, `memory`.
    pub store_backend: &'static str,
    /// `synced` or `written`.
    pub audit_sync: &'static str,
    /// What the operator has accepted, in words.
    pub warnings: Vec<String>,
    /// `https://HOST:PORT`, what DPoP proofs are for; `None`: none is taken.
    pub origin: Option<String>,
    /// Whether they must carry a nonce of ours.
    pub nonces: bool,
}

/// The one way in.
pub struct Gate {
    vault: Arc<Vault<Rooms>>,
    from: Arc<Foundations>,
    limits: Arc<Limiter>,
    repeats: repeat::Repeats,
    /// Places of deliveries to streams.
    pushes: tokio::sync::Semaphore,
    metrics: Metrics,
    proofs: Proofs,
    hsms: Vec<Hsm>,
    setting: Setting,
    started: Timestamp,
}

impl Gate {
    /// Over a vault and its HSMs.
    pub fn new(
        vault: Arc<Vault<Rooms>>,
        from: Arc<Foundations>,
        limits: Limiter,
        hsms: Vec<Hsm>,
        setting: Setting,
    ) -> Arc<Self> {
        let started = from.clock.now();
        let nonces = setting.nonces.then(|| Nonces::new(&*from.random));
        Arc::new(Self {
            vault,
            from,
            limits: Arc::new(limits),
            repeats: repeat::Repeats::default(),
            pushes: tokio::sync::Semaphore::new(watch::PUSHES_MAX),
            metrics: Metrics::default(),
            proofs: Proofs::new(started, nonces),
            hsms,
            setting,
            started,
        })
    }

    /// A fresh id for a request.
    pub fn request_id(&self) -> RequestId {
        RequestId::random(&*self.from.random)
    }

    /// The key whose holder signed `proof` (a DPoP proof) for a call of `path` with `token`; with `expected`, only if it is that one.
    fn key_of(
        &self,
        proof: &str,
        path: &str,
        token: Option<&SecretBytes>,
        expected: Option<[u8; 32]>,
    ) -> Result<[u8; 32], Flaw> {
        let request = auth::Proven {
            expected,
            origin: self.setting.origin.as_deref().ok_or(Flaw::Absent)?,
            path,
            token: token.map(SecretBytes::expose),
        };
        let clock = &self.from.clock;
        self.proofs.take(proof, request, clock.now(), clock.monotonic())
    }

    /// What the next DPoP proof must carry, if anything.
    pub fn nonce(&self) -> Option<String> {
        self.proofs.nonce(self.from.clock.monotonic())
    }

    /// Whether DPoP proofs can be taken at all.
    pub fn takes_proofs(&self) -> bool {
        self.setting.origin.is_some()
    }

    /// The vault, for operations on it.
    pub const fn vault(&self) -> &Arc<Vault<Rooms>> {
        &self.vault
    }

    /// Whether requests are served.
    pub fn is_open(&self) -> bool {
        self.vault.enter().is_ok()
    }

    /// Whether the vault is open and this token lives.
    pub fn knows(&self, token: Option<&SecretBytes>) -> bool {
        self.vault.enter().is_ok_and(|open| open.bearer(token).is_ok())
    }

    /// The facts of a call, so far.
    fn trail(&self, op: &'static str, call: &Call) -> Trail {
        Trail::of_request(&self.from.recorder, call.id, call.origin.source, op)
    }

    fn peer(call: &Call) -> Peer {
        match call.origin.source {
            Source::Tls(addr) => Peer::Tls(addr.ip()),
            Source::Unix(_) => Peer::Unix,
        }
    }

    /// Makes a record durable, whatever state the vault is in.
    async fn witness(&self, record: Encoded) -> Result<(), Failure> {
        self.vault.disk().raw().commit(Change::new(), vec![record]).await?;
        Ok(())
    }

    /// The same, from half of the reserve if the disk is full: an operator looks how things stand. What anybody can ask for is bounded before.
    async fn witness_look(&self, record: Encoded) -> Result<(), Failure> {
        let mut change = Change::new();
        change.tending();
        self.vault.disk().raw().commit(change, vec![record]).await?;
        Ok(())
    }

    async fn witness_refusal(&self, record: Encoded) -> Result<(), Failure> {
        self.vault.disk().raw().commit(Change::relaxed(), vec![record]).await?;
        Ok(())
    }

    /// A refusal is recorded before it is answered. A flood from one source is counted and summarised; when all of them together have spent
    /// their bytes, the connection ends without an answer.
    async fn refuse<R>(&self, call: &Call, trail: &Trail, refusal: Failure) -> Result<R, Failure> {
        let record = outcome::response(trail, Some(&refusal));
        if self.from.may_record(&call.origin, record.as_bytes().len()) {
            self.witness_refusal(record).await?;
        }
        Err(refusal)
    }

    /// A message that did not parse into an operation.
    /// # Errors
    /// Always: what the caller is told.
    pub async fn refuse_malformed<R>(&self, call: Call, op: &'static str, malformed: Failure) -> Result<R, Failure> {
        let mut trail = self.trail(op, &call);
        if let Ok(open) = self.vault.enter() {
            trail.use_hasher(Arc::clone(&open.hasher));
            if let Ok(caller) = open.identify(&call) {
                note_caller(&mut trail, &caller);
            }
        }
        let refused = self.refuse(&call, &trail, malformed).await;
        self.metrics
            .answered(op, outcome::code(&refused), std::time::Duration::ZERO);
        refused
    }

    /// A call that never reached an operation: an unknown method, or bytes that are no message.
    /// # Errors
    /// No record, no answer.
    pub async fn record_unreadable(
        &self,
        origin: Option<Origin>,
        method: Option<&'static str>,
        failure: &Failure,
    ) -> Result<String, Failure> {
        let Some(origin) = origin else {
            return Ok(String::new());
        };
        let call = Call {
            origin,
            id: self.request_id(),
            shown: None,
            token: None,
            key: None,
            place: None,
        };
        let mut trail = self.trail("unreadable", &call);
        trail.param_word("method", method.unwrap_or("unknown"));
        let record = outcome::response(&trail, Some(failure));
        if self.from.may_record(&call.origin, record.as_bytes().len()) {
            self.witness_refusal(record).await?;
        }
        Ok(call.id.to_string())
    }
}

/// Who it is, for the record.
fn note_caller(trail: &mut Trail, caller: &Caller) {
    trail.identified(Who {
        id: caller.identity().id(),
        principal: caller.identity().principal(),
        accessor: caller.accessor(),
        session: caller.session(),
    });
}

impl From<Closed> for Failure {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::Blank => Reason::Blank.into(),
            Closed::Sealed => Reason::Sealed.into(),
        }
    }
}
