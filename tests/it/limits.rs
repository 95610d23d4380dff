//! Rates and quotas on the real daemon: who is told to wait, who is not disturbed by it, and what it costs the daemon.

use crate::{
    audit::records,
    world::{World, eventually, postgres, value},
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};
use strongroom_client::{Client, Error, v1};
use strongroom_tests::Lab;
use tokio::{net::TcpSocket, task::JoinSet};
use tonic::{Code, Status};
use tonic_types::StatusExt;

fn world(limits: &str) -> World {
    let mut lab = Lab::with_tokens(&[]);
    lab.extra = limits.to_owned();
    World::opened(lab)
}

/// A refusal for being asked too often, that names `limit` and says when to come again.
#[track_caller]
fn limited(status: &Status, limit: &str) -> Duration {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_eq!(status.get_details_error_info().unwrap().reason, "RATE_LIMITED");
    assert!(
        status.message().contains(&format!("`{limit}`")) && status.message().contains("try again in"),
        "{status:?}"
    );
    let wait = status
        .get_details_retry_info()
        .and_then(|info| info.retry_delay)
        .expect("RetryInfo");
    assert!(wait > Duration::ZERO, "{status:?}");
    wait
}

async fn get(client: &Client) -> Result<(), Status> {
    let request = v1::KvGetRequest {
        path: "kv/limited".into(),
        ..Default::default()
    };
    client.stubs().kv().get(request).await.map(drop)
}

/// How many of `calls` in a row succeed, and the first refusal.
async fn until_refused(client: &Client, calls: usize) -> (usize, Option<Status>) {
    for n in 0..calls {
        if let Err(status) = get(client).await {
            return (n, Some(status));
        }
    }
    (calls, None)
}

/// R-POL-3: a token, then its identity, is told to wait and for how long; other tokens and identities are not; waiting helps, and the library
/// waits by itself. It is counted by the key of the configuration, and recorded.
#[tokio::test(flavor = "multi_thread")]
async fn rates_are_told_and_are_each_ones_own() {
    let world = world("[limits.rates]\nreads_per_token = \"2/s burst 6\"\nreads_per_identity = \"2/s burst 9\"\n");
    world.client().await.put("kv/limited", &value("x"), None).await.unwrap();
    world.put_policy(
        "limited",
        r#"permit(principal in S::Group::"limited", action, resource in S::Path::"kv");"#,
    );
    let client = |name: &'static str| {
        world
            .lab
            .client(Box::leak(world.token(name, &["limited"]).into_boxed_str()))
    };
    let (first, second, other) = (client("busy").await, client("busy").await, client("other").await);

    let (done, refused) = until_refused(&first, 20).await;
    assert!((6..12).contains(&done), "{done}");
    limited(&refused.unwrap(), "reads_per_token");
    let (done, refused) = until_refused(&second, 20).await;
    assert!((3..6).contains(&done), "what is left to the identity: {done}");
    let wait = limited(&refused.unwrap(), "reads_per_identity");
    get(&other).await.expect("another identity");
    other
        .put("kv/limited", &value("y"), None)
        .await
        .expect("another kind of work");
    second.renew_token(None).await.expect("the reserved lane");

    tokio::time::sleep(wait + Duration::from_millis(100)).await;
    get(&second).await.expect("after waiting as told");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        second.get("kv/limited").await.expect("the library waits as told");
    }

    let metrics = world.daemon().metrics();
    for limit in ["reads_per_token", "reads_per_identity"] {
        assert!(
            metrics.contains(&format!("strongroom_limited_total{{limit=\"{limit}\"}}")),
            "{metrics}"
        );
    }
    let recorded = records(&world.cli());
    let refused = recorded
        .iter()
        .filter(|record| record["outcome"]["reason"] == "RATE_LIMITED")
        .count();
    assert!(refused > 0, "a refusal stands in the log");
}

/// R-POL-3: a source is limited before anybody looks at its tokens: calls, log-ins and handshakes; root on the machine is not, nor are
/// connections that stand.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_limited_before_it_is_known() {
    let world = world(
        "[limits.rates]\nhandshakes_per_source = \"1/m burst 3\"\ncalls_per_source = \"1/s burst 8\"\nlogins_per_source = \"1/m burst 2\"\n",
    );
    let stranger = world.lab.client("srm_at_unknown").await;
    let mut answers = Vec::new();
    for _ in 0..12 {
        answers.push(get(&stranger).await.unwrap_err());
    }
    assert_eq!(answers[0].code(), Code::Unauthenticated);
    limited(&answers[11], "calls_per_source");
    let mut log_ins = Vec::new();
    for _ in 0..3 {
        let request = v1::LoginRequest::default();
        log_ins.push(stranger.stubs().login().login(request).await.unwrap_err());
    }
    assert_ne!(log_ins[0].code(), Code::ResourceExhausted, "{:?}", log_ins[0]);
    limited(&log_ins[2], "logins_per_source");
    stranger
        .stubs()
        .operator()
        .status(v1::StatusRequest {})
        .await
        .expect("the reserved lane has a rate of its own");

    let address = format!("https://localhost:{}", world.lab.address.port());
    let mut turned_away = 0;
    for _ in 0..5 {
        let fresh = Client::builder()
            .address(address.clone())
            .ca_file(world.lab.ca())
            .connect()
            .await;
        let status = match fresh {
            Ok(client) => client
                .stubs()
                .operator()
                .status(v1::StatusRequest {})
                .await
                .map(drop)
                .is_ok(),
            Err(_) => false,
        };
        turned_away += usize::from(!status);
    }
    assert!((2..5).contains(&turned_away), "{turned_away} of 5 connections");
    stranger
        .stubs()
        .operator()
        .status(v1::StatusRequest {})
        .await
        .expect("a connection that stands goes on");
    for _ in 0..20 {
        world.cli().ok(&["kv", "list", "kv"]);
    }
    let metrics = world.daemon().metrics();
    for limit in ["calls_per_source", "logins_per_source", "handshakes_per_source"] {
        assert!(
            metrics.contains(&format!("strongroom_limited_total{{limit=\"{limit}\"}}")),
            "{limit}: {metrics}"
        );
    }
    // The lot is in the log, as a count.
    eventually("a summary tells of those that were turned away", || {
        records(&world.cli())
            .iter()
            .any(|record| record["op"] == "refusals.summary")
    });
}

/// R-POL-3, R-LEASE-5: a caller that floods with everything it has is told to slow down; another's renewals and revocations are neither refused
/// nor kept waiting.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_does_not_slow_relief() {
    let world = world(
        "[limits]\nrequests_max = 64\nlatency_target_ms = 50\n[limits.rates]\nreads_per_identity = \"300/s burst 300\"\nrelief_per_identity = \"2/s burst 100\"\n",
    );
    let root = world.client().await;
    root.put("kv/limited", &value("x"), None).await.unwrap();
    world.put_policy(
        "limited",
        r#"permit(principal in S::Group::"limited", action, resource in S::Path::"kv");"#,
    );
    let flooder = world.token("flooder", &["limited"]);
    let doomed = world.token_with("doomed", &[], &[])["accessor"]
        .as_str()
        .unwrap()
        .to_owned();
    let quiet = world.lab.client(&world.token("quiet", &[])).await;
    let alone = relief(&quiet, 20).await;

    let mut flood = JoinSet::new();
    for worker in 0..48 {
        let client = world.lab.client(&flooder).await;
        flood.spawn(async move {
            let mut refused = 0_u64;
            loop {
                // Some of it on the reserved lane itself.
                let answer = match worker % 8 {
                    0 => client
                        .stubs()
                        .token()
                        .renew(v1::TokenRenewRequest::default())
                        .await
                        .map(drop),
                    _ => get(&client).await,
                };
                match answer {
                    Ok(()) => {}
                    Err(status) if status.code() == Code::ResourceExhausted => refused += 1,
                    Err(status) => panic!("{status:?}"),
                }
                if refused.is_multiple_of(64) {
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    // Whatever the machine can send: until the flooder is over both of its rates.
    let began = Instant::now();
    let over = |limit: &str| {
        world
            .daemon()
            .metrics()
            .contains(&format!("strongroom_limited_total{{limit=\"{limit}\"}}"))
    };
    while !(over("reads_per_identity") && over("relief_per_identity")) {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{}",
            world.daemon().metrics()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let flooded = relief(&quiet, 60).await;
    let began = Instant::now();
    let revoke = v1::TokenRevokeRequest {
        accessor: doomed,
        ..Default::default()
    };
    root.stubs()
        .token()
        .revoke(revoke)
        .await
        .expect("revoking is not refused");
    let revoked = began.elapsed();
    assert!(flood.try_join_next().is_none(), "the flood goes on");
    flood.shutdown().await;
    println!("beside a flood: worst renewal of 60 {flooded:?}, a revocation {revoked:?}; alone: worst of 20 {alone:?}");
    assert!(
        flooded.max(revoked) < Duration::from_secs(2),
        "{flooded:?}, {revoked:?}"
    );
    let metrics = world.daemon().metrics();
    for limit in ["reads_per_identity", "relief_per_identity"] {
        assert!(
            metrics.contains(&format!("strongroom_limited_total{{limit=\"{limit}\"}}")),
            "{limit}: {metrics}"
        );
    }
}

/// The slowest of so many renewals; none may be refused.
async fn relief(client: &Client, renewals: usize) -> Duration {
    let mut worst = Duration::ZERO;
    for _ in 0..renewals {
        let began = Instant::now();
        let renewed = client.stubs().token().renew(v1::TokenRenewRequest::default()).await;
        renewed.expect("renewing is never refused to who is within its rate");
        worst = worst.max(began.elapsed());
    }
    worst
}

/// R-POL-3: when answers are slow fewer are let in, with word to come again; when the load is over all places come back.
#[tokio::test(flavor = "multi_thread")]
async fn overload_lets_fewer_in() {
    let world = world(
        "[limits]\nlatency_target_ms = 1\n[limits.rates]\nreads_per_identity = \"off\"\nreads_per_token = \"off\"\n",
    );
    let client = world.client().await;
    client.put("kv/limited", &value("x"), None).await.unwrap();
    let places = || {
        let metrics = world.daemon().metrics();
        let line = metrics
            .lines()
            .find(|line| line.starts_with("strongroom_requests_in_flight_max "))
            .unwrap()
            .to_owned();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(places(), 1024);
    let mut flood = JoinSet::new();
    for _ in 0..400 {
        let client = client.clone();
        flood.spawn(async move {
            let mut refused = 0;
            for _ in 0..200 {
                if let Err(status) = get(&client).await {
                    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
                    let told = status.get_details_error_info().unwrap_or_else(|| panic!("{status:?}"));
                    assert_eq!(told.reason, "OVERLOADED");
                    refused += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            refused
        });
    }
    let (mut least, mut refused) = (u64::MAX, 0);
    while let Some(done) = flood.join_next().await {
        refused += done.unwrap();
        least = least.min(places());
    }
    assert!(least < 512 && refused > 0, "{least} places, {refused} refused");
    let began = Instant::now();
    while places() < 1024 {
        assert!(began.elapsed() < Duration::from_secs(60), "{} places", places());
        // One at a time is never slow for long, and each window of answers in time gives places back.
        let _ = get(&client).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// R-POL-3: the daemon's memory does not grow with the number of sources. (A million of them: `memory_is_constant_under_a_million_sources`.)
#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_with_sources() {
    let world = world("[limits.rates]\nhandshakes_per_source = \"1/m burst 1\"\n");
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", world.daemon().pid())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap()
            .to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<i64>().unwrap()
    };
    let knock = async |from: u32| {
        let socket = TcpSocket::new_v4().unwrap();
        // Every address of 127/8 is this machine.
        let host = Ipv4Addr::from_bits(0x7f10_0000 + from);
        socket.bind(SocketAddr::from((host, 0))).unwrap();
        drop(socket.connect(world.lab.address).await);
    };
    for from in 0..500 {
        knock(from).await;
    }
    let before = resident();
    for from in 500..20_000 {
        knock(from).await;
    }
    let grown = resident() - before;
    assert!(grown < 8 << 10, "{grown} KiB for 19,500 sources");
}

/// R-AUDIT-1: the parts of a fetch or a watch that are refused share the budget of refusals: a caller with a live token cannot fill the log with them.
#[tokio::test(flavor = "multi_thread")]
async fn refused_parts_share_the_budget() {
    let world = World::open();
    let denied = world.lab.client(&world.token("denied", &[])).await;
    for n in 0..100 {
        let item = v1::FetchItem {
            path: format!("kv/denied/{n}"),
            ..Default::default()
        };
        let fetch = v1::FetchRequest {
            items: vec![item],
            ..Default::default()
        };
        let status = denied.stubs().delivery().fetch(fetch).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
        let item = v1::WatchItem {
            what: Some(v1::watch_item::What::Path(format!("kv/denied/{n}"))),
            ..Default::default()
        };
        let watch = v1::WatchRequest {
            items: vec![item],
            ..Default::default()
        };
        let status = denied.stubs().delivery().watch(watch).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    }
    let recorded = records(&world.cli());
    let denials: Vec<_> = recorded
        .iter()
        .filter(|record| record["identity"]["name"] == "denied")
        .collect();
    let parts = denials
        .iter()
        .filter(|record| {
            record["path"]
                .as_str()
                .is_some_and(|path| path.starts_with("kv/denied"))
        })
        .count();
    assert!((20..100).contains(&parts), "{parts} parts, {} records", denials.len());
    assert!(
        denials.len() < 200,
        "{} records of 200 refusals with two records each",
        denials.len()
    );
    eventually("the rest is counted", || {
        records(&world.cli())
            .iter()
            .any(|record| record["op"] == "refusals.summary" && record["outcome"]["count"].as_u64() > Some(50))
    });
}

/// R-LEASE-5: an identity has as many leases as the configuration says; another is not disturbed, and what ends makes room.
#[tokio::test(flavor = "multi_thread")]
async fn leases_have_quotas() {
    let server = postgres();
    let world = world("[limits]\nleases_per_identity_max = 2\n");
    world.mount_postgres(&server);
    world.put_policy(
        "leases",
        r#"permit(principal in S::Group::"leases", action == S::Action::"issue", resource in S::Path::"pg");"#,
    );
    let greedy = world.lab.client(&world.token("greedy", &["leases"])).await;
    let first = greedy.issue("pg/readers", None).await.unwrap();
    greedy.issue("pg/readers", None).await.unwrap();
    match greedy.issue("pg/readers", None).await {
        Err(Error::Exhausted(refusal)) => assert!(
            refusal.reason == "EXHAUSTED" && refusal.message.contains("limits.leases_per_identity_max"),
            "{refusal:?}"
        ),
        other => panic!("{other:?}"),
    }
    let modest = world.lab.client(&world.token("modest", &["leases"])).await;
    modest.issue("pg/readers", None).await.unwrap();
    greedy.revoke(first.lease_id.as_ref().unwrap()).await.unwrap();
    let began = Instant::now();
    while let Err(error) = greedy.issue("pg/readers", None).await {
        assert!(matches!(error, Error::Exhausted(_)), "{error:?}");
        assert!(began.elapsed() < Duration::from_secs(30), "what ended makes room");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
