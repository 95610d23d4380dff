//! The load: writers, readers, fetchers, a follower of the stream, pipelines that log in, a renewer of leases. Who issues and revokes is the
//! load of `kill`. Every answer goes to the model.

use super::model::Model;
use crate::{
    campaign::{
        Dice, Tried,
        bench::Bench,
        doing,
        kill::{Book, LeaseFate, open, value},
    },
    issuer::Issuer,
};
use serde_json::json;
use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use strongroom_client::{Client, Error, Event, Fields, Follow, Kind, Secret, v1};
use tokio::{
    sync::{RwLock, watch},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

/// Writers of secrets that nobody follows, and secrets of each.
const WRITERS: u64 = 2;
const SLOTS: u64 = 8;
const READERS: u64 = 3;
const FETCHERS: u64 = 1;
/// Whoever keeps pace.
const PACED: u64 = WRITERS + READERS + FETCHERS;
/// Secrets that the stream follows; their writer goes on only when the stream has told of a version.
const FOLLOWED: u64 = 4;
/// The stream tells of a version within this time, faults included.
const TOLD_WITHIN: Duration = Duration::from_secs(60);
/// Every n-th write asks for a version that is not current.
const STALE_EVERY: u64 = 16;
const LOG_IN_EVERY: Duration = Duration::from_millis(400);
const RENEW_EVERY: Duration = Duration::from_millis(700);
/// Tokens of the issuer that are tried a second time.
const USED_KEPT: usize = 16;
const CALL: Duration = Duration::from_secs(4);

/// What the parts of the load share.
pub struct Ground {
    pub model: Mutex<Model>,
    pub book: Arc<Mutex<Book>>,
    /// Calls hold it shared; whoever wants silence takes it for itself.
    pub quiet: RwLock<()>,
    /// Time between two calls of one worker.
    pace_micros: AtomicU64,
    calls: AtomicU64,
    stop: AtomicBool,
    client: Client,
    issuer: Issuer,
    /// Through the network's proxy.
    address: String,
    ca: PathBuf,
    /// How often the stream broke.
    pub breaks: AtomicU64,
    ending: watch::Sender<bool>,
}

/// The load while it runs.
pub struct Running {
    pub ground: Arc<Ground>,
    tasks: Vec<JoinHandle<()>>,
}

pub fn paths() -> Vec<String> {
    let plain = (0..WRITERS).flat_map(|writer| (0..SLOTS).map(move |slot| format!("kv/soak/w{writer}/s{slot}")));
    plain.chain(followed()).collect()
}

pub fn followed() -> Vec<String> {
    (0..FOLLOWED).map(|slot| format!("kv/soak/followed/s{slot}")).collect()
}

fn fields(path: &str, number: u64) -> Fields {
    [("value".to_owned(), Secret::new(value(path, number)))].into()
}

impl Running {
    /// Trusts the issuer, writes every secret once, starts all parts without pauses.
    pub async fn start(bench: &Bench, port: u16, dice: &Dice) -> Tried<Self> {
        let issuer = Issuer::new("soak");
        let put = v1::TrustPutRequest {
            name: "soak".into(),
            definition: issuer.trust(&["campaign"]).to_string(),
            ..Default::default()
        };
        let near = bench.client().await?;
        near.change(put, |s, r| async move { s.trust().put(r).await })
            .await
            .map_err(doing("trust"))?;
        let ground = Arc::new(Ground {
            model: Mutex::default(),
            book: Arc::default(),
            quiet: RwLock::new(()),
            pace_micros: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            client: bench.client_over(port, Some(&bench.token)).await?,
            issuer,
            address: format!("https://localhost:{port}"),
            ca: bench.lab.ca(),
            breaks: AtomicU64::new(0),
            ending: watch::Sender::new(false),
        });
        for path in paths() {
            ground.write(&path).await;
        }
        let mut tasks = Vec::new();
        for writer in 0..WRITERS {
            tasks.push(tokio::spawn(ground.clone().writes(writer, dice.fork(writer))));
        }
        for reader in 0..READERS {
            tasks.push(tokio::spawn(ground.clone().reads(dice.fork(20 + reader))));
        }
        for fetcher in 0..FETCHERS {
            tasks.push(tokio::spawn(ground.clone().fetches(dice.fork(40 + fetcher))));
        }
        tasks.push(tokio::spawn(ground.clone().writes_followed()));
        tasks.push(tokio::spawn(ground.clone().follows()));
        tasks.push(tokio::spawn(ground.clone().logs_in(dice.fork(60))));
        tasks.push(tokio::spawn(ground.clone().renews(dice.fork(61))));
        Ok(Self { ground, tasks })
    }

    /// Lets everybody come to the end of what it does.
    pub async fn end(self) -> Arc<Ground> {
        self.ground.stop.store(true, Ordering::SeqCst);
        self.ground.ending.send_replace(true);
        for task in self.tasks {
            let _ = task.await;
        }
        self.ground
    }
}

impl Ground {
    pub fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Measures for `during` what the workers do without pauses, then lets them do half of it. Calls a second, all and half.
    pub async fn half(&self, during: Duration) -> (u64, u64) {
        let before = self.calls.load(Ordering::SeqCst);
        sleep(during).await;
        let calls = self.calls.load(Ordering::SeqCst) - before;
        let all = (calls * 1000 / u64::try_from(during.as_millis()).unwrap_or(u64::MAX).max(1)).max(1);
        let half = (all / 2).max(1);
        self.pace_micros.store(PACED * 1_000_000 / half, Ordering::SeqCst);
        (all, half)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Waits for the next turn; a worker that is late does not make up for it.
    async fn turn(&self, next: &mut Instant, dice: &mut Dice) {
        let pace = self.pace_micros.load(Ordering::SeqCst);
        // Between a half and one and a half, so that workers do not keep step.
        let pause = Duration::from_micros(pace / 2 + dice.below(pace));
        *next = (*next + pause).max(Instant::now());
        sleep_until(*next).await;
        self.calls.fetch_add(1, Ordering::SeqCst);
    }

    /// One read, judged.
    pub async fn read(&self, client: &Client, path: &str) -> bool {
        let floor = self.model().newest(path);
        match client.get(path).await {
            Ok(found) => {
                let bytes = found.field("value").map(Secret::expose).unwrap_or_default();
                self.model().read("reads", path, floor, found.version, bytes);
                true
            }
            Err(error) => !self.model().refusal(&format!("get {path}"), &error),
        }
    }

    /// One write, judged. After a conflict the secret is read, for a write in doubt must be the reason.
    async fn write(&self, path: &str) {
        let (number, current) = self.model().send(path);
        match self.client.put(path, &fields(path, number), Some(current)).await {
            Ok(version) => self.model().made(path, version, number),
            Err(Error::Conflict(_)) => {
                while !self.read(&self.client, path).await && !self.stopped() {
                    sleep(Duration::from_millis(50)).await;
                }
                let mut model = self.model();
                if model.newest(path) == current && !self.stopped() {
                    model.wrong(format!(
                        "put {path}: version {current} is current, and the write was refused as if not"
                    ));
                }
            }
            Err(error) => {
                let mut model = self.model();
                if model.refusal(&format!("put {path}"), &error) && !matches!(error, Error::Indeterminate(_)) {
                    model.unsent(path, number);
                }
            }
        }
    }

    /// A write that asks for a version which is not current must not be made.
    async fn write_stale(&self, path: &str) {
        let put = self.client.put(path, &fields(path, 0), Some(0)).await;
        let mut model = self.model();
        match put {
            Err(Error::Conflict(_)) => model.count("writes refused by check-and-set"),
            Ok(version) => model.wrong(format!("put {path}: made as version {version} against check-and-set")),
            Err(error) => drop(model.refusal("put", &error)),
        }
    }

    async fn writes(self: Arc<Self>, writer: u64, mut dice: Dice) {
        let (mut next, mut turn) = (Instant::now(), 0);
        while !self.stopped() {
            self.turn(&mut next, &mut dice).await;
            let _under_way = self.quiet.read().await;
            turn += 1;
            let path = format!("kv/soak/w{writer}/s{}", turn % SLOTS);
            if turn % STALE_EVERY == 0 {
                self.write_stale(&path).await;
            } else {
                self.write(&path).await;
            }
        }
    }

    async fn writes_followed(self: Arc<Self>) {
        let paths = followed();
        for path in &paths {
            self.all_told(path).await;
        }
        let mut turn = 0;
        while !self.stopped() {
            turn = (turn + 1) % paths.len();
            let Some(path) = paths.get(turn) else { return };
            {
                let _under_way = self.quiet.read().await;
                self.write(path).await;
            }
            if !self.all_told(path).await && !self.stopped() {
                let untold = self.model().untold(path);
                self.model().wrong(format!("watch: {path}: not told of {untold:?}"));
            }
            sleep(Duration::from_millis(30)).await;
        }
    }

    /// Whether the stream tells of every version within its time.
    pub async fn all_told(&self, path: &str) -> bool {
        let until = Instant::now() + TOLD_WITHIN;
        while Instant::now() < until && !self.stopped() {
            if self.model().untold(path).is_empty() {
                return true;
            }
            sleep(Duration::from_millis(10)).await;
        }
        self.model().untold(path).is_empty()
    }

    async fn reads(self: Arc<Self>, mut dice: Dice) {
        let (paths, mut next) = (paths(), Instant::now());
        while !self.stopped() {
            self.turn(&mut next, &mut dice).await;
            let _under_way = self.quiet.read().await;
            if let Some(path) = dice.pick(&paths) {
                self.read(&self.client, path).await;
            }
        }
    }

    async fn fetches(self: Arc<Self>, mut dice: Dice) {
        let (paths, mut next) = (paths(), Instant::now());
        while !self.stopped() {
            self.turn(&mut next, &mut dice).await;
            let _under_way = self.quiet.read().await;
            let wants: Vec<_> = (0..3).filter_map(|_| dice.pick(&paths).cloned()).collect();
            let floors: Vec<_> = wants.iter().map(|path| self.model().newest(path)).collect();
            let fetched = self.client.fetch(wants.clone()).await;
            let mut model = self.model();
            match fetched {
                Ok(all) if all.len() == wants.len() => {
                    for ((path, floor), item) in wants.iter().zip(floors).zip(&all) {
                        let bytes = item.field("value").map(Secret::expose).unwrap_or_default();
                        model.read("fetched", path, floor, version(&item.kind), bytes);
                    }
                }
                Ok(all) => model.wrong(format!("fetch: {} of {} came", all.len(), wants.len())),
                Err(error) => drop(model.refusal("fetch", &error)),
            }
        }
    }

    /// Follows the stream, and takes it up where it broke.
    async fn follows(self: Arc<Self>) {
        let paths = followed();
        let mut items: Vec<_> = paths.iter().map(Follow::path).collect();
        let mut last = vec![0; paths.len()];
        let mut ending = self.ending.subscribe();
        while !self.stopped() {
            let mut stream = match self.client.watch(items.clone()).await {
                Ok(stream) => stream,
                Err(error) => {
                    self.model().refusal("watch", &error);
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            loop {
                let event = tokio::select! {
                    event = stream.next() => event,
                    _ = ending.wait_for(|ending| *ending) => return,
                };
                match event {
                    Ok(Event::Changed(item, changed)) => {
                        let bytes = changed.field("value").map(Secret::expose).unwrap_or_default();
                        if let (Some(path), Some(last)) = (paths.get(item), last.get_mut(item)) {
                            let version = version(&changed.kind);
                            self.model().told(path, *last, version, bytes);
                            *last = version;
                        }
                    }
                    Ok(other) => self.model().wrong(format!("watch: {other:?}")),
                    Err(error) => {
                        self.model().refusal("watch", &error);
                        break;
                    }
                }
            }
            self.breaks.fetch_add(1, Ordering::SeqCst);
            items = stream.items().to_vec();
        }
    }

    /// Jobs that log in by the issuer's token, read one secret, and leave; what was used is tried again.
    async fn logs_in(self: Arc<Self>, mut dice: Dice) {
        let (paths, mut used, mut number) = (paths(), VecDeque::new(), 0_u64);
        while !self.stopped() {
            sleep(LOG_IN_EVERY).await;
            let _under_way = self.quiet.read().await;
            number += 1;
            let jwt = self.issuer.token(&format!("job-{number}"), json!({}));
            match self.log_in(&jwt).await {
                Ok(token) => {
                    self.model().count("log-ins");
                    used.push_back(jwt);
                    if used.len() > USED_KEPT {
                        used.pop_front();
                    }
                    if let (Some(path), Ok(job)) = (dice.pick(&paths), self.connect(&token).await) {
                        self.read(&job, path).await;
                    }
                }
                Err(error) => drop(self.model().refusal("log-in", &error)),
            }
            let again = used.get(usize::try_from(dice.below(used.len() as u64)).unwrap_or_default());
            if let Some(again) = again.filter(|_| dice.chance(30)) {
                let answer = self.log_in(again).await;
                let mut model = self.model();
                match answer {
                    Ok(_) => model.wrong("log-in: a token of the issuer was good twice".into()),
                    Err(error) if error.reason() == Some("LOGIN_REFUSED") => model.count("replayed log-ins refused"),
                    Err(error) => drop(model.refusal("log-in again", &error)),
                }
            }
        }
    }

    async fn connect(&self, token: &str) -> Result<Client, Error> {
        let builder = Client::builder().address(self.address.clone()).ca_file(self.ca.clone());
        builder.token(token).timeout(CALL).connect().await
    }

    async fn log_in(&self, jwt: &str) -> Result<String, Error> {
        let request = v1::LoginRequest {
            proof: Some(v1::login_request::Proof::Jwt(jwt.to_owned())),
            ..Default::default()
        };
        let answer = self
            .client
            .once(request, |s, r| async move { s.login().login(r).await })
            .await?;
        Ok(answer.token)
    }

    async fn renews(self: Arc<Self>, mut dice: Dice) {
        while !self.stopped() {
            sleep(RENEW_EVERY).await;
            let _under_way = self.quiet.read().await;
            let live = |id: &String| {
                open(&self.book)
                    .credentials
                    .get(id)
                    .is_some_and(|credential| credential.fate == LeaseFate::Live)
            };
            let ids: Vec<_> = open(&self.book).credentials.keys().cloned().collect();
            let ids: Vec<_> = ids.into_iter().filter(live).collect();
            let Some(id) = dice.pick(&ids) else { continue };
            let renewed = self.client.renew(id, None).await;
            let mut model = self.model();
            match renewed {
                Ok((left, _)) if !left.is_zero() => model.count("renewals"),
                Ok(_) => model.wrong(format!("renew {id}: without life")),
                // It was revoked meanwhile.
                Err(error) if !Model::explained(&error) && !live(id) => {}
                Err(error) => drop(model.refusal("renew", &error)),
            }
        }
    }
}

fn version(kind: &Kind) -> u64 {
    match kind {
        Kind::Secret { version, .. } => *version,
        Kind::Lease { .. } | Kind::Account { .. } => 0,
    }
}
