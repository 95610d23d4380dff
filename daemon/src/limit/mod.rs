//! How much anybody may ask for: rates by source, identity and token, places of requests in flight, and fewer of them when answers become
//! slow (R-POL-3). May touch: `base`. It counts and says no; it knows no request and no token.
//!
//! Reading order: `rate` (what an operator writes), `table` (rates of many callers in constant memory), `count` (what each holds at once),
//! `places` (requests in flight, adapted to the load). Nothing here locks or allocates on the way of a request, and nothing grows: every
//! table has its size when the daemon starts, and callers that share a cell are only ever limited more.

mod count;
mod places;
mod rate;
mod table;
#[cfg(test)]
mod tests;

pub use count::Held;
pub use places::Seat;
pub use rate::{Rate, RateError};

use count::Counts;
use places::Places;
use std::{hash::Hash, sync::Arc, time::Duration};
use table::{Cell, Table};

/// Callers of each kind (sources, identities, tokens) whose rates are told apart at once: half a mebibyte a kind.
const CALLERS_MAX: usize = 1 << 16;
/// Cells for what each source and identity holds at once.
const HOLDERS_MAX: usize = 1 << 14;
/// Requests in flight on the reserved lane, beyond the ordinary ones.
const RESERVED_MAX: usize = 64;

/// What may be asked for, and by whom: `[limits.rates]`.
#[derive(Debug, Clone)]
pub struct Rates {
    /// TLS handshakes of one source.
    pub handshakes_per_source: Rate,
    /// Calls of one source, before anybody looks at their tokens.
    pub calls_per_source: Rate,
    /// Log-ins of one source.
    pub logins_per_source: Rate,
    /// Calls on the reserved lane of one source.
    pub relief_per_source: Rate,
    /// Reads by one identity, and by one token.
    pub reads: [Rate; 2],
    /// Changes by one identity, and by one token.
    pub changes: [Rate; 2],
    /// Acts outside by one identity, and by one token.
    pub acts: [Rate; 2],
    /// Calls on the reserved lane by one identity, and by one token.
    pub relief: [Rate; 2],
    /// All log-ins, reads, changes and acts of everybody together, in this order.
    pub all: [Rate; 4],
}

/// The bounds that are not rates.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Requests in flight.
    pub requests_max: usize,
    /// What most requests should take at most; beyond it fewer are let in at once.
    pub latency_target: Duration,
    /// Connections of one source.
    pub connections_per_source_max: usize,
}

/// What a call is, before its message is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// It frees things, or tells how things stand: renewal, revocation, seal, unseal, status.
    Reserved,
    /// A log-in.
    LogIn,
    /// Anything else.
    Ordinary,
}

/// What a call does, once it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Work {
    /// Reads.
    Read,
    /// Changes what the vault keeps.
    Change,
    /// Changes something outside.
    Act,
    /// Came on the reserved lane.
    Relief,
}

/// Which limit said no, for how long, and what was allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over {
    /// The limit as the configuration calls it.
    pub limit: &'static str,
    /// What it allows.
    pub rate: Rate,
    /// When it allows the next.
    pub wait: Duration,
}

/// All limits of the daemon. One for the process.
pub struct Limiter {
    rates: Rates,
    sources: Table,
    identities: Table,
    tokens: Table,
    all: [Cell; 4],
    connections: Arc<Counts>,
    connections_per_source_max: usize,
    in_flight: Arc<Counts>,
    ordinary: Arc<Places>,
    reserved: Arc<Places>,
}

impl Limiter {
    /// With every table at its full size.
    pub fn new(rates: Rates, bounds: &Bounds) -> Self {
        Self {
            rates,
            sources: Table::new(CALLERS_MAX),
            identities: Table::new(CALLERS_MAX),
            tokens: Table::new(CALLERS_MAX),
            all: std::array::from_fn(|_| Cell::default()),
            connections: Arc::new(Counts::new(HOLDERS_MAX)),
            connections_per_source_max: bounds.connections_per_source_max,
            in_flight: Arc::new(Counts::new(HOLDERS_MAX)),
            ordinary: Arc::new(Places::adaptive(bounds.requests_max, bounds.latency_target)),
            reserved: Arc::new(Places::fixed(RESERVED_MAX)),
        }
    }

    /// Whether `source` may begin a handshake now; held while its connection lives.
    /// # Errors
    /// Too many, or too many at once (then without a rate that would help).
    pub fn connect(&self, source: impl Hash + Copy, now: Duration) -> Result<Held, &'static str> {
        let (limit, rate) = ("handshakes_per_source", self.rates.handshakes_per_source);
        self.sources
            .admit(("handshake", source), rate, now)
            .map_err(|_| limit)?;
        Counts::take(&self.connections, source, self.connections_per_source_max).ok_or("connections_per_source_max")
    }

    /// Whether `source` may call now, whoever it is.
    /// # Errors
    /// Its rate is used up.
    pub fn call(&self, source: impl Hash, lane: Lane, now: Duration) -> Result<(), Over> {
        let rates = &self.rates;
        let (limit, rate) = match lane {
            Lane::Reserved => ("relief_per_source", rates.relief_per_source),
            Lane::LogIn => ("logins_per_source", rates.logins_per_source),
            Lane::Ordinary => ("calls_per_source", rates.calls_per_source),
        };
        let over = |limit, rate| move |wait| Over { limit, rate, wait };
        self.sources
            .admit((lane, source), rate, now)
            .map_err(over(limit, rate))?;
        match (lane, &self.all, rates.all) {
            (Lane::LogIn, [logins, ..], [rate, ..]) => logins.admit(rate, now).map_err(over("logins", rate)),
            _ => Ok(()),
        }
    }

    /// Whether the bearer of this token may do this kind of work now.
    /// # Errors
    /// The rate of the identity, the token, or of everybody is used up.
    pub fn work(&self, identity: &[u8; 16], token: &[u8; 16], work: Work, now: Duration) -> Result<(), Over> {
        let (rates, [_, reads, changes, acts]) = (&self.rates, &self.all);
        let [_, of_reads, of_changes, of_acts] = rates.all;
        let (names, [by_identity, by_token], all) = match work {
            Work::Read => (
                ["reads_per_identity", "reads_per_token", "reads"],
                rates.reads,
                Some((reads, of_reads)),
            ),
            Work::Change => (
                ["changes_per_identity", "changes_per_token", "changes"],
                rates.changes,
                Some((changes, of_changes)),
            ),
            Work::Act => (
                ["acts_per_identity", "acts_per_token", "acts"],
                rates.acts,
                Some((acts, of_acts)),
            ),
            Work::Relief => (["relief_per_identity", "relief_per_token", ""], rates.relief, None),
        };
        let [of_identity, of_token, of_all] = names;
        let over = |limit, rate| move |wait| Over { limit, rate, wait };
        // As one number and one byte: what a table hashes.
        let (identity, token) = (u128::from_ne_bytes(*identity), u128::from_ne_bytes(*token));
        let kind = work as u8;
        // The narrowest first: what one token wastes is not its identity's, nor everybody's.
        self.tokens
            .admit((kind, token), by_token, now)
            .map_err(over(of_token, by_token))?;
        self.identities
            .admit((kind, identity), by_identity, now)
            .map_err(over(of_identity, by_identity))?;
        all.map_or(Ok(()), |(cell, rate)| cell.admit(rate, now).map_err(over(of_all, rate)))
    }

    /// A place among the requests in flight. The reserved lane has its own, and takes an ordinary one when those are used up.
    pub fn enter(&self, lane: Lane) -> Option<Seat> {
        match lane {
            Lane::Reserved => Places::take(&self.reserved).or_else(|| Places::take(&self.ordinary)),
            Lane::LogIn | Lane::Ordinary => Places::take(&self.ordinary),
        }
    }

    /// Among the requests in flight, one more of this identity. While places are scarce nobody gets more than half of them.
    pub fn hold(&self, identity: &[u8; 16], lane: Lane) -> Option<Held> {
        let places = match lane {
            Lane::Reserved => &self.reserved,
            Lane::LogIn | Lane::Ordinary => &self.ordinary,
        };
        Counts::take(&self.in_flight, (lane, identity), places.share())
    }

    /// A read or a change took so long.
    pub fn observe(&self, took: Duration, now: Duration) {
        self.ordinary.observe(took, now);
    }

    /// Ordinary requests in flight, and how many there may be at present.
    pub fn load(&self) -> (usize, usize) {
        self.ordinary.load()
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.sources.bytes()
            + self.identities.bytes()
            + self.tokens.bytes()
            + self.connections.bytes()
            + self.in_flight.bytes()
    }
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Limiter")
    }
}
