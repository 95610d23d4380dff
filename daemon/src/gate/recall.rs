//! After an unseal the log's tail tells which tokens have logged in: their uses ride in the records of log-ins (R-AUTH-4). Nothing else
//! was written when they did. Until this is done, tokens from before the unseal are refused.

use super::{
    Gate,
    op::Operation,
    ops::login::{LogIn, USED_PARAM, USED_UNTIL_PARAM},
};
use crate::{
    audit::{Drainer, Line, ReadError, TailError},
    auth::Use,
    base::time::Timestamp,
};
use std::time::Duration;
use strongroom_audit::{ParamValue, Record};

/// How long the drainer may take to bring what was committed before the unseal into the log.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);
const DRAIN_PAUSE: Duration = Duration::from_millis(20);
/// Clocks that went back a little while the log was written.
const SLACK_SECS: u64 = 120;

impl Gate {
    /// Reads the log's tail if the vault was opened since it was last read. What cannot be read is tried again later; log-ins with tokens from
    /// before the unseal are refused as long.
    pub(super) async fn recall_log_ins(&self) {
        let Some(secs) = self.vault.enter().ok().and_then(|open| open.auth.recall_secs()) else {
            return;
        };
        // Nothing that logs in once: nothing can have been used.
        let outcome = if secs == 0 {
            Ok(true)
        } else {
            self.recall(secs + SLACK_SECS).await
        };
        match (outcome, self.vault.enter()) {
            (Ok(true), Ok(open)) => open.auth.recalled(),
            (Err(error), _) => {
                tracing::warn!(%error, "the log could not be read for log-ins before the unseal; tokens from before it are refused");
            }
            _ => {}
        }
    }

    /// Whether all of the last `secs` seconds was read.
    async fn recall(&self, secs: u64) -> Result<bool, TailError> {
        let Some(drainer) = self.vault.disk().drainer() else {
            return Ok(false);
        };
        let end = self.audit_head().await.seq;
        let waited = tokio::time::timeout(DRAIN_PATIENCE, async {
            while drainer.drained_through() < end {
                tokio::time::sleep(DRAIN_PAUSE).await;
            }
        });
        if waited.await.is_err() {
            return Ok(false);
        }
        let cutoff = Timestamp(self.from.clock.now().0.saturating_sub(secs * 1000)).to_string();
        let from = beginning(drainer, end, &cutoff).await?;
        let mut tail = drainer.tail(from, false)?;
        while let Some(lines) = tail.next().await? {
            // Sealed meanwhile: there is nobody to tell.
            let Ok(open) = self.vault.enter() else { return Ok(false) };
            lines.iter().filter_map(used).for_each(|used| open.auth.recall(used));
        }
        Ok(true)
    }
}

/// A record to begin with: older than `cutoff`, found by steps back that double. Times compare as text: RFC 3339, UTC, of one length.
async fn beginning(drainer: &Drainer, end: u64, cutoff: &str) -> Result<u64, TailError> {
    let mut back = 1024;
    loop {
        let from = end.saturating_sub(back);
        if from == 0 {
            return Ok(0);
        }
        let mut tail = match drainer.tail(from, false) {
            Ok(tail) => tail,
            Err(ReadError::Gone { first, .. }) => return Ok(first),
            Err(error) => return Err(error.into()),
        };
        let first = tail.next().await?.and_then(|lines| lines.into_iter().next());
        let old = first.is_some_and(|line| {
            serde_json::from_slice::<Record<'_>>(&line.record).is_ok_and(|record| *record.time < *cutoff)
        });
        if old {
            return Ok(from);
        }
        back *= 2;
    }
}

/// The use that a record tells of.
fn used(line: &Line) -> Option<Use> {
    let record = serde_json::from_slice::<Record<'_>>(&line.record).ok()?;
    if record.op != LogIn::NAME {
        return None;
    }
    let param = |name: &str| record.params.get(name);
    let ParamValue::Text(id) = param(USED_PARAM)? else {
        return None;
    };
    let ParamValue::Number(until) = param(USED_UNTIL_PARAM)? else {
        return None;
    };
    let id = data_encoding::HEXLOWER.decode(id.as_bytes()).ok()?.try_into().ok()?;
    Some(Use {
        id,
        until: Timestamp(until.saturating_mul(1000)),
    })
}
