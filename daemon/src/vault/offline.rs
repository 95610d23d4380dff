//! Every key of a vault from a disk and one slot's factors, without opening its rooms: for disaster recovery, and for the memory scan that
//! must know what to look for (R-SEAL-7). The disk must be a copy or the daemon stopped: a store has one owner.

use super::{VaultError, load_slots};
use crate::{
    seal::{
        SealError, SlotName, Tokens,
        offline::{self, SlotKeys},
    },
    store::{Disk, Store},
};
use std::sync::Arc;

/// What [`derive`] finds.
pub struct Keys {
    /// The keys of the slot whose factors were given, down to the root key.
    pub slot: SlotKeys,
    /// The slot keys of all slots, which the root key gives.
    pub slots: Vec<(SlotName, crate::base::locked::LockedKey)>,
    /// The open store: [`Store::keyring`] has the data keys ([`crate::store::Keyring::each_key`]), and its views read every record.
    pub store: Arc<Store>,
}

/// Derives every key. `shares` are texts, at least k of them for a slot with a quorum; the slot's HSM is asked if it has one. Waits for the
/// HSM on a thread of its own.
/// # Errors
/// As presenting the factors would.
pub async fn derive(disk: &Disk, slot: &SlotName, shares: Vec<String>, tokens: &Tokens) -> Result<Keys, VaultError> {
    let slots = load_slots(disk).await?;
    let (record, tokens) = (slots.get(slot)?.clone(), tokens.clone());
    let derived = tokio::task::spawn_blocking(move || {
        let shares = zeroize::Zeroizing::new(shares);
        let texts: Vec<&str> = shares.iter().map(String::as_str).collect();
        offline::derive(&record, &texts, &tokens)
    });
    let keys = derived.await.map_err(|_| VaultError::Interrupted)??;
    let of = |record: &crate::seal::SlotRecord| {
        Ok::<_, SealError>((record.header.name.clone(), offline::slot_key_of(record, &keys.root)?))
    };
    let all = slots.iter().map(of).collect::<Result<_, _>>()?;
    let store = disk.unlock(&keys.root.key).await?;
    Ok(Keys {
        slot: keys,
        slots: all,
        store,
    })
}
