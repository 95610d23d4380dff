//! Versioned static secrets (R-KV-1, R-KV-2).
//!
//! May touch: `base`, `notice` (topics), `mount` (places), `policy::Permit`, `store::View` and `store::Change`.
//! Reading order: `fields` (a version's value), `meta` (what a secret is and how it changes: no I/O), `record` (its bytes), `room` (reads
//! and changes against the store), `list`.
//!
//! A secret is one metadata record, under its path, and a value record for each version, under the secret's own random id. The current
//! version's value lies in the metadata record itself while it is small, so that reading it takes one look-up; it moves to a record of its
//! own when the next version comes. Version numbers begin at 1 and are not used again while the secret exists.

mod error;
mod fields;
mod list;
mod meta;
mod record;
mod room;
#[cfg(test)]
mod tests;

pub use error::KvError;
pub use fields::{Fields, FieldsError};
pub use list::{ListEntry, ListQuery, Listing};
pub use meta::{CURRENT, PENDING, PREVIOUS, Settings, VersionState};
pub use room::{Destroy, History, KvRoom, Secret, Select, VersionInfo, Written};

/// Versions a secret keeps when nobody says.
pub const VERSIONS_DEFAULT: u32 = 10;
/// Versions a secret can keep; those with a label of the operator's come on top.
pub const VERSIONS_MAX: u32 = 1000;
/// Labels of one secret, `current`, `previous` and `pending` not counted.
pub const LABELS_MAX: usize = 16;
/// A label's name: `[a-z0-9][a-z0-9-]{0,31}`.
pub const LABEL_BYTES_MAX: usize = 32;
/// Entries of custom metadata.
pub const CUSTOM_MAX: usize = 64;
/// A key of custom metadata, in bytes.
pub const CUSTOM_KEY_BYTES_MAX: usize = 128;
/// A value of custom metadata, in bytes.
pub const CUSTOM_VALUE_BYTES_MAX: usize = 512;
/// A value up to this size, as encoded, lies in the metadata record while it is current.
pub const INLINE_BYTES_MAX: usize = 4096;
/// Names that one page of a listing looks at, seen or not.
pub const LIST_SCAN_MAX: usize = 1000;
