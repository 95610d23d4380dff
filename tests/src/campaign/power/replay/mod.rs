//! Power cuts without a disk. The load runs on an ordinary directory under `strace`, which needs neither FUSE nor root; from what it did, in order,
//! any number of trees are made that a power cut may have left: what was synced, and nothing, a random part, or all of the rest. Each is opened and
//! judged as the images of the real disk are.
//!
//! Reading order: `trace` (calls), `model` (what is owed), `record` (from calls to events), this file.

mod model;
mod record;
mod trace;

use super::{
    Acks, EXTRA_ROUNDS_MAX, Found, Variant,
    load::{Kind, Load},
    tell,
    worker::{PHASES, Seen, Worker},
};
use crate::campaign::{Dice, Plan, Report, Scale, Steps, Tried, doing, report::say};
use model::{Owed, Syncs, Tree};
use record::{CALLS, Recorder, Recording};
use std::{
    fs::{self, File},
    io::BufReader,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use strongroomd::store::EngineKind;

/// The load runs until it has begun so many phases (two lives or more), or for so long, or until so much was told of it.
const PHASES_WANTED: u64 = 6;
const LOAD_PATIENCE: Duration = Duration::from_secs(12);
const TRACE_BYTES_MAX: u64 = 384 << 20;
/// Longer strings are cut short by strace, which is an error here. No write of ours comes near.
const STRING_BYTES_MAX: &str = "16777216";
/// Attempts to find a cut with something to lose.
const PICKS_MAX: u64 = 16;
const HOW: &str = "replay, ";

/// What keeps this machine from it, if anything.
fn missing() -> Option<String> {
    let tried = Command::new("strace")
        .args([
            "-f",
            "-qq",
            "--seccomp-bpf",
            "-e",
            "trace=fsync",
            "-o",
            "/dev/null",
            "true",
        ])
        .stdin(Stdio::null())
        .output();
    match tried {
        Err(error) => Some(format!("strace: {error}")),
        Ok(output) if !output.status.success() => {
            Some(format!("strace: {}", String::from_utf8_lossy(&output.stderr).trim()))
        }
        Ok(_) => None,
    }
}

/// Adds the replay's figures to those of the suite.
pub fn run(report: &mut Report, plan: Plan, dir: &Path) -> Tried<()> {
    if let Some(why) = missing() {
        say(format_args!(
            "  ******** WHAT WAS SYNCED WAS NOT REPLAYED: {why}. ********"
        ));
        report.figure(format_args!("NO REPLAY: {why}"));
        if std::env::var_os("CI").is_some() || plan.scale == Scale::Whole {
            report.broken("what was synced could not be replayed");
        }
        return Ok(());
    }
    let dir = &dir.join("replay");
    fs::create_dir(dir)?;
    let dice = Dice::new(plan.seed).fork(100);
    for (index, load) in Load::every().enumerate() {
        let is_sled = load.engine == EngineKind::Sled;
        let images = plan.scale.pick(if is_sled { 4 } else { 8 }, 100);
        let mut series = Series::new(load, dir, Syncs::Keep, dice.fork(index as u64));
        let mut rounds = 0;
        while series.found.images < images
            || (!is_sled && !series.steps.missed().is_empty() && rounds < images / 4 + EXTRA_ROUNDS_MAX)
        {
            // Every third begins on an empty directory, the others on what a cut left.
            if rounds % 3 == 0 {
                series.next = None;
            }
            series.round(plan.scale.pick(3, 9))?;
            rounds += 1;
        }
        tell(report, load, HOW, &series.found, &series.steps);
    }
    let load = Load {
        kind: Kind::Default,
        engine: EngineKind::Fjall,
    };
    let mut control = Series::new(load, dir, Syncs::Lie, dice.fork(20));
    control.round(2)?;
    report.control(
        "replay, syncs are not believed",
        control.found.bad_count(),
        control.found.images,
    );
    Ok(())
}

struct Series<'a> {
    load: Load,
    dir: &'a Path,
    syncs: Syncs,
    dice: Dice,
    steps: Steps,
    found: Found,
    /// What an earlier cut left, and what holds there.
    next: Option<Acks>,
}

/// A moment in a recording.
struct Cut {
    events: usize,
    seen: Seen,
}

impl<'a> Series<'a> {
    fn new(load: Load, dir: &'a Path, syncs: Syncs, dice: Dice) -> Self {
        Self {
            load,
            dir,
            syncs,
            dice,
            steps: Steps::of(&PHASES),
            found: Found::default(),
            next: None,
        }
    }

    /// One recording, cut at so many moments, phases in turn.
    fn round(&mut self, cuts: usize) -> Tried<()> {
        let (live, kept) = (self.dir.join("live"), self.dir.join("kept"));
        clear(&live)?;
        let acks = match self.next.take() {
            Some(acks) => {
                fs::rename(&kept, &live)?;
                acks
            }
            None => Acks::none(self.load.writers()),
        };
        fs::create_dir_all(&live)?;
        let base = Tree::read(&live)?;
        let recording = self.record(&live, base, &acks)?;
        clear(&live)?;
        let mut last = Seen::beginning(acks.clone());
        recording.said.iter().for_each(|(_, line)| last.hear(line));
        self.found.commits += last.commits;
        self.found.flushes += recording.syncs();
        if let Some(why) = last.stopped {
            self.found.bad("stopped", format!("the load stopped by itself: {why}"));
        }
        let missed = self.steps.missed();
        let order: Vec<_> = missed.iter().chain(&PHASES).copied().collect();
        for phase in order.iter().cycle().take(cuts) {
            if let Some(cut) = self.pick(&recording, &acks, phase) {
                self.judge(&recording, &cut, &kept)?;
            }
        }
        Ok(())
    }

    fn record(&mut self, live: &Path, base: Tree, acks: &Acks) -> Tried<Recording> {
        let told = self.dir.join("trace");
        let mut strace = Command::new("strace");
        strace
            .args([
                "-f",
                "-qq",
                "-xx",
                "-s",
                STRING_BYTES_MAX,
                "--seccomp-bpf",
                "-e",
                "signal=none",
            ])
            .args(["-e", "raw=read,readv", "-e", &format!("trace={CALLS}"), "-o"])
            .arg(&told)
            .arg(std::env::current_exe()?);
        let worker = Worker::start_under(strace, self.load, &live.join("data"), self.dice.roll(), acks.clone())?;
        let began = Instant::now();
        while began.elapsed() < LOAD_PATIENCE
            && fs::metadata(&told).map_or(0, |told| told.len()) < TRACE_BYTES_MAX
            && !worker.await_phase("load", PHASES_WANTED, Duration::from_millis(50))
            && worker.seen().stopped.is_none()
        {}
        drop(worker);
        let recording = Recorder::new(live, base).read(BufReader::new(File::open(&told)?));
        fs::remove_file(&told)?;
        recording.map_err(doing("the trace"))
    }

    /// A moment in a phase, mostly one with something to lose.
    fn pick(&mut self, recording: &Recording, acks: &Acks, phase: &'static str) -> Option<Cut> {
        let spans = spans(recording, phase);
        let mut best = None;
        for _ in 0..PICKS_MAX {
            let (from, to) = self.dice.pick(&spans).copied()?;
            let events = usize::try_from(self.dice.between(from as u64, to as u64)).ok()?;
            let owed = Owed::after(recording.events.get(..events)?, self.syncs);
            let enough = owed.open() > 0 || self.dice.chance(20);
            best = Some(events);
            if enough {
                break;
            }
        }
        let events = best?;
        let mut seen = Seen::beginning(acks.clone());
        let said = recording.said.iter().take_while(|(at, _)| *at <= events);
        said.for_each(|(_, line)| seen.hear(line));
        self.steps.hit(phase);
        self.found.cuts += 1;
        Some(Cut { events, seen })
    }

    fn judge(&mut self, recording: &Recording, cut: &Cut, kept: &Path) -> Tried<()> {
        let image = self.dir.join("image");
        let owed = Owed::after(recording.events.get(..cut.events).unwrap_or_default(), self.syncs);
        let open = owed.open();
        let go_on = self.dice.pick(&Variant::EVERY).copied();
        for variant in Variant::EVERY {
            let tree = owed.tree(&recording.base, variant, &mut self.dice);
            clear(&image)?;
            tree.write(&image)?;
            self.found.images += 1;
            self.found.unflushed += u64::from(open > 0);
            match super::judge(self.load, &image.join("data"), &cut.seen.acks)? {
                Ok(found) if Some(variant) == go_on => {
                    clear(kept)?;
                    tree.write(kept)?;
                    self.next = Some(found);
                }
                Ok(_) => {}
                Err((kind, words)) => {
                    let (load, phase, variant) = (self.load.kind.name(), cut.seen.phase, variant.name());
                    self.found.bad(
                        &kind,
                        format!("{load}, {phase}, {variant} of {open} unsynced kept: {kind}: {words}"),
                    );
                }
            }
        }
        clear(&image)
    }
}

/// From which event to which a phase lasted, each time.
fn spans(recording: &Recording, phase: &str) -> Vec<(usize, usize)> {
    let begun: Vec<_> = recording
        .said
        .iter()
        .filter_map(|(at, line)| Some((*at, line.strip_prefix("phase ")?)))
        .collect();
    let ends = begun.iter().skip(1).map(|(at, _)| *at).chain([recording.events.len()]);
    begun
        .iter()
        .zip(ends)
        .filter(|((_, name), _)| *name == phase)
        .map(|((from, _), to)| (*from, to))
        .collect()
}

fn clear(dir: &Path) -> Tried<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
