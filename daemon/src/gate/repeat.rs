//! Changes that are asked for twice under one idempotency key are made once. What was answered is kept in memory for ten minutes, bounded;
//! answers that carry a secret are not kept: their repetition is told so (`ALREADY_DONE`). Answers that told of new accounts are lost to whoever
//! asks again: the accounts are revoked, and others made.

use super::{ChangeKey, Class, Operation};
use crate::base::id::{IdentityId, LeaseId, SessionId};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::{
    any::Any,
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Keys remembered at once; past it the oldest are forgotten first.
const REPEATS_MAX: usize = 1 << 16;
/// How long a key is remembered.
const REMEMBERED: Duration = Duration::from_secs(600);

type Key = [u8; 32];
type Kept = Arc<dyn Any + Send + Sync>;

enum State {
    /// Being made; the receiver learns of the end.
    Running(watch::Receiver<()>),
    /// Made.
    Done(Memory),
}

/// What is kept of an answer.
pub enum Memory {
    /// It is given again.
    Answer(Kept),
    /// It told of accounts with these leases (or of none that is new), and is made anew.
    Lent(Vec<LeaseId>),
    /// It is given once.
    Spent,
}

impl Memory {
    /// Of a reply.
    pub fn of<O: Operation>(reply: &O::Reply) -> Self {
        match (O::lent(reply), O::remember(reply)) {
            (Some(leases), _) => Self::Lent(leases),
            (None, Some(reply)) => Self::Answer(Arc::new(reply)),
            (None, None) => Self::Spent,
        }
    }
}

/// A key's state, since when, and a digest of what it was sent with.
struct Entry {
    since: Instant,
    content: [u8; 32],
    state: State,
}

#[derive(Default)]
struct Table {
    states: HashMap<Key, Entry>,
    order: VecDeque<(Instant, Key)>,
}

/// The table. One for the gate.
#[derive(Clone, Default)]
pub struct Repeats(Arc<Mutex<Table>>);

/// What a key means now.
pub enum Turn<R> {
    /// The first: make it, then say how it ended.
    First(Claim),
    /// It was made, and this was the answer.
    Again(R),
    /// It was made, and the answer was lost on its way: take these back, then make it anew.
    Anew(Claim, Vec<LeaseId>),
    /// It was made, and the answer is not given twice.
    Spent,
    /// The key was used for another request.
    Other,
}

/// The right, and the duty, to make a change under a key. Dropped without [`Claim::made`], the key is free again.
pub struct Claim {
    repeats: Repeats,
    key: Key,
    kept: Option<Memory>,
    _running: watch::Sender<()>,
}

impl Claim {
    /// It was made, and answered like this.
    pub fn made(mut self, kept: Memory) {
        self.kept = Some(kept);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut table = self.repeats.0.lock();
        match (self.kept.take(), table.states.get_mut(&self.key)) {
            (Some(kept), Some(entry)) => entry.state = State::Done(kept),
            (None, _) => drop(table.states.remove(&self.key)),
            (Some(_), None) => {}
        }
    }
}

/// Whose key it is.
pub type Who = (IdentityId, SessionId);

impl Repeats {
    /// Whose turn it is. Waits while the same key is being served.
    pub async fn turn<O: Operation>(&self, (identity, session): Who, change: &ChangeKey) -> Turn<O::Reply> {
        // What one session was lent another of the same identity (the next job of a pipeline) must not take back.
        let session = (O::CLASS == Class::Act).then_some(session);
        let key = digest(identity, session, O::NAME, &change.text);
        loop {
            let mut running = {
                let mut table = self.0.lock();
                table.forget_old();
                match table.states.get_mut(&key) {
                    None => return Turn::First(self.claim(&mut table, key, change.content)),
                    Some(entry) if entry.content != change.content => return Turn::Other,
                    Some(entry) => match &mut entry.state {
                        State::Done(Memory::Spent) => return Turn::Spent,
                        State::Done(Memory::Answer(kept)) => {
                            let again = kept.downcast_ref::<O::Reply>().and_then(O::remember);
                            return again.map_or(Turn::Spent, Turn::Again);
                        }
                        State::Done(Memory::Lent(leases)) => {
                            let leases = std::mem::take(leases);
                            return Turn::Anew(self.claim(&mut table, key, change.content), leases);
                        }
                        State::Running(running) => running.clone(),
                    },
                }
            };
            // An error is the end: the claim is dropped with its sender.
            let _ = running.changed().await;
        }
    }

    fn claim(&self, table: &mut Table, key: Key, content: [u8; 32]) -> Claim {
        let (sender, receiver) = watch::channel(());
        let since = Instant::now();
        table.states.insert(
            key,
            Entry {
                since,
                content,
                state: State::Running(receiver),
            },
        );
        table.order.push_back((since, key));
        Claim {
            repeats: self.clone(),
            key,
            kept: None,
            _running: sender,
        }
    }
}

impl Table {
    fn forget_old(&mut self) {
        // Bounded: each entry is looked at once.
        for _ in 0..self.order.len() {
            let Some((since, key)) = self.order.front().copied() else {
                return;
            };
            if since.elapsed() < REMEMBERED && self.order.len() <= REPEATS_MAX {
                return;
            }
            self.order.pop_front();
            match self.states.get(&key) {
                Some(entry) if entry.since != since => {} // the key came back later, and has a place of its own
                Some(Entry {
                    state: State::Running(_),
                    ..
                }) => self.order.push_back((since, key)),
                _ => drop(self.states.remove(&key)),
            }
        }
    }
}

/// Keys are the caller's own: the same text of another identity, or for another operation, is another key.
fn digest(identity: IdentityId, session: Option<SessionId>, operation: &str, key: &str) -> Key {
    let mut hash = Sha256::new();
    let session = session.as_ref().map_or(&[][..], |session| session.as_bytes());
    for part in [
        identity.as_bytes().as_slice(),
        session,
        operation.as_bytes(),
        key.as_bytes(),
    ] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::Trail,
        gate::{Class, Effect, Failure, Open, Target},
        policy::{Caller, Permit},
    };

    struct Kept;
    struct Secret;
    macro_rules! operation {
        ($op:ident, $remember:expr) => {
            impl Operation for $op {
                type Reply = u64;
                const NAME: &'static str = stringify!($op);
                const CLASS: Class = Class::Change;
                fn describe(&self, _: &mut Trail) {}
                async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
                    Err(super::super::Reason::Denied.into())
                }
                async fn handle(&self, _: &Open, _: &Permit, _: &mut Trail) -> Result<Effect<u64>, Failure> {
                    Ok(Effect::Answer(0))
                }
                fn remember(reply: &u64) -> Option<u64> {
                    $remember(*reply)
                }
            }
        };
    }
    operation!(Kept, Some);
    operation!(Secret, |_| None);

    fn key(text: &str) -> ChangeKey {
        ChangeKey {
            text: text.into(),
            content: [0; 32],
        }
    }

    const ME: Who = (IdentityId::from_bytes([1; 16]), SessionId::from_bytes([1; 16]));

    #[tokio::test]
    async fn a_key_is_served_once_for_each_identity_and_operation() {
        let repeats = Repeats::default();
        let Turn::First(claim) = repeats.turn::<Kept>(ME, &key("k")).await else {
            panic!("not the first")
        };
        let waiting = tokio::spawn({
            let repeats = repeats.clone();
            async move { matches!(repeats.turn::<Kept>(ME, &key("k")).await, Turn::Again(7)) }
        });
        tokio::task::yield_now().await;
        claim.made(Memory::of::<Kept>(&7));
        assert!(waiting.await.unwrap(), "whoever waited hears the first answer");
        assert!(matches!(repeats.turn::<Kept>(ME, &key("k")).await, Turn::Again(7)));
        assert!(matches!(
            repeats
                .turn::<Kept>((IdentityId::from_bytes([2; 16]), ME.1), &key("k"))
                .await,
            Turn::First(_)
        ));
        assert!(matches!(repeats.turn::<Secret>(ME, &key("k")).await, Turn::First(_)));
        let other = ChangeKey {
            content: [1; 32],
            ..key("k")
        };
        assert!(
            matches!(repeats.turn::<Kept>(ME, &other).await, Turn::Other),
            "another request is not answered with this one's answer"
        );
    }

    #[tokio::test]
    async fn a_failure_frees_the_key_and_a_secret_is_not_kept() {
        let repeats = Repeats::default();
        drop(repeats.turn::<Kept>(ME, &key("k")).await);
        assert!(matches!(repeats.turn::<Kept>(ME, &key("k")).await, Turn::First(_)));
        let Turn::First(claim) = repeats.turn::<Secret>(ME, &key("s")).await else {
            panic!("not the first")
        };
        claim.made(Memory::of::<Secret>(&7));
        assert!(matches!(repeats.turn::<Secret>(ME, &key("s")).await, Turn::Spent));
    }

    /// R-KV-3: what an answer told of is taken back once, by whoever asks again first.
    #[tokio::test]
    async fn an_answer_with_accounts_is_made_anew() {
        let repeats = Repeats::default();
        let lease = |byte| LeaseId::from_bytes([byte; 16]);
        for byte in 1..4 {
            let claim = match repeats.turn::<Secret>(ME, &key("l")).await {
                Turn::First(claim) if byte == 1 => claim,
                Turn::Anew(claim, leases) if leases == [lease(byte - 1)] => claim,
                _ => panic!("turn {byte}"),
            };
            claim.made(Memory::Lent(vec![lease(byte)]));
        }
        let Turn::Anew(claim, _) = repeats.turn::<Secret>(ME, &key("l")).await else {
            panic!("not anew")
        };
        drop(claim);
        assert!(
            matches!(repeats.turn::<Secret>(ME, &key("l")).await, Turn::First(_)),
            "a failure leaves nothing to take back"
        );
    }
}
