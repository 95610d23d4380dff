//! Credential engines: kinds of outside systems in which accounts are made, rotated and dropped.
//! May touch: base, notice (topics), lease, policy::Permit, store::View, audit::Trail.
//! Reading order: this file (the trait a kind implements), `definition` (roles), `room` (the facade: roles, issue), `configure`,
//! `statics` (existing accounts), `root` (the engine's own credential), `reconcile` (targets against leases), then a kind's folder. A new kind is one folder, one
//! arm of [`Kind`] and one run of `conformance`.

mod configure;
#[cfg(test)]
mod conformance;
pub mod definition;
mod error;
mod http;
pub mod mariadb;
mod ours;
mod pool;
pub mod postgres;
pub mod rabbitmq;
mod reconcile;
pub mod redis;
mod room;
mod root;
mod server;
mod statics;
mod stored;
pub mod testing;

pub use definition::{Definition, DynamicRole, StaticRole};
pub use error::EngineError;
pub use reconcile::Report;
pub use room::{EngineRoom, Engines, Issued, MountRef, RoomError};
pub use statics::{Failing, Rotated};

use crate::{
    base::{
        id::{BootId, LeaseId},
        random::Random,
        secret::SecretBytes,
        time::{Clock, Timestamp},
    },
    lease::{Birth, Durable, Plan},
};
use std::{sync::Arc, time::Duration};

/// An engine's root password, or a static account's: longer ones are refused.
pub const ROOT_SECRET_BYTES_MAX: usize = 1024;
/// Passwords made here: 32 of 62 characters, 190 bits. No character needs quoting anywhere.
pub const PASSWORD_CHARS: usize = 32;

/// The kinds of engines, and the one place that lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// PostgreSQL 15.
    Postgres,
    /// MariaDB 10.11.
    MariaDb,
    /// RabbitMQ 3.10.
    RabbitMq,
    /// Redis 7.
    Redis,
}

impl Kind {
    /// An engine from its configuration (JSON) and root credential. Touches nothing outside.
    /// # Errors
    /// `Config` naming the key that is wrong.
    pub fn open(
        self,
        config_json: &str,
        root: &Root,
        surroundings: &Surroundings,
    ) -> Result<Arc<dyn Engine>, EngineError> {
        match self {
            Self::Postgres => Ok(Arc::new(postgres::Postgres::open(config_json, root, surroundings)?)),
            Self::MariaDb => Ok(Arc::new(mariadb::MariaDb::open(config_json, root, surroundings)?)),
            Self::RabbitMq => Ok(Arc::new(rabbitmq::RabbitMq::open(config_json, root, surroundings)?)),
            Self::Redis => Ok(Arc::new(redis::Redis::open(config_json, root, surroundings)?)),
        }
    }

    /// The root account that a configuration names; a rotation moves on from it.
    /// # Errors
    /// `Config`.
    pub fn configured_account(self, config_json: &str) -> Result<String, EngineError> {
        match self {
            Self::Postgres => postgres::Postgres::configured_account(config_json),
            Self::MariaDb => mariadb::MariaDb::configured_account(config_json),
            Self::RabbitMq => rabbitmq::RabbitMq::configured_account(config_json),
            Self::Redis => redis::Redis::configured_account(config_json),
        }
    }

    /// Whom the root credential would be shown to: server and how it proves itself. Another answer asks for the credential anew, so that
    /// nobody who lacks it can have it sent elsewhere.
    /// # Errors
    /// `Config`.
    pub fn configured_server(self, config_json: &str) -> Result<String, EngineError> {
        match self {
            Self::Postgres => postgres::Postgres::configured_server(config_json),
            Self::MariaDb => mariadb::MariaDb::configured_server(config_json),
            Self::RabbitMq => rabbitmq::RabbitMq::configured_server(config_json),
            Self::Redis => redis::Redis::configured_server(config_json),
        }
    }
}

/// What every engine is given from around it.
#[derive(Clone)]
pub struct Surroundings {
    /// This run of the daemon: engines mark their sessions with it.
    pub boot: BootId,
    /// Vault and wall time.
    pub clock: Arc<dyn Clock>,
    /// Chance for passwords and salts.
    pub random: Arc<dyn Random>,
}

/// The credential that an engine works with.
pub struct Root {
    /// Account name, as it stands now: a rotation gives it another.
    pub account: String,
    /// Its password.
    pub secret: SecretBytes,
}

/// A credential as it is handed out: names and values of the answer's fields.
pub type Fields = Vec<(&'static str, SecretBytes)>;

/// What a kind does. Every act outside takes a [`Durable`]: proof that what is about to change is on disk already.
/// All acts may be repeated; all are bounded in time.
#[async_trait::async_trait]
pub trait Engine: Send + Sync + 'static {
    /// No statement of [`Engine::create`] runs in the target longer than this after its intent.
    fn deadline(&self) -> Duration;

    /// The configuration's canonical JSON, without secrets.
    fn config_json(&self) -> String;

    /// Checks the kind's own part of a role against the target; gives it back in canonical form.
    /// # Errors
    /// `Config` for what cannot work, `Unreachable` when the target cannot be asked.
    async fn check_role(&self, definition: &Definition) -> Result<(), EngineError>;

    /// The frozen plan by which the lease will be revoked, whatever becomes of role and configuration. Touches the
    /// target to learn which one it is.
    /// # Errors
    /// `Unreachable`, so that no intent is written for a target that is down.
    async fn plan(&self, lease: LeaseId, role_name: &str, role: &DynamicRole) -> Result<Plan, EngineError>;

    /// Makes the plan's account and returns its fields.
    /// # Errors
    /// Any: the caller then revokes by the plan, for the account may exist.
    async fn create(
        &self,
        durable: &Durable,
        plan: &Plan,
        role: &DynamicRole,
        expires: Timestamp,
    ) -> Result<Fields, EngineError>;

    /// Moves the target's own time limit. Done before the lease is renewed.
    /// # Errors
    /// `Refused` when the account is gone.
    async fn renew(&self, durable: &Durable, plan: &Plan, expires: Timestamp) -> Result<(), EngineError>;

    /// Ends the account and proves it: locked, its sessions ended, what it owned given away, dropped, read back on a
    /// connection that did not act and is new, or a second old at most. What is gone is done, if `birth` lets that be believed.
    /// # Errors
    /// `NotYet` while the account might still appear. Others: try again later.
    async fn revoke(&self, durable: &Durable, plan: &Plan, birth: &Birth) -> Result<(), EngineError>;

    /// Every account in the target that carries this mount's mark, each with the plan that ends it.
    /// # Errors
    /// `Unreachable`.
    async fn marked(&self) -> Result<Vec<Plan>, EngineError>;

    /// The plan of a configuration test's throw-away account.
    /// # Errors
    /// `Unreachable`.
    async fn test_plan(&self, lease: LeaseId) -> Result<Plan, EngineError>;

    /// Runs the whole cycle from create to drop; one line a step.
    /// # Errors
    /// The first step that fails, in words that say what to grant.
    async fn test(&self, durable: &Durable, plan: &Plan) -> Result<Vec<String>, EngineError>;

    /// Sets an existing account's password. Only a verifier leaves this process.
    /// # Errors
    /// `Config` for accounts that are not the engine's to change.
    async fn set_password(&self, durable: &Durable, account: &str, password: &SecretBytes) -> Result<(), EngineError>;

    /// Whether `account` can log in with `password`.
    /// # Errors
    /// `Unreachable`: nothing is known then.
    async fn try_password(&self, account: &str, password: &SecretBytes) -> Result<bool, EngineError>;

    /// The fields of a static account's answer.
    fn static_fields(&self, account: &str, password: &SecretBytes) -> Fields;

    /// The root account that the engine works with.
    fn root_account(&self) -> &str;

    /// The account that would follow the present root account.
    fn successor(&self) -> String;

    /// Makes or resets `next` as a root account with all that the present one can do. Where an account can have two
    /// passwords, `next` is the present account with a second one.
    /// # Errors
    /// Any; repeated until it succeeds.
    async fn create_root(&self, durable: &Durable, next: &Root) -> Result<(), EngineError>;

    /// Whether the engine's own account can do what a root account must.
    /// # Errors
    /// `Config` with what to grant.
    async fn check_root(&self) -> Result<(), EngineError>;

    /// Retires a former root account: locked, without password, its sessions ended, dropped where nothing holds it. Where
    /// it is the account of today: its former password is.
    /// Called on the successor's engine.
    /// # Errors
    /// Any; repeated until it succeeds.
    async fn retire_root(&self, durable: &Durable, former: &str) -> Result<(), EngineError>;

    /// Waits until no act is under way, bounded by [`Engine::deadline`]; new acts are refused from now on.
    async fn drain(&self);
}

/// Bytes of the role's name that an account's name shows.
const ACCOUNT_ROLE_BYTES: usize = 24;

/// `sr_<role>_<lease id>`: at most 60 bytes, found again from the lease alone.
fn account_name(lease: LeaseId, role_name: &str) -> String {
    format!("sr_{}_{lease}", error::cut(role_name.to_owned(), ACCOUNT_ROLE_BYTES))
}

/// The lease that an account of that form belongs to.
fn lease_of(account: &str) -> Option<LeaseId> {
    let (_, id) = account.strip_prefix("sr_")?.rsplit_once('_')?;
    id.parse().ok()
}

/// The root account that follows `account` where two names take turns: `vault` -> `vault_b` -> `vault_a` -> `vault_b` ...
fn successor(account: &str, bytes_max: usize) -> String {
    match (account.strip_suffix("_a"), account.strip_suffix("_b")) {
        (Some(stem), _) => format!("{stem}_b"),
        (None, Some(stem)) => format!("{stem}_a"),
        (None, None) => format!("{}_b", error::cut(account.to_owned(), bytes_max - 2)),
    }
}

/// A fresh password.
pub fn password(random: &dyn Random) -> SecretBytes {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut chars = Vec::with_capacity(PASSWORD_CHARS);
    let mut block = zeroize::Zeroizing::new([0; 64]);
    while chars.len() < PASSWORD_CHARS {
        random.fill(&mut *block);
        // Bytes of 248 and above would favour the first letters.
        let fair = block
            .iter()
            .filter(|&&byte| byte < 248)
            .filter_map(|&byte| ALPHABET.get(usize::from(byte % 62)));
        chars.extend(fair.take(PASSWORD_CHARS - chars.len()));
    }
    SecretBytes::new(chars)
}

#[cfg(test)]
mod tests {
    use super::successor;

    #[test]
    fn two_names_take_turns() {
        for (account, next) in [
            ("vault", "vault_b"),
            ("vault_b", "vault_a"),
            ("vault_a", "vault_b"),
            (&"x".repeat(63), &format!("{}_b", "x".repeat(61))),
        ] {
            assert_eq!(successor(account, 63), next);
        }
    }
}
