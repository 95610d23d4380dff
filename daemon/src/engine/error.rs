//! What can go wrong outside.

use crate::base::time::Timestamp;

/// Why an engine did not do it. Texts may be shown to whoever configures the mount: they never hold a secret, and are
/// cut to 240 bytes.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The caller's configuration or role is wrong; says which key, and how to mend it.
    #[error("{0}")]
    Config(String),
    /// The target did not answer, or not in time. Opens the breaker.
    #[error("the target cannot be reached: {0}")]
    Unreachable(String),
    /// The target answered no.
    #[error("the target refused: {0}")]
    Refused(String),
    /// An account that is not there might still be made by a session of its creator.
    #[error("too early to believe that the account was never made; looked at again at {0}")]
    NotYet(Timestamp),
    /// The plan belongs to another server than the one that answers.
    #[error(
        "the plan was made for server {planned}, but server {found} answers; list the former under `formerly` if it is the same one upgraded"
    )]
    OtherServer {
        /// System identifier in the plan.
        planned: String,
        /// System identifier of the server that answered.
        found: String,
    },
    /// It is still there after all that was tried.
    #[error("still there after revocation: {0}")]
    Remains(String),
    /// The engine is being replaced by another of the same mount.
    #[error("the engine is being replaced; try again")]
    Draining,
}

impl EngineError {
    /// Whether the target as a whole is at fault, rather than this one account.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Config(_)
            | Self::Refused(_)
            | Self::NotYet(_)
            | Self::OtherServer { .. }
            | Self::Remains(_)
            | Self::Draining => false,
        }
    }
}

/// Cuts `text` to `max` bytes at a character's border.
pub(super) fn cut(mut text: String, max: usize) -> String {
    let end = (0..=max.min(text.len()))
        .rev()
        .find(|&end| text.is_char_boundary(end))
        .unwrap_or(0);
    text.truncate(end);
    text
}
