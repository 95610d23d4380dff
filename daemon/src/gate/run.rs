//! The one path of every request that needs an open vault (design, "One way through"):
//!
//! ```text
//! enter -> identify -> decide -> handle -> audit -> reply
//! ```
//! Each step consumes what the former made. `identify` and `decide` cannot leave early: a refusal is recorded like the rest.
//! An act outside records its request with the durable intent before the act (`Class::Act`).

use super::{
    Call, ChangeKey, Failure, Foundations, Gate, Open, Origin, Place, Reason, note_caller,
    op::{Class, Effect, Operation, Target},
    ops::creds::withdraw,
    outcome,
    repeat::{Claim, Memory, Turn},
};
use crate::{
    audit::{self, Decided, Trail},
    base::id::LeaseId,
    limit::{Held, Lane},
    policy::{Caller, Decision, Permit},
    store::{Change, CommitError},
};
use std::{sync::Arc, time::Instant};
use strongroom_audit::Encoded;
use tokio::sync::oneshot;

/// How often a change is made anew because another writer came first.
const CHANGE_ATTEMPTS_MAX: usize = 64;

/// A request that may be done, and what it needs on its way.
struct Admitted<O: Operation> {
    open: Open,
    permit: Permit,
    trail: Trail,
    op: O,
    from: Arc<Foundations>,
    origin: Origin,
    _place: Option<Place>,
    _held: Option<Held>,
}

impl Gate {
    /// Takes one request from its source to its answer.
    /// # Errors
    /// What the caller is told; the record says the same.
    pub async fn run<O: Operation>(&self, call: Call, op: O) -> Result<O::Reply, Failure> {
        let began = Instant::now();
        let reply = self.pass(&call, op).await;
        let took = began.elapsed();
        self.metrics.answered(O::NAME, outcome::code(&reply), took);
        // A log-in may wait for its issuer, an act for its target: neither says how the daemon fares.
        if O::CLASS != Class::Act && call.place.as_ref().is_some_and(|place| place.lane() == Lane::Ordinary) {
            self.limits.observe(took, self.from.clock.monotonic());
        }
        reply
    }

    async fn pass<O: Operation>(&self, call: &Call, op: O) -> Result<O::Reply, Failure> {
        let mut trail = self.trail(O::NAME, call);
        let entered = self.vault.enter();
        if let Ok(open) = &entered {
            trail.use_hasher(Arc::clone(&open.hasher));
        }
        op.describe(&mut trail);
        let decided = match &entered {
            Ok(open) => self.decide(open, call, &op, &mut trail).await,
            Err(closed) => Err((*closed).into()),
        };
        let (open, (permit, held)) = match (entered, decided) {
            (Ok(open), Ok(decided)) => (open, decided),
            (_, Err(refusal)) => return self.refuse(call, &trail, refusal).await,
            (Err(closed), Ok(_)) => return Err(closed.into()),
        };
        let admitted = Admitted {
            open,
            permit,
            trail,
            op,
            from: Arc::clone(&self.from),
            origin: call.origin.clone(),
            _place: call.place.clone(),
            _held: held,
        };
        match O::CLASS {
            Class::Read => admitted.finish().await,
            Class::Change | Class::Act => match &call.key {
                None => admitted.apart(None, Vec::new()).await,
                Some(key) => self.once(admitted, key).await,
            },
        }
    }

    /// A change with an idempotency key is made once; its repetition is recorded and hears the same answer.
    async fn once<O: Operation>(&self, mut admitted: Admitted<O>, key: &ChangeKey) -> Result<O::Reply, Failure> {
        let who = (admitted.permit.identity(), admitted.permit.session());
        let again = match self.repeats.turn::<O>(who, key).await {
            Turn::First(claim) => return admitted.apart(Some(claim), Vec::new()).await,
            Turn::Anew(claim, lost) => {
                admitted.trail.param_bool("repeated", true);
                return admitted.apart(Some(claim), lost).await;
            }
            Turn::Again(reply) => Ok(reply),
            Turn::Spent => Err(Reason::AlreadyDone.into()),
            Turn::Other => Err(Failure::with(
                Reason::Malformed,
                "idempotency_key: it was used for another request",
            )),
        };
        admitted.trail.param_bool("repeated", true);
        let record = admitted.record(again.as_ref().err());
        admitted.open.commit(Change::new(), vec![record]).await?;
        again
    }

    async fn decide<O: Operation>(
        &self,
        open: &Open,
        call: &Call,
        op: &O,
        trail: &mut Trail,
    ) -> Result<(Permit, Option<Held>), Failure> {
        let identified = op.identify(open, call, trail).await;
        if let Some(flaw) = call.flaw() {
            trail.param_word("proof", flaw.word());
        }
        let caller: Arc<Caller> = identified?;
        note_caller(trail, &caller);
        let held = self.admit(call, &caller, O::CLASS)?;
        let Target { action, path, claim } = op.target(open, &caller).await?;
        trail.path(&path);
        let decision = open.policy.decide(&caller, action, &path, claim, Self::peer(call));
        trail.decided(decided(&decision));
        Ok((decision.permit?, held))
    }
}

/// What policy said, for the record.
pub(super) fn decided(decision: &Decision) -> Decided {
    let asked = decision.facts.asked;
    Decided {
        policy_hash: decision.facts.set_hash,
        allowed: decision.permit.is_ok(),
        errors: u32::try_from(decision.facts.errors.len()).unwrap_or(u32::MAX),
        deciding: decision.facts.deciding.clone(),
        asked: audit::Asked {
            action: asked.action,
            own: asked.own,
            purpose: asked.purpose,
            age_secs: asked.age_secs,
            binding: asked.binding,
            strength: asked.strength,
        },
    }
}

impl<O: Operation> Admitted<O> {
    /// In a task of its own, to the end, whether or not the caller stays. What cannot be delivered is taken back, and so are first the leases
    /// of an answer that was `lost`.
    async fn apart(self, claim: Option<Claim>, lost: Vec<LeaseId>) -> Result<O::Reply, Failure> {
        let (answer, delivered) = oneshot::channel();
        tokio::spawn(async move {
            let rooms = self.op.recalls().then(|| self.open.clone());
            let left = withdraw(&self.open, lost).await;
            let (reply, kept) = if left.is_empty() {
                let reply = self.finish().await;
                let kept = reply.as_ref().ok().map(Memory::of::<O>);
                (reply, kept)
            } else {
                let failure = Reason::StorageUnavailable.into();
                (self.lost(failure).await, Some(Memory::Lent(left)))
            };
            let unsent = answer.send(reply);
            match (claim, kept, &unsent) {
                // What is about to be taken back was not made.
                (_, _, Err(Ok(_))) if rooms.is_some() => {}
                (Some(claim), Some(kept), _) => claim.made(kept),
                _ => {}
            }
            if let (Err(Ok(reply)), Some(rooms)) = (unsent, rooms) {
                O::undelivered(reply, &rooms).await;
            }
        });
        delivered.await.unwrap_or_else(|_| Err(Reason::Internal.into()))
    }

    /// Handles, records, answers.
    async fn finish(mut self) -> Result<O::Reply, Failure> {
        if let (Class::Act, Some(kept)) = (O::CLASS, self.open.tokens.keep(self.permit.caller())?) {
            // What is made outside must be found by whatever ends the session.
            match self.open.commit(kept, Vec::new()).await {
                // Another request of the session was faster, or it was ended: the act itself finds out.
                Ok(_) | Err(CommitError::Precondition(_)) => {}
                Err(error) => return self.lost(error.into()).await,
            }
        }
        let described = self.trail.params();
        for _ in 0..CHANGE_ATTEMPTS_MAX {
            // What a lost attempt noted did not happen.
            self.trail.forget_params(described);
            let (mut change, reply) = match self.op.handle(&self.open, &self.permit, &mut self.trail).await {
                Ok(Effect::Recorded(reply)) => return Ok(reply),
                Ok(Effect::Refused(parts, failure)) => return self.refused(parts, failure).await,
                Ok(Effect::Leave(rest)) => {
                    drop(self);
                    return rest.await;
                }
                Ok(Effect::Answer(reply)) => (Self::evidence(), Ok(reply)),
                Ok(Effect::Change(change, reply)) => (change, Ok(reply)),
                Err(failure) => (Self::evidence(), Err(failure)),
            };
            if O::TENDS {
                change.tending();
            }
            match self.open.commit(change, vec![self.record(reply.as_ref().err())]).await {
                Ok(_) => return reply,
                Err(CommitError::Precondition(_)) => {}
                Err(error) => return self.lost(error.into()).await,
            }
        }
        self.lost(Reason::Conflict.into()).await
    }

    /// What carries the record where nothing changed.
    fn evidence() -> Change {
        if O::CLASS == Class::Read {
            Change::relaxed()
        } else {
            Change::new()
        }
    }

    /// Parts of it are refused: their records and its own are written or counted as those of one refusal.
    async fn refused(&self, mut records: Vec<Encoded>, failure: Failure) -> Result<O::Reply, Failure> {
        records.push(self.record(Some(&failure)));
        let bytes = records.iter().map(|record| record.as_bytes().len()).sum();
        if self.from.may_record(&self.origin, bytes) {
            self.open.commit(Change::relaxed(), records).await?;
        }
        Err(failure)
    }

    fn record(&self, failure: Option<&Failure>) -> Encoded {
        outcome::response(&self.trail, failure)
    }

    /// The change was not made, or nobody knows: that outcome is recorded on its own where the store still takes records.
    async fn lost(&self, failure: Failure) -> Result<O::Reply, Failure> {
        // What cannot be recorded is still a failure, and says the same.
        let _ = self.open.commit(Change::new(), vec![self.record(Some(&failure))]).await;
        Err(failure)
    }
}
