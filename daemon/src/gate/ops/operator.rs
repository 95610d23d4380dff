//! Operators' acts on an open vault: seal, slots, rotation. Those that a closed vault answers too are in `gate/operate.rs`.

use super::prelude::*;
use crate::{
    audit::Outcome,
    base::time::Timestamp,
    gate::Rooms,
    store::Change,
    vault::{SlotInfo, Vault},
};
use std::{collections::BTreeSet, sync::Arc};

fn operator() -> Result<Path, Failure> {
    Path::parse("sys/operator").map_err(|_| Reason::Internal.into())
}

/// Wipes the keys.
pub struct Seal(pub Arc<Vault<Rooms>>);

impl Operation for Seal {
    type Reply = ();
    const NAME: &'static str = "operator.seal";
    const CLASS: Class = Class::Act;
    fn remember(_: &()) -> Option<()> {
        Some(())
    }
    fn describe(&self, _: &mut Trail) {}
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::Seal, operator()?))
    }
    async fn handle(&self, _: &Open, _: &Permit, trail: &mut Trail) -> Result<Effect<()>, Failure> {
        let (vault, record) = (Arc::clone(&self.0), trail.response(&Outcome::ok()));
        Ok(Effect::Leave(Box::pin(async move {
            let sealing = vault.seal(Box::new(move |_| vec![record])).await;
            if !sealing.drained {
                tracing::warn!("sealed while requests were still inside: they are refused by the store from now on");
            }
            if let Some(error) = sealing.unrecorded {
                tracing::error!(%error, "the vault is sealed, but the log did not take the record of it");
            }
            Ok(())
        })))
    }
}

/// Lists the key slots.
pub struct ListSlots(pub Arc<Vault<Rooms>>);

impl Operation for ListSlots {
    type Reply = Vec<SlotInfo>;
    const NAME: &'static str = "operator.list-slots";
    const CLASS: Class = Class::Read;
    fn describe(&self, _: &mut Trail) {}
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::SlotRead, operator()?))
    }
    async fn handle(&self, _: &Open, _: &Permit, _: &mut Trail) -> Result<Effect<Vec<SlotInfo>>, Failure> {
        Ok(Effect::Answer(self.0.slots()))
    }
}

/// Lists damaged records in words.
pub struct ListQuarantine;

impl Operation for ListQuarantine {
    /// Where they lie, and how often one was met.
    type Reply = (Vec<String>, u64);
    const NAME: &'static str = "operator.list-quarantine";
    const CLASS: Class = Class::Read;
    fn describe(&self, _: &mut Trail) {}
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::SlotRead, operator()?))
    }
    async fn handle(&self, rooms: &Open, _: &Permit, trail: &mut Trail) -> Result<Effect<Self::Reply>, Failure> {
        let listed = rooms.store.quarantined();
        trail.param_u64("entries", listed.0.len() as u64);
        Ok(Effect::Answer(listed))
    }
}

/// Says that the wall clock's leap, which holds expiry, is right.
pub struct ConfirmTime;

impl Operation for ConfirmTime {
    /// What the vault goes by from now on.
    type Reply = Timestamp;
    const NAME: &'static str = "operator.confirm-time";
    const CLASS: Class = Class::Change;
    fn remember(reply: &Timestamp) -> Option<Timestamp> {
        Some(*reply)
    }
    fn describe(&self, _: &mut Trail) {}
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::TimeConfirm, operator()?))
    }
    async fn handle(&self, rooms: &Open, _: &Permit, trail: &mut Trail) -> Result<Effect<Timestamp>, Failure> {
        let none = || Failure::with(Reason::NotPossible, "the wall clock has not leapt: nothing is held");
        let hold = rooms.leases.standing().hold.ok_or_else(none)?;
        trail.param_time("vault", hold.vault);
        trail.param_time("wall", hold.wall);
        let (leases, mut change) = (Arc::clone(&rooms.leases), Change::new());
        change.then(move || leases.confirm_time());
        Ok(Effect::Change(change, hold.wall))
    }
}

/// Which keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keys {
    /// A new generation of data keys.
    Data,
    /// A new root key.
    Root,
    /// A new KEK in one HSM; `None`: in every HSM that a slot uses.
    Hsm(Option<String>),
}

/// New keys in place of old ones, online.
pub struct Rotate {
    /// The vault.
    pub vault: Arc<Vault<Rooms>>,
    /// Which keys.
    pub keys: Keys,
}

impl Operation for Rotate {
    type Reply = u32;
    const NAME: &'static str = "operator.rotate";
    const CLASS: Class = Class::Act;
    fn remember(reply: &u32) -> Option<u32> {
        Some(*reply)
    }
    fn describe(&self, trail: &mut Trail) {
        trail.param_word(
            "keys",
            match self.keys {
                Keys::Data => "data",
                Keys::Root => "root",
                Keys::Hsm(_) => "hsm",
            },
        );
    }
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::KeyRotate, operator()?))
    }
    async fn handle(&self, _: &Open, _: &Permit, trail: &mut Trail) -> Result<Effect<u32>, Failure> {
        let record = trail.response(&Outcome::ok());
        let evidence = Box::new(move |_: &crate::vault::Event| vec![record]);
        let generation = match &self.keys {
            Keys::Data => self.vault.rotate_data_keys(evidence).await?,
            Keys::Root => self.vault.rotate_root(evidence).await?,
            Keys::Hsm(one) => {
                let all = || self.vault.slots().into_iter().flat_map(|slot| slot.hsms).collect();
                let names: BTreeSet<String> = one.clone().map_or_else(all, |name| BTreeSet::from([name]));
                if names.is_empty() {
                    return Err(Failure::with(
                        Reason::NotPossible,
                        "no key slot uses an HSM, so there is no key in one to rotate; `strongroom operator slots add NAME=hsm` makes such a slot",
                    ));
                }
                let mut newest = 0;
                for name in names {
                    let record = trail.response(&Outcome::ok());
                    newest = newest.max(self.vault.rotate_kek(&name, Box::new(move |_| vec![record])).await?);
                }
                newest
            }
        };
        Ok(Effect::Recorded(generation))
    }
}
