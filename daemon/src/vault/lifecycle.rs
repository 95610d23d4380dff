//! From blank to sealed, from sealed to open, and back.

use super::{Event, Evidence, Opened, Rooms, RoomsError, State, Vault, VaultError, door::Leaving};
use crate::{
    base::{id::ClusterId, locked::LockedKey},
    seal::{Operation, Root, SealError, ShareText, SlotChange, SlotName, SlotRecord, SlotSpec, Slots, Tools},
    store::{CommitError, Store},
};
use arc_swap::ArcSwap;
use std::{future::Future, sync::Arc};

/// A vault just made.
pub struct Initialised<T> {
    /// Its id.
    pub cluster: ClusterId,
    /// Each slot's shares, to be shown once.
    pub shares: Vec<(SlotName, Vec<ShareText>)>,
    /// What the operator should think about.
    pub warnings: Vec<String>,
    /// What the rooms made of their first moment (the set-up token). The vault exists even if that failed: `operator recover` mends it.
    pub first: Result<T, RoomsError>,
}

/// How sealing went. The vault is sealed in any case.
#[derive(Debug)]
pub struct Sealing {
    /// Whether every request in flight had left before the keys went; the others were refused by the store from then on.
    pub drained: bool,
    /// Why the evidence was not recorded, if it was not: sealing does not wait for a broken log.
    pub unrecorded: Option<CommitError>,
}

impl<R: Rooms> Vault<R> {
    /// Makes the vault: one commit writes every slot, the keyring and the evidence, so a crash leaves it blank (and, at most, an unused KEK
    /// in an HSM). Then the rooms open once, behind the closed door, for `first` to write what a new vault needs; the vault stays sealed.
    /// # Errors
    /// `NotPossible` unless blank; why a slot could not be made; the commit's.
    pub async fn init<T, F>(
        &self,
        specs: Vec<SlotSpec>,
        evidence: Evidence<'_>,
        first: impl FnOnce(Arc<R>) -> F + Send,
    ) -> Result<Initialised<T>, VaultError>
    where
        F: Future<Output = Result<T, RoomsError>> + Send,
    {
        let mut state = self.state.lock().await;
        if !matches!(*state, State::Blank) {
            return Err(VaultError::NotPossible("the vault is initialised already"));
        }
        let cluster = self.cluster();
        let root = Root::first(&*self.parts.random)?;
        let (tokens, random, now) = (
            self.parts.tokens.clone(),
            self.parts.random.clone(),
            self.parts.clock.now(),
        );
        let made = self.blocking(move || {
            let made = make_slots(
                cluster,
                &specs,
                &root,
                Tools {
                    tokens: &tokens,
                    random: &*random,
                    now,
                },
            );
            made.map(|(change, shares, warnings)| (change, shares, warnings, root))
        });
        let (slot_change, shares, warnings, root) = made.await??;
        let mut change = self.parts.disk.new_keyring(&root.key, self.parts.algorithm)?;
        change.merge(self.slot_change(&Slots::load(cluster, []), &slot_change));
        self.commit_raw(change, evidence(&Event::Initialised)).await?;
        *state = State::Sealed;
        self.door.initialised();
        let first = self.first_moment(&root.key, first).await;
        Ok(Initialised {
            cluster,
            shares,
            warnings,
            first,
        })
    }

    async fn first_moment<T, F>(
        &self,
        root: &LockedKey,
        first: impl FnOnce(Arc<R>) -> F + Send,
    ) -> Result<T, RoomsError>
    where
        F: Future<Output = Result<T, RoomsError>> + Send,
    {
        let store = self.parts.disk.unlock(root).await?;
        let result = match (self.parts.build)(store.clone()).await {
            Ok(rooms) => {
                let result = first(rooms.clone()).await;
                rooms.close().await;
                result
            }
            Err(error) => Err(error),
        };
        store.lock();
        result
    }

    /// Opens the vault with the root key. The evidence is durable before the door opens.
    pub(super) async fn unseal(
        &self,
        state: &mut State,
        root: Root,
        evidence: Evidence<'_>,
        event: &Event,
    ) -> Result<(), VaultError> {
        match state {
            State::Blank => return Err(VaultError::NotPossible("the vault is not initialised")),
            State::Open(_) => return Err(VaultError::NotPossible("the vault is open already")),
            State::Sealed => {}
        }
        let store = self.parts.disk.unlock(&root.key).await?;
        match self.furnish(&store, evidence, event).await {
            Ok(rooms) => {
                self.door.open(rooms, store.clone());
                *state = State::Open(Opened {
                    store,
                    root: Arc::new(ArcSwap::from_pointee(root)),
                    tended: false,
                });
                // Whoever else brings shares to unseal has come too late; theirs must not open the vault after it was sealed again.
                self.sessions.end(Some(&Operation::Unseal));
                self.shut.store(None);
                Ok(())
            }
            Err(error) => {
                store.lock();
                Err(error)
            }
        }
    }

    async fn furnish(&self, store: &Arc<Store>, evidence: Evidence<'_>, event: &Event) -> Result<Arc<R>, VaultError> {
        let rooms = (self.parts.build)(store.clone()).await.map_err(VaultError::Rooms)?;
        if let Err(error) = store.commit(Self::urgent(), evidence(event)).await {
            rooms.close().await;
            return Err(error.into());
        }
        Ok(rooms)
    }

    /// At start: opens by the first `hsm`-only slot that works, if there is one. Returns its name.
    /// # Errors
    /// The last slot's, when there are such slots and none opens; the vault stays sealed.
    pub async fn open_by_itself(&self, evidence: Evidence<'_>) -> Result<Option<SlotName>, Arc<VaultError>> {
        let mut state = self.state.lock().await;
        let opened = self.try_by_itself(&mut state, evidence).await.map_err(Arc::new);
        // While nobody else can open or seal it.
        self.shut.store(opened.as_ref().err().cloned());
        opened
    }

    /// Why the vault did not open by itself, although it has a slot for that; `None` once it was opened, or sealed by somebody.
    pub fn shut_by_itself(&self) -> Option<Arc<VaultError>> {
        self.shut.load_full()
    }

    async fn try_by_itself(&self, state: &mut State, evidence: Evidence<'_>) -> Result<Option<SlotName>, VaultError> {
        if !matches!(state, State::Sealed) {
            return Ok(None);
        }
        let slots = self.slots.load_full();
        let alone: Vec<SlotRecord> = slots
            .iter()
            .filter(|record| record.header.factors == crate::seal::Factors::Hsm)
            .cloned()
            .collect();
        let tokens = self.parts.tokens.clone();
        let opened = self.blocking(move || {
            let mut last = None;
            for record in alone {
                match record.open(None, &tokens) {
                    Ok(root) => return Ok(Some((record.header.name, root))),
                    Err(error) => last = Some(error),
                }
            }
            last.map_or(Ok(None), Err)
        });
        match opened.await?? {
            None => Ok(None),
            Some((name, root)) => {
                self.unseal(state, root, evidence, &Event::Unsealed { slot: name.clone() })
                    .await?;
                Ok(Some(name))
            }
        }
    }

    /// Seals the vault: the door closes at once; requests inside are waited for, bounded; then the keys go whoever still
    /// holds on, and the HSMs' workers end. The caller must have let go of its own guard. Sealing a sealed vault is done.
    pub async fn seal(&self, evidence: Evidence<'_>) -> Sealing {
        let change = Self::urgent();
        // The door first, and no longer than for requests: a log that hangs must not keep the keys.
        let leaving = self.door.close();
        // Shares that were brought before are good for nothing from here on.
        self.sessions.end(None);
        let raw = self.parts.disk.raw();
        let recorded = tokio::time::timeout(self.parts.drain, raw.commit(change, evidence(&Event::Sealed)));
        let recorded = recorded
            .await
            .unwrap_or_else(|_| Err(CommitError::AuditUnavailable("it did not answer in time".to_owned())));
        let mut drained = self.leave(leaving).await;
        // Calls that wait for an HSM end now, so that an operator's act under way does not hold up the rest.
        self.stop_tokens().await;
        let mut state = self.state.lock().await;
        if let State::Open(_) = &*state {
            // Whoever was unsealing meanwhile has opened the door again.
            drained &= self.leave(self.door.close()).await;
            *state = State::Sealed;
            self.stop_tokens().await;
        }
        self.sessions.end(None);
        self.shut.store(None);
        Sealing {
            drained,
            unrecorded: recorded.err(),
        }
    }

    async fn leave(&self, leaving: Option<Leaving<R>>) -> bool {
        let Some(Leaving { rooms, store, left }) = leaving else {
            return true;
        };
        // Background work has the same time as requests: a room that does not end must not keep the keys.
        let drained = tokio::time::timeout(self.parts.drain, async {
            rooms.close().await;
            drop(rooms);
            // An error is the answer: the sender is dropped with the last guard.
            let _ = left.await;
        });
        let drained = drained.await.is_ok();
        store.lock();
        drained
    }

    async fn stop_tokens(&self) {
        let tokens = self.parts.tokens.clone();
        let _ = self.blocking(move || tokens.stop()).await;
    }
}

type Made = (SlotChange, Vec<(SlotName, Vec<ShareText>)>, Vec<String>);

fn make_slots(cluster: ClusterId, specs: &[SlotSpec], root: &Root, tools: Tools<'_>) -> Result<Made, SealError> {
    if specs.is_empty() {
        return Err(SealError::Spec("a vault needs at least one slot"));
    }
    let mut slots = Slots::load(cluster, []);
    let (mut all, mut shares, mut warnings) = (SlotChange::default(), Vec::new(), Vec::new());
    for spec in specs {
        let (change, made) = slots.add(spec, root, tools)?;
        slots.apply(&change);
        all.puts.extend(change.puts);
        warnings.extend(
            made.warnings
                .into_iter()
                .map(|warning| format!("slot `{}`: {warning}", spec.name)),
        );
        shares.push((spec.name.clone(), made.shares));
    }
    warnings.extend(slots.only_hsm_warning());
    Ok((all, shares, warnings))
}
