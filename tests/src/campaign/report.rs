//! What a suite did and found, printed so that the last lines can go into docs/CAMPAIGNS.md as they are.

use super::{Plan, Scale, Steps};
use std::{fmt::Display, process::Command, time::Instant};
use strongroomd::base::time::{Clock, SystemClock};

/// Broken invariants printed in full; further ones are counted.
const BROKEN_SHOWN_MAX: usize = 20;

/// See the module.
pub struct Report {
    suite: &'static str,
    method: &'static str,
    plan: Plan,
    began: Instant,
    /// What was built, as far as anybody can tell: the work tree may move on while a long campaign runs.
    commit: String,
    figures: Vec<String>,
    broken: Vec<String>,
}

impl Report {
    pub fn of(suite: &'static str, method: &'static str, plan: Plan) -> Self {
        say(format_args!("campaign {suite}: {:?}, seed {}", plan.scale, plan.seed));
        Self {
            suite,
            method,
            plan,
            began: Instant::now(),
            commit: commit(),
            figures: Vec::new(),
            broken: Vec::new(),
        }
    }
    /// A line of figures.
    pub fn figure(&mut self, line: impl Display) {
        say(format_args!("  {line}"));
        self.figures.push(line.to_string());
    }
    /// An invariant that did not hold.
    pub fn broken(&mut self, what: impl Display) {
        if self.broken.len() < BROKEN_SHOWN_MAX {
            say(format_args!("  BROKEN: {what}"));
        }
        self.broken.push(what.to_string());
    }
    /// Steps: their figures, and a failure for each that was missed.
    pub fn steps(&mut self, of: &str, steps: &Steps) {
        self.figure(format_args!("{of}: {}", steps.words()));
        for step in steps.missed() {
            self.broken(format_args!("{of}: no fault fell into the step `{step}`"));
        }
    }
    /// The control: `red` of `runs` runs without the protection were found out.
    pub fn control(&mut self, what: &str, red: u64, runs: u64) {
        self.figure(format_args!("control ({what}): {red} of {runs} red"));
        if red == 0 {
            self.broken(format_args!(
                "the control ({what}) stayed green: this suite would not notice"
            ));
        }
    }
    pub fn holds(&self) -> bool {
        self.broken.is_empty()
    }
    /// Prints the last lines; whether everything held.
    pub fn end(self) -> bool {
        let verdict = if self.holds() {
            "held".into()
        } else {
            format!("BROKEN ({})", self.broken.len())
        };
        let scale = match self.plan.scale {
            Scale::Short => "short",
            Scale::Whole => "whole",
        };
        let (now, commit, secs) = (
            SystemClock::default().now(),
            &self.commit,
            self.began.elapsed().as_secs(),
        );
        say(format_args!("\n### {}: {verdict}", self.suite));
        say(format_args!(
            "{now}, commit {commit}, {scale}, seed {}, {secs} s. {}\n",
            self.plan.seed, self.method
        ));
        self.figures.iter().for_each(|line| say(format_args!("- {line}")));
        self.broken
            .iter()
            .take(BROKEN_SHOWN_MAX)
            .for_each(|line| say(format_args!("- BROKEN: {line}")));
        say("");
        self.holds()
    }
}

fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .args(args)
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=10", "HEAD"]) else {
        return "unknown".into();
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty());
    if changed {
        format!("{commit} with local changes")
    } else {
        commit
    }
}

/// A campaign's output is its product.
#[allow(clippy::print_stdout)]
pub fn say(line: impl Display) {
    println!("{line}");
}
