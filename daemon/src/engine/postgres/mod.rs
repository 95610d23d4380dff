//! PostgreSQL 15: accounts in group roles, SCRAM verifiers computed here, no superuser. README.md says what it trusts,
//! which grants it needs, and what to do when it complains.
//! May touch: base, lease's words, engine's trait. Reading order: `sql`, `scram`, `config`, `connect`, this file (create,
//! renew, static accounts), `revoke`, `root`, `cycle` (the configuration test).

mod config;
mod connect;
mod cycle;
mod revoke;
mod root;
mod scram;
mod sql;
pub mod testing;
#[cfg(test)]
mod tests;

use self::{
    config::{Config, Template},
    connect::{Door, Pool, bounded_login},
    revoke::Proofs,
    sql::{Name, literal},
};
use super::{
    Definition, DynamicRole, Engine, EngineError, Fields, Root, Surroundings, account_name, password, pool::Door as _,
    successor,
};
use crate::{
    base::{id::LeaseId, secret::SecretBytes, time::Timestamp},
    lease::{Birth, Durable, Plan},
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use tokio_postgres::{error::SqlState, types::Type};

/// The account outlives its lease by this in the target, so that `VALID UNTIL` never cuts a live lease short.
const VALID_UNTIL_GRACE_SECS: u64 = 300;
/// What scheduling and the network may add to the server's timeouts.
const DEADLINE_MARGIN: Duration = Duration::from_secs(2);

/// One mount of this kind.
pub struct Postgres {
    pool: Pool,
    proofs: Proofs,
    surroundings: Surroundings,
}

/// A revoke plan as it is frozen into the lease: the account, who inherits, and the server itself by its system identifier.
/// No address and no credential: those may change while the lease lives.
#[derive(Debug, Serialize, Deserialize)]
struct Frozen {
    owner: Name,
    system: String,
}

impl Postgres {
    /// See [`super::Kind::open`].
    /// # Errors
    /// `Config`.
    pub fn open(config_json: &str, root: &Root, surroundings: &Surroundings) -> Result<Self, EngineError> {
        let config = Config::parse(config_json)?;
        let door = Door::new(
            config,
            root.account.clone(),
            SecretBytes::from(root.secret.expose()),
            surroundings.boot,
        )?;
        Ok(Self {
            pool: Pool::new(door),
            proofs: Proofs::default(),
            surroundings: surroundings.clone(),
        })
    }

    /// The account that a configuration names; a rotated root account takes its place later.
    /// # Errors
    /// `Config`.
    pub fn configured_account(config_json: &str) -> Result<String, EngineError> {
        Ok(Config::parse(config_json)?.username.as_str().to_owned())
    }

    /// Server and trust in one text, to be compared.
    /// # Errors
    /// `Config`.
    pub fn configured_server(config_json: &str) -> Result<String, EngineError> {
        Ok(Config::parse(config_json)?.server().identity())
    }

    fn config(&self) -> &Config {
        self.pool.door.config()
    }

    async fn plan_for(&self, account: String, owner: Name) -> Result<Plan, EngineError> {
        let lent = self.pool.take().await?;
        let frozen = Frozen {
            owner,
            system: lent.system.clone(),
        };
        lent.give_back();
        let body = serde_json::to_value(frozen).map_err(|error| EngineError::Config(error.to_string()))?;
        Ok(Plan { account, body })
    }

    /// A verifier, off the runtime's threads: it takes about a millisecond.
    async fn verifier(&self, secret: SecretBytes, iterations: u32) -> Result<(SecretBytes, String), EngineError> {
        let random = Arc::clone(&self.surroundings.random);
        let made = tokio::task::spawn_blocking(move || {
            let verifier = scram::verifier(secret.expose(), iterations, &*random);
            (secret, verifier)
        });
        made.await
            .map_err(|_| EngineError::Unreachable("the daemon is stopping".to_owned()))
    }
}

/// The frozen part of a plan, and its account as a name.
fn thaw(plan: &Plan) -> Result<(Name, Frozen), EngineError> {
    let wrong = |text: String| EngineError::Config(format!("revoke plan: {text}"));
    let account = Name::parse(&plan.account).map_err(|error| wrong(error.to_string()))?;
    let frozen = serde_json::from_value(plan.body.clone()).map_err(|error| wrong(error.to_string()))?;
    Ok((account, frozen))
}

#[async_trait::async_trait]
impl Engine for Postgres {
    fn deadline(&self) -> Duration {
        // Until the statement starts, then the server's own limit on it.
        self.pool.door.patience() + self.config().statement_timeout() + DEADLINE_MARGIN
    }

    fn config_json(&self) -> String {
        self.config().json()
    }

    async fn check_role(&self, definition: &Definition) -> Result<(), EngineError> {
        match definition {
            Definition::Dynamic(role) => cycle::check_template(self, &Template::of(role)?).await,
            Definition::Static(role) => self.check_static(&role.account).await.map(drop),
        }
    }

    async fn plan(&self, lease: LeaseId, role_name: &str, role: &DynamicRole) -> Result<Plan, EngineError> {
        let template = Template::of(role)?;
        self.plan_for(account_name(lease, role_name), template.owner().clone())
            .await
    }

    async fn create(
        &self,
        _: &Durable,
        plan: &Plan,
        role: &DynamicRole,
        expires: Timestamp,
    ) -> Result<Fields, EngineError> {
        let (account, _) = thaw(plan)?;
        let template = Template::of(role)?;
        let ready = async {
            let (secret, verifier) = self
                .verifier(password(&*self.surroundings.random), template.scram_iterations)
                .await?;
            Ok((secret, verifier, self.pool.take().await?))
        };
        // The deadline counts from here: what is not ready in time does not start.
        let late = |_| EngineError::Unreachable("not ready in time".to_owned());
        let (secret, verifier, lent) = tokio::time::timeout(self.pool.door.patience(), ready)
            .await
            .map_err(late)??;
        let group = template.group;
        let manager = &self.config().manager;
        let (password, until) = (literal(&verifier), valid_until(expires));
        lent.run(&format!(
            "CREATE ROLE {account} LOGIN IN ROLE {group} ROLE {manager} PASSWORD {password} VALID UNTIL {until}"
        ))
        .await?;
        lent.give_back();
        Ok(self.static_fields(account.as_str(), &secret))
    }

    async fn renew(&self, _: &Durable, plan: &Plan, expires: Timestamp) -> Result<(), EngineError> {
        let (account, _) = thaw(plan)?;
        let lent = self.pool.take().await?;
        lent.run(&format!("ALTER ROLE {account} VALID UNTIL {}", valid_until(expires)))
            .await?;
        lent.give_back();
        Ok(())
    }

    async fn revoke(&self, _: &Durable, plan: &Plan, birth: &Birth) -> Result<(), EngineError> {
        let (account, frozen) = thaw(plan)?;
        revoke::revoke(self, &account, &frozen, birth).await
    }

    async fn marked(&self) -> Result<Vec<Plan>, EngineError> {
        // Accounts are those that the manager was made a member of; whose group they are in inherits what they own.
        let sql = "SELECT r.rolname::text, coalesce((SELECT min(g.rolname::text) FROM pg_auth_members i JOIN pg_roles g ON g.oid = i.roleid WHERE i.member = r.oid), m.rolname::text)
            FROM pg_auth_members a JOIN pg_roles r ON r.oid = a.roleid JOIN pg_roles m ON m.oid = a.member
            WHERE m.rolname = $1 AND r.rolname LIKE 'sr\\_%'";
        let manager = self.config().manager.as_str();
        let lent = self.pool.take().await?;
        let rows = lent.ask(sql, &[(&manager, Type::TEXT)]).await?;
        let system = lent.system.clone();
        lent.give_back();
        let plan = |row| {
            let account: String = connect::column(row, 0)?;
            let owner: String = connect::column(row, 1)?;
            let frozen = Frozen {
                owner: Name::parse(&owner).map_err(|error| EngineError::Refused(error.to_string()))?,
                system: system.clone(),
            };
            let body = serde_json::to_value(frozen).map_err(|error| EngineError::Config(error.to_string()))?;
            Ok(Plan { account, body })
        };
        rows.iter().map(plan).collect()
    }

    async fn test_plan(&self, lease: LeaseId) -> Result<Plan, EngineError> {
        self.plan_for(account_name(lease, "test"), self.config().manager.clone())
            .await
    }

    async fn test(&self, durable: &Durable, plan: &Plan) -> Result<Vec<String>, EngineError> {
        cycle::run(self, durable, plan).await
    }

    async fn set_password(&self, _: &Durable, account: &str, secret: &SecretBytes) -> Result<(), EngineError> {
        let account = self.check_static(account).await?;
        let (_, verifier) = self
            .verifier(SecretBytes::from(secret.expose()), scram::ITERATIONS_DEFAULT)
            .await?;
        let lent = self.pool.take().await?;
        lent.run(&format!("ALTER ROLE {account} PASSWORD {}", literal(&verifier)))
            .await?;
        lent.give_back();
        Ok(())
    }

    async fn try_password(&self, account: &str, secret: &SecretBytes) -> Result<bool, EngineError> {
        bounded_login(&self.pool.door, account, secret).await
    }

    fn static_fields(&self, account: &str, secret: &SecretBytes) -> Fields {
        let config = self.config();
        vec![
            ("username", SecretBytes::from(account.as_bytes())),
            ("password", SecretBytes::from(secret.expose())),
            ("host", SecretBytes::from(config.host.as_bytes())),
            ("port", SecretBytes::from(config.port.to_string().as_bytes())),
            ("database", SecretBytes::from(config.dbname.as_str().as_bytes())),
        ]
    }

    fn root_account(&self) -> &str {
        self.pool.door.account()
    }

    fn successor(&self) -> String {
        successor(self.pool.door.account(), sql::NAME_BYTES_MAX)
    }

    async fn create_root(&self, _: &Durable, next: &Root) -> Result<(), EngineError> {
        root::create(self, next).await
    }

    async fn check_root(&self) -> Result<(), EngineError> {
        cycle::check_account(self, &mut Vec::new()).await
    }

    async fn retire_root(&self, _: &Durable, former: &str) -> Result<(), EngineError> {
        root::retire(self, former).await
    }

    async fn drain(&self) {
        self.pool.drain(self.deadline()).await;
    }
}

impl Postgres {
    /// A static account must exist, log in, and be nobody whose password is another's business.
    async fn check_static(&self, account: &str) -> Result<Name, EngineError> {
        let wrong = |text: String| EngineError::Config(format!("account: {text}"));
        let name = Name::parse(account).map_err(|error| wrong(error.to_string()))?;
        let root = self.pool.door.account();
        if account == root || account == successor(root, sql::NAME_BYTES_MAX) || name == self.config().manager {
            return Err(wrong(
                "the engine's own accounts rotate by `mount rotate-root`".to_owned(),
            ));
        }
        let lent = self.pool.take().await?;
        // Whose password is ours to set can be read by whoever may read the role: what it can do is handed out.
        let sql = format!(
            "SELECT r.rolcanlogin, {},
                NOT EXISTS (SELECT 1 FROM pg_auth_members a JOIN pg_roles m ON m.rolname = $2
                    WHERE (a.roleid = m.oid AND a.member = r.oid) OR (a.member = m.oid AND a.roleid = r.oid))
            FROM pg_roles r WHERE r.rolname = $1",
            cycle::HARMLESS
        );
        let manager = self.config().manager.as_str();
        let rows = lent
            .ask(&sql, &[(&account, Type::TEXT), (&manager, Type::TEXT)])
            .await?;
        lent.give_back();
        let found = rows.first().map(|row| {
            let is = |at| connect::column::<bool>(row, at);
            Ok::<_, EngineError>((is(0)?, is(1)?, is(2)?))
        });
        match found.transpose()? {
            Some((true, true, true)) => Ok(name),
            Some((false, ..)) => Err(wrong(format!("{account} cannot log in: ALTER ROLE {name} LOGIN"))),
            Some((_, false, _)) => Err(wrong(format!(
                "{account} has attributes or memberships that must not be handed out (superuser, CREATEROLE, replication, bypass RLS, server files or programs)"
            ))),
            Some(_) => Err(wrong(format!(
                "{account} is a member of {manager}, or {manager} of it: accounts of Strongroom's own are made and ended by it alone"
            ))),
            None => Err(wrong(format!("{account} does not exist in the target"))),
        }
    }
}

fn valid_until(expires: Timestamp) -> String {
    literal(&expires.plus_secs(VALID_UNTIL_GRACE_SECS).to_string())
}

/// SQLSTATE 42704: the account is not there.
const ABSENT: &SqlState = &SqlState::UNDEFINED_OBJECT;
