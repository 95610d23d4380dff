//! JSON that people write: a key that stands twice in an object is a mistake, and which of the two was meant nobody knows.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// A value in which no object has a key twice, at any depth. The parser bounds the depth.
pub struct Strict(pub Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::from(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                // The only error that is not of the syntax. Its words are not shown: the key may be anything.
                return Err(A::Error::custom("twice"));
            }
            let Strict(value) = entries.next_value()?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_twice_is_refused_at_any_depth() {
        for (text, fine) in [
            (r#"{"a":"1","b":"2"}"#, true),
            (r#"{"a":"1","a":"2"}"#, false),
            (r#"{"a":"1","\u0061":"2"}"#, false),
            (r#"{"x":[{"a":1},{"a":1}]}"#, true),
            (r#"{"x":[{"a":1,"a":1}]}"#, false),
            (r#"{"x":{"y":{"a":null,"b":true,"a":-1.5}}}"#, false),
        ] {
            let read = serde_json::from_str::<Strict>(text);
            assert_eq!(read.is_ok(), fine, "{text}");
            if let Err(error) = read {
                assert!(error.is_data(), "{text}: {error}");
            }
        }
    }

    proptest! {
        /// Otherwise it is the ordinary reader: the same values, the same refusals.
        #[test]
        fn reads_like_the_ordinary_one(text in r#"[\[\]{},:"a-c0-9.e \\-]{0,24}|\{"a":[0-9]{1,20},"b":\[(true|null|-1e3|"x")\]\}"#) {
            let ordinary = serde_json::from_str::<Value>(&text).ok();
            match serde_json::from_str::<Strict>(&text) {
                Ok(Strict(value)) => prop_assert_eq!(Some(value), ordinary),
                Err(error) => prop_assert!(ordinary.is_none() || error.is_data()),
            }
        }
    }
}
