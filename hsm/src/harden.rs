//! What worker and supervisor give up before anything else.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, set_dumpable_behavior, set_parent_process_death_signal, setrlimit,
};

use crate::error::{ErrorKind, HsmError};

/// No core dumps, no ptrace by the same user, no new privileges. Best effort: none of these fails on a Linux
/// this program runs on, and a process that refused to start would help nobody.
pub(crate) fn process() {
    let _ = setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    );
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = rustix::thread::set_no_new_privs(true);
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

/// A worker also dies with the thread that started it: the actor of its token, or the supervisor. (The
/// supervisor does not use this: the daemon's thread that started it may end; the socket tells it instead.)
pub(crate) fn worker() {
    process();
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
}

/// What a module may read besides its own paths: libraries, their configuration, random numbers.
const READABLE: [&str; 8] = [
    "/usr",
    "/lib",
    "/lib64",
    "/etc",
    "/proc/self",
    "/proc/cpuinfo",
    "/sys/devices/system/cpu",
    "/opt",
];
/// Devices a module may use.
const DEVICES: [&str; 3] = ["/dev/null", "/dev/urandom", "/dev/random"];

/// Shuts this process in: `writable` may be read and written, the module's folder, the PIN's file and the
/// system read. The network stays: modules of network HSMs live on it.
/// # Errors
/// `Device` when the kernel does not enforce all of it: the operator asked for it.
pub(crate) fn landlock(writable: &[PathBuf], module: &Path, pin: Option<&Path>) -> Result<(), HsmError> {
    let failed = |e: &dyn std::fmt::Display| HsmError::new(ErrorKind::Device, format!("landlock: {e}"));
    let abi = ABI::V3;
    let read = AccessFs::from_read(abi);
    let all = AccessFs::from_all(abi);
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(all)
        .and_then(Ruleset::create)
        .map_err(|e| failed(&e))?;
    let readable = READABLE.iter().map(Path::new).chain(module.parent()).chain(pin);
    let paths = readable
        .map(|p| (p, read))
        .chain(DEVICES.iter().map(|d| (Path::new(*d), read | AccessFs::WriteFile)))
        .chain(writable.iter().map(|p| (p.as_path(), all)));
    for (path, access) in paths {
        // What does not exist needs no right.
        let Ok(fd) = PathFd::new(path) else { continue };
        let access = if path.is_dir() {
            access
        } else {
            access & AccessFs::from_file(abi)
        };
        rules = rules.add_rule(PathBeneath::new(fd, access)).map_err(|e| failed(&e))?;
    }
    rules.restrict_self().map_err(|e| failed(&e))?;
    Ok(())
}
