//! Campaigns: the real parts, broken on purpose, many times over. Each suite counts in which step its faults fell (none may be zero) and has
//! a control: the same run with a protection taken away, which must go red, or the suite itself is not believed.
//! Run whole by `make campaign SUITE=..`, in short form by CI. What they found: docs/CAMPAIGNS.md.
//!
//! Reading order: this file, `dice`, `steps`, `report`, then a suite: `power` (power cuts) and `flip` (changed bytes) on the store;
//! `kill` (kill -9), `rotate` and `soak` (everything at once, for long) on the real daemon, which stand on `bench` and `proxy`.

mod bench;
pub mod dice;
pub mod flip;
pub mod kill;
pub mod power;
pub mod proxy;
pub mod report;
pub mod rotate;
pub mod soak;
pub mod steps;
mod trail;

pub use dice::Dice;
pub use report::Report;
pub use steps::Steps;

/// Anything that keeps a campaign from running. What a campaign *finds* is not an error; it goes into the [`Report`].
pub type Trouble = Box<dyn std::error::Error + Send + Sync>;
pub type Tried<T> = Result<T, Trouble>;

/// How much of a suite to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scale {
    /// What CI runs on every change.
    Short,
    /// What docs/CAMPAIGNS.md reports.
    Whole,
}

impl Scale {
    /// `short` or `whole`, by scale.
    pub fn pick<T>(self, short: T, whole: T) -> T {
        match self {
            Self::Short => short,
            Self::Whole => whole,
        }
    }
}

/// What every suite is told.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub scale: Scale,
    /// Printed, so that a run can be made again.
    pub seed: u64,
    /// Another length than the scale's, for suites that run for a time.
    pub minutes: Option<u64>,
}

/// Adds what was being done to an error.
pub fn doing<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> Trouble {
    move |error| format!("{what}: {error}").into()
}

/// A directory for a suite's disks, in memory where there is one.
pub fn scratch(suite: &str) -> Tried<tempfile::TempDir> {
    let memory = std::path::Path::new("/dev/shm");
    let base = if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    Ok(tempfile::Builder::new()
        .prefix(&format!("strongroom-{suite}-"))
        .tempdir_in(base)?)
}

/// Copies a directory with all it holds.
pub fn copy_tree(from: &std::path::Path, to: &std::path::Path) -> Tried<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let (path, target) = {
            let entry = entry?;
            (entry.path(), to.join(entry.file_name()))
        };
        if path.is_dir() {
            copy_tree(&path, &target)?;
        } else {
            std::fs::copy(&path, &target)?;
        }
    }
    Ok(())
}
