//! How a command fails: an exit code, a message, and what to do next.

use serde_json::{Value, json};
use strongroom_client::Error;

/// Exit codes, a contract with scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// Everything without a code of its own.
    Other,
    /// Wrong arguments or settings; nothing was sent.
    Usage,
    /// Not authenticated, or policy refuses.
    Denied,
    /// Not reachable, overloaded, timed out.
    Unavailable,
    /// The vault is sealed or was never initialised.
    Sealed,
    /// What a command that was run ended with.
    Child(u8),
}

impl Exit {
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Other => 1,
            Self::Usage => 2,
            Self::Denied => 3,
            Self::Unavailable => 4,
            Self::Sealed => 5,
            Self::Child(code) => code,
        }
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    pub kind: &'static str,
    pub reason: Option<String>,
    pub request_id: Option<String>,
    pub message: String,
    pub next: String,
    pub exit: Exit,
}

impl Failure {
    /// Wrong arguments, files or settings.
    pub fn usage(message: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            kind: "usage",
            reason: None,
            request_id: None,
            message: message.into(),
            next: next.into(),
            exit: Exit::Usage,
        }
    }

    /// Anything that is neither the caller's nor the daemon's doing.
    pub fn other(message: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            kind: "other",
            reason: None,
            request_id: None,
            message: message.into(),
            next: next.into(),
            exit: Exit::Other,
        }
    }

    /// Says first what was being done.
    #[must_use]
    pub fn during(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Another next step than the general one.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = next.into();
        self
    }

    /// As one JSON object, documented in the client's README.
    pub fn json(&self) -> Value {
        json!({ "error": {
            "kind": self.kind,
            "reason": self.reason,
            "request_id": self.request_id,
            "message": self.message,
            "next": self.next,
            "exit_code": self.exit.code(),
        }})
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match &error {
            Error::Unauthenticated(_) | Error::Denied(_) => Exit::Denied,
            Error::Unavailable(_) | Error::Tls(_) => Exit::Unavailable,
            Error::Sealed(_) | Error::Blank(_) => Exit::Sealed,
            Error::Config(_) => Exit::Usage,
            _ => Exit::Other,
        };
        let next = match &error {
            Error::Unauthenticated(_) => "save a fresh token with `strongroom token save`",
            Error::Tls(_) => "name the daemon's CA with --ca-cert; `strongroom doctor` shows each step",
            other => other.next_step(),
        };
        Self {
            kind: error.kind(),
            reason: error.reason().map(str::to_owned),
            request_id: error
                .refusal()
                .map(|r| r.request_id.clone())
                .filter(|id| !id.is_empty()),
            message: error.to_string(),
            next: next.to_owned(),
            exit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_client::Refusal;

    /// The codes that scripts depend on (design: Process).
    #[test]
    fn errors_become_the_documented_exit_codes() {
        let r = || Refusal {
            reason: "R".into(),
            message: "words".into(),
            request_id: String::new(),
            retry_after: None,
            step_up: Vec::new(),
        };
        for (error, code) in [
            (Error::Unauthenticated(r()), 3),
            (Error::Denied(r()), 3),
            (Error::Sealed(r()), 5),
            (Error::Blank(r()), 5),
            (Error::Unavailable(r()), 4),
            (Error::Tls("words".into()), 4),
            (Error::Config("words".into()), 2),
            (Error::NotFound(r()), 1),
            (Error::Conflict(r()), 1),
            (Error::Invalid(r()), 1),
            (Error::Exhausted(r()), 1),
            (Error::Indeterminate(r()), 1),
            (Error::Internal(r()), 1),
        ] {
            let failure = Failure::from(error);
            assert_eq!(failure.exit.code(), code, "{}", failure.kind);
            assert!(!failure.next.is_empty());
            let json = failure.json();
            assert_eq!(json["error"]["exit_code"], code);
            assert!(json["error"]["message"].as_str().is_some_and(|m| m.contains("words")));
        }
    }
}
