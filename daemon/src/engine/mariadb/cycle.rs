//! The configuration test: what the engine will ever do, done once with a throw-away account; and the check of a template.

use super::{
    MariaDb,
    config::Template,
    connect::{column, login},
    native, thaw,
};
use crate::{
    engine::{Engine, EngineError, password},
    lease::{Birth, Durable, Plan},
};

pub(super) async fn run(engine: &MariaDb, durable: &Durable, plan: &Plan) -> Result<Vec<String>, EngineError> {
    let mut checks = Vec::new();
    check_account(engine, &mut checks).await?;
    let (account, frozen) = thaw(plan)?;
    let secret = password(&*engine.surroundings.random);
    let verifier = native::verifier(secret.expose());
    let mut lent = engine.pool.take().await?;
    lent.run(&format!(
        "CREATE USER {account} IDENTIFIED VIA mysql_native_password USING '{verifier}'"
    ))
    .await?;
    lent.run(&format!("GRANT {} TO {account}", frozen.marker)).await?;
    let default = lent
        .run(&format!("SET DEFAULT ROLE {} FOR {account}", frozen.marker))
        .await;
    default.map_err(|error| {
        missing(
            error,
            &format!("username: GRANT UPDATE ON mysql.* TO {}", engine.config().username),
        )
    })?;
    lent.give_back();
    checks.push(format!("created account {}", account.name.as_str()));
    // An open session, so that ending sessions is tried as well.
    let mut session = engine.pool.door.open(account.name.as_str(), &secret).await?;
    session.run("DO 1").await?;
    checks.push("logged in as it".to_owned());
    engine
        .revoke(durable, plan, &Birth::of_test(engine.surroundings.boot))
        .await?;
    checks.push("locked it, ended its session, dropped it, read back that it is gone".to_owned());
    if session.run("DO 1").await.is_ok() || login(&engine.pool.door, account.name.as_str(), &secret).await? {
        return Err(EngineError::Remains(format!("account {}", account.name.as_str())));
    }
    checks.push("its session is dead and its log-in refused".to_owned());
    Ok(checks)
}

/// What the root account must be able to do, each with the statement that mends it.
pub(super) async fn check_account(engine: &MariaDb, checks: &mut Vec<String>) -> Result<(), EngineError> {
    let config = engine.config();
    let (root, marker) = (&config.username, &config.marker);
    let mut lent = engine.pool.take().await?;
    let version = lent.ask("SELECT VERSION()", ()).await?;
    let version = version.first().map(|row| column::<String>(row, 0)).transpose()?;
    let version = version.unwrap_or_default();
    if !version.contains("MariaDB") {
        return Err(EngineError::Config(format!(
            "host: the server is {version}, not MariaDB"
        )));
    }
    checks.push(format!("connected to {version} as {}", root.as_str()));
    // Reading is asked of the tables themselves: what is not granted is refused there.
    for (sql, complaint) in [
        (
            "SELECT User, Host, is_role, Super_priv, Create_user_priv, Grant_priv, File_priv FROM mysql.user LIMIT 0",
            format!(
                "username: GRANT SELECT (User, Host, is_role, Super_priv, Create_user_priv, Grant_priv, File_priv) ON mysql.user TO {root}"
            ),
        ),
        (
            "SELECT User, Host, Role, Admin_option FROM mysql.roles_mapping LIMIT 0",
            format!("username: GRANT SELECT ON mysql.roles_mapping TO {root}"),
        ),
    ] {
        lent.ask(sql, ()).await.map_err(|error| missing(error, &complaint))?;
    }
    for (sql, complaint) in [
        (
            "SELECT 1 FROM mysql.user WHERE User = ? AND is_role = 'Y'",
            format!("marker: CREATE ROLE {marker}; GRANT {marker} TO {root} WITH ADMIN OPTION"),
        ),
        (
            "SELECT 1 FROM mysql.roles_mapping WHERE Role = ? AND CONCAT(User, '@', Host) = CURRENT_USER() AND Admin_option = 'Y'",
            format!("marker: GRANT {marker} TO {root} WITH ADMIN OPTION"),
        ),
    ] {
        if !lent.any(sql, marker.as_str()).await? {
            return Err(EngineError::Config(complaint));
        }
    }
    let sql = "SELECT 1 FROM information_schema.USER_PRIVILEGES WHERE PRIVILEGE_TYPE = ?
        AND GRANTEE = CONCAT('''', REPLACE(CURRENT_USER(), '@', '''@'''), '''')";
    for privilege in ["CREATE USER", "PROCESS", "CONNECTION ADMIN"] {
        if !lent.any(sql, privilege).await? {
            return Err(EngineError::Config(format!(
                "username: GRANT {privilege} ON *.* TO {root}"
            )));
        }
    }
    lent.give_back();
    checks.push(format!(
        "{} can make, watch and end accounts marked {}",
        root.as_str(),
        marker.as_str()
    ));
    Ok(())
}

fn missing(error: EngineError, complaint: &str) -> EngineError {
    match error {
        EngineError::Refused(_) => EngineError::Config(complaint.to_owned()),
        other => other,
    }
}

/// The role that a template hands out must exist, be harmless, and be the root account's to grant.
pub(super) async fn check_template(engine: &MariaDb, template: &Template) -> Result<(), EngineError> {
    let Some(role) = &template.role else {
        return Ok(());
    };
    let name = role.as_str();
    if *role == engine.config().marker {
        return Err(EngineError::Config(
            "role: not the marker, which has no rights".to_owned(),
        ));
    }
    let root = &engine.config().username;
    let mut lent = engine.pool.take().await?;
    if !lent
        .any("SELECT 1 FROM mysql.user WHERE User = ? AND is_role = 'Y'", name)
        .await?
    {
        return Err(EngineError::Config(format!(
            "role: {name} does not exist in the target"
        )));
    }
    // With all roles that it is a member of in turn.
    let powers = "WITH RECURSIVE held (Role) AS (SELECT CAST(? AS CHAR(128)) UNION
            SELECT m.Role FROM mysql.roles_mapping m JOIN held h ON m.User = h.Role AND m.Host = '')
        SELECT u.User FROM mysql.user u JOIN held h ON u.User = h.Role
        WHERE u.is_role = 'Y' AND 'Y' IN (u.Super_priv, u.Create_user_priv, u.Grant_priv, u.File_priv)";
    if lent.any(powers, name).await? {
        return Err(EngineError::Config(format!(
            "role: {name} has rights that must not be handed out (SUPER, CREATE USER, GRANT OPTION, FILE)"
        )));
    }
    let admin = "SELECT 1 FROM mysql.roles_mapping WHERE Role = ? AND CONCAT(User, '@', Host) = CURRENT_USER() AND Admin_option = 'Y'";
    if !lent.any(admin, name).await? {
        return Err(EngineError::Config(format!(
            "role: GRANT {role} TO {root} WITH ADMIN OPTION"
        )));
    }
    lent.give_back();
    Ok(())
}
