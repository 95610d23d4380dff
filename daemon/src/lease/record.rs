//! What a lease is on disk, and the index rows that go with it in every commit.

use super::{
    error::LeaseError,
    quota::{Reserved, Tallies},
};
use crate::{
    base::{
        format::Format1,
        id::{BootId, IdentityId, LeaseId, MountId, SessionId},
        path::Path,
        time::Timestamp,
    },
    notice::Topic,
    store::{Change, Namespace, Part, Store, StoreError, Table, Version, View},
};
use serde::{Deserialize, Serialize};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use zeroize::Zeroizing;

/// How to undo, frozen at the intent: whatever becomes of role and configuration later, this is what revocation does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The account's name, derived from the lease id.
    #[serde(rename = "a")]
    pub account: String,
    /// The engine's own part. Names the connection, never its credential.
    #[serde(rename = "b")]
    pub body: serde_json::Value,
}

/// Where a lease stands. Gone leases have no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// About to be made outside, or just made: nobody has it yet.
    #[serde(rename = "i")]
    Intent,
    /// Handed out.
    #[serde(rename = "a")]
    Active,
    /// Being ended, for as long as it takes.
    #[serde(rename = "r")]
    Revoking,
}

impl State {
    /// The word on the wire.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Intent => "intent",
            Self::Active => "active",
            Self::Revoking => "revoking",
        }
    }
}

/// A promise to revoke. Field names on disk are short: there may be a million of these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// Which format the record has.
    #[serde(rename = "f")]
    pub(super) format: Format1,
    /// Its id; in the key, not in the record.
    #[serde(skip, default = "nil")]
    pub id: LeaseId,
    /// The mount, which keeps its id when it moves.
    #[serde(rename = "m")]
    pub mount: MountId,
    /// Mount path and role name, as they were.
    #[serde(rename = "r")]
    pub role: Path,
    /// Version of the mount's configuration at the intent.
    #[serde(rename = "v")]
    pub config_version: u64,
    /// How to undo.
    #[serde(rename = "p")]
    pub plan: Plan,
    /// Whose it is.
    #[serde(rename = "i")]
    pub identity: IdentityId,
    /// The log-in it came from.
    #[serde(rename = "s")]
    pub session: SessionId,
    /// The run of the daemon that made it.
    #[serde(rename = "b")]
    pub boot: BootId,
    /// When its intent was written, in vault time like all that follow.
    #[serde(rename = "c")]
    pub created: Timestamp,
    /// When it ends unless renewed.
    #[serde(rename = "e")]
    pub expires: Timestamp,
    /// When it ends at the latest.
    #[serde(rename = "x")]
    pub max_expires: Timestamp,
    /// Its life at each renewal, in seconds.
    #[serde(rename = "t")]
    pub ttl_secs: u64,
    /// No statement of its creator runs later.
    #[serde(rename = "d")]
    pub deadline: Timestamp,
    /// When something is to be done about it: its key in the due index.
    #[serde(rename = "u")]
    pub due: Timestamp,
    /// Where it stands.
    #[serde(rename = "z")]
    pub state: State,
    /// It was active once: its account was there for sure.
    #[serde(rename = "w", default, skip_serializing_if = "std::ops::Not::not")]
    pub activated: bool,
    /// Attempts at revoking that failed.
    #[serde(rename = "n", default, skip_serializing_if = "is_zero")]
    pub attempts: u32,
    /// What the last one met.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

fn nil() -> LeaseId {
    LeaseId::from_bytes([0; 16])
}
#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Lease {
    /// The role's name inside its mount.
    pub fn role_name(&self) -> &str {
        self.role.segments().next_back().unwrap_or_default()
    }
}

/// A lease as it was read, with the version that a change of it must still find.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub lease: Lease,
    pub version: Version,
}

/// The tables of this room.
pub(super) struct Books {
    pub leases: View,
    pub due: View,
    pub by_role: View,
    pub by_identity: View,
    pub by_session: View,
    /// Those that are being revoked, and since when.
    pub revoking: View,
    pub system: View,
    /// See [`Mark`].
    pub mark: Arc<Mark>,
    /// How many leases whoever has.
    pub tallies: Arc<Tallies>,
}

/// Where the next sweep begins. Whoever writes an earlier due row lowers it once the row can be read: a row may be written
/// long after its due was chosen, when time has passed it by.
pub(super) struct Mark(AtomicU64);

impl Mark {
    /// A sweep of all up to `to` begins; returns where.
    pub fn raise(&self, to: Timestamp) -> Timestamp {
        Timestamp(self.0.swap(to.0, Ordering::SeqCst))
    }

    /// There is, or may be, a row at `due`.
    pub fn lower(&self, due: Timestamp) {
        self.0.fetch_min(due.0, Ordering::SeqCst);
    }
}

impl Books {
    pub fn of(store: &Store) -> Self {
        let view = |table| store.view(Namespace::ROOT, table);
        Self {
            leases: view(Table::Lease),
            due: view(Table::LeaseDue),
            by_role: view(Table::LeaseByRole),
            by_identity: view(Table::LeaseByIdentity),
            by_session: view(Table::LeaseBySession),
            revoking: view(Table::LeaseRevoking),
            system: view(Table::System),
            mark: Arc::new(Mark(AtomicU64::new(0))),
            tallies: Arc::default(),
        }
    }

    pub async fn get(&self, id: LeaseId) -> Result<Option<Held>, StoreError> {
        let Some(record) = self.leases.get(&[Part::Raw(id.as_bytes())]).await? else {
            return Ok(None);
        };
        let mut lease: Lease = serde_json::from_slice(&record.value).map_err(|_| StoreError::Damaged {
            record: format!("lease {id}"),
        })?;
        lease.id = id;
        Ok(Some(Held {
            lease,
            version: record.version,
        }))
    }

    pub async fn need(&self, id: LeaseId) -> Result<Held, LeaseError> {
        self.get(id).await?.ok_or(LeaseError::Unknown)
    }

    /// A new lease with all its index rows, and the room that was reserved for it. Its precondition is the change's first.
    pub fn insert(&self, change: &mut Change, lease: &Lease, room: Option<[Reserved; 2]>) {
        let id = Part::Raw(lease.id.as_bytes());
        change
            .require_absent(&self.leases, &[id])
            .put(&self.leases, &[id], encode(lease))
            .put(
                &self.by_role,
                &[Part::Raw(lease.mount.as_bytes()), Part::Name(lease.role_name()), id],
                empty(),
            )
            .put(&self.by_identity, &[Part::Raw(lease.identity.as_bytes()), id], empty())
            .put(&self.by_session, &[Part::Raw(lease.session.as_bytes()), id], empty());
        self.put_due(change, lease.due, lease.id, lease.state);
        if lease.state == State::Revoking {
            self.begun(change, lease.id, lease.created);
        }
        self.tallies.came(change, (lease.identity, lease.mount), room);
    }

    /// A change of a lease that must still be as it was read; its due row moves along. One precondition. What makes it `revoking` is [`Self::turn`].
    pub fn update(&self, change: &mut Change, held: &Held, lease: &Lease) {
        let id = Part::Raw(lease.id.as_bytes());
        change
            .require_version(&self.leases, &[id], held.version)
            .put(&self.leases, &[id], encode(lease));
        if held.lease.due != lease.due {
            self.forget_due(change, held.lease.due, lease.id);
        }
        self.put_due(change, lease.due, lease.id, lease.state);
        change.tell(Topic::Lease(lease.id));
    }

    /// The end of a lease that must still be as it was read. One precondition.
    pub fn remove(&self, change: &mut Change, held: &Held) {
        let lease = &held.lease;
        let id = Part::Raw(lease.id.as_bytes());
        change
            .require_version(&self.leases, &[id], held.version)
            .delete(&self.leases, &[id])
            .delete(
                &self.by_role,
                &[Part::Raw(lease.mount.as_bytes()), Part::Name(lease.role_name()), id],
            )
            .delete(&self.by_identity, &[Part::Raw(lease.identity.as_bytes()), id])
            .delete(&self.by_session, &[Part::Raw(lease.session.as_bytes()), id])
            .delete(&self.revoking, &[id]);
        self.forget_due(change, lease.due, lease.id);
        self.tallies.gone(change, lease.identity, lease.mount);
        change.tell(Topic::Lease(lease.id));
    }

    pub fn forget_due(&self, change: &mut Change, due: Timestamp, id: LeaseId) {
        change.delete(&self.due, &[Part::Raw(&due.0.to_be_bytes()), Part::Raw(id.as_bytes())]);
    }

    /// The row says whether the lease is being revoked, so that recovery need not read the others.
    pub fn put_due(&self, change: &mut Change, due: Timestamp, id: LeaseId, state: State) {
        let value = if state == State::Revoking {
            vec![REVOKING]
        } else {
            Vec::new()
        };
        change.put(
            &self.due,
            &[Part::Raw(&due.0.to_be_bytes()), Part::Raw(id.as_bytes())],
            Zeroizing::new(value),
        );
        let mark = Arc::clone(&self.mark);
        change.then(move || mark.lower(due));
    }
}

/// Value of a due row of a lease that is being revoked.
pub(super) const REVOKING: u8 = b'r';

fn encode(lease: &Lease) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(serde_json::to_vec(lease).unwrap_or_default())
}

fn empty() -> Zeroizing<Vec<u8>> {
    Zeroizing::new(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Golden of the record's first format; kept for ever.
    const GOLDEN: &str = r#"{"f":1,"m":"01010101010101010101010101010101","r":"pg/readers","v":7,"p":{"a":"sr_readers_02020202020202020202020202020202","b":{"owner":"readers","system":"7400000000000000000"}},"i":"03030303030303030303030303030303","s":"04040404040404040404040404040404","b":"05050505050505050505050505050505","c":1795000000000,"e":1795003600000,"x":1795086400000,"t":3600,"d":1795000027000,"u":1795003600000,"z":"a","w":true}"#;

    #[test]
    fn golden_lease() {
        let lease: Lease = serde_json::from_str(GOLDEN).unwrap();
        assert_eq!(
            (lease.state, lease.activated, lease.attempts, lease.role_name()),
            (State::Active, true, 0, "readers")
        );
        assert_eq!(lease.expires, lease.created.plus_secs(3600));
        assert_eq!(String::from_utf8(encode(&lease).to_vec()).unwrap(), GOLDEN);
    }
}
