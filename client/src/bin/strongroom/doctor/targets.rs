//! Whether the systems that mounts make accounts in answer. Asked by a comparison of accounts with leases: the daemon logs in to each with the engine's
//! own credential and reads; nothing is made, changed or removed there.

use super::Checks;
use crate::{
    context::Context,
    failure::{Exit, Failure},
};
use std::time::Duration;
use strongroom_client::{Client, Error, v1};
use tokio::task::JoinSet;

/// How long one target is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// Targets looked at: more are counted.
const LOOKED_AT_MAX: usize = 64;

/// What one look gave.
type Look = (v1::MountInfo, Result<v1::MountReconcileResponse, Error>);

pub async fn targets(context: &Context, client: &Client, checks: &mut Checks) {
    let listed = client
        .read(v1::MountListRequest::default(), |s, r| async move {
            s.mount().list(r).await
        })
        .await;
    let mounts = match listed {
        Ok(listed) => listed.mounts,
        Err(error) => return checks.fail("target", Failure::from(error).during("the mounts")),
    };
    let makes_accounts = |mount: &v1::MountInfo| !matches!(mount.kind.as_str(), "kv" | "transit");
    let (mut looks, mut left) = (JoinSet::<Look>::new(), 0usize);
    for mount in mounts.into_iter().filter(makes_accounts) {
        match mount.state.as_str() {
            "unconfigured" => checks.warn(
                "target",
                format!("{} ({}) is not configured", mount.path, mount.kind),
                &format!("`strongroom mount config {} --help` shows how", mount.path),
            ),
            "closing" => checks.warn(
                "target",
                format!("{} ({}) is being disabled", mount.path, mount.kind),
                &format!("`strongroom mount disable {} --revoke-leases` ends it", mount.path),
            ),
            _ if looks.len() == LOOKED_AT_MAX => left += 1,
            _ => drop(looks.spawn(look(context.patient(client, PATIENCE), mount))),
        }
    }
    let mut seen = looks.join_all().await;
    seen.sort_by(|(one, _), (other, _)| one.path.cmp(&other.path));
    for (mount, found) in seen {
        told(&mount, found, checks);
    }
    if left > 0 {
        checks.warn(
            "target",
            format!("{left} more were not looked at"),
            "`strongroom reconcile MOUNT` looks at one",
        );
    }
}

async fn look(client: Client, mount: v1::MountInfo) -> Look {
    let request = v1::MountReconcileRequest {
        path: mount.path.clone(),
        ..Default::default()
    };
    let found = client
        .change(request, |s, r| async move { s.mount().reconcile(r).await })
        .await;
    (mount, found)
}

fn told(mount: &v1::MountInfo, found: Result<v1::MountReconcileResponse, Error>, checks: &mut Checks) {
    let path = &mount.path;
    let name = format!("{path} ({})", mount.kind);
    let error = match found {
        Ok(found) if found.stray_count > 0 => {
            return checks.warn(
                "target",
                format!("{name} answers, and has {} accounts without a lease", found.stray_count),
                &format!("`strongroom reconcile {path}` names them; with --remove they are revoked"),
            );
        }
        Ok(found) if found.missing_count > 0 => {
            return checks.warn(
                "target",
                format!(
                    "{name} answers, but the accounts of {} leases are not there",
                    found.missing_count
                ),
                &format!("`strongroom reconcile {path}` names them; who uses them asks for new credentials"),
            );
        }
        Ok(found) => {
            return checks.ok(
                "target",
                format!("{name} answers; {} accounts, each with its lease", found.accounts),
            );
        }
        Err(error) => error,
    };
    let next = match (error.reason(), &error) {
        (_, Error::Denied(_)) => {
            return checks.warn(
                "target",
                format!("{name} was not looked at: this token may not"),
                "ask with one whose policies permit `mount_read` there",
            );
        }
        (Some("TARGET_UNAVAILABLE"), _) => format!(
            "see that it runs and that the daemon's machine reaches it; where it is: `strongroom mount config {path}`"
        ),
        (Some("TARGET_REFUSED"), _) => format!(
            "mend the engine's own credential or its grants; then `strongroom mount config {path} --test` tries an account's whole life"
        ),
        (_, other) => other.next_step().to_owned(),
    };
    let failure = Failure {
        exit: Exit::Other,
        ..Failure::from(error).during(&name).next(next)
    };
    checks.fail("target", failure);
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_client::Refusal;

    /// R-OPS-3: whatever a target says, what comes next is said too.
    #[test]
    fn each_look_has_a_next_step() {
        let mount = v1::MountInfo {
            path: "pg".into(),
            kind: "postgres".into(),
            ..Default::default()
        };
        let refusal = |reason: &str| Refusal {
            reason: reason.into(),
            message: "words".into(),
            request_id: String::new(),
            retry_after: None,
            step_up: Vec::new(),
        };
        let found = |stray_count, missing_count| {
            Ok(v1::MountReconcileResponse {
                accounts: 3,
                stray_count,
                missing_count,
                ..Default::default()
            })
        };
        for (found, words) in [
            (found(0, 0), ["Ok", "3 accounts"]),
            (found(2, 0), ["Warn", "--remove"]),
            (found(0, 1), ["Warn", "new credentials"]),
            (Err(Error::Denied(refusal("DENIED"))), ["Warn", "mount_read"]),
            (
                Err(Error::Unavailable(refusal("TARGET_UNAVAILABLE"))),
                ["Fail", "see that it runs"],
            ),
            (
                Err(Error::Conflict(refusal("TARGET_REFUSED"))),
                ["Fail", "mount config pg --test"],
            ),
            (Err(Error::Internal(refusal("INTERNAL"))), ["Fail", "log"]),
        ] {
            let mut checks = Checks::default();
            told(&mount, found, &mut checks);
            let text = format!("{checks:?}");
            assert!(words.iter().all(|word| text.contains(word)), "{words:?}: {text}");
        }
    }
}
