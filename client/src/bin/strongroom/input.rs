//! How secrets come in: stdin, a file, or a prompt without echo. Never the command line, which other
//! users of the machine can read (`ps`) and shells keep in their history.

use crate::{failure::Failure, json::Strict};
use serde_json::{Map, Value};
use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    str::FromStr,
};
use strongroom_client::Secret;

/// Largest secret read: one byte beyond what a KV version takes, so that the daemon's limit decides.
const BYTES_MAX: u64 = (1 << 20) + 1;

/// Where a secret comes from: `-`, `@FILE` or `prompt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// All of stdin.
    Stdin,
    /// A file.
    File(PathBuf),
    /// The terminal, without echo.
    Prompt,
}

impl FromStr for Source {
    type Err = String;

    /// The refused text is not repeated: it may be the secret itself.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "-" => Ok(Self::Stdin),
            "prompt" => Ok(Self::Prompt),
            _ => match text.strip_prefix('@') {
                Some(path) if !path.is_empty() => Ok(Self::File(path.into())),
                _ => Err(
                    "a secret is not taken from the command line; write `-` (stdin), `@FILE` or `prompt`".to_owned(),
                ),
            },
        }
    }
}

/// One field of `kv put`.
#[derive(Debug)]
pub struct FieldSpec {
    pub name: String,
    pub value: FieldValue,
}

/// Where a field's value comes from.
#[derive(Debug)]
pub enum FieldValue {
    From(Source),
    /// Only with `--literal`.
    Literal(Secret),
}

/// Parses `-`, `@FILE`, `NAME`, `NAME=-`, `NAME=@FILE`, and with `literal` also `NAME=VALUE`.
/// # Errors
/// A usage failure that never repeats the value.
pub fn field(text: &str, literal: bool) -> Result<FieldSpec, Failure> {
    let (name, value) = match text.split_once('=') {
        _ if text == "-" => ("value", FieldValue::From(Source::Stdin)),
        _ if text.starts_with('@') => ("value", FieldValue::From(file_source(text)?)),
        None => (text, FieldValue::From(Source::Prompt)),
        Some((name, "-")) => (name, FieldValue::From(Source::Stdin)),
        Some((name, value)) if value.starts_with('@') => (name, FieldValue::From(file_source(value)?)),
        Some((name, value)) if literal => (name, FieldValue::Literal(Secret::from(value))),
        Some((name, _)) => {
            let shown = if is_field_name(name) { name } else { "NAME" };
            return Err(Failure::usage(
                format!(
                    "the value of `{shown}` is on the command line, where other users and the shell's history see it"
                ),
                format!(
                    "write {shown}=- (stdin), {shown}=@FILE or {shown} (prompt); --literal accepts it all the same"
                ),
            ));
        }
    };
    if !is_field_name(name) {
        return Err(Failure::usage(
            "a field's name has 1 to 128 of the characters A-Z a-z 0-9 . _ -",
            "write NAME=-, NAME=@FILE or NAME",
        ));
    }
    Ok(FieldSpec {
        name: name.to_owned(),
        value,
    })
}

fn file_source(text: &str) -> Result<Source, Failure> {
    text.parse()
        .map_err(|_| Failure::usage("`@` without a file name", "write @FILE"))
}

fn is_field_name(name: &str) -> bool {
    (1..=128).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// A whole stdin, at most 1 MiB.
pub fn stdin() -> Result<Secret, Failure> {
    bounded(io::stdin().lock(), "stdin")
}

/// A whole file, at most 1 MiB.
pub fn file(path: &Path) -> Result<Secret, Failure> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|e| unreadable(&name, &e))?;
    bounded(file, &name)
}

/// A whole file that nobody else may read. Pipes and the like have no mode that matters.
pub fn private_file(path: &Path) -> Result<Secret, Failure> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|e| unreadable(&name, &e))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let metadata = file.metadata().map_err(|e| unreadable(&name, &e))?;
        if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
            return Err(Failure::usage(
                format!(
                    "{name} can be read by others (mode {:04o})",
                    metadata.permissions().mode() & 0o7777
                ),
                format!("treat what is in it as leaked, or `chmod 600 {name}` if only you had access"),
            ));
        }
    }
    bounded(file, &name)
}

/// Asks on the terminal, without echo.
pub fn prompt(what: &str) -> Result<Secret, Failure> {
    let text = rpassword::prompt_password(format!("{what}: ")).map_err(|error| {
        Failure::usage(
            format!("cannot ask for the {what}: {error}"),
            "without a terminal, give it on stdin (`-`) or in a file",
        )
    })?;
    Ok(Secret::from(text))
}

/// Without the white space around it.
pub fn one_line(secret: &Secret) -> Secret {
    Secret::from(secret.expose().trim_ascii())
}

/// The shares in a text: one a line; blank lines and `#` comments are skipped.
pub fn shares(text: &Secret) -> Result<Vec<Secret>, Failure> {
    let text = text
        .expose_str()
        .map_err(|_| Failure::usage("a share is text", "give the share as it was printed"))?;
    Ok(text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .map(Secret::from)
        .collect())
}

fn bounded(reader: impl io::Read, name: &str) -> Result<Secret, Failure> {
    let mut bytes = Vec::new();
    reader
        .take(BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| unreadable(name, &e))?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(Failure::usage(
            format!("{name} holds more than 1 MiB"),
            "secrets are at most 1 MiB in all",
        ));
    }
    Ok(Secret::new(bytes))
}

fn unreadable(name: &str, error: &io::Error) -> Failure {
    Failure::usage(format!("cannot read {name}: {error}"), "check the file's name and mode")
}

/// An object from `KEY=VALUE` words (numbers, `true`, `false`, `[..]`, `{..}` and `"..."` are JSON, `@FILE` is
/// the text of a file, all else is text). Keys that name a secret are refused: they are given apart.
pub fn object(words: &[String]) -> Result<Value, Failure> {
    let mut object = Map::new();
    for word in words {
        let Some((key, value)) = word.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(Failure::usage("a setting is KEY=VALUE", "see --help for examples"));
        };
        if ["password", "secret", "private_key"]
            .iter()
            .any(|word| key.contains(word))
        {
            return Err(Failure::usage(
                format!("`{key}` looks like a secret and does not belong on the command line"),
                "give the engine's password with --root-secret",
            ));
        }
        let value = match value.strip_prefix('@') {
            Some(path) => Value::from(file(Path::new(path))?.expose_str()?),
            None => serde_json::from_str(value).unwrap_or_else(|_| Value::from(value)),
        };
        if object.insert(key.to_owned(), value).is_some() {
            return Err(Failure::usage(
                format!("`{key}` is given twice"),
                "give each setting once",
            ));
        }
    }
    Ok(Value::Object(object))
}

/// A JSON object in a text.
pub fn json_object(text: &Secret) -> Result<Map<String, Value>, Failure> {
    match serde_json::from_slice(text.expose()) {
        Ok(Strict(Value::Object(object))) => Ok(object),
        Ok(Strict(_)) => Err(Failure::usage(
            "the JSON is not an object",
            "write {\"key\": \"value\"}",
        )),
        Err(e) if e.is_data() => Err(Failure::usage(
            format!(
                "a key stands twice in the JSON: line {}, column {}",
                e.line(),
                e.column()
            ),
            "give each key once",
        )),
        Err(e) => Err(Failure::usage(
            format!("not JSON: line {}, column {}", e.line(), e.column()),
            "write {\"key\": \"value\"}",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str, literal: bool) -> String {
        match field(text, literal) {
            Ok(FieldSpec {
                name,
                value: FieldValue::From(source),
            }) => format!("{name} {source:?}"),
            Ok(FieldSpec {
                name,
                value: FieldValue::Literal(value),
            }) => format!("{name} ={}", value.expose_str().unwrap()),
            Err(failure) => format!("refused: {}", failure.message),
        }
    }

    #[test]
    fn fields_say_where_their_value_comes_from() {
        for (text, literal, expected) in [
            ("-", false, "value Stdin"),
            ("@a.pem", false, r#"value File("a.pem")"#),
            ("password", false, "password Prompt"),
            ("password=-", false, "password Stdin"),
            ("cert=@a=b.pem", false, r#"cert File("a=b.pem")"#),
            ("user=app", true, "user =app"),
            ("user=a=b", true, "user =a=b"),
            ("user=", true, "user ="),
        ] {
            assert_eq!(shape(text, literal), expected, "{text}");
        }
        for (text, literal) in [
            ("user=app", false),
            ("=x", true),
            ("", false),
            ("a b=-", false),
            ("x=@", false),
            ("@", false),
        ] {
            assert!(
                shape(text, literal).starts_with("refused"),
                "{text}: {}",
                shape(text, literal)
            );
        }
    }

    /// House rule: what is refused is not repeated, for it may be the secret.
    #[test]
    fn refusals_do_not_repeat_the_value() {
        let failure = field("password=canary", false).unwrap_err();
        assert!(!format!("{failure:?}").contains("canary"));
        assert!(
            failure.next.contains("password=-") && failure.next.contains("--literal"),
            "{}",
            failure.next
        );
        assert!(!"canary".parse::<Source>().unwrap_err().contains("canary"));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "srm_at_x\n").unwrap();
        for (mode, readable) in [
            (0o600, true),
            (0o400, true),
            (0o640, false),
            (0o604, false),
            (0o620, false),
        ] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let read = private_file(&path);
            assert_eq!(read.is_ok(), readable, "{mode:o}");
            if let Err(failure) = read {
                assert!(failure.next.contains("chmod 600"), "{}", failure.next);
            }
        }
    }

    #[test]
    fn shares_are_lines() {
        let text = Secret::from("# set 1\n one \n\ntwo\n");
        let shares: Vec<_> = shares(&text)
            .unwrap()
            .iter()
            .map(|s| s.expose_str().unwrap().to_owned())
            .collect();
        assert_eq!(shares, ["one", "two"]);
    }

    #[test]
    fn settings_become_json() {
        let words = [
            "host=db",
            "port=5432",
            "tls=true",
            "databases=[\"a\"]",
            "name=\"5\"",
            "text=a=b",
        ]
        .map(str::to_owned);
        let object = object(&words).unwrap();
        let expected = serde_json::json!({"host": "db", "port": 5432, "tls": true, "databases": ["a"], "name": "5", "text": "a=b"});
        assert_eq!(object, expected);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), "-----BEGIN\n").unwrap();
        let word = format!("ca_pem=@{}", dir.path().join("ca.pem").display());
        assert_eq!(super::object(&[word]).unwrap()["ca_pem"], "-----BEGIN\n");
        for wrong in ["ca=@/nonexistent", "password=x", "root_secret=x", "novalue", "=x"] {
            assert!(super::object(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }

    proptest::proptest! {
        /// Any text is either parsed or refused, never a panic; a value is never changed on its way.
        #[test]
        fn any_field_text_parses_or_is_refused(text in ".{0,80}", name in "[A-Za-z0-9._-]{1,20}", value in "[^@-].{0,60}") {
            let _ = field(&text, false);
            let _ = field(&text, true);
            match field(&format!("{name}={value}"), true) {
                Ok(FieldSpec { name: n, value: FieldValue::Literal(v) }) => {
                    proptest::prop_assert_eq!(n, name);
                    proptest::prop_assert_eq!(v.expose(), value.as_bytes());
                }
                other => proptest::prop_assert!(false, "{:?}", other),
            }
        }

        /// Without `--literal` no value from the command line gets through.
        #[test]
        fn no_literal_without_the_flag(text in ".{0,80}") {
            if let Ok(spec) = field(&text, false) {
                proptest::prop_assert!(matches!(spec.value, FieldValue::From(_)));
            }
        }
    }
}
