//! Names: each path component by AES-SIV (RFC 5297) under the names key, deterministic, so that prefix scans work on stored keys.
//! Associated data = namespace, table and all components before it in plain: a name moved to another folder does not open.

use super::{
    error::StoreError,
    table::{self, COMPONENT_BYTES_MAX, HEAD_BYTES, KEY_BYTES_MAX, Namespace, OwnedPart, Part, Table},
};
use crate::base::locked::{LockError, Locked, scrubbed};
use aes::Aes256Enc;
use aes_siv::{KeyInit, Tag, siv::CmacSiv};
use bytes::Bytes;
use parking_lot::Mutex;
use quick_cache::{
    DefaultHashBuilder, Weighter,
    sync::{Cache, DefaultLifecycle},
};

const SIV_BYTES: usize = 16;
/// Stored keys of late, by their plain form: 2 MiB.
const CACHE_BYTES: u64 = 2 << 20;
const CACHE_ITEMS_ESTIMATE: usize = 8 << 10;

#[derive(Clone)]
struct ByBytes;

impl Weighter<Bytes, Bytes> for ByBytes {
    fn weight(&self, plain: &Bytes, stored: &Bytes) -> u64 {
        (plain.len() + stored.len() + 128) as u64
    }
}

/// The names key, expanded, and the keys it made of late. Plain names are in ordinary memory while the vault is open.
pub(super) struct NameCipher {
    siv: Locked<Mutex<CmacSiv<Aes256Enc>>>,
    cache: Cache<Bytes, Bytes, ByBytes>,
}

impl NameCipher {
    pub fn new(key: &[u8; 64]) -> Result<Self, LockError> {
        let siv = Locked::new(|| Mutex::new(CmacSiv::<Aes256Enc>::new(key.into())))?;
        let cache = Cache::with(
            CACHE_ITEMS_ESTIMATE,
            CACHE_BYTES,
            ByBytes,
            DefaultHashBuilder::default(),
            DefaultLifecycle::default(),
        );
        Ok(Self { siv, cache })
    }

    /// The stored key of `parts`.
    pub fn key(&self, namespace: Namespace, table: Table, parts: &[Part<'_>]) -> Result<Bytes, StoreError> {
        let (plain, ends) = plain_key(namespace, table, parts)?;
        if ends.iter().all(|(name, _)| !name) {
            return Ok(plain.into());
        }
        let plain = Bytes::from(plain);
        if let Some(stored) = self.cache.get(&plain) {
            return Ok(stored);
        }
        let stored = self
            .encrypt(&plain, &ends)
            .ok_or(StoreError::Key("its names cannot be encrypted"))?;
        self.cache.insert(plain, stored.clone());
        Ok(stored)
    }

    fn encrypt(&self, plain: &[u8], ends: &[End]) -> Option<Bytes> {
        let mut stored = plain.get(..HEAD_BYTES)?.to_vec();
        let mut start = HEAD_BYTES;
        for &(name, end) in ends {
            let component = plain.get(start + 2..end)?;
            if name {
                let mut text = component.to_vec();
                let parent = plain.get(..start)?;
                let tag = scrubbed(|| {
                    self.siv
                        .lock()
                        .encrypt_inout_detached([parent], text.as_mut_slice().into())
                })
                .ok()?;
                table::push_component(&mut stored, true, &[&tag[..], &text].concat());
            } else {
                table::push_component(&mut stored, false, component);
            }
            start = end;
        }
        Some(stored.into())
    }

    /// The parts of a stored key, from the component after `skip` on; `None` when a name does not open.
    pub fn parts(&self, stored: &[u8], skip: usize) -> Option<Vec<OwnedPart>> {
        let mut plain = stored.get(..HEAD_BYTES)?.to_vec();
        let mut rest = stored.get(HEAD_BYTES..)?;
        let mut parts = Vec::new();
        let mut index = 0;
        while !rest.is_empty() {
            let (name, component, after) = table::take_component(rest)?;
            let part = if name {
                let (tag, text) = component.split_at_checked(SIV_BYTES)?;
                let mut text = text.to_vec();
                let tag = Tag::try_from(tag).ok()?;
                scrubbed(|| {
                    self.siv
                        .lock()
                        .decrypt_inout_detached([&plain], text.as_mut_slice().into(), &tag)
                })
                .ok()?;
                table::push_component(&mut plain, true, &text);
                OwnedPart::Name(String::from_utf8(text).ok()?)
            } else {
                table::push_component(&mut plain, false, component);
                OwnedPart::Raw(component.to_vec())
            };
            if index >= skip {
                parts.push(part);
            }
            (rest, index) = (after, index + 1);
        }
        Some(parts)
    }

    /// A stored key in words: table and path, for those who may know the names.
    pub fn words(&self, stored: &[u8]) -> String {
        let known = table::parse_head(stored)
            .and_then(|(_, id)| Table::from_id(id))
            .zip(self.parts(stored, 0));
        let Some((table, parts)) = known else {
            return table::digest_words(stored);
        };
        let parts: Vec<String> = parts.iter().map(|part| format!("{part:?}")).collect();
        format!("{} {}", table.words(), parts.join("/"))
    }
}

/// Whether a component is a name, and where it ends.
type End = (bool, usize);

/// The key with its names in plain, and where each component ends.
fn plain_key(namespace: Namespace, table: Table, parts: &[Part<'_>]) -> Result<(Vec<u8>, Vec<End>), StoreError> {
    let mut plain = table::head(namespace, table.id()).to_vec();
    let mut ends = Vec::with_capacity(parts.len());
    for part in parts {
        let (name, bytes) = match part {
            Part::Name("") => return Err(StoreError::Key("a name is empty")),
            Part::Name(name) => (true, name.as_bytes()),
            Part::Raw(raw) => (false, *raw),
        };
        if bytes.len() > COMPONENT_BYTES_MAX - SIV_BYTES {
            return Err(StoreError::Key("a component is too long"));
        }
        table::push_component(&mut plain, name, bytes);
        ends.push((name, plain.len()));
    }
    if plain.len() + parts.len() * SIV_BYTES > KEY_BYTES_MAX {
        return Err(StoreError::Key("the key is too long"));
    }
    Ok((plain, ends))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cipher(key: u8) -> NameCipher {
        NameCipher::new(&[key; 64]).unwrap()
    }

    fn key(cipher: &NameCipher, table: Table, parts: &[Part<'_>]) -> Vec<u8> {
        cipher.key(Namespace::ROOT, table, parts).unwrap().to_vec()
    }

    /// R-STORE-2: names are stored encrypted, the same each time, so that a folder's key is a prefix of its children's.
    #[test]
    fn names_are_deterministic_and_keep_prefixes() {
        let (one, again) = (cipher(1), cipher(1));
        let path = [Part::Raw(&[9; 16]), Part::Name("prod"), Part::Name("db")];
        let stored = key(&one, Table::KvMeta, &path);
        assert_eq!(stored, key(&again, Table::KvMeta, &path), "also without the cache");
        assert_eq!(stored, key(&one, Table::KvMeta, &path), "also from the cache");
        assert!(stored.starts_with(&key(&one, Table::KvMeta, &path[..2])));
        assert!(
            !key(&one, Table::KvMeta, &[Part::Raw(&[9; 16]), Part::Name("production")]).starts_with(&key(
                &one,
                Table::KvMeta,
                &path[..2]
            ))
        );
        assert_ne!(stored, key(&cipher(2), Table::KvMeta, &path));
        assert_eq!(
            one.parts(&stored, 1).unwrap(),
            [OwnedPart::Name("prod".into()), OwnedPart::Name("db".into())]
        );
        assert_eq!(one.words(&stored), format!("kv metadata {}/prod/db", "09".repeat(16)));
    }

    /// R-STORE-2: a name belongs to its table, its mount and its folder: moved, it does not open.
    #[test]
    fn a_moved_name_does_not_open() {
        let cipher = cipher(1);
        let stored = key(
            &cipher,
            Table::KvMeta,
            &[Part::Raw(&[1]), Part::Name("a"), Part::Name("x")],
        );
        let mut table = stored.clone();
        table[4] = Table::KvValue.id();
        let mut mount = stored.clone();
        mount[HEAD_BYTES + 2] ^= 1;
        let (folder, below) = (
            key(&cipher, Table::KvMeta, &[Part::Raw(&[1]), Part::Name("b")]),
            stored.len() - (2 + SIV_BYTES + 1),
        );
        let folder = [&folder[..], &stored[below..]].concat();
        for moved in [table, mount, folder, stored[..stored.len() - 1].to_vec()] {
            assert_eq!(cipher.parts(&moved, 0), None);
            assert!(cipher.words(&moved).contains('#'), "a digest instead of a guess");
        }
    }

    #[test]
    fn keys_are_bounded() {
        let cipher = cipher(1);
        let longest = "n".repeat(512);
        for bad in [
            vec![Part::Name("")],
            vec![Part::Raw(&[0; 1009])],
            vec![Part::Name(&longest); 8],
        ] {
            assert!(matches!(
                cipher.key(Namespace::ROOT, Table::System, &bad),
                Err(StoreError::Key(_))
            ));
        }
        assert!(
            cipher
                .key(Namespace::ROOT, Table::System, &[Part::Name(&longest)])
                .is_ok()
        );
        assert!(
            cipher
                .key(Namespace::ROOT, Table::System, &[Part::Name("a"); 32])
                .is_ok()
        );
    }
}
