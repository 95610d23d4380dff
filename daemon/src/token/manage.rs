//! Showing, renewing and revoking tokens.

use super::{
    TokenError, TokenRoom,
    sealed::{self, SEALED_TTL_MAX_SECS},
    sweep::mark,
    table::Ended,
};
use crate::{
    base::{
        id::{Accessor, IdentityId, SessionId},
        limits::TOKEN_TTL_MAX_SECS,
        path::Path,
        time::Timestamp,
    },
    policy::{Action, Caller, Mismatch, Permit, Principal, Purpose},
    store::{Change, Part},
};
use std::sync::Arc;

/// A token that a request is about: what the gate decides on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its handle.
    pub accessor: Accessor,
    /// `sys/token/IDENTITY`. A handle that is nobody's has a path that no identity can have, so that it is refused like one that is
    /// forbidden.
    pub path: Path,
    /// The caller's own token, or one made from it.
    pub own: bool,
}

/// What there is to tell of a token; never the token.
#[derive(Debug, Clone)]
pub struct TokenInfo {
    /// Its handle.
    pub accessor: Accessor,
    /// Whom it speaks for: name, groups, attributes as they are now.
    pub principal: Arc<Principal>,
    /// The log-in it came from.
    pub session: SessionId,
    /// The token of the same session that made it.
    pub parent: Option<Accessor>,
    /// What it was made for.
    pub purpose: Purpose,
    /// When it was made.
    pub issued: Timestamp,
    /// When it ends unless renewed.
    pub expires: Timestamp,
    /// When it ends at the latest.
    pub max_expires: Timestamp,
    /// Seconds left.
    pub ttl_secs: u64,
    /// Whether the session's leases end when it merely expires.
    pub end_leases: bool,
}

/// A token that was renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewed {
    /// Seconds left, as granted.
    pub ttl_secs: u64,
    /// When it ends unless renewed again.
    pub expires: Timestamp,
}

/// What a revocation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// How many tokens open nothing any more.
    pub tokens: u64,
    /// The sessions that ended. Their leases come out of [`TokenRoom::ended`].
    pub sessions: Vec<SessionId>,
}

impl TokenRoom {
    /// Where decisions about an identity's tokens are taken: `sys/token/NAME`.
    /// # Errors
    /// [`TokenError::Name`].
    pub fn path_of(identity: &str) -> Result<Path, TokenError> {
        let error = TokenError::Name {
            what: "an identity's name",
        };
        // `login:TRUST` is what log-ins are called; nobody can be given such a name.
        if !is_name(identity.strip_prefix("login:").unwrap_or(identity)) {
            return Err(error);
        }
        Path::parse(&format!("sys/token/{identity}")).map_err(|_| error)
    }

    /// What a request about `accessor` (`None`: the caller's own) is about.
    /// # Errors
    /// The token's identity is damaged.
    pub fn target(&self, caller: &Caller, accessor: Option<Accessor>) -> Result<Target, TokenError> {
        let accessor = accessor.unwrap_or_else(|| caller.accessor());
        let table = self.table.read();
        let Some((session, record)) = table.session_of(accessor) else {
            let own = caller.is_sealed() && caller.accessor() == accessor;
            let path = match sealed::session_of(accessor) {
                _ if own => Self::path_of(caller.identity().principal().name())?,
                // Whose it is stands in the token alone: who may end any token may end this one.
                Some(_) => Path::parse("sys/token/~sealed").map_err(|_| TokenError::NotFound)?,
                None => Path::parse("sys/token/~nobody").map_err(|_| TokenError::NotFound)?,
            };
            return Ok(Target { accessor, path, own });
        };
        let own = session == caller.session() && record.with_descendants(caller.accessor()).contains(&accessor);
        let name = table
            .whose(session)
            .map(|identity| identity.principal())
            .ok_or(TokenError::Damaged("identity"))?;
        Ok(Target {
            accessor,
            path: Self::path_of(name.name())?,
            own,
        })
    }

    /// The target of a permit, once more: what the gate decided on must be what is acted upon.
    fn permitted(&self, permit: &Permit, action: Action, accessor: Accessor) -> Result<SessionId, TokenError> {
        let target = self.target(permit.caller(), Some(accessor))?;
        permit.covers_own(action, &target.path)?;
        if permit.own() && !target.own {
            return Err(Mismatch.into());
        }
        self.table
            .read()
            .session_of(accessor)
            .map(|(session, _)| session)
            .or_else(|| sealed::session_of(accessor))
            .ok_or(TokenError::NotFound)
    }

    /// What there is to tell of a token.
    /// # Errors
    /// [`TokenError::NotFound`] also when it has expired.
    pub fn get(&self, permit: &Permit, accessor: Accessor) -> Result<TokenInfo, TokenError> {
        self.permitted(permit, Action::TokenRead, accessor)?;
        let now = self.clock.now();
        let caller = permit.caller();
        if let Some(log_in) = caller
            .log_in()
            .filter(|log_in| log_in.sealed && accessor == caller.accessor())
        {
            return Ok(TokenInfo {
                accessor,
                principal: Arc::clone(permit.principal()),
                session: caller.session(),
                parent: None,
                purpose: caller.purpose(),
                issued: caller.issued(),
                expires: caller.expires(),
                max_expires: caller.max_expires(),
                ttl_secs: now.secs_until(caller.expires()),
                end_leases: log_in.end_leases,
            });
        }
        let table = self.table.read();
        let (session, record) = table.session_of(accessor).ok_or(TokenError::NotFound)?;
        let token = record
            .tokens
            .get(&accessor)
            .filter(|token| token.expires > now)
            .ok_or(TokenError::NotFound)?;
        Ok(TokenInfo {
            accessor,
            principal: table
                .whose(session)
                .map(|identity| identity.principal())
                .ok_or(TokenError::Damaged("identity"))?,
            session,
            parent: token.parent,
            purpose: record.purpose,
            issued: token.issued,
            expires: token.expires,
            max_expires: token.max_expires,
            ttl_secs: now.secs_until(token.expires),
            end_leases: record.end_leases,
        })
    }

    /// A longer life: `ttl_secs` from now (0: the token's own), never beyond its maximum, never shorter than before. The maximum is
    /// applied to the record that the commit replaces, so no race of two renewals passes it (CVE-2020-25816 and CVE-2021-32923 of another
    /// project).
    /// # Errors
    /// [`TokenError::NotFound`] when it has ended; `Ttl`.
    pub async fn renew(
        &self,
        permit: &Permit,
        accessor: Accessor,
        ttl_secs: u64,
    ) -> Result<(Change, Renewed), TokenError> {
        let session = self.permitted(permit, Action::TokenRenew, accessor)?;
        if ttl_secs > TOKEN_TTL_MAX_SECS {
            return Err(TokenError::Ttl);
        }
        if sealed::session_of(accessor).is_some() {
            return Err(TokenError::Sealed);
        }
        let now = self.clock.now();
        let (mut record, version) = self.read(session).await?;
        record.prune(now);
        let token = record.tokens.get_mut(&accessor).ok_or(TokenError::NotFound)?;
        let ttl_secs = if ttl_secs == 0 { token.ttl_secs } else { ttl_secs };
        token.expires = now.plus_secs(ttl_secs).min(token.max_expires).max(token.expires);
        let renewed = Renewed {
            ttl_secs: now.secs_until(token.expires),
            expires: token.expires,
        };
        Ok((self.replace(session, version, record)?, renewed))
    }

    /// Ends a token and all made from it in its session; or, with `whole_session`, its session and every session that made (R-TOK-6). A
    /// session without live tokens is over, and its leases are revoked. Any token of a session may end it: all of them have the same
    /// powers.
    /// # Errors
    /// [`TokenError::NotFound`] when it has ended.
    pub async fn revoke(
        &self,
        permit: &Permit,
        accessor: Accessor,
        whole_session: bool,
    ) -> Result<(Change, Revoked), TokenError> {
        let session = self.permitted(permit, Action::TokenRevoke, accessor)?;
        let mut change = Change::new();
        if sealed::session_of(accessor).is_some() {
            return self.revoke_sealed(permit, session);
        }
        if whole_session {
            let (tokens, sessions) = {
                let table = self.table.read();
                (table.tokens_under(session), table.sessions_under(session))
            };
            // No matter which version: nothing is to survive.
            self.require_live(&mut change, session);
            self.end_whole(&mut change, session);
            return Ok((change, revoked(tokens, sessions)));
        }
        let (mut record, version) = self.read(session).await?;
        record.prune(self.clock.now());
        let gone = record.with_descendants(accessor);
        if !record.tokens.contains_key(&accessor) {
            return Err(TokenError::NotFound);
        }
        record.tokens.retain(|accessor, _| !gone.contains(accessor));
        if record.tokens.is_empty() {
            change
                .urgent()
                .require_version(&self.sessions, &[Part::Raw(session.as_bytes())], version);
            // A session of it may be on its way to be committed: whoever revokes its maker is to reach that one too.
            self.finish(&mut change, session, true, true);
            return Ok((change, revoked(gone.len(), vec![session])));
        }
        Ok((self.replace(session, version, record)?, revoked(gone.len(), Vec::new())))
    }

    /// A sealed session ends by a mark; if it was written down, its record and leases go too.
    fn revoke_sealed(&self, permit: &Permit, session: SessionId) -> Result<(Change, Revoked), TokenError> {
        let mut change = Change::new();
        let caller = permit.caller();
        let (own, now) = (caller.session() == session, self.clock.now());
        let (identity, until) = match self.table.read().session_of(Accessor::from_bytes(*session.as_bytes())) {
            Some((_, record)) => (Some(record.identity), record.expires()),
            None if own => (Some(caller.identity().id()), caller.expires()),
            None => (None, now.plus_secs(SEALED_TTL_MAX_SECS)),
        };
        self.end_sealed(&mut change, session, identity, until)?;
        if self.table.read().has(session) {
            self.require_live(&mut change, session);
            self.end_whole(&mut change, session);
        } else {
            // It may be about to be written down: one of the two waits for the other.
            change.require_absent(&self.sessions, &[Part::Raw(session.as_bytes())]);
        }
        Ok((change, revoked(1, vec![session])))
    }

    /// The stored session ends with all that it made.
    pub(super) fn end_whole(&self, change: &mut Change, session: SessionId) {
        let table = self.table.clone();
        change.urgent().delete(&self.sessions, &[Part::Raw(session.as_bytes())]);
        mark(change, &self.marks, session, Ended::Tree);
        change.then(move || table.write().revoke(session));
    }

    /// An identity by its name: id, groups, attributes. For `policy explain` and listings.
    pub fn identity(&self, name: &str) -> Option<(IdentityId, Arc<Principal>)> {
        self.table
            .read()
            .named(name)
            .map(|identity| (identity.id(), identity.principal()))
    }
}

fn revoked(tokens: usize, sessions: Vec<SessionId>) -> Revoked {
    Revoked {
        tokens: u64::try_from(tokens).unwrap_or(u64::MAX),
        sessions,
    }
}

/// Whether `text` can name an identity, group or attribute: `[a-z0-9][a-z0-9._-]{0,63}`.
pub fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .enumerate()
            .all(|(at, byte)| plain(byte) || (at > 0 && b"._-".contains(&byte)))
}
