use super::*;
use crate::{
    audit::trail::Paths,
    base::{id::BootId, time::ManualClock},
};
use proptest::prelude::*;

const NOW: Timestamp = Timestamp(1_795_000_000_000);

fn tls(address: &str) -> Source {
    Source::Tls((address.parse::<IpAddr>().unwrap(), 1).into())
}

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// R-AUDIT-1: refusals beyond a rate become one counted summary: "214 more like it".
#[test]
fn a_flood_from_one_source_is_one_summary() {
    let refusals = Refusals::default();
    let written = (0..234)
        .filter(|_| refusals.admit(tls("192.0.2.7"), 700, NOW, at(0)) == Admission::Write)
        .count();
    assert_eq!(written, REFUSALS_BURST as usize);
    let other = refusals.admit(tls("192.0.2.8"), 700, NOW, at(0));
    assert_eq!(other, Admission::Write, "another source has its own allowance");
    let summaries = refusals.flush();
    let peer = Peer::Net("192.0.2.7".parse().unwrap());
    assert_eq!(
        summaries,
        [Summary {
            source: Some(peer),
            count: 214,
            since: NOW
        }]
    );
    assert_eq!(refusals.flush(), []);
    let recorder = Recorder::new(
        BootId::from_bytes([0; 16]),
        Arc::new(ManualClock::at(NOW)),
        Paths::Clear,
    );
    let text = format!("{:?}", summaries[0].record(&recorder));
    for part in [
        r#""op":"refusals.summary""#,
        r#""from":"192.0.2.7/32""#,
        r#""count":214"#,
        r#""since":"2026-11-18T11:06:40.000Z""#,
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn the_allowance_comes_back_with_time() {
    let refusals = Refusals::default();
    let burst = |millis| {
        (0..100)
            .filter(|_| refusals.admit(Source::Unix(7), 10, NOW, at(millis)) == Admission::Write)
            .count()
    };
    assert_eq!(burst(0), 20);
    assert_eq!(burst(499), 0);
    assert_eq!(burst(500), 1);
    assert_eq!(burst(500 + 20 * 500), 20);
}

#[test]
fn whoever_has_an_ipv6_net_is_one_source() {
    for (one, other, same) in [
        ("2001:db8::1", "2001:db8::ffff:1", true),
        ("2001:db8::1", "2001:db8:0:1::1", false),
        ("::ffff:192.0.2.7", "192.0.2.7", true),
        ("192.0.2.7", "192.0.2.8", false),
    ] {
        assert_eq!(Peer::from(tls(one)) == Peer::from(tls(other)), same, "{one} {other}");
    }
}

/// All sources share one budget of bytes: a flood from everywhere cannot fill the disk either.
#[test]
fn the_byte_budget_is_shared_and_comes_back() {
    let refusals = Refusals::default();
    let flood = |from: u32, millis| {
        let sources = (from..from + 100_000).map(|ip| Source::Tls((IpAddr::V4(ip.into()), 1).into()));
        sources
            .filter(|source| refusals.admit(*source, 2000, NOW, at(millis)) == Admission::Write)
            .count() as u64
            * 2000
    };
    let first = flood(0, 0);
    assert!(
        (REFUSAL_BYTES_BURST..REFUSAL_BYTES_BURST + 4000).contains(&first),
        "{first}"
    );
    assert_eq!(refusals.admit(Source::Unix(1), 700, NOW, at(0)), Admission::Drop);
    let second = flood(1 << 20, 10_000);
    assert!((1..=10 * REFUSAL_BYTES_PER_SEC + 4000).contains(&second), "{second}");
    let summaries = refusals.flush();
    assert!(summaries.len() <= SUMMARIES_MAX + 1);
}

/// R-AUDIT-3: memory is the same for one source and for a million.
#[test]
fn memory_is_constant() {
    let refusals = Refusals::default();
    let size = |refusals: &Refusals| refusals.table.lock().entries.len() * size_of::<[Entry; WAYS]>();
    let before = size(&refusals);
    for ip in 0..300_000u32 {
        refusals.admit(
            Source::Tls((IpAddr::V4(ip.into()), 1).into()),
            700,
            NOW,
            at(u64::from(ip / 1000)),
        );
    }
    assert_eq!(size(&refusals), before);
    assert!(before < 128 << 10, "{before}");
    assert!(refusals.flush().len() <= SUMMARIES_MAX + 1);
}

/// R-AUDIT-1: a count that could not be recorded is not lost; the next flush has it, under its source where that is still known.
#[test]
fn what_was_not_recorded_is_put_back() {
    let refusals = Refusals::default();
    let refuse = |times| {
        for _ in 0..times {
            refusals.admit(Source::Unix(7), 10, NOW, at(0));
        }
    };
    refuse(REFUSALS_BURST + 3);
    let first = refusals.flush();
    assert_eq!(first.iter().map(|summary| summary.count).collect::<Vec<_>>(), [3]);
    refusals.put_back(first[0]);
    refuse(2);
    let again = refusals.flush();
    assert_eq!((again.len(), again[0].count), (1, 5), "{again:?}");
    assert_eq!((again[0].source, again[0].since), (Some(Peer::Uid(7)), NOW));
    let stranger = Summary {
        source: Some(Peer::Uid(8)),
        ..again[0]
    };
    refusals.put_back(stranger);
    let unknown = refusals.flush();
    assert_eq!((unknown[0].source, unknown[0].count), (None, 5), "{unknown:?}");
    assert!(refusals.flush().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Whatever comes from wherever and whenever: written and counted together are all.
    #[test]
    fn no_refusal_is_lost(steps in proptest::collection::vec((0u32..3000, 0u64..3000, 1usize..20, 0u8..40), 1..300)) {
        let refusals = Refusals::default();
        let (mut millis, mut all, mut written, mut counted) = (0, 0u64, 0u64, 0u64);
        for (ip, pause, times, flush) in steps {
            millis += pause;
            for _ in 0..times {
                all += 1;
                let admission = refusals.admit(Source::Tls((IpAddr::V4((ip * 77).into()), 1).into()), 9000, NOW, at(millis));
                written += u64::from(admission == Admission::Write);
            }
            if flush == 0 {
                counted += refusals.flush().iter().map(|summary| summary.count).sum::<u64>();
            }
        }
        counted += refusals.flush().iter().map(|summary| summary.count).sum::<u64>();
        prop_assert_eq!(written + counted, all);
    }
}
