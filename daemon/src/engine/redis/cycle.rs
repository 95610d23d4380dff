//! The configuration test: what the engine will ever do, done once with a throw-away account.

use super::{Redis, connect::login};
use crate::{
    engine::{Engine, EngineError, password},
    lease::{Birth, Durable, Plan},
};

pub(super) async fn run(engine: &Redis, durable: &Durable, plan: &Plan) -> Result<Vec<String>, EngineError> {
    let mut checks = Vec::new();
    check_account(engine, &mut checks).await?;
    let account = &plan.account;
    let secret = password(&*engine.surroundings.random);
    engine.make(account, &["+ping".to_owned()], &secret).await?;
    checks.push(format!("created account {account}"));
    // An open session, so that ending sessions is tried as well.
    let mut session = engine.pool.door.open(account, &secret).await?;
    session.say(&["PING"]).await?;
    checks.push("logged in as it".to_owned());
    engine
        .revoke(durable, plan, &Birth::of_test(engine.surroundings.boot))
        .await?;
    checks.push("locked it, ended its session, deleted it, read back that it is gone".to_owned());
    if session.say(&["PING"]).await.is_ok() || login(&engine.pool.door, account, &secret).await? {
        return Err(EngineError::Remains(format!("account {account}")));
    }
    checks.push("its session is dead and its log-in refused".to_owned());
    Ok(checks)
}

/// What the root account must be able to say, and what the server must keep.
pub(super) async fn check_account(engine: &Redis, checks: &mut Vec<String>) -> Result<(), EngineError> {
    let root = engine.pool.door.account();
    let mut lent = engine.pool.take().await?;
    checks.push(format!("connected as {root}"));
    for command in [
        "acl|setuser",
        "acl|deluser",
        "acl|getuser",
        "acl|list",
        "acl|save",
        "client|id",
        "client|list",
        "client|kill",
    ] {
        let (base, sub) = command.split_once('|').unwrap_or((command, ""));
        // What is asked does nothing; where it may not be said at all, the server says NOPERM.
        let words: &[&str] = match sub {
            "deluser" | "getuser" => &[base, sub, "strongroom:nobody"],
            "setuser" => &[base, sub, root],
            "kill" => &[base, sub, "ID", "0"],
            _ => &[base, sub],
        };
        match lent.say(words).await {
            Err(EngineError::Refused(text)) if text.to_ascii_uppercase().contains("NOPERM") => {
                return Err(EngineError::Config(format!("username: ACL SETUSER {root} +{command}")));
            }
            Err(EngineError::Refused(text)) if sub == "save" => {
                return Err(EngineError::Config(format!(
                    "the server keeps no ACL file, so that accounts would come back or be lost at its restart: set aclfile ({text})"
                )));
            }
            Err(error @ EngineError::Unreachable(_)) => return Err(error),
            _ => {}
        }
    }
    lent.give_back();
    checks.push(format!(
        "{root} can make, watch and end accounts, and the server keeps them"
    ));
    Ok(())
}
