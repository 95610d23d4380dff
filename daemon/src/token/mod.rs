//! API tokens: opaque, kept only as keyed hashes; sessions, which they come from; identities, which they speak for.
//!
//! May touch: `base`, `policy` (callers and permits), `store::View` and `store::Change`. Tokens of everyday use are made from tokens: the
//! first one comes from `init` or `operator recover`.
//! Reading order: `text` (the format), `pepper` (the hash), `record` (what is stored), `table` (what is in memory), `issue` (making),
//! `manage` (show, renew, revoke), `identities`, `sweep` (ending); `log_in` (tokens from a proof), `sealed` (those that carry all there is to know),
//! `marks` (what ends them).
//!
//! - A *child* speaks for its maker's identity in its maker's session, never longer than its maker may live, and ends with it.
//! - A token for a *named identity* begins another session, and takes a policy: `token_create` on `sys/token/NAME`. It lives on when its
//!   maker's session expires and ends when that is revoked.
//! - A session that is over by itself leaves a link where it stood between its maker and what it made.
//! - Revoking a session is one commit: at that instant its tokens and all that it made open nothing. What is left to do (records, leases)
//!   is marked in that commit and done by the sweep and the lease room, also after a crash.

mod error;
mod identities;
mod issue;
mod log_in;
mod manage;
mod marks;
mod pepper;
mod record;
mod sealed;
mod sweep;
mod table;
#[cfg(test)]
mod tests;
mod text;

pub use error::{TokenError, Unidentified};
pub use identities::{Edit, IdentityInfo};
pub use issue::{Ceremony, Created, NewToken};
pub use log_in::{Arrival, subject_id, trust_id};
pub use manage::{Renewed, Revoked, Target, TokenInfo, is_name};
pub use sealed::{SEALED_TOKEN_BYTES_MAX, SEALED_TTL_MAX_SECS};
pub use text::{TOKEN_BYTES, TokenText};

use crate::{
    base::{id::SessionId, random::Random, time::Clock},
    policy::Caller,
    store::{Change, Keyring, Namespace, Part, Store, Table as StoreTable, Version, View},
};
use arc_swap::ArcSwap;
use marks::Marks;
use parking_lot::RwLock;
use pepper::Peppers;
use quick_cache::sync::Cache;
use record::SessionRecord;
use sealed::Sealer;
use std::{fmt, sync::Arc};
use table::Table;

/// Tokens that the daemon keeps, all in memory: about 100 MiB.
pub const TOKENS_MAX: usize = 1 << 18;
/// Identities that the daemon keeps, all in memory.
pub const IDENTITIES_MAX: usize = 1 << 17;
/// Opened sealed tokens that are kept: a few KiB each.
const OPENED_MAX: usize = 1 << 13;
/// Live tokens of one session.
pub const SESSION_TOKENS_MAX: usize = 100;

/// The facade of the room.
pub struct TokenRoom {
    sessions: View,
    identities: View,
    /// Marks of ended sessions whose leases are still to be revoked.
    marks: View,
    peppers: ArcSwap<Peppers>,
    sealer: Sealer,
    /// Sealed tokens opened of late, by the digest of their text.
    opened: Cache<[u8; 32], Arc<Caller>>,
    log_ins: Arc<RwLock<Marks>>,
    table: Arc<RwLock<Table>>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl TokenRoom {
    /// Reads all tokens into memory.
    /// # Errors
    /// The store cannot be read; no locked memory. A damaged record only loses its own tokens.
    pub async fn load(store: &Store, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Result<Self, TokenError> {
        let room = Self {
            sessions: store.view(Namespace::ROOT, StoreTable::Session),
            identities: store.view(Namespace::ROOT, StoreTable::Identity),
            marks: store.view(Namespace::ROOT, StoreTable::System),
            peppers: ArcSwap::from_pointee(Peppers::of(&*store.keyring()?)?),
            sealer: Sealer::default(),
            opened: Cache::new(OPENED_MAX),
            log_ins: Arc::default(),
            table: Arc::default(),
            clock,
            random,
        };
        sweep::load(&room).await?;
        Ok(room)
    }

    /// The keyring has other peppers now. Tokens kept under one that is gone open nothing.
    /// # Errors
    /// No locked memory.
    pub fn repepper(&self, keyring: &Keyring) -> Result<(), TokenError> {
        self.peppers.store(Arc::new(Peppers::of(keyring)?));
        self.sealer.clear();
        self.opened.clear();
        Ok(())
    }

    /// Tokens in memory, expired ones that are not swept yet included.
    pub fn count(&self) -> usize {
        self.table.read().tokens()
    }

    /// Whose token `text` is. On every request: memory only. Length, alphabet and checksum come before the hash, the hash before the
    /// table; the comparison takes the same time whatever differs.
    /// # Errors
    /// Why it is nobody's. The caller of the API must not be told which.
    pub fn identify(&self, text: &str) -> Result<Arc<Caller>, Unidentified> {
        let caller = if sealed::is_sealed(text) {
            self.identify_sealed(text)?
        } else if text::well_formed(text.as_bytes()) {
            let peppers = self.peppers.load();
            peppers
                .candidates(text.as_bytes())
                .find_map(|(mac, epoch)| self.table.read().find(&mac, epoch))
                .ok_or(Unidentified::Unknown)?
        } else {
            return Err(Unidentified::Malformed);
        };
        if caller.expires() <= self.clock.now() {
            return Err(Unidentified::Expired);
        }
        // A log-in can be ended where no record of it is.
        if self.log_in_ended(&caller) {
            return Err(Unidentified::Unknown);
        }
        Ok(caller)
    }

    /// Makes `change` conditional: only while the session is live. For whatever must not outlast a revocation (a lease's intent and activation).
    pub fn require_live(&self, change: &mut Change, session: SessionId) {
        change.require_exists(&self.sessions, &[Part::Raw(session.as_bytes())]);
    }

    /// A session's record as it is stored.
    async fn read(&self, session: SessionId) -> Result<(SessionRecord, Version), TokenError> {
        let found = self
            .sessions
            .get(&[Part::Raw(session.as_bytes())])
            .await?
            .ok_or(TokenError::NotFound)?;
        let record = record::session(&found.value).ok_or(TokenError::Damaged("session"))?;
        Ok((record, found.version))
    }

    /// The record in the place of the one of `version`, and in memory once that is durable.
    fn replace(&self, session: SessionId, version: Version, record: SessionRecord) -> Result<Change, TokenError> {
        let key = [Part::Raw(session.as_bytes())];
        let table = self.table.clone();
        let mut change = Change::new();
        change
            .require_version(&self.sessions, &key, version)
            .put(&self.sessions, &key, record::encode(&record)?);
        change.then(move || table.write().put(session, record));
        Ok(change)
    }
}

impl fmt::Debug for TokenRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenRoom")
    }
}
