//! What the engine room keeps in the store: a mount's set-up, its roles, its static accounts. Secrets lie in these records
//! and nowhere else; the barrier encrypts them.

use super::{Definition, Kind};
use crate::{
    base::{format::Format1, id::MountId, path::Path, secret::SecretBytes, time::Timestamp},
    lease::Durable,
    store::{Change, Part, StoreError, Version, View},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

/// A secret inside a record: the one type here that writes itself out, and only into the barrier.
pub(super) struct Kept(pub SecretBytes);

impl Kept {
    pub fn copy(&self) -> SecretBytes {
        SecretBytes::from(self.0.expose())
    }
}

impl Serialize for Kept {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&Zeroizing::new(data_encoding::BASE64.encode(self.0.expose())))
    }
}

impl<'de> Deserialize<'de> for Kept {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(from)?);
        let bytes = data_encoding::BASE64
            .decode(text.as_bytes())
            .map_err(|_| serde::de::Error::custom("not base64"))?;
        Ok(Self(SecretBytes::new(bytes)))
    }
}

/// A mount's configuration and root credential, with what a rotation has under way.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Setup {
    pub format: Format1,
    pub kind: Kind,
    /// The mount's path when it was configured, for records of what the daemon does on its own.
    pub path: Path,
    /// The kind's own configuration, JSON.
    pub config: String,
    /// The root account, and its password.
    pub account: String,
    pub secret: Kept,
    /// The successor that is being made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<NextRoot>,
    /// The predecessor that is being retired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retiring: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated: Option<Timestamp>,
}

/// A root account that is being made.
#[derive(Serialize, Deserialize)]
pub(super) struct NextRoot {
    pub account: String,
    pub secret: Kept,
}

/// A role.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RoleRecord {
    pub format: Format1,
    pub definition: Definition,
    pub created: Timestamp,
}

/// An existing account whose password rotates.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StaticRecord {
    pub format: Format1,
    /// The role that names it, mount path and name.
    pub role: Path,
    /// Seconds between rotations; 0: on demand.
    pub period: u64,
    /// The password that works, as far as is known. Replaced only by one that was seen to work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Kept>,
    /// The one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Kept>,
    /// One that is being set: it may or may not work already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Kept>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated: Option<Timestamp>,
    /// When to rotate, or try again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
    #[serde(default)]
    pub attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// A record as it was read, with the version that a change of it must still find.
pub(super) struct Held<T> {
    pub value: T,
    pub version: Version,
}

impl<T> Held<T> {
    /// What was read from the store, or just written to it, is durable.
    pub fn durable(&self) -> Durable {
        Durable::of_record(self.version)
    }
}

pub(super) async fn load<T: DeserializeOwned>(
    view: &View,
    key: &[Part<'_>],
    words: &str,
) -> Result<Option<Held<T>>, StoreError> {
    let Some(record) = view.get(key).await? else {
        return Ok(None);
    };
    let value = serde_json::from_slice(&record.value).map_err(|_| StoreError::Damaged {
        record: words.to_owned(),
    })?;
    Ok(Some(Held {
        value,
        version: record.version,
    }))
}

/// Writes `value`; the record must still be as it was read.
pub(super) fn replace<T: Serialize>(
    change: &mut Change,
    view: &View,
    key: &[Part<'_>],
    version: Option<Version>,
    value: &T,
) {
    match version {
        Some(version) => change.require_version(view, key, version),
        None => change.require_absent(view, key),
    };
    change.put(view, key, Zeroizing::new(serde_json::to_vec(value).unwrap_or_default()));
}

/// Key of a mount's record.
pub(super) fn mount_key(mount: &MountId) -> [Part<'_>; 1] {
    [Part::Raw(mount.as_bytes())]
}

/// Key of something named inside a mount.
pub(super) fn named_key<'k>(mount: &'k MountId, name: &'k str) -> [Part<'k>; 2] {
    [Part::Raw(mount.as_bytes()), Part::Name(name)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goldens of the first formats; kept for ever.
    #[test]
    fn golden_records() {
        golden::<Setup>(
            r#"{"format":1,"kind":"postgres","path":"pg","config":"{}","account":"vault_b","secret":"c2VjcmV0","next":{"account":"vault_a","secret":"bmV4dA=="},"retiring":"vault","rotated":1795000000000}"#,
        );
        golden::<RoleRecord>(
            r#"{"format":1,"definition":{"type":"dynamic","default_ttl":3600,"max_ttl":86400,"group":"readers"},"created":1795000000000}"#,
        );
        golden::<RoleRecord>(
            r#"{"format":1,"definition":{"type":"static","account":"app","rotation_period":86400},"created":1795000000000}"#,
        );
        golden::<StaticRecord>(
            r#"{"format":1,"role":"pg/app","period":0,"current":"b25l","previous":"dHdv","pending":"dGhyZWU=","rotated":1795000000000,"due":1795000000001,"attempts":2,"last_error":"down"}"#,
        );
        assert!(
            serde_json::from_str::<Setup>(r#"{"format":2}"#)
                .err()
                .unwrap()
                .to_string()
                .contains("newer strongroomd")
        );
    }

    fn golden<T: Serialize + DeserializeOwned>(text: &str) {
        let value: T = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&value).unwrap(), text);
    }
}
