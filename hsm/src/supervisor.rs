//! The supervisor: a process of one thread, started before the daemon locks itself in, that can do four
//! things only: take its table of tokens once, start the worker of a token in the table, kill a worker
//! it started, and start another supervisor with its own table, to wait for the day it is gone. It executes nothing but its own program, so a daemon taken over later gains no `execve`.
//! It ends, and its workers with it, when the daemon's end of the socket closes.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Child;

use rustix::io::IoSlice;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};

use crate::config::{ENV_MAX, TEXT_BYTES_MAX, env_fits};
use crate::error::{ErrorKind, HsmError};
use crate::harden;
use crate::launch::{Spec, end, exec, start_supervisor};

/// Longest message (bytes).
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Most tokens of one daemon.
pub const TOKENS_MAX: usize = 8;
/// Most workers alive at a time: one a token, and one more that is about to be ended.
const WORKERS_MAX: usize = 2 * TOKENS_MAX;
/// The argument that makes the program a worker.
const WORKER_ARG: &str = "hsm-worker";
/// And this one a supervisor.
const SUPERVISOR_ARG: &str = "hsm-supervisor";
/// This program, also when its file was replaced since.
const SELF: &str = "/proc/self/exe";

pub(crate) enum Ask {
    Table(BTreeMap<String, Spec>),
    Start(String),
    End(u32),
    Spare,
}

pub(crate) enum Answer {
    Done,
    Started(u32),
    Failed(HsmError),
}

/// The hidden subcommand `hsm-supervisor`: serves fd 0 until the daemon is gone, then exits. Must be called
/// first thing in `main`, with one thread.
pub fn main() -> ! {
    harden::process();
    let mut supervisor = Supervisor::default();
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    let socket = rustix::stdio::stdin();
    loop {
        match recv(socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((0, _)) => break,
            Ok((n, _)) => {
                let Some((number, ask)) = buffer.get(..n).and_then(|m| m.split_first_chunk::<4>()) else {
                    break;
                };
                let (answer, fd) = match Ask::decode(ask) {
                    Ok(ask) => supervisor.serve(ask),
                    Err(e) => (Answer::Failed(e), None),
                };
                if send(socket, *number, &answer, fd.as_ref()).is_err() {
                    break;
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => break,
        }
    }
    supervisor.end_all();
    std::process::exit(0)
}

#[derive(Default)]
struct Supervisor {
    table: Option<BTreeMap<String, Spec>>,
    workers: HashMap<u32, Child>,
    /// Another one that waits, to be reaped; its socket is the daemon's.
    spare: Option<Child>,
}

impl Supervisor {
    fn serve(&mut self, ask: Ask) -> (Answer, Option<OwnedFd>) {
        self.workers.retain(|_, child| !matches!(child.try_wait(), Ok(Some(_))));
        match ask {
            Ask::Table(table) if self.table.is_none() => {
                self.table = Some(table);
                (Answer::Done, None)
            }
            Ask::Table(_) => (Answer::Failed(HsmError::invalid("the table is fixed")), None),
            Ask::Start(name) => match self.start(&name) {
                Ok((pid, fd)) => (Answer::Started(pid), Some(fd)),
                Err(e) => (Answer::Failed(e), None),
            },
            Ask::End(pid) => {
                if let Some(child) = self.workers.get_mut(&pid)
                    && end(child)
                {
                    self.workers.remove(&pid);
                }
                (Answer::Done, None)
            }
            Ask::Spare => match self.start_spare() {
                Ok((pid, fd)) => (Answer::Started(pid), Some(fd)),
                Err(e) => (Answer::Failed(e), None),
            },
        }
    }

    /// Another one, with this one's table: nobody else ever gives it one. The one before, if there was, is ended: the daemon has lost it.
    fn start_spare(&mut self) -> Result<(u32, OwnedFd), HsmError> {
        let table = self.table.clone().ok_or_else(|| HsmError::invalid("no table yet"))?;
        if let Some(mut former) = self.spare.take() {
            end(&mut former);
        }
        let (fd, child) = start_supervisor(Path::new(SELF), &[SUPERVISOR_ARG], table)?;
        let pid = child.id();
        self.spare = Some(child);
        Ok((pid, fd))
    }

    fn start(&mut self, name: &str) -> Result<(u32, OwnedFd), HsmError> {
        let spec = self.table.as_ref().and_then(|t| t.get(name));
        let spec = spec.ok_or_else(|| HsmError::invalid("no such token in the supervisor's table"))?;
        if self.workers.len() >= WORKERS_MAX {
            return Err(HsmError::new(ErrorKind::Unavailable, "too many workers"));
        }
        let (fd, child) = exec(Path::new(SELF), &[WORKER_ARG.to_owned()], spec)
            .map_err(|e| HsmError::new(ErrorKind::Device, format!("start of the HSM worker: {e}")))?;
        let pid = child.id();
        self.workers.insert(pid, child);
        Ok((pid, fd))
    }

    fn end_all(&mut self) {
        for (_, mut child) in self.workers.drain() {
            let _ = child.kill(); // reaped by whoever inherits them
        }
    }
}

/// Answers the request of this number.
fn send(socket: BorrowedFd<'_>, number: [u8; 4], answer: &Answer, fd: Option<&OwnedFd>) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = fd.map(|fd| [fd.as_fd()]);
    if let Some(fds) = &fds {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    sendmsg(
        socket,
        &[IoSlice::new(&number), IoSlice::new(&answer.encode())],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

// ---- messages: one datagram each; fields are length-prefixed text ----

impl Ask {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Table(table) => {
                out.push(1);
                out.push(table.len() as u8);
                for (name, spec) in table {
                    put(&mut out, name);
                    put(&mut out, &spec.module.to_string_lossy());
                    out.push(spec.env.len() as u8);
                    for (key, value) in &spec.env {
                        put(&mut out, key);
                        put(&mut out, value);
                    }
                }
            }
            Self::Start(name) => {
                out.push(2);
                put(&mut out, name);
            }
            Self::End(pid) => {
                out.push(3);
                out.extend(pid.to_be_bytes());
            }
            Self::Spare => out.push(4),
        }
        out
    }

    pub(crate) fn decode(mut message: &[u8]) -> Result<Self, HsmError> {
        let r = &mut message;
        let ask = match byte(r)? {
            1 => {
                let count = usize::from(byte(r)?);
                if count > TOKENS_MAX {
                    return Err(HsmError::invalid("more than 8 tokens"));
                }
                let mut table = BTreeMap::new();
                for _ in 0..count {
                    let name = take(r)?;
                    let module = PathBuf::from(take(r)?);
                    let vars = usize::from(byte(r)?);
                    if vars > ENV_MAX {
                        return Err(malformed());
                    }
                    let env = (0..vars)
                        .map(|_| Ok((take(r)?, take(r)?)))
                        .collect::<Result<_, HsmError>>()?;
                    if !env_fits(&env) || !module.is_absolute() {
                        return Err(HsmError::invalid("module or env of a token"));
                    }
                    if table.insert(name, Spec { module, env }).is_some() {
                        return Err(HsmError::invalid("two tokens of one name"));
                    }
                }
                Self::Table(table)
            }
            2 => Self::Start(take(r)?),
            3 => Self::End(u32::from_be_bytes(array(r)?)),
            4 => Self::Spare,
            _ => return Err(malformed()),
        };
        if message.is_empty() { Ok(ask) } else { Err(malformed()) }
    }
}

impl Answer {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Done => vec![1],
            Self::Started(pid) => [&[2], &pid.to_be_bytes()[..]].concat(),
            Self::Failed(e) => {
                let mut out = vec![3, e.kind as u8];
                put(&mut out, &e.detail);
                out
            }
        }
    }

    pub(crate) fn decode(mut message: &[u8]) -> Result<Self, HsmError> {
        let r = &mut message;
        let answer = match byte(r)? {
            1 => Self::Done,
            2 => Self::Started(u32::from_be_bytes(array(r)?)),
            3 => {
                let kind = ErrorKind::from_u8(byte(r)?).ok_or_else(malformed)?;
                Self::Failed(HsmError::new(kind, take(r)?))
            }
            _ => return Err(malformed()),
        };
        if message.is_empty() {
            Ok(answer)
        } else {
            Err(malformed())
        }
    }
}

fn malformed() -> HsmError {
    HsmError::protocol("malformed supervisor message")
}

fn put(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text.as_bytes());
}

fn array<const N: usize>(r: &mut &[u8]) -> Result<[u8; N], HsmError> {
    let mut out = [0; N];
    r.read_exact(&mut out).map_err(|_| malformed())?;
    Ok(out)
}

fn byte(r: &mut &[u8]) -> Result<u8, HsmError> {
    array::<1>(r).map(|[b]| b)
}

fn take(r: &mut &[u8]) -> Result<String, HsmError> {
    let len = usize::from(u16::from_be_bytes(array(r)?));
    if len > TEXT_BYTES_MAX {
        return Err(malformed());
    }
    let (head, rest) = r.split_at_checked(len).ok_or_else(malformed)?;
    *r = rest;
    String::from_utf8(head.to_vec()).map_err(|_| malformed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(ask @ (Ask::Start(_) | Ask::End(_) | Ask::Spare)) = Ask::decode(&bytes) {
                prop_assert_eq!(ask.encode(), bytes.clone());
            }
            if let Ok(answer) = Answer::decode(&bytes) {
                prop_assert_eq!(answer.encode(), bytes);
            }
        }

        #[test]
        fn table_round_trip(
            names in proptest::collection::btree_set("[a-z]{1,8}", 0..8),
            env in proptest::collection::btree_map("[A-Z]{3,9}X", "[ -~]{0,30}", 0..5),
        ) {
            let table: BTreeMap<_, _> = names
                .into_iter()
                .map(|n| (n.clone(), Spec { module: format!("/lib/{n}.so").into(), env: env.clone() }))
                .collect();
            let Ok(Ask::Table(back)) = Ask::decode(&Ask::Table(table.clone()).encode()) else {
                return Err(TestCaseError::fail("did not decode"));
            };
            prop_assert_eq!(back, table);
        }
    }

    /// R-SEAL-6: a daemon taken over after the start cannot make the supervisor run something else.
    #[test]
    fn table_is_fixed() {
        let mut supervisor = Supervisor::default();
        assert!(matches!(
            supervisor.serve(Ask::Table(BTreeMap::new())),
            (Answer::Done, None)
        ));
        assert!(matches!(
            supervisor.serve(Ask::Table(BTreeMap::new())),
            (Answer::Failed(_), None)
        ));
        assert!(matches!(
            supervisor.serve(Ask::Start("other".into())),
            (Answer::Failed(_), None)
        ));
        assert!(
            matches!(Supervisor::default().serve(Ask::Spare), (Answer::Failed(_), None)),
            "another one has this one's table or none"
        );
        let evil = Spec {
            module: "/m.so".into(),
            env: [("LD_PRELOAD".to_owned(), "/x.so".to_owned())].into(),
        };
        assert!(Ask::decode(&Ask::Table([("a".to_owned(), evil)].into()).encode()).is_err());
    }
}
