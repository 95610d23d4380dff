//! `NAME=PATH#FIELD`.

use crate::failure::Failure;
use std::collections::BTreeSet;

/// Which field goes under which name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    pub name: String,
    pub path: String,
    pub field: String,
}

/// Parses one; the name is one that shells can use.
pub fn parse(text: &str) -> Result<Spec, String> {
    let wrong = || "write NAME=PATH#FIELD, such as DB_PASSWORD=kv/prod/db#password".to_owned();
    let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
    let (path, field) = rest.rsplit_once('#').ok_or_else(wrong)?;
    let is_name = |text: &str| {
        let mut chars = text.chars();
        chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if !is_name(name) {
        return Err(format!(
            "`{name}` is no name of an environment variable: letters, digits, `_`"
        ));
    }
    if path.is_empty() || field.is_empty() {
        return Err(wrong());
    }
    Ok(Spec {
        name: name.to_owned(),
        path: path.to_owned(),
        field: field.to_owned(),
    })
}

/// Each name once.
pub fn no_name_twice<'a>(specs: impl Iterator<Item = &'a Spec>) -> Result<(), Failure> {
    let mut names = BTreeSet::new();
    for spec in specs {
        if !names.insert(&spec.name) {
            let words = format!("{} is given twice", spec.name);
            return Err(Failure::usage(words, "give each name once"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for (text, want) in [
            ("A=kv/a#b", Some(("A", "kv/a", "b"))),
            ("_X9=kv/a@b=c#d", Some(("_X9", "kv/a@b=c", "d"))),
            ("A=kv/a", None),
            ("A=#b", None),
            ("A=kv/a#", None),
            ("9A=kv/a#b", None),
            ("A-B=kv/a#b", None),
            ("=kv/a#b", None),
            ("", None),
        ] {
            let parsed = parse(text).ok();
            let parsed = parsed
                .as_ref()
                .map(|spec| (spec.name.as_str(), spec.path.as_str(), spec.field.as_str()));
            assert_eq!(parsed, want, "{text}");
        }
    }
}
