//! What can go wrong with tokens.

use crate::{
    base::{limits::TOKEN_TTL_MAX_SECS, locked::LockError},
    policy::Mismatch,
    store::StoreError,
};
use strongroom_policy::PrincipalError;

/// Why a text is not the token of a caller. For the audit record; callers all hear the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unidentified {
    /// Not the length, alphabet or checksum of a token.
    #[error("not a token")]
    Malformed,
    /// Nobody's: never made, revoked, or swept.
    #[error("no such token")]
    Unknown,
    /// It was one.
    #[error("the token has expired")]
    Expired,
}

/// An error of the token room. Texts may be shown to whoever holds the permit.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// No such token, or it has ended.
    #[error("there is no such token, or it has ended")]
    NotFound,
    /// No such identity.
    #[error("there is no such identity")]
    NoIdentity,
    /// A name outside the alphabet.
    #[error("{what} is 1 to 64 of a-z 0-9 . _ -, and begins with a letter or digit")]
    Name {
        /// Of what.
        what: &'static str,
    },
    /// `setup` and `recover` are the vault's own identities.
    #[error("the names `setup` and `recover` are the vault's own")]
    ReservedName,
    /// A life beyond the limit.
    #[error("a token lives at most {} hours", TOKEN_TTL_MAX_SECS / 3600)]
    Ttl,
    /// A group or attribute that the caller neither has nor may manage.
    #[error("to give or take away {what} you must have it yourself, or be permitted `token_create` on `{path}`")]
    NotYours {
        /// `group` or `attribute`, with its name.
        what: String,
        /// Where a policy can permit it.
        path: String,
    },
    /// Groups and attributes belong to an identity, which a child token does not change.
    #[error("a token for yourself takes your own groups and attributes: name an identity to set them")]
    ChildIdentity,
    /// `end_leases` is of a session.
    #[error(
        "`end_leases` belongs to a session and this session was made without it: name an identity to begin another session"
    )]
    EndLeases,
    /// What is sealed is not changed.
    #[error("a sealed token is neither renewed nor the maker of others: log in again")]
    Sealed,
    /// What the log-in says does not fit into a token.
    #[error("the log-in's groups and claims are more than a token holds (3 KiB): let the trust give fewer")]
    LogInTooLarge,
    /// The identity breaks a bound.
    #[error(transparent)]
    Principal(#[from] PrincipalError),
    /// The session has all the tokens it may.
    #[error("a session has at most {0} live tokens: revoke some, or let them expire")]
    SessionFull(usize),
    /// All tokens the daemon keeps, or all identities.
    #[error("the vault has as many {0} as it keeps")]
    Full(&'static str),
    /// A permit for something else.
    #[error(transparent)]
    Permit(#[from] Mismatch),
    /// A stored record is not what it should be.
    #[error("the record of the {0} is damaged")]
    Damaged(&'static str),
    /// A record could not be written as bytes.
    #[error("the record cannot be encoded")]
    Encode(#[from] serde_json::Error),
    /// No locked memory for the pepper.
    #[error(transparent)]
    Memory(#[from] LockError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}
