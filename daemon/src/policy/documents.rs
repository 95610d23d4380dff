//! Reading, writing and explaining policy documents.

use super::{
    Action, Permit, PolicyError, PolicyRoom, Purpose,
    decide::{Ask, Claim},
    force::InForce,
    permit::Mismatch,
    record::{self, Document, Listed, Manifest},
};
use crate::{
    base::{path::Path, time::Timestamp},
    store::{Change, Namespace, Part, Store, StoreError, Table, Version, View},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use strongroom_policy::{Binding, Context, Decision as Verdict, Principal, check};

const MANIFEST: &[Part<'static>] = &[Part::Raw(b"manifest")];
/// How often a change looks again for memory to catch up with a commit that is being acknowledged.
const CATCH_UP_TRIES: usize = 1000;
/// Documents read at a time where the manifest is lost.
const SCAN_ENTRIES: usize = 100;

/// A document as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// `[a-z0-9-]{1,64}`.
    pub name: String,
    /// Cedar.
    pub text: String,
    /// From 1, one more with each write while the document exists.
    pub version: u64,
    /// When it was written.
    pub updated: Timestamp,
}

/// Whom an explanation is about.
#[derive(Debug)]
pub enum Whom {
    /// The caller.
    Caller,
    /// Somebody else, real or hypothetical, with an everyday token made now.
    Other(Arc<Principal>),
}

/// What would be decided, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The decision.
    pub allowed: bool,
    /// Ids of the policies that decide, `name#id`.
    pub deciding: Vec<Arc<str>>,
    /// What goes wrong in evaluating; not empty means refused.
    pub errors: Vec<String>,
    /// How many policies were looked at.
    pub considered: u32,
    /// In words.
    pub reason: String,
}

impl PolicyRoom {
    /// Where policy decisions about the whole set are taken: listing, and explaining others.
    /// # Errors
    /// Never; the path is canonical.
    pub fn root_path() -> Result<Path, PolicyError> {
        Ok(Path::parse("sys/policy")?)
    }

    /// Where decisions about one document are taken: `sys/policy/NAME`.
    /// # Errors
    /// [`PolicyError::Name`].
    pub fn path_of(name: &str) -> Result<Path, PolicyError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !(1..=64).contains(&name.len()) || !name.bytes().all(plain) {
            return Err(PolicyError::Name);
        }
        Ok(Path::parse(&format!("sys/policy/{name}"))?)
    }

    /// Checks a document against the schema and writes it: in force when the commit is acknowledged. `cas`: 0 = must not exist, else the
    /// version it must have. Answers the new version.
    /// # Errors
    /// [`PolicyError::Invalid`] with everything found wrong; `Cas`; `Set` when there are too many; `Busy`.
    pub async fn put(
        &self,
        permit: &Permit,
        name: &str,
        text: &str,
        cas: Option<u64>,
    ) -> Result<(Change, u64), PolicyError> {
        permit.covers(Action::PolicyWrite, &Self::path_of(name)?)?;
        let checked = {
            // Tens of milliseconds for the largest document: not on a thread that serves others.
            let (name, text) = (name.to_owned(), text.to_owned());
            tokio::task::spawn_blocking(move || check(&name, &text))
                .await
                .map_err(|_| PolicyError::Stopping)??
        };
        let basis = self.basis().await?;
        let current = basis.force.listed.get(name).map_or(0, |listed| listed.version);
        if cas.is_some_and(|cas| cas != current) {
            return Err(PolicyError::Cas { current });
        }
        let document = Document::new(current + 1, self.clock.now(), text);
        let next = basis.force.with(name, Listed::of(&document), checked)?;
        let mut change = self.enforce(&basis, next)?;
        change.put(&self.documents, &[Part::Name(name)], record::encode(&document)?);
        Ok((change, document.version))
    }

    /// Deletes a document, also a damaged one.
    /// # Errors
    /// [`PolicyError::NotFound`], `Busy`.
    pub async fn delete(&self, permit: &Permit, name: &str) -> Result<Change, PolicyError> {
        permit.covers(Action::PolicyWrite, &Self::path_of(name)?)?;
        let basis = self.basis().await?;
        if !basis.force.listed.contains_key(name) {
            return Err(PolicyError::NotFound);
        }
        let mut change = self.enforce(&basis, basis.force.without(name))?;
        change.delete(&self.documents, &[Part::Name(name)]);
        Ok(change)
    }

    /// One document.
    /// # Errors
    /// [`PolicyError::NotFound`], `Damaged`.
    pub async fn get(&self, permit: &Permit, name: &str) -> Result<Policy, PolicyError> {
        permit.covers(Action::PolicyRead, &Self::path_of(name)?)?;
        let force = self.force.load_full();
        if !force.listed.contains_key(name) {
            return Err(PolicyError::NotFound);
        }
        match read::<Document>(&self.documents, &[Part::Name(name)]).await? {
            Found::Read(
                Document {
                    version, updated, text, ..
                },
                _,
            ) => Ok(Policy {
                name: name.to_owned(),
                text,
                version,
                updated,
            }),
            Found::Nothing | Found::Damaged => Err(PolicyError::Damaged),
        }
    }

    /// Names the caller may read, in order, after `after`, at most `limit`; and whether there may be more.
    /// # Errors
    /// A permit for something else.
    pub fn list(&self, permit: &Permit, after: Option<&str>, limit: usize) -> Result<(Vec<String>, bool), PolicyError> {
        permit.covers(Action::PolicyRead, &Self::root_path()?)?;
        let force = self.force.load_full();
        let seen = |name: &&String| Self::path_of(name).is_ok_and(|path| permit.also(Action::PolicyRead, &path));
        let mut names: Vec<String> = force
            .listed
            .keys()
            .filter(|name| after.is_none_or(|after| name.as_str() > after))
            .filter(seen)
            .take(limit + 1)
            .cloned()
            .collect();
        let more = names.len() > limit;
        names.truncate(limit);
        Ok((names, more))
    }

    /// What would be decided, and by which policies (R-POL-2). About the caller on an own permit; about others on `policy_read` of
    /// `sys/policy`.
    /// # Errors
    /// A permit for something else.
    pub fn explain(&self, permit: &Permit, whom: Whom, action: Action, path: &Path) -> Result<Explained, PolicyError> {
        permit.covers_own(Action::PolicyRead, &Self::root_path()?)?;
        let ask = match whom {
            Whom::Caller => Ask {
                action,
                claim: Claim::Policy,
                ..permit.ask.clone()
            },
            Whom::Other(_) if permit.own() => return Err(Mismatch.into()),
            Whom::Other(principal) => {
                let context = Context {
                    own: false,
                    purpose: Purpose::Session,
                    token_age_secs: 0,
                    binding: Binding::None,
                    strength: 1,
                    ..permit.ask.context
                };
                Ask {
                    principal,
                    action,
                    claim: Claim::Policy,
                    context,
                }
            }
        };
        let (verdict, reason) = match self.force.load_full().weigh(&ask, path.as_str()) {
            Ok(verdict) => {
                let reason = verdict.reason.to_string();
                (verdict, reason)
            }
            Err(refusal) => (Verdict::default(), refusal.to_string()),
        };
        Ok(Explained {
            allowed: verdict.allowed,
            deciding: verdict.deciding,
            errors: verdict.errors,
            considered: verdict.considered,
            reason,
        })
    }

    /// Memory and manifest, in agreement.
    async fn basis(&self) -> Result<Basis, PolicyError> {
        for _ in 0..CATCH_UP_TRIES {
            let force = self.force.load_full();
            match read::<Manifest>(&self.manifest, MANIFEST).await? {
                Found::Read(manifest, version) if manifest.serial == force.serial => {
                    return Ok(Basis {
                        force,
                        version: Some(version),
                    });
                }
                Found::Nothing | Found::Damaged if force.list_lost => return Ok(Basis { force, version: None }),
                Found::Nothing | Found::Damaged => return Err(PolicyError::Damaged),
                // Committed, and memory follows in a moment, before the acknowledgement.
                Found::Read(..) => tokio::task::yield_now().await,
            }
        }
        Err(PolicyError::Busy)
    }

    /// The manifest of `next` in the place of the one `basis` saw, and `next` in force once that is durable.
    fn enforce(&self, basis: &Basis, next: InForce) -> Result<Change, PolicyError> {
        let mut change = Change::new();
        // Without a version the manifest is lost, and about to be written anew by a recovery token.
        if let Some(version) = basis.version {
            change.require_version(&self.manifest, MANIFEST, version);
        }
        change.put(&self.manifest, MANIFEST, record::encode(&next.manifest())?);
        let force = self.force.clone();
        change.then(move || force.store(Arc::new(next)));
        Ok(change)
    }
}

struct Basis {
    force: Arc<InForce>,
    version: Option<Version>,
}

enum Found<T> {
    Read(T, Version),
    Nothing,
    Damaged,
}

async fn read<T>(view: &View, key: &[Part<'_>]) -> Result<Found<T>, PolicyError>
where
    T: for<'de> serde::Deserialize<'de> + record::Formatted,
{
    match view.get(key).await {
        Ok(Some(found)) => {
            Ok(record::decode(&found.value).map_or(Found::Damaged, |value| Found::Read(value, found.version)))
        }
        Ok(None) => Ok(Found::Nothing),
        Err(StoreError::Damaged { .. }) => Ok(Found::Damaged),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn found(store: &Store) -> Result<Change, PolicyError> {
    let view = store.view(Namespace::ROOT, Table::PolicyManifest);
    let manifest = record::encode(&Manifest::new(0, BTreeMap::new()))?;
    let mut change = Change::new();
    change.require_absent(&view, MANIFEST).put(&view, MANIFEST, manifest);
    Ok(change)
}

pub(super) async fn load(documents: &View, manifest: &View) -> Result<InForce, PolicyError> {
    let manifest = match read::<Manifest>(manifest, MANIFEST).await? {
        Found::Read(manifest, _) => Some(manifest),
        Found::Nothing | Found::Damaged => None,
    };
    let names: BTreeSet<String> = match &manifest {
        Some(manifest) => manifest.policies.keys().cloned().collect(),
        None => names(documents).await?,
    };
    let mut found = BTreeMap::new();
    for name in names {
        if let Found::Read(document, _) = read::<Document>(documents, &[Part::Name(&name)]).await? {
            found.insert(name, document);
        }
    }
    let force = InForce::assemble(manifest, found)?;
    if force.is_damaged() {
        tracing::error!(documents = ?force.damaged, manifest_lost = force.list_lost, "policies are damaged: everything but recovery is refused");
    }
    Ok(force)
}

/// Names of all documents, for when the manifest cannot say.
async fn names(documents: &View) -> Result<BTreeSet<String>, PolicyError> {
    let (mut names, mut after) = (BTreeSet::new(), None);
    loop {
        let page = documents.scan(&[], after.as_ref(), SCAN_ENTRIES).await?;
        names.extend(
            page.entries
                .iter()
                .filter_map(|entry| Some(entry.key.first()?.name()?.to_owned())),
        );
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(names),
        }
    }
}
