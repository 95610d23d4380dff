//! The machine: which core serves and which loads, and what the kernel's own accounts say a process took.

use crate::Fault;
use rustix::{
    process::{Resource, getrlimit, setrlimit},
    thread::{CpuSet, sched_setaffinity},
};
use std::{fs, path::Path, time::Instant};

/// The core that servers are pinned to.
pub const SERVER_CORE: usize = 0;
/// The core that generates the load.
pub const LOAD_CORE: usize = 1;

/// Moves this thread, and with it whatever it starts from now on, to `cores`.
/// # Errors
/// There is no such core.
pub fn move_to(cores: &[usize]) -> Result<(), Fault> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    sched_setaffinity(None, &set).map_err(|error| format!("cannot move to cores {cores:?}: {error}"))?;
    Ok(())
}

/// Lets this process, and what it starts, have as many files and connections as the system allows.
/// # Errors
/// The system refuses.
pub fn raise_files() -> Result<(), Fault> {
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files)?;
    Ok(())
}

/// Runs `start` with this thread on `cores`, so that processes started in it stay there, and goes back to the load's core.
/// # Errors
/// Those of `start`.
pub fn starting_on<T>(cores: &[usize], start: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    move_to(cores)?;
    let started = start();
    move_to(&[LOAD_CORE])?;
    started
}

/// Readings of a moment; two of them make a [`Spent`].
pub struct Reading {
    at: Instant,
    cpu_secs: f64,
    wait_secs: f64,
    core_busy_secs: f64,
}

/// What a process took between two readings.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent {
    /// Seconds on a core, all threads, ended ones too. Resolution 10 ms.
    pub cpu_secs: f64,
    /// Share of the time that its threads waited for a core, summed over threads: they also wait for each other.
    pub waited: f64,
    /// Share of the server core's time that other processes took.
    pub foreign: f64,
}

/// Reads the accounts of a process (none: only the core's).
pub fn read(pid: Option<u32>) -> Reading {
    let (cpu_secs, wait_secs) = pid.map_or((0.0, 0.0), |pid| (cpu_secs(pid), wait_secs(pid)));
    Reading {
        at: Instant::now(),
        cpu_secs,
        wait_secs,
        core_busy_secs: core_busy_secs(SERVER_CORE),
    }
}

impl Reading {
    /// From this reading to one taken now.
    pub fn until_now(&self, pid: Option<u32>) -> Spent {
        let now = read(pid);
        let wall_secs = (now.at - self.at).as_secs_f64();
        let cpu_secs = now.cpu_secs - self.cpu_secs;
        let busy = now.core_busy_secs - self.core_busy_secs;
        Spent {
            cpu_secs,
            waited: ((now.wait_secs - self.wait_secs) / wall_secs).max(0.0),
            foreign: ((busy - cpu_secs) / wall_secs).clamp(0.0, 1.0),
        }
    }
}

#[allow(clippy::cast_precision_loss)] // ticks and kilobytes stay far below 2^52
fn ticks(count: u64) -> f64 {
    count as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// User and system time of all threads: fields 14 and 15 of `/proc/PID/stat`, counted after the name's closing bracket.
fn cpu_secs(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = text.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    ticks(
        fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum(),
    )
}

/// Seconds that living threads were ready and waited: second field of `/proc/PID/task/*/schedstat`, nanoseconds.
#[allow(clippy::cast_precision_loss)]
fn wait_secs(pid: u32) -> f64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return 0.0;
    };
    let waited = tasks.flatten().filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    waited.sum::<u64>() as f64 / 1e9
}

/// Busy time of a core: everything in its line of `/proc/stat` but idle and iowait.
fn core_busy_secs(core: usize) -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let name = format!("cpu{core} ");
    let Some(line) = text.lines().find_map(|line| line.strip_prefix(&name)) else {
        return 0.0;
    };
    let fields = line.split_whitespace().filter_map(|field| field.parse::<u64>().ok());
    ticks(
        fields
            .take(8)
            .enumerate()
            .filter(|(at, _)| !matches!(at, 3 | 4))
            .map(|(_, count)| count)
            .sum(),
    )
}

/// Resident memory of a process in MiB.
pub fn rss_mb(pid: u32) -> f64 {
    status(pid, "VmRSS:") / 1024.0
}

fn status(pid: u32, name: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or_default();
    line.split_whitespace()
        .next()
        .and_then(|kb| kb.parse().ok())
        .unwrap_or_default()
}

/// Processes whose parent is `pid`.
pub fn children(pid: u32) -> Vec<u32> {
    let Ok(all) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let ids = all
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    ids.filter(|id| status(*id, "PPid:") as u32 == pid).collect()
}

/// Bytes of all files below `dir`, as the disk keeps them (blocks), without files and directories of these names.
pub fn disk_bytes(dir: &Path, except: &[&str]) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let wanted = entries
        .flatten()
        .filter(|entry| !except.iter().any(|name| entry.file_name() == *name));
    let sizes = wanted.map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => disk_bytes(&entry.path(), except),
        Ok(meta) if meta.is_file() => meta.blocks() * 512,
        _ => 0,
    });
    sizes.sum()
}

/// One line about the machine and how busy it is.
pub fn describe() -> String {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .and_then(|line| line.split_once(": "));
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let load = read("/proc/loadavg");
    let load = load.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{cores} cores of {}, Linux {}, load average {load}",
        model.map_or("?", |(_, name)| name),
        kernel.trim()
    )
}
