//! Identities: listed, shown, made and changed. Groups are the names that identities carry.

use super::prelude::*;
use crate::token::{Edit, IdentityInfo, TokenRoom};

/// Lists identities, in order of name.
pub struct List {
    /// Only those in this group.
    pub group: Option<String>,
    /// The token of the page before.
    pub after: Option<Vec<u8>>,
    /// At most this many.
    pub limit: usize,
}

impl Operation for List {
    type Reply = (Vec<IdentityInfo>, Option<Vec<u8>>);
    const NAME: &'static str = "identity.list";
    const CLASS: Class = Class::Read;
    fn describe(&self, _: &mut Trail) {}
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::own(Action::List, TokenRoom::root_path()?))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, trail: &mut Trail) -> Result<Effect<Self::Reply>, Failure> {
        let question = [Self::NAME, self.group.as_deref().unwrap_or_default()];
        let after = rooms.page_start(permit, question, self.after.as_deref())?;
        let after = after.as_deref().map(String::from_utf8_lossy);
        let (found, more) = rooms
            .tokens
            .identities(permit, self.group.as_deref(), after.as_deref(), self.limit)?;
        trail.param_u64("entries", found.len() as u64);
        let last = found.last().filter(|_| more);
        let next = last.map(|last| rooms.page_token(permit, question, last.principal.name().as_bytes()));
        Ok(Effect::Answer((found, next)))
    }
}

/// Shows an identity.
pub struct Get {
    /// Its name; `None`: the caller's own.
    pub name: Option<String>,
}

impl Operation for Get {
    type Reply = IdentityInfo;
    const NAME: &'static str = "identity.get";
    const CLASS: Class = Class::Read;
    fn describe(&self, _: &mut Trail) {}
    async fn target(&self, _: &Open, caller: &Caller) -> Result<Target, Failure> {
        let own = caller.identity().principal();
        Ok(match &self.name {
            Some(name) => Target::new(Action::TokenRead, TokenRoom::path_of(name)?),
            None => Target::own(Action::TokenRead, TokenRoom::path_of(own.name())?),
        })
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, _: &mut Trail) -> Result<Effect<IdentityInfo>, Failure> {
        let own = permit.principal();
        let name = self.name.as_deref().unwrap_or(own.name());
        Ok(Effect::Answer(rooms.tokens.show_identity(permit, name)?))
    }
}

/// Makes or changes an identity.
pub struct Put {
    /// Its name.
    pub name: String,
    /// How.
    pub edit: Edit,
}

impl Operation for Put {
    type Reply = IdentityInfo;
    const NAME: &'static str = "identity.put";
    const CLASS: Class = Class::Change;
    fn remember(reply: &IdentityInfo) -> Option<IdentityInfo> {
        Some(reply.clone())
    }
    fn describe(&self, trail: &mut Trail) {
        trail.param_u64("groups_added", self.edit.add_groups.len() as u64);
        trail.param_u64("groups_removed", self.edit.remove_groups.len() as u64);
        trail.param_u64("attributes_set", self.edit.set_attributes.len() as u64);
        trail.param_u64("attributes_removed", self.edit.remove_attributes.len() as u64);
    }
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::TokenCreate, TokenRoom::path_of(&self.name)?))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, trail: &mut Trail) -> Result<Effect<IdentityInfo>, Failure> {
        let (change, info) = rooms.tokens.edit_identity(permit, &self.name, &self.edit).await?;
        trail.param_id("identity", info.id.as_bytes());
        Ok(Effect::Change(change, info))
    }
}
