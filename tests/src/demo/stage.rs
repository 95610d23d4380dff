//! What the demo is played on: one temporary directory, a token, a database server and the daemon.

use super::{Shown, check, say, step};
use crate::{Cli, Daemon, Lab, Ran};
use serde_json::Value;
use std::path::PathBuf;
use strongroom_client::Client;
use strongroomd::engine::postgres::testing::Server;

/// Everything that is running.
pub struct Stage {
    // In this order they end: the daemon before what it stands on.
    daemon: Option<Daemon>,
    pub server: Server,
    pub lab: Lab,
    /// The operator, who has the set-up token once `init` ran.
    pub operator: Cli,
    /// Of the audit log, as `init` printed it.
    pub genesis: String,
}

impl Stage {
    /// Starts all of it.
    pub fn set() -> Shown<Self> {
        step(
            1,
            "The parts",
            "A PKCS#11 token (SoftHSM), PostgreSQL 15 on a port of its own, the daemon on TLS and a Unix socket.",
        );
        let server = Server::start()?;
        server.prepare()?;
        check(
            true,
            format_args!("PostgreSQL answers on port {}, as an unprivileged user", server.port()),
        )?;
        let lab = Lab::new();
        check(true, format_args!("SoftHSM has a token in {}", lab.dir().display()))?;
        let daemon = lab.start();
        let operator = lab.cli();
        let stage = Self {
            daemon: Some(daemon),
            server,
            lab,
            operator,
            genesis: String::new(),
        };
        let status = stage.cli_json_whatever(&["operator", "status"])?;
        check(status["state"] == "blank", "the daemon answers, and its vault is blank")?;
        Ok(stage)
    }

    /// Where the demo keeps the shares, as each holder would on their own.
    pub fn shares(&self) -> PathBuf {
        self.lab.dir().join("shares")
    }

    /// An application's client: over TLS, with its own token.
    pub async fn client(&self, token: &str) -> Shown<Client> {
        let address = format!("https://localhost:{}", self.lab.address.port());
        Ok(Client::builder()
            .address(address)
            .ca_file(self.lab.ca())
            .token(token)
            .connect()
            .await?)
    }

    /// Runs the command line and shows it; whatever its exit code.
    pub fn run(&self, args: &[&str], stdin: &[u8]) -> Ran {
        say(format_args!("    $ strongroom {}", self.readable(args)));
        self.operator.run_with(args, stdin)
    }

    /// Runs the command line, which must succeed; its JSON.
    pub fn json(&self, args: &[&str], stdin: &[u8]) -> Shown<Value> {
        say(format_args!("    $ strongroom {}", self.readable(args)));
        let ran = self.operator.run_with(&[&["--output", "json"], args].concat(), stdin);
        match ran.code {
            0 => Ok(serde_json::from_str(&ran.out)?),
            code => Err(format!("strongroom {args:?} ended with {code}: {}", ran.err).into()),
        }
    }

    /// As [`Stage::json`], for commands whose exit code is part of the answer.
    pub fn cli_json_whatever(&self, args: &[&str]) -> Shown<Value> {
        let ran = self.run(&[&["--output", "json"], args].concat(), b"");
        Ok(serde_json::from_str(&ran.out).map_err(|error| format!("{error}: {}{}", ran.out, ran.err))?)
    }

    /// Without the temporary directory's name and JSON flags, which say nothing.
    fn readable(&self, args: &[&str]) -> String {
        let dir = format!("{}/", self.lab.dir().display());
        args.iter()
            .filter(|arg| !["--output", "json"].contains(arg))
            .map(|arg| arg.replace(&dir, ""))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// What the daemon has warned of, before its log goes with everything else.
    pub fn tell_log(&self) {
        let log = self.daemon.as_ref().map(Daemon::log_text).unwrap_or_default();
        let grave = |line: &&str| ["WARN", "ERROR"].iter().any(|level| line.contains(level));
        log.lines()
            .filter(grave)
            .for_each(|line| say(format_args!("    log {line}")));
    }

    /// kill -9 of the daemon, and a new one in its place.
    pub fn crash(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.kill9();
        }
        self.daemon = Some(self.lab.start());
    }

    /// Ends everything in good order and looks whether something stayed.
    pub fn strike(mut self) -> Shown {
        step(
            11,
            "The end",
            "SIGTERM: the daemon finishes what is in flight, and everything made here goes.",
        );
        let status = self.daemon.take().map(Daemon::stop);
        check(
            status.is_some_and(|status| status.success()),
            "the daemon drained and ended with exit code 0",
        )?;
        let dirs = [self.lab.dir().to_path_buf(), self.server.socket_dir().to_path_buf()];
        drop(self);
        check(
            dirs.iter().all(|dir| !dir.exists()),
            "the directories of token, store and database are gone",
        )
    }
}
