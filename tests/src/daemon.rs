//! The real daemon as a child process, killed when dropped.

use crate::lab::{Lab, PATIENCE, binary};
use std::{
    fs::File,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// A running `strongroomd`.
pub struct Daemon {
    child: Child,
    metrics: SocketAddr,
    /// Its standard error, where the JSON log goes.
    pub log: PathBuf,
}

impl Daemon {
    /// Starts it with the laboratory's configuration.
    pub fn start(lab: &Lab) -> Self {
        Self::start_with(lab, &[])
    }

    /// Starts it with variables added to its environment (failpoints).
    pub fn start_with(lab: &Lab, env: &[(&str, &str)]) -> Self {
        let config = lab.write_config();
        let log = lab.dir().join("daemon.log");
        let out = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("the log opens");
        let mut command = Command::new(binary(lab.program));
        command.arg("--config").arg(config).stdin(Stdio::null());
        command
            .stdout(out.try_clone().expect("the log opens twice"))
            .stderr(out)
            .envs(env.iter().copied());
        let child = command.spawn().expect("strongroomd starts");
        let mut daemon = Self {
            child,
            metrics: lab.metrics,
            log,
        };
        daemon.await_answer();
        daemon
    }

    fn await_answer(&mut self) {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if http(self.metrics, "/health").is_some_and(|text| text.contains("alive")) {
                return;
            }
            if let Some(status) = self.child.try_wait().expect("the child can be asked") {
                panic!("strongroomd ended with {status}:\n{}", self.log_text());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("strongroomd does not answer:\n{}", self.log_text());
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
    /// The text of `/metrics`.
    pub fn metrics(&self) -> String {
        http(self.metrics, "/metrics").expect("metrics answer")
    }
    /// Whether the vault is open, as `/ready` says.
    pub fn is_ready(&self) -> bool {
        http(self.metrics, "/ready").is_some_and(|text| text.starts_with("HTTP/1.1 200"))
    }
    /// kill -9, and waits until it is gone.
    pub fn kill9(mut self) {
        self.child.kill().expect("the child is ours");
        self.child.wait().expect("the child is ours");
    }
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the child is ours");
    }
    /// SIGTERM, and how it ended.
    pub fn stop(self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.ended()
    }
    /// Waits for its end, and how it ended.
    pub fn ended(mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                return status;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "strongroomd does not stop:\n{}",
                self.log_text()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One plain HTTP GET; the whole answer.
pub fn http(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}
