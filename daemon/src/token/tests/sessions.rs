//! Races, revocations, endings, damage.

use super::*;

/// R-AUTH-4: two renewals at once, a renewal and a revocation at once: the record decides, and no life passes its maximum.
#[tokio::test]
async fn races_are_decided_by_the_record() {
    let f = fixture().await;
    let setup = f.setup().await;
    let ann = f
        .create(
            &setup,
            &NewToken {
                max_ttl_secs: 1000,
                ttl_secs: 100,
                ..named("ann")
            },
        )
        .await
        .unwrap();
    let me = f.who(&ann).unwrap();
    let permit = f.permit(&me, Action::TokenRenew, ann.accessor);
    f.wait(50);
    let (one, renewed) = f.room.renew(&permit, ann.accessor, 900).await.unwrap();
    let (two, _) = f.room.renew(&permit, ann.accessor, 200).await.unwrap();
    f.commit(one).await.unwrap();
    assert!(matches!(f.commit(two).await, Err(CommitError::Precondition(0))));
    assert_eq!(renewed.ttl_secs, 900);
    assert_eq!(
        f.renew(&ann, 200).await.unwrap().ttl_secs,
        900,
        "a renewal does not shorten"
    );
    f.wait(800);
    assert_eq!(f.renew(&ann, 900).await.unwrap().ttl_secs, 150, "the maximum");
    let (renewal, _) = f.room.renew(&permit, ann.accessor, 0).await.unwrap();
    let (child, orphan) = f
        .room
        .create(&f.create_permit(&me, &NewToken::default()), &NewToken::default())
        .await
        .unwrap();
    let (session, late) = f
        .room
        .create(&f.create_permit(&me, &named("bob")), &named("bob"))
        .await
        .unwrap();
    f.revoke(&ann, &ann, true).await.unwrap();
    for change in [renewal, child, session] {
        assert!(matches!(f.commit(change).await, Err(CommitError::Precondition(_))));
    }
    assert!(!f.passes(&ann) && !f.passes(&orphan) && !f.passes(&late));
    let mut lease = Change::new();
    f.room.require_live(&mut lease, ann.session);
    lease.put(&f.room.marks, &[Part::Name("x")], zeroize::Zeroizing::new(vec![]));
    assert!(
        matches!(f.commit(lease).await, Err(CommitError::Precondition(0))),
        "no lease outlasts the revocation"
    );
}

/// R-TOK-6: revoking a session is at once for it and all it made, survives a crash at any point, and names every session whose leases
/// are to go; what merely expires leaves what it made.
#[tokio::test]
async fn a_session_and_all_it_made() {
    let f = fixture().await;
    let setup = f.setup().await;
    let stolen = f.create(&setup, &named("stolen")).await.unwrap();
    let made = f.create(&stolen, &named("made")).await.unwrap();
    let below = f.create(&made, &named("below")).await.unwrap();
    let kept = f.create(&setup, &named("kept")).await.unwrap();
    let by = f.who(&below).unwrap();
    let (late, late_token) = f
        .room
        .create(&f.create_permit(&by, &named("late")), &named("late"))
        .await
        .unwrap();
    let (renewal, _) = f
        .room
        .renew(&f.permit(&by, Action::TokenRenew, below.accessor), below.accessor, 0)
        .await
        .unwrap();
    let revoked = f.revoke(&setup, &stolen, true).await.unwrap();
    assert_eq!((revoked.tokens, revoked.sessions[0]), (3, stolen.session));
    assert!(
        revoked.sessions.contains(&below.session),
        "its descendants too: their leases end"
    );
    // Two below the revoked session: their own maker's record is still there, so they are committed, and dead.
    for change in [late, renewal] {
        f.commit(change).await.unwrap();
    }
    assert!(!f.passes(&late_token));
    let state = |f: &Fixture| [&setup, &stolen, &made, &below, &kept].map(|token| f.passes(token));
    assert_eq!(state(&f), [true, false, false, false, true]);
    assert_eq!(f.room.ended(10), [stolen.session]);
    assert!(
        f.room.settled(stolen.session).is_none(),
        "not while what it made has records"
    );
    let f = f.again().await;
    assert_eq!(
        state(&f),
        [true, false, false, false, true],
        "a crash before the sweep brings nothing back"
    );
    f.sweep().await;
    assert!(!f.passes(&late_token));
    let want = BTreeSet::from([stolen.session, made.session, below.session, late_token.session]);
    assert_eq!(f.room.ended(10).into_iter().collect::<BTreeSet<_>>(), want);
    let f = f.again().await;
    assert_eq!(
        f.room.ended(10).into_iter().collect::<BTreeSet<_>>(),
        want,
        "the marks are stored"
    );
    for session in want {
        f.commit(f.room.settled(session).unwrap()).await.unwrap();
    }
    assert!(f.room.ended(10).is_empty() && f.again().await.room.ended(10).is_empty());
}

/// Expiry: leases end only where that was asked; made sessions live on; the last token revoked ends the session.
#[tokio::test]
async fn endings() {
    let f = fixture().await;
    let setup = f.setup().await;
    let ci = f
        .create(
            &setup,
            &NewToken {
                end_leases: true,
                ttl_secs: 60,
                ..named("ci")
            },
        )
        .await
        .unwrap();
    let man = f
        .create(
            &setup,
            &NewToken {
                ttl_secs: 60,
                ..named("man")
            },
        )
        .await
        .unwrap();
    let made = f.create(&man, &named("made")).await.unwrap();
    f.wait(61);
    f.sweep().await;
    assert_eq!(f.room.ended(10), [ci.session]);
    assert!(!f.passes(&ci) && !f.passes(&man) && f.passes(&made));
    assert_eq!(
        f.revoke(&made, &made, false).await.unwrap(),
        Revoked {
            tokens: 1,
            sessions: vec![made.session]
        }
    );
    assert_eq!(f.room.ended(10).len(), 2);
    let setup_caller = f.who(&setup).unwrap();
    let target = f.room.target(&setup_caller, Some(made.accessor)).unwrap();
    assert_eq!(
        (target.path.as_str(), target.own),
        ("sys/token/~nobody", false),
        "what has ended is like what never was"
    );
}

/// R-STORE-4: a damaged record loses its own tokens and nothing else.
#[tokio::test]
async fn damage_is_contained() {
    let f = fixture().await;
    let setup = f.setup().await;
    let (ann, bob) = (
        f.create(&setup, &named("ann")).await.unwrap(),
        f.create(&setup, &named("bob")).await.unwrap(),
    );
    let eve = f.create(&setup, &named("eve")).await.unwrap();
    let mut change = Change::new();
    change.put(
        &f.room.sessions,
        &[Part::Raw(ann.session.as_bytes())],
        zeroize::Zeroizing::new(b"{".to_vec()),
    );
    change.put(
        &f.room.identities,
        &[Part::Name("bob")],
        zeroize::Zeroizing::new(b"{}".to_vec()),
    );
    f.commit(change).await.unwrap();
    let f = f.again().await;
    assert_eq!(
        [&setup, &ann, &bob, &eve].map(|token| f.passes(token)),
        [true, false, false, true]
    );
    assert!(matches!(
        f.create(&setup, &named("bob")).await,
        Err(TokenError::Damaged("identity"))
    ));
    f.wait(24 * 3600);
    f.sweep().await;
}
