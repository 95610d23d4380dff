//! Trusts in the store: written, read, listed, deleted. Memory follows each commit.

use super::{
    AuthError, AuthRoom, TRUSTS_MAX,
    trust::{Definition, Times, Trust, path_of},
};
use crate::{
    base::secret::SecretBytes,
    policy::{Action, Permit},
    store::{Change, Cursor, Part, View},
    token::trust_id,
};
use std::{collections::BTreeMap, sync::Arc};
use zeroize::Zeroizing;

/// Records read at a time when loading.
const LOAD_ENTRIES: usize = 100;

/// A trust that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its version; with `check_only` the one it would have.
    pub version: u64,
    /// What deserves a second look.
    pub warnings: Vec<String>,
}

/// A trust to be written.
#[derive(Debug, Clone, Copy)]
pub struct Put<'p> {
    /// JSON.
    pub text: &'p str,
    /// Of an OIDC trust; without one, that of the same client at the same provider stays.
    pub client_secret: Option<&'p Arc<SecretBytes>>,
    /// Check-and-set.
    pub cas: Option<u64>,
    /// Only say what is wrong with it.
    pub check_only: bool,
}

/// A line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// Its method.
    pub method: &'static str,
    /// The issuer, of a JWT or an OIDC trust.
    pub issuer: String,
    /// Its version.
    pub version: u64,
}

/// Reads every trust.
pub(super) async fn load(documents: &View) -> Result<BTreeMap<String, Arc<Trust>>, AuthError> {
    let (mut trusts, mut after) = (BTreeMap::new(), None::<Cursor>);
    loop {
        let page = documents.scan(&[], after.as_ref(), LOAD_ENTRIES).await?;
        for entry in page.entries {
            let name = entry.key.first().and_then(|part| part.name()).unwrap_or_default();
            match Trust::decode(name, &entry.record.value) {
                Some(trust) => drop(trusts.insert(name.to_owned(), Arc::new(trust))),
                None => tracing::error!(
                    trust = name,
                    "the record of a trust cannot be used: nobody logs in by it"
                ),
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(trusts),
        }
    }
}

impl AuthRoom {
    /// Writes a trust. Whoever writes it hands out its groups: each must be their own, or one they may manage (as for tokens).
    /// # Errors
    /// [`AuthError`]; `Refused` tells everything that is wrong.
    pub async fn put(&self, permit: &Permit, name: &str, put: &Put<'_>) -> Result<(Change, Written), AuthError> {
        let Put { text, cas, .. } = *put;
        permit.covers(Action::TrustWrite, &path_of(name)?)?;
        let definition = Definition::parse(text)?;
        let key = [Part::Name(name)];
        let stored = self.documents.get(&key).await?;
        let former = self.trust(name);
        let current = former.as_ref().map_or(0, |trust| trust.times.version);
        if let Some(wanted) = cas.filter(|wanted| *wanted != current) {
            return Err(AuthError::Cas { current, wanted });
        }
        let kept = former.as_ref().and_then(|former| former.kept_secret(&definition));
        let trust = Trust::new(
            name,
            Times {
                version: current + 1,
                created: former.map_or_else(|| self.clock.now(), |trust| trust.times.created),
                updated: self.clock.now(),
            },
            definition,
            put.client_secret.cloned().or(kept),
        )?;
        self.tokens.may_give(permit, &trust.definition.groups())?;
        let trusts = self.trusts.load();
        let taken =
            |other: &&Arc<Trust>| other.name != name && trust.issuer().is_some() && other.issuer() == trust.issuer();
        if let Some(other) = trusts.values().find(taken) {
            return Err(AuthError::IssuerTaken(other.name.clone()));
        }
        if trusts.len() >= TRUSTS_MAX && current == 0 {
            return Err(AuthError::Full(TRUSTS_MAX));
        }
        let written = Written {
            version: trust.times.version,
            warnings: trust.definition.warnings(),
        };
        let mut change = Change::new();
        if put.check_only {
            return Ok((change, written));
        }
        match stored {
            Some(record) => change.require_version(&self.documents, &key, record.version),
            None => change.require_absent(&self.documents, &key),
        };
        change.put(&self.documents, &key, Zeroizing::new(trust.encode()?));
        let (memory, trust) = (Arc::clone(&self.trusts), Arc::new(trust));
        change.then(move || {
            let mut next = BTreeMap::clone(&memory.load());
            next.insert(trust.name.clone(), trust);
            memory.store(Arc::new(next));
        });
        Ok((change, written))
    }

    /// A trust.
    /// # Errors
    /// `NotFound`.
    pub fn get(&self, permit: &Permit, name: &str) -> Result<Arc<Trust>, AuthError> {
        permit.covers(Action::TrustRead, &path_of(name)?)?;
        self.trust(name).ok_or(AuthError::NotFound)
    }

    /// Every trust that the caller may see.
    pub fn list(&self, permit: &Permit) -> Vec<Summary> {
        let trusts = self.trusts.load();
        let visible = trusts
            .values()
            .filter(|trust| path_of(&trust.name).is_ok_and(|path| permit.also(Action::TrustRead, &path)));
        visible
            .map(|trust| Summary {
                name: trust.name.clone(),
                method: trust.method.word(),
                issuer: trust.listed_issuer().to_owned(),
                version: trust.times.version,
            })
            .collect()
    }

    /// Deletes a trust, and ends every token that came from it.
    /// # Errors
    /// `NotFound`.
    pub fn delete(&self, permit: &Permit, name: &str) -> Result<Change, AuthError> {
        permit.covers(Action::TrustWrite, &path_of(name)?)?;
        self.trust(name).ok_or(AuthError::NotFound)?;
        let mut change = self.tokens.end_trust(trust_id(name))?;
        let (key, memory, name) = ([Part::Name(name)], Arc::clone(&self.trusts), name.to_owned());
        change
            .require_exists(&self.documents, &key)
            .delete(&self.documents, &key);
        change.then(move || {
            let mut next = BTreeMap::clone(&memory.load());
            next.remove(&name);
            memory.store(Arc::new(next));
        });
        Ok(change)
    }

    /// Ends every token that came from a trust until now. The trust may be gone already.
    /// # Errors
    /// The token room's.
    pub fn end(&self, permit: &Permit, name: &str) -> Result<Change, AuthError> {
        permit.covers(Action::TrustWrite, &path_of(name)?)?;
        Ok(self.tokens.end_trust(trust_id(name))?)
    }
}
