//! Records of evidence for loads that drive the store without a gate.

use std::sync::Arc;
use strongroom_audit::{Encoded, ParamValue, Record};
use strongroomd::{
    audit::{Outcome, Paths, Recorder, TornTail, Trail},
    base::{id::BootId, random::OsRandom, time::SystemClock},
};

/// Makes records that carry a writer and a number.
pub struct Notary(Arc<Recorder>);

impl Notary {
    pub fn new() -> Self {
        Self(Recorder::new(
            BootId::random(&OsRandom),
            Arc::new(SystemClock::default()),
            Paths::Clear,
        ))
    }
    pub fn note(&self, op: &'static str, writer: u64, number: u64) -> Encoded {
        let mut trail = Trail::of_system(&self.0, op);
        trail.param_u64("writer", writer);
        trail.param_u64("number", number);
        trail.response(&Outcome::ok())
    }
    pub fn torn_tail(&self, torn: &TornTail) -> Encoded {
        self.0.torn_tail(torn)
    }
}

impl Default for Notary {
    fn default() -> Self {
        Self::new()
    }
}

/// What [`Notary::note`] wrote: operation, writer, number. `None` for other records.
pub fn read_note(line: &[u8]) -> Option<(String, u64, u64)> {
    let record: Record<'_> = serde_json::from_slice(line).ok()?;
    let number = |name| match record.params.get(name) {
        Some(ParamValue::Number(number)) => Some(*number),
        _ => None,
    };
    Some((record.op.to_string(), number("writer")?, number("number")?))
}
