//! `strongroom creds`: credentials made or rotated in real systems.

use crate::{
    cli::duration,
    context::Context,
    failure::Failure,
    kv::{field_alone, fields_json, fields_pairs},
    mount::PATIENCE,
    output::{Answer, Human},
};
use clap::Subcommand;
use serde_json::json;
use std::time::Duration;
use strongroom_client::v1;

#[derive(Debug, Subcommand)]
pub enum Creds {
    /// Make an account (dynamic role, leased), or read the present password (static role)
    #[command(after_help = "\
Examples:
  strongroom creds issue pg/readers
  strongroom creds issue pg/readers --ttl 15m --output json
  strongroom creds issue pg/app --field password

JSON: {role, lease_id, fields, fields_base64, ttl_secs, expires_at, renewable, rotates_at, rotated_at}; lease_id is
null for a static role. The account ends with its lease: keep the id, or revoke it with `lease revoke`.")]
    Issue {
        /// MOUNT/NAME, `pg/readers`
        role: String,
        /// How long it lives, from 5s to the role's max_ttl; more is refused [default: the role's]
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        ttl: Option<Duration>,
        /// Print this field alone: its bytes and nothing else (with --output json: an object). For static roles; a lease would be lost from sight
        #[arg(long, short, value_name = "NAME")]
        field: Option<String>,
    },
    /// Rotate a static role's password now
    #[command(after_help = "\
Examples:
  strongroom creds rotate pg/app")]
    Rotate {
        /// MOUNT/NAME
        role: String,
    },
}

impl Creds {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        match self {
            Self::Issue { role, ttl, field } => issue(context, &role, ttl, field).await,
            Self::Rotate { role } => {
                let request = v1::CredsRotateRequest {
                    role: role.clone(),
                    ..Default::default()
                };
                let client = context.patient_client(PATIENCE).await?;
                let done = client
                    .change(request, |s, r| async move { s.creds().rotate(r).await })
                    .await?;
                let json = json!({"role": role, "rotated_at": done.rotated_at, "rotates_at": done.rotates_at});
                Ok(Answer::pairs(
                    json,
                    [("rotated_at", done.rotated_at), ("rotates_at", done.rotates_at)],
                ))
            }
        }
    }
}

async fn issue(context: &Context, role: &str, ttl: Option<Duration>, field: Option<String>) -> Result<Answer, Failure> {
    let made = context.patient_client(PATIENCE).await?.issue(role, ttl).await?;
    if let Some(name) = field {
        if let Some(lease) = &made.lease_id {
            context
                .out
                .notice(&format!("lease {lease}, expires {}", made.expires_at));
        }
        let json = json!({"role": made.role, "lease_id": made.lease_id});
        return Ok(field_alone(json, &name, made.field(&name)?));
    }
    let (fields, fields_base64) = fields_json(&made.fields);
    let json = json!({
        "role": made.role,
        "lease_id": made.lease_id,
        "fields": fields,
        "fields_base64": fields_base64,
        "ttl_secs": made.ttl.as_secs(),
        "expires_at": made.expires_at,
        "renewable": made.renewable,
        "rotates_at": made.rotates_at,
        "rotated_at": made.rotated_at,
    });
    let mut pairs = fields_pairs(&made.fields);
    if let Some(lease) = made.lease_id {
        pairs.push(("lease_id".to_owned(), lease));
    }
    for (name, value) in [
        ("expires_at", made.expires_at),
        ("rotates_at", made.rotates_at),
        ("rotated_at", made.rotated_at),
    ] {
        if !value.is_empty() {
            pairs.push((name.to_owned(), value));
        }
    }
    Ok(Answer::new(json, Human::Pairs(pairs)))
}
