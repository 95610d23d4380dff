//! What is said to the server: setting, ending and looking at users. Every change is saved to the ACL file before it counts.
//!
//! An account ends in this order: `off` (so that no log-in can follow), its sessions killed, deleted, saved, and looked for
//! again on a fresh connection. Each step may have happened before: what is gone is done.

use super::{
    Redis,
    connect::{Lent, Session, text},
};
use crate::{
    engine::{EngineError, pool::Door as _},
    lease::Birth,
};
use redis::Value;
use sha2::{Digest, Sha256};
use std::time::Duration;

/// How often the whole is tried before the lease goes back to the queue.
const ROUNDS_MAX: u32 = 3;
/// How often sessions are looked at while they end, and the pause between: 2 s in all.
const LOOKS_MAX: u32 = 100;
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// `#` and the hex of SHA-256, as Redis keeps it. No salt: it protects passwords of 190 bits, which is what this engine makes.
pub(super) fn hash(password: &[u8]) -> String {
    format!("#{}", data_encoding::HEXLOWER.encode(&Sha256::digest(password)))
}

pub(super) async fn set(session: &mut Session, account: &str, rules: &[String]) -> Result<(), EngineError> {
    let mut words = vec!["ACL", "SETUSER", account];
    words.extend(rules.iter().map(String::as_str));
    session.say(&words).await.map(drop)
}

/// Without this a restart would bring back what was.
pub(super) async fn save(session: &mut Session) -> Result<(), EngineError> {
    session.say(&["ACL", "SAVE"]).await.map(drop)
}

pub(super) async fn exists(session: &mut Session, account: &str) -> Result<bool, EngineError> {
    Ok(!matches!(session.say(&["ACL", "GETUSER", account]).await?, Value::Nil))
}

/// The commands that an account may use, in Redis's words; `None`: no such account.
pub(super) async fn commands(session: &mut Session, account: &str) -> Result<Option<String>, EngineError> {
    let odd = || EngineError::Refused("ACL GETUSER answered something else".to_owned());
    match session.say(&["ACL", "GETUSER", account]).await? {
        Value::Nil => Ok(None),
        Value::Array(fields) => {
            let at = fields
                .iter()
                .position(|field| text(field).as_deref() == Some("commands"));
            let commands = at.and_then(|at| fields.get(at + 1)).and_then(text);
            commands.map(Some).ok_or_else(odd)
        }
        _ => Err(odd()),
    }
}

pub(super) async fn revoke(engine: &Redis, account: &str, birth: &Birth) -> Result<(), EngineError> {
    for _ in 0..ROUNDS_MAX {
        let mut lent = engine.pool.take().await?;
        if !birth.activated {
            end_strangers(engine, &mut lent).await?;
        }
        let found = exists(&mut lent, account).await?;
        if found {
            set(&mut lent, account, &["off".to_owned()]).await?;
            end_sessions(&mut lent, account).await?;
            lent.say(&["ACL", "DELUSER", account]).await?;
        }
        // Also where it is gone already: whoever deleted it may have died before it was saved.
        save(&mut lent).await?;
        lent.give_back();
        if !found && !birth.activated && !birth.deadline_passed {
            return Err(EngineError::NotYet(birth.deadline));
        }
        // For an account that was not found this is the second look.
        let mut fresh = engine.pool.door.open_root().await?;
        if !exists(&mut fresh, account).await? && clients(&mut fresh, account).await?.is_empty() {
            return Ok(());
        }
    }
    Err(EngineError::Remains(format!("account {account}")))
}

/// Names of the accounts that carry the mark.
pub(super) async fn marked(session: &mut Session, marker: &str) -> Result<Vec<String>, EngineError> {
    // A line: `user NAME on #HASH ~app:* resetchannels -@all +get (%R~strongroom:lab resetchannels -@all)`.
    let mark = format!("(%R~strongroom:{marker} ");
    let Value::Array(users) = session.say(&["ACL", "LIST"]).await? else {
        return Err(EngineError::Refused("ACL LIST answered something else".to_owned()));
    };
    let name = |line: String| {
        let name = line.strip_prefix("user ")?.split(' ').next()?;
        line.contains(&mark).then(|| name.to_owned())
    };
    Ok(users.iter().filter_map(text).filter_map(name).collect())
}

/// Ids of an account's sessions.
async fn clients(session: &mut Session, account: &str) -> Result<Vec<u64>, EngineError> {
    let list = text(&session.say(&["CLIENT", "LIST"]).await?)
        .ok_or_else(|| EngineError::Refused("CLIENT LIST answered something else".to_owned()))?;
    let word = |line: &str, key: &str| {
        let found = line
            .split(' ')
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        found.map(str::to_owned)
    };
    let theirs = |line: &&str| word(line, "user").as_deref() == Some(account);
    let ids = list
        .lines()
        .filter(theirs)
        .filter_map(|line| word(line, "id")?.parse().ok());
    Ok(ids.collect())
}

/// Ends the sessions of an account that nobody can log in to any more.
async fn end_sessions(lent: &mut Lent, account: &str) -> Result<(), EngineError> {
    for _ in 0..LOOKS_MAX {
        lent.say(&["CLIENT", "KILL", "USER", account]).await?;
        if clients(lent, account).await?.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    Err(EngineError::Remains(format!("sessions of {account}")))
}

/// Ends every session of the root account that no engine of this process holds, and with it whatever might still be making
/// an account. Only then is absence worth something. While it looks, none of ours is about to log in.
pub(super) async fn end_strangers(engine: &Redis, lent: &mut Lent) -> Result<(), EngineError> {
    let door = &engine.pool.door;
    for _ in 0..LOOKS_MAX {
        {
            let _entering = door.ours.entering.write().await;
            let mut ids = clients(lent, door.account()).await?;
            ids.retain(|&id| !door.ours.has(id));
            if ids.is_empty() {
                return Ok(());
            }
            for id in ids {
                lent.say(&["CLIENT", "KILL", "ID", &id.to_string()]).await?;
            }
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    Err(EngineError::Remains(format!("sessions of {}", door.account())))
}
