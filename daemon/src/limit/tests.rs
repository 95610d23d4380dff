//! The limits against a reference that keeps everything, with clocks that jump; constant memory; adaptation.

use super::{
    count::Counts,
    places::Places,
    table::{Cell, Table},
    *,
};
use proptest::prelude::*;
use std::{collections::HashMap, time::Instant};

/// GCRA as the text books have it, one entry a caller, none ever forgotten but by a clock that went back.
#[derive(Default)]
struct Model(HashMap<u32, u64>);

impl Model {
    fn admit(&mut self, caller: u32, rate: Rate, now: u64) -> Result<(), u64> {
        if rate.is_off() {
            return Ok(());
        }
        let whole_at = self.0.entry(caller).or_default();
        if *whole_at > now + rate.burst_micros() {
            *whole_at = 0;
        }
        let from = (*whole_at).max(now);
        let latest = now + rate.burst_micros() - rate.every_micros();
        if from > latest {
            return Err(from - latest);
        }
        *whole_at = from + rate.every_micros();
        Ok(())
    }
}

fn rate() -> impl Strategy<Value = Rate> {
    prop_oneof![
        1 => Just(Rate::OFF),
        9 => (1_u64..2000, 1_u64..50).prop_map(|(per_sec, burst)| Rate::per_sec(per_sec, burst)),
    ]
}

/// So low that most callers are soon in debt.
fn tight() -> impl Strategy<Value = Rate> {
    (1_u64..50, 1_u64..5).prop_map(|(per_sec, burst)| Rate::per_sec(per_sec, burst))
}

/// Calls: who, and by how much the clock moved before.
fn calls(callers: u32, back: i64) -> impl Strategy<Value = Vec<(u32, i64)>> {
    let step = prop_oneof![
        6 => 0_i64..2_000,
        2 => 0_i64..2_000_000,
        1 => back..1,
        1 => 0_i64..4_000_000_000,
    ];
    prop::collection::vec((0..callers, step), 1..400)
}

fn moved(now: u64, step: i64) -> u64 {
    now.saturating_add_signed(step)
}

proptest! {
    // No seeds are kept: where a caller stands is random anew in each run.
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// R-POL-3: with room for everybody each caller has exactly what the reference gives it, waits included, however the clock jumps.
    #[test]
    fn a_table_is_its_reference(rate in rate(), calls in calls(40, -3_000_000_000)) {
        let (table, mut model, mut now) = (Table::new(CALLERS_MAX), Model::default(), 5_000_000_000);
        for (caller, step) in calls {
            now = moved(now, step);
            let got = table.admit(caller, rate, Duration::from_micros(now));
            let want = model.admit(caller, rate, now).map_err(Duration::from_micros);
            prop_assert_eq!(got, want, "caller {} at {}", caller, now);
        }
    }

    /// R-POL-3: one cell for everybody does the same.
    #[test]
    fn a_cell_is_its_reference(rate in rate(), calls in calls(1, -3_000_000_000)) {
        let (cell, mut model, mut now) = (Cell::default(), Model::default(), 5_000_000_000);
        for (_, step) in calls {
            now = moved(now, step);
            let want = model.admit(0, rate, now).map_err(Duration::from_micros);
            prop_assert_eq!(cell.admit(rate, Duration::from_micros(now)), want);
        }
    }

    /// R-POL-3: with too little room callers share cells: nobody ever gets more than the reference gives.
    #[test]
    fn a_crowded_table_is_only_stricter(rate in tight(), calls in calls(24, 0)) {
        let (table, mut model, mut now) = (Table::new(8), Model::default(), 5_000_000_000);
        for (caller, step) in calls {
            now = moved(now, step);
            if table.admit(caller, rate, Duration::from_micros(now)).is_ok() {
                prop_assert!(model.admit(caller, rate, now).is_ok(), "caller {} at {}", caller, now);
            }
        }
    }

    /// Whatever the cells say, waiting as long as one is told is enough, and never longer than a burst takes.
    #[test]
    fn waiting_as_told_is_enough(calls in calls(3, -3_000_000_000)) {
        let (rate, table, mut now) = (Rate::per_sec(7, 5), Table::new(64), 5_000_000_000);
        for (caller, step) in calls {
            now = moved(now, step);
            if let Err(wait) = table.admit(caller, rate, Duration::from_micros(now)) {
                prop_assert!(wait <= Duration::from_micros(rate.burst_micros()));
                now += u64::try_from(wait.as_micros()).unwrap();
                prop_assert!(table.admit(caller, rate, Duration::from_micros(now)).is_ok());
            }
        }
    }

    /// Fuzz: any text is a rate or an error.
    #[test]
    fn hostile_rates(text in "\\PC{0,30}", number in any::<u64>(), unit in "[smhd]?") {
        let _ = text.parse::<Rate>();
        let _ = format!("{number}/{unit} burst {number}").parse::<Rate>();
    }
}

#[test]
fn rates_are_read_as_they_are_written() {
    for (text, want) in [
        ("off", Some((0, 0))),
        ("200/s", Some((5_000, 200))),
        ("200/s burst 1000", Some((5_000, 1000))),
        ("10/m", Some((6_000_000, 10))),
        ("3/h burst 1", Some((1_200_000_000, 1))),
        ("1000000/s", Some((1, 1_000_000))),
        ("3000/s", Some((334, 3000))),
        ("0/s", None),
        ("1000001/s", None),
        ("5", None),
        ("5/d", None),
        ("5/s burst 0", None),
        ("5/s burst", None),
        ("5/s  burst 3", None),
        ("-5/s", None),
        ("+5/s", None),
        ("", None),
        ("1/h burst 721", None),
    ] {
        let got = text.parse::<Rate>().ok();
        assert_eq!(
            got.map(|rate| (rate.every_micros(), rate.burst_micros() / rate.every_micros().max(1))),
            want,
            "{text:?}"
        );
    }
}

fn limiter(rates: Rates) -> Limiter {
    Limiter::new(
        rates,
        &Bounds {
            requests_max: 64,
            latency_target: Duration::from_millis(100),
            connections_per_source_max: 3,
        },
    )
}

fn rates() -> Rates {
    let (low, off) = (Rate::per_sec(10, 5), Rate::OFF);
    Rates {
        handshakes_per_source: low,
        calls_per_source: low,
        logins_per_source: low,
        relief_per_source: low,
        reads: [Rate::per_sec(10, 8), low],
        changes: [low, low],
        acts: [off, off],
        relief: [low, low],
        all: [off, Rate::per_sec(10, 12), off, off],
    }
}

/// R-POL-3: each dimension has its own allowance: lanes, kinds of work, tokens of one identity, identities, and everybody together.
#[test]
fn allowances_are_apart() {
    let (limits, now) = (limiter(rates()), Duration::from_secs(100));
    let source = "192.0.2.1";
    let calls = |lane| (0..9).take_while(|_| limits.call(source, lane, now).is_ok()).count();
    assert_eq!(
        [calls(Lane::Ordinary), calls(Lane::LogIn), calls(Lane::Reserved)],
        [5, 5, 5]
    );
    let over = limits.call(source, Lane::Reserved, now).unwrap_err();
    assert_eq!(
        (over.limit, over.wait),
        ("relief_per_source", Duration::from_millis(100))
    );
    assert!(limits.call("192.0.2.2", Lane::Ordinary, now).is_ok(), "another source");

    let does = |identity: u8, token: u8, work, n: usize| {
        (0..n)
            .filter_map(|_| limits.work(&[identity; 16], &[token; 16], work, now).err())
            .map(|over| over.limit)
            .collect::<Vec<_>>()
    };
    assert_eq!(does(1, 1, Work::Read, 7), ["reads_per_token"; 2]);
    assert_eq!(does(1, 2, Work::Read, 4), ["reads_per_identity"], "its tokens together");
    assert_eq!(does(2, 3, Work::Read, 5), ["reads"], "everybody together");
    assert_eq!(does(1, 1, Work::Change, 5), [""; 0], "another kind of work");
    assert_eq!(
        does(1, 1, Work::Relief, 5),
        [""; 0],
        "the reserved lane is not used up by what is ordinary"
    );
    assert_eq!(does(1, 1, Work::Act, 1000), [""; 0], "off");
}

/// R-POL-3: a million sources, identities and tokens later the tables are as large as they were, and each was still told apart.
#[test]
fn memory_is_constant_under_a_million_sources() {
    let limits = limiter(rates());
    let before = limits.bytes();
    let mut refused = 0;
    for n in 0..1_000_000_u32 {
        // 100,000 a second: what a cell forgets is over.
        let now = Duration::from_micros(u64::from(n) * 10);
        let caller = u128::from(n).to_ne_bytes();
        refused += u32::from(limits.call(n, Lane::Ordinary, now).is_err());
        refused += u32::from(limits.work(&caller, &caller, Work::Relief, now).is_err());
    }
    assert_eq!(limits.bytes(), before);
    assert!(before <= 2 << 20, "{before} bytes");
    // Each calls once, and could call five times; a few shared a cell with four others.
    assert!(refused < 10_000, "{refused} of 2,000,000 were refused for others' sake");
}

/// R-POL-3: connections and requests in flight are given back, and nobody holds more than its part.
#[test]
fn what_is_held_is_given_back() {
    let counts = Arc::new(Counts::new(64));
    let held: Vec<_> = (0..5).filter_map(|_| counts.take("a", 3)).collect();
    assert_eq!(held.len(), 3);
    drop(held);
    assert!(counts.take("a", 1).is_some());

    let limits = limiter(rates());
    let source = 1;
    let mut connections: Vec<_> = (0..3)
        .map(|_| limits.connect(source, Duration::ZERO).unwrap())
        .collect();
    assert_eq!(
        limits.connect(source, Duration::ZERO).unwrap_err(),
        "connections_per_source_max"
    );
    connections.pop();
    assert!(limits.connect(source, Duration::ZERO).is_ok());
    assert_eq!(
        limits.connect(source, Duration::ZERO).unwrap_err(),
        "handshakes_per_source"
    );
}

/// R-POL-3: while places are plenty one identity may have them all; when they are scarce, half. The reserved lane is not touched by it.
#[test]
fn nobody_takes_every_place() {
    let limits = limiter(rates());
    let mut mine = Vec::new();
    for _ in 0..64 {
        let seat = limits.enter(Lane::Ordinary).unwrap();
        match limits.hold(&[1; 16], Lane::Ordinary) {
            Some(held) => mine.push((seat, held)),
            None => break,
        }
    }
    assert_eq!(mine.len(), 48, "three of four, then no more");
    let seats: Vec<_> = std::iter::from_fn(|| limits.enter(Lane::Ordinary)).collect();
    assert_eq!(seats.len(), 16);
    assert!(limits.hold(&[2; 16], Lane::Ordinary).is_some(), "another identity");
    let relief: Vec<_> = std::iter::from_fn(|| limits.enter(Lane::Reserved)).collect();
    assert_eq!(relief.len(), RESERVED_MAX, "the reserved lane is its own");
}

/// R-POL-3: while most answers are late fewer are let in, down to a floor; afterwards all come back.
#[test]
fn places_follow_the_latency() {
    let places = Arc::new(Places::adaptive(1000, Duration::from_millis(100)));
    let mut now = Duration::from_secs(1);
    let mut answers = |count: u32, took: u64| {
        for _ in 0..count {
            now += Duration::from_millis(5);
            places.observe(Duration::from_millis(took), now);
        }
        places.load().1
    };
    assert_eq!(answers(200, 20), 1000);
    let slow = answers(200, 300);
    assert!(slow < 400, "{slow}");
    assert_eq!(answers(4000, 300), 32, "never fewer");
    let better = answers(400, 20);
    assert!(better > 100, "{better}");
    assert_eq!(answers(4000, 20), 1000);
    // A slow minority is its own affair.
    for n in 0..2000 {
        now += Duration::from_millis(5);
        places.observe(Duration::from_millis(if n % 3 == 0 { 5000 } else { 10 }), now);
    }
    assert_eq!(places.load().1, 1000);
}

/// The cost of all the checks of one request; said, and bounded loosely, since test machines are slow.
#[test]
fn a_check_is_cheap() {
    let limits = limiter(Rates {
        reads: [Rate::per_sec(1_000_000, 1_000_000); 2],
        calls_per_source: Rate::per_sec(1_000_000, 1_000_000),
        ..rates()
    });
    let (rounds, began) = (200_000_u32, Instant::now());
    for n in 0..rounds {
        let (now, id) = (Duration::from_micros(n.into()), u128::from(n % 1000).to_ne_bytes());
        let _ = limits.call(n % 50, Lane::Ordinary, now);
        let _ = limits.work(&id, &id, Work::Read, now);
    }
    let each = began.elapsed() / rounds;
    println!("all rate checks of one request: {each:?}");
    assert!(each < Duration::from_micros(20), "{each:?}");
}
