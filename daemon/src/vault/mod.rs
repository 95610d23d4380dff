//! The vault's state: blank, sealed or open, and the only ways from one to the other (R-SEAL-3, R-SEAL-4, R-SEAL-5).
//! May touch: `base`, `store`, `seal`. It knows the rooms behind the door only as `R`: `assemble` names them.
//!
//! Reading order: `door` (what every request passes), this file (the parts and the state), `lifecycle` (init, unseal, seal), `present`
//! (operators bring factors), `rotate` (root key, data keys, HSM KEKs), `offline` (all keys without a daemon).
//!
//! Operators' acts exclude each other; requests do not wait for them, and sealing does not wait for an HSM before it closes the door.

mod door;
mod error;
mod lifecycle;
pub mod offline;
mod present;
mod rotate;
#[cfg(test)]
mod scan;
#[cfg(test)]
mod tests;

pub use door::{Closed, Guard};
pub use error::VaultError;
pub use lifecycle::{Initialised, Sealing};
pub use present::{Answer, Done, Event, PresentInput};
pub use rotate::{Reencrypted, Tended};

use crate::{
    base::{id::ClusterId, random::Random, time::Clock},
    seal::{Answers, Nonce, Root, SessionInfo, Sessions, SlotChange, SlotName, Slots, Tokens},
    store::{Algorithm, Change, CommitError, Disk, RawTable, Store, StoreError},
};
use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use door::Door;
use futures::future::BoxFuture;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use strongroom_audit::Encoded;
use tokio::sync::Mutex;

/// What opens with the vault.
#[async_trait]
pub trait Rooms: Send + Sync + 'static {
    /// Ends background work (sweeps, revocations, timers): the vault is being sealed. Called once, before requests in flight are waited for.
    async fn close(&self);
}

/// Any failure of the rooms to open, with its causes.
pub type RoomsError = Box<dyn std::error::Error + Send + Sync>;

/// Makes the rooms of an open store. Called at each unseal, and once in `init` for the first records.
pub type Build<R> = Box<dyn Fn(Arc<Store>) -> BoxFuture<'static, Result<Arc<R>, RoomsError>> + Send + Sync>;

/// What a vault is made of.
pub struct Parts<R> {
    /// Where it lies.
    pub disk: Disk,
    /// The configured HSMs, in order.
    pub tokens: Tokens,
    /// The data keys' algorithm from now on.
    pub algorithm: Algorithm,
    /// How long sealing waits for requests in flight: [`crate::base::limits::SEAL_DRAIN_SECS`], shorter in tests.
    pub drain: Duration,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub random: Arc<dyn Random>,
    /// Makes the rooms.
    pub build: Build<R>,
}

/// The vault. See the module.
pub struct Vault<R: Rooms> {
    parts: Parts<R>,
    door: Door<R>,
    sessions: Sessions,
    /// New shares whose answer may have been lost.
    answers: Answers,
    /// As stored; follows every commit by its hook.
    slots: Arc<ArcSwap<Slots>>,
    state: Mutex<State>,
    /// Why it did not open by itself.
    shut: ArcSwapOption<VaultError>,
}

enum State {
    Blank,
    Sealed,
    Open(Opened),
}

/// What an open vault has besides its rooms.
struct Opened {
    store: Arc<Store>,
    /// Needed to wrap slots of operators who are not there. Follows every commit by its hook.
    root: Arc<ArcSwap<Root>>,
    /// KEKs that a rotation left behind were looked for since the unseal.
    tended: bool,
}

/// One word for the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VaultState {
    /// Never initialised.
    Blank,
    /// Initialised; no key in memory.
    Sealed,
    /// Serving.
    Open,
}

/// A slot as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotInfo {
    /// Its name.
    pub name: SlotName,
    /// `hsm`, `quorum:k/n`, `hsm+quorum:k/n`; empty when the record is damaged.
    pub factors: String,
    /// HSMs that hold its seed, in the order in which they are asked.
    pub hsms: Vec<String>,
    /// Hex of the share set; empty without a quorum.
    pub share_set: String,
    /// When its factors were made.
    pub created: Option<crate::base::time::Timestamp>,
    /// When they were last proved.
    pub verified: Option<crate::base::time::Timestamp>,
    /// The record does not read: remove the slot.
    pub damaged: bool,
}

impl<R: Rooms> Vault<R> {
    /// Looks at the disk: blank or sealed.
    /// # Errors
    /// [`StoreError`].
    pub async fn new(parts: Parts<R>) -> Result<Self, StoreError> {
        let initialised = parts.disk.is_initialised().await?;
        let slots = Arc::new(ArcSwap::from_pointee(load_slots(&parts.disk).await?));
        let sessions = Sessions::new(parts.clock.clone(), parts.random.clone());
        let answers = Answers::new(parts.clock.clone());
        let state = Mutex::new(if initialised { State::Sealed } else { State::Blank });
        Ok(Self {
            parts,
            door: Door::new(initialised),
            sessions,
            answers,
            slots,
            state,
            shut: ArcSwapOption::empty(),
        })
    }

    /// Lets a request in: the guard keeps the rooms alive and is waited for when the vault is sealed. Costs tens of nanoseconds.
    /// # Errors
    /// [`Closed`] says why not.
    pub fn enter(&self) -> Result<Guard<R>, Closed> {
        self.door.enter()
    }

    /// Blank, sealed or open.
    pub fn state(&self) -> VaultState {
        match self.door.enter() {
            Ok(_) => VaultState::Open,
            Err(Closed::Sealed) => VaultState::Sealed,
            Err(Closed::Blank) => VaultState::Blank,
        }
    }

    /// The vault's id; the store has one before `init`.
    pub fn cluster(&self) -> ClusterId {
        self.parts.disk.ids().cluster
    }

    /// The disk, for status and for evidence while sealed.
    pub const fn disk(&self) -> &Disk {
        &self.parts.disk
    }

    /// Sessions of [`Self::present`], without their nonces.
    pub fn sessions(&self) -> Vec<SessionInfo> {
        self.sessions.list()
    }

    /// Gives a session up; whoever has its nonce may.
    /// # Errors
    /// [`VaultError::Seal`] when there is none, or its operation runs.
    pub fn abandon(&self, session: &Nonce) -> Result<(), VaultError> {
        Ok(self.sessions.abandon(session).map_err(crate::seal::SealError::from)?)
    }

    /// All slots, damaged ones too.
    pub fn slots(&self) -> Vec<SlotInfo> {
        let slots = self.slots.load();
        let whole = slots.iter().map(|record| SlotInfo {
            name: record.header.name.clone(),
            factors: record.header.factors.to_string(),
            hsms: record
                .seeds
                .iter()
                .filter(|seed| seed.retire.is_none())
                .map(|seed| seed.hsm.clone())
                .collect(),
            share_set: record
                .header
                .factors
                .quorum()
                .map(|_| data_encoding::HEXLOWER.encode(&record.header.set))
                .unwrap_or_default(),
            created: Some(record.header.created),
            verified: record.verified,
            damaged: false,
        });
        let damaged = slots.damaged().map(|name| SlotInfo {
            name: name.clone(),
            factors: String::new(),
            hsms: Vec::new(),
            share_set: String::new(),
            created: None,
            verified: None,
            damaged: true,
        });
        whole.chain(damaged).collect()
    }

    /// What an operator should know about the slots, in words.
    pub fn warnings(&self) -> Vec<String> {
        let slots = self.slots.load();
        if self.state() == VaultState::Blank {
            return Vec::new();
        }
        let damaged = slots
            .damaged()
            .map(|name| format!("the record of slot `{name}` is damaged: remove the slot"));
        damaged.chain(slots.only_hsm_warning()).collect()
    }

    /// What carries the evidence of an act that must get through on a full disk.
    fn urgent() -> Change {
        let mut change = Change::new();
        change.urgent();
        change
    }

    /// A change that stores `slots`, and whose hook lets the memory follow.
    fn slot_change(&self, slots: &Slots, slot_change: &SlotChange) -> Change {
        let mut change = Self::urgent();
        for (name, record) in &slot_change.puts {
            change.put_raw(RawTable::Slots, name.as_str().as_bytes(), record.clone());
        }
        for name in &slot_change.deletes {
            change.delete_raw(RawTable::Slots, name.as_str().as_bytes());
        }
        let (mut next, memory) = (slots.clone(), self.slots.clone());
        next.apply(slot_change);
        change.then(move || memory.store(Arc::new(next)));
        change
    }

    /// Commits outside the barrier.
    async fn commit_raw(&self, change: Change, records: Vec<Encoded>) -> Result<(), CommitError> {
        let raw = self.parts.disk.raw();
        self.settled(raw.commit(change, records).await.map(drop)).await
    }

    /// A commit whose fate is unknown is asked about until the store knows: shares must not be lost with an answer that was only late.
    async fn settled(&self, committed: Result<(), CommitError>) -> Result<(), CommitError> {
        let Err(CommitError::Indeterminate(op)) = committed else {
            return committed;
        };
        for _ in 0..SETTLE_TRIES {
            match self.parts.disk.raw().outcome(op).await {
                Ok(Some(_)) => return Ok(()),
                Ok(None) => return Err(CommitError::Poisoned),
                Err(_) => tokio::time::sleep(SETTLE_PAUSE).await,
            }
        }
        committed
    }

    /// Runs work that may wait for an HSM, off the runtime's threads.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, VaultError> {
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| VaultError::Interrupted)
    }
}

async fn load_slots(disk: &Disk) -> Result<Slots, StoreError> {
    let raw = disk.raw();
    let (rows, _) = raw.list(RawTable::Slots).await?;
    let named = rows.into_iter().filter_map(|(id, record)| {
        let name: SlotName = std::str::from_utf8(&id).ok()?.parse().ok()?;
        Some((name, record.value.to_vec()))
    });
    Ok(Slots::load(disk.ids().cluster, named.collect::<BTreeMap<_, _>>()))
}

/// How long an indeterminate commit is asked about: 5 s.
const SETTLE_TRIES: u32 = 100;
const SETTLE_PAUSE: Duration = Duration::from_millis(50);

/// Evidence of an act, made when it is known to succeed and committed with it.
pub type Evidence<'a> = Box<dyn FnOnce(&Event) -> Vec<Encoded> + Send + 'a>;
