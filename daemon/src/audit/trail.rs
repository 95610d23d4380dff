//! The facts of one request, gathered on its way through the gate, and the only way to make a record. R-AUDIT-1.
//!
//! Redaction is an allow-list by type: there are setters for paths, ids, numbers and words of the code, and one that keeps a keyed
//! hash. There is none for a text or bytes as they came.

use super::{hash::AuditHasher, repair::Repaired, segments::TornTail};
use crate::base::{
    id::{Accessor, BootId, IdentityId, LeaseId, RequestId, SessionId},
    path::Path,
    time::{Clock, Timestamp},
};
use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use strongroom_audit::{self as log, Encoded, Id, ParamValue, Params, RECORD_VERSION, Record, Stage, Transport};
use strongroom_policy::Principal;

/// Attributes of a caller beyond this are left out of its records, which say so.
const ATTRIBUTES_BYTES_MAX: usize = 2048;

/// How paths stand in the log: the setting `audit.paths`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Paths {
    /// As they are: auditors must read them.
    #[default]
    Clear,
    /// Keyed hashes; while sealed there is no key, and no path is recorded.
    Hash,
}

/// Where a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// TLS over TCP.
    Tls(SocketAddr),
    /// The Unix socket, with the peer's user id.
    Unix(u32),
}

/// What policy said.
#[derive(Debug, Clone)]
pub struct Decided {
    /// SHA-256 of the whole policy set.
    pub policy_hash: [u8; 32],
    /// Allowed or not.
    pub allowed: bool,
    /// Names of the policies that decided.
    pub deciding: Vec<Arc<str>>,
    /// Policies that failed to evaluate.
    pub errors: u32,
    /// What was asked.
    pub asked: Asked,
}

/// A question to the policies, in their words.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// The action.
    pub action: &'static str,
    /// As an act on the caller's own.
    pub own: bool,
    /// The token's purpose.
    pub purpose: &'static str,
    /// The token's age, in seconds.
    pub age_secs: u64,
    /// The key that the token is bound to.
    pub binding: &'static str,
    /// How surely it is who it says.
    pub strength: u8,
}

/// The caller, as it stands in records.
#[derive(Clone)]
pub struct Who {
    /// The stable id.
    pub id: IdentityId,
    /// Name, groups and attributes.
    pub principal: Arc<Principal>,
    /// The token's public handle.
    pub accessor: Accessor,
    /// The log-in that it came from.
    pub session: SessionId,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    code: &'static str,
    reason: Option<&'static str>,
    lease: Option<LeaseId>,
    version: Option<u64>,
    count: Option<u64>,
}

impl Outcome {
    /// It was done.
    pub const fn ok() -> Self {
        Self {
            code: "OK",
            reason: None,
            lease: None,
            version: None,
            count: None,
        }
    }
    /// It was not: the name of the gRPC status and the reason of docs/ERRORS.
    pub const fn failed(code: &'static str, reason: &'static str) -> Self {
        Self {
            code,
            reason: Some(reason),
            ..Self::ok()
        }
    }
    /// Which lease.
    #[must_use]
    pub const fn with_lease(mut self, lease: LeaseId) -> Self {
        self.lease = Some(lease);
        self
    }
    /// Which version.
    #[must_use]
    pub const fn with_version(mut self, version: u64) -> Self {
        self.version = Some(version);
        self
    }
    /// How many were returned or touched.
    #[must_use]
    pub const fn with_count(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }
}

/// What all records of a run share. One for the daemon.
pub struct Recorder {
    boot: BootId,
    clock: Arc<dyn Clock>,
    paths: Paths,
}

impl Recorder {
    /// Of this run.
    pub fn new(boot: BootId, clock: Arc<dyn Clock>, paths: Paths) -> Arc<Self> {
        Arc::new(Self { boot, clock, paths })
    }

    /// The record of a torn tail that was cut at open.
    pub fn torn_tail(self: &Arc<Self>, torn: &TornTail) -> Encoded {
        let mut trail = Trail::new(self, Stage::Recovery, "audit.recover");
        trail.keep("file", Param::Text(torn.file.as_str().into()));
        trail.param_u64("offset", torn.offset);
        trail.param_u64("bytes_dropped", torn.bytes);
        trail.param_sha256("sha256", &torn.sha256);
        trail.response(&Outcome::ok())
    }

    /// The record of a gap that an operator accepted.
    pub(super) fn accepted_loss(self: &Arc<Self>, repaired: &Repaired) -> Encoded {
        let mut trail = Trail::new(self, Stage::Recovery, "audit.accept_loss");
        let log = repaired
            .log
            .map_or_else(|| "damaged".to_owned(), |head| head.to_string());
        trail.keep("log", Param::Text(log.into()));
        trail.keep("store", Param::Text(repaired.store.to_string().into()));
        trail.param_u64("segments_set_aside", repaired.set_aside);
        trail.response(&Outcome::ok())
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recorder(boot {}, paths {:?})", self.boot, self.paths)
    }
}

enum Param {
    Path(Path),
    Id([u8; 16]),
    Number(u64),
    Bool(bool),
    Word(&'static str),
    Text(Box<str>),
}

/// The facts so far. No I/O; turned into records by [`Self::request`] and [`Self::response`].
pub struct Trail {
    recorder: Arc<Recorder>,
    hasher: Option<Arc<AuditHasher>>,
    stage: Stage,
    request: Option<RequestId>,
    source: Option<Source>,
    op: &'static str,
    path: Option<Path>,
    who: Option<Who>,
    decided: Option<Decided>,
    params: Vec<(&'static str, Param)>,
}

impl Trail {
    /// Of a request that came from `source`.
    pub fn of_request(recorder: &Arc<Recorder>, request: RequestId, source: Source, op: &'static str) -> Self {
        Self {
            request: Some(request),
            source: Some(source),
            ..Self::new(recorder, Stage::Response, op)
        }
    }

    /// Of something the daemon does on its own: expiry, sweeps, start.
    pub fn of_system(recorder: &Arc<Recorder>, op: &'static str) -> Self {
        Self::new(recorder, Stage::System, op)
    }

    /// Of something a person should look at.
    pub fn of_alert(recorder: &Arc<Recorder>, op: &'static str) -> Self {
        Self::new(recorder, Stage::Alert, op)
    }

    /// Of something about this request that a person should look at.
    pub fn alert(&self, op: &'static str) -> Self {
        Self {
            hasher: self.hasher.clone(),
            request: self.request,
            source: self.source,
            ..Self::of_alert(&self.recorder, op)
        }
    }

    /// Of a part of the same request, with a record of its own: the same source and caller, nothing else.
    #[must_use]
    pub fn part(&self, op: &'static str) -> Self {
        Self {
            hasher: self.hasher.clone(),
            request: self.request,
            source: self.source,
            who: self.who.clone(),
            ..Self::new(&self.recorder, self.stage, op)
        }
    }

    fn new(recorder: &Arc<Recorder>, stage: Stage, op: &'static str) -> Self {
        Self {
            recorder: Arc::clone(recorder),
            hasher: None,
            stage,
            request: None,
            source: None,
            op,
            path: None,
            who: None,
            decided: None,
            params: Vec::new(),
        }
    }

    /// The vault is open: keyed hashes can be made from now on.
    pub fn use_hasher(&mut self, hasher: Arc<AuditHasher>) {
        self.hasher = Some(hasher);
    }

    /// On what. Clear or hashed, as `audit.paths` says.
    pub fn path(&mut self, path: &Path) {
        self.path = Some(path.clone());
    }

    /// Who it is.
    pub fn identified(&mut self, who: Who) {
        self.who = Some(who);
    }

    /// What policy said.
    pub fn decided(&mut self, decided: Decided) {
        self.decided = Some(decided);
    }

    /// How many parameters there are.
    pub fn params(&self) -> usize {
        self.params.len()
    }

    /// Forgets those after the first `count`: they belong to an attempt that was not made.
    pub fn forget_params(&mut self, count: usize) {
        self.params.truncate(count);
    }

    /// A path or a name (one segment), clear or hashed as `audit.paths` says.
    pub fn param_path(&mut self, name: &'static str, path: &Path) {
        self.keep(name, Param::Path(path.clone()));
    }

    /// A number.
    pub fn param_u64(&mut self, name: &'static str, value: u64) {
        self.keep(name, Param::Number(value));
    }

    /// A yes or no.
    pub fn param_bool(&mut self, name: &'static str, value: bool) {
        self.keep(name, Param::Bool(value));
    }

    /// A word of the code: a kind, a state, a choice.
    pub fn param_word(&mut self, name: &'static str, word: &'static str) {
        self.keep(name, Param::Word(word));
    }

    /// An id. Ids are public: none of them opens anything.
    pub fn param_id(&mut self, name: &'static str, id: &[u8; 16]) {
        self.keep(name, Param::Id(*id));
    }

    /// A digest of something that has no secret in it.
    pub fn param_sha256(&mut self, name: &'static str, digest: &[u8; 32]) {
        self.keep(name, Param::Text(data_encoding::HEXLOWER.encode(digest).into()));
    }

    /// An instant.
    pub fn param_time(&mut self, name: &'static str, time: Timestamp) {
        self.keep(name, Param::Text(time.to_string().into()));
    }

    /// An address, or the first 64 bits of an IPv6 one.
    pub(super) fn param_prefix(&mut self, name: &'static str, address: IpAddr) {
        let length = if address.is_ipv6() { 64 } else { 32 };
        self.keep(name, Param::Text(format!("{address}/{length}").into()));
    }

    /// Anything that came from outside: its keyed hash. Nothing while sealed, and nothing of what is so short that it could be guessed.
    pub fn param_hashed(&mut self, name: &'static str, value: &[u8]) {
        if let Some(hash) = self
            .hasher
            .as_ref()
            .and_then(|hasher| hasher.hash("param", name, value))
        {
            self.keep(name, Param::Text(hash.into()));
        }
    }

    fn keep(&mut self, name: &'static str, value: Param) {
        self.params.push((name, value));
    }

    /// The operation, for logs and metrics.
    pub fn op(&self) -> &'static str {
        self.op
    }

    /// The record to make durable before an act outside.
    pub fn request(&self) -> Encoded {
        self.encode(Stage::Request, None)
    }

    /// The record of the outcome, to make durable before the answer (of what the daemon did on its own: stage `system`).
    pub fn response(&self, outcome: &Outcome) -> Encoded {
        self.encode(self.stage, Some(outcome))
    }

    fn encode(&self, stage: Stage, outcome: Option<&Outcome>) -> Encoded {
        let time = self.recorder.clock.now().to_string();
        let record = Record {
            v: RECORD_VERSION,
            time: Cow::Borrowed(&time),
            boot: Id(*self.recorder.boot.as_bytes()),
            stage,
            request: self.request.map(|id| Id(*id.as_bytes())),
            identity: self.who.as_ref().map(|who| identity(who, self.decided.is_some())),
            accessor: self.who.as_ref().map(|who| Id(*who.accessor.as_bytes())),
            session: self.who.as_ref().map(|who| Id(*who.session.as_bytes())),
            source: self.source.map(source),
            op: Cow::Borrowed(self.op),
            path: self.path.as_ref().and_then(|path| self.shown(path)),
            policy: self.decided.as_ref().map(policy),
            params: self.shown_params(),
            outcome: outcome.map(|outcome| log::Outcome {
                code: Cow::Borrowed(outcome.code),
                reason: outcome.reason.map(Cow::Borrowed),
                lease: outcome.lease.map(|id| Id(*id.as_bytes())),
                version: outcome.version,
                count: outcome.count,
            }),
        };
        record.encode()
    }

    /// A path as the log may have it. All fields share one hash of a path, so that a search finds them all.
    fn shown<'p>(&self, path: &'p Path) -> Option<Cow<'p, str>> {
        match self.recorder.paths {
            Paths::Clear => Some(Cow::Borrowed(path.as_str())),
            Paths::Hash => self.hasher.as_ref().map(|hasher| Cow::Owned(hasher.path(path))),
        }
    }

    fn shown_params(&self) -> Params<'_> {
        let mut params = Params::default();
        for (name, value) in &self.params {
            let shown = match value {
                Param::Path(path) => match self.shown(path) {
                    Some(text) => ParamValue::Text(text),
                    None => continue,
                },
                Param::Id(id) => ParamValue::Text(Cow::Owned(data_encoding::HEXLOWER.encode(id))),
                Param::Number(number) => ParamValue::Number(*number),
                Param::Bool(value) => ParamValue::Bool(*value),
                Param::Word(word) => ParamValue::Text(Cow::Borrowed(word)),
                Param::Text(text) => ParamValue::Text(Cow::Borrowed(text)),
            };
            params.set(*name, shown);
        }
        params
    }
}

impl fmt::Debug for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trail({})", self.op)
    }
}

fn source(source: Source) -> log::Source<'static> {
    match source {
        Source::Tls(addr) => log::Source {
            transport: Transport::Tls,
            addr: Some(Cow::Owned(addr.to_string())),
            uid: None,
        },
        Source::Unix(uid) => log::Source {
            transport: Transport::Unix,
            addr: None,
            uid: Some(uid),
        },
    }
}

fn policy(decided: &Decided) -> log::Policy<'_> {
    log::Policy {
        hash: Cow::Owned(data_encoding::HEXLOWER.encode(&decided.policy_hash)),
        decision: Cow::Borrowed(if decided.allowed { "allow" } else { "deny" }),
        deciding: decided.deciding.iter().map(|name| Cow::Borrowed(&**name)).collect(),
        errors: decided.errors,
        asked: Some(log::Asked {
            action: Cow::Borrowed(decided.asked.action),
            own: decided.asked.own,
            purpose: Cow::Borrowed(decided.asked.purpose),
            age_secs: decided.asked.age_secs,
            binding: Cow::Borrowed(decided.asked.binding),
            strength: decided.asked.strength,
        }),
    }
}

/// Groups and attributes stand beside a decision only: there they are what decided.
fn identity(who: &Who, decided: bool) -> log::Identity<'_> {
    let (groups, attributes) = (who.principal.groups(), who.principal.attributes());
    let bytes: usize = attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
    let kept = decided && bytes <= ATTRIBUTES_BYTES_MAX;
    let mut shown = Params::default();
    for (key, value) in attributes.iter().filter(|_| kept) {
        shown.set(key.as_str(), ParamValue::Text(Cow::Borrowed(value)));
    }
    log::Identity {
        id: Id(*who.id.as_bytes()),
        name: Cow::Borrowed(who.principal.name()),
        groups: groups
            .iter()
            .filter(|_| decided)
            .map(|group| Cow::Borrowed(group.as_str()))
            .collect(),
        attributes: shown,
        without_attributes: decided && !kept,
    }
}

#[cfg(test)]
mod tests;
