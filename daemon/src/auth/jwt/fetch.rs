//! Fetching an issuer's keys, by the one client that the room has for the outside ([`crate::auth::outside`]). Nothing of a stranger's token becomes
//! part of the request: the URL is the trust's, or its issuer's.
//!
//! Keys are kept for an hour, a key that is not among them is looked for at most twice a minute, and keys that cannot be fetched anew are
//! used for a day.

use super::{
    jwks::{JWKS_BYTES_MAX, KeySet},
    jws::Compact,
};
use crate::auth::outside::{Client, OutsideError, url};
use arc_swap::ArcSwapOption;
use hyper::Uri;
use std::{sync::Arc, time::Duration};
use tokio::sync::Mutex;

/// Keys are fetched anew when they are older.
const FRESH: Duration = Duration::from_secs(3600);
/// Between two fetches, whatever asks for them.
const PAUSE: Duration = Duration::from_secs(30);
/// Keys that cannot be fetched anew are used no longer.
const STALE: Duration = Duration::from_secs(24 * 3600);

struct Kept {
    keys: Arc<KeySet>,
    at: Duration,
}

/// An issuer's keys, fetched when they are needed.
pub struct Fetched {
    url: Uri,
    client: Client,
    kept: ArcSwapOption<Kept>,
    /// When it was last tried; one fetch at a time.
    tried: Mutex<Option<Duration>>,
}

impl Fetched {
    /// Keys at `keys`; nothing is fetched yet.
    /// # Errors
    /// `Url`.
    pub fn new(keys: &str, client: Client) -> Result<Self, OutsideError> {
        Ok(Self {
            url: url(keys).ok_or(OutsideError::Url)?,
            client,
            kept: ArcSwapOption::empty(),
            tried: Mutex::new(None),
        })
    }

    /// The keys, with the one that `token` means if the issuer has it. `now` is monotonic. `None`: there are none to be had.
    pub async fn keys(&self, token: &Compact<'_>, now: Duration) -> Option<Arc<KeySet>> {
        let usable = |kept: &Kept| now.saturating_sub(kept.at) < FRESH && kept.keys.has(token);
        if let Some(kept) = self.kept.load().as_deref().filter(|kept| usable(kept)) {
            return Some(Arc::clone(&kept.keys));
        }
        let mut tried = self.tried.lock().await;
        // Whoever waited for another's fetch finds its keys.
        let settled = self.kept.load().as_deref().is_some_and(usable);
        if !settled && tried.is_none_or(|at| now.saturating_sub(at) >= PAUSE) {
            let fetched = self.fetch().await;
            // Only now: who left in the middle has not tried.
            *tried = Some(now);
            match fetched {
                Ok(keys) => self.kept.store(Some(Arc::new(Kept {
                    keys: Arc::new(keys),
                    at: now,
                }))),
                Err(error) => {
                    tracing::warn!(url = %self.url, cause = %error, "an issuer's keys could not be fetched");
                }
            }
        }
        let kept = self.kept.load();
        let kept = kept.as_deref().filter(|kept| now.saturating_sub(kept.at) < STALE)?;
        Some(Arc::clone(&kept.keys))
    }

    async fn fetch(&self) -> Result<KeySet, OutsideError> {
        let bytes = self.client.get(&self.url, JWKS_BYTES_MAX).await?;
        KeySet::lenient(&bytes).map_err(OutsideError::Answer)
    }
}
