//! An application's secrets: fetched once, then held fresh in memory by background tasks until they are closed or dropped.
//!
//! One stream tells of new versions and rotated passwords; each lease is renewed, and replaced by a new account when it cannot be renewed any
//! more; the token is renewed, and read again from its file when it has ended. While the daemon is away the last known values stay. What the
//! daemon refuses is set aside while the rest stays fresh, and is asked for again; it is dropped when the refusal lasts five minutes.

use crate::{
    cache::{Asked, Cache},
    call::{Client, waiting},
    connect::read_token,
    delivery::{Delivered, Event, Follow, Kind, WatchStream},
    error::{Error, Refusal},
    followed::{Followed, Refused},
    kept::{Keep, KeptLease, KeptToken, LeaseState, renew_after},
    login::{LogIn, TokenSource},
    want::Want,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{Mutex, watch},
    task::JoinSet,
    time::Instant,
};

/// Pauses between attempts at reaching the daemon; doubled, with jitter.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Between two log-ins.
const LOG_IN_PAUSE: Duration = Duration::from_secs(1);
/// A refusal does not pass by itself: looked at again this often at most.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);

/// Whether what is held is known to be the newest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// The stream is open: every change is heard of.
    Fresh,
    /// For some or all of it it is not, for this reason; the last known values are held, and the daemon is asked again and again.
    Stale(Error),
}

type Held = BTreeMap<String, Arc<Delivered>>;

struct Shared {
    client: Client,
    token: TokenSource,
    /// When the last log-in was, and how long its token lives: of several tasks that hear of its end one logs in.
    logged_in: Mutex<(Instant, Duration)>,
    /// Counts log-ins: what was leased before one ends with the session before.
    sessions: watch::Sender<u64>,
    /// What a bundle calls which path.
    names: BTreeMap<String, String>,
    held: RwLock<Held>,
    changes: watch::Sender<u64>,
    health: watch::Sender<Health>,
}

/// An application's secrets and credentials, by their paths. Cheap to read; dropping it stops the background work and leaves leases to their
/// expiry, [`close`](Secrets::close) revokes them.
pub struct Secrets {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets")
            .field("paths", &self.paths())
            .finish_non_exhaustive()
    }
}

impl Secrets {
    /// Holds what was fetched, or was known at a time and comes from the cache because of an error.
    pub(crate) fn hold(
        client: Client,
        (token, cache): (TokenSource, Option<Cache>),
        bundle: String,
        fetched: Vec<(Want, Delivered)>,
        stale: Option<(Error, SystemTime)>,
    ) -> Self {
        let (health, known) = match stale {
            Some((error, when)) => (Health::Stale(error), when),
            None => (Health::Fresh, SystemTime::now()),
        };
        let shared = Arc::new(Shared {
            names: fetched
                .iter()
                .map(|(_, one)| (one.name.clone(), one.path.clone()))
                .collect(),
            client,
            logged_in: Mutex::new((Instant::now(), token.life())),
            sessions: watch::Sender::new(0),
            token,
            held: RwLock::default(),
            changes: watch::Sender::new(0),
            health: watch::Sender::new(health),
        });
        let wants = fetched.iter().map(|(want, _)| want.clone()).collect();
        let (mut tasks, mut follows) = (JoinSet::new(), Vec::new());
        tasks.spawn(keep_token(Arc::clone(&shared)));
        for (want, delivered) in fetched {
            match &delivered.kind {
                Kind::Lease { .. } => drop(tasks.spawn(keep_lease(
                    Arc::clone(&shared),
                    want,
                    shared.client.keep_lease(&delivered, Keep::default()),
                ))),
                Kind::Secret { .. } | Kind::Account { .. } => follows.extend(want.follow(&delivered)),
            }
            shared.put(delivered);
        }
        if !follows.is_empty() {
            tasks.spawn(keep_watching(Arc::clone(&shared), follows));
        }
        if let Some(cache) = cache {
            let (held, told) = (
                Arc::clone(&shared),
                (shared.changes.subscribe(), shared.health.subscribe()),
            );
            tasks.spawn(cache.keep(told, known, Asked { wants, bundle }, move |path| held.get(path).ok()));
        }
        Self { shared, tasks }
    }

    /// The newest known value, by its path, or by its name in the bundle. Never waits.
    /// # Errors
    /// [`Error::NotFound`] for what was not asked for, was deleted since, or has been refused for five minutes.
    pub fn get(&self, path: &str) -> Result<Arc<Delivered>, Error> {
        self.shared.get(path)
    }

    /// What is held, in order.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.shared.read(|held| held.keys().cloned().collect())
    }

    /// A number that grows with every change of what is held.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Whether what is held is known to be the newest, and every change of that.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    /// The client, for other calls.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    /// Stops, and revokes what was leased. Leases that cannot be revoked now end at their expiry; how many were not proven gone is returned.
    pub async fn close(mut self) -> usize {
        self.tasks.shutdown().await;
        let leases: Vec<String> = self.shared.read(|held| {
            held.values()
                .filter_map(|one| one.lease_id().map(str::to_owned))
                .collect()
        });
        let mut left = 0;
        for lease in leases {
            match self.shared.client.revoke(&lease).await {
                Ok(true) => {}
                Ok(false) => left += 1,
                Err(error) => {
                    left += 1;
                    tracing::warn!(%error, "a lease could not be revoked; it ends at its expiry");
                }
            }
        }
        left
    }
}

impl Shared {
    fn read<R>(&self, look: impl FnOnce(&Held) -> R) -> R {
        look(&self.held.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn get(&self, path: &str) -> Result<Arc<Delivered>, Error> {
        let path = self.names.get(path).map_or(path, String::as_str);
        self.read(|held| held.get(path).cloned()).ok_or_else(|| {
            let words = format!("{path} is not held: it was not asked for, was deleted, or is refused now");
            Error::NotFound(Refusal::local("NOT_HELD", words))
        })
    }

    fn put(&self, delivered: Delivered) {
        let (path, delivered) = (delivered.path.clone(), Arc::new(delivered.locked()));
        self.held
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(path, delivered);
        self.changes.send_modify(|count| *count += 1);
    }

    fn remove(&self, path: &str) {
        let held = self.held.write().unwrap_or_else(PoisonError::into_inner).remove(path);
        if held.is_some() {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// After a failure: what can be done about it here, and how long to wait.
    async fn recover(&self, error: &Error, pause: &mut Duration) -> Duration {
        if matches!(error, Error::Unauthenticated(_)) {
            self.read_token_again().await;
        }
        let wait = waiting(*pause, error).unwrap_or(*pause);
        *pause = (*pause * 2).min(RETRY_MAX);
        match error {
            Error::Denied(_) | Error::Invalid(_) | Error::NotFound(_) => wait.max(REFUSED_PAUSE),
            _ => wait,
        }
    }

    async fn read_token_again(&self) {
        let renewed = match &self.token {
            TokenSource::Given => return,
            TokenSource::File(file) => read_token(file).await.and_then(|token| self.client.set_token(token)),
            TokenSource::LogIn(by, _) => self.log_in(by).await.map(drop),
        };
        match renewed {
            Ok(()) => tracing::debug!("there is a new token"),
            Err(error) => tracing::warn!(%error, "there is no new token yet"),
        }
    }

    async fn log_in(&self, by: &LogIn) -> Result<Duration, Error> {
        let mut last = self.logged_in.lock().await;
        // A first log-in that was not made yet has no life.
        if last.1.is_zero() || last.0.elapsed() >= LOG_IN_PAUSE {
            let life = self.client.log_in(by).await?;
            *last = (Instant::now(), life);
            self.sessions.send_modify(|count| *count += 1);
        }
        Ok(last.1)
    }
}

async fn keep_watching(shared: Arc<Shared>, follows: Vec<Follow>) {
    let mut followed = Followed {
        going: follows,
        aside: Vec::new(),
        token: Refused::default(),
    };
    let mut pause = RETRY_FIRST;
    loop {
        let Some(error) = follow_on(&shared, &mut followed, &mut pause).await else {
            // Those aside keep their clocks: they stand there until the daemon has delivered them.
            followed.take_in();
            continue;
        };
        tracing::info!(%error, "the stream of changes is down; the last known values are held");
        shared.health.send_replace(Health::Stale(error.clone()));
        if followed.failed(&error, Instant::now(), &mut |path| shared.remove(path)) {
            tokio::time::sleep(REFUSED_PAUSE).await;
            followed.take_in();
        } else {
            tokio::time::sleep(shared.recover(&error, &mut pause).await).await;
        }
    }
}

/// Follows what is going until the stream fails; `None`: it is time to ask again for what was set aside.
async fn follow_on(shared: &Shared, followed: &mut Followed, pause: &mut Duration) -> Option<Error> {
    let mut stream = match shared.client.watch(followed.going.clone()).await {
        Ok(stream) => stream,
        Err(error) => return Some(error),
    };
    followed.token = Refused::default();
    // The daemon tells at once of those that it still refuses.
    let mut before = std::mem::take(&mut followed.aside);
    shared.health.send_replace(Health::Fresh);
    let again = Instant::now() + REFUSED_PAUSE;
    let ended = loop {
        let (item, error) = tokio::select! {
            heard = hear(shared, &mut stream, pause) => match heard {
                Heard::Refused(item, error) => (item, error),
                Heard::Ended(error) => break Some(error),
            },
            () = tokio::time::sleep_until(again), if !followed.aside.is_empty() => break None,
        };
        let Some(follow) = stream.items().get(item).cloned() else {
            continue;
        };
        tracing::warn!(path = follow.path_asked(), %error, "refused; the last known value is held for a while");
        let known = |(other, _): &mut (Follow, Refused)| other.path_asked() == follow.path_asked();
        followed.aside.extend(before.extract_if(.., known));
        followed.set_aside(follow, &error, Instant::now(), &mut |path| shared.remove(path));
        shared.health.send_replace(Health::Stale(error));
    };
    let aside = &followed.aside;
    let goes_on = |follow: &&Follow| aside.iter().all(|(other, _)| other.path_asked() != follow.path_asked());
    followed.going = stream.items().iter().filter(goes_on).cloned().collect();
    ended
}

/// What a stream says that is not a value.
enum Heard {
    /// One is refused.
    Refused(usize, Error),
    /// It has ended.
    Ended(Error),
}

/// Takes in what comes, until something else is heard.
async fn hear(shared: &Shared, stream: &mut WatchStream, pause: &mut Duration) -> Heard {
    loop {
        match stream.next().await {
            Ok(Event::Changed(_, delivered)) => {
                tracing::info!(path = delivered.path, "changed");
                shared.put(delivered);
            }
            Ok(Event::Gone(_, path)) => {
                tracing::warn!(path, "deleted: it is not held any more");
                shared.remove(&path);
            }
            Ok(Event::Lease { .. }) => {}
            Ok(Event::Refused { item, error, .. }) => return Heard::Refused(item, error),
            Err(error) => return Heard::Ended(error),
        }
        *pause = RETRY_FIRST;
    }
}

/// Renewed as long as that is possible; then another account takes its place, before this one ends.
async fn keep_lease(shared: Arc<Shared>, want: Want, mut lease: Option<KeptLease>) {
    let (mut pause, mut refused) = (RETRY_FIRST, Refused::default());
    loop {
        if let Some(lease) = &lease {
            let (mut state, mut sessions) = (lease.state(), shared.sessions.subscribe());
            // An error means that its keeper has ended. With a new session the account of the one before is replaced while it lives.
            tokio::select! {
                _ = state.wait_for(|state| matches!(state, LeaseState::Final { .. } | LeaseState::Ended)) => {}
                _ = sessions.changed() => {}
            }
        }
        match shared
            .client
            .fetch([want.clone()])
            .await
            .map(|mut fetched| fetched.pop())
        {
            Ok(Some(delivered)) => {
                tracing::info!(path = delivered.path, "a new account takes over");
                (pause, refused) = (RETRY_FIRST, Refused::default());
                lease = shared.client.keep_lease(&delivered, Keep::default());
                shared.put(delivered);
            }
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(path = want.path, %error, "no new account yet");
                if refused.hear(&error, Instant::now()) {
                    shared.remove(&want.path);
                }
                tokio::time::sleep(shared.recover(&error, &mut pause).await).await;
            }
        }
    }
}

/// A token that cannot be renewed (a set-up token, one that is refused) is used as it is.
async fn keep_token(shared: Arc<Shared>) {
    let mut pause = RETRY_FIRST;
    if let TokenSource::LogIn(by, life) = &shared.token {
        return keep_logged_in(&shared, by, *life).await;
    }
    loop {
        let kept: Result<KeptToken, Error> = shared.client.keep_token(None).await;
        match kept {
            Ok(token) => {
                pause = RETRY_FIRST;
                let mut state = token.state();
                // An error means that its keeper has ended.
                let _ = state.wait_for(|state| *state == LeaseState::Ended).await;
                shared.read_token_again().await;
            }
            Err(error) => {
                let wait = shared.recover(&error, &mut pause).await;
                tracing::debug!(%error, "the token was not renewed");
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// Well before a token ends there is another, so that what hangs on its session can be replaced in time.
async fn keep_logged_in(shared: &Shared, by: &LogIn, life: Duration) {
    let (mut life, mut pause) = (life, RETRY_FIRST);
    loop {
        tokio::time::sleep(renew_after(life)).await;
        match shared.log_in(by).await {
            Ok(new) => (life, pause) = (new, RETRY_FIRST),
            Err(error) => {
                tracing::warn!(%error, "there is no new token yet");
                (life, pause) = (Duration::ZERO, (pause * 2).min(RETRY_MAX));
                tokio::time::sleep(waiting(pause, &error).unwrap_or(pause)).await;
            }
        }
    }
}
