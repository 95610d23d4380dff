//! A version's value: 1 to 64 fields, name -> bytes, the bytes 1 MiB in all, names not counted. Kept as it is stored, so that nothing is copied to be read:
//! `count u8 | (name length u8 | name | value length u32 BE | value)*`, names ascending.

use crate::base::limits::{FIELD_NAME_BYTES_MAX, FIELDS_MAX, VALUE_BYTES_MAX};
use std::{fmt, ops::RangeInclusive};
use zeroize::Zeroizing;

const COUNT: RangeInclusive<usize> = 1..=FIELDS_MAX;

/// Fields, encoded. Wiped on drop, never printed.
#[derive(PartialEq, Eq)]
pub struct Fields(Zeroizing<Vec<u8>>);

/// Why fields are refused. Texts never hold a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldsError {
    /// None, or too many.
    #[error("a secret has 1 to {FIELDS_MAX} fields")]
    Count,
    /// A name outside the alphabet.
    #[error("a field's name is 1 to {FIELD_NAME_BYTES_MAX} of A-Z a-z 0-9 . _ -")]
    Name,
    /// A name twice.
    #[error("a field is there twice")]
    Twice,
    /// Values over 1 MiB.
    #[error("the values have {bytes} bytes together; a secret has at most {VALUE_BYTES_MAX} (1 MiB)")]
    TooLarge {
        /// What the values have.
        bytes: usize,
    },
}

impl Fields {
    /// Encodes fields, in any order. The caller's own copies are the caller's to wipe.
    /// # Errors
    /// [`FieldsError`].
    pub fn new<'a>(fields: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Self, FieldsError> {
        let mut fields: Vec<_> = fields.into_iter().take(FIELDS_MAX + 1).collect();
        fields.sort_unstable_by_key(|(name, _)| *name);
        let count = u8::try_from(fields.len())
            .ok()
            .filter(|_| COUNT.contains(&fields.len()))
            .ok_or(FieldsError::Count)?;
        if fields.iter().any(|(name, _)| !is_name(name)) {
            return Err(FieldsError::Name);
        }
        if fields.windows(2).any(|pair| matches!(pair, [(a, _), (b, _)] if a == b)) {
            return Err(FieldsError::Twice);
        }
        let bytes = fields
            .iter()
            .map(|(_, value)| value.len())
            .fold(0, usize::saturating_add);
        if bytes > VALUE_BYTES_MAX {
            return Err(FieldsError::TooLarge { bytes });
        }
        let names: usize = fields.iter().map(|(name, _)| name.len()).sum();
        let mut encoded = Zeroizing::new(Vec::with_capacity(1 + names + bytes + 5 * fields.len()));
        encoded.push(count);
        for (name, value) in fields {
            // Both lengths were bounded above.
            encoded.push(u8::try_from(name.len()).unwrap_or_default());
            encoded.extend_from_slice(name.as_bytes());
            encoded.extend_from_slice(&u32::try_from(value.len()).unwrap_or_default().to_be_bytes());
            encoded.extend_from_slice(value);
        }
        Ok(Self(encoded))
    }

    /// Takes encoded fields over, if that is what the bytes are: exactly, to the last one.
    pub(super) fn decode(encoded: Zeroizing<Vec<u8>>) -> Option<Self> {
        let fields = Self(encoded);
        let (mut left, mut last, mut bytes) = (usize::from(*fields.0.first()?), "", 0usize);
        let mut rest = fields.0.get(1..)?;
        if !COUNT.contains(&left) {
            return None;
        }
        while left > 0 {
            let (name, value, next) = take(rest)?;
            if !is_name(name) || name <= last {
                return None;
            }
            bytes += value.len();
            (last, rest, left) = (name, next, left - 1);
        }
        let whole = rest.is_empty() && bytes <= VALUE_BYTES_MAX;
        whole.then_some(fields)
    }

    /// As stored.
    pub(super) fn encoded(&self) -> &[u8] {
        &self.0
    }
    pub(super) fn into_encoded(self) -> Zeroizing<Vec<u8>> {
        self.0
    }

    /// How many fields.
    pub fn count(&self) -> usize {
        self.0.first().copied().unwrap_or_default().into()
    }

    /// Names and values, names ascending. One greppable word for every place that sees a secret.
    pub fn expose(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let mut rest = self.0.get(1..).unwrap_or_default();
        std::iter::from_fn(move || {
            let (name, value, next) = take(rest)?;
            rest = next;
            Some((name, value))
        })
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fields(redacted)")
    }
}

fn take(rest: &[u8]) -> Option<(&str, &[u8], &[u8])> {
    let (length, rest) = rest.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*length))?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    Some((std::str::from_utf8(name).ok()?, value, rest))
}

fn is_name(name: &str) -> bool {
    (1..=FIELD_NAME_BYTES_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection, prelude::*};

    fn make(fields: &[(&str, &[u8])]) -> Result<Fields, FieldsError> {
        Fields::new(fields.iter().copied())
    }

    /// R-KV-1: the bounds of a version, with errors that name the bound and never a value.
    #[test]
    fn bounds() {
        let many: Vec<String> = (0..65).map(|number| format!("f{number}")).collect();
        let fields = |count: usize| Fields::new(many[..count].iter().map(|name| (name.as_str(), &b"v"[..])));
        let large = vec![7; VALUE_BYTES_MAX + 1];
        let name = "n".repeat(129);
        for (got, want) in [
            (fields(0), Err(FieldsError::Count)),
            (fields(64), Ok(64)),
            (fields(65), Err(FieldsError::Count)),
            (make(&[("", b"v")]), Err(FieldsError::Name)),
            (make(&[(&name[1..], b"v")]), Ok(1)),
            (make(&[(&name, b"v")]), Err(FieldsError::Name)),
            (make(&[("a/b", b"v")]), Err(FieldsError::Name)),
            (make(&[("a", b"v"), ("a", b"w")]), Err(FieldsError::Twice)),
            (make(&[("a", &large[1..])]), Ok(1)),
            (make(&[("a", &large[..1]), ("b", &large[2..])]), Ok(2)),
            (
                make(&[("a", &large[..1]), ("b", &large[1..])]),
                Err(FieldsError::TooLarge {
                    bytes: VALUE_BYTES_MAX + 1,
                }),
            ),
            (
                make(&[("a", &large)]),
                Err(FieldsError::TooLarge {
                    bytes: VALUE_BYTES_MAX + 1,
                }),
            ),
        ] {
            assert_eq!(got.map(|fields| fields.count()), want);
        }
    }

    /// R-AUDIT-1: no value in `Debug` or in an error.
    #[test]
    fn debug_says_nothing() {
        let canary = b"canary-5aa1";
        let fields = make(&[("a", canary)]).unwrap();
        let refused = make(&[("a b", canary)]).unwrap_err();
        assert_eq!(format!("{fields:?}"), "Fields(redacted)");
        assert!(!format!("{refused:?} {refused}").contains("canary"));
    }

    proptest! {
        #[test]
        fn reads_back(map in collection::btree_map("[A-Za-z0-9._-]{1,20}", collection::vec(any::<u8>(), 0..300), 1..64)) {
            let fields = Fields::new(map.iter().rev().map(|(name, value)| (name.as_str(), &value[..]))).unwrap();
            prop_assert!(fields.expose().eq(map.iter().map(|(name, value)| (name.as_str(), &value[..]))));
            let again = Fields::decode(Zeroizing::new(fields.encoded().to_vec())).unwrap();
            prop_assert!(again == fields);
        }
        /// Fuzz of the stored form: any bytes either are fields, and then exactly their encoding, or are refused.
        #[test]
        fn any_bytes(bytes in collection::vec(any::<u8>(), 0..40), map in collection::btree_map("[a-c]{1,2}", collection::vec(any::<u8>(), 0..3), 1..4), at: prop::sample::Index, to: u8) {
            let mut near = Fields::new(map.iter().map(|(name, value)| (name.as_str(), &value[..]))).unwrap().encoded().to_vec();
            let at = at.index(near.len());
            near[at] = to;
            for bytes in [bytes, near] {
                if let Some(fields) = Fields::decode(Zeroizing::new(bytes.clone())) {
                    let again = Fields::new(fields.expose()).unwrap();
                    prop_assert_eq!(again.encoded(), &bytes[..]);
                }
            }
        }
    }
}
