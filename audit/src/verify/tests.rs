use super::*;
use crate::testing::{CLUSTER, Segment, log, records};
use crate::{Frame, SegmentHeader, read};
use proptest::prelude::*;

fn check(segments: &[Segment], options: &Options) -> Report {
    let mut walk = Walk::new(options);
    for (index, segment) in segments.iter().enumerate() {
        walk.segment(
            segment.before.seq,
            segment.bytes.as_slice(),
            index + 1 == segments.len(),
        )
        .unwrap();
    }
    walk.finish(Path::new("log"))
}

fn plain(segments: &[Segment]) -> Report {
    check(
        segments,
        &Options {
            cluster: Some(CLUSTER),
            ..Options::default()
        },
    )
}

fn with_head(segments: &[Segment], head: impl Into<KnownHead>) -> Report {
    check(
        segments,
        &Options {
            heads: vec![head.into()],
            ..Options::default()
        },
    )
}

/// The one finding, and where it is.
fn only(report: &Report) -> (&str, u64, u64, &Wrong) {
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    let Finding {
        file,
        offset,
        seq,
        what,
    } = &report.findings[0];
    (file.to_str().unwrap(), *offset, *seq, what)
}

#[test]
fn a_whole_log_is_clean() {
    let (segments, head) = log(&[&[1, 3, 2], &[4], &[], &[1]], 64);
    let segments: Vec<_> = segments
        .into_iter()
        .filter(|segment| !segment.frames.is_empty())
        .collect();
    let report = plain(&segments);
    assert!(report.is_clean(), "{:?}", report.findings);
    assert_eq!((report.segments, report.records, report.head), (3, 11, Some(head)));
    assert_eq!(report.first, Some(ChainHead::genesis(CLUSTER)));
}

/// R-AUDIT-2: whatever byte of whatever file is changed, in any of its bits, the verifier finds it.
#[test]
fn every_flipped_byte_is_found() {
    let (segments, head) = log(&[&[1, 2], &[2, 1]], 16);
    for index in 0..segments.len() {
        for place in 0..segments[index].bytes.len() {
            let flip = 1 << (place % 8);
            let mut bad = segments.clone();
            bad[index].bytes[place] ^= flip;
            assert!(!plain(&bad).is_clean(), "segment {index} byte {place} flip {flip:#x}");
        }
    }
    // The very last frame looks torn without a head from elsewhere; with one it is a finding.
    let mut bad = segments.clone();
    let place = *bad[1].frames.last().unwrap() + 30;
    bad[1].bytes[place] ^= 1;
    assert!(plain(&bad).findings.is_empty() && plain(&bad).torn.is_some());
    assert_eq!(only(&with_head(&bad, head)).3, &Wrong::HeadMissing(head.into()));
}

#[test]
fn damage_is_named_by_file_offset_and_record() {
    let (mut segments, _) = log(&[&[1, 2, 3], &[1]], 16);
    let place = segments[0].frames[1];
    segments[0].bytes[place + 25] ^= 4;
    let report = plain(&segments);
    let length = (segments[0].frames[2] - place) as u64;
    let wrong = Wrong::Frame(FrameError::Checksum, length);
    assert_eq!(only(&report), ("00000000000000000000.audit", place as u64, 1, &wrong));
    assert!(
        report.findings[0]
            .to_string()
            .starts_with("00000000000000000000.audit: byte 4"),
        "{}",
        report.findings[0]
    );
}

/// An editor who mends checksums is found by the chain.
#[test]
fn a_changed_record_with_mended_checksum_is_found() {
    let (mut segments, _) = log(&[&[1, 2, 3]], 16);
    let (start, end) = (segments[0].frames[1], segments[0].frames[2]);
    let frame = &mut segments[0].bytes[start..end];
    let place = frame.windows(8).position(|part| part == b"test.op1").unwrap();
    frame[place + 7] = b'9';
    let (covered, checksum) = frame.split_last_chunk_mut::<4>().unwrap();
    *checksum = crc32fast::hash(covered).to_be_bytes();
    assert_eq!(
        only(&plain(&segments)),
        (
            "00000000000000000000.audit",
            start as u64,
            1,
            &Wrong::Link(LinkError::Head { seq: 1 })
        )
    );
}

/// A segment again, of these frames.
fn rebuilt(segment: &Segment, order: &[usize]) -> Segment {
    let mut ends: Vec<_> = segment.frames[1..].to_vec();
    ends.push(segment.end);
    let mut bytes = segment.bytes[..FRAMES_OFFSET].to_vec();
    for index in order {
        bytes.extend_from_slice(&segment.bytes[segment.frames[*index]..ends[*index]]);
    }
    bytes.resize(segment.bytes.len(), 0);
    Segment {
        bytes,
        ..segment.clone()
    }
}
const FRAMES_OFFSET: usize = crate::FRAMES_OFFSET as usize;

#[test]
fn removed_repeated_and_reordered_frames_are_found() {
    let (segments, _) = log(&[&[1, 2, 1, 3], &[1]], 512);
    for order in [
        &[1, 2, 3][..],
        &[0, 2, 3],
        &[0, 1, 3],
        &[0, 1, 2],
        &[0, 2, 1, 3],
        &[1, 0, 2, 3],
        &[3, 2, 1, 0],
        &[0, 0, 1, 2, 3],
        &[],
    ] {
        let bad = [rebuilt(&segments[0], order), segments[1].clone()];
        let report = plain(&bad);
        assert!(!report.findings.is_empty(), "{order:?}");
        let expected = |finding: &Finding| {
            matches!(
                finding.what,
                Wrong::Link(LinkError::Place { .. }) | Wrong::Segments { .. }
            )
        };
        assert!(report.findings.iter().all(expected), "{order:?}: {:?}", report.findings);
    }
    let same = [rebuilt(&segments[0], &[0, 1, 2, 3]), segments[1].clone()];
    assert!(plain(&same).is_clean());
}

#[test]
fn removed_reordered_and_foreign_segments_are_found() {
    let (segments, head) = log(&[&[1], &[2], &[3]], 16);
    let take = |order: &[usize]| order.iter().map(|index| segments[*index].clone()).collect::<Vec<_>>();
    assert_eq!(only(&plain(&take(&[1, 2]))).3, &Wrong::Start);
    assert!(matches!(only(&plain(&take(&[0, 2]))).3, Wrong::Segments { .. }));
    assert!(!plain(&take(&[1, 0, 2])).findings.is_empty());
    assert_eq!(plain(&[]).findings[0].what, Wrong::Nothing);
    let foreign = Options {
        cluster: Some(Id([9; 16])),
        ..Options::default()
    };
    assert!(
        check(&segments, &foreign)
            .findings
            .iter()
            .any(|finding| finding.what == Wrong::Cluster)
    );
    // The last segment gone is a log cut short: only a head from elsewhere tells.
    assert!(plain(&take(&[0, 1])).is_clean());
    assert_eq!(
        only(&with_head(&take(&[0, 1]), head)).3,
        &Wrong::HeadMissing(head.into())
    );
    // Archived beginnings are fine for whoever knows where the rest begins.
    let start = Options {
        start: Some(segments[1].before),
        ..Options::default()
    };
    assert!(check(&take(&[1, 2]), &start).is_clean());
    let renamed = Segment {
        before: ChainHead {
            seq: 5,
            ..segments[2].before
        },
        ..segments[2].clone()
    };
    let name = plain(&[segments[0].clone(), segments[1].clone(), renamed]);
    assert_eq!(name.findings[0].what, Wrong::Name);
}

/// A log cut anywhere, `--head` given: never clean. Without it, cut between frames looks whole; the docs say so.
#[test]
fn truncation_is_found_by_a_head_from_elsewhere() {
    let (segments, head) = log(&[&[1, 2, 3]], 0);
    for length in FRAMES_OFFSET..segments[0].end {
        let cut = [Segment {
            bytes: segments[0].bytes[..length].to_vec(),
            ..segments[0].clone()
        }];
        assert!(!with_head(&cut, head).findings.is_empty(), "cut at {length}");
        let boundary = segments[0].frames.contains(&length);
        assert_eq!(plain(&cut).is_clean(), boundary, "cut at {length}");
    }
    for length in 0..FRAMES_OFFSET {
        let cut = [Segment {
            bytes: segments[0].bytes[..length].to_vec(),
            ..segments[0].clone()
        }];
        assert!(matches!(only(&plain(&cut)).3, Wrong::Segment(_)), "cut at {length}");
    }
}

#[test]
fn a_head_from_elsewhere_is_found_at_any_record_and_a_wrong_one_is_not() {
    let (segments, head) = log(&[&[1, 2, 3], &[4]], 16);
    let mut at = ChainHead::genesis(CLUSTER);
    for record in records(0, 10) {
        assert!(with_head(&segments, at).is_clean(), "{at}");
        assert!(
            with_head(
                &segments,
                KnownHead {
                    hash: at.hash,
                    seq: None
                }
            )
            .is_clean(),
            "{at}"
        );
        at = at.after(record.as_bytes());
    }
    assert_eq!(at, head);
    let wrong = KnownHead {
        hash: [7; 32],
        seq: Some(4),
    };
    assert!(matches!(only(&with_head(&segments, wrong)).3, Wrong::HeadDiffers(..)));
    let nowhere = KnownHead {
        hash: [7; 32],
        seq: None,
    };
    assert_eq!(only(&with_head(&segments, nowhere)).3, &Wrong::HeadMissing(nowhere));
    let beyond = KnownHead {
        hash: head.hash,
        seq: Some(11),
    };
    assert_eq!(only(&with_head(&segments, beyond)).3, &Wrong::HeadMissing(beyond));
}

/// A whole log recomputed by its editor is clean by itself, and only a head from elsewhere tells: the limit the docs name.
#[test]
fn a_recomputed_log_is_told_only_by_a_head_from_elsewhere() {
    let (_, head) = log(&[&[3]], 16);
    let mut forged = ChainHead::genesis(CLUSTER);
    let header = SegmentHeader {
        cluster: CLUSTER,
        before: forged,
    };
    let mut bytes = header.encode().to_vec();
    bytes.resize(FRAMES_OFFSET, 0);
    bytes.extend_from_slice(&forged.extend(&records(100, 3)).unwrap().bytes);
    let forged = [Segment {
        before: header.before,
        end: bytes.len(),
        frames: vec![FRAMES_OFFSET],
        bytes,
    }];
    assert!(plain(&forged).is_clean());
    assert!(matches!(only(&with_head(&forged, head)).3, Wrong::HeadDiffers(..)));
}

#[test]
fn a_torn_tail_is_not_damage_and_damage_is_not_a_torn_tail() {
    let (segments, _) = log(&[&[2, 2]], 64);
    for length in segments[0].frames[1] + 1..segments[0].end {
        let mut torn = segments.clone();
        torn[0].bytes[length..].fill(0);
        let report = plain(&torn);
        // A frame whose last bytes are zero anyway is whole.
        if torn[0].bytes[..segments[0].end] == segments[0].bytes[..segments[0].end] {
            continue;
        }
        assert!(report.findings.is_empty(), "cut at {length}: {:?}", report.findings);
        let tail = report.torn.unwrap();
        assert_eq!((tail.offset, tail.seq), (segments[0].frames[1] as u64, 2));
        assert!(tail.offset + tail.bytes <= length as u64);
    }
    let mut hole = segments.clone();
    let (from, to) = (hole[0].frames[0], hole[0].frames[1]);
    hole[0].bytes[from..to].fill(0);
    let report = plain(&hole);
    assert!(report.torn.is_none());
    assert_eq!(only(&report).3, &Wrong::Frame(FrameError::Magic, (to - from) as u64));
}

#[test]
fn a_frame_across_the_read_window_and_a_long_gap_are_seen() {
    let (segments, head) = log(&[&[900, 900, 900, 900]], 1 << 20);
    assert!(segments[0].end > 3 * (128 << 10));
    assert!(with_head(&segments, head).is_clean());
    let mut far = segments.clone();
    let frame = far[0].bytes[far[0].frames[3]..far[0].end].to_vec();
    let place = far[0].bytes.len() - frame.len() - 5;
    let (start, end) = (far[0].frames[3], far[0].end);
    far[0].bytes[start..end].fill(0);
    far[0].bytes[place..place + frame.len()].copy_from_slice(&frame);
    assert_eq!(
        only(&plain(&far)).3,
        &Wrong::Frame(FrameError::Magic, (place - start) as u64)
    );
}

#[test]
fn findings_are_bounded_and_counted() {
    let (mut segments, _) = log(&[&[1; 300]], 16);
    for index in (0..300).step_by(2) {
        let place = segments[0].frames[index] + 20;
        segments[0].bytes[place] ^= 1;
    }
    let report = plain(&segments);
    assert_eq!((report.findings.len(), report.more_findings), (FINDINGS_MAX, 50));
}

#[test]
fn reading_gives_every_record_from_anywhere_and_goes_on_when_the_log_grows() {
    let dir = tempfile::tempdir().unwrap();
    let (segments, head) = log(&[&[1, 2], &[3], &[2, 2]], 4096);
    for segment in &segments[..2] {
        std::fs::write(dir.path().join(segment_name(segment.before.seq)), &segment.bytes).unwrap();
    }
    let all = records(0, 10);
    for from in 0..6 {
        let lines: Vec<_> = read(dir.path(), from).unwrap().map(Result::unwrap).collect();
        assert!(lines.iter().map(|line| line.seq).eq(from..6));
        assert!(
            lines
                .iter()
                .all(|line| line.record == all[line.seq as usize].as_bytes())
        );
    }
    let mut reader = read(dir.path(), 5).unwrap();
    assert_eq!(reader.next_line().unwrap().unwrap().seq, 5);
    assert_eq!(reader.next_line().unwrap(), None);
    let (last, second) = (&segments[2], segments[2].frames[1]);
    let path = dir.path().join(segment_name(last.before.seq));
    let mut early = last.bytes.clone();
    early[second..].fill(0);
    std::fs::write(&path, &early).unwrap();
    assert!(reader.by_ref().map(|line| line.unwrap().seq).eq(6..8));
    std::fs::write(&path, &last.bytes).unwrap();
    assert!(reader.by_ref().map(|line| line.unwrap().seq).eq(8..10));
    assert_eq!(reader.next_seq(), head.seq);
    let report = verify(
        dir.path(),
        &Options {
            heads: vec![head.into()],
            ..Options::default()
        },
    )
    .unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
    std::fs::remove_file(dir.path().join(segment_name(0))).unwrap();
    assert!(matches!(
        read(dir.path(), 1),
        Err(crate::ReadError::Gone { wanted: 1, first: 3 })
    ));
}

const SEGMENT: &[u8] = include_bytes!("../../goldens/segment-v1.audit");

/// Golden: a segment written by version 1 reads and verifies for ever, and is what this code writes.
#[test]
fn a_segment_is_written_and_read_as_it_always_was() {
    let (segments, head) = log(&[&[1, 2]], 128);
    if std::env::var_os("WRITE_GOLDENS").is_some() {
        std::fs::write(
            concat!(env!("CARGO_MANIFEST_DIR"), "/goldens/segment-v1.audit"),
            &segments[0].bytes,
        )
        .unwrap();
        std::fs::write(
            concat!(env!("CARGO_MANIFEST_DIR"), "/goldens/segment-v1.head"),
            format!("{head}\n"),
        )
        .unwrap();
        return;
    }
    assert!(segments[0].bytes == SEGMENT);
    assert_eq!(
        head.to_string(),
        include_str!("../../goldens/segment-v1.head").trim_end()
    );
    assert!(with_head(&segments, head).is_clean());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Any bytes in a segment's place: a verdict, never a panic, and never clean unless they are the log.
    #[test]
    fn any_overwrite_is_found(place in 0usize..6000, bytes in proptest::collection::vec(any::<u8>(), 1..200)) {
        let (segments, head) = log(&[&[2, 3]], 600);
        let mut bad = segments.clone();
        let place = place % bad[0].bytes.len();
        for (to, from) in bad[0].bytes[place..].iter_mut().zip(&bytes) {
            *to = *from;
        }
        prop_assert_eq!(with_head(&bad, head).is_clean(), bad == segments);
    }

    #[test]
    fn a_file_of_anything_gets_a_verdict(bytes in proptest::collection::vec(any::<u8>(), 0..9000)) {
        let file = Segment { before: ChainHead::genesis(CLUSTER), frames: Vec::new(), end: bytes.len(), bytes };
        prop_assert!(!plain(&[file]).is_clean());
    }

    /// A model: any grouping of any records is clean and keeps them in order.
    #[test]
    fn any_grouping_verifies(groups in proptest::collection::vec(proptest::collection::vec(1usize..5, 1..4), 1..4)) {
        let groups: Vec<_> = groups.iter().map(Vec::as_slice).collect();
        let (segments, head) = log(&groups, 32);
        let total: usize = groups.iter().copied().flatten().sum();
        prop_assert_eq!(head.seq, total as u64);
        prop_assert!(with_head(&segments, head).is_clean());
    }
}

#[test]
fn outbox_rows_are_exactly_one_frame() {
    let frame = ChainHead::genesis(CLUSTER).extend(&records(0, 2)).unwrap();
    let mut longer = frame.bytes.to_vec();
    longer.push(0);
    assert_eq!(Frame::from_bytes(longer.into()), Err(FrameError::Length));
}
