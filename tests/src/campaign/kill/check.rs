//! What must hold after a kill, once the vault is open again.

use super::load::{Book, Fate, open, value};
use crate::campaign::{
    Dice, Tried,
    bench::{Bench, until},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
    time::{Duration, Instant},
};
use strongroom_client::{Client, Error, v1};

/// Accounts of nobody must be gone after this long.
pub const CLEANED_WITHIN: Duration = Duration::from_secs(90);
/// Live credentials that are tried at the server after a kill.
const TRIED: usize = 3;

/// What a check came to.
#[derive(Default)]
pub struct Checked {
    pub broken: Vec<String>,
    /// How long accounts of nobody stayed.
    pub cleaned: Duration,
}

/// Compares the vault and the server with the book; then settles what was doubtful in the book.
pub async fn check(
    bench: &Bench,
    client: &Client,
    book: &Mutex<Book>,
    dice: &mut Dice,
    patience: Duration,
) -> Tried<Checked> {
    let mut checked = Checked::default();
    secrets(client, book, &mut checked.broken).await?;
    // First the server, then the leases: an account without a lease is one that Strongroom does not know of.
    let accounts = bench.accounts()?;
    let known: BTreeSet<_> = bench
        .leases(client)
        .await?
        .into_iter()
        .map(|lease| lease.account)
        .collect();
    let untracked: Vec<_> = accounts.difference(&known).collect();
    if !untracked.is_empty() {
        checked
            .broken
            .push(format!("untracked accounts in the server: {untracked:?}"));
    }
    cleaned(bench, client, patience, &mut checked).await?;
    let active = active(bench, client).await?;
    credentials(bench, book, &active, dice, &mut checked.broken).await?;
    strangers(client, book, &active, &mut checked.broken).await;
    Ok(checked)
}

async fn active(bench: &Bench, client: &Client) -> Tried<BTreeMap<String, String>> {
    let leases = bench.leases(client).await?;
    Ok(leases
        .into_iter()
        .filter(|lease| lease.state == "active")
        .map(|lease| (lease.id, lease.account))
        .collect())
}

/// No acknowledged write is lost or altered.
async fn secrets(client: &Client, book: &Mutex<Book>, broken: &mut Vec<String>) -> Tried<()> {
    let known = open(book).secrets.clone();
    for (path, known) in known {
        let (version, number) = known.acked;
        match client.get(&path).await {
            Ok(found) => {
                let bytes = found.field("value")?.expose();
                let right = if found.version == version {
                    bytes == value(&path, number)
                } else {
                    found.version > version && known.doubtful.iter().any(|sent| bytes == value(&path, *sent))
                };
                if !right {
                    broken.push(format!(
                        "{path}: version {version} was acknowledged, version {} there is not what was sent, or older",
                        found.version
                    ));
                }
                // It is there now: from here on it must stay.
                let number = known
                    .doubtful
                    .iter()
                    .copied()
                    .find(|sent| bytes == value(&path, *sent))
                    .unwrap_or(number);
                if let Some(entry) = open(book).secrets.get_mut(&path) {
                    entry.acked = (found.version, number);
                    entry.doubtful.clear();
                }
            }
            Err(Error::NotFound(_)) if version == 0 => {}
            Err(error) => broken.push(format!(
                "{path}: version {version} was acknowledged and cannot be read: {error}"
            )),
        }
    }
    Ok(())
}

/// Within a bounded time the server has the accounts of active leases and no others.
async fn cleaned(bench: &Bench, client: &Client, patience: Duration, checked: &mut Checked) -> Tried<()> {
    let began = Instant::now();
    let left = || async {
        let accounts = bench.accounts()?;
        let active: BTreeSet<_> = active(bench, client).await?.into_values().collect();
        Tried::Ok(accounts.difference(&active).cloned().collect::<Vec<_>>())
    };
    let left = until(patience, left, Vec::is_empty).await?;
    checked.cleaned = began.elapsed();
    if !left.is_empty() {
        checked.broken.push(format!(
            "after {} s the server still has {left:?}, which belong to no live lease",
            patience.as_secs()
        ));
    }
    Ok(())
}

async fn credentials(
    bench: &Bench,
    book: &Mutex<Book>,
    active: &BTreeMap<String, String>,
    dice: &mut Dice,
    broken: &mut Vec<String>,
) -> Tried<()> {
    let accounts = bench.accounts()?;
    let (mut live, all) = (Vec::new(), open(book).credentials.clone());
    for (id, credential) in &all {
        let (is_active, is_there) = (active.contains_key(id), accounts.contains(&credential.account));
        match credential.fate {
            Fate::Live if !is_active || !is_there => {
                broken.push(format!(
                    "{}: handed out, never revoked; lease active: {is_active}, account there: {is_there}",
                    credential.account
                ));
            }
            Fate::Live => live.push(credential.clone()),
            Fate::Gone if is_active || is_there => {
                broken.push(format!(
                    "{}: its end was acknowledged; lease active: {is_active}, account there: {is_there}",
                    credential.account
                ));
            }
            Fate::Gone => {}
            Fate::Doubtful => {
                if let Some(entry) = open(book).credentials.get_mut(id) {
                    entry.fate = if is_active { Fate::Live } else { Fate::Gone };
                }
            }
        }
    }
    for _ in 0..TRIED.min(live.len()) {
        if let Some(credential) = dice.pick(&live)
            && let Err(error) = bench.log_in(&credential.account, &credential.password).await
        {
            broken.push(format!("{}: a live credential is refused: {error}", credential.account));
        }
    }
    Ok(())
}

/// Leases whose credential never reached anybody: revoked, which must work.
async fn strangers(client: &Client, book: &Mutex<Book>, active: &BTreeMap<String, String>, broken: &mut Vec<String>) {
    let unknown: Vec<_> = active
        .keys()
        .filter(|id| !open(book).credentials.contains_key(*id))
        .cloned()
        .collect();
    for id in unknown {
        if let Err(error) = revoke(client, &id).await {
            broken.push(format!("lease {id} cannot be revoked: {error}"));
        }
    }
}

/// Revokes a lease, proven.
pub async fn revoke(client: &Client, id: &str) -> Tried<()> {
    let what = Some(v1::lease_revoke_request::What::Id(id.to_owned()));
    let request = v1::LeaseRevokeRequest {
        what,
        wait: true,
        ..Default::default()
    };
    let answer = client
        .with_timeout(Duration::from_secs(60))
        .change(request, |s, r| async move { s.lease().revoke(r).await })
        .await?;
    if answer.gone > 0 {
        Ok(())
    } else {
        Err("it is not gone".into())
    }
}
