//! The byte form of requests and replies: a tag, then fields; numbers big endian, texts with a `u32` length.

use std::path::PathBuf;

use zeroize::Zeroizing;

use super::{
    BYTES_MAX, CONTEXT_BYTES_MAX, KEYS_MAX, Message, Pin, PinFlags, Reply, Request, Seed, TokenIdentity, Trial,
};
use crate::blob::HsmBlob;
use crate::config::{LANDLOCK_PATHS_MAX, MechanismChoice, TEXT_BYTES_MAX, TokenSelector};
use crate::error::{DETAIL_BYTES_MAX, ErrorKind, HsmError};
use crate::name::{KeyInfo, KeyKind, Mechanism, Ring};
use crate::pin::PIN_BYTES_MAX;

// ---- writing ----

struct Writer(Message);

impl Writer {
    fn new(tag: u8, capacity: usize) -> Self {
        let mut message = Zeroizing::new(Vec::with_capacity(capacity));
        message.push(tag);
        Self(message)
    }

    fn u8(mut self, n: u8) -> Self {
        self.0.push(n);
        self
    }

    fn u32(mut self, n: u32) -> Self {
        self.0.extend_from_slice(&n.to_be_bytes());
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn bytes(self, bytes: &[u8]) -> Self {
        self.u32(bytes.len() as u32).raw(bytes)
    }

    fn path(self, path: &std::path::Path) -> Self {
        use std::os::unix::ffi::OsStrExt;
        self.bytes(path.as_os_str().as_bytes())
    }

    fn key(self, ring: &Ring, version: u32) -> Self {
        self.bytes(ring.as_str().as_bytes()).u32(version)
    }

    fn error(self, e: &HsmError) -> Self {
        self.u8(e.kind as u8).bytes(e.detail.as_bytes())
    }

    fn info(self, info: &KeyInfo) -> Self {
        self.key(&info.ring, info.version)
            .u8(kind_to(info.kind))
            .u8(info.mechanism.map_or(0, |m| m as u8))
    }
}

/// Enough for every message with a secret in it, so those never grow.
const SMALL: usize = 2048;

impl Request {
    pub(crate) fn encode(&self) -> Message {
        match self {
            Self::Hello { token, landlock, pin } => {
                let (by, text) = match token {
                    TokenSelector::Label(l) => (0, l),
                    TokenSelector::Serial(s) => (1, s),
                };
                let w = Writer::new(1, SMALL)
                    .u8(by)
                    .bytes(text.as_bytes())
                    .u32(landlock.len() as u32);
                let w = landlock.iter().fold(w, |w, p| w.path(p)).u8(u8::from(pin.is_some()));
                pin.iter().fold(w, |w, p| w.path(p)).0
            }
            Self::Login { pin: Pin::File(path) } => Writer::new(2, SMALL).u8(0).path(path).0,
            Self::Login { pin: Pin::Bytes(bytes) } => Writer::new(2, SMALL).u8(1).bytes(bytes).0,
            Self::Create {
                ring,
                version,
                kind,
                mechanism,
            } => {
                let only = match mechanism {
                    MechanismChoice::Auto => 0,
                    MechanismChoice::Only(m) => *m as u8,
                };
                Writer::new(3, SMALL).key(ring, *version).u8(kind_to(*kind)).u8(only).0
            }
            Self::Seal {
                ring,
                version,
                context,
                seed,
            } => {
                Writer::new(4, SMALL)
                    .key(ring, *version)
                    .bytes(context)
                    .raw(&seed[..])
                    .0
            }
            Self::Open { blob, context } => Writer::new(5, SMALL).bytes(&blob.to_bytes()).bytes(context).0,
            Self::List { ring } => Writer::new(6, SMALL).bytes(ring.as_str().as_bytes()).0,
            Self::Destroy { ring, version } => Writer::new(7, SMALL).key(ring, *version).0,
            Self::Sign { ring, version, digest } => Writer::new(8, SMALL).key(ring, *version).raw(digest).0,
            Self::PublicKey { ring, version } => Writer::new(9, SMALL).key(ring, *version).0,
            Self::SelfTest => Writer::new(10, 1).0,
            Self::Probe { deep, key } => {
                let w = Writer::new(11, SMALL).u8(u8::from(*deep)).u8(u8::from(key.is_some()));
                key.iter().fold(w, |w, (ring, version)| w.key(ring, *version)).0
            }
            Self::Exit => Writer::new(12, 1).0,
            Self::Provision { label, so_pin, pin } => {
                Writer::new(13, SMALL)
                    .bytes(label.as_bytes())
                    .bytes(so_pin)
                    .bytes(pin)
                    .0
            }
        }
    }

    pub(crate) fn decode(message: &[u8]) -> Result<Self, HsmError> {
        Reader(message).whole(|r| {
            Some(match r.u8()? {
                1 => Self::Hello {
                    token: match (r.u8()?, r.text(TEXT_BYTES_MAX)?) {
                        (0, label) => TokenSelector::Label(label),
                        (1, serial) => TokenSelector::Serial(serial),
                        _ => return None,
                    },
                    landlock: r.many(LANDLOCK_PATHS_MAX, Reader::path)?,
                    pin: if r.flag()? { Some(r.path()?) } else { None },
                },
                2 => Self::Login {
                    pin: match r.u8()? {
                        0 => Pin::File(r.path()?),
                        1 => Pin::Bytes(Zeroizing::new(r.bytes(PIN_BYTES_MAX)?.to_vec())),
                        _ => return None,
                    },
                },
                3 => Self::Create {
                    ring: r.ring()?,
                    version: r.version()?,
                    kind: kind_from(r.u8()?)?,
                    mechanism: match r.u8()? {
                        0 => MechanismChoice::Auto,
                        n => MechanismChoice::Only(Mechanism::from_u8(n)?),
                    },
                },
                4 => Self::Seal {
                    ring: r.ring()?,
                    version: r.version()?,
                    context: r.bytes(CONTEXT_BYTES_MAX)?.to_vec(),
                    seed: r.seed()?,
                },
                5 => Self::Open {
                    blob: HsmBlob::from_bytes(r.bytes(HsmBlob::BYTES_MAX)?).ok()?,
                    context: r.bytes(CONTEXT_BYTES_MAX)?.to_vec(),
                },
                6 => Self::List { ring: r.ring()? },
                7 => Self::Destroy {
                    ring: r.ring()?,
                    version: r.version()?,
                },
                8 => Self::Sign {
                    ring: r.ring()?,
                    version: r.version()?,
                    digest: *r.array()?,
                },
                9 => Self::PublicKey {
                    ring: r.ring()?,
                    version: r.version()?,
                },
                10 => Self::SelfTest,
                11 => Self::Probe {
                    deep: r.flag()?,
                    key: if r.flag()? {
                        Some((r.ring()?, r.version()?))
                    } else {
                        None
                    },
                },
                12 => Self::Exit,
                13 => Self::Provision {
                    label: r.text(32)?,
                    so_pin: Zeroizing::new(r.bytes(PIN_BYTES_MAX)?.to_vec()),
                    pin: Zeroizing::new(r.bytes(PIN_BYTES_MAX)?.to_vec()),
                },
                _ => return None,
            })
        })
    }
}

impl Reply {
    pub(crate) fn encode(&self) -> Message {
        match self {
            Self::Done => Writer::new(1, 1).0,
            Self::Token { identity, pin } => {
                let bits = u8::from(pin.count_low) | u8::from(pin.final_try) << 1 | u8::from(pin.locked) << 2;
                let texts = [
                    &identity.label,
                    &identity.serial,
                    &identity.manufacturer,
                    &identity.model,
                ];
                texts
                    .iter()
                    .fold(Writer::new(2, SMALL), |w, t| w.bytes(t.as_bytes()))
                    .u8(bits)
                    .0
            }
            Self::Key(info) => Writer::new(3, SMALL).info(info).0,
            Self::Keys(keys) => {
                keys.iter()
                    .fold(Writer::new(4, SMALL).u32(keys.len() as u32), Writer::info)
                    .0
            }
            Self::Blob(blob) => Writer::new(5, SMALL).bytes(&blob.to_bytes()).0,
            Self::Seed(seed) => Writer::new(6, SMALL).raw(&seed[..]).0,
            Self::Bytes(bytes) => Writer::new(7, SMALL).bytes(bytes).0,
            Self::Trials(trials) => {
                let w = Writer::new(8, SMALL).u32(trials.len() as u32);
                trials
                    .iter()
                    .fold(w, |w, t| {
                        let w = w.u8(t.mechanism as u8).u8(u8::from(t.failure.is_some()));
                        t.failure.iter().fold(w, Writer::error)
                    })
                    .0
            }
            Self::Failed(e) => Writer::new(9, SMALL).error(e).0,
        }
    }

    pub(crate) fn decode(message: &[u8]) -> Result<Self, HsmError> {
        Reader(message).whole(|r| {
            Some(match r.u8()? {
                1 => Self::Done,
                2 => {
                    let identity = TokenIdentity {
                        label: r.text(128)?,
                        serial: r.text(128)?,
                        manufacturer: r.text(128)?,
                        model: r.text(128)?,
                    };
                    let bits = r.u8()?;
                    let pin = PinFlags {
                        count_low: bits & 1 > 0,
                        final_try: bits & 2 > 0,
                        locked: bits & 4 > 0,
                    };
                    if bits > 7 {
                        return None;
                    }
                    Self::Token { identity, pin }
                }
                3 => Self::Key(r.info()?),
                4 => Self::Keys(r.many(KEYS_MAX, Reader::info)?),
                5 => Self::Blob(HsmBlob::from_bytes(r.bytes(HsmBlob::BYTES_MAX)?).ok()?),
                6 => Self::Seed(r.seed()?),
                7 => Self::Bytes(r.bytes(BYTES_MAX)?.to_vec()),
                8 => Self::Trials(r.many(Mechanism::ALL.len(), |r| {
                    let mechanism = Mechanism::from_u8(r.u8()?)?;
                    let failure = if r.flag()? { Some(r.error()?) } else { None };
                    Some(Trial { mechanism, failure })
                })?),
                9 => Self::Failed(r.error()?),
                _ => return None,
            })
        })
    }
}

// ---- reading ----

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Runs `read` and refuses what it leaves over.
    fn whole<T>(mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Result<T, HsmError> {
        match read(&mut self) {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(HsmError::protocol("malformed message")),
        }
    }

    fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[n]| *n)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(|n| u32::from_be_bytes(*n))
    }

    fn bytes(&mut self, max: usize) -> Option<&'a [u8]> {
        let len = self.u32()? as usize;
        if len > max {
            return None;
        }
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn text(&mut self, max: usize) -> Option<String> {
        Some(std::str::from_utf8(self.bytes(max)?).ok()?.to_owned())
    }

    fn path(&mut self) -> Option<PathBuf> {
        self.text(TEXT_BYTES_MAX).map(PathBuf::from)
    }

    fn many<T>(&mut self, max: usize, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.u32()? as usize;
        if count > max {
            return None;
        }
        (0..count).map(|_| one(self)).collect()
    }

    fn ring(&mut self) -> Option<Ring> {
        Ring::new(std::str::from_utf8(self.bytes(Ring::BYTES_MAX)?).ok()?).ok()
    }

    /// From the message into its box, without a stop on the stack.
    fn seed(&mut self) -> Option<Seed> {
        let mut seed = Seed::default();
        seed.copy_from_slice(self.array::<32>()?);
        Some(seed)
    }

    fn version(&mut self) -> Option<u32> {
        self.u32().filter(|v| *v > 0)
    }

    fn error(&mut self) -> Option<HsmError> {
        Some(HsmError {
            kind: ErrorKind::from_u8(self.u8()?)?,
            detail: self.text(DETAIL_BYTES_MAX)?,
        })
    }

    fn info(&mut self) -> Option<KeyInfo> {
        Some(KeyInfo {
            ring: self.ring()?,
            version: self.version()?,
            kind: kind_from(self.u8()?)?,
            mechanism: match self.u8()? {
                0 => None,
                n => Some(Mechanism::from_u8(n)?),
            },
        })
    }
}

fn kind_to(kind: KeyKind) -> u8 {
    match kind {
        KeyKind::Kek => 1,
        KeyKind::SignEs256 => 2,
        KeyKind::SignPs256 => 3,
    }
}

fn kind_from(n: u8) -> Option<KeyKind> {
    match n {
        1 => Some(KeyKind::Kek),
        2 => Some(KeyKind::SignEs256),
        3 => Some(KeyKind::SignPs256),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
