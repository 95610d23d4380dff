//! Versioned secrets: get, put, list.

use crate::{
    call::Client,
    error::{Error, Refusal},
    secret::{Fields, Secret, field, fields_from_wire, fields_to_wire},
    v1,
};

/// Names fetched by one page.
const PAGE: u32 = 1000;
/// Names that [`Client::list`] collects before it refuses.
const LIST_MAX: usize = 100_000;

/// Which version of a secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Select {
    /// The one labelled `current`.
    #[default]
    Current,
    /// By number, from 1.
    Version(u64),
    /// By label: `current`, `previous`, `pending`, or one of your own.
    Label(String),
}

/// One version of a secret.
#[derive(Debug)]
pub struct SecretVersion {
    /// The path that was asked for.
    pub path: String,
    /// Version number, from 1.
    pub version: u64,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// Labels that point at this version.
    pub labels: Vec<String>,
    /// 1 to 64 fields, 1 MiB in all.
    pub fields: Fields,
}

impl SecretVersion {
    /// One field.
    /// # Errors
    /// [`Error::NotFound`] that lists the names there are.
    pub fn field(&self, name: &str) -> Result<&Secret, Error> {
        field(&self.fields, name, &self.path)
    }
}

/// How a folder is listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List {
    /// Everything below it, not only the next level.
    pub recursive: bool,
    /// Only names that contain this, upper and lower case alike; empty: all.
    pub search: String,
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Names relative to the folder; folders end in `/`. In the order of storage, not of the alphabet.
    pub names: Vec<String>,
    /// Give it to the next [`Client::list_page`]; `None` at the end.
    pub next: Option<String>,
}

impl Client {
    /// The current version of a secret, `kv/prod/db`.
    /// # Errors
    /// [`Error::Denied`] also when there is no such path: the daemon does not tell these apart.
    pub async fn get(&self, path: &str) -> Result<SecretVersion, Error> {
        self.get_at(path, Select::Current).await
    }

    /// A chosen version of a secret.
    /// # Errors
    /// As [`get`](Client::get).
    pub async fn get_at(&self, path: &str, select: Select) -> Result<SecretVersion, Error> {
        let select = match select {
            Select::Current => None,
            Select::Version(version) => Some(v1::kv_get_request::Select::Version(version)),
            Select::Label(label) => Some(v1::kv_get_request::Select::Label(label)),
        };
        let request = v1::KvGetRequest {
            path: path.to_owned(),
            select,
        };
        let got = self.read(request, |s, r| async move { s.kv().get(r).await }).await?;
        Ok(SecretVersion {
            path: path.to_owned(),
            version: got.version,
            created_at: got.created_at,
            labels: got.labels,
            fields: fields_from_wire(got.fields),
        })
    }

    /// Writes a new version and returns its number. `cas`: `Some(0)` the secret must not exist,
    /// `Some(n)` version `n` must be current, `None` whatever is there.
    /// # Errors
    /// [`Error::Conflict`] when `cas` does not hold; [`Error::Invalid`] beyond 64 fields or 1 MiB;
    /// [`Error::Indeterminate`] when no answer came.
    pub async fn put(&self, path: &str, fields: &Fields, cas: Option<u64>) -> Result<u64, Error> {
        let request = v1::KvPutRequest {
            path: path.to_owned(),
            fields: fields_to_wire(fields),
            cas,
            ..Default::default()
        };
        let put = self.change(request, |s, r| async move { s.kv().put(r).await }).await?;
        Ok(put.version)
    }

    /// Every name in a folder that the caller may see; folders end in `/`.
    /// # Errors
    /// [`Error::Exhausted`] beyond 100,000 names: use [`list_page`](Client::list_page).
    pub async fn list(&self, folder: &str) -> Result<Vec<String>, Error> {
        let (mut names, mut token) = (Vec::new(), None);
        let listing = List::default();
        loop {
            let page = self.list_page(folder, &listing, PAGE, token).await?;
            names.extend(page.names);
            if names.len() > LIST_MAX {
                let words = format!("{folder} holds more than {LIST_MAX} names; read it page by page");
                return Err(Error::Exhausted(Refusal::local("LIST_TOO_LONG", words)));
            }
            token = page.next;
            if token.is_none() {
                return Ok(names);
            }
        }
    }

    /// One page of a folder. `page_size` 1 to 1000; a page may be short, even empty, and still have a next.
    /// # Errors
    /// [`Error::Invalid`] for a token of another listing.
    pub async fn list_page(
        &self,
        folder: &str,
        list: &List,
        page_size: u32,
        token: Option<String>,
    ) -> Result<Listing, Error> {
        let request = v1::KvListRequest {
            path: folder.to_owned(),
            recursive: list.recursive,
            page_size,
            page_token: token.unwrap_or_default(),
            search: list.search.clone(),
        };
        let page = self.read(request, |s, r| async move { s.kv().list(r).await }).await?;
        Ok(Listing {
            names: page.entries.into_iter().map(|entry| entry.name).collect(),
            next: (!page.next_page_token.is_empty()).then_some(page.next_page_token),
        })
    }
}
