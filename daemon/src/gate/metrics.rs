//! Numbers for Prometheus. Labels come from fixed lists alone (operation names and gRPC codes), so that no caller can grow them.

use crate::lease::UnderWay;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    operation: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Limited {
    limit: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Hsm {
    hsm: String,
}

/// Gauges that are read off the rooms when somebody scrapes.
#[derive(Debug, Default, Clone)]
pub struct Readings {
    /// 0 blank, 1 sealed, 2 open.
    pub state: i64,
    /// Leases being revoked.
    pub revoking: UnderWay,
    /// Targets that do not answer.
    pub targets_down: i64,
    /// Strays and missing accounts that the last scheduled comparisons found.
    pub strays: i64,
    /// Static roles whose password could not be set anew.
    pub rotations_failing: i64,
    /// Leases handed out since the vault was opened.
    pub leases_issued: u64,
    /// Leases proven gone since then.
    pub leases_revoked: u64,
    /// Attempts at revoking that failed since then.
    pub revocations_failed: u64,
    /// Live tokens.
    pub tokens: i64,
    /// Records in quarantine.
    pub quarantined: i64,
    /// Ordinary requests in flight.
    pub in_flight: i64,
    /// As many as there may be at present.
    pub in_flight_max: i64,
    /// Records in the audit log.
    pub audit_seq: i64,
    /// Records in the outbox, not yet in a segment.
    pub audit_lag: i64,
    /// Each configured HSM and whether it answers.
    pub hsms: Vec<(String, bool)>,
}

/// All metrics of the daemon.
pub struct Metrics {
    registry: Registry,
    answered: Family<Answered, Counter>,
    seconds: Family<Of, Histogram, fn() -> Histogram>,
    overloaded: Counter,
    limited: Family<Limited, Counter>,
    in_flight: Gauge,
    in_flight_max: Gauge,
    state: Gauge,
    leases_revoking: Gauge,
    revoking_oldest: Gauge,
    targets_down: Gauge,
    strays: Gauge,
    rotations_failing: Gauge,
    leases_issued: Gauge,
    leases_revoked: Gauge,
    revocations_failed: Gauge,
    tokens: Gauge,
    quarantined: Gauge,
    audit_seq: Gauge,
    audit_lag: Gauge,
    hsm_up: Family<Hsm, Gauge>,
}

fn histogram() -> Histogram {
    // 50 us to about 26 s.
    Histogram::new(exponential_buckets(0.000_05, 2.0, 20))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("strongroom");
        let answered = Family::<Answered, Counter>::default();
        let seconds = Family::<Of, Histogram, fn() -> Histogram>::new_with_constructor(histogram as fn() -> Histogram);
        let (overloaded, limited) = (Counter::default(), Family::<Limited, Counter>::default());
        let hsm_up = Family::<Hsm, Gauge>::default();
        registry.register(
            "requests",
            "Requests answered, by operation and gRPC code",
            answered.clone(),
        );
        registry.register("request_seconds", "Time from the gate to the answer", seconds.clone());
        registry.register(
            "overloaded",
            "Requests refused because too many were in flight",
            overloaded.clone(),
        );
        registry.register(
            "limited",
            "Requests and connections refused because a rate was used up, by the key of the configuration",
            limited.clone(),
        );
        registry.register("hsm_up", "Whether an HSM answers", hsm_up.clone());
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        Self {
            in_flight: gauge("requests_in_flight", "Ordinary requests in flight"),
            in_flight_max: gauge(
                "requests_in_flight_max",
                "Ordinary requests that are let in at once, at present",
            ),
            state: gauge("state", "0 blank, 1 sealed, 2 open"),
            leases_revoking: gauge("leases_revoking", "Leases being revoked, 10000 at most"),
            revoking_oldest: gauge(
                "leases_revoking_oldest_seconds",
                "For how long the oldest of them has been",
            ),
            targets_down: gauge("targets_down", "Targets that do not answer"),
            strays: gauge(
                "strays",
                "Accounts without a lease and leases without an account, when last compared",
            ),
            rotations_failing: gauge(
                "rotations_failing",
                "Static roles whose password could not be set anew, and is tried again",
            ),
            leases_issued: gauge("leases_issued", "Leases handed out since the vault was opened"),
            leases_revoked: gauge("leases_revoked", "Leases proven gone since the vault was opened"),
            revocations_failed: gauge(
                "revocations_failed",
                "Attempts at revoking that failed since the vault was opened",
            ),
            tokens: gauge("tokens", "Live tokens"),
            quarantined: gauge("quarantined_records", "Damaged records that are refused"),
            audit_seq: gauge("audit_records", "Records in the audit log"),
            audit_lag: gauge("audit_outbox_records", "Audit records not yet in a segment file"),
            registry,
            answered,
            seconds,
            overloaded,
            limited,
            hsm_up,
        }
    }
}

impl Metrics {
    /// A request was answered.
    pub fn answered(&self, operation: &'static str, code: &'static str, took: Duration) {
        self.answered.get_or_create(&Answered { operation, code }).inc();
        self.seconds
            .get_or_create(&Of { operation })
            .observe(took.as_secs_f64());
    }
    /// A request was refused for want of room.
    pub fn overloaded(&self) {
        self.overloaded.inc();
    }
    /// Somebody was over this limit.
    pub fn limited(&self, limit: &'static str) {
        self.limited.get_or_create(&Limited { limit }).inc();
    }
    /// The text format, with these readings.
    pub fn text(&self, readings: &Readings) -> String {
        self.state.set(readings.state);
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.leases_revoking.set(whole(readings.revoking.leases));
        self.revoking_oldest.set(whole(readings.revoking.oldest_secs));
        self.targets_down.set(readings.targets_down);
        self.strays.set(readings.strays);
        self.rotations_failing.set(readings.rotations_failing);
        self.leases_issued
            .set(i64::try_from(readings.leases_issued).unwrap_or(i64::MAX));
        self.leases_revoked
            .set(i64::try_from(readings.leases_revoked).unwrap_or(i64::MAX));
        self.revocations_failed
            .set(i64::try_from(readings.revocations_failed).unwrap_or(i64::MAX));
        self.tokens.set(readings.tokens);
        self.quarantined.set(readings.quarantined);
        self.in_flight.set(readings.in_flight);
        self.in_flight_max.set(readings.in_flight_max);
        self.audit_seq.set(readings.audit_seq);
        self.audit_lag.set(readings.audit_lag);
        for (hsm, up) in &readings.hsms {
            self.hsm_up.get_or_create(&Hsm { hsm: hsm.clone() }).set(i64::from(*up));
        }
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R-OPS-3: requests and states can be scraped.
    #[test]
    fn text_has_what_was_counted() {
        let metrics = Metrics::default();
        metrics.answered("kv.get", "OK", Duration::from_micros(80));
        let text = metrics.text(&Readings {
            state: 2,
            hsms: vec![("main".into(), true)],
            ..Readings::default()
        });
        for line in [
            "strongroom_requests_total{operation=\"kv.get\",code=\"OK\"} 1",
            "strongroom_state 2",
            "strongroom_hsm_up{hsm=\"main\"} 1",
            "strongroom_request_seconds_count{operation=\"kv.get\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
