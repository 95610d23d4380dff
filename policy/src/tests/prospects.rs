//! Who could: what is settled, what stays open, and that nobody who is allowed is left out. And what no document gives.

use proptest::prelude::*;

use super::sliced::{Question, policy, question};
use super::{ask, cases, context, from, principal, reason, set};
use crate::{Action, Binding, Context, PolicySet, Prospect, Purpose, Reason, Request};

fn conditions(prospect: &Prospect) -> Vec<(String, bool)> {
    let clauses = prospect.permits.iter().chain(&prospect.forbids);
    clauses
        .map(|clause| (clause.id.to_string(), clause.condition.is_empty()))
        .collect()
}

/// R-POL-2: conditions on the caller and the path are settled, those on the call are named.
#[test]
fn what_is_known_is_settled() {
    let set = set(
        r#"@id("tag") permit (principal, action, resource in S::Path::"kv") when { principal.hasTag("team") && principal.getTag("team") == "a" };
        @id("net") permit (principal in S::Group::"eng", action, resource in S::Path::"kv") when { context.ip.isInRange(ip("10.0.0.0/8")) };
        @id("half") permit (principal, action, resource in S::Path::"kv") when { context.own && principal.hasTag("team") && principal.getTag("team") == "c" };
        @id("but") permit (principal, action, resource in S::Path::"but") unless { context.own || principal.name == "person-1" };
        @id("not") forbid (principal, action == S::Action::"destroy", resource);
        @id("night") forbid (principal in S::Group::"ops", action, resource) when { context.hour_utc < 6 };"#,
    );
    let could = |who, known, action, path| {
        let prospect = set.prospect(&who, known, action, path);
        (prospect.could(), prospect.always(), conditions(&prospect))
    };
    let id = |id: &str| format!("test#{id}");
    let ann = || principal(1, &["eng"], &[("team", "a")]);
    assert_eq!(
        could(ann(), true, Action::Read, "kv/x"),
        (
            true,
            true,
            vec![(id("net"), false), (id("tag"), true)].into_iter().rev().collect()
        )
    );
    assert_eq!(
        could(principal(2, &["eng"], &[("team", "b")]), true, Action::Read, "kv/x"),
        (true, false, vec![(id("net"), false)])
    );
    assert_eq!(
        could(principal(3, &[], &[]), true, Action::Read, "kv/x"),
        (false, false, vec![])
    );
    assert_eq!(
        could(principal(3, &[], &[]), false, Action::Read, "kv/x"),
        (true, false, vec![(id("tag"), false), (id("half"), false)]),
        "its attributes are not known"
    );
    let third = could(principal(3, &[], &[("team", "c")]), true, Action::Read, "kv/x");
    assert_eq!(third, (true, false, vec![(id("half"), false)]));
    assert!(
        !could(ann(), true, Action::Read, "but/x").0,
        "a known part of an `unless` counts"
    );
    assert_eq!(
        could(principal(2, &[], &[]), true, Action::Read, "but/x"),
        (true, false, vec![(id("but"), false)])
    );
    let ops = could(principal(4, &["ops"], &[("team", "a")]), true, Action::Read, "kv/x");
    assert_eq!((ops.0, ops.1), (true, false), "not at night");
    assert!(!could(ann(), true, Action::Destroy, "kv/x").0, "forbidden");
    assert!(!could(ann(), true, Action::Read, "pg/x").0);
    assert!(!could(ann(), true, Action::Read, "kv//x").0, "no path");
    let (groups, ids) = set.named_by(Action::Read, "kv/x");
    assert_eq!((groups, ids.len()), (["eng".to_owned()].into(), 0));
}

/// R-POL-1: a key in hand and the strength of the log-in can be asked for.
#[test]
fn strength_and_binding() {
    let set = set(
        r#"permit (principal, action, resource) when { context.token_binding != S::Binding::"none" && context.auth_strength >= 3 };
        @id("weak") forbid (principal, action == S::Action::"destroy", resource) when { context.auth_strength < 2 };"#,
    );
    let ann = principal(1, &[], &[]);
    let of = |binding, strength| Context {
        binding,
        strength,
        ..context()
    };
    for (binding, strength, want) in [
        (Binding::None, 1, Reason::NoPermit),
        (Binding::None, 2, Reason::NoPermit),
        (Binding::Certificate, 3, Reason::Permitted),
        (Binding::Key, 3, Reason::Permitted),
    ] {
        assert_eq!(reason(&set, &ann, Action::Read, "kv/a", &of(binding, strength)), want);
    }
    assert_eq!(
        ask(&set, &ann, Action::Destroy, "kv/a", &of(Binding::None, 1)),
        (Reason::Forbidden, vec!["test#weak".to_owned()])
    );
}

/// R-POL-1: what no document gives: set-up, recovery and one's own; a forbid wins over the first and the last.
#[test]
fn powers_that_no_document_gives() {
    let none = PolicySet::default();
    let shut = set("forbid (principal, action, resource);");
    let ann = principal(1, &[], &[]);
    let weigh = |set: &PolicySet, purpose, own, action| {
        let context = Context {
            purpose,
            own,
            ..from("10.0.0.1")
        };
        let said = set.weigh(&Request {
            principal: &ann,
            action,
            path: "sys/x",
            context: &context,
        });
        (
            said.allowed,
            said.deciding.first().map(ToString::to_string).unwrap_or_default(),
        )
    };
    let told = |power: &str| (true, power.to_owned());
    assert_eq!(weigh(&none, Purpose::Setup, false, Action::Read), told("builtin:setup"));
    assert_eq!(weigh(&none, Purpose::Session, true, Action::Renew), told("builtin:own"));
    assert_eq!(
        weigh(&none, Purpose::Recover, false, Action::PolicyWrite),
        told("builtin:recover")
    );
    assert_eq!(
        weigh(&shut, Purpose::Recover, false, Action::PolicyWrite),
        told("builtin:recover")
    );
    for (set, purpose, own, action) in [
        (&none, Purpose::Session, true, Action::Read),
        (&none, Purpose::Session, false, Action::Renew),
        (&none, Purpose::Recover, true, Action::Read),
        (&shut, Purpose::Setup, false, Action::Read),
        (&shut, Purpose::Session, true, Action::Renew),
    ] {
        assert!(!weigh(set, purpose, own, action).0, "{purpose:?} {own} {action}");
    }
}

proptest! {
    #![proptest_config(cases(60))]

    /// R-POL-2: whoever is allowed in some circumstances is named by who-can, and whoever it says may always is allowed in these.
    #[test]
    fn nobody_who_could_is_left_out(
        documents in prop::collection::vec(prop::collection::vec(policy(), 1..6), 0..5),
        questions in prop::collection::vec(question(), 60),
    ) {
        let texts = documents.iter().enumerate().map(|(d, policies)| (format!("d{d}"), 1, policies.concat()));
        let set = PolicySet::build(texts).unwrap();
        for question in &questions {
            let Question { principal, action, path, context } = question;
            let said = set.decide(&Request { principal, action: *action, path, context });
            for known in [true, false] {
                let prospect = set.prospect(principal, known, *action, path);
                prop_assert!(!said.allowed || prospect.could(), "{:?}: {:?}", question, prospect);
                // A condition that fails in these circumstances refuses; it is named, so it is not `always`.
                prop_assert!(!prospect.always() || said.allowed || !said.errors.is_empty(), "{:?}: {:?}", question, prospect);
            }
        }
    }
}
