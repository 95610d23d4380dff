//! `strongroom agent`: holds the secrets of a machine's programs, hands them out over a Unix socket to the users that may have them, and keeps
//! files fresh that are made from them. Reading order: `config` (what it is told), this file (its life), `door` and `serve` (the socket), `template` and
//! `file` (the files), `users` (names of users).

mod config;
mod door;
mod file;
mod serve;
mod template;
mod users;

use crate::{context::Context, failure::Failure, output::Answer};
use clap::Args;
use config::{Allowed, Config};
use file::Rendered;
use std::{
    collections::BTreeSet,
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use strongroom_client::{Client, Health, Secrets, Want};
use tokio::{
    net::UnixListener,
    signal::unix::{Signal, SignalKind, signal},
};

/// Pause before a file that failed, or whose program could not be told, is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(10);

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
  proof_key = \"/etc/strongroom/token.key\"      # the key that the token is bound to (`login --dpop`), mode 0600
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
        let (mut files, allowed) = (config.files()?, config.allowed()?);
        let mut end = End::catch()?;
        let secrets = tokio::select! {
            biased;
            // What a fetch that is left alone has made, the daemon takes back.
            () = end.come() => return Ok(Answer::raw(Vec::new())),
            connected = connect(context, &config, wanted(&config, &files)) => Arc::new(connected?),
        };
        let (lived, keep) = tokio::select! {
            biased;
            () = end.come() => (Ok(()), false),
            lived = self.live(context, &config, allowed, &mut files, &secrets) => {
                let keep = self.once && lived.is_ok();
                (lived, keep)
            }
        };
        // However it ended: a run that fails and is started again must not leave accounts behind each time.
        if !keep && let Ok(secrets) = Arc::try_unwrap(secrets) {
            secrets.close().await;
        }
        lived.map(|()| Answer::raw(Vec::new()))
    }

    async fn live(
        &self,
        context: &Context,
        config: &Config,
        allowed: Allowed,
        files: &mut [Rendered],
        secrets: &Arc<Secrets>,
    ) -> Result<(), Failure> {
        for file in &mut *files {
            let refreshed = file.refresh(secrets).await;
            let refreshed = refreshed
                .map_err(|error| Failure::other(error, "correct the configuration, or the place of the file"))?;
            // At a machine's start the program may not run yet.
            if let Some(untold) = refreshed.untold {
                context.out.notice(&untold);
            }
        }
        if self.once {
            return Ok(());
        }
        let socket = config
            .socket
            .as_deref()
            .map(|path| bind(path, config.socket_mode))
            .transpose()?;
        context
            .out
            .notice(&format!("holding {} secrets", secrets.paths().len()));
        let served = async {
            match socket {
                Some((listener, _place)) => serve::serve(listener, secrets, allowed).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = served => ended,
            () = keep_fresh(context, secrets, files) => Ok(()),
        }
    }
}

/// The signals that end the agent.
struct End(Signal, Signal);

impl End {
    fn catch() -> Result<Self, Failure> {
        let catch =
            |kind| signal(kind).map_err(|error| Failure::other(format!("cannot catch signals: {error}"), "try again"));
        Ok(Self(catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?))
    }

    async fn come(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
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
    // Only looked at: whoever can read them is whom they name.
    crate::input::private_file(&config.token_file)?;
    if let Some(key) = &config.proof_key {
        crate::input::private_file(key)?;
        builder = builder.proof_key(key);
    }
    Ok(builder.token_file(&config.token_file).secrets(wants).await?)
}

/// Binds the socket; one that a former run left is replaced, a live one is not.
fn bind(path: &Path, mode: u32) -> Result<(UnixListener, Place), Failure> {
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
    let place = Place(path.to_owned());
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    Ok((listener, place))
}

/// A socket's file, removed when it is of no use any more.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        // A successor replaces it if this fails.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Writes files anew when what stands in them has changed. A file that fails, or whose program could not be told, is tried again when anything
/// changes, and every so often.
async fn keep_fresh(context: &Context, secrets: &Secrets, files: &mut [Rendered]) {
    let (mut changes, mut health) = (secrets.changes(), secrets.health());
    loop {
        let mut failed = false;
        for file in &mut *files {
            let (written, error) = match file.refresh(secrets).await {
                Ok(refreshed) => (refreshed.written, refreshed.untold),
                Err(error) => (false, Some(error)),
            };
            failed |= error.is_some();
            if written {
                let words = format!("{} was written anew", file.path().display());
                context.out.notice(&words);
            }
            if let Some(error) = error {
                context.out.notice(&error);
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(TRY_AGAIN), if failed => {}
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
