//! The suites, one file each (reads and writes share what they stand on). Each makes its own servers and takes them down.

mod bulk;
mod footprint;
mod handshake;
mod kv;
mod postgres;
mod stage;
mod storm;
mod token;
mod transit;
mod watch;

use crate::{Fault, Format, Options, host, report};

/// What can be asked for, and what it is about.
const SUITES: [(&str, &str); 15] = [
    ("kv-read", "reads of 1 KiB secrets"),
    ("kv-write", "writes of 1 KiB secrets"),
    ("open-loop", "reads that come at their times, whoever is free"),
    ("token-verify", "tokens looked up"),
    ("login", "services that log in with a JWT"),
    ("token-create", "tokens made"),
    ("transit", "1 KiB encrypted; Ed25519 and P-256 signatures"),
    ("handshake", "a connection and one read, by TLS and mTLS"),
    ("watch-fanout", "many streams hear of a write"),
    ("storm", "many clients start at once, 20 secrets each"),
    ("issue-postgres", "PostgreSQL accounts made"),
    ("revoke-postgres", "PostgreSQL accounts revoked, each proven gone"),
    ("bulk-load", "many secrets written: rate, disk, memory"),
    ("unseal", "many secrets: from sealed to serving"),
    ("footprint", "size of the binary, memory at rest"),
];

/// Runs one suite, or all in their short form.
/// # Errors
/// An unknown suite, a failed request, a peer that cannot be had.
pub fn run(options: &Options) -> Result<(), Fault> {
    let names: Vec<&str> = match &options.suite {
        Some(name) => vec![known(name)?],
        None => SUITES.map(|(name, _)| name).to_vec(),
    };
    let short = Options {
        rounds: options.rounds.min(3),
        secs: options.secs.min(1.0),
        ..options.clone()
    };
    let options = if options.suite.is_some() { options } else { &short };
    if std::thread::available_parallelism().map_or(1, std::num::NonZero::get) < 2 {
        return Err("two cores are needed: one serves, one loads".into());
    }
    host::move_to(&[host::LOAD_CORE])?;
    host::raise_files()?;
    println!("machine: {}", host::describe());
    println!(
        "method: server on core {}, load on core {}, {} interleaved rounds of {} s, median (min-max), TLS 1.3",
        host::SERVER_CORE,
        host::LOAD_CORE,
        options.rounds,
        options.secs
    );
    if options.peer == crate::Peer::None {
        println!("the peer was left out (PEER=none)");
    }
    for name in names {
        // A single thread: the load has one core.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let found = runtime.block_on(async {
            match name {
                "kv-read" => kv::read(options).await,
                "kv-write" => kv::write(options).await,
                "open-loop" => kv::open_loop(options).await,
                "token-verify" => token::verify(options).await,
                "login" => token::log_in(options).await,
                "token-create" => token::create(options).await,
                "transit" => transit::measure(options).await,
                "handshake" => handshake::measure(options).await,
                "watch-fanout" => watch::measure(options).await,
                "storm" => storm::measure(options).await,
                "issue-postgres" => postgres::issue(options).await,
                "revoke-postgres" => postgres::revoke(options).await,
                "bulk-load" => bulk::load(options).await,
                "unseal" => bulk::unseal(options).await,
                _ => footprint::measure(options).await,
            }
        })?;
        found.iter().for_each(|found| report::print(options, found));
    }
    if options.format == Format::Table {
        println!("\nmachine now: {}", host::describe());
    }
    Ok(())
}

fn known(name: &str) -> Result<&'static str, Fault> {
    let found = SUITES.iter().find(|(known, _)| *known == name).map(|(known, _)| *known);
    found.ok_or_else(|| {
        let list: Vec<_> = SUITES
            .iter()
            .map(|(name, about)| format!("  {name:<16} {about}"))
            .collect();
        format!("no suite {name:?}; there are\n{}", list.join("\n")).into()
    })
}
