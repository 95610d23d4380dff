//! Operators bring factors, one after the other, and when a slot's are all there its operation runs.

use super::{Evidence, Rooms, State, Vault, VaultError};
use crate::{
    base::locked::LockedKey,
    seal::{
        Complete, NewShares, Nonce, Operation, Presented, Progress, Root, SealError, SessionError, ShareError,
        ShareText, Slot, SlotName, SlotRecord, SlotSpec, Slots, Step, Tools,
    },
    store::{Change, CommitError, Committed, KeyringChangeError, KeyringEdit, RawTable, StoreError},
};
use std::sync::Arc;
use strongroom_audit::Encoded;
use strongroom_hsm::ErrorKind;
use subtle::ConstantTimeEq;

/// One factor.
pub struct PresentInput<'a> {
    /// The slot.
    pub slot: SlotName,
    /// The session to join; `None` opens one.
    pub session: Option<Nonce>,
    /// One share's text, for a slot with a quorum.
    pub share: Option<&'a str>,
    /// What for; bound when the session opens.
    pub operation: Option<Operation>,
    /// The caller is root (or the daemon's own uid) over the Unix socket: the only one who may present a slot that has no secret of its holder.
    pub local_root: bool,
}

/// What came of it.
#[derive(Debug)]
pub enum Answer {
    /// More shares are needed. Nothing was committed: the gate records this.
    Waiting(Progress),
    /// The operation is done, and its evidence is recorded.
    Done {
        /// What was done.
        done: Done,
        /// How many shares it took; 0 for a slot without a quorum.
        shares: u8,
    },
}

/// What was done.
#[derive(Debug)]
pub enum Done {
    /// The vault is open.
    Unsealed,
    /// A slot was added or re-keyed: its shares, to be shown once (and again to whoever lost that answer, see [`crate::seal::Answers`]), and what the operator should think about.
    Slot {
        /// Its name.
        slot: SlotName,
        /// In the order of their indices.
        shares: Vec<ShareText>,
        /// In words.
        warnings: Vec<String>,
    },
    /// A slot was removed.
    Removed {
        /// In words.
        warnings: Vec<String>,
    },
    /// The slot opens.
    Verified,
    /// The factors of this slot were proved: the gate has the token room mint its token.
    Recover {
        /// Whose factors they were.
        slot: SlotName,
    },
}

/// An act of the vault, for its evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The vault was made.
    Initialised,
    /// It was opened by this slot.
    Unsealed {
        /// Its name.
        slot: SlotName,
    },
    /// It was sealed.
    Sealed,
    /// A slot was added.
    SlotAdded {
        /// Its name.
        slot: SlotName,
    },
    /// A slot was removed.
    SlotRemoved {
        /// Its name.
        slot: SlotName,
    },
    /// A slot got new shares and a new seed.
    SlotRekeyed {
        /// Its name.
        slot: SlotName,
    },
    /// New shares of a slot were told once more to whoever brought the share that completed their session.
    SharesTold {
        /// Its name.
        slot: SlotName,
    },
    /// A slot's factors were proved.
    SlotVerified {
        /// Its name.
        slot: SlotName,
    },
    /// A slot's factors were proved, to recover.
    Recovered {
        /// Its name.
        slot: SlotName,
    },
    /// New data keys: this generation of the keyring was asked for.
    DataKeysRotated,
    /// Data keys that no record needs any more were forgotten.
    DataKeysDropped {
        /// Their generations.
        generations: Vec<u32>,
    },
    /// A new root key of this generation.
    RootRotated {
        /// From 1.
        generation: u32,
    },
    /// An HSM has a new KEK.
    KekRotated {
        /// Its name in the configuration.
        hsm: String,
        /// The new version.
        version: u32,
    },
    /// Old copies of seeds were dropped, before the KEK versions they needed are destroyed.
    KeksRetired,
}

impl<R: Rooms> Vault<R> {
    /// Takes a factor.
    /// # Errors
    /// `Seal` names what is wrong with share, session, slot or HSM; `NotPossible` when the state does not allow the operation. After a
    /// passing failure (an HSM that is away, a full disk) the session stays complete: presenting again without a share runs it again.
    pub async fn present(&self, input: PresentInput<'_>, evidence: Evidence<'_>) -> Result<Answer, VaultError> {
        if let (Some(session), Some(share)) = (&input.session, input.share)
            && let Some(NewShares { slot, shares, warnings }) = self.answers.again(session, share)
        {
            self.commit_raw(Self::urgent(), evidence(&Event::SharesTold { slot: slot.clone() }))
                .await?;
            let done = Done::Slot { slot, shares, warnings };
            return Ok(Answer::Done { done, shares: 0 });
        }
        let slots = self.slots.load_full();
        let factors = slots.get(&input.slot)?.header.factors;
        if let Some(operation) = &input.operation {
            self.allowed(operation)?;
        }
        if factors.quorum().is_none() {
            if !input.local_root {
                return Err(SealError::LocalRootOnly.into());
            }
            if input.share.is_some() {
                return Err(SealError::from(ShareError::NotWanted).into());
            }
            let operation = input.operation.ok_or(SealError::from(SessionError::OperationMissing))?;
            let done = self.run(&input.slot, &operation, None, evidence).await?;
            return Ok(Answer::Done { done, shares: 0 });
        }
        let presented = Presented {
            slot: &input.slot,
            session: input.session,
            share: input.share,
            operation: input.operation.as_ref(),
        };
        match self.sessions.present(&slots, &presented)? {
            Step::Waiting(progress) => Ok(Answer::Waiting(progress)),
            Step::Complete(complete) => {
                let (need, session) = (complete.need, complete.session());
                let done = self.finish(complete, evidence).await?;
                if let (Done::Slot { slot, shares, warnings }, Some(share)) = (&done, input.share) {
                    self.answers.keep(&session, share, slot, shares, warnings);
                }
                Ok(Answer::Done { done, shares: need })
            }
        }
    }

    /// Told early, before anybody types a share for nothing; told again when it runs.
    fn allowed(&self, operation: &Operation) -> Result<(), VaultError> {
        use super::VaultState::{Blank, Open, Sealed};
        match (self.state(), operation) {
            (Blank, _) => Err(VaultError::NotPossible("the vault is not initialised")),
            (Open, Operation::Unseal) => Err(VaultError::NotPossible("the vault is open already")),
            (
                Sealed,
                Operation::AddSlot(_) | Operation::RemoveSlot(_) | Operation::RekeySlot(_) | Operation::Recover,
            ) => Err(VaultError::NotPossible("the vault is sealed: unseal it first")),
            (Sealed, Operation::Unseal | Operation::VerifySlot) => Ok(()),
            (
                Open,
                Operation::AddSlot(_)
                | Operation::RemoveSlot(_)
                | Operation::RekeySlot(_)
                | Operation::VerifySlot
                | Operation::Recover,
            ) => Ok(()),
        }
    }

    async fn finish(&self, complete: Complete, evidence: Evidence<'_>) -> Result<Done, VaultError> {
        let half = complete.combine()?;
        match self
            .run(
                &complete.slot.clone(),
                &complete.operation.clone(),
                Some(half),
                evidence,
            )
            .await
        {
            Err(error) if may_pass(&error) => {
                complete.give_back();
                Err(error)
            }
            settled => settled,
        }
    }

    async fn run(
        &self,
        slot: &SlotName,
        operation: &Operation,
        half: Option<LockedKey>,
        evidence: Evidence<'_>,
    ) -> Result<Done, VaultError> {
        let record = self.slots.load().get(slot)?.clone();
        let tokens = self.parts.tokens.clone();
        // Before the lock: an HSM that does not answer holds nobody up.
        let (record, root) = self
            .blocking(move || record.open(half.as_ref(), &tokens).map(|root| (record, root)))
            .await??;
        let mut state = self.state.lock().await;
        match operation {
            Operation::Unseal => {
                let event = Event::Unsealed { slot: slot.clone() };
                self.unseal(&mut state, root, evidence, &event)
                    .await
                    .map(|()| Done::Unsealed)
            }
            Operation::VerifySlot => self.verify(&state, record, root, evidence).await,
            Operation::Recover => {
                self.same_root(&state, slot, &root)?;
                self.commit_raw(Self::urgent(), evidence(&Event::Recovered { slot: slot.clone() }))
                    .await?;
                Ok(Done::Recover { slot: slot.clone() })
            }
            Operation::AddSlot(spec) => {
                self.same_root(&state, slot, &root)?;
                self.add(spec.clone(), root, evidence).await
            }
            Operation::RemoveSlot(name) => {
                self.same_root(&state, slot, &root)?;
                self.remove(&state, name.clone(), root, evidence).await
            }
            Operation::RekeySlot(spec) => {
                self.same_root(&state, slot, &root)?;
                self.rekey(&state, spec.clone(), root, evidence).await
            }
        }
    }

    /// The vault must be open, and by this very root key: an old copy of a slot, put back into the store, proves nothing.
    fn same_root(&self, state: &State, slot: &SlotName, root: &Root) -> Result<(), VaultError> {
        let State::Open(opened) = state else {
            return Err(VaultError::NotPossible("the vault is sealed: unseal it first"));
        };
        let same = opened.root.load().key.expose().ct_eq(root.key.expose());
        if bool::from(same) {
            Ok(())
        } else {
            Err(SealError::DoesNotOpen(slot.to_string()).into())
        }
    }

    async fn verify(
        &self,
        state: &State,
        record: SlotRecord,
        root: Root,
        evidence: Evidence<'_>,
    ) -> Result<Done, VaultError> {
        let name = record.header.name.clone();
        match state {
            State::Open(_) => self.same_root(state, &name, &root)?,
            // The keyring tells whether it is the vault's root key.
            State::Blank | State::Sealed => self.parts.disk.unlock(&root.key).await?.lock(),
        }
        let mut slot = Slot::authenticate(record, &root)?;
        slot.record.verified = Some(self.parts.clock.now());
        let record = slot.bind(&root, &*self.parts.random)?;
        let change = self.slot_change(&self.slots.load(), &Slots::replace([record]));
        self.commit_raw(change, evidence(&Event::SlotVerified { slot: name }))
            .await?;
        Ok(Done::Verified)
    }

    async fn add(&self, spec: SlotSpec, root: Root, evidence: Evidence<'_>) -> Result<Done, VaultError> {
        let (slots, name) = (self.slots.load_full(), spec.name.clone());
        let (before, tokens, random, now) = (
            slots.clone(),
            self.parts.tokens.clone(),
            self.parts.random.clone(),
            self.parts.clock.now(),
        );
        let made = self.blocking(move || {
            slots.add(
                &spec,
                &root,
                Tools {
                    tokens: &tokens,
                    random: &*random,
                    now,
                },
            )
        });
        let (slot_change, made) = made.await??;
        let change = self.slot_change(&before, &slot_change);
        self.commit_raw(change, evidence(&Event::SlotAdded { slot: name.clone() }))
            .await?;
        Ok(Done::Slot {
            slot: name,
            shares: made.shares,
            warnings: made.warnings,
        })
    }

    async fn remove(
        &self,
        state: &State,
        name: SlotName,
        root: Root,
        evidence: Evidence<'_>,
    ) -> Result<Done, VaultError> {
        let mut slots = Slots::clone(&self.slots.load());
        if matches!(
            self.parts
                .disk
                .raw()
                .get(RawTable::Slots, name.as_str().as_bytes())
                .await,
            Err(StoreError::Damaged { .. })
        ) {
            slots.note_damaged(name.clone());
        }
        let next = root.successor(&*self.parts.random)?;
        let (slot_change, warnings) = slots.remove(&name, &root, &next, &*self.parts.random)?;
        let change = self.slot_change(&slots, &slot_change);
        self.new_root(state, next, true, change, evidence(&Event::SlotRemoved { slot: name }))
            .await?;
        Ok(Done::Removed { warnings })
    }

    async fn rekey(
        &self,
        state: &State,
        spec: SlotSpec,
        root: Root,
        evidence: Evidence<'_>,
    ) -> Result<Done, VaultError> {
        let (slots, name) = (self.slots.load_full(), spec.name.clone());
        let next = root.successor(&*self.parts.random)?;
        let (before, tokens, random, now) = (
            slots.clone(),
            self.parts.tokens.clone(),
            self.parts.random.clone(),
            self.parts.clock.now(),
        );
        let made = self.blocking(move || {
            let made = slots.rekey(
                &spec,
                &root,
                &next,
                Tools {
                    tokens: &tokens,
                    random: &*random,
                    now,
                },
            );
            made.map(|(slot_change, made)| (slot_change, made, next))
        });
        let (slot_change, made, next) = made.await??;
        let change = self.slot_change(&before, &slot_change);
        self.new_root(
            state,
            next,
            true,
            change,
            evidence(&Event::SlotRekeyed { slot: name.clone() }),
        )
        .await?;
        Ok(Done::Slot {
            slot: name,
            shares: made.shares,
            warnings: made.warnings,
        })
    }

    /// Slots, keyring under the new root key (with a new data key where somebody lost access) and evidence, in one commit.
    pub(super) async fn new_root(
        &self,
        state: &State,
        next: Root,
        new_data_key: bool,
        mut change: Change,
        records: Vec<Encoded>,
    ) -> Result<(), VaultError> {
        let State::Open(opened) = state else {
            return Err(VaultError::NotPossible("the vault is sealed: unseal it first"));
        };
        let edits = [KeyringEdit::AddGeneration(self.parts.algorithm)];
        let edits = if new_data_key { &edits[..] } else { &[] };
        let (next, memory) = (Arc::new(next), opened.root.clone());
        let follows = next.clone();
        change.then(move || memory.store(follows));
        self.rekeyed(opened.store.change_keyring(&next.key, edits, change, records).await)
            .await
    }

    /// Settles a change of the keyring.
    pub(super) async fn rekeyed(&self, changed: Result<Committed, KeyringChangeError>) -> Result<(), VaultError> {
        match changed {
            Err(KeyringChangeError::Commit(error)) => Ok(self.settled(Err(error)).await?),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(()),
        }
    }
}

/// Whether trying again with the same factors may go better.
fn may_pass(error: &VaultError) -> bool {
    match error {
        VaultError::Seal(SealError::Hsm(failures)) => failures.iter().any(|(_, error)| away(error.kind)),
        VaultError::Seal(SealError::HsmStep { source, .. }) => away(source.kind),
        VaultError::Commit(error) | VaultError::Keyring(KeyringChangeError::Commit(error)) => {
            !matches!(error, CommitError::Indeterminate(_))
        }
        VaultError::Seal(_) | VaultError::NotPossible(_) | VaultError::Unlock(_) | VaultError::Keyring(_) => false,
        VaultError::Store(_) | VaultError::Memory(_) | VaultError::Rooms(_) | VaultError::Interrupted => true,
    }
}

fn away(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::AuthFailed | ErrorKind::AuthLocked | ErrorKind::AuthHeld | ErrorKind::PinNeeded => true,
        ErrorKind::SessionLost
        | ErrorKind::Device
        | ErrorKind::Timeout
        | ErrorKind::Crashed
        | ErrorKind::Unavailable => true,
        ErrorKind::Stopped | ErrorKind::Busy => true,
        ErrorKind::KeyMissing => true, // a token's storage may be unmounted for the moment
        ErrorKind::Integrity | ErrorKind::KeyExists | ErrorKind::KeyConflict | ErrorKind::Unsupported => false,
        ErrorKind::Invalid | ErrorKind::Protocol => false,
    }
}
