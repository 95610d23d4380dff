//! The faults, each played once while the load runs. Each says whether it did what it is there for.

use super::{CALM, Campaign, KILLS, PATIENCE};
use crate::campaign::{
    Tried, doing,
    proxy::{Fate, Hold},
    rotate::{read, root},
};
use std::time::Duration;
use strongroom_client::{Error, v1};
use strongroomd::engine::postgres::testing::{ROOT, ROOT_SECRET};
use tokio::time::{sleep, timeout};

/// Cuts in one round.
const CUTS: u64 = 3;
/// Each way, each piece.
const CLIENTS_LATE: Duration = Duration::from_millis(40);
const DATABASE_LATE: Duration = Duration::from_millis(60);
const SLOW_FOR: Duration = Duration::from_secs(3);
/// Attempts to be faster than an unseal.
const UNSEALS_MAX: usize = 5;

impl Campaign {
    pub(super) async fn play(&mut self, fault: &'static str) -> Tried<bool> {
        match fault {
            CALM => Ok(true),
            "seal and unseal" => self.seal().await,
            "static rotation" => self.rotate_static().await,
            "root rotation" => self.rotate_root().await,
            "clients cut off" => self.cut_clients().await,
            "clients' network slow" => self.slow(false).await,
            "database cut off" => self.cut_database().await,
            "database slow" => self.slow(true).await,
            kill => self.kill(kill == KILLS[1]).await,
        }
    }

    /// Killed, started, and in the second kind killed again before the vault is open.
    async fn kill(&mut self, in_unseal: bool) -> Tried<bool> {
        let mut hit = !in_unseal;
        for _ in 0..UNSEALS_MAX {
            self.bench.kill();
            if let Some(found) = self.bench.evidence() {
                self.broken.push(format!("audit log after a kill: {found}"));
            }
            self.bench.start()?;
            if hit {
                break;
            }
            let wait = Duration::from_millis(self.dice.below(60));
            hit = timeout(wait, self.bench.unseal()).await.is_err();
        }
        if in_unseal && hit {
            self.bench.kill();
            self.bench.start()?;
        }
        self.bench.unseal().await?;
        Ok(hit)
    }

    async fn seal(&mut self) -> Tried<bool> {
        let ask = v1::SealRequest::default();
        self.near
            .change(ask, |s, r| async move { s.operator().seal(r).await })
            .await
            .map_err(doing("seal"))?;
        match self.near.get("kv/soak/w0/s0").await {
            Err(Error::Sealed(_)) => {}
            other => self.broken.push(format!(
                "a read of a sealed vault: {:?}",
                other.map(|found| found.version)
            )),
        }
        sleep(Duration::from_millis(self.dice.between(200, 800))).await;
        self.bench.unseal().await?;
        Ok(true)
    }

    pub(super) async fn rotate_static(&mut self) -> Tried<bool> {
        let old = read(&self.near).await.ok();
        let ask = v1::CredsRotateRequest {
            role: "pg/app".into(),
            ..Default::default()
        };
        self.near
            .with_timeout(PATIENCE)
            .change(ask, |s, r| async move { s.creds().rotate(r).await })
            .await
            .map_err(doing("creds rotate"))?;
        let new = read(&self.near).await?;
        if let Err(error) = self.bench.log_in("app", &new).await {
            self.broken
                .push(format!("the new password does not open the account: {error}"));
        }
        if let Some(old) = old
            && self.bench.log_in("app", &old).await.is_ok()
        {
            self.broken.push("the old password still opens the account".into());
        }
        Ok(true)
    }

    async fn rotate_root(&mut self) -> Tried<bool> {
        root::rotate(&self.near).await?;
        if self.bench.log_in(ROOT, ROOT_SECRET).await.is_ok() {
            self.broken
                .push("the first root password still opens the server".into());
        }
        Ok(true)
    }

    async fn cut_clients(&mut self) -> Tried<bool> {
        let mut cut = 0;
        for _ in 0..CUTS {
            cut += self.net.cut();
            sleep(Duration::from_millis(self.dice.between(50, 500))).await;
        }
        Ok(cut > 0)
    }

    /// Every session is ended, and one statement that makes an account is lost, or done and its answer lost.
    async fn cut_database(&mut self) -> Tried<bool> {
        let mut cut = 0;
        for _ in 0..CUTS {
            cut += self.bench.proxy.cut();
            sleep(Duration::from_millis(self.dice.between(50, 500))).await;
        }
        let hold = if self.dice.chance(50) {
            Hold::Request
        } else {
            Hold::Answer
        };
        let held = self.bench.proxy.arm("CREATE ROLE \"sr_readers", hold);
        let reached = timeout(PATIENCE, held.reached()).await.is_ok();
        self.bench.proxy.disarm();
        held.release(Fate::Dropped);
        Ok(cut > 0 && reached)
    }

    async fn slow(&mut self, database: bool) -> Tried<bool> {
        let (proxy, late) = if database {
            (&self.bench.proxy, DATABASE_LATE)
        } else {
            (&self.net, CLIENTS_LATE)
        };
        let before = proxy.lagged();
        proxy.lag(late);
        sleep(SLOW_FOR).await;
        proxy.lag(Duration::ZERO);
        Ok(proxy.lagged() > before)
    }
}
