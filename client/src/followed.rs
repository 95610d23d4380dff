//! What held secrets follow, and what the daemon refuses of it: set aside, asked for again, and dropped when the refusal lasts.

use crate::{delivery::Follow, error::Error};
use std::time::Duration;
use tokio::time::Instant;

/// Values are held so long after the daemon said that they are no longer this caller's (a right or the token was taken away).
const REFUSED_GRACE: Duration = Duration::from_secs(5 * 60);

/// Since when the daemon refuses, by what it says.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Refused(Option<Instant>);

impl Refused {
    /// Takes in a failure at `now`; whether refusals have lasted longer than the grace. A daemon that is away says nothing about rights.
    pub fn hear(&mut self, error: &Error, now: Instant) -> bool {
        if matches!(error, Error::Denied(_) | Error::Unauthenticated(_)) {
            self.0.get_or_insert(now);
        }
        self.0
            .is_some_and(|since| now.saturating_duration_since(since) >= REFUSED_GRACE)
    }
}

/// What is followed; what was refused stands aside for a while, so that the rest goes on.
pub(crate) struct Followed {
    pub going: Vec<Follow>,
    pub aside: Vec<(Follow, Refused)>,
    /// The token itself.
    pub token: Refused,
}

impl Followed {
    /// Those aside are asked for again.
    pub fn take_in(&mut self) {
        for (aside, _) in &self.aside {
            if !self.going.iter().any(|going| going.path_asked() == aside.path_asked()) {
                self.going.push(aside.clone());
            }
        }
    }

    /// A failure of the stream. What is refused for too long is forgotten by `forget`, and comes anew if it is granted again. `true`: the
    /// daemon was there, and refuses all that is followed, which stands aside now.
    pub fn failed(&mut self, error: &Error, now: Instant, forget: &mut dyn FnMut(&str)) -> bool {
        if matches!(error, Error::Unauthenticated(_)) && self.token.hear(error, now) {
            for follow in self
                .going
                .iter_mut()
                .chain(self.aside.iter_mut().map(|(follow, _)| follow))
            {
                if let Some(path) = follow.path_asked() {
                    forget(path);
                }
                *follow = follow.clone().resume("");
            }
        }
        let about_one = matches!(
            error,
            Error::Denied(_) | Error::NotFound(_) | Error::Conflict(_) | Error::Invalid(_) | Error::Internal(_)
        );
        if about_one {
            for follow in std::mem::take(&mut self.going) {
                self.set_aside(follow, error, now, forget);
            }
        }
        about_one
    }

    /// One is refused, or cannot be read.
    pub fn set_aside(&mut self, mut follow: Follow, error: &Error, now: Instant, forget: &mut dyn FnMut(&str)) {
        self.going.retain(|going| going.path_asked() != follow.path_asked());
        let known = self
            .aside
            .iter()
            .position(|(other, _)| other.path_asked() == follow.path_asked());
        let mut refused = known.map_or_else(Refused::default, |known| self.aside.remove(known).1);
        if refused.hear(error, now) {
            if let Some(path) = follow.path_asked() {
                forget(path);
            }
            follow = follow.resume("");
        }
        self.aside.push((follow, refused));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Refusal;

    fn words(text: &str) -> Refusal {
        Refusal::local("R", text)
    }

    fn followed(paths: &[&str]) -> Followed {
        Followed {
            going: paths.iter().map(|path| Follow::path(*path).resume("seen")).collect(),
            aside: Vec::new(),
            token: Refused::default(),
        }
    }

    /// R-KV-4: one that is refused stands aside, and all of them when the stream ends for that; any other end is about the stream.
    #[test]
    fn one_refusal_does_not_stop_the_rest() {
        let mut forget = |path: &str| panic!("{path} was forgotten");
        let mut one = followed(&["kv/a", "kv/b"]);
        let (follow, denied) = (one.going[0].clone(), Error::Denied(words("no")));
        one.set_aside(follow, &denied, Instant::now(), &mut forget);
        assert_eq!((one.going.len(), one.aside.len()), (1, 1));
        assert_eq!(
            (one.going[0].path_asked(), one.aside[0].0.path_asked()),
            (Some("kv/b"), Some("kv/a"))
        );
        for (error, rest) in [
            (Error::Denied(words("kv/a: not allowed")), 0),
            (Error::Internal(words("kv/a: damaged")), 0),
            (Error::Unavailable(words("away")), 2),
            (Error::Unauthenticated(words("who?")), 2),
        ] {
            let mut followed = followed(&["kv/a", "kv/b"]);
            let aside = followed.failed(&error, Instant::now(), &mut forget);
            assert_eq!((aside, followed.going.len()), (rest == 0, rest), "{error}");
        }
    }

    /// R-OPS-6: what is refused all the time is dropped after the grace, and asked for from the beginning; a daemon that is away drops nothing.
    #[test]
    fn what_is_refused_is_dropped_after_the_grace() {
        let (denied, begun) = (Error::Denied(words("kv/a: no")), Instant::now());
        let (mut followed, mut forgotten) = (followed(&["kv/a", "kv/b"]), Vec::new());
        for (after, gone) in [(0, 0), (299, 0), (300, 1)] {
            let now = begun + Duration::from_secs(after);
            let follow = Follow::path("kv/a").resume("seen");
            followed.set_aside(follow, &denied, now, &mut |path| forgotten.push(path.to_owned()));
            assert_eq!(forgotten.len(), gone, "after {after} s");
            assert_eq!(followed.aside[0].0.seen().is_empty(), gone == 1);
            followed.take_in();
            assert_eq!((followed.going.len(), followed.aside.len()), (2, 1));
        }
        let (who, away) = (Error::Unauthenticated(words("who?")), Error::Unavailable(words("away")));
        let (mut followed, mut forgotten) = (self::followed(&["kv/a", "kv/b"]), 0);
        for (error, after, gone) in [
            (&away, 0, 0),
            (&away, 900, 0),
            (&who, 900, 0),
            (&away, 1300, 0),
            (&who, 1300, 2),
        ] {
            let now = begun + Duration::from_secs(after);
            assert!(!followed.failed(error, now, &mut |_| forgotten += 1));
            assert_eq!(forgotten, gone, "{error} after {after} s");
        }
    }
}
