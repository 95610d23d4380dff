//! `kv-read` and `kv-write`: 1 KiB secrets at 1, 16 and 64 connections, or at CONNS.

use crate::{
    Fault, Options, Peer,
    contest::{Contender, Figure, Role, hold},
    limits::{self, Echo, VALUE_BYTES},
    load::{self, Callers, Paths, Until, WRITER_PATHS},
    openbao::OpenBao,
    report::Found,
    strongroom::Strongroom,
};

/// Connections, a decade and more apart.
const CONNS: [usize; 3] = [1, 16, 64];
/// Secrets to choose from.
const SECRETS: u64 = 256;

struct Stage {
    ours: Strongroom,
    peer: Option<OpenBao>,
}

async fn stage(options: &Options) -> Result<Stage, Fault> {
    let ours = Strongroom::start(options.durability).await?;
    let peer = match options.peer {
        Peer::Openbao => Some(OpenBao::start(ours.lab()).await?),
        Peer::None => None,
    };
    Ok(Stage { ours, peer })
}

fn conns(options: &Options) -> Vec<usize> {
    options.conns.map_or_else(|| CONNS.to_vec(), |conns| vec![conns])
}

impl Stage {
    fn ours(&self, callers: Callers) -> Contender {
        Contender {
            name: "strongroom".into(),
            role: Role::Ours,
            durability: self.ours.durability,
            pid: Some(self.ours.pid()),
            callers,
        }
    }

    fn peer(bao: &OpenBao, durability: &'static str, callers: Callers) -> Contender {
        Contender {
            name: format!("openbao {}", crate::openbao::VERSION),
            role: Role::Peer,
            durability,
            pid: Some(bao.pid()),
            callers,
        }
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.peer.is_some() {
            notes.push(
                "OpenBao writes its audit log without a sync (D1); its writes sync raft. Ours at D2 promise more"
                    .into(),
            );
        }
        notes
    }
}

/// Reads.
/// # Errors
/// Any failed request.
pub async fn read(options: &Options) -> Result<Vec<Found>, Fault> {
    let stage = stage(options).await?;
    let secrets = options.size.unwrap_or(SECRETS);
    load::run(
        &mut stage.ours.writers(8, VALUE_BYTES, seed()).await?,
        Until::Calls(secrets),
    )
    .await?;
    if let Some(bao) = &stage.peer {
        load::run(&mut bao.writers(8, VALUE_BYTES, seed()).await?, Until::Calls(secrets)).await?;
    }
    let echo = Echo::start(stage.ours.lab())?;
    let mut all = Vec::new();
    for conns in conns(options) {
        let mut contenders = vec![stage.ours(stage.ours.readers(conns, secrets, VALUE_BYTES).await?)];
        if let Some(bao) = &stage.peer {
            contenders.push(Stage::peer(bao, "D1", bao.readers(conns, secrets, VALUE_BYTES).await?));
        }
        contenders.push(echo.contender(stage.ours.lab(), conns).await?);
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

/// Paths that readers find.
fn seed() -> Paths {
    Paths::Read(std::sync::Arc::default())
}

/// Writes.
/// # Errors
/// Any failed request.
pub async fn write(options: &Options) -> Result<Vec<Found>, Fault> {
    let stage = stage(options).await?;
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
