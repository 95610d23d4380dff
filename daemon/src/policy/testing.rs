//! Permits for the unit tests of any room, decided by real policies but without a store.

use super::{
    Caller, Claim, Identity, Permit, Standing,
    decide::ask,
    force::InForce,
    record::{Document, Listed, Manifest},
};
use crate::base::{
    id::{Accessor, IdentityId, SessionId},
    path::Path,
    random::OsRandom,
    time::Timestamp,
};
use std::{collections::BTreeMap, sync::Arc};
use strongroom_policy::{Action, Peer, Principal, Purpose};

/// Permits everybody everything.
pub(crate) const ALL: &str = "permit(principal, action, resource);";

pub(crate) fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

/// Somebody with a token made at 1970 that never ends.
pub(crate) fn caller(name: &str, groups: &[&str], purpose: Purpose) -> Arc<Caller> {
    let id = IdentityId::random(&OsRandom);
    let principal = Principal::new(
        *id.as_bytes(),
        name,
        groups.iter().map(|group| (*group).to_owned()).collect(),
        BTreeMap::new(),
    )
    .unwrap();
    let standing = Standing {
        session: SessionId::random(&OsRandom),
        accessor: Accessor::random(&OsRandom),
        purpose,
        issued: Timestamp(0),
        proved: Timestamp(0),
        expires: Timestamp(u64::MAX),
        max_expires: Timestamp(u64::MAX),
        log_in: None,
    };
    Arc::new(Caller::new(Arc::new(Identity::new(id, principal)), standing))
}

pub(super) fn force(policies: &str) -> Arc<InForce> {
    let document = Document::new(1, Timestamp(0), policies);
    let manifest = Manifest::new(1, BTreeMap::from([("test".to_owned(), Listed::of(&document))]));
    Arc::new(InForce::assemble(Some(manifest), BTreeMap::from([("test".to_owned(), document)])).unwrap())
}

/// The permit of `caller` under `policies`, if there is one.
pub(crate) fn permit_under(
    policies: &str,
    caller: &Arc<Caller>,
    action: Action,
    at: &str,
    claim: Claim,
) -> Option<Permit> {
    let force = force(policies);
    assert!(!force.is_damaged(), "the test's policies are not valid");
    force
        .decide(
            caller,
            ask(caller, action, claim, Peer::Unix, Timestamp(1_795_000_000_000)),
            &path(at),
        )
        .permit
        .ok()
}

/// A permit of somebody who may do everything.
pub(crate) fn permit(action: Action, at: &str) -> Permit {
    permit_under(
        ALL,
        &caller("somebody", &[], Purpose::Session),
        action,
        at,
        Claim::Policy,
    )
    .unwrap()
}
