//! A third store to damage: a whole data directory that the real daemon made, with leases, roles, a static account and the engine's
//! configuration in it. Its root key is derived from the shares of a slot without a token.

use super::fixture::{Expected, FORBID, FORBIDDEN, open, rows};
use crate::campaign::{
    Dice, Tried,
    bench::{Bench, GLASS},
    copy_tree, doing,
};
use std::{fs, path::Path};
use strongroom_client::{Fields, Secret, v1};
use strongroomd::{
    base::time::{Clock, SystemClock},
    seal::Tokens,
    vault::offline,
};

/// Leases that are alive.
const LEASES: usize = 3;

/// Makes it in `dir`, laid out as the other fixtures are.
pub async fn make(dir: &Path, mut dice: Dice) -> Tried<Expected> {
    let mut bench = Bench::set().await?;
    let client = bench.client().await?;
    let mut expected = Expected {
        now: SystemClock::default().now().0,
        tokens: vec![bench.token.clone()],
        ..Expected::default()
    };
    for (path, bytes) in [
        ("kv/app/db", 40),
        ("kv/app/db", 30),
        ("kv/app/tls/cert", 5000),
        (FORBIDDEN, 60),
    ] {
        let value = dice.bytes(bytes);
        let fields: Fields = [("value".to_owned(), Secret::new(value.clone()))].into();
        client.put(path, &fields, None).await.map_err(doing(path))?;
        expected.secrets.retain(|(known, _)| known != path);
        expected.secrets.push((path.into(), value));
    }
    for _ in 0..LEASES {
        client.issue("pg/readers", None).await.map_err(doing("issue"))?;
    }
    let put = v1::PolicyPutRequest {
        name: "payroll".into(),
        text: FORBID.into(),
        ..Default::default()
    };
    client
        .change(put, |s, r| async move { s.policy().put(r).await })
        .await
        .map_err(doing("policy"))?;
    bench.stop();
    lay_out(&bench.lab.data(), dir)?;
    let disk = open(dir)?;
    let slot = GLASS.parse().map_err(doing("the slot"))?;
    let shares = bench.glass.iter().take(2).cloned().collect();
    let keys = offline::derive(&disk, &slot, shares, &Tokens::new(Vec::new()))
        .await
        .map_err(doing("the root key"))?;
    expected.root = *keys.slot.root.key.expose();
    expected.rows = rows(&keys.store).await?.0;
    drop(keys);
    disk.close();
    let report = strongroom_audit::verify(&dir.join("audit"), &strongroom_audit::Options::default())?;
    expected.audit_records = report.records;
    Ok(expected)
}

/// The daemon's data directory holds the store, and the log in a folder of it.
fn lay_out(data: &Path, dir: &Path) -> Tried<()> {
    copy_tree(data, &dir.join("store"))?;
    fs::rename(dir.join("store").join("audit"), dir.join("audit"))?;
    Ok(())
}
