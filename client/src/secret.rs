//! Secret bytes as the client hands them out: wiped on drop, never printed.

use crate::{
    error::{Error, Refusal},
    locked::Kept,
};
use bytes::Bytes;
use std::{collections::BTreeMap, fmt};
use zeroize::{Zeroize, Zeroizing};

/// Secret bytes: a token, a share, a field of a secret. Wiped on drop; `Debug` prints `redacted`;
/// not `Clone`, not comparable, not serializable. [`expose`](Secret::expose) is the one way in.
pub struct Secret(Kept);

impl Secret {
    /// Takes bytes over. The caller's buffer becomes the secret's; nothing is copied.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Kept::Plain(Zeroizing::new(bytes)))
    }

    /// The bytes themselves.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.bytes()
    }

    /// The bytes as text.
    /// # Errors
    /// [`Error::Invalid`] if they are not UTF-8.
    pub fn expose_str(&self) -> Result<&str, Error> {
        std::str::from_utf8(self.expose()).map_err(|_| {
            Error::Invalid(Refusal::local(
                "NOT_TEXT",
                "the value is not UTF-8 text; read it with expose()",
            ))
        })
    }

    /// Moves the bytes into memory that is not swapped or dumped, if the system gives any.
    pub(crate) fn locked(self) -> Self {
        Self(self.0.lock())
    }

    /// Takes a value over from the wire, and wipes the wire's copy where nothing else holds it.
    pub(crate) fn from_wire(bytes: Bytes) -> Self {
        let secret = Self::new(bytes.to_vec());
        if let Ok(mut ours_alone) = bytes.try_into_mut() {
            ours_alone.zeroize();
        }
        secret
    }

    /// A copy for the wire, which the transport holds until the call is over.
    pub(crate) fn to_wire(&self) -> Bytes {
        Bytes::copy_from_slice(self.expose())
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes().to_vec())
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

impl From<&[u8]> for Secret {
    fn from(bytes: &[u8]) -> Self {
        Self::new(bytes.to_vec())
    }
}

impl From<Vec<u8>> for Secret {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// The named fields of a secret or credential, in the order of their names.
pub type Fields = BTreeMap<String, Secret>;

pub(crate) fn fields_from_wire(wire: BTreeMap<String, Bytes>) -> Fields {
    wire.into_iter()
        .map(|(name, value)| (name, Secret::from_wire(value)))
        .collect()
}

pub(crate) fn fields_to_wire(fields: &Fields) -> BTreeMap<String, Bytes> {
    fields
        .iter()
        .map(|(name, value)| (name.clone(), value.to_wire()))
        .collect()
}

pub(crate) fn field<'a>(fields: &'a Fields, name: &str, of: &str) -> Result<&'a Secret, Error> {
    fields.get(name).ok_or_else(|| {
        let known = fields.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        Error::NotFound(Refusal::local(
            "FIELD_NOT_FOUND",
            format!("{of} has no field `{name}`; it has: {known}"),
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R-AUDIT-1: no secret in `Debug`, also not inside a map or an error.
    #[test]
    fn debug_is_redacted() {
        let fields: Fields = [("password".to_owned(), Secret::from("canary"))].into();
        assert_eq!(format!("{fields:?}"), r#"{"password": Secret(redacted)}"#);
        let missing = field(&fields, "user", "kv/a").unwrap_err();
        assert!(!format!("{missing:?} {missing}").contains("canary"));
        assert!(
            missing.to_string().contains("password"),
            "names what there is: {missing}"
        );
    }

    #[test]
    fn text_is_checked() {
        assert_eq!(Secret::from("pässword").expose_str().unwrap(), "pässword");
        let binary = Secret::new(vec![0xff, 0xfe]);
        assert!(matches!(binary.expose_str(), Err(Error::Invalid(_))));
    }

    #[test]
    fn wire_round_trip_keeps_every_byte() {
        let all: Vec<u8> = (0..=255).collect();
        let secret = Secret::from_wire(Bytes::from(all.clone()));
        assert_eq!(secret.expose(), all);
        assert_eq!(secret.to_wire(), all);
    }
}
