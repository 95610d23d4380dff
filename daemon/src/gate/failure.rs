//! What a caller is told when a request fails: a reason from a fixed list (docs/ERRORS.md), a text that says what to do next, and no cause.
//! Causes go to the daemon's log. One match in `outcome.rs` turns a reason into a gRPC code.

use std::{borrow::Cow, time::Duration};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $text:literal;)*) => {
        /// Every way a request can fail, as callers see it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }
        impl Reason {
            /// All of them, for the documentation's test.
            pub const ALL: &[Self] = &[$(Self::$name),*];
            /// The word on the wire (`google.rpc.ErrorInfo.reason`) and in the audit log.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
            /// What a caller reads when there is nothing more exact to say.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// The request is not well-formed.
    Malformed = "MALFORMED", "the request is not well-formed";
    /// No token, or none that lives.
    Unauthenticated = "TOKEN_INVALID", "the token is missing, unknown, expired or revoked: log in again";
    /// The token is bound to a key, and the call does not show that its caller holds it.
    Possession = "POSSESSION", "the token is bound to a key: present its client certificate, or a fresh DPoP proof for this call";
    /// The proof is good, but for a nonce of the daemon's (RFC 9449, 8).
    UseDpopNonce = "USE_DPOP_NONCE", "the DPoP proof must carry the nonce that stands in this answer's metadata `dpop-nonce`: sign it again with that";
    /// A proof that nobody believes.
    LoginRefused = "LOGIN_REFUSED", "the log-in was refused; the audit log says why, `strongroom ci explain` too";
    /// The person has not answered the provider yet.
    LoginPending = "LOGIN_PENDING", "nobody has confirmed the code yet: ask again after the interval";
    /// The provider is asked too often.
    LoginSlowDown = "LOGIN_SLOW_DOWN", "nobody has confirmed the code yet: from now on ask five seconds less often";
    /// Not allowed, or not there: the two answer alike.
    Denied = "DENIED", "permission denied, or there is no such thing; `strongroom policy explain` shows what you may do";
    /// A policy would allow it after another log-in.
    StepUpRequired = "STEP_UP_REQUIRED", "a policy asks for a newer or a stronger log-in: log in again, then ask once more";
    /// Policies are damaged: nothing is decided on a part of them.
    PoliciesDamaged = "POLICIES_DAMAGED", "a policy record is missing or damaged, so everything is refused: an operator runs `strongroom operator recover`";
    /// Not there, told to somebody who may know.
    NotFound = "NOT_FOUND", "there is no such thing";
    /// There already.
    AlreadyExists = "ALREADY_EXISTS", "it exists already";
    /// Check-and-set, or another writer, came first.
    Conflict = "CONFLICT", "it was changed meanwhile: read it again and decide anew";
    /// The state does not allow it.
    NotPossible = "NOT_POSSIBLE", "this cannot be done in the present state";
    /// A method that this daemon does not have.
    UnknownMethod = "UNKNOWN_METHOD", "this daemon has no such method: client and daemon may be of different versions";
    /// Over a limit of size.
    TooLarge = "TOO_LARGE", "larger than the limit";
    /// The vault is sealed.
    Sealed = "SEALED", "the vault is sealed: operators unseal it with `strongroom operator unseal`";
    /// The vault does not exist yet.
    Blank = "BLANK", "the vault is not initialised: run `strongroom operator init` on the machine itself";
    /// Only over the Unix socket, from root or the daemon's own user.
    OwnerOnly = "OWNER_ONLY", "only root, or the daemon's own user, may do this, over the Unix socket";
    /// A share, a session or a slot was refused.
    FactorRefused = "FACTOR_REFUSED", "the factor was refused";
    /// The HSM does not answer.
    HsmUnavailable = "HSM_UNAVAILABLE", "the HSM does not answer: `strongroom operator status` says more";
    /// The HSM refused the PIN; it is not tried again by itself.
    HsmPinRefused = "HSM_PIN_REFUSED", "the HSM refused the PIN, and no other try is made: correct it, then `strongroom operator forgive-pin HSM` on the daemon's machine";
    /// Too many requests at once.
    Overloaded = "OVERLOADED", "too many requests at once: try again in a moment";
    /// A rate is used up.
    RateLimited = "RATE_LIMITED", "asked too often: wait as long as the answer says, then try again";
    /// A quota or a bounded table is used up.
    Exhausted = "EXHAUSTED", "a limit is reached";
    /// Free space is below the reserve.
    StorageFull = "STORAGE_FULL", "the disk is nearly full: free some space, service resumes by itself";
    /// The store failed and is being mended, or stands still.
    StorageUnavailable = "STORAGE_UNAVAILABLE", "the storage engine does not answer: `strongroom operator status` says more";
    /// Nobody knows whether it was made.
    Indeterminate = "INDETERMINATE", "whether the change was made is not known yet: look before trying again";
    /// A record did not open; it is in quarantine.
    Damaged = "DAMAGED", "a stored record is damaged and is refused; an operator finds it in the quarantine list";
    /// The audit log takes no records.
    AuditUnavailable = "AUDIT_UNAVAILABLE", "the audit log takes no records, so nothing is answered: see the runbook `audit-disk-full`";
    /// The target of a credential does not answer.
    TargetUnavailable = "TARGET_UNAVAILABLE", "the target system does not answer: try again";
    /// The target refused; the configuration or its grants are wrong.
    TargetRefused = "TARGET_REFUSED", "the target system refused: an operator runs `strongroom mount config --test`";
    /// The same idempotency key was used before, and its answer cannot be given again.
    AlreadyDone = "ALREADY_DONE", "this idempotency key was used already, and its answer is given only once";
    /// The deadline passed.
    Deadline = "DEADLINE", "the deadline passed before the answer was ready";
    /// The daemon is going down.
    Stopping = "STOPPING", "the daemon is stopping: connect again in a moment";
    /// A fault of ours.
    Internal = "INTERNAL", "an internal error: the daemon's log has the cause under this request id";
}

/// A failed request.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Which of the fixed reasons.
    pub reason: Reason,
    /// What the caller reads. Never a secret, never a cause.
    pub message: Cow<'static, str>,
    /// When trying again makes sense.
    pub retry_after: Option<Duration>,
    /// Of `StepUpRequired`: what is asked for, in the words of policies.
    pub needs: Vec<&'static str>,
}

impl Failure {
    /// With the reason's own text.
    pub const fn new(reason: Reason) -> Self {
        Self {
            reason,
            message: Cow::Borrowed(reason.text()),
            retry_after: None,
            needs: Vec::new(),
        }
    }
    /// With a more exact text, safe for the caller to read.
    pub fn with(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            message: message.into(),
            retry_after: None,
            needs: Vec::new(),
        }
    }
    /// Trying again makes sense after this long.
    #[must_use]
    pub const fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }
    /// These would help.
    #[must_use]
    pub fn needing(mut self, needs: Vec<&'static str>) -> Self {
        self.needs = needs;
        self
    }
    /// A fault of ours: the cause goes to the log, the caller reads the fixed text.
    pub fn internal(cause: &dyn std::error::Error) -> Self {
        tracing::error!(cause = %chain(cause), "internal error");
        Self::new(Reason::Internal)
    }
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self::new(reason)
    }
}

/// An error with its sources, for the daemon's log.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
