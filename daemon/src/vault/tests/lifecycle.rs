//! From blank to open and back.

use super::*;
use crate::seal::SessionError;

/// R-SEAL-3: blank, sealed, open and sealed again; every act on record; what was written before is read after.
#[tokio::test]
async fn a_vault_lives() {
    let mut bench = Bench::new().await;
    assert_eq!(
        (bench.vault.state(), bench.vault.enter().err()),
        (VaultState::Blank, Some(Closed::Blank))
    );
    let made = bench.vault.init(
        vec![spec("daily", "hsm+quorum:2/3"), spec("glass", "quorum:2/2")],
        evidence("init"),
        |rooms: Arc<Kept>| async move {
            rooms.put("set up").await?;
            Ok(7)
        },
    );
    let made = made.await.unwrap();
    assert_eq!(made.first.unwrap(), 7);
    let shares: Vec<Vec<ShareText>> = made.shares.into_iter().map(|(_, shares)| shares).collect();
    assert_eq!(
        (bench.vault.state(), bench.vault.enter().err()),
        (VaultState::Sealed, Some(Closed::Sealed))
    );
    let again = bench
        .vault
        .init(vec![spec("daily", "hsm")], evidence("init"), |_| async { Ok(()) })
        .await;
    assert!(words(again.err().unwrap()).contains("initialised already"));

    bench.restart().await;
    assert_eq!(bench.vault.state(), VaultState::Sealed);
    bench.unseal("daily", &[&shares[0][2], &shares[0][0]]).await.unwrap();
    let guard = bench.vault.enter().unwrap();
    assert_eq!(guard.get().await.unwrap().as_deref(), Some("set up"));
    guard.put("in use").await.unwrap();
    let again = bench.unseal("glass", &[&shares[1][0], &shares[1][1]]).await;
    assert!(words(again.unwrap_err()).contains("open already"));
    drop(guard);
    let sealing = bench.vault.seal(evidence("seal")).await;
    assert!(sealing.drained && sealing.unrecorded.is_none());
    assert_eq!(bench.vault.enter().err(), Some(Closed::Sealed));
    assert!(bench.hsm.stops() > 0, "the HSM's worker held the seed");
    bench.unseal("glass", &[&shares[1][0], &shares[1][1]]).await.unwrap();
    assert_eq!(
        bench.vault.enter().unwrap().get().await.unwrap().as_deref(),
        Some("in use")
    );
    assert_eq!(bench.recorded(), ["init", "unseal", "seal", "unseal"]);
}

/// R-SEAL-3, R-SEAL-7: sealing waits for requests in flight, and not for ever: who stays finds no key.
#[tokio::test]
async fn sealing_waits_and_then_goes_on() {
    let bench = Bench::new().await;
    let shares = bench.init(&[("glass", "quorum:1/1")]).await;
    bench.unseal("glass", &[&shares[0][0]]).await.unwrap();
    let guard = bench.vault.enter().unwrap();
    let vault = bench.vault.clone();
    let sealing = tokio::spawn(async move { vault.seal(evidence("seal")).await });
    while bench.vault.enter().is_ok() {
        tokio::task::yield_now().await;
    }
    guard.put("still here").await.unwrap();
    assert!(!sealing.is_finished());
    drop(guard);
    assert!(sealing.await.unwrap().drained);

    bench.unseal("glass", &[&shares[0][0]]).await.unwrap();
    let stays = bench.vault.enter().unwrap();
    let before = tokio::time::Instant::now();
    let sealing = bench.vault.seal(evidence("seal")).await;
    assert!(!sealing.drained && before.elapsed() >= DRAIN);
    assert!(matches!(stays.get().await, Err(StoreError::Sealed)));
    assert!(matches!(stays.put("too late").await, Err(CommitError::Sealed)));
    assert_eq!(stays.closed.load(Ordering::SeqCst), 1);
}

/// R-SEAL-3: a broken audit log stops an unseal, never a seal.
#[tokio::test]
async fn without_a_log_nothing_opens_but_everything_closes() {
    let bench = Bench::new().await;
    let shares = bench.init(&[("glass", "quorum:1/1")]).await;
    bench.unseal("glass", &[&shares[0][0]]).await.unwrap();
    *bench.rig.kept.unavailable.lock() = Some("disk full".into());
    let sealing = bench.vault.seal(evidence("seal")).await;
    assert!(sealing.unrecorded.is_some());
    assert_eq!(bench.vault.state(), VaultState::Sealed);
    let refused = bench.unseal("glass", &[&shares[0][0]]).await;
    assert!(
        matches!(refused, Err(VaultError::Commit(CommitError::AuditUnavailable(_)))),
        "{refused:?}"
    );
    assert_eq!(bench.vault.state(), VaultState::Sealed);
    *bench.rig.kept.unavailable.lock() = None;
    // The session is complete: no share is needed again.
    let session = bench.vault.sessions.list();
    assert_eq!((session.len(), session[0].have, session[0].need), (1, 1, 1));
    bench.unseal("glass", &[&shares[0][0]]).await.unwrap();
}

/// R-SEAL-2: an `hsm` slot opens by itself at start, by whichever HSM answers; operators' slots do not. Nobody but root presents it.
#[tokio::test]
async fn an_hsm_slot_opens_by_itself() {
    let mut bench = Bench::new().await;
    let shares = bench.init(&[("auto", "hsm"), ("daily", "hsm+quorum:1/2")]).await;
    bench.hsm.fail(ErrorKind::Device);
    assert_eq!(
        bench
            .vault
            .open_by_itself(evidence("unseal"))
            .await
            .unwrap()
            .unwrap()
            .as_str(),
        "auto"
    );
    assert_eq!(bench.vault.open_by_itself(evidence("unseal")).await.unwrap(), None);
    bench.restart().await;
    assert!(bench.vault.shut_by_itself().is_none(), "nothing was tried yet");
    bench.second.fail(ErrorKind::Timeout);
    let error = words(bench.vault.open_by_itself(evidence("unseal")).await.unwrap_err());
    assert!(
        error.contains("[hsm.main]") && error.contains("[hsm.second]"),
        "{error}"
    );
    bench.second.heal();
    assert!(bench.vault.shut_by_itself().is_some(), "to be tried again");
    let remote = PresentInput {
        slot: "auto".parse().unwrap(),
        session: None,
        share: None,
        operation: Some(Operation::Unseal),
        local_root: false,
    };
    assert!(matches!(
        bench.vault.present(remote, evidence("unseal")).await,
        Err(VaultError::Seal(SealError::LocalRootOnly))
    ));
    bench.unseal("auto", &[]).await.unwrap();
    assert!(bench.vault.shut_by_itself().is_none(), "it was opened");
    bench.vault.seal(evidence("seal")).await;
    assert!(
        bench.vault.shut_by_itself().is_none(),
        "somebody sealed it: it stays so"
    );
    bench.unseal("daily", &[&shares[1][1]]).await.unwrap();

    let other = Bench::new().await;
    other.init(&[("daily", "hsm+quorum:1/2")]).await;
    assert_eq!(other.vault.open_by_itself(evidence("unseal")).await.unwrap(), None);
}

/// R-SEAL-3, R-SEAL-4: shares that were brought before the vault was opened or sealed open nothing afterwards.
#[tokio::test]
async fn sessions_end_with_unseal_and_with_seal() {
    let bench = Bench::new().await;
    let shares = bench.init(&[("daily", "hsm+quorum:2/3")]).await.remove(0);
    let input = |session, share: Option<usize>, operation| PresentInput {
        slot: "daily".parse().unwrap(),
        session,
        share: share.and_then(|nth| shares.get(nth)).map(ShareText::expose),
        operation,
        local_root: false,
    };
    let present = async |input| bench.vault.present(input, evidence("present")).await;
    let begun = async |nth, operation| match present(input(None, Some(nth), Some(operation))).await {
        Ok(Answer::Waiting(progress)) => progress.session,
        other => panic!("{other:?}"),
    };
    let complete = begun(0, Operation::Unseal).await;
    bench.hsm.fail(ErrorKind::Timeout);
    bench.second.fail(ErrorKind::Timeout);
    assert!(present(input(Some(complete), Some(1), None)).await.is_err());
    assert_eq!(bench.vault.sessions()[0].have, 2, "it can run again");
    bench.hsm.heal();
    bench.second.heal();
    bench.unseal("daily", &[&shares[2], &shares[1]]).await.unwrap();
    assert!(bench.vault.sessions().is_empty(), "the vault is open");
    let recovering = begun(0, Operation::Recover).await;
    bench.vault.seal(evidence("seal")).await;
    assert!(bench.vault.sessions().is_empty(), "the vault is sealed");
    for session in [complete, recovering] {
        let again = present(input(Some(session), None, None)).await;
        assert!(
            matches!(again, Err(VaultError::Seal(SealError::Session(SessionError::Unknown)))),
            "{again:?}"
        );
    }
    assert_eq!(bench.vault.state(), VaultState::Sealed);
}

/// A vault cannot be made without slots, or with a slot that cannot be made; it stays blank.
#[tokio::test]
async fn a_refused_init_leaves_it_blank() {
    let bench = Bench::new().await;
    let init = |specs| bench.vault.init(specs, evidence("init"), |_| async { Ok(()) });
    assert!(words(init(Vec::new()).await.err().unwrap()).contains("at least one slot"));
    assert!(matches!(
        init(vec![spec("a", "quorum:1/1"), spec("a", "hsm")]).await.err(),
        Some(VaultError::Seal(SealError::SlotExists(_)))
    ));
    bench.second.fail(ErrorKind::Device);
    assert!(
        matches!(init(vec![spec("a", "hsm")]).await.err(), Some(VaultError::Seal(SealError::HsmStep { name, .. })) if name == "second")
    );
    assert!(bench.vault.state() == VaultState::Blank && bench.rig.kept.frames.lock().is_empty());
    assert!(
        bench.vault.rotate_root(evidence("rotate")).await.is_err()
            && bench.vault.open_by_itself(evidence("x")).await.unwrap().is_none()
    );
    bench.second.heal();
    let made = init(vec![spec("a", "hsm"), spec("b", "quorum:1/2")]).await.unwrap();
    assert!(
        made.warnings.iter().any(|warning| warning.contains("k = 1")),
        "{:?}",
        made.warnings
    );
    assert_eq!(
        bench
            .vault
            .slots()
            .iter()
            .map(|slot| (slot.factors.clone(), slot.hsms.len()))
            .collect::<Vec<_>>(),
        [("hsm".into(), 2), ("quorum:1/2".into(), 0)]
    );
}

/// R-SEAL-3: the door is cheap: a request pays for it every time. The bound is loose, for a slow and busy machine.
#[tokio::test]
async fn entering_costs_next_to_nothing() {
    let bench = Bench::new().await;
    let shares = bench.init(&[("glass", "quorum:1/1")]).await;
    bench.unseal("glass", &[&shares[0][0]]).await.unwrap();
    let per_entry = (0..20).map(|_| {
        let start = std::time::Instant::now();
        (0..10_000).for_each(|_| drop(bench.vault.enter()));
        start.elapsed().as_nanos() / 10_000
    });
    let best = per_entry.min().unwrap();
    println!("{best} ns an entry");
    assert!(best < 2_000, "{best} ns");
}

/// R-SEAL-4: the same on the default engine, and what the offline derivation finds is what the daemon uses.
#[tokio::test]
async fn on_a_real_engine() {
    let dir = tempfile::tempdir().unwrap();
    let hsm = Fake::new("main");
    let clock = Arc::new(ManualClock::at(Timestamp(1_795_000_000_000)));
    let open = || async {
        Vault::new(parts(
            disk(EngineKind::Fjall, dir.path()),
            Tokens::new(vec![hsm.clone()]),
            clock.clone(),
        ))
        .await
        .unwrap()
    };
    let vault = open().await;
    let made = vault
        .init(
            vec![spec("auto", "hsm")],
            evidence("init"),
            |rooms: Arc<Kept>| async move { Ok(rooms.put("first").await?) },
        )
        .await
        .unwrap();
    made.first.unwrap();
    vault.disk().close();
    drop(vault);
    let vault = open().await;
    assert!(vault.open_by_itself(evidence("unseal")).await.unwrap().is_some());
    assert_eq!(vault.enter().unwrap().get().await.unwrap().as_deref(), Some("first"));
    let slots = vault.slots.load();
    let keys = offline::derive(
        slots.get(&"auto".parse().unwrap()).unwrap(),
        &[],
        &Tokens::new(vec![hsm.clone()]),
    )
    .unwrap();
    assert!(vault.disk().unlock(&keys.root.key).await.is_ok());
}
