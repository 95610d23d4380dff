//! From a proof that a log-in method believed to a token: sealed when it lives at most 15 minutes, stored otherwise.

use super::{
    TOKENS_MAX, TokenError, TokenRoom,
    issue::{Created, Life},
    marks,
    record::{self, LogInRecord, Mac, SessionRecord, TokenRecord},
    sealed::{self, Claims, SEALED_TTL_MAX_SECS},
    text::{self, TokenText},
};
use crate::{
    base::{
        id::{Accessor, IdentityId, SessionId, TrustId},
        limits::TOKEN_TTL_MAX_SECS,
    },
    policy::{Bound, Caller, Identity, LogIn, Permit, Principal, Purpose, Standing},
    store::{Change, Part},
};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Whom a log-in method has recognised, and what its trust gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// The trust's name, `[a-z0-9-]{1,48}`; the identity is called `login:NAME`.
    pub trust: String,
    /// Who, within the trust: for the stable id. An issuer's subject, a role, a certificate's name.
    pub subject: String,
    /// Groups that the trust gives.
    pub groups: BTreeSet<String>,
    /// What the proof says, for policies: `claim:NAME`, `login:method`, `login:trust`.
    pub attributes: BTreeMap<String, String>,
    /// 1 second to 24 hours.
    pub ttl_secs: u64,
    /// Renewals end there; at least `ttl_secs`. Both at most 15 minutes: the token is sealed.
    pub max_ttl_secs: u64,
    /// The session's leases end when it merely expires.
    pub end_leases: bool,
    /// The caller's key.
    pub bound: Option<Bound>,
}

/// A trust's id follows from its name: one that is made anew under an old name is still the one whose tokens were ended.
pub fn trust_id(name: &str) -> TrustId {
    TrustId::from_bytes(half(&[b"strongroom trust v1", name.as_bytes()]))
}

/// The stable id of a subject of a trust.
pub fn subject_id(trust: &str, subject: &str) -> IdentityId {
    IdentityId::from_bytes(half(&[b"strongroom subject v1", trust.as_bytes(), subject.as_bytes()]))
}

/// 128 bits of SHA-256 over the parts, each behind its length.
fn half(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digest: [u8; 32] = hash.finalize().into();
    let mut half = [0; 16];
    half.copy_from_slice(&digest[..16]);
    half
}

impl TokenRoom {
    /// The caller that a log-in makes of its bearer. Nothing exists yet but this value: [`Self::log_in`] makes the token.
    /// # Errors
    /// What the trust gives is more than policies can express.
    pub fn arrive(&self, arrival: Arrival) -> Result<Arc<Caller>, TokenError> {
        let now = self.clock.now();
        let (ttl, max_ttl) = (
            arrival.ttl_secs.min(TOKEN_TTL_MAX_SECS),
            arrival.max_ttl_secs.min(TOKEN_TTL_MAX_SECS),
        );
        let sealed = ttl <= SEALED_TTL_MAX_SECS && max_ttl <= SEALED_TTL_MAX_SECS;
        let (session, accessor) = if sealed {
            let session = sealed::session_id(&*self.random);
            (session, Accessor::from_bytes(*session.as_bytes()))
        } else {
            (SessionId::random(&*self.random), Accessor::random(&*self.random))
        };
        let id = subject_id(&arrival.trust, &arrival.subject);
        let name = format!("login:{}", arrival.trust);
        let principal = Principal::new(*id.as_bytes(), &name, arrival.groups, arrival.attributes)?;
        let expires = now.plus_secs(ttl);
        let standing = Standing {
            session,
            accessor,
            purpose: Purpose::Session,
            issued: now,
            proved: now,
            expires,
            max_expires: if sealed {
                expires
            } else {
                now.plus_secs(max_ttl.max(ttl))
            },
            log_in: Some(LogIn {
                trust: trust_id(&arrival.trust),
                sealed,
                end_leases: arrival.end_leases,
                bound: arrival.bound,
            }),
        };
        Ok(Arc::new(Caller::new(Arc::new(Identity::new(id, principal)), standing)))
    }

    /// The token of whoever arrived: sealed, and then nothing is changed; or stored.
    /// # Errors
    /// `Full`, `LogInTooLarge`.
    pub fn log_in(&self, permit: &Permit) -> Result<(Change, Created), TokenError> {
        let caller = permit.caller();
        let Some(log_in) = caller.log_in() else {
            return Err(TokenError::NotFound);
        };
        let (now, principal) = (caller.issued(), caller.identity().principal());
        if log_in.sealed {
            let claims = Claims {
                format: sealed::FORMAT,
                session: caller.session(),
                identity: caller.identity().id(),
                trust: log_in.trust,
                name: principal.name().to_owned(),
                groups: principal.groups().clone(),
                attributes: principal.attributes().clone(),
                issued: now,
                expires: caller.expires(),
                end_leases: log_in.end_leases,
                bound: log_in.bound,
            };
            let text = self.sealer.seal(&self.peppers.load(), &claims, &*self.random)?;
            let created = Created {
                text,
                accessor: caller.accessor(),
                session: caller.session(),
                ttl_secs: now.secs_until(caller.expires()),
                expires: caller.expires(),
            };
            return Ok((Change::new(), created));
        }
        if self.table.read().tokens() >= TOKENS_MAX {
            return Err(TokenError::Full("tokens"));
        }
        let life = Life {
            ttl_secs: now.secs_until(caller.expires()),
            max_expires: caller.max_expires(),
        };
        let mut record = session_record(caller, log_in);
        let created = self.add_as(&mut record, caller.session(), caller.accessor(), None, now, life);
        Ok((self.put_new(caller.session(), record)?, created))
    }

    /// A sealed session that is about to hold something outside is written down first, so that whatever ends it finds what it holds.
    /// `None`: it is stored already.
    /// # Errors
    /// The record cannot be encoded.
    pub fn keep(&self, caller: &Caller) -> Result<Option<Change>, TokenError> {
        let Some(log_in) = caller.log_in().filter(|log_in| log_in.sealed) else {
            return Ok(None);
        };
        let session = caller.session();
        if self.table.read().has(session) {
            return Ok(None);
        }
        let mut record = session_record(caller, log_in);
        let token = TokenRecord {
            // The token opens by itself; nothing is found under this.
            mac: Mac(Sha256::digest([&b"sealed"[..], session.as_bytes()].concat()).into()),
            epoch: 0,
            parent: None,
            issued: caller.issued(),
            expires: caller.expires(),
            max_expires: caller.expires(),
            ttl_secs: caller.issued().secs_until(caller.expires()),
        };
        record.tokens.insert(caller.accessor(), token);
        let mut change = self.put_new(session, record)?;
        change.require_absent(&self.marks, &[marks::ENDED, Part::Raw(session.as_bytes())]);
        let known = self.log_ins.clone();
        // A watermark may have moved meanwhile: the sweep looks.
        change.then(move || known.write().recheck = true);
        Ok(Some(change))
    }

    /// A fresh secret id for an app role, and the keyed hash to keep it as.
    pub fn make_secret_id(&self) -> (TokenText, [u8; 32]) {
        let text = TokenText::secret_id(&*self.random);
        let mac = self.peppers.load().candidates(text.expose().as_bytes()).next();
        (text, mac.map_or([0; 32], |(mac, _)| mac.0))
    }

    /// What a presented secret id may be kept as; empty for what is none.
    pub fn secret_id_macs(&self, text: &[u8]) -> Vec<[u8; 32]> {
        if !text::is_secret_id(text) {
            return Vec::new();
        }
        self.peppers.load().candidates(text).map(|(mac, _)| mac.0).collect()
    }

    /// Ends a session that a log-in began, wherever it is kept: a copy of its proof has turned up.
    /// # Errors
    /// `Full`.
    pub fn end_session(&self, session: SessionId) -> Result<Change, TokenError> {
        let mut change = Change::new();
        if sealed::session_of(Accessor::from_bytes(*session.as_bytes())).is_some() {
            self.end_sealed(
                &mut change,
                session,
                None,
                self.clock.now().plus_secs(SEALED_TTL_MAX_SECS),
            )?;
        }
        if self.table.read().has(session) {
            self.require_live(&mut change, session);
            self.end_whole(&mut change, session);
        }
        Ok(change)
    }

    fn put_new(&self, session: SessionId, record: SessionRecord) -> Result<Change, TokenError> {
        let key = [Part::Raw(session.as_bytes())];
        let (mut change, table) = (Change::new(), self.table.clone());
        change
            .require_absent(&self.sessions, &key)
            .put(&self.sessions, &key, record::encode(&record)?);
        change.then(move || table.write().put(session, record));
        Ok(change)
    }

    /// Whose a sealed token is. Opened ones are kept for a while, by the digest of their text.
    pub(super) fn identify_sealed(&self, text: &str) -> Result<Arc<Caller>, super::Unidentified> {
        use super::Unidentified;
        let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        if let Some(caller) = self.opened.get(&digest) {
            return Ok(caller);
        }
        let claims = self.sealer.open(&self.peppers.load(), text, self.clock.now())?;
        let principal = Principal::new(
            *claims.identity.as_bytes(),
            &claims.name,
            claims.groups,
            claims.attributes,
        )
        .map_err(|_| Unidentified::Malformed)?;
        let standing = Standing {
            session: claims.session,
            accessor: Accessor::from_bytes(*claims.session.as_bytes()),
            purpose: Purpose::Session,
            issued: claims.issued,
            proved: claims.issued,
            expires: claims.expires,
            max_expires: claims.expires,
            log_in: Some(LogIn {
                trust: claims.trust,
                sealed: true,
                end_leases: claims.end_leases,
                bound: claims.bound,
            }),
        };
        let caller = Arc::new(Caller::new(
            Arc::new(Identity::new(claims.identity, principal)),
            standing,
        ));
        self.opened.insert(digest, Arc::clone(&caller));
        Ok(caller)
    }
}

fn session_record(caller: &Caller, log_in: LogIn) -> SessionRecord {
    let principal = caller.identity().principal();
    let mut record = SessionRecord::new(
        caller.identity().id(),
        Purpose::Session,
        caller.issued(),
        log_in.end_leases,
        None,
    );
    record.log_in = Some(LogInRecord {
        trust: log_in.trust,
        name: principal.name().to_owned(),
        groups: principal.groups().clone(),
        attributes: principal.attributes().clone(),
        sealed: log_in.sealed,
        bound: log_in.bound,
    });
    record
}
