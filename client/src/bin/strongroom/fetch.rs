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
  strongroom kv put kv/apps/shop db=ref:pg/readers?ttl=1h mail=ref:kv/prod/mail?label=stable --literal
  strongroom fetch --bundle kv/apps/shop

A bundle is a secret that lists what an application needs: its fields are names, their values `ref:` and a path, with ?label=, ?version= or ?ttl=
after them where needed. It takes the right to read it, and those to what it lists.

All of them, or none and why. A role makes an account (dynamic, leased) or gives the present password (static); keep
the lease's id, or revoke it with `lease revoke`. Each is decided and recorded on its own.

JSON: {items: [{name, path, kind, fields, fields_base64, remaining_secs, resume, ...}]}; kind `secret` adds version and
created_at, `lease` adds lease_id, expires_at and renewable, `account` adds rotated_at and rotates_at.")]
pub struct Fetch {
    /// Secrets (`kv/prod/db`) and roles (`pg/readers`), at most 64
    #[arg(required_unless_present = "bundle", value_name = "PATH")]
    paths: Vec<String>,
    /// How long the accounts of dynamic roles live, at least 5s [default: the role's]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ttl: Option<Duration>,
    /// A secret that lists what to fetch
    #[arg(long, value_name = "PATH", conflicts_with_all = ["paths", "ttl"])]
    bundle: Option<String>,
}

impl Fetch {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        let ttl = self.ttl;
        let wants = self.paths.into_iter().map(|path| Want { ttl, ..Want::new(path) });
        let wants: Vec<Want> = wants.collect();
        let client = context.patient_client(PATIENCE).await?;
        let fetched = match self.bundle {
            None => client.fetch(wants).await?,
            Some(bundle) => client.fetch_bundle(&bundle).await?,
        };
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
        "name": delivered.name,
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
    let path = || match delivered.name.as_str() {
        "" => delivered.path.clone(),
        name => format!("{name} ({})", delivered.path),
    };
    pairs
        .into_iter()
        .map(|(name, value)| vec![path(), name, value])
        .collect()
}
