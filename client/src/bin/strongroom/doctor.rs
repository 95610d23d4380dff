//! `strongroom doctor`: walks from the settings to the vault and on to the targets, and explains what is wrong. Reading order: this file, `targets`.

mod targets;

use crate::{
    context::Context,
    failure::{Exit, Failure},
    operator::state_name,
    output::{Answer, Human},
    settings::TokenFrom,
};
use clap::Args;
use jiff::{SignedDuration, Timestamp, fmt::rfc2822};
use serde_json::json;
use strongroom_client::{Client, v1};
use tonic::Request;

/// A difference of clocks that breaks tokens and certificates in practice.
const SKEW_MAX: SignedDuration = SignedDuration::from_secs(30);

/// A revocation that takes longer than this is worth a look.
const REVOKING_LONG_SECS: u64 = 120;

/// Explain what is wrong.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  strongroom doctor
  strongroom doctor --address https://vault.example.com:8470 --ca-cert ca.pem --output json

With a token that may read mounts it has the daemon log in to each target; nothing is made there.
Exit code 0 when nothing is wrong; otherwise that of the first problem: 4 unreachable, 5 sealed, 3 token, 1 other.")]
pub struct Doctor {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Ok,
    Warn,
    Fail,
}

impl Health {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

#[derive(Debug)]
struct Check {
    name: &'static str,
    health: Health,
    detail: String,
    next: String,
    exit: Exit,
}

/// The findings so far.
#[derive(Debug, Default)]
struct Checks(Vec<Check>);

impl Checks {
    fn ok(&mut self, name: &'static str, detail: impl Into<String>) {
        self.0.push(Check {
            name,
            health: Health::Ok,
            detail: detail.into(),
            next: String::new(),
            exit: Exit::Done,
        });
    }

    fn warn(&mut self, name: &'static str, detail: impl Into<String>, next: &str) {
        self.0.push(Check {
            name,
            health: Health::Warn,
            detail: detail.into(),
            next: next.to_owned(),
            exit: Exit::Done,
        });
    }

    fn fail(&mut self, name: &'static str, failure: Failure) {
        let Failure {
            message, next, exit, ..
        } = failure;
        self.0.push(Check {
            name,
            health: Health::Fail,
            detail: message,
            next,
            exit,
        });
    }

    fn answer(self) -> Answer {
        let exit = self
            .0
            .iter()
            .map(|check| check.exit)
            .find(|exit| *exit != Exit::Done)
            .unwrap_or(Exit::Done);
        let checks: Vec<_> = self
            .0
            .iter()
            .map(|c| json!({"check": c.name, "health": c.health.word().to_lowercase(), "detail": c.detail, "next": c.next}))
            .collect();
        let mut text = String::new();
        for check in &self.0 {
            text.push_str(&format!(
                "{:<5} {:<9} {}\n",
                check.health.word(),
                check.name,
                check.detail
            ));
            if !check.next.is_empty() {
                text.push_str(&format!("{:<15} next: {}\n", "", check.next));
            }
        }
        Answer::new(
            json!({"healthy": exit == Exit::Done, "checks": checks}),
            Human::Text(text),
        )
        .exit(exit)
    }
}

impl Doctor {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        let mut checks = Checks::default();
        checks.ok("address", &context.settings.address);
        let client = match context.client_without_token().await {
            Ok(client) => client,
            Err(failure) => {
                let name = if failure.kind == "tls" { "tls" } else { "connect" };
                let next = match name {
                    "tls" => failure.next.clone(),
                    _ => {
                        "start the daemon, or correct the address (--address, STRONGROOM_ADDR, config.toml)".to_owned()
                    }
                };
                checks.fail(name, failure.next(next));
                return Ok(checks.answer());
            }
        };
        checks.ok("connect", "reached, and the peer is trusted");
        // With a token the daemon tells more of what ails it; one that is no good is told below.
        if let Some(token) = context
            .settings
            .token
            .as_ref()
            .and_then(|from| context.token(from).ok())
        {
            let _ = client.set_token(token);
        }
        if let Some(status) = status(&client, &mut checks).await {
            vault(&status, &mut checks);
            revocations(&status, &mut checks);
            if token(context, &client, &status, &mut checks).await {
                targets::targets(context, &client, &mut checks).await;
            }
        }
        Ok(checks.answer())
    }
}

/// Status and, from the answer's `date` header, the difference of clocks.
async fn status(client: &Client, checks: &mut Checks) -> Option<v1::StatusResponse> {
    let mut request = Request::new(v1::StatusRequest {});
    request.set_timeout(std::time::Duration::from_secs(10));
    match client.stubs().operator().status(request).await {
        Err(status) => {
            checks.fail("status", client.error(&status).into());
            None
        }
        Ok(response) => {
            if let Some(skew) = response
                .metadata()
                .get("date")
                .and_then(|date| date.to_str().ok())
                .and_then(skew)
            {
                clock(skew, checks);
            }
            Some(response.into_inner())
        }
    }
}

/// How far this clock is ahead of the `date` header, which counts whole seconds.
fn skew(date: &str) -> Option<SignedDuration> {
    let theirs = rfc2822::parse(date).ok()?.timestamp();
    Some(Timestamp::now().duration_since(theirs))
}

fn clock(skew: SignedDuration, checks: &mut Checks) {
    let secs = skew.as_secs();
    if skew.abs() > SKEW_MAX {
        let side = if secs > 0 { "ahead of" } else { "behind" };
        checks.warn(
            "clock",
            format!("this clock is {} s {side} the daemon's", secs.abs()),
            "correct the clock that is wrong (NTP): expiry times are read by both",
        );
    } else {
        checks.ok("clock", "agrees with the daemon's");
    }
}

fn vault(status: &v1::StatusResponse, checks: &mut Checks) {
    let next = |text: &str| Failure {
        kind: "sealed",
        reason: None,
        request_id: None,
        message: String::new(),
        next: text.to_owned(),
        exit: Exit::Sealed,
    };
    match status.state() {
        v1::VaultState::Open => checks.ok("vault", format!("open, version {}", status.version)),
        v1::VaultState::Sealed => {
            checks.fail(
                "vault",
                Failure {
                    message: "sealed".to_owned(),
                    ..next("`strongroom operator unseal`, share by share")
                },
            );
        }
        v1::VaultState::Blank => {
            let message = "never initialised".to_owned();
            checks.fail(
                "vault",
                Failure {
                    message,
                    ..next("`strongroom operator init` on the daemon's host")
                },
            );
        }
        v1::VaultState::Unspecified => {
            checks.warn(
                "vault",
                format!(
                    "in a state that this client does not know: {}",
                    state_name(status.state)
                ),
                "use a client of the daemon's version",
            );
        }
    }
    for hsm in &status.hsms {
        let detail = format!("{} is {} {}", hsm.name, hsm.state, hsm.detail);
        match hsm.state.as_str() {
            "up" => checks.ok("hsm", detail.trim_end()),
            "held" => checks.warn(
                "hsm",
                detail,
                "check the PIN and the token by its own tool, then `strongroom operator forgive-pin NAME`: it is not tried again by itself",
            ),
            _ => checks.warn(
                "hsm",
                detail,
                "what is unsealed stays so; look at the token's connection and at the runbook `lost HSM`",
            ),
        }
    }
    for warning in &status.warnings {
        checks.warn("warning", warning, "");
    }
}

/// Leases whose accounts do not go away.
fn revocations(status: &v1::StatusResponse, checks: &mut Checks) {
    if status.leases_revoking_oldest_secs >= REVOKING_LONG_SECS {
        checks.warn(
            "leases",
            format!(
                "{} are being revoked, the oldest for {} s",
                status.leases_revoking, status.leases_revoking_oldest_secs
            ),
            "`strongroom lease list` says what the last attempts met; they are repeated for as long as it takes",
        );
    }
}

/// Whether there is one that is good for something.
async fn token(context: &Context, client: &Client, status: &v1::StatusResponse, checks: &mut Checks) -> bool {
    let Some(from) = &context.settings.token else {
        checks.warn("token", "there is none", "`strongroom token save`, or STRONGROOM_TOKEN");
        return false;
    };
    let from_words = match from {
        TokenFrom::Environment(_) => "STRONGROOM_TOKEN".to_owned(),
        TokenFrom::File(path) | TokenFrom::Cache(path) => path.display().to_string(),
    };
    let set = context.token(from).and_then(|token| Ok(client.set_token(token)?));
    if let Err(failure) = set {
        checks.fail("token", failure);
        return false;
    }
    if status.state() != v1::VaultState::Open {
        checks.ok(
            "token",
            format!("from {from_words}; it cannot be checked while the vault is not open"),
        );
        return false;
    }
    match client
        .read(
            v1::TokenGetRequest::default(),
            |s, r| async move { s.token().get(r).await },
        )
        .await
    {
        Ok(token) => {
            let words = format!("from {from_words}: {}, expires {}", token.identity, token.expires_at);
            checks.ok("token", words);
            true
        }
        Err(error) => {
            checks.fail("token", error.into());
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R-OPS-3: each problem says what to do, and the first one gives the exit code.
    #[test]
    fn a_sealed_vault_with_a_dead_hsm_is_explained() {
        let status = v1::StatusResponse {
            state: v1::VaultState::Sealed.into(),
            hsms: vec![v1::HsmStatus {
                name: "primary".into(),
                state: "down".into(),
                ..Default::default()
            }],
            warnings: vec!["no break-glass slot".into()],
            leases_revoking: 3,
            leases_revoking_oldest_secs: 500,
            ..Default::default()
        };
        let mut checks = Checks::default();
        vault(&status, &mut checks);
        revocations(&status, &mut checks);
        clock(SignedDuration::from_secs(-90), &mut checks);
        let text = format!("{:?}", checks.answer());
        for words in [
            "sealed",
            "operator unseal",
            "primary is down",
            "no break-glass slot",
            "3 are being revoked, the oldest for 500 s",
            "90 s behind",
            "exit: Sealed",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[test]
    fn the_date_header_gives_the_skew() {
        let now = rfc2822::DateTimePrinter::new()
            .timestamp_to_rfc9110_string(&Timestamp::now())
            .unwrap();
        assert!(skew(&now).unwrap().abs() <= SignedDuration::from_secs(2));
        assert!(skew("Tue, 15 Nov 1994 08:12:31 GMT").unwrap() > SKEW_MAX);
        assert!(skew("soon").is_none());
    }
}
