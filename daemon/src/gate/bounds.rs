//! What is asked of the limits on a request's way, and what a caller is told who is over one of them (R-POL-3).

use super::{Call, Class, Failure, Gate, Origin, Reason, is_owner};
use crate::{
    audit::Peer,
    limit::{Held, Lane, Limiter, Over, Seat, Work},
    policy::Caller,
};
use std::{sync::Arc, time::Duration};

/// When a caller who found no place may try again.
const NO_PLACE_RETRY: Duration = Duration::from_millis(250);

/// A request's place among those in flight; given back when its work ends, which may be after its caller has left.
#[derive(Debug, Clone)]
pub struct Place {
    seat: Arc<Seat>,
    lane: Lane,
}

impl Place {
    /// Which lane the request came on.
    pub fn lane(&self) -> Lane {
        // The seat is only held.
        let _ = &self.seat;
        self.lane
    }
}

impl Gate {
    /// The limits, for the listener.
    pub const fn limits(&self) -> &Arc<Limiter> {
        &self.limits
    }

    /// Lets a call in before anybody has looked at it: the rate of its source, and a place. Root and the daemon's own user, over the Unix
    /// socket, have no rate.
    /// # Errors
    /// `RateLimited`, `Overloaded`. Nothing is written of it: it is counted in the source's summary.
    pub fn let_in(&self, origin: Option<&Origin>, lane: Lane) -> Result<Place, Failure> {
        let now = self.from.clock.monotonic();
        let rated = match origin {
            Some(origin) if !is_owner(&origin.source) => self.limits.call(Peer::from(origin.source), lane, now),
            _ => Ok(()),
        };
        let place = rated.map_err(|over| self.over(over)).and_then(|()| {
            let seat = self
                .limits
                .enter(lane)
                .ok_or_else(|| self.no_place(Reason::Overloaded.text()))?;
            Ok(Place {
                seat: Arc::new(seat),
                lane,
            })
        });
        if let (Err(_), Some(origin)) = (&place, origin) {
            self.from.refusals.count(origin.source, self.from.clock.now());
        }
        place
    }

    /// The time by which limits go.
    pub fn monotonic(&self) -> Duration {
        self.from.clock.monotonic()
    }

    /// A connection of the network was closed before its handshake: its source is over this limit.
    pub fn count_turned_away(&self, limit: &'static str) {
        self.metrics.limited(limit);
    }

    /// Whether the caller, now known, may do one more; held while the request is in flight. What the daemon asks itself (a delivery to an
    /// open stream) is paced by its reader.
    pub(super) fn admit(&self, call: &Call, caller: &Caller, class: Class) -> Result<Option<Held>, Failure> {
        let Some(place) = &call.place else { return Ok(None) };
        let work = match (place.lane, class) {
            (Lane::Reserved, _) => Work::Relief,
            (_, Class::Read) => Work::Read,
            (_, Class::Change) => Work::Change,
            (_, Class::Act) => Work::Act,
        };
        let (identity, accessor) = (caller.identity().id(), caller.accessor());
        let (identity, token) = (identity.as_bytes(), accessor.as_bytes());
        self.limits
            .work(identity, token, work, self.from.clock.monotonic())
            .map_err(|over| self.over(over))?;
        let held = self.limits.hold(identity, place.lane);
        held.map(Some).ok_or_else(|| {
            self.no_place("too many requests of this identity at once while places are scarce: try again in a moment")
        })
    }

    fn over(&self, over: Over) -> Failure {
        self.metrics.limited(over.limit);
        let wait = over.wait.max(Duration::from_millis(1));
        let words = format!(
            "asked too often: the limit `{}` is {}; try again in {} ms, and ask for many things at once where you can",
            over.limit,
            over.rate,
            wait.as_millis()
        );
        Failure::with(Reason::RateLimited, words).retry_after(wait)
    }

    /// There is no room: counted.
    pub fn no_place(&self, words: &'static str) -> Failure {
        self.metrics.overloaded();
        Failure::with(Reason::Overloaded, words).retry_after(NO_PLACE_RETRY)
    }
}
