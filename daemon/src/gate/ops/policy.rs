//! Policies: put, get, list, delete, explain.

use super::prelude::*;
use crate::policy::{Explained, Policy, PolicyRoom, Principal, Whom};
use std::sync::Arc;

/// Writes a document.
pub struct Put {
    /// Its name.
    pub name: String,
    /// Cedar.
    pub text: String,
    /// Check-and-set.
    pub cas: Option<u64>,
}

impl Operation for Put {
    type Reply = u64;
    const NAME: &'static str = "policy.put";
    const CLASS: Class = Class::Change;
    fn remember(reply: &u64) -> Option<u64> {
        Some(*reply)
    }
    fn describe(&self, trail: &mut Trail) {
        trail.param_u64("bytes", self.text.len() as u64);
        note_cas(trail, self.cas);
    }
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::PolicyWrite, PolicyRoom::path_of(&self.name)?))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, trail: &mut Trail) -> Result<Effect<u64>, Failure> {
        let (change, version) = rooms.policy.put(permit, &self.name, &self.text, self.cas).await?;
        trail.param_u64("version", version);
        Ok(Effect::Change(change, version))
    }
}

/// Reads a document.
pub struct Get {
    /// Its name.
    pub name: String,
}

impl Operation for Get {
    type Reply = Policy;
    const NAME: &'static str = "policy.get";
    const CLASS: Class = Class::Read;
    fn describe(&self, _: &mut Trail) {}
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::PolicyRead, PolicyRoom::path_of(&self.name)?))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, _: &mut Trail) -> Result<Effect<Policy>, Failure> {
        Ok(Effect::Answer(rooms.policy.get(permit, &self.name).await?))
    }
}

/// Lists names, in order.
pub struct List {
    /// The token of the page before.
    pub after: Option<Vec<u8>>,
    /// At most this many.
    pub limit: usize,
}

impl Operation for List {
    type Reply = (Vec<String>, Option<Vec<u8>>);
    const NAME: &'static str = "policy.list";
    const CLASS: Class = Class::Read;
    fn describe(&self, _: &mut Trail) {}
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::PolicyRead, PolicyRoom::root_path()?))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, trail: &mut Trail) -> Result<Effect<Self::Reply>, Failure> {
        let question = [Self::NAME, ""];
        let after = rooms.page_start(permit, question, self.after.as_deref())?;
        let after = after.as_deref().map(String::from_utf8_lossy);
        let (names, more) = rooms.policy.list(permit, after.as_deref(), self.limit)?;
        trail.param_u64("entries", names.len() as u64);
        let last = names.last().filter(|_| more);
        let next = last.map(|last| rooms.page_token(permit, question, last.as_bytes()));
        Ok(Effect::Answer((names, next)))
    }
}

/// Deletes a document.
pub struct Delete {
    /// Its name.
    pub name: String,
}

impl Operation for Delete {
    type Reply = ();
    const NAME: &'static str = "policy.delete";
    const CLASS: Class = Class::Change;
    fn remember(_: &()) -> Option<()> {
        Some(())
    }
    fn describe(&self, _: &mut Trail) {}
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::PolicyWrite, PolicyRoom::path_of(&self.name)?))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, _: &mut Trail) -> Result<Effect<()>, Failure> {
        Ok(Effect::Change(rooms.policy.delete(permit, &self.name).await?, ()))
    }
}

/// Says what would be decided, and why.
pub struct Explain {
    /// What would be done.
    pub action: Action,
    /// To what.
    pub path: Path,
    /// By whom, if not the caller.
    pub whom: Option<Arc<Principal>>,
}

impl Operation for Explain {
    type Reply = Explained;
    const NAME: &'static str = "policy.explain";
    const CLASS: Class = Class::Read;
    fn describe(&self, trail: &mut Trail) {
        trail.param_word("action", self.action.as_str());
        trail.param_path("of", &self.path);
    }
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        let path = PolicyRoom::root_path()?;
        Ok(match self.whom {
            None => Target::own(Action::PolicyRead, path),
            Some(_) => Target::new(Action::PolicyRead, path),
        })
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, _: &mut Trail) -> Result<Effect<Explained>, Failure> {
        // A name alone is the identity as it is stored; with groups or attributes it is as it would be.
        let named = self
            .whom
            .as_ref()
            .filter(|whom| whom.groups().is_empty() && whom.attributes().is_empty());
        let stored = named.map(|whom| rooms.tokens.principal_named(whom.name()));
        let unknown = matches!(stored, Some(None));
        let whom = stored.flatten().or_else(|| self.whom.clone());
        let whom = whom.map_or(Whom::Caller, Whom::Other);
        let mut explained = rooms.policy.explain(permit, whom, self.action, &self.path)?;
        if unknown {
            explained
                .reason
                .push_str("; no identity of this name is stored: asked as one without groups and attributes");
        }
        Ok(Effect::Answer(explained))
    }
}
