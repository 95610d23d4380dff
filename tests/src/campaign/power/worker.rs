//! The load's process as the campaign sees it: what it acknowledged so far, and what it is doing.

use super::{check::Acks, load::Load};
use crate::campaign::Tried;
use rustix::process::{Pid, Signal, kill_process_group};
use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// What was read from it so far.
#[derive(Clone, Debug)]
pub struct Seen {
    pub acks: Acks,
    pub phase: &'static str,
    /// Phases begun, to tell a second `load` from the first.
    pub phases: u64,
    /// It gave up, and why.
    pub stopped: Option<String>,
    pub commits: u64,
}

struct Shared {
    seen: Mutex<Seen>,
    changed: Condvar,
}

/// A running load; killed when dropped.
pub struct Worker {
    child: Child,
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

pub const PHASES: [&str; 4] = ["making", "reopening", "load", "closing"];

impl Seen {
    /// Nothing yet, of a load that begins where `acks` hold already.
    pub const fn beginning(acks: Acks) -> Self {
        Self {
            acks,
            phase: "making",
            phases: 0,
            stopped: None,
            commits: 0,
        }
    }

    /// One line of what it says.
    pub fn hear(&mut self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        let number = |at: usize| {
            words
                .get(at)
                .and_then(|word: &&str| word.parse::<u64>().ok())
                .unwrap_or_default()
        };
        let writer = usize::try_from(number(1)).unwrap_or(usize::MAX);
        let Seen {
            acks,
            phase,
            phases,
            stopped,
            commits,
        } = self;
        match words.first().copied() {
            Some("phase") => {
                *phase = PHASES
                    .into_iter()
                    .find(|known| words.get(1) == Some(known))
                    .unwrap_or("load");
                *phases += 1;
            }
            Some("ready") => acks.ready = true,
            Some("stopped") => *stopped = Some(line.to_owned()),
            Some(kind @ ("write" | "read")) => {
                *commits += 1;
                let list = if kind == "write" {
                    &mut acks.writes
                } else {
                    &mut acks.reads
                };
                if let Some(last) = list.get_mut(writer) {
                    *last = number(2);
                }
            }
            _ => {}
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, line: &str) {
        self.lock().hear(line);
        self.changed.notify_all();
    }
}

impl Worker {
    /// Starts it on a directory where `acks` hold already.
    pub fn start(load: Load, dir: &Path, seed: u64, acks: Acks) -> Tried<Self> {
        Self::start_under(Command::new(std::env::current_exe()?), load, dir, seed, acks)
    }

    /// The same, by a command that runs what is added to it.
    pub fn start_under(mut command: Command, load: Load, dir: &Path, seed: u64, acks: Acks) -> Tried<Self> {
        command
            .process_group(0)
            .args(["power-load", load.kind.name(), load.engine.name()])
            .arg(dir)
            .arg(seed.to_string());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let out = child.stdout.take().ok_or("the load has no output")?;
        let shared = Arc::new(Shared {
            seen: Mutex::new(Seen::beginning(acks)),
            changed: Condvar::new(),
        });
        let hears = shared.clone();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(out).lines() {
                let Ok(line) = line else { break };
                hears.hear(&line);
            }
            hears.lock().stopped.get_or_insert_with(|| "its output ended".into());
            hears.changed.notify_all();
        });
        Ok(Self {
            child,
            shared,
            reader: Some(reader),
        })
    }

    /// Waits until it does `phase` and has begun more than `after` phases; `false` when it stopped or takes too long.
    pub fn await_phase(&self, phase: &str, after: u64, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut seen = self.shared.lock();
        loop {
            if seen.phase == phase && seen.phases > after {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if seen.stopped.is_some() || left.is_zero() {
                return false;
            }
            seen = self
                .shared
                .changed
                .wait_timeout(seen, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// What was read so far. Freeze the disk only after this.
    pub fn seen(&self) -> Seen {
        self.shared.lock().clone()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The whole group: a tracer's end would set its child free.
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
