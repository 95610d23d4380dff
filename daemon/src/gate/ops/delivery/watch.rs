//! Watch: the stream's opening, its deliveries, and a second look at its rights (R-KV-4, R-ROT-4). Each is an operation of its own, so each
//! delivery is identified, decided and recorded anew. `gate/watch.rs` puts them in a row.

use super::{Goods, Mark, concerns_one, counter, decide, of_part, right, secret};
use crate::{
    audit::Outcome,
    base::{id::LeaseId, time::Timestamp},
    engine::{Issued, RoomError},
    gate::{ops::mount::role_of, ops::prelude::*, outcome},
    kv::Select,
    lease::{Lease, LeaseError, State},
    mount::Kind,
    notice::{Full, Topic, Watcher, Welcome},
    policy::Claim,
    store::Change,
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// What is to be watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A secret, or a static role.
    Path {
        /// Where.
        path: Path,
        /// Of a secret: which version.
        select: Select,
    },
    /// A lease.
    Lease(LeaseId),
}

/// One item of a stream, as asked.
#[derive(Debug, Clone)]
pub struct Item {
    /// What.
    pub what: What,
    /// Of a lease: how long before its expiry to tell, in seconds; 0: a third of its life.
    pub warn_secs: u64,
    /// What the consumer has seen; `None`: nothing, so it is told the present.
    pub seen: Option<Mark>,
}

/// What an item was found to be.
#[derive(Debug, Clone)]
pub enum Subject {
    /// A secret.
    Secret(Path, Select),
    /// A static role's account.
    Account(Path),
    /// A lease of this role; `None`: it is gone, or it is nothing to the caller, which look alike.
    Lease(LeaseId, Option<Path>),
}

impl Subject {
    /// The right that it takes; `None` for a lease of the caller's own, which needs none but a live token.
    pub fn right(&self) -> Option<(Action, &Path)> {
        match self {
            Self::Secret(path, _) => Some((Action::Read, path)),
            Self::Account(path) => Some((Action::Issue, path)),
            Self::Lease(..) => None,
        }
    }

    /// The path that it is about; `None` for a lease of which nothing is known.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Secret(path, _) | Self::Account(path) => Some(path),
            Self::Lease(_, role) => role.as_ref(),
        }
    }

    /// A failure that ends the stream, which says what it is about.
    pub fn failed(&self, failure: Failure) -> Failure {
        match self.right() {
            Some((_, path)) => of_part(path, failure),
            None => failure,
        }
    }

    fn topic(&self) -> Topic {
        match self {
            Self::Secret(path, _) | Self::Account(path) => Topic::Path(path.clone()),
            Self::Lease(id, _) => Topic::Lease(*id),
        }
    }
}

/// One item of an open stream.
#[derive(Debug, Clone)]
pub struct Standing {
    /// What it is.
    pub subject: Arc<Subject>,
    /// See [`Item`].
    pub warn_secs: u64,
    /// See [`Item`].
    pub seen: Option<Mark>,
    /// It was neither refused nor unreadable: only such are looked at.
    pub live: bool,
}

/// A stream that may begin.
pub struct Opened {
    /// Hears of changes since before the present was looked at.
    pub watcher: Watcher,
    /// The items, in the order asked; at least one is live.
    pub items: Vec<Standing>,
    /// Those that are not, and why.
    pub refused: Vec<(usize, Failure)>,
}

/// Makes the question whether the stream's caller still has these rights.
pub type Welcoming = Box<dyn Fn(&[Standing]) -> Welcome + Send + Sync>;

/// Opens a stream.
pub struct Watch {
    /// What is watched, at most [`super::ITEMS_MAX`].
    pub items: Vec<Item>,
    /// See [`Welcoming`].
    pub welcoming: Welcoming,
}

impl Operation for Watch {
    type Reply = Opened;
    const NAME: &'static str = "delivery.watch";
    const CLASS: Class = Class::Read;
    fn describe(&self, trail: &mut Trail) {
        trail.param_u64("items", self.items.len() as u64);
    }
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        counter()
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, trail: &mut Trail) -> Result<Effect<Opened>, Failure> {
        let (mut items, mut parts) = (Vec::new(), Vec::new());
        for item in &self.items {
            let (subject, part) = admit(rooms, permit, trail, &item.what).await?;
            items.push(Standing {
                subject: Arc::new(subject),
                warn_secs: item.warn_secs,
                seen: item.seen,
                live: part.leave.is_ok(),
            });
            parts.push(part);
        }
        let topics = items.iter().map(|item| item.subject.topic()).collect();
        let welcome = (self.welcoming)(&items);
        let mut watcher = rooms.store.notices().watch(permit.identity(), topics, welcome)?;
        let (mut records, mut refused) = (Vec::new(), Vec::new());
        // Looked at after the watcher listens: a change in between is heard of, not lost.
        for (index, (item, part)) in items.iter_mut().zip(parts).enumerate() {
            match part.look(rooms, item).await {
                Ok(sight) if item.seen != Some(sight.mark()) && !sight.is_quiet() => watcher.mark(index),
                Ok(sight) => {
                    item.seen = Some(sight.mark());
                    watcher.alarm(index, sight.alarm());
                }
                Err(failure) if concerns_one(&failure) => {
                    item.live = false;
                    refused.push((index, failure));
                }
                Err(failure) => return Err(failure),
            }
            let last = refused.last().filter(|(of, _)| *of == index);
            records.push(outcome::response(&part.trail, last.map(|(_, failure)| failure)));
        }
        if let (false, Some((_, failure)), Some(item)) =
            (items.iter().any(|item| item.live), refused.first(), items.first())
        {
            return Ok(Effect::Refused(records, item.subject.failed(failure.clone())));
        }
        records.push(trail.response(&Outcome::ok()));
        rooms.commit(Change::relaxed(), records).await?;
        Ok(Effect::Recorded(Opened {
            watcher,
            items,
            refused,
        }))
    }
}

/// Which of a stream's items its caller has no right to any more, asked when that is in doubt; the answer is recorded.
pub struct Again(pub Vec<Standing>);

impl Operation for Again {
    type Reply = Vec<(usize, Failure)>;
    const NAME: &'static str = "delivery.watch-again";
    const CLASS: Class = Class::Read;
    fn describe(&self, trail: &mut Trail) {
        trail.param_u64("items", self.0.len() as u64);
    }
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        counter()
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, trail: &mut Trail) -> Result<Effect<Self::Reply>, Failure> {
        let (mut records, mut refused) = (Vec::new(), Vec::new());
        for (index, item) in self.0.iter().enumerate().filter(|(_, item)| item.live) {
            let Some((action, path)) = item.subject.right() else {
                continue;
            };
            let part = decide(permit, trail, Self::NAME, action, path, Claim::Policy);
            match part.permit {
                Ok(_) => {}
                Err(failure) if concerns_one(&failure) => {
                    records.push(outcome::response(&part.trail, Some(&failure)));
                    refused.push((index, failure));
                }
                Err(failure) => return Err(failure),
            }
        }
        records.push(trail.response(&Outcome::ok()));
        rooms.commit(Change::relaxed(), records).await?;
        Ok(Effect::Recorded(refused))
    }
}

/// What happened to an item.
#[derive(Debug)]
pub enum Event {
    /// This is the present secret or password, and for how many seconds unless something is done (`None`: until it is changed).
    Changed(Box<Goods>, Option<u64>),
    /// There is no such secret, version or account (any more).
    Gone,
    /// The lease comes to its end, and has this many seconds left.
    LeaseDue(Box<Lease>, u64),
    /// There is no such lease (any more).
    LeaseGone(LeaseId),
    /// It is refused, or cannot be read: nothing more comes of it.
    Refused(Failure),
}

/// One look at an item.
#[derive(Debug)]
pub struct Pushed {
    /// What the consumer has seen once it has this.
    pub mark: Mark,
    /// `None`: nothing new.
    pub event: Option<Event>,
    /// When to look again although nothing changes.
    pub alarm: Option<Instant>,
}

/// Delivers an item, if it is not what the consumer has seen.
pub struct Push {
    /// Which.
    pub item: Standing,
    /// Whether values are sent along.
    pub values: bool,
}

impl Operation for Push {
    type Reply = Pushed;
    const NAME: &'static str = "delivery.push";
    const CLASS: Class = Class::Read;
    fn describe(&self, trail: &mut Trail) {
        if let Subject::Lease(id, _) = &*self.item.subject {
            trail.param_id("lease", id.as_bytes());
        }
        trail.param_bool("values", self.values);
    }
    async fn target(&self, rooms: &Open, caller: &Caller) -> Result<Target, Failure> {
        match &*self.item.subject {
            Subject::Lease(id, role) => lease_target(rooms, caller, *id, role.as_ref()).await,
            subject => {
                let (action, path) = subject.right().ok_or(Reason::Internal)?;
                Ok(Target::new(action, path.clone()))
            }
        }
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, trail: &mut Trail) -> Result<Effect<Pushed>, Failure> {
        let sight = look(rooms, Some(permit), &self.item).await?;
        let (mark, alarm) = (sight.mark(), sight.alarm());
        let news = self.item.seen != Some(mark) && !sight.is_quiet();
        trail.param_bool("news", news);
        let event = if news { Some(sight.event(rooms, trail)) } else { None };
        Ok(Effect::Answer(Pushed { mark, event, alarm }))
    }
}

/// One item at the opening: leave to look at it (`None`: there is nothing to look at), and the facts for its own record.
struct Part {
    leave: Result<Option<Permit>, Failure>,
    trail: Trail,
}

impl Part {
    async fn look(&self, rooms: &Open, item: &Standing) -> Result<Sight, Failure> {
        let leave = self.leave.as_ref().map_err(Clone::clone)?;
        look(rooms, leave.as_ref(), item).await
    }
}

/// What an item is, and whether it may be looked at.
async fn admit(rooms: &Open, permit: &Permit, trail: &Trail, what: &What) -> Result<(Subject, Part), Failure> {
    let (path, select) = match what {
        What::Path { path, select } => (path, select),
        What::Lease(id) => return admit_lease(rooms, permit, trail, *id).await,
    };
    let secret = Subject::Secret(path.clone(), select.clone());
    let (kind, action) = match right(rooms, path) {
        Ok(right) => right,
        Err(failure) => {
            let mut trail = trail.part(Watch::NAME);
            trail.path(path);
            let leave = Err(failure);
            return Ok((secret, Part { leave, trail }));
        }
    };
    let part = decide(permit, trail, Watch::NAME, action, path, Claim::Policy);
    let subject = match kind {
        Kind::Kv | Kind::Transit => secret,
        Kind::Postgres | Kind::MariaDb | Kind::RabbitMq | Kind::Redis => Subject::Account(path.clone()),
    };
    let leave = part.permit.map(Some);
    Ok((
        subject,
        Part {
            leave,
            trail: part.trail,
        },
    ))
}

/// A lease that is not the caller's looks like one that is gone.
async fn admit_lease(rooms: &Open, permit: &Permit, trail: &Trail, id: LeaseId) -> Result<(Subject, Part), Failure> {
    let mut nothing = trail.part(Watch::NAME);
    nothing.param_id("lease", id.as_bytes());
    let gone = |trail| (Subject::Lease(id, None), Part { leave: Ok(None), trail });
    let lease = match rooms.leases.get(id).await {
        Ok(lease) => lease,
        Err(LeaseError::Unknown) => return Ok(gone(nothing)),
        Err(error) => {
            let leave = Err(error.into());
            return Ok((Subject::Lease(id, None), Part { leave, trail: nothing }));
        }
    };
    let claim = if lease.identity == permit.identity() {
        Claim::Own
    } else {
        Claim::Policy
    };
    let mut part = decide(permit, trail, Watch::NAME, Action::LeaseRead, &lease.role, claim);
    part.trail.param_id("lease", id.as_bytes());
    Ok(match part.permit {
        Ok(leave) => {
            let leave = Ok(Some(leave));
            let subject = Subject::Lease(id, Some(lease.role));
            (
                subject,
                Part {
                    leave,
                    trail: part.trail,
                },
            )
        }
        Err(_) => gone(part.trail),
    })
}

async fn lease_target(rooms: &Open, caller: &Caller, id: LeaseId, role: Option<&Path>) -> Result<Target, Failure> {
    // Gone, or nothing to the caller: to be told so needs no more than a live token.
    let nothing = || {
        Ok(Target::own(
            Action::LeaseRead,
            Path::parse("sys/lease").map_err(|_| Reason::Internal)?,
        ))
    };
    let Some(role) = role else { return nothing() };
    match rooms.leases.get(id).await {
        Ok(lease) if lease.identity == caller.identity().id() => Ok(Target::own(Action::LeaseRead, lease.role)),
        Ok(lease) => Ok(Target::new(Action::LeaseRead, lease.role)),
        Err(LeaseError::Unknown) => Ok(Target::own(Action::LeaseRead, role.clone())),
        Err(error) => Err(error.into()),
    }
}

/// What there is to see of an item now.
enum Sight {
    Goods(Box<Goods>),
    Nothing,
    Lease {
        lease: Box<Lease>,
        left: Duration,
        warn: Duration,
    },
    NoLease(LeaseId),
}

impl Sight {
    fn mark(&self) -> Mark {
        match self {
            Self::Goods(goods) => goods.mark(),
            Self::Nothing => Mark::NOTHING,
            Self::Lease { lease, .. } => {
                let phase = match (lease.state, self.is_quiet()) {
                    (State::Revoking, _) => 3,
                    (State::Intent | State::Active, false) => 2,
                    (State::Intent | State::Active, true) => 1,
                };
                Mark::of_lease(phase, lease.expires)
            }
            Self::NoLease(_) => Mark::of_lease(4, Timestamp(0)),
        }
    }

    /// A lease far from its end: nothing to tell.
    fn is_quiet(&self) -> bool {
        match self {
            Self::Lease { lease, left, warn } => lease.state != State::Revoking && left > warn,
            Self::Goods(_) | Self::Nothing | Self::NoLease(_) => false,
        }
    }

    fn alarm(&self) -> Option<Instant> {
        match self {
            Self::Lease { left, warn, .. } if self.is_quiet() => Instant::now().checked_add(left.saturating_sub(*warn)),
            _ => None,
        }
    }

    fn event(self, rooms: &Open, trail: &mut Trail) -> Event {
        match self {
            Self::Goods(goods) => {
                let remaining = match &*goods {
                    Goods::Secret(secret) => {
                        trail.param_u64("version", secret.version);
                        None
                    }
                    Goods::Credential(Issued::Static { rotates, .. }) => *rotates,
                    Goods::Credential(Issued::Dynamic { lease, .. }) => Some(lease.expires),
                };
                let now = rooms.leases.now();
                Event::Changed(goods, remaining.map(|at| now.secs_until(at)))
            }
            Self::Nothing => Event::Gone,
            Self::Lease { lease, left, .. } => {
                trail.param_word("state", lease.state.word());
                Event::LeaseDue(lease, left.as_secs())
            }
            Self::NoLease(id) => Event::LeaseGone(id),
        }
    }
}

async fn look(rooms: &Open, permit: Option<&Permit>, item: &Standing) -> Result<Sight, Failure> {
    let Some(permit) = permit else {
        return Ok(match &*item.subject {
            Subject::Lease(id, _) => Sight::NoLease(*id),
            Subject::Secret(..) | Subject::Account(_) => Sight::Nothing,
        });
    };
    match &*item.subject {
        Subject::Secret(path, select) => match secret(rooms, permit, path, select).await {
            Ok(secret) => Ok(Sight::Goods(Box::new(Goods::Secret(secret)))),
            Err(failure) if failure.reason == Reason::NotFound => Ok(Sight::Nothing),
            Err(failure) => Err(failure),
        },
        Subject::Account(path) => {
            let (mount, name) = role_of(rooms, path)?;
            match rooms.engines.read(permit, &mount, &name).await {
                Ok(issued) => Ok(Sight::Goods(Box::new(Goods::Credential(issued)))),
                Err(RoomError::NoRole | RoomError::NotRotated { .. }) => Ok(Sight::Nothing),
                Err(error) => Err(error.into()),
            }
        }
        Subject::Lease(id, None) => Ok(Sight::NoLease(*id)),
        Subject::Lease(id, Some(_)) => match rooms.leases.get(*id).await {
            Ok(lease) => {
                let left = rooms.leases.now().until(lease.expires);
                let warn_secs = if item.warn_secs == 0 {
                    lease.ttl_secs / 3
                } else {
                    item.warn_secs
                };
                Ok(Sight::Lease {
                    lease: Box::new(lease),
                    left,
                    warn: Duration::from_secs(warn_secs),
                })
            }
            Err(LeaseError::Unknown) => Ok(Sight::NoLease(*id)),
            Err(error) => Err(error.into()),
        },
    }
}

impl From<Full> for Failure {
    fn from(full: Full) -> Self {
        match full {
            Full::Everywhere | Full::Identity => Self::with(Reason::Exhausted, full.to_string()),
            Full::Closed => Reason::Stopping.into(),
        }
    }
}
