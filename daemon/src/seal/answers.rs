//! The answer to a ceremony that made a slot holds its new shares, and they are shown once. Should that answer be lost on its way, the holder
//! who completed the session brings the same share once more, under the session's nonce, and gets it again: until the session would have
//! expired, and from the memory of this daemon alone.
//!
//! What is kept is sealed under a key that only that share gives. So the nonce, which the other holders know too, does not open it, and
//! neither does the daemon's memory.

use super::{
    ceremony::Nonce,
    quorum::{Share, ShareText},
    spec::SlotName,
};
use crate::base::{
    limits::{SLOT_SESSION_TTL_SECS, SLOT_SESSIONS_MAX},
    locked::{LockedKey, scrubbed},
    time::Clock,
};
use aes_gcm::{Aes256Gcm, KeyInit, aead::AeadInOut};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use zeroize::Zeroizing;

const TAG_BYTES: usize = 16;

/// A slot's new shares.
#[derive(Debug)]
pub struct NewShares {
    /// The slot.
    pub slot: SlotName,
    /// In the order of their indices.
    pub shares: Vec<ShareText>,
    /// In words.
    pub warnings: Vec<String>,
}

struct Kept {
    session: Nonce,
    slot: SlotName,
    warnings: Vec<String>,
    /// The shares' texts, a line each, under AES-256-GCM; the tag last.
    sealed: Vec<u8>,
    /// On the monotonic clock.
    expires: Duration,
}

/// The answers that may have been lost. Bounded like the sessions; the oldest goes first.
pub struct Answers {
    kept: Mutex<VecDeque<Kept>>,
    clock: Arc<dyn Clock>,
}

impl Answers {
    /// None yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            kept: Mutex::default(),
            clock,
        }
    }

    /// Keeps what `session` made, for whoever has `share`, which completed it. Where there is no locked memory, nothing is kept.
    pub fn keep(&self, session: &Nonce, share: &str, slot: &SlotName, shares: &[ShareText], warnings: &[String]) {
        let Some(key) = key(session, share) else { return };
        let bytes = shares.iter().map(|share| share.len() + 1).sum::<usize>();
        // Its final size at once: nothing is left behind by growing, and encryption happens in place.
        let mut plain = Vec::with_capacity(bytes + TAG_BYTES);
        for share in shares {
            plain.extend_from_slice(share.expose().as_bytes());
            plain.push(b'\n');
        }
        let mut plain = Zeroizing::new(plain);
        // The key is of this session and this share alone, and seals once: its nonce may be zero.
        let tag = scrubbed(|| {
            let aad = slot.as_str().as_bytes();
            Aes256Gcm::new(key.expose().into()).encrypt_inout_detached(
                &[0; 12].into(),
                aad,
                plain.as_mut_slice().into(),
            )
        });
        let Ok(tag) = tag else { return };
        plain.extend_from_slice(&tag);
        let now = self.clock.monotonic();
        let mut kept = self.kept.lock();
        kept.retain(|answer| answer.expires > now);
        if kept.len() >= SLOT_SESSIONS_MAX {
            kept.pop_front();
        }
        kept.push_back(Kept {
            session: *session,
            slot: slot.clone(),
            warnings: warnings.to_vec(),
            sealed: std::mem::take(&mut *plain),
            expires: now + Duration::from_secs(SLOT_SESSION_TTL_SECS),
        });
    }

    /// What `session` made, if it was completed by this very share.
    pub fn again(&self, session: &Nonce, share: &str) -> Option<NewShares> {
        let now = self.clock.monotonic();
        let (slot, warnings, sealed) = {
            let mut kept = self.kept.lock();
            kept.retain(|answer| answer.expires > now);
            let found = kept.iter().find(|answer| answer.session.same_as(session))?;
            (found.slot.clone(), found.warnings.clone(), found.sealed.clone())
        };
        let (body, tag) = sealed.split_last_chunk::<TAG_BYTES>()?;
        let mut plain = Zeroizing::new(body.to_vec());
        let key = key(session, share)?;
        scrubbed(|| {
            let (aad, text) = (slot.as_str().as_bytes(), plain.as_mut_slice().into());
            Aes256Gcm::new(key.expose().into()).decrypt_inout_detached(&[0; 12].into(), aad, text, tag.into())
        })
        .ok()?;
        let shares = std::str::from_utf8(&plain)
            .ok()?
            .lines()
            .map(ShareText::again)
            .collect();
        Some(NewShares { slot, shares, warnings })
    }
}

/// `SHA-256("strongroom.answer/1" | nonce | the share's value)`: shares are uniform, so nothing slower is needed.
fn key(session: &Nonce, share: &str) -> Option<LockedKey> {
    let value = Share::parse(share).ok()?.into_value();
    LockedKey::fill_with(|key| {
        let hash = Sha256::new_with_prefix(b"strongroom.answer/1")
            .chain_update(session.as_bytes())
            .chain_update(value.expose());
        key.copy_from_slice(&hash.finalize());
    })
    .ok()
}
