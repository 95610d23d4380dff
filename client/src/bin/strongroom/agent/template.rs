//! Texts with places for values: `{{ PATH#FIELD }}`, `{{ PATH#FIELD | json }}`. No other language: what a file says must be seen by reading its
//! template.

use data_encoding::BASE64;
use std::sync::Arc;
use strongroom_client::{Delivered, Error};
use zeroize::Zeroizing;

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Every byte.
    Plain,
    /// Without white space at both ends.
    Trim,
    /// A JSON text, quotes included.
    Json,
    /// Base64 with padding.
    Base64,
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value { path: String, field: String, form: Form },
}

/// A parsed text.
#[derive(Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

impl Template {
    /// Parses, or says where it is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once("{{") {
            let line = text.len() - after.len();
            let line = text.get(..line).unwrap_or_default().matches('\n').count() + 1;
            let (inside, behind) = after
                .split_once("}}")
                .ok_or_else(|| format!("line {line}: `{{{{` without `}}}}`"))?;
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(place(inside).map_err(|error| format!("line {line}: {error}"))?);
            rest = behind;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }

    /// The secrets that it names.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Value { path, .. } => Some(path.as_str()),
        })
    }

    /// The text with all values in their places.
    pub fn render(&self, get: impl Fn(&str) -> Result<Arc<Delivered>, Error>) -> Result<Zeroizing<Vec<u8>>, String> {
        let mut out = Zeroizing::new(Vec::new());
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Value { path, field, form } => {
                    let held = get(path).map_err(|error| error.to_string())?;
                    let value = held.field(field).map_err(|error| error.to_string())?.expose();
                    write(&mut out, value, *form).map_err(|error| format!("{path}#{field}: {error}"))?;
                }
            }
        }
        Ok(out)
    }
}

fn place(inside: &str) -> Result<Piece, String> {
    let mut words = inside.split('|').map(str::trim);
    let (path, field) = words
        .next()
        .and_then(|place| place.rsplit_once('#'))
        .filter(|(path, field)| !path.is_empty() && !field.is_empty())
        .ok_or("write {{ PATH#FIELD }}")?;
    let form = match words.next() {
        None => Form::Plain,
        Some("trim") => Form::Trim,
        Some("json") => Form::Json,
        Some("base64") => Form::Base64,
        Some(other) => return Err(format!("`{other}` is none of json, base64, trim")),
    };
    if words.next().is_some() {
        return Err("one form is enough".to_owned());
    }
    Ok(Piece::Value {
        path: path.to_owned(),
        field: field.to_owned(),
        form,
    })
}

fn write(out: &mut Zeroizing<Vec<u8>>, value: &[u8], form: Form) -> Result<(), String> {
    match form {
        Form::Plain => out.extend_from_slice(value),
        Form::Trim => out.extend_from_slice(value.trim_ascii()),
        Form::Base64 => out.extend_from_slice(Zeroizing::new(BASE64.encode(value)).as_bytes()),
        Form::Json => {
            let text = std::str::from_utf8(value).map_err(|_| "not UTF-8, so no JSON text")?;
            let json = serde_json::to_string(text)
                .map(Zeroizing::new)
                .map_err(|error| error.to_string())?;
            out.extend_from_slice(json.as_bytes());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use strongroom_client::{Kind, Secret};

    fn held(value: &str) -> Result<Arc<Delivered>, Error> {
        Ok(Arc::new(Delivered {
            name: String::new(),
            path: "kv/a".to_owned(),
            fields: [("f".to_owned(), Secret::from(value))].into(),
            kind: Kind::Secret {
                version: 1,
                created_at: String::new(),
                labels: Vec::new(),
            },
            remaining: None,
            resume: String::new(),
        }))
    }

    #[test]
    fn table() {
        for (text, value, want) in [
            ("no place", "", Ok("no place")),
            ("a={{ kv/a#f }};", "x", Ok("a=x;")),
            ("{{kv/a#f}}{{ kv/a#f | trim }}", " x ", Ok(" x x")),
            ("{{ kv/a#f | json }}", "a\"b\n", Ok("\"a\\\"b\\n\"")),
            ("{{ kv/a#f | base64 }}", "abc", Ok("YWJj")),
            ("{{ kv/a#g }}", "x", Err("no field `g`")),
            // A value is a value, whatever it looks like.
            ("{{ kv/a#f }}", "{{ kv/b#g }}", Ok("{{ kv/b#g }}")),
        ] {
            let rendered = Template::parse(text).unwrap().render(|_| held(value));
            match (rendered, want) {
                (Ok(bytes), Ok(want)) => assert_eq!(String::from_utf8(bytes.to_vec()).unwrap(), want, "{text}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{text}: {error}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
        for (text, part) in [
            ("\n{{ kv/a#f", "line 2"),
            ("{{ kv/a }}", "PATH#FIELD"),
            ("{{ #f }}", "PATH#FIELD"),
            ("{{ kv/a#f | upper }}", "upper"),
            ("{{ kv/a#f | json | trim }}", "one form"),
        ] {
            assert!(Template::parse(text).unwrap_err().contains(part), "{text}");
        }
    }

    proptest! {
        /// Fuzz: any text parses or is refused; without places it comes out as it went in.
        #[test]
        fn any_text(text in "\\PC{0,40}|(\\{\\{| |#|\\||kv|\\}\\}){0,12}") {
            if let Ok(template) = Template::parse(&text) && !text.contains("{{") {
                let rendered = template.render(|_| held("x")).unwrap();
                prop_assert_eq!(rendered.as_slice(), text.as_bytes());
            }
        }
    }
}
