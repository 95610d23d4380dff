//! A client that lives by the rule of this suite.

use crate::campaign::{Tried, doing};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use strongroom_client::{Client, Error};
use tokio::{task::JoinHandle, time::sleep};
use tokio_postgres::error::SqlState;

/// How long the daemon may not answer.
const PATIENCE: Duration = Duration::from_secs(120);
/// Rotations that may fall between a read and its log-in, in a row.
const BETWEEN_MAX: u64 = 5;

/// What it came to.
#[derive(Debug, Default)]
pub struct Worked {
    pub log_ins: u64,
    /// Refused, and well after one fresh read.
    pub reread: u64,
    /// Fresh reads that another rotation overtook.
    pub between: u64,
    pub broken: Vec<String>,
}

/// The running client.
pub struct Worker {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Tried<Worked>>,
}

/// The account's password as the vault has it now.
pub async fn read(client: &Client) -> Tried<String> {
    let began = Instant::now();
    loop {
        match client.issue("pg/app", None).await {
            Ok(made) => return Ok(made.field("password")?.expose_str()?.to_owned()),
            Err(error) if began.elapsed() > PATIENCE => return Err(doing("reading pg/app")(error)),
            Err(Error::Unavailable(_) | Error::Sealed(_) | Error::Indeterminate(_) | Error::Internal(_)) => {
                sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return Err(doing("reading pg/app")(error)),
        }
    }
}

/// Whether the server takes the password; anything else that goes wrong is trouble.
async fn opens(port: u16, password: &str) -> Tried<bool> {
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(port)
        .dbname("postgres")
        .user("app")
        .password(password);
    match config.connect(tokio_postgres::NoTls).await {
        Ok((client, connection)) => {
            let driver = tokio::spawn(connection);
            let asked = client.query_one("SELECT 1", &[]).await;
            driver.abort();
            Ok(asked.map(|_| true)?)
        }
        Err(error) if error.code() == Some(&SqlState::INVALID_PASSWORD) => Ok(false),
        Err(error) => Err(doing("logging in as app")(error)),
    }
}

impl Worker {
    pub async fn start(client: &Client, port: u16) -> Tried<Self> {
        let (stop, client) = (Arc::new(AtomicBool::new(false)), client.clone());
        let password = read(&client).await?;
        let task = tokio::spawn(work(client, port, password, stop.clone()));
        Ok(Self { stop, task })
    }

    pub async fn end(self) -> Tried<Worked> {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await?
    }
}

async fn work(client: Client, port: u16, mut password: String, stop: Arc<AtomicBool>) -> Tried<Worked> {
    let mut worked = Worked::default();
    while !stop.load(Ordering::SeqCst) {
        if !opens(port, &password).await? {
            password = read(&client).await?;
            let mut between = 0;
            while !opens(port, &password).await? {
                let again = read(&client).await?;
                between += 1;
                if again == password || between > BETWEEN_MAX {
                    worked
                        .broken
                        .push(format!("log-in {}: a fresh password is refused", worked.log_ins));
                    break;
                }
                password = again;
            }
            worked.reread += u64::from(between == 0);
            worked.between += u64::from(between > 0);
        }
        worked.log_ins += 1;
        sleep(Duration::from_millis(5)).await;
    }
    Ok(worked)
}
