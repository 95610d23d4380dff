//! Slots made, opened and changed.

use super::*;

/// R-SEAL-2: `hsm`, `quorum:k/n` and `hsm+quorum:k/n` each open by their factors, and no half, no other slot's half and no
/// smaller number of shares opens any of them.
#[test]
fn every_kind_opens_with_all_its_factors_only() {
    let mut bench = Bench::new();
    bench.add("auto", "hsm");
    let daily = bench.add("daily", "hsm+quorum:3/5");
    let glass = bench.add("glass", "quorum:2/3");
    let one = bench.add("one", "hsm+quorum:1/2");
    assert_eq!((daily.len(), glass.len(), one.len()), (5, 3, 2));

    assert!(bench.opens("auto", &[]));
    assert!(bench.opens("daily", &[&daily[4], &daily[0], &daily[2]]));
    assert!(bench.opens("glass", &[&glass[2], &glass[1]]));
    assert!(bench.opens("one", &[&one[1]]));

    assert!(!bench.opens("auto", &[&one[0]]), "a half too many");
    assert!(!bench.opens("daily", &[]), "the HSM alone");
    assert!(!bench.opens("daily", &[&daily[0], &daily[1]]), "a share too few");
    assert!(!bench.opens("daily", &[&glass[0], &glass[1]]), "another slot's quorum");
    assert!(!bench.opens("glass", &[]));
    bench.hsm.fail(ErrorKind::Device);
    assert!(!bench.opens("auto", &[]));
    assert!(
        !bench.opens("daily", &[&daily[0], &daily[1], &daily[2]]),
        "all the operators, but no HSM"
    );
    assert!(
        bench.opens("glass", &[&glass[0], &glass[1]]),
        "break-glass needs no HSM"
    );
}

/// R-SEAL-2: whoever edits the store (and mends its checksum) gains nothing: every byte of a record is authenticated by what it opens.
/// A threshold lowered in the record is one of these edits.
#[test]
fn every_byte_of_a_record_is_authenticated() {
    let mut bench = Bench::new();
    let shares = bench.add("daily", "hsm+quorum:2/3");
    let record = bench.slots.get(&"daily".parse().unwrap()).unwrap().clone();
    let halves: Vec<Share> = shares.iter().take(2).map(|text| Share::parse(text).unwrap()).collect();
    let half = quorum::combine(&halves).unwrap().unwrap();
    assert!(record.open(Some(&half), &bench.tokens).is_ok());

    let mut lowered = record.clone();
    lowered.header.factors = "hsm+quorum:1/3".parse().unwrap();
    let one = quorum::combine(&halves[..1]).unwrap().unwrap();
    for half in [&half, &one] {
        assert!(matches!(
            lowered.open(Some(half), &bench.tokens),
            Err(SealError::DoesNotOpen(_))
        ));
    }

    let bytes = record.encode();
    for at in 0..bytes.len() - 4 {
        let mut edited = bytes.clone();
        edited[at] ^= 0x04;
        edited.truncate(bytes.len() - 4);
        edited.extend(crc32fast::hash(&edited).to_be_bytes());
        let opened = SlotRecord::decode("daily", &edited).and_then(|record| record.open(Some(&half), &bench.tokens));
        assert!(opened.is_err(), "byte {at}");
    }
}

/// R-SEAL-2: an old copy of a slot, put back into the store, opens the root key of its time and no other.
#[test]
fn an_old_record_opens_the_old_root_key_only() {
    let mut bench = Bench::new();
    let shares = bench.add("glass", "quorum:1/1");
    bench.add("auto", "hsm");
    let old = bench.slots.get(&"glass".parse().unwrap()).unwrap().clone();
    let next = bench.root.successor(&OsRandom).unwrap();
    let change = bench.slots.rewrap(&bench.root, &next, &OsRandom).unwrap();
    bench.slots.apply(&change);
    let former = std::mem::replace(&mut bench.root, next);
    assert!(
        bench.opens("glass", &[&shares[0]]) && bench.opens("auto", &[]),
        "their operators were not there"
    );
    let half = LockedKey::copy_of(
        offline::derive(&old, &[&shares[0]], &bench.tokens)
            .unwrap()
            .operators
            .unwrap()
            .expose(),
    )
    .unwrap();
    let opened = old.open(Some(&half), &bench.tokens).unwrap();
    assert_eq!((opened.generation, opened.key.expose()), (1, former.key.expose()));
    assert!(Slot::authenticate(old, &bench.root).is_err());
}

/// R-SEAL-4: what may be added, removed and re-keyed, and what an operator is warned of.
#[test]
fn slots_are_added_and_removed_by_rule() {
    let mut bench = Bench::new();
    let warnings = |bench: &Bench, factors: &str| {
        bench
            .slots
            .add(&spec("new", factors), &bench.root, bench.tools())
            .unwrap()
            .1
            .warnings
            .join("; ")
    };
    assert!(warnings(&bench, "quorum:1/3").contains("k = 1"));
    assert!(warnings(&bench, "hsm").contains("without an operator"));
    assert!(warnings(&bench, "hsm+quorum:2/3").contains("one HSM"));
    assert_eq!(warnings(&bench, "quorum:2/3"), "");

    bench.add("daily", "hsm+quorum:2/3");
    let taken = bench
        .slots
        .add(&spec("daily", "quorum:2/3"), &bench.root, bench.tools());
    assert!(matches!(taken, Err(SealError::SlotExists(_))));
    let (daily, glass) = ("daily".parse().unwrap(), "glass".parse().unwrap());
    let next = bench.root.successor(&OsRandom).unwrap();
    let remove = |bench: &Bench, name| bench.slots.remove(name, &bench.root, &next, &OsRandom);
    assert!(matches!(remove(&bench, &daily), Err(SealError::LastSlot)));
    assert!(matches!(remove(&bench, &glass), Err(SealError::NoSuchSlot(_))));
    let shares = bench.add("glass", "quorum:2/3");
    let (change, warnings) = remove(&bench, &glass).unwrap();
    assert_eq!(change.deletes, std::slice::from_ref(&glass));
    assert!(warnings.join("").contains("no slot opens without an HSM"));
    let (change, warnings) = remove(&bench, &daily).unwrap();
    assert!(warnings.is_empty());
    bench.slots.apply(&change);
    bench.root = bench.root.successor(&OsRandom).unwrap();
    assert!(
        !bench.opens("glass", &[&shares[0], &shares[1]]),
        "the former root key is gone: this one is yet another"
    );

    let mut full = Bench::new();
    (0..SLOTS_MAX).for_each(|at| _ = full.add(&format!("s{at}"), "quorum:1/1"));
    assert!(matches!(
        full.slots.add(&spec("more", "quorum:1/1"), &full.root, full.tools()),
        Err(SealError::TooManySlots)
    ));
}

/// A damaged slot hurts no other, blocks what would leave it behind, and can be removed.
#[test]
fn a_damaged_slot_is_only_its_own_loss() {
    let mut bench = Bench::new();
    bench.add("auto", "hsm");
    bench.add("glass", "quorum:1/1");
    let glass: SlotName = "glass".parse().unwrap();
    let mut bytes = bench.slots.get(&glass).unwrap().encode();
    bytes[100] ^= 1;
    let auto = bench.slots.get(&"auto".parse().unwrap()).unwrap().encode();
    let stored = vec![
        ("auto".parse().unwrap(), auto.clone()),
        (glass.clone(), bytes),
        ("moved".parse().unwrap(), auto),
    ];
    bench.slots = Slots::load(CLUSTER, stored);
    assert_eq!(
        bench.slots.damaged().map(SlotName::as_str).collect::<Vec<_>>(),
        ["glass", "moved"]
    );
    assert!(bench.opens("auto", &[]));
    assert!(matches!(bench.slots.get(&glass), Err(SealError::Damaged(name)) if name == "glass"));
    let next = bench.root.successor(&OsRandom).unwrap();
    assert!(matches!(
        bench.slots.rewrap(&bench.root, &next, &OsRandom),
        Err(SealError::Damaged(_))
    ));
    let (change, _) = bench
        .slots
        .remove(&"moved".parse().unwrap(), &bench.root, &next, &OsRandom)
        .err()
        .map_or_else(
            || panic!("glass is still damaged"),
            |error| {
                assert!(matches!(error, SealError::Damaged(name) if name == "glass"));
                (
                    SlotChange {
                        puts: Vec::new(),
                        deletes: vec!["moved".parse().unwrap()],
                    },
                    (),
                )
            },
        );
    bench.slots.apply(&change);
    let (change, _) = bench.slots.remove(&glass, &bench.root, &next, &OsRandom).unwrap();
    bench.slots.apply(&change);
    bench.root = next;
    assert!(bench.opens("auto", &[]) && bench.slots.damaged().next().is_none());
}

/// R-SEAL-5: a KEK rotates under every slot at once; old copies open until their time; nothing is destroyed before a successor opened.
#[test]
fn a_kek_rotates() {
    let mut bench = Bench::new();
    bench.add("auto", "hsm");
    let shares = bench.add("daily", "hsm+quorum:1/2");
    bench.add("glass", "quorum:1/1");
    let turn = |bench: &mut Bench| {
        let mut slots = bench.slots.authenticated(&bench.root).unwrap();
        let version = hsm::rotate(bench.hsm.as_ref(), &mut slots, Timestamp(50)).unwrap();
        let change = Slots::replace(slots.into_iter().map(|slot| slot.bind(&bench.root, &OsRandom).unwrap()));
        bench.slots.apply(&change);
        version
    };
    assert_eq!(turn(&mut bench), 2);
    assert_eq!(
        bench.slots.iter().map(|record| record.seeds.len()).collect::<Vec<_>>(),
        [2, 2, 0]
    );
    assert!(bench.opens("auto", &[]) && bench.opens("daily", &[&shares[0]]));
    assert_eq!(
        hsm::destroy(&bench.tokens, &bench.slots.iter().cloned().collect::<Vec<_>>()).unwrap(),
        0,
        "the old copies still need version 1"
    );

    let retire = |bench: &mut Bench, now| {
        let mut slots = bench.slots.authenticated(&bench.root).unwrap();
        let changed = hsm::retire(&bench.tokens, &mut slots, Timestamp(now));
        let change = Slots::replace(slots.into_iter().map(|slot| slot.bind(&bench.root, &OsRandom).unwrap()));
        bench.slots.apply(&change);
        changed
    };
    assert!(!retire(&mut bench, 49).unwrap());
    bench.hsm.fail(ErrorKind::Device);
    assert!(retire(&mut bench, 50).is_err());
    bench.hsm.heal();
    assert!(retire(&mut bench, 50).unwrap());
    assert_eq!(
        hsm::destroy(&bench.tokens, &bench.slots.iter().cloned().collect::<Vec<_>>()).unwrap(),
        1
    );
    assert_eq!(bench.hsm.versions(), [2]);
    assert!(bench.opens("auto", &[]) && bench.opens("daily", &[&shares[0]]));
    assert_eq!((turn(&mut bench), turn(&mut bench)), (3, 4));
    assert_eq!(
        bench.slots.iter().map(|record| record.seeds.len()).collect::<Vec<_>>(),
        [2, 2, 0],
        "a third copy is not kept"
    );
    assert!(bench.opens("auto", &[]));
}

/// R-SEAL-5, R-SEAL-6: an HSM that goes away at any call of a rotation leaves every slot opening, and the rotation can be done again.
#[test]
fn a_kek_rotation_that_dies_anywhere_is_done_again() {
    for calls in 0..16 {
        let mut bench = Bench::new();
        bench.add("auto", "hsm");
        let shares = bench.add("daily", "hsm+quorum:1/2");
        let stored = bench.slots.clone();
        bench.hsm.fail_after(calls);
        let mut slots = bench.slots.authenticated(&bench.root).unwrap();
        let first = hsm::rotate(bench.hsm.as_ref(), &mut slots, Timestamp(50));
        bench.hsm.heal();
        assert_eq!(
            first.is_err(),
            calls < 8,
            "list, create, and open, seal, open for two slots: {calls}"
        );
        // Nothing was stored: a crash.
        bench.slots = stored;
        assert!(bench.opens("auto", &[]) && bench.opens("daily", &[&shares[0]]));
        let mut slots = bench.slots.authenticated(&bench.root).unwrap();
        assert_eq!(
            hsm::rotate(bench.hsm.as_ref(), &mut slots, Timestamp(50)).unwrap(),
            2,
            "the orphan is taken"
        );
        bench.slots.apply(&Slots::replace(
            slots.into_iter().map(|slot| slot.bind(&bench.root, &OsRandom).unwrap()),
        ));
        assert!(bench.opens("auto", &[]) && bench.opens("daily", &[&shares[0]]));
    }
}

/// The offline derivation is the daemon's, and names the same mistakes.
#[test]
fn offline_derivation_agrees() {
    let mut bench = Bench::new();
    let shares = bench.add("daily", "hsm+quorum:2/3");
    let glass = bench.add("glass", "quorum:1/1");
    let record = |name: &str| bench.slots.get(&name.parse().unwrap()).unwrap();
    let keys = offline::derive(record("daily"), &[&shares[2], &shares[0]], &bench.tokens).unwrap();
    assert_eq!(keys.root.key.expose(), bench.root.key.expose());
    assert_eq!(
        offline::slot_key_of(record("daily"), &keys.root).unwrap().expose(),
        keys.slot.expose()
    );
    let other = offline::derive(record("glass"), &[&glass[0]], &bench.tokens).unwrap();
    assert_eq!(other.root.key.expose(), bench.root.key.expose());
    assert_ne!(other.slot.expose(), keys.slot.expose());
    let error = |shares: &[&str]| {
        offline::derive(record("daily"), shares, &bench.tokens)
            .err()
            .unwrap()
            .to_string()
    };
    assert!(error(&[&shares[0]]).contains("needs a share"));
    assert!(error(&[&shares[0], &shares[0]]).contains("presented already"));
    assert!(error(&[&shares[0], &glass[0]]).contains("another slot"));
}

/// With fixed dice a whole slot is a known answer: shares written down today open the record stored today, for ever.
#[test]
fn golden_slot_and_shares() {
    let tools = Tools {
        tokens: &Tokens::default(),
        random: &CountingRandom::default(),
        now: Timestamp(1_795_000_000_000),
    };
    let root = Root {
        key: LockedKey::copy_of(&[0x52; 32]).unwrap(),
        generation: 3,
    };
    let made = make(&spec("glass", "quorum:2/3"), None, CLUSTER, &root, tools).unwrap();
    let text = made
        .shares
        .iter()
        .map(|share| share.expose().to_owned())
        .chain([data_encoding::HEXLOWER.encode(&made.record.encode())])
        .collect::<Vec<_>>();
    let golden: Vec<&str> = include_str!("../testdata/glass-v1.txt").lines().collect();
    if golden.is_empty() {
        panic!("{}", text.join("\n"));
    }
    assert_eq!(text, golden);
    let bytes = data_encoding::HEXLOWER.decode(golden[3].as_bytes()).unwrap();
    let record = SlotRecord::decode("glass", &bytes).unwrap();
    let keys = offline::derive(&record, &[golden[2], golden[0]], &Tokens::default()).unwrap();
    assert_eq!((keys.root.key.expose(), keys.root.generation), (&[0x52; 32], 3));
}
