//! How an account ends: its password taken away, so that no log-in can follow; its connections closed; deleted; looked for
//! again on a fresh connection. Each step may have happened before: what is gone is done. Who had logged in before that, but
//! not yet opened a virtual host, cannot do so once the account is deleted: its permissions are gone as well.

use super::{Frozen, RabbitMq, connect::Session, users};
use crate::{
    engine::{EngineError, pool::Door as _},
    lease::Birth,
};
use std::time::Duration;

/// How often the whole is tried before the lease goes back to the queue.
const ROUNDS_MAX: u32 = 3;
/// How often connections are looked at while they end, and the pause between: 5 s in all.
const LOOKS_MAX: u32 = 100;
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// An account that was never seen is looked for again after this: a server that was stalled, and had its creator's request
/// still to read when it went on, is through with it by then.
const SETTLE: Duration = Duration::from_secs(1);

pub(super) async fn revoke(
    engine: &RabbitMq,
    account: &str,
    frozen: &Frozen,
    birth: &Birth,
) -> Result<(), EngineError> {
    let config = engine.config();
    for _ in 0..ROUNDS_MAX {
        let mut lent = engine.pool.take().await?;
        users::same_cluster(&mut lent, config, &frozen.cluster).await?;
        let found = users::find(&mut lent, account).await?.is_some();
        if found {
            users::put(&mut lent, account, users::NO_PASSWORD, &[config.mark()]).await?;
        }
        // Also of one that is gone: whoever deleted it may have died before its connections did.
        end_connections(&mut lent, account).await?;
        if found {
            users::delete(&mut lent, account).await?;
        }
        lent.give_back();
        if !found && !birth.activated {
            if !birth.deadline_passed {
                return Err(EngineError::NotYet(birth.deadline));
            }
            tokio::time::sleep(SETTLE).await;
        }
        // For an account that was not found this is the second look.
        let mut fresh = engine.pool.door.open_root().await?;
        users::same_cluster(&mut fresh, config, &frozen.cluster).await?;
        if users::find(&mut fresh, account).await?.is_none() && users::connections(&mut fresh, account).await? == 0 {
            return Ok(());
        }
    }
    Err(EngineError::Remains(format!("account {account}")))
}

/// Closes the connections of an account that nobody can log in to any more, or that is gone. The server enters a connection in its list a
/// moment after it let it in; hence the last look comes after a pause.
pub(super) async fn end_connections(session: &mut Session, account: &str) -> Result<(), EngineError> {
    let mut clean = 0;
    for _ in 0..LOOKS_MAX {
        if users::connections(session, account).await? == 0 {
            clean += 1;
            if clean == 2 {
                return Ok(());
            }
        } else {
            clean = 0;
            users::close_connections(session, account).await?;
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    Err(EngineError::Remains(format!("sessions of {account}")))
}
