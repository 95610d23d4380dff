//! The configuration test: what the engine will ever do, done once with a throw-away account; and the check of a template.

use super::{
    Postgres, Template,
    connect::{bounded_login, one},
    sql::literal,
    thaw, valid_until,
};
use crate::{
    engine::{Engine, EngineError, password},
    lease::{Birth, Durable, Plan},
};
use tokio_postgres::types::Type;

/// The throw-away account's own limit, should everything else fail.
const TEST_TTL_SECS: u64 = 60;

pub(super) async fn run(engine: &Postgres, durable: &Durable, plan: &Plan) -> Result<Vec<String>, EngineError> {
    let mut checks = Vec::new();
    check_account(engine, &mut checks).await?;
    for database in &engine.config().databases {
        engine.pool.door.open_root_in(database.as_str()).await?;
        checks.push(format!("connected to database {}", database.as_str()));
    }
    let (account, _) = thaw(plan)?;
    let (secret, verifier) = engine
        .verifier(password(&*engine.surroundings.random), super::scram::ITERATIONS_DEFAULT)
        .await?;
    let expires = engine.surroundings.clock.now().plus_secs(TEST_TTL_SECS);
    let lent = engine.pool.take().await?;
    lent.run(&format!(
        "CREATE ROLE {account} LOGIN ROLE {} PASSWORD {} VALID UNTIL {}",
        engine.config().manager,
        literal(&verifier),
        valid_until(expires)
    ))
    .await?;
    lent.give_back();
    checks.push(format!("created account {}", account.as_str()));
    // An open session, so that ending sessions is tried as well.
    let session = engine
        .pool
        .door
        .open(engine.config().dbname.as_str(), account.as_str(), &secret)
        .await?;
    session.run("SELECT 1").await?;
    checks.push("logged in as it".to_owned());
    let birth = Birth {
        activated: true,
        ..Birth::of_test(engine.surroundings.boot)
    };
    engine.revoke(durable, plan, &birth).await?;
    checks.push("locked it, ended its session, dropped it, read back that it is gone".to_owned());
    if session.run("SELECT 1").await.is_ok() || bounded_login(&engine.pool.door, account.as_str(), &secret).await? {
        return Err(EngineError::Remains(format!("account {}", account.as_str())));
    }
    checks.push("its session is dead and its log-in refused".to_owned());
    Ok(checks)
}

/// What the root account must be, each with the statement that mends it.
pub(super) async fn check_account(engine: &Postgres, checks: &mut Vec<String>) -> Result<(), EngineError> {
    let root = engine.pool.door.account();
    let manager = engine.config().manager.as_str();
    let lent = engine.pool.take().await?;
    checks.push(format!("connected to server {} as {root}", lent.system));
    for (sql, complaint) in [
        (
            "SELECT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = $1 AND NOT rolcanlogin)",
            format!("manager: {manager} must exist and not log in: CREATE ROLE {manager} NOLOGIN"),
        ),
        (
            "SELECT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = current_user AND (rolcreaterole OR rolsuper) AND $1 <> '')",
            format!("username: ALTER ROLE {root} CREATEROLE"),
        ),
        (
            "SELECT EXISTS (SELECT 1 FROM pg_roles m WHERE m.rolname = $1 AND pg_has_role(current_user, m.oid, 'USAGE'))",
            format!("manager: GRANT {manager} TO {root}, with INHERIT"),
        ),
        (
            "SELECT EXISTS (SELECT 1 FROM pg_roles m WHERE m.rolname = $1 AND pg_has_role(m.oid, 'pg_signal_backend', 'USAGE'))",
            format!("manager: GRANT pg_signal_backend TO {manager}"),
        ),
        (
            "SELECT EXISTS (SELECT 1 FROM pg_roles m WHERE m.rolname = $1 AND pg_has_role(m.oid, 'pg_read_all_stats', 'USAGE'))",
            format!("manager: GRANT pg_read_all_stats TO {manager}"),
        ),
    ] {
        if !lent.ask_bool(sql, manager).await? {
            return Err(EngineError::Config(complaint));
        }
    }
    let superuser = lent
        .ask("SELECT rolsuper FROM pg_roles WHERE rolname = current_user", &[])
        .await?;
    lent.give_back();
    checks.push(format!("{root} has CREATEROLE and is a member of {manager}"));
    if one::<bool>(&superuser)? {
        checks.push(format!(
            "warning: {root} is a superuser; none is needed, and it cannot be rotated"
        ));
    }
    Ok(())
}

/// Of a role `r`: neither it nor any role that it can become has power over the server, or over accounts.
pub(super) const HARMLESS: &str = "NOT r.rolsuper AND NOT r.rolcreaterole AND NOT r.rolreplication AND NOT r.rolbypassrls
    AND NOT EXISTS (SELECT 1 FROM pg_roles p WHERE pg_has_role(r.oid, p.oid, 'MEMBER') AND p.oid <> r.oid AND (p.rolsuper OR p.rolcreaterole OR p.rolreplication OR p.rolbypassrls
        OR p.rolname LIKE 'pg\\_%' AND p.rolname NOT IN ('pg_read_all_data', 'pg_write_all_data', 'pg_monitor', 'pg_read_all_stats', 'pg_read_all_settings', 'pg_stat_scan_tables')))";

/// A template's group and owner must exist, be harmless, and be within the manager's reach.
pub(super) async fn check_template(engine: &Postgres, template: &Template) -> Result<(), EngineError> {
    let manager = engine.config().manager.as_str();
    let lent = engine.pool.take().await?;
    for (key, name) in [("group", &template.group), ("owner", template.owner())] {
        let name = name.as_str();
        if name == manager || name == engine.pool.door.account() {
            return Err(EngineError::Config(format!("{key}: not the engine's own accounts")));
        }
        let sql = format!("SELECT {HARMLESS} FROM pg_roles r WHERE rolname = $1");
        match super::connect::first(&lent.ask(&sql, &[(&name, Type::TEXT)]).await?)? {
            Some(true) => {}
            Some(false) => {
                return Err(EngineError::Config(format!(
                    "{key}: {name} has attributes or memberships that must not be handed out (superuser, CREATEROLE, replication, bypass RLS, server files or programs)"
                )));
            }
            None => {
                return Err(EngineError::Config(format!(
                    "{key}: {name} does not exist in the target"
                )));
            }
        }
        if !lent.ask_bool("SELECT EXISTS (SELECT 1 FROM pg_roles g WHERE g.rolname = $1 AND pg_has_role(current_user, g.oid, 'USAGE'))", name).await? {
            return Err(EngineError::Config(format!("{key}: so that objects can be given away, GRANT {name} TO {manager}")));
        }
    }
    lent.give_back();
    Ok(())
}
