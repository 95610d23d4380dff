//! Messages between the handle and its worker: a `u32` length (big endian, at most 64 KiB), then a tag and
//! fields. Both sides are this program, yet the reader trusts nothing: the worker runs foreign code.

mod codec;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::blob::HsmBlob;
use crate::config::{MechanismChoice, TokenSelector};
use crate::error::HsmError;
use crate::name::{KeyInfo, KeyKind, Mechanism, Ring};

/// Longest message (bytes, without the length).
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Longest context a seal is bound to (bytes).
pub const CONTEXT_BYTES_MAX: usize = 1024;
/// Most keys one `list` returns.
pub const KEYS_MAX: usize = 512;
/// Longest signature or public key (bytes).
pub(crate) const BYTES_MAX: usize = 2048;

/// A message under construction or just read; wiped when dropped. Reserved once, so that growing leaves no
/// copy behind.
pub(crate) type Message = Zeroizing<Vec<u8>>;

pub(crate) enum Pin {
    File(PathBuf),
    Bytes(Zeroizing<Vec<u8>>),
}

/// A plaintext seed. Boxed: it passes through a queue, a channel and two threads, and a move must copy a pointer only.
pub(crate) type Seed = Box<Zeroizing<[u8; 32]>>;

pub(crate) enum Request {
    /// First, once. `landlock`: writable paths, empty for none; `pin`: the file that must stay readable.
    Hello {
        token: TokenSelector,
        landlock: Vec<PathBuf>,
        pin: Option<PathBuf>,
    },
    Login {
        pin: Pin,
    },
    Create {
        ring: Ring,
        version: u32,
        kind: KeyKind,
        mechanism: MechanismChoice,
    },
    Seal {
        ring: Ring,
        version: u32,
        context: Vec<u8>,
        seed: Seed,
    },
    Open {
        blob: HsmBlob,
        context: Vec<u8>,
    },
    List {
        ring: Ring,
    },
    Destroy {
        ring: Ring,
        version: u32,
    },
    Sign {
        ring: Ring,
        version: u32,
        digest: [u8; 32],
    },
    PublicKey {
        ring: Ring,
        version: u32,
    },
    SelfTest,
    /// `key`: the KEK last used, which must still be there; `deep`: seal and open with it.
    Probe {
        deep: bool,
        key: Option<(Ring, u32)>,
    },
    Exit,
    /// Instead of `Hello`: make a token in a free slot, then end.
    Provision {
        label: String,
        so_pin: Zeroizing<Vec<u8>>,
        pin: Zeroizing<Vec<u8>>,
    },
}

/// Who the token says it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenIdentity {
    /// Label.
    pub label: String,
    /// Serial number.
    pub serial: String,
    /// Manufacturer.
    pub manufacturer: String,
    /// Model.
    pub model: String,
}

/// The token's warnings about its user PIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PinFlags {
    /// At least one wrong PIN since the last right one.
    pub count_low: bool,
    /// The next wrong PIN locks.
    pub final_try: bool,
    /// Locked.
    pub locked: bool,
}

impl PinFlags {
    /// Whether any warning stands.
    #[must_use]
    pub fn any(self) -> bool {
        self.count_low || self.final_try || self.locked
    }
}

/// One mechanism in a self-test: `None` when it sealed, opened, and refused what it must.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// Which.
    pub mechanism: Mechanism,
    /// Why it may not be used here.
    pub failure: Option<HsmError>,
}

pub(crate) enum Reply {
    Done,
    Token { identity: TokenIdentity, pin: PinFlags },
    Key(KeyInfo),
    Keys(Vec<KeyInfo>),
    Blob(HsmBlob),
    Seed(Seed),
    Bytes(Vec<u8>),
    Trials(Vec<Trial>),
    Failed(HsmError),
}

// ---- the socket ----

/// One end of the socketpair.
pub(crate) struct Channel(UnixStream);

impl Channel {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self(stream)
    }

    /// Sends one message. `deadline`: `None` waits for ever (the worker's side).
    pub(crate) fn send(&mut self, message: &[u8], deadline: Option<Instant>) -> io::Result<()> {
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.0.set_write_timeout(remaining(deadline)?)?;
        self.0.write_all(&(message.len() as u32).to_be_bytes())?;
        self.0.write_all(message)
    }

    /// Receives one message.
    pub(crate) fn receive(&mut self, deadline: Option<Instant>) -> io::Result<Message> {
        let mut len = [0; 4];
        self.fill(&mut len, deadline)?;
        let len = u32::from_be_bytes(len) as usize;
        if len > MESSAGE_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut message = Zeroizing::new(vec![0; len]);
        self.fill(&mut message, deadline)?;
        Ok(message)
    }

    fn fill(&mut self, mut buffer: &mut [u8], deadline: Option<Instant>) -> io::Result<()> {
        while !buffer.is_empty() {
            self.0.set_read_timeout(remaining(deadline)?)?;
            match self.0.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => buffer = buffer.get_mut(n..).unwrap_or_default(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Time left, as socket options want it; `TimedOut` when there is none.
fn remaining(deadline: Option<Instant>) -> io::Result<Option<Duration>> {
    match deadline.map(|d| d.saturating_duration_since(Instant::now())) {
        Some(Duration::ZERO) => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}
