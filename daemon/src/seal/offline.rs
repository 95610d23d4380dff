//! Keys from shares and stored records, without a daemon: what disaster recovery needs, and what the memory scan looks for (R-SEAL-7).
//! May touch the same rooms as the rest of `seal`; nothing in the daemon calls it.

use super::{
    crypt::slot_key,
    error::{SealError, ShareError},
    hsm::{Tokens, open_seed},
    quorum::{self, Share},
    record::SlotRecord,
    slot::{Root, Slot},
};
use crate::base::locked::LockedKey;

/// Every key of one slot, down to the root key.
pub struct SlotKeys {
    /// The operators' half.
    pub operators: Option<LockedKey>,
    /// The HSM's half.
    pub hsm: Option<LockedKey>,
    /// The slot key.
    pub slot: LockedKey,
    /// The root key.
    pub root: Root,
}

/// Derives them from the stored record, the shares' texts, and the HSM if the slot has one.
/// # Errors
/// As presenting the shares one by one would; `Share(Missing)` when they are too few.
pub fn derive(record: &SlotRecord, shares: &[&str], tokens: &Tokens) -> Result<SlotKeys, SealError> {
    let operators = match record.header.factors.quorum() {
        None => None,
        Some(quorum) => {
            let mut admitted: Vec<Share> = Vec::new();
            for text in shares.iter().take(quorum.k().into()) {
                let share = Share::parse(text)?;
                quorum::admit(&record.header, &share)?;
                admitted.push(share);
            }
            if admitted.len() < quorum.k().into() {
                return Err(ShareError::Missing.into());
            }
            Some(quorum::combine(&admitted)??)
        }
    };
    let hsm = if record.header.factors.has_hsm() {
        Some(open_seed(tokens, &record.header, &record.seeds)?)
    } else {
        None
    };
    let slot = slot_key(
        record.header.cluster.as_bytes(),
        hsm.as_ref(),
        operators.as_ref(),
        &record.header.encode(),
    )?;
    let root = record.open_with(hsm.as_ref(), operators.as_ref())?;
    Ok(SlotKeys {
        operators,
        hsm,
        slot,
        root,
    })
}

/// The 32 secret bytes of a share.
/// # Errors
/// `Share(Mistyped)`.
pub fn share_value(text: &str) -> Result<LockedKey, SealError> {
    Ok(Share::parse(text)?.into_value())
}

/// The keys of the other slots, which the root key gives.
/// # Errors
/// `Damaged`.
pub fn slot_key_of(record: &SlotRecord, root: &Root) -> Result<LockedKey, SealError> {
    Slot::authenticate(record.clone(), root).map(Slot::into_key)
}
