//! Records outside the barrier: `format 0x01 | value | crc32 BE`, the checksum over key, format and value, so that a moved, cut or flipped
//! record is noticed. A checksum keeps no attacker out: what matters is sealed by its own key (slots, keyring) or chained (heads, outbox).

use super::batch::Envelope;

const FORMAT: u8 = 1;
const OVERHEAD: usize = 5;

fn checksum(key: &[u8], framed: &[u8]) -> [u8; 4] {
    let mut hash = crc32fast::Hasher::new();
    hash.update(key);
    hash.update(framed);
    hash.finalize().to_be_bytes()
}

/// The row of a raw record.
pub(super) fn encode(key: &[u8], value: &[u8]) -> Envelope {
    let mut row = Envelope::with_capacity(value.len() + OVERHEAD);
    let buffer = row.buffer();
    let start = buffer.len();
    buffer.push(FORMAT);
    buffer.extend_from_slice(value);
    let sum = checksum(key, buffer.get(start..).unwrap_or_default());
    buffer.extend_from_slice(&sum);
    row
}

/// The value of a raw record; `None` when it is damaged.
pub(super) fn decode<'a>(key: &[u8], framed: &'a [u8]) -> Option<&'a [u8]> {
    let (covered, sum) = framed.split_last_chunk::<4>()?;
    let (&format, value) = covered.split_first()?;
    (format == FORMAT && checksum(key, covered) == *sum).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::batch::{Stored, Version};

    #[test]
    fn every_flip_cut_and_move_is_noticed() {
        let row = encode(b"key", b"value").stamp(Version(3));
        let stored = Stored::parse(row);
        assert_eq!(stored.version, Version(3));
        assert_eq!(decode(b"key", &stored.bytes), Some(&b"value"[..]));
        assert_eq!(decode(b"kez", &stored.bytes), None);
        for at in 0..stored.bytes.len() {
            assert_eq!(decode(b"key", &stored.bytes[..at]), None);
            for bit in 0..8 {
                let mut flipped = stored.bytes.to_vec();
                flipped[at] ^= 1 << bit;
                assert_eq!(decode(b"key", &flipped), None, "byte {at} bit {bit}");
            }
        }
    }
}
