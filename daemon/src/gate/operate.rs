//! The few calls that a vault answers whatever its state: status, init, presenting factors. No token and no policy can be asked for here;
//! what protects each is said beside it. They are recorded like all others.

use super::{Call, Failure, Gate, Open, Reason, Source, is_owner, outcome};
use crate::{
    audit::{Outcome, Trail},
    base::path::Path,
    lease::UnderWay,
    seal::{Nonce, Operation, SessionInfo, ShareText, SlotName, SlotSpec},
    token::{Ceremony, Created},
    vault::{Answer, Done, PresentInput, SlotInfo, VaultState},
};
use data_encoding::HEXLOWER;
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};
use strongroom_audit::{ChainHead, Id};

/// How one HSM stands.
#[derive(Debug, Clone)]
pub struct HsmState {
    /// `[hsm.NAME]`.
    pub name: String,
    /// One word.
    pub state: &'static str,
    /// In words, for people.
    pub detail: String,
    /// Workers started anew since the daemon began.
    pub respawns: u64,
}

/// What `operator status` tells.
#[derive(Debug)]
pub struct Status {
    /// Blank, sealed, open.
    pub state: VaultState,
    /// Hex; empty while blank.
    pub cluster_id: String,
    /// The storage engine.
    pub store_backend: &'static str,
    /// D2 or D1.
    pub audit_sync: &'static str,
    /// The HSMs.
    pub hsms: Vec<HsmState>,
    /// Sessions of factors, without nonces.
    pub sessions: Vec<SessionInfo>,
    /// Key slots.
    pub slots: Vec<SlotInfo>,
    /// Records in the log.
    pub audit_seq: u64,
    /// Head of its chain, hex.
    pub audit_head: String,
    /// Damaged records.
    pub quarantined: u64,
    /// Targets that are left alone for now because they do not answer.
    pub targets_down: u64,
    /// Leases being revoked, and since when the oldest.
    pub revoking: UnderWay,
    /// What an operator should look at.
    pub warnings: Vec<String>,
    /// Since the daemon began.
    pub uptime_secs: u64,
}

/// What `operator init` tells, once.
pub struct Founded {
    /// Hex.
    pub cluster_id: String,
    /// Shares of each slot.
    pub shares: Vec<(SlotName, Vec<ShareText>)>,
    /// The set-up token, unless it could not be made: then a warning says how to go on.
    pub token: Option<Created>,
    /// Where the audit chain begins, hex.
    pub audit_genesis: String,
    /// In words.
    pub warnings: Vec<String>,
}

/// What presenting a factor led to.
#[derive(Default)]
pub struct Presented {
    /// The session's nonce, while it goes on.
    pub session: String,
    /// Shares taken.
    pub have: u8,
    /// Shares needed.
    pub need: u8,
    /// The operation is done.
    pub done: bool,
    /// Until the session expires.
    pub expires_in_secs: u64,
    /// Of a slot that was added or re-keyed.
    pub shares: Option<(SlotName, Vec<ShareText>)>,
    /// Of a recovery.
    pub token: Option<Created>,
    /// In words.
    pub warnings: Vec<String>,
}

/// While it lives, rooms that open write the vault's first records.
struct Founding<'a>(&'a AtomicBool);

impl<'a> Founding<'a> {
    fn begin(flag: &'a AtomicBool) -> Self {
        flag.store(true, Ordering::Release);
        Self(flag)
    }
}

impl Drop for Founding<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Gate {
    /// Tells how things stand. Anybody may ask: nothing in it opens anything.
    /// # Errors
    /// No record, no answer.
    pub async fn status(&self, call: Call) -> Result<Status, Failure> {
        let trail = self.trail("operator.status", &call);
        let record = trail.response(&Outcome::ok());
        // Anybody can ask, so asking is bounded like being refused.
        if self.from.may_record(&call.origin, record.as_bytes().len()) {
            self.witness_look(record).await?;
        }
        let mut status = self.read_status().await;
        let known = self.vault.enter().is_ok_and(|open| open.identify(&call).is_ok());
        if matches!(call.origin.source, Source::Tls(_)) && !known {
            // Strangers on the network hear the state and what they need to bring, not what ails the machine.
            status.hsms.iter_mut().for_each(|hsm| hsm.detail.clear());
            status.warnings.clear();
        }
        Ok(status)
    }

    /// Makes the vault. Only root, or the daemon's own user, over the Unix socket.
    /// # Errors
    /// `OwnerOnly`, `NotPossible` unless blank, and what the slots' factors meet.
    pub async fn init(&self, call: Call, specs: Vec<SlotSpec>) -> Result<Founded, Failure> {
        let mut trail = self.trail("operator.init", &call);
        trail.param_u64("slots", specs.len() as u64);
        if !is_owner(&call.origin.source) {
            return self.refuse(&call, &trail, Reason::OwnerOnly.into()).await;
        }
        let record = trail.response(&Outcome::ok());
        let mut minted = self.trail("token.mint", &call);
        minted.param_word("purpose", "setup");
        let founding = Founding::begin(&self.from.founding);
        let made = self
            .vault
            .init(specs, Box::new(move |_| vec![record]), |rooms| async move {
                rooms.mint(Ceremony::Setup, &mut minted).await.map_err(Into::into)
            })
            .await;
        drop(founding);
        let made = match made {
            Ok(made) => made,
            Err(error) => return self.refuse(&call, &trail, error.into()).await,
        };
        let mut warnings = made.warnings;
        // The vault exists and its shares are shown only now: whatever else fails must not lose them.
        let token = made
            .first
            .inspect_err(|error| tracing::error!(cause = %super::chain(&**error), "no set-up token"))
            .ok();
        if token.is_none() {
            warnings.push("no set-up token could be made: unseal, then `strongroom operator recover` gives one for policy and auth".to_owned());
        }
        self.open_by_itself().await;
        Ok(Founded {
            cluster_id: made.cluster.to_string(),
            shares: made.shares,
            token,
            audit_genesis: HEXLOWER.encode(&ChainHead::genesis(Id(*made.cluster.as_bytes())).hash),
            warnings,
        })
    }

    /// Opens the vault by an `hsm`-only slot, if it has one. The vault stays sealed, and status says why, when that fails; it is tried again.
    pub async fn open_by_itself(&self) {
        let trail = Trail::of_system(&self.from.recorder, "vault.open-by-itself");
        let record = trail.response(&Outcome::ok());
        let before = self.vault.shut_by_itself().map(|error| super::chain(&*error));
        match self.vault.open_by_itself(Box::new(move |_| vec![record])).await {
            Ok(Some(slot)) => tracing::warn!(%slot, "the vault was opened by a slot that needs no operator"),
            Ok(None) => {}
            Err(error) => {
                let cause = super::chain(&*error);
                if before.as_ref() != Some(&cause) {
                    tracing::error!(%cause, "no `hsm`-only slot opens the vault: it stays sealed until one does");
                }
            }
        }
    }

    /// Takes one factor towards one operation. Protected by the factors themselves.
    /// # Errors
    /// What is wrong with share, session, slot or HSM.
    pub async fn present(
        &self,
        call: Call,
        slot: SlotName,
        session: Option<Nonce>,
        share: Option<&str>,
        operation: Option<Operation>,
    ) -> Result<Presented, Failure> {
        let began = Instant::now();
        let reply = self.take_factor(&call, slot, session, share, operation).await;
        self.metrics
            .answered("operator.present", outcome::code(&reply), began.elapsed());
        reply
    }

    async fn take_factor(
        &self,
        call: &Call,
        slot: SlotName,
        session: Option<Nonce>,
        share: Option<&str>,
        operation: Option<Operation>,
    ) -> Result<Presented, Failure> {
        let mut trail = self.trail("operator.present", call);
        if let Ok(name) = Path::parse(slot.as_str()) {
            trail.param_path("slot", &name);
        }
        if let Some(operation) = &operation {
            trail.param_word("operation", operation.word());
        }
        let record = trail.response(&Outcome::ok());
        let input = PresentInput {
            slot,
            session,
            share,
            operation,
            local_root: is_owner(&call.origin.source),
        };
        match self.vault.present(input, Box::new(move |_| vec![record])).await {
            Ok(Answer::Done { done, .. }) => self.done(call, done).await,
            Ok(Answer::Waiting(progress)) => {
                trail.param_u64("have", progress.have.into());
                trail.param_u64("need", progress.need.into());
                self.witness_look(trail.response(&Outcome::ok())).await?;
                Ok(Presented {
                    session: progress.session.to_string(),
                    have: progress.have,
                    need: progress.need,
                    expires_in_secs: progress.expires_in_secs,
                    ..Presented::default()
                })
            }
            Err(error) => self.refuse(call, &trail, error.into()).await,
        }
    }

    async fn done(&self, call: &Call, done: Done) -> Result<Presented, Failure> {
        let presented = Presented {
            done: true,
            ..Presented::default()
        };
        Ok(match done {
            Done::Unsealed | Done::Verified => presented,
            Done::Slot { slot, shares, warnings } => Presented {
                shares: Some((slot, shares)),
                warnings,
                ..presented
            },
            Done::Removed { warnings } => Presented { warnings, ..presented },
            Done::Recover { slot } => {
                tracing::warn!(%slot, "a recovery token is minted from a slot's fresh factors");
                let open: Open = self.vault.enter()?;
                let mut trail = self.trail("token.mint", call);
                trail.param_word("purpose", "recover");
                Presented {
                    token: Some(open.mint(Ceremony::Recover, &mut trail).await?),
                    ..presented
                }
            }
        })
    }

    /// Lets an HSM try its PIN again that it refused before. Only root, or the daemon's own user: each try may bring the token nearer to
    /// locking itself.
    /// # Errors
    /// `OwnerOnly`, or there is no such HSM.
    pub async fn forgive_pin(&self, call: Call, name: &str) -> Result<(), Failure> {
        let mut trail = self.trail("operator.forgive-pin", &call);
        let hsm = self.hsms.iter().find(|hsm| hsm.name() == name);
        // The configuration's own word for it; what names no HSM is a stranger's text.
        if let Some(name) = hsm.and_then(|hsm| Path::parse(hsm.name()).ok()) {
            trail.param_path("hsm", &name);
        }
        let refusal = match hsm {
            _ if !is_owner(&call.origin.source) => Reason::OwnerOnly,
            None => Reason::NotFound,
            Some(hsm) => {
                self.witness_look(trail.response(&Outcome::ok())).await?;
                hsm.forgive_pin();
                return Ok(());
            }
        };
        self.refuse(&call, &trail, refusal.into()).await
    }

    /// Gives a session up. Whoever has its nonce may.
    /// # Errors
    /// There is no such session, or its operation runs.
    pub async fn abandon(&self, call: Call, session: Nonce) -> Result<(), Failure> {
        let trail = self.trail("operator.abandon", &call);
        match self.vault.abandon(&session) {
            Ok(()) => self.witness_look(trail.response(&Outcome::ok())).await,
            Err(error) => self.refuse(&call, &trail, error.into()).await,
        }
    }
}
