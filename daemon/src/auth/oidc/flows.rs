//! Log-ins with a typed code that are under way: when each may ask its provider again (RFC 8628, 3.5), how many there are, and how often new
//! ones may begin. What is asked too early is answered here, and the provider hears nothing of it.

use crate::auth::Refused;
use parking_lot::Mutex;
use std::{collections::HashMap, time::Duration};

/// Under way at once, of one trust.
const FLOWS_MAX: usize = 1024;
/// Beginnings: so many at once, and then one in this time.
const BURST: u32 = 30;
const BEGIN_EVERY: Duration = Duration::from_secs(1);
/// Conversations with the provider at once; log-ins with a browser have their own.
pub const AT_ONCE_MAX: usize = 4;
/// What `slow_down` adds (RFC 8628, 3.5).
const SLOWER: Duration = Duration::from_secs(5);
const INTERVAL_MAX: Duration = Duration::from_secs(120);

/// The random name of a log-in.
pub type Name = [u8; 32];

#[derive(Clone, Copy)]
struct Flow {
    interval: Duration,
    next: Duration,
    ends: Duration,
}

#[derive(Default)]
struct Table {
    flows: HashMap<Name, Flow>,
    /// When all beginnings so far would have been made at the lasting rate.
    paid: Duration,
}

/// Of one trust. Times are the monotonic clock's.
#[derive(Default)]
pub struct Flows(Mutex<Table>);

impl Flows {
    /// Whether another may begin.
    /// # Errors
    /// `TooManyFlows`.
    pub fn admit(&self, mono: Duration) -> Result<(), Refused> {
        let mut table = self.0.lock();
        if table.flows.len() >= FLOWS_MAX {
            table.flows.retain(|_, flow| mono < flow.ends);
        }
        let paid = table.paid.max(mono);
        if table.flows.len() >= FLOWS_MAX || paid.saturating_sub(mono) >= BEGIN_EVERY * BURST {
            return Err(Refused::TooManyFlows);
        }
        table.paid = paid + BEGIN_EVERY;
        Ok(())
    }

    /// One has begun; it is asked about after the interval.
    pub fn begun(&self, name: Name, interval: Duration, life: Duration, mono: Duration) {
        let flow = Flow {
            interval,
            next: mono + interval,
            ends: mono + life,
        };
        self.0.lock().flows.insert(name, flow);
    }

    /// Its turn to ask, if it is.
    /// # Errors
    /// `Pending`: too early. `Handle`: none of these, or over.
    pub fn turn(&self, name: &Name, mono: Duration) -> Result<(), Refused> {
        let mut table = self.0.lock();
        let flow = table.flows.get_mut(name).ok_or(Refused::Handle)?;
        if mono < flow.next {
            return Err(Refused::Pending);
        }
        flow.next = mono + flow.interval;
        Ok(())
    }

    /// What came of asking.
    pub fn answered(&self, name: &Name, refused: Option<Refused>, mono: Duration) {
        let mut table = self.0.lock();
        match refused {
            // Asked again.
            Some(Refused::Pending | Refused::ProviderUnavailable) => {}
            Some(Refused::SlowDown) => {
                if let Some(flow) = table.flows.get_mut(name) {
                    flow.interval = (flow.interval + SLOWER).min(INTERVAL_MAX);
                    flow.next = mono + flow.interval;
                }
            }
            None | Some(_) => drop(table.flows.remove(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// RFC 8628, 3.5: a flow asks at its interval and no earlier; `slow_down` adds five seconds for good; what is over is forgotten.
    #[test]
    fn a_flow_asks_at_its_interval() {
        let (flows, name) = (Flows::default(), [7; 32]);
        flows.begun(name, secs(5), secs(600), secs(100));
        for (at, want) in [
            (100, Err(Refused::Pending)),
            (104, Err(Refused::Pending)),
            (105, Ok(())),
            (105, Err(Refused::Pending)),
            (109, Err(Refused::Pending)),
            (110, Ok(())),
        ] {
            assert_eq!(flows.turn(&name, secs(at)), want, "at {at}");
        }
        flows.answered(&name, Some(Refused::SlowDown), secs(110));
        assert_eq!(flows.turn(&name, secs(119)), Err(Refused::Pending));
        assert_eq!(flows.turn(&name, secs(120)), Ok(()));
        flows.answered(&name, Some(Refused::Pending), secs(120));
        assert_eq!(flows.turn(&name, secs(129)), Err(Refused::Pending), "it stays slower");
        assert_eq!(flows.turn(&[8; 32], secs(130)), Err(Refused::Handle));
        flows.answered(&name, None, secs(130));
        assert_eq!(flows.turn(&name, secs(900)), Err(Refused::Handle));
    }

    /// Beginnings have a burst and a lasting rate; a full table takes others when some are over.
    #[test]
    fn beginnings_are_bounded() {
        let flows = Flows::default();
        let mut at = secs(50);
        for _ in 0..BURST {
            assert_eq!(flows.admit(at), Ok(()));
        }
        assert_eq!(flows.admit(at), Err(Refused::TooManyFlows));
        at += BEGIN_EVERY;
        assert_eq!((flows.admit(at), flows.admit(at)), (Ok(()), Err(Refused::TooManyFlows)));
        for index in 0..FLOWS_MAX {
            let mut name = [0; 32];
            name[..8].copy_from_slice(&index.to_be_bytes());
            flows.begun(name, secs(5), secs(if index == 0 { 300 } else { 600 }), at);
        }
        assert_eq!(flows.admit(at + secs(299)), Err(Refused::TooManyFlows));
        assert_eq!(flows.admit(at + secs(300)), Ok(()), "one is over");
    }
}
