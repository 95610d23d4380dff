//! The engine's configuration and the PostgreSQL part of a role, parsed once.

use super::{scram::ITERATIONS_DEFAULT, sql::Name};
use crate::{
    base::limits::DEFINITION_BYTES_MAX,
    engine::{
        DynamicRole, EngineError,
        server::{self, Server, SslMode},
    },
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Databases that the configuration test connects to.
const DATABASES_MAX: usize = 64;
/// Former system identifiers that are accepted.
const FORMERLY_MAX: usize = 8;
/// Least and most PBKDF2 iterations of a verifier.
const SCRAM_ITERATIONS: std::ops::RangeInclusive<u32> = 1..=600_000;

/// Where the server is and how to talk to it; no secrets. README.md explains each key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Name, address, or directory of the Unix socket (begins with `/`).
    pub host: String,
    #[serde(default = "port")]
    pub port: u16,
    /// The database the engine works in.
    #[serde(default = "dbname")]
    pub dbname: Name,
    /// The root account when the mount is first configured; a rotation moves on from it.
    pub username: Name,
    /// The NOLOGIN role that all root accounts are members of.
    pub manager: Name,
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
    /// Further databases in which accounts may come to own something: the test connects to each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<Name>,
    /// System identifiers that this server had before (pg_upgrade, restore).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub formerly: Vec<String>,
}

fn port() -> u16 {
    5432
}
#[allow(clippy::expect_used)] // a constant of eight letters
fn dbname() -> Name {
    Name::parse("postgres").expect("a name")
}
impl Config {
    pub fn parse(json: &str) -> Result<Self, EngineError> {
        let wrong = |text: String| EngineError::Config(format!("configuration: {text}"));
        if json.len() > DEFINITION_BYTES_MAX {
            return Err(wrong(format!("longer than {DEFINITION_BYTES_MAX} bytes")));
        }
        let config: Self = serde_json::from_str(json).map_err(|error| wrong(error.to_string()))?;
        config.server().check()?;
        server::first_that_fails([
            (
                config.databases.len() <= DATABASES_MAX,
                format!("databases: at most {DATABASES_MAX}"),
            ),
            (
                config.formerly.len() <= FORMERLY_MAX,
                format!("formerly: at most {FORMERLY_MAX}"),
            ),
            (
                config.username != config.manager,
                "manager: a NOLOGIN role of its own, not the root account".to_owned(),
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
}

/// PostgreSQL's part of a dynamic role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Template {
    /// The group whose rights each account has, by membership: one GRANT for all, where grants to each account serialise
    /// in the server and fail at about 2,440 of them ("row is too big").
    pub group: Name,
    /// Who inherits what accounts leave behind; the group when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Name>,
    /// PBKDF2 iterations of the verifier. Fewer than 4,096 are safe for passwords of 190 bits, but some drivers refuse them.
    #[serde(default = "iterations", skip_serializing_if = "is_default")]
    pub scram_iterations: u32,
}

fn iterations() -> u32 {
    ITERATIONS_DEFAULT
}
#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_default(iterations: &u32) -> bool {
    *iterations == ITERATIONS_DEFAULT
}

impl Template {
    pub fn of(role: &DynamicRole) -> Result<Self, EngineError> {
        let wrong = |text: String| EngineError::Config(format!("role definition: {text}"));
        let template: Self = serde_json::from_value(serde_json::Value::Object(role.body.clone()))
            .map_err(|error| wrong(error.to_string()))?;
        if !SCRAM_ITERATIONS.contains(&template.scram_iterations) {
            return Err(wrong(format!(
                "scram_iterations: {} to {}",
                SCRAM_ITERATIONS.start(),
                SCRAM_ITERATIONS.end()
            )));
        }
        // Predefined roles such as pg_execute_server_program would hand out the whole server.
        for (key, name) in [("group", &template.group), ("owner", template.owner())] {
            if name.as_str().starts_with("pg_") {
                return Err(wrong(format!(
                    "{key}: predefined roles (pg_...) are not handed out; make a group that is a member"
                )));
            }
        }
        Ok(template)
    }

    pub fn owner(&self) -> &Name {
        self.owner.as_ref().unwrap_or(&self.group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Definition;

    #[test]
    fn configuration_table() {
        let with = |more: &str| format!(r#"{{"host":"db","username":"a","manager":"m","sslmode":"disable"{more}}}"#);
        for (json, want) in [
            (with(""), None),
            (with(r#","port":1,"dbname":"Ü \" x","connections":64"#), None),
            (with(r#","password":"x""#), Some("password")),
            (with(r#","port":0"#), Some("port")),
            (with(r#","connections":65"#), Some("connections")),
            (with(r#","connections":0"#), Some("connections")),
            (with(r#","statement_timeout_secs":31"#), Some("statement_timeout_secs")),
            (with(r#","dbname":"""#), Some("1 to 63 bytes")),
            (
                r#"{"host":"db","username":"a","manager":"a","sslmode":"disable"}"#.to_owned(),
                Some("manager"),
            ),
            (
                r#"{"host":"db","username":"a","manager":"m"}"#.to_owned(),
                Some("ca_pem"),
            ),
            (
                r#"{"host":"db","username":"a","manager":"m","ca_pem":"x"}"#.to_owned(),
                Some("ca_pem"),
            ),
            (r#"{"host":"db","username":"a"}"#.to_owned(), Some("manager")),
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
    fn template_table() {
        for (json, want) in [
            (r#"{"group":"readers"}"#, Ok("readers")),
            (r#"{"group":"readers","owner":"keeper"}"#, Ok("keeper")),
            (r#"{"group":"pg_read_all_data"}"#, Err("predefined")),
            (r#"{"group":"readers","owner":"pg_monitor"}"#, Err("predefined")),
            (r#"{"group":"readers","scram_iterations":0}"#, Err("scram_iterations")),
            (r#"{"group":"readers","superuser":true}"#, Err("superuser")),
            ("{}", Err("group")),
        ] {
            let Ok(Definition::Dynamic(role)) = Definition::parse(json) else {
                panic!("{json}")
            };
            match (Template::of(&role), want) {
                (Ok(template), Ok(owner)) => assert_eq!(template.owner().as_str(), owner, "{json}"),
                (Err(error), Err(key)) => assert!(error.to_string().contains(key), "{json}: {error}"),
                (got, _) => panic!("{json}: {got:?}"),
            }
        }
    }
}
