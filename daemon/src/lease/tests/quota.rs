//! Quotas against what is really there.

use super::*;

impl Lab {
    async fn with_quotas(per_identity: u64, per_mount: u64) -> Self {
        let mut lab = Self::new().await;
        lab.quotas = Quotas {
            per_identity,
            per_mount,
        };
        lab.open().await;
        lab
    }

    async fn has(&self) -> u64 {
        self.room()
            .count(&Scope::Identity(self.permit.identity()))
            .await
            .unwrap()
    }

    /// Waits until there are so many at most, and everybody knows.
    async fn until_has(&self, leases: u64) {
        self.until("so many", async || {
            self.has().await <= leases && self.room().inner.books.tallies.is_still()
        })
        .await;
    }

    async fn end_one(&self) {
        let Some(lease) = self.leases().await.first().cloned() else {
            return;
        };
        let before = self.has().await;
        self.room().withdraw(lease.id).await.unwrap();
        self.until_has(before - 1).await;
    }
}

/// R-LEASE-5: as many as the quota says, no more; the answer names the key; what ends makes room, what is only being revoked does not; after a
/// restart the leases of before count.
#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_kept_over_a_restart() {
    let mut lab = Lab::with_quotas(3, 100).await;
    for _ in 0..3 {
        lab.issue(3600).await.unwrap();
    }
    let refused = lab.issue(3600).await.unwrap_err();
    assert!(
        matches!(
            refused,
            LeaseError::Quota {
                what: "identity",
                max: 3,
                ..
            }
        ),
        "{refused:?}"
    );
    assert!(
        refused.to_string().contains("limits.leases_per_identity_max"),
        "{refused}"
    );
    assert_eq!(lab.world.names().len(), 3, "nothing was made");
    lab.open().await;
    assert!(matches!(lab.issue(3600).await, Err(LeaseError::Quota { .. })));
    *lab.world.down.lock() = true;
    let lease = lab.leases().await[0].id;
    lab.room().withdraw(lease).await.unwrap();
    assert!(
        matches!(lab.issue(3600).await, Err(LeaseError::Quota { .. })),
        "its account may live"
    );
    *lab.world.down.lock() = false;
    lab.until_has(2).await;
    lab.issue(3600).await.unwrap();
    assert!(matches!(lab.issue(3600).await, Err(LeaseError::Quota { .. })));
}

/// R-LEASE-5: a mount has its own; whoever asks.
#[tokio::test(flavor = "multi_thread")]
async fn a_mount_has_a_quota_of_its_own() {
    let mut lab = Lab::with_quotas(100, 2).await;
    lab.issue(3600).await.unwrap();
    lab.permit = permit(Action::Issue, "pg/readers");
    lab.set_session(true).await;
    lab.issue(3600).await.unwrap();
    let refused = lab.issue(3600).await.unwrap_err();
    assert!(
        matches!(
            refused,
            LeaseError::Quota {
                what: "mount",
                max: 2,
                ..
            }
        ),
        "{refused:?}"
    );
}

/// R-LEASE-5: many at once get exactly what there is; those that fail outside give their room back.
#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_share_what_there_is() {
    let lab = Arc::new(Lab::with_quotas(5, 100).await);
    *lab.world.down.lock() = true;
    for _ in 0..3 {
        assert!(matches!(lab.issue(3600).await, Err(LeaseError::Target(_))));
    }
    *lab.world.down.lock() = false;
    lab.until_has(0).await;
    let asked: Vec<_> = (0..40)
        .map(|_| {
            let lab = Arc::clone(&lab);
            tokio::spawn(async move { lab.issue(3600).await })
        })
        .collect();
    let (mut got, mut refused) = (0, 0);
    for one in asked {
        match one.await.unwrap() {
            Ok(_) => got += 1,
            Err(LeaseError::Quota { .. }) => refused += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!((got, refused), (5, 35));
}

/// R-LEASE-5: whatever comes and goes, the count that is kept is the count that is there; and what is kept does not grow.
#[tokio::test(flavor = "multi_thread")]
async fn the_count_follows_the_leases() {
    let mut lab = Lab::with_quotas(6, 1000).await;
    let mut dice = 7_u32;
    for _ in 0..60 {
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        match dice >> 29 {
            0 => lab.open().await,
            1 | 2 => lab.end_one().await,
            _ => drop(lab.issue(3600).await),
        }
        let truth = lab.has().await;
        assert!(truth <= 6, "{truth}");
        if let Some(kept) = lab.room().inner.books.tallies.of_identity(lab.permit.identity()) {
            assert_eq!(kept, lab.has().await);
        }
    }
    assert!(lab.room().inner.books.tallies.known() <= 2);
}
