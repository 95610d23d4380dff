//! Holders coming together.

use super::*;

/// R-SEAL-3: two operators' half-finished sessions go on side by side; each ends with its own operation; a nonce is needed to join.
#[test]
fn sessions_do_not_disturb_each_other() {
    let mut bench = Bench::new();
    let shares = bench.add("daily", "hsm+quorum:3/5");
    let first = waiting(bench.present("daily", None, &shares[0], Some(Operation::Unseal)));
    let second = waiting(bench.present("daily", None, &shares[1], Some(Operation::VerifySlot)));
    assert_eq!(
        (first.have, first.need, first.expires_in_secs),
        (1, 3, SLOT_SESSION_TTL_SECS)
    );
    assert_eq!(
        waiting(bench.present("daily", Some(first.session), &shares[1], None)).have,
        2
    );
    assert_eq!(
        waiting(bench.present("daily", Some(second.session), &shares[0], Some(Operation::VerifySlot))).have,
        2
    );
    let info: Vec<_> = bench
        .sessions
        .list()
        .into_iter()
        .map(|info| (info.operation, info.have, info.need))
        .collect();
    assert_eq!(info, [("unseal", 2, 3), ("verify_slot", 2, 3)]);

    let done = complete(bench.present("daily", Some(first.session), &shares[4], None));
    assert_eq!(done.operation, Operation::Unseal);
    let half = done.combine().unwrap();
    assert_eq!(
        bench
            .slots
            .get(&done.slot)
            .unwrap()
            .open(Some(&half), &bench.tokens)
            .unwrap()
            .key
            .expose(),
        bench.root.key.expose()
    );
    assert!(matches!(
        bench.present("daily", Some(first.session), &shares[3], None),
        Err(SealError::Session(SessionError::Busy))
    ));
    drop(done);
    assert!(matches!(
        bench.present("daily", Some(first.session), &shares[3], None),
        Err(SealError::Session(SessionError::Unknown))
    ));
    assert_eq!(
        complete(bench.present("daily", Some(second.session), &shares[2], None)).operation,
        Operation::VerifySlot
    );
}

/// R-SEAL-3: what a session is for is fixed when it opens, and a later holder is told when he means something else.
#[test]
fn a_session_is_bound_to_its_operation_and_slot() {
    let mut bench = Bench::new();
    let shares = bench.add("daily", "quorum:2/3");
    let glass = bench.add("glass", "quorum:2/3");
    let unbound = bench.present("daily", None, &shares[0], None);
    assert!(matches!(
        unbound,
        Err(SealError::Session(SessionError::OperationMissing))
    ));
    let session = waiting(bench.present(
        "daily",
        None,
        &shares[0],
        Some(Operation::AddSlot(spec("x", "quorum:2/2"))),
    ))
    .session;
    let other = |operation| bench.present("daily", Some(session), &shares[1], Some(operation));
    for operation in [
        Operation::Unseal,
        Operation::AddSlot(spec("x", "quorum:1/1")),
        Operation::Recover,
        Operation::RemoveSlot("x".parse().unwrap()),
    ] {
        assert!(matches!(
            other(operation),
            Err(SealError::Session(SessionError::OtherOperation))
        ));
    }
    assert!(matches!(
        bench.present("glass", Some(session), &glass[0], None),
        Err(SealError::Session(SessionError::OtherSlot))
    ));
    assert_eq!(
        complete(other(Operation::AddSlot(spec("x", "quorum:2/2")))).operation,
        Operation::AddSlot(spec("x", "quorum:2/2"))
    );
}

/// R-SEAL-2, R-SEAL-3: a mistyped, old, foreign or repeated share is named, and costs the session nothing.
#[test]
fn wrong_shares_are_named_and_harm_nothing() {
    let mut bench = Bench::new();
    let shares = bench.add("daily", "quorum:2/3");
    let glass = bench.add("glass", "quorum:2/3");
    let foreign = make(
        &spec("daily", "quorum:2/3"),
        None,
        ClusterId::from_bytes([9; 16]),
        &bench.root,
        bench.tools(),
    )
    .unwrap()
    .shares;
    let rekeyed = |bench: &mut Bench| {
        let next = bench.root.successor(&OsRandom).unwrap();
        let (change, made) = bench
            .slots
            .rekey(&spec("daily", "quorum:2/3"), &bench.root, &next, bench.tools())
            .unwrap();
        bench.slots.apply(&change);
        bench.root = next;
        made.shares
    };
    let old = shares;
    let stale = waiting(bench.present("daily", None, &old[0], Some(Operation::Unseal)));
    let shares = rekeyed(&mut bench);
    assert!(bench.opens("daily", &[&shares[0], &shares[1]]) && !bench.opens("daily", &[&old[0], &old[1]]));
    let session = waiting(bench.present("daily", None, &shares[1], Some(Operation::Unseal))).session;
    let try_in = |share: &str| refused(bench.present("daily", Some(session), share, None));
    assert!(try_in(&shares[1].replace("srs1-", "srs1-a")).contains("mistyped"));
    assert!(try_in(&old[1]).contains("old"));
    assert!(try_in(&glass[1]).contains("another slot: `glass`"));
    assert!(try_in(&foreign[1]).contains("another vault"));
    assert!(try_in(&shares[1]).contains("presented already"));
    assert!(refused(bench.present("daily", Some(stale.session), &shares[0], None)).contains("was changed"));
    assert!(refused(bench.present("daily", None, &old[0], Some(Operation::Unseal))).contains("old"));
    assert_eq!(bench.sessions.list().len(), 2);
    drop(complete(bench.present("daily", Some(session), &shares[2], None)));
}

/// R-SEAL-3: nobody without a share takes a session's place, one share holds one session at most, none is evicted for another's
/// sake, and time frees them.
#[test]
fn sessions_cannot_be_held_hostage() {
    let mut bench = Bench::new();
    let shares = bench.add("daily", "quorum:3/5");
    let mine = waiting(bench.present("daily", None, &shares[0], Some(Operation::Unseal)));
    for garbage in 0..4 * SLOT_SESSIONS_MAX {
        let forged = shares[1].replace("srs1-", &format!("srs1-{garbage:02}"));
        assert!(bench.present("daily", None, &forged, Some(Operation::Unseal)).is_err());
    }
    assert_eq!(bench.sessions.list().len(), 1);
    // One share, again and again: its own lone session is replaced, nobody else's.
    let mut theirs = None;
    for _ in 0..4 * SLOT_SESSIONS_MAX {
        theirs = Some(waiting(bench.present(
            "daily",
            None,
            &shares[1],
            Some(Operation::Recover),
        )));
    }
    assert_eq!(bench.sessions.list().len(), 2);
    let theirs = theirs.unwrap();
    waiting(bench.present("daily", Some(theirs.session), &shares[2], None));
    let more = bench.present("daily", None, &shares[1], Some(Operation::Recover));
    assert!(matches!(more, Err(SealError::Session(SessionError::AlreadyOpen))));
    assert!(matches!(
        bench.sessions.abandon(&"00".repeat(16).parse().unwrap()),
        Err(SessionError::Unknown)
    ));
    bench.sessions.abandon(&theirs.session).unwrap();
    assert_eq!(
        waiting(bench.present("daily", Some(mine.session), &shares[1], None)).have,
        2
    );
    // A share renews the session's life; after that it is gone.
    bench.clock.advance(Duration::from_secs(SLOT_SESSION_TTL_SECS - 1));
    assert_eq!(bench.sessions.list().len(), 1);
    bench.clock.advance(Duration::from_secs(1));
    assert!(matches!(
        bench.present("daily", Some(mine.session), &shares[2], None),
        Err(SealError::Session(SessionError::Unknown))
    ));
    assert!(bench.sessions.list().is_empty());
}

/// R-SEAL-3: sessions are bounded even for holders of real shares, and the bound frees itself.
#[test]
fn sessions_are_bounded() {
    let mut bench = Bench::new();
    let shares = bench.add("daily", "quorum:2/32");
    for share in &shares[..SLOT_SESSIONS_MAX] {
        waiting(bench.present("daily", None, share, Some(Operation::Unseal)));
    }
    let more = bench.present("daily", None, &shares[SLOT_SESSIONS_MAX], Some(Operation::Unseal));
    assert!(matches!(more, Err(SealError::Session(SessionError::Full))));
    assert_eq!(bench.sessions.list().len(), SLOT_SESSIONS_MAX);
    bench.clock.advance(Duration::from_secs(SLOT_SESSION_TTL_SECS));
    waiting(bench.present("daily", None, &shares[SLOT_SESSIONS_MAX], Some(Operation::Unseal)));
}

/// R-SEAL-3, R-SEAL-6: when the HSM is away for a moment, the operators need not type their shares again.
#[test]
fn a_complete_session_can_run_again() {
    let mut bench = Bench::new();
    let shares = bench.add("daily", "hsm+quorum:2/3");
    let session = waiting(bench.present("daily", None, &shares[0], Some(Operation::Unseal))).session;
    let done = complete(bench.present("daily", Some(session), &shares[1], None));
    let progress = done.give_back();
    assert_eq!((progress.have, progress.need), (2, 2));
    let slot = "daily".parse().unwrap();
    let again = bench.sessions.present(
        &bench.slots,
        &Presented {
            slot: &slot,
            session: Some(session),
            share: None,
            operation: None,
        },
    );
    complete(again).give_back();
    let done = complete(bench.present("daily", Some(session), &shares[1], None));
    assert!(done.combine().is_ok());
    drop(done);
    assert!(bench.sessions.list().is_empty());
}
