//! The actor: one thread a token, which owns its worker. The worker process is the unit of recovery: whatever
//! makes a session doubtful ends the process, and the next one starts with a fresh `C_Initialize` and its one
//! log-in (16 to 40 ms on software tokens). So there is one way to recover from a hang, an abort, a device
//! error and a lost session.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use zeroize::Zeroizing;

use crate::config::PinSource;
use crate::error::{ErrorKind, HsmError};
use crate::gate::Gate;
use crate::handle::{Job, Next, Shared, State};
use crate::launch::{Launcher, Started};
use crate::name::Ring;
use crate::wire::{Channel, Pin, Reply, Request};

/// Waits between starts of a worker that fail: doubled from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// "No such key" is believed when `C_Initialize` is not older than this.
const FRESH: Duration = Duration::from_secs(2);
/// Every so many probes one seals and opens, besides looking for the key and drawing random bytes.
const DEEP_PROBE_EVERY: u32 = 30;
/// How long a worker may take for `C_Finalize` when told to end.
const EXIT_GRACE: Duration = Duration::from_secs(1);

pub(crate) struct Actor {
    shared: Arc<Shared>,
    launcher: Launcher,
    gate: Gate,
    worker: Option<Worker>,
    /// Why no worker is started until an operator acts.
    held: Option<HsmError>,
    stopped: bool,
    failures: u32,
    not_before: Instant,
    probes: u32,
    /// The KEK last used: what a probe looks for. SoftHSM's keys "vanish" when its directory does.
    canary: Option<(Ring, u32)>,
}

struct Worker {
    process: Started,
    channel: Channel,
    born: Instant,
}

impl Actor {
    pub(crate) fn new(shared: Arc<Shared>, launcher: Launcher) -> Self {
        let gate = Gate::new(&shared.config.state_dir, &shared.config.module);
        Self {
            shared,
            launcher,
            gate,
            worker: None,
            held: None,
            stopped: false,
            failures: 0,
            not_before: Instant::now(),
            probes: 0,
            canary: None,
        }
    }

    pub(crate) fn run(mut self) {
        self.probe();
        loop {
            match self.shared.next(self.idle_at()) {
                Next::Job(job) => self.serve(job),
                Next::Idle => self.probe(),
                Next::Forgive => {
                    self.gate.forgive();
                    self.held = None;
                    self.failures = 0;
                    self.not_before = Instant::now();
                    if !self.stopped {
                        self.probe();
                    }
                }
                Next::Stop(waiting) => {
                    self.end_worker(true);
                    self.stopped = true;
                    self.shared.health.lock().state = State::Stopped;
                    for done in waiting {
                        let _ = done.try_send(());
                    }
                }
                Next::Close => {
                    self.end_worker(true);
                    return;
                }
            }
        }
    }

    /// When to look after the token unasked: not while stopped or held.
    fn idle_at(&self) -> Option<Instant> {
        if self.stopped || self.held.is_some() {
            return None;
        }
        let pause = self.shared.config.deadlines.probe;
        Some(if self.worker.is_some() {
            Instant::now() + pause
        } else {
            self.not_before
        })
    }

    fn probe(&mut self) {
        // After a failure every probe is deep, or a token that only looks alive would seem to recover.
        let deep = self.probes.is_multiple_of(DEEP_PROBE_EVERY) || self.shared.health.lock().state != State::Up;
        self.probes = self.probes.wrapping_add(1);
        let deadline = Instant::now() + self.shared.config.deadlines.call;
        let key = self.canary.clone();
        if let Err(error) = self.call(&Request::Probe { deep, key }, deadline) {
            if error.kind == ErrorKind::KeyMissing {
                let mut health = self.shared.health.lock();
                health.state = State::Down;
                health.last_error = Some(error.clone());
            }
            tracing::warn!(hsm = self.shared.config.name, %error, "token does not answer its probe");
        }
    }

    fn serve(&mut self, job: Job) {
        self.stopped = false;
        let answer = if Instant::now() >= job.deadline {
            Err(HsmError::new(ErrorKind::Timeout, "the call waited too long"))
        } else {
            self.call(&job.request, job.deadline)
        };
        let _ = job.reply.try_send(answer);
    }

    /// One call with its one retry.
    fn call(&mut self, request: &Request, deadline: Instant) -> Result<Reply, HsmError> {
        if !request.repeatable() {
            // It must find the token as it is, and a worker that works: so it gets a new one.
            self.end_worker(true);
        }
        let begun = Instant::now();
        let old = self.worker.is_some();
        let mut answer = self.attempt(request, deadline);
        let timed_out = answer.as_ref().is_err_and(|e| e.kind == ErrorKind::Timeout);
        if old && self.worker.is_none() && !timed_out {
            tracing::info!(hsm = self.shared.config.name, "trying once more with a new worker");
            answer = self.attempt(request, deadline);
        }
        self.remember(request, &answer);
        self.note(&answer, begun);
        answer
    }

    fn remember(&mut self, request: &Request, answer: &Result<Reply, HsmError>) {
        match (request, answer) {
            (Request::Seal { ring, version, .. }, Ok(_)) => self.canary = Some((ring.clone(), *version)),
            (Request::Open { blob, .. }, Ok(_)) => self.canary = Some((blob.ring.clone(), blob.version)),
            (Request::Destroy { .. }, _) => self.canary = None,
            _ => {}
        }
    }

    /// One try. Ends the worker when the failure leaves it in doubt.
    fn attempt(&mut self, request: &Request, deadline: Instant) -> Result<Reply, HsmError> {
        self.ensure(deadline)?;
        let Some(worker) = &mut self.worker else {
            return Err(HsmError::protocol("no worker"));
        };
        let answer = worker.exchange(request, deadline);
        let fresh = worker.born.elapsed() <= FRESH;
        match &answer {
            Err(error) if ends_worker(error.kind) => {
                self.penalize();
                self.end_worker(false);
            }
            // SoftHSM finds nothing when its directory was away: believed only from a fresh worker.
            Err(HsmError {
                kind: ErrorKind::KeyMissing,
                ..
            }) if !fresh => self.end_worker(true),
            Ok(Reply::Keys(keys)) if keys.is_empty() && !fresh => self.end_worker(true),
            Ok(_) => self.failures = 0,
            Err(_) => {}
        }
        answer
    }

    /// A worker that is logged in, or why there is none.
    fn ensure(&mut self, deadline: Instant) -> Result<(), HsmError> {
        if self.worker.is_some() {
            return Ok(());
        }
        if let Some(held) = &self.held {
            return Err(HsmError::new(ErrorKind::AuthHeld, held.to_string()));
        }
        let wait = self.not_before.saturating_duration_since(Instant::now());
        if Instant::now() + wait >= deadline {
            let last = self.shared.health.lock().last_error.as_ref().map(ToString::to_string);
            return Err(HsmError::new(ErrorKind::Unavailable, last.unwrap_or_default()));
        }
        std::thread::sleep(wait);
        match self.start(deadline) {
            Ok(worker) => {
                self.worker = Some(worker);
                Ok(())
            }
            Err(error) => {
                self.penalize();
                if matches!(
                    error.kind,
                    ErrorKind::AuthFailed | ErrorKind::AuthLocked | ErrorKind::AuthHeld
                ) {
                    self.held = Some(error.clone());
                    tracing::error!(hsm = self.shared.config.name, %error, "log-in stopped until an operator acts");
                }
                Err(error)
            }
        }
    }

    /// Puts the next start off, longer with each failure in a row.
    fn penalize(&mut self) {
        self.failures = self.failures.saturating_add(1);
        let pause = BACKOFF
            .0
            .saturating_mul(1 << self.failures.min(16).saturating_sub(1))
            .min(BACKOFF.1);
        self.not_before = Instant::now() + pause;
    }

    /// Starts a process, greets it, logs in once.
    fn start(&mut self, deadline: Instant) -> Result<Worker, HsmError> {
        let pin = self.pin()?;
        let (process, stream) = self.launcher.start(&self.shared.config)?;
        {
            let mut health = self.shared.health.lock();
            health.spawns += 1;
            health.worker = Some(process.pid);
        }
        let mut worker = Worker {
            process,
            channel: Channel::new(stream),
            born: Instant::now(),
        };
        match self.greet(&mut worker, pin, deadline) {
            Ok(()) => Ok(worker),
            Err(error) => {
                self.shared.health.lock().worker = None;
                worker.end(&self.launcher, false);
                Err(error)
            }
        }
    }

    fn greet(&mut self, worker: &mut Worker, pin: Pin, deadline: Instant) -> Result<(), HsmError> {
        let config = &self.shared.config;
        let path = match &pin {
            Pin::File(path) => Some(path.clone()),
            Pin::Bytes(_) => None,
        };
        let hello = Request::Hello {
            token: config.token.clone(),
            landlock: config.landlock_paths.clone(),
            pin: path,
        };
        let Reply::Token { identity, pin: flags } = worker.exchange(&hello, deadline)? else {
            return Err(HsmError::protocol("no greeting"));
        };
        {
            let mut health = self.shared.health.lock();
            health.token = Some(identity.clone());
            health.pin = flags;
        }
        let attempt = self.gate.attempt(&identity, flags)?;
        match worker.exchange(&Request::Login { pin }, deadline) {
            Ok(_) => attempt.passed(),
            Err(error) => {
                match error.kind {
                    ErrorKind::AuthFailed | ErrorKind::AuthLocked => attempt.refused()?,
                    // Nobody knows whether the token counted it: the record stays as written.
                    ErrorKind::Timeout | ErrorKind::Crashed | ErrorKind::Protocol => {}
                    _ => attempt.passed()?,
                }
                Err(error)
            }
        }
    }

    fn pin(&self) -> Result<Pin, HsmError> {
        if let Some(path) = self.shared.config.pin.path()? {
            return Ok(Pin::File(path));
        }
        debug_assert_eq!(self.shared.config.pin, PinSource::Prompted);
        match &*self.shared.pin.lock() {
            Some(pin) => Ok(Pin::Bytes(Zeroizing::new(pin.expose().to_vec()))),
            None => Err(HsmError::new(ErrorKind::PinNeeded, "nobody has given the PIN yet")),
        }
    }

    /// Ends the worker. `graceful`: tells it to finalize the module first, and waits a little.
    fn end_worker(&mut self, graceful: bool) {
        if let Some(worker) = self.worker.take() {
            self.shared.health.lock().worker = None;
            worker.end(&self.launcher, graceful);
        }
    }

    /// Keeps the health that `Hsm::health` shows.
    fn note(&self, answer: &Result<Reply, HsmError>, begun: Instant) {
        let mut health = self.shared.health.lock();
        match answer {
            Ok(_) => {
                health.state = State::Up;
                health.last_ok = Some(SystemTime::now());
                health.latency = Some(begun.elapsed());
                health.last_error = None;
            }
            Err(error) => {
                let state = match error.kind {
                    ErrorKind::AuthFailed | ErrorKind::AuthLocked | ErrorKind::AuthHeld | ErrorKind::PinNeeded => {
                        State::Held
                    }
                    kind if ends_worker(kind) || self.worker.is_none() => State::Down,
                    // The caller's error; the token did its work.
                    _ => return,
                };
                health.state = state;
                if error.kind != ErrorKind::Unavailable {
                    health.last_error = Some(error.clone());
                }
            }
        }
    }
}

impl Worker {
    fn exchange(&mut self, request: &Request, deadline: Instant) -> Result<Reply, HsmError> {
        let lost = |e: io::Error| match e.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => HsmError::new(ErrorKind::Timeout, ""),
            io::ErrorKind::InvalidData => HsmError::protocol("message too long"),
            _ => HsmError::new(ErrorKind::Crashed, e.to_string()),
        };
        self.channel.send(&request.encode(), Some(deadline)).map_err(lost)?;
        match Reply::decode(&self.channel.receive(Some(deadline)).map_err(lost)?)? {
            Reply::Failed(error) => Err(error),
            reply => Ok(reply),
        }
    }

    fn end(mut self, launcher: &Launcher, graceful: bool) {
        let deadline = Some(Instant::now() + EXIT_GRACE);
        if graceful && self.channel.send(&Request::Exit.encode(), deadline).is_ok() {
            // It closes its end when it is gone; anything else it says no longer matters.
            while self.channel.receive(deadline).is_ok() {}
        }
        launcher.end(self.process);
    }
}

impl Request {
    /// Whether doing it twice is the same as doing it once.
    fn repeatable(&self) -> bool {
        !matches!(self, Self::Create { .. } | Self::Destroy { .. } | Self::Login { .. })
    }
}

/// Failures after which nothing the worker holds can be trusted.
fn ends_worker(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::SessionLost | ErrorKind::Device | ErrorKind::Timeout | ErrorKind::Crashed | ErrorKind::Protocol
    )
}
