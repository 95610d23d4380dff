//! Everything at once, for long: a mixed load at about half of what the machine does (reads and writes with check-and-set, fetches, a stream
//! that is followed, credentials issued, renewed and revoked, log-ins by an issuer's token), and one fault after another. No answer may be
//! wrong, no alarm unexplained, nothing may grow, nothing may be left behind. R-STORE-1, R-KV-3, R-KV-4, R-LEASE-2, R-AUTH-2, R-AUDIT-2.
//!
//! Two parts: in the first third the daemon is killed in every second round; in the rest it lives through all other faults, and what it holds
//! is measured. After each round the load is silent, and all is compared.
//!
//! Reading order: `model`, `load`, `alarms`, `gauge`, `faults`, this file.

mod alarms;
mod faults;
mod gauge;
mod load;
mod model;

use super::{
    Dice, Plan, Report, Steps, Tried,
    bench::{Bench, until},
    doing,
    kill::{Book, CLEANED_WITHIN, LeaseFate, Load, check, open, revoke},
    proxy::Proxy,
    report::say,
};
use alarms::Alarms;
use gauge::{Gauge, Growth};
use load::{Ground, Running, followed, paths};
use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::{Duration, Instant},
};
use strongroom_client::{Client, v1};
use tokio::time::sleep;

const METHOD: &str = "The real daemon, SoftHSM and PostgreSQL 15, all clients over TLS through a proxy, the database behind another; a fault in \
    every round, then silence, in which secrets, leases, accounts, the stream, the daemon's log, its memory and its files are compared.";
const CALM: &str = "none (calm)";
const KILLS: [&str; 2] = ["kill -9", "kill -9 while it unseals"];
/// Faults that the daemon lives through.
const LIVED: [&str; 8] = [
    CALM,
    "seal and unseal",
    "static rotation",
    "root rotation",
    "clients cut off",
    "clients' network slow",
    "database cut off",
    "database slow",
];
/// Broken invariants that are printed at once.
const SHOWN_MAX: usize = 30;
const PATIENCE: Duration = Duration::from_secs(30);
/// The whole length.
const SHORT: Duration = Duration::from_secs(120);
const WHOLE: Duration = Duration::from_secs(1800);

struct Campaign {
    bench: Bench,
    net: Proxy,
    ground: Arc<Ground>,
    /// Past the proxy.
    near: Client,
    dice: Dice,
    steps: Steps,
    alarms: Alarms,
    rounds: u64,
    gauges: Vec<Gauge>,
    broken: Vec<String>,
    cleaned: Duration,
    /// Revocations that were made, their answer lost, and found nothing when they were repeated.
    gone_before: usize,
}

/// Runs the suite; whether it held.
pub async fn run(plan: Plan) -> Tried<bool> {
    let mut report = Report::of("soak", METHOD, plan);
    let (mut campaign, running) = Campaign::set(plan).await?;
    let (all, half) = campaign
        .ground
        .half(plan.scale.pick(Duration::from_secs(2), Duration::from_secs(10)))
        .await;
    report.figure(format_args!(
        "{all} calls a second without pauses; the load made {half} a second, and log-ins, renewals, issues and revocations beside"
    ));
    campaign.rounds(plan).await?;
    running.end().await;
    campaign.finish().await?;
    campaign.tell(&mut report);
    campaign.controls(&mut report).await?;
    report.steps("rounds by fault", &campaign.steps);
    campaign.bench.stop();
    if let Some(found) = campaign.bench.evidence() {
        report.broken(format_args!("audit log: {found}"));
    }
    report.figure(format_args!(
        "{} records in the audit log, whole",
        campaign.bench.records()
    ));
    Ok(report.end())
}

impl Campaign {
    async fn set(plan: Plan) -> Tried<(Self, Running)> {
        let bench = Bench::set().await?;
        let net = Proxy::start(bench.lab.address.port()).await?;
        let (near, dice) = (bench.client().await?, Dice::new(plan.seed));
        let running = Running::start(&bench, net.port, &dice.fork(1)).await?;
        let mut campaign = Self {
            net,
            ground: running.ground.clone(),
            near,
            dice: dice.fork(2),
            steps: Steps::of(&[KILLS.as_slice(), LIVED.as_slice()].concat()),
            alarms: Alarms::of(bench.lab.dir().join("daemon.log")),
            bench,
            rounds: 0,
            gauges: Vec::new(),
            broken: Vec::new(),
            cleaned: Duration::ZERO,
            gone_before: 0,
        };
        // A new role's account has no password yet.
        campaign.rotate_static().await?;
        Ok((campaign, running))
    }

    async fn rounds(&mut self, plan: Plan) -> Tried<()> {
        let began = Instant::now();
        let of_scale = plan.scale.pick(SHORT, WHOLE);
        let length = plan
            .minutes
            .map_or(of_scale, |minutes| Duration::from_secs(60 * minutes));
        let with_kills = length / 3;
        let load_for = plan.scale.pick(Duration::from_secs(2), Duration::from_secs(12));
        let mut turn = 0;
        while began.elapsed() < with_kills || turn < 2 * KILLS.len() {
            let lived = LIVED.get(turn / 2 % LIVED.len()).copied().unwrap_or(CALM);
            let kill = KILLS.get(turn / 2 % KILLS.len()).copied().unwrap_or(lived);
            self.round(if turn % 2 == 0 { kill } else { lived }, load_for).await?;
            turn += 1;
        }
        turn = 0;
        while began.elapsed() < length || turn < LIVED.len() {
            let lived = LIVED.get(turn % LIVED.len()).copied().unwrap_or(CALM);
            self.round(lived, load_for).await?;
            if let Some(pid) = self.bench.pid() {
                self.gauges.push(Gauge::of(pid)?);
            }
            turn += 1;
        }
        Ok(())
    }

    /// Load, a fault in its midst, silence, comparison.
    async fn round(&mut self, fault: &'static str, load_for: Duration) -> Tried<()> {
        let (began, refused) = (Instant::now(), self.ground.model().refusals());
        self.rounds += 1;
        let dice = self.dice.fork(self.rounds);
        let leases = Load::of_leases(self.ground.client(), self.ground.book.clone(), &dice);
        sleep(load_for / 2).await;
        let hit = self
            .play(fault)
            .await
            .map_err(|error| doing(fault)(format!("{error}\n{}", self.bench.tail())))?;
        if hit {
            self.steps.hit(fault);
        }
        sleep(load_for / 2).await;
        leases.end().await;
        let mut broken = self.compare(fault).await?;
        let refused = self.ground.model().refusals() - refused;
        if fault == CALM && refused > 0 {
            broken.push(format!(
                "{refused} calls were refused without a fault: {:?}",
                self.ground.model().refused
            ));
        }
        say(format_args!(
            "  {:3} {fault}: {}hit, {:.1} s, {refused} calls refused{}",
            self.rounds,
            if hit { "" } else { "not " },
            began.elapsed().as_secs_f32(),
            if broken.is_empty() { "" } else { ", BROKEN" }
        ));
        for words in broken {
            if self.broken.len() < SHOWN_MAX {
                say(format_args!("  BROKEN: {words}"));
            }
            self.broken.push(format!("{fault} (round {}): {words}", self.rounds));
        }
        Ok(())
    }

    /// In silence.
    async fn compare(&mut self, fault: &'static str) -> Tried<Vec<String>> {
        let ground = self.ground.clone();
        let _silence = ground.quiet.write().await;
        let checked = check(&self.bench, &self.near, &ground.book, &mut self.dice, CLEANED_WITHIN).await?;
        self.cleaned = self.cleaned.max(checked.cleaned);
        let mut broken = checked.broken;
        broken.extend(self.secrets().await?);
        let odd = std::mem::take(&mut open(&ground.book).odd);
        let (gone, odd): (Vec<_>, Vec<_>) = {
            let book = open(&ground.book);
            odd.into_iter().partition(|words| is_gone_already(words, &book))
        };
        self.gone_before += gone.len();
        broken.extend(odd);
        broken.append(&mut ground.model().wrong);
        let unexplained = self.alarms.unexplained(&[fault])?;
        broken.extend(unexplained.into_iter().map(|line| format!("unexplained alarm: {line}")));
        Ok(broken)
    }

    /// Every secret is read, and the stream must have told of every version.
    async fn secrets(&self) -> Tried<Vec<String>> {
        let mut broken = Vec::new();
        for path in paths() {
            let read = || async { Ok(self.ground.read(&self.near, &path).await) };
            if !until(PATIENCE, read, |read| *read).await? {
                broken.push(format!("{path}: cannot be read in silence"));
            }
        }
        for path in followed() {
            if !self.ground.all_told(&path).await {
                broken.push(format!(
                    "watch: {path}: not told of {:?}",
                    self.ground.model().untold(&path)
                ));
            }
        }
        Ok(broken)
    }

    /// All credentials are given back; nothing may be left, here or there.
    async fn finish(&mut self) -> Tried<()> {
        for lease in self.bench.leases(&self.near).await? {
            revoke(&self.near, &lease.id)
                .await
                .map_err(doing("the last revocations"))?;
        }
        let left = until(
            PATIENCE,
            || async { Ok((self.bench.accounts()?, self.bench.leases(&self.near).await?)) },
            |left| left.0.is_empty() && left.1.is_empty(),
        )
        .await?;
        if !left.0.is_empty() || !left.1.is_empty() {
            self.broken.push(format!("left at the end: {left:?}"));
        }
        let ask = v1::MountReconcileRequest {
            path: "pg".into(),
            ..Default::default()
        };
        let found = self
            .near
            .with_timeout(PATIENCE)
            .change(ask, |s, r| async move { s.mount().reconcile(r).await })
            .await
            .map_err(doing("reconcile"))?;
        if found.stray_count + found.missing_count > 0 || !found.foreign.is_empty() {
            self.broken.push(format!("reconcile: {found:?}"));
        }
        let late = self.alarms.unexplained(&[])?;
        self.broken
            .extend(late.into_iter().map(|line| format!("unexplained alarm: {line}")));
        Ok(())
    }

    fn tell(&mut self, report: &mut Report) {
        self.broken.iter().for_each(|words| report.broken(words));
        let (model, book) = (self.ground.model(), open(&self.ground.book));
        let right: Vec<_> = model
            .right
            .iter()
            .map(|(what, count)| format!("{count} {what}"))
            .collect();
        report.figure(format_args!(
            "{}, {} credentials issued and {} revoked: {} wrong",
            right.join(", "),
            book.issues,
            book.revokes,
            self.broken.len()
        ));
        let words = |of: &std::collections::BTreeMap<&'static str, u64>| {
            of.iter()
                .map(|(what, count)| format!("{what} {count}"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        report.figure(format_args!(
            "calls that faults refused: {}; {} writes were read before their answer came, or without one; {} revocations without an answer had been made; the stream broke {} times",
            words(&model.refused),
            model.seen_early,
            self.gone_before,
            self.ground.breaks.load(Ordering::SeqCst)
        ));
        report.figure(format_args!(
            "accounts of nobody were gone within {:.1} s at most",
            self.cleaned.as_secs_f32()
        ));
        report.figure(format_args!(
            "alarms that their faults explain: {} {}",
            self.alarms.explained.values().sum::<u64>(),
            words(&self.alarms.explained)
        ));
        match Growth::of(&self.gauges) {
            Some(growth) => {
                report.figure(format_args!(
                    "one life, {} measurements: {}",
                    self.gauges.len(),
                    growth.words()
                ));
                growth.broken().into_iter().for_each(|words| report.broken(words));
            }
            None => report.broken("too few measurements of memory"),
        }
    }

    /// Each must be noticed.
    async fn controls(&mut self, report: &mut Report) -> Tried<()> {
        let (path, untold) = (paths().swap_remove(0), followed().swap_remove(0));
        for path in [&path, &untold] {
            let mut model = self.ground.model();
            let (number, current) = model.send(path);
            model.made(path, current + 1, number);
        }
        self.ground.read(&self.near, &path).await;
        let wrong = std::mem::take(&mut self.ground.model().wrong).len() as u64;
        report.control("the model is told of a write that was not made", wrong, 1);
        let missing = self.ground.model().untold(&untold).len() as u64;
        report.control("a version that the stream did not tell of", missing, 1);
        self.bench.server.admin("postgres", "CREATE ROLE sr_readers_nobody")?;
        let book = Mutex::new(Book::default());
        let checked = check(&self.bench, &self.near, &book, &mut self.dice, Duration::from_secs(2)).await?;
        let found = checked
            .broken
            .iter()
            .filter(|words| words.contains("untracked"))
            .count() as u64;
        self.bench.server.admin("postgres", "DROP ROLE sr_readers_nobody")?;
        report.control("an account made past Strongroom", found, 1);
        report.control("alarms without their faults", self.alarms.control(), 1);
        report.control("a life that leaks", gauge::control(self.gauges.len()), 1);
        Ok(())
    }
}

/// A revocation whose first answer was lost, and whose repetition found nothing to revoke: right if the lease is gone, as the comparison has
/// just found out.
fn is_gone_already(odd: &str, book: &Book) -> bool {
    let refused = odd.contains(": denied: ") || odd.contains(": not found: ");
    let id = odd.strip_prefix("revoke ").and_then(|rest| rest.get(..32));
    let credential = id.and_then(|id| book.credentials.get(id));
    refused && credential.is_some_and(|credential| credential.fate == LeaseFate::Gone)
}
