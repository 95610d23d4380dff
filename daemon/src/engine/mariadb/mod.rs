//! MariaDB 10.11: accounts in roles, verifiers computed here, two passwords while a credential rotates. README.md says what
//! it trusts, which grants it needs, and what to do when it complains.
//! May touch: base, lease's words, engine's trait. Reading order: `sql`, `native`, `config`, `connect`, this file (create,
//! renew, static accounts), `revoke`, `root`, `cycle` (the configuration test).

mod config;
mod connect;
mod cycle;
mod native;
mod revoke;
mod root;
mod sql;
pub mod testing;
#[cfg(test)]
mod tests;

use self::{
    config::{Config, Template},
    connect::{CANNOT_USER, Door, Pool, login},
    sql::{Account, Name},
};
use super::{
    Definition, DynamicRole, Engine, EngineError, Fields, Root, Surroundings, account_name, password, pool::Door as _,
};
use crate::{
    base::{id::LeaseId, secret::SecretBytes, time::Timestamp},
    lease::{Birth, Durable, Plan},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What scheduling and the network may add to the server's timeouts.
const DEADLINE_MARGIN: Duration = Duration::from_secs(2);

/// One mount of this kind.
pub struct MariaDb {
    pool: Pool,
    surroundings: Surroundings,
}

/// A revoke plan as it is frozen into the lease: from where the account logs in, and the role by which the server is known.
/// No address and no credential: those may change while the lease lives.
#[derive(Debug, Serialize, Deserialize)]
struct Frozen {
    host: String,
    marker: Name,
}

impl MariaDb {
    /// See [`super::Kind::open`].
    /// # Errors
    /// `Config`.
    pub fn open(config_json: &str, root: &Root, surroundings: &Surroundings) -> Result<Self, EngineError> {
        let config = Config::parse(config_json)?;
        let door = Door::new(config, root.account.clone(), SecretBytes::from(root.secret.expose()));
        Ok(Self {
            pool: Pool::new(door),
            surroundings: surroundings.clone(),
        })
    }

    /// The account that a configuration names.
    /// # Errors
    /// `Config`.
    pub fn configured_account(config_json: &str) -> Result<String, EngineError> {
        Ok(Config::parse(config_json)?.username.into())
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

    async fn plan_for(&self, account: String, host: String) -> Result<Plan, EngineError> {
        let marker = self.config().marker.clone();
        let mut lent = self.pool.take().await?;
        revoke::same_server(&mut lent, &marker).await?;
        lent.give_back();
        let body = serde_json::to_value(Frozen { host, marker });
        let body = body.map_err(|error| EngineError::Config(error.to_string()))?;
        Ok(Plan { account, body })
    }

    /// A static account must exist and be nobody who has power over others.
    async fn check_static(&self, account: &str) -> Result<Account, EngineError> {
        let wrong = |text: String| EngineError::Config(format!("account: {text}"));
        let parsed = Account::parse(account).map_err(|error| wrong(error.to_string()))?;
        if parsed.name.as_str() == self.pool.door.account() {
            return Err(wrong(
                "the engine's own account rotates by `mount rotate-root`".to_owned(),
            ));
        }
        let mut lent = self.pool.take().await?;
        let sql = "SELECT 'Y' IN (Super_priv, Create_user_priv, Grant_priv, File_priv) FROM mysql.user WHERE User = ? AND Host = ? AND is_role <> 'Y'";
        let rows = lent.ask(sql, (parsed.name.as_str(), parsed.host.as_str())).await?;
        lent.give_back();
        match rows.first().map(|row| connect::column::<u8>(row, 0)).transpose()? {
            Some(0) => Ok(parsed),
            Some(_) => Err(wrong(format!(
                "{account} has SUPER, CREATE USER, GRANT OPTION or FILE, and is not the engine's to change"
            ))),
            None => Err(wrong(format!("{account} does not exist in the target"))),
        }
    }
}

/// The frozen part of a plan, and its account.
fn thaw(plan: &Plan) -> Result<(Account, Frozen), EngineError> {
    let wrong = |text: String| EngineError::Config(format!("revoke plan: {text}"));
    let frozen: Frozen = serde_json::from_value(plan.body.clone()).map_err(|error| wrong(error.to_string()))?;
    let account = Account::new(&plan.account, &frozen.host).map_err(|error| wrong(error.to_string()))?;
    Ok((account, frozen))
}

#[async_trait::async_trait]
impl Engine for MariaDb {
    fn deadline(&self) -> Duration {
        // Until the first statement starts, then the server's own limit on each of them.
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
        self.plan_for(account_name(lease, role_name), Template::of(role)?.host)
            .await
    }

    async fn create(&self, _: &Durable, plan: &Plan, role: &DynamicRole, _: Timestamp) -> Result<Fields, EngineError> {
        let (account, frozen) = thaw(plan)?;
        let template = Template::of(role)?;
        let secret = password(&*self.surroundings.random);
        let verifier = native::verifier(secret.expose());
        let mut lent = self.pool.take().await?;
        let statements = async {
            // Once it is there the marker comes first: by it strays are found.
            lent.run(&format!(
                "CREATE USER {account} IDENTIFIED VIA mysql_native_password USING '{verifier}'"
            ))
            .await?;
            lent.run(&format!("GRANT {} TO {account}", frozen.marker)).await?;
            for statement in template.statements(&account) {
                lent.run(&statement).await?;
            }
            Ok(())
        };
        // The deadline is for all of them together: the last one starts in time or not at all.
        let late = |_| EngineError::Unreachable("the account was not ready in time".to_owned());
        tokio::time::timeout(self.config().statement_timeout(), statements)
            .await
            .map_err(late)??;
        lent.give_back();
        Ok(self.static_fields(account.name.as_str(), &secret))
    }

    /// MariaDB accounts have no time limit: only that the account is there is asked.
    async fn renew(&self, _: &Durable, plan: &Plan, _: Timestamp) -> Result<(), EngineError> {
        let (account, frozen) = thaw(plan)?;
        let mut lent = self.pool.take().await?;
        revoke::same_server(&mut lent, &frozen.marker).await?;
        let there = revoke::exists(&mut lent, &account.name).await?;
        lent.give_back();
        if there {
            Ok(())
        } else {
            Err(EngineError::Refused(format!(
                "account {} is gone",
                account.name.as_str()
            )))
        }
    }

    async fn revoke(&self, _: &Durable, plan: &Plan, birth: &Birth) -> Result<(), EngineError> {
        let (account, frozen) = thaw(plan)?;
        revoke::revoke(self, &account, &frozen, birth).await
    }

    async fn marked(&self) -> Result<Vec<Plan>, EngineError> {
        let marker = &self.config().marker;
        let sql = "SELECT User, Host FROM mysql.roles_mapping WHERE Role = ? AND Admin_option <> 'Y'";
        let mut lent = self.pool.take().await?;
        revoke::same_server(&mut lent, marker).await?;
        let rows = lent.ask(sql, (marker.as_str(),)).await?;
        lent.give_back();
        let plan = |row| {
            let (account, host) = (connect::column(row, 0)?, connect::column(row, 1)?);
            let frozen = Frozen {
                host,
                marker: marker.clone(),
            };
            let body = serde_json::to_value(frozen).map_err(|error| EngineError::Config(error.to_string()))?;
            Ok(Plan { account, body })
        };
        rows.iter().map(plan).collect()
    }

    async fn test_plan(&self, lease: LeaseId) -> Result<Plan, EngineError> {
        self.plan_for(account_name(lease, "test"), "%".to_owned()).await
    }

    async fn test(&self, durable: &Durable, plan: &Plan) -> Result<Vec<String>, EngineError> {
        cycle::run(self, durable, plan).await
    }

    async fn set_password(&self, _: &Durable, account: &str, secret: &SecretBytes) -> Result<(), EngineError> {
        let account = self.check_static(account).await?;
        let verifier = native::verifier(secret.expose());
        let mut lent = self.pool.take().await?;
        let sql = format!("ALTER USER {account} IDENTIFIED VIA mysql_native_password USING '{verifier}'");
        if !lent.run_unless(&sql, CANNOT_USER).await? {
            return Err(EngineError::Refused(format!(
                "account {} is gone",
                account.name.as_str()
            )));
        }
        lent.give_back();
        Ok(())
    }

    async fn try_password(&self, account: &str, secret: &SecretBytes) -> Result<bool, EngineError> {
        let account = Account::parse(account).map_err(|error| EngineError::Config(error.to_string()))?;
        login(&self.pool.door, account.name.as_str(), secret).await
    }

    fn static_fields(&self, account: &str, secret: &SecretBytes) -> Fields {
        let config = self.config();
        let name = Account::parse(account).map_or_else(|_| account.to_owned(), |account| account.name.into());
        let mut fields = vec![
            ("username", SecretBytes::from(name.as_bytes())),
            ("password", SecretBytes::from(secret.expose())),
            ("host", SecretBytes::from(config.host.as_bytes())),
            ("port", SecretBytes::from(config.port.to_string().as_bytes())),
        ];
        if let Some(database) = &config.database {
            fields.push(("database", SecretBytes::from(database.as_str().as_bytes())));
        }
        fields
    }

    fn root_account(&self) -> &str {
        self.pool.door.account()
    }

    /// The account stays; it gets another password.
    fn successor(&self) -> String {
        self.pool.door.account().to_owned()
    }

    async fn create_root(&self, _: &Durable, next: &Root) -> Result<(), EngineError> {
        root::add_password(self, next).await
    }

    async fn check_root(&self) -> Result<(), EngineError> {
        cycle::check_account(self, &mut Vec::new()).await
    }

    async fn retire_root(&self, _: &Durable, _: &str) -> Result<(), EngineError> {
        root::keep_only_password(self).await
    }

    async fn drain(&self) {
        self.pool.drain(self.deadline()).await;
    }
}
