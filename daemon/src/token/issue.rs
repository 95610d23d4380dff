//! Making tokens: for oneself, for a named identity, and the vault's own two.

use super::{
    IDENTITIES_MAX, SESSION_TOKENS_MAX, TOKENS_MAX, TokenError, TokenRoom,
    identities::{Changed, Edit},
    manage,
    record::{self, IdentityRecord, Mac, SessionRecord, TokenRecord},
    table,
    text::TokenText,
};
use crate::{
    base::{
        id::{Accessor, IdentityId, SessionId},
        limits::{SETUP_TOKEN_TTL_SECS, TOKEN_TTL_DEFAULT_SECS, TOKEN_TTL_MAX_SECS},
        path::Path,
        time::Timestamp,
    },
    policy::{Action, Mismatch, Permit, Purpose},
    store::{Change, Part, Version},
};
use std::collections::{BTreeMap, BTreeSet};

/// What a new token is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewToken {
    /// The identity it speaks for, made when there is none of this name; `None`: the caller's own.
    pub identity: Option<String>,
    /// Groups of that identity. With `attributes`, both empty: as they are, unless `exactly`.
    pub groups: BTreeSet<String>,
    /// Attributes of that identity.
    pub attributes: BTreeMap<String, String>,
    /// Groups and attributes become exactly these, also when both are empty.
    pub exactly: bool,
    /// 0: 15 minutes. At most 24 hours.
    pub ttl_secs: u64,
    /// Renewals end there. 0: 24 hours. At most 24 hours.
    pub max_ttl_secs: u64,
    /// Revoke the session's leases also when it merely expires.
    pub end_leases: bool,
}

/// A token that was made.
#[derive(Debug)]
pub struct Created {
    /// Shown once.
    pub text: TokenText,
    /// Its public handle.
    pub accessor: Accessor,
    /// The session it belongs to.
    pub session: SessionId,
    /// Its life, as granted.
    pub ttl_secs: u64,
    /// When it ends unless renewed.
    pub expires: Timestamp,
}

/// Tokens that no token makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ceremony {
    /// `init`: the first token.
    Setup,
    /// `operator recover`, after a slot's fresh factors: policies and tokens only.
    Recover,
}

impl Ceremony {
    /// Whether it is one of the vault's own names.
    pub(super) fn names(name: &str) -> bool {
        [Self::Setup, Self::Recover]
            .iter()
            .any(|own| own.purpose().as_str() == name)
    }
    const fn purpose(self) -> Purpose {
        match self {
            Self::Setup => Purpose::Setup,
            Self::Recover => Purpose::Recover,
        }
    }
}

/// Lives as granted, from `now`.
#[derive(Clone, Copy)]
pub(super) struct Life {
    pub ttl_secs: u64,
    pub max_expires: Timestamp,
}

impl NewToken {
    fn life(&self, now: Timestamp) -> Result<Life, TokenError> {
        let given = |asked: u64, default: u64| if asked == 0 { default } else { asked };
        let max_secs = given(self.max_ttl_secs, TOKEN_TTL_MAX_SECS);
        let ttl_secs = given(self.ttl_secs, TOKEN_TTL_DEFAULT_SECS.min(max_secs));
        if ttl_secs > TOKEN_TTL_MAX_SECS || max_secs > TOKEN_TTL_MAX_SECS {
            return Err(TokenError::Ttl);
        }
        Ok(Life {
            ttl_secs,
            max_expires: now.plus_secs(max_secs),
        })
    }
}

impl TokenRoom {
    /// Makes a token. A child needs an own permit for `token_create` on the caller's own token path; a token for a named identity one for
    /// `sys/token/NAME`, and every group or attribute that it would give or take away must be one that the caller has, or is permitted
    /// `token_create` on (`sys/group/NAME`, `sys/attribute/KEY`): nobody hands out what is not theirs.
    /// # Errors
    /// See [`TokenError`]; the texts say what to do.
    pub async fn create(&self, permit: &Permit, ask: &NewToken) -> Result<(Change, Created), TokenError> {
        let name = permit.principal().name().to_owned();
        permit.covers_own(
            Action::TokenCreate,
            &Self::path_of(ask.identity.as_deref().unwrap_or(&name))?,
        )?;
        // Another session is never one's own to begin, not even for one's own name.
        if permit.own() && ask.identity.is_some() {
            return Err(Mismatch.into());
        }
        if permit.caller().is_sealed() {
            return Err(TokenError::Sealed);
        }
        if self.table.read().tokens() >= TOKENS_MAX {
            return Err(TokenError::Full("tokens"));
        }
        match &ask.identity {
            None => self.child(permit, ask).await,
            Some(name) => self.for_identity(permit, name, ask).await,
        }
    }

    /// The vault's own tokens: one hour, not renewable beyond it. The caller has done the ceremony: `init`, or a slot's fresh factors.
    /// # Errors
    /// The store.
    pub async fn mint(&self, ceremony: Ceremony) -> Result<(Change, Created), TokenError> {
        let now = self.clock.now();
        let purpose = ceremony.purpose();
        let mut change = Change::new();
        change.urgent();
        let identity = self.identity_for(&mut change, purpose.as_str(), None, now).await?;
        let life = Life {
            ttl_secs: SETUP_TOKEN_TTL_SECS,
            max_expires: now.plus_secs(SETUP_TOKEN_TTL_SECS),
        };
        self.begin(change, SessionRecord::new(identity, purpose, now, false, None), life)
    }

    async fn child(&self, permit: &Permit, ask: &NewToken) -> Result<(Change, Created), TokenError> {
        if !ask.groups.is_empty() || !ask.attributes.is_empty() || ask.exactly {
            return Err(TokenError::ChildIdentity);
        }
        let now = self.clock.now();
        let session = permit.session();
        let (mut record, version) = self.read(session).await?;
        record.prune(now);
        let parent = record.tokens.get(&permit.accessor()).ok_or(TokenError::NotFound)?;
        if ask.end_leases && !record.end_leases {
            return Err(TokenError::EndLeases);
        }
        if record.tokens.len() >= SESSION_TOKENS_MAX {
            return Err(TokenError::SessionFull(SESSION_TOKENS_MAX));
        }
        let asked = ask.life(now)?;
        let life = Life {
            max_expires: asked.max_expires.min(parent.max_expires),
            ..asked
        };
        let created = self.add(&mut record, session, Some(permit.accessor()), now, life);
        Ok((self.replace(session, version, record)?, created))
    }

    async fn for_identity(&self, permit: &Permit, name: &str, ask: &NewToken) -> Result<(Change, Created), TokenError> {
        if Ceremony::names(name) {
            return Err(TokenError::ReservedName);
        }
        let now = self.clock.now();
        let life = ask.life(now)?;
        // The session that makes it is live when this is committed: a revoked one leaves nothing behind.
        let mut change = Change::new();
        self.require_live(&mut change, permit.session());
        let identity = self.identity_for(&mut change, name, Some((permit, ask)), now).await?;
        let record = SessionRecord::new(identity, Purpose::Session, now, ask.end_leases, Some(permit.session()));
        self.begin(change, record, life)
    }

    /// The identity of this name, made or changed with `change` where that is asked.
    async fn identity_for(
        &self,
        change: &mut Change,
        name: &str,
        asked: Option<(&Permit, &NewToken)>,
        now: Timestamp,
    ) -> Result<IdentityId, TokenError> {
        let found = self.stored_identity(name).await?;
        let next = asked
            .map(|(_, ask)| (ask.groups.clone(), ask.attributes.clone()))
            .unwrap_or_default();
        let exactly = asked.is_some_and(|(_, ask)| ask.exactly);
        if let Some((former, _)) = &found
            && !exactly
            && next.0.is_empty()
            && next.1.is_empty()
        {
            return Ok(former.id);
        }
        let permit = asked.map(|(permit, _)| permit);
        Ok(self.write_identity(change, name, found, next, permit, now)?.id)
    }

    /// The identity of this name, made or changed as `edit` says.
    pub(super) async fn edit(
        &self,
        change: &mut Change,
        name: &str,
        permit: &Permit,
        edit: &Edit,
    ) -> Result<IdentityRecord, TokenError> {
        let found = self.stored_identity(name).await?;
        let next = match &found {
            Some((former, _)) => edit.of((&former.groups, &former.attributes)),
            None if edit.must_exist => return Err(TokenError::NoIdentity),
            None => edit.of((&BTreeSet::new(), &BTreeMap::new())),
        };
        self.write_identity(change, name, found, next, Some(permit), self.clock.now())
    }

    async fn stored_identity(&self, name: &str) -> Result<Option<(IdentityRecord, Version)>, TokenError> {
        Self::path_of(name)?;
        let Some(found) = self.identities.get(&[Part::Name(name)]).await? else {
            return Ok(None);
        };
        let record = record::identity(&found.value).ok_or(TokenError::Damaged("identity"))?;
        Ok(Some((record, found.version)))
    }

    /// `next` in the place of what was found, if it differs. `permit`: of whoever must be allowed to give and take what differs.
    fn write_identity(
        &self,
        change: &mut Change,
        name: &str,
        found: Option<(IdentityRecord, Version)>,
        (groups, attributes): Changed,
        permit: Option<&Permit>,
        now: Timestamp,
    ) -> Result<IdentityRecord, TokenError> {
        let key = [Part::Name(name)];
        let record = match found {
            Some((former, _)) if former.groups == groups && former.attributes == attributes => return Ok(former),
            Some((former, version)) => {
                let record = former.with(groups, attributes);
                may_change(permit, &former, &record)?;
                change.require_version(&self.identities, &key, version);
                record
            }
            None => {
                if self.table.read().identities() >= IDENTITIES_MAX {
                    return Err(TokenError::Full("identities"));
                }
                let id = IdentityId::random(&*self.random);
                let blank = IdentityRecord::new(id, name, BTreeSet::new(), BTreeMap::new(), now);
                let record = blank.with(groups, attributes);
                may_change(permit, &blank, &record)?;
                change.require_absent(&self.identities, &key);
                record
            }
        };
        table::principal(&record)?;
        change.put(&self.identities, &key, record::encode(&record)?);
        let (memory, learned) = (self.table.clone(), record.clone());
        change.then(move || {
            // Checked above to be one that policies can express.
            let _ = memory.write().learn(&learned);
        });
        Ok(record)
    }

    /// A session with its first token.
    fn begin(
        &self,
        mut change: Change,
        mut record: SessionRecord,
        life: Life,
    ) -> Result<(Change, Created), TokenError> {
        let session = SessionId::random(&*self.random);
        let now = record.created;
        let created = self.add(&mut record, session, None, now, life);
        let key = [Part::Raw(session.as_bytes())];
        change
            .require_absent(&self.sessions, &key)
            .put(&self.sessions, &key, record::encode(&record)?);
        let table = self.table.clone();
        change.then(move || table.write().put(session, record));
        Ok((change, created))
    }

    fn add(
        &self,
        record: &mut SessionRecord,
        session: SessionId,
        parent: Option<Accessor>,
        now: Timestamp,
        life: Life,
    ) -> Created {
        let accessor = Accessor::random(&*self.random);
        self.add_as(record, session, accessor, parent, now, life)
    }

    /// [`Self::add`] under an accessor that is decided already.
    pub(super) fn add_as(
        &self,
        record: &mut SessionRecord,
        session: SessionId,
        accessor: Accessor,
        parent: Option<Accessor>,
        now: Timestamp,
        life: Life,
    ) -> Created {
        let text = TokenText::random(&*self.random);
        let expires = now.plus_secs(life.ttl_secs).min(life.max_expires);
        let (mac, epoch) = self
            .peppers
            .load()
            .candidates(text.expose().as_bytes())
            .next()
            .unwrap_or((Mac([0; 32]), 0));
        let token = TokenRecord {
            mac,
            epoch,
            parent,
            issued: now,
            expires,
            max_expires: life.max_expires,
            ttl_secs: life.ttl_secs,
        };
        record.tokens.insert(accessor, token);
        Created {
            text,
            accessor,
            session,
            ttl_secs: now.secs_until(expires),
            expires,
        }
    }
}

impl TokenRoom {
    /// Whether the caller may hand out these groups: each is its own, or one it may manage.
    /// # Errors
    /// `NotYours`, `Name`.
    pub fn may_give(&self, permit: &Permit, groups: &BTreeSet<String>) -> Result<(), TokenError> {
        let none = IdentityRecord::new(
            permit.identity(),
            permit.principal().name(),
            BTreeSet::new(),
            BTreeMap::new(),
            Timestamp(0),
        );
        may_change(Some(permit), &none, &none.with(groups.clone(), BTreeMap::new()))
    }
}

/// Every group or attribute that is given or taken away is the caller's own or one it may manage. Taking away counts too: a `forbid` may
/// hang on it.
fn may_change(permit: Option<&Permit>, former: &IdentityRecord, next: &IdentityRecord) -> Result<(), TokenError> {
    let Some(permit) = permit else { return Ok(()) };
    let (mine, mut touched) = (permit.principal(), BTreeSet::new());
    for group in former.groups.symmetric_difference(&next.groups) {
        if !manage::is_name(group) {
            return Err(TokenError::Name { what: "a group's name" });
        }
        if !mine.groups().contains(group) {
            touched.insert(("group", group));
        }
    }
    for key in former.attributes.keys().chain(next.attributes.keys()) {
        let (old, new) = (former.attributes.get(key), next.attributes.get(key));
        if !manage::is_name(key) {
            return Err(TokenError::Name {
                what: "an attribute's key",
            });
        }
        let of_mine = match (old, new) {
            (Some(value), None) | (None, Some(value)) => mine.attributes().get(key) == Some(value),
            (old, new) => old == new,
        };
        if !of_mine {
            touched.insert(("attribute", key));
        }
    }
    for (what, name) in touched {
        let path = format!("sys/{what}/{name}");
        if !Path::parse(&path).is_ok_and(|path| permit.also(Action::TokenCreate, &path)) {
            return Err(TokenError::NotYours {
                what: format!("{what} `{name}`"),
                path,
            });
        }
    }
    Ok(())
}
