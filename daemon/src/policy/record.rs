//! What lies in the store: a document a record, and one manifest that lists them all. JSON, inside the barrier.

use crate::base::time::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

const FORMAT: u8 = 1;

/// One policy document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    format: u8,
    pub version: u64,
    pub updated: Timestamp,
    pub text: String,
}

/// What the manifest says of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listed {
    pub version: u64,
    pub updated: Timestamp,
    /// SHA-256 of the text, in hex.
    sha256: String,
}

/// Every policy's name and version (design, "Who and what"): a listed document that is not there is noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    format: u8,
    /// Goes up by one with every change.
    pub serial: u64,
    pub policies: BTreeMap<String, Listed>,
}

impl Document {
    pub fn new(version: u64, updated: Timestamp, text: &str) -> Self {
        Self {
            format: FORMAT,
            version,
            updated,
            text: text.to_owned(),
        }
    }
}

impl Listed {
    pub fn of(document: &Document) -> Self {
        let sha256 = data_encoding::HEXLOWER.encode(&Sha256::digest(&document.text));
        Self {
            version: document.version,
            updated: document.updated,
            sha256,
        }
    }
    /// Whether this is the document that was listed.
    pub fn is_of(&self, document: &Document) -> bool {
        *self == Self::of(document)
    }
}

impl Manifest {
    pub fn new(serial: u64, policies: BTreeMap<String, Listed>) -> Self {
        Self {
            format: FORMAT,
            serial,
            policies,
        }
    }
    /// Where the manifest is lost: what the documents that were found amount to.
    pub fn of_found(found: &BTreeMap<String, Document>) -> Self {
        Self::new(
            0,
            found
                .iter()
                .map(|(name, document)| (name.clone(), Listed::of(document)))
                .collect(),
        )
    }
}

/// A record's bytes.
pub(super) fn encode<T: Serialize>(record: &T) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
    serde_json::to_vec(record).map(Zeroizing::new)
}

/// The record, if these are the bytes of one in a format that is known.
pub(super) fn decode<T: for<'de> Deserialize<'de> + Formatted>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice::<T>(bytes)
        .ok()
        .filter(|record| record.format() == FORMAT)
}

/// Says its format.
pub(super) trait Formatted {
    fn format(&self) -> u8;
}
impl Formatted for Document {
    fn format(&self) -> u8 {
        self.format
    }
}
impl Formatted for Manifest {
    fn format(&self) -> u8 {
        self.format
    }
}
