//! The file system that the daemon sees, shrunk to its own paths; and no TCP ports but its own to listen on.

use super::ProcessError;
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus,
};
use std::path::{Path, PathBuf};

/// What the daemon may touch after it has shut itself in.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// Read: the configuration, certificates.
    pub read: Vec<PathBuf>,
    /// Read, write, make and remove: the data and audit directories, the socket's directory, the HSMs' state.
    pub write: Vec<PathBuf>,
    /// TCP ports to listen on. Outgoing connections are not restricted: targets may be anywhere.
    pub listen: Vec<u16>,
}

/// Name resolution, certificates of targets, and the C library's lazily loaded parts.
const SYSTEM: [&str; 8] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/proc/self",
    "/proc/sys",
    "/sys/fs/cgroup",
    "/run/systemd/resolve",
];
/// Devices; the log may go to a terminal or a pipe, which are open already.
const DEVICES: [&str; 3] = ["/dev/null", "/dev/urandom", "/dev/random"];
/// With TCP ports (Linux 6.7). Older kernels enforce what they know.
const KNOWN: ABI = ABI::V4;

/// Shuts the calling thread in, and all threads it makes from now on: call it while there is one. Returns what is missing, in words.
/// # Errors
/// [`ProcessError::Landlock`] when the kernel knows landlock and refuses a rule. Paths that do not exist are left out.
pub fn landlock(reach: &Reach) -> Result<Option<String>, ProcessError> {
    let status = restrict(reach).map_err(|error| ProcessError::Landlock(Box::new(error)))?;
    Ok(match status {
        RulesetStatus::FullyEnforced => None,
        RulesetStatus::PartiallyEnforced => {
            Some("this kernel enforces landlock only in part: a newer one shuts the daemon in better".to_owned())
        }
        RulesetStatus::NotEnforced => {
            Some("this kernel has no landlock: the daemon is not shut in to its own paths".to_owned())
        }
    })
}

fn restrict(reach: &Reach) -> Result<RulesetStatus, RulesetError> {
    let (read, all) = (AccessFs::from_read(KNOWN), AccessFs::from_all(KNOWN));
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .handle_access(AccessNet::BindTcp)?
        .create()?;
    let paths = SYSTEM
        .iter()
        .map(|path| (Path::new(*path), read & !AccessFs::Execute))
        .chain(
            DEVICES
                .iter()
                .map(|path| (Path::new(*path), read | AccessFs::WriteFile)),
        )
        .chain(
            reach
                .read
                .iter()
                .map(|path| (path.as_path(), read & !AccessFs::Execute)),
        )
        .chain(
            reach
                .write
                .iter()
                .map(|path| (path.as_path(), all & !AccessFs::Execute)),
        );
    for (path, access) in paths {
        // What does not exist needs no right.
        let Ok(fd) = PathFd::new(path) else { continue };
        let access = if path.is_dir() {
            access
        } else {
            access & AccessFs::from_file(KNOWN)
        };
        rules = rules.add_rule(PathBeneath::new(fd, access))?;
    }
    for port in &reach.listen {
        rules = rules.add_rule(NetPort::new(*port, AccessNet::BindTcp))?;
    }
    Ok(rules.restrict_self()?.ruleset)
}
