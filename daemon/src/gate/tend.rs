//! What the gate does on its own: summaries of refusals, leftovers of key rotations, readings for status and metrics.

use super::{Gate, HsmState, Readings, Status, chain};
use crate::{
    audit::{Outcome, REFUSALS_FLUSH_EVERY, Trail},
    engine::Failing,
    vault::VaultState,
};
use data_encoding::HEXLOWER;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use strongroom_audit::{ChainHead, Id};
use strongroom_hsm::{Health, Hsm, State};

/// Between two looks at what rotations left behind.
const TEND_EVERY: Duration = Duration::from_secs(60);
/// Between two looks at whether the vault was opened.
const RECALL_EVERY: Duration = Duration::from_millis(500);
/// Between two attempts at opening the vault by an `hsm` slot that could not at the start.
const OPEN_EVERY: Duration = Duration::from_secs(5);
/// Of static roles that fail to rotate so many are told one by one.
const FAILING_SHOWN_MAX: usize = 5;

impl Gate {
    /// Runs until the task is dropped.
    pub async fn tend(self: Arc<Self>) {
        // Side by side: re-encryption may take hours, and an HSM may hang.
        let refusals = async {
            let mut tick = tokio::time::interval(REFUSALS_FLUSH_EVERY);
            loop {
                tick.tick().await;
                self.flush_refusals().await;
            }
        };
        let old_keks = async {
            let mut tick = tokio::time::interval(TEND_EVERY);
            loop {
                tick.tick().await;
                self.tend_keys().await;
            }
        };
        let old_records = async {
            let mut tick = tokio::time::interval(TEND_EVERY);
            loop {
                tick.tick().await;
                self.reencrypt().await;
            }
        };
        let log_ins = async {
            let mut tick = tokio::time::interval(RECALL_EVERY);
            loop {
                tick.tick().await;
                self.recall_log_ins().await;
            }
        };
        let alone = async {
            let mut tick = tokio::time::interval(OPEN_EVERY);
            loop {
                tick.tick().await;
                // Shares of sessions that nobody finished do not stay longer than they may.
                self.vault.sessions();
                if self.vault.shut_by_itself().is_some() && self.hsms.iter().any(is_up) {
                    self.open_by_itself().await;
                }
            }
        };
        let ((), (), (), (), ()) = tokio::join!(refusals, old_keks, old_records, log_ins, alone);
    }

    /// Writes what is counted. Also at the end of the daemon's life.
    pub async fn flush_refusals(&self) {
        for summary in self.from.refusals.flush() {
            if let Err(failure) = self.witness(summary.record(&self.from.recorder)).await {
                tracing::warn!(%failure, refusals = summary.count, "a summary of refusals waits to be recorded");
                self.from.refusals.put_back(summary);
            }
        }
    }

    /// Re-encrypts under the newest data key, step by step, until nothing needs an older one.
    async fn reencrypt(&self) {
        loop {
            let record = Trail::of_system(&self.from.recorder, "key.reencrypt").response(&Outcome::ok());
            match self.vault.reencrypt(Box::new(move |_| vec![record])).await {
                Ok(step) if step.finished => return,
                Ok(_) => tokio::task::yield_now().await,
                Err(error) => {
                    tracing::warn!(cause = %chain(&error), "re-encryption goes on later");
                    return;
                }
            }
        }
    }

    async fn tend_keys(&self) {
        let record = Trail::of_system(&self.from.recorder, "key.retire").response(&Outcome::ok());
        if let Err(error) = self.vault.tend(Box::new(move |_| vec![record])).await {
            tracing::warn!(cause = %chain(&error), "old KEK versions wait to be destroyed");
        }
    }

    pub(super) async fn read_status(&self) -> Status {
        let state = self.vault.state();
        let (head, readings) = (self.audit_head().await, self.readings().await);
        Status {
            state,
            cluster_id: if state == VaultState::Blank {
                String::new()
            } else {
                self.vault.cluster().to_string()
            },
            store_backend: self.setting.store_backend,
            audit_sync: self.setting.audit_sync,
            hsms: self
                .hsms
                .iter()
                .map(|hsm| hsm_state(hsm.name(), &hsm.health()))
                .collect(),
            sessions: self.vault.sessions(),
            slots: self.vault.slots(),
            audit_seq: head.seq,
            audit_head: HEXLOWER.encode(&head.hash),
            quarantined: readings.quarantined.unsigned_abs(),
            targets_down: readings.targets_down.unsigned_abs(),
            revoking: readings.revoking,
            warnings: self.warnings(),
            uptime_secs: self.started.secs_until(self.from.clock.now()),
        }
    }

    /// Where the audit chain stands.
    pub(super) async fn audit_head(&self) -> ChainHead {
        let vault = &self.vault;
        vault
            .disk()
            .audit_head()
            .await
            .unwrap_or_else(|_| ChainHead::genesis(Id(*vault.cluster().as_bytes())))
    }

    /// The end: what is counted is written, the keys go, the disk is closed.
    pub async fn close(&self) {
        self.flush_refusals().await;
        let record = Trail::of_system(&self.from.recorder, "daemon.stop").response(&Outcome::ok());
        self.vault.seal(Box::new(move |_| vec![record])).await;
        let disk = self.vault.disk().clone();
        // A task that was ended leaves the disk to be closed by the process's end, which is as good.
        let _ = tokio::task::spawn_blocking(move || disk.close()).await;
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = self.setting.warnings.clone();
        warnings.extend(self.vault.warnings());
        if let Some(error) = self.vault.shut_by_itself() {
            warnings.push(format!(
                "no `hsm` slot opened the vault by itself, which is tried again while an HSM is up: {}",
                chain(&*error)
            ));
        }
        if self.vault.disk().is_nearly_full() {
            warnings.push("the disk is nearly full: changes and audited answers are refused until there is room (runbook audit-disk-full)".to_owned());
        }
        let Ok(open) = self.vault.enter() else { return warnings };
        for damaged in open.policy.damage() {
            warnings.push(match damaged {
                Some(name) => format!("policy `{name}` is damaged: everything is refused; `strongroom operator recover`, then write or delete it"),
                None => "the list of policies is damaged: everything is refused; `strongroom operator recover`, then write a policy".to_owned(),
            });
        }
        let failing = open.engines.failing();
        warnings.extend(failing.iter().take(FAILING_SHOWN_MAX).map(|failing| {
            let Failing { role, attempts, error } = failing;
            format!(
                "the password of `{role}` could not be set anew, {attempts} times in a row; it is tried again: {error}"
            )
        }));
        if failing.len() > FAILING_SHOWN_MAX {
            warnings.push(format!("{} static roles fail to rotate in all", failing.len()));
        }
        if let Some(hold) = open.leases.standing().hold {
            warnings.push(format!(
                "the wall clock leapt to {}: the vault still goes by {}, for {} s more; if the clock is right, `strongroom operator confirm-time`",
                hold.wall,
                hold.vault,
                hold.remaining.as_secs()
            ));
        }
        if open.store.wants_rotation() {
            warnings.push("a data key has sealed many records: `strongroom operator rotate data`".to_owned());
        }
        warnings
    }

    async fn readings(&self) -> Readings {
        let head = self.audit_head().await;
        let drained = self
            .vault
            .disk()
            .drainer()
            .map_or(head.seq, |drainer| drainer.drained_through());
        let mut readings = Readings {
            state: match self.vault.state() {
                VaultState::Blank => 0,
                VaultState::Sealed => 1,
                VaultState::Open => 2,
            },
            in_flight: signed(self.limits.load().0 as u64),
            in_flight_max: signed(self.limits.load().1 as u64),
            audit_seq: signed(head.seq),
            audit_lag: signed(head.seq.saturating_sub(drained)),
            hsms: self
                .hsms
                .iter()
                .map(|hsm| (hsm.name().to_owned(), is_up(hsm)))
                .collect(),
            ..Readings::default()
        };
        if let Ok(open) = self.vault.enter() {
            let leases = open.leases.standing();
            // An index that cannot be read counts nothing: the store's own failure is told everywhere else.
            readings.revoking = open.leases.under_way().await.unwrap_or_default();
            readings.targets_down = signed(leases.targets_down as u64);
            readings.strays = signed(open.engines.findings() as u64);
            readings.rotations_failing = signed(open.engines.failing().len() as u64);
            readings.quarantined = signed(open.store.quarantined().0.len() as u64);
            readings.tokens = signed(open.tokens.count() as u64);
            let counts = open.leases.counts();
            readings.leases_issued = counts.issued.load(Ordering::Relaxed);
            readings.leases_revoked = counts.revoked.load(Ordering::Relaxed);
            readings.revocations_failed = counts.failed.load(Ordering::Relaxed);
        }
        readings
    }

    /// Prometheus text.
    pub async fn metrics_text(&self) -> String {
        self.metrics.text(&self.readings().await)
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn is_up(hsm: &Hsm) -> bool {
    hsm.health().state == State::Up
}

fn hsm_state(name: &str, health: &Health) -> HsmState {
    HsmState {
        name: name.to_owned(),
        state: match health.state {
            State::Starting => "starting",
            State::Up => "up",
            State::Down => "down",
            State::Held => "held",
            State::Stopped => "stopped",
        },
        detail: health.last_error.as_ref().map(ToString::to_string).unwrap_or_default(),
        respawns: health.spawns.saturating_sub(1),
    }
}
