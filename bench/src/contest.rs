//! A contest: several systems, the same load, in turn, round after round; every figure is a median over rounds, every ratio one of pairs of the
//! same round.

use crate::{
    Fault, Options,
    host::{self, Spent},
    load::{self, Callers, Ran, Until},
};
use std::time::Duration;

/// Windows in which the server's threads waited for a core for more of the time than this are marked.
pub const WAIT_SHARE_MAX: f64 = 0.10;

/// What a system is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Strongroom.
    Ours,
    /// The one that ratios are taken to.
    Peer,
    /// Another way to run the peer.
    Other,
    /// What the machine can do.
    Limit,
}

/// One system with its connections.
pub struct Contender {
    /// As the table names it.
    pub name: String,
    /// What it is to us.
    pub role: Role,
    /// What an answer waits for.
    pub durability: &'static str,
    /// The server's process; `None`: only rate and latency are known.
    pub pid: Option<u32>,
    /// Its connections.
    pub callers: Callers,
}

/// One window.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Requests a second.
    pub rate: f64,
    /// Microseconds.
    pub p50: f64,
    /// Microseconds.
    pub p99: f64,
    /// Microseconds.
    pub p999: f64,
    /// Microseconds of the server's process a request.
    pub cpu: f64,
    /// See [`host::Spent::waited`].
    pub waited: f64,
    /// See [`host::Spent::foreign`].
    pub foreign: f64,
}

impl Window {
    /// What was done, and what the server spent on it.
    pub fn new(ran: &Ran, spent: Spent) -> Self {
        #[allow(clippy::cast_precision_loss)]
        let done = ran.latency.len().max(1) as f64;
        Self {
            rate: ran.rate(),
            p50: ran.micros(0.5),
            p99: ran.micros(0.99),
            p999: ran.micros(0.999),
            cpu: spent.cpu_secs * 1e6 / done,
            waited: spent.waited,
            foreign: spent.foreign,
        }
    }
}

/// All windows of a system.
#[derive(Debug, Clone)]
pub struct Row {
    /// As the table names it.
    pub name: String,
    /// What it is to us.
    pub role: Role,
    /// What an answer waits for.
    pub durability: &'static str,
    /// One a round.
    pub windows: Vec<Window>,
    /// MiB after the last window; 0 when unknown.
    pub rss_mb: f64,
}

/// Which figure a ratio is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// Server CPU a request: less is better.
    Cpu,
    /// Requests a second: more is better.
    Rate,
    /// Median latency: less is better.
    P50,
    /// The latency that one request in a hundred is above: less is better.
    P99,
}

impl Figure {
    /// Its name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Rate => "rate",
            Self::P50 => "p50",
            Self::P99 => "p99",
        }
    }
    fn better(self, ours: &Window, other: &Window) -> f64 {
        match self {
            Self::Cpu => other.cpu / ours.cpu,
            Self::Rate => ours.rate / other.rate,
            Self::P50 => other.p50 / ours.p50,
            Self::P99 => other.p99 / ours.p99,
        }
    }
}

/// Median, least and most.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

/// Of any numbers; all zero for none.
pub fn spread(values: impl Iterator<Item = f64>) -> Spread {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
    let (middle, last) = (sorted.len() / 2, sorted.len().saturating_sub(1));
    let median = if sorted.len() % 2 == 1 {
        at(middle)
    } else {
        f64::midpoint(at(middle.saturating_sub(1)), at(middle))
    };
    Spread {
        median,
        min: at(0),
        max: at(last),
    }
}

impl Row {
    /// A figure over the rounds.
    pub fn spread(&self, figure: impl Fn(&Window) -> f64) -> Spread {
        spread(self.windows.iter().map(figure))
    }
    /// How many times better we are, paired by round.
    pub fn ratio(&self, ours: &Self, figure: Figure) -> Spread {
        spread(
            ours.windows
                .iter()
                .zip(&self.windows)
                .map(|(ours, other)| figure.better(ours, other)),
        )
    }
    /// Windows that are to be distrusted.
    pub fn crowded(&self) -> usize {
        self.windows
            .iter()
            .filter(|window| window.waited > WAIT_SHARE_MAX)
            .count()
    }
}

/// Before each window, unmeasured.
const WARM_UP: Duration = Duration::from_millis(300);

/// Runs all rounds, in closed loops.
/// # Errors
/// Any failed request.
pub async fn hold(options: &Options, contenders: &mut [Contender]) -> Result<Vec<Row>, Fault> {
    hold_until(options, Until::Time(Duration::from_secs_f64(options.secs)), contenders).await
}

/// Runs all rounds, each window until `length`.
/// # Errors
/// Any failed request.
pub async fn hold_until(options: &Options, length: Until, contenders: &mut [Contender]) -> Result<Vec<Row>, Fault> {
    let mut rows: Vec<Row> = contenders.iter().map(Contender::row).collect();
    for _ in 0..options.rounds {
        for (contender, row) in contenders.iter_mut().zip(&mut rows) {
            load::run(&mut contender.callers, Until::Time(WARM_UP))
                .await
                .map_err(|fault| contender.blame(&fault))?;
            row.windows.push(contender.window(length).await?);
            row.rss_mb = contender.pid.map_or(0.0, host::rss_mb);
        }
    }
    Ok(rows)
}

impl Contender {
    /// Its row, still without windows.
    pub fn row(&self) -> Row {
        Row {
            name: self.name.clone(),
            role: self.role,
            durability: self.durability,
            windows: Vec::new(),
            rss_mb: 0.0,
        }
    }

    /// Measures once.
    /// # Errors
    /// Any failed request.
    pub async fn window(&mut self, until: Until) -> Result<Window, Fault> {
        let before = host::read(self.pid);
        let ran = load::run(&mut self.callers, until)
            .await
            .map_err(|fault| self.blame(&fault))?;
        Ok(Window::new(&ran, before.until_now(self.pid)))
    }

    fn blame(&self, fault: &Fault) -> Fault {
        format!("a request to {} failed, so there are no figures: {fault}", self.name).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(rate: f64, cpu: f64) -> Window {
        Window {
            rate,
            p50: 1e6 / rate,
            p99: 0.0,
            p999: 0.0,
            cpu,
            waited: 0.2,
            foreign: 0.0,
        }
    }
    fn row(windows: Vec<Window>) -> Row {
        Row {
            name: String::new(),
            role: Role::Ours,
            durability: "D2",
            windows,
            rss_mb: 0.0,
        }
    }

    /// Ratios are of pairs of one round, not of two medians.
    #[test]
    fn ratios_are_paired() {
        let ours = row(vec![window(100.0, 10.0), window(10.0, 20.0), window(40.0, 5.0)]);
        let peer = row(vec![window(10.0, 100.0), window(5.0, 40.0), window(1.0, 45.0)]);
        assert!((peer.ratio(&ours, Figure::Rate).median - 10.0).abs() < 1e-9);
        assert!((peer.ratio(&ours, Figure::Cpu).median - 9.0).abs() < 1e-9);
        assert!((peer.ratio(&ours, Figure::P50).max - 40.0).abs() < 1e-9);
        assert_eq!(ours.crowded(), 3);
    }

    #[test]
    fn spreads() {
        let of = |values: &[f64]| spread(values.iter().copied());
        assert!((of(&[3.0, 1.0, 2.0]).median - 2.0).abs() < 1e-9);
        assert!((of(&[4.0, 1.0]).median - 2.5).abs() < 1e-9);
        assert!((of(&[]).max).abs() < 1e-9);
    }
}
