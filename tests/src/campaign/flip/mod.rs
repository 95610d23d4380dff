//! Flips. A store with every kind of record is made by the rooms that own them; then one bit is changed, in a file or in a stored row, the
//! store is opened as the daemon would, everything is read in every way, and the audit log verified. The damage is found or harmless; never
//! a panic, a wrong answer, or a damaged `forbid` that opens a door. R-STORE-2, R-STORE-4, R-AUDIT-2, R-POL-1.
//!
//! Reading order: `rooms`, `fixture` and `made` (what is damaged), `judge`, `trial` (a process of its own), this file.

mod fixture;
mod judge;
mod made;
mod rooms;
mod trial;

pub use trial::run as trials;

use super::{Dice, Plan, Report, Scale, Steps, Tried, report::say};
use judge::{Class, Verdict};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Instant,
};
use strongroomd::store::{RawTable, Table};
use trial::{Fixture, Flip, Trials};

const METHOD: &str = "One bit of a copy of the store is changed, in every written byte of every file (a journal's and a segment's unused tail \
    excepted) of a store that lies in the engine's journal and of one that lies in its tables, and in every byte of every stored row.";
/// Trials at once.
const PROCESSES: usize = 2;
/// Flips of the short form, for each of the three sorts.
const SHORT_FLIPS: u64 = 700;
/// Of a data directory that the daemon made, whole: sampled, for it has many.
const MADE_FLIPS: u64 = 20_000;
const CONTROL_FLIPS: u64 = 500;
/// Where the files of a store lie.
const PLACES: [&str; 5] = [
    "journal",
    "engine table",
    "engine version file",
    "audit segment",
    "other file",
];

fn place(path: &Path) -> &'static str {
    let text = path.to_string_lossy();
    match () {
        () if text.starts_with("audit/") => "audit segment",
        () if text.ends_with(".jnl") => "journal",
        () if text.contains("/tables/") => "engine table",
        () if text.contains("/engine/") => "engine version file",
        () => "other file",
    }
}

/// The kind of a stored row, by its key.
fn row_kind(key: &[u8]) -> &'static str {
    let id = key.get(4).copied().unwrap_or_default();
    let table = Table::ALL
        .iter()
        .find(|table| table.id() == id)
        .map(|table| table.words());
    table
        .or(RawTable::ALL
            .iter()
            .find(|table| table.id() == id)
            .map(|table| table.words()))
        .unwrap_or("unknown")
}

/// What a sort of flips came to.
#[derive(Default)]
struct Tally {
    classes: BTreeMap<&'static str, u64>,
    policies: u64,
    bad: Vec<String>,
    errors: BTreeMap<String, u64>,
}

impl Tally {
    fn add(&mut self, flip: &str, verdict: &Verdict) {
        *self.classes.entry(verdict.class.name()).or_default() += 1;
        self.policies += u64::from(verdict.policies);
        match verdict.class {
            Class::Wrong | Class::Door | Class::Panic => {
                self.bad
                    .push(format!("{flip}: {}: {}", verdict.class.name(), verdict.words))
            }
            Class::Refused => *self.errors.entry(verdict.words.chars().take(60).collect()).or_default() += 1,
            Class::Found | Class::Harmless => {}
        }
    }
    fn merge(&mut self, other: Self) {
        other
            .classes
            .into_iter()
            .for_each(|(class, count)| *self.classes.entry(class).or_default() += count);
        other
            .errors
            .into_iter()
            .for_each(|(error, count)| *self.errors.entry(error).or_default() += count);
        self.policies += other.policies;
        self.bad.extend(other.bad);
    }
    fn total(&self) -> u64 {
        self.classes.values().sum()
    }
    fn words(&self) -> String {
        let words: Vec<_> = Class::ALL
            .iter()
            .map(|class| {
                format!(
                    "{} {}",
                    class.name(),
                    self.classes.get(class.name()).copied().unwrap_or(0)
                )
            })
            .collect();
        words.join(", ")
    }
}

/// A form of the store, ready for trials.
struct Form {
    name: &'static str,
    fixture: Fixture,
    dir: PathBuf,
    saved: PathBuf,
    work: PathBuf,
}

impl Form {
    fn new(name: &'static str, base: &Path, dir: &Path, expected: fixture::Expected) -> Tried<Self> {
        let work = base.join(format!("{name}-trial"));
        let fixture = Fixture::take(dir, expected, &work)?;
        let saved = base.join(format!("{name}.expected"));
        fixture.save(&saved)?;
        Ok(Self {
            name,
            fixture,
            dir: dir.into(),
            saved,
            work,
        })
    }

    fn every_byte(&self, dice: &mut Dice) -> Vec<Flip> {
        let files = self.fixture.files.iter().enumerate();
        let bytes = files.flat_map(|(file, kept)| (0..kept.written.len() as u64).map(move |offset| (file, offset)));
        bytes
            .map(|(file, offset)| Flip::File {
                file,
                offset,
                bit: bit(dice),
            })
            .collect()
    }

    fn every_row_byte(&self, dice: &mut Dice) -> Vec<Flip> {
        let rows = self.fixture.rows.values().enumerate();
        let bytes = rows.flat_map(|(row, stored)| (0..stored.len() as u64).map(move |offset| (row, offset)));
        bytes
            .map(|(row, offset)| Flip::Row {
                row,
                offset,
                bit: bit(dice),
            })
            .collect()
    }

    /// Where a flip falls.
    fn step(&self, flip: Flip) -> &'static str {
        match flip {
            Flip::File { file, .. } => self
                .fixture
                .files
                .get(file)
                .map_or("other file", |kept| place(&kept.path)),
            Flip::Row { row, .. } => self.fixture.rows.keys().nth(row).map_or("unknown", |key| row_kind(key)),
        }
    }

    fn words(&self, flip: Flip) -> String {
        match flip {
            Flip::File { file, offset, bit } => {
                let path = self
                    .fixture
                    .files
                    .get(file)
                    .map(|kept| kept.path.display().to_string())
                    .unwrap_or_default();
                format!("{}: {path}, byte {offset}, bit {bit}", self.name)
            }
            Flip::Row { offset, bit, .. } => {
                format!("{}: row of {}, byte {offset}, bit {bit}", self.name, self.step(flip))
            }
        }
    }

    /// All of them, or `limit`, of which some in every place.
    fn sample(&self, mut flips: Vec<Flip>, limit: Option<u64>, dice: &mut Dice) -> Vec<Flip> {
        let Some(limit) = limit else { return flips };
        let mut by_step: BTreeMap<&str, Vec<Flip>> = BTreeMap::new();
        flips
            .drain(..)
            .for_each(|flip| by_step.entry(self.step(flip)).or_default().push(flip));
        let (share, mut chosen, mut rest) = (limit / by_step.len().max(1) as u64, Vec::new(), Vec::new());
        for flips in by_step.into_values() {
            let wanted = share.min(flips.len() as u64);
            chosen.extend((0..wanted).filter_map(|_| dice.pick(&flips).copied()));
            rest.extend(flips);
        }
        // What a small place left over goes to all of them.
        let left = limit.saturating_sub(chosen.len() as u64);
        chosen.extend((0..left).filter_map(|_| dice.pick(&rest).copied()));
        chosen
    }

    fn run(&self, flips: &[Flip], bare: bool) -> Tried<Tally> {
        let (began, share) = (Instant::now(), flips.len().div_ceil(PROCESSES).max(1));
        let parts = std::thread::scope(|scope| {
            let one = |(index, part): (usize, &[Flip])| {
                let work = self.work.with_extension(index.to_string());
                let mut trials = Trials::new(self.dir.clone(), self.saved.clone(), work, bare);
                let part = part.to_vec();
                scope.spawn(move || {
                    let mut tally = Tally::default();
                    for flip in part {
                        tally.add(&self.words(flip), &trials.try_one(flip)?);
                    }
                    Tried::Ok(tally)
                })
            };
            let running: Vec<_> = flips.chunks(share).enumerate().map(one).collect();
            running
                .into_iter()
                .map(|thread| thread.join().map_err(|_| "a trial's thread panicked"))
                .collect::<Vec<_>>()
        });
        let mut tally = Tally::default();
        for part in parts {
            tally.merge(part??);
        }
        say(format_args!(
            "  ({} flips in {} s)",
            flips.len(),
            began.elapsed().as_secs()
        ));
        Ok(tally)
    }
}

fn bit(dice: &mut Dice) -> u8 {
    u8::try_from(dice.below(8)).unwrap_or_default()
}

/// Runs the suite; whether it held.
pub fn run(plan: Plan) -> Tried<bool> {
    let mut report = Report::of("flip", METHOD, plan);
    let base = super::scratch("flip")?;
    let [journal, tables, made] = forms(base.path(), plan)?;
    let limit = (plan.scale == Scale::Short).then_some(SHORT_FLIPS);
    let mut dice = Dice::new(plan.seed).fork(2);
    let mut places = Steps::of(&PLACES);
    let mut policies = 0;
    for form in [&journal, &tables] {
        let flips = form.sample(form.every_byte(&mut dice), limit, &mut dice);
        flips.iter().for_each(|flip| places.hit(form.step(*flip)));
        policies += tell(
            &mut report,
            &format!("bytes of a store in its {}", form.name),
            &form.run(&flips, false)?,
        );
    }
    report.steps("flips in", &places);
    let kinds = Table::ALL.iter().map(|table| table.words());
    let raw = RawTable::ALL
        .iter()
        .filter(|table| !matches!(table, RawTable::Outbox | RawTable::Quarantine))
        .map(|table| table.words());
    let kinds: Vec<_> = kinds.chain(raw).collect();
    let mut rows = Steps::of(&kinds);
    let flips = journal.sample(journal.every_row_byte(&mut dice), limit, &mut dice);
    flips.iter().for_each(|flip| rows.hit(journal.step(*flip)));
    policies += tell(&mut report, "bytes of stored rows", &journal.run(&flips, false)?);
    report.steps("flips in rows of", &rows);
    let limit = plan.scale.pick(SHORT_FLIPS, MADE_FLIPS);
    for (what, flips) in [
        ("bytes", made.every_byte(&mut dice)),
        ("row bytes", made.every_row_byte(&mut dice)),
    ] {
        let (all, flips) = (flips.len(), made.sample(flips, Some(limit), &mut dice));
        policies += tell(
            &mut report,
            &format!("of the {all} {what} of a data directory that the daemon made"),
            &made.run(&flips, false)?,
        );
    }
    report.figure(format_args!(
        "flips that damaged the policies: {policies}; none of them let anybody read what is forbidden"
    ));
    if policies == 0 {
        report.broken("no flip damaged the policies");
    }
    controls(&mut report, &journal, &mut dice)?;
    Ok(report.end())
}

fn tell(report: &mut Report, what: &str, tally: &Tally) -> u64 {
    report.figure(format_args!("{} {what}: {}", tally.total(), tally.words()));
    tally.bad.iter().for_each(|words| report.broken(words));
    let mut errors: Vec<_> = tally.errors.iter().collect();
    errors.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    errors
        .iter()
        .take(8)
        .for_each(|(error, count)| say(format_args!("    refused {count}: {error}")));
    tally.policies
}

fn forms(base: &Path, plan: Plan) -> Tried<[Form; 3]> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let dice = Dice::new(plan.seed);
    let first = base.join("first");
    let expected = runtime.block_on(fixture::make(&first, dice.fork(1)))?;
    let journal = Form::new("journal", base, &first, expected.clone())?;
    // The second form goes on from a copy: two stores of one making.
    let second = base.join("second");
    super::copy_tree(&first, &second)?;
    let expected = runtime.block_on(fixture::flush(&second, expected, dice.fork(3)))?;
    let tables = Form::new("tables", base, &second, expected)?;
    let third = base.join("third");
    let expected = runtime.block_on(made::make(&third, dice.fork(4)))?;
    Ok([journal, tables, Form::new("daemon", base, &third, expected)?])
}

/// The same flips, read through the bare engine: without the barrier, and without the comparison of heads.
fn controls(report: &mut Report, form: &Form, dice: &mut Dice) -> Tried<()> {
    let sorts = [
        ("rows read without the barrier", form.every_row_byte(dice)),
        ("journal read without heads and log", form.every_byte(dice)),
    ];
    for (what, flips) in sorts {
        let flips: Vec<_> = match what {
            "rows read without the barrier" => flips,
            _ => flips.into_iter().filter(|flip| form.step(*flip) == "journal").collect(),
        };
        let flips: Vec<_> = (0..CONTROL_FLIPS).filter_map(|_| dice.pick(&flips).copied()).collect();
        let tally = form.run(&flips, true)?;
        report.control(what, tally.bad.len() as u64, tally.total());
    }
    Ok(())
}
