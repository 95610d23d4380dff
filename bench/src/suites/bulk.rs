//! `bulk-load` and `unseal`: SIZE secrets of 1 KiB (default: three sizes, a decade apart), and what they cost on the disk, in memory and when
//! the vault opens.

use crate::{
    Fault, Options, Peer,
    contest::{Contender, Figure, Role, Row},
    host,
    limits::VALUE_BYTES,
    load::{Paths, Until},
    openbao::OpenBao,
    report::Found,
    strongroom::Strongroom,
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

const SIZES: [u64; 3] = [1_000, 10_000, 100_000];
/// The short form, when all suites run.
const SIZES_SHORT: [u64; 2] = [1_000, 10_000];
/// OpenBao takes minutes for more: its rate is measured over at most so many, its disk and memory are those of so many.
const PEER_SECRETS_MAX: u64 = 10_000;
const CONNS: usize = 64;
/// How often the vault is sealed and opened.
const OPENINGS: usize = 5;

fn sizes(options: &Options) -> Vec<u64> {
    match (options.size, &options.suite) {
        (Some(size), _) => vec![size],
        (None, Some(_)) => SIZES.to_vec(),
        (None, None) => SIZES_SHORT.to_vec(),
    }
}

fn mb(bytes: u64) -> f64 {
    #[allow(clippy::cast_precision_loss)]
    let mb = bytes as f64 / 1e6;
    (mb * 10.0).round() / 10.0
}

fn rounded(value: f64) -> Value {
    json!((value * 10.0).round() / 10.0)
}

fn millis(time: Duration) -> Value {
    rounded(time.as_secs_f64() * 1e3)
}

/// A fresh vault with `size` secrets, and how the load went.
async fn loaded(options: &Options, size: u64) -> Result<(Strongroom, Row), Fault> {
    let ours = Strongroom::start(options.durability).await?;
    let callers = ours
        .writers(options.conns.unwrap_or(CONNS), VALUE_BYTES, Paths::New(Arc::default()))
        .await?;
    let mut contender = Contender {
        name: "strongroom".into(),
        role: Role::Ours,
        durability: ours.durability,
        pid: Some(ours.pid()),
        callers,
    };
    let row = fill(&mut contender, size).await?;
    Ok((ours, row))
}

async fn peer_loaded(options: &Options, ours: &Strongroom, size: u64) -> Result<(OpenBao, Row), Fault> {
    let bao = OpenBao::start(ours.lab()).await?;
    let callers = bao
        .writers(options.conns.unwrap_or(CONNS), VALUE_BYTES, Paths::New(Arc::default()))
        .await?;
    let name = format!("openbao {}, {size}", crate::openbao::VERSION);
    let mut contender = Contender {
        name,
        role: Role::Peer,
        durability: "synced, D1",
        pid: Some(bao.pid()),
        callers,
    };
    let row = fill(&mut contender, size).await?;
    Ok((bao, row))
}

async fn fill(contender: &mut Contender, size: u64) -> Result<Row, Fault> {
    let mut row = contender.row();
    row.windows.push(contender.window(Until::Calls(size)).await?);
    row.rss_mb = contender.pid.map_or(0.0, host::rss_mb);
    Ok(row)
}

/// How fast many secrets are written.
/// # Errors
/// Any failed request.
pub async fn load(options: &Options) -> Result<Vec<Found>, Fault> {
    let mut all = Vec::new();
    for size in sizes(options) {
        let (ours, row) = loaded(options, size).await?;
        let mut facts = vec![
            ("size".to_owned(), json!(size)),
            (
                "disk_mb".into(),
                json!(mb(host::disk_bytes(&ours.data(), &["audit", "reserve"]))),
            ),
        ];
        facts.push((
            "audit_mb".into(),
            json!(mb(host::disk_bytes(&ours.data().join("audit"), &[]))),
        ));
        let mut rows = vec![row];
        if options.peer == Peer::Openbao {
            let peers = size.min(PEER_SECRETS_MAX);
            let (bao, row) = peer_loaded(options, &ours, peers).await?;
            facts.push(("peer_size".into(), json!(peers)));
            facts.push(("peer_disk_mb".into(), json!(mb(host::disk_bytes(&bao.data(), &[])))));
            rows.push(row);
        }
        all.push(Found {
            suite: "bulk-load",
            what: format!("{size} new secrets of 1 KiB at {} connections, one run each, TLS 1.3", options.conns.unwrap_or(CONNS)),
            rows,
            figure: Figure::Rate,
            facts,
            notes: vec!["disk_mb is the data directory without the audit log and without the reserve of free space, as the file system counts blocks".into()],
        });
    }
    Ok(all)
}

/// From sealed to serving, with many secrets in the vault.
/// # Errors
/// Any failed request.
pub async fn unseal(options: &Options) -> Result<Vec<Found>, Fault> {
    let mut all = Vec::new();
    for size in sizes(options) {
        let (mut ours, _) = loaded(options, size).await?;
        let restart = ours.restart()?;
        let after = host::rss_mb(ours.pid());
        let mut openings = Vec::new();
        for _ in 0..OPENINGS {
            openings.push(ours.reseal().await?);
        }
        openings.sort();
        let mut facts = vec![
            ("size".to_owned(), json!(size)),
            (
                "ready_ms".into(),
                millis(openings.get(OPENINGS / 2).copied().unwrap_or_default()),
            ),
            (
                "ready_ms_min".into(),
                millis(openings.first().copied().unwrap_or_default()),
            ),
            (
                "ready_ms_max".into(),
                millis(openings.last().copied().unwrap_or_default()),
            ),
            ("start_to_ready_ms".into(), millis(restart)),
            ("rss_after_start_mb".into(), rounded(after)),
            ("rss_mb".into(), rounded(host::rss_mb(ours.pid()))),
        ];
        if options.peer == Peer::Openbao {
            let peers = size.min(PEER_SECRETS_MAX);
            let (mut bao, _) = peer_loaded(options, &ours, peers).await?;
            let restart = bao.restart().await?;
            facts.push(("peer_size".into(), json!(peers)));
            facts.push(("peer_start_to_ready_ms".into(), millis(restart)));
            facts.push(("peer_rss_mb".into(), rounded(host::rss_mb(bao.pid()))));
            facts.push(("peer_ready_ms".into(), millis(bao.reseal().await?)));
        }
        all.push(Found {
            suite: "unseal",
            what: format!("{size} secrets of 1 KiB; ready_ms: one call that unseals by the HSM, of {OPENINGS}; start_to_ready_ms: from exec to open"),
            rows: Vec::new(),
            figure: Figure::P50,
            facts,
            notes: vec!["OpenBao is unsealed by a key share; ours asks a SoftHSM token in another process".into()],
        });
    }
    Ok(all)
}
