//! Tokens: create, show, renew, revoke. Without an accessor each is about the caller's own token.

use super::prelude::*;
use crate::{
    base::id::Accessor,
    lease::Scope,
    token::{Created, NewToken, Renewed, TokenInfo, TokenRoom},
};

/// Makes a token.
pub struct Create(pub NewToken);

impl Operation for Create {
    type Reply = Created;
    const NAME: &'static str = "token.create";
    const CLASS: Class = Class::Change;
    fn describe(&self, trail: &mut Trail) {
        trail.param_u64("ttl_secs", self.0.ttl_secs);
        trail.param_bool("end_leases", self.0.end_leases);
        trail.param_bool("exactly", self.0.exactly);
    }
    async fn target(&self, _: &Open, caller: &Caller) -> Result<Target, Failure> {
        Ok(match &self.0.identity {
            Some(name) => Target::new(Action::TokenCreate, TokenRoom::path_of(name)?),
            None => Target::own(
                Action::TokenCreate,
                TokenRoom::path_of(caller.identity().principal().name())?,
            ),
        })
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, trail: &mut Trail) -> Result<Effect<Created>, Failure> {
        let (change, created) = rooms.tokens.create(permit, &self.0).await?;
        trail.param_id("created", created.accessor.as_bytes());
        trail.param_time("expires", created.expires);
        Ok(Effect::Change(change, created))
    }
}

async fn about(rooms: &Open, caller: &Caller, accessor: Option<Accessor>, action: Action) -> Result<Target, Failure> {
    let target = rooms.tokens.target(caller, accessor)?;
    Ok(if target.own {
        Target::own(action, target.path)
    } else {
        Target::new(action, target.path)
    })
}

fn note_accessor(trail: &mut Trail, accessor: Option<Accessor>) {
    if let Some(accessor) = accessor {
        trail.param_id("accessor", accessor.as_bytes());
    }
}

/// Shows a token.
pub struct Get(pub Option<Accessor>);

impl Operation for Get {
    type Reply = TokenInfo;
    const NAME: &'static str = "token.get";
    const TENDS: bool = true;
    const CLASS: Class = Class::Read;
    fn describe(&self, trail: &mut Trail) {
        note_accessor(trail, self.0);
    }
    async fn target(&self, rooms: &Open, caller: &Caller) -> Result<Target, Failure> {
        about(rooms, caller, self.0, Action::TokenRead).await
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, _: &mut Trail) -> Result<Effect<TokenInfo>, Failure> {
        Ok(Effect::Answer(
            rooms.tokens.get(permit, self.0.unwrap_or_else(|| permit.accessor()))?,
        ))
    }
}

/// Gives a token a longer life.
pub struct Renew {
    /// Which; `None`: the caller's own.
    pub accessor: Option<Accessor>,
    /// For how long; 0: as before.
    pub ttl_secs: u64,
}

impl Operation for Renew {
    type Reply = Renewed;
    const NAME: &'static str = "token.renew";
    const CLASS: Class = Class::Change;
    fn remember(reply: &Renewed) -> Option<Renewed> {
        Some(*reply)
    }
    fn describe(&self, trail: &mut Trail) {
        note_accessor(trail, self.accessor);
        trail.param_u64("ttl_secs", self.ttl_secs);
    }
    async fn target(&self, rooms: &Open, caller: &Caller) -> Result<Target, Failure> {
        about(rooms, caller, self.accessor, Action::TokenRenew).await
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, trail: &mut Trail) -> Result<Effect<Renewed>, Failure> {
        let accessor = self.accessor.unwrap_or_else(|| permit.accessor());
        let (change, renewed) = rooms.tokens.renew(permit, accessor, self.ttl_secs).await?;
        trail.param_time("expires", renewed.expires);
        Ok(Effect::Change(change, renewed))
    }
}

/// Ends a token, or its whole session with every lease that it made.
pub struct Revoke {
    /// Which; `None`: the caller's own.
    pub accessor: Option<Accessor>,
    /// The session too.
    pub session: bool,
}

impl Operation for Revoke {
    /// How many tokens, and how many leases.
    type Reply = (u64, u64);
    const NAME: &'static str = "token.revoke";
    const CLASS: Class = Class::Change;
    fn remember(reply: &(u64, u64)) -> Option<(u64, u64)> {
        Some(*reply)
    }
    fn describe(&self, trail: &mut Trail) {
        note_accessor(trail, self.accessor);
        trail.param_bool("session", self.session);
    }
    async fn target(&self, rooms: &Open, caller: &Caller) -> Result<Target, Failure> {
        about(rooms, caller, self.accessor, Action::TokenRevoke).await
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, trail: &mut Trail) -> Result<Effect<Self::Reply>, Failure> {
        let accessor = self.accessor.unwrap_or_else(|| permit.accessor());
        let (mut change, revoked) = rooms.tokens.revoke(permit, accessor, self.session).await?;
        let mut leases = 0;
        for session in revoked.sessions {
            leases += rooms.leases.count(&Scope::Session(session)).await?;
        }
        trail.param_u64("tokens", revoked.tokens);
        trail.param_u64("leases", leases);
        let settle = rooms.settle_soon();
        change.then(move || settle.notify_one());
        Ok(Effect::Change(change, (revoked.tokens, leases)))
    }
}
