//! SCRAM-SHA-256 verifiers (RFC 5802, RFC 7677), computed here so that the server and its logs never see a password.

use crate::base::random::Random;
use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// What PostgreSQL itself uses, and the least that RFC 7677 allows; some drivers refuse less.
pub const ITERATIONS_DEFAULT: u32 = 4096;
/// Salt length that PostgreSQL uses.
const SALT_BYTES: usize = 16;

/// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>` for `password`, which must be ASCII without control
/// characters (SASLprep leaves such text alone). The salt is fresh.
pub fn verifier(password: &[u8], iterations: u32, random: &dyn Random) -> String {
    let mut salt = [0; SALT_BYTES];
    random.fill(&mut salt);
    with_salt(password, &salt, iterations)
}

fn with_salt(password: &[u8], salt: &[u8], iterations: u32) -> String {
    let salted = salted_password(password, salt, iterations);
    let client = Zeroizing::new(mac(&*salted, b"Client Key"));
    let stored = Sha256::digest(&*client);
    let server = Zeroizing::new(mac(&*salted, b"Server Key"));
    format!("SCRAM-SHA-256${iterations}:{}${}:{}", BASE64.encode(salt), BASE64.encode(&stored), BASE64.encode(&*server))
}

/// RFC 5802's Hi(): PBKDF2 with one block.
fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> Zeroizing<[u8; 32]> {
    let key = keyed(password);
    let mut first = key.clone();
    first.update(salt);
    first.update(&1u32.to_be_bytes());
    let mut block: [u8; 32] = first.finalize().into_bytes().into();
    let mut out = Zeroizing::new(block);
    for _ in 1..iterations {
        let mut next = key.clone();
        next.update(&block);
        block = next.finalize().into_bytes().into();
        out.iter_mut().zip(block).for_each(|(sum, byte)| *sum ^= byte);
    }
    out
}

fn mac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut mac = keyed(key);
    mac.update(text);
    mac.finalize().into_bytes().into()
}

#[allow(clippy::expect_used)] // HMAC takes a key of any length (RFC 2104)
fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes any key")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector of postgres-protocol's own test, an implementation independent of this one.
    #[test]
    fn agrees_with_another_implementation() {
        assert_eq!(
            with_salt(b"secret", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16], 4096),
            "SCRAM-SHA-256$4096:AQIDBAUGBwgJCgsMDQ4PEA==$8rrDg00OqaiWXJ7p+sCgHEIaBSHY89ZJl3mfIsf32oY=:05L1f+yZbiN8O0AnO40Og85NNRhvzTS57naKRWCcsIA="
        );
    }
}
