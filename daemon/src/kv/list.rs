//! Listings that show only what the caller may see (R-KV-2).
//!
//! The rule: to list a folder at all takes `list` on it. In the page, a folder is shown to whoever may `list` it, a secret to whoever may
//! `list` it, see its `metadata`, or `read` it. A recursive listing shows secrets alone, by that same rule for each.
//!
//! A page looks at [`LIST_SCAN_MAX`](super::LIST_SCAN_MAX) names at most, seen or not, so that a listing of what one may not see costs no
//! more than another: it may come back short or empty and still have a next page. Names come in stored order, sorted within the page; a
//! name that is there all the time comes exactly once, whatever is written meanwhile.

use super::{KvError, KvRoom, LIST_SCAN_MAX, room::key};
use crate::{
    base::{
        limits::{PAGE_ENTRIES_DEFAULT, PAGE_ENTRIES_MAX},
        path::Path,
    },
    mount::{Kind, Place},
    policy::{Action, Mismatch, Permit},
    store::{Child, Cursor, Part},
};

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Everything below, not only the next level.
    pub recursive: bool,
    /// Entries of a page: 1 to 1000; 0: 100.
    pub limit: usize,
    /// The token of a former page.
    pub after: Option<Vec<u8>>,
    /// Only names that contain this, upper and lower case alike; empty: all.
    pub search: String,
}

impl ListQuery {
    /// Whether a name, as the listing would show it, is searched for.
    pub fn wants(&self, name: &str) -> bool {
        self.search.is_empty() || name.to_ascii_lowercase().contains(&self.search.to_ascii_lowercase())
    }
}

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListEntry {
    /// Relative to the folder that was asked. A folder's ends in `/`.
    pub name: String,
    /// There may be more below it.
    pub folder: bool,
}

/// A page.
#[derive(Debug, Default)]
pub struct Listing {
    /// Sorted by name within the page. At a page size of 1 a name that is both a secret and a folder makes it two.
    pub entries: Vec<ListEntry>,
    /// The token of the next page, good for this listing of this caller. `None` at the end.
    pub next: Option<Vec<u8>>,
    /// Names left out because their records are damaged; the quarantine list has them.
    pub damaged: usize,
}

impl KvRoom {
    /// A page of a mount or a folder.
    /// # Errors
    /// The store; `Page` for a token of another listing. A folder that holds nothing lists nothing.
    pub async fn list(&self, permit: &Permit, place: &Place, query: &ListQuery) -> Result<Listing, KvError> {
        permit.covers(Action::List, permit.path())?;
        let below = permit.path().below(place.mount.path());
        if place.mount.kind() != Kind::Kv || below != place.rest || !permit.path().is_within(place.mount.path()) {
            return Err(Mismatch.into());
        }
        let (caller, recursive) = (permit.identity(), [u8::from(query.recursive)]);
        let question: [&[u8]; 5] = [
            b"kv list",
            caller.as_bytes(),
            permit.path().as_str().as_bytes(),
            &recursive,
            query.search.as_bytes(),
        ];
        let from = query
            .after
            .as_deref()
            .map(|token| self.pages.open(&question, token))
            .transpose()?;
        let limit = if query.limit == 0 {
            PAGE_ENTRIES_DEFAULT
        } else {
            query.limit.min(PAGE_ENTRIES_MAX)
        };
        let cursor = from.as_deref().map(Cursor::from_bytes);
        let mut page = Paging {
            room: self,
            permit,
            place,
            query,
            limit,
            cursor,
            out: Listing::default(),
        };
        if query.recursive {
            page.recursive().await?
        } else {
            page.children().await?
        }
        page.out.next = page.cursor.map(|cursor| self.pages.seal(&question, &cursor.to_bytes()));
        page.out.entries.sort_unstable();
        Ok(page.out)
    }
}

struct Paging<'a> {
    room: &'a KvRoom,
    permit: &'a Permit,
    place: &'a Place,
    query: &'a ListQuery,
    limit: usize,
    cursor: Option<Cursor>,
    out: Listing,
}

impl<'a> Paging<'a> {
    fn prefix(&self) -> Vec<Part<'a>> {
        key(self.place.mount.id_ref(), self.place.rest.as_ref())
    }

    /// Whether there is room in the page, and names may still be looked at.
    fn goes_on(&self, looked_at: usize) -> bool {
        self.out.entries.len() < self.limit && looked_at < LIST_SCAN_MAX
    }

    async fn recursive(&mut self) -> Result<(), KvError> {
        let prefix = self.prefix();
        let mut looked_at = 0;
        while self.goes_on(looked_at) {
            // No more than fits, so that no page ends in the middle of what was read.
            let rows = (self.limit - self.out.entries.len()).min(LIST_SCAN_MAX - looked_at);
            let found = self.room.meta.scan(&prefix, self.cursor.as_ref(), rows).await?;
            looked_at += rows;
            self.out.damaged += found.damaged.len();
            for entry in found.entries {
                let names: Option<Vec<&str>> = entry.key.iter().map(|part| part.name()).collect();
                // The folder's own name may be a secret's too: it is not below itself.
                if let Some(name) = names.filter(|names| !names.is_empty()).map(|names| names.join("/"))
                    && self.query.wants(&name)
                    && self.sees_secret(&name)
                {
                    self.out.entries.push(ListEntry { name, folder: false });
                }
            }
            self.cursor = found.next;
            if self.cursor.is_none() {
                break;
            }
        }
        Ok(())
    }

    async fn children(&mut self) -> Result<(), KvError> {
        let prefix = self.prefix();
        let mut looked_at = 0;
        while self.goes_on(looked_at) {
            let rows = (self.limit - self.out.entries.len()).min(LIST_SCAN_MAX - looked_at);
            let found = self.room.meta.scan_names(&prefix, self.cursor.as_ref(), rows).await?;
            looked_at += rows;
            self.out.damaged += found.damaged.len();
            self.cursor = found.next;
            for child in found.children {
                let entries = self.entries(&child);
                // A name that is a secret and a folder makes two entries; if they do not fit, the next page begins with it.
                if !self.out.entries.is_empty() && self.out.entries.len() + entries.len() > self.limit {
                    let here: Vec<_> = prefix.iter().copied().chain([Part::Name(&child.name)]).collect();
                    self.cursor = Some(self.room.meta.cursor_at(&here)?);
                    return Ok(());
                }
                self.out.entries.extend(entries);
            }
            if self.cursor.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn entries(&self, child: &Child) -> Vec<ListEntry> {
        let mut entries = Vec::new();
        if child.is_record && self.query.wants(&child.name) && self.sees_secret(&child.name) {
            entries.push(ListEntry {
                name: child.name.clone(),
                folder: false,
            });
        }
        let name = format!("{}/", child.name);
        if child.is_folder && self.query.wants(&name) && self.sees(&child.name, &[Action::List]) {
            entries.push(ListEntry { name, folder: true });
        }
        entries
    }

    fn sees_secret(&self, name: &str) -> bool {
        self.sees(name, &[Action::List, Action::Metadata, Action::Read])
    }

    fn sees(&self, name: &str, actions: &[Action]) -> bool {
        let Ok(path) = Path::parse(&format!("{}/{name}", self.permit.path())) else {
            return false;
        };
        actions.iter().any(|action| self.permit.also(*action, &path))
    }
}
