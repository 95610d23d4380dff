//! What the command line of `strongroomd` means.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a command-line program speaks there

use super::Fatal;
use crate::{
    config::{self, Config},
    rpc::{Certificate, TlsError},
};
use clap::{Parser, Subcommand};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Strongroom's daemon: secrets under keys that live in an HSM.
#[derive(Parser)]
#[command(
    name = "strongroomd",
    version,
    about,
    after_help = "Examples:
  strongroomd --config /etc/strongroom/strongroom.toml    run
  strongroomd check-config                                say what is wrong with the file, if anything
  strongroomd dev                                         a throw-away daemon to try things on"
)]
struct Arguments {
    /// The configuration file.
    #[arg(long, default_value = config::PATH_DEFAULT, value_name = "FILE", global = true)]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Says whether the configuration is right, and every file that it names is there, readable, and of the right mode.
    ///
    /// Run it as the user that the daemon runs as: what root may read, that user perhaps may not. Nothing is changed, and no HSM is asked.
    #[command(after_help = "Example:\n  sudo -u strongroom strongroomd check-config")]
    CheckConfig,
    /// Runs a throw-away daemon: SoftHSM, TLS and one slot in a temporary directory, unsealed; prints how to use it.
    #[command(after_help = "Example:\n  strongroomd dev --listen 127.0.0.1:8470")]
    Dev {
        /// Where to listen for TLS. Port 0 takes any.
        #[arg(long, default_value = "127.0.0.1:8470", value_name = "ADDR:PORT")]
        listen: std::net::SocketAddr,
        /// Keep everything below this directory instead of a temporary one.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// (internal) End with the process that started this one.
        #[arg(long, hide = true, requires = "dir")]
        tethered: bool,
    },
    /// Accepts what a damaged audit log has lost, so that the vault opens again; the gap is recorded for ever.
    ///
    /// The daemon must be stopped. The factors of one key slot are asked for: shares from standard input, one a line, until there are enough.
    #[command(after_help = "Example:\n  strongroomd repair --accept-loss --slot break-glass < shares.txt")]
    Repair {
        /// Says that you know records are lost.
        #[arg(long, required = true)]
        accept_loss: bool,
        /// The key slot whose factors you present.
        #[arg(long, value_name = "SLOT")]
        slot: String,
    },
    /// (internal) One PKCS#11 token's worker.
    #[command(hide = true)]
    HsmWorker,
    /// (internal) Starts workers for the daemon.
    #[command(hide = true)]
    HsmSupervisor,
}

/// The configuration, after a look at what it names (the files of HSMs with `all` only); and what could not be looked at.
fn look(file: &Path, all: bool) -> Result<(Config, Vec<String>), Fatal> {
    let config = Config::load(file)?;
    let notes = match all {
        true => config.look_at_all(file)?,
        false => config.look(file).map(|()| Vec::new())?,
    };
    if let (Some(cert), Some(key)) = (&config.listener.tls_cert, &config.listener.tls_key)
        && let Err(error) = Certificate::load(cert.get_ref(), key.get_ref())
    {
        let (at, what) = match &error {
            TlsError::Pem { file, .. } | TlsError::Empty { file } if file == cert.get_ref() => {
                ("tls_cert", "holds no PEM certificate: put the chain there, leaf first")
            }
            TlsError::Pem { .. } | TlsError::Empty { .. } => {
                ("tls_key", "holds no PEM private key (PKCS#8, SEC1 or PKCS#1)")
            }
            TlsError::Pair(_) | TlsError::Setup(_) => (
                "tls_key",
                "does not belong to the first certificate of listener.tls_cert, or is of a kind that is not taken: put the leaf first, and its key here",
            ),
        };
        return Err(config.wrong(file, &format!("listener.{at}"), what).into());
    }
    Ok((config, notes))
}

/// What `strongroomd` does, from its arguments to its exit code.
pub fn command() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Some(Command::HsmWorker) => strongroom_hsm::worker::main(),
        Some(Command::HsmSupervisor) => strongroom_hsm::supervisor::main(),
        Some(Command::CheckConfig) => look(&arguments.config, true).map(|(_, notes)| {
            for note in notes {
                println!("note: {note}");
            }
            println!("{}: the configuration is right", arguments.config.display());
        }),
        Some(Command::Repair { slot, .. }) => Config::load(&arguments.config)
            .map_err(Into::into)
            .and_then(|config| super::repair(&config, &slot)),
        Some(Command::Dev {
            listen,
            dir: Some(dir),
            tethered,
        }) => super::dev(listen, &dir, tethered),
        Some(Command::Dev { listen, dir: None, .. }) => super::dev_in_temporary(listen),
        None => look(&arguments.config, false).and_then(|(config, _)| super::run(config, arguments.config)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("strongroomd: {}", crate::gate::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
