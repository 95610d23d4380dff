//! How fields come in (arguments, JSON) and go out (JSON, tables).

use crate::{
    context::Context,
    failure::Failure,
    input::{self, FieldValue, Source},
    output::{Answer, Human},
};
use data_encoding::BASE64;
use serde_json::{Map, Value};
use strongroom_client::{Fields, Secret};

/// Reads every field's value from where its argument says.
pub fn collect(context: &Context, words: &[String], literal: bool) -> Result<Fields, Failure> {
    let specs = words
        .iter()
        .map(|word| input::field(word, literal))
        .collect::<Result<Vec<_>, _>>()?;
    let mut fields = Fields::new();
    for spec in specs {
        let value = match spec.value {
            FieldValue::Literal(value) => value,
            FieldValue::From(source) => context.bytes(&source, &spec.name)?,
        };
        let name = spec.name.clone();
        if fields.insert(spec.name, value).is_some() {
            return Err(Failure::usage(
                format!("field `{name}` is given twice"),
                "give each field once",
            ));
        }
    }
    Ok(fields)
}

/// The fields in a JSON object of texts: a file, or stdin.
pub fn of_json(context: &Context, from: &str) -> Result<Fields, Failure> {
    let source = if from == "-" {
        Source::Stdin
    } else {
        Source::File(from.into())
    };
    let object = input::json_object(&context.bytes(&source, "fields")?)?;
    object
        .into_iter()
        .map(|(name, value)| match value {
            Value::String(text) => Ok((name, Secret::from(text))),
            _ => Err(Failure::usage(
                format!("field `{name}` is not text"),
                "write {\"name\": \"text\"}; numbers in quotes",
            )),
        })
        .collect()
}

/// One field's bytes and nothing else; as JSON, added to what `json` says of it.
pub fn field_alone(mut json: Value, name: &str, value: &Secret) -> Answer {
    json["field"] = name.into();
    match value.expose_str() {
        Ok(text) => json["value"] = text.into(),
        Err(_) => json["value_base64"] = BASE64.encode(value.expose()).into(),
    }
    Answer::new(json, Human::Raw(value.expose().to_vec()))
}

/// Fields as JSON: `(texts, base64 of the others)`; also of credentials.
pub fn fields_json(fields: &Fields) -> (Map<String, Value>, Map<String, Value>) {
    let (mut texts, mut binary) = (Map::new(), Map::new());
    for (name, value) in fields {
        match value.expose_str() {
            Ok(text) => texts.insert(name.clone(), Value::from(text)),
            Err(_) => binary.insert(name.clone(), Value::from(BASE64.encode(value.expose()))),
        };
    }
    (texts, binary)
}

/// Fields for people.
pub fn fields_pairs(fields: &Fields) -> Vec<(String, String)> {
    fields
        .iter()
        .map(|(name, value)| {
            let shown = match value.expose_str() {
                Ok(text) => text.to_owned(),
                Err(_) => format!("base64:{}", BASE64.encode(value.expose())),
            };
            (name.clone(), shown)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R-KV-1: a value that is not text survives JSON.
    #[test]
    fn binary_fields_go_out_as_base64() {
        let fields: Fields = [
            ("text".to_owned(), Secret::from("a\n\"b\"")),
            ("binary".to_owned(), Secret::new(vec![0xff, 0, 1])),
        ]
        .into();
        let (texts, binary) = fields_json(&fields);
        assert_eq!(texts["text"], "a\n\"b\"");
        assert_eq!(binary["binary"], "/wAB");
        assert_eq!(
            fields_pairs(&fields)[0],
            ("binary".to_owned(), "base64:/wAB".to_owned())
        );
    }
}
