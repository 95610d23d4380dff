//! Named bundles (R-KV-3): a secret that lists what an application needs. Each of its fields is a name, and its value says what that stands for:
//! `ref:` and a path, and with `?` what else may be said of an item, `ref:kv/prod/db?label=stable`, `ref:kv/prod/db?version=3`,
//! `ref:pg/readers?ttl=1h`. Whoever may read it may ask for it by its path; what it lists is decided item by item, as if it had been asked for.
//!
//! The marker is there because paths are recorded and told, and values never: a password must not be taken for a path.

use super::{Goods, ITEMS_MAX, fetch::Item};
use crate::{
    base::path::Path,
    gate::{Failure, Reason},
    kv::Select,
};

/// What every value of a bundle begins with.
const MARK: &str = "ref:";

/// What is listed. Errors name the field, never its value: somebody may have asked for a secret that is no bundle.
pub(super) fn items(bundle: Option<&Goods>) -> Result<Vec<Item>, Failure> {
    let Some(Goods::Secret(secret)) = bundle else {
        return Err(Failure::with(
            Reason::NotPossible,
            "a bundle is a secret that lists paths: this is a role",
        ));
    };
    let items = secret.fields.expose().map(|(name, value)| {
        let item = std::str::from_utf8(value).ok().and_then(|text| item(name, text));
        item.ok_or_else(|| {
            let words = format!("it is no bundle: field `{name}` must be `ref:` and a path, with `?label=`, `?version=` or `?ttl=` after it where needed");
            Failure::with(Reason::NotPossible, words)
        })
    });
    let items = items.collect::<Result<Vec<_>, _>>()?;
    match items.len() {
        1..=ITEMS_MAX => Ok(items),
        _ => Err(Failure::with(
            Reason::NotPossible,
            format!("a bundle lists 1 to {ITEMS_MAX} items"),
        )),
    }
}

fn item(name: &str, text: &str) -> Option<Item> {
    let text = text.trim().strip_prefix(MARK)?;
    let (path, more) = text.split_once('?').unwrap_or((text, ""));
    let mut item = Item {
        name: name.to_owned(),
        ..Item::plain(Path::parse(path).ok()?)
    };
    for word in more.split('&').filter(|word| !word.is_empty()) {
        let (key, value) = word.split_once('=').filter(|(_, value)| !value.is_empty())?;
        match (key, &item.select) {
            ("label", Select::Current) => item.select = Select::Label(value.to_owned()),
            ("version", Select::Current) => item.select = Select::Version(value.parse().ok()?),
            ("ttl", _) if item.ttl_secs == 0 => item.ttl_secs = humantime::parse_duration(value).ok()?.as_secs().max(1),
            _ => return None,
        }
    }
    Some(item)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// R-KV-3: what a field of a bundle may say.
    #[test]
    fn fields_name_items() {
        for (text, select, ttl) in [
            ("ref:kv/prod/db", Select::Current, 0),
            (" ref:kv/prod/db\n", Select::Current, 0),
            ("ref:kv/prod/db?label=stable", Select::Label("stable".into()), 0),
            ("ref:kv/prod/db?version=3", Select::Version(3), 0),
            ("ref:pg/readers?ttl=1h", Select::Current, 3600),
            ("ref:kv/prod/db?label=a&ttl=90s", Select::Label("a".into()), 90),
        ] {
            let item = item("db", text).unwrap();
            assert_eq!(
                (item.name.as_str(), item.select, item.ttl_secs),
                ("db", select, ttl),
                "{text}"
            );
        }
        for text in [
            "",
            "s3cret value",
            "s3cret",
            "kv/prod/db",
            "ref:",
            "ref:kv/a?label=",
            "ref:kv/a?label=a&version=1",
            "ref:kv/a?ttl=x",
            "ref:kv/a?x=1",
            "ref:kv/a?ttl=1h&ttl=1h",
            "ref:/kv",
            "ref:kv//a",
        ] {
            assert!(item("db", text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_item_or_not(text in "\\PC{0,80}|ref:kv/a\\?[a-z=&0-9]{0,30}") {
            if let Some(item) = item("n", &text) {
                let named = format!("ref:{}", item.path);
                prop_assert!(text.trim().starts_with(&named));
            }
        }
    }
}
