//! `strongroom operator status`.

use super::present;
use crate::{
    context::Context,
    failure::{Exit, Failure},
    output::{Answer, Human},
};
use serde_json::{Value, json};
use std::time::Duration;
use strongroom_client::v1;

pub async fn run(context: &Context) -> Result<Answer, Failure> {
    let client = context.client_without_token().await?;
    let status = present::status(&client).await?;
    let exit = if status.state() == v1::VaultState::Open {
        Exit::Done
    } else {
        Exit::Sealed
    };
    Ok(Answer::new(status_json(&status), Human::Text(text(&status))).exit(exit))
}

/// `blank`, `sealed`, `open`.
pub fn state_name(state: i32) -> &'static str {
    match v1::VaultState::try_from(state) {
        Ok(v1::VaultState::Blank) => "blank",
        Ok(v1::VaultState::Sealed) => "sealed",
        Ok(v1::VaultState::Open) => "open",
        Ok(v1::VaultState::Unspecified) | Err(_) => "unknown",
    }
}

pub fn slot_json(slot: &v1::Slot) -> Value {
    json!({
        "name": slot.name,
        "factors": slot.factors,
        "hsms": slot.hsms,
        "share_set": slot.share_set,
        "created_at": slot.created_at,
        "verified_at": slot.verified_at,
    })
}

fn status_json(status: &v1::StatusResponse) -> Value {
    let hsms: Vec<_> = status
        .hsms
        .iter()
        .map(|h| json!({"name": h.name, "state": h.state, "detail": h.detail, "respawns": h.respawns}))
        .collect();
    let sessions: Vec<_> = status
        .sessions
        .iter()
        .map(|s| {
            json!({"slot": s.slot, "operation": s.operation, "have": s.have, "need": s.need, "expires_in_secs": s.expires_in_secs})
        })
        .collect();
    json!({
        "state": state_name(status.state),
        "version": status.version,
        "cluster_id": status.cluster_id,
        "store_backend": status.store_backend,
        "audit_sync": status.audit_sync,
        "audit_seq": status.audit_seq,
        "audit_head": status.audit_head,
        "hsms": hsms,
        "slots": status.slots.iter().map(slot_json).collect::<Vec<_>>(),
        "sessions": sessions,
        "quarantined": status.quarantined,
        "targets_down": status.targets_down,
        "leases_revoking": status.leases_revoking,
        "leases_revoking_oldest_secs": status.leases_revoking_oldest_secs,
        "uptime_secs": status.uptime_secs,
        "warnings": status.warnings,
    })
}

fn text(status: &v1::StatusResponse) -> String {
    let mut lines = vec![
        ("state", state_name(status.state).to_owned()),
        ("version", status.version.clone()),
        ("cluster", status.cluster_id.clone()),
        ("store", status.store_backend.clone()),
        ("audit", format!("{}, {} records", status.audit_sync, status.audit_seq)),
        ("audit head", status.audit_head.clone()),
        (
            "uptime",
            humantime::format_duration(Duration::from_secs(status.uptime_secs)).to_string(),
        ),
    ];
    for hsm in &status.hsms {
        let detail = hsm.detail.trim();
        lines.push(("hsm", format!("{}: {} {}", hsm.name, hsm.state, detail.trim())));
    }
    for slot in &status.slots {
        let verified = if slot.verified_at.is_empty() {
            String::new()
        } else {
            format!(", verified {}", slot.verified_at)
        };
        lines.push(("slot", format!("{}: {}{verified}", slot.name, slot.factors)));
    }
    for s in &status.sessions {
        let line = format!(
            "{} with slot {}: {} of {}, ends in {} s",
            s.operation, s.slot, s.have, s.need, s.expires_in_secs
        );
        lines.push(("session", line));
    }
    for (name, count) in [
        ("quarantined", status.quarantined),
        ("targets down", status.targets_down),
    ] {
        if count > 0 {
            lines.push((name, count.to_string()));
        }
    }
    if status.leases_revoking > 0 {
        let age = humantime::format_duration(Duration::from_secs(status.leases_revoking_oldest_secs));
        let next = "`strongroom lease list` says what keeps them";
        lines.push((
            "revoking",
            format!("{}, the oldest for {age}: {next}", status.leases_revoking),
        ));
    }
    for warning in &status.warnings {
        lines.push(("WARNING", warning.clone()));
    }
    lines
        .into_iter()
        .filter(|(_, value)| !value.trim().is_empty())
        .fold(String::new(), |mut text, (name, value)| {
            text.push_str(format!("{name:<13} {value}").trim_end());
            text.push('\n');
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_names_what_an_operator_must_see() {
        let status = v1::StatusResponse {
            state: v1::VaultState::Sealed.into(),
            slots: vec![v1::Slot {
                name: "daily".into(),
                factors: "hsm+quorum:3/5".into(),
                ..Default::default()
            }],
            sessions: vec![v1::SessionStatus {
                slot: "daily".into(),
                operation: "unseal".into(),
                have: 1,
                need: 3,
                expires_in_secs: 500,
            }],
            leases_revoking: 2,
            leases_revoking_oldest_secs: 330,
            warnings: vec!["the HSM `primary` is down".into()],
            ..Default::default()
        };
        let text = text(&status);
        for words in [
            "sealed",
            "daily: hsm+quorum:3/5",
            "unseal with slot daily: 1 of 3",
            "revoking      2, the oldest for 5m 30s: `strongroom lease list`",
            "WARNING       the HSM",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(!text.contains("cluster"), "what is empty is left out: {text}");
        assert_eq!(status_json(&status)["state"], "sealed");
    }
}
