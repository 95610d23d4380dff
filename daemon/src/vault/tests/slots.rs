//! Slots changed online, in any order.

use super::*;

/// R-SEAL-4: the answer with a slot's new shares, lost on its way, is had again by whoever brought the completing share, with that share and
/// the session's nonce, and by nobody else; until the session would have expired.
#[tokio::test]
async fn lost_shares_are_told_again_to_their_maker() {
    let bench = Bench::new().await;
    let shares = bench.init(&[("daily", "quorum:2/3")]).await;
    let [first, second, third] = [0, 1, 2].map(|at| shares[0][at].expose());
    bench.unseal("daily", &[&shares[0][0], &shares[0][1]]).await.unwrap();
    async fn bring(
        bench: &Bench,
        session: Option<Nonce>,
        share: &str,
        operation: Option<Operation>,
    ) -> Result<Answer, VaultError> {
        let input = PresentInput {
            slot: "daily".parse().unwrap(),
            session,
            share: Some(share),
            operation,
            local_root: false,
        };
        bench.vault.present(input, evidence("present")).await
    }
    for rekeys in [false, true] {
        let wanted = if rekeys {
            Operation::RekeySlot(spec("daily", "quorum:2/3"))
        } else {
            Operation::AddSlot(spec("glass", "quorum:2/3"))
        };
        let Answer::Waiting(progress) = bring(&bench, None, first, Some(wanted.clone())).await.unwrap() else {
            panic!("one share is not enough")
        };
        let session = Some(progress.session);
        let told = |answer: Result<Answer, VaultError>| match answer {
            Ok(Answer::Done {
                done: Done::Slot { shares, .. },
                ..
            }) => shares.iter().map(|share| share.expose().to_owned()).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        let made = told(bring(&bench, session, second, Some(wanted)).await);
        assert_eq!(
            told(bring(&bench, session, second, None).await),
            made,
            "the same answer once more"
        );
        for other in [first, third, &made[0], "srs1-nothing"] {
            bring(&bench, session, other, None).await.unwrap_err();
        }
        bench.clock.advance(Duration::from_secs(15 * 60));
        bring(&bench, session, second, None).await.unwrap_err();
    }
}

/// R-SEAL-4, R-SEAL-5: slots are added, verified, re-keyed and removed while requests go on; what lost access cannot come back.
#[tokio::test]
async fn slots_change_online() {
    let mut bench = Bench::new().await;
    let shares = bench.init(&[("daily", "hsm+quorum:2/3")]).await;
    let daily = [&shares[0][0], &shares[0][1]];
    bench.unseal("daily", &daily).await.unwrap();
    let guard = bench.vault.enter().unwrap();
    guard.put("one").await.unwrap();

    let Done::Slot {
        slot, shares: glass, ..
    } = bench
        .bring("daily", &daily, Operation::AddSlot(spec("glass", "quorum:1/2")))
        .await
        .unwrap()
    else {
        panic!()
    };
    assert_eq!((slot.as_str(), glass.len()), ("glass", 2));
    let verified = |bench: &Bench| {
        bench
            .vault
            .slots()
            .iter()
            .find(|slot| slot.name.as_str() == "glass")
            .unwrap()
            .verified
    };
    assert_eq!(verified(&bench), None);
    bench.bring("glass", &[&glass[0]], Operation::VerifySlot).await.unwrap();
    assert_eq!(verified(&bench), Some(bench.clock.now()));
    let Done::Recover { slot } = bench.bring("glass", &[&glass[1]], Operation::Recover).await.unwrap() else {
        panic!()
    };
    assert_eq!(slot.as_str(), "glass");

    let root = |bench: &Bench, share: &ShareText| {
        let slots = bench.vault.slots.load();
        offline::derive(
            slots.get(&"glass".parse().unwrap()).unwrap(),
            &[share.expose()],
            &Tokens::default(),
        )
        .map(|keys| keys.root)
    };
    let first = root(&bench, &glass[0]).unwrap();
    let Done::Slot { shares: new, .. } = bench
        .bring("daily", &daily, Operation::RekeySlot(spec("glass", "quorum:1/2")))
        .await
        .unwrap()
    else {
        panic!()
    };
    assert!(
        words(
            bench
                .bring("glass", &[&glass[0]], Operation::VerifySlot)
                .await
                .unwrap_err()
        )
        .contains("old")
    );
    let second = root(&bench, &new[0]).unwrap();
    assert_eq!((first.generation, second.generation), (1, 2));
    assert_ne!(first.key.expose(), second.key.expose());
    assert!(
        bench.vault.disk().unlock(&first.key).await.is_err(),
        "the former root key opens nothing"
    );

    guard.put("two").await.unwrap();
    let Done::Removed { warnings } = bench
        .bring("glass", &[&new[1]], Operation::RemoveSlot("daily".parse().unwrap()))
        .await
        .unwrap()
    else {
        panic!()
    };
    assert!(warnings.is_empty());
    assert!(
        words(
            bench
                .bring("glass", &[&new[1]], Operation::RemoveSlot("glass".parse().unwrap()))
                .await
                .unwrap_err()
        )
        .contains("last slot")
    );
    assert_eq!(guard.get().await.unwrap().as_deref(), Some("two"), "requests went on");
    drop(guard);
    bench.restart().await;
    assert_eq!(bench.vault.slots().len(), 1);
    bench.unseal("glass", &[&new[0]]).await.unwrap();
    assert_eq!(
        bench.vault.enter().unwrap().get().await.unwrap().as_deref(),
        Some("two")
    );
    let ops = bench.recorded();
    let wanted = [
        "init",
        "unseal",
        "add_slot",
        "verify_slot",
        "recover",
        "rekey_slot",
        "remove_slot",
        "unseal",
    ];
    assert_eq!(ops, wanted);
}

/// R-SEAL-4, R-SEAL-5: while slots are added, re-keyed and removed and every key rotates, no request fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_keys_change() {
    let bench = Bench::new().await;
    let shares = bench.init(&[("daily", "hsm+quorum:1/1")]).await;
    let daily = [&shares[0][0]];
    bench.unseal("daily", &daily).await.unwrap();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (vault, stop) = (bench.vault.clone(), stop.clone());
            tokio::spawn(async move {
                let mut calls = 0;
                while !stop.load(Ordering::SeqCst) {
                    let guard = vault.enter().unwrap();
                    guard.put("busy").await.unwrap();
                    assert_eq!(guard.get().await.unwrap().as_deref(), Some("busy"));
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    for _ in 0..5 {
        let Done::Slot { shares: glass, .. } = bench
            .bring("daily", &daily, Operation::AddSlot(spec("glass", "quorum:1/1")))
            .await
            .unwrap()
        else {
            panic!()
        };
        bench.bring("daily", &daily, Operation::VerifySlot).await.unwrap();
        bench.vault.rotate_data_keys(evidence("rotate")).await.unwrap();
        bench.vault.rotate_root(evidence("rotate")).await.unwrap();
        bench.vault.rotate_kek("main", evidence("rotate")).await.unwrap();
        let rekey = Operation::RekeySlot(spec("glass", "hsm+quorum:1/1"));
        bench.bring("glass", &[&glass[0]], rekey).await.unwrap();
        bench
            .bring("daily", &daily, Operation::RemoveSlot("glass".parse().unwrap()))
            .await
            .unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    for caller in callers {
        assert!(caller.await.unwrap() > 5, "they were busy all the time");
    }
}

/// R-SEAL-2: an old slot record put back into the store opens nothing and authorises nothing.
#[tokio::test]
async fn a_removed_slot_cannot_be_put_back() {
    let mut bench = Bench::new().await;
    let shares = bench.init(&[("daily", "quorum:1/1"), ("gone", "quorum:1/1")]).await;
    bench.unseal("daily", &[&shares[0][0]]).await.unwrap();
    let old = bench.vault.slots.load().get(&"gone".parse().unwrap()).unwrap().encode();
    bench
        .bring(
            "daily",
            &[&shares[0][0]],
            Operation::RemoveSlot("gone".parse().unwrap()),
        )
        .await
        .unwrap();
    let mut forged = Change::new();
    forged.put_raw(RawTable::Slots, b"gone", old);
    bench.vault.disk().raw().commit(forged, Vec::new()).await.unwrap();
    bench.restart().await;
    assert!(matches!(
        bench.unseal("gone", &[&shares[1][0]]).await,
        Err(VaultError::Unlock(_))
    ));
    assert!(
        bench
            .bring("gone", &[&shares[1][0]], Operation::VerifySlot)
            .await
            .is_err()
    );
    bench.unseal("daily", &[&shares[0][0]]).await.unwrap();
    let add = Operation::AddSlot(spec("mine", "quorum:1/1"));
    assert!(matches!(
        bench.bring("gone", &[&shares[1][0]], add).await,
        Err(VaultError::Seal(SealError::DoesNotOpen(_)))
    ));
    // It blocks root rotations until it is removed, by name.
    assert!(
        matches!(bench.vault.rotate_root(evidence("rotate")).await, Err(VaultError::Seal(SealError::Damaged(name))) if name == "gone")
    );
    bench
        .bring(
            "daily",
            &[&shares[0][0]],
            Operation::RemoveSlot("gone".parse().unwrap()),
        )
        .await
        .unwrap();
    assert_eq!(bench.vault.rotate_root(evidence("rotate")).await.unwrap(), 4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// R-SEAL-2, R-SEAL-4, R-SEAL-5: against a model: whatever operators do in whatever order, exactly the slots that exist open, each by
    /// its newest shares, and the data is there.
    #[test]
    fn any_order_of_acts(acts in proptest::collection::vec((0..6u8, 0..3usize), 1..10)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut bench = Bench::new().await;
            let mut model: BTreeMap<String, Vec<ShareText>> = BTreeMap::new();
            model.insert("s0".into(), bench.init(&[("s0", "hsm+quorum:2/2")]).await.remove(0));
            bench.unseal("s0", &model["s0"].iter().collect::<Vec<_>>()).await.unwrap();
            bench.vault.enter().unwrap().put("kept").await.unwrap();
            for (act, which) in acts {
                let name = format!("s{which}");
                let by = model.keys().next().unwrap().clone();
                let factors = ["hsm+quorum:2/2", "quorum:2/2", "quorum:1/1"][which];
                let operation = match act {
                    0 => Operation::AddSlot(spec(&name, factors)),
                    1 => Operation::RemoveSlot(name.parse().unwrap()),
                    2 => Operation::RekeySlot(spec(&name, factors)),
                    3 => { bench.vault.rotate_root(evidence("rotate")).await.unwrap(); continue }
                    4 => { let _ = bench.vault.rotate_kek("main", evidence("rotate")).await; continue }
                    _ => {
                        bench.clock.advance(Duration::from_secs(KEK_GRACE_SECS));
                        bench.vault.tend(evidence("tend")).await.unwrap();
                        bench.restart().await;
                        bench.unseal(&by, &model[&by].iter().collect::<Vec<_>>()).await.unwrap();
                        continue
                    }
                };
                let done = bench.bring(&by, &model[&by].iter().collect::<Vec<_>>(), operation.clone()).await;
                match (&operation, done) {
                    (Operation::AddSlot(_), done) if model.contains_key(&name) => assert!(done.is_err()),
                    (Operation::RemoveSlot(_), done) if !model.contains_key(&name) || model.len() == 1 => assert!(done.is_err()),
                    (Operation::RekeySlot(_), done) if !model.contains_key(&name) => assert!(done.is_err()),
                    (Operation::RemoveSlot(_), done) => { done.unwrap(); model.remove(&name); }
                    (_, done) => {
                        let Done::Slot { shares, .. } = done.unwrap() else { panic!() };
                        model.insert(name, shares);
                    }
                }
            }
            for (name, shares) in &model {
                bench.restart().await;
                bench.unseal(name, &shares.iter().collect::<Vec<_>>()).await.unwrap();
                assert_eq!(bench.vault.enter().unwrap().get().await.unwrap().as_deref(), Some("kept"));
            }
            assert_eq!(bench.vault.slots().len(), model.len());
            assert!(bench.vault.slots().iter().all(|slot| slot.factors.parse::<Factors>().is_ok()));
        });
    }
}
