//! The HSMs' half of a slot: a 32-byte seed, sealed once by each HSM of the slot, so that any one of them gives it back.
//! May touch: `base`, the hsm crate. Reading order: `Token` (what is asked of an HSM), `Tokens`, then `kek` (rotation).
//!
//! Every call here blocks for at most the HSM's deadline: async callers wrap them.

#[cfg(test)]
pub(crate) mod fake;
mod kek;
#[cfg(test)]
pub(crate) mod softhsm;

pub use kek::{Retired, destroy, retire, rotate, unneeded};

use super::{
    error::SealError,
    record::{Header, Seed},
    spec::SlotSpec,
};
use crate::base::{
    id::ClusterId,
    locked::{LockError, LockedKey, scrubbed},
};
use std::sync::Arc;
use strongroom_hsm::{Hsm, HsmBlob, HsmError, KeyInfo, KeyKind, Ring};
use zeroize::Zeroizing;

/// Why an HSM did not open a seed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// What it said.
    #[error(transparent)]
    Hsm(#[from] HsmError),
    /// No locked memory for the seed.
    #[error(transparent)]
    Memory(#[from] LockError),
}

/// What a slot needs of one HSM. The hsm crate's [`Hsm`] is one; tests bring their own to fail on demand.
pub trait Token: Send + Sync {
    /// Its name in the configuration.
    fn name(&self) -> &str;
    /// Makes a version of the ring's KEK.
    /// # Errors
    /// `KeyExists`, or what the HSM does.
    fn create(&self, ring: &Ring, version: u32) -> Result<(), HsmError>;
    /// Keys of the ring.
    /// # Errors
    /// What the HSM does.
    fn list(&self, ring: &Ring) -> Result<Vec<KeyInfo>, HsmError>;
    /// Destroys a version.
    /// # Errors
    /// `KeyMissing`, or what the HSM does.
    fn destroy(&self, ring: &Ring, version: u32) -> Result<(), HsmError>;
    /// Seals a seed, bound to `context`.
    /// # Errors
    /// What the HSM does.
    fn seal(&self, ring: &Ring, version: u32, context: &[u8], seed: &LockedKey) -> Result<HsmBlob, HsmError>;
    /// Opens a sealed seed.
    /// # Errors
    /// What the HSM does.
    fn open(&self, blob: &HsmBlob, context: &[u8]) -> Result<LockedKey, TokenError>;
    /// Ends the HSM's worker, and with it whatever it held; the next call starts another.
    fn stop(&self);
}

impl Token for Hsm {
    fn name(&self) -> &str {
        Self::name(self)
    }
    fn create(&self, ring: &Ring, version: u32) -> Result<(), HsmError> {
        Self::create(self, ring, version, KeyKind::Kek).map(drop)
    }
    fn list(&self, ring: &Ring) -> Result<Vec<KeyInfo>, HsmError> {
        Self::list(self, ring)
    }
    fn destroy(&self, ring: &Ring, version: u32) -> Result<(), HsmError> {
        Self::destroy(self, ring, version)
    }
    fn seal(&self, ring: &Ring, version: u32, context: &[u8], seed: &LockedKey) -> Result<HsmBlob, HsmError> {
        scrubbed(|| Self::seal(self, ring, version, context, &Zeroizing::new(*seed.expose())))
    }
    fn open(&self, blob: &HsmBlob, context: &[u8]) -> Result<LockedKey, TokenError> {
        scrubbed(|| Ok(LockedKey::copy_of(&*Self::open(self, blob, context)?)?))
    }
    fn stop(&self) {
        Self::stop(self);
    }
}

/// The configured HSMs, in the order in which they are asked.
#[derive(Clone, Default)]
pub struct Tokens(Arc<[Arc<dyn Token>]>);

impl Tokens {
    /// All that the configuration has, in its order.
    pub fn new(tokens: Vec<Arc<dyn Token>>) -> Self {
        Self(tokens.into())
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|token| token.name())
    }

    /// The one of that name.
    /// # Errors
    /// `NoSuchHsm`.
    pub fn get(&self, name: &str) -> Result<&Arc<dyn Token>, SealError> {
        self.0
            .iter()
            .find(|token| token.name() == name)
            .ok_or_else(|| SealError::NoSuchHsm(name.to_owned()))
    }

    /// The HSMs that a new slot shall use: the named ones, or all.
    /// # Errors
    /// `NoSuchHsm`; `Spec` when the slot needs one and none is configured.
    pub fn chosen(&self, spec: &SlotSpec) -> Result<Vec<&Arc<dyn Token>>, SealError> {
        if !spec.factors.has_hsm() {
            return Ok(Vec::new());
        }
        let chosen = match &spec.hsms[..] {
            [] => self.0.iter().take(SlotSpec::HSMS_MAX).collect::<Vec<_>>(),
            names => names.iter().map(|name| self.get(name)).collect::<Result<_, _>>()?,
        };
        if chosen.is_empty() {
            Err(SealError::Spec("the configuration has no HSM for this slot"))
        } else {
            Ok(chosen)
        }
    }

    /// Ends every worker: what they held of seeds and sessions goes with them.
    pub fn stop(&self) {
        self.0.iter().for_each(|token| token.stop());
    }
}

/// The KEK ring of a vault on every HSM: its own, so that vaults may share an HSM and `init` never meets an old key.
/// # Errors
/// Never in practice: the name is always well formed.
pub fn ring(cluster: ClusterId) -> Result<Ring, HsmError> {
    Ring::new(&format!("strongroom-{cluster}"))
}

pub(super) fn step<E: Into<TokenError>>(token: &dyn Token) -> impl FnOnce(E) -> SealError {
    let name = token.name().to_owned();
    move |error| match error.into() {
        TokenError::Hsm(source) => SealError::HsmStep { name, source },
        TokenError::Memory(error) => error.into(),
    }
}

/// Seals `seed` on every chosen HSM, under the newest KEK (made when there is none), and opens each copy again: a slot is only stored
/// when all its HSMs have proved that they can open it.
/// # Errors
/// The first HSM's failure; nothing is left but, at most, an unused KEK.
pub fn seal_seed(tokens: &[&Arc<dyn Token>], header: &Header, seed: &LockedKey) -> Result<Vec<Seed>, SealError> {
    let context = header.seed_context();
    tokens
        .iter()
        .map(|token| {
            let ring = ring(header.cluster).map_err(step(token.as_ref()))?;
            let newest = token
                .list(&ring)
                .map_err(step(token.as_ref()))?
                .iter()
                .map(|key| key.version)
                .max();
            let version = match newest {
                Some(version) => version,
                None => token.create(&ring, 1).map(|()| 1).map_err(step(token.as_ref()))?,
            };
            let blob = proved(token.as_ref(), &ring, version, &context, seed)?;
            Ok(Seed {
                hsm: token.name().to_owned(),
                retire: None,
                blob,
            })
        })
        .collect()
}

/// Seals, opens again, compares.
fn proved(
    token: &dyn Token,
    ring: &Ring,
    version: u32,
    context: &[u8],
    seed: &LockedKey,
) -> Result<HsmBlob, SealError> {
    use subtle::ConstantTimeEq;
    let blob = token.seal(ring, version, context, seed).map_err(step(token))?;
    let again = token.open(&blob, context).map_err(step(token))?;
    if bool::from(again.expose().ct_eq(seed.expose())) {
        Ok(blob)
    } else {
        Err(SealError::HsmMismatch(token.name().to_owned()))
    }
}

/// Asks the slot's HSMs in order; the first that opens its copy wins. A refused log-in is remembered by the HSM's own room and never
/// repeated here: each copy is tried once.
/// # Errors
/// `Hsm` with each HSM's reason when none opens.
pub fn open_seed(tokens: &Tokens, header: &Header, seeds: &[Seed]) -> Result<LockedKey, SealError> {
    let context = header.seed_context();
    let mut failures = Vec::new();
    for seed in seeds {
        // An HSM that the configuration no longer has is none.
        let Ok(token) = tokens.get(&seed.hsm) else { continue };
        match token.open(&seed.blob, &context) {
            Ok(half) => return Ok(half),
            Err(TokenError::Hsm(error)) => failures.push((seed.hsm.clone(), error)),
            Err(TokenError::Memory(error)) => return Err(error.into()),
        }
    }
    Err(SealError::Hsm(failures))
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::header;
    use super::{fake::Fake, *};
    use crate::base::random::OsRandom;
    use strongroom_hsm::ErrorKind;

    /// R-SEAL-2: two HSMs each open one slot; the second is asked when the first does not answer, and a refusal is not repeated.
    #[test]
    fn the_first_that_opens_wins() {
        let (a, b) = (Fake::new("a"), Fake::new("b"));
        let tokens = Tokens::new(vec![a.clone(), b.clone()]);
        let (header, seed) = (header("daily", "hsm"), LockedKey::random(&OsRandom).unwrap());
        let chosen = tokens.chosen(&SlotSpec::parse("daily", "hsm", &[]).unwrap()).unwrap();
        let seeds = seal_seed(&chosen, &header, &seed).unwrap();
        let open = || open_seed(&tokens, &header, &seeds);
        assert_eq!(open().unwrap().expose(), seed.expose());
        let before = b.calls();
        a.fail(ErrorKind::AuthFailed);
        let tried = a.calls();
        assert_eq!(open().unwrap().expose(), seed.expose());
        assert_eq!((a.calls(), b.calls()), (tried + 1, before + 1), "each asked once");
        b.fail(ErrorKind::Device);
        let SealError::Hsm(why) = open().unwrap_err() else {
            panic!("not an HSM failure")
        };
        assert_eq!(
            why.iter()
                .map(|(name, error)| (name.as_str(), error.kind))
                .collect::<Vec<_>>(),
            [("a", ErrorKind::AuthFailed), ("b", ErrorKind::Device)]
        );
        a.heal();
        let mut other = header.clone();
        other.set[0] ^= 1;
        assert!(open_seed(&tokens, &other, &seeds).is_err(), "bound to its share set");
    }

    #[test]
    fn a_slot_needs_an_hsm_that_exists() {
        let tokens = Tokens::new(vec![Fake::new("a")]);
        let spec = |factors, hsms: &[&str]| {
            SlotSpec::parse("s", factors, &hsms.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>()).unwrap()
        };
        assert!(matches!(tokens.chosen(&spec("hsm", &["b"])), Err(SealError::NoSuchHsm(name)) if name == "b"));
        assert!(matches!(
            Tokens::default().chosen(&spec("hsm", &[])),
            Err(SealError::Spec(_))
        ));
        assert!(Tokens::default().chosen(&spec("quorum:1/2", &[])).unwrap().is_empty());
    }
}
