//! The root account's own rotation. MariaDB lets an account have two passwords: the account stays, the second password is
//! added, tested, and the first taken away.

use super::{
    MariaDb,
    connect::{Lent, column},
    native, revoke,
    sql::Account,
};
use crate::engine::{EngineError, Root};

/// The account logs in by the present password and by the next one.
pub(super) async fn add_password(engine: &MariaDb, next: &Root) -> Result<(), EngineError> {
    let (now, next) = (
        native::verifier(engine.pool.door.secret().expose()),
        native::verifier(next.secret.expose()),
    );
    let mut lent = engine.pool.take().await?;
    let me = myself(&mut lent).await?;
    lent.run(&format!(
        "ALTER USER {me} IDENTIFIED VIA mysql_native_password USING '{now}' OR mysql_native_password USING '{next}'"
    ))
    .await?;
    lent.give_back();
    Ok(())
}

/// Only this engine's password is left; sessions that are not its own are ended, whoever opened them by the former one.
pub(super) async fn keep_only_password(engine: &MariaDb) -> Result<(), EngineError> {
    let verifier = native::verifier(engine.pool.door.secret().expose());
    let mut lent = engine.pool.take().await?;
    let me = myself(&mut lent).await?;
    lent.run(&format!(
        "ALTER USER {me} IDENTIFIED VIA mysql_native_password USING '{verifier}'"
    ))
    .await?;
    revoke::end_strangers(engine, &mut lent).await?;
    lent.give_back();
    Ok(())
}

/// The account by its name: of `ALTER USER CURRENT_USER()` MariaDB 10.11 keeps the first password only.
async fn myself(lent: &mut Lent) -> Result<Account, EngineError> {
    let rows = lent.ask("SELECT CURRENT_USER()", ()).await?;
    let row = rows
        .first()
        .ok_or_else(|| EngineError::Refused("an answer without a row".to_owned()))?;
    Account::parse(&column::<String>(row, 0)?).map_err(|error| EngineError::Refused(error.to_string()))
}
