//! Small logs in memory, for the tests of this crate.

use crate::{
    ChainHead, Encoded, FRAMES_OFFSET, Id, Identity, Outcome, ParamValue, Params, Policy, RECORD_VERSION, Record,
    SegmentHeader, Source, Stage, Transport,
};

pub const CLUSTER: Id = Id([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);

/// A record with every field.
pub fn full_record() -> Record<'static> {
    let mut params = Params::default();
    params.set("version", ParamValue::Number(3));
    params.set("recursive", ParamValue::Bool(true));
    params.set("key", ParamValue::Text("hmac-sha256:v1:00".into()));
    params.set("bulk", ParamValue::Oversize { len: 70_000 });
    Record {
        v: RECORD_VERSION,
        time: "2026-11-18T10:26:40.123Z".into(),
        boot: Id([0xb0; 16]),
        stage: Stage::Response,
        request: Some(Id([0x1e; 16])),
        identity: Some(Identity {
            id: Id([0x1d; 16]),
            name: "build".into(),
            groups: Vec::new(),
            attributes: Params::default(),
            without_attributes: false,
        }),
        accessor: Some(Id([0xac; 16])),
        session: Some(Id([0x5e; 16])),
        source: Some(Source {
            transport: Transport::Tls,
            addr: Some("[2001:db8::1]:50000".into()),
            uid: None,
        }),
        op: "kv.get".into(),
        path: Some("kv/prod/db".into()),
        policy: Some(Policy {
            hash: "00ff".into(),
            decision: "allow".into(),
            deciding: vec!["readers".into()],
            errors: 0,
            asked: None,
        }),
        params,
        outcome: Some(Outcome {
            code: "OK".into(),
            reason: None,
            lease: Some(Id([0x1e; 16])),
            version: Some(3),
            count: Some(1),
        }),
    }
}

/// A record as a system event has it: nothing optional.
pub fn short_record(seq: u64) -> Record<'static> {
    Record {
        time: format!("2026-11-18T10:26:{:02}.000Z", seq % 60).into(),
        stage: Stage::System,
        request: None,
        identity: None,
        accessor: None,
        session: None,
        source: None,
        op: format!("test.op{seq}").into(),
        path: None,
        policy: None,
        params: Params::default(),
        outcome: None,
        ..full_record()
    }
}

/// `count` different records.
pub fn records(from: u64, count: usize) -> Vec<Encoded> {
    (from..).take(count).map(|seq| short_record(seq).encode()).collect()
}

/// A segment file: where it begins, and its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    pub before: ChainHead,
    pub bytes: Vec<u8>,
    /// Where its frames begin.
    pub frames: Vec<usize>,
    /// Where they end.
    pub end: usize,
}

/// Segments with frames of so many records each, and `spare` zero bytes behind each.
pub fn log(segments: &[&[usize]], spare: usize) -> (Vec<Segment>, ChainHead) {
    let mut head = ChainHead::genesis(CLUSTER);
    let made = segments
        .iter()
        .map(|frames| segment(&mut head, frames, spare))
        .collect();
    (made, head)
}

fn segment(head: &mut ChainHead, frames: &[usize], spare: usize) -> Segment {
    let before = *head;
    let mut bytes = SegmentHeader {
        cluster: CLUSTER,
        before,
    }
    .encode()
    .to_vec();
    bytes.resize(FRAMES_OFFSET as usize, 0);
    let mut places = Vec::new();
    for count in frames {
        places.push(bytes.len());
        let frame = head.extend(&records(head.seq, *count)).unwrap();
        bytes.extend_from_slice(&frame.bytes);
    }
    let end = bytes.len();
    bytes.resize(end + spare, 0);
    Segment {
        before,
        bytes,
        frames: places,
        end,
    }
}
