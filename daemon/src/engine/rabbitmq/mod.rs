//! RabbitMQ 3.10: users with hashes computed here, made and ended by the management API. README.md says what it trusts,
//! which rights it needs, and what to do when it complains.
//! May touch: base, lease's words, engine's trait. Reading order: `config`, `connect`, `users` (what is said to the server),
//! this file, `revoke`, `root`, `cycle` (the configuration test).

#[cfg(test)]
mod amqp;
mod config;
mod connect;
mod cycle;
mod revoke;
mod root;
pub mod testing;
#[cfg(test)]
mod tests;
mod users;

use self::{
    config::{Config, Template, is_name},
    connect::{Door, Pool, login},
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
use std::time::Duration;

/// What scheduling and the network may add to the timeouts.
const DEADLINE_MARGIN: Duration = Duration::from_secs(2);
/// Root accounts of this length at most are told apart by a suffix.
const ROOT_NAME_BYTES_MAX: usize = 255;

/// One mount of this kind.
pub struct RabbitMq {
    pool: Pool,
    surroundings: Surroundings,
}

/// The part of a revoke plan that is RabbitMQ's: the cluster in which the account is.
#[derive(Debug, Serialize, Deserialize)]
struct Frozen {
    cluster: String,
}

impl RabbitMq {
    /// See [`super::Kind::open`].
    /// # Errors
    /// `Config`.
    pub fn open(config_json: &str, root: &Root, surroundings: &Surroundings) -> Result<Self, EngineError> {
        let config = Config::parse(config_json)?;
        let door = Door::new(config, root.account.clone(), SecretBytes::from(root.secret.expose()))?;
        Ok(Self {
            pool: Pool::new(door),
            surroundings: surroundings.clone(),
        })
    }

    /// The account that a configuration names.
    /// # Errors
    /// `Config`.
    pub fn configured_account(config_json: &str) -> Result<String, EngineError> {
        Ok(Config::parse(config_json)?.username)
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

    /// Asks the server which cluster it is: nothing is planned for one that is down.
    async fn plan_for(&self, account: String) -> Result<Plan, EngineError> {
        let mut lent = self.pool.take().await?;
        let cluster = users::cluster(&mut lent).await?;
        lent.give_back();
        plan(account, cluster)
    }

    /// Makes the plan's account. It carries its mark from the first, and can do nothing until the last request is done.
    async fn make(&self, plan: &Plan, template: &Template, secret: &SecretBytes) -> Result<(), EngineError> {
        let frozen = thaw(plan)?;
        let account = &plan.account;
        let hash = users::hash(secret.expose(), &*self.surroundings.random);
        let mut tags = template.tags.clone();
        tags.push(self.config().mark());
        let mut lent = self.pool.take().await?;
        let requests = async {
            users::same_cluster(&mut lent, self.config(), &frozen.cluster).await?;
            if users::find(&mut lent, account).await?.is_some() {
                return Err(EngineError::Refused(format!("account {account} exists already")));
            }
            users::put(&mut lent, account, &hash, &tags).await?;
            users::permit(&mut lent, account, template).await
        };
        // The deadline is for all of them together: the last one is sent in time or not at all.
        let late = |_| EngineError::Unreachable("the account was not ready in time".to_owned());
        tokio::time::timeout(self.config().statement_timeout(), requests)
            .await
            .map_err(late)??;
        lent.give_back();
        Ok(())
    }

    /// A static account must exist and be nobody who has power over others. As it is in the server.
    async fn check_static(&self, account: &str) -> Result<users::User, EngineError> {
        let wrong = |text: String| EngineError::Config(format!("account: {text}"));
        // In a log-in by HTTP the first colon ends the name.
        if !is_name(account) || account.contains(':') {
            return Err(wrong("1 to 255 bytes without : and control characters".to_owned()));
        }
        if account == self.pool.door.account() {
            return Err(wrong(
                "the engine's own account rotates by `mount rotate-root`".to_owned(),
            ));
        }
        let mut lent = self.pool.take().await?;
        let user = users::find(&mut lent, account).await?;
        lent.give_back();
        match user {
            None => Err(wrong(format!("{account} does not exist in the target"))),
            Some(user) if user.has_power() => Err(wrong(format!(
                "{account} has power over the server (administrator, policymaker or impersonator), and is not the engine's to change"
            ))),
            Some(user) => Ok(user),
        }
    }
}

fn plan(account: String, cluster: String) -> Result<Plan, EngineError> {
    let body = serde_json::to_value(Frozen { cluster }).map_err(|error| EngineError::Config(error.to_string()))?;
    Ok(Plan { account, body })
}

fn thaw(plan: &Plan) -> Result<Frozen, EngineError> {
    serde_json::from_value(plan.body.clone()).map_err(|error| EngineError::Config(format!("revoke plan: {error}")))
}

#[async_trait::async_trait]
impl Engine for RabbitMq {
    fn deadline(&self) -> Duration {
        self.pool.door.patience() + self.config().statement_timeout() + DEADLINE_MARGIN
    }

    fn config_json(&self) -> String {
        self.config().json()
    }

    async fn check_role(&self, definition: &Definition) -> Result<(), EngineError> {
        match definition {
            Definition::Dynamic(role) => {
                let template = Template::of(role)?;
                let mut lent = self.pool.take().await?;
                users::check_template(&mut lent, &template).await?;
                lent.give_back();
                Ok(())
            }
            Definition::Static(role) => self.check_static(&role.account).await.map(drop),
        }
    }

    async fn plan(&self, lease: LeaseId, role_name: &str, role: &DynamicRole) -> Result<Plan, EngineError> {
        Template::of(role)?;
        self.plan_for(account_name(lease, role_name)).await
    }

    async fn create(&self, _: &Durable, plan: &Plan, role: &DynamicRole, _: Timestamp) -> Result<Fields, EngineError> {
        let secret = password(&*self.surroundings.random);
        self.make(plan, &Template::of(role)?, &secret).await?;
        Ok(self.static_fields(&plan.account, &secret))
    }

    /// RabbitMQ's users have no time limit: only that the account is there is asked.
    async fn renew(&self, _: &Durable, plan: &Plan, _: Timestamp) -> Result<(), EngineError> {
        let frozen = thaw(plan)?;
        let mut lent = self.pool.take().await?;
        users::same_cluster(&mut lent, self.config(), &frozen.cluster).await?;
        let there = users::find(&mut lent, &plan.account).await?.is_some();
        lent.give_back();
        if there {
            Ok(())
        } else {
            Err(EngineError::Refused(format!("account {} is gone", plan.account)))
        }
    }

    async fn revoke(&self, _: &Durable, plan: &Plan, birth: &Birth) -> Result<(), EngineError> {
        revoke::revoke(self, &plan.account, &thaw(plan)?, birth).await
    }

    async fn marked(&self) -> Result<Vec<Plan>, EngineError> {
        let mut lent = self.pool.take().await?;
        let cluster = users::cluster(&mut lent).await?;
        let accounts = users::marked(&mut lent, &self.config().mark()).await?;
        lent.give_back();
        let plans = accounts.into_iter().map(|account| plan(account, cluster.clone()));
        plans.collect()
    }

    async fn test_plan(&self, lease: LeaseId) -> Result<Plan, EngineError> {
        // A right that is missing is named, rather than met in the plan.
        cycle::check_account(self, &mut Vec::new()).await?;
        self.plan_for(account_name(lease, "test")).await
    }

    async fn test(&self, durable: &Durable, plan: &Plan) -> Result<Vec<String>, EngineError> {
        cycle::run(self, durable, plan).await
    }

    async fn set_password(&self, _: &Durable, account: &str, secret: &SecretBytes) -> Result<(), EngineError> {
        let user = self.check_static(account).await?;
        let hash = users::hash(secret.expose(), &*self.surroundings.random);
        let mut lent = self.pool.take().await?;
        // A request without tags would take them away.
        users::put(&mut lent, account, &hash, &user.tags).await?;
        lent.give_back();
        Ok(())
    }

    async fn try_password(&self, account: &str, secret: &SecretBytes) -> Result<bool, EngineError> {
        login(&self.pool.door, account, secret).await
    }

    fn static_fields(&self, account: &str, secret: &SecretBytes) -> Fields {
        let config = self.config();
        let host = config.amqp_host.as_ref().unwrap_or(&config.host);
        vec![
            ("username", SecretBytes::from(account.as_bytes())),
            ("password", SecretBytes::from(secret.expose())),
            ("host", SecretBytes::from(host.as_bytes())),
            ("port", SecretBytes::from(config.amqp_port.to_string().as_bytes())),
        ]
    }

    fn root_account(&self) -> &str {
        self.pool.door.account()
    }

    fn successor(&self) -> String {
        successor(self.pool.door.account(), ROOT_NAME_BYTES_MAX)
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
