//! The load: closed loops, one request in flight for each connection, or an open one, in which requests are due at their times whoever is free
//! for them. Any failed request ends the run. Below it what the callers of all systems share: whose turn it is, where they write, and which
//! leases wait to be revoked.

use crate::Fault;
use hdrhistogram::Histogram;
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// One request under way.
pub type Answered<'a> = Pin<Box<dyn Future<Output = Result<(), Fault>> + Send + 'a>>;

/// One connection, and what it asks again and again.
pub trait Caller: Send {
    /// Asks once; anything but the right answer is an error.
    fn call(&mut self) -> Answered<'_>;
}

/// Connections of one system.
pub type Callers = Vec<Box<dyn Caller>>;

/// When a loop ends.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After this long; requests in flight are waited for and count.
    Time(Duration),
    /// After so many requests, over all connections.
    Calls(u64),
    /// After this long; requests are due one `every` so long, over all connections, and their latency counts from then.
    Open {
        /// Between two of them.
        every: Duration,
        /// The last is due before this.
        time: Duration,
    },
}

/// What a loop did.
pub struct Ran {
    /// Nanoseconds of each request.
    pub latency: Histogram<u64>,
    /// Wall time.
    pub took: Duration,
}

impl Ran {
    /// Requests a second.
    #[allow(clippy::cast_precision_loss)]
    pub fn rate(&self) -> f64 {
        self.latency.len() as f64 / self.took.as_secs_f64()
    }
    /// Microseconds at a quantile.
    #[allow(clippy::cast_precision_loss)]
    pub fn micros(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// Runs every caller until the end and gives them back.
/// # Errors
/// The first failed request.
pub async fn run(callers: &mut Callers, until: Until) -> Result<Ran, Fault> {
    let began = Instant::now();
    let taken = Arc::new(AtomicU64::new(0));
    let mut loops = JoinSet::new();
    for mut caller in callers.drain(..) {
        let taken = Arc::clone(&taken);
        loops.spawn(async move {
            let mut latency = Histogram::<u64>::new(3)?;
            while let Some(asked) = due(until, began, &taken).await {
                caller.call().await?;
                latency.record(u64::try_from(asked.elapsed().as_nanos())?)?;
            }
            Ok::<_, Fault>((caller, latency))
        });
    }
    let mut latency = Histogram::<u64>::new(3)?;
    while let Some(ended) = loops.join_next().await {
        let (caller, own) = ended??;
        latency.add(own)?;
        callers.push(caller);
    }
    Ok(Ran {
        latency,
        took: began.elapsed(),
    })
}

/// Timers tick in milliseconds: the rest is waited for by asking the clock.
const TICK: Duration = Duration::from_millis(2);

/// When the next request of this connection is due; waits until then.
async fn due(until: Until, began: Instant, taken: &AtomicU64) -> Option<Instant> {
    match until {
        Until::Time(time) => (began.elapsed() < time).then(Instant::now),
        Until::Calls(calls) => (taken.fetch_add(1, Ordering::Relaxed) < calls).then(Instant::now),
        Until::Open { every, time } => {
            let after = every * u32::try_from(taken.fetch_add(1, Ordering::Relaxed)).ok()?;
            if after >= time {
                return None;
            }
            let due = began + after;
            tokio::time::sleep(due.saturating_duration_since(Instant::now()).saturating_sub(TICK)).await;
            while Instant::now() < due {
                tokio::task::yield_now().await;
            }
            Some(due)
        }
    }
}

/// Numbers of one connection's requests, which no other connection has.
pub struct Turn {
    next: u64,
    step: u64,
}

impl Turn {
    /// Of the connection `at` of `conns`.
    pub const fn new(at: usize, conns: usize) -> Self {
        Self {
            next: at as u64,
            step: conns as u64,
        }
    }
    /// The next.
    pub const fn next(&mut self) -> u64 {
        let now = self.next;
        self.next += self.step;
        now
    }
}

/// Leases that were issued and not yet revoked.
pub type Leases = Arc<Mutex<Vec<String>>>;

/// Takes one.
/// # Errors
/// None is left.
pub fn take(leases: &Leases) -> Result<String, Fault> {
    leases
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .pop()
        .ok_or_else(|| "no lease is left".into())
}

/// Adds one.
pub fn put(leases: &Leases, lease: String) {
    leases.lock().unwrap_or_else(PoisonError::into_inner).push(lease);
}

/// Where writers write.
#[derive(Clone)]
pub enum Paths {
    /// Every connection goes round among some paths of its own: new versions of them.
    Rounds,
    /// A new path each time, counted over all connections, a hundred folders.
    New(Arc<AtomicU64>),
    /// The same, where readers look.
    Read(Arc<AtomicU64>),
}

/// Paths that a writer goes round among.
pub const WRITER_PATHS: u64 = 16;

impl Paths {
    /// The next path of the writer `at`, which has done `done`; below the mount.
    pub fn next(&self, at: usize, done: u64) -> String {
        match self {
            Self::Rounds => format!("w{at}/s{}", done % WRITER_PATHS),
            Self::New(count) => {
                let n = count.fetch_add(1, Ordering::Relaxed);
                format!("f{}/s{n}", n % 100)
            }
            Self::Read(count) => format!("r/s{}", count.fetch_add(1, Ordering::Relaxed)),
        }
    }
}
