//! Making a slot, opening it, and changing it under an open root key.

use super::{
    crypt::{Wrapped, slot_key},
    error::SealError,
    hsm::{Tokens, open_seed, seal_seed},
    quorum::{self, ShareText},
    record::{Header, SlotRecord},
    spec::{Factors, Quorum, SlotSpec},
};
use crate::base::{id::ClusterId, locked::LockedKey, random::Random, time::Timestamp};
use subtle::ConstantTimeEq;

/// What making and opening slots needs.
#[derive(Clone, Copy)]
pub struct Tools<'a> {
    /// The configured HSMs.
    pub tokens: &'a Tokens,
    /// Chance.
    pub random: &'a dyn Random,
    /// Now.
    pub now: Timestamp,
}

/// The root key and its generation, from 1.
pub struct Root {
    /// The key.
    pub key: LockedKey,
    /// How many root keys the vault has had, this one included.
    pub generation: u32,
}

impl Root {
    /// A vault's first.
    /// # Errors
    /// [`SealError::Memory`].
    pub fn first(random: &dyn Random) -> Result<Self, SealError> {
        Ok(Self {
            key: LockedKey::random(random)?,
            generation: 1,
        })
    }
    /// The one after this.
    /// # Errors
    /// [`SealError::Memory`].
    pub fn successor(&self, random: &dyn Random) -> Result<Self, SealError> {
        Ok(Self {
            key: LockedKey::random(random)?,
            generation: self.generation.saturating_add(1),
        })
    }
}

/// A slot just made: its record to store, its shares to hand out once.
#[derive(Debug)]
pub struct NewSlot {
    /// To store.
    pub record: SlotRecord,
    /// In the order of their indices; none without a quorum.
    pub shares: Vec<ShareText>,
    /// What the operator should think about.
    pub warnings: Vec<String>,
}

/// Makes a slot that opens `root`. With `former` it takes that slot's place: same id, new shares, new seed.
/// # Errors
/// `Spec` and `NoSuchHsm` for what cannot be; an HSM's failure.
pub fn make(
    spec: &SlotSpec,
    former: Option<&Header>,
    cluster: ClusterId,
    root: &Root,
    tools: Tools<'_>,
) -> Result<NewSlot, SealError> {
    let chosen = tools.tokens.chosen(spec)?;
    let mut header = Header {
        cluster,
        id: former.map_or_else(|| random_bytes(tools.random), |former| former.id),
        set: random_bytes(tools.random),
        created: tools.now,
        factors: spec.factors,
        name: spec.name.clone(),
        commitments: Vec::new(),
    };
    if former.is_some_and(|former| former.set == header.set) {
        // One in 2^32: shares of the former set must be told apart from the new.
        header.set[0] ^= 1;
    }
    let mut shares = Vec::new();
    let operators = match spec.factors.quorum() {
        None => None,
        Some(k_of_n) => {
            let secret = LockedKey::random(tools.random)?;
            let made = quorum::split(&header, k_of_n, &secret, tools.random)?;
            header.commitments = made.iter().map(|share| quorum::commitment(&header, share)).collect();
            shares = made.iter().map(quorum::Share::text).collect();
            Some(secret)
        }
    };
    let (seeds, hsm) = match spec.factors.has_hsm() {
        false => (Vec::new(), None),
        true => {
            let seed = LockedKey::random(tools.random)?;
            (seal_seed(&chosen, &header, &seed)?, Some(seed))
        }
    };
    let key = slot_key(cluster.as_bytes(), hsm.as_ref(), operators.as_ref(), &header.encode())?;
    let warnings = warnings(spec.factors, seeds.len());
    let blank = Wrapped::from_bytes([0; Wrapped::BYTES]);
    let record = SlotRecord {
        header,
        generation: root.generation,
        root: blank.clone(),
        seeds,
        verified: None,
        key: blank,
    };
    let record = Slot { record, key }.rewrap(root, tools.random)?;
    Ok(NewSlot {
        record,
        shares,
        warnings,
    })
}

fn random_bytes<const N: usize>(random: &dyn Random) -> [u8; N] {
    let mut bytes = [0; N];
    random.fill(&mut bytes);
    bytes
}

fn warnings(factors: Factors, hsms: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    if factors.quorum().is_some_and(|quorum: Quorum| quorum.k() == 1) {
        warnings.push("k = 1: each share alone is the operators' whole half of this slot".to_owned());
    }
    if factors == Factors::Hsm {
        warnings.push(
            "this slot opens without an operator: whoever holds this machine and its HSM log-in holds the vault"
                .to_owned(),
        );
    }
    if hsms == 1 {
        warnings.push(
            "one HSM opens this slot: if it is lost so is the slot; add a second HSM or a quorum slot".to_owned(),
        );
    }
    warnings
}

impl SlotRecord {
    /// Opens the slot with its factors: `operators` is the combined quorum half, the HSM half is asked for here. The whole record is
    /// authenticated before the root key is given out.
    /// # Errors
    /// `Hsm` when no HSM answers; `DoesNotOpen` when the halves are not this slot's; `Damaged` when the record was changed.
    pub fn open(&self, operators: Option<&LockedKey>, tokens: &Tokens) -> Result<Root, SealError> {
        let hsm = if self.header.factors.has_hsm() {
            Some(open_seed(tokens, &self.header, &self.seeds)?)
        } else {
            None
        };
        self.open_with(hsm.as_ref(), operators)
    }

    /// Opens the slot with both halves in hand.
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(&self, hsm: Option<&LockedKey>, operators: Option<&LockedKey>) -> Result<Root, SealError> {
        let key = slot_key(self.header.cluster.as_bytes(), hsm, operators, &self.header.encode())?;
        let root = self.root.open(&key, &self.header.root_aad())?;
        let root = root.ok_or_else(|| SealError::DoesNotOpen(self.header.name.to_string()))?;
        let root = Root {
            key: root,
            generation: self.generation,
        };
        let slot = Slot::authenticate(self.clone(), &root)?;
        if bool::from(slot.key.expose().ct_eq(key.expose())) {
            Ok(root)
        } else {
            Err(SealError::Damaged(self.header.name.to_string()))
        }
    }
}

/// A slot whose record the root key has authenticated, with its slot key: what may be changed without its operators.
pub struct Slot {
    /// The record; after changing it, [`Slot::bind`].
    pub record: SlotRecord,
    key: LockedKey,
}

impl Slot {
    /// Checks every byte of the record against the root key.
    /// # Errors
    /// `Damaged` when it was changed, or belongs to another root key.
    pub fn authenticate(record: SlotRecord, root: &Root) -> Result<Self, SealError> {
        let key = if record.generation == root.generation {
            record.key.open(&root.key, &record.record_aad())?
        } else {
            None
        };
        match key {
            Some(key) => Ok(Self { record, key }),
            None => Err(SealError::Damaged(record.header.name.to_string())),
        }
    }

    /// Binds the changed record to the root key it opens.
    /// # Errors
    /// [`SealError::Memory`].
    pub fn bind(mut self, root: &Root, random: &dyn Random) -> Result<SlotRecord, SealError> {
        self.record.key = Wrapped::seal(&root.key, &self.record.record_aad(), &self.key, random)?;
        Ok(self.record)
    }

    /// Makes the slot open another root key; its operators need not be there.
    /// # Errors
    /// [`SealError::Memory`].
    pub fn rewrap(mut self, root: &Root, random: &dyn Random) -> Result<SlotRecord, SealError> {
        self.record.generation = root.generation;
        self.record.root = Wrapped::seal(&self.key, &self.record.header.root_aad(), &root.key, random)?;
        self.bind(root, random)
    }

    /// The slot key: for [`offline`](super::offline) only.
    pub(super) fn into_key(self) -> LockedKey {
        self.key
    }
}
