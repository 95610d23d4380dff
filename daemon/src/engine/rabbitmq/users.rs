//! What is said to the server about users.

use super::{
    config::{Config, Template},
    connect::Session,
};
use crate::{
    base::random::Random,
    engine::{EngineError, http::path},
};
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

/// Tags that give power over the server, its settings or other accounts.
const POWERS: [&str; 3] = ["administrator", "policymaker", "impersonator"];
/// The tag that the engine's own account needs: no lesser one may make users.
pub(super) const ADMINISTRATOR: &str = "administrator";

/// The hash by which nobody can log in.
pub(super) const NO_PASSWORD: &str = "";

/// What RabbitMQ keeps instead of a password: base64 of a salt of 4 bytes and SHA-256 of salt and password
/// (<https://www.rabbitmq.com/docs/passwords>). One round: it protects passwords of 190 bits, which is what this engine makes.
pub(super) fn hash(password: &[u8], random: &dyn Random) -> String {
    let mut salt = [0; 4];
    random.fill(&mut salt);
    hash_with(password, salt)
}

fn hash_with(password: &[u8], salt: [u8; 4]) -> String {
    let digest = Sha256::new().chain_update(salt).chain_update(password).finalize();
    BASE64.encode(&[&salt[..], &digest[..]].concat())
}

/// A user as it is listed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct User {
    pub name: String,
    #[serde(default)]
    pub tags: Vec<String>,
}

impl User {
    pub fn has_power(&self) -> bool {
        self.tags.iter().any(|tag| POWERS.contains(&tag.as_str()))
    }

    pub fn is(&self, tag: &str) -> bool {
        self.tags.iter().any(|own| own == tag)
    }
}

fn at(account: &str) -> String {
    path(&["api", "users", account])
}

pub(super) async fn find(session: &mut Session, account: &str) -> Result<Option<User>, EngineError> {
    session.get(&format!("{}?columns=name,tags", at(account))).await
}

/// Users that carry the mark.
pub(super) async fn marked(session: &mut Session, mark: &str) -> Result<Vec<String>, EngineError> {
    let users: Option<Vec<User>> = session.get("/api/users?columns=name,tags").await?;
    let users = users.ok_or_else(|| EngineError::Refused("the server lists no users".to_owned()))?;
    let ours = users.into_iter().filter(|user| user.is(mark));
    Ok(ours.map(|user| user.name).collect())
}

/// Makes a user, or sets an existing one's password and tags; its limits and permissions stay.
pub(super) async fn put<T: AsRef<str>>(
    session: &mut Session,
    account: &str,
    hash: &str,
    tags: &[T],
) -> Result<(), EngineError> {
    let tags: Vec<&str> = tags.iter().map(AsRef::as_ref).collect();
    let body = json!({"password_hash": hash, "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": tags});
    session.put(&at(account), &body).await
}

/// `false`: there was none. Nobody logs in with it from now on, and its permissions go with it.
pub(super) async fn delete(session: &mut Session, account: &str) -> Result<bool, EngineError> {
    session.delete(&at(account)).await
}

/// Gives a user what a role says. Without permissions it cannot so much as open a connection.
pub(super) async fn permit(session: &mut Session, account: &str, template: &Template) -> Result<(), EngineError> {
    for (vhost, rights) in &template.vhosts {
        for (exchange, topic) in &rights.topics {
            let body = json!({"exchange": exchange, "write": topic.write, "read": topic.read});
            session
                .put(&path(&["api", "topic-permissions", vhost, account]), &body)
                .await?;
        }
        let body = json!({"configure": rights.configure, "write": rights.write, "read": rights.read});
        session
            .put(&path(&["api", "permissions", vhost, account]), &body)
            .await?;
    }
    Ok(())
}

/// Every virtual host of a role must exist.
pub(super) async fn check_template(session: &mut Session, template: &Template) -> Result<(), EngineError> {
    for vhost in template.vhosts.keys() {
        let at = format!("{}?columns=name", path(&["api", "vhosts", vhost]));
        if session.get::<serde_json::Value>(&at).await?.is_none() {
            return Err(EngineError::Config(format!(
                "vhosts: {vhost} does not exist in the target"
            )));
        }
    }
    Ok(())
}

/// How many connections a user has, by whatever protocol, on whatever node; the server's own list, not its statistics.
pub(super) async fn connections(session: &mut Session, account: &str) -> Result<usize, EngineError> {
    let at = format!("{}?columns=name", of_user(account));
    let list: Option<Vec<serde::de::IgnoredAny>> = session.get(&at).await?;
    let list = list.ok_or_else(|| EngineError::Refused("the server lists no connections of a user".to_owned()))?;
    Ok(list.len())
}

pub(super) async fn close_connections(session: &mut Session, account: &str) -> Result<(), EngineError> {
    session.delete(&of_user(account)).await.map(drop)
}

fn of_user(account: &str) -> String {
    path(&["api", "connections", "username", account])
}

/// RabbitMQ makes 51.
const CLUSTER_ID_BYTES_MAX: usize = 128;

/// The id that a cluster keeps for life, whatever its name, nodes and version.
pub(super) async fn cluster(session: &mut Session) -> Result<String, EngineError> {
    #[derive(Deserialize)]
    struct Parameter {
        value: String,
    }
    let found: Option<Parameter> = session.get("/api/global-parameters/internal_cluster_id").await?;
    found
        .map(|parameter| parameter.value)
        .filter(|id| id.len() <= CLUSTER_ID_BYTES_MAX)
        .ok_or_else(|| EngineError::Config("host: the server has no cluster id: RabbitMQ 3.10 is needed".to_owned()))
}

/// A plan holds for the cluster that it was made for.
pub(super) async fn same_cluster(session: &mut Session, config: &Config, planned: &str) -> Result<(), EngineError> {
    let found = cluster(session).await?;
    if found == planned || config.formerly.iter().any(|known| known == planned) {
        return Ok(());
    }
    Err(EngineError::OtherServer {
        planned: planned.to_owned(),
        found,
    })
}

#[cfg(test)]
mod tests {
    /// The vector of RabbitMQ's documentation, "Computing a Password Hash": salt 908D C60A, password `test12`.
    #[test]
    fn the_hash_is_rabbitmqs() {
        assert_eq!(
            super::hash_with(b"test12", [0x90, 0x8d, 0xc6, 0x0a]),
            "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"
        );
    }
}
