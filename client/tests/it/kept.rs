//! Credentials that renew themselves.

use crate::fake::{Fake, Step};
use std::time::Duration;
use strongroom_client::{Error, Keep, LeaseState};
use tonic::Code;

const PATIENT: Duration = Duration::from_secs(10);

/// R-LEASE-1: renewed before it ends; once nothing extends it any more that is said; closing revokes.
#[tokio::test]
async fn a_kept_lease_is_renewed_then_final_then_revoked() {
    let fake = Fake::start();
    fake.set_renewals(&[3, 1]);
    let client = fake.client(PATIENT).await;
    let kept = client.issue_kept("pg/readers", None).await.unwrap();
    assert_eq!(kept.credential().field("username").unwrap().expose(), b"u1");
    let mut state = kept.state();
    assert_eq!(
        *state.borrow_and_update(),
        LeaseState::Active {
            expires_at: "first".into()
        }
    );
    state.changed().await.unwrap();
    assert_eq!(
        *state.borrow_and_update(),
        LeaseState::Active {
            expires_at: "renewed for 3".into()
        }
    );
    state.changed().await.unwrap();
    assert_eq!(
        *state.borrow_and_update(),
        LeaseState::Final {
            expires_at: "renewed for 1".into()
        }
    );
    assert!(kept.close().await.unwrap());
    assert_eq!(*state.borrow(), LeaseState::Ended);
    assert_eq!(fake.seen("lease.revoke")[0].text, b"lease-1");
    assert_eq!(fake.seen("lease.renew").len(), 2);
}

/// A refusal for now is reported and tried again; a lease that is gone is over.
#[tokio::test]
async fn failing_renewals_are_reported_and_a_lost_lease_ends() {
    let fake = Fake::start();
    fake.script(
        "lease.renew",
        &[
            Step::Fail(Code::Unauthenticated, "TOKEN_INVALID"),
            Step::Fail(Code::NotFound, "NOT_FOUND"),
        ],
    );
    let client = fake.client(PATIENT).await;
    let kept = client.issue_kept("pg/readers", None).await.unwrap();
    let mut state = kept.state();
    state.changed().await.unwrap();
    let failing = state.borrow_and_update().clone();
    assert!(
        matches!(
            failing,
            LeaseState::Failing {
                error: Error::Unauthenticated(_),
                ..
            }
        ),
        "{failing:?}"
    );
    state.changed().await.unwrap();
    assert_eq!(*state.borrow_and_update(), LeaseState::Ended);
}

/// Dropping revokes only when that was asked for.
#[tokio::test]
async fn dropping_revokes_on_request() {
    let fake = Fake::start();
    let client = fake.client(PATIENT).await;
    drop(client.issue_kept("pg/readers", None).await.unwrap());
    let keep = Keep {
        ttl: None,
        revoke_on_drop: true,
    };
    drop(client.issue_kept_with("pg/readers", keep).await.unwrap());
    fake.until_seen("lease.revoke", 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let revoked: Vec<_> = fake.seen("lease.revoke").into_iter().map(|seen| seen.text).collect();
    assert_eq!(revoked, [b"lease-2"]);
}

/// A static role has nothing to keep alive, and says so.
#[tokio::test]
async fn a_static_role_cannot_be_kept() {
    let fake = Fake::start();
    let client = fake.client(PATIENT).await;
    let error = client.issue_kept("pg/static", None).await.unwrap_err();
    assert!(matches!(&error, Error::Invalid(r) if r.reason == "NO_LEASE"), "{error}");
    assert!(client.issue("pg/static", None).await.unwrap().lease_id.is_none());
}
