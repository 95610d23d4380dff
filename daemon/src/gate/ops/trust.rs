//! Trusts: put, get, list, delete, end; secret ids of app roles.

use super::prelude::*;
use crate::{
    auth::{self, MadeSecret, Summary, Trust, Written, path_of},
    base::secret::SecretBytes,
    token::trust_id,
};
use std::sync::Arc;

/// Writes a trust.
pub struct Put {
    /// Its name.
    pub name: String,
    /// JSON.
    pub definition: String,
    /// Of an OIDC trust. Without one, that of the same client at the same provider stays.
    pub client_secret: Option<Arc<SecretBytes>>,
    /// Check-and-set.
    pub cas: Option<u64>,
    /// Only say what is wrong with it.
    pub check_only: bool,
}

impl Operation for Put {
    type Reply = Written;
    const NAME: &'static str = "trust.put";
    const CLASS: Class = Class::Change;
    fn remember(reply: &Written) -> Option<Written> {
        Some(reply.clone())
    }
    fn describe(&self, trail: &mut Trail) {
        trail.param_u64("bytes", self.definition.len() as u64);
        trail.param_bool("check_only", self.check_only);
        trail.param_bool("client_secret", self.client_secret.is_some());
        note_cas(trail, self.cas);
    }
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::TrustWrite, path_of(&self.name)?))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, trail: &mut Trail) -> Result<Effect<Written>, Failure> {
        let put = auth::Put {
            text: &self.definition,
            client_secret: self.client_secret.as_ref(),
            cas: self.cas,
            check_only: self.check_only,
        };
        let (change, written) = rooms.auth.put(permit, &self.name, &put).await?;
        trail.param_u64("version", written.version);
        Ok(Effect::Change(change, written))
    }
}

/// Reads a trust.
pub struct Get {
    /// Its name.
    pub name: String,
}

impl Operation for Get {
    type Reply = Arc<Trust>;
    const NAME: &'static str = "trust.get";
    const CLASS: Class = Class::Read;
    fn describe(&self, _: &mut Trail) {}
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::TrustRead, path_of(&self.name)?))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, _: &mut Trail) -> Result<Effect<Arc<Trust>>, Failure> {
        Ok(Effect::Answer(rooms.auth.get(permit, &self.name)?))
    }
}

/// Lists the trusts that the caller may see.
pub struct List;

impl Operation for List {
    type Reply = Vec<Summary>;
    const NAME: &'static str = "trust.list";
    const CLASS: Class = Class::Read;
    fn describe(&self, _: &mut Trail) {}
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        let path = Path::parse("sys/trust").map_err(|_| Reason::Internal)?;
        Ok(Target::own(Action::List, path))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, trail: &mut Trail) -> Result<Effect<Self::Reply>, Failure> {
        let trusts = rooms.auth.list(permit);
        trail.param_u64("entries", trusts.len() as u64);
        Ok(Effect::Answer(trusts))
    }
}

/// Deletes a trust, and ends what came from it.
pub struct Delete {
    /// Its name.
    pub name: String,
}

impl Operation for Delete {
    type Reply = ();
    const NAME: &'static str = "trust.delete";
    const CLASS: Class = Class::Change;
    fn remember(_: &()) -> Option<()> {
        Some(())
    }
    fn describe(&self, _: &mut Trail) {}
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::TrustWrite, path_of(&self.name)?))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, _: &mut Trail) -> Result<Effect<()>, Failure> {
        let mut change = rooms.auth.delete(permit, &self.name)?;
        let settle = rooms.settle_soon();
        change.then(move || settle.notify_one());
        Ok(Effect::Change(change, ()))
    }
}

/// Ends every token that came from a trust until now.
pub struct End {
    /// The trust's name.
    pub name: String,
}

impl Operation for End {
    type Reply = ();
    const NAME: &'static str = "trust.end";
    const CLASS: Class = Class::Change;
    fn remember(_: &()) -> Option<()> {
        Some(())
    }
    fn describe(&self, _: &mut Trail) {}
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::TrustWrite, path_of(&self.name)?))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, _: &mut Trail) -> Result<Effect<()>, Failure> {
        let mut change = rooms.auth.end(permit, &self.name)?;
        let settle = rooms.settle_soon();
        change.then(move || settle.notify_one());
        Ok(Effect::Change(change, ()))
    }
}

/// Makes a secret id of an app role.
pub struct MakeSecret {
    /// The trust's name.
    pub name: String,
    /// 0: ten minutes.
    pub ttl_secs: u64,
    /// Where it may be used from; empty: as the trust says.
    pub networks: Vec<String>,
}

impl Operation for MakeSecret {
    type Reply = MadeSecret;
    const NAME: &'static str = "trust.make-secret";
    const CLASS: Class = Class::Change;
    fn describe(&self, trail: &mut Trail) {
        trail.param_u64("ttl_secs", self.ttl_secs);
        trail.param_u64("networks", self.networks.len() as u64);
    }
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::TrustWrite, path_of(&self.name)?))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, trail: &mut Trail) -> Result<Effect<MadeSecret>, Failure> {
        let (change, made) = rooms
            .auth
            .make_secret(permit, &self.name, self.ttl_secs, &self.networks)?;
        trail.param_id("role", trust_id(&self.name).as_bytes());
        trail.param_time("expires", made.expires);
        Ok(Effect::Change(change, made))
    }
}
