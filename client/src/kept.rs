//! Leases and tokens kept alive in the background: renewed at about two thirds of their life, with
//! jitter, until they are closed, dropped, or at their maximum.

use crate::{
    cache::Asked,
    call::{Client, jitter, waiting},
    creds::LeasedCredential,
    delivery::{Delivered, Kind},
    error::{Error, Refusal},
    held::Secrets,
    login::TokenSource,
    want::Want,
};
use std::time::Duration;
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::Instant,
};

/// Pauses between attempts while renewing fails.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Never renew more often than this, whatever life the daemon gives.
const RENEW_PAUSE_MIN: Duration = Duration::from_secs(1);
/// A renewal that brings less than this brought nothing: the maximum is reached.
const GAIN_MIN: Duration = Duration::from_secs(1);

/// How [`Client::issue_kept_with`] keeps a lease.
#[derive(Debug, Clone, Copy, Default)]
pub struct Keep {
    /// Life asked for at issue and at each renewal; `None`: the role's default.
    pub ttl: Option<Duration>,
    /// Revoke when the handle is dropped without `close`. Best effort: it needs the runtime to be alive.
    pub revoke_on_drop: bool,
}

/// What a kept lease or token is up to, as its [`watch`] channel tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseState {
    /// Alive, and renewed in time.
    Active {
        /// RFC 3339, UTC.
        expires_at: String,
    },
    /// Renewing fails for now and is tried again until the expiry.
    Failing {
        /// RFC 3339, UTC.
        expires_at: String,
        /// Of the last attempt.
        error: Error,
    },
    /// Alive, but no renewal extends it any more: get another one before it expires.
    Final {
        /// RFC 3339, UTC.
        expires_at: String,
    },
    /// Expired, revoked, or closed.
    Ended,
}

/// A leased credential that renews itself. Dropping it stops the renewing; see [`Keep::revoke_on_drop`].
#[derive(Debug)]
pub struct KeptCredential {
    credential: LeasedCredential,
    lease_id: String,
    client: Client,
    keeper: Keeper,
}

impl KeptCredential {
    /// The credential itself.
    #[must_use]
    pub fn credential(&self) -> &LeasedCredential {
        &self.credential
    }

    /// The lease's state now and every change of it.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<LeaseState> {
        self.keeper.state.clone()
    }

    /// Stops renewing and revokes the lease: `true` when it is proven gone, `false` when the daemon
    /// goes on trying.
    /// # Errors
    /// Those of the revocation; the lease then ends at its expiry.
    pub async fn close(self) -> Result<bool, Error> {
        self.keeper.stop().await;
        self.client.revoke(&self.lease_id).await
    }
}

/// A fetched lease that renews itself. Dropping it stops the renewing; see [`Keep::revoke_on_drop`].
#[derive(Debug)]
pub struct KeptLease {
    lease_id: String,
    client: Client,
    keeper: Keeper,
}

impl KeptLease {
    /// The lease's state now and every change of it.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<LeaseState> {
        self.keeper.state.clone()
    }

    /// Stops renewing and revokes: `true` when it is proven gone.
    /// # Errors
    /// Those of the revocation; the lease then ends at its expiry.
    pub async fn close(self) -> Result<bool, Error> {
        self.keeper.stop().await;
        self.client.revoke(&self.lease_id).await
    }
}

/// The client's own token, renewed in the background until this is dropped.
#[derive(Debug)]
pub struct KeptToken(Keeper);

impl KeptToken {
    /// The token's state now and every change of it.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<LeaseState> {
        self.0.state.clone()
    }
}

impl Client {
    /// A credential of a dynamic role, renewed in the background as long as the returned handle lives.
    /// Must run inside a Tokio runtime.
    /// # Errors
    /// [`Error::Invalid`] for a static role, which has no lease. Otherwise as [`issue`](Client::issue).
    pub async fn issue_kept(&self, role: &str, ttl: Option<Duration>) -> Result<KeptCredential, Error> {
        self.issue_kept_with(
            role,
            Keep {
                ttl,
                revoke_on_drop: false,
            },
        )
        .await
    }

    /// [`issue_kept`](Client::issue_kept) with every choice.
    /// # Errors
    /// As [`issue_kept`](Client::issue_kept).
    pub async fn issue_kept_with(&self, role: &str, keep: Keep) -> Result<KeptCredential, Error> {
        let credential = self.issue(role, keep.ttl).await?;
        let Some(lease_id) = credential.lease_id.clone() else {
            return Err(Error::Invalid(Refusal::local(
                "NO_LEASE",
                format!("{role} is a static role without a lease; use issue() and ask again after `rotates_at`"),
            )));
        };
        let what = What::Lease {
            id: lease_id.clone(),
            revoke_on_drop: keep.revoke_on_drop,
        };
        let life = Life::new(credential.ttl, credential.expires_at.clone());
        let keeper = Keeper::start(self.clone(), what, keep.ttl, life);
        Ok(KeptCredential {
            credential,
            lease_id,
            client: self.clone(),
            keeper,
        })
    }

    /// Renews a lease that was just fetched in the background as long as the returned handle lives; `None` for what has no lease.
    /// Must run inside a Tokio runtime.
    #[must_use]
    pub fn keep_lease(&self, fetched: &Delivered, keep: Keep) -> Option<KeptLease> {
        let Kind::Lease {
            lease_id, expires_at, ..
        } = &fetched.kind
        else {
            return None;
        };
        let what = What::Lease {
            id: lease_id.clone(),
            revoke_on_drop: keep.revoke_on_drop,
        };
        let life = Life::new(fetched.remaining.unwrap_or_default(), expires_at.clone());
        Some(KeptLease {
            lease_id: lease_id.clone(),
            client: self.clone(),
            keeper: Keeper::start(self.clone(), what, keep.ttl, life),
        })
    }

    /// Fetches these secrets and credentials and holds them fresh. Must run inside a Tokio runtime.
    /// # Errors
    /// As [`fetch`](Client::fetch).
    pub async fn secrets<W: Into<Want>>(&self, wants: impl IntoIterator<Item = W>) -> Result<Secrets, Error> {
        let wants: Vec<Want> = wants.into_iter().map(Into::into).collect();
        Asked::once(wants.iter().map(|want| want.path.as_str()))?;
        let fetched = self.fetch_all(&wants, None).await?;
        Ok(Secrets::hold(
            self.clone(),
            (TokenSource::Given, None),
            String::new(),
            fetched,
            None,
        ))
    }

    /// Renews the client's own token in the background as long as the returned handle lives.
    /// # Errors
    /// Those of the first renewal, which is made at once.
    pub async fn keep_token(&self, ttl: Option<Duration>) -> Result<KeptToken, Error> {
        let (left, expires_at) = self.renew_token(ttl).await?;
        Ok(KeptToken(Keeper::start(
            self.clone(),
            What::Token,
            ttl,
            Life::new(left, expires_at),
        )))
    }
}

#[derive(Debug)]
enum What {
    Lease { id: String, revoke_on_drop: bool },
    Token,
}

impl What {
    async fn renew(&self, client: &Client, ttl: Option<Duration>) -> Result<Life, Error> {
        let (left, expires_at) = match self {
            Self::Lease { id, .. } => client.renew(id, ttl).await?,
            Self::Token => client.renew_token(ttl).await?,
        };
        Ok(Life::new(left, expires_at))
    }

    async fn dropped(&self, client: &Client) {
        if let Self::Lease {
            id,
            revoke_on_drop: true,
        } = self
            && let Err(error) = client.revoke(id).await
        {
            tracing::warn!(%error, "a dropped lease could not be revoked; it ends at its expiry");
        }
    }
}

/// When something ends: on this machine's own clock, so that clocks that differ do no harm.
#[derive(Debug, Clone)]
struct Life {
    ends: Instant,
    expires_at: String,
}

impl Life {
    fn new(left: Duration, expires_at: String) -> Self {
        Self {
            ends: Instant::now() + left,
            expires_at,
        }
    }

    fn left(&self) -> Duration {
        self.ends.saturating_duration_since(Instant::now())
    }
}

#[derive(Debug)]
struct Keeper {
    state: watch::Receiver<LeaseState>,
    /// Sent: stop, the owner does the rest. Dropped: the owner is gone.
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Keeper {
    fn start(client: Client, what: What, ttl: Option<Duration>, life: Life) -> Self {
        let (told, state) = watch::channel(LeaseState::Active {
            expires_at: life.expires_at.clone(),
        });
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let ordered = tokio::select! {
                () = keep(&client, &what, ttl, life, &told) => true,
                order = stopped => order.is_ok(),
            };
            if !ordered {
                what.dropped(&client).await;
            }
            told.send_replace(LeaseState::Ended);
        });
        Self {
            state,
            stop: Some(stop),
            task,
        }
    }

    async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            // An error means that the task is over already.
            let _ = stop.send(());
        }
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the renewing task failed");
        }
    }
}

/// Renews until nothing can be renewed any more, and returns at the end of the life.
async fn keep(client: &Client, what: &What, ttl: Option<Duration>, mut life: Life, told: &watch::Sender<LeaseState>) {
    let mut retry = RETRY_FIRST;
    let mut wait = renew_after(life.left());
    while life.left() > wait {
        tokio::time::sleep(wait).await;
        wait = match what.renew(client, ttl).await {
            Ok(longer) if longer.ends < life.ends + GAIN_MIN => {
                life = longer;
                break;
            }
            Ok(longer) => {
                life = longer;
                retry = RETRY_FIRST;
                told.send_replace(LeaseState::Active {
                    expires_at: life.expires_at.clone(),
                });
                renew_after(life.left())
            }
            Err(Error::NotFound(_)) => return,
            Err(error @ (Error::Conflict(_) | Error::Invalid(_))) => {
                tracing::info!(%error, "a lease is at its maximum");
                break;
            }
            Err(error) => {
                tracing::warn!(%error, "renewing failed; trying again until the expiry");
                let pause = waiting(retry, &error).unwrap_or(retry);
                told.send_replace(LeaseState::Failing {
                    expires_at: life.expires_at.clone(),
                    error,
                });
                retry = (retry * 2).min(RETRY_MAX);
                pause
            }
        };
    }
    if !matches!(*told.borrow(), LeaseState::Failing { .. }) {
        told.send_replace(LeaseState::Final {
            expires_at: life.expires_at.clone(),
        });
    }
    tokio::time::sleep_until(life.ends).await;
}

/// Two thirds of what is left, less up to a tenth by chance.
pub(crate) fn renew_after(left: Duration) -> Duration {
    let target = left.mul_f64(2.0 / 3.0);
    let spread = jitter(target.mul_f64(0.2)).unwrap_or_default();
    (target - spread.min(target) + target.mul_f64(0.1)).max(RENEW_PAUSE_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R-LEASE-1: renewal comes at about two thirds of the life, spread, and always before the end.
    #[test]
    fn renewal_comes_at_two_thirds_with_jitter() {
        let life = Duration::from_secs(3600);
        let waits: Vec<_> = (0..50).map(|_| renew_after(life)).collect();
        for wait in &waits {
            assert!(*wait >= life.mul_f64(0.59) && *wait <= life.mul_f64(0.67), "{wait:?}");
        }
        assert!(waits.iter().any(|w| w != &waits[0]), "no jitter");
        assert_eq!(renew_after(Duration::ZERO), RENEW_PAUSE_MIN);
    }
}
