//! Ending an account, and proving it.
//!
//! Order: lock the account (so that no log-in can follow), end its sessions, drop it, read back on a fresh connection that
//! neither the account nor a session of its name is left. Each step may have happened before: what is gone is done.
//! *Never was* is another matter, see [`end_strangers`].

use super::{
    Frozen, MariaDb,
    connect::{CANNOT_USER, Lent, NO_SUCH_THREAD, Session, column},
    sql::{Account, Name},
};
use crate::{
    engine::{EngineError, pool::Door as _},
    lease::Birth,
};
use std::time::Duration;

/// How often the whole is tried before the lease goes back to the queue.
const ROUNDS_MAX: u32 = 3;
/// How often sessions are looked at while they end, and the pause between: 5 s in all.
const LOOKS_MAX: u32 = 100;
const LOOK_PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn revoke(
    engine: &MariaDb,
    account: &Account,
    frozen: &Frozen,
    birth: &Birth,
) -> Result<(), EngineError> {
    for _ in 0..ROUNDS_MAX {
        let mut lent = engine.pool.take().await?;
        same_server(&mut lent, &frozen.marker).await?;
        if !birth.activated {
            end_strangers(engine, &mut lent).await?;
        }
        // Looked for first where it may never have been: ALTER USER would wait for whatever keeps CREATE USER waiting.
        let there = birth.activated || exists(&mut lent, &account.name).await?;
        let found = there
            && lent
                .run_unless(&format!("ALTER USER {account} ACCOUNT LOCK"), CANNOT_USER)
                .await?;
        if found {
            end_sessions(&mut lent, &account.name).await?;
            lent.run_unless(&format!("DROP USER {account}"), CANNOT_USER).await?;
        }
        lent.give_back();
        if !found && !birth.activated && !birth.deadline_passed {
            return Err(EngineError::NotYet(birth.deadline));
        }
        // For an account that was not found this is the second look.
        if gone(engine, account, frozen).await? {
            return Ok(());
        }
    }
    Err(EngineError::Remains(format!("account {}", account.name.as_str())))
}

/// Whether an account of this name is there, from whatever host.
pub(super) async fn exists(session: &mut Session, name: &Name) -> Result<bool, EngineError> {
    session
        .any(
            "SELECT 1 FROM mysql.user WHERE User = ? AND is_role <> 'Y'",
            name.as_str(),
        )
        .await
}

/// The marker is made once, by hand, and goes where the data goes: into replicas, restored backups, fail-overs. A server
/// without it is a stranger.
pub(super) async fn same_server(session: &mut Session, marker: &Name) -> Result<(), EngineError> {
    if session
        .any(
            "SELECT 1 FROM mysql.user WHERE User = ? AND is_role = 'Y'",
            marker.as_str(),
        )
        .await?
    {
        return Ok(());
    }
    Err(EngineError::OtherServer {
        planned: marker.as_str().to_owned(),
        found: "(one without that role)".to_owned(),
    })
}

/// Neither the account nor a session of it, on a connection that was not used before: one that was might still see what it saw then.
async fn gone(engine: &MariaDb, account: &Account, frozen: &Frozen) -> Result<bool, EngineError> {
    let mut fresh = engine.pool.door.open_root().await?;
    same_server(&mut fresh, &frozen.marker).await?;
    if exists(&mut fresh, &account.name).await? {
        return Ok(false);
    }
    // A log-in that passed at the very moment of the lock.
    Ok(sessions(&mut fresh, &account.name).await?.is_empty())
}

async fn sessions(session: &mut Session, name: &Name) -> Result<Vec<u64>, EngineError> {
    let sql = "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = ? AND ID <> CONNECTION_ID()";
    let rows = session.ask(sql, (name.as_str(),)).await?;
    rows.iter().map(|row| column(row, 0)).collect()
}

async fn kill(session: &mut Session, ids: impl IntoIterator<Item = u64>) -> Result<(), EngineError> {
    for id in ids {
        session
            .run_unless(&format!("KILL HARD CONNECTION {id}"), NO_SUCH_THREAD)
            .await?;
    }
    Ok(())
}

/// Ends the sessions of an account that nobody can log in to any more.
pub(super) async fn end_sessions(lent: &mut Lent, name: &Name) -> Result<(), EngineError> {
    for _ in 0..LOOKS_MAX {
        let ids = sessions(lent, name).await?;
        if ids.is_empty() {
            return Ok(());
        }
        kill(lent, ids).await?;
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    Err(EngineError::Remains(format!("sessions of {}", name.as_str())))
}

/// Ends every session of the root account that no engine of this process holds, and with it whatever might still be making
/// an account. Only then is absence worth something. While it looks, none of ours is about to log in.
pub(super) async fn end_strangers(engine: &MariaDb, lent: &mut Lent) -> Result<(), EngineError> {
    let door = &engine.pool.door;
    let root = Name::parse(door.account()).map_err(|error| EngineError::Config(error.to_string()))?;
    for _ in 0..LOOKS_MAX {
        {
            let _entering = door.ours.entering.write().await;
            let mut ids = sessions(lent, &root).await?;
            ids.retain(|&id| !door.ours.has(id));
            if ids.is_empty() {
                return Ok(());
            }
            kill(lent, ids).await?;
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    Err(EngineError::Remains(format!("sessions of {}", root.as_str())))
}
