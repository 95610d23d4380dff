//! Chance comes through a trait, so that tests can fix the dice.

/// A source of uniform bytes.
pub trait Random: Send + Sync + 'static {
    /// Fills `out` with uniform bytes.
    fn fill(&self, out: &mut [u8]);

    /// A uniform number below `bound` (1 when `bound` is 0), for jitter; not for secrets.
    fn below(&self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes) % bound.max(1)
    }
}

/// The operating system's generator (getrandom(2)).
#[derive(Debug, Clone, Copy, Default)]
pub struct OsRandom;

impl Random for OsRandom {
    /// # Panics
    /// When the kernel gives no randomness: nothing safe can go on without it.
    #[allow(clippy::expect_used)] // Linux answers or blocks after start-up; continuing with weak keys is worse than stopping
    fn fill(&self, out: &mut [u8]) {
        getrandom::fill(out).expect("the kernel gives random bytes");
    }
}
