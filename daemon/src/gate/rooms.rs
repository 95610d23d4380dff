//! The rooms that open with the vault, and the work they do on their own while it is open.

use super::{Call, Failure, Origin, Reason};
use crate::{
    audit::{Admission, AuditHasher, Outcome, Recorder, Refusals, Trail},
    auth::AuthRoom,
    base::{
        id::{BootId, MountId, SessionId},
        page::PageKey,
        random::Random,
        secret::SecretBytes,
        time::Clock,
    },
    engine::{EngineRoom, Engines, Surroundings as EngineSurroundings},
    kv::KvRoom,
    lease::{self, LeaseRoom, Scope, Surroundings as LeaseSurroundings},
    mount::MountRoom,
    policy::{Caller, Permit, PolicyRoom},
    store::{Change, CommitError, Committed, Store},
    token::{Ceremony, Created, TokenRoom},
    transit::{Signers, TransitRoom},
    vault::{self, Guard, RoomsError},
};
use parking_lot::Mutex;
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use strongroom_audit::Encoded;
use tokio::{sync::Notify, task::JoinSet};

/// The open rooms, kept open by a request that is inside.
pub type Open = Guard<Rooms>;

/// Between two sweeps of expired tokens.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// Between two looks at what must be destroyed in HSMs.
const FORGET_EVERY: Duration = Duration::from_secs(5);
/// Sessions that are settled in one go.
const SETTLE_SESSIONS: usize = 64;

/// What rooms are made from, besides the store.
pub struct Foundations {
    /// Wall and monotonic time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub random: Arc<dyn Random>,
    /// This run.
    pub boot: BootId,
    /// Makes records.
    pub recorder: Arc<Recorder>,
    /// HSMs that hold keys of callers.
    pub signers: Arc<dyn Signers>,
    /// How many leases there may be.
    pub quotas: lease::Quotas,
    /// How many refusals are written down.
    pub refusals: Refusals,
    /// Set while `init` runs: the vault's first records are then written.
    pub founding: AtomicBool,
}

impl Foundations {
    /// Whether a refusal with `bytes` of records is written down. A flood from one source is counted and summarised; when all of them together
    /// have spent their bytes, the connection ends without an answer.
    pub(super) fn may_record(&self, origin: &Origin, bytes: usize) -> bool {
        let (now, mono) = (self.clock.now(), self.clock.monotonic());
        match self.refusals.admit(origin.source, bytes, now, mono) {
            Admission::Write => true,
            Admission::Count => false,
            Admission::Drop => {
                origin.doom.seal();
                false
            }
        }
    }
}

/// Everything that serves requests while the vault is open.
pub struct Rooms {
    /// The open store.
    pub store: Arc<Store>,
    /// Who is calling.
    pub tokens: Arc<TokenRoom>,
    /// Who may come in.
    pub auth: AuthRoom,
    /// Who may do what.
    pub policy: PolicyRoom,
    /// What is where.
    pub mounts: Arc<MountRoom>,
    /// Static secrets.
    pub kv: KvRoom,
    /// Keys that work for callers.
    pub transit: TransitRoom,
    /// Promises to revoke.
    pub leases: Arc<LeaseRoom>,
    /// Credentials.
    pub engines: EngineRoom,
    /// Keyed hashes for the audit log.
    pub hasher: Arc<AuditHasher>,
    pages: PageKey,
    settle: Arc<Notify>,
    work: Mutex<JoinSet<()>>,
}

impl Rooms {
    /// Opens them all. Nothing here grows with the number of secrets or leases.
    /// # Errors
    /// The first that does not open, with its cause.
    pub async fn open(store: Arc<Store>, from: &Foundations) -> Result<Arc<Self>, RoomsError> {
        if from.founding.load(Ordering::Acquire) {
            store.commit(PolicyRoom::found(&store)?, Vec::new()).await?;
        }
        let (clock, random) = (|| Arc::clone(&from.clock), || Arc::clone(&from.random));
        let keyring = store.keyring()?;
        let tokens = Arc::new(TokenRoom::load(&store, clock(), random()).await?);
        let mounts = Arc::new(MountRoom::load(&store, clock(), random()).await?);
        let around = EngineSurroundings {
            boot: from.boot,
            clock: clock(),
            random: random(),
        };
        let engines = Engines::new(&store, &from.recorder, around);
        let leases = Arc::new(
            LeaseRoom::open(
                lease_surroundings(
                    &store,
                    from,
                    Grounds {
                        tokens: Arc::clone(&tokens),
                        mounts: Arc::clone(&mounts),
                    },
                ),
                engines.clone(),
            )
            .await?,
        );
        let rooms = Arc::new(Self {
            auth: AuthRoom::load(&store, Arc::clone(&tokens), clock(), random()).await?,
            policy: PolicyRoom::load(&store, clock()).await?,
            kv: KvRoom::open(&store, Arc::clone(&mounts), clock(), random())?,
            transit: TransitRoom::open(
                &store,
                Arc::clone(&mounts),
                Arc::clone(&from.signers),
                clock(),
                random(),
            ),
            engines: EngineRoom::open(engines, Arc::clone(&leases)),
            hasher: Arc::new(AuditHasher::new(keyring.audit_key(), 1)?),
            pages: PageKey::derive(keyring.audit_key())?,
            settle: Arc::new(Notify::new()),
            work: Mutex::new(JoinSet::new()),
            store,
            tokens,
            mounts,
            leases,
        });
        rooms.work.lock().spawn(Arc::clone(rooms.store.notices()).run());
        rooms.work.lock().spawn(keep_house(
            Arc::downgrade(&rooms),
            Arc::clone(&rooms.settle),
            Arc::clone(&from.recorder),
        ));
        rooms
            .work
            .lock()
            .spawn(forget_objects(Arc::downgrade(&rooms), Arc::clone(&from.recorder)));
        Ok(rooms)
    }

    /// Whose token a call presents.
    /// # Errors
    /// `Unauthenticated`, whatever is wrong with it; `Possession` or `UseDpopNonce` when it is bound to a key that the caller does not show.
    pub fn identify(&self, call: &Call) -> Result<Arc<Caller>, Failure> {
        let caller = self.bearer(call.token.as_ref())?;
        if let Some(bound) = caller.log_in().and_then(|log_in| log_in.bound) {
            call.holds(bound)?;
        }
        Ok(caller)
    }

    /// Whose token this is.
    /// # Errors
    /// As [`Self::identify`].
    pub fn bearer(&self, token: Option<&SecretBytes>) -> Result<Arc<Caller>, Failure> {
        let text = token.and_then(|token| std::str::from_utf8(token.expose()).ok());
        text.and_then(|text| self.tokens.identify(text).ok())
            .ok_or_else(|| Reason::Unauthenticated.into())
    }

    /// The token of a listing's next page, good for the same question of the same caller.
    pub fn page_token(&self, permit: &Permit, question: [&str; 2], next: &[u8]) -> Vec<u8> {
        let (caller, [listing, place]) = (permit.identity(), question);
        let words = [listing.as_bytes(), caller.as_bytes(), place.as_bytes()];
        self.pages.seal(&words, next)
    }

    /// Where a page goes on, by the token of the page before.
    /// # Errors
    /// `Malformed` for a token of another listing, another caller or nobody.
    pub fn page_start(
        &self,
        permit: &Permit,
        question: [&str; 2],
        token: Option<&[u8]>,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let (caller, [listing, place]) = (permit.identity(), question);
        let words = [listing.as_bytes(), caller.as_bytes(), place.as_bytes()];
        token
            .map(|token| self.pages.open(&words, token))
            .transpose()
            .map_err(|error| Failure::with(Reason::Malformed, error.to_string()))
    }

    /// Makes a change and its evidence durable.
    /// # Errors
    /// [`CommitError`].
    pub async fn commit(&self, change: Change, records: Vec<Encoded>) -> Result<Committed, CommitError> {
        self.store.commit(change, records).await
    }

    /// To be notified when sessions have ended: their leases are then queued for revocation.
    pub fn settle_soon(&self) -> Arc<Notify> {
        Arc::clone(&self.settle)
    }

    /// Mints one of the vault's own tokens, with its evidence in the same commit.
    /// # Errors
    /// The token room's, or the commit's.
    pub async fn mint(&self, ceremony: Ceremony, trail: &mut Trail) -> Result<Created, Failure> {
        let (change, created) = self.tokens.mint(ceremony).await?;
        trail.param_id("created", created.accessor.as_bytes());
        trail.param_time("expires", created.expires);
        self.commit(change, vec![trail.response(&Outcome::ok())]).await?;
        Ok(created)
    }

    /// One round of what time brings: expired tokens go, ended sessions take their leases with them.
    async fn tidy(&self, recorder: &Arc<Recorder>) -> Result<(), Failure> {
        while let Some(change) = self.tokens.sweep().await? {
            match self.commit(change, Vec::new()).await {
                // A session was renewed in between: the next round looks again.
                Ok(_) | Err(CommitError::Precondition(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        while let Some(change) = self.auth.sweep() {
            self.commit(change, Vec::new()).await?;
        }
        for session in self.tokens.ended(SETTLE_SESSIONS) {
            let Some(mut change) = self.tokens.settled(session) else {
                continue;
            };
            self.leases.end_with(&mut change, Scope::Session(session));
            let mut trail = Trail::of_system(recorder, "session.end");
            trail.param_id("session", session.as_bytes());
            self.commit(change, vec![trail.response(&Outcome::ok())]).await?;
        }
        Ok(())
    }
}

impl Rooms {
    /// One round of destroying what must go in HSMs; one that is away is passed over until the next.
    async fn forget_objects(&self, recorder: &Arc<Recorder>) -> Result<(), Failure> {
        let (mut after, mut away) = (None, BTreeSet::new());
        loop {
            let (doomed, next) = self.transit.doomed(after.as_ref()).await?;
            for one in doomed {
                if away.contains(&one.hsm) {
                    continue;
                }
                let mut trail = Trail::of_system(recorder, "transit.destroy-object");
                trail.param_id("object", one.object.as_bytes());
                match self.transit.destroy(&one).await {
                    Ok(Some(change)) => drop(self.commit(change, vec![trail.response(&Outcome::ok())]).await?),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(hsm = one.hsm, object = %one.object, cause = %super::chain(&error), "a key waits to be destroyed");
                        away.insert(one.hsm);
                    }
                }
            }
            after = next;
            if after.is_none() {
                return Ok(());
            }
        }
    }
}

#[async_trait::async_trait]
impl vault::Rooms for Rooms {
    async fn close(&self) {
        self.store.notices().close();
        let mut work = std::mem::take(&mut *self.work.lock());
        work.shutdown().await;
    }
}

/// What must hold for a lease to be made.
struct Grounds {
    tokens: Arc<TokenRoom>,
    mounts: Arc<MountRoom>,
}

impl lease::Grounds for Grounds {
    fn session_live(&self, change: &mut Change, session: SessionId) {
        self.tokens.require_live(change, session);
    }
    fn mount_open(&self, change: &mut Change, mount: MountId) {
        self.mounts.require_open(change, mount);
    }
}

fn lease_surroundings(store: &Arc<Store>, from: &Foundations, grounds: Grounds) -> LeaseSurroundings {
    LeaseSurroundings {
        store: Arc::clone(store),
        recorder: Arc::clone(&from.recorder),
        clock: Arc::clone(&from.clock),
        random: Arc::clone(&from.random),
        boot: from.boot,
        grounds: Arc::new(grounds),
        quotas: from.quotas,
    }
}

/// Destroys what must go in HSMs, for as long as it takes.
async fn forget_objects(rooms: Weak<Rooms>, recorder: Arc<Recorder>) {
    loop {
        let Some(open) = rooms.upgrade() else { return };
        if let Err(failure) = open.forget_objects(&recorder).await {
            tracing::warn!(%failure, "objects in HSMs wait to be destroyed");
        }
        let soon = open.transit.soon();
        drop(open);
        // A timeout is the ordinary round.
        let _ = tokio::time::timeout(FORGET_EVERY, soon.notified()).await;
    }
}

async fn keep_house(rooms: Weak<Rooms>, settle: Arc<Notify>, recorder: Arc<Recorder>) {
    loop {
        // A timeout is the ordinary round.
        let _ = tokio::time::timeout(SWEEP_EVERY, settle.notified()).await;
        let Some(rooms) = rooms.upgrade() else { return };
        if let Err(failure) = rooms.tidy(&recorder).await {
            tracing::warn!(%failure, "tokens and sessions could not be tidied; tried again in a moment");
        }
    }
}
