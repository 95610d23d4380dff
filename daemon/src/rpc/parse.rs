//! Small parsers that several services share: bounded, typed, with an error that names the field.

use crate::{
    base::{
        limits::{DEFINITION_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX, PAGE_ENTRIES_DEFAULT, PAGE_ENTRIES_MAX},
        path::Path,
        time::Timestamp,
    },
    gate::{Failure, Reason},
};
use data_encoding::BASE64URL_NOPAD;

/// A malformed request, with the field at fault.
pub fn malformed(field: &str, what: impl std::fmt::Display) -> Failure {
    Failure::with(Reason::Malformed, format!("{field}: {what}"))
}

/// A canonical path.
pub fn path(field: &str, text: &str) -> Result<Path, Failure> {
    Path::parse(text).map_err(|error| malformed(field, error))
}

/// An id of 32 hex digits.
pub fn id<I: std::str::FromStr<Err = crate::base::id::IdError>>(field: &str, text: &str) -> Result<I, Failure> {
    text.parse().map_err(|error| malformed(field, error))
}

/// How many entries a page has: 0 takes the default.
pub fn page_size(asked: u32) -> Result<usize, Failure> {
    match usize::try_from(asked) {
        Ok(0) => Ok(PAGE_ENTRIES_DEFAULT),
        Ok(size) if size <= PAGE_ENTRIES_MAX => Ok(size),
        _ => Err(malformed("page_size", format_args!("at most {PAGE_ENTRIES_MAX}"))),
    }
}

/// A page token's longest text.
const CURSOR_BYTES_MAX: usize = 4096;

/// Where a former page said to go on; empty: at the beginning.
pub fn cursor(text: &str) -> Result<Option<Vec<u8>>, Failure> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = || malformed("page_token", "not one of ours: take it from the page before, unchanged");
    if text.len() > CURSOR_BYTES_MAX {
        return Err(wrong());
    }
    BASE64URL_NOPAD.decode(text.as_bytes()).map(Some).map_err(|_| wrong())
}

/// The token of the next page; empty at the end.
pub fn cursor_text(cursor: Option<&[u8]>) -> String {
    cursor.map(|bytes| BASE64URL_NOPAD.encode(bytes)).unwrap_or_default()
}

/// An idempotency key; empty means none.
pub fn idempotency_key(text: String) -> Result<Option<Box<str>>, Failure> {
    if text.len() > IDEMPOTENCY_KEY_BYTES_MAX {
        return Err(malformed(
            "idempotency_key",
            format_args!("at most {IDEMPOTENCY_KEY_BYTES_MAX} bytes"),
        ));
    }
    Ok((!text.is_empty()).then(|| text.into_boxed_str()))
}

/// A JSON text of at most 64 KiB.
pub fn bounded(field: &str, text: String) -> Result<String, Failure> {
    if text.len() > DEFINITION_BYTES_MAX {
        return Err(malformed(field, format_args!("at most {DEFINITION_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// RFC 3339, or empty.
pub fn optional_time(time: Option<Timestamp>) -> String {
    time.map(|time| time.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn page_sizes() {
        for (asked, want) in [
            (0, Some(100)),
            (1, Some(1)),
            (1000, Some(1000)),
            (1001, None),
            (u32::MAX, None),
        ] {
            assert_eq!(page_size(asked).ok(), want, "{asked}");
        }
    }

    proptest! {
        /// Fuzz: any text is taken or refused with the field's name, never a panic.
        #[test]
        fn hostile_texts(text in "\\PC{0,200}") {
            if let Err(failure) = path("path", &text) {
                prop_assert!(failure.message.starts_with("path: "));
            }
            let _ = id::<crate::base::id::LeaseId>("id", &text);
            let _ = cursor(&text);
        }
    }
}
