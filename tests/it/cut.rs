//! Connections cut at the worst moment: an account that nobody was told of does not stay (R-LEASE-2, R-KV-3).

use crate::world::{PATIENCE, World, eventually, postgres, shared};
use std::time::Duration;
use strongroom_client::{Client, Want, v1};
use strongroom_tests::campaign::proxy::{Hold, Proxy};
use strongroomd::engine::postgres::testing::Server;

/// Every piece that a client sends once TLS is set up begins like this: application data.
const SENT: &str = "\u{17}\u{3}\u{3}";

/// The ids of a role's leases that are not being revoked.
fn active(world: &World, role: &str) -> Vec<String> {
    let listed = world.cli().json(&["lease", "list", role]);
    let leases = listed["leases"].as_array().unwrap().clone();
    let kept = leases.into_iter().filter(|lease| lease["state"] == "active");
    kept.map(|lease| lease["id"].as_str().unwrap().to_owned()).collect()
}

fn role(world: &World, role: &str) {
    let (cli, group) = (world.cli(), "group=readers");
    cli.ok(&["role", "put", role, group, "default_ttl=10m", "max_ttl=1h"]);
}

/// Accounts of a role that exist in the server.
fn accounts(server: &Server, like: &str) -> String {
    let sql = format!("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'sr\\_{like}\\_%'");
    server.admin("postgres", &sql).unwrap()
}

fn item(path: &str, ttl_secs: u64) -> v1::FetchItem {
    v1::FetchItem {
        path: path.to_owned(),
        ttl_secs,
        select: None,
    }
}

async fn through(world: &World, proxy: &Proxy) -> Client {
    let address = format!("https://localhost:{}", proxy.port);
    let client = world.client_builder().address(address).connect().await.unwrap();
    client.list("kv/").await.unwrap();
    client
}

/// R-KV-3, R-LEASE-2: an answer with accounts that was lost on the wire is asked for again; what it told of is revoked, and what is handed out then
/// is all there is.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_lost_leaves_no_account() {
    let (world, server) = (&shared().world, &shared().server);
    for (name, issues) in [("lostfetch", false), ("lostissue", true)] {
        let path = format!("pg/{name}");
        role(world, &path);
        let proxy = Proxy::start(world.lab.address.port()).await.unwrap();
        let client = through(world, &proxy).await;
        let held = proxy.arm(SENT, Hold::Answer);
        let asked = tokio::spawn({
            let (client, path) = (client.clone(), path.clone());
            async move {
                match issues {
                    true => client.issue(&path, None).await.unwrap().lease_id,
                    false => client.fetch([Want::new(&path)]).await.unwrap()[0]
                        .lease_id()
                        .map(str::to_owned),
                }
            }
        });
        let mut lost = Vec::new();
        eventually("the account is made, and its answer held back", || {
            lost = active(world, &path);
            !lost.is_empty()
        });
        // The answer has left the daemon, most likely: if not, the daemon sees that by itself.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(proxy.cut() >= 1);
        drop(held);
        let got = tokio::time::timeout(PATIENCE, asked).await.unwrap().unwrap().unwrap();
        assert!(!lost.contains(&got), "another one");
        eventually("only what was handed out is left", || {
            active(world, &path) == [got.clone()] && accounts(server, name) == "1"
        });
        assert!(client.revoke(&got).await.unwrap());
    }
}

/// Sessions that hold, or wait for, the lock that [`a_caller_that_is_cut_off_leaves_no_account`] takes.
fn locks(server: &Server, granted: bool) -> String {
    let mode = if granted { "ExclusiveLock" } else { "RowExclusiveLock" };
    let of = format!("relation = 'pg_catalog.pg_auth_members'::regclass AND mode = '{mode}'");
    let sql = format!("SELECT count(*) FROM pg_locks WHERE {of} AND granted = {granted}");
    server.admin("postgres", &sql).unwrap()
}

/// R-LEASE-2: who is cut off while the account is made, and does not ask again, leaves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_is_cut_off_leaves_no_account() {
    let (world, server) = (World::open(), postgres());
    world.mount_postgres(&server);
    let proxy = Proxy::start(world.lab.address.port()).await.unwrap();
    let client = through(&world, &proxy).await;
    std::thread::scope(|threads| {
        let (server, proxy) = (&server, &proxy);
        // No account can be finished meanwhile, so that the cut comes first.
        threads.spawn(move || {
            let lock = "BEGIN; LOCK TABLE pg_auth_members IN EXCLUSIVE MODE; SELECT pg_sleep(60);";
            // It is ended below, which is an error here.
            drop(server.admin("postgres", lock));
        });
        eventually("the lock is taken", || locks(server, true) == "1");
        let request = v1::FetchRequest {
            items: vec![item("pg/readers", 0)],
            idempotency_key: "cut-off".into(),
            bundle: String::new(),
        };
        let asked = tokio::spawn(async move {
            let call = client.once(request, |s, r| async move { s.delivery().fetch(r).await });
            call.await.map(drop)
        });
        eventually("the account is being made", || locks(server, false) == "1");
        assert!(proxy.cut() >= 1);
        eventually("the caller is told", || asked.is_finished());
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()";
        server.admin("postgres", end).unwrap();
        eventually("no account and no lease remain", || {
            let listed = world.cli().json(&["lease", "list", "pg/readers"]);
            listed["leases"].as_array().unwrap().is_empty() && accounts(server, "readers") == "0"
        });
    });
}

/// R-KV-3: whoever asks again under a key gets another account, and the first is gone; with another content the key is refused.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_asked_for_again_is_made_anew() {
    let (world, server) = (&shared().world, &shared().server);
    role(world, "pg/again");
    let client = world.client().await;
    let request = |ttl_secs| v1::FetchRequest {
        items: vec![item("pg/again", ttl_secs)],
        idempotency_key: "asked-again".into(),
        bundle: String::new(),
    };
    let mut leases = Vec::new();
    for _ in 0..3 {
        let asked = client.once(request(60), |s, r| async move { s.delivery().fetch(r).await });
        let Some(v1::delivered::Kind::Lease(lease)) = asked.await.unwrap().items.remove(0).kind else {
            panic!("no lease");
        };
        eventually("the former one is gone", || {
            active(world, "pg/again") == [lease.lease_id.clone()]
        });
        leases.push(lease.lease_id);
    }
    leases.dedup();
    assert_eq!(leases.len(), 3);
    let other = client.once(request(61), |s, r| async move { s.delivery().fetch(r).await });
    assert_eq!(crate::world::reason(other.await), "MALFORMED");
    eventually("two accounts were dropped", || accounts(server, "again") == "1");
    assert!(client.revoke(&leases[2]).await.unwrap());
}
