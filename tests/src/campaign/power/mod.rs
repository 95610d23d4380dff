//! Power cuts. The real store runs on a real ext4 on a loop device on a virtual disk that knows what was flushed. At a cut the list of
//! acknowledgements is frozen; what is left on the disk is what was flushed, and nothing, a random part, or all of the rest. Each such image
//! is mounted (ext4 replays its journal), opened through the store's checks, and compared. R-STORE-1, R-AUDIT-1, R-AUDIT-2.
//! `replay` asks the same without a disk of its own, and is all there is where FUSE is missing.
//!
//! Reading order: `load` (what is written), `worker`, `check` (the judge), `device` (the disk), `rig` (loop device, ext4), this file, `replay`.

mod check;
pub mod device;
pub mod load;
mod replay;
mod rig;
mod worker;

pub use check::{Acks, run as check};

use super::{Dice, Plan, Report, Steps, Tried, report::say};
use load::{Kind, Load};
use rig::{Frozen, Mounted, VirtualDisk};
use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use strongroomd::store::EngineKind;
use worker::{PHASES, Seen, Worker};

const METHOD: &str = "A FUSE virtual disk under a loop device with a real ext4; at a cut, flushed blocks are kept and none, a random part \
    (4 KiB or 512 B pieces), or all of the unflushed ones. \
    Replay: what the load did, seen through strace; at a cut, what was synced and the same three of the rest.";
/// A phase that does not come.
const PHASE_PATIENCE: Duration = Duration::from_secs(60);
/// A judge that does not answer.
const JUDGE_PATIENCE: Duration = Duration::from_secs(180);
/// Rounds beyond the plan, for steps that were not hit.
const EXTRA_ROUNDS_MAX: u64 = 12;

/// What a cut leaves of the unflushed writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Variant {
    Nothing,
    Pages,
    Sectors,
    All,
}

impl Variant {
    pub const EVERY: [Self; 4] = [Self::Nothing, Self::Pages, Self::Sectors, Self::All];
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Pages => "4k",
            Self::Sectors => "512",
            Self::All => "all",
        }
    }
    pub fn named(name: &str) -> Option<Self> {
        Self::EVERY.into_iter().find(|variant| variant.name() == name)
    }
    /// The size of the pieces that are kept or lost.
    const fn piece(self) -> Option<usize> {
        match self {
            Self::Nothing | Self::All => None,
            Self::Pages => Some(4096),
            Self::Sectors => Some(512),
        }
    }
}

/// What a series of rounds found.
#[derive(Default)]
struct Found {
    cuts: u64,
    images: u64,
    /// Images that had something to lose.
    unflushed: u64,
    commits: u64,
    flushes: u64,
    bad: BTreeMap<String, u64>,
    words: Vec<String>,
}

impl Found {
    fn bad(&mut self, kind: &str, words: String) {
        *self.bad.entry(kind.to_owned()).or_default() += 1;
        self.words.push(words);
    }
    fn bad_count(&self) -> u64 {
        self.bad.values().sum()
    }
    fn figure(&self) -> String {
        let kinds: Vec<_> = self.bad.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        let kinds = if kinds.is_empty() {
            String::new()
        } else {
            format!(" ({})", kinds.join(", "))
        };
        format!(
            "{} images of {} cuts, {} with unflushed writes; {} acknowledged commits, {} flushes; bad: {}{kinds}",
            self.images,
            self.cuts,
            self.unflushed,
            self.commits,
            self.flushes,
            self.bad_count()
        )
    }
}

/// Where a round begins: an empty disk, or what an earlier cut left and what held there.
struct Start {
    template: PathBuf,
    acks: Option<Acks>,
}

struct Series<'a> {
    load: Load,
    dir: &'a Path,
    blank: &'a Path,
    ignore_flush: bool,
    dice: Dice,
    steps: Steps,
    found: Found,
    next: Option<Start>,
}

/// A cut, and what had been acknowledged.
struct Cut {
    acks: Acks,
    frozen: Frozen,
}

impl<'a> Series<'a> {
    fn new(load: Load, dir: &'a Path, blank: &'a Path, dice: Dice) -> Self {
        Self {
            load,
            dir,
            blank,
            ignore_flush: false,
            dice,
            steps: Steps::of(&PHASES),
            found: Found::default(),
            next: None,
        }
    }

    /// One load on one disk, cut at each of `targets` in turn.
    fn round(&mut self, targets: &[&str]) -> Tried<()> {
        let start = self.next.take().unwrap_or_else(|| Start {
            template: self.blank.into(),
            acks: None,
        });
        let mut disk = VirtualDisk::start(self.dir, &start.template, self.ignore_flush)?;
        let acks = start.acks.unwrap_or_else(|| Acks::none(self.load.writers()));
        let home = disk.mounted.path().join("data");
        let worker = Worker::start(self.load, &home, self.dice.roll(), acks)?;
        let mut last = None;
        for target in targets {
            let Some((cut, seen)) = self.cut(&mut disk, &worker, target)? else {
                break;
            };
            self.found.commits = self.found.commits.max(seen.commits);
            last = self.judge_all(&mut disk, &cut)?;
        }
        if let Some(why) = worker.seen().stopped {
            self.found.bad("stopped", format!("the load stopped by itself: {why}"));
        }
        drop(worker);
        drop(disk);
        self.next = last;
        Ok(())
    }

    fn cut(&mut self, disk: &mut VirtualDisk, worker: &Worker, target: &str) -> Tried<Option<(Cut, Seen)>> {
        if !worker.await_phase(target, worker.seen().phases.saturating_sub(1), PHASE_PATIENCE) {
            return Ok(None);
        }
        let wait = match target {
            "load" => self.dice.between(1, 900_000),
            "closing" => self.dice.below(8_000),
            _ => self.dice.below(25_000),
        };
        std::thread::sleep(Duration::from_micros(wait));
        let seen = worker.seen();
        let unflushed = if self.dice.chance(20) {
            0
        } else {
            self.dice.between(1, 6)
        };
        let frozen = disk.freeze(unflushed)?;
        self.steps.hit(seen.phase);
        self.found.cuts += 1;
        self.found.flushes = frozen.flushes;
        Ok(Some((
            Cut {
                acks: seen.acks.clone(),
                frozen,
            },
            seen,
        )))
    }

    /// Every variant of the last cut; a good one to go on from.
    fn judge_all(&mut self, disk: &mut VirtualDisk, cut: &Cut) -> Tried<Option<Start>> {
        let (image, keep) = (self.dir.join("image"), self.dir.join("keep"));
        let go_on = self.dice.pick(&Variant::EVERY).copied();
        let mut next = None;
        for variant in Variant::EVERY {
            let seed = self.dice.roll();
            disk.image(variant, seed, &image)?;
            self.found.images += 1;
            self.found.unflushed += u64::from(cut.frozen.unflushed > 0);
            match self.judge(&image, &cut.acks)? {
                Ok(found) if Some(variant) == go_on => {
                    disk.image(variant, seed, &keep)?;
                    next = Some(Start {
                        template: keep.clone(),
                        acks: Some(found),
                    });
                }
                Ok(_) => {}
                Err((kind, words)) => {
                    let (load, variant) = (self.load.kind.name(), variant.name());
                    self.found.bad(
                        &kind,
                        format!(
                            "{load}, {variant} of {} unflushed kept: {kind}: {words}",
                            cut.frozen.unflushed
                        ),
                    );
                }
            }
        }
        Ok(next)
    }

    fn judge(&self, image: &Path, acks: &Acks) -> Tried<Result<Acks, (String, String)>> {
        let mounted = match Mounted::image(image, &self.dir.join("judged")) {
            Ok(mounted) => mounted,
            Err(error) => return Ok(Err(("ext4".into(), error.to_string()))),
        };
        judge(self.load, &mounted.path().join("data"), acks)
    }
}

/// What a process finds in a load's directory: what is there, or a word for what is wrong and details.
fn judge(load: Load, data: &Path, acks: &Acks) -> Tried<Result<Acks, (String, String)>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["power-check", load.kind.name(), load.engine.name()]);
    command.arg(data).arg(acks.to_text());
    let (line, errors) = run_bounded(command, JUDGE_PATIENCE)?;
    let mut words = line.trim().splitn(3, ' ');
    Ok(match (words.next(), words.next(), words.next()) {
        (Some("ok"), Some(found), _) => Ok(Acks::parse(found)?),
        (Some("bad"), Some(kind), details) => Err((kind.into(), details.unwrap_or_default().into())),
        _ => Err((
            "panic".into(),
            errors
                .lines()
                .find(|line| line.contains("panicked"))
                .unwrap_or(&errors)
                .into(),
        )),
    })
}

/// Runs a process to its end; what it wrote to standard output and standard error.
pub(super) fn run_bounded(mut command: Command, patience: Duration) -> Tried<(String, String)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (mut out, mut err) = (
        child.stdout.take().ok_or("no output")?,
        child.stderr.take().ok_or("no errors")?,
    );
    let out = std::thread::spawn(move || read_all(&mut out));
    let err = std::thread::spawn(move || read_all(&mut err));
    let until = Instant::now() + patience;
    while child.try_wait()?.is_none() {
        if Instant::now() > until {
            child.kill()?;
            child.wait()?;
            return Ok((String::new(), "it hangs".into()));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok((out.join().unwrap_or_default(), err.join().unwrap_or_default()))
}

fn read_all(from: &mut impl Read) -> String {
    let mut text = String::new();
    let _ = from.read_to_string(&mut text);
    text
}

/// Runs the suite; whether it held.
pub fn run(plan: Plan) -> Tried<bool> {
    let mut report = Report::of("power", METHOD, plan);
    let dir = super::scratch("power")?;
    match rig::missing() {
        None => on_disks(&mut report, plan, dir.path())?,
        Some(why) => {
            say("  ****************************************************************************************");
            say(format_args!("  NO DISK LOST POWER: {why}."));
            say("  Only the replay of what was synced tells of durability: a model, no file system, judges.");
            say("  ****************************************************************************************");
            report.figure(format_args!("NO DISK: {why}; the replay alone"));
        }
    }
    replay::run(&mut report, plan, dir.path())?;
    Ok(report.end())
}

fn on_disks(report: &mut Report, plan: Plan, dir: &Path) -> Tried<()> {
    let blank = dir.join("blank");
    rig::make_template(&blank)?;
    let dice = Dice::new(plan.seed);
    for (index, load) in Load::every().enumerate() {
        let (found, steps) = series(load, plan, dir, &blank, dice.fork(index as u64))?;
        tell(report, load, "", &found, &steps);
    }
    let found = control(dir, &blank, dice.fork(20))?;
    report.control("the disk ignores FLUSH", found.bad_count(), found.images);
    Ok(())
}

/// The figures of a series. What sled loses is written down, and is no failure.
fn tell(report: &mut Report, load: Load, how: &str, found: &Found, steps: &Steps) {
    let (engine, kind) = (load.engine.name(), load.kind.name());
    if load.engine == EngineKind::Sled {
        report.figure(format_args!(
            "{how}sled (losing is expected), {kind} commits: {}",
            found.figure()
        ));
        if let Some(words) = found.words.first() {
            report.figure(format_args!("{how}sled, the first of them: {words}"));
        }
        return;
    }
    found
        .words
        .iter()
        .for_each(|words| report.broken(format_args!("{how}{words}")));
    report.figure(format_args!("{how}{engine}, {kind} commits: {}", found.figure()));
    report.steps(&format!("{how}cuts during ({kind})"), steps);
}

/// Rounds until there are enough images and each step was hit.
fn series(load: Load, plan: Plan, dir: &Path, blank: &Path, dice: Dice) -> Tried<(Found, Steps)> {
    let is_sled = load.engine == EngineKind::Sled;
    let images = plan.scale.pick(if is_sled { 4 } else { 8 }, 100);
    let cuts = plan.scale.pick(1, 3);
    let mut series = Series::new(load, dir, blank, dice);
    let (mut total, mut rounds) = (Found::default(), 0);
    let orders = [
        ["making", "load", "closing"],
        ["reopening", "closing", "load"],
        ["load", "reopening", "load"],
        ["closing", "load", "reopening"],
    ];
    while total.images < images
        || (!is_sled && !series.steps.missed().is_empty() && rounds < images / 4 + EXTRA_ROUNDS_MAX)
    {
        let mut order = orders
            .get(usize::try_from(rounds % 4).unwrap_or_default())
            .copied()
            .unwrap_or_default();
        if let Some(missed) = series.steps.missed().first().filter(|_| total.images >= images) {
            order = [missed, "load", "closing"];
        }
        // Every fourth round begins on an empty disk, the others on what the last cut left.
        if order.first() == Some(&"making") {
            series.next = None;
        }
        series.round(order.get(..cuts).unwrap_or(&order))?;
        let round = std::mem::take(&mut series.found);
        total.add(round);
        rounds += 1;
    }
    let _ = fs::remove_file(dir.join("keep"));
    Ok((total, series.steps))
}

impl Found {
    fn add(&mut self, other: Self) {
        self.cuts += other.cuts;
        self.images += other.images;
        self.unflushed += other.unflushed;
        self.commits += other.commits;
        self.flushes += other.flushes;
        other
            .bad
            .into_iter()
            .for_each(|(kind, count)| *self.bad.entry(kind).or_default() += count);
        self.words.extend(other.words);
    }
}

/// The control: a disk that lies. Acknowledgements must be found missing.
fn control(dir: &Path, blank: &Path, dice: Dice) -> Tried<Found> {
    let load = Load {
        kind: Kind::Default,
        engine: EngineKind::Fjall,
    };
    let mut series = Series::new(load, dir, blank, dice);
    series.ignore_flush = true;
    series.round(&["load", "closing"])?;
    Ok(series.found)
}
