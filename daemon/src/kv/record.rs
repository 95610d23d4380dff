//! The bytes of a secret's metadata record. All numbers big-endian:
//! `format 1 u8 | id 16 | newest u64 | versions_max u32 | cas_required u8`
//! `| labels u8 (length u8, name, version u64)* | custom u8 (length u8, key, length u16, value)*`
//! `| versions u16 (version u64, created u64, state u8, deleted u64)* | inline u16, fields (length 0: none)`.

use super::{
    CUSTOM_MAX, Fields, INLINE_BYTES_MAX, LABELS_MAX, VERSIONS_MAX,
    meta::{Entry, Meta, VersionState},
};
use crate::base::time::Timestamp;
use std::collections::BTreeMap;
use zeroize::Zeroizing;

const FORMAT: u8 = 1;
const ENTRY_BYTES: usize = 25;

impl Meta {
    /// The record's bytes. Made in one piece of the right size: nothing is left behind unwiped.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let labels: usize = self.labels.keys().map(|label| label.len() + 9).sum();
        let custom: usize = self.custom.iter().map(|(key, value)| key.len() + value.len() + 3).sum();
        let inline = self.inline.as_ref().map_or(&[][..], Fields::encoded);
        let mut out = Zeroizing::new(Vec::with_capacity(
            64 + labels + custom + self.versions.len() * ENTRY_BYTES + inline.len(),
        ));
        out.push(FORMAT);
        out.extend_from_slice(&self.id);
        out.extend_from_slice(&self.newest.to_be_bytes());
        out.extend_from_slice(&self.versions_max.to_be_bytes());
        out.push(u8::from(self.cas_required));
        out.push(short(self.labels.len()));
        for (label, version) in &self.labels {
            out.push(short(label.len()));
            out.extend_from_slice(label.as_bytes());
            out.extend_from_slice(&version.to_be_bytes());
        }
        out.push(short(self.custom.len()));
        for (key, value) in &self.custom {
            out.push(short(key.len()));
            out.extend_from_slice(key.as_bytes());
            out.extend_from_slice(&long(value.len()).to_be_bytes());
            out.extend_from_slice(value.as_bytes());
        }
        out.extend_from_slice(&long(self.versions.len()).to_be_bytes());
        for entry in &self.versions {
            let (state, deleted) = match entry.state {
                VersionState::Live => (0, 0),
                VersionState::Deleted(at) => (1, at.0),
                VersionState::Destroyed => (2, 0),
            };
            out.extend_from_slice(&entry.version.to_be_bytes());
            out.extend_from_slice(&entry.created.0.to_be_bytes());
            out.push(state);
            out.extend_from_slice(&deleted.to_be_bytes());
        }
        out.extend_from_slice(&long(inline.len()).to_be_bytes());
        out.extend_from_slice(inline);
        out
    }

    /// The metadata, if these are its bytes, exactly; every length is bounded before anything is made of it.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = From(bytes);
        if from.u8()? != FORMAT {
            return None;
        }
        let id = from.array()?;
        let newest = from.u64()?;
        let versions_max = from.u32().filter(|versions| (1..=VERSIONS_MAX).contains(versions))?;
        let cas_required = from.flag()?;
        let count = usize::from(from.u8()?);
        let mut labels = BTreeMap::new();
        for _ in 0..count {
            let length = from.u8()?.into();
            labels.insert(from.text(length)?, from.u64()?);
        }
        let mut custom = BTreeMap::new();
        let custom_count = usize::from(from.u8()?);
        for _ in 0..custom_count {
            let length = from.u8()?.into();
            let key = from.text(length)?;
            let length = from.u16()?.into();
            custom.insert(key, from.text(length)?);
        }
        if labels.len() != count || custom.len() != custom_count || count > LABELS_MAX + 2 || custom_count > CUSTOM_MAX
        {
            return None;
        }
        let versions = from.versions()?;
        let inline = match from.u16()?.into() {
            0 => None,
            length if length <= INLINE_BYTES_MAX => Some(Fields::decode(Zeroizing::new(from.take(length)?.to_vec()))?),
            _ => return None,
        };
        let meta = Self {
            id,
            newest,
            versions_max,
            cas_required,
            labels,
            custom,
            versions,
            inline,
        };
        let ascending = meta
            .versions
            .windows(2)
            .all(|pair| matches!(pair, [a, b] if a.version < b.version));
        let whole = from.0.is_empty() && ascending && meta.versions.last().is_none_or(|last| last.version == newest);
        whole.then_some(meta)
    }
}

/// Bounded by what `Meta` takes in; a larger number would not decode.
fn short(length: usize) -> u8 {
    u8::try_from(length).unwrap_or(u8::MAX)
}

fn long(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

/// What is still to be read.
struct From<'a>(&'a [u8]);

impl<'a> From<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }
    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }
    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
    fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
    fn text(&mut self, length: usize) -> Option<String> {
        std::str::from_utf8(self.take(length)?).ok().map(str::to_owned)
    }
    fn versions(&mut self) -> Option<Vec<Entry>> {
        let count = usize::from(self.u16()?);
        // No more room is taken than there are bytes.
        let mut versions = Vec::with_capacity(count.min(self.0.len() / ENTRY_BYTES));
        for _ in 0..count {
            let (version, created) = (self.u64()?, Timestamp(self.u64()?));
            let state = match (self.u8()?, self.u64()?) {
                (0, 0) => VersionState::Live,
                (1, at) => VersionState::Deleted(Timestamp(at)),
                (2, 0) => VersionState::Destroyed,
                _ => return None,
            };
            versions.push(Entry {
                version,
                created,
                state,
            });
        }
        Some(versions)
    }
}
