//! The root account's own rotation. A user of RabbitMQ has one password: two names take turns.

use super::{
    RabbitMq, revoke,
    users::{self, ADMINISTRATOR},
};
use crate::engine::{EngineError, Root};

/// Makes the successor, or resets it: only what an earlier rotation of this engine made is taken over.
pub(super) async fn create(engine: &RabbitMq, next: &Root) -> Result<(), EngineError> {
    let mark = engine.config().root_mark();
    let mut lent = engine.pool.take().await?;
    if let Some(user) = users::find(&mut lent, &next.account).await?
        && !user.is(&mark)
    {
        return Err(EngineError::Config(format!(
            "{} exists and was not made by this engine; rename or delete it",
            next.account
        )));
    }
    let hash = users::hash(next.secret.expose(), &*engine.surroundings.random);
    users::put(&mut lent, &next.account, &hash, &[ADMINISTRATOR, &mark]).await?;
    lent.give_back();
    Ok(())
}

pub(super) async fn retire(engine: &RabbitMq, former: &str) -> Result<(), EngineError> {
    let mut lent = engine.pool.take().await?;
    users::delete(&mut lent, former).await?;
    revoke::end_connections(&mut lent, former).await?;
    lent.give_back();
    Ok(())
}
