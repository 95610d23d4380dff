//! What lies in the store: one record a session with its tokens in it, one an identity. JSON, inside the barrier.
//!
//! A session's tokens share its record, so that whatever concerns them is one check-and-set: a renewal cannot outlive a revocation, and a
//! child cannot be made under a parent that is being revoked.

use crate::{
    base::{
        id::{Accessor, IdentityId, SessionId, TrustId},
        time::Timestamp,
    },
    policy::Bound,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use strongroom_policy::Purpose;
use zeroize::Zeroizing;

const FORMAT: u8 = 1;

/// A log-in and the tokens that came from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionRecord {
    format: u8,
    pub identity: IdentityId,
    #[serde(with = "purpose")]
    pub purpose: Purpose,
    pub created: Timestamp,
    /// Revoke the session's leases also when it merely expires.
    pub end_leases: bool,
    /// The session whose token made this one; ends with it when that is revoked.
    pub made_by: Option<SessionId>,
    pub tokens: BTreeMap<Accessor, TokenRecord>,
    /// Of a log-in: whom its tokens speak for is written here and nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_in: Option<LogInRecord>,
}

/// Whom a log-in's tokens speak for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogInRecord {
    pub trust: TrustId,
    pub name: String,
    pub groups: BTreeSet<String>,
    pub attributes: BTreeMap<String, String>,
    /// The token is sealed: the record was written for its leases' sake.
    pub sealed: bool,
    pub bound: Option<Bound>,
}

/// One token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenRecord {
    /// The keyed hash of the text, under the pepper of `epoch`.
    pub mac: Mac,
    pub epoch: u32,
    /// The token of the same session that made it.
    pub parent: Option<Accessor>,
    pub issued: Timestamp,
    pub expires: Timestamp,
    pub max_expires: Timestamp,
    /// What a renewal gives when it names nothing.
    pub ttl_secs: u64,
}

/// HMAC-SHA-256 of a token's text, hex in JSON.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Mac(pub [u8; 32]);

impl std::fmt::Debug for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mac(redacted)")
    }
}
impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        data_encoding::HEXLOWER.encode(&mac.0)
    }
}
impl TryFrom<String> for Mac {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, &'static str> {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| "not hex")?;
        bytes.try_into().map(Self).map_err(|_| "not 32 bytes")
    }
}

impl SessionRecord {
    pub fn new(
        identity: IdentityId,
        purpose: Purpose,
        created: Timestamp,
        end_leases: bool,
        made_by: Option<SessionId>,
    ) -> Self {
        Self {
            format: FORMAT,
            identity,
            purpose,
            created,
            end_leases,
            made_by,
            tokens: BTreeMap::new(),
            log_in: None,
        }
    }

    /// When its last token ends.
    pub fn expires(&self) -> Timestamp {
        self.tokens
            .values()
            .map(|token| token.expires)
            .max()
            .unwrap_or_default()
    }

    /// A token and all made from it.
    pub fn with_descendants(&self, top: Accessor) -> BTreeSet<Accessor> {
        let mut found = BTreeSet::from([top]);
        // A child is made after its parent, but ids are not in that order: go on until nothing is added (at most one round a token).
        loop {
            let more: Vec<_> = (self.tokens.iter())
                .filter(|(accessor, token)| {
                    !found.contains(*accessor) && token.parent.is_some_and(|parent| found.contains(&parent))
                })
                .map(|(accessor, _)| *accessor)
                .collect();
            if more.is_empty() {
                return found;
            }
            found.extend(more);
        }
    }

    /// Tokens that have expired go; their children are then their maker's, so that revoking that one still ends them. How many are left.
    pub fn prune(&mut self, now: Timestamp) -> usize {
        let gone: BTreeMap<_, _> = self
            .tokens
            .extract_if(.., |_, token| token.expires <= now)
            .map(|(accessor, token)| (accessor, token.parent))
            .collect();
        for token in self.tokens.values_mut() {
            while let Some(grandparent) = token.parent.and_then(|parent| gone.get(&parent)) {
                token.parent = *grandparent;
            }
        }
        self.tokens.len()
    }
}

/// Whom tokens speak for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IdentityRecord {
    format: u8,
    pub id: IdentityId,
    pub name: String,
    pub groups: BTreeSet<String>,
    pub attributes: BTreeMap<String, String>,
    pub created: Timestamp,
}

impl IdentityRecord {
    pub fn new(
        id: IdentityId,
        name: &str,
        groups: BTreeSet<String>,
        attributes: BTreeMap<String, String>,
        created: Timestamp,
    ) -> Self {
        Self {
            format: FORMAT,
            id,
            name: name.to_owned(),
            groups,
            attributes,
            created,
        }
    }

    pub fn with(&self, groups: BTreeSet<String>, attributes: BTreeMap<String, String>) -> Self {
        Self {
            groups,
            attributes,
            ..self.clone()
        }
    }
}

/// A record's bytes.
pub(super) fn encode<T: Serialize>(record: &T) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
    serde_json::to_vec(record).map(Zeroizing::new)
}

/// The session, if these are the bytes of one.
pub(super) fn session(bytes: &[u8]) -> Option<SessionRecord> {
    serde_json::from_slice::<SessionRecord>(bytes)
        .ok()
        .filter(|record| record.format == FORMAT)
}

/// The identity, if these are the bytes of one.
pub(super) fn identity(bytes: &[u8]) -> Option<IdentityRecord> {
    serde_json::from_slice::<IdentityRecord>(bytes)
        .ok()
        .filter(|record| record.format == FORMAT)
}

mod purpose {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use strongroom_policy::Purpose;

    pub fn serialize<S: Serializer>(purpose: &Purpose, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(purpose.as_str())
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Purpose, D::Error> {
        let word = String::deserialize(from)?;
        [Purpose::Session, Purpose::Setup, Purpose::Recover]
            .into_iter()
            .find(|purpose| purpose.as_str() == word)
            .ok_or_else(|| D::Error::custom("not a purpose"))
    }
}
