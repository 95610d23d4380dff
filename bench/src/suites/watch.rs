//! `watch-fanout`: SIZE streams watch one secret (default: three sizes, a decade apart); how long after a write each hears of it, beside a bare
//! service that pushes the same bytes to as many streams.

use super::stage::Stage;
use crate::{
    Fault, Options, Peer,
    contest::{Contender, Figure, Row, Window},
    host,
    limits::{Echo, VALUE_BYTES},
    load::{Callers, Ran},
    report::Found,
    strongroom::Door,
};
use bytes::Bytes;
use hdrhistogram::Histogram;
use serde_json::json;
use std::{
    collections::HashSet,
    time::{Duration, Instant},
};
use strongroom_client::Client;
use strongroom_proto::v1::{self, delivered, watch_response};
use tokio::{sync::mpsc, task::JoinSet};

const SIZES: [usize; 3] = [100, 1_000, 10_000];
/// The short form, when all suites run.
const SIZES_SHORT: [usize; 2] = [100, 1_000];
/// Connections that the streams share.
const CONNS: usize = 100;
/// Writes of one window.
const CHANGES: usize = 5;
/// For all to hear of one write.
const PATIENCE: Duration = Duration::from_secs(60);
const PATH: &str = "kv/watched";

/// A version came to a stream.
struct Heard {
    stream: usize,
    version: u64,
    at: Instant,
}

/// Everybody who watches, and one who writes.
struct Audience {
    writer: Client,
    size: usize,
    heard: mpsc::UnboundedReceiver<Result<Heard, Fault>>,
    /// Ends them all when dropped.
    _streams: JoinSet<()>,
}

impl Audience {
    /// Opens the streams, and waits until each has the present version.
    async fn gather(door: &Door, size: usize, conns: usize) -> Result<Self, Fault> {
        let (tell, heard) = mpsc::unbounded_channel();
        let mut streams = JoinSet::new();
        let mut opening = JoinSet::new();
        for conn in 0..conns.min(size) {
            let client = door.client().await?;
            // One after the other on each connection: so many openings at once are no overload.
            opening.spawn(async move {
                let mut opened = Vec::new();
                for stream in (conn..size).step_by(conns) {
                    opened.push((stream, open(&client).await?, client.clone()));
                }
                Ok::<_, Fault>(opened)
            });
        }
        let mut opened = Vec::new();
        while let Some(some) = opening.join_next().await {
            opened.extend(some??);
        }
        for (stream, mut answers, client) in opened {
            let tell = tell.clone();
            streams.spawn(async move {
                let _connection = client;
                loop {
                    let told = answers.message().await.map_err(Fault::from).and_then(version);
                    let heard = told.map(|version| Heard {
                        stream,
                        version,
                        at: Instant::now(),
                    });
                    let over = heard.is_err();
                    // Nobody listens any more: the run is over.
                    if tell.send(heard).is_err() || over {
                        return;
                    }
                }
            });
        }
        let mut audience = Self {
            writer: door.client().await?,
            size,
            heard,
            _streams: streams,
        };
        audience.all_hear(1, |_| Ok(())).await?;
        Ok(audience)
    }

    /// Waits until every stream has heard of `version` or a later one.
    async fn all_hear(&mut self, least: u64, mut note: impl FnMut(&Heard) -> Result<(), Fault>) -> Result<(), Fault> {
        let mut told = HashSet::new();
        while told.len() < self.size {
            let next = tokio::time::timeout(PATIENCE, self.heard.recv()).await;
            let heard = next
                .map_err(|_| format!("{} of {} streams heard nothing", self.size - told.len(), self.size))?
                .ok_or("all streams have ended")??;
            if heard.version >= least && told.insert(heard.stream) {
                note(&heard)?;
            }
        }
        Ok(())
    }

    async fn write(&self) -> Result<u64, Fault> {
        let request = v1::KvPutRequest {
            path: PATH.into(),
            fields: [("value".to_owned(), Bytes::from(vec![b'v'; VALUE_BYTES]))].into(),
            ..Default::default()
        };
        Ok(self.writer.stubs().kv().put(request).await?.into_inner().version)
    }

    /// Some writes, one after the other, each heard by all before the next.
    async fn window(&mut self, pid: u32) -> Result<Window, Fault> {
        let mut latency = Histogram::<u64>::new(3)?;
        let before = host::read(Some(pid));
        let began = Instant::now();
        for _ in 0..CHANGES {
            let asked = Instant::now();
            let version = self.write().await?;
            self.all_hear(version, |heard| {
                Ok(latency.record(u64::try_from((heard.at - asked).as_nanos())?)?)
            })
            .await?;
        }
        let took = began.elapsed();
        Ok(Window::new(&Ran { latency, took }, before.until_now(Some(pid))))
    }
}

async fn open(client: &Client) -> Result<tonic::Streaming<v1::WatchResponse>, Fault> {
    let item = v1::WatchItem {
        what: Some(v1::watch_item::What::Path(PATH.into())),
        ..Default::default()
    };
    let request = v1::WatchRequest {
        items: vec![item],
        ..Default::default()
    };
    Ok(client.stubs().delivery().watch(request).await?.into_inner())
}

/// Of a delivery with its value.
fn version(message: Option<v1::WatchResponse>) -> Result<u64, Fault> {
    let Some(watch_response::Event::Changed(changed)) = message.ok_or("a stream has ended")?.event else {
        return Err("no delivery of a secret".into());
    };
    match (changed.kind, changed.fields.get("value").map(Bytes::len)) {
        (Some(delivered::Kind::Secret(secret)), Some(VALUE_BYTES)) => Ok(secret.version),
        _ => Err("another value".into()),
    }
}

/// Who is measured: contender (for its row), process, way in, audience.
struct Side {
    row: Row,
    pid: u32,
    audience: Audience,
    before_mb: f64,
}

impl Side {
    async fn new(contender: &Contender, pid: u32, door: &Door, size: usize, conns: usize) -> Result<Self, Fault> {
        let before_mb = host::rss_mb(pid);
        Ok(Self {
            row: contender.row(),
            pid,
            audience: Audience::gather(door, size, conns).await?,
            before_mb,
        })
    }
}

async fn of_size(options: &Options, size: usize) -> Result<Found, Fault> {
    // Nobody among the peers has anything to compare.
    let stage = Stage::set(&Options {
        peer: Peer::None,
        ..options.clone()
    })
    .await?;
    let echo = Echo::start(stage.ours.lab())?;
    let conns = options.conns.unwrap_or(CONNS);
    let put = v1::KvPutRequest {
        path: PATH.into(),
        fields: [("value".to_owned(), Bytes::from(vec![b'v'; VALUE_BYTES]))].into(),
        ..Default::default()
    };
    stage.ours.door().client().await?.stubs().kv().put(put).await?;
    let began = Instant::now();
    let ours = stage.ours(Callers::new());
    let ours = Side::new(&ours, stage.ours.pid(), &stage.ours.door(), size, conns).await?;
    let opened = began.elapsed();
    let limit = echo.contender(Callers::new());
    let limit = Side::new(&limit, echo.pid(), &echo.door(stage.ours.lab()), size, conns).await?;
    let stream_kb = (host::rss_mb(ours.pid) - ours.before_mb) * 1024.0 / size as f64;
    let mut sides = [ours, limit];
    for round in 0..=options.rounds {
        for side in &mut sides {
            let window = side.audience.window(side.pid).await?;
            // The first is for warming up.
            if round > 0 {
                side.row.windows.push(window);
                side.row.rss_mb = host::rss_mb(side.pid);
            }
        }
    }
    Ok(Found {
        suite: "watch-fanout",
        what: format!("{size} streams on {} connections watch a secret of 1 KiB: from a write until each has it, {CHANGES} writes a window, TLS 1.3", conns.min(size)),
        rows: sides.into_iter().map(|side| side.row).collect(),
        figure: Figure::P50,
        facts: vec![
            ("size".into(), json!(size)),
            ("conns".into(), json!(conns.min(size))),
            ("open_ms".into(), json!(opened.as_millis() as u64)),
            ("stream_kb".into(), json!((stream_kb * 10.0).round() / 10.0)),
        ],
        notes: vec![
            "OpenBao has nothing like it".into(),
            "ours decides and records each delivery; CPU is of one delivery. rate is deliveries a second".into(),
            "open_ms: until all streams were open and had the secret, connections included; stream_kb: resident memory of the daemon for each".into(),
        ],
    })
}

/// Measures.
/// # Errors
/// Any failed request.
pub async fn measure(options: &Options) -> Result<Vec<Found>, Fault> {
    let sizes = match (options.size, &options.suite) {
        (Some(size), _) => vec![usize::try_from(size)?],
        (None, Some(_)) => SIZES.to_vec(),
        (None, None) => SIZES_SHORT.to_vec(),
    };
    let mut all = Vec::new();
    for size in sizes {
        all.push(of_size(options, size).await?);
    }
    Ok(all)
}
