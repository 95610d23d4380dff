//! Rotation of the KEKs: new version beside the old, seeds sealed again and opened to compare, records with both copies stored, and only
//! after a grace period the old copy dropped and then its key destroyed. State lives in the slot records alone, so a crash anywhere
//! resumes: a KEK without a copy is used by the next rotation or destroyed, a copy without a KEK cannot exist.

use super::{Token, Tokens, proved, ring, step};
use crate::{
    base::time::Timestamp,
    seal::{
        error::SealError,
        record::{Seed, SlotRecord},
        slot::Slot,
    },
};
use strongroom_hsm::ErrorKind;

/// Old KEK versions of one HSM that no record needs any more.
#[derive(Debug, PartialEq, Eq)]
pub struct Retired {
    /// The HSM's name.
    pub hsm: String,
    /// Versions below this one go.
    pub below: u32,
}

/// Gives every slot with this HSM a copy of its seed under a new KEK version, in front of the old one, which retires at `retire_at`.
/// The slots are changed in memory only; the caller binds them to the root key and stores all of them in one commit.
/// Returns the new version.
/// # Errors
/// The HSM's failure, with nothing changed but, at most, an unused KEK version (the next rotation takes it).
pub fn rotate(token: &dyn Token, slots: &mut [Slot], retire_at: Timestamp) -> Result<u32, SealError> {
    let Some(cluster) = slots.first().map(|slot| slot.record.header.cluster) else {
        return Err(SealError::Spec("there are no slots"));
    };
    let used = |slot: &Slot| {
        slot.record
            .seeds
            .iter()
            .filter(|seed| seed.hsm == token.name())
            .map(|seed| seed.blob.version())
            .max()
    };
    let Some(newest_used) = slots.iter().filter_map(used).max() else {
        return Err(SealError::NoSuchHsm(token.name().to_owned()));
    };
    let ring = ring(cluster).map_err(step(token))?;
    let newest = token
        .list(&ring)
        .map_err(step(token))?
        .iter()
        .map(|key| key.version)
        .max()
        .unwrap_or(0);
    // A version beyond those in use was left by a rotation that died before its commit.
    let version = if newest > newest_used {
        newest
    } else {
        newest_used.saturating_add(1)
    };
    if newest < version {
        token.create(&ring, version).map_err(step(token))?;
    }
    for slot in slots.iter_mut().map(|slot| &mut slot.record) {
        let context = slot.header.seed_context();
        let Some(current) = slot
            .seeds
            .iter()
            .find(|seed| seed.hsm == token.name() && seed.retire.is_none())
        else {
            continue;
        };
        let seed = token.open(&current.blob, &context).map_err(step(token))?;
        let blob = proved(token, &ring, version, &context, &seed)?;
        put_in_front(slot, token.name(), blob, retire_at);
    }
    Ok(version)
}

/// The new copy goes before the current one, which retires; copies that were retiring already go now.
fn put_in_front(slot: &mut SlotRecord, hsm: &str, blob: strongroom_hsm::HsmBlob, retire_at: Timestamp) {
    slot.seeds.retain(|seed| seed.hsm != hsm || seed.retire.is_none());
    let at = slot.seeds.iter().position(|seed| seed.hsm == hsm).unwrap_or(0);
    slot.seeds
        .iter_mut()
        .filter(|seed| seed.hsm == hsm)
        .for_each(|seed| seed.retire = Some(retire_at));
    slot.seeds.insert(
        at,
        Seed {
            hsm: hsm.to_owned(),
            retire: None,
            blob,
        },
    );
}

/// Drops copies whose time has come, after their successor has opened once more. Slots are changed in memory only; after the caller's
/// commit, [`destroy`] ends the keys. Returns whether anything changed.
/// # Errors
/// `HsmStep` when a successor does not open: then everything stays.
pub fn retire(tokens: &Tokens, slots: &mut [Slot], now: Timestamp) -> Result<bool, SealError> {
    let due = |seed: &Seed| seed.retire.is_some_and(|at| at <= now);
    let mut changed = false;
    for slot in slots.iter_mut().map(|slot| &mut slot.record) {
        let context = slot.header.seed_context();
        for old in slot.seeds.iter().filter(|seed| due(seed)) {
            let token = tokens.get(&old.hsm)?;
            let successor = slot
                .seeds
                .iter()
                .find(|seed| seed.hsm == old.hsm && seed.retire.is_none());
            let successor = successor.ok_or_else(|| SealError::Damaged(slot.header.name.to_string()))?;
            token.open(&successor.blob, &context).map_err(step(token.as_ref()))?;
        }
        let before = slot.seeds.len();
        slot.seeds.retain(|seed| !due(seed));
        changed |= slot.seeds.len() != before;
    }
    Ok(changed)
}

/// KEK versions that no stored record needs, by HSM: everything below the oldest version in use.
pub fn unneeded(tokens: &Tokens, slots: &[SlotRecord]) -> Vec<Retired> {
    let oldest = |name: &str| {
        slots
            .iter()
            .flat_map(|slot| &slot.seeds)
            .filter(|seed| seed.hsm == name)
            .map(|seed| seed.blob.version())
            .min()
    };
    tokens
        .names()
        .filter_map(|name| {
            oldest(name).filter(|below| *below > 1).map(|below| Retired {
                hsm: name.to_owned(),
                below,
            })
        })
        .collect()
}

/// Destroys old KEK versions on the HSMs. Call it with the *stored* records only: what it destroys opens nothing ever again.
/// # Errors
/// The HSM's failure; calling again goes on where it stopped.
pub fn destroy(tokens: &Tokens, slots: &[SlotRecord]) -> Result<u32, SealError> {
    let Some(cluster) = slots.first().map(|slot| slot.header.cluster) else {
        return Ok(0);
    };
    let mut destroyed = 0;
    for Retired { hsm, below } in unneeded(tokens, slots) {
        let token = tokens.get(&hsm)?;
        let ring = ring(cluster).map_err(step(token.as_ref()))?;
        let keys = token.list(&ring).map_err(step(token.as_ref()))?;
        for key in keys.iter().filter(|key| key.version < below) {
            match token.destroy(&ring, key.version) {
                Ok(()) => destroyed += 1,
                Err(error) if error.kind == ErrorKind::KeyMissing => {}
                Err(error) => return Err(step(token.as_ref())(error)),
            }
        }
    }
    Ok(destroyed)
}
