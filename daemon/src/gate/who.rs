//! Where a call comes from and what it carries, before anybody believes it.

use super::{Failure, Gate, Place, Reason};
pub use crate::audit::Source;
use crate::{
    auth::{self, Flaw},
    base::{id::RequestId, secret::SecretBytes},
    policy::Bound,
};
use std::fmt;
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

/// Ends a connection without another answer.
#[derive(Debug, Clone, Default)]
pub struct Doom(Arc<AtomicBool>);

impl Doom {
    /// The connection carries nothing more.
    pub fn seal(&self) {
        self.0.store(true, Ordering::Release);
    }
    /// Whether it has come.
    pub fn has_come(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The connection a call came in on.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Taken from the socket, never from headers.
    pub source: Source,
    /// Its end, at will.
    pub doom: Doom,
    /// The client's certificates, leaf first, DER; empty: none. The handshake proved the leaf's key and nothing else.
    pub chain: Arc<[Box<[u8]>]>,
}

/// An idempotency key, with a digest of what it was sent with.
#[derive(Debug, Clone)]
pub struct ChangeKey {
    /// The caller's text, at most [`crate::base::limits::IDEMPOTENCY_KEY_BYTES_MAX`] bytes.
    pub text: Box<str>,
    /// SHA-256 of the message without the key.
    pub content: [u8; 32],
}

/// One call: its origin, its id, and the token it presents, if any.
#[derive(Debug)]
pub struct Call {
    /// Where it came from.
    pub origin: Origin,
    /// Its id in logs and in the audit log.
    pub id: RequestId,
    /// The DPoP proof that came with it.
    pub shown: Option<Arc<Shown>>,
    /// The bearer token as presented; nothing is known of it yet.
    pub token: Option<SecretBytes>,
    /// Names a change, so that asking twice makes it once.
    pub key: Option<ChangeKey>,
    /// `None` for what the daemon asks itself.
    pub place: Option<Place>,
}

/// A DPoP proof as it came. It is looked at once, and only for a token that is bound to a key, or a log-in that asks for one: whoever has no such
/// token makes nobody verify or remember anything.
pub struct Shown {
    gate: Arc<Gate>,
    proof: String,
    path: Arc<str>,
    found: OnceLock<Result<[u8; 32], Flaw>>,
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shown(for {})", self.path)
    }
}

impl Shown {
    /// For a call of `path`.
    pub fn new(gate: Arc<Gate>, proof: &str, path: Arc<str>) -> Arc<Self> {
        Arc::new(Self {
            gate,
            proof: proof.to_owned(),
            path,
            found: OnceLock::new(),
        })
    }
}

impl Call {
    /// The key whose holder signed a proof for this very call (RFC 7638 thumbprint); with `expected`, only if it is that one.
    /// # Errors
    /// What is wrong with the proof.
    pub fn key_held(&self, expected: Option<[u8; 32]>) -> Result<[u8; 32], Flaw> {
        let shown = self.shown.as_ref().ok_or(Flaw::Absent)?;
        let take = || {
            shown
                .gate
                .key_of(&shown.proof, &shown.path, self.token.as_ref(), expected)
        };
        *shown.found.get_or_init(take)
    }

    /// What was wrong with its proof, if one was looked at.
    pub fn flaw(&self) -> Option<Flaw> {
        self.shown.as_ref()?.found.get()?.err()
    }

    /// Makes sure that the caller holds the key that a token is bound to.
    /// # Errors
    /// `Possession`; `UseDpopNonce` when only the nonce is missing.
    pub fn holds(&self, bound: Bound) -> Result<(), Failure> {
        let held = match bound {
            Bound::Certificate(digest) => self.certificate() == Some(digest),
            Bound::Key(thumbprint) => match self.key_held(Some(thumbprint)) {
                Err(Flaw::Nonce) => return Err(Reason::UseDpopNonce.into()),
                found => found == Ok(thumbprint),
            },
        };
        if held { Ok(()) } else { Err(Reason::Possession.into()) }
    }

    /// SHA-256 of the connection's client certificate.
    pub fn certificate(&self) -> Option<[u8; 32]> {
        self.origin.chain.first().map(|leaf| auth::thumbprint(leaf))
    }
}

/// Whether the peer is root, or runs as the daemon itself, on the Unix socket.
pub fn is_owner(source: &Source) -> bool {
    match source {
        Source::Unix(uid) => *uid == 0 || *uid == rustix::process::geteuid().as_raw(),
        Source::Tls(_) => false,
    }
}
