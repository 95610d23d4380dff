//! The engine's configuration and RabbitMQ's part of a role, parsed once.

use crate::{
    base::limits::DEFINITION_BYTES_MAX,
    engine::{
        DynamicRole, EngineError,
        http::Address,
        server::{self, Server, SslMode},
    },
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// Longest name of an account, a virtual host or an exchange: a short string of AMQP.
const NAME_BYTES_MAX: usize = 255;
/// Longest marker.
const MARKER_BYTES_MAX: usize = 64;
/// Virtual hosts of one role.
const VHOSTS_MAX: usize = 16;
/// Exchanges with topic permissions of one role, all virtual hosts together.
const TOPICS_MAX: usize = 32;
/// Longest regular expression.
const PATTERN_BYTES_MAX: usize = 512;
/// Clusters that became this one.
const FORMERLY_MAX: usize = 8;
/// What a role may be tagged with: neither gives power over accounts or settings.
const TAGS: [&str; 2] = ["management", "monitoring"];

/// Where the server is and how to talk to it; no secrets. README.md explains each key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Name or address of the management API.
    pub host: String,
    #[serde(default = "port")]
    pub port: u16,
    /// The root account's name at set-up.
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
    /// Where clients go, if it is another host; told to them, never connected to from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amqp_host: Option<String>,
    #[serde(default = "amqp_port")]
    pub amqp_port: u16,
    /// Cluster ids of former lives of the same cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub formerly: Vec<String>,
}

fn port() -> u16 {
    15671
}
fn amqp_port() -> u16 {
    5671
}

/// Whether `text` can be the name of an account, a virtual host or an exchange here. The API takes `.` and `..` for other
/// places than they are.
pub(super) fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control) && !matches!(text, "." | "..")
}

impl Config {
    pub fn parse(json: &str) -> Result<Self, EngineError> {
        let wrong = |text: String| EngineError::Config(format!("configuration: {text}"));
        if json.len() > DEFINITION_BYTES_MAX {
            return Err(wrong(format!("longer than {DEFINITION_BYTES_MAX} bytes")));
        }
        let config: Self = serde_json::from_str(json).map_err(|error| wrong(error.to_string()))?;
        config.server().check()?;
        config.address()?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        server::first_that_fails([
            (
                // In a log-in the first colon ends the name.
                is_name(&config.username) && !config.username.contains(':'),
                format!("username: 1 to {NAME_BYTES_MAX} bytes without : and control characters"),
            ),
            (
                (1..=MARKER_BYTES_MAX).contains(&config.marker.len()) && config.marker.chars().all(plain),
                format!("marker: 1 to {MARKER_BYTES_MAX} letters, digits, - and _"),
            ),
            (
                config
                    .amqp_host
                    .as_ref()
                    .is_none_or(|host| (1..=NAME_BYTES_MAX).contains(&host.len())),
                format!("amqp_host: 1 to {NAME_BYTES_MAX} bytes"),
            ),
            (config.amqp_port != 0, "amqp_port: not 0".to_owned()),
            (
                config.formerly.len() <= FORMERLY_MAX,
                format!("formerly: at most {FORMERLY_MAX}"),
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

    pub fn address(&self) -> Result<Address, EngineError> {
        Address::new(&self.server())
    }

    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    pub fn statement_timeout(&self) -> Duration {
        Duration::from_secs(self.statement_timeout_secs)
    }

    /// The tag that marks an account. RabbitMQ knows no such tag: it gives no right.
    pub fn mark(&self) -> String {
        format!("strongroom:{}", self.marker)
    }

    /// The tag of the root accounts that this engine made.
    pub fn root_mark(&self) -> String {
        format!("strongroom-root:{}", self.marker)
    }
}

/// RabbitMQ's part of a dynamic role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Template {
    /// By virtual host; in others the account may do nothing.
    #[serde(default)]
    pub vhosts: BTreeMap<String, Rights>,
    #[serde(default)]
    pub tags: Vec<String>,
}

/// Regular expressions for names of queues and exchanges.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rights {
    #[serde(default)]
    pub configure: String,
    #[serde(default)]
    pub write: String,
    #[serde(default)]
    pub read: String,
    /// By topic exchange.
    #[serde(default)]
    pub topics: BTreeMap<String, TopicRights>,
}

/// Regular expressions for routing keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TopicRights {
    #[serde(default)]
    pub write: String,
    #[serde(default)]
    pub read: String,
}

impl Rights {
    fn patterns(&self) -> impl Iterator<Item = &String> {
        let topics = self.topics.values().flat_map(|topic| [&topic.write, &topic.read]);
        [&self.configure, &self.write, &self.read].into_iter().chain(topics)
    }
}

impl Template {
    pub fn of(role: &DynamicRole) -> Result<Self, EngineError> {
        let wrong = |text: String| EngineError::Config(format!("role definition: {text}"));
        let template: Self = serde_json::from_value(serde_json::Value::Object(role.body.clone()))
            .map_err(|error| wrong(error.to_string()))?;
        let rights = || template.vhosts.values();
        let topics = || rights().flat_map(|rights| rights.topics.keys());
        let known = |tag: &&String| TAGS.contains(&tag.as_str());
        let rules = [
            (
                template.vhosts.len() <= VHOSTS_MAX && !(template.vhosts.is_empty() && template.tags.is_empty()),
                format!("vhosts: 1 to {VHOSTS_MAX}, or none and a tag"),
            ),
            (
                template.vhosts.keys().chain(topics()).all(|name| is_name(name)),
                format!("vhosts: names of 1 to {NAME_BYTES_MAX} bytes without control characters"),
            ),
            (
                topics().count() <= TOPICS_MAX,
                format!("topics: at most {TOPICS_MAX} in all"),
            ),
            (
                rights()
                    .flat_map(Rights::patterns)
                    .all(|text| text.len() <= PATTERN_BYTES_MAX),
                format!("vhosts: expressions of at most {PATTERN_BYTES_MAX} bytes"),
            ),
            (
                template.tags.len() <= TAGS.len() && template.tags.iter().all(|tag| known(&tag)),
                "tags: management or monitoring; others give power over the server".to_owned(),
            ),
        ];
        match rules.into_iter().find(|(fits, _)| !fits) {
            Some((_, text)) => Err(wrong(text)),
            None => Ok(template),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Definition;

    #[test]
    fn configurations_table() {
        let base = r#""host":"h","username":"u","marker":"m""#;
        let plain = |more: &str| format!("{{{base},\"sslmode\":\"disable\"{more}}}");
        for (json, want) in [
            (plain(""), None),
            (plain(r#","amqp_host":"mq","amqp_port":5672,"formerly":["x"]"#), None),
            (format!("{{{base}}}"), Some("ca_pem")),
            (plain(r#","host2":1"#), Some("host2")),
            (plain(r#","port":0"#), Some("port")),
            (plain(r#","amqp_port":0"#), Some("amqp_port")),
            (plain(r#","amqp_host":"""#), Some("amqp_host")),
            (plain(r#","formerly":["","","","","","","","",""]"#), Some("formerly")),
            (plain("").replace("\"h\"", "\"/run/x\""), Some("host")),
            (plain("").replace("\"h\"", "\"a b\""), Some("host")),
            (plain("").replace("\"u\"", "\"a:b\""), Some("username")),
            (plain("").replace("\"u\"", "\"..\""), Some("username")),
            (plain("").replace("\"m\"", "\"a,b\""), Some("marker")),
        ] {
            match (Config::parse(&json), want) {
                (Ok(config), None) => assert_eq!(Config::parse(&config.json()).unwrap().json(), config.json()),
                (Err(error), Some(key)) => assert!(error.to_string().contains(key), "{json}: {error}"),
                (got, _) => panic!("{json}: {got:?}"),
            }
        }
    }

    #[test]
    fn roles_table() {
        for (json, want) in [
            (r#"{"vhosts":{"/":{"read":".*"}}}"#, None),
            (r#"{"vhosts":{"/":{"topics":{"amq.topic":{"read":"a"}}}}}"#, None),
            (r#"{"tags":["monitoring"]}"#, None),
            (r#"{}"#, Some("vhosts")),
            (r#"{"vhosts":{"":{}}}"#, Some("vhosts")),
            (r#"{"vhosts":{"..":{}}}"#, Some("vhosts")),
            (r#"{"vhosts":{"a\u0000":{}}}"#, Some("vhosts")),
            (r#"{"vhosts":{"/":{"topics":{"":{}}}}}"#, Some("vhosts")),
            (r#"{"vhosts":{"/":{"reed":""}}}"#, Some("reed")),
            (r#"{"vhosts":{"/":{}},"tags":["administrator"]}"#, Some("power")),
            (r#"{"vhosts":{"/":{}},"tags":["policymaker"]}"#, Some("power")),
            (r#"{"vhosts":{"/":{}},"tags":["impersonator"]}"#, Some("power")),
            (r#"{"vhosts":{"/":{}},"tags":["strongroom:other"]}"#, Some("power")),
        ] {
            let Ok(Definition::Dynamic(role)) = Definition::parse(json) else {
                panic!("{json}")
            };
            match (Template::of(&role), want) {
                (Ok(_), None) => {}
                (Err(error), Some(word)) => assert!(error.to_string().contains(word), "{json}: {error}"),
                (got, _) => panic!("{json}: {got:?}"),
            }
        }
        let long = serde_json::json!({"vhosts": {"/": {"read": "x".repeat(PATTERN_BYTES_MAX + 1)}}}).to_string();
        let Ok(Definition::Dynamic(role)) = Definition::parse(&long) else {
            panic!("{long}")
        };
        assert!(Template::of(&role).unwrap_err().to_string().contains("expressions"));
    }
}
