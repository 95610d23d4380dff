//! Log-in of an application that no platform vouches for: a role id, which is public, and a secret id, which is good once (R-AUTH-1).
//!
//! The secret id *is* the wrapped delivery: it opens nothing but one log-in. Whoever intercepts one either comes too late, or uses it up, and
//! then the application's own log-in fails. Nobody can tell which of the two was the thief: the session of the first is ended with all its
//! leases, and an alert stands in the audit log. Trusts: whoever hands out secret ids. Limits: 65,536 live secret ids; each lives at most a
//! day and may be tied to networks. Runbook: docs/guides/app-role.md.

use super::{
    AuthError, AuthRoom, Refused,
    network::{NETWORKS_MAX, Network},
    trust::{Method, Trust, path_of},
};
use crate::{
    base::{
        id::{SessionId, TrustId},
        limits::TOKEN_TTL_MAX_SECS,
        time::Timestamp,
    },
    policy::{Action, Permit},
    store::{Change, Cursor, Part, Version, View},
    token::{TokenText, trust_id},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};
use zeroize::Zeroizing;

const FORMAT: u8 = 1;
/// Secret ids at a time.
const SECRETS_MAX: usize = 1 << 16;
/// A secret id's life when none is asked for.
const TTL_DEFAULT_SECS: u64 = 600;
/// Removed in one round.
const SWEEP: usize = 256;
const LOAD_ENTRIES: usize = 1000;

/// `role` of a trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// What whoever logs in gets.
    pub groups: BTreeSet<String>,
    /// Where from; empty: anywhere. The Unix socket counts as 127.0.0.1.
    #[serde(default)]
    pub networks: Vec<Network>,
}

impl Role {
    /// Itself, when it may be believed.
    /// # Errors
    /// In words.
    pub fn checked(&self) -> Result<Self, Vec<String>> {
        if self.networks.len() > NETWORKS_MAX {
            return Err(vec!["networks: at most 16".to_owned()]);
        }
        Ok(self.clone())
    }
}

/// A secret id as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    format: u8,
    trust: TrustId,
    networks: Vec<Network>,
    created: Timestamp,
    expires: Timestamp,
    /// The session it began. Kept until the secret id expires, so that a copy is noticed.
    used: Option<SessionId>,
}

/// When secret ids expire, by their keyed hash.
#[derive(Default)]
pub(super) struct Secrets {
    due: BTreeSet<(Timestamp, [u8; 32])>,
    expires: HashMap<[u8; 32], Timestamp>,
}

impl Secrets {
    fn add(&mut self, mac: [u8; 32], expires: Timestamp) {
        self.due.insert((expires, mac));
        self.expires.insert(mac, expires);
    }
    fn remove(&mut self, mac: &[u8; 32]) {
        if let Some(expires) = self.expires.remove(mac) {
            self.due.remove(&(expires, *mac));
        }
    }
}

/// A secret id that was made.
#[derive(Debug)]
pub struct MadeSecret {
    /// Shown once.
    pub text: TokenText,
    /// Of its role.
    pub role_id: TrustId,
    /// When it is good no more.
    pub expires: Timestamp,
}

/// A secret id that is about to be used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecretUse {
    mac: [u8; 32],
}

/// What a presented secret id led to.
pub(super) enum Found {
    /// It is good.
    Good(Arc<Trust>, SecretUse),
    /// It began this session already.
    Copied(SessionId),
}

pub(super) async fn load(secrets: &View) -> Result<Secrets, AuthError> {
    let (mut known, mut after) = (Secrets::default(), None::<Cursor>);
    loop {
        let page = secrets.scan(&[], after.as_ref(), LOAD_ENTRIES).await?;
        for entry in page.entries {
            let mac = entry.key.first().and_then(crate::store::OwnedPart::raw_array);
            match (mac, decode(&entry.record.value)) {
                (Some(mac), Some(record)) => known.add(mac, record.expires),
                _ => tracing::error!("the record of a secret id cannot be used"),
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(known),
        }
    }
}

fn decode(bytes: &[u8]) -> Option<Record> {
    serde_json::from_slice::<Record>(bytes)
        .ok()
        .filter(|record| record.format == FORMAT)
}

impl AuthRoom {
    /// Makes a secret id of the role `name`. `ttl_secs` 0: ten minutes; at most a day.
    /// # Errors
    /// `NotARole`, `SecretTtl`, `Network`, `SecretsFull`.
    pub fn make_secret(
        &self,
        permit: &Permit,
        name: &str,
        ttl_secs: u64,
        networks: &[String],
    ) -> Result<(Change, MadeSecret), AuthError> {
        permit.covers(Action::TrustWrite, &path_of(name)?)?;
        let trust = self.trust(name).ok_or(AuthError::NotFound)?;
        if !matches!(trust.method, Method::Role(_)) {
            return Err(AuthError::NotARole);
        }
        let ttl_secs = if ttl_secs == 0 { TTL_DEFAULT_SECS } else { ttl_secs };
        if ttl_secs > TOKEN_TTL_MAX_SECS {
            return Err(AuthError::SecretTtl);
        }
        let networks: Vec<Network> = networks
            .iter()
            .map(|network| network.parse().map_err(|_| AuthError::Network))
            .collect::<Result<_, _>>()?;
        if networks.len() > NETWORKS_MAX {
            return Err(AuthError::Network);
        }
        if self.secrets_known.lock().expires.len() >= SECRETS_MAX {
            return Err(AuthError::SecretsFull(SECRETS_MAX));
        }
        let now = self.clock.now();
        let (text, mac) = self.tokens.make_secret_id();
        let (role_id, expires) = (trust_id(name), now.plus_secs(ttl_secs));
        let record = Record {
            format: FORMAT,
            trust: role_id,
            networks,
            created: now,
            expires,
            used: None,
        };
        let mut change = Change::new();
        let key = [Part::Raw(&mac)];
        change.require_absent(&self.secrets, &key).put(
            &self.secrets,
            &key,
            Zeroizing::new(serde_json::to_vec(&record)?),
        );
        let known = Arc::clone(&self.secrets_known);
        change.then(move || known.lock().add(mac, expires));
        let made = MadeSecret { text, role_id, expires };
        Ok((change, made))
    }

    /// The secret id presented with `role_id` from `ip` (`None`: the Unix socket). Nothing is used up yet.
    pub(super) async fn find_secret(
        &self,
        role_id: TrustId,
        secret: &[u8],
        ip: Option<IpAddr>,
    ) -> Result<Found, Refused> {
        let trust = self.by_id(role_id).ok_or(Refused::Secret)?;
        let Method::Role(role) = &trust.method else {
            return Err(Refused::Secret);
        };
        let mut found = None;
        for mac in self.tokens.secret_id_macs(secret) {
            if let Some((record, _)) = self.read_secret(&mac).await? {
                found = Some((mac, record));
                break;
            }
        }
        let (mac, record) = found
            .filter(|(_, record)| record.trust == role_id && record.expires > self.clock.now())
            .ok_or(Refused::Secret)?;
        if let Some(session) = record.used {
            return Ok(Found::Copied(session));
        }
        let ip = ip.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
        let within = |networks: &[Network]| networks.is_empty() || networks.iter().any(|network| network.contains(ip));
        if !within(&role.networks) || !within(&record.networks) {
            return Err(Refused::Network);
        }
        Ok(Found::Good(trust, SecretUse { mac }))
    }

    /// Uses the secret id up, for `session`: in the log-in's own commit, or not at all.
    /// # Errors
    /// [`Refused::Secret`] when somebody was faster.
    pub async fn use_up(&self, used: SecretUse, session: SessionId) -> Result<Change, Refused> {
        let (record, version) = self.read_secret(&used.mac).await?.ok_or(Refused::Secret)?;
        if record.used.is_some() {
            return Err(Refused::SecretReused);
        }
        let record = Record {
            used: Some(session),
            ..record
        };
        let (mut change, key) = (Change::new(), [Part::Raw(&used.mac)]);
        let bytes = serde_json::to_vec(&record).map_err(|_| Refused::Secret)?;
        change
            .require_version(&self.secrets, &key, version)
            .put(&self.secrets, &key, Zeroizing::new(bytes));
        Ok(change)
    }

    async fn read_secret(&self, mac: &[u8; 32]) -> Result<Option<(Record, Version)>, Refused> {
        let found = self.secrets.get(&[Part::Raw(mac)]).await.map_err(|error| {
            tracing::warn!(%error, "a secret id cannot be read");
            Refused::Secret
        })?;
        Ok(found.and_then(|found| decode(&found.value).map(|record| (record, found.version))))
    }

    fn by_id(&self, id: TrustId) -> Option<Arc<Trust>> {
        let trusts = self.trusts.load();
        trusts.values().find(|trust| trust_id(&trust.name) == id).cloned()
    }

    /// Removes secret ids that have expired, a bounded number; `None`: none.
    pub fn sweep(&self) -> Option<Change> {
        let now = self.clock.now();
        let known = self.secrets_known.lock();
        let over: Vec<_> = known
            .due
            .iter()
            .take_while(|(expires, _)| *expires <= now)
            .take(SWEEP)
            .map(|(_, mac)| *mac)
            .collect();
        drop(known);
        let mut change = Change::new();
        for mac in &over {
            change.delete(&self.secrets, &[Part::Raw(mac)]);
        }
        let known = Arc::clone(&self.secrets_known);
        change.then(move || over.iter().for_each(|mac| known.lock().remove(mac)));
        (!change.is_empty()).then_some(change)
    }
}

/// Shared with the commit thread.
pub(super) type Known = Arc<Mutex<Secrets>>;
