//! Sessions in which the holders of a slot's shares come together, one share at a time, for one operation.
//!
//! A session takes memory only once a share has matched its commitment in the slot, so garbage opens none. Its nonce is handed to the
//! other holders; without it nobody joins, disturbs or ends it. What it is for is fixed when it opens. Each share opens one session at a
//! time: a second gives up the first while nobody else has joined it. Sessions are bounded and expire.

use super::{
    error::{SealError, SessionError, ShareError},
    quorum::{self, Share},
    slots::Slots,
    spec::{Operation, SlotName},
};
use crate::base::{
    limits::{SLOT_SESSION_TTL_SECS, SLOT_SESSIONS_MAX},
    locked::LockedKey,
    random::Random,
    time::Clock,
};
use parking_lot::Mutex;
use std::{fmt, str::FromStr, sync::Arc, time::Duration};
use subtle::ConstantTimeEq;

/// Names a session: 128 random bits, 32 lower-case hex digits. Whoever has it may join or abandon the session.
#[derive(Clone, Copy)]
pub struct Nonce([u8; 16]);

impl Nonce {
    pub(super) const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonce(redacted)")
    }
}

impl FromStr for Nonce {
    type Err = SessionError;
    fn from_str(text: &str) -> Result<Self, SessionError> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE
            .decode(text.trim().as_bytes())
            .map_err(|_| SessionError::Unknown)?;
        bytes.try_into().map(Self).map_err(|_| SessionError::Unknown)
    }
}

/// What one holder brings.
#[derive(Debug)]
pub struct Presented<'a> {
    /// The slot whose share it is.
    pub slot: &'a SlotName,
    /// The session to join; `None` opens one.
    pub session: Option<Nonce>,
    /// The share's text; `None` only asks a complete session to run again.
    pub share: Option<&'a str>,
    /// What for; must come with the first share, may be repeated with the others.
    pub operation: Option<&'a Operation>,
}

/// How far a session is.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Its nonce.
    pub session: Nonce,
    /// Shares taken.
    pub have: u8,
    /// Shares needed.
    pub need: u8,
    /// Until it expires, unless another share comes.
    pub expires_in_secs: u64,
}

/// A session as status shows it, without its nonce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// Its slot.
    pub slot: SlotName,
    /// Its operation, in one word.
    pub operation: &'static str,
    /// Shares taken.
    pub have: u8,
    /// Shares needed.
    pub need: u8,
    /// Until it expires.
    pub expires_in_secs: u64,
}

/// What a share led to.
#[derive(Debug)]
pub enum Step {
    /// More shares are needed.
    Waiting(Progress),
    /// All are there: run the operation.
    Complete(Complete),
}

struct Session {
    nonce: Nonce,
    slot: SlotName,
    set: [u8; 4],
    operation: Operation,
    need: u8,
    /// Empty while a [`Complete`] has them.
    shares: Vec<Share>,
    /// Index of the share that opened it.
    opener: u8,
    /// On the monotonic clock.
    expires: Duration,
    running: bool,
}

impl Session {
    fn have(&self) -> u8 {
        if self.running {
            self.need
        } else {
            u8::try_from(self.shares.len()).unwrap_or(u8::MAX)
        }
    }
}

struct Table {
    open: Mutex<Vec<Session>>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

/// The open sessions. Cheap to clone.
#[derive(Clone)]
pub struct Sessions(Arc<Table>);

impl Sessions {
    /// None open.
    pub fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self(Arc::new(Table {
            open: Mutex::default(),
            clock,
            random,
        }))
    }

    /// Takes a share.
    /// # Errors
    /// `Share` and `Session`, by name; nothing is kept of what is refused, and the session stays as it was.
    pub fn present(&self, slots: &Slots, input: &Presented<'_>) -> Result<Step, SealError> {
        let record = slots.get(input.slot)?;
        let quorum = record.header.factors.quorum().ok_or(ShareError::NotWanted)?;
        let share = input
            .share
            .map(|text| self.admitted(slots, &record.header, text))
            .transpose()?;
        let now = self.0.clock.monotonic();
        let mut open = self.0.open.lock();
        open.retain(|session| session.running || session.expires > now);
        let at = match input.session {
            Some(nonce) => join(&open, &nonce, input, record.header.set)?,
            None => {
                let share = share.as_ref().ok_or(ShareError::Missing)?;
                let operation = input.operation.ok_or(SessionError::OperationMissing)?;
                make_room(&mut open, input.slot, share)?;
                let mut nonce = Nonce([0; 16]);
                self.0.random.fill(&mut nonce.0);
                let (slot, set, opener, need) = (input.slot.clone(), record.header.set, share.index(), quorum.k());
                let (operation, expires) = (operation.clone(), now);
                open.push(Session {
                    nonce,
                    slot,
                    set,
                    operation,
                    need,
                    shares: Vec::new(),
                    opener,
                    expires,
                    running: false,
                });
                open.len() - 1
            }
        };
        let Some(session) = open.get_mut(at) else {
            return Err(SessionError::Unknown.into());
        };
        self.take(session, share, now)
    }

    /// Reads the share and checks that it is this slot's. A share of another slot is told which.
    fn admitted(&self, slots: &Slots, header: &super::record::Header, text: &str) -> Result<Share, SealError> {
        let share = Share::parse(text)?;
        quorum::admit(header, &share).map_err(|error| match error {
            ShareError::OtherSlot { .. } => ShareError::OtherSlot {
                name: slots.by_tag(share.slot_tag()).map(ToString::to_string),
            },
            other => other,
        })?;
        Ok(share)
    }

    fn take(&self, session: &mut Session, share: Option<Share>, now: Duration) -> Result<Step, SealError> {
        if session.running {
            return Err(SessionError::Busy.into());
        }
        if let Some(share) = share {
            // A complete session runs again with any of its shares, or none.
            if session.shares.iter().any(|taken| taken.index() == share.index()) {
                if session.have() < session.need {
                    return Err(ShareError::Duplicate.into());
                }
            } else if session.have() < session.need {
                session.shares.push(share);
                session.expires = now + Duration::from_secs(SLOT_SESSION_TTL_SECS);
            }
        } else if session.have() < session.need {
            return Err(ShareError::Missing.into());
        }
        let (have, need) = (session.have(), session.need);
        if have < need {
            let expires_in_secs = session.expires.saturating_sub(now).as_secs();
            return Ok(Step::Waiting(Progress {
                session: session.nonce,
                have,
                need,
                expires_in_secs,
            }));
        }
        session.running = true;
        let (shares, slot, operation, nonce) = (
            std::mem::take(&mut session.shares),
            session.slot.clone(),
            session.operation.clone(),
            session.nonce,
        );
        Ok(Step::Complete(Complete {
            sessions: self.clone(),
            nonce,
            slot,
            operation,
            need,
            shares: Some(shares),
        }))
    }

    /// Gives a session up.
    /// # Errors
    /// `Unknown`; `Busy` while its operation runs.
    pub fn abandon(&self, nonce: &Nonce) -> Result<(), SessionError> {
        let now = self.0.clock.monotonic();
        let mut open = self.0.open.lock();
        open.retain(|session| session.running || session.expires > now);
        let at = open
            .iter()
            .position(|session| session.nonce.same_as(nonce))
            .ok_or(SessionError::Unknown)?;
        if open.get(at).is_some_and(|session| session.running) {
            return Err(SessionError::Busy);
        }
        open.remove(at);
        Ok(())
    }

    /// Ends sessions, with the shares that they have: all of them, or those for one operation. One that runs ends when it is done.
    pub fn end(&self, only: Option<&Operation>) {
        let mut open = self.0.open.lock();
        open.retain(|session| only.is_some_and(|only| session.operation != *only));
    }

    /// The open sessions, for status. Ends those whose time is over.
    pub fn list(&self) -> Vec<SessionInfo> {
        let now = self.0.clock.monotonic();
        let mut open = self.0.open.lock();
        open.retain(|session| session.running || session.expires > now);
        open.iter()
            .map(|session| SessionInfo {
                slot: session.slot.clone(),
                operation: session.operation.word(),
                have: session.have(),
                need: session.need,
                expires_in_secs: session.expires.saturating_sub(now).as_secs(),
            })
            .collect()
    }
}

/// The named session, if this holder may go on with it.
fn join(open: &[Session], nonce: &Nonce, input: &Presented<'_>, set: [u8; 4]) -> Result<usize, SessionError> {
    let found = open.iter().enumerate().fold(None, |found, (at, session)| {
        if session.nonce.same_as(nonce) {
            Some((at, session))
        } else {
            found
        }
    });
    let (at, session) = found.ok_or(SessionError::Unknown)?;
    if session.slot != *input.slot {
        return Err(SessionError::OtherSlot);
    }
    if session.set != set {
        return Err(SessionError::SlotChanged);
    }
    match input.operation {
        Some(operation) if *operation != session.operation => Err(SessionError::OtherOperation),
        _ => Ok(at),
    }
}

/// One session a share: the former one goes while it is its opener's alone.
fn make_room(open: &mut Vec<Session>, slot: &SlotName, share: &Share) -> Result<(), SessionError> {
    let own = open
        .iter()
        .position(|session| session.slot == *slot && session.opener == share.index());
    if let Some(at) = own {
        if open
            .get(at)
            .is_some_and(|session| session.running || session.shares.len() > 1)
        {
            return Err(SessionError::AlreadyOpen);
        }
        open.remove(at);
    }
    if open.len() >= SLOT_SESSIONS_MAX {
        Err(SessionError::Full)
    } else {
        Ok(())
    }
}

/// All shares of a session, taken out of it while the operation runs. Dropping it ends the session and wipes the shares;
/// [`Complete::give_back`] keeps both, for a failure that may pass (an HSM that is away).
pub struct Complete {
    sessions: Sessions,
    nonce: Nonce,
    /// The slot they open.
    pub slot: SlotName,
    /// What they were given for.
    pub operation: Operation,
    /// How many they are.
    pub need: u8,
    shares: Option<Vec<Share>>,
}

impl Complete {
    /// The operators' half.
    /// # Errors
    /// `Memory`; `Share` cannot happen with admitted shares.
    pub fn combine(&self) -> Result<LockedKey, SealError> {
        Ok(quorum::combine(self.shares.as_deref().unwrap_or_default())??)
    }

    /// The session's name.
    pub const fn session(&self) -> Nonce {
        self.nonce
    }

    /// Puts the shares back: the session may be run again until it expires.
    pub fn give_back(mut self) -> Progress {
        let now = self.sessions.0.clock.monotonic();
        let mut expires_in_secs = 0;
        let mut open = self.sessions.0.open.lock();
        if let Some(session) = open.iter_mut().find(|session| session.nonce.same_as(&self.nonce)) {
            session.shares = self.shares.take().unwrap_or_default();
            session.running = false;
            expires_in_secs = session.expires.saturating_sub(now).as_secs();
        }
        drop(open);
        Progress {
            session: self.nonce,
            have: self.need,
            need: self.need,
            expires_in_secs,
        }
    }
}

impl Drop for Complete {
    fn drop(&mut self) {
        if self.shares.is_some() {
            self.sessions
                .0
                .open
                .lock()
                .retain(|session| !session.nonce.same_as(&self.nonce));
        }
    }
}

impl fmt::Debug for Complete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Complete")
            .field("slot", &self.slot)
            .field("operation", &self.operation)
            .finish_non_exhaustive()
    }
}
