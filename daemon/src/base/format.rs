//! The number in front of a JSON record that says which format it has.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// Format 1, written as `1`; a record with another number does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Format1;

impl Serialize for Format1 {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_u8(1)
    }
}

impl<'de> Deserialize<'de> for Format1 {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match u8::deserialize(from)? {
            1 => Ok(Self),
            other => Err(D::Error::custom(format_args!(
                "format {other}: use a newer strongroomd"
            ))),
        }
    }
}
