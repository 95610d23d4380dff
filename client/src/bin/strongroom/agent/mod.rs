//! `strongroom agent`: holds the secrets of a machine's programs, hands them out over a Unix socket to the users that may have them, and keeps
//! files fresh that are made from them. Reading order: `config` (what it is told), this file (its life), `serve` (the socket), `template` and
//! `file` (the files), `users` (names of users).

mod config;
mod file;
mod serve;
mod template;
mod users;

use crate::{context::Context, failure::Failure, output::Answer};
use clap::Args;
use config::Config;
use file::Rendered;
use std::{
    collections::BTreeSet,
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};
use strongroom_client::{Client, Health, Secrets, Want};
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  strongroom agent --config /etc/strongroom/agent.toml
  strongroom agent --config agent.toml --once

Fetches all that the configuration names, follows new versions and rotations, renews leases and takes new accounts,
renews its token and reads it again from its file. While the daemon is away it goes on with the last known values.
Programs of the same machine ask over its socket with any Strongroom client, without a token: the kernel tells who
they are. Ends at SIGTERM or SIGINT, and then revokes what it leased; files stay. With --once it writes the files
and ends, leaving leases to their expiry.

The configuration (TOML, unknown keys are refused):
  address = \"https://vault.example.com:8470\"   # default: as for other commands
  ca_cert = \"/etc/strongroom/ca.pem\"
  token_file = \"/run/strongroom-agent/token\"   # mode 0600; read again when the token has ended
  socket = \"/run/strongroom-agent/agent.sock\"  # without it: files only
  [[allow]]                                    # who may ask for what
  user = \"app\"                                 # or uid = 1000
  paths = [\"kv/prod/db\", \"pg/readers\"]
  [[file]]
  path = \"/run/app/db.conf\"
  text = \"password = {{ kv/prod/db#password }}\\n\"   # or template = \"/etc/strongroom/db.conf.tmpl\"
  mode = \"0600\"
  owner = \"app\"                                # and group; only root can give files away
  command = [\"systemctl\", \"reload\", \"app\"]     # or signal = \"HUP\" with pid_file = \"/run/app.pid\"
In templates `{{ PATH#FIELD }}` stands for a value; `| json`, `| base64` and `| trim` after it change its form.")]
pub struct Agent {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Write the files and end
    #[arg(long)]
    once: bool,
}

impl Agent {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        let config = Config::load(&self.config)?;
        let mut end = (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?);
        let mut files = config.files()?;
        let secrets = Arc::new(connect(context, &config, wanted(&config, &files)).await?);
        for file in &mut files {
            file.refresh(&secrets)
                .await
                .map_err(|error| Failure::other(error, "correct the configuration, or the place of the file"))?;
        }
        if self.once {
            return Ok(Answer::raw(Vec::new()));
        }
        let socket = config
            .socket
            .as_deref()
            .map(|path| bind(path, config.socket_mode))
            .transpose()?;
        context
            .out
            .notice(&format!("holding {} secrets", secrets.paths().len()));
        {
            let served = async {
                match socket {
                    Some(listener) => serve::serve(listener, Arc::clone(&secrets), config.allowed()?).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = end.0.recv() => {}
                _ = end.1.recv() => {}
                ended = served => ended?,
                () = keep_fresh(context, &secrets, &mut files) => {}
            }
        }
        if let Some(socket) = &config.socket {
            // A successor replaces it if this fails.
            let _ = std::fs::remove_file(socket);
        }
        if let Ok(secrets) = Arc::try_unwrap(secrets) {
            secrets.close().await;
        }
        Ok(Answer::raw(Vec::new()))
    }
}

fn catch(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Failure> {
    signal(kind).map_err(|error| Failure::other(format!("cannot catch signals: {error}"), "try again"))
}

/// All that somebody may ask for, and all that stands in a file.
fn wanted(config: &Config, files: &[Rendered]) -> Vec<Want> {
    let asked = config
        .allow
        .iter()
        .flat_map(|allow| allow.paths.iter().map(String::as_str));
    let paths: BTreeSet<&str> = asked.chain(files.iter().flat_map(Rendered::paths)).collect();
    paths.into_iter().map(Want::new).collect()
}

async fn connect(context: &Context, config: &Config, wants: Vec<Want>) -> Result<Secrets, Failure> {
    let mut builder = Client::builder().address(config.address.as_ref().unwrap_or(&context.settings.address));
    if let Some(ca) = config.ca_cert.as_ref().or(context.settings.ca_cert.as_ref()) {
        builder = builder.ca_file(ca);
    }
    // Checks its mode too.
    crate::input::private_file(&config.token_file)?;
    Ok(builder.token_file(&config.token_file).secrets(wants).await?)
}

/// Binds the socket; one that a former run left is replaced, a live one is not.
fn bind(path: &Path, mode: u32) -> Result<UnixListener, Failure> {
    let failed = |error: io::Error| {
        let words = format!("cannot listen on {}: {error}", path.display());
        Failure::other(words, "is another agent running? may this user write there?")
    };
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(failed(io::ErrorKind::AddrInUse.into()));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    Ok(listener)
}

/// Writes files anew when what stands in them has changed. A file that fails is tried again when anything changes.
async fn keep_fresh(context: &Context, secrets: &Secrets, files: &mut [Rendered]) {
    let (mut changes, mut health) = (secrets.changes(), secrets.health());
    loop {
        for file in &mut *files {
            match file.refresh(secrets).await {
                Ok(true) => context
                    .out
                    .notice(&format!("{} was written anew", file.path().display())),
                Ok(false) => {}
                Err(error) => context.out.notice(&error),
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            changed = health.changed() => {
                if changed.is_err() {
                    return;
                }
                if let Health::Stale(error) = &*health.borrow_and_update() {
                    context.out.notice(&format!("going on with the last known values: {error}"));
                }
            }
        }
    }
}
