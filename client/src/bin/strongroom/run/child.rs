//! The command: started, passed signals, waited for.

use super::mask::Needles;
use crate::failure::Failure;
use futures::FutureExt as _;
use std::{
    ffi::OsString,
    io::{self, IsTerminal as _},
    os::unix::process::ExitStatusExt as _,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    process::Command,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time::Instant,
};

/// Read from the command at once.
const CHUNK: usize = 16 << 10;
/// How long masked output is still waited for after the command's end: what it left running may hold the pipe for ever.
const LINGER: Duration = Duration::from_secs(5);

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

    /// The next one that comes.
    pub async fn next(&mut self) -> SignalKind {
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
    if !start.keep_token {
        // First: a variable of that name may be asked for.
        command.env_remove("STRONGROOM_TOKEN");
    }
    command.args(arguments).envs(start.environment);
    if start.needles.is_some() {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    }
    // Signals are seen when the runtime looks for them.
    tokio::task::yield_now().await;
    if let Some(kind) = signals.next().now_or_never() {
        return Ok(ended_by(kind));
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
    let (mut pipes, ended) = (JoinSet::new(), watch::Sender::new(None));
    if let Some(needles) = start.needles.map(Arc::new) {
        if let Some(out) = child.stdout.take() {
            pipes.spawn(pass(out, tokio::io::stdout(), Arc::clone(&needles), ended.subscribe()));
        }
        if let Some(err) = child.stderr.take() {
            pipes.spawn(pass(err, tokio::io::stderr(), needles, ended.subscribe()));
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
    ended.send_replace(Some(Instant::now()));
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

/// The exit code of one that a signal has ended.
pub fn ended_by(kind: SignalKind) -> u8 {
    u8::try_from(128 + kind.as_raw_value()).unwrap_or(1)
}

/// Passes output on, masked. A reader that went away does not stop the command from ending; nor do others that hold the pipe, once the command
/// has ended and nothing is waiting to be read.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    needles: Arc<Needles>,
    mut ended: watch::Receiver<Option<Instant>>,
) {
    let mut masked = needles.stream();
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = tokio::select! {
            biased;
            read = from.read(&mut chunk) => read,
            () = lingered(&mut ended) => break,
        };
        let shown = match read {
            Ok(0) | Err(_) => break,
            Ok(count) => masked.push(chunk.get(..count).unwrap_or_default()),
        };
        let _ = to.write_all(&shown).await;
        let _ = to.flush().await;
    }
    let _ = to.write_all(&masked.finish()).await;
    let _ = to.flush().await;
}

async fn lingered(ended: &mut watch::Receiver<Option<Instant>>) {
    // An error means that nobody waits for the command any more.
    let at = ended.wait_for(Option::is_some).await.ok().and_then(|at| *at);
    if let Some(at) = at {
        tokio::time::sleep_until(at + LINGER).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start<'a>(command: &'a [OsString], environment: &[(&str, &str)]) -> Start<'a> {
        Start {
            command,
            environment: environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.into()))
                .collect(),
            keep_token: false,
            needles: None,
        }
    }

    /// R-OPS-6: a variable that was asked for is there, whatever it is called; a signal that came before the command ends it before it begins.
    /// One test, since a signal reaches all that run in this process.
    #[tokio::test]
    async fn what_was_asked_for_and_what_came_before() {
        let command = ["/bin/sh", "-c", "test \"$STRONGROOM_TOKEN\" = asked"].map(OsString::from);
        for (environment, code) in [(&[("STRONGROOM_TOKEN", "asked")][..], 0), (&[], 1)] {
            let signals = Signals::catch().unwrap();
            assert_eq!(run(start(&command, environment), signals).await.unwrap(), code);
        }

        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("started");
        let command = [OsString::from("/bin/mkdir"), place.clone().into()];
        let (signals, mut seen) = (Signals::catch().unwrap(), signal(SignalKind::user_defined2()).unwrap());
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::USR2).unwrap();
        seen.recv().await;
        assert_eq!(run(start(&command, &[]), signals).await.unwrap(), 128 + 12);
        assert!(!place.exists());
    }

    /// R-OPS-6: what a command leaves running holds the pipe, and not us.
    #[tokio::test]
    async fn masked_output_ends_with_the_command() {
        let (mut holder, pipe) = tokio::io::duplex(64);
        holder.write_all(b"the secret").await.unwrap();
        let ended = watch::Sender::new(Some(Instant::now() - LINGER));
        let (needles, mut shown) = (Needles::of([&"secret".into()].into_iter()), Vec::new());
        let passed = pass(pipe, &mut shown, Arc::new(needles), ended.subscribe());
        tokio::time::timeout(LINGER, passed).await.expect("not held");
        assert_eq!(shown, b"the ***");
    }
}
