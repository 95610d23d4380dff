//! What can go wrong with trusts. A log-in that is refused is no error of this kind: see [`super::Refused`].

use crate::{base::locked::LockError, policy::Mismatch, store::StoreError, token::TokenError};

/// An error of the auth room. Texts may be shown to whoever holds the permit.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// A name outside the alphabet.
    #[error("a trust's name is 1 to 48 of a-z 0-9 -")]
    Name,
    /// The definition does not parse.
    #[error("the definition is not understood: {0}")]
    Definition(String),
    /// It parses, and must not be believed. Every reason.
    #[error("the trust is refused:\n- {}", .0.join("\n- "))]
    Refused(Vec<String>),
    /// Another trust names this issuer.
    #[error("the trust `{0}` names this issuer already: one trust an issuer, with several bindings")]
    IssuerTaken(String),
    /// No such trust.
    #[error("there is no such trust")]
    NotFound,
    /// Check-and-set.
    #[error("the trust is at version {current}, not {wanted}")]
    Cas {
        /// As it is; 0: there is none.
        current: u64,
        /// As the caller thought.
        wanted: u64,
    },
    /// As many trusts as are kept.
    #[error("the vault keeps at most {0} trusts")]
    Full(usize),
    /// Not an app role.
    #[error("only a trust with `role` has secret ids")]
    NotARole,
    /// A life beyond the limit.
    #[error("a secret id lives 1 second to 24 hours")]
    SecretTtl,
    /// Not a network.
    #[error("a network is ADDRESS/BITS, at most 16 of them")]
    Network,
    /// As many secret ids as are kept.
    #[error("the vault keeps at most {0} secret ids")]
    SecretsFull(usize),
    /// A permit for something else.
    #[error(transparent)]
    Permit(#[from] Mismatch),
    /// Groups that the writer may not give, or bounds of identities.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A record could not be written as bytes.
    #[error("the record cannot be encoded")]
    Encode(#[from] serde_json::Error),
    /// No memory for a key.
    #[error("no memory can be locked")]
    Lock(#[from] LockError),
    /// A client secret for a trust that has no client.
    #[error("only a trust with `oidc` has a client secret")]
    NotAClient,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}
