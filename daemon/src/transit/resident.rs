//! Keys that live in an HSM: what is asked of one, and the objects there that must not be forgotten.
//!
//! Each version is a key pair of its own, under a random name that only its record knows. Before one is made, a row says that it must be
//! destroyed; the change that makes it a version deletes the row. A version that is erased puts the row back. So whatever stands in the table, and
//! is not being made by this run, is to be destroyed: after a crash too, and for as long as its HSM is away (R-OPS-8).

use super::{KeyKind, TransitError, TransitRoom, material::spki};
use crate::{
    base::{format::Format1, id::TransitObjectId, time::Timestamp},
    store::{Change, Cursor, Part, StoreError},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{collections::HashSet, sync::Arc};
use tokio::sync::Notify;
use zeroize::Zeroizing;

/// Rows that are looked at in one go.
const PAGE: usize = 64;
/// A pair may still come to be after this run looked for it: a worker of the run before may be at it. It makes one within its deadline (60 s).
const MADE_WITHIN_SECS: u64 = 180;

/// What an HSM could not do.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// The configuration names no such HSM.
    #[error("there is no HSM `{0}` in the daemon's configuration")]
    NoSuchHsm(String),
    /// It does not answer; asked again later it may.
    #[error("the key's HSM does not answer: try again; `strongroom operator status` says more")]
    Away(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It refused the PIN; no other try is made by itself.
    #[error("the key's HSM refused the PIN: `strongroom operator forgive-pin` when it is right")]
    Pin,
    /// The object is gone.
    #[error("the key is not in its HSM any more")]
    Missing,
    /// It has no such mechanism.
    #[error("the HSM cannot make such a key")]
    Unsupported,
}

/// The HSMs, as keys need them. Every call blocks for at most the HSM's deadline.
pub trait Signers: Send + Sync {
    /// Whether there is one of this name.
    fn knows(&self, hsm: &str) -> bool;
    /// Makes a key pair that cannot leave; its public half as SubjectPublicKeyInfo in DER.
    /// # Errors
    /// [`SignerError`]; it may have been made all the same.
    fn make(&self, hsm: &str, object: TransitObjectId, kind: KeyKind) -> Result<Vec<u8>, SignerError>;
    /// Signs a SHA-256 digest: ECDSA as `r || s`, RSA-PSS with a salt of 32 bytes.
    /// # Errors
    /// [`SignerError`].
    fn sign(&self, hsm: &str, object: TransitObjectId, digest: &[u8; 32]) -> Result<Vec<u8>, SignerError>;
    /// Destroys a key pair, also one that is half there; whether there was one.
    /// # Errors
    /// [`SignerError`]; it may have been destroyed all the same.
    fn destroy(&self, hsm: &str, object: TransitObjectId) -> Result<bool, SignerError>;
}

/// A row of the table: where the object is.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    format: Format1,
    hsm: String,
    since: Timestamp,
}

/// Objects that this run is making.
pub(super) type Under = Arc<Mutex<HashSet<TransitObjectId>>>;

/// Ends with the change that it rides in, made or not.
struct Guard(Under, TransitObjectId);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

/// A key pair that is about to be made.
pub struct Making {
    pub(super) hsm: String,
    object: TransitObjectId,
    kind: KeyKind,
    guard: Guard,
}

/// An object that must go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doomed {
    /// Its name.
    pub object: TransitObjectId,
    /// Where it is.
    pub hsm: String,
    since: Timestamp,
}

impl TransitRoom {
    /// A key pair that is to be made in an HSM, and the row that must be durable before.
    pub(super) fn intend(&self, kind: KeyKind, hsm: &str) -> Result<(Making, Change), TransitError> {
        if !kind.lives_in_hsms() {
            return Err(TransitError::NotThere(kind.as_str()));
        }
        if !self.signers.knows(hsm) {
            return Err(SignerError::NoSuchHsm(hsm.to_owned()).into());
        }
        let object = TransitObjectId::random(&*self.random);
        self.under.lock().insert(object);
        let making = Making {
            hsm: hsm.to_owned(),
            object,
            kind,
            guard: Guard(Arc::clone(&self.under), object),
        };
        let mut change = Change::new();
        self.doom(&mut change, object, hsm)?;
        Ok((making, change))
    }

    /// From the commit on the object is to be destroyed.
    pub(super) fn doom(&self, change: &mut Change, object: TransitObjectId, hsm: &str) -> Result<(), TransitError> {
        let row = Row {
            format: Format1,
            hsm: hsm.to_owned(),
            since: self.clock.now(),
        };
        let row = serde_json::to_vec(&row).map(Zeroizing::new)?;
        change.put(&self.objects, &[Part::Raw(object.as_bytes())], row);
        let soon = Arc::clone(&self.soon);
        change.then(move || soon.notify_one());
        Ok(())
    }

    /// Makes the key pair; with the change it is a version's, and not doomed any more. Its name and its public half.
    pub(super) async fn make(
        &self,
        change: &mut Change,
        making: Making,
    ) -> Result<(TransitObjectId, Vec<u8>), TransitError> {
        let Making {
            hsm,
            object,
            kind,
            guard,
        } = making;
        let signers = Arc::clone(&self.signers);
        let der = blocking(move || signers.make(&hsm, object, kind)).await?;
        // What follows the head of fixed length is the key, as the library's verifiers take it.
        let public = der.get(spki_head_bytes(kind)..).unwrap_or_default().to_vec();
        if spki(kind, &public) != der {
            return Err(TransitError::Damaged);
        }
        change.delete(&self.objects, &[Part::Raw(object.as_bytes())]);
        change.then(move || drop(guard));
        Ok((object, public))
    }

    /// Signs each, in order.
    pub(super) async fn sign_there(
        &self,
        hsm: &str,
        object: TransitObjectId,
        digests: Vec<[u8; 32]>,
    ) -> Result<Vec<Vec<u8>>, TransitError> {
        let (signers, hsm) = (Arc::clone(&self.signers), hsm.to_owned());
        blocking(move || {
            let each = digests.iter().map(|digest| signers.sign(&hsm, object, digest));
            each.collect()
        })
        .await
    }

    /// To be notified when objects have to go.
    pub fn soon(&self) -> Arc<Notify> {
        Arc::clone(&self.soon)
    }

    /// A page of the objects that must go, and where the next begins.
    /// # Errors
    /// The store.
    pub async fn doomed(&self, after: Option<&Cursor>) -> Result<(Vec<Doomed>, Option<Cursor>), StoreError> {
        let mut doomed = Vec::new();
        let page = self.objects.scan(&[], after, PAGE).await?;
        for entry in page.entries {
            let object = entry.key.first().and_then(|part| part.raw_array());
            let Some(object) = object.map(TransitObjectId::from_bytes) else {
                continue;
            };
            if self.under.lock().contains(&object) {
                continue;
            }
            // Looked at once more: it may have become a version's between the look at the table and the one at what is under way.
            let found = self.objects.get(&[Part::Raw(object.as_bytes())]).await?;
            let row = found.and_then(|found| serde_json::from_slice::<Row>(&found.value).ok());
            doomed.extend(row.map(|row| Doomed {
                object,
                hsm: row.hsm,
                since: row.since,
            }));
        }
        Ok((doomed, page.next))
    }

    /// Destroys one; the change says that it is done. `None`: it was not there, and may still come to be.
    /// # Errors
    /// The HSM's: later again.
    pub async fn destroy(&self, doomed: &Doomed) -> Result<Option<Change>, TransitError> {
        let (signers, one) = (Arc::clone(&self.signers), doomed.clone());
        let there = blocking(move || signers.destroy(&one.hsm, one.object)).await?;
        if !there && self.clock.now() < doomed.since.plus_secs(MADE_WITHIN_SECS) {
            return Ok(None);
        }
        let mut change = Change::new();
        change.delete(&self.objects, &[Part::Raw(doomed.object.as_bytes())]);
        Ok(Some(change))
    }
}

const fn spki_head_bytes(kind: KeyKind) -> usize {
    match kind {
        KeyKind::EcdsaP256 => 26,
        _ => 24,
    }
}

async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, SignerError> + Send + 'static,
) -> Result<T, TransitError> {
    match tokio::task::spawn_blocking(call).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(TransitError::Crypto),
    }
}
