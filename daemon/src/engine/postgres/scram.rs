//! SCRAM-SHA-256 verifiers (RFC 5802, RFC 7677), computed here so that the server and its logs never see a password.

use crate::base::random::Random;
use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, block_api::compress256};
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
    let stored = Sha256::digest(*client);
    let server = Zeroizing::new(mac(&*salted, b"Server Key"));
    format!(
        "SCRAM-SHA-256${iterations}:{}${}:{}",
        BASE64.encode(salt),
        BASE64.encode(&stored),
        BASE64.encode(&*server)
    )
}

/// RFC 5802's Hi(): PBKDF2 with one block. After the first, every HMAC is of 32 bytes under one key, so the two key blocks
/// are compressed once and each further HMAC costs two compressions.
fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> Zeroizing<[u8; 32]> {
    let first = mac(password, &[salt, &1u32.to_be_bytes()].concat());
    let (inner, outer) = (key_block(password, IPAD), key_block(password, OPAD));
    // A block of 32 bytes behind one key block of 64: padding and length (96 bytes) never change.
    let mut block = Zeroizing::new([0; 64]);
    let (text, padding) = block.split_at_mut(32);
    text.copy_from_slice(&first);
    padding.copy_from_slice(&PADDING);
    let mut sum = Zeroizing::new(words(&first));
    for _ in 1..iterations {
        for key in [&inner, &outer] {
            let mut state = **key;
            compress256(&mut state, std::slice::from_ref(&*block));
            write(&state, &mut *block);
        }
        sum.iter_mut().zip(words(&*block)).for_each(|(sum, word)| *sum ^= word);
    }
    let mut out = Zeroizing::new([0; 32]);
    write(&sum, &mut *out);
    out
}

/// The first 32 bytes as big-endian words.
fn words(bytes: &[u8]) -> [u32; 8] {
    let (words, _) = bytes.as_chunks::<4>();
    std::array::from_fn(|at| words.get(at).copied().map_or(0, u32::from_be_bytes))
}

/// And back.
fn write(words: &[u32; 8], bytes: &mut [u8]) {
    let (chunks, _) = bytes.as_chunks_mut::<4>();
    chunks
        .iter_mut()
        .zip(words)
        .for_each(|(chunk, word)| *chunk = word.to_be_bytes());
}

const IPAD: u8 = 0x36;
const OPAD: u8 = 0x5c;
/// Behind 96 bytes: the bit 1, zeros, and 768 as the length in bits.
const PADDING: [u8; 32] = {
    let mut padding = [0; 32];
    padding[0] = 0x80;
    padding[30] = 0x03;
    padding
};
/// FIPS 180-4, 5.3.3.
const IV: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// The state of SHA-256 after a key's first block (FIPS 198-1).
fn key_block(key: &[u8], pad: u8) -> Zeroizing<[u32; 8]> {
    let mut block = Zeroizing::new([pad; 64]);
    let hashed;
    let key = if key.len() > block.len() {
        hashed = Sha256::digest(key);
        hashed.as_slice()
    } else {
        key
    };
    block.iter_mut().zip(key).for_each(|(pad, byte)| *pad ^= byte);
    let mut state = Zeroizing::new(IV);
    compress256(&mut state, std::slice::from_ref(&*block));
    state
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

    /// Against the plain definition, with keys shorter and longer than a block.
    #[test]
    fn agrees_with_its_definition() {
        for (length, iterations) in [(1, 1), (32, 2), (32, 50), (64, 3), (65, 3), (200, 3)] {
            let (password, salt) = (vec![b'p'; length], b"a salt");
            let mut block = mac(&password, b"a salt\0\0\0\x01");
            let mut want = block;
            for _ in 1..iterations {
                block = mac(&password, &block);
                want.iter_mut().zip(block).for_each(|(sum, byte)| *sum ^= byte);
            }
            assert_eq!(
                *salted_password(&password, salt, iterations),
                want,
                "{length} bytes, {iterations} iterations"
            );
        }
    }

    /// The vector of postgres-protocol's own test, an implementation independent of this one.
    #[test]
    fn agrees_with_another_implementation() {
        assert_eq!(
            with_salt(
                b"secret",
                &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
                4096
            ),
            "SCRAM-SHA-256$4096:AQIDBAUGBwgJCgsMDQ4PEA==$8rrDg00OqaiWXJ7p+sCgHEIaBSHY89ZJl3mfIsf32oY=:05L1f+yZbiN8O0AnO40Og85NNRhvzTS57naKRWCcsIA="
        );
    }
}
