//! The engine's own log-in rotates, with kills in between; leases that a predecessor made are revoked by its successor.

use crate::campaign::{
    Dice, Plan, Report, Tried,
    bench::{Bench, until},
    doing,
    kill::revoke,
    proxy::Hold,
};
use std::time::Duration;
use strongroom_client::{Client, v1};
use strongroomd::engine::postgres::testing::{ROOT, ROOT_SECRET};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);
/// Log-ins of the engine that the server knows.
const LOG_INS: &str = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'strongroom%' AND rolcanlogin";

/// Rotates it once; the new account.
pub async fn rotate(client: &Client) -> Tried<String> {
    let request = v1::MountRotateRootRequest {
        path: "pg".into(),
        ..Default::default()
    };
    let answer = client
        .with_timeout(PATIENCE)
        .change(request, |s, r| async move { s.mount().rotate_root(r).await })
        .await;
    answer.map(|answer| answer.account).map_err(doing("rotate-root"))
}

/// A rotation that the daemon does not live to see.
async fn killed(bench: &mut Bench, client: &Client, dice: &mut Dice) -> Tried<()> {
    let hold = if dice.chance(50) { Hold::Request } else { Hold::Answer };
    let held = bench.proxy.arm("ROLE \"strongroom_", hold);
    let rotation = client.clone();
    tokio::spawn(async move { drop(rotate(&rotation).await) });
    let _ = timeout(PATIENCE, held.reached()).await;
    bench.proxy.disarm();
    bench.kill();
    drop(held);
    bench.start()?;
    bench.unseal().await
}

/// Runs this part.
pub async fn run(bench: &mut Bench, client: &Client, dice: &mut Dice, plan: Plan, report: &mut Report) -> Tried<()> {
    let wanted: u64 = plan.scale.pick(4, 40);
    let mut leases = Vec::new();
    for turn in 0..wanted {
        leases.push(
            client
                .issue("pg/readers", None)
                .await
                .map_err(doing("issue"))?
                .lease_id
                .unwrap_or_default(),
        );
        if turn % 2 == 1 {
            killed(bench, client, dice).await?;
        }
        rotate(client).await?;
        if bench.log_in(ROOT, ROOT_SECRET).await.is_ok() {
            report.broken(format_args!(
                "root rotation {turn}: the first root password still opens the server"
            ));
        }
        let log_ins = until(
            PATIENCE,
            || async { Ok(bench.server.admin("postgres", LOG_INS)?) },
            |count| count == "1",
        )
        .await?;
        if log_ins != "1" {
            report.broken(format_args!(
                "root rotation {turn}: the engine has {log_ins} log-ins in the server"
            ));
        }
        // The oldest lease is two predecessors old by now.
        if leases.len() > 2 {
            revoke(client, &leases.remove(0))
                .await
                .map_err(doing("a predecessor's lease"))?;
        }
    }
    for lease in &leases {
        revoke(client, lease).await.map_err(doing("a predecessor's lease"))?;
    }
    let left = bench.accounts()?;
    if !left.is_empty() {
        report.broken(format_args!("accounts that predecessors made were left: {left:?}"));
    }
    let kills = wanted / 2;
    report.figure(format_args!(
        "{wanted} rotations of the engine's own log-in, {kills} kills in them; {wanted} leases of predecessors revoked"
    ));
    Ok(())
}
