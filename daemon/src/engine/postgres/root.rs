//! The root account's own rotation: two names take turns. The successor is made by its predecessor, a member of the same
//! manager role, and retires it.

use super::{
    Postgres,
    connect::{first, one},
    scram,
    sql::{Name, literal},
};
use crate::{
    base::secret::SecretBytes,
    engine::{EngineError, Root},
};
use std::time::Duration;
use tokio_postgres::{error::SqlState, types::Type};

const LOOKS_MAX: u32 = 100;
const LOOK_PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn create(engine: &Postgres, next: &Root) -> Result<(), EngineError> {
    let name = Name::parse(&next.account).map_err(|error| EngineError::Config(error.to_string()))?;
    let manager = &engine.config().manager;
    let lent = engine.pool.take().await?;
    let rows = lent
        .ask("SELECT rolsuper FROM pg_roles WHERE rolname = current_user", &[])
        .await?;
    if one::<bool>(&rows)? {
        return Err(EngineError::Config("the root account is a superuser, which no successor can retire; configure the mount with an account as its README asks".to_owned()));
    }
    let (_, verifier) = engine
        .verifier(SecretBytes::from(next.secret.expose()), scram::ITERATIONS_DEFAULT)
        .await?;
    let password = literal(&verifier);
    let sql = format!("CREATE ROLE {name} LOGIN CREATEROLE IN ROLE {manager} PASSWORD {password}");
    if lent.run_unless(&sql, &SqlState::DUPLICATE_OBJECT).await?.is_some() {
        // Ours from an earlier rotation, or a stranger's: only a member of the manager role is taken over.
        let sql = "SELECT pg_has_role($1::name, $2::name, 'MEMBER')";
        let rows = lent
            .ask(sql, &[(&name.as_str(), Type::NAME), (&manager.as_str(), Type::NAME)])
            .await?;
        if !one::<bool>(&rows)? {
            return Err(EngineError::Config(format!(
                "{} exists and is no member of {}; rename or drop it",
                name.as_str(),
                manager.as_str()
            )));
        }
        lent.run(&format!(
            "ALTER ROLE {name} LOGIN CREATEROLE PASSWORD {password} VALID UNTIL 'infinity'"
        ))
        .await?;
    }
    lent.give_back();
    Ok(())
}

pub(super) async fn retire(engine: &Postgres, former: &str) -> Result<(), EngineError> {
    let name = Name::parse(former).map_err(|error| EngineError::Config(error.to_string()))?;
    let lent = engine.pool.take().await?;
    if lent
        .run_unless(&format!("ALTER ROLE {name} NOLOGIN PASSWORD NULL"), super::ABSENT)
        .await?
        .is_none()
    {
        let mut looks = LOOKS_MAX;
        let sql = "SELECT count(pg_terminate_backend(a.pid)) FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid WHERE r.rolname = $1";
        while first::<i64>(&lent.ask(sql, &[(&former, Type::TEXT)]).await?)?.is_some_and(|ended| ended > 0) {
            looks = looks
                .checked_sub(1)
                .ok_or_else(|| EngineError::Remains(format!("sessions of {former}")))?;
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        // An account that owns or was granted something stays, locked and without a password.
        lent.run_unless(
            &format!("DROP ROLE IF EXISTS {name}"),
            &SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
        )
        .await?;
    }
    lent.give_back();
    Ok(())
}
