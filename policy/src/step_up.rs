//! What a `forbid` may ask of callers whom it would then let through: `@step_up("recent")`.

use std::fmt;

use cedar_policy::{Effect, Policy};

/// The annotation.
const ANNOTATION: &str = "step_up";

/// The words of the annotation, and what each asks for.
const WORDS: [(&str, &str); 3] = [
    ("recent", "a newer token: log in again"),
    (
        "bound",
        "a token that is bound to a key: log in with `--bind` or `--dpop`",
    ),
    (
        "stronger",
        "a log-in that proves more, such as a person's or a certificate's",
    ),
];

/// A set of them. Empty: nothing that the caller could do is known to help.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepUps(u8);

impl StepUps {
    /// What the policy asks for; `None`: nothing.
    /// # Errors
    /// What is wrong with the annotation.
    pub(crate) fn of(policy: &Policy) -> Result<Option<Self>, &'static str> {
        let Some(word) = policy.annotation(ANNOTATION) else {
            return Ok(None);
        };
        if policy.effect() != Effect::Forbid {
            return Err("a `forbid` asks for a step up, a `permit` cannot");
        }
        let found = WORDS.iter().position(|(known, _)| *known == word);
        found
            .map(|at| Some(Self(1 << at)))
            .ok_or("the words are \"recent\", \"bound\" and \"stronger\"")
    }

    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn each(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let all = WORDS.into_iter().enumerate();
        all.filter(move |(at, _)| self.0 & (1 << at) != 0)
            .map(|(_, words)| words)
    }

    /// The words, in order, for programs.
    #[must_use]
    pub fn words(self) -> Vec<&'static str> {
        self.each().map(|(word, _)| word).collect()
    }
}

/// For people.
impl fmt::Display for StepUps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (_, what)) in self.each().enumerate() {
            f.write_str(if at > 0 { "; " } else { "" })?;
            f.write_str(what)?;
        }
        Ok(())
    }
}
