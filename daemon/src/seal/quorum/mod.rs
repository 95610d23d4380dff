//! The operators' half of a slot: Shamir shares over GF(256), framed for people, each with a commitment in the slot.
//! May touch: `base`, the `vsss-rs` crate. Reading order: `share` (the frame), then here.

mod share;

pub use share::{Share, ShareText};

use super::{error::ShareError, record::Header, spec::Quorum};
use crate::base::{
    locked::{LockError, LockedKey, scrubbed},
    random::Random,
};
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use vsss_rs::Gf256;
use zeroize::Zeroizing;

/// What a slot keeps of each share. A share is 256 uniform bits, so its hash tells nothing about it.
pub type Commitment = [u8; 32];

/// `SHA-256("strongroom.share.commitment/1" | cluster | slot | set | k | index | value)`.
pub fn commitment(header: &Header, share: &Share) -> Commitment {
    scrubbed(|| {
        let mut hash = Sha256::new_with_prefix(b"strongroom.share.commitment/1");
        hash.update(header.cluster.as_bytes());
        hash.update(header.id);
        hash.update(header.set);
        hash.update([share.k, share.index]);
        hash.update(share.value.expose());
        hash.finalize().into()
    })
}

/// Tells whether `share` is one of this slot's, by its words and its commitment: nothing is tried with it before.
/// # Errors
/// The reason, in the order in which a holder can act on it.
pub fn admit(header: &Header, share: &Share) -> Result<(), ShareError> {
    if share.cluster != Share::tag(header.cluster.as_bytes()) {
        return Err(ShareError::OtherCluster);
    }
    if share.slot != Share::tag(&header.id) {
        return Err(ShareError::OtherSlot { name: None });
    }
    if share.set != header.set {
        return Err(ShareError::Old);
    }
    let index = usize::from(share.index).checked_sub(1).ok_or(ShareError::Forged)?;
    let known = header.commitments.get(index).ok_or(ShareError::Forged)?;
    if commitment(header, share) == *known {
        Ok(())
    } else {
        Err(ShareError::Forged)
    }
}

/// Splits `secret` into `quorum.n()` shares of which any `quorum.k()` give it back.
/// # Errors
/// [`LockError`] when there is no locked memory.
pub fn split(
    header: &Header,
    quorum: Quorum,
    secret: &LockedKey,
    random: &dyn Random,
) -> Result<Vec<Share>, LockError> {
    let (k, n) = (usize::from(quorum.k()), usize::from(quorum.n()));
    // vsss-rs makes no polynomials of degree 0; with k = 1 every share is the secret.
    let raw = if k == 1 {
        (1..=quorum.n())
            .map(|index| Zeroizing::new([&[index], &secret.expose()[..]].concat()))
            .collect()
    } else {
        scrubbed(|| Gf256::split_bytes(k, n, secret.expose(), Dice(random)))
            .map_err(|_| LockError::Full)?
            .into_iter()
            .map(Zeroizing::new)
            .collect::<Vec<_>>()
    };
    raw.iter().map(|raw| Share::from_raw(header, quorum.k(), raw)).collect()
}

/// Gives the secret back from `k` distinct shares. Fewer or foreign shares give *some* key: the slot's GCM tag is what proves it.
/// # Errors
/// [`ShareError::Duplicate`] when two shares have one index; [`LockError`] inside when there is no locked memory.
pub fn combine(shares: &[Share]) -> Result<Result<LockedKey, ShareError>, LockError> {
    if let [only] = shares {
        return LockedKey::copy_of(only.value.expose()).map(Ok);
    }
    let raw: Vec<Vec<u8>> = shares
        .iter()
        .map(|share| [&[share.index], &share.value.expose()[..]].concat())
        .collect();
    let raw = Zeroizing::new(raw);
    let Ok(secret) = scrubbed(|| Gf256::combine_bytes(&raw[..])).map(Zeroizing::new) else {
        return Ok(Err(ShareError::Duplicate));
    };
    match <&[u8; 32]>::try_from(&secret[..]) {
        Ok(secret) => LockedKey::copy_of(secret).map(Ok),
        Err(_) => Ok(Err(ShareError::Forged)),
    }
}

/// Our dice, as vsss-rs wants them.
struct Dice<'a>(&'a dyn Random);

impl rand_core::TryRng for Dice<'_> {
    type Error = Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(out);
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Dice<'_> {}

#[cfg(test)]
mod tests {
    use super::super::record::tests::header;
    use super::*;
    use crate::base::random::OsRandom;
    use proptest::prelude::*;

    fn made(k: u8, n: u8) -> (Header, LockedKey, Vec<Share>) {
        let secret = LockedKey::random(&OsRandom).unwrap();
        let mut header = header("daily", "quorum:1/1");
        let shares = split(&header, Quorum::new(k, n).unwrap(), &secret, &OsRandom).unwrap();
        header.commitments = shares.iter().map(|share| commitment(&header, share)).collect();
        (header, secret, shares)
    }

    fn again(share: &Share) -> Share {
        Share::parse(&share.text()).unwrap()
    }

    /// The textbook, as an oracle: multiply by shift and xor, divide by the 254th power, interpolate at 0.
    fn textbook(shares: &[Share]) -> [u8; 32] {
        fn mul(mut a: u8, mut b: u8) -> u8 {
            let mut product = 0;
            while b > 0 {
                product ^= if b & 1 > 0 { a } else { 0 };
                a = (a << 1) ^ if a & 0x80 > 0 { 0x1b } else { 0 };
                b >>= 1;
            }
            product
        }
        let inverse = |a: u8| (0..254).fold(1, |power, _| mul(power, a));
        std::array::from_fn(|byte| {
            shares.iter().fold(0, |sum, one| {
                let others = shares.iter().filter(|other| other.index != one.index);
                let weight = others.fold(1, |product, other| {
                    mul(product, mul(other.index, inverse(other.index ^ one.index)))
                });
                sum ^ mul(one.value.expose()[byte], weight)
            })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// R-SEAL-2: any k shares give the secret (as a textbook implementation says too), k - 1 do not.
        #[test]
        fn any_k_of_n_open(k in 1..=8u8, extra in 0..=6u8, order in any::<u64>()) {
            let (header, secret, mut shares) = made(k, k + extra);
            for at in (1..shares.len()).rev() {
                shares.swap(at, (order.rotate_left(at as u32 * 7) % (at as u64 + 1)) as usize);
            }
            for share in &shares {
                prop_assert_eq!(admit(&header, share), Ok(()));
            }
            let opens = |shares: &[Share]| combine(shares).unwrap().unwrap().expose() == secret.expose();
            shares.truncate(usize::from(k));
            prop_assert!(opens(&shares));
            prop_assert_eq!(&textbook(&shares), secret.expose());
            if k > 1 {
                shares.pop();
                prop_assert!(!opens(&shares));
            }
        }
    }

    /// R-SEAL-2: a share is told apart by name: forged, old, of another slot, of another vault, twice.
    #[test]
    fn wrong_shares_are_named() {
        let (header, _, shares) = made(3, 5);
        let change = |change: fn(&mut Share)| {
            let mut share = again(&shares[0]);
            change(&mut share);
            // As its holder would see it: with a checksum that fits.
            admit(&header, &again(&share))
        };
        assert_eq!(change(|_| ()), Ok(()));
        assert_eq!(change(|share| share.cluster[0] ^= 1), Err(ShareError::OtherCluster));
        assert_eq!(
            change(|share| share.slot[3] ^= 1),
            Err(ShareError::OtherSlot { name: None })
        );
        assert_eq!(change(|share| share.set[0] ^= 1), Err(ShareError::Old));
        assert_eq!(change(|share| share.k = 2), Err(ShareError::Forged));
        assert_eq!(change(|share| share.index = 2), Err(ShareError::Forged));
        assert_eq!(change(|share| share.index = 6), Err(ShareError::Forged));
        assert_eq!(change(|share| share.index = 255), Err(ShareError::Forged));
        assert_eq!(
            change(|share| share.value = LockedKey::copy_of(&[9; 32]).unwrap()),
            Err(ShareError::Forged)
        );
        let twice = [again(&shares[0]), again(&shares[0]), again(&shares[1])];
        assert_eq!(combine(&twice).unwrap().unwrap_err(), ShareError::Duplicate);
    }
}
