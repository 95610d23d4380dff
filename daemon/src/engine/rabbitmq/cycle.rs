//! The configuration test: what the engine will ever do, done once with a throw-away account.

use super::{
    RabbitMq,
    config::Template,
    connect::login,
    users::{self, ADMINISTRATOR},
};
use crate::{
    engine::{Engine, EngineError, password},
    lease::{Birth, Durable, Plan},
};
use serde::Deserialize;

pub(super) async fn run(engine: &RabbitMq, durable: &Durable, plan: &Plan) -> Result<Vec<String>, EngineError> {
    let mut checks = Vec::new();
    check_account(engine, &mut checks).await?;
    let account = &plan.account;
    let (right, wrong) = (
        password(&*engine.surroundings.random),
        password(&*engine.surroundings.random),
    );
    let nothing = Template {
        vhosts: Default::default(),
        tags: Vec::new(),
    };
    engine.make(plan, &nothing, &right).await?;
    checks.push(format!("created account {account}"));
    if !login(&engine.pool.door, account, &right).await? || login(&engine.pool.door, account, &wrong).await? {
        return Err(EngineError::Config(
            "host: the server does not tell a right password from a wrong one in the words of RabbitMQ 3.10".to_owned(),
        ));
    }
    checks.push("its password is taken, another is not".to_owned());
    engine
        .revoke(durable, plan, &Birth::of_test(engine.surroundings.boot))
        .await?;
    checks.push("locked it, closed its connections, deleted it, read back that it is gone".to_owned());
    if login(&engine.pool.door, account, &right).await? {
        return Err(EngineError::Remains(format!("account {account}")));
    }
    checks.push("its log-in is refused".to_owned());
    Ok(checks)
}

/// What the server must be, and the root account in it.
pub(super) async fn check_account(engine: &RabbitMq, checks: &mut Vec<String>) -> Result<(), EngineError> {
    #[derive(Deserialize)]
    struct Overview {
        rabbitmq_version: String,
    }
    let root = engine.pool.door.account();
    let no_api = || EngineError::Config("host: no management API there: enable rabbitmq_management".to_owned());
    let mut lent = engine.pool.take().await?;
    let me: users::User = lent.get("/api/whoami").await?.ok_or_else(no_api)?;
    if !me.is(ADMINISTRATOR) {
        return Err(EngineError::Config(format!(
            "username: rabbitmqctl set_user_tags {root} administrator"
        )));
    }
    let overview: Overview = lent
        .get("/api/overview?columns=rabbitmq_version")
        .await?
        .ok_or_else(no_api)?;
    let version = overview.rabbitmq_version;
    if !version.starts_with("3.") {
        return Err(EngineError::Config(format!(
            "host: RabbitMQ 3.10 is known here, not {version}"
        )));
    }
    users::cluster(&mut lent).await?;
    lent.give_back();
    checks.push(format!("connected to RabbitMQ {version} as {root}"));
    checks.push(format!("{root} can make, watch and end accounts"));
    Ok(())
}
