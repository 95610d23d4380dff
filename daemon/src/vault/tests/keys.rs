//! Keys rotated online, and crashes in between.

use super::*;

/// R-SEAL-5: root key and data keys rotate online; shares stay good and data readable.
#[tokio::test]
async fn root_and_data_keys_rotate() {
    let mut bench = Bench::new().await;
    let shares = bench.init(&[("daily", "hsm+quorum:2/3"), ("auto", "hsm")]).await;
    assert!(words(bench.vault.rotate_root(evidence("rotate")).await.unwrap_err()).contains("sealed"));
    bench.unseal("daily", &[&shares[0][0], &shares[0][1]]).await.unwrap();
    bench.vault.enter().unwrap().put("kept").await.unwrap();
    assert_eq!(bench.vault.rotate_root(evidence("rotate")).await.unwrap(), 2);
    assert_eq!(bench.vault.rotate_data_keys(evidence("rotate")).await.unwrap(), 2);
    assert_eq!(bench.vault.rotate_root(evidence("rotate")).await.unwrap(), 3);
    for slot in ["daily", "auto"] {
        bench.restart().await;
        let shares: &[&ShareText] = if slot == "daily" {
            &[&shares[0][1], &shares[0][2]]
        } else {
            &[]
        };
        bench.unseal(slot, shares).await.unwrap();
        assert_eq!(
            bench.vault.enter().unwrap().get().await.unwrap().as_deref(),
            Some("kept")
        );
    }
}

/// R-SEAL-5: old data is sealed anew in the background and old data keys end, whatever dies in between; keys can rotate without end.
#[tokio::test]
async fn data_is_reencrypted_and_old_keys_end() {
    let mut bench = Bench::new().await;
    let shares = bench.init(&[("glass", "quorum:1/1")]).await;
    bench.unseal("glass", &[&shares[0][0]]).await.unwrap();
    bench.vault.enter().unwrap().put("kept").await.unwrap();
    let generations = |bench: &Bench| bench.vault.enter().unwrap().store.keyring().unwrap().generation_ids();
    assert!(bench.vault.reencrypt(evidence("drop")).await.unwrap().finished);
    for round in 2..24 {
        assert_eq!(bench.vault.rotate_data_keys(evidence("rotate")).await.unwrap(), round);
        if round % 4 == 0 {
            bench.rig.faults.next(Fault::FailBefore);
            assert!(bench.vault.reencrypt(evidence("drop")).await.is_err());
            bench.restart().await;
            bench.unseal("glass", &[&shares[0][0]]).await.unwrap();
        }
        assert_eq!(generations(&bench), [round - 1, round]);
        // The pass that moves the last record still met the old key; the pass after it did not.
        let mut dropped = Vec::new();
        for _ in 0..6 {
            dropped.extend(bench.vault.reencrypt(evidence("drop")).await.unwrap().dropped);
        }
        assert_eq!((dropped, generations(&bench)), (vec![round - 1], vec![round]));
    }
    bench.restart().await;
    bench.unseal("glass", &[&shares[0][0]]).await.unwrap();
    assert_eq!(
        bench.vault.enter().unwrap().get().await.unwrap().as_deref(),
        Some("kept")
    );
}

/// R-SEAL-5, R-SEAL-6: an HSM's KEK rotates in steps; whatever dies in between, the slot opens by both HSMs and the rest is made up for.
#[tokio::test]
async fn a_kek_rotation_survives_a_crash_at_every_step() {
    for (step, fault) in [None, Some(Fault::FailBefore), Some(Fault::FailAfter)]
        .into_iter()
        .enumerate()
    {
        let mut bench = Bench::new().await;
        bench.init(&[("auto", "hsm")]).await;
        bench.unseal("auto", &[]).await.unwrap();
        if let Some(fault) = fault {
            bench.rig.faults.next(fault);
        }
        let rotated = bench.vault.rotate_kek("main", evidence("rotate")).await;
        assert_eq!(rotated.is_ok(), fault != Some(Fault::FailBefore), "{step}: {rotated:?}");
        assert_eq!(bench.hsm.versions(), [1, 2]);
        bench.restart().await;
        bench.second.fail(ErrorKind::Device);
        bench.unseal("auto", &[]).await.unwrap();
        let kept = bench.vault.tend(evidence("tend")).await.unwrap();
        assert_eq!(
            kept,
            Tended {
                retired: false,
                destroyed: 0
            },
            "the grace has not passed"
        );
        if fault == Some(Fault::FailBefore) {
            assert_eq!(
                bench.vault.rotate_kek("main", evidence("rotate")).await.unwrap(),
                2,
                "the orphan is taken"
            );
        }
        bench.clock.advance(Duration::from_secs(KEK_GRACE_SECS));
        // The commit that drops the old copy dies: nothing is destroyed.
        bench.rig.faults.next(Fault::FailBefore);
        assert!(bench.vault.tend(evidence("tend")).await.is_err());
        assert_eq!(bench.hsm.versions(), [1, 2]);
        // The copy is dropped, and the daemon dies before the key is destroyed.
        bench.hsm.fail_after(1);
        assert!(bench.vault.tend(evidence("tend")).await.is_err());
        bench.hsm.heal();
        assert_eq!(bench.hsm.versions(), [1, 2]);
        bench.restart().await;
        bench.unseal("auto", &[]).await.unwrap();
        assert_eq!(
            bench.vault.tend(evidence("tend")).await.unwrap(),
            Tended {
                retired: false,
                destroyed: 1
            }
        );
        assert_eq!(bench.hsm.versions(), [2]);
        bench.second.heal();
        bench.hsm.fail(ErrorKind::Device);
        bench.restart().await;
        bench.unseal("auto", &[]).await.unwrap();
    }
}

/// R-SEAL-4: a crash in the middle of `init`, of a re-keying or of a root rotation leaves the old state or the new one, whole.
#[tokio::test]
async fn changes_are_whole_or_not_at_all() {
    for fault in [Fault::FailBefore, Fault::FailAfter] {
        let made = fault == Fault::FailAfter;
        let mut bench = Bench::new().await;
        bench.rig.faults.next(fault);
        let init = bench
            .vault
            .init(vec![spec("daily", "hsm+quorum:1/2")], evidence("init"), |_| async {
                Ok(())
            })
            .await;
        assert_eq!(init.is_ok(), made, "an answer that was only late is not lost");
        bench.restart().await;
        assert_eq!(
            bench.vault.state(),
            if made { VaultState::Sealed } else { VaultState::Blank }
        );
        let old = match init {
            Ok(made) => made.shares.into_iter().next().unwrap().1,
            Err(_) => bench.init(&[("daily", "hsm+quorum:1/2")]).await.remove(0),
        };
        bench.unseal("daily", &[&old[0]]).await.unwrap();
        bench.vault.enter().unwrap().put("kept").await.unwrap();

        bench.rig.faults.next(fault);
        let rekeyed = bench
            .bring(
                "daily",
                &[&old[0]],
                Operation::RekeySlot(spec("daily", "hsm+quorum:1/2")),
            )
            .await;
        assert_eq!(rekeyed.is_ok(), made, "{rekeyed:?}");
        bench.restart().await;
        let now = match rekeyed {
            Ok(Done::Slot { shares, .. }) => {
                assert!(words(bench.unseal("daily", &[&old[0]]).await.unwrap_err()).contains("old"));
                shares
            }
            _ => old,
        };
        bench.unseal("daily", &[&now[1]]).await.unwrap();
        assert_eq!(
            bench.vault.enter().unwrap().get().await.unwrap().as_deref(),
            Some("kept")
        );

        bench.rig.faults.next(fault);
        assert_eq!(bench.vault.rotate_root(evidence("rotate")).await.is_ok(), made);
        // Memory follows the disk: the next change is made under the root key that the store has.
        bench.vault.rotate_root(evidence("rotate")).await.unwrap();
        bench.restart().await;
        bench.unseal("daily", &[&now[0]]).await.unwrap();
        assert_eq!(
            bench.vault.enter().unwrap().get().await.unwrap().as_deref(),
            Some("kept")
        );
    }
}
