//! The worker process: the only place that loads a PKCS#11 module and holds its PIN, its session and the seeds
//! that pass through it. One thread, one session, at most one log-in in its life.
//!
//! It does not recover; it reports. The handle ends it when in doubt and starts the next one.
//!
//! Reading order: `mod` (the life of the process), `token` (module, slot, log-in, finding keys), `seal` (the
//! four mechanisms), `keys` (make, list, destroy), `sign`, `fault` (what return values mean), `raw` (two calls
//! that the safe binding cannot make), `provision` (new throw-away tokens).

mod fault;
mod keys;
mod provision;
mod raw;
mod seal;
mod sign;
mod token;

use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use crate::error::{ErrorKind, HsmError};
use crate::harden;
use crate::launch::MODULE_VAR;
use crate::wire::{Channel, Reply, Request};
use token::{Module, Token};

/// The hidden subcommand `hsm-worker`: serves the socketpair on fd 0, then `C_Finalize` and `_exit`. Must be
/// called first thing in `main`, before any thread is made.
pub fn main() -> ! {
    harden::worker();
    let code = i32::from(life().is_err()); // the error was said over the socket, if anybody listens
    exit(code)
}

/// Ends without exit handlers: modules crash in theirs (SoftHSM destroys globals that other handlers use).
#[allow(unsafe_code)] // there is no safe `_exit`
fn exit(code: i32) -> ! {
    // SAFETY: `_exit` takes any code, runs nothing, and does not return.
    unsafe { libc::_exit(code) }
}

/// Hello, log-in, requests. The order is the code's: there is no way back to a second log-in.
fn life() -> Result<(), HsmError> {
    let mut peer = Peer::on_stdin()?;
    let Some(first) = peer.next()? else { return Ok(()) };
    let module = match first {
        Request::Hello { token, landlock, pin } => {
            let module = peer.said(Module::open(&module_path()?, &landlock, pin.as_deref()))?;
            let found = peer.said(module.find(&token))?;
            peer.say(&Reply::Token {
                identity: found.identity.clone(),
                pin: found.flags,
            })?;
            module.select(found)
        }
        Request::Provision { label, so_pin, pin } => {
            let module = peer.said(Module::open(&module_path()?, &[], None))?;
            peer.said(provision::run(&module, &label, so_pin, pin))?;
            module.finalize();
            return peer.say(&Reply::Done);
        }
        Request::Exit => return Ok(()),
        _ => return peer.said(Err(HsmError::protocol("greet first"))),
    };
    let mut token = match peer.next()? {
        Some(Request::Login { pin }) => {
            let token = peer.said(module.login(pin))?;
            peer.say(&Reply::Done)?;
            token
        }
        None | Some(Request::Exit) => return Ok(()),
        Some(_) => return peer.said(Err(HsmError::protocol("log in first"))),
    };
    while let Some(request) = peer.next()? {
        if matches!(request, Request::Exit) {
            break;
        }
        let reply = answer(&mut token, request).unwrap_or_else(|error| {
            token.renew();
            Reply::Failed(error)
        });
        peer.say(&reply)?;
    }
    token.finalize();
    Ok(())
}

fn answer(token: &mut Token, request: Request) -> Result<Reply, HsmError> {
    token.check()?;
    Ok(match request {
        Request::Create {
            ring,
            version,
            kind,
            mechanism,
        } => Reply::Key(keys::create(token, &ring, version, kind, mechanism)?),
        Request::Seal {
            ring,
            version,
            context,
            seed,
        } => Reply::Blob(seal::seal(token, &ring, version, &context, &seed)?),
        Request::Open { blob, context } => Reply::Seed(Box::new(seal::open(token, &blob, &context)?)),
        Request::List { ring } => Reply::Keys(keys::list(token, &ring)?),
        Request::Destroy { ring, version } => {
            keys::destroy(token, &ring, version)?;
            Reply::Done
        }
        Request::Sign { ring, version, digest } => Reply::Bytes(sign::sign(token, &ring, version, &digest)?),
        Request::PublicKey { ring, version } => Reply::Bytes(sign::public_key(token, &ring, version)?),
        Request::SelfTest => Reply::Trials(keys::self_test(token)?),
        Request::Probe { deep, key } => {
            seal::probe(token, deep, key)?;
            Reply::Done
        }
        Request::Hello { .. } | Request::Login { .. } | Request::Provision { .. } | Request::Exit => {
            return Err(HsmError::protocol("only once, at the beginning"));
        }
    })
}

fn module_path() -> Result<PathBuf, HsmError> {
    std::env::var_os(MODULE_VAR)
        .map(PathBuf::from)
        .ok_or_else(|| HsmError::invalid("not started by a launcher"))
}

/// The handle's end of the socketpair.
struct Peer(Channel);

impl Peer {
    fn on_stdin() -> Result<Self, HsmError> {
        let socket = rustix::stdio::stdin().try_clone_to_owned();
        let socket = socket.map_err(|e| HsmError::new(ErrorKind::Crashed, e.to_string()))?;
        Ok(Self(Channel::new(UnixStream::from(socket))))
    }

    /// The next request; `None` when the handle is gone.
    fn next(&mut self) -> Result<Option<Request>, HsmError> {
        match self.0.receive(None) {
            Ok(message) => self.said(Request::decode(&message)).map(Some),
            Err(_) => Ok(None),
        }
    }

    fn say(&mut self, reply: &Reply) -> Result<(), HsmError> {
        self.0
            .send(&reply.encode(), None)
            .map_err(|e| HsmError::new(ErrorKind::Crashed, e.to_string()))
    }

    /// Passes a success on; tells the handle of a failure, after which this process ends.
    fn said<T>(&mut self, result: Result<T, HsmError>) -> Result<T, HsmError> {
        if let Err(error) = &result {
            self.say(&Reply::Failed(error.clone()))?;
        }
        result
    }
}
