//! An HSM in memory for tests that need one to fail on demand: AES-256-GCM under keys it never shows.

use super::{Token, TokenError};
use crate::base::{
    locked::LockedKey,
    random::{OsRandom, Random},
};
use crate::seal::crypt::Wrapped;
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use strongroom_hsm::{ErrorKind, HsmBlob, HsmError, KeyInfo, KeyKind, Mechanism, Ring};

pub(crate) struct Fake {
    name: String,
    keys: Mutex<BTreeMap<(String, u32), LockedKey>>,
    failure: Mutex<Option<ErrorKind>>,
    /// Calls until the HSM is gone for good; `usize::MAX` for never.
    left: AtomicUsize,
    calls: AtomicUsize,
    stops: AtomicUsize,
}

impl Fake {
    pub(crate) fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            keys: Mutex::default(),
            failure: Mutex::default(),
            left: AtomicUsize::new(usize::MAX),
            calls: AtomicUsize::new(0),
            stops: AtomicUsize::new(0),
        })
    }
    pub(crate) fn fail(&self, kind: ErrorKind) {
        *self.failure.lock() = Some(kind);
    }
    pub(crate) fn heal(&self) {
        *self.failure.lock() = None;
        self.left.store(usize::MAX, Ordering::SeqCst);
    }
    /// Answers `calls` more, then nothing.
    pub(crate) fn fail_after(&self, calls: usize) {
        self.left.store(calls, Ordering::SeqCst);
    }
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
    #[allow(dead_code)]
    pub(crate) fn stops(&self) -> usize {
        self.stops.load(Ordering::SeqCst)
    }
    pub(crate) fn versions(&self) -> Vec<u32> {
        self.keys.lock().keys().map(|(_, version)| *version).collect()
    }

    fn answer<T>(
        &self,
        work: impl FnOnce(&mut BTreeMap<(String, u32), LockedKey>) -> Result<T, ErrorKind>,
    ) -> Result<T, HsmError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let error = |kind| HsmError {
            kind,
            detail: "fake".into(),
        };
        if let Some(kind) = *self.failure.lock() {
            return Err(error(kind));
        }
        let gone = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| match left {
                usize::MAX => Some(left),
                left => left.checked_sub(1),
            });
        gone.map_err(|_| error(ErrorKind::Device))?;
        work(&mut self.keys.lock()).map_err(error)
    }
}

impl Token for Fake {
    fn name(&self) -> &str {
        &self.name
    }
    fn create(&self, ring: &Ring, version: u32) -> Result<(), HsmError> {
        self.answer(
            |keys| match keys.insert((ring.as_str().into(), version), LockedKey::random(&OsRandom).unwrap()) {
                None => Ok(()),
                Some(_) => Err(ErrorKind::KeyExists),
            },
        )
    }
    fn list(&self, ring: &Ring) -> Result<Vec<KeyInfo>, HsmError> {
        let info = |version| KeyInfo {
            ring: ring.clone(),
            version,
            kind: KeyKind::Kek,
            mechanism: Some(Mechanism::CbcHmac),
        };
        self.answer(|keys| {
            Ok(keys
                .keys()
                .filter(|(name, _)| name == ring.as_str())
                .map(|(_, version)| info(*version))
                .collect())
        })
    }
    fn destroy(&self, ring: &Ring, version: u32) -> Result<(), HsmError> {
        self.answer(|keys| {
            keys.remove(&(ring.as_str().into(), version))
                .map(drop)
                .ok_or(ErrorKind::KeyMissing)
        })
    }
    fn seal(&self, ring: &Ring, version: u32, context: &[u8], seed: &LockedKey) -> Result<HsmBlob, HsmError> {
        self.answer(|keys| {
            let key = keys
                .get(&(ring.as_str().into(), version))
                .ok_or(ErrorKind::KeyMissing)?;
            let wrapped = Wrapped::seal(key, context, seed, &OsRandom).unwrap();
            // The crate's form of a CBC+HMAC blob has room for 80 bytes.
            let mut body = wrapped.as_bytes().to_vec();
            body.resize(80, 0);
            let mut form = vec![1, Mechanism::CbcHmac as u8, ring.as_str().len() as u8];
            form.extend(ring.as_str().as_bytes());
            form.extend(version.to_be_bytes());
            form.extend([0, 80]);
            form.extend(body);
            Ok(HsmBlob::from_bytes(&form).unwrap())
        })
    }
    fn open(&self, blob: &HsmBlob, context: &[u8]) -> Result<LockedKey, TokenError> {
        Ok(self.answer(|keys| {
            let form = blob.to_bytes();
            let (body, padding) = form[form.len() - 80..].split_at(60);
            let key = keys
                .get(&(blob.ring().as_str().into(), blob.version()))
                .ok_or(ErrorKind::KeyMissing)?;
            let opened = Wrapped::from_bytes(body.try_into().unwrap())
                .open(key, context)
                .unwrap();
            opened.filter(|_| padding == [0; 20]).ok_or(ErrorKind::Integrity)
        })?)
    }
    fn stop(&self) {
        self.stops.fetch_add(1, Ordering::SeqCst);
    }
}

/// Dice that tests can read.
#[derive(Default)]
pub(crate) struct CountingRandom(Mutex<u64>);

impl Random for CountingRandom {
    fn fill(&self, out: &mut [u8]) {
        use sha2::{Digest, Sha256};
        for chunk in out.chunks_mut(32) {
            let mut count = self.0.lock();
            *count += 1;
            chunk.copy_from_slice(&Sha256::digest(count.to_be_bytes())[..chunk.len()]);
        }
    }
}
