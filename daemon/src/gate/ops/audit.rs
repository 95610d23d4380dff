//! The log: tail, keyed hash of a candidate, head of the chain.

use super::prelude::*;
use crate::{
    audit::{ChainHead, Tail as Reader},
    gate::Rooms,
    vault::Vault,
};
use bytes::Bytes;
use std::sync::Arc;
use strongroom_audit::ReadError;

const TOKEN_PREFIX: &str = "srm_";
/// The parameter that holds the keyed hash of a presented token that is nobody's.
pub const TOKEN_PARAM: &str = "token";

fn log() -> Result<Path, Failure> {
    Path::parse("sys/audit").map_err(|_| Reason::Internal.into())
}

/// Opens a tail. Its opening is recorded; what it shows is the log itself.
pub struct Tail {
    /// The vault.
    pub vault: Arc<Vault<Rooms>>,
    /// The first record wanted; `None`: `last` before the end.
    pub from_seq: Option<u64>,
    /// How many before the end.
    pub last: u64,
    /// Go on as the log grows.
    pub follow: bool,
}

impl Operation for Tail {
    type Reply = Reader;
    const NAME: &'static str = "audit.tail";
    const CLASS: Class = Class::Read;
    fn describe(&self, trail: &mut Trail) {
        if let Some(from) = self.from_seq {
            trail.param_u64("from", from);
        }
        trail.param_bool("follow", self.follow);
    }
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::AuditRead, log()?))
    }
    async fn handle(&self, _: &Open, _: &Permit, _: &mut Trail) -> Result<Effect<Reader>, Failure> {
        let drainer = self.vault.disk().drainer().ok_or(Reason::AuditUnavailable)?;
        // Whatever was acknowledged is shown, also what has not reached the files yet.
        let end = self.vault.disk().audit_head().await?.seq;
        let from = self.from_seq.unwrap_or_else(|| end.saturating_sub(self.last));
        match drainer.tail(from, self.follow) {
            Ok(tail) => Ok(Effect::Answer(tail.through(end))),
            Err(error @ ReadError::Gone { .. }) => Err(Failure::with(Reason::NotFound, error.to_string())),
            Err(error) => Err(Failure::internal(&error)),
        }
    }
}

/// The keyed hash of a token (as it stands beside refusals of unknown tokens) or of a path (with `audit.paths = "hash"`), to look for it
/// in the log.
pub struct Hash {
    /// The candidate. Not recorded, not even hashed.
    pub value: Bytes,
}

impl Operation for Hash {
    type Reply = String;
    const NAME: &'static str = "audit.hash";
    const CLASS: Class = Class::Read;
    fn describe(&self, _: &mut Trail) {}
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::AuditRead, log()?))
    }
    async fn handle(&self, rooms: &Open, _: &Permit, _: &mut Trail) -> Result<Effect<Self::Reply>, Failure> {
        let text = std::str::from_utf8(&self.value).unwrap_or_default();
        let hash = if text.starts_with(TOKEN_PREFIX) {
            rooms.hasher.hash("param", TOKEN_PARAM, &self.value)
        } else {
            Path::parse(text).ok().map(|path| rooms.hasher.path(&path))
        };
        let wrong = || Failure::with(Reason::Malformed, "value: a token (srm_...) or a path");
        hash.map(Effect::Answer).ok_or_else(wrong)
    }
}

/// The head of the chain, to keep elsewhere.
pub struct Head(pub Arc<Vault<Rooms>>);

impl Operation for Head {
    type Reply = ChainHead;
    const NAME: &'static str = "audit.head";
    const CLASS: Class = Class::Read;
    fn describe(&self, _: &mut Trail) {}
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::AuditRead, log()?))
    }
    async fn handle(&self, _: &Open, _: &Permit, _: &mut Trail) -> Result<Effect<ChainHead>, Failure> {
        let head = self.0.disk().audit_head().await?;
        Ok(Effect::Answer(head))
    }
}
