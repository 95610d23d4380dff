//! The engine's configuration and the Redis part of a role, parsed once.

use crate::{
    base::limits::DEFINITION_BYTES_MAX,
    engine::{
        DynamicRole, EngineError,
        server::{self, Server, SslMode},
    },
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Longest name of an account or marker.
const NAME_BYTES_MAX: usize = 128;
/// Rules of one role.
const RULES_MAX: usize = 64;
/// Longest rule.
const RULE_BYTES_MAX: usize = 256;

/// Where the server is and how to talk to it; no secrets. README.md explains each key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Name, address, or path of the Unix socket (begins with `/`).
    pub host: String,
    #[serde(default = "port")]
    pub port: u16,
    /// The root account's name.
    pub username: String,
    /// What every account of this mount carries, so that strays are found.
    pub marker: String,
    #[serde(default)]
    pub sslmode: SslMode,
    /// PEM of the CAs for `verify-full`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    #[serde(default = "server::connect_timeout")]
    pub connect_timeout_secs: u64,
    #[serde(default = "server::statement_timeout")]
    pub statement_timeout_secs: u64,
    /// Connections kept at most.
    #[serde(default = "server::connections")]
    pub connections: usize,
}

fn port() -> u16 {
    6379
}

/// Whether `text` can be the name of an account: what Redis would take for several words is none.
pub(super) fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.chars().all(|c| !c.is_whitespace() && !c.is_control())
}

impl Config {
    pub fn parse(json: &str) -> Result<Self, EngineError> {
        let wrong = |text: String| EngineError::Config(format!("configuration: {text}"));
        if json.len() > DEFINITION_BYTES_MAX {
            return Err(wrong(format!("longer than {DEFINITION_BYTES_MAX} bytes")));
        }
        let config: Self = serde_json::from_str(json).map_err(|error| wrong(error.to_string()))?;
        config.server().check()?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        server::first_that_fails([
            (
                is_name(&config.username),
                format!("username: 1 to {NAME_BYTES_MAX} bytes without spaces"),
            ),
            (
                (1..=NAME_BYTES_MAX).contains(&config.marker.len()) && config.marker.chars().all(plain),
                "marker: letters, digits, - and _".to_owned(),
            ),
        ])?;
        Ok(config)
    }

    pub fn server(&self) -> Server<'_> {
        Server {
            host: &self.host,
            port: self.port,
            sslmode: self.sslmode,
            ca_pem: self.ca_pem.as_deref(),
            connect_timeout_secs: self.connect_timeout_secs,
            statement_timeout_secs: self.statement_timeout_secs,
            connections: self.connections,
        }
    }

    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    pub fn connect_timeout(&self) -> Duration {
        Duration::from_secs(self.connect_timeout_secs)
    }

    pub fn statement_timeout(&self) -> Duration {
        Duration::from_secs(self.statement_timeout_secs)
    }

    /// The selector that marks an account: it names a key pattern and allows no command, so it gives no right.
    pub fn mark(&self) -> String {
        mark(&self.marker)
    }
}

pub(super) fn mark(marker: &str) -> String {
    format!("(%R~strongroom:{marker})")
}

/// Redis's part of a dynamic role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Template {
    /// ACL rules: key patterns, channels, commands, in Redis's own words. An account begins with nothing.
    pub rules: Vec<String>,
}

/// Commands and categories by which an account could give itself, or others, more.
const POWERS: &[&str] = &[
    "@all",
    "@admin",
    "@dangerous",
    "acl",
    "config",
    "module",
    "debug",
    "cluster",
    "replicaof",
    "slaveof",
    "failover",
    "shutdown",
    "migrate",
    "save",
    "bgsave",
    "psync",
    "sync",
    "replconf",
    "monitor",
    "client|kill",
    "client|no-evict",
];

impl Template {
    pub fn of(role: &DynamicRole) -> Result<Self, EngineError> {
        let wrong = |text: String| EngineError::Config(format!("role definition: {text}"));
        let template: Self = serde_json::from_value(serde_json::Value::Object(role.body.clone()))
            .map_err(|error| wrong(error.to_string()))?;
        if template.rules.is_empty() || template.rules.len() > RULES_MAX {
            return Err(wrong(format!("rules: 1 to {RULES_MAX}")));
        }
        for rule in &template.rules {
            check(rule).map_err(|text| wrong(format!("rules: {rule:?}: {text}")))?;
        }
        Ok(template)
    }
}

/// A rule about keys, channels or commands; nothing about passwords, and no power over the server.
fn check(rule: &str) -> Result<(), &'static str> {
    if rule.len() > RULE_BYTES_MAX || rule.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("one word of at most 256 bytes");
    }
    if ["~", "%R~", "%W~", "%RW~", "&", "-"]
        .iter()
        .any(|start| rule.starts_with(start))
    {
        return Ok(());
    }
    if ["allkeys", "allchannels", "resetkeys", "resetchannels", "nocommands"].contains(&rule) {
        return Ok(());
    }
    let Some(command) = rule.strip_prefix('+') else {
        return Err("only ~keys, &channels, +commands and -commands");
    };
    let command = command.to_ascii_lowercase();
    let base = command.split('|').next().unwrap_or_default();
    if POWERS.contains(&command.as_str()) || POWERS.contains(&base) || command == "client" {
        return Err("gives power over the server; allow commands or harmless categories (+@read, +@write)");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Definition;

    #[test]
    fn configuration_table() {
        let with = |more: &str| format!(r#"{{"host":"db","username":"a","marker":"m","sslmode":"disable"{more}}}"#);
        for (json, want) in [
            (with(""), None),
            (with(r#","port":6380,"connections":64"#), None),
            (with(r#","password":"x""#), Some("password")),
            (with(r#","port":0"#), Some("port")),
            (
                r#"{"host":"db","username":"a b","marker":"m","sslmode":"disable"}"#.to_owned(),
                Some("username"),
            ),
            (
                r#"{"host":"db","username":"a","marker":"m)","sslmode":"disable"}"#.to_owned(),
                Some("marker"),
            ),
            (
                r#"{"host":"db","username":"a","marker":"m"}"#.to_owned(),
                Some("ca_pem"),
            ),
            ("null".to_owned(), Some("configuration")),
        ] {
            match (Config::parse(&json), want) {
                (Ok(config), None) => assert_eq!(Config::parse(&config.json()).unwrap().json(), config.json()),
                (Err(error), Some(key)) => assert!(error.to_string().contains(key), "{json}: {error}"),
                (got, _) => panic!("{json}: {got:?}"),
            }
        }
    }

    #[test]
    fn rules_table() {
        for (rule, good) in [
            ("~app:*", true),
            ("%R~app:*", true),
            ("&news", true),
            ("+@read", true),
            ("+client|setname", true),
            ("-@dangerous", true),
            ("allkeys", true),
            ("+@all", false),
            ("+ACL", false),
            ("+acl|setuser", false),
            ("+client", false),
            ("+config|get", false),
            ("allcommands", false),
            (">clear", false),
            ("#00", false),
            ("nopass", false),
            ("on", false),
            ("reset", false),
            ("(+@all)", false),
            ("~a +@all", false),
            ("", false),
        ] {
            let json = serde_json::json!({"rules": [rule]}).to_string();
            let Ok(Definition::Dynamic(role)) = Definition::parse(&json) else {
                panic!("{json}")
            };
            assert_eq!(Template::of(&role).is_ok(), good, "{rule}");
        }
    }
}
