//! The room as a whole: examples, hostile text, and decisions against Cedar without an index.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cedar_policy::{Authorizer, Entities, ValidationMode, Validator};

use crate::words::LANGUAGE;
use crate::{
    Action, Context, EXAMPLES, Peer, PolicySet, Principal, Purpose, ROOT, Reason, Request, check,
};

const NOON: i64 = 1_790_856_000; // Thursday 2026-10-01T12:00:00Z

fn principal(id: u8, groups: &[&str], tags: &[(&str, &str)]) -> Principal {
    let groups = groups
        .iter()
        .map(|s| (*s).to_owned())
        .collect::<BTreeSet<_>>();
    let tags = tags
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect::<BTreeMap<_, _>>();
    Principal::new([id; 16], &format!("person-{id}"), groups, tags).unwrap()
}

fn context() -> Context {
    Context {
        own: false,
        peer: Peer::Unix,
        now_unix_secs: NOON,
        purpose: Purpose::Session,
        token_age_secs: 60,
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
fn ask(
    set: &PolicySet,
    who: &Principal,
    action: Action,
    path: &str,
    context: &Context,
) -> (Reason, Vec<String>) {
    let decision = set.decide(&Request {
        principal: who,
        action,
        path,
        context,
    });
    assert_eq!(decision.allowed, decision.reason == Reason::Permitted);
    (
        decision.reason,
        decision.deciding.iter().map(ToString::to_string).collect(),
    )
}

fn reason(
    set: &PolicySet,
    who: &Principal,
    action: Action,
    path: &str,
    context: &Context,
) -> Reason {
    ask(set, who, action, path, context).0
}

/// The schema and the enum name the same actions.
#[test]
fn the_schema_is_the_action_list() {
    let groups: BTreeSet<_> = LANGUAGE
        .schema
        .action_groups()
        .map(|uid| uid.id().unescaped())
        .collect();
    let schema: BTreeSet<_> = LANGUAGE
        .schema
        .actions()
        .map(|uid| uid.id().unescaped())
        .filter(|id| !groups.contains(id))
        .collect();
    let ours: BTreeSet<_> = Action::ALL.iter().map(|action| action.as_str()).collect();
    assert_eq!(schema, ours);
    assert!(Action::ALL.len() <= 32, "a set of actions is a u32");
    for action in Action::ALL {
        assert_eq!(action.as_str().parse(), Ok(*action));
    }
    assert!("any".parse::<Action>().is_err());
}

/// R-POL-1: every example is valid, alone and together.
#[test]
fn examples_are_valid() {
    for (name, text) in EXAMPLES {
        check(name, text).unwrap_or_else(|problems| panic!("{name}: {problems}"));
    }
    PolicySet::build(EXAMPLES.map(|(name, text)| (name, 1, text))).unwrap();
}
