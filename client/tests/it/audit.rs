//! `audit verify`, offline, on files as the daemon writes them.

use crate::cli::{run, text};
use serde_json::Value;
use std::{fs, path::Path};
use strongroom_audit::{
    ChainHead, Encoded, FRAMES_OFFSET, Id, Params, RECORD_VERSION, Record, SegmentHeader, Stage, segment_name,
};

const CLUSTER: Id = Id([7; 16]);

fn record(path: &str) -> Encoded {
    let record = Record {
        v: RECORD_VERSION,
        time: "2026-01-02T03:04:05.678Z".into(),
        boot: Id([1; 16]),
        stage: Stage::Response,
        request: None,
        identity: None,
        accessor: None,
        session: None,
        source: None,
        op: "kv.get".into(),
        path: Some(path.into()),
        policy: None,
        params: Params::default(),
        outcome: None,
    };
    record.encode()
}

/// A log of three groups; returns where the segment lies, its head, and where the last group ends.
fn log(dir: &Path) -> (std::path::PathBuf, ChainHead, usize) {
    let mut head = ChainHead::genesis(CLUSTER);
    let mut bytes = SegmentHeader {
        cluster: CLUSTER,
        before: head,
    }
    .encode()
    .to_vec();
    bytes.resize(FRAMES_OFFSET as usize, 0);
    for group in 0..3 {
        let records = [record(&format!("kv/{group}/a")), record(&format!("kv/{group}/b"))];
        bytes.extend_from_slice(&head.extend(&records).unwrap().bytes);
    }
    let end = bytes.len();
    bytes.resize(64 << 10, 0);
    let file = dir.join(segment_name(0));
    fs::write(&file, &bytes).unwrap();
    (file, head, end)
}

fn verify(dir: &Path, more: &[&str]) -> (i32, Value) {
    let dir_text = dir.display().to_string();
    let output = run(
        dir,
        &[&["audit", "verify", &dir_text, "-o", "json"], more].concat(),
        &[],
        b"",
    );
    let json = serde_json::from_slice(&output.stdout);
    (
        output.status.code().unwrap(),
        json.unwrap_or_else(|_| panic!("{}", text(&output.stderr))),
    )
}

/// R-AUDIT-2: a whole log is clean and agrees with its heads; a flipped byte and a cut-off record are found.
#[test]
fn a_flipped_byte_and_a_cut_off_record_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let (file, head, end) = log(dir.path());
    let head = head.to_string();
    let genesis = data_encoding::HEXLOWER.encode(&ChainHead::genesis(CLUSTER).hash);
    let cluster = data_encoding::HEXLOWER.encode(&CLUSTER.0);
    let known = [
        "--head",
        head.as_str(),
        "--genesis",
        genesis.as_str(),
        "--cluster",
        cluster.as_str(),
    ];

    let (code, told) = verify(dir.path(), &known);
    assert_eq!(
        (code, &told["verdict"], &told["records"]),
        (0, &"clean".into(), &6.into()),
        "{told}"
    );
    assert_eq!(told["head"], head.as_str());

    let whole = fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    flipped[FRAMES_OFFSET as usize + 100] ^= 1;
    fs::write(&file, &flipped).unwrap();
    let (code, told) = verify(dir.path(), &[]);
    assert_eq!((code, &told["verdict"]), (1, &"damaged".into()), "{told}");
    assert!(told["findings"][0]["offset"].is_u64(), "{told}");

    // The last group is gone without a trace in the files: only the head that was noted shows it.
    let mut cut = whole;
    let last = (end - FRAMES_OFFSET as usize) / 3;
    cut[end - last..end].fill(0);
    fs::write(&file, &cut).unwrap();
    assert_eq!(verify(dir.path(), &[]).0, 0);
    let (code, told) = verify(dir.path(), &known);
    assert_eq!((code, &told["verdict"]), (1, &"damaged".into()), "{told}");
    assert!(
        told["findings"][0]["what"].as_str().unwrap().contains("cut short"),
        "{told}"
    );
}
