//! Named identities: listed, shown, made and changed apart from any token.

use super::{TokenError, TokenRoom, issue::Ceremony, table};
use crate::{
    base::{id::IdentityId, path::Path},
    policy::{Action, Permit, Principal},
    store::Change,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Identities looked at under one lock.
const LOCKED_MAX: usize = 1000;

/// What there is to tell of an identity.
#[derive(Debug, Clone)]
pub struct IdentityInfo {
    /// Its stable id.
    pub id: IdentityId,
    /// Name, groups and attributes as they are now.
    pub principal: Arc<Principal>,
    /// Its tokens, expired ones that are not swept yet included.
    pub tokens: usize,
}

/// A change of an identity.
#[derive(Debug, Clone, Default)]
pub struct Edit {
    /// Groups it is to be in.
    pub add_groups: BTreeSet<String>,
    /// Groups it is to be in no more; one in both is added.
    pub remove_groups: BTreeSet<String>,
    /// Attributes it is to have.
    pub set_attributes: BTreeMap<String, String>,
    /// Attributes it is to have no more.
    pub remove_attributes: BTreeSet<String>,
    /// Refused when there is no such identity; else it is made.
    pub must_exist: bool,
}

impl Edit {
    pub(super) fn of(&self, former: (&BTreeSet<String>, &BTreeMap<String, String>)) -> Changed {
        let (mut groups, mut attributes) = (former.0.clone(), former.1.clone());
        groups.retain(|group| !self.remove_groups.contains(group));
        groups.extend(self.add_groups.iter().cloned());
        attributes.retain(|key, _| !self.remove_attributes.contains(key));
        attributes.extend(self.set_attributes.clone());
        (groups, attributes)
    }
}

/// Groups and attributes.
pub(super) type Changed = (BTreeSet<String>, BTreeMap<String, String>);

impl TokenRoom {
    /// Where decisions about all identities are taken.
    /// # Errors
    /// Never; the path is canonical.
    pub fn root_path() -> Result<Path, TokenError> {
        Path::parse("sys/token").map_err(|_| TokenError::NotFound)
    }

    /// Identities that the caller may see, in order of name, after `after`, at most `limit`; and whether there may be more. Only those in
    /// `group`, if one is named.
    /// # Errors
    /// A permit for something else.
    pub fn identities(
        &self,
        permit: &Permit,
        group: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<IdentityInfo>, bool), TokenError> {
        permit.covers_own(Action::List, &Self::root_path()?)?;
        let (mut seen, mut after) = (Vec::new(), after.map(str::to_owned));
        loop {
            // Decided outside of the lock.
            let found = self.table.read().by_name(after.as_deref(), LOCKED_MAX);
            let Some((last, _)) = found.last() else {
                return Ok((seen, false));
            };
            after = Some(last.principal().name().to_owned());
            for (identity, tokens) in found {
                let principal = identity.principal();
                let wanted = group.is_none_or(|group| principal.groups().contains(group));
                let visible =
                    || Self::path_of(principal.name()).is_ok_and(|path| permit.also(Action::TokenRead, &path));
                if !wanted || !visible() {
                    continue;
                }
                if seen.len() == limit {
                    return Ok((seen, true));
                }
                seen.push(IdentityInfo {
                    id: identity.id(),
                    principal,
                    tokens,
                });
            }
        }
    }

    /// The identity of this name, as policies see it.
    pub fn principal_named(&self, name: &str) -> Option<Arc<Principal>> {
        self.table.read().named(name).map(|identity| identity.principal())
    }

    /// One identity.
    /// # Errors
    /// `NoIdentity`.
    pub fn show_identity(&self, permit: &Permit, name: &str) -> Result<IdentityInfo, TokenError> {
        permit.covers_own(Action::TokenRead, &Self::path_of(name)?)?;
        let (caller, table) = (permit.caller().identity(), self.table.read());
        if permit.own() {
            // A log-in is in no table.
            return Ok(IdentityInfo {
                id: caller.id(),
                principal: caller.principal(),
                tokens: table.tokens_of(caller.id()),
            });
        }
        let identity = table.named(name).ok_or(TokenError::NoIdentity)?;
        Ok(IdentityInfo {
            id: identity.id(),
            principal: identity.principal(),
            tokens: table.tokens_of(identity.id()),
        })
    }

    /// Makes or changes an identity: in force, for every token of it, when the commit is acknowledged.
    /// # Errors
    /// `NoIdentity` where it must exist; `NotYours`, `Name`, `ReservedName`, `Full`.
    pub async fn edit_identity(
        &self,
        permit: &Permit,
        name: &str,
        edit: &Edit,
    ) -> Result<(Change, IdentityInfo), TokenError> {
        permit.covers(Action::TokenCreate, &Self::path_of(name)?)?;
        if Ceremony::names(name) {
            return Err(TokenError::ReservedName);
        }
        let mut change = Change::new();
        let record = self.edit(&mut change, name, permit, edit).await?;
        let tokens = self.table.read().tokens_of(record.id);
        Ok((
            change,
            IdentityInfo {
                id: record.id,
                principal: Arc::new(table::principal(&record)?),
                tokens,
            },
        ))
    }
}
