//! A mount's record. JSON, inside the barrier.

use super::table::{Kind, MountInfo};
use crate::base::{id::MountId, path::Path, time::Timestamp};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

const FORMAT: u8 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MountRecord {
    format: u8,
    id: MountId,
    path: Path,
    kind: String,
    description: String,
    created: Timestamp,
}

impl MountRecord {
    pub fn of(info: &MountInfo) -> Self {
        let (id, path, kind) = (info.id(), info.path().clone(), info.kind().as_str().to_owned());
        Self {
            format: FORMAT,
            id,
            path,
            kind,
            description: info.description().to_owned(),
            created: info.created(),
        }
    }

    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
        serde_json::to_vec(self).map(Zeroizing::new)
    }

    /// The mount, not open yet, if these are the bytes of the record under `id`.
    pub fn decode(id: MountId, bytes: &[u8]) -> Option<MountInfo> {
        let record: Self = serde_json::from_slice(bytes).ok()?;
        let kind: Kind = record.kind.parse().ok()?;
        let same = record.format == FORMAT && record.id == id;
        same.then(|| MountInfo::new(id, record.path, kind, &record.description, record.created).opened(false))
    }
}
