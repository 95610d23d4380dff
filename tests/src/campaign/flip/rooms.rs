//! The rooms over a store, as the daemon has them, without a gate: what a fixture is made by and judged through.

use crate::campaign::{Tried, doing, power::load::causes};
use std::sync::Arc;
use strongroomd::{
    base::{
        path::Path,
        random::OsRandom,
        time::{Clock, ManualClock, Timestamp},
    },
    kv::{KvRoom, Select},
    mount::MountRoom,
    policy::{Action, Caller, Claim, Peer, Permit, PolicyRoom},
    store::Store,
    token::TokenRoom,
};

/// See the module.
pub struct Rooms {
    pub token: TokenRoom,
    pub policy: PolicyRoom,
    pub kv: KvRoom,
    pub mount: Arc<MountRoom>,
}

/// What reading a secret came to.
pub enum Read {
    Value(Vec<(String, Vec<u8>)>),
    Refused,
    Failed,
}

impl Rooms {
    pub async fn load(store: &Store, now: Timestamp) -> Tried<Self> {
        let (clock, random): (Arc<dyn Clock>, _) = (Arc::new(ManualClock::at(now)), Arc::new(OsRandom));
        let mount = MountRoom::load(store, clock.clone(), random.clone())
            .await
            .map_err(|error| causes(&error))?;
        let mount = Arc::new(mount);
        Ok(Self {
            token: TokenRoom::load(store, clock.clone(), random.clone())
                .await
                .map_err(|error| causes(&error))?,
            policy: PolicyRoom::load(store, clock.clone())
                .await
                .map_err(|error| causes(&error))?,
            kv: KvRoom::open(store, mount.clone(), clock, random).map_err(|error| causes(&error))?,
            mount,
        })
    }

    /// Leave for `action` at `path`, if the policies give it.
    pub fn ask(&self, caller: &Arc<Caller>, action: Action, path: &str) -> Tried<Option<Permit>> {
        let path = Path::parse(path).map_err(doing("a path"))?;
        Ok(self
            .policy
            .decide(caller, action, &path, Claim::Policy, Peer::Unix)
            .permit
            .ok())
    }

    /// The secret at `path`, as a caller would get it.
    pub async fn read(&self, caller: &Arc<Caller>, path: &str) -> Tried<Read> {
        let Some(permit) = self.ask(caller, Action::Read, path)? else {
            return Ok(Read::Refused);
        };
        let Ok(place) = self.mount.resolve(permit.path()) else {
            return Ok(Read::Failed);
        };
        match self.kv.get(&permit, &place, &Select::Current).await {
            Ok(secret) => Ok(Read::Value(
                secret
                    .fields
                    .expose()
                    .map(|(name, value)| (name.to_owned(), value.to_vec()))
                    .collect(),
            )),
            Err(_) => Ok(Read::Failed),
        }
    }
}
