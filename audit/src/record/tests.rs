use super::*;
use crate::testing::{full_record, short_record};
use proptest::prelude::*;

const FULL: &str = include_str!("../../goldens/record-v1.json");

/// Golden: the bytes of a record never change, because heads cover them. R-AUDIT-2.
#[test]
fn a_record_is_written_as_it_always_was() {
    if std::env::var_os("WRITE_GOLDENS").is_some() {
        std::fs::write(
            concat!(env!("CARGO_MANIFEST_DIR"), "/goldens/record-v1.json"),
            full_record().encode().as_bytes(),
        )
        .unwrap();
        return;
    }
    assert_eq!(
        String::from_utf8_lossy(full_record().encode().as_bytes()),
        FULL.trim_end()
    );
    assert_eq!(serde_json::from_str::<Record<'_>>(FULL).unwrap(), full_record());
}

#[test]
fn absent_fields_leave_no_trace() {
    let text = format!("{:?}", short_record(7).encode());
    let boot = "b0".repeat(16);
    assert_eq!(
        text,
        format!(r#"{{"v":1,"time":"2026-11-18T10:26:07.000Z","boot":"{boot}","stage":"system","op":"test.op7"}}"#)
    );
}

#[test]
fn a_reader_passes_over_fields_of_a_later_minor_version() {
    let later = FULL.replacen(r#""stage""#, r#""node":{"name":"a"},"stage""#, 1);
    assert_eq!(serde_json::from_str::<Record<'_>>(&later).unwrap(), full_record());
}

#[test]
fn control_characters_cannot_begin_a_new_line() {
    let mut record = full_record();
    record.op = "a\r\nb\u{0}\u{7f}\u{2028}".into();
    let encoded = record.encode();
    assert!(!encoded.as_bytes().iter().any(|byte| *byte < 0x20));
    assert_eq!(
        serde_json::from_slice::<Record<'_>>(encoded.as_bytes()).unwrap(),
        record
    );
}

/// Oversize parameters become their length; the rest of the facts stay.
#[test]
fn a_record_that_is_too_long_loses_bulk_and_keeps_facts() {
    let mut record = full_record();
    record
        .params
        .set("names", ParamValue::Text("\u{1}".repeat(20_000).into()));
    let encoded = record.encode();
    assert!(encoded.as_bytes().len() <= RECORD_BYTES_MAX);
    let read: Record<'_> = serde_json::from_slice(encoded.as_bytes()).unwrap();
    assert_eq!(read.params.get("names"), Some(&ParamValue::Oversize { len: 20_000 }));
    assert_eq!(read.outcome, record.outcome);
    assert_eq!(read.identity, record.identity);
}

#[test]
fn every_field_at_its_worst_still_fits() {
    let worst = || Cow::<'static, str>::Owned("\u{1}".repeat(10_000));
    let mut record = full_record();
    record.time = worst();
    record.op = worst();
    record.path = Some(worst());
    record.identity = Some(Identity {
        id: Id([0; 16]),
        name: worst(),
        groups: vec![worst(); 30],
        attributes: Params::default(),
        without_attributes: false,
    });
    let identity = record.identity.as_mut().unwrap();
    for index in 0..30 {
        identity
            .attributes
            .set(format!("{index}{}", worst()), ParamValue::Text(worst()));
    }
    record.source = Some(Source {
        transport: Transport::Tls,
        addr: Some(worst()),
        uid: Some(0),
    });
    record.policy = Some(Policy {
        hash: worst(),
        decision: worst(),
        deciding: vec![worst(); 30],
        errors: 1,
        asked: Some(Asked {
            action: worst(),
            own: true,
            purpose: worst(),
            age_secs: u64::MAX,
            binding: worst(),
            strength: u8::MAX,
        }),
    });
    record.outcome = Some(Outcome {
        code: worst(),
        reason: Some(worst()),
        lease: None,
        version: None,
        count: None,
    });
    for index in 0..30 {
        record
            .params
            .set(format!("{index}{}", worst()), ParamValue::Text(worst()));
    }
    assert!(record.encode().as_bytes().len() <= RECORD_BYTES_MAX);
}

proptest! {
    #[test]
    fn any_record_survives_its_bytes(op in ".{0,40}", path in proptest::option::of(".{0,40}"), name in ".{0,40}", number: u64) {
        let mut record = full_record();
        record.op = op.into();
        record.path = path.map(Into::into);
        record.params.set(name.clone(), ParamValue::Text(name.into()));
        record.params.set("number", ParamValue::Number(number));
        let encoded = record.encode();
        prop_assert_eq!(serde_json::from_slice::<Record<'_>>(encoded.as_bytes()).unwrap(), record);
    }

    #[test]
    fn any_text_is_a_record_or_is_refused(text in r#"\{("[a-z]{1,8}":("[a-z]{0,8}"|[0-9]{1,3}|\{\}|\[\]),){0,6}"v":1\}"#) {
        let _ = serde_json::from_str::<Record<'_>>(&text);
    }
}
