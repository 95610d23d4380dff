//! `storm`: SIZE clients (default: three sizes) start at the same moment; each connects, logs in with a JWT or has a token already, and gets its 20
//! secrets: ours in one call, OpenBao in 20 on its connection. Latency counts from the common start to a client's last secret.

use super::{kv::SECRETS, stage::Stage, token};
use crate::{
    Fault, Options,
    contest::{Contender, Figure, Row, Window},
    host,
    load::{Callers, Ran},
    openbao::Dial,
    report::Found,
    strongroom::{Door, asks},
};
use bytes::Bytes;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use strongroom_proto::v1;
use strongroom_tests::issuer::Issuer;
use tokio::task::JoinSet;

const SIZES: [u64; 3] = [10, 100, 1_000];
/// The short form, when all suites run.
const SIZES_SHORT: [u64; 2] = [10, 100];
/// Secrets of a client.
const EACH: u64 = 20;
/// Between two storms.
const CALM: Duration = Duration::from_millis(500);

/// Whom the clients start at.
#[derive(Clone)]
enum Target {
    Ours(Door),
    Peer(Dial),
}

fn paths(client: u64) -> impl Iterator<Item = String> {
    (0..EACH).map(move |n| format!("r/s{}", (client * EACH + n) % SECRETS))
}

impl Target {
    /// A client's whole start; `jwt`: it logs in first.
    async fn start(self, client: u64, jwt: Option<String>) -> Result<(), Fault> {
        match self {
            Self::Ours(door) => start(door, client, jwt).await,
            Self::Peer(dial) => start_at_peer(dial, client, jwt).await,
        }
    }
}

/// By the client library, as an application does it.
async fn start(door: Door, client: u64, jwt: Option<String>) -> Result<(), Fault> {
    let connection = door.client().await?;
    if let Some(jwt) = jwt {
        let request = v1::LoginRequest {
            proof: Some(v1::login_request::Proof::Jwt(jwt)),
            ..Default::default()
        };
        let done = connection
            .once(
                request,
                |stubs, request| async move { stubs.login().login(request).await },
            )
            .await?;
        connection.set_token(done.token)?;
    }
    let fetched = connection.fetch(paths(client).map(|path| format!("kv/{path}"))).await?;
    match fetched.iter().all(|secret| secret.field("value").is_ok()) && fetched.len() as u64 == EACH {
        true => Ok(()),
        false => Err("a secret is missing".into()),
    }
}

async fn start_at_peer(mut dial: Dial, client: u64, jwt: Option<String>) -> Result<(), Fault> {
    if jwt.is_some() {
        dial = dial.with("");
    }
    let mut https = dial.https().await?;
    if let Some(jwt) = jwt {
        let body = json!({ "role": "service", "jwt": jwt });
        let answer = https.ask("PUT", "auth/jwt/login", Some(&body)).await?;
        let token = answer["auth"]["client_token"]
            .as_str()
            .ok_or("no token in the answer")?;
        https.set_token(token);
    }
    for path in paths(client) {
        let answer = https.send("GET", &format!("kv/data/{path}"), Bytes::new()).await?;
        if answer.len() < crate::limits::VALUE_BYTES {
            return Err("a short answer".into());
        }
    }
    Ok(())
}

/// One storm, and how many clients got nothing.
async fn storm(target: &Target, pid: u32, size: u64, issuer: Option<&Issuer>) -> Result<(Window, u64), Fault> {
    let jwts: Vec<_> = (0..size).map(|_| issuer.map(asks::jwt)).collect();
    let (before, began) = (host::read(Some(pid)), Instant::now());
    let mut clients = JoinSet::new();
    for (client, jwt) in (0..size).zip(jwts) {
        let target = target.clone();
        clients.spawn(async move { target.start(client, jwt).await.map(|()| began.elapsed()) });
    }
    let (mut latency, mut errors) = (Histogram::<u64>::new(3)?, 0);
    while let Some(started) = clients.join_next().await {
        match started? {
            Ok(after) => latency.record(u64::try_from(after.as_nanos())?)?,
            Err(fault) if errors == 0 => {
                eprintln!("a client did not start: {fault}");
                errors = 1;
            }
            Err(_) => errors += 1,
        }
    }
    let took = began.elapsed();
    let window = Window::new(&Ran { latency, took }, before.until_now(Some(pid)));
    tokio::time::sleep(CALM).await;
    Ok((window, errors))
}

struct Side {
    row: Row,
    pid: u32,
    target: Target,
    errors: u64,
}

impl Side {
    fn new(contender: &Contender, pid: u32, target: Target) -> Self {
        let row = contender.row();
        Self {
            row,
            pid,
            target,
            errors: 0,
        }
    }
}

async fn of_size(options: &Options, stage: &Stage, size: u64, issuer: Option<&Issuer>) -> Result<Found, Fault> {
    let ours = stage.ours(Callers::new());
    let mut sides = vec![Side::new(&ours, stage.ours.pid(), Target::Ours(stage.ours.door()))];
    if let Some(bao) = &stage.peer {
        let durability = if issuer.is_some() { "synced, D1" } else { "D1" };
        let peer = Stage::peer(bao, durability, Callers::new());
        sides.push(Side::new(&peer, bao.pid(), Target::Peer(bao.dial().clone())));
    }
    for _ in 0..options.rounds {
        for side in &mut sides {
            let (window, errors) = storm(&side.target, side.pid, size, issuer).await?;
            side.row.windows.push(window);
            side.row.rss_mb = host::rss_mb(side.pid);
            side.errors += errors;
        }
    }
    let errors = |at: usize| json!(sides.get(at).map(|side| side.errors));
    let how = if issuer.is_some() { "log in with a JWT and " } else { "" };
    let facts: Vec<(String, Value)> = vec![
        ("size".into(), json!(size)),
        ("log_in".into(), json!(issuer.is_some())),
        ("errors".into(), errors(0)),
        ("peer_errors".into(), errors(1)),
    ];
    if sides.first().is_some_and(|ours| ours.errors > 0) {
        return Err("a client of ours got nothing, so there are no figures".into());
    }
    let mut notes = stage.notes();
    notes.push("latency counts from the common start; CPU is of one client. The load has one core for all clients, and its handshakes are in it".into());
    Ok(Found {
        suite: "storm",
        what: format!("{size} clients start at once, connect, {how}get {EACH} secrets of 1 KiB each, TLS 1.3"),
        rows: sides.into_iter().map(|side| side.row).collect(),
        figure: Figure::P99,
        facts,
        notes,
    })
}

/// Measures: all sizes with a token at hand, and the last with a log-in, too.
/// # Errors
/// A client of ours got nothing.
pub async fn measure(options: &Options) -> Result<Vec<Found>, Fault> {
    let sizes = match (options.size, &options.suite) {
        (Some(size), _) => vec![size],
        (None, Some(_)) => SIZES.to_vec(),
        (None, None) => SIZES_SHORT.to_vec(),
    };
    let stage = Stage::set(options).await?;
    stage.seed(SECRETS).await?;
    let issuer = Arc::new(Issuer::new("storm"));
    stage.trust("storm", &issuer.trust(&["bench"])).await?;
    if let Some(bao) = &stage.peer {
        token::teach(bao, &issuer).await?;
    }
    let mut all = Vec::new();
    for size in &sizes {
        all.push(of_size(options, &stage, *size, None).await?);
    }
    if let Some(size) = sizes.last() {
        all.push(of_size(options, &stage, *size, Some(&issuer)).await?);
    }
    Ok(all)
}
