//! Key slots: the ways to open the root key. A slot is a conjunction of factors, an HSM (`hsm`), operators with Shamir shares
//! (`quorum`), or both; several slots open the same root key, each alone (R-SEAL-2).
//!
//! May touch: `base` and the hsm crate. Knows neither the store nor the vault: it turns records and factors into keys and new records,
//! and `vault` stores them. Blocking calls only (the HSMs').
//!
//! Reading order: `spec` (what is asked for), `crypt` (two primitives), `record` (what is stored), the factors `quorum/` and `hsm/`, `slot`
//! (make, open, change one), `slots` (all of a vault), `ceremony` (holders coming together), `answers` (new shares whose answer was lost), `offline` (the same without a daemon).

mod answers;
mod ceremony;
mod crypt;
mod error;
pub mod hsm;
pub mod offline;
pub mod quorum;
mod record;
mod slot;
mod slots;
mod spec;
#[cfg(test)]
mod tests;

pub use answers::{Answers, NewShares};
pub use ceremony::{Complete, Nonce, Presented, Progress, SessionInfo, Sessions, Step};
pub use error::{SealError, SessionError, ShareError};
pub use hsm::{Token, Tokens};
pub use quorum::ShareText;
pub use record::{Header, Seed, SlotRecord};
pub use slot::{NewSlot, Root, Slot, Tools};
pub use slots::{SlotChange, Slots};
pub use spec::{Factors, Operation, Quorum, SlotName, SlotSpec};
