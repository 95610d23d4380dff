//! Redis 7: ACL users with hashes computed here, several passwords at a time while one rotates. README.md says what it
//! trusts, which rights it needs, and what to do when it complains.
//! May touch: base, lease's words, engine's trait. Reading order: `config`, `connect`, `acl` (what is said to the server),
//! this file, `cycle` (the configuration test).

mod acl;
mod config;
mod connect;
mod cycle;
pub mod testing;
#[cfg(test)]
mod tests;

use self::{
    config::{Config, Template, is_name},
    connect::{Door, Pool, login},
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

/// What scheduling and the network may add to the timeouts.
const DEADLINE_MARGIN: Duration = Duration::from_secs(2);

/// One mount of this kind.
pub struct Redis {
    pool: Pool,
    surroundings: Surroundings,
}

/// A revoke plan needs no more than the account's name; the marker says whose it is.
#[derive(Debug, Serialize, Deserialize)]
struct Frozen {
    marker: String,
}

impl Redis {
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

    async fn plan_for(&self, account: String) -> Result<Plan, EngineError> {
        // Nothing is planned for a server that is down.
        self.pool.take().await?.give_back();
        let frozen = Frozen {
            marker: self.config().marker.clone(),
        };
        let body = serde_json::to_value(frozen).map_err(|error| EngineError::Config(error.to_string()))?;
        Ok(Plan { account, body })
    }

    /// Makes an account with `rules`, in one command: it is there whole or not at all.
    async fn make(&self, account: &str, rules: &[String], secret: &SecretBytes) -> Result<(), EngineError> {
        let mut lent = self.pool.take().await?;
        if acl::exists(&mut lent, account).await? {
            return Err(EngineError::Refused(format!("account {account} exists already")));
        }
        let mut words = vec!["reset".to_owned(), "on".to_owned(), acl::hash(secret.expose())];
        words.extend(rules.iter().cloned());
        words.push(self.config().mark());
        acl::set(&mut lent, account, &words).await?;
        acl::save(&mut lent).await?;
        lent.give_back();
        Ok(())
    }

    /// A static account must exist and be nobody who has power over others.
    async fn check_static(&self, account: &str) -> Result<(), EngineError> {
        let wrong = |text: String| EngineError::Config(format!("account: {text}"));
        if !is_name(account) {
            return Err(wrong("1 to 128 bytes without spaces".to_owned()));
        }
        if account == self.pool.door.account() {
            return Err(wrong(
                "the engine's own account rotates by `mount rotate-root`".to_owned(),
            ));
        }
        let mut lent = self.pool.take().await?;
        let commands = acl::commands(&mut lent, account).await?;
        lent.give_back();
        match commands {
            None => Err(wrong(format!("{account} does not exist in the target"))),
            Some(commands)
                if commands
                    .split(' ')
                    .any(|word| ["+@all", "+@admin", "+@dangerous", "+acl"].contains(&word)) =>
            {
                Err(wrong(format!(
                    "{account} has power over the server (+@all, +@admin, +@dangerous or +acl), and is not the engine's to change"
                )))
            }
            Some(_) => Ok(()),
        }
    }
}

#[async_trait::async_trait]
impl Engine for Redis {
    fn deadline(&self) -> Duration {
        // Redis does one command after the other: what was said in time is done in time.
        self.pool.door.patience() + self.config().statement_timeout() * 3 + DEADLINE_MARGIN
    }

    fn config_json(&self) -> String {
        self.config().json()
    }

    async fn check_role(&self, definition: &Definition) -> Result<(), EngineError> {
        match definition {
            Definition::Dynamic(role) => {
                Template::of(role)?;
                self.pool.take().await?.give_back();
                Ok(())
            }
            Definition::Static(role) => self.check_static(&role.account).await,
        }
    }

    async fn plan(&self, lease: LeaseId, role_name: &str, role: &DynamicRole) -> Result<Plan, EngineError> {
        Template::of(role)?;
        self.plan_for(account_name(lease, role_name)).await
    }

    async fn create(&self, _: &Durable, plan: &Plan, role: &DynamicRole, _: Timestamp) -> Result<Fields, EngineError> {
        let secret = password(&*self.surroundings.random);
        self.make(&plan.account, &Template::of(role)?.rules, &secret).await?;
        Ok(self.static_fields(&plan.account, &secret))
    }

    /// Redis accounts have no time limit: only that the account is there is asked.
    async fn renew(&self, _: &Durable, plan: &Plan, _: Timestamp) -> Result<(), EngineError> {
        let mut lent = self.pool.take().await?;
        let there = acl::exists(&mut lent, &plan.account).await?;
        lent.give_back();
        if there {
            Ok(())
        } else {
            Err(EngineError::Refused(format!("account {} is gone", plan.account)))
        }
    }

    async fn revoke(&self, _: &Durable, plan: &Plan, birth: &Birth) -> Result<(), EngineError> {
        acl::revoke(self, &plan.account, birth).await
    }

    async fn marked(&self) -> Result<Vec<Plan>, EngineError> {
        let marker = &self.config().marker;
        let mut lent = self.pool.take().await?;
        let accounts = acl::marked(&mut lent, marker).await?;
        lent.give_back();
        let plan = |account| {
            let frozen = Frozen { marker: marker.clone() };
            let body = serde_json::to_value(frozen).map_err(|error| EngineError::Config(error.to_string()))?;
            Ok(Plan { account, body })
        };
        accounts.into_iter().map(plan).collect()
    }

    async fn test_plan(&self, lease: LeaseId) -> Result<Plan, EngineError> {
        self.plan_for(account_name(lease, "test")).await
    }

    async fn test(&self, durable: &Durable, plan: &Plan) -> Result<Vec<String>, EngineError> {
        cycle::run(self, durable, plan).await
    }

    async fn set_password(&self, _: &Durable, account: &str, secret: &SecretBytes) -> Result<(), EngineError> {
        self.check_static(account).await?;
        let mut lent = self.pool.take().await?;
        let words = ["resetpass".to_owned(), acl::hash(secret.expose())];
        acl::set(&mut lent, account, &words).await?;
        acl::save(&mut lent).await?;
        lent.give_back();
        Ok(())
    }

    async fn try_password(&self, account: &str, secret: &SecretBytes) -> Result<bool, EngineError> {
        login(&self.pool.door, account, secret).await
    }

    fn static_fields(&self, account: &str, secret: &SecretBytes) -> Fields {
        let config = self.config();
        vec![
            ("username", SecretBytes::from(account.as_bytes())),
            ("password", SecretBytes::from(secret.expose())),
            ("host", SecretBytes::from(config.host.as_bytes())),
            ("port", SecretBytes::from(config.port.to_string().as_bytes())),
        ]
    }

    fn root_account(&self) -> &str {
        self.pool.door.account()
    }

    /// The account stays; it gets another password.
    fn successor(&self) -> String {
        self.pool.door.account().to_owned()
    }

    async fn create_root(&self, _: &Durable, next: &Root) -> Result<(), EngineError> {
        let mut lent = self.pool.take().await?;
        let (now, next) = (self.pool.door.secret().expose(), next.secret.expose());
        let words = ["resetpass".to_owned(), acl::hash(now), acl::hash(next)];
        acl::set(&mut lent, self.pool.door.account(), &words).await?;
        acl::save(&mut lent).await?;
        lent.give_back();
        Ok(())
    }

    async fn check_root(&self) -> Result<(), EngineError> {
        cycle::check_account(self, &mut Vec::new()).await
    }

    async fn retire_root(&self, _: &Durable, _: &str) -> Result<(), EngineError> {
        let mut lent = self.pool.take().await?;
        let words = ["resetpass".to_owned(), acl::hash(self.pool.door.secret().expose())];
        acl::set(&mut lent, self.pool.door.account(), &words).await?;
        acl::save(&mut lent).await?;
        acl::end_strangers(self, &mut lent).await?;
        lent.give_back();
        Ok(())
    }

    async fn drain(&self) {
        self.pool.drain(self.deadline()).await;
    }
}
