//! Sealed tokens: all there is to know of one stands in it, under AES-256-GCM. A log-in that gives one writes nothing (R-AUTH-4).
//!
//! ```text
//! srm_st_ | base64url( epoch 4 | hour 4 | nonce 12 | claims, encrypted | tag 16 ) | CRC-32 in 6 base62 digits
//! ```
//! The key of an hour is HMAC-SHA-256(pepper of the epoch, context, hour): it needs no record, is the same after a restart, and ends with
//! its hour and with its pepper. A key seals at random 96-bit nonces, far below 2^32 in an hour (NIST SP 800-38D, 8.3).

use super::{
    TokenError, Unidentified,
    pepper::Peppers,
    text::{self, SUM_DIGITS, TokenText},
};
use crate::{
    base::{
        id::{Accessor, IdentityId, SessionId, TrustId},
        locked::Locked,
        random::Random,
        time::Timestamp,
    },
    policy::Bound,
};
use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{AeadInOut, inout::InOutBuf},
};
use data_encoding::BASE64URL_NOPAD;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use zeroize::Zeroizing;

const PREFIX: &str = "srm_st_";
const HEADER_BYTES: usize = 4 + 4 + NONCE_BYTES;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const HOUR_SECS: u64 = 3600;
const CONTEXT: &[u8] = b"strongroom sealed tokens v1";
/// Claims of one token, as JSON: a request carries them in a header.
const CLAIMS_BYTES_MAX: usize = 3 << 10;
/// Longest text of a sealed token.
pub const SEALED_TOKEN_BYTES_MAX: usize =
    PREFIX.len() + (HEADER_BYTES + CLAIMS_BYTES_MAX + TAG_BYTES) * 4 / 3 + 1 + SUM_DIGITS;
/// A sealed token lives no longer; none is renewed.
pub const SEALED_TTL_MAX_SECS: u64 = 15 * 60;
/// Ciphers kept: this hour's and the last one's, under two peppers.
const CIPHERS_MAX: usize = 4;
/// First bytes of the ids of sealed sessions, so that an accessor tells what it is of; 104 random bits are left.
const MAGIC: [u8; 3] = [0x5e, 0xa1, 0xed];

/// What stands in a sealed token. Short names: it travels with every request.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Claims {
    #[serde(rename = "v")]
    pub format: u8,
    #[serde(rename = "s")]
    pub session: SessionId,
    #[serde(rename = "i")]
    pub identity: IdentityId,
    #[serde(rename = "t")]
    pub trust: TrustId,
    #[serde(rename = "n")]
    pub name: String,
    #[serde(rename = "g")]
    pub groups: BTreeSet<String>,
    #[serde(rename = "a")]
    pub attributes: BTreeMap<String, String>,
    #[serde(rename = "b")]
    pub issued: Timestamp,
    #[serde(rename = "e")]
    pub expires: Timestamp,
    #[serde(rename = "l")]
    pub end_leases: bool,
    #[serde(rename = "k")]
    pub bound: Option<Bound>,
}

/// The only format.
pub(super) const FORMAT: u8 = 1;

/// An id for a sealed session. Its one token has the same bytes as accessor.
pub(super) fn session_id(random: &dyn Random) -> SessionId {
    let mut id = *SessionId::random(random).as_bytes();
    id[..MAGIC.len()].copy_from_slice(&MAGIC);
    SessionId::from_bytes(id)
}

/// The sealed session that this accessor is of, should it be of one.
pub(super) fn session_of(accessor: Accessor) -> Option<SessionId> {
    let id = *accessor.as_bytes();
    id.starts_with(&MAGIC).then(|| SessionId::from_bytes(id))
}

/// Whether the text claims to be a sealed token.
pub(super) fn is_sealed(text: &str) -> bool {
    text.starts_with(PREFIX)
}

struct Cipher {
    epoch: u32,
    hour: u32,
    keyed: Locked<Aes256Gcm>,
}

/// The ciphers of late.
#[derive(Default)]
pub(super) struct Sealer(RwLock<Vec<Arc<Cipher>>>);

fn hour(at: Timestamp) -> u32 {
    u32::try_from(at.0 / 1000 / HOUR_SECS).unwrap_or(u32::MAX)
}

impl Sealer {
    /// The text of a token with these claims.
    /// # Errors
    /// `LogInTooLarge` beyond 3 KiB of claims; no locked memory.
    pub fn seal(&self, peppers: &Peppers, claims: &Claims, random: &dyn Random) -> Result<TokenText, TokenError> {
        let mut plain = Zeroizing::new(serde_json::to_vec(claims)?);
        if plain.len() > CLAIMS_BYTES_MAX {
            return Err(TokenError::LogInTooLarge);
        }
        let (epoch, hour) = (peppers.current(), hour(claims.issued));
        let cipher = self
            .cipher(peppers, epoch, hour)?
            .ok_or(TokenError::Damaged("pepper"))?;
        let mut nonce = [0; NONCE_BYTES];
        random.fill(&mut nonce);
        let header = [&epoch.to_be_bytes()[..], &hour.to_be_bytes(), &nonce].concat();
        let tag = cipher
            .keyed
            .encrypt_inout_detached(&nonce.into(), &aad(&header), InOutBuf::from(&mut plain[..]))
            .map_err(|_| TokenError::LogInTooLarge)?;
        let body = [&header[..], &plain, &tag].concat();
        let mut text = Zeroizing::new(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&body)));
        let sum = text::checksum(text.as_bytes());
        text.extend(sum.iter().map(|digit| char::from(*digit)));
        Ok(TokenText::sealed(text.as_bytes()))
    }

    /// The claims of a token's text. Length and checksum come before any cryptography; the tag before any parsing.
    /// # Errors
    /// Why it is none of ours.
    pub fn open(&self, peppers: &Peppers, text: &str, now: Timestamp) -> Result<Claims, Unidentified> {
        let wrong = Unidentified::Malformed;
        if text.len() > SEALED_TOKEN_BYTES_MAX || !text.is_ascii() {
            return Err(wrong);
        }
        let (summed, sum) = text
            .split_at_checked(text.len().saturating_sub(SUM_DIGITS))
            .ok_or(wrong)?;
        if text::checksum(summed.as_bytes()) != sum.as_bytes() {
            return Err(wrong);
        }
        let body = summed.strip_prefix(PREFIX).ok_or(wrong)?;
        let body = BASE64URL_NOPAD.decode(body.as_bytes()).map_err(|_| wrong)?;
        let (header, rest) = body.split_first_chunk::<HEADER_BYTES>().ok_or(wrong)?;
        let (sealed, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(wrong)?;
        let [e0, e1, e2, e3, h0, h1, h2, h3, nonce @ ..] = *header;
        let (epoch, made) = (
            u32::from_be_bytes([e0, e1, e2, e3]),
            u32::from_be_bytes([h0, h1, h2, h3]),
        );
        // Of this hour or the last: older ones have expired, and their keys are not made again.
        if hour(now).checked_sub(made).is_none_or(|age| age > 1) {
            return Err(Unidentified::Expired);
        }
        let cipher = self
            .cipher(peppers, epoch, made)
            .ok()
            .flatten()
            .ok_or(Unidentified::Unknown)?;
        let mut plain = Zeroizing::new(sealed.to_vec());
        cipher
            .keyed
            .decrypt_inout_detached(
                &nonce.into(),
                &aad(header),
                InOutBuf::from(&mut plain[..]),
                &(*tag).into(),
            )
            .map_err(|_| Unidentified::Unknown)?;
        serde_json::from_slice::<Claims>(&plain)
            .ok()
            .filter(|claims| claims.format == FORMAT)
            .ok_or(wrong)
    }

    /// `None` for an epoch that has no pepper any more.
    fn cipher(&self, peppers: &Peppers, epoch: u32, hour: u32) -> Result<Option<Arc<Cipher>>, TokenError> {
        let fits = |cipher: &&Arc<Cipher>| cipher.epoch == epoch && cipher.hour == hour;
        if let Some(cipher) = self.0.read().iter().find(fits) {
            return Ok(Some(Arc::clone(cipher)));
        }
        let context = [CONTEXT, &hour.to_be_bytes()].concat();
        let Some(key) = peppers.derive(epoch, &context) else {
            return Ok(None);
        };
        let cipher = Arc::new(Cipher {
            epoch,
            hour,
            keyed: Locked::new(|| Aes256Gcm::new((&*key).into()))?,
        });
        let mut kept = self.0.write();
        if kept.len() >= CIPHERS_MAX {
            kept.remove(0);
        }
        kept.push(Arc::clone(&cipher));
        Ok(Some(cipher))
    }

    /// Forgets every cipher: peppers have changed.
    pub fn clear(&self) {
        self.0.write().clear();
    }
}

fn aad(header: &[u8]) -> Vec<u8> {
    [PREFIX.as_bytes(), header].concat()
}
