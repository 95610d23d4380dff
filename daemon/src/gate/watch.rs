//! A stream of deliveries: opened, delivered item by item as they change, ended; each of these through the gate's one path and recorded
//! (R-KV-4). Nothing is queued: the transport asks for the next delivery when the reader has room for it, and gets the newest.

use super::{
    Call, Failure, Gate, Origin, Reason, Shown,
    ops::delivery::{
        concerns_one,
        watch::{Again, Event, Item, Push, Standing, Watch, Welcoming},
    },
};
use crate::{
    audit::Outcome,
    base::{id::RequestId, secret::SecretBytes},
    notice::{self, Watcher},
    policy::{Action, Caller, Claim},
};
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

/// Deliveries being made at once, over all streams, in order of their asking: more wait.
pub(super) const PUSHES_MAX: usize = 256;

/// What is delivered.
#[derive(Debug)]
pub struct Delivery {
    /// Which item, in the order asked.
    pub item: usize,
    /// What happened to it.
    pub event: Event,
    /// What the consumer has seen now: for resuming. `None`: nothing yet.
    pub resume: Option<super::ops::delivery::Mark>,
    /// The path or role that it is about; `None` for a lease of which nothing is known.
    pub path: Option<crate::base::path::Path>,
}

/// An open stream.
pub struct Watching {
    gate: Arc<Gate>,
    origin: Origin,
    id: RequestId,
    /// Proved when the stream was opened.
    shown: Option<Arc<Shown>>,
    token: Option<SecretBytes>,
    items: Vec<Standing>,
    /// Still to be told.
    refused: VecDeque<(usize, Failure)>,
    values: bool,
    watcher: Watcher,
    delivered: u64,
}

impl Gate {
    /// Opens a stream of `items`; with `values`, or only word of changes.
    /// # Errors
    /// What the caller is told. Of items that are refused the stream tells, unless all are.
    pub async fn watch(self: &Arc<Self>, call: Call, items: Vec<Item>, values: bool) -> Result<Watching, Failure> {
        let (origin, id, token) = (call.origin.clone(), call.id, copy(call.token.as_ref()));
        let shown = call.shown.clone();
        let welcoming = welcoming(Arc::downgrade(self), copy(call.token.as_ref()), Self::peer(&call));
        let opened = self.run(call, Watch { items, welcoming }).await?;
        Ok(Watching {
            gate: Arc::clone(self),
            origin,
            id,
            shown,
            token,
            items: opened.items,
            refused: opened.refused.into(),
            values,
            watcher: opened.watcher,
            delivered: 0,
        })
    }

    /// Ends all streams: the daemon stops.
    pub fn dismiss(&self) {
        if let Ok(open) = self.vault.enter() {
            open.store.notices().close();
        }
    }
}

/// Asks about token and rights without a record: nothing is delivered by it. Rights are asked about once for each state of the policies: what
/// is refused then leaves the stream.
fn welcoming(gate: Weak<Gate>, token: Option<SecretBytes>, peer: crate::policy::Peer) -> Welcoming {
    let token = Arc::new(token);
    Box::new(move |items| {
        let rights: Vec<_> = items
            .iter()
            .filter(|item| item.live)
            .filter_map(|item| item.subject.right().map(|(action, path)| (action, path.clone())))
            .collect();
        let (gate, token, decided) = (gate.clone(), Arc::clone(&token), Mutex::new(None));
        Box::new(move || {
            let Some(open) = gate.upgrade().and_then(|gate| gate.vault.enter().ok()) else {
                return false;
            };
            let Ok(caller) = open.bearer(Option::as_ref(&token)) else {
                return false;
            };
            let policies = open.policy.set_hash();
            let may = |caller: &Arc<Caller>, action: Action, path| {
                let decision = open.policy.decide(caller, action, path, Claim::Policy, peer);
                decision.permit.is_ok()
            };
            let mut decided = decided.lock();
            if *decided == Some(policies) {
                return true;
            }
            *decided = Some(policies);
            rights.iter().all(|(action, path)| may(&caller, *action, path))
        })
    })
}

fn copy(token: Option<&SecretBytes>) -> Option<SecretBytes> {
    token.map(|token| SecretBytes::from(token.expose()))
}

impl Watching {
    /// The next delivery; waits for it. An error is the last thing that comes.
    /// # Errors
    /// The seal, the token's end, a failure of the store, or the failure of the last item: resume after it.
    pub async fn next(&mut self) -> Result<Delivery, Failure> {
        loop {
            if let Some((item, failure)) = self.refused.pop_front() {
                return self.refuse(item, failure);
            }
            let item = match self.watcher.next().await {
                notice::Call::Item(item) => item,
                notice::Call::Doubt => {
                    let refused = self.gate.run(self.call(), Again(self.items.clone())).await?;
                    self.refused.extend(refused);
                    continue;
                }
                notice::Call::Closed => return Err(self.over()),
            };
            let Some(standing) = self.items.get(item).filter(|item| item.live).cloned() else {
                continue;
            };
            // Closed never: an error cannot come.
            let turn = self.gate.pushes.acquire().await;
            let subject = Arc::clone(&standing.subject);
            let push = Push {
                item: standing,
                values: self.values,
            };
            let pushed = self.gate.run(self.call(), push).await;
            drop(turn);
            let pushed = match pushed {
                Ok(pushed) => pushed,
                Err(failure) if concerns_one(&failure) => return self.refuse(item, failure),
                Err(failure) => return Err(failure),
            };
            if let Some(standing) = self.items.get_mut(item) {
                standing.seen = Some(pushed.mark);
            }
            self.watcher.alarm(item, pushed.alarm);
            if let Some(event) = pushed.event {
                self.delivered += 1;
                return Ok(Delivery {
                    item,
                    event,
                    resume: Some(pushed.mark),
                    path: subject.path().cloned(),
                });
            }
        }
    }

    /// An item leaves the stream, and its consumer is told; the last one ends it.
    fn refuse(&mut self, item: usize, failure: Failure) -> Result<Delivery, Failure> {
        self.watcher.alarm(item, None);
        let Some(standing) = self.items.get_mut(item) else {
            return Err(failure);
        };
        standing.live = false;
        let (subject, resume) = (Arc::clone(&standing.subject), standing.seen);
        if !self.items.iter().any(|item| item.live) {
            return Err(subject.failed(failure));
        }
        Ok(Delivery {
            item,
            event: Event::Refused(failure),
            resume,
            path: subject.path().cloned(),
        })
    }

    /// Whether values are sent along.
    pub const fn values(&self) -> bool {
        self.values
    }

    /// The id under which the stream stands in the audit log.
    pub const fn id(&self) -> RequestId {
        self.id
    }

    fn over(&self) -> Failure {
        match self.gate.vault.enter() {
            Ok(_) => Reason::Stopping.into(),
            Err(closed) => closed.into(),
        }
    }

    fn call(&self) -> Call {
        Call {
            origin: self.origin.clone(),
            id: self.id,
            shown: self.shown.clone(),
            token: copy(self.token.as_ref()),
            key: None,
            place: None,
        }
    }
}

impl Drop for Watching {
    /// The stream's end is recorded too, under its id.
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let mut trail = self.gate.trail("delivery.watch-end", &self.call());
        trail.param_u64("delivered", self.delivered);
        let (gate, record) = (Arc::clone(&self.gate), trail.response(&Outcome::ok()));
        runtime.spawn(async move {
            if let Err(failure) = gate.witness(record).await {
                tracing::warn!(%failure, "the end of a stream could not be recorded");
            }
        });
    }
}
