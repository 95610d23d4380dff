//! `strongroom run`: a command with secrets, and nothing left behind. Reading order: `spec` (what goes where), this file, `child` (signals
//! and exit codes), `mask` (known values in the output), `files` (secrets as files).

mod child;
mod files;
mod mask;
mod spec;

use crate::{
    cli::duration,
    context::Context,
    failure::{Exit, Failure},
    mount::PATIENCE,
    output::Answer,
};
use clap::Args;
use files::Files;
use mask::Needles;
use spec::Spec;
use std::{collections::BTreeMap, ffi::OsString, os::unix::ffi::OsStringExt, time::Duration};
use strongroom_client::{Client, Delivered, Error, Keep, KeptLease, KeptToken, Secret, Want};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  strongroom run --env DB_PASSWORD=kv/prod/db#password -- ./server --port 8080
  strongroom run --env PGUSER=pg/readers#username --env PGPASSWORD=pg/readers#password -- psql -h db prod
  strongroom run --file TLS_KEY=kv/prod/tls#key --mask -- ./deploy

All secrets come in one round trip, or the command is not started. --env puts a field into the environment; --file
writes it to a file that only this user can read and puts the file's name there. Leases are renewed while the command
runs and revoked at its end; files are removed. Signals are passed on. The exit code is the command's (128 + the
signal's number if one ended it, or came before it was started), 126 or 127 if it could not be started, and otherwise that of `strongroom`.
The command does not get STRONGROOM_TOKEN unless --keep-token is given.")]
pub struct Run {
    /// NAME=PATH#FIELD: the environment variable NAME holds the field's value
    #[arg(long, value_name = "NAME=PATH#FIELD", value_parser = spec::parse)]
    env: Vec<Spec>,
    /// NAME=PATH#FIELD: the environment variable NAME holds the name of a file with the field's value
    #[arg(long, value_name = "NAME=PATH#FIELD", value_parser = spec::parse)]
    file: Vec<Spec>,
    /// How long accounts of dynamic roles live between renewals [default: the role's]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ttl: Option<Duration>,
    /// Replace the secrets in the command's output by ***, where they stand as they are
    #[arg(long)]
    mask: bool,
    /// Leave STRONGROOM_TOKEN in the command's environment
    #[arg(long = "keep-token", id = "keep_environment")]
    keep_environment: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Run {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        let specs = || self.env.iter().chain(&self.file);
        spec::no_name_twice(specs())?;
        let mut paths: Vec<&str> = specs().map(|spec| spec.path.as_str()).collect();
        paths.sort_unstable();
        paths.dedup();
        // Before anything is fetched: what cannot be stopped later must be caught from the beginning.
        let mut signals = child::Signals::catch()?;
        let (client, _token, fetched) = tokio::select! {
            biased;
            // What a fetch that is left alone has made, the daemon takes back.
            kind = signals.next() => return Ok(Answer::raw(Vec::new()).exit(Exit::Child(child::ended_by(kind)))),
            fetched = self.fetch(context, &paths) => fetched?,
        };
        let leases = keep_all(&client, &fetched, self.ttl);
        let ran = self.run_with(fetched, signals).await;
        close_all(context, leases).await;
        Ok(Answer::raw(Vec::new()).exit(Exit::Child(ran?)))
    }

    async fn fetch(
        &self,
        context: &Context,
        paths: &[&str],
    ) -> Result<(Client, Option<KeptToken>, Vec<Delivered>), Failure> {
        let client = context.patient_client(PATIENCE).await?;
        // A token that cannot be renewed is used as long as it lives.
        let token = client.keep_token(None).await.ok();
        let wants = paths.iter().map(|path| Want {
            ttl: self.ttl,
            ..Want::new(*path)
        });
        let fetched = match paths.is_empty() {
            true => Vec::new(),
            false => client.fetch(wants).await?,
        };
        Ok((client, token, fetched))
    }

    async fn run_with(&self, fetched: Vec<Delivered>, signals: child::Signals) -> Result<u8, Failure> {
        let fetched: BTreeMap<String, Delivered> = fetched.into_iter().map(|one| (one.path.clone(), one)).collect();
        let mut files = Files::default();
        let mut environment = Vec::new();
        for spec in &self.env {
            environment.push((spec.name.clone(), text(spec, value(&fetched, spec)?)?));
        }
        for spec in &self.file {
            let place = files.add(&spec.name, value(&fetched, spec)?)?;
            environment.push((spec.name.clone(), place.into_os_string()));
        }
        let needles = self.mask.then(|| {
            Needles::of(
                self.env
                    .iter()
                    .chain(&self.file)
                    .filter_map(|spec| value(&fetched, spec).ok()),
            )
        });
        let start = child::Start {
            command: &self.command,
            environment,
            keep_token: self.keep_environment,
            needles,
        };
        child::run(start, signals).await
    }
}

fn value<'a>(fetched: &'a BTreeMap<String, Delivered>, spec: &Spec) -> Result<&'a Secret, Failure> {
    let found = fetched.get(&spec.path).map(|delivered| delivered.field(&spec.field));
    match found {
        Some(field) => Ok(field.map_err(|error| Failure::from(error).during(&spec.name))?),
        None => Err(Failure::other(format!("{} did not come", spec.path), "try again")),
    }
}

/// A value for the environment.
fn text(spec: &Spec, value: &Secret) -> Result<OsString, Failure> {
    if value.expose().contains(&0) {
        let words = format!(
            "{}#{} has a zero byte, which no environment variable can hold",
            spec.path, spec.field
        );
        return Err(Failure::usage(words, "give it as a file: --file"));
    }
    Ok(OsString::from_vec(value.expose().to_vec()))
}

fn keep_all(client: &Client, fetched: &[Delivered], ttl: Option<Duration>) -> Vec<KeptLease> {
    let keep = Keep {
        ttl,
        revoke_on_drop: true,
    };
    fetched.iter().filter_map(|one| client.keep_lease(one, keep)).collect()
}

/// Takes back what was leased; a failure is told, and is not the command's.
async fn close_all(context: &Context, leases: Vec<KeptLease>) {
    for lease in leases {
        match lease.close().await {
            Ok(true) | Err(Error::NotFound(_) | Error::Denied(_)) => {}
            Ok(false) => context
                .out
                .notice("a lease is being revoked; the daemon goes on trying"),
            Err(error) => context
                .out
                .notice(&format!("a lease was not revoked and ends at its expiry: {error}")),
        }
    }
}
