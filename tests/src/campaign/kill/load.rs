//! The mixed load: writers of secrets, issuers and a revoker of credentials, each with a book of what was acknowledged. Shared with nobody:
//! what a book says must hold, whatever happens to the daemon.

use crate::campaign::Dice;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use strongroom_client::{Client, Error, Fields, LeasedCredential, Secret, v1};
use tokio::task::JoinHandle;

pub const WRITERS: u64 = 3;
pub const ISSUERS: u64 = 2;
/// Secrets of a writer, written in turn.
const SLOTS: u64 = 8;
/// Credentials that are left alive, so that the server does not fill up.
const LIVE_MAX: usize = 6;

/// What is known of a secret.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The newest version that was acknowledged, and the number of its value.
    pub acked: (u64, u64),
    /// Values that were sent and got no answer: any of them may be a newer version.
    pub doubtful: Vec<u64>,
}

/// What is known of a credential.
#[derive(Clone, Debug)]
pub struct Credential {
    pub account: String,
    pub password: String,
    pub fate: Fate,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It was handed out.
    Live,
    /// A revocation was sent and got no answer.
    Doubtful,
    /// Its end was acknowledged, proven.
    Gone,
}

/// What was acknowledged.
#[derive(Debug, Default)]
pub struct Book {
    pub secrets: BTreeMap<String, Known>,
    /// By lease id.
    pub credentials: BTreeMap<String, Credential>,
    pub puts: u64,
    pub issues: u64,
    pub revokes: u64,
    /// Answers that no crash explains.
    pub odd: Vec<String>,
}

/// The load while it runs.
pub struct Load {
    pub book: Arc<Mutex<Book>>,
    /// Calls under way, by kind.
    pub writing: Arc<AtomicU64>,
    pub changing: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

pub fn open(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The value with this number, and nothing else has it.
pub fn value(path: &str, number: u64) -> Vec<u8> {
    format!(
        "{path} {number} {}",
        "x".repeat(usize::try_from(number % 900).unwrap_or_default())
    )
    .into_bytes()
}

/// Counts a call while it is under way.
struct Under<'a>(&'a AtomicU64);

impl<'a> Under<'a> {
    fn way(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Under<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Whether a call may or may not have acted; otherwise it certainly did not.
fn doubtful(error: &Error) -> bool {
    matches!(
        error,
        Error::Indeterminate(_) | Error::Unavailable(_) | Error::Internal(_)
    )
}

impl Load {
    /// Starts it on the book of an earlier one.
    pub fn start(client: &Client, book: Arc<Mutex<Book>>, dice: &Dice, with_leases: bool) -> Self {
        Self::of(client, book, dice, WRITERS, with_leases)
    }

    /// Without the writers.
    pub fn of_leases(client: &Client, book: Arc<Mutex<Book>>, dice: &Dice) -> Self {
        Self::of(client, book, dice, 0, true)
    }

    fn of(client: &Client, book: Arc<Mutex<Book>>, dice: &Dice, writers: u64, with_leases: bool) -> Self {
        let load = Self {
            book,
            writing: Arc::default(),
            changing: Arc::default(),
            stop: Arc::default(),
            tasks: Vec::new(),
        };
        let mut tasks = Vec::new();
        for writer in 0..writers {
            let part = load.part(client, dice.fork(writer));
            tasks.push(tokio::spawn(part.write(writer)));
        }
        for issuer in 0..if with_leases { ISSUERS } else { 0 } {
            tasks.push(tokio::spawn(load.part(client, dice.fork(10 + issuer)).issue()));
        }
        if with_leases {
            tasks.push(tokio::spawn(load.part(client, dice.fork(20)).revoke()));
        }
        Self { tasks, ..load }
    }

    fn part(&self, client: &Client, dice: Dice) -> Part {
        Part {
            client: client.clone(),
            book: self.book.clone(),
            writing: self.writing.clone(),
            changing: self.changing.clone(),
            stop: self.stop.clone(),
            dice,
        }
    }

    /// Lets what is under way come to its end.
    pub async fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            let _ = task.await;
        }
    }
}

struct Part {
    client: Client,
    book: Arc<Mutex<Book>>,
    writing: Arc<AtomicU64>,
    changing: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    dice: Dice,
}

impl Part {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    async fn pause(&mut self, millis: u64) {
        tokio::time::sleep(Duration::from_millis(self.dice.below(millis))).await;
    }

    async fn write(mut self, writer: u64) {
        let mut turn = 0;
        while !self.stopped() {
            turn += 1;
            let path = format!("kv/load/w{writer}/s{}", turn % SLOTS);
            let number = {
                let mut book = open(&self.book);
                book.puts += 1;
                let number = book.puts;
                // Until it is answered it may or may not be there.
                book.secrets.entry(path.clone()).or_default().doubtful.push(number);
                number
            };
            let fields: Fields = [("value".to_owned(), Secret::new(value(&path, number)))].into();
            let put = {
                let _under = Under::way(&self.writing);
                self.client.put(&path, &fields, None).await
            };
            self.put_answered(&path, number, put);
            self.pause(4).await;
        }
    }

    fn put_answered(&self, path: &str, number: u64, put: Result<u64, Error>) {
        let mut book = open(&self.book);
        let known = book.secrets.entry(path.to_owned()).or_default();
        match put {
            Ok(version) => {
                known.acked = known.acked.max((version, number));
                known.doubtful.retain(|sent| *sent != number);
            }
            Err(error) if doubtful(&error) => {}
            Err(error) => {
                known.doubtful.retain(|sent| *sent != number);
                if !matches!(error, Error::Sealed(_) | Error::Exhausted(_)) {
                    book.odd.push(format!("put {path}: {error}"));
                }
            }
        }
    }

    fn issue_answered(&self, issued: Result<LeasedCredential, Error>) {
        let mut book = open(&self.book);
        match issued {
            Ok(made) => {
                let text = |name| {
                    made.field(name)
                        .and_then(|field| field.expose_str().map(str::to_owned))
                        .unwrap_or_default()
                };
                let credential = Credential {
                    account: text("username"),
                    password: text("password"),
                    fate: Fate::Live,
                };
                book.credentials
                    .insert(made.lease_id.clone().unwrap_or_default(), credential);
                book.issues += 1;
            }
            Err(error) if doubtful(&error) || matches!(error, Error::Sealed(_) | Error::Exhausted(_)) => {}
            Err(error) => book.odd.push(format!("issue: {error}")),
        }
    }

    async fn issue(mut self) {
        while !self.stopped() {
            let live = open(&self.book)
                .credentials
                .values()
                .filter(|credential| credential.fate == Fate::Live)
                .count();
            if live > LIVE_MAX {
                self.pause(40).await;
                continue;
            }
            let issued = {
                let _under = Under::way(&self.changing);
                self.client.issue("pg/readers", None).await
            };
            self.issue_answered(issued);
            self.pause(60).await;
        }
    }

    async fn revoke(mut self) {
        while !self.stopped() {
            let next = {
                let mut book = open(&self.book);
                let live: Vec<_> = book
                    .credentials
                    .iter()
                    .filter(|(_, c)| c.fate == Fate::Live)
                    .map(|(id, _)| id.clone())
                    .collect();
                let next = (live.len() > 2).then(|| self.dice.pick(&live).cloned()).flatten();
                if let Some(credential) = next.as_ref().and_then(|id| book.credentials.get_mut(id)) {
                    credential.fate = Fate::Doubtful;
                }
                next
            };
            if let Some(id) = next {
                self.revoke_one(&id).await;
            }
            self.pause(80).await;
        }
    }

    async fn revoke_one(&self, id: &str) {
        let request = v1::LeaseRevokeRequest {
            what: Some(v1::lease_revoke_request::What::Id(id.to_owned())),
            wait: true,
            ..Default::default()
        };
        let revoked = {
            let _under = Under::way(&self.changing);
            self.client
                .change(request, |s, r| async move { s.lease().revoke(r).await })
                .await
        };
        let mut book = open(&self.book);
        match revoked {
            Ok(answer) if answer.gone > 0 => {
                book.revokes += 1;
                if let Some(credential) = book.credentials.get_mut(id) {
                    credential.fate = Fate::Gone;
                }
            }
            Ok(_) => {}
            Err(error) if doubtful(&error) || matches!(error, Error::Sealed(_) | Error::Exhausted(_)) => {}
            Err(error) => book.odd.push(format!("revoke {id}: {error}")),
        }
    }
}
