//! Vault time: wall time that never goes back, and does not believe a leap. Leases are counted in it.
//!
//! It goes on at the pace of the monotonic clock. Where wall time is ahead by up to [`JUMP_MAX_MS`] it follows; a larger
//! leap (a mistaken administrator, a lying time server) would end every lease at once, so it is *held*: not believed until
//! an operator confirms it, wall time comes back, or [`HOLD_MAX`] has passed.

use crate::base::time::{Clock, Timestamp};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};

/// Wall time may be ahead of the monotonic clock by this and still be believed.
pub const JUMP_MAX_MS: u64 = 5 * 60 * 1000;
/// A leap is held for this long.
pub const HOLD_MAX: Duration = Duration::from_secs(3600);

/// A leap that is not believed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// What the wall clock says.
    pub wall: Timestamp,
    /// What the vault goes by.
    pub vault: Timestamp,
    /// How long until the wall clock is believed.
    pub remaining: Duration,
}

/// See the module.
pub struct VaultClock {
    clock: Arc<dyn Clock>,
    state: Mutex<Reading>,
}

struct Reading {
    now: u64,
    mono: Duration,
    held_since: Option<Duration>,
}

impl VaultClock {
    /// Goes on from the stored high-water mark. What passed while the daemon was down cannot be measured: wall time is
    /// believed at start, as far as it is not behind the mark.
    pub fn resume(clock: Arc<dyn Clock>, stored: Timestamp) -> Self {
        let now = clock.now().max(stored).0;
        let state = Mutex::new(Reading {
            now,
            mono: clock.monotonic(),
            held_since: None,
        });
        Self { clock, state }
    }

    /// The vault's time now.
    pub fn now(&self) -> Timestamp {
        let mut state = self.state.lock();
        let (wall, mono) = (self.clock.now().0, self.clock.monotonic());
        let passed = u64::try_from(mono.saturating_sub(state.mono).as_millis()).unwrap_or(u64::MAX);
        state.mono = mono;
        let paced = state.now.saturating_add(passed);
        let leap = wall.saturating_sub(paced) > JUMP_MAX_MS;
        state.held_since = match (leap, state.held_since) {
            (false, _) => None,
            (true, None) => Some(mono),
            (true, Some(since)) if mono.saturating_sub(since) >= HOLD_MAX => None,
            (true, Some(since)) => Some(since),
        };
        state.now = if state.held_since.is_some() {
            paced
        } else {
            paced.max(wall)
        };
        Timestamp(state.now)
    }

    /// The leap that is being held, if there is one.
    pub fn hold(&self) -> Option<Hold> {
        let vault = self.now();
        let state = self.state.lock();
        let since = state.held_since?;
        Some(Hold {
            wall: self.clock.now(),
            vault,
            remaining: HOLD_MAX.saturating_sub(state.mono.saturating_sub(since)),
        })
    }

    /// An operator says that the wall clock is right.
    pub fn confirm(&self) {
        let mut state = self.state.lock();
        state.now = state.now.max(self.clock.now().0);
        state.held_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::ManualClock;
    use proptest::prelude::*;

    const START: u64 = 1_795_000_000_000;

    fn clock() -> (Arc<ManualClock>, VaultClock) {
        let manual = Arc::new(ManualClock::at(Timestamp(START)));
        let vault = VaultClock::resume(manual.clone(), Timestamp(0));
        (manual, vault)
    }

    #[test]
    fn a_leap_is_held_and_then_believed() {
        let (manual, vault) = clock();
        manual.jump_to(Timestamp(START + JUMP_MAX_MS));
        assert_eq!(vault.now(), Timestamp(START + JUMP_MAX_MS), "a small one is followed");
        let far = START + 10 * JUMP_MAX_MS;
        manual.jump_to(Timestamp(far));
        assert_eq!(vault.now(), Timestamp(START + JUMP_MAX_MS));
        assert_eq!(vault.hold().unwrap().wall, Timestamp(far));
        manual.advance(HOLD_MAX - Duration::from_secs(1));
        assert_eq!(
            vault.now(),
            Timestamp(START + JUMP_MAX_MS).plus_secs(3599),
            "time goes on at the monotonic pace"
        );
        manual.advance(Duration::from_secs(1));
        assert_eq!(vault.now(), Timestamp(far).plus_secs(3600));
        assert_eq!(vault.hold(), None);
    }

    #[test]
    fn an_operator_confirms_or_the_clock_comes_back() {
        let (manual, vault) = clock();
        manual.jump_to(Timestamp(START).plus_secs(86_400));
        assert!(vault.hold().is_some());
        vault.confirm();
        assert_eq!((vault.now(), vault.hold()), (Timestamp(START).plus_secs(86_400), None));
        manual.jump_to(Timestamp(START).plus_secs(2 * 86_400));
        assert!(vault.hold().is_some());
        manual.jump_to(Timestamp(START).plus_secs(86_401));
        assert_eq!((vault.hold(), vault.now()), (None, Timestamp(START).plus_secs(86_401)));
    }

    #[test]
    fn a_stored_mark_is_never_undercut() {
        let manual = Arc::new(ManualClock::at(Timestamp(START)));
        let vault = VaultClock::resume(manual.clone(), Timestamp(START + 5000));
        assert_eq!(vault.now(), Timestamp(START + 5000));
        manual.advance(Duration::from_secs(2));
        assert_eq!(vault.now(), Timestamp(START + 7000));
    }

    proptest! {
        /// Whatever the wall clock does, vault time never goes back, never stands still while time passes, and without a
        /// hold having run out never runs ahead of the monotonic clock by more than the leaps that were small.
        #[test]
        fn never_back(steps in prop::collection::vec((0u64..2_000_000, -100_000_000i64..100_000_000), 1..60)) {
            let (manual, vault) = clock();
            let mut last = vault.now();
            for (advance, jump) in steps {
                manual.advance(Duration::from_millis(advance));
                manual.jump_to(Timestamp(manual.now().0.saturating_add_signed(jump)));
                let now = vault.now();
                prop_assert!(now.0 >= last.0 + advance, "{now} after {last} and {advance} ms");
                last = now;
            }
        }
    }
}
