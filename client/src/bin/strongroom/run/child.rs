//! The command: started, passed signals, waited for.

use super::mask::Needles;
use crate::failure::Failure;
use std::{
    ffi::OsString,
    io::{self, IsTerminal as _},
    os::unix::process::ExitStatusExt as _,
    process::{ExitStatus, Stdio},
    sync::Arc,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    process::Command,
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
};

/// Read from the command at once.
const CHUNK: usize = 16 << 10;

/// Signals that are passed on, caught from now on.
pub struct Signals(Vec<(SignalKind, Signal)>);

impl Signals {
    /// A terminal sends its own signals to the command too, since both are in the foreground: those are only survived, not passed on.
    pub fn catch() -> Result<Self, Failure> {
        let kinds = [
            SignalKind::terminate(),
            SignalKind::hangup(),
            SignalKind::interrupt(),
            SignalKind::quit(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
        ];
        let caught = kinds.into_iter().map(|kind| Ok((kind, signal(kind)?)));
        caught
            .collect::<io::Result<_>>()
            .map(Self)
            .map_err(|error| Failure::other(format!("cannot catch signals: {error}"), "try again"))
    }

    async fn next(&mut self) -> SignalKind {
        let waiting = self.0.iter_mut().map(|(kind, signal)| {
            let kind = *kind;
            Box::pin(async move {
                signal.recv().await;
                kind
            })
        });
        let mut waiting: Vec<_> = waiting.collect();
        std::future::poll_fn(|context| {
            for future in &mut waiting {
                if let std::task::Poll::Ready(kind) = future.as_mut().poll(context) {
                    return std::task::Poll::Ready(kind);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

/// What is started.
pub struct Start<'a> {
    pub command: &'a [OsString],
    pub environment: Vec<(String, OsString)>,
    pub keep_token: bool,
    pub needles: Option<Needles>,
}

/// Runs it to its end.
pub async fn run(start: Start<'_>, mut signals: Signals) -> Result<u8, Failure> {
    let Some((program, arguments)) = start.command.split_first() else {
        return Err(Failure::usage("no command", "write it after `--`"));
    };
    let mut command = Command::new(program);
    command.args(arguments).envs(start.environment);
    if !start.keep_token {
        command.env_remove("STRONGROOM_TOKEN");
    }
    if start.needles.is_some() {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            // Nothing can be done when stderr is closed.
            let _ = io::Write::write_fmt(
                &mut io::stderr(),
                format_args!("error: {}: {error}\n", program.display()),
            );
            return Ok(if error.kind() == io::ErrorKind::NotFound {
                127
            } else {
                126
            });
        }
    };
    let mut pipes = JoinSet::new();
    if let Some(needles) = start.needles.map(Arc::new) {
        if let Some(out) = child.stdout.take() {
            pipes.spawn(pass(out, tokio::io::stdout(), Arc::clone(&needles)));
        }
        if let Some(err) = child.stderr.take() {
            pipes.spawn(pass(err, tokio::io::stderr(), needles));
        }
    }
    let on_terminal = io::stdin().is_terminal();
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            kind = signals.next() => {
                let from_terminal = on_terminal && [SignalKind::interrupt(), SignalKind::quit()].contains(&kind);
                if !from_terminal {
                    forward(child.id(), kind);
                }
            }
        }
    };
    pipes.join_all().await;
    status
        .map(code)
        .map_err(|error| Failure::other(format!("cannot wait for the command: {error}"), "try again"))
}

fn forward(child: Option<u32>, kind: SignalKind) {
    let pid = child
        .and_then(|id| i32::try_from(id).ok())
        .and_then(rustix::process::Pid::from_raw);
    let signal = rustix::process::Signal::from_named_raw(kind.as_raw_value());
    if let (Some(pid), Some(signal)) = (pid, signal) {
        // It may have ended meanwhile.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Passes output on, masked. A reader that went away does not stop the command from ending.
async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, needles: Arc<Needles>) {
    let mut masked = needles.stream();
    let mut chunk = vec![0; CHUNK];
    loop {
        let shown = match from.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(count) => masked.push(chunk.get(..count).unwrap_or_default()),
        };
        let _ = to.write_all(&shown).await;
        let _ = to.flush().await;
    }
    let _ = to.write_all(&masked.finish()).await;
    let _ = to.flush().await;
}
