//! PostgreSQL: credentials that are made, die and rotate.

use super::{Shown, check, say, stage::Stage, step};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use strongroom_client::{Client, LeasedCredential};
use strongroomd::engine::postgres::testing::ROOT_SECRET;
use tokio::task::JoinHandle;

/// Life of the lease that is shown dying; the least there is.
const LIFE: Duration = Duration::from_secs(5);
/// How long after its expiry an account may live.
const GRACE: Duration = Duration::from_secs(10);
/// Rotations while a client works.
const ROTATIONS: u32 = 3;

/// A session of a PostgreSQL client.
pub struct Session {
    sql: tokio_postgres::Client,
    /// Drives the connection; ends when the server ends the session.
    wire: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.wire.abort();
    }
}

/// Logs in as the credential says: host, port, database, name and password all come from Strongroom.
async fn log_in(credential: &LeasedCredential) -> Shown<Session> {
    let text = |name: &str| Ok::<_, strongroom_client::Error>(credential.field(name)?.expose_str()?.to_owned());
    let mut config = tokio_postgres::Config::new();
    config
        .host(text("host")?)
        .port(text("port")?.parse()?)
        .dbname(text("database")?)
        .user(text("username")?);
    config
        .password(text("password")?)
        .connect_timeout(Duration::from_secs(5));
    let (sql, connection) = config.connect(tokio_postgres::NoTls).await?;
    let wire = tokio::spawn(async move {
        // How the session ended is seen by its next query.
        let _ = connection.await;
    });
    Ok(Session { sql, wire })
}

impl Session {
    async fn count_items(&self) -> Shown<i64> {
        Ok(self.sql.query_one("SELECT count(*) FROM items", &[]).await?.get(0))
    }
}

/// The engine and its roles.
pub fn mount(stage: &Stage) -> Shown {
    step(
        5,
        "PostgreSQL: mount, root credential, roles",
        "`mount config` tests the whole life of an account, then even the engine's own password is rotated: nobody knows it any more.",
    );
    stage.json(&["mount", "enable", "pg", "--kind", "postgres"], b"")?;
    let config = stage.lab.dir().join("pg.json");
    std::fs::write(&config, stage.server.config_json())?;
    let config = config.display().to_string();
    let done = stage.json(
        &["mount", "config", "pg", "--from-json", &config, "--root-secret", "-"],
        ROOT_SECRET.as_bytes(),
    )?;
    let checks = done["checks"].as_array().map_or(0, Vec::len);
    check(checks > 3, format_args!("{checks} checks against the server passed"))?;
    let rotated = stage.json(&["mount", "rotate-root", "pg"], b"")?;
    check(
        rotated["account"].is_string(),
        format_args!("the engine now logs in as {}", rotated["account"]),
    )?;
    stage.json(
        &[
            "role",
            "put",
            "pg/readers",
            "group=readers",
            "default_ttl=1h",
            "max_ttl=24h",
        ],
        b"",
    )?;
    stage.json(
        &[
            "role",
            "put",
            "pg/app",
            "type=static",
            "account=app",
            "rotation_period=24h",
        ],
        b"",
    )?;
    check(
        true,
        "pg/readers makes accounts of the group `readers`; pg/app keeps the existing account `app`",
    )
}

/// An account made on demand, and used. Its session stays open.
pub async fn issue(stage: &Stage, app: &Client) -> Shown<(LeasedCredential, Session)> {
    step(
        6,
        "A credential on demand",
        "An account that did not exist a moment ago, leased for five seconds. The server got a verifier, never the password.",
    );
    let credential = app.issue("pg/readers", Some(LIFE)).await?;
    let account = credential.field("username")?.expose_str()?.to_owned();
    say(format_args!(
        "    the application issues pg/readers and is {account}, until {}",
        credential.expires_at
    ));
    let session = log_in(&credential).await?;
    check(
        session.count_items().await? == 3,
        "it logs in and reads 3 rows of `items`",
    )?;
    let secret = credential.field("password")?.expose_str()?.to_owned();
    check(
        !stage.server.log().contains(&secret),
        "the server's log of every statement does not hold its password",
    )?;
    Ok((credential, session))
}

/// What happens to it at its expiry.
pub async fn expire(stage: &Stage, (credential, session): (LeasedCredential, Session)) -> Shown {
    step(
        7,
        "It dies at expiry",
        "The session stays open and keeps asking. Nobody revokes anything: the lease's time comes.",
    );
    let began = Instant::now();
    let mut answers = 0;
    while session.count_items().await.is_ok() {
        answers += 1;
        if began.elapsed() > LIFE + GRACE {
            return Err("the open session outlived its lease".into());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    check(
        answers > 5,
        format_args!("after {answers} answers the open session was ended by the server"),
    )?;
    let account = credential.field("username")?.expose_str()?.to_owned();
    let refused = log_in(&credential).await.err();
    check(
        refused.is_some(),
        format_args!(
            "the right password is refused: {}",
            refused.as_deref().map(sentence).unwrap_or_default()
        ),
    )?;
    let left = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{account}'");
    wait_until("the account is gone from the server", || {
        Ok(stage.server.admin("postgres", &left)? == "0")
    })
    .await?;
    let lease = credential.lease_id.clone().unwrap_or_default();
    wait_until("and the lease is gone or says so", || {
        let ran = stage.operator.run(&["--output", "json", "lease", "show", &lease]);
        Ok(ran.code != 0 || ran.out.contains("\"gone\""))
    })
    .await
}

/// A static account's password changes under a client that never stops.
pub async fn rotate(stage: &Stage, app: &Client) -> Shown {
    step(
        8,
        "A static account rotates under a working client",
        "Its open session goes on; every 20 ms it also logs in anew, and asks Strongroom again when a password is out of date.",
    );
    let stop = Arc::new(AtomicBool::new(false));
    let client = tokio::spawn(work(app.clone(), Arc::clone(&stop)));
    for _ in 0..ROTATIONS {
        tokio::time::sleep(Duration::from_millis(500)).await;
        stage.json(&["creds", "rotate", "pg/app"], b"")?;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    let worked = client.await??;
    say(format_args!("    {worked}"));
    check(
        worked.passwords > ROTATIONS as usize,
        format_args!("it met {} passwords", worked.passwords),
    )?;
    check(worked.log_ins > 20, "and not one piece of its work was lost")
}

/// What the client came to.
struct Worked {
    log_ins: usize,
    queries: usize,
    passwords: usize,
}

impl fmt::Display for Worked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} log-ins and {} queries", self.log_ins, self.queries)
    }
}

/// Works until it is told to stop: one session that stays open, and log-ins. A refused log-in is tried once more with the password that
/// Strongroom has now; if that fails too, so does the demo.
async fn work(app: Client, stop: Arc<AtomicBool>) -> Shown<Worked> {
    let mut worked = Worked {
        log_ins: 0,
        queries: 0,
        passwords: 1,
    };
    let mut credential = app.issue("pg/app", None).await?;
    let lasting = log_in(&credential).await?;
    while !stop.load(Ordering::Relaxed) {
        let session = match log_in(&credential).await {
            Ok(session) => session,
            Err(_) => {
                credential = app.issue("pg/app", None).await?;
                worked.passwords += 1;
                log_in(&credential).await?
            }
        };
        for sql in [&session, &lasting] {
            worked.queries += usize::from(sql.count_items().await? == 3);
        }
        worked.log_ins += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(worked)
}

/// Looks again and again until it holds, or the grace is over.
async fn wait_until(what: &str, mut holds: impl FnMut() -> Shown<bool>) -> Shown {
    let began = Instant::now();
    while !holds()? {
        if began.elapsed() > GRACE {
            return check(false, what);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    check(true, what)
}

/// An error and its causes.
fn sentence(error: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source()).map(|cause| format!(": {cause}"));
    std::iter::once(error.to_string()).chain(causes).collect()
}
