//! Fetch: many secrets and credentials in one call, all or nothing (R-KV-3).
//!
//! Each part is decided and recorded on its own, under the operation that it would be alone (`kv.get`, `creds.issue`) and the request's id.
//! Secrets are read first, since that can be dropped; accounts are made last, under intents of their own, and taken back if one fails or the
//! answer cannot be delivered. The records of what was read stand in one commit with the fetch's own.

use super::{Goods, ITEMS_MAX, Part, bundle, counter, decide, of_part, right, secret};
use crate::{
    audit::Outcome,
    base::id::LeaseId,
    engine::{Issued, MountRef},
    gate::{
        ops::{creds::withdraw, mount::role_of, prelude::*},
        outcome,
    },
    kv::Select,
    mount::Kind,
    policy::Claim,
    store::Change,
};
use futures::future::join_all;
use strongroom_audit::Encoded;

/// Values of one answer, in bytes: below what clients of gRPC take by default (4 MiB).
pub const FETCH_BYTES_MAX: usize = 3 << 20;
/// Credentials of one answer.
pub const FETCH_ROLES_MAX: usize = 16;

/// One part.
pub struct Item {
    /// What a bundle calls it; else empty.
    pub name: String,
    /// A secret or a role.
    pub path: Path,
    /// Of a secret: which version.
    pub select: Select,
    /// Of a dynamic role: the life asked for; 0: the role's default.
    pub ttl_secs: u64,
}

impl Item {
    /// The current version, or an account with the role's default life.
    pub const fn plain(path: Path) -> Self {
        Self {
            name: String::new(),
            path,
            select: Select::Current,
            ttl_secs: 0,
        }
    }
}

/// What is asked for.
pub struct Fetch {
    /// The parts, in the order in which they are answered.
    pub items: Vec<Item>,
    /// A secret that lists more of them: see [`bundle`].
    pub bundle: Option<Item>,
}

/// A part that was fetched.
pub struct Fetched {
    /// What a bundle calls it; else empty.
    pub name: String,
    /// Of a secret: which version was asked for.
    pub select: Select,
    /// Of a dynamic role: the life asked for; 0: the role's default.
    pub ttl_secs: u64,
    /// As asked.
    pub path: Path,
    /// What it is.
    pub goods: Goods,
    /// For how long it is good unless something is done, in seconds; `None`: until it is changed.
    pub remaining_secs: Option<u64>,
}

/// A part on its way.
struct Asked<'a> {
    item: &'a Item,
    kind: Kind,
    part: Part,
    goods: Option<Goods>,
}

impl Operation for Fetch {
    type Reply = Vec<Fetched>;
    const NAME: &'static str = "delivery.fetch";
    const CLASS: Class = Class::Act;
    fn describe(&self, trail: &mut Trail) {
        trail.param_u64("items", self.items.len() as u64);
        trail.param_bool("bundle", self.bundle.is_some());
    }
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        counter()
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, trail: &mut Trail) -> Result<Effect<Self::Reply>, Failure> {
        let (bundle, listed) = match &self.bundle {
            None => (None, Vec::new()),
            Some(item) => match open_bundle(rooms, permit, trail, item).await? {
                Ok((bundle, listed)) => (Some(bundle), listed),
                Err((record, failure)) => return Ok(Effect::Refused(vec![record], failure)),
            },
        };
        if self.items.len() + listed.len() > ITEMS_MAX {
            return Err(Failure::with(
                Reason::TooLarge,
                format!("at most {ITEMS_MAX} items in one call"),
            ));
        }
        let mut parts = Vec::with_capacity(self.items.len() + listed.len());
        for item in self.items.iter().chain(&listed) {
            match admit(rooms, permit, trail, item) {
                Ok(part) => parts.push(part),
                Err((record, failure)) => return Ok(Effect::Refused(vec![record], failure)),
            }
        }
        read_secrets(rooms, &mut parts).await?;
        issue_all(rooms, &mut parts).await?;
        let records = bundle
            .iter()
            .chain(&parts)
            .filter_map(record)
            .chain([trail.response(&Outcome::ok().with_count(parts.len() as u64))]);
        if let Err(error) = rooms.commit(Change::new(), records.collect()).await {
            withdraw(rooms, leases(parts.iter().filter_map(|part| part.goods.as_ref()))).await;
            return Err(error.into());
        }
        let now = rooms.leases.now();
        let fetched = parts.into_iter().filter_map(|open| {
            let goods = open.goods?;
            let remaining_secs = match &goods {
                Goods::Secret(_) => None,
                Goods::Credential(Issued::Dynamic { lease, .. }) => Some(now.secs_until(lease.expires)),
                Goods::Credential(Issued::Static { rotates, .. }) => rotates.map(|at| now.secs_until(at)),
            };
            Some(Fetched {
                name: open.item.name.clone(),
                select: open.item.select.clone(),
                ttl_secs: open.item.ttl_secs,
                path: open.item.path.clone(),
                goods,
                remaining_secs,
            })
        });
        Ok(Effect::Recorded(fetched.collect()))
    }
    fn recalls(&self) -> bool {
        true
    }
    async fn undelivered(reply: Self::Reply, rooms: &Open) {
        withdraw(rooms, leases(reply.iter().map(|fetched| &fetched.goods))).await;
    }
    fn lent(reply: &Self::Reply) -> Option<Vec<LeaseId>> {
        Some(leases(reply.iter().map(|fetched| &fetched.goods)))
    }
}

/// Those of the accounts that were made.
fn leases<'a>(goods: impl Iterator<Item = &'a Goods>) -> Vec<LeaseId> {
    let lease = |goods: &Goods| match goods {
        Goods::Credential(Issued::Dynamic { lease, .. }) => Some(lease.id),
        Goods::Credential(Issued::Static { .. }) | Goods::Secret(_) => None,
    };
    goods.filter_map(lease).collect()
}

/// A bundle, decided and read like any secret, and what it lists; or its refusal, with its record.
async fn open_bundle<'a>(
    rooms: &Open,
    permit: &Permit,
    trail: &Trail,
    item: &'a Item,
) -> Result<Result<(Asked<'a>, Vec<Item>), (Encoded, Failure)>, Failure> {
    let mut asked = match admit(rooms, permit, trail, item) {
        Ok(asked) => asked,
        Err(refused) => return Ok(Err(refused)),
    };
    read_secrets(rooms, std::slice::from_mut(&mut asked)).await?;
    match bundle::items(asked.goods.as_ref()) {
        Ok(listed) => Ok(Ok((asked, listed))),
        Err(failure) => fail(rooms, &asked.part.trail, &item.path, failure).await,
    }
}

/// Finds out what a part is, and decides it. A refusal, with its record, ends the call.
fn admit<'a>(rooms: &Open, permit: &Permit, trail: &Trail, item: &'a Item) -> Result<Asked<'a>, (Encoded, Failure)> {
    let refused = |part: &Trail, failure: Failure| {
        let record = outcome::response(part, Some(&failure));
        (record, of_part(&item.path, failure))
    };
    let (kind, action) = match right(rooms, &item.path) {
        Ok(right) => right,
        Err(failure) => {
            let mut part = trail.part("kv.get");
            part.path(&item.path);
            return Err(refused(&part, failure));
        }
    };
    let op = if kind == Kind::Kv { "kv.get" } else { "creds.issue" };
    let part = decide(permit, trail, op, action, &item.path, Claim::Policy);
    match &part.permit {
        Ok(_) => Ok(Asked {
            item,
            kind,
            part,
            goods: None,
        }),
        Err(failure) => Err(refused(&part.trail, failure.clone())),
    }
}

/// What was allowed failed: its record is written whatever the number of refusals.
async fn fail<T>(rooms: &Open, part: &Trail, path: &Path, failure: Failure) -> Result<T, Failure> {
    rooms
        .commit(Change::new(), vec![outcome::response(part, Some(&failure))])
        .await?;
    Err(of_part(path, failure))
}

async fn read_secrets(rooms: &Open, parts: &mut [Asked<'_>]) -> Result<(), Failure> {
    let mut bytes = 0;
    for open in parts.iter_mut().filter(|open| open.kind == Kind::Kv) {
        let Ok(permit) = &open.part.permit else { continue };
        match secret(rooms, permit, &open.item.path, &open.item.select).await {
            Ok(secret) => {
                open.part.trail.param_u64("version", secret.version);
                let goods = Goods::Secret(secret);
                bytes += goods.bytes();
                open.goods = Some(goods);
            }
            Err(failure) => return fail(rooms, &open.part.trail, &open.item.path, failure).await,
        }
        if bytes > FETCH_BYTES_MAX {
            let words = format!("the values have more than {FETCH_BYTES_MAX} bytes: fetch them in several calls");
            return Err(Failure::with(Reason::TooLarge, words));
        }
    }
    Ok(())
}

/// All at the same time, each to its end; if one fails, those that were made are taken back.
async fn issue_all(rooms: &Open, parts: &mut [Asked<'_>]) -> Result<(), Failure> {
    let is_role = |asked: &&Asked<'_>| asked.kind != Kind::Kv;
    if parts.iter().filter(is_role).count() > FETCH_ROLES_MAX {
        let words = format!("at most {FETCH_ROLES_MAX} credentials in one call");
        return Err(Failure::with(Reason::TooLarge, words));
    }
    let issued = join_all(parts.iter().filter(is_role).map(|asked| issue(rooms, asked))).await;
    let mut failed = None;
    for (asked, issued) in parts.iter_mut().filter(|asked| asked.kind != Kind::Kv).zip(issued) {
        match issued {
            Ok(issued) => asked.goods = Some(Goods::Credential(issued)),
            Err(failure) => {
                failed.get_or_insert((asked.part.trail.part("creds.issue"), &asked.item.path, failure));
            }
        }
    }
    let Some((mut part, path, failure)) = failed else {
        return Ok(());
    };
    withdraw(rooms, leases(parts.iter().filter_map(|asked| asked.goods.as_ref()))).await;
    part.path(path);
    fail(rooms, &part, path, failure).await
}

async fn issue(rooms: &Open, open: &Asked<'_>) -> Result<Issued, Failure> {
    let permit = open.part.permit.as_ref().map_err(Clone::clone)?;
    let (mount, name): (MountRef, String) = role_of(rooms, &open.item.path)?;
    Ok(rooms
        .engines
        .issue(permit, &open.part.trail, &mount, &name, open.item.ttl_secs)
        .await?)
}

/// The record of a part; an account's is durable already.
fn record(open: &Asked<'_>) -> Option<Encoded> {
    match open.goods.as_ref()? {
        Goods::Credential(Issued::Dynamic { .. }) => None,
        Goods::Credential(Issued::Static { .. }) | Goods::Secret(_) => Some(outcome::response(&open.part.trail, None)),
    }
}
