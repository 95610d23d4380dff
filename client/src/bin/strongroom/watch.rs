//! `strongroom watch`: a line for every change, for as long as it runs.

use crate::{context::Context, failure::Failure, fetch::shown, output::Answer};
use clap::Args;
use serde_json::{Value, json};
use std::time::Duration;
use strongroom_client::{Error, Event, Follow, Kind, WatchStream};

/// Pauses before the daemon is asked again; doubled.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  strongroom watch kv/prod/db pg/app
  strongroom watch kv/prod/db --values --output json
  strongroom watch --lease 4f1c0a5e9d3b47c2a8e6f0b1c2d3e4f5 --count 1

Prints the present state of each, then every change: new versions, deletions, rotated passwords, the coming end of
leases. Values only with --values. Waits for a daemon that is away or sealed and goes on where it stopped. What is
refused or cannot be read gets a line, and the others go on; ends when the token ends or nothing is left.

JSON: a line each, {event, path, ...}; event `changed` is what `fetch` prints of an item, `gone` has the path, `lease`
has lease_id, state (expiring, revoking, gone), remaining_secs and renewable, `refused` has path, reason and message.")]
pub struct Watch {
    /// Secrets and static roles
    #[arg(value_name = "PATH", required_unless_present = "leases")]
    paths: Vec<String>,
    /// A lease's id; may be given again
    #[arg(long = "lease", value_name = "ID")]
    leases: Vec<String>,
    /// Print the values too
    #[arg(long)]
    values: bool,
    /// End after so many lines
    #[arg(long, value_name = "NUMBER")]
    count: Option<u64>,
}

impl Watch {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        let client = context.client().await?;
        // A token that cannot be renewed is used as long as it lives.
        let _token = client.keep_token(None).await.ok();
        let names: Vec<&str> = self.paths.iter().chain(&self.leases).map(String::as_str).collect();
        let paths = self.paths.iter().map(Follow::path);
        let follows: Vec<_> = paths.chain(self.leases.iter().map(Follow::lease)).collect();
        let mut stream = client.watch_with(follows, self.values).await?;
        let mut left = self.count.unwrap_or(u64::MAX);
        while left > 0 {
            match stream.next().await {
                Ok(event) => {
                    let (json, line) = told(&event, &names);
                    context
                        .out
                        .item(&json, &line)
                        .map_err(|error| Failure::other(format!("cannot write: {error}"), "check the output"))?;
                    left -= 1;
                }
                Err(error) => stream = resumed(context, &stream, error).await?,
            }
        }
        Ok(Answer::raw(Vec::new()))
    }
}

/// Waits for a daemon that is away; any other end is the end.
async fn resumed(context: &Context, stream: &WatchStream, mut error: Error) -> Result<WatchStream, Failure> {
    let mut pause = RETRY_FIRST;
    loop {
        if !error.is_retryable() && !matches!(error, Error::Sealed(_)) {
            return Err(error.into());
        }
        context.out.notice(&format!("{error}; trying again"));
        tokio::time::sleep(pause.max(error.retry_after())).await;
        pause = (pause * 2).min(RETRY_MAX);
        match stream.resumed().await {
            Ok(stream) => return Ok(stream),
            Err(next) => error = next,
        }
    }
}

fn told(event: &Event, names: &[&str]) -> (Value, String) {
    match event {
        Event::Changed(_, delivered) => {
            let mut json = shown(delivered);
            if let Value::Object(object) = &mut json {
                object.insert("event".to_owned(), "changed".into());
            }
            let what = match &delivered.kind {
                Kind::Secret { version, .. } => format!("version {version}"),
                Kind::Lease { lease_id, .. } => format!("lease {lease_id}"),
                Kind::Account { rotated_at, .. } => format!("rotated {rotated_at}"),
            };
            let values: String = crate::kv::fields_pairs(&delivered.fields)
                .into_iter()
                .map(|(name, value)| format!("  {name}={value}"))
                .collect();
            (json, format!("{}  {what}{values}", delivered.path))
        }
        Event::Gone(_, path) => (json!({"event": "gone", "path": path}), format!("{path}  gone")),
        Event::Lease {
            item,
            state,
            remaining,
            renewable,
        } => {
            let (id, left) = (names.get(*item).copied().unwrap_or_default(), remaining.as_secs());
            let json = json!({
                "event": "lease",
                "lease_id": id,
                "state": state,
                "remaining_secs": left,
                "renewable": renewable,
            });
            (json, format!("{id}  {state}  {left}s left"))
        }
        Event::Refused { item, error, .. } => {
            let name = names.get(*item).copied().unwrap_or_default();
            let (reason, message) = (error.reason().unwrap_or_default(), error.to_string());
            let json = json!({"event": "refused", "path": name, "reason": reason, "message": message});
            (json, format!("{name}  refused: {message}"))
        }
    }
}
