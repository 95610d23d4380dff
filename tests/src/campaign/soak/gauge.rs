//! What the daemon holds: resident memory and file descriptors, as the kernel counts them, measured in silence and compared over one life.

use crate::campaign::{Tried, doing};

/// Resident memory may be this much larger at the end than after the warm-up.
const GROWTH_MIB_MAX: u64 = 32;
/// The same of file descriptors.
const FILES_MORE_MAX: u64 = 16;
/// Measurements that two means need.
const LEAST: usize = 4;

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub struct Gauge {
    pub resident_kib: u64,
    pub files: u64,
}

impl Gauge {
    /// Of the process `pid`.
    pub fn of(pid: u32) -> Tried<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(doing("the daemon's status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).map_err(doing("the daemon's files"))?;
        Ok(Self {
            resident_kib: kib.ok_or("the kernel does not tell the daemon's memory")?,
            files: files.count() as u64,
        })
    }
}

/// Means of the second and of the last quarter of a life, the first being its warm-up.
#[derive(Debug)]
pub struct Growth {
    pub resident_mib: (u64, u64),
    pub files: (u64, u64),
    pub highest_mib: u64,
}

impl Growth {
    /// `None`: too few measurements.
    pub fn of(gauges: &[Gauge]) -> Option<Self> {
        let quarter = gauges.len() / 4;
        if gauges.len() < LEAST {
            return None;
        }
        let (early, late) = (gauges.get(quarter..2 * quarter)?, gauges.get(gauges.len() - quarter..)?);
        let mean = |of: &[Gauge], what: fn(&Gauge) -> u64| of.iter().map(what).sum::<u64>() / of.len().max(1) as u64;
        Some(Self {
            resident_mib: (
                mean(early, |g| g.resident_kib) / 1024,
                mean(late, |g| g.resident_kib) / 1024,
            ),
            files: (mean(early, |g| g.files), mean(late, |g| g.files)),
            highest_mib: gauges.iter().map(|gauge| gauge.resident_kib).max()? / 1024,
        })
    }

    /// What is over its bound.
    pub fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        if self.resident_mib.1 > self.resident_mib.0 + GROWTH_MIB_MAX {
            broken.push(format!("memory grows: {self:?}"));
        }
        if self.files.1 > self.files.0 + FILES_MORE_MAX {
            broken.push(format!("file descriptors grow: {self:?}"));
        }
        broken
    }

    pub fn words(&self) -> String {
        format!(
            "resident memory {} MiB after the warm-up, {} MiB at the end ({} MiB at most; bound: {GROWTH_MIB_MAX} MiB more); file descriptors {} and {} (bound: {FILES_MORE_MAX} more)",
            self.resident_mib.0, self.resident_mib.1, self.highest_mib, self.files.0, self.files.1
        )
    }
}

/// A life that leaks a little in every round must be noticed.
pub fn control(rounds: usize) -> u64 {
    let leak = (GROWTH_MIB_MAX + 1) * 2 * 1024 / rounds.max(1) as u64 + 1;
    let leaking = |round: usize| Gauge {
        resident_kib: 100 * 1024 + leak * round as u64 * 2,
        files: 40,
    };
    let gauges: Vec<_> = (0..rounds.max(LEAST)).map(leaking).collect();
    u64::from(Growth::of(&gauges).is_some_and(|growth| !growth.broken().is_empty()))
}
