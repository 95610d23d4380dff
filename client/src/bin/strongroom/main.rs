//! `strongroom`: the command line for people and scripts.
//!
//! A room of the client crate: it uses the library `strongroom_client` (and `strongroom_audit` for the
//! offline verifier, `strongroom_policy` to try policies), never daemon code. One file per noun. No secret is ever taken from the command
//! line itself: tokens, shares, passwords and values come from stdin, a file, or a prompt.
//!
//! Reading order: `cli` (the words), `settings` (flags, environment, config file), `input` (how secrets
//! come in), `output` and `failure` (how answers go out), `context` (what a command is given), then the
//! nouns: `operator/`, `kv`, `mount`, `role`, `creds`, `lease`, `token`, `policy/`, `identity`, `group`, `login/`, `auth`, `trust`, `ci`, `audit`, `doctor`, `fetch`,
//! `watch`, `run/`, `agent/`,
//! `generate` (completion, man pages).

#[cfg(unix)]
mod agent;
mod audit;
mod auth;
mod ci;
mod cli;
mod context;
mod creds;
mod doctor;
mod failure;
mod fetch;
mod generate;
mod group;
mod identity;
mod input;
mod json;
mod kv;
mod lease;
mod login;
mod mount;
mod operator;
mod output;
mod policy;
mod reconcile;
mod role;
#[cfg(unix)]
mod run;
mod settings;
mod token;
mod transit;
mod trust;
mod watch;

use clap::Parser as _;
use cli::Cli;
use context::Context;
use failure::{Exit, Failure};
use output::{Format, Out};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse_arguments(&error),
    };
    let settings = match settings::resolve(&cli.globals) {
        Ok(settings) => settings,
        Err(failure) => {
            return Out::new(cli.globals.output.unwrap_or_default()).fail(&failure);
        }
    };
    let out = Out::new(settings.output);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return out.fail(&Failure::other("cannot start", error.to_string())),
    };
    let context = Context::new(settings, out);
    match runtime.block_on(cli.command.run(&context)) {
        Ok(answer) => context.out.answer(&answer),
        Err(failure) => context.out.fail(&failure),
    }
}

/// Help and version go to stdout with exit code 0; everything else is a usage error, in JSON too.
fn refuse_arguments(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // A closed pipe under `--help` is nobody's fault.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if asks_for_json(std::env::args_os()) {
        let text = error.render().to_string();
        let words: Vec<_> = text
            .lines()
            .take_while(|line| !line.trim().is_empty())
            .map(str::trim)
            .collect();
        let message = words.join(" ").trim_start_matches("error: ").to_owned();
        return Out::new(Format::Json).fail(&Failure::usage(message, "see `strongroom --help`"));
    }
    let _ = error.print();
    ExitCode::from(Exit::Usage.code())
}

/// The arguments did not parse, so the output format has to be guessed from them.
fn asks_for_json(arguments: impl Iterator<Item = std::ffi::OsString>) -> bool {
    let words: Vec<_> = arguments.map(|word| word.to_string_lossy().into_owned()).collect();
    words
        .iter()
        .any(|word| word == "--output=json" || word == "-ojson" || word == "-o=json")
        || words
            .windows(2)
            .any(|pair| matches!(pair, [flag, value] if (flag == "-o" || flag == "--output") && value == "json"))
}
