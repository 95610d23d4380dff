//! Hostile bytes over the wire, to every method: the daemon answers with a status, and lives.

use crate::{
    wire::{Raw, methods},
    world::{World, value},
};
use bytes::Bytes;
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};
use std::time::Duration;

/// Messages a method gets.
const PER_METHOD: usize = 40;

/// Bytes of some kind, or fields of the wire format with hostile content: texts that look like paths, nested messages, wild numbers.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof![
        "\\PC{0,40}".prop_map(String::into_bytes),
        Just(b"kv/a".to_vec()),
        Just(b"pg/readers".to_vec()),
        Just(b"../../etc/passwd".to_vec()),
        Just("kv/".repeat(400).into_bytes()),
        Just(b"{\"type\":\"static\",\"account\":\"app\"}".to_vec()),
        Just(b"daily".to_vec()),
        Just(vec![0xff, 0xfe, 0x00]),
        proptest::collection::vec(any::<u8>(), 0..200),
    ];
    let field = (
        1u32..12,
        prop_oneof![3 => text.prop_map(Field::Bytes), 1 => any::<u64>().prop_map(Field::Number)],
    )
        .prop_map(|(number, field)| {
            let mut out = Vec::new();
            match field {
                Field::Bytes(bytes) => {
                    varint(u64::from(number << 3 | 2), &mut out);
                    varint(bytes.len() as u64, &mut out);
                    out.extend(bytes);
                }
                Field::Number(value) => {
                    varint(u64::from(number << 3), &mut out);
                    varint(value, &mut out);
                }
            }
            out
        });
    prop_oneof![
        1 => proptest::collection::vec(any::<u8>(), 0..300),
        3 => proptest::collection::vec(field, 0..6).prop_map(|fields| fields.concat()),
    ]
}

#[derive(Debug, Clone)]
enum Field {
    Bytes(Vec<u8>),
    Number(u64),
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Every external byte is hostile: no message to any method, with a token that may do everything, ends the daemon or makes an internal error of it.
#[tokio::test(flavor = "multi_thread")]
async fn no_bytes_end_the_daemon() {
    let world = World::open();
    let mut runner = TestRunner::new(Config::default());
    let mut internal = Vec::new();
    for method in methods() {
        // These two mean it, whatever the message says.
        if method.ends_with("/Seal") || method.ends_with("/Tail") {
            continue;
        }
        // A drained budget of refusals ends connections: that is one of the answers.
        let raw = Raw::connect(&world.lab).await;
        for _ in 0..PER_METHOD {
            let message = hostile().new_tree(&mut runner).unwrap().current();
            // An empty message would revoke the token that the rest needs.
            let token = (!method.ends_with("Token/Revoke")).then_some(world.root.as_str());
            let answer = raw
                .call(
                    &method,
                    Bytes::from(message.clone()),
                    token,
                    Some(Duration::from_secs(20)),
                )
                .await;
            if let Err(status) = answer
                && status.code() == tonic::Code::Internal
                && !status.message().contains("decode")
            {
                internal.push(format!("{method} {message:02x?}: {status:?}"));
            }
        }
    }
    assert_eq!(internal, Vec::<String>::new(), "an internal error is a fault of ours");
    let log = world.daemon().log_text();
    assert!(!log.contains("panicked"), "{log}");
    let client = world.client().await;
    world.cli().run(&["mount", "enable", "kv", "--kind", "kv"]);
    client.put("kv/after", &value("alive"), None).await.unwrap();
}
