//! `footprint`: the binary's size, and memory at rest of a vault that was just opened.

use crate::{
    Fault, Options, Peer, contest::Figure, host, openbao, openbao::OpenBao, report::Found, strongroom::Strongroom,
};
use serde_json::json;
use std::{path::Path, time::Duration};

/// At rest for this long.
const REST: Duration = Duration::from_secs(5);

fn mb(file: &Path) -> Result<f64, Fault> {
    #[allow(clippy::cast_precision_loss)]
    let mb = std::fs::metadata(file)?.len() as f64 / 1e6;
    Ok((mb * 10.0).round() / 10.0)
}

fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Measures.
/// # Errors
/// A server does not come up.
pub async fn measure(options: &Options) -> Result<Vec<Found>, Fault> {
    let ours = Strongroom::start(options.durability).await?;
    let bao = match options.peer {
        Peer::Openbao => Some(OpenBao::start(ours.lab()).await?),
        Peer::None => None,
    };
    tokio::time::sleep(REST).await;
    // The HSM's supervisor is the daemon's child, each token's worker the supervisor's.
    let helpers: Vec<u32> = host::children(ours.pid())
        .into_iter()
        .flat_map(|child| std::iter::once(child).chain(host::children(child)))
        .collect();
    let mut facts = vec![
        (
            "binary_mb".to_owned(),
            json!(mb(&strongroom_tests::lab::binary("strongroomd"))?),
        ),
        ("rss_mb".into(), json!(rounded(host::rss_mb(ours.pid())))),
        ("helpers".into(), json!(helpers.len())),
        (
            "helpers_rss_mb".into(),
            json!(rounded(helpers.into_iter().map(host::rss_mb).sum())),
        ),
    ];
    if let Some(bao) = &bao {
        facts.push(("peer_binary_mb".into(), json!(mb(&openbao::binary()?)?)));
        facts.push(("peer_rss_mb".into(), json!(rounded(host::rss_mb(bao.pid())))));
    }
    let notes = vec![
        "rss_mb is the daemon; helpers are the HSM's supervisor and workers (pages they share are counted for each)"
            .into(),
    ];
    Ok(vec![Found {
        suite: "footprint",
        what: "at rest, vault open".into(),
        rows: Vec::new(),
        figure: Figure::P50,
        facts,
        notes,
    }])
}
