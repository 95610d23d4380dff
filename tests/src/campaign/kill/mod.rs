//! kill -9 of the real daemon at chosen moments of a mixed load (writes, issues, revokes), and cuts of its database connections; also with a
//! CREATE ROLE stuck in the server, or delivered after the daemon died. Afterwards no acknowledged write may be lost, and no account may be
//! in the server that Strongroom does not know of. R-STORE-1, R-LEASE-2, R-LEASE-3, R-AUDIT-1, R-AUDIT-2.
//!
//! Reading order: `load`, `check`, this file; and `proxy` and `bench` beside it.

mod check;
mod load;

pub use check::{CLEANED_WITHIN, check, revoke};
pub use load::{Book, Fate as LeaseFate, Load, open, value};

use super::{
    Dice, Plan, Report, Steps, Tried,
    bench::Bench,
    copy_tree, doing,
    proxy::{Fate, Hold},
    report::say,
};
use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::{Duration, Instant},
};
use strongroom_client::Client;
use tokio::time::{sleep, timeout};

const METHOD: &str = "The real daemon, SoftHSM and PostgreSQL 15; kill -9 of the daemon while a proxy holds the statement in question (which is \
    then dropped, or delivered late), or while the server holds it on a lock; then start, unseal by two shares, compare.";
const STEPS: [&str; 8] = [
    "idle",
    "kv commit",
    "between intent and create",
    "in create, stuck in the server",
    "between create and activation",
    "in revoke",
    "in unseal",
    "database connections",
];
/// What is waited for comes within this time.
const PATIENCE: Duration = Duration::from_secs(30);
/// Kills beyond the plan, for steps that were not hit.
const EXTRA_KILLS_MAX: u64 = 24;
/// Attempts to be faster than an unseal.
const UNSEALS_MAX: usize = 5;
const STUCK: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE ROLE%' AND wait_event_type = 'Lock'";
const END_SESSIONS: &str =
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'strongroom/%'";

struct Campaign {
    bench: Bench,
    client: Client,
    book: Arc<Mutex<Book>>,
    dice: Dice,
    steps: Steps,
    kills: u64,
    cuts: u64,
    late: u64,
    cleaned: Duration,
    unsealed: Duration,
}

/// Runs the suite; whether it held.
pub async fn run(plan: Plan) -> Tried<bool> {
    let mut report = Report::of("kill", METHOD, plan);
    let bench = Bench::set().await?;
    let (client, wanted) = (bench.client().await?, plan.scale.pick(20, 200));
    let (book, dice, steps) = (Arc::default(), Dice::new(plan.seed), Steps::of(&STEPS));
    let zero = Duration::ZERO;
    let mut campaign = Campaign {
        bench,
        client,
        book,
        dice,
        steps,
        kills: 0,
        cuts: 0,
        late: 0,
        cleaned: zero,
        unsealed: zero,
    };
    let mut turn = 0;
    while campaign.kills < wanted || (!campaign.steps.missed().is_empty() && campaign.kills < wanted + EXTRA_KILLS_MAX)
    {
        let step = STEPS.get(turn % STEPS.len()).copied().unwrap_or("idle");
        let broken = campaign
            .round(step)
            .await
            .map_err(|error| doing(step)(format!("{error}\n{}", campaign.bench.tail())))?;
        broken
            .iter()
            .for_each(|words| report.broken(format_args!("{step} (kill {}): {words}", campaign.kills)));
        turn += 1;
    }
    let broken = campaign.control().await?;
    campaign.tell(&mut report);
    report.control(
        "a store put back to before the intent and the write, as if neither had been durable",
        broken,
        2,
    );
    Ok(report.end())
}

impl Campaign {
    fn tell(&self, report: &mut Report) {
        let book = open(&self.book);
        report.figure(format_args!(
            "{} kills of the daemon, {} cuts of its database connections",
            self.kills, self.cuts
        ));
        report.figure(format_args!(
            "{} writes of {} secrets, {} credentials issued and {} revoked, all acknowledged: none lost; {} statements were delivered after the kill",
            book.puts,
            book.secrets.len(),
            book.issues,
            book.revokes,
            self.late
        ));
        report.figure(format_args!(
            "accounts of nobody were gone within {:.1} s at most; the vault was open {:.1} s after its start at most",
            self.cleaned.as_secs_f32(),
            self.unsealed.as_secs_f32()
        ));
        report.figure(format_args!("{} records in the audit log", self.bench.records()));
        if let Some(first) = book.odd.first() {
            report.figure(format_args!(
                "answers that were refusals: {}, such as: {first}",
                book.odd.len()
            ));
        }
        report.steps("faults in", &self.steps);
    }

    async fn round(&mut self, step: &'static str) -> Tried<Vec<String>> {
        let began = Instant::now();
        let dice = self.dice.fork(self.kills + self.cuts);
        let load = Load::start(&self.client, self.book.clone(), &dice, true);
        sleep(Duration::from_millis(self.dice.between(100, 500))).await;
        let (mut load, mut broken) = (Some(load), Vec::new());
        let hit = match step {
            "idle" => self.idle(&mut load).await?,
            "kv commit" => self.commit(load.as_ref()).await?,
            "between intent and create" => self.held("CREATE ROLE \"sr_readers", Hold::Request).await?,
            "between create and activation" => self.held("CREATE ROLE \"sr_readers", Hold::Answer).await?,
            "in revoke" => self.held_in_revoke().await?,
            "in create, stuck in the server" => self.stuck().await?,
            "in unseal" => self.unsealing().await?,
            _ => self.connections().await?,
        };
        if hit {
            self.steps.hit(step);
        }
        if step != "database connections" {
            self.kills += 1;
            self.bench.kill();
            broken.extend(self.bench.evidence().map(|found| format!("audit log: {found}")));
            self.open().await?;
        }
        if let Some(load) = load {
            load.end().await;
        }
        let checked = check(&self.bench, &self.client, &self.book, &mut self.dice, CLEANED_WITHIN).await?;
        self.cleaned = self.cleaned.max(checked.cleaned);
        broken.extend(checked.broken);
        say(format_args!(
            "  {:3} {step}: {}hit, {:.1} s, cleaned in {:.1} s",
            self.kills,
            if hit { "" } else { "not " },
            began.elapsed().as_secs_f32(),
            checked.cleaned.as_secs_f32()
        ));
        Ok(broken)
    }

    async fn open(&mut self) -> Tried<()> {
        let began = Instant::now();
        self.bench.start()?;
        self.bench.unseal().await?;
        self.unsealed = self.unsealed.max(began.elapsed());
        Ok(())
    }

    async fn idle(&self, load: &mut Option<Load>) -> Tried<bool> {
        if let Some(load) = load.take() {
            load.end().await;
        }
        Ok(true)
    }

    /// As soon as a write is under way.
    async fn commit(&mut self, load: Option<&Load>) -> Tried<bool> {
        let Some(load) = load else { return Ok(false) };
        let until = Instant::now() + PATIENCE;
        while load.writing.load(Ordering::SeqCst) == 0 && Instant::now() < until {
            tokio::task::yield_now().await;
        }
        sleep(Duration::from_micros(self.dice.below(400))).await;
        let hit = load.writing.load(Ordering::SeqCst) > 0;
        self.bench.kill();
        Ok(hit)
    }

    /// While the proxy holds a statement, or its answer. Half of the statements reach the server after all, some time after the kill.
    async fn held(&mut self, pattern: &'static str, hold: Hold) -> Tried<bool> {
        let held = self.bench.proxy.arm(pattern, hold);
        let hit = timeout(PATIENCE, held.reached()).await.is_ok();
        self.bench.proxy.disarm();
        self.bench.kill();
        if hold == Hold::Request && hit && self.dice.chance(50) {
            self.late += 1;
            let after = Duration::from_millis(self.dice.below(4000));
            tokio::spawn(async move {
                sleep(after).await;
                held.release(Fate::Delivered);
                sleep(PATIENCE).await;
            });
        }
        Ok(hit)
    }

    async fn held_in_revoke(&mut self) -> Tried<bool> {
        let patterns = [" NOLOGIN", "DROP ROLE"];
        let pattern = self.dice.pick(&patterns).copied().unwrap_or("DROP ROLE");
        let hold = if self.dice.chance(50) {
            Hold::Request
        } else {
            Hold::Answer
        };
        self.held(pattern, hold).await
    }

    /// While the server itself has the statement, waiting for a lock. The lock goes some time after the daemon is back.
    async fn stuck(&mut self) -> Tried<bool> {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(self.bench.server.socket_dir())
            .port(self.bench.server.port())
            .user("postgres")
            .dbname("postgres");
        let (holder, connection) = config
            .connect(tokio_postgres::NoTls)
            .await
            .map_err(doing("the lock's session"))?;
        let driver = tokio::spawn(connection);
        holder
            .batch_execute("BEGIN; LOCK TABLE pg_authid IN SHARE ROW EXCLUSIVE MODE")
            .await
            .map_err(doing("the lock"))?;
        let until = Instant::now() + PATIENCE;
        let mut hit = false;
        while !hit && Instant::now() < until {
            hit = self.bench.server.admin("postgres", STUCK)?.trim() != "0";
        }
        self.bench.kill();
        let after = Duration::from_millis(self.dice.below(5000));
        tokio::spawn(async move {
            sleep(after).await;
            drop(holder.batch_execute("COMMIT").await);
            driver.abort();
        });
        Ok(hit)
    }

    /// Killed, started, and killed again before the vault is open.
    async fn unsealing(&mut self) -> Tried<bool> {
        for _ in 0..UNSEALS_MAX {
            self.bench.kill();
            self.kills += 1;
            self.bench.start()?;
            let wait = Duration::from_millis(self.dice.below(60));
            if timeout(wait, self.bench.unseal()).await.is_err() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The daemon lives on; its sessions are ended, or the server is stopped and started.
    async fn connections(&mut self) -> Tried<bool> {
        for _ in 0..3 {
            self.bench.server.admin("postgres", END_SESSIONS)?;
            self.cuts += 1;
            sleep(Duration::from_millis(self.dice.below(300))).await;
        }
        if self.dice.chance(50) {
            self.bench.server.stop()?;
            sleep(Duration::from_millis(self.dice.below(500))).await;
            self.bench.server.resume()?;
            self.cuts += 1;
        }
        Ok(true)
    }

    /// As if intent and write had not been durable: the data directory is put back to before them. How many of the two were noticed.
    async fn control(&mut self) -> Tried<u64> {
        let (data, before) = (self.bench.lab.data(), self.bench.lab.dir().join("before"));
        self.bench.stop();
        copy_tree(&data, &before)?;
        self.open().await?;
        let load = Load::start(&self.client, self.book.clone(), &self.dice, true);
        let held = self.bench.proxy.arm("CREATE ROLE \"sr_readers", Hold::Answer);
        let reached = timeout(PATIENCE, held.reached()).await.is_ok();
        self.bench.kill();
        std::fs::remove_dir_all(&data)?;
        std::fs::rename(&before, &data)?;
        self.open().await?;
        load.end().await;
        if !reached {
            return Err("the control did not come to its CREATE ROLE".into());
        }
        let book = Mutex::new(std::mem::take(&mut *open(&self.book)));
        let checked = check(&self.bench, &self.client, &book, &mut self.dice, Duration::from_secs(5)).await?;
        *open(&self.book) = book.into_inner().unwrap_or_default();
        let noticed = |word: &str| u64::from(checked.broken.iter().any(|words| words.contains(word)));
        Ok(noticed("untracked") + noticed("was acknowledged"))
    }
}
