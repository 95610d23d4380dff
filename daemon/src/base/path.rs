//! Canonical paths: parsed once at the edge, never mended. Rule: design, "Who and what".

use super::limits::{PATH_BYTES_MAX, PATH_SEGMENTS_MAX};
use std::fmt;

/// A path such as `kv/prod/db`: 1 to 32 segments of `[A-Za-z0-9._~@:+=-]`, none `.` or `..`, 512 bytes in all.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Box<str>);

/// Why a text is not a canonical path. Texts are fixed: they may be shown to anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing there.
    #[error("the path is empty")]
    Empty,
    /// Over 512 bytes.
    #[error("the path is longer than {PATH_BYTES_MAX} bytes")]
    TooLong,
    /// Over 32 segments.
    #[error("the path has more than {PATH_SEGMENTS_MAX} segments")]
    TooDeep,
    /// `a//b`, a leading or a trailing slash.
    #[error("the path has an empty segment: no leading, trailing or double slash")]
    EmptySegment,
    /// `.` or `..`.
    #[error("the path has a segment `.` or `..`")]
    DotSegment,
    /// A byte outside the alphabet.
    #[error("the path has a character outside A-Z a-z 0-9 . _ ~ @ : + = -")]
    Character,
}

impl Path {
    /// Parses, or says why not. Nothing is normalised.
    /// # Errors
    /// See [`PathError`].
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        if text.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        for (index, segment) in text.split('/').enumerate() {
            if index == PATH_SEGMENTS_MAX {
                return Err(PathError::TooDeep);
            }
            check_segment(segment)?;
        }
        Ok(Self(text.into()))
    }

    /// The text, as it was parsed.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its segments, in order; at least one.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// Whether `self` is `folder` or lies below it, segment by segment.
    pub fn is_within(&self, folder: &Self) -> bool {
        self.0
            .strip_prefix(&*folder.0)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// What remains below `folder`; `None` when it is not below, or is the folder itself.
    pub fn below(&self, folder: &Self) -> Option<Self> {
        self.0
            .strip_prefix(&*folder.0)?
            .strip_prefix('/')
            .map(|rest| Self(rest.into()))
    }

    /// `self/rest`.
    /// # Errors
    /// `TooLong` or `TooDeep`.
    pub fn join(&self, rest: &Self) -> Result<Self, PathError> {
        Self::parse(&format!("{}/{}", self.0, rest.0))
    }
}

fn check_segment(segment: &str) -> Result<(), PathError> {
    match segment {
        "" => Err(PathError::EmptySegment),
        "." | ".." => Err(PathError::DotSegment),
        _ if segment
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._~@:+=-".contains(&byte)) =>
        {
            Ok(())
        }
        _ => Err(PathError::Character),
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Path({})", self.0)
    }
}

impl serde::Serialize for Path {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Path {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn table() {
        use PathError::*;
        for (text, want) in [
            ("kv/prod/db", Ok(())),
            ("a", Ok(())),
            ("A.~@:+=-_9/..a", Ok(())),
            ("", Err(Empty)),
            ("/a", Err(EmptySegment)),
            ("a/", Err(EmptySegment)),
            ("a//b", Err(EmptySegment)),
            ("a/./b", Err(DotSegment)),
            ("a/..", Err(DotSegment)),
            ("a%2fb", Err(Character)),
            ("a b", Err(Character)),
            ("a\0", Err(Character)),
            ("é", Err(Character)),
            (&"a/".repeat(32), Err(TooDeep)),
            (&"a".repeat(513), Err(TooLong)),
        ] {
            assert_eq!(Path::parse(text).map(|_| ()), want, "{text:?}");
        }
    }

    #[test]
    fn within_is_segment_exact() {
        let path = |text| Path::parse(text).unwrap();
        assert!(path("kv/prod/db").is_within(&path("kv/prod")));
        assert!(path("kv/prod").is_within(&path("kv/prod")));
        assert!(!path("kv/production").is_within(&path("kv/prod")));
        assert_eq!(path("kv/prod/db").below(&path("kv")), Some(path("prod/db")));
        assert_eq!(path("kv").below(&path("kv")), None);
    }

    proptest! {
        /// Fuzz of R-POL-2's edge: any text parses to itself or is refused; never a panic.
        #[test]
        fn parses_to_itself_or_not(text in "\\PC{0,600}|[a-z./]{0,80}") {
            if let Ok(path) = Path::parse(&text) {
                prop_assert_eq!(path.as_str(), text.as_str());
                prop_assert!(path.segments().count() <= PATH_SEGMENTS_MAX);
            }
        }
    }
}
