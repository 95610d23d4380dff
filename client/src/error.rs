//! What can go wrong, by what the caller should do about it.

use crate::connect::ConnectFailure;
use std::{error::Error as StdError, fmt, time::Duration};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// `google.rpc.ErrorInfo.domain` of the daemon's errors.
const DOMAIN: &str = "strongroom";

/// Why a call was refused: the daemon's stable reason and its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Stable, upper case (`SEALED`), listed in docs/ERRORS; empty when the answer did not come from Strongroom.
    pub reason: String,
    /// For people: what happened and what to do next. Never contains secrets.
    pub message: String,
    /// Under which the daemon's log tells the cause; empty when the answer did not come from Strongroom.
    pub request_id: String,
    /// How long the daemon asks to wait before trying again.
    pub retry_after: Option<Duration>,
    /// Of `STEP_UP_REQUIRED`: `recent` (log in again), `bound` (with a key), `stronger` (in a way that proves more).
    pub step_up: Vec<String>,
}

impl Refusal {
    pub(crate) fn local(reason: &str, message: impl Into<String>) -> Self {
        Self {
            reason: reason.to_owned(),
            message: message.into(),
            request_id: String::new(),
            retry_after: None,
            step_up: Vec::new(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// An error of a call or of connecting. Displays the message; [`Error::next_step`] says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No token, or one that is unknown, expired or revoked.
    #[error("not authenticated: {0}")]
    Unauthenticated(Refusal),
    /// Policy refuses, or the thing does not exist: the daemon does not tell which.
    #[error("denied: {0}")]
    Denied(Refusal),
    /// The vault is sealed: operators must unseal it.
    #[error("sealed: {0}")]
    Sealed(Refusal),
    /// The vault was never initialised.
    #[error("not initialised: {0}")]
    Blank(Refusal),
    /// No such thing, told to a caller who may know.
    #[error("not found: {0}")]
    NotFound(Refusal),
    /// A precondition does not hold: check-and-set, already exists, still in use.
    #[error("conflict: {0}")]
    Conflict(Refusal),
    /// The request itself is wrong; repeating it cannot help.
    #[error("invalid: {0}")]
    Invalid(Refusal),
    /// A limit: rate, quota, size, disk space. Try again later, or with less.
    #[error("exhausted: {0}")]
    Exhausted(Refusal),
    /// Not reachable, overloaded or timed out; nothing was changed.
    #[error("unavailable: {0}")]
    Unavailable(Refusal),
    /// A change was sent and its outcome is not known: read back before repeating it.
    #[error("indeterminate: {0}")]
    Indeterminate(Refusal),
    /// The server does not know this call: its version differs too much.
    #[error("unsupported: {0}")]
    Unsupported(Refusal),
    /// A fault inside the daemon.
    #[error("internal: {0}")]
    Internal(Refusal),
    /// The server's certificate is not trusted, or TLS failed.
    #[error("TLS: {0}")]
    Tls(String),
    /// Wrong address, unreadable CA or token: nothing was sent.
    #[error("configuration: {0}")]
    Config(String),
}

/// Where the kind alone would send people to the wrong place.
fn next_by_reason(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "TARGET_UNAVAILABLE" => {
            "the daemon is well, the target does not answer it: look at the target and its network; `strongroom doctor` asks each"
        }
        "TARGET_REFUSED" => {
            "look at the mount's account in the target: `strongroom mount config MOUNT --test` runs the whole cycle"
        }
        "HSM_UNAVAILABLE" => {
            "look at the HSM and its module: `strongroom operator status` tells what it met, runbook lost-hsm what to do"
        }
        "HSM_PIN_REFUSED" => {
            "correct the PIN where the configuration takes it from, then `strongroom operator forgive-pin HSM` on the daemon's host"
        }
        "AUDIT_UNAVAILABLE" | "STORAGE_FULL" => {
            "make room on the daemon's disk (runbook audit-disk-full); service resumes by itself"
        }
        "OWNER_ONLY" => {
            "run it on the daemon's host as root, over the Unix socket: `--address unix:/run/strongroom/strongroom.sock`"
        }
        "NOT_POSSIBLE" => "do what the message says first; repeating it unchanged cannot work",
        _ => return None,
    })
}

impl Error {
    /// A stable lower-case word for the kind (`denied`), as in the CLI's JSON.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unauthenticated(_) => "unauthenticated",
            Self::Denied(_) => "denied",
            Self::Sealed(_) => "sealed",
            Self::Blank(_) => "blank",
            Self::NotFound(_) => "not_found",
            Self::Conflict(_) => "conflict",
            Self::Invalid(_) => "invalid",
            Self::Exhausted(_) => "exhausted",
            Self::Unavailable(_) => "unavailable",
            Self::Indeterminate(_) => "indeterminate",
            Self::Unsupported(_) => "unsupported",
            Self::Internal(_) => "internal",
            Self::Tls(_) => "tls",
            Self::Config(_) => "config",
        }
    }

    /// The refusal, unless the error arose here.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Unauthenticated(r)
            | Self::Denied(r)
            | Self::Sealed(r)
            | Self::Blank(r)
            | Self::NotFound(r)
            | Self::Conflict(r)
            | Self::Invalid(r)
            | Self::Exhausted(r)
            | Self::Unavailable(r)
            | Self::Indeterminate(r)
            | Self::Unsupported(r)
            | Self::Internal(r) => Some(r),
            Self::Tls(_) | Self::Config(_) => None,
        }
    }

    /// The daemon's stable reason (docs/ERRORS), when there is one.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.refusal()
            .map(|r| r.reason.as_str())
            .filter(|reason| !reason.is_empty())
    }

    /// What to do about this error, in one sentence: by its reason where that says more than its kind.
    #[must_use]
    pub fn next_step(&self) -> &'static str {
        if let Some(next) = self.reason().and_then(next_by_reason) {
            return next;
        }
        match self {
            Self::Unauthenticated(_) => "get a fresh token; the one sent is missing, expired or revoked",
            Self::Denied(r) if r.step_up.iter().any(|word| word == "bound") => {
                "log in with a key: `strongroom login METHOD TRUST --dpop` (or `--bind`), then repeat"
            }
            Self::Denied(r) if r.reason == "STEP_UP_REQUIRED" => {
                "log in again: `strongroom login METHOD TRUST`, then repeat"
            }
            Self::Denied(_) => "check the path, then ask an administrator; `policy explain` names the rules",
            Self::Sealed(_) => "operators must unseal the vault: `strongroom operator unseal`",
            Self::Blank(_) => "initialise the vault on its host: `strongroom operator init`",
            Self::NotFound(_) => "check the name; listing the folder above shows what there is",
            Self::Conflict(_) => "read the present state, then decide whether to repeat",
            Self::Invalid(_) => "correct the request; repeating it unchanged cannot work",
            Self::Exhausted(_) => "wait and try again, or ask for less at once",
            Self::Unavailable(_) => "check that the daemon runs and is reachable: `strongroom doctor`",
            Self::Indeterminate(_) => "read back what was changed before repeating it",
            Self::Unsupported(_) => "use a client and a daemon of versions that differ by at most one minor",
            Self::Internal(_) => "look at the daemon's log; the request id there tells which call it was",
            Self::Tls(_) => "check the CA certificate and that the address names the server's certificate",
            Self::Config(_) => "correct the setting that is named",
        }
    }

    /// Whether the same *idempotent* call may be sent again after a pause: nobody was there, or the daemon said when to come again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
            || matches!(self, Self::Exhausted(refusal) if refusal.retry_after.is_some())
    }

    /// How long the daemon asked to wait before the next call (`google.rpc.RetryInfo`); zero when it did not.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        self.refusal()
            .and_then(|refusal| refusal.retry_after)
            .unwrap_or_default()
    }

    /// An error of connecting, told by its cause.
    pub(crate) fn from_transport(error: &(dyn StdError + 'static), address: &str) -> Self {
        match find::<ConnectFailure>(error) {
            Some(ConnectFailure::Tls(why)) => Self::Tls(format!("{address}: {why}")),
            Some(ConnectFailure::Reach(why)) => {
                Self::Unavailable(Refusal::local("CONNECT", format!("cannot reach {address}: {why}")))
            }
            None => Self::Unavailable(Refusal::local(
                "CONNECT",
                format!("cannot reach {address}: {}", deepest(error)),
            )),
        }
    }

    /// The answer of a call. A `Status` that Strongroom sent carries its reason; one that the
    /// transport made does not.
    pub(crate) fn from_status(status: &Status, address: &str) -> Self {
        // A status with a source was made by the transport, not sent by a server.
        if let Some(source) = status.source() {
            if find::<tonic::ConnectError>(source).is_some() {
                return Self::from_transport(source, address);
            }
            let words = match find::<tonic::TimeoutExpired>(source) {
                Some(_) => format!("no answer from {address} in time"),
                None => format!("the connection to {address} broke: {}", deepest(source)),
            };
            return Self::Unavailable(Refusal::local("CONNECTION_LOST", words));
        }
        let mut refusal = Refusal::local("", status.message());
        if refusal.message.is_empty() {
            status.code().description().clone_into(&mut refusal.message);
        }
        if let Some(mut info) = status.get_details_error_info().filter(|info| info.domain == DOMAIN) {
            refusal.request_id = info.metadata.remove("request_id").unwrap_or_default();
            let words = info.metadata.remove("step_up").unwrap_or_default();
            refusal.step_up = words.split_terminator(',').map(str::to_owned).collect();
            refusal.reason = info.reason;
        }
        refusal.retry_after = status.get_details_retry_info().and_then(|info| info.retry_delay);
        Self::from_reason(refusal, status.code())
    }

    /// The reason decides where it says more than the code; otherwise the code does.
    pub(crate) fn from_reason(refusal: Refusal, code: Code) -> Self {
        match refusal.reason.as_str() {
            "SEALED" => return Self::Sealed(refusal),
            "BLANK" => return Self::Blank(refusal),
            // ALREADY_DONE: an earlier attempt made the change, and its answer is lost.
            "INDETERMINATE" | "ALREADY_DONE" => return Self::Indeterminate(refusal),
            _ => {}
        }
        match code {
            Code::Unauthenticated => Self::Unauthenticated(refusal),
            Code::PermissionDenied => Self::Denied(refusal),
            Code::NotFound => Self::NotFound(refusal),
            Code::AlreadyExists | Code::Aborted | Code::FailedPrecondition => Self::Conflict(refusal),
            Code::InvalidArgument | Code::OutOfRange => Self::Invalid(refusal),
            Code::ResourceExhausted => Self::Exhausted(refusal),
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Self::Unavailable(refusal),
            Code::Unimplemented => Self::Unsupported(refusal),
            Code::Unknown | Code::Internal | Code::DataLoss | Code::Ok => Self::Internal(refusal),
        }
    }
}

/// The first cause of type `T`, the error itself included.
pub(crate) fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The words of the last cause, which are the most concrete.
fn deepest(error: &(dyn StdError + 'static)) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use tonic_types::ErrorDetails;

    fn status(code: Code, reason: &str, domain: &str) -> Status {
        let details = ErrorDetails::with_error_info(reason, domain, HashMap::new());
        Status::with_error_details(code, "words", details)
    }

    /// Every code, with and without a reason, becomes the kind that callers match on.
    #[test]
    fn codes_and_reasons_become_kinds() {
        let table = [
            (Code::Unauthenticated, "TOKEN_INVALID", "unauthenticated"),
            (Code::PermissionDenied, "DENIED", "denied"),
            (Code::FailedPrecondition, "SEALED", "sealed"),
            (Code::FailedPrecondition, "BLANK", "blank"),
            (Code::AlreadyExists, "ALREADY_DONE", "indeterminate"),
            (Code::FailedPrecondition, "NOT_POSSIBLE", "conflict"),
            (Code::AlreadyExists, "ALREADY_EXISTS", "conflict"),
            (Code::Aborted, "", "conflict"),
            (Code::InvalidArgument, "MALFORMED", "invalid"),
            (Code::ResourceExhausted, "STORAGE_FULL", "exhausted"),
            (Code::Unavailable, "", "unavailable"),
            (Code::DeadlineExceeded, "", "unavailable"),
            (Code::Unknown, "INDETERMINATE", "indeterminate"),
            (Code::Unimplemented, "", "unsupported"),
            (Code::Internal, "", "internal"),
            (Code::NotFound, "NOT_FOUND", "not_found"),
        ];
        for (code, reason, kind) in table {
            let error = Error::from_status(&status(code, reason, DOMAIN), "unix:/x");
            assert_eq!(error.kind(), kind, "{code:?} {reason}");
            assert!(!error.next_step().is_empty());
            assert!(error.to_string().ends_with("words"), "{error}");
        }
    }

    /// A reason of somebody else's domain (a proxy) is not taken for ours.
    #[test]
    fn foreign_reasons_are_ignored() {
        let error = Error::from_status(&status(Code::Unavailable, "SEALED", "proxy.example"), "a");
        assert_eq!((error.kind(), error.reason()), ("unavailable", None));
    }

    /// The request id and the pause that the daemon asks for come through.
    #[test]
    fn details_come_through() {
        let metadata = HashMap::from([("request_id".to_owned(), "0af3".to_owned())]);
        let mut details = ErrorDetails::with_error_info("STORAGE_FULL", DOMAIN, metadata);
        details.set_retry_info(Some(Duration::from_secs(2)));
        let status = Status::with_error_details(Code::ResourceExhausted, "words", details);
        let error = Error::from_status(&status, "a");
        let refusal = error.refusal().unwrap();
        assert_eq!(refusal.request_id, "0af3");
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(2)));
    }

    #[test]
    fn an_empty_message_still_says_something() {
        let error = Error::from_status(&Status::new(Code::NotFound, ""), "a");
        assert!(error.to_string().len() > "not found: ".len(), "{error}");
    }
}
