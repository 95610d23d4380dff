//! `strongroom fetch`: many secrets and credentials in one round trip.

use crate::{
    cli::duration,
    context::Context,
    failure::Failure,
    kv::{fields_json, fields_pairs},
    mount::PATIENCE,
    output::{Answer, Human},
};
use clap::Args;
use serde_json::{Value, json};
use std::time::Duration;
use strongroom_client::{Delivered, Kind, Want};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  strongroom fetch kv/prod/db kv/prod/mail pg/readers
  strongroom fetch kv/prod/db pg/readers --ttl 15m --output json

All of them, or none and why. A role makes an account (dynamic, leased) or gives the present password (static); keep
the lease's id, or revoke it with `lease revoke`. Each is decided and recorded on its own.

JSON: {items: [{path, kind, fields, fields_base64, remaining_secs, resume, ...}]}; kind `secret` adds version and
created_at, `lease` adds lease_id, expires_at and renewable, `account` adds rotated_at and rotates_at.")]
pub struct Fetch {
    /// Secrets (`kv/prod/db`) and roles (`pg/readers`), at most 64
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
    /// How long the accounts of dynamic roles live, at least 5s [default: the role's]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ttl: Option<Duration>,
}

impl Fetch {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        let ttl = self.ttl;
        let wants = self.paths.into_iter().map(|path| Want { ttl, ..Want::new(path) });
        let fetched = context.patient_client(PATIENCE).await?.fetch(wants).await?;
        let json = json!({ "items": fetched.iter().map(shown).collect::<Vec<_>>() });
        let rows = fetched.iter().flat_map(rows).collect();
        let head = vec!["path", "field", "value"];
        Ok(Answer::new(json, Human::Table { head, rows }))
    }
}

/// One delivered thing as JSON.
pub fn shown(delivered: &Delivered) -> Value {
    let (fields, fields_base64) = fields_json(&delivered.fields);
    let mut object = json!({
        "path": delivered.path,
        "fields": fields,
        "fields_base64": fields_base64,
        "remaining_secs": delivered.remaining.map(|left| left.as_secs()),
        "resume": delivered.resume,
    });
    let more = match &delivered.kind {
        Kind::Secret {
            version, created_at, ..
        } => {
            json!({"kind": "secret", "version": version, "created_at": created_at})
        }
        Kind::Lease {
            lease_id,
            expires_at,
            renewable,
            ..
        } => json!({"kind": "lease", "lease_id": lease_id, "expires_at": expires_at, "renewable": renewable}),
        Kind::Account { rotated_at, rotates_at } => {
            json!({"kind": "account", "rotated_at": rotated_at, "rotates_at": rotates_at})
        }
    };
    if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
        object.extend(more);
    }
    object
}

fn rows(delivered: &Delivered) -> Vec<Vec<String>> {
    let mut pairs = fields_pairs(&delivered.fields);
    if let Some(lease) = delivered.lease_id() {
        pairs.push(("lease_id".to_owned(), lease.to_owned()));
    }
    let path = || delivered.path.clone();
    pairs
        .into_iter()
        .map(|(name, value)| vec![path(), name, value])
        .collect()
}
