//! The room as a whole: what is decided (`decisions`), who could (`prospects`), sets and their cost (`sets`), text that is hostile or wrong (`texts`), and
//! the index against Cedar without one (`sliced`), and against another implementation (`cedar_go`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::prelude::ProptestConfig;

use crate::{Action, Binding, Context, Peer, PolicySet, Principal, Purpose, Reason, Request};

mod cedar_go;
mod decisions;
mod prospects;
mod sets;
mod sliced;
mod texts;

/// Thursday 2026-10-01T12:00:00Z.
const NOON: i64 = 1_790_856_000;

fn principal(id: u8, groups: &[&str], tags: &[(&str, &str)]) -> Principal {
    let groups: BTreeSet<_> = groups.iter().map(|s| (*s).to_owned()).collect();
    let tags: BTreeMap<_, _> = tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Principal::new([id; 16], &format!("person-{id}"), groups, tags).unwrap()
}

fn context() -> Context {
    Context {
        own: false,
        peer: Peer::Unix,
        now_unix_secs: NOON,
        purpose: Purpose::Session,
        token_age_secs: 60,
        binding: Binding::None,
        strength: 1,
    }
}

fn from(ip: &str) -> Context {
    Context {
        peer: Peer::Tls(ip.parse::<IpAddr>().unwrap()),
        ..context()
    }
}

fn set(text: &str) -> PolicySet {
    PolicySet::build([("test", 1, text)]).unwrap_or_else(|error| panic!("{error}"))
}

/// The reason of a decision, and the ids that decided it.
fn ask(set: &PolicySet, who: &Principal, action: Action, path: &str, context: &Context) -> (Reason, Vec<String>) {
    let decision = set.decide(&Request {
        principal: who,
        action,
        path,
        context,
    });
    assert_eq!(decision.allowed, decision.reason == Reason::Permitted);
    assert!(!decision.allowed || decision.errors.is_empty());
    (
        decision.reason,
        decision.deciding.iter().map(ToString::to_string).collect(),
    )
}

fn reason(set: &PolicySet, who: &Principal, action: Action, path: &str, context: &Context) -> Reason {
    ask(set, who, action, path, context).0
}

/// Property tests leave nothing behind in the tree; a failure prints its smallest case.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}
