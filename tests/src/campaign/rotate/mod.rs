//! Rotation under a working client. A static account's password is set anew many times while a client keeps opening connections with what it
//! was given, and the daemon is killed at chosen steps; then the engine's own log-in rotates, with leases that its predecessors made.
//! R-ROT-1, R-ROT-3, R-LEASE-3.
//!
//! The rule that a client lives by, exactly: *log in with what you have; if the password is refused, read it again (waiting until the daemon
//! answers) and log in with that.* Between the server's taking a new password and the answer to that read lies the only instant in which a
//! single account can refuse its client. A fresh read whose password is refused as well is a failure, unless the next read shows that another
//! rotation fell in between.

mod client;
pub mod root;

use super::{
    Dice, Plan, Report, Steps, Tried,
    bench::{Bench, CALL},
    doing,
    proxy::{Fate, Hold},
    report::say,
};
use client::Worker;
pub use client::read;
use std::time::Duration;
use strongroom_client::{Client, v1};
use tokio::time::{sleep, timeout};

const METHOD: &str = "The real daemon, SoftHSM and PostgreSQL 15; a client logs in without pause and reads the password again only when it is \
    refused; kill -9 of the daemon while a proxy holds the statement in question.";
const STEPS: [&str; 6] = [
    "idle",
    "before the server hears",
    "after the server did it",
    "before the test",
    "after the test",
    "somewhere in a rotation",
];
const PATIENCE: Duration = Duration::from_secs(30);
const SET: &str = "ALTER ROLE \"app\" PASSWORD";
/// The start of a session of the account.
const TEST: &str = "user\0app\0";
/// Rotations beyond the plan, for steps that were not hit.
const EXTRA_ROTATIONS_MAX: u64 = 60;

struct Campaign {
    bench: Bench,
    client: Client,
    dice: Dice,
    steps: Steps,
    rotations: u64,
    kills: u64,
    broken: Vec<String>,
}

/// Runs the suite; whether it held.
pub async fn run(plan: Plan) -> Tried<bool> {
    let mut report = Report::of("rotate", METHOD, plan);
    let bench = Bench::set().await?;
    let client = bench.client().await?;
    let (dice, steps) = (Dice::new(plan.seed), Steps::of(&STEPS));
    let mut campaign = Campaign {
        bench,
        client,
        dice,
        steps,
        rotations: 0,
        kills: 0,
        broken: Vec::new(),
    };
    // A new role's account has no password yet.
    campaign.ask().await?;
    campaign.rotate().await?;
    let worker = Worker::start(&campaign.client, campaign.bench.server.port()).await?;
    campaign.rotations(plan).await?;
    let worked = worker.end().await?;
    worked
        .broken
        .iter()
        .chain(&campaign.broken)
        .for_each(|words| report.broken(words));
    report.figure(format_args!(
        "{} rotations acknowledged, {} kills in them",
        campaign.rotations, campaign.kills
    ));
    report.figure(format_args!(
        "{} log-ins by the client: {} were refused and held after one fresh read, {} after another rotation fell in between, {} failed",
        worked.log_ins,
        worked.reread,
        worked.between,
        worked.broken.len()
    ));
    let red = campaign.control().await?;
    root::run(
        &mut campaign.bench,
        &campaign.client,
        &mut campaign.dice,
        plan,
        &mut report,
    )
    .await?;
    campaign.bench.kill();
    if let Some(found) = campaign.bench.evidence() {
        report.broken(format_args!("audit log: {found}"));
    }
    report.control("the old password set again in the server", red, 2);
    report.steps("kills in", &campaign.steps);
    Ok(report.end())
}

impl Campaign {
    async fn rotations(&mut self, plan: Plan) -> Tried<()> {
        let (wanted, every) = (plan.scale.pick(50, 1000), plan.scale.pick(5, 20));
        while self.rotations < wanted
            || !self.steps.missed().is_empty() && self.rotations < wanted + EXTRA_ROTATIONS_MAX
        {
            if self.rotations % every == every - 1 {
                let turn = usize::try_from(self.kills).unwrap_or_default() % STEPS.len();
                let step = STEPS.get(turn).copied().unwrap_or("idle");
                self.killed(step)
                    .await
                    .map_err(|error| doing(step)(format!("{error}\n{}", self.bench.tail())))?;
            }
            self.rotate().await?;
            sleep(Duration::from_millis(self.dice.between(5, 60))).await;
        }
        Ok(())
    }

    /// One rotation, to its acknowledgement; the password before it must be dead, the one after it alive.
    async fn rotate(&mut self) -> Tried<()> {
        let old = read(&self.client).await?;
        self.ask().await?;
        self.rotations += 1;
        let new = read(&self.client).await?;
        let wrong = self.wrong(&old, &new).await;
        self.broken.extend(wrong);
        Ok(())
    }

    async fn ask(&self) -> Tried<()> {
        let request = v1::CredsRotateRequest {
            role: "pg/app".into(),
            ..Default::default()
        };
        let client = self.client.with_timeout(PATIENCE);
        client
            .change(request, |s, r| async move { s.creds().rotate(r).await })
            .await
            .map(drop)
            .map_err(doing("creds rotate"))
    }

    async fn wrong(&self, old: &str, new: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        if old == new || self.bench.log_in("app", old).await.is_ok() {
            wrong.push(format!(
                "rotation {}: the old password still opens the account",
                self.rotations
            ));
        }
        if let Err(error) = self.bench.log_in("app", new).await {
            wrong.push(format!(
                "rotation {}: the new password does not open the account: {error:?}",
                self.rotations
            ));
        }
        wrong
    }

    /// A rotation that the daemon does not live to see, at `step`; afterwards what is read must open the account, at the first try.
    async fn killed(&mut self, step: &'static str) -> Tried<()> {
        let (client, ask) = (
            self.client.with_timeout(CALL),
            v1::CredsRotateRequest {
                role: "pg/app".into(),
                ..Default::default()
            },
        );
        let rotation = async move {
            drop(
                client
                    .change(ask, |s, r| async move { s.creds().rotate(r).await })
                    .await,
            )
        };
        let hit = match step {
            "idle" => true,
            "somewhere in a rotation" => {
                let asking = tokio::spawn(rotation);
                sleep(Duration::from_millis(self.dice.below(60))).await;
                asking.abort();
                true
            }
            "before the server hears" => self.held(rotation, SET, Hold::Request).await,
            "after the server did it" => self.held(rotation, SET, Hold::Answer).await,
            "before the test" => self.held(rotation, TEST, Hold::Request).await,
            _ => self.held(rotation, TEST, Hold::Answer).await,
        };
        self.bench.kill();
        self.kills += 1;
        if hit {
            self.steps.hit(step);
        }
        self.bench.start()?;
        self.bench.unseal().await?;
        let now = read(&self.client).await?;
        if let Err(error) = self.bench.log_in("app", &now).await {
            self.broken.push(format!(
                "kill {} ({step}): what is read does not open the account: {error:?}",
                self.kills
            ));
        }
        say(format_args!(
            "  {:4} rotations, kill {} {step}: {}",
            self.rotations,
            self.kills,
            if hit { "hit" } else { "not hit" }
        ));
        Ok(())
    }

    /// Kills while the proxy holds it; what is held may reach the server after the kill.
    async fn held(
        &mut self,
        rotation: impl Future<Output = ()> + Send + 'static,
        pattern: &'static str,
        hold: Hold,
    ) -> bool {
        let held = self.bench.proxy.arm(pattern, hold);
        let asking = tokio::spawn(rotation);
        let hit = timeout(PATIENCE, held.reached()).await.is_ok();
        self.bench.proxy.disarm();
        self.bench.kill();
        // Its caller would ask anew, and rotate once more between a later reading and its log-in.
        asking.abort();
        if self.dice.chance(50) {
            held.release(Fate::Delivered);
            sleep(Duration::from_millis(50)).await;
        }
        hit
    }

    /// The server takes the old password again after a rotation: both what is dead and what is alive must be found wrong.
    async fn control(&mut self) -> Tried<u64> {
        let old = read(&self.client).await?;
        self.ask().await?;
        let new = read(&self.client).await?;
        self.bench
            .server
            .admin("postgres", &format!("ALTER ROLE app PASSWORD '{old}'"))?;
        let wrong = self.wrong(&old, &new).await;
        self.ask().await?;
        Ok(wrong.len() as u64)
    }
}
