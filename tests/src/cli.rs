//! The real command line.

use crate::lab::{Lab, binary};
use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

/// `strongroom`, pointed at a laboratory's daemon; its home is the laboratory, so that nothing of the user's is read or written.
#[derive(Clone)]
pub struct Cli {
    home: PathBuf,
    address: String,
    ca: PathBuf,
    token: Option<String>,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Cli {
    pub fn new(lab: &Lab) -> Self {
        Self {
            home: lab.dir().into(),
            address: format!("unix:{}", lab.socket().display()),
            ca: lab.ca(),
            token: None,
        }
    }
    /// Over TLS instead of the Unix socket.
    #[must_use]
    pub fn over_tls(mut self, lab: &Lab) -> Self {
        self.address = format!("https://localhost:{}", lab.address.port());
        self
    }
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        self.token = Some(token.into());
        self
    }
    /// The command, still to be started, with all of its streams piped.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary("strongroom"));
        command
            .args(args)
            .env_clear()
            .env("HOME", &self.home)
            .env("PATH", "/usr/bin:/bin");
        command
            .env("STRONGROOM_ADDR", &self.address)
            .env("STRONGROOM_CACERT", &self.ca);
        if let Some(token) = &self.token {
            command.env("STRONGROOM_TOKEN", token);
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
    /// Runs with `stdin`; whatever the exit code.
    pub fn run_with(&self, args: &[&str], stdin: &[u8]) -> Ran {
        let mut child = self.command(args).spawn().expect("strongroom starts");
        // A command that does not read its input closes it.
        let _ = child.stdin.take().expect("stdin is piped").write_all(stdin);
        let output = child.wait_with_output().expect("strongroom ends");
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
    /// Runs; whatever the exit code.
    pub fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, b"")
    }
    /// Runs and must succeed.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        self.ok_with(args, b"")
    }
    /// Runs with `stdin` and must succeed.
    #[track_caller]
    pub fn ok_with(&self, args: &[&str], stdin: &[u8]) -> String {
        let ran = self.run_with(args, stdin);
        assert_eq!(ran.code, 0, "strongroom {args:?} failed:\n{}{}", ran.out, ran.err);
        ran.out
    }
    /// Runs with `--output json`, must succeed, and parses.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let out = self.ok(&[&["--output", "json"], args].concat());
        serde_json::from_str(&out)
            .unwrap_or_else(|error| panic!("strongroom {args:?} printed no JSON ({error}):\n{out}"))
    }
}
