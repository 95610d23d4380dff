//! New keys in place of old ones, online.
//!
//! Data keys and the root key change in one commit each. An HSM's KEK changes in steps that each leave every slot opening:
//! new version made -> seeds sealed under it, opened and compared -> records with both copies committed -> (grace) successor opened once more
//! -> records without the old copy committed -> old version destroyed. A crash in between is taken up by the next rotation or by [`Vault::tend`].

use super::{Event, Evidence, Opened, Rooms, State, Vault, VaultError};
use crate::{
    base::limits::KEK_GRACE_SECS,
    seal::{Root, SealError, SlotRecord, Slots, hsm},
    store::{Change, KeyringEdit, REWRAP_ROWS_MAX},
};
use std::sync::Arc;

/// What [`Vault::tend`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tended {
    /// Old copies of seeds were dropped.
    pub retired: bool,
    /// KEK versions destroyed in HSMs.
    pub destroyed: u32,
}

/// What a step of [`Vault::reencrypt`] did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reencrypted {
    /// Records sealed anew by the current data key.
    pub resealed: usize,
    /// Nothing is left to do for now.
    pub finished: bool,
    /// Generations of data keys that no record needs any more, and that are gone.
    pub dropped: Vec<u32>,
}

impl<R: Rooms> Vault<R> {
    /// A new generation of data keys; returns its number. Old data stays readable; [`Self::reencrypt`] moves it over and ends
    /// the old keys.
    /// # Errors
    /// `NotPossible` unless open; the commit's.
    pub async fn rotate_data_keys(&self, evidence: Evidence<'_>) -> Result<u32, VaultError> {
        let state = self.state.lock().await;
        let opened = open(&state)?;
        let root = opened.root.load_full();
        let edits = [KeyringEdit::AddGeneration(self.parts.algorithm)];
        self.rekeyed(
            opened
                .store
                .change_keyring(&root.key, &edits, Change::new(), evidence(&Event::DataKeysRotated))
                .await,
        )
        .await?;
        Ok(opened
            .store
            .keyring()?
            .generation_ids()
            .last()
            .copied()
            .unwrap_or_default())
    }

    /// A new root key, wrapped again for every slot: their operators need not be there. Returns its generation.
    /// # Errors
    /// `NotPossible` unless open; `Damaged` names a slot to remove first; the commit's.
    pub async fn rotate_root(&self, evidence: Evidence<'_>) -> Result<u32, VaultError> {
        let state = self.state.lock().await;
        let root = open(&state)?.root.load_full();
        let next = root.successor(&*self.parts.random)?;
        let generation = next.generation;
        let slots = self.slots.load_full();
        let slot_change = slots.rewrap(&root, &next, &*self.parts.random)?;
        let change = self.slot_change(&slots, &slot_change);
        self.new_root(
            &state,
            next,
            false,
            change,
            evidence(&Event::RootRotated { generation }),
        )
        .await?;
        Ok(generation)
    }

    /// A new KEK version in one HSM; the old one goes after [`KEK_GRACE_SECS`] by [`Self::tend`]. Returns the new version.
    /// # Errors
    /// `NotPossible` unless open; `NoSuchHsm` when no slot uses it; the HSM's, with nothing changed; the commit's.
    pub async fn rotate_kek(&self, hsm: &str, evidence: Evidence<'_>) -> Result<u32, VaultError> {
        let state = self.state.lock().await;
        let root = open(&state)?.root.load_full();
        let token = self.parts.tokens.get(hsm)?.clone();
        let slots = self.slots.load_full();
        let (before, retire_at, by) = (
            slots.clone(),
            self.parts.clock.now().plus_secs(KEK_GRACE_SECS),
            root.clone(),
        );
        let rotated = self.blocking(move || {
            let mut slots = slots.authenticated(&by)?;
            let version = hsm::rotate(token.as_ref(), &mut slots, retire_at)?;
            Ok::<_, SealError>((version, slots))
        });
        let (version, slots) = rotated.await??;
        let records = self.bound(slots, &root)?;
        let change = self.slot_change(&before, &Slots::replace(records));
        self.commit_raw(
            change,
            evidence(&Event::KekRotated {
                hsm: hsm.to_owned(),
                version,
            }),
        )
        .await?;
        Ok(version)
    }

    /// Finishes what rotations of KEKs left for later; to be called now and then (every minute). Cheap when there is nothing to do.
    /// # Errors
    /// An HSM's or the commit's: nothing is lost, the next call goes on. Sealed is not an error.
    pub async fn tend(&self, evidence: Evidence<'_>) -> Result<Tended, VaultError> {
        let mut state = self.state.lock().await;
        let State::Open(opened) = &mut *state else {
            return Ok(Tended::default());
        };
        let (slots, root, now) = (self.slots.load_full(), opened.root.load_full(), self.parts.clock.now());
        let due = slots
            .iter()
            .flat_map(|record| &record.seeds)
            .any(|seed| seed.retire.is_some_and(|at| at <= now));
        if !due && opened.tended {
            return Ok(Tended::default());
        }
        opened.tended = true;
        let retired = due && self.retire(slots, &root, evidence).await?;
        // The stored records, as the commit's hook has left them.
        let (stored, tokens) = (self.slots.load_full(), self.parts.tokens.clone());
        let destroyed = self.blocking(move || {
            let records: Vec<SlotRecord> = stored.iter().cloned().collect();
            // A damaged record may need any version.
            if stored.damaged().next().is_some() {
                Ok(0)
            } else {
                hsm::destroy(&tokens, &records)
            }
        });
        match destroyed.await? {
            Ok(destroyed) => Ok(Tended { retired, destroyed }),
            Err(error) => {
                opened.tended = false;
                Err(error.into())
            }
        }
    }

    /// One step of re-encryption after a rotation of data keys, at most [`REWRAP_ROWS_MAX`] records; to be called until `finished`, and now
    /// and then. Its place is kept in the store: a crash loses no work. After a whole pass the generations that no record needs are dropped.
    /// Cheap when there is one generation. Operators' acts are not held up.
    /// # Errors
    /// The commit's: the same step is done again by the next call. Sealed is not an error.
    pub async fn reencrypt(&self, evidence: Evidence<'_>) -> Result<Reencrypted, VaultError> {
        let store = match &*self.state.lock().await {
            State::Open(opened) => opened.store.clone(),
            State::Blank | State::Sealed => {
                return Ok(Reencrypted {
                    finished: true,
                    ..Reencrypted::default()
                });
            }
        };
        if store.keyring()?.generation_ids().len() < 2 {
            return Ok(Reencrypted {
                finished: true,
                ..Reencrypted::default()
            });
        }
        let step = store.rewrap(REWRAP_ROWS_MAX).await?;
        if !step.unused.is_empty() {
            let state = self.state.lock().await;
            let opened = open(&state)?;
            let edits: Vec<KeyringEdit> = step.unused.iter().copied().map(KeyringEdit::DropGeneration).collect();
            let records = evidence(&Event::DataKeysDropped {
                generations: step.unused.clone(),
            });
            let root = opened.root.load_full();
            self.rekeyed(
                opened
                    .store
                    .change_keyring(&root.key, &edits, Change::new(), records)
                    .await,
            )
            .await?;
        }
        Ok(Reencrypted {
            resealed: step.resealed,
            finished: step.finished,
            dropped: step.unused,
        })
    }

    async fn retire(&self, slots: Arc<Slots>, root: &Arc<Root>, evidence: Evidence<'_>) -> Result<bool, VaultError> {
        let (before, tokens, now, by) = (
            slots.clone(),
            self.parts.tokens.clone(),
            self.parts.clock.now(),
            root.clone(),
        );
        let retired = self.blocking(move || {
            let mut slots = slots.authenticated(&by)?;
            let changed = hsm::retire(&tokens, &mut slots, now)?;
            Ok::<_, SealError>((changed, slots))
        });
        let (changed, slots) = retired.await??;
        if changed {
            let change = self.slot_change(&before, &Slots::replace(self.bound(slots, root)?));
            self.commit_raw(change, evidence(&Event::KeksRetired)).await?;
        }
        Ok(changed)
    }

    fn bound(&self, slots: Vec<crate::seal::Slot>, root: &Root) -> Result<Vec<SlotRecord>, SealError> {
        slots
            .into_iter()
            .map(|slot| slot.bind(root, &*self.parts.random))
            .collect()
    }
}

fn open(state: &State) -> Result<&Opened, VaultError> {
    match state {
        State::Open(opened) => Ok(opened),
        State::Sealed => Err(VaultError::NotPossible("the vault is sealed: unseal it first")),
        State::Blank => Err(VaultError::NotPossible("the vault is not initialised")),
    }
}
