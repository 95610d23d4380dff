//! `strongroom lease`: promises to revoke.

use crate::{
    cli::duration,
    context::Context,
    failure::Failure,
    mount::PATIENCE,
    output::{Answer, Human, or_dash},
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::time::Duration;
use strongroom_client::v1::{self, lease_revoke_request::What};

/// Leases asked for in one page.
const PAGE: u32 = 1000;

#[derive(Debug, Subcommand)]
pub enum Lease {
    /// List leases that you may see
    #[command(after_help = "\
Examples:
  strongroom lease list
  strongroom lease list pg/readers
  strongroom lease list pg --limit 10000 --output json")]
    List {
        /// A mount or a role; without it all
        #[arg(default_value = "", hide_default_value = true)]
        prefix: String,
        /// Most leases to print
        #[arg(long, default_value_t = 1000, value_name = "NUMBER")]
        limit: usize,
    },
    /// Show a lease
    #[command(after_help = "\
Examples:
  strongroom lease show 4f1c0a5e9d3b47c2a8e6f0b1c2d3e4f5")]
    Show {
        /// The lease's id
        id: String,
    },
    /// Extend a lease, at most to its maximum
    #[command(after_help = "\
Examples:
  strongroom lease renew 4f1c0a5e9d3b47c2a8e6f0b1c2d3e4f5
  strongroom lease renew 4f1c0a5e9d3b47c2a8e6f0b1c2d3e4f5 --ttl 30m")]
    Renew {
        /// The lease's id
        id: String,
        /// How long it lives from now [default: what it was issued with]
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        ttl: Option<Duration>,
    },
    /// Revoke leases: lock the account, end its sessions, drop it, read back that it is gone
    #[command(after_help = "\
Examples:
  strongroom lease revoke 4f1c0a5e9d3b47c2a8e6f0b1c2d3e4f5
  strongroom lease revoke --prefix pg/readers
  strongroom lease revoke --identity deployer
  strongroom lease revoke --all --no-wait

Waits for the proof, within --timeout (60s). What is not proven by then goes on in the background, and
the exit code is 1: `strongroom lease list` shows it as revoking.")]
    Revoke {
        /// What to revoke.
        #[command(flatten)]
        what: Which,
        /// Return when it is queued
        #[arg(long)]
        no_wait: bool,
    },
}

/// Exactly one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// The lease's id
    id: Option<String>,
    /// Every lease of a mount or role
    #[arg(long, value_name = "MOUNT|ROLE")]
    prefix: Option<String>,
    /// Every lease of an identity
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// Every lease there is
    #[arg(long)]
    all: bool,
}

impl Lease {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        match self {
            Self::List { prefix, limit } => list(context, prefix, limit).await,
            Self::Show { id } => {
                let request = v1::LeaseGetRequest { id };
                let lease = context
                    .client()
                    .await?
                    .read(request, |s, r| async move { s.lease().get(r).await })
                    .await?;
                Ok(shown(&lease))
            }
            Self::Renew { id, ttl } => {
                let (left, expires_at) = context.patient_client(PATIENCE).await?.renew(&id, ttl).await?;
                let json = json!({"id": id, "ttl_secs": left.as_secs(), "expires_at": expires_at});
                Ok(Answer::pairs(
                    json,
                    [("ttl_secs", left.as_secs().to_string()), ("expires_at", expires_at)],
                ))
            }
            Self::Revoke { what, no_wait } => revoke(context, what, !no_wait).await,
        }
    }
}

async fn revoke(context: &Context, what: Which, wait: bool) -> Result<Answer, Failure> {
    let what = match what {
        Which { id: Some(id), .. } => What::Id(id),
        Which {
            prefix: Some(prefix), ..
        } if prefix.trim_matches('/').is_empty() => {
            return Err(Failure::usage(
                "the prefix is empty",
                "name a mount or role; --all revokes every lease",
            ));
        }
        Which {
            prefix: Some(prefix), ..
        } => What::Prefix(prefix),
        Which {
            identity: Some(name), ..
        } => What::Identity(name),
        Which { .. } => What::All(v1::LeaseRevokeAll {}),
    };
    if wait {
        context
            .out
            .notice("revoking; waiting for the proof that accounts and sessions are gone");
    }
    let request = v1::LeaseRevokeRequest {
        what: Some(what),
        wait,
        ..Default::default()
    };
    let client = context.patient_client(PATIENCE).await?;
    let done = client
        .change(request, |s, r| async move { s.lease().revoke(r).await })
        .await?;
    let answer = json!({"queued": done.queued, "gone": done.gone});
    match (wait, done.queued.saturating_sub(done.gone)) {
        (_, 0) if done.queued == 0 && done.gone == 0 => Ok(Answer::said(
            answer,
            "nothing matched: no live lease is meant by that; `strongroom lease list` shows those there are",
        )),
        (false, _) => Ok(Answer::said(answer, format!("{} queued", done.queued))),
        (true, 0) => Ok(Answer::said(answer, format!("{} revoked and proven gone", done.gone))),
        (true, open) => Ok(Answer::said(
            answer,
            format!(
                "{} proven gone; {open} still being revoked, see `strongroom lease list`",
                done.gone
            ),
        )
        .exit(crate::failure::Exit::Other)),
    }
}

async fn list(context: &Context, prefix: String, limit: usize) -> Result<Answer, Failure> {
    let client = context.client().await?;
    let mut request = v1::LeaseListRequest {
        prefix,
        page_size: PAGE,
        ..Default::default()
    };
    let mut leases = Vec::new();
    loop {
        let page = client
            .read(request.clone(), |s, r| async move { s.lease().list(r).await })
            .await?;
        leases.extend(page.leases);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() || leases.len() > limit {
            break;
        }
    }
    let truncated = !request.page_token.is_empty() || leases.len() > limit;
    leases.truncate(limit);
    if truncated {
        context
            .out
            .notice(&format!("only the first {limit} leases; --limit shows more"));
    }
    let rows = leases
        .iter()
        .map(|l| {
            let trouble = if l.attempts == 0 {
                String::new()
            } else {
                format!("{} attempts: {}", l.attempts, l.last_error)
            };
            vec![
                l.id.clone(),
                l.role.clone(),
                l.state.clone(),
                l.account.clone(),
                l.identity.clone(),
                l.expires_at.clone(),
                or_dash(&trouble),
            ]
        })
        .collect();
    let json = json!({"leases": leases.iter().map(lease_json).collect::<Vec<_>>(), "truncated": truncated});
    let head = vec!["id", "role", "state", "account", "identity", "expires", "trouble"];
    Ok(Answer::new(json, Human::Table { head, rows }))
}

fn shown(lease: &v1::LeaseInfo) -> Answer {
    let mut pairs = vec![
        ("id", lease.id.clone()),
        ("role", lease.role.clone()),
        ("state", lease.state.clone()),
        ("account", lease.account.clone()),
        ("identity", lease.identity.clone()),
        ("created_at", lease.created_at.clone()),
        ("expires_at", lease.expires_at.clone()),
        ("max_expires_at", lease.max_expires_at.clone()),
    ];
    if lease.attempts > 0 {
        pairs.push(("attempts", lease.attempts.to_string()));
        pairs.push(("last_error", lease.last_error.clone()));
        pairs.push(("next_attempt_at", lease.next_attempt_at.clone()));
    }
    let pairs = pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), or_dash(&value)))
        .collect();
    Answer::new(lease_json(lease), Human::Pairs(pairs))
}

fn lease_json(lease: &v1::LeaseInfo) -> Value {
    json!({
        "id": lease.id,
        "role": lease.role,
        "state": lease.state,
        "account": lease.account,
        "identity": lease.identity,
        "created_at": lease.created_at,
        "expires_at": lease.expires_at,
        "max_expires_at": lease.max_expires_at,
        "ttl_secs": lease.ttl_secs,
        "attempts": lease.attempts,
        "last_error": lease.last_error,
        "next_attempt_at": lease.next_attempt_at,
    })
}
