//! Sets of documents and their bounds, and what a decision costs.

use std::collections::BTreeSet;
use std::time::Instant;

use super::{context, from, principal, reason, set};
use crate::check::unchecked;
use crate::{Action, BuildError, Context, PolicySet, Principal, PrincipalError, Reason, Request, check, limits};

/// A principal's bounds hold at their edges.
#[test]
fn principals_are_bounded() {
    let make = |name: &str, groups: usize, tags: usize, value: usize| {
        let groups = (0..groups).map(|i| format!("g{i}")).collect();
        let tags = (0..tags).map(|i| (format!("t{i}"), "v".repeat(value))).collect();
        Principal::new([1; 16], name, groups, tags).err()
    };
    assert_eq!(make(&"n".repeat(128), 64, 32, 512), None);
    assert_eq!(make("", 0, 0, 0), Some(PrincipalError::Name));
    assert_eq!(make(&"n".repeat(129), 0, 0, 0), Some(PrincipalError::Name));
    assert_eq!(make("n", 65, 0, 0), Some(PrincipalError::Groups));
    assert_eq!(make("n", 0, 33, 0), Some(PrincipalError::Attributes));
    assert_eq!(make("n", 0, 1, 513), Some(PrincipalError::Value));
}

/// Sixty-four policies may apply to one request; a forbid among more is not passed over.
#[test]
fn too_many_candidates_are_a_refusal() {
    let ann = principal(1, &[], &[]);
    let many = |count: usize| set(&"permit (principal, action, resource);\n".repeat(count));
    assert_eq!(
        reason(&many(64), &ann, Action::Read, "kv/a", &context()),
        Reason::Permitted
    );
    assert_eq!(
        reason(&many(65), &ann, Action::Read, "kv/a", &context()),
        Reason::TooManyPolicies
    );
}

/// The hash names the set: order of arrival does not matter, everything else does.
#[test]
fn a_set_is_named_by_its_hash() {
    let (p, q) = (
        "permit (principal, action, resource);",
        "forbid (principal, action, resource);",
    );
    let build = |documents: &[(&str, u64, &str)]| PolicySet::build(documents.iter().copied()).unwrap();
    let base = build(&[("a", 1, p), ("b", 2, q)]);
    assert_eq!(base.hash(), build(&[("b", 2, q), ("a", 1, p)]).hash());
    let changed = [
        build(&[("a", 1, p)]),
        build(&[("a", 2, p), ("b", 2, q)]),
        build(&[("a", 1, q), ("b", 2, q)]),
        build(&[("a", 1, p), ("c", 2, q)]),
        build(&[("ab", 1, p), ("b", 2, q)]),
    ];
    let hashes: BTreeSet<_> = changed.iter().chain([&base]).map(PolicySet::hash).collect();
    assert_eq!(hashes.len(), 6);
    // Changing a set step by step comes to the same as building it.
    let stepwise = build(&[("b", 1, p), ("z", 9, p)])
        .without("z")
        .with(2, check("b", q).unwrap())
        .unwrap();
    let stepwise = stepwise.with(1, check("a", p).unwrap()).unwrap();
    assert_eq!(stepwise.hash(), base.hash());
    assert_eq!(stepwise.documents().collect::<Vec<_>>(), [("a", 1), ("b", 2)]);
    assert_eq!(
        reason(&stepwise, &principal(1, &[], &[]), Action::Read, "kv/a", &context()),
        Reason::Forbidden
    );
    assert_eq!(base.without("b").documents().count(), 1);
}

/// One bad document fails the whole set: it could hold the forbid.
#[test]
fn a_set_is_all_or_nothing() {
    let good = "permit (principal, action, resource);";
    let invalid = PolicySet::build([("a", 1, good), ("b", 1, "forbid (principal, action, resource")]).unwrap_err();
    assert!(
        matches!(&invalid, BuildError::Invalid { name, .. } if name == "b"),
        "{invalid}"
    );
    let twice = PolicySet::build([("a", 1, good), ("a", 2, good)]).unwrap_err();
    assert_eq!(twice, BuildError::Twice("a".into()));
    let documents = |count: usize| (0..count).map(|i| (1, unchecked(&format!("d{i}"), good)));
    assert!(PolicySet::assemble(documents(limits::DOCUMENTS_MAX)).is_ok());
    let too_many = PolicySet::assemble(documents(limits::DOCUMENTS_MAX + 1)).unwrap_err();
    assert_eq!(too_many, BuildError::TooManyDocuments);
    let full = unchecked("full", &good.repeat(limits::POLICIES_PER_DOCUMENT_MAX));
    let full =
        (0..limits::POLICIES_MAX / limits::POLICIES_PER_DOCUMENT_MAX).map(|i| (1, full.renamed(&format!("f{i}"))));
    let full = PolicySet::assemble(full).unwrap();
    assert_eq!(
        full.with(1, check("one", good).unwrap()).unwrap_err(),
        BuildError::TooManyPolicies
    );
}

/// Prints what a decision costs, in CPU time; asserts nothing about time.
#[test]
fn cost_of_a_decision() {
    let team = |i: usize| {
        format!(
            r#"permit (principal in S::Group::"team-{i}", action in S::Action::"kv_read", resource in S::Path::"kv/team-{i}");
               permit (principal in S::Group::"team-{i}", action in S::Action::"leases", resource in S::Path::"pg/team-{i}") when {{ context.own }};
               forbid (principal, action, resource in S::Path::"kv/team-{i}/prod") when {{ context.ip.isInRange(ip("203.0.113.0/24")) }};
               forbid (principal, action, resource in S::Path::"kv/team-{i}/dev") when {{ resource in S::Path::"kv/team-{i}/dev/x" }};"#
        )
    };
    let documents: Vec<_> = (0..250).map(|i| (format!("team-{i}"), 1, team(i))).collect();
    let began = Instant::now();
    let set = PolicySet::build(documents).unwrap();
    println!("1,000 policies checked and indexed in {:?}", began.elapsed());
    let began = Instant::now();
    let changed = set.with(2, check("team-7", &team(7)).unwrap()).unwrap();
    println!("one document replaced in {:?}", began.elapsed());
    assert_ne!(changed.hash(), set.hash());

    let who = principal(1, &["team-7", "team-8", "everyone"], &[("department", "payments")]);
    let context = Context {
        own: true,
        ..from("10.0.0.1")
    };
    let table = [
        ("scopes only", Action::Read, "kv/team-7/test/db", 1),
        ("and a plain condition", Action::Renew, "pg/team-7/l/1", 1),
        ("and a network", Action::Read, "kv/team-7/prod/db", 2),
        ("and a path", Action::Read, "kv/team-7/dev/db", 2),
    ];
    for (what, action, path, considered) in table {
        let request = Request {
            principal: &who,
            action,
            path,
            context: &context,
        };
        let (rounds, began) = (10_000, cpu_ns());
        for _ in 0..rounds {
            std::hint::black_box(set.decide(std::hint::black_box(&request)));
        }
        println!("{what}: {} ns", (cpu_ns() - began) / rounds);
        let decision = set.decide(&request);
        assert_eq!((decision.reason, decision.considered), (Reason::Permitted, considered));
    }
}

/// What this thread has run; 0 where the kernel does not say.
fn cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ')
        .next()
        .and_then(|ns| ns.parse().ok())
        .unwrap_or_default()
}
