//! Hostile bytes over the wire, to every method: the daemon answers with a status, and lives.

use crate::{
    wire::{NO_MESSAGE, Raw, methods},
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
/// Messages that the method gets which seals.
const SEALS: usize = 12;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long one is waited for that comes when something happens.
const TAIL_PATIENCE: Duration = Duration::from_millis(300);

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
    let mut sealed = 0;
    for method in methods() {
        let (messages, deadline) = match method.as_str() {
            // It means it, whatever the message says, and the vault is unsealed after each.
            "/strongroom.v1.Operator/Seal" => (SEALS, PATIENCE),
            // It follows the log until it is told to stop.
            "/strongroom.v1.Audit/Tail" => (PER_METHOD, TAIL_PATIENCE),
            _ => (PER_METHOD, PATIENCE),
        };
        // A drained budget of refusals ends connections: that is one of the answers.
        let raw = Raw::connect(&world.lab).await;
        for _ in 0..messages {
            let message = hostile().new_tree(&mut runner).unwrap().current();
            // An empty message revokes the token that asks: one that nothing else needs.
            let spare = method.ends_with("Token/Revoke").then(|| world.token("fuzz", &[]));
            let token = spare.as_deref().unwrap_or(&world.root);
            let answer = raw
                .call(&method, Bytes::from(message.clone()), Some(token), Some(deadline))
                .await;
            if world.state() == "sealed" {
                sealed += 1;
                world.unseal("daily");
            }
            if let Err(status) = answer
                && status.code() == tonic::Code::Internal
                && !status.message().contains("decode")
                // A log that is followed for a moment may have nothing to tell.
                && !(deadline == TAIL_PATIENCE && status.message() == NO_MESSAGE)
            {
                internal.push(format!("{method} {message:02x?}: {status:?}"));
            }
        }
    }
    assert_eq!(internal, Vec::<String>::new(), "an internal error is a fault of ours");
    assert!(sealed > 0, "some message sealed the vault");
    let log = world.daemon().log_text();
    assert!(!log.contains("panicked"), "{log}");
    let client = world.client().await;
    world.cli().run(&["mount", "enable", "kv", "--kind", "kv"]);
    client.put("kv/after", &value("alive"), None).await.unwrap();
}
