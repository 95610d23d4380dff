//! A view: one table of one namespace, as its room sees it: plain names, plain values.

use super::{
    Inner,
    batch::{Stored, Version},
    error::StoreError,
    record,
    table::{self, Namespace, OwnedPart, Part, Table},
};
use crate::base::limits::PAGE_ENTRIES_MAX;
use bytes::Bytes;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Stored bytes of one page, unless a single record is larger.
const PAGE_BYTES_MAX: usize = 4 << 20;
/// Rows looked at between two steps of [`View::scan_names`].
const NAME_ROWS: usize = 256;

/// A record's value and version.
pub struct Record {
    /// Decrypted; wiped on drop.
    pub value: Zeroizing<Vec<u8>>,
    /// For preconditions.
    pub version: Version,
}

/// Where a scan goes on. Opaque; stays good across changes and restarts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cursor(Bytes);

impl Cursor {
    /// For a page token. Shows stored (encrypted) names only.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_vec()
    }
    /// From a page token; anything is taken, a scan never leaves its prefix.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(
            bytes.get(..table::KEY_BYTES_MAX).unwrap_or(bytes),
        ))
    }
    fn after(key: &[u8]) -> Self {
        Self([key, &[0]].concat().into())
    }
}

/// A record of a scan.
pub struct Entry {
    /// The components below the scan's prefix.
    pub key: Vec<OwnedPart>,
    /// The record.
    pub record: Record,
}

/// A page of records.
#[derive(Default)]
pub struct Page {
    /// In stored order.
    pub entries: Vec<Entry>,
    /// Records that were skipped because they are damaged, in words. They are on the quarantine list.
    pub damaged: Vec<String>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Cursor>,
}

/// A child of a folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Child {
    /// Its name.
    pub name: String,
    /// There is a record here.
    pub is_record: bool,
    /// There are names below.
    pub is_folder: bool,
}

/// A page of children.
#[derive(Default)]
pub struct Children {
    /// In stored order, which is not alphabetical.
    pub children: Vec<Child>,
    /// Names that do not open, in words.
    pub damaged: Vec<String>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Cursor>,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct View {
    pub(super) inner: Arc<Inner>,
    pub(super) namespace: Namespace,
    pub(super) table: Table,
}

impl View {
    pub(super) fn stored_key(&self, key: &[Part<'_>]) -> Result<Bytes, StoreError> {
        self.inner.keyring()?.names().key(self.namespace, self.table, key)
    }

    /// A record.
    /// # Errors
    /// [`StoreError`]; `Damaged` when it does not open.
    pub async fn get(&self, key: &[Part<'_>]) -> Result<Option<Record>, StoreError> {
        let key = self.stored_key(key)?;
        let Some(stored) = self.inner.base.physical.get(&key).await? else {
            return Ok(None);
        };
        self.open(&key, &stored).map(Some)
    }

    fn open(&self, key: &[u8], stored: &Stored) -> Result<Record, StoreError> {
        let keyring = self.inner.keyring()?;
        match record::open(&keyring, &self.inner.base.ids, key, &stored.bytes) {
            Some(value) => Ok(Record {
                value,
                version: stored.version,
            }),
            None => Err(StoreError::Damaged {
                record: self.damaged(key),
            }),
        }
    }

    fn damaged(&self, key: &[u8]) -> String {
        let words = self
            .inner
            .keyring()
            .map_or_else(|_| table::digest_words(key), |keyring| keyring.names().words(key));
        self.inner.base.quarantine(key, &words);
        words
    }

    /// A cursor at a key or prefix, inclusive: for an ordered scan that starts in the middle (a due index from its low-water mark).
    /// # Errors
    /// A key that cannot be.
    pub fn cursor_at(&self, key: &[Part<'_>]) -> Result<Cursor, StoreError> {
        self.stored_key(key).map(Cursor)
    }

    /// Records whose keys begin with `prefix` (whole components; the record at `prefix` itself included), from `from` on, at most
    /// `limit` (1 to 1000) and 4 MiB of them.
    /// # Errors
    /// [`StoreError`]; a damaged record is skipped and told in the page instead.
    pub async fn scan(&self, prefix: &[Part<'_>], from: Option<&Cursor>, limit: usize) -> Result<Page, StoreError> {
        let (start, end) = self.range(prefix, from)?;
        let limit = limit.clamp(1, PAGE_ENTRIES_MAX);
        let rows = self.inner.base.physical.scan(start, end, limit, PAGE_BYTES_MAX).await?;
        let bytes: usize = rows.iter().map(|(_, stored)| stored.bytes.len()).sum();
        let mut page = Page::default();
        if rows.len() == limit || bytes >= PAGE_BYTES_MAX {
            page.next = rows.last().map(|(key, _)| Cursor::after(key));
        }
        let keyring = self.inner.keyring()?;
        for (key, stored) in rows {
            let entry = self
                .open(&key, &stored)
                .map(|record| (keyring.names().parts(&key, prefix.len()), record));
            match entry {
                Ok((Some(parts), record)) => page.entries.push(Entry { key: parts, record }),
                Ok((None, _)) => page.damaged.push(self.damaged(&key)),
                Err(StoreError::Damaged { record }) => page.damaged.push(record),
                Err(error) => return Err(error),
            }
        }
        Ok(page)
    }

    /// The names directly below `prefix`, from `from` on, at most `limit` (1 to 1000); deeper names are collapsed into their folder.
    /// Values are not decrypted.
    /// # Errors
    /// [`StoreError`].
    pub async fn scan_names(
        &self,
        prefix: &[Part<'_>],
        from: Option<&Cursor>,
        limit: usize,
    ) -> Result<Children, StoreError> {
        let (mut start, end) = self.range(prefix, from)?;
        let base = self.stored_key(prefix)?.len();
        let limit = limit.clamp(1, PAGE_ENTRIES_MAX);
        let mut page = Children::default();
        // The child under way: its stored key and what is known of it.
        let mut open: Option<(Vec<u8>, Child)> = None;
        loop {
            let rows = self
                .inner
                .base
                .physical
                .scan(start.clone(), end.clone(), NAME_ROWS, PAGE_BYTES_MAX)
                .await?;
            let Some((last, _)) = rows.last() else { break };
            let last = last.clone();
            for (key, _) in &rows {
                let Some((true, name, below)) = key.get(base..).and_then(table::take_component) else {
                    continue;
                };
                let child = key.get(..base + 2 + name.len()).unwrap_or(key);
                if open.as_ref().is_none_or(|(at, _)| at != child) {
                    page.children.extend(open.take().map(|(_, child)| child));
                    if page.children.len() == limit {
                        page.next = Some(Cursor(Bytes::copy_from_slice(child)));
                        return Ok(page);
                    }
                    open = self
                        .child(child, prefix.len(), &mut page.damaged)?
                        .map(|known| (child.to_vec(), known));
                }
                if let Some((_, known)) = &mut open {
                    let is_name = matches!(table::take_component(below), Some((true, _, _)));
                    known.is_folder |= is_name;
                    known.is_record |= !is_name;
                }
            }
            // A large folder is stepped over, not read through.
            start = match &open {
                Some((child, known)) if known.is_folder => table::successor(child).unwrap_or_else(|| end.clone()),
                _ => [&last[..], &[0]].concat(),
            };
        }
        page.children.extend(open.map(|(_, child)| child));
        Ok(page)
    }

    fn child(&self, stored: &[u8], skip: usize, damaged: &mut Vec<String>) -> Result<Option<Child>, StoreError> {
        let parts = self.inner.keyring()?.names().parts(stored, skip);
        match parts.as_deref() {
            Some([OwnedPart::Name(name)]) => Ok(Some(Child {
                name: name.clone(),
                is_record: false,
                is_folder: false,
            })),
            _ => {
                damaged.push(self.damaged(stored));
                Ok(None)
            }
        }
    }

    /// Stored keys from `from` (never before the prefix) to the end of the prefix.
    fn range(&self, prefix: &[Part<'_>], from: Option<&Cursor>) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
        let start = self.stored_key(prefix)?.to_vec();
        let end = table::successor(&start).ok_or(StoreError::Key("the prefix has no end"))?;
        match from {
            Some(Cursor(at)) if at[..] > start[..] => Ok((at.to_vec(), end)),
            _ => Ok((start, end)),
        }
    }
}
