//! Which line each key of a file stands on, for errors that come up after serde has let go of the text.

use std::collections::BTreeMap;
use toml::de::{DeTable, DeValue};

/// Dotted keys (`hsm.main.pin_file`) and their lines, from 1. No values.
#[derive(Debug, Clone, Default)]
pub struct Lines(BTreeMap<String, usize>);

impl Lines {
    /// Of a text that is TOML; of any other text there are none.
    pub fn of(text: &str) -> Self {
        let mut lines = Self::default();
        if let Ok(table) = DeTable::parse(text) {
            lines.read(text, "", table.get_ref());
        }
        lines
    }

    /// Tables nest as deep as the parser lets them.
    fn read(&mut self, text: &str, above: &str, table: &DeTable<'_>) {
        for (name, value) in table.iter() {
            let key = if above.is_empty() {
                name.get_ref().to_string()
            } else {
                format!("{above}.{}", name.get_ref())
            };
            let before = text.get(..name.span().start).unwrap_or_default();
            if let DeValue::Table(below) = value.get_ref() {
                self.read(text, &key, below);
            }
            self.0.insert(key, before.matches('\n').count() + 1);
        }
    }

    /// Where `key` stands, if it is in the file.
    pub fn line(&self, key: &str) -> Option<usize> {
        self.0.get(key).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_every_shape_are_found() {
        let lines = Lines::of(
            "a = 1\n[limits]\n\nrequests_max = 0\nrates.reads = \"off\"\n[hsm.main]\nenv = { X_CONF = \"/x\", Y = \"é\" }\n",
        );
        for (key, line) in [
            ("a", Some(1)),
            ("limits", Some(2)),
            ("limits.requests_max", Some(4)),
            ("limits.rates.reads", Some(5)),
            ("hsm.main.env.Y", Some(7)),
            ("hsm.other", None),
        ] {
            assert_eq!(lines.line(key), line, "{key}");
        }
        assert_eq!(Lines::of("= broken").line("broken"), None);
    }
}
