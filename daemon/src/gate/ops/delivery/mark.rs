//! What a consumer has seen of an item, as it keeps it between two streams. Nothing is kept here: a stream that resumes compares the mark
//! with the present, so a mark never grows too old and survives seal and restart. A forged mark fools only its bearer.

use crate::base::time::Timestamp;
use data_encoding::BASE64URL_NOPAD;

/// First byte of the text form.
const FORMAT: u8 = 1;
const BYTES: usize = 17;

/// Equal marks: nothing new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    number: u64,
    at: Timestamp,
}

/// The text is no mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not one of ours: take it from the last answer about this item, unchanged")]
pub struct NotAMark;

impl Mark {
    /// There was nothing.
    pub const NOTHING: Self = Self {
        number: 0,
        at: Timestamp(0),
    };

    /// A version of a secret: its number may come again after the secret was destroyed, its time does not.
    pub const fn of_version(number: u64, created: Timestamp) -> Self {
        Self { number, at: created }
    }

    /// A password, by when it was set.
    pub fn of_rotation(rotated: Option<Timestamp>) -> Self {
        Self {
            number: 1,
            at: rotated.unwrap_or_default(),
        }
    }

    /// A lease in this phase, with this expiry.
    pub const fn of_lease(phase: u64, expires: Timestamp) -> Self {
        Self {
            number: phase,
            at: expires,
        }
    }

    /// The text that the consumer keeps.
    pub fn to_text(self) -> String {
        let mut bytes = vec![FORMAT];
        bytes.extend(self.number.to_be_bytes());
        bytes.extend(self.at.0.to_be_bytes());
        BASE64URL_NOPAD.encode(&bytes)
    }

    /// `None` for an empty text: nothing was seen.
    /// # Errors
    /// [`NotAMark`].
    pub fn parse(text: &str) -> Result<Option<Self>, NotAMark> {
        if text.is_empty() {
            return Ok(None);
        }
        // Before decoding: a mark has one length.
        if text.len() != BASE64URL_NOPAD.encode_len(BYTES) {
            return Err(NotAMark);
        }
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| NotAMark)?;
        let (Some((&FORMAT, rest)), BYTES) = (bytes.split_first(), bytes.len()) else {
            return Err(NotAMark);
        };
        let (number, rest) = rest.split_first_chunk().ok_or(NotAMark)?;
        let at = rest.first_chunk().ok_or(NotAMark)?;
        Ok(Some(Self {
            number: u64::from_be_bytes(*number),
            at: Timestamp(u64::from_be_bytes(*at)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// R-KV-4: a resume token survives its text.
        #[test]
        fn a_mark_survives_its_text(number: u64, at: u64) {
            let mark = Mark { number, at: Timestamp(at) };
            prop_assert_eq!(Mark::parse(&mark.to_text()), Ok(Some(mark)));
        }

        /// R-KV-4, fuzz: any other text is refused, never a panic, and what is taken is canonical.
        #[test]
        fn hostile_texts(text in "\\PC{0,40}|[A-Za-z0-9_-]{23}|AQ[A-Za-z0-9_-]{21}") {
            if let Ok(Some(mark)) = Mark::parse(&text) {
                prop_assert_eq!(mark.to_text(), text);
            }
        }
    }

    #[test]
    fn what_differs_has_another_mark() {
        let at = Timestamp(7);
        let marks = [
            Mark::NOTHING,
            Mark::of_version(2, at),
            Mark::of_version(2, Timestamp(8)),
            Mark::of_rotation(None),
            Mark::of_rotation(Some(at)),
        ];
        for (index, mark) in marks.iter().enumerate() {
            assert!(marks[..index].iter().all(|other| other != mark), "{mark:?}");
        }
    }
}
