//! What is bounded before Cedar's parser sees a policy text.
//!
//! The parser is recursive over brackets, validating, evaluating and dropping are recursive over
//! operators, so unbounded text could exhaust the stack, which ends the process. One pass over the
//! bytes, no allocation. Strings and comments are told apart as Cedar's lexer does it; where the two
//! could differ (a string that never ends) the lexer stops, and nothing more is parsed.

use crate::limits::{NESTING_MAX, OPERATORS_PER_POLICY_MAX, POLICIES_PER_DOCUMENT_MAX, TEXT_BYTES_MAX};

/// Where the scan is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Code,
    /// After one `/`, which may begin a comment.
    Slash,
    Comment,
    Text,
    /// After a backslash in a string.
    Escape,
}

impl At {
    fn next(self, byte: u8) -> At {
        match (self, byte) {
            (At::Text, b'\\') => At::Escape,
            (At::Text, b'"') => At::Code,
            (At::Text | At::Escape, _) => At::Text,
            (At::Comment, b'\n' | b'\r') => At::Code,
            (At::Comment, _) | (At::Slash, b'/') => At::Comment,
            (At::Code | At::Slash, b'"') => At::Text,
            (At::Code, b'/') => At::Slash,
            (At::Code | At::Slash, _) => At::Code,
        }
    }
}

/// A bound that a text breaks: at which byte, what, and what to do.
pub(crate) struct Excess {
    pub at: usize,
    pub message: &'static str,
    pub help: &'static str,
}

/// Checks the bounds of a document.
/// # Errors
/// The first one that is broken.
pub(crate) fn check(text: &str) -> Result<(), Excess> {
    let excess = |at, message, help| Err(Excess { at, message, help });
    if text.len() > TEXT_BYTES_MAX {
        return excess(
            TEXT_BYTES_MAX,
            "a policy has at most 64 KiB",
            "split it into several policies",
        );
    }
    let (mut nesting, mut operators, mut policies) = (0_usize, 0_usize, 0_usize);
    let (mut state, mut before) = (At::Code, 0);
    for (at, byte) in text.bytes().enumerate() {
        state = state.next(byte);
        if !matches!(state, At::Code | At::Slash) {
            continue;
        }
        match byte {
            b'(' | b'[' | b'{' => nesting += 1,
            b')' | b']' | b'}' => nesting = nesting.saturating_sub(1),
            b';' => (policies, operators) = (policies + 1, 0),
            _ => {}
        }
        // An `if` nests without a bracket. Counting it inside of words too does no harm.
        operators += usize::from(b"([{.!+-*&|<>=".contains(&byte) || (before, byte) == (b'i', b'f'));
        before = byte;
        if nesting > NESTING_MAX {
            return excess(at, "more than 32 brackets are open here", "say it in several policies");
        }
        if operators > OPERATORS_PER_POLICY_MAX {
            return excess(
                at,
                "one policy has at most 1,000 operators and brackets",
                "split it: permits add up",
            );
        }
        if policies > POLICIES_PER_DOCUMENT_MAX {
            return excess(
                at,
                "a document has at most 256 Cedar policies",
                "split it into several policies",
            );
        }
    }
    Ok(())
}
