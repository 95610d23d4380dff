//! Starting and ending worker processes: directly, or through the supervisor that was started before the
//! daemon's seccomp filter took `execve` away.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendFlags,
    SocketFlags, SocketType, recv, recvmsg, sendmsg, socketpair, sockopt,
};

use crate::config::HsmConfig;
use crate::error::{ErrorKind, HsmError};
use crate::supervisor::{self, Answer, Ask};

/// The variable that tells a worker its module. Set by whoever execs it, so that it is fixed with the
/// supervisor's table and not by a later message.
pub(crate) const MODULE_VAR: &str = "STRONGROOM_HSM_MODULE";
/// A supervisor answers within this time or is given up.
const SUPERVISOR_TIMEOUT: Duration = Duration::from_secs(5);

/// A killed process is gone within this time, or left to itself.
const REAP_TIMEOUT: Duration = Duration::from_secs(1);

/// What a worker is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) module: PathBuf,
    pub(crate) env: BTreeMap<String, String>,
}

impl Spec {
    pub(crate) fn of(config: &HsmConfig) -> Self {
        Self {
            module: config.module.clone(),
            env: config.env.clone(),
        }
    }
}

/// How worker processes come to be. Cheap to clone.
#[derive(Clone)]
pub struct Launcher(Arc<Way>);

enum Way {
    Exec {
        program: PathBuf,
        args: Vec<String>,
        env: BTreeMap<String, String>,
    },
    Supervised(Mutex<Pair>),
}

/// Two supervisors: one works, one waits. When the first is gone, the other takes its place and starts the next one to wait; this process
/// may have lost its `execve` long ago.
struct Pair {
    active: Link,
    spare: Option<Link>,
}

/// Our end of a supervisor's socket, and the process.
struct Link {
    socket: OwnedFd,
    pid: u32,
    /// To reap, where it is a child of ours.
    child: Option<Child>,
    /// Number of the last request. Answers carry it, so that one that came too late is not taken for the next.
    asked: u32,
}

impl Drop for Link {
    fn drop(&mut self) {
        // It ends by itself when our end closes, and its workers with it; killed only if it does not.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        if let Some(child) = &mut self.child
            && !gone(child, SUPERVISOR_TIMEOUT)
        {
            end(child);
        }
    }
}

/// A running worker.
pub(crate) struct Started {
    pub(crate) pid: u32,
    /// Set when this process is the parent.
    child: Option<Child>,
}

impl Launcher {
    /// Execs `program args...` itself: for programs without a seccomp filter, and for tests.
    #[must_use]
    pub fn exec(program: impl Into<PathBuf>, args: &[&str]) -> Self {
        Self::exec_with(program, args, BTreeMap::new())
    }

    /// Like `exec`, with more variables (a test binary that tells its worker apart by one).
    #[must_use]
    pub fn exec_with(program: impl Into<PathBuf>, args: &[&str], env: BTreeMap<String, String>) -> Self {
        let args = args.iter().map(|a| (*a).to_owned()).collect();
        Self(Arc::new(Way::Exec {
            program: program.into(),
            args,
            env,
        }))
    }

    /// Starts the supervisor (`program args...`, which must call `supervisor::main`) and hands it the table
    /// of tokens. Only these can be started later. Call it before seccomp and before any thread.
    /// # Errors
    /// `Invalid` when a configuration is, `Device` when the process cannot be started.
    pub fn supervised(program: &Path, args: &[&str], tokens: &[HsmConfig]) -> Result<Self, HsmError> {
        for token in tokens {
            token.check()?;
        }
        let table = tokens.iter().map(|t| (t.name.clone(), Spec::of(t))).collect();
        let (socket, child) = start_supervisor(program, args, table)?;
        let mut active = Link {
            socket,
            pid: child.id(),
            child: Some(child),
            asked: 0,
        };
        let spare = active.start_spare();
        Ok(Self(Arc::new(Way::Supervised(Mutex::new(Pair { active, spare })))))
    }

    /// Process ids of the supervisors, the one that works first. None where there are none.
    #[must_use]
    pub fn supervisor_pids(&self) -> Vec<u32> {
        match &*self.0 {
            Way::Exec { .. } => Vec::new(),
            Way::Supervised(pair) => {
                let pair = pair.lock();
                std::iter::once(&pair.active)
                    .chain(&pair.spare)
                    .map(|link| link.pid)
                    .collect()
            }
        }
    }

    pub(crate) fn start(&self, config: &HsmConfig) -> Result<(Started, UnixStream), HsmError> {
        match &*self.0 {
            Way::Exec { program, args, env } => {
                let mut spec = Spec::of(config);
                spec.env.extend(env.clone());
                let (stream, child) = exec(program, args, &spec).map_err(|e| failed("start of the HSM worker", &e))?;
                Ok((
                    Started {
                        pid: child.id(),
                        child: Some(child),
                    },
                    UnixStream::from(stream),
                ))
            }
            Way::Supervised(pair) => match pair.lock().ask(&Ask::Start(config.name.clone()))? {
                (Answer::Started(pid), Some(fd)) => Ok((Started { pid, child: None }, UnixStream::from(fd))),
                (Answer::Failed(e), None) => Err(e),
                _ => Err(HsmError::protocol("supervisor: unexpected answer")),
            },
        }
    }

    /// Kills and reaps. A worker that is gone already is fine.
    pub(crate) fn end(&self, mut worker: Started) {
        match (&*self.0, &mut worker.child) {
            (_, Some(child)) => _ = end(child),
            (Way::Supervised(pair), None) => {
                if let Err(error) = pair.lock().ask(&Ask::End(worker.pid)) {
                    tracing::warn!(pid = worker.pid, %error, "HSM worker could not be ended");
                }
            }
            (Way::Exec { .. }, None) => {}
        }
    }
}

impl Pair {
    fn ask(&mut self, ask: &Ask) -> Result<(Answer, Option<OwnedFd>), HsmError> {
        if self.active.is_gone()
            && let Some(spare) = self.spare.take()
        {
            tracing::warn!("the HSM supervisor is gone; the one that waited takes its place");
            self.active = spare;
        }
        if self.spare.as_ref().is_none_or(Link::is_gone) {
            self.spare = self.active.start_spare();
        }
        self.active.ask(ask)
    }
}

/// Starts a supervisor and hands it its table.
pub(crate) fn start_supervisor(
    program: &Path,
    args: &[&str],
    table: BTreeMap<String, Spec>,
) -> Result<(OwnedFd, Child), HsmError> {
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let (ours, theirs) = pair.map_err(|e| failed("socketpair", &e.into()))?;
    let child = Command::new(program)
        .args(args)
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|e| failed("start of the HSM supervisor", &e))?;
    sockopt::set_socket_timeout(&ours, sockopt::Timeout::Recv, Some(SUPERVISOR_TIMEOUT))
        .and_then(|()| sockopt::set_socket_timeout(&ours, sockopt::Timeout::Send, Some(SUPERVISOR_TIMEOUT)))
        .map_err(|e| failed("socket option", &e.into()))?;
    match exchange(&ours, 0, &Ask::Table(table))? {
        (Answer::Done, None) => Ok((ours, child)),
        _ => Err(HsmError::protocol("supervisor refused its table")),
    }
}

/// Most answers to earlier requests that are passed over.
const STALE_MAX: usize = 16;

impl Link {
    fn ask(&mut self, ask: &Ask) -> Result<(Answer, Option<OwnedFd>), HsmError> {
        // 0 was its table.
        self.asked = self.asked.wrapping_add(1).max(1);
        exchange(&self.socket, self.asked, ask)
    }

    /// Has it start another one like itself, with the same table. It is tried again at the next request if this fails.
    fn start_spare(&mut self) -> Option<Self> {
        match self.ask(&Ask::Spare) {
            Ok((Answer::Started(pid), Some(socket))) => Some(Self {
                socket,
                pid,
                child: None,
                asked: 0,
            }),
            Ok((Answer::Failed(error), _)) | Err(error) => {
                tracing::warn!(%error, "there is no second HSM supervisor");
                None
            }
            Ok(_) => {
                tracing::warn!("the HSM supervisor gave no second one");
                None
            }
        }
    }

    /// Whether its end of the socket is closed.
    fn is_gone(&self) -> bool {
        let mut byte = [0; 1];
        let looked = recv(&self.socket, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        !matches!(looked, Ok((1.., _)) | Err(Errno::AGAIN | Errno::INTR))
    }
}

/// One request and its answer.
fn exchange(socket: &OwnedFd, number: u32, ask: &Ask) -> Result<(Answer, Option<OwnedFd>), HsmError> {
    let number = number.to_be_bytes();
    let message = [&number[..], &ask.encode()].concat();
    if message.len() > supervisor::MESSAGE_BYTES_MAX {
        return Err(HsmError::invalid(
            "the tokens' env is too long: 64 KiB for all together",
        ));
    }
    sendmsg(
        socket,
        &[IoSlice::new(&message)],
        &mut SendAncillaryBuffer::default(),
        SendFlags::NOSIGNAL,
    )
    .map_err(|e| failed("request to the HSM supervisor", &e.into()))?;
    for _ in 0..STALE_MAX {
        let (message, fd) = hear(socket)?;
        if let Some((head, answer)) = message.split_first_chunk::<4>()
            && *head == number
        {
            return Ok((Answer::decode(answer)?, fd));
        }
    }
    Err(HsmError::protocol("supervisor: no answer to this request"))
}

fn hear(socket: &OwnedFd) -> Result<(Vec<u8>, Option<OwnedFd>), HsmError> {
    let mut buffer = vec![0; supervisor::MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut buffer)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .map_err(|e| failed("answer of the HSM supervisor", &e.into()))?;
    if got.bytes == 0 || got.flags.contains(ReturnFlags::TRUNC) {
        return Err(HsmError::new(
            ErrorKind::Device,
            "the HSM supervisors are gone; restart the daemon",
        ));
    }
    let fd = control.drain().find_map(|m| match m {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    buffer.truncate(got.bytes);
    Ok((buffer, fd))
}

/// Kills a process and reaps it, unless it takes longer than a second: one that hangs in a driver dies when the
/// driver lets go of it, and nobody waits for that.
pub(crate) fn end(child: &mut Child) -> bool {
    let _ = child.kill();
    gone(child, REAP_TIMEOUT)
}

/// Waits, for so long at most, until a process is gone.
fn gone(child: &mut Child, timeout: Duration) -> bool {
    let end = Instant::now() + timeout;
    loop {
        match child.try_wait() {
            Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
            Ok(None) => return false,
            Ok(Some(_)) | Err(_) => return true,
        }
    }
}

/// Execs a worker with its end of a new socketpair on fd 0.
pub(crate) fn exec(program: &Path, args: &[String], spec: &Spec) -> std::io::Result<(OwnedFd, Child)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let child = Command::new(program)
        .args(args)
        .env_clear()
        .envs(&spec.env)
        .env(MODULE_VAR, &spec.module)
        .current_dir("/")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()?;
    Ok((ours, child))
}

fn failed(what: &str, error: &std::io::Error) -> HsmError {
    HsmError::new(ErrorKind::Device, format!("{what}: {error}"))
}
