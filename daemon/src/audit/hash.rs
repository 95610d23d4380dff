//! Keyed hashes: a value can be looked for in the log by whoever may ask the daemon for its hash, and read by nobody.

use crate::base::{
    locked::{LockError, Locked, LockedKey, scrubbed},
    path::Path,
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use zeroize::Zeroizing;

/// Shorter values leave no trace: what can be guessed must not be confirmed.
pub const HASHED_BYTES_MIN: usize = 16;

/// HMAC-SHA-256 under the audit-hash key of the keyring. Lives while the vault is open.
pub struct AuditHasher {
    keyed: Locked<Hmac<Sha256>>,
    epoch: u32,
}

impl AuditHasher {
    /// Of the key of one epoch; its expansion stays in locked memory.
    /// # Errors
    /// [`LockError`] when there is no locked memory.
    pub fn new(key: &LockedKey, epoch: u32) -> Result<Self, LockError> {
        let keyed = Locked::new(|| {
            // HMAC pads a short key with zeros to one block of the hash (RFC 2104); written out, nothing here can fail.
            let mut block = Zeroizing::new([0; 64]);
            for (out, byte) in block.iter_mut().zip(key.expose()) {
                *out = *byte;
            }
            <Hmac<Sha256> as KeyInit>::new((&*block).into())
        })?;
        Ok(Self { keyed, epoch })
    }

    /// `hmac-sha256:v<epoch>:<64 hex>` over `kind 00 field 00 value`; `None` below [`HASHED_BYTES_MIN`] bytes. `kind` and `field` are
    /// names from the code (`param` and the parameter's name), so neither holds a zero byte.
    pub fn hash(&self, kind: &str, field: &str, value: &[u8]) -> Option<String> {
        (value.len() >= HASHED_BYTES_MIN).then(|| self.tag(kind, field, value))
    }

    /// The hash that stands for a path with `audit.paths = "hash"`: kind `path`, no field, any length.
    pub fn path(&self, path: &Path) -> String {
        self.tag("path", "", path.as_str().as_bytes())
    }

    fn tag(&self, kind: &str, field: &str, value: &[u8]) -> String {
        let tag = scrubbed(|| {
            let mut mac = (*self.keyed).clone();
            for part in [kind.as_bytes(), &[0], field.as_bytes(), &[0], value] {
                mac.update(part);
            }
            mac.finalize().into_bytes()
        });
        format!("hmac-sha256:v{}:{}", self.epoch, data_encoding::HEXLOWER.encode(&tag))
    }
}

impl fmt::Debug for AuditHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuditHasher(epoch {})", self.epoch)
    }
}
