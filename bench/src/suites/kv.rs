//! `kv-read` and `kv-write`: 1 KiB secrets at 1, 16 and 64 connections, or at CONNS. `open-loop`: reads that come at their times, SIZE a second,
//! whoever is free for them: what waits in line counts.

use super::stage::Stage;
use crate::{
    Fault, Options,
    contest::{Figure, hold, hold_until},
    limits::{self, Echo, VALUE_BYTES},
    load::{Paths, Until, WRITER_PATHS},
    report::Found,
    strongroom::asks,
};
use std::time::Duration;

/// Connections, a decade and more apart.
const CONNS: [usize; 3] = [1, 16, 64];
/// Secrets to choose from.
pub const SECRETS: u64 = 256;
/// Requests a second of the open loop, and its connections.
const PER_SEC: u64 = 1000;
const OPEN_CONNS: usize = 16;

fn conns(options: &Options) -> Vec<usize> {
    options.conns.map_or_else(|| CONNS.to_vec(), |conns| vec![conns])
}

/// Reads.
/// # Errors
/// Any failed request.
pub async fn read(options: &Options) -> Result<Vec<Found>, Fault> {
    let stage = Stage::set(options).await?;
    let secrets = options.size.unwrap_or(SECRETS);
    stage.seed(secrets).await?;
    let echo = Echo::start(stage.ours.lab())?;
    let mut all = Vec::new();
    for conns in conns(options) {
        let mut contenders = vec![stage.ours(stage.ours.door().callers(conns, asks::read(secrets)).await?)];
        if let Some(bao) = &stage.peer {
            contenders.push(Stage::peer(bao, "D1", bao.readers(conns, secrets, VALUE_BYTES).await?));
        }
        let bare = echo.door(stage.ours.lab()).callers(conns, asks::read(secrets)).await?;
        contenders.push(echo.contender(bare));
        contenders.push(limits::fdatasync(stage.ours.lab().dir())?);
        let rows = hold(options, &mut contenders).await?;
        all.push(Found {
            suite: "kv-read",
            what: format!("{conns} connections, {secrets} secrets of 1 KiB, TLS 1.3"),
            rows,
            figure: if conns == 1 { Figure::P50 } else { Figure::Cpu },
            facts: vec![("conns".into(), conns.into()), ("size".into(), secrets.into())],
            notes: stage.notes(),
        });
    }
    Ok(all)
}

/// Reads, as they come.
/// # Errors
/// Any failed request.
pub async fn open_loop(options: &Options) -> Result<Vec<Found>, Fault> {
    let stage = Stage::set(options).await?;
    stage.seed(SECRETS).await?;
    let echo = Echo::start(stage.ours.lab())?;
    let (conns, per_sec) = (
        options.conns.unwrap_or(OPEN_CONNS),
        options.size.unwrap_or(PER_SEC).max(1),
    );
    let ask = || asks::read(SECRETS);
    let mut contenders = vec![stage.ours(stage.ours.door().callers(conns, ask()).await?)];
    if let Some(bao) = &stage.peer {
        contenders.push(Stage::peer(bao, "D1", bao.readers(conns, SECRETS, VALUE_BYTES).await?));
    }
    contenders.push(echo.contender(echo.door(stage.ours.lab()).callers(conns, ask()).await?));
    let length = Until::Open {
        every: Duration::from_secs(1) / u32::try_from(per_sec)?,
        time: Duration::from_secs_f64(options.secs),
    };
    let rows = hold_until(options, length, &mut contenders).await?;
    let mut notes = stage.notes();
    notes.push("latency counts from when a request was due, not from when a connection was free for it".into());
    Ok(vec![Found {
        suite: "open-loop",
        what: format!("{per_sec} reads a second at {conns} connections, {SECRETS} secrets of 1 KiB, TLS 1.3"),
        rows,
        figure: Figure::P99,
        facts: vec![("conns".into(), conns.into()), ("size".into(), per_sec.into())],
        notes,
    }])
}

/// Writes.
/// # Errors
/// Any failed request.
pub async fn write(options: &Options) -> Result<Vec<Found>, Fault> {
    let stage = Stage::set(options).await?;
    let mut all = Vec::new();
    for conns in conns(options) {
        let mut contenders = vec![stage.ours(stage.ours.writers(conns, VALUE_BYTES, Paths::Rounds).await?)];
        if let Some(bao) = &stage.peer {
            contenders.push(Stage::peer(
                bao,
                "synced, D1",
                bao.writers(conns, VALUE_BYTES, Paths::Rounds).await?,
            ));
        }
        contenders.push(limits::fdatasync(stage.ours.lab().dir())?);
        let rows = hold(options, &mut contenders).await?;
        all.push(Found {
            suite: "kv-write",
            what: format!(
                "{conns} connections, new versions of {} secrets each, 1 KiB, TLS 1.3",
                WRITER_PATHS
            ),
            rows,
            figure: Figure::Rate,
            facts: vec![("conns".into(), conns.into())],
            notes: stage.notes(),
        });
    }
    Ok(all)
}
