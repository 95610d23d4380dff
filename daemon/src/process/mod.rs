//! What the daemon's own process gives up, so that its memory stays its own (R-SEAL-7) and a daemon that was taken over gains little.
//! May touch: nothing of the daemon; the kernel only. Reading order: this file, `landlock`, `seccomp`.
//!
//! The order matters (each step takes away what an earlier one needs), and `main` follows it with one thread until the last:
//! 1. [`limits`]: no core dumps, no ptrace by the same user, no new privileges, private files.
//! 2. read the configuration and prompt for PINs; start the HSM supervisor (it needs `execve`, and its modules need their files);
//! 3. [`landlock`]: the file system shrinks to the daemon's own paths; threads made later inherit it;
//! 4. start the runtime; [`seccomp`]: no programs, no other process's memory, no new file systems, for all threads.
//!
//! A kernel without landlock or seccomp does not stop the daemon; what is missing is returned in words, for the log and for status.

mod landlock;
mod seccomp;

pub use self::{
    landlock::{Reach, landlock},
    seccomp::seccomp,
};

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// A step of hardening that failed though the kernel knows it.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// A plain system call.
    #[error("cannot {what}")]
    Call {
        /// What was to be done.
        what: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Landlock.
    #[error("landlock refuses the daemon's paths")]
    Landlock(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Seccomp.
    #[error("the seccomp filter is refused")]
    Seccomp(#[source] Box<dyn std::error::Error + Send + Sync>),
}

fn call<T>(what: &'static str, result: rustix::io::Result<T>) -> Result<T, ProcessError> {
    result.map_err(|errno| ProcessError::Call {
        what,
        source: errno.into(),
    })
}

/// First thing in `main`. Returns what an operator should know, in words.
///
/// All memory is locked only where RLIMIT_MEMLOCK is unlimited: with a limit, later allocations would fail. Keys are locked by
/// themselves either way (`base::locked`).
/// # Errors
/// [`ProcessError::Call`]; every Linux that this program runs on can do all of it.
pub fn limits() -> Result<Vec<String>, ProcessError> {
    call(
        "set RLIMIT_CORE to 0",
        setrlimit(
            Resource::Core,
            Rlimit {
                current: Some(0),
                maximum: Some(0),
            },
        ),
    )?;
    call(
        "make the process not dumpable",
        set_dumpable_behavior(DumpableBehavior::NotDumpable),
    )?;
    call("give up new privileges", rustix::thread::set_no_new_privs(true))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let files = getrlimit(Resource::Nofile);
    call(
        "raise RLIMIT_NOFILE to its maximum",
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: files.maximum,
                maximum: files.maximum,
            },
        ),
    )?;
    if getrlimit(Resource::Memlock).current.is_none() {
        use rustix::mm::{MlockAllFlags, mlockall};
        call(
            "lock all memory",
            mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT),
        )?;
        return Ok(Vec::new());
    }
    Ok(match swap_is_on() {
        true => vec!["swap is on and not all memory is locked: keys are safe, other secrets may reach the swap; set LimitMEMLOCK=infinity".to_owned()],
        false => Vec::new(),
    })
}

/// Connections from the network at most, so that half of the files this process may have open stay for the store, for engines and for operators
/// on this machine.
pub fn connections_that_fit(wanted: usize) -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    wanted.min(usize::try_from(files / 2).unwrap_or(usize::MAX)).max(1)
}

fn swap_is_on() -> bool {
    // One line of headings, then one a swap area.
    std::fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().count() > 1)
}

#[cfg(test)]
mod tests;
