//! Fuzz: whatever lies in the store in place of a record of ours is read as nothing or as damage, never with a panic.

use super::*;
use crate::store::{batch::Stored, commit::Heads, frame, record, sequence::Sequence, table};
use bytes::Bytes;
use proptest::{prelude::*, strategy::ValueTree};

/// Bytes of any kind; or such as begin like ours: a format, an algorithm, small numbers.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        (
            prop::collection::vec(0u8..4, 0..40),
            prop::collection::vec(any::<u8>(), 0..100)
        )
            .prop_map(|(head, rest)| [head, rest].concat()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
    /// R-STORE-4: rows, envelopes, frames, record headers, heads, sequences, and the heads of keys.
    #[test]
    fn no_row_makes_a_panic(key in hostile(), row in hostile()) {
        let bytes = Bytes::from(row.clone());
        let stored = Stored::parse(bytes.clone());
        let _ = record::parse_header(&stored.bytes);
        let _ = record::parse_header(&row);
        let _ = frame::decode(&key, &row);
        let _ = Heads::parse(bytes);
        let _ = Heads::of_value(&row);
        let _ = Sequence::parse(&row);
        let _ = table::parse_head(&key);
    }
}

/// R-STORE-2: nothing that somebody makes up opens under the vault's keys, as a record or as its keyring.
#[tokio::test]
async fn nothing_made_up_opens() {
    let rig = Rig::default();
    let disk = rig.open();
    let store = init(&disk, Algorithm::default()).await;
    let keyring = store.keyring().unwrap();
    let key = table::head(Namespace::ROOT, Table::KvMeta.id());
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..2000 {
        let row = hostile().new_tree(&mut runner).unwrap().current();
        assert!(record::open(&keyring, &disk.ids(), &key, &row).is_none(), "{row:02x?}");
        assert!(Keyring::open(&root(), disk.ids().cluster, &row).is_err(), "{row:02x?}");
    }
}
