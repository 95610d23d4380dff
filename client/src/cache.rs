//! The last known values on disk, so that an application starts while the daemon is away. Secrets and passwords of existing accounts; leased
//! accounts are never written: what was leased to a process ends with it.
//!
//! A file: `SRMCACHE` and a version byte, a nonce (12 bytes), then under AES-256-GCM (with the nine bytes as AAD) the time at which it was last
//! known to be so, what was asked for, and what was delivered.

use crate::{
    delivery::{Delivered, Kind},
    error::{Error, Refusal},
    held::Health,
    secret::Secret,
    v1,
    want::Want,
};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use prost::Message as _;
use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::sync::watch;
use zeroize::{Zeroize as _, Zeroizing};

const HEAD: &[u8; 9] = b"SRMCACHE\x01";
const KEY_BYTES: usize = 32;
const TIME_BYTES: usize = 8;
const LENGTH_BYTES: usize = 4;
/// 64 items of 3 MiB in all, and their names.
const FILE_BYTES_MAX: u64 = 8 << 20;
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// A clock may have been set back a little since the file was written.
const AHEAD_MAX: Duration = Duration::from_secs(5 * 60);

/// When something was last known to be so, and what.
type Known = (SystemTime, Vec<(Want, Delivered)>);

/// What an application holds: things that it named, or what a bundle lists.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    pub wants: Vec<Want>,
    /// Its path; empty: none.
    pub bundle: String,
}

impl Asked {
    /// What is held is known by its path: two versions of one secret, or two accounts of one role, cannot be.
    pub(crate) fn once<'a>(paths: impl IntoIterator<Item = &'a str>) -> Result<(), Error> {
        let mut seen = std::collections::BTreeSet::new();
        match paths.into_iter().find(|path| !seen.insert(*path)) {
            None => Ok(()),
            Some(twice) => {
                let words = format!(
                    "{twice} is asked for twice: what is held is known by its path; fetch it with `fetch` or `fetch_bundle` instead"
                );
                Err(Error::Invalid(Refusal::local("ASKED_TWICE", words)))
            }
        }
    }
}

/// Where the last known values are kept across restarts, encrypted: see [`Builder::cache`](crate::Builder::cache).
#[derive(Clone)]
pub struct Cache {
    file: PathBuf,
    key: Arc<LessSafeKey>,
    max_age: Duration,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl Cache {
    /// In this file, under this key of 32 random bytes, which must not lie beside it: a systemd credential, or a secret of the platform.
    /// # Errors
    /// [`Error::Config`] for a key of another length.
    pub fn new(file: impl Into<PathBuf>, key: &Secret) -> Result<Self, Error> {
        let key = UnboundKey::new(&AES_256_GCM, key.expose())
            .map_err(|_| Error::Config(format!("the cache's key must have {KEY_BYTES} bytes")))?;
        Ok(Self {
            file: file.into(),
            key: Arc::new(LessSafeKey::new(key)),
            max_age: MAX_AGE,
        })
    }

    /// In this file, under the key that another file holds as its 32 bytes.
    /// # Errors
    /// [`Error::Config`] when that cannot be read, or has another length.
    pub fn with_key_file(file: impl Into<PathBuf>, key_file: impl AsRef<Path>) -> Result<Self, Error> {
        let name = key_file.as_ref().display();
        let fault = |why: String| Error::Config(format!("key file {name}: {why}"));
        let length = fs::metadata(&key_file).map_err(|error| fault(error.to_string()))?.len();
        if length != KEY_BYTES as u64 {
            return Err(fault(format!("it has {length} bytes; a key has {KEY_BYTES}")));
        }
        let key = fs::read(&key_file).map_err(|error| fault(error.to_string()))?;
        Self::new(file, &Secret::new(key))
    }

    /// Values that were known to be current longer ago than this are not used. Default: 24 hours.
    #[must_use]
    pub const fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// Writes what is held at the beginning, with each change, and from time to time, with the time at which it was last known to be so.
    pub(crate) async fn keep(
        self,
        (mut changes, health): (watch::Receiver<u64>, watch::Receiver<Health>),
        mut known: SystemTime,
        asked: Asked,
        held: impl Fn(&str) -> Option<Arc<Delivered>>,
    ) {
        let asked = Arc::new(asked);
        loop {
            changes.mark_unchanged();
            if *health.borrow() == Health::Fresh {
                known = SystemTime::now();
            }
            let held: Vec<_> = asked
                .wants
                .iter()
                .filter_map(|want| Some((want.clone(), held(&want.path)?)))
                .collect();
            let (to, asked) = (self.clone(), Arc::clone(&asked));
            // A part of a bundle is of no use to who asks for the bundle.
            let whole = !held.is_empty() && held.len() == asked.wants.len();
            match tokio::task::spawn_blocking(move || {
                let bundle = if whole { asked.bundle.as_str() } else { "" };
                to.save(known, bundle, &held)
            })
            .await
            {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(error, "the cache was not written"),
                Err(error) => tracing::error!(%error, "the task that writes the cache failed"),
            }
            // An end of either wait means: look again.
            let _ = tokio::time::timeout(self.every(), changes.changed()).await;
        }
    }

    /// How often the time in the file is renewed while all is well.
    fn every(&self) -> Duration {
        (self.max_age / 8).clamp(Duration::from_secs(1), Duration::from_secs(600))
    }

    /// Writes what can be kept, as known at `known`; the file that was there is replaced whole.
    fn save(&self, known: SystemTime, bundle: &str, held: &[(Want, Arc<Delivered>)]) -> Result<(), String> {
        let sealed = self.seal(known, bundle, held).ok_or("it cannot be encrypted")?;
        write_private(&self.file, &sealed).map_err(|error| format!("{}: {error}", self.file.display()))
    }

    /// What was asked for, as it was last known and when, in the order asked.
    pub(crate) fn load(&self, now: SystemTime, asked: &Asked) -> Result<Known, String> {
        let tell = |error: io::Error| format!("{}: {error}", self.file.display());
        if fs::metadata(&self.file).map_err(tell)?.len() > FILE_BYTES_MAX {
            return Err(format!("{}: too large to be a cache", self.file.display()));
        }
        let sealed = fs::read(&self.file).map_err(tell)?;
        self.open(now, &sealed, asked)
            .map_err(|why| format!("{}: {why}", self.file.display()))
    }

    /// Nothing of it may be used any more.
    pub(crate) fn forget(&self) {
        if let Err(error) = fs::remove_file(&self.file)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "the cache could not be removed");
        }
    }

    fn seal(&self, known: SystemTime, bundle: &str, held: &[(Want, Arc<Delivered>)]) -> Option<Vec<u8>> {
        let whole = held.iter().all(|(_, delivered)| delivered.lease_id().is_none());
        let kept = || {
            held.iter()
                .filter(|(_, delivered)| !matches!(delivered.kind, Kind::Lease { .. }))
        };
        let asked = v1::FetchRequest {
            items: kept().map(|(want, _)| want.to_wire()).collect(),
            // A part of a bundle is of no use to who asks for the bundle.
            bundle: if whole { bundle.to_owned() } else { String::new() },
            ..Default::default()
        };
        let mut given = v1::FetchResponse {
            items: kept().map(|(_, delivered)| delivered.to_wire()).collect(),
        };
        let known = known.duration_since(UNIX_EPOCH).ok()?.as_secs();
        // Once and large enough: what a growing vector leaves behind is not wiped.
        let size = TIME_BYTES + LENGTH_BYTES + asked.encoded_len() + given.encoded_len();
        let mut plain = Zeroizing::new(Vec::with_capacity(size));
        plain.extend_from_slice(&known.to_be_bytes());
        plain.extend_from_slice(&u32::try_from(asked.encoded_len()).ok()?.to_be_bytes());
        asked.encode(&mut *plain).ok()?;
        given.encode(&mut *plain).ok()?;
        for value in given.items.iter_mut().flat_map(|item| item.fields.values_mut()) {
            if let Ok(mut ours) = std::mem::take(value).try_into_mut() {
                ours.zeroize();
            }
        }
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).ok()?;
        // Encrypted in place; the tag beside, so that nothing grows.
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(HEAD), &mut plain)
            .ok()?;
        Some([HEAD, &nonce[..], &plain, tag.as_ref()].concat())
    }

    fn open(&self, now: SystemTime, sealed: &[u8], wanted: &Asked) -> Result<Known, &'static str> {
        const OTHER: &str = "not a cache of this key, or damaged";
        const MISSING: &str = "not all of what is asked for is in it";
        let rest = sealed.strip_prefix(HEAD).ok_or(OTHER)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(OTHER)?;
        let mut body = Zeroizing::new(body.to_vec());
        let plain = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(HEAD), &mut body)
            .map_err(|_| OTHER)?;
        let (known, rest) = plain.split_first_chunk::<TIME_BYTES>().ok_or(OTHER)?;
        let (length, rest) = rest.split_first_chunk::<LENGTH_BYTES>().ok_or(OTHER)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| OTHER)?;
        let (asked, given) = rest.split_at_checked(length).ok_or(OTHER)?;
        let known_at = UNIX_EPOCH + Duration::from_secs(u64::from_be_bytes(*known).min(1 << 40));
        match now.duration_since(known_at) {
            Ok(age) if age > self.max_age => return Err("too old to be used"),
            Err(ahead) if ahead.duration() > AHEAD_MAX => return Err("from a time that has not come yet"),
            _ => {}
        }
        let asked = v1::FetchRequest::decode(asked).map_err(|_| OTHER)?;
        let bundle = asked.bundle;
        let given = v1::FetchResponse::decode(given).map_err(|_| OTHER)?;
        let mut known = Vec::new();
        for (asked, given) in asked.items.into_iter().zip(given.items) {
            known.push((Want::from_wire(asked), Delivered::from_wire(given).map_err(|_| OTHER)?));
        }
        if !wanted.bundle.is_empty() {
            return match wanted.bundle == bundle {
                true => Ok((known_at, known)),
                false => Err(MISSING),
            };
        }
        let mut found = Vec::new();
        for want in &wanted.wants {
            let at = known.iter().position(|(known, _)| known == want).ok_or(MISSING)?;
            found.push(known.swap_remove(at));
        }
        Ok((known_at, found))
    }
}

/// Beside it first, for its owner alone, then in its place.
fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&beside).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    let placed = written.and_then(|()| fs::rename(&beside, path));
    if placed.is_err() {
        // The error that is told says more.
        let _ = fs::remove_file(&beside);
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cache(dir: &Path, key: u8) -> Cache {
        Cache::new(dir.join("cache"), &Secret::new(vec![key; KEY_BYTES])).unwrap()
    }
    fn delivered(path: &str, value: &str, kind: Kind) -> Arc<Delivered> {
        Arc::new(Delivered {
            name: "db".into(),
            path: path.into(),
            fields: [("value".to_owned(), Secret::from(value))].into(),
            kind,
            remaining: None,
            resume: "seen".into(),
        })
    }
    fn secret() -> Kind {
        Kind::Secret {
            version: 7,
            created_at: "2026-01-01T00:00:00Z".into(),
            labels: vec!["current".into()],
        }
    }
    fn lease() -> Kind {
        Kind::Lease {
            lease_id: "id".into(),
            expires_at: String::new(),
            ttl: Duration::from_secs(60),
            renewable: true,
        }
    }

    /// R-OPS-6: what was known is found again by what was asked; not leases, not what is too old, not under another key, not for another version.
    #[test]
    fn what_was_known_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, other) = (cache(dir.path(), 1), self::cache(dir.path(), 2));
        let (a, label) = (
            Want::new("kv/a"),
            Want::new("kv/a").select(crate::Select::Label("next".into())),
        );
        let held = [
            (a.clone(), delivered("kv/a", "canary-one", secret())),
            (Want::new("pg/readers"), delivered("pg/readers", "canary-two", lease())),
        ];
        let now = SystemTime::now();
        cache.save(now, "kv/bundle", &held).unwrap();
        let file = dir.path().join("cache");
        let bytes = fs::read(&file).unwrap();
        assert!(!bytes.windows(6).any(|six| six == b"canary"), "it is encrypted");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let just = |want: &Want| Asked {
            wants: vec![want.clone()],
            bundle: String::new(),
        };
        let bundle = Asked {
            wants: Vec::new(),
            bundle: "kv/bundle".into(),
        };
        let (_, found) = cache.load(now, &just(&a)).unwrap();
        assert_eq!(found[0].1.field("value").unwrap().expose(), b"canary-one");
        assert_eq!(
            (found[0].1.kind.clone(), found[0].1.resume.as_str()),
            (secret(), "seen")
        );
        let later = now + MAX_AGE + Duration::from_secs(2);
        let earlier = now - AHEAD_MAX - Duration::from_secs(2);
        for (which, when, want) in [
            (&cache, now, &Want::new("pg/readers")),
            (&cache, now, &Want::new("kv/b")),
            (&cache, now, &label),
            (&cache, later, &a),
            (&cache, earlier, &a),
            (&other, now, &a),
        ] {
            assert!(which.load(when, &just(want)).is_err(), "{which:?} {when:?} {want:?}");
        }
        assert!(cache.load(now, &bundle).is_err(), "an account is missing");
        cache.save(now, "kv/bundle", &held[..1]).unwrap();
        assert_eq!(cache.load(now, &bundle).unwrap().1[0].1.name, "db");
        cache.forget();
        assert!(cache.load(now, &just(&a)).is_err());
        assert!(Cache::new("x", &Secret::new(vec![1; 31])).is_err());
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_noticed(at in any::<prop::sample::Index>(), bit in 0..8_u8, garbage in prop::collection::vec(any::<u8>(), 0..200)) {
            let cache = cache(Path::new("/nowhere"), 1);
            let held = [(Want::new("kv/a"), delivered("kv/a", "x", secret()))];
            let now = SystemTime::now();
            let mut sealed = cache.seal(now, "", &held).unwrap();
            let wants = Asked { wants: vec![Want::new("kv/a")], ..Default::default() };
            prop_assert!(cache.open(now, &sealed, &wants).is_ok());
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(cache.open(now, &sealed, &wants).is_err());
            prop_assert!(cache.open(now, sealed.get(..at).unwrap(), &wants).is_err());
            prop_assert!(cache.open(now, &garbage, &wants).is_err());
        }
    }
}
