//! Ending an account, and proving it.
//!
//! Order: lock the log-in (committed before sessions are counted, so that none can follow), end the sessions, give away what
//! the account owns in every database that `pg_shdepend` names, drop it, read back by a witness. Each step may
//! have happened before: what is gone is done. *Never was* is another matter, see [`end_creators`].

use super::{
    ABSENT, Frozen, Postgres,
    connect::{Door, ERROR_BYTES_MAX, Lent, Session, application, column, one},
    sql::Name,
};
use crate::{
    engine::{EngineError, error::cut, pool::Door as _},
    lease::Birth,
};
use parking_lot::Mutex;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;
use tokio_postgres::{error::SqlState, types::Type};

/// How often the whole is tried before the lease goes back to the queue.
const ROUNDS_MAX: u32 = 3;
/// How often sessions are looked at while they end, and the pause between: 5 s in all.
const LOOKS_MAX: u32 = 100;
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// Age of a connection that proves accounts gone. Under load one is opened a second, not one an account.
const WITNESS_AGE_MAX: Duration = Duration::from_secs(1);
/// Accounts in one question.
const PROOFS_MAX: usize = 256;

pub(super) async fn revoke(
    engine: &Postgres,
    account: &Name,
    frozen: &Frozen,
    birth: &Birth,
) -> Result<(), EngineError> {
    for _ in 0..ROUNDS_MAX {
        let lent = engine.pool.take().await?;
        same_server(engine, &lent, frozen)?;
        if !birth.activated {
            end_creators(&lent, account, birth, engine).await?;
        }
        // Looked for first where it may never have been: ALTER ROLE would wait for whatever keeps CREATE ROLE waiting.
        let there = birth.activated || exists(&lent, account).await?;
        let oid = if there
            && lent
                .run_unless(&format!("ALTER ROLE {account} NOLOGIN"), ABSENT)
                .await?
                .is_none()
        {
            end_account(engine, &lent, account, frozen).await?
        } else {
            None
        };
        if oid.is_none() && !birth.activated && !birth.deadline_passed {
            lent.give_back();
            return Err(EngineError::NotYet(birth.deadline));
        }
        // For an account that was not found this is the second look.
        let gone = engine.proofs.gone(&engine.pool.door, account, oid).await;
        // Only now: who waits for the pool to be drained, to retire its log-in, waits for proofs too.
        lent.give_back();
        if gone? {
            return Ok(());
        }
    }
    Err(EngineError::Remains(format!("account {}", account.as_str())))
}

async fn exists(lent: &Lent, account: &Name) -> Result<bool, EngineError> {
    lent.ask_bool(
        "SELECT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = $1)",
        account.as_str(),
    )
    .await
}

fn same_server(engine: &Postgres, lent: &Lent, frozen: &Frozen) -> Result<(), EngineError> {
    if lent.system == frozen.system || engine.config().formerly.contains(&frozen.system) {
        return Ok(());
    }
    Err(EngineError::OtherServer {
        planned: frozen.system.clone(),
        found: lent.system.clone(),
    })
}

/// Ends whatever session might still be making the account. Sessions of an earlier run of the daemon (their
/// `application_name` says which) are ended altogether: nobody is behind them any more. Of our own run, those whose
/// statement names the account. Only then is absence worth something.
async fn end_creators(lent: &Lent, account: &Name, birth: &Birth, engine: &Postgres) -> Result<(), EngineError> {
    let creator = application(birth.boot);
    let ours = creator == engine.pool.door.application();
    let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE application_name = $1 AND pid <> pg_backend_pid() AND (NOT $2 OR state <> 'idle' AND position($3 IN query) > 0)";
    for _ in 0..LOOKS_MAX {
        let rows = lent
            .ask(
                sql,
                &[
                    (&creator, Type::TEXT),
                    (&ours, Type::BOOL),
                    (&account.as_str(), Type::TEXT),
                ],
            )
            .await?;
        if one::<i64>(&rows)? == 0 {
            return Ok(());
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    Err(EngineError::Remains("sessions of the creator".to_owned()))
}

/// Ends sessions, gives away, drops. `None` when the account vanished meanwhile.
async fn end_account(
    engine: &Postgres,
    lent: &Lent,
    account: &Name,
    frozen: &Frozen,
) -> Result<Option<u32>, EngineError> {
    let mut holds = String::new();
    for _ in 0..ROUNDS_MAX {
        let Some((oid, databases)) = end_sessions(lent, account).await? else {
            return Ok(None);
        };
        for database in &databases {
            give_away(engine, lent, account, frozen, database).await?;
        }
        // What a session made between our look and its end shows here, and gets another round. What others granted on
        // objects of theirs stays, for only they can take it back.
        match lent
            .run_unless(
                &format!("DROP ROLE IF EXISTS {account}"),
                &SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
            )
            .await?
        {
            None => return Ok(Some(oid)),
            Some(detail) => holds = detail,
        }
    }
    Err(EngineError::Remains(cut(
        format!(
            "{} is locked, but held by {}",
            account.as_str(),
            holds.replace('\n', ", ")
        ),
        ERROR_BYTES_MAX,
    )))
}

/// Ends the account's sessions and returns its oid and the databases in which something depends on it.
async fn end_sessions(lent: &Lent, account: &Name) -> Result<Option<(u32, Vec<String>)>, EngineError> {
    let sql = "SELECT r.oid,
            (SELECT count(pg_terminate_backend(a.pid)) FROM pg_stat_activity a WHERE a.usesysid = r.oid AND a.pid <> pg_backend_pid()),
            ARRAY(SELECT DISTINCT coalesce(d.datname, current_database())::text FROM pg_shdepend s LEFT JOIN pg_database d ON d.oid = s.dbid
                  WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid)
        FROM pg_roles r WHERE r.rolname = $1";
    for _ in 0..LOOKS_MAX {
        let rows = lent.ask(sql, &[(&account.as_str(), Type::TEXT)]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        if column::<i64>(row, 1)? == 0 {
            return Ok(Some((column(row, 0)?, column(row, 2)?)));
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    Err(EngineError::Remains(format!("sessions of {}", account.as_str())))
}

async fn give_away(
    engine: &Postgres,
    lent: &Lent,
    account: &Name,
    frozen: &Frozen,
    database: &str,
) -> Result<(), EngineError> {
    let sql = format!(
        "REASSIGN OWNED BY {account} TO {}; DROP OWNED BY {account}",
        frozen.owner
    );
    if database == engine.config().dbname.as_str() {
        return lent.run(&sql).await;
    }
    let session = engine.pool.door.open_root_in(database).await?;
    session.run(&sql).await
}

/// Proves accounts gone, many in one question: whoever's turn it is asks for all that wait. It asks on a connection that
/// makes and ends nothing and is [`WITNESS_AGE_MAX`] old at most: one that acted, or lived long, might still see what it
/// saw then (a pooler, a standby, a former primary).
#[derive(Default)]
pub(super) struct Proofs {
    waiting: Mutex<Vec<Waiting>>,
    turn: tokio::sync::Mutex<()>,
    witness: Arc<Mutex<Option<Witness>>>,
}

struct Waiting {
    account: String,
    oid: Option<u32>,
    answer: oneshot::Sender<bool>,
}

struct Witness {
    session: Session,
    opened: Instant,
}

impl Proofs {
    /// Whether neither the account nor a session of it is left.
    pub async fn gone(&self, door: &Door, account: &Name, oid: Option<u32>) -> Result<bool, EngineError> {
        let (answer, mut answered) = oneshot::channel();
        self.waiting.lock().push(Waiting {
            account: account.as_str().to_owned(),
            oid,
            answer,
        });
        loop {
            let _turn = self.turn.lock().await;
            match answered.try_recv() {
                Ok(gone) => return Ok(gone),
                // Another's turn failed and took our question with it.
                Err(oneshot::error::TryRecvError::Closed) => {
                    return Err(EngineError::Unreachable("the proof was interrupted".to_owned()));
                }
                Err(oneshot::error::TryRecvError::Empty) => self.prove(door).await?,
            }
        }
    }

    async fn prove(&self, door: &Door) -> Result<(), EngineError> {
        let batch: Vec<Waiting> = {
            let mut waiting = self.waiting.lock();
            let count = waiting.len().min(PROOFS_MAX);
            waiting.drain(..count).collect()
        };
        let remains = self.remains(door, &batch).await?;
        for Waiting { account, oid, answer } in batch {
            let present = remains.accounts.contains(&account) || oid.is_some_and(|oid| remains.sessions.contains(&oid));
            // The one who asked may have gone.
            let _ = answer.send(!present);
        }
        Ok(())
    }

    async fn remains(&self, door: &Door, batch: &[Waiting]) -> Result<Remains, EngineError> {
        let young = self
            .witness
            .lock()
            .take()
            .filter(|witness| witness.opened.elapsed() < WITNESS_AGE_MAX && !Door::is_closed(&witness.session));
        if let Some(witness) = young {
            // One that fails is no proof of anything: a new one is asked.
            if let Ok(remains) = remains(&witness.session, batch).await {
                *self.witness.lock() = Some(witness);
                return Ok(remains);
            }
        }
        let witness = Witness {
            opened: Instant::now(),
            session: door.open_root().await?,
        };
        let remains = remains(&witness.session, batch).await?;
        *self.witness.lock() = Some(witness);
        let slot = Arc::downgrade(&self.witness);
        tokio::spawn(async move {
            tokio::time::sleep(WITNESS_AGE_MAX).await;
            if let Some(slot) = slot.upgrade() {
                slot.lock()
                    .take_if(|witness| witness.opened.elapsed() >= WITNESS_AGE_MAX);
            }
        });
        Ok(remains)
    }
}

struct Remains {
    accounts: Vec<String>,
    sessions: Vec<u32>,
}

async fn remains(session: &Session, batch: &[Waiting]) -> Result<Remains, EngineError> {
    let accounts: Vec<&str> = batch.iter().map(|waiting| waiting.account.as_str()).collect();
    let oids: Vec<u32> = batch.iter().filter_map(|waiting| waiting.oid).collect();
    let sql = "SELECT ARRAY(SELECT rolname::text FROM pg_roles WHERE rolname = ANY ($1)),
        ARRAY(SELECT usesysid FROM pg_stat_activity WHERE usesysid = ANY ($2) AND (pg_terminate_backend(pid) OR true))";
    let rows = session
        .ask(sql, &[(&accounts, Type::TEXT_ARRAY), (&oids, Type::OID_ARRAY)])
        .await?;
    let row = rows
        .first()
        .ok_or_else(|| EngineError::Refused("an answer without a row".to_owned()))?;
    Ok(Remains {
        accounts: column(row, 0)?,
        sessions: column(row, 1)?,
    })
}
