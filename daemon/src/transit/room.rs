//! What keys are used for. Nothing here changes the store.

use super::{
    BATCH_ITEMS_MAX, CONTEXT_BYTES_MAX, DATA_KEY_BYTES, Facts, KeyKind, READY_MAX, TransitError,
    envelope::{Envelope, Head},
    material::{Material, signature},
    record::VersionRecord,
    resident::{Signers, Under},
};
use crate::{
    base::{
        id::{MountId, TransitKeyId},
        limits::VALUE_BYTES_MAX,
        random::Random,
        time::Clock,
    },
    mount::{Kind, MountRoom, Place},
    policy::{Action, Permit},
    store::{Namespace, Part, Store, Table, Version, View},
};
use bytes::Bytes;
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fmt, sync::Arc};
use tokio::sync::{Notify, Semaphore};
use zeroize::Zeroizing;

/// A text, or a ciphertext, and what it is bound to.
pub struct Text {
    /// Content.
    pub bytes: Bytes,
    /// Associated data; not secret, not stored.
    pub context: Bytes,
}

#[derive(Clone)]
/// What is said to have been made by a key.
pub struct ToVerify {
    /// What was signed.
    pub input: Bytes,
    /// The signature or HMAC.
    pub made: Bytes,
    /// The version that is said to have made it.
    pub version: u32,
}

/// A ciphertext, signature or HMAC.
#[derive(Debug, PartialEq, Eq)]
pub struct Made {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The version that made it.
    pub version: u32,
}

/// A fresh key for the caller's own use.
pub struct DataKey {
    /// The key; none when only the wrapped one was asked for.
    pub plain: Option<Zeroizing<Vec<u8>>>,
    /// The same as a ciphertext.
    pub wrapped: Made,
}

/// One answer for each item, in order.
type Each<T> = Vec<Result<T, TransitError>>;

/// The facade of the room.
pub struct TransitRoom {
    pub(super) keys: View,
    pub(super) versions: View,
    pub(super) mounts: Arc<MountRoom>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
    pub(super) ready: Arc<Cache<(TransitKeyId, u32), Arc<Material>>>,
    /// Asymmetric work at once: it takes a thread of its own, and the processor.
    pub(super) heavy: Arc<Semaphore>,
    /// Objects in HSMs that must be destroyed.
    pub(super) objects: View,
    pub(super) signers: Arc<dyn Signers>,
    pub(super) under: Under,
    /// There are such objects.
    pub(super) soon: Arc<Notify>,
}

/// A key in its mount.
pub(super) struct At<'a> {
    pub mount: &'a MountId,
    pub name: &'a str,
}

impl<'a> At<'a> {
    pub fn of(permit: &'a Permit, action: Action, place: &'a Place) -> Result<Self, TransitError> {
        let rest = place.rest.as_ref().ok_or(TransitError::Name)?;
        if place.mount.kind() != Kind::Transit || permit.path().below(place.mount.path()).as_ref() != Some(rest) {
            return Err(crate::policy::Mismatch.into());
        }
        permit.covers(action, permit.path())?;
        let mut segments = rest.segments();
        match (segments.next(), segments.next()) {
            (Some(name), None) => Ok(Self {
                mount: place.mount.id_ref(),
                name,
            }),
            _ => Err(TransitError::Name),
        }
    }

    pub fn key(&self) -> [Part<'a>; 2] {
        [Part::Raw(self.mount.as_bytes()), Part::Name(self.name)]
    }
}

impl TransitRoom {
    /// Opens the room; reads nothing.
    pub fn open(
        store: &Store,
        mounts: Arc<MountRoom>,
        signers: Arc<dyn Signers>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            keys: store.view(Namespace::ROOT, Table::TransitKey),
            versions: store.view(Namespace::ROOT, Table::TransitVersion),
            mounts,
            clock,
            random,
            ready: Arc::new(Cache::new(READY_MAX)),
            heavy: Arc::new(Semaphore::new(cores.div_ceil(2))),
            objects: store.view(Namespace::ROOT, Table::TransitObject),
            signers,
            under: Under::default(),
            soon: Arc::default(),
        }
    }

    pub(super) async fn find(&self, at: &At<'_>) -> Result<(Facts, Version), TransitError> {
        let found = self.keys.get(&at.key()).await?.ok_or(TransitError::NotFound)?;
        let facts = Facts::decode(&found.value).ok_or(TransitError::Damaged)?;
        Ok((facts, found.version))
    }

    /// A version, ready for use. Whoever asks has looked at the key's facts.
    async fn material(&self, at: &At<'_>, facts: &Facts, version: u32) -> Result<Arc<Material>, TransitError> {
        let id = (facts.id, version);
        if let Some(ready) = self.ready.get(&id) {
            return Ok(ready);
        }
        let number = version.to_be_bytes();
        let key = version_key(at.mount, &facts.id, &number).map(Part::Raw);
        let found = self.versions.get(&key).await?.ok_or(TransitError::Damaged)?;
        let record = VersionRecord::decode(&found.value).ok_or(TransitError::Damaged)?;
        let material = match &facts.hsm {
            None => Material::load(facts.kind, &record.fresh)?,
            Some(_) => {
                let object = record.object().ok_or(TransitError::Damaged)?;
                Material::resident(facts.kind, record.fresh.public, object)
            }
        };
        let material = Arc::new(material);
        self.ready.insert(id, Arc::clone(&material));
        Ok(material)
    }

    /// Every version in use that `asked` names.
    async fn materials(
        &self,
        at: &At<'_>,
        facts: &Facts,
        asked: impl Iterator<Item = u32>,
    ) -> Result<BTreeMap<u32, Arc<Material>>, TransitError> {
        let mut found = BTreeMap::new();
        for version in asked.filter(|version| facts.uses(*version)) {
            if let std::collections::btree_map::Entry::Vacant(entry) = found.entry(version) {
                entry.insert(self.material(at, facts, version).await?);
            }
        }
        Ok(found)
    }

    /// Work that may take long, on a thread of its own.
    pub(super) async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, TransitError> + Send + 'static,
    ) -> Result<T, TransitError> {
        let _turn = self.heavy.acquire().await.map_err(|_| TransitError::Crypto)?;
        tokio::task::spawn_blocking(work)
            .await
            .unwrap_or(Err(TransitError::Crypto))
    }

    /// Encrypts with the newest version.
    /// # Errors
    /// The key's; each item's own beside the others'.
    pub async fn encrypt(&self, permit: &Permit, place: &Place, items: &[Text]) -> Result<Each<Made>, TransitError> {
        counted(items.len())?;
        let at = At::of(permit, Action::Encrypt, place)?;
        let (facts, _) = self.find(&at).await?;
        facts.kind.must(facts.kind == KeyKind::Aes256Gcm, "encrypt")?;
        let material = self.material(&at, &facts, facts.latest).await?;
        Ok(items
            .iter()
            .map(|item| {
                bounded(item)?;
                self.seal(&at, &facts, &material, &item.context, &item.bytes)
            })
            .collect())
    }

    fn seal(
        &self,
        at: &At<'_>,
        facts: &Facts,
        material: &Material,
        context: &[u8],
        plain: &[u8],
    ) -> Result<Made, TransitError> {
        let (key, version) = (facts.id, facts.latest);
        let bytes = material.seal(&*self.random, Head { key, version }, at.mount, context, plain)?;
        Ok(Made { bytes, version })
    }

    /// Decrypts with the version that each ciphertext names, if that is in use.
    /// # Errors
    /// As [`Self::encrypt`].
    pub async fn decrypt(
        &self,
        permit: &Permit,
        place: &Place,
        items: &[Text],
    ) -> Result<Each<Zeroizing<Vec<u8>>>, TransitError> {
        let at = At::of(permit, Action::Decrypt, place)?;
        let (_, opened) = self.opened(&at, items).await?;
        Ok(opened)
    }

    async fn opened(&self, at: &At<'_>, items: &[Text]) -> Result<(Facts, Each<Zeroizing<Vec<u8>>>), TransitError> {
        counted(items.len())?;
        let (facts, _) = self.find(at).await?;
        facts.kind.must(facts.kind == KeyKind::Aes256Gcm, "decrypt")?;
        let named = |item: &Text| {
            let head = Envelope::parse(&item.bytes)?.head;
            (head.key == facts.id).then_some(head.version)
        };
        let materials = self.materials(at, &facts, items.iter().filter_map(named)).await?;
        let open = |item: &Text| {
            bounded(item)?;
            let envelope = Envelope::parse(&item.bytes).ok_or(TransitError::Ciphertext)?;
            if envelope.head.key != facts.id {
                return Err(TransitError::OtherKey);
            }
            let version = envelope.head.version;
            let material = materials.get(&version).ok_or(TransitError::NoVersion(version))?;
            material.open(&envelope, at.mount, &item.context)
        };
        let opened = items.iter().map(open).collect();
        Ok((facts, opened))
    }

    /// Encrypts anew with the newest version, under the same context; the text does not leave.
    /// # Errors
    /// As [`Self::encrypt`].
    pub async fn rewrap(&self, permit: &Permit, place: &Place, items: &[Text]) -> Result<Each<Made>, TransitError> {
        let at = At::of(permit, Action::Rewrap, place)?;
        let (facts, opened) = self.opened(&at, items).await?;
        let newest = self.material(&at, &facts, facts.latest).await?;
        let again = |(item, opened): (&Text, Result<Zeroizing<Vec<u8>>, TransitError>)| {
            self.seal(&at, &facts, &newest, &item.context, &opened?)
        };
        Ok(items.iter().zip(opened).map(again).collect())
    }

    /// Signs with the newest version.
    /// # Errors
    /// The key's.
    pub async fn sign(&self, permit: &Permit, place: &Place, inputs: Vec<Bytes>) -> Result<Each<Made>, TransitError> {
        let at = At::of(permit, Action::Sign, place)?;
        let (facts, _) = self.find(&at).await?;
        facts.kind.must(facts.kind.signs(), "sign")?;
        self.made(&at, &facts, inputs).await
    }

    /// Authenticates with the newest version.
    /// # Errors
    /// The key's.
    pub async fn hmac(&self, permit: &Permit, place: &Place, inputs: Vec<Bytes>) -> Result<Each<Made>, TransitError> {
        let at = At::of(permit, Action::Sign, place)?;
        let (facts, _) = self.find(&at).await?;
        facts.kind.must(facts.kind == KeyKind::HmacSha256, "make an HMAC")?;
        self.made(&at, &facts, inputs).await
    }

    async fn made(&self, at: &At<'_>, facts: &Facts, inputs: Vec<Bytes>) -> Result<Each<Made>, TransitError> {
        counted(inputs.len())?;
        let (material, version) = (self.material(at, facts, facts.latest).await?, facts.latest);
        let object = material.object();
        let digests = || inputs.iter().map(|input| Sha256::digest(input).into()).collect();
        let made = if let (Some(hsm), Some(object)) = (&facts.hsm, object) {
            let made = self.sign_there(hsm, object, digests()).await?;
            made.into_iter().map(|made| signature(facts.kind, made)).collect()
        } else {
            let work = move || material.sign_all(inputs.iter().map(|input| &input[..]));
            if facts.kind.signs() {
                self.apart(work).await?
            } else {
                work()?
            }
        };
        Ok(made.into_iter().map(|bytes| Ok(Made { bytes, version })).collect())
    }

    /// Whether the named version made each.
    /// # Errors
    /// As [`Self::encrypt`].
    pub async fn verify(
        &self,
        permit: &Permit,
        place: &Place,
        items: Vec<ToVerify>,
    ) -> Result<Each<bool>, TransitError> {
        counted(items.len())?;
        let at = At::of(permit, Action::Verify, place)?;
        let (facts, _) = self.find(&at).await?;
        facts.kind.must(facts.kind != KeyKind::Aes256Gcm, "verify")?;
        let materials = self
            .materials(&at, &facts, items.iter().map(|item| item.version))
            .await?;
        let verify = move |item: &ToVerify| match (item.version, materials.get(&item.version)) {
            (0, _) => Err(TransitError::VersionMissing),
            (version, None) => Err(TransitError::NoVersion(version)),
            (_, Some(material)) => material.verifies(&item.input, &item.made),
        };
        let work = move || Ok(items.iter().map(verify).collect());
        if facts.kind.signs() {
            self.apart(work).await
        } else {
            work()
        }
    }

    /// A fresh key, and the same wrapped by the newest version.
    /// # Errors
    /// The key's; [`TransitError::DataKey`].
    pub async fn data_key(
        &self,
        permit: &Permit,
        place: &Place,
        length: usize,
        context: &[u8],
        wrapped_only: bool,
    ) -> Result<DataKey, TransitError> {
        let at = At::of(permit, Action::Encrypt, place)?;
        if !DATA_KEY_BYTES.contains(&length) {
            return Err(TransitError::DataKey);
        }
        if context.len() > CONTEXT_BYTES_MAX {
            return Err(TransitError::Context);
        }
        let (facts, _) = self.find(&at).await?;
        facts.kind.must(facts.kind == KeyKind::Aes256Gcm, "wrap a data key")?;
        let material = self.material(&at, &facts, facts.latest).await?;
        let mut plain = Zeroizing::new(vec![0; length]);
        self.random.fill(&mut plain);
        let wrapped = self.seal(&at, &facts, &material, context, &plain)?;
        Ok(DataKey {
            plain: (!wrapped_only).then_some(plain),
            wrapped,
        })
    }
}

fn counted(items: usize) -> Result<(), TransitError> {
    if (1..=BATCH_ITEMS_MAX).contains(&items) {
        Ok(())
    } else {
        Err(TransitError::Batch)
    }
}

fn bounded(item: &Text) -> Result<(), TransitError> {
    if item.context.len() > CONTEXT_BYTES_MAX {
        return Err(TransitError::Context);
    }
    if item.bytes.len() > VALUE_BYTES_MAX + super::OVERHEAD_BYTES {
        return Err(TransitError::TooLarge);
    }
    Ok(())
}

/// A version lies under its mount's, its key's and its own number.
pub(super) fn version_key<'a>(mount: &'a MountId, key: &'a TransitKeyId, version: &'a [u8; 4]) -> [&'a [u8]; 3] {
    [mount.as_bytes(), key.as_bytes(), version]
}

impl fmt::Debug for TransitRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TransitRoom")
    }
}
