//! Strongroom beside OpenBao and beside what the machine can do, measured in one run: `make bench`.
//!
//! What is measured and how: docs/PERFORMANCE.md. May touch: the laboratory of the tests, the wire; it reaches the daemon only from outside.
//! Reading order: `host` (cores, accounting), `load` (a closed loop), `contest` (rounds and rows), `report` (table and JSON), then whom we
//! measure (`strongroom`, `openbao`, `limits`) and what (`suites`, one file each).
#![allow(clippy::print_stdout, clippy::print_stderr)] // a command-line program speaks there

mod contest;
mod host;
mod limits;
mod load;
mod openbao;
mod report;
mod strongroom;
mod suites;

use clap::{Parser, ValueEnum};
use std::{path::PathBuf, process::ExitCode};

/// Whatever ends a run: a failed request, a process that does not come up.
pub type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Measures.
#[derive(Parser, Debug, Clone)]
#[command(name = "strongroom-bench", version, about)]
pub struct Options {
    /// A suite; without it all of them, in their short form.
    #[arg(long)]
    pub suite: Option<String>,
    /// Secrets (bulk-load, unseal), secrets to choose from (kv-read), requests a second (open-loop), streams (watch-fanout), clients (storm).
    #[arg(long)]
    pub size: Option<u64>,
    /// Connections, each with one request in flight.
    #[arg(long)]
    pub conns: Option<usize>,
    /// Beside whom.
    #[arg(long, value_enum, default_value_t = Peer::Openbao)]
    pub peer: Peer,
    /// What an answer to a read waits for: d1 its audit record is written, d2 it is synced.
    #[arg(long, value_enum, default_value_t = Durability::D2)]
    pub durability: Durability,
    /// For people, or one JSON object as the last line.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Interleaved rounds.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub rounds: u32,
    /// Length of a window, seconds.
    #[arg(long, default_value_t = 3.0)]
    pub secs: f64,
    /// (internal) Serves the bare tonic limit with this certificate and key.
    #[arg(long, hide = true, num_args = 2, value_names = ["CERT", "KEY"])]
    echo: Vec<PathBuf>,
}

/// Whom to measure beside.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// OpenBao.
    Openbao,
    /// Nobody.
    None,
}

/// What an answer waits for.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// No audit log.
    D0,
    /// Audit written.
    D1,
    /// Audit synced.
    D2,
}

/// How results are printed.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A table.
    Table,
    /// The table, then JSON as the last line.
    Json,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match &options.echo[..] {
        [cert, key] => limits::serve(cert, key),
        _ => suites::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("strongroom-bench: {fault}");
            ExitCode::FAILURE
        }
    }
}
