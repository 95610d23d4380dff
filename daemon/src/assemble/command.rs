//! What the command line of `strongroomd` means.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a command-line program speaks there

use crate::config::{self, Config};
use clap::{Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode};

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
    /// Reads the configuration and says whether it is right.
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

/// What `strongroomd` does, from its arguments to its exit code.
pub fn command() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Some(Command::HsmWorker) => strongroom_hsm::worker::main(),
        Some(Command::HsmSupervisor) => strongroom_hsm::supervisor::main(),
        Some(Command::CheckConfig) => Config::load(&arguments.config).map_err(Into::into).map(|_| {
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
        None => Config::load(&arguments.config)
            .map_err(Into::into)
            .and_then(|config| super::run(config, arguments.config)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("strongroomd: {}", crate::gate::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
