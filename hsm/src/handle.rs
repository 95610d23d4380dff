//! The handle that the daemon holds: blocking calls with a deadline, a bounded queue, cached health.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::actor::Actor;
use crate::blob::HsmBlob;
use crate::config::{HsmConfig, PinSource};
use crate::error::{ErrorKind, HsmError};
use crate::launch::Launcher;
use crate::name::{KeyInfo, KeyKind, Ring};
use crate::pin::Pin;
use crate::wire::{CONTEXT_BYTES_MAX, PinFlags, Reply, Request, Seed, TokenIdentity, Trial};

/// Most calls waiting for one token.
pub const QUEUE_MAX: usize = 64;
/// The actor keeps the deadline; a caller waits this much longer for its word on it.
const GRACE: Duration = Duration::from_secs(2);

/// What is known of a token without asking it.
#[derive(Debug, Clone)]
pub struct Health {
    /// In one word.
    pub state: State,
    /// Who the token says it is, once seen.
    pub token: Option<TokenIdentity>,
    /// Its PIN warnings when last seen, before the log-in.
    pub pin: PinFlags,
    /// Last successful call.
    pub last_ok: Option<SystemTime>,
    /// How long that took, waiting excluded.
    pub latency: Option<Duration>,
    /// Workers started so far.
    pub spawns: u64,
    /// The worker's process id while there is one.
    pub worker: Option<u32>,
    /// The newest failure of the token (not of a caller), until it works again.
    pub last_error: Option<HsmError>,
}

/// A token's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Never reached yet.
    Starting,
    /// The last call or probe worked.
    Up,
    /// It did not; it is being tried again.
    Down,
    /// A person is needed: PIN refused, locked, held back or missing.
    Held,
    /// Stopped; the next call starts it.
    Stopped,
}

/// One token. Cheap to clone; calls block for at most their deadline (5 s, 60 s when keys are made), so an
/// async caller wraps them in `spawn_blocking`. When the last clone is dropped the worker ends.
#[derive(Clone)]
pub struct Hsm {
    shared: Arc<Shared>,
    _end: Arc<End>,
}

/// What handle and actor share.
pub(crate) struct Shared {
    pub(crate) config: HsmConfig,
    pub(crate) health: Mutex<Health>,
    /// The prompted PIN, if that is where PINs come from and one was given.
    pub(crate) pin: Mutex<Option<Pin>>,
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    stops: Vec<SyncSender<()>>,
    forgiven: bool,
    closed: bool,
}

pub(crate) struct Job {
    pub(crate) request: Request,
    pub(crate) deadline: Instant,
    pub(crate) reply: SyncSender<Result<Reply, HsmError>>,
}

/// What the actor does next.
pub(crate) enum Next {
    Job(Job),
    Stop(Vec<SyncSender<()>>),
    Forgive,
    Idle,
    Close,
}

impl Hsm {
    /// Starts the actor of a token and returns at once, whatever the token does; see `health`.
    /// # Errors
    /// `Invalid` for a configuration out of bounds, `Device` when no thread can be made.
    pub fn start(config: HsmConfig, launcher: Launcher) -> Result<Self, HsmError> {
        config.check()?;
        let shared = Arc::new(Shared::new(config));
        let actor = Actor::new(Arc::clone(&shared), launcher);
        std::thread::Builder::new()
            .name(format!("hsm-{}", shared.config.name))
            .spawn(move || actor.run())
            .map_err(|e| HsmError::new(ErrorKind::Device, format!("thread: {e}")))?;
        Ok(Self {
            _end: Arc::new(End(Arc::clone(&shared))),
            shared,
        })
    }

    /// NAME of the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.config.name
    }

    /// Makes version `version` (from 1) of a key on the token. A KEK gets the configured mechanism, or the first
    /// that seals, opens and refuses as it must on this token, tried with the new key itself.
    /// # Errors
    /// `KeyExists`; `Unsupported` when no mechanism passes; `Timeout` and `Crashed` leave it open whether the
    /// key was made (see `list`). Never repeated by itself.
    pub fn create(&self, ring: &Ring, version: u32, kind: KeyKind) -> Result<KeyInfo, HsmError> {
        let mechanism = self.shared.config.mechanism;
        let request = Request::Create {
            ring: ring.clone(),
            version: numbered(version)?,
            kind,
            mechanism,
        };
        match self.call(request, self.shared.config.deadlines.keygen)? {
            Reply::Key(info) => Ok(info),
            _ => Err(unexpected()),
        }
    }

    /// Seals 32 bytes under a KEK, bound to `context` (at most 1024 bytes).
    /// # Errors
    /// `KeyMissing`, or what the token does; `Invalid` for a longer context.
    pub fn seal(
        &self,
        ring: &Ring,
        version: u32,
        context: &[u8],
        seed: &Zeroizing<[u8; 32]>,
    ) -> Result<HsmBlob, HsmError> {
        let context = bounded(context)?;
        let request = Request::Seal {
            ring: ring.clone(),
            version: numbered(version)?,
            context,
            seed: boxed(seed),
        };
        match self.call(request, self.shared.config.deadlines.call)? {
            Reply::Blob(blob) => Ok(blob),
            _ => Err(unexpected()),
        }
    }

    /// Opens what `seal` made.
    /// # Errors
    /// `Integrity` when blob, name or context differ from what was sealed; `KeyMissing` when the token does
    /// not hold the key, said after a fresh `C_Initialize`.
    pub fn open(&self, blob: &HsmBlob, context: &[u8]) -> Result<Zeroizing<[u8; 32]>, HsmError> {
        let request = Request::Open {
            blob: blob.clone(),
            context: bounded(context)?,
        };
        match self.call(request, self.shared.config.deadlines.call)? {
            Reply::Seed(seed) => Ok(*seed),
            _ => Err(unexpected()),
        }
    }

    /// Rotation: opens `blob`, seals the same seed under `version` of the ring (made before), opens that and
    /// compares. The caller stores the new blob and destroys the old version after a grace period.
    /// # Errors
    /// As `seal` and `open`; `Integrity` if the new blob does not give the same seed.
    pub fn reseal(&self, blob: &HsmBlob, version: u32, context: &[u8]) -> Result<HsmBlob, HsmError> {
        let seed = self.open(blob, context)?;
        let fresh = self.seal(&blob.ring, version, context, &seed)?;
        let again = self.open(&fresh, context)?;
        if bool::from(seed[..].ct_eq(&again[..])) {
            Ok(fresh)
        } else {
            Err(HsmError::new(
                ErrorKind::Integrity,
                "the new seal opens to another seed",
            ))
        }
    }

    /// The keys of a ring, oldest version first; at most 512.
    /// # Errors
    /// What the token does.
    pub fn list(&self, ring: &Ring) -> Result<Vec<KeyInfo>, HsmError> {
        match self.call(Request::List { ring: ring.clone() }, self.shared.config.deadlines.call)? {
            Reply::Keys(keys) => Ok(keys),
            _ => Err(unexpected()),
        }
    }

    /// Destroys every object of a key version. What it sealed is lost. Never repeated by itself.
    /// # Errors
    /// `KeyMissing` when there is none.
    pub fn destroy(&self, ring: &Ring, version: u32) -> Result<(), HsmError> {
        let request = Request::Destroy {
            ring: ring.clone(),
            version: numbered(version)?,
        };
        self.done(request, self.shared.config.deadlines.call)
    }

    /// Signs a SHA-256 digest. ES256: 64 bytes `r || s`; PS256: one modulus.
    /// # Errors
    /// `KeyMissing`, or what the token does.
    pub fn sign(&self, ring: &Ring, version: u32, digest: &[u8; 32]) -> Result<Vec<u8>, HsmError> {
        let request = Request::Sign {
            ring: ring.clone(),
            version: numbered(version)?,
            digest: *digest,
        };
        self.bytes(request)
    }

    /// The public key as DER `SubjectPublicKeyInfo` (RFC 5280, 4.1.2.7).
    /// # Errors
    /// `KeyMissing`, or what the token does.
    pub fn public_key(&self, ring: &Ring, version: u32) -> Result<Vec<u8>, HsmError> {
        self.bytes(Request::PublicKey {
            ring: ring.clone(),
            version: numbered(version)?,
        })
    }

    /// Tries every mechanism with throw-away keys: seal, open, flip a bit, wrong context.
    /// # Errors
    /// What the token does.
    pub fn self_test(&self) -> Result<Vec<Trial>, HsmError> {
        match self.call(Request::SelfTest, self.shared.config.deadlines.keygen)? {
            Reply::Trials(trials) => Ok(trials),
            _ => Err(unexpected()),
        }
    }

    /// What is known of the token; never waits for it. Renewed by every call and by a probe every 10 s.
    #[must_use]
    pub fn health(&self) -> Health {
        self.shared.health.lock().clone()
    }

    /// An operator says: log in once more, in spite of a refusal or the token's warnings.
    pub fn forgive_pin(&self) {
        self.shared.queue.lock().forgiven = true;
        self.shared.wake.notify_one();
    }

    /// Takes a prompted PIN and allows one try with it (giving a PIN is an operator's act).
    /// # Errors
    /// `Invalid` when this token's PIN is not prompted.
    pub fn give_pin(&self, pin: Pin) -> Result<(), HsmError> {
        if self.shared.config.pin != PinSource::Prompted {
            return Err(HsmError::invalid("the PIN of this token comes from a file"));
        }
        *self.shared.pin.lock() = Some(pin);
        self.forgive_pin();
        Ok(())
    }

    /// Ends the worker, and with it the session and all it held. Calls that wait get `Stopped`; a running one
    /// ends first (its deadline is the bound). The next call starts a worker again.
    pub fn stop(&self) {
        let (done, wait) = sync_channel(1);
        {
            let mut queue = self.shared.queue.lock();
            queue.stops.push(done);
            for job in queue.jobs.drain(..) {
                let _ = job.reply.try_send(Err(HsmError::new(ErrorKind::Stopped, "")));
            }
        }
        self.shared.wake.notify_one();
        let _ = wait.recv_timeout(self.shared.config.deadlines.keygen + GRACE);
    }

    fn call(&self, request: Request, within: Duration) -> Result<Reply, HsmError> {
        let deadline = Instant::now() + within;
        let (reply, wait) = sync_channel(1);
        {
            let mut queue = self.shared.queue.lock();
            if queue.jobs.len() >= QUEUE_MAX {
                return Err(HsmError::new(ErrorKind::Busy, ""));
            }
            queue.jobs.push_back(Job {
                request,
                deadline,
                reply,
            });
        }
        self.shared.wake.notify_one();
        match wait.recv_timeout(within + GRACE) {
            Ok(answer) => answer,
            Err(_) => Err(HsmError::new(ErrorKind::Timeout, "")),
        }
    }

    fn bytes(&self, request: Request) -> Result<Vec<u8>, HsmError> {
        match self.call(request, self.shared.config.deadlines.call)? {
            Reply::Bytes(bytes) => Ok(bytes),
            _ => Err(unexpected()),
        }
    }

    fn done(&self, request: Request, within: Duration) -> Result<(), HsmError> {
        match self.call(request, within)? {
            Reply::Done => Ok(()),
            _ => Err(unexpected()),
        }
    }
}

impl std::fmt::Debug for Hsm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hsm")
            .field("name", &self.shared.config.name)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn new(config: HsmConfig) -> Self {
        let health = Health {
            state: State::Starting,
            token: None,
            pin: PinFlags::default(),
            last_ok: None,
            latency: None,
            spawns: 0,
            worker: None,
            last_error: None,
        };
        Self {
            config,
            health: Mutex::new(health),
            pin: Mutex::new(None),
            queue: Mutex::new(Queue::default()),
            wake: Condvar::new(),
        }
    }

    /// Waits for work, at most until `idle_at`.
    pub(crate) fn next(&self, idle_at: Option<Instant>) -> Next {
        let mut queue = self.queue.lock();
        loop {
            if queue.closed {
                return Next::Close;
            }
            if !queue.stops.is_empty() {
                return Next::Stop(std::mem::take(&mut queue.stops));
            }
            if std::mem::take(&mut queue.forgiven) {
                return Next::Forgive;
            }
            if let Some(job) = queue.jobs.pop_front() {
                return Next::Job(job);
            }
            match idle_at {
                None => self.wake.wait(&mut queue),
                Some(at) => {
                    if self.wake.wait_until(&mut queue, at).timed_out() {
                        return Next::Idle;
                    }
                }
            }
        }
    }
}

/// Ends the actor when the last handle goes.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.queue.lock().closed = true;
        self.0.wake.notify_one();
    }
}

/// A copy that stands nowhere else.
fn boxed(seed: &Zeroizing<[u8; 32]>) -> Seed {
    let mut copy = Seed::default();
    copy.copy_from_slice(&seed[..]);
    copy
}

fn numbered(version: u32) -> Result<u32, HsmError> {
    if version == 0 {
        Err(HsmError::invalid("key versions begin with 1"))
    } else {
        Ok(version)
    }
}

fn bounded(context: &[u8]) -> Result<Vec<u8>, HsmError> {
    if context.len() > CONTEXT_BYTES_MAX {
        return Err(HsmError::invalid("context longer than 1024 bytes"));
    }
    Ok(context.to_vec())
}

fn unexpected() -> HsmError {
    HsmError::protocol("unexpected answer")
}
