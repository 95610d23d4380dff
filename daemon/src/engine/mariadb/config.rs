//! The engine's configuration and the MariaDB part of a role, parsed once.

use super::sql::{Account, Name};
use crate::{
    base::limits::DEFINITION_BYTES_MAX,
    engine::{
        DynamicRole, EngineError,
        server::{self, Server, SslMode},
    },
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Grants of one role.
const GRANTS_MAX: usize = 32;
/// What may be granted in a database: nothing that reaches beyond it, and no `GRANT OPTION`.
const PRIVILEGES: &[&str] = &[
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "CREATE",
    "DROP",
    "ALTER",
    "INDEX",
    "REFERENCES",
    "EXECUTE",
    "TRIGGER",
    "EVENT",
    "CREATE VIEW",
    "SHOW VIEW",
    "CREATE ROUTINE",
    "ALTER ROUTINE",
    "LOCK TABLES",
    "CREATE TEMPORARY TABLES",
    "DELETE HISTORY",
];

/// Where the server is and how to talk to it; no secrets. README.md explains each key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Name, address, or path of the Unix socket (begins with `/`).
    pub host: String,
    #[serde(default = "port")]
    pub port: u16,
    /// The root account's name.
    pub username: Name,
    /// The role that every account of this mount is a member of, and by which the server is known.
    pub marker: Name,
    /// What answers name as the database to use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<Name>,
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
    3306
}

impl Config {
    pub fn parse(json: &str) -> Result<Self, EngineError> {
        let wrong = |text: String| EngineError::Config(format!("configuration: {text}"));
        if json.len() > DEFINITION_BYTES_MAX {
            return Err(wrong(format!("longer than {DEFINITION_BYTES_MAX} bytes")));
        }
        let config: Self = serde_json::from_str(json).map_err(|error| wrong(error.to_string()))?;
        config.server().check()?;
        server::first_that_fails([(
            config.username != config.marker,
            "marker: a role of its own, not the root account".to_owned(),
        )])?;
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

/// MariaDB's part of a dynamic role: a role whose rights each account has, or rights in databases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Template {
    /// The role that each account is a member of, active from log-in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Name>,
    /// Rights of the account itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<Grant>,
    /// From where the accounts may log in, as MariaDB writes it: `10.0.%`.
    #[serde(default = "any_host")]
    pub host: String,
}

/// Rights in one database or table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Grant {
    pub privileges: Vec<String>,
    pub database: Name,
    /// All tables when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<Name>,
}

fn any_host() -> String {
    "%".to_owned()
}

impl Template {
    pub fn of(role: &DynamicRole) -> Result<Self, EngineError> {
        let wrong = |text: String| EngineError::Config(format!("role definition: {text}"));
        let template: Self = serde_json::from_value(serde_json::Value::Object(role.body.clone()))
            .map_err(|error| wrong(error.to_string()))?;
        if template.role.is_none() && template.grants.is_empty() {
            return Err(wrong("role or grants: what the accounts may do".to_owned()));
        }
        if template.grants.len() > GRANTS_MAX {
            return Err(wrong(format!("grants: at most {GRANTS_MAX}")));
        }
        Account::new("probe", &template.host).map_err(|_| wrong("host: 1 to 255 bytes without spaces".to_owned()))?;
        for grant in &template.grants {
            grant.check().map_err(wrong)?;
        }
        Ok(template)
    }

    /// The statements that give `account` its rights.
    pub fn statements(&self, account: &Account) -> Vec<String> {
        let mut statements = Vec::new();
        if let Some(role) = &self.role {
            statements.push(format!("GRANT {role} TO {account}"));
            statements.push(format!("SET DEFAULT ROLE {role} FOR {account}"));
        }
        statements.extend(self.grants.iter().map(|grant| format!("{} TO {account}", grant.sql())));
        statements
    }
}

impl Grant {
    fn check(&self) -> Result<(), String> {
        if let Some(word) = self.privileges.iter().find(|word| !PRIVILEGES.contains(&word.as_str())) {
            return Err(format!("grants: {word}: the privileges are {}", PRIVILEGES.join(", ")));
        }
        if self.privileges.is_empty() {
            return Err("grants: privileges: at least one".to_owned());
        }
        // In a grant on a whole database these two would stand for other letters.
        if self.table.is_none() && self.database.as_str().contains(['%', '\\']) {
            return Err("grants: database: without % and \\".to_owned());
        }
        let systems = ["mysql", "sys", "performance_schema", "information_schema"];
        if systems
            .iter()
            .any(|name| self.database.as_str().eq_ignore_ascii_case(name))
        {
            return Err("grants: database: the server's own databases are not handed out".to_owned());
        }
        Ok(())
    }

    /// Only words of [`PRIVILEGES`] and quoted names.
    fn sql(&self) -> String {
        let privileges = self.privileges.join(", ");
        match &self.table {
            Some(table) => format!("GRANT {privileges} ON {}.{table}", self.database),
            // `_` stands for any letter there.
            None => {
                let pattern = self.database.to_string().replace('_', "\\_");
                format!("GRANT {privileges} ON {pattern}.*")
            }
        }
    }
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
            (with(r#","port":1,"database":"Ü ` x","connections":64"#), None),
            (with(r#","password":"x""#), Some("password")),
            (with(r#","port":0"#), Some("port")),
            (with(r#","connections":65"#), Some("connections")),
            (with(r#","statement_timeout_secs":31"#), Some("statement_timeout_secs")),
            (with(r#","database":"""#), Some("1 to 80 bytes")),
            (
                r#"{"host":"db","username":"a","marker":"a","sslmode":"disable"}"#.to_owned(),
                Some("marker"),
            ),
            (
                r#"{"host":"db","username":"a","marker":"m"}"#.to_owned(),
                Some("ca_pem"),
            ),
            (r#"{"host":"db","username":"a"}"#.to_owned(), Some("marker")),
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
        let grant = |rest: &str| format!(r#"{{"grants":[{{{rest}}}]}}"#);
        for (json, want) in [
            (
                r#"{"role":"readers"}"#.to_owned(),
                Ok("GRANT `readers` TO `x`@`%`; SET DEFAULT ROLE `readers` FOR `x`@`%`"),
            ),
            (
                grant(r#""privileges":["SELECT","CREATE VIEW"],"database":"my_shop""#),
                Ok("GRANT SELECT, CREATE VIEW ON `my\\_shop`.* TO `x`@`%`"),
            ),
            (
                grant(r#""privileges":["SELECT"],"database":"my_shop","table":"a`b""#),
                Ok("GRANT SELECT ON `my_shop`.`a``b` TO `x`@`%`"),
            ),
            (grant(r#""privileges":["SUPER"],"database":"shop""#), Err("SUPER")),
            (
                grant(r#""privileges":["SELECT ON *.* TO x"],"database":"shop""#),
                Err("privileges"),
            ),
            (grant(r#""privileges":[],"database":"shop""#), Err("at least one")),
            (grant(r#""privileges":["SELECT"],"database":"%""#), Err("without %")),
            (
                grant(r#""privileges":["SELECT"],"database":"MySQL""#),
                Err("own databases"),
            ),
            (r#"{"role":"readers","host":""}"#.to_owned(), Err("host")),
            (r#"{"role":"readers","super":true}"#.to_owned(), Err("super")),
            ("{}".to_owned(), Err("role or grants")),
        ] {
            let Ok(Definition::Dynamic(role)) = Definition::parse(&json) else {
                panic!("{json}")
            };
            let account = Account::parse("x").unwrap();
            match (Template::of(&role), want) {
                (Ok(template), Ok(sql)) => assert_eq!(template.statements(&account).join("; "), sql, "{json}"),
                (Err(error), Err(key)) => assert!(error.to_string().contains(key), "{json}: {error}"),
                (got, _) => panic!("{json}: {got:?}"),
            }
        }
    }
}
