//! What is decided, case by case.

use std::collections::{BTreeMap, BTreeSet};

use super::{NOON, ask, context, from, principal, reason, set};
use crate::check::{check, unchecked};
use crate::words::LANGUAGE;
use crate::{Action, Context, EXAMPLES, PolicySet, Principal, Purpose, ROOT, Reason, Request, limits};

/// The schema and the enum name the same actions, and so does the index.
#[test]
fn the_schema_is_the_action_list() {
    let groups: BTreeSet<_> = LANGUAGE
        .schema
        .action_groups()
        .map(|uid| uid.id().unescaped())
        .collect();
    let schema = LANGUAGE.schema.actions().map(|uid| uid.id().unescaped());
    let schema: BTreeSet<_> = schema.filter(|id| !groups.contains(id)).collect();
    let ours: BTreeSet<_> = Action::ALL.iter().map(|action| action.as_str()).collect();
    assert_eq!(schema, ours);
    assert!(Action::ALL.len() <= 64, "a set of actions is a u64");
    for action in Action::ALL {
        assert_eq!(action.as_str().parse(), Ok(*action));
    }
    assert!("any".parse::<Action>().is_err(), "a group is no action");
}

/// R-POL-1: deny wins, and unknown means no.
#[test]
fn deny_wins_and_unknown_means_no() {
    let ann = principal(1, &["eng"], &[]);
    assert_eq!(
        reason(&PolicySet::default(), &ann, Action::Read, "kv/a", &context()),
        Reason::NoPermit
    );
    let both = set(r#"@id("yes") permit (principal, action, resource);
           @id("no") forbid (principal, action == S::Action::"read", resource in S::Path::"kv/a");
           @id("more") permit (principal in S::Group::"eng", action, resource in S::Path::"kv");"#);
    let ids = |ids: &[&str]| ids.iter().map(|id| format!("test#{id}")).collect::<Vec<_>>();
    assert_eq!(
        ask(&both, &ann, Action::Read, "kv/a/b", &context()),
        (Reason::Forbidden, ids(&["no"]))
    );
    assert_eq!(
        ask(&both, &ann, Action::Write, "kv/a/b", &context()),
        (Reason::Permitted, ids(&["more", "yes"]))
    );
    assert_eq!(
        ask(&both, &ann, Action::Read, "pg/a", &context()),
        (Reason::Permitted, ids(&["yes"]))
    );
}

/// R-POL-1: a path covers what is below it, segment by segment, and nothing else.
#[test]
fn paths_are_exact_by_segment() {
    let ann = principal(1, &[], &[]);
    let below = set(r#"permit (principal, action, resource in S::Path::"kv/prod");"#);
    let exact = set(r#"permit (principal, action, resource == S::Path::"kv/prod");"#);
    let all = set(r#"permit (principal, action, resource in S::Path::"/");"#);
    let root = set(r#"permit (principal, action, resource == S::Path::"/");"#);
    let table = [
        ("kv/prod", [true, true, true, false]),
        ("kv/prod/db", [true, false, true, false]),
        ("kv/prod/db/x", [true, false, true, false]),
        ("kv/production", [false, false, true, false]),
        ("kv/Prod", [false, false, true, false]),
        ("kv", [false, false, true, false]),
        ("pg/kv/prod", [false, false, true, false]),
        (ROOT, [false, false, true, true]),
    ];
    for (path, expected) in table {
        let got = [&below, &exact, &all, &root]
            .map(|set| reason(set, &ann, Action::List, path, &context()) == Reason::Permitted);
        assert_eq!(got, expected, "{path}");
    }
}

/// R-AUTH-5: a step up is asked for only when it is all that stands in the way: every forbid that applies asks for one, and a permit applies.
#[test]
fn a_step_up_is_told_only_where_it_helps() {
    let ann = principal(1, &[], &[]);
    let permit = "permit (principal, action, resource);";
    let recent = r#"@step_up("recent") forbid (principal, action, resource) when { context.token_age_secs > 30 };"#;
    let bound = r#"@step_up("bound") forbid (principal, action, resource) unless { context.token_binding == S::Binding::"key" };"#;
    let plain = "forbid (principal, action, resource) when { context.token_age_secs > 30 };";
    let idle = "forbid (principal, action, resource) when { context.token_age_secs > 3000 };";
    let broken = "forbid (principal, action, resource) when { context.token_age_secs * 9223372036854775807 > 5 };";
    for (texts, own, want) in [
        (vec![permit, recent], false, vec!["recent"]),
        (vec![permit, recent, idle], false, vec!["recent"]),
        (vec![permit, bound, recent], false, vec!["recent", "bound"]),
        (vec![permit, recent, plain], false, vec![]),
        (vec![permit, recent, broken], false, vec![]),
        (vec![permit, plain], false, vec![]),
        (vec![recent], false, vec![]),
        (vec![recent], true, vec!["recent"]),
        (vec![permit], false, vec![]),
    ] {
        let set = set(&texts.join("\n"));
        let context = Context { own, ..context() };
        let decision = set.weigh(&Request {
            principal: &ann,
            action: Action::LeaseRead,
            path: "pg/readers",
            context: &context,
        });
        assert_eq!(decision.step_up.words(), want, "{texts:?}");
        assert!(decision.step_up.is_empty() || !decision.allowed);
    }
    for (text, why) in [
        (
            r#"@step_up("recent") permit (principal, action, resource);"#,
            "a `permit` cannot",
        ),
        (
            r#"@step_up("soon") forbid (principal, action, resource);"#,
            "the words are",
        ),
        (r"@step_up forbid (principal, action, resource);", "the words are"),
    ] {
        let problems = check("test", text).unwrap_err().to_string();
        assert!(problems.contains(why), "{text}: {problems}");
    }
}

/// A path that is not canonical is refused, whatever the policies say.
#[test]
fn a_path_that_is_not_canonical_is_refused() {
    let all = set("permit (principal, action, resource);");
    let ann = principal(1, &[], &[]);
    let deep = ["a"; 33].join("/");
    let long = "a".repeat(513);
    let hostile = [
        "",
        "kv/",
        "/kv",
        "//",
        "kv//a",
        "kv/./a",
        "kv/../a",
        "kv/%2e",
        "kv/a b",
        "kv/*",
        "kv/\u{e9}",
        "kv\0",
        &deep,
        &long,
    ];
    for path in hostile {
        assert_eq!(
            reason(&all, &ann, Action::Read, path, &context()),
            Reason::NotARequest,
            "{path:?}"
        );
    }
    let (deep, long) = (["a"; 32].join("/"), "a".repeat(512));
    for path in [ROOT, "kv/a", "kv/.../..a/~@:+=-_.", &deep, &long] {
        assert_eq!(
            reason(&all, &ann, Action::Read, path, &context()),
            Reason::Permitted,
            "{path:?}"
        );
    }
}

/// R-POL-1: a policy that fails to evaluate refuses, though Cedar by itself would skip it. Both a
/// valid policy (overflow) and one that a newer schema no longer accepts (a missing attribute).
#[test]
fn an_evaluation_error_is_a_refusal() {
    let ann = principal(1, &[], &[]);
    let overflow = r#"permit (principal, action, resource);
        forbid (principal, action, resource) when { context.token_age_secs * 9223372036854775807 > 5 };"#;
    let missing = r#"permit (principal, action, resource);
        forbid (principal, action, resource) when { context.risk > 50 };"#;
    let permit = r#"permit (principal, action, resource);
        permit (principal, action, resource) when { principal.getTag("department") == "x" };"#;
    for text in [overflow, missing, permit] {
        let set = PolicySet::default().with(1, unchecked("test", text)).unwrap();
        let old = Context {
            token_age_secs: 7,
            ..context()
        };
        let decision = set.decide(&Request {
            principal: &ann,
            action: Action::Read,
            path: "kv/a",
            context: &old,
        });
        assert!(!decision.allowed);
        assert_eq!(decision.reason, Reason::Error);
        assert!(decision.errors[0].contains("test#2"), "{:?}", decision.errors);
        assert!(decision.errors[0].len() <= limits::MESSAGE_BYTES_MAX);
    }
    // One that is out of scope is not evaluated.
    let aside = set(r#"permit (principal, action, resource);
        forbid (principal, action, resource in S::Path::"pg") when { context.token_age_secs * 9223372036854775807 > 5 };"#);
    assert_eq!(
        reason(&aside, &ann, Action::Read, "kv/a", &context()),
        Reason::Permitted
    );
}

/// R-POL-1: `own` tells the owner of a lease from everyone else.
#[test]
fn only_the_owner_of_a_lease_ends_it() {
    let apps = PolicySet::build(EXAMPLES.map(|(name, text)| (name, 1, text))).unwrap();
    let app = principal(1, &["app-reports"], &[]);
    let owner = Context {
        own: true,
        ..from("10.0.0.1")
    };
    let other = Context { own: false, ..owner };
    let stranger = principal(2, &[], &[]);
    for action in [Action::Revoke, Action::Renew, Action::LeaseRead] {
        assert_eq!(
            ask(&apps, &app, action, "pg/readers/l1", &owner),
            (Reason::Permitted, vec!["app-postgres#own-leases".into()])
        );
        assert_eq!(reason(&apps, &app, action, "pg/readers/l1", &other), Reason::NoPermit);
        assert_eq!(reason(&apps, &app, action, "pg/writers/l1", &owner), Reason::NoPermit);
        assert_eq!(
            reason(&apps, &stranger, action, "pg/readers/l1", &owner),
            Reason::NoPermit
        );
    }
    assert_eq!(
        reason(&apps, &app, Action::Issue, "pg/readers", &other),
        Reason::Permitted
    );
    assert_eq!(
        reason(&apps, &app, Action::Issue, "pg/readers/x", &other),
        Reason::NoPermit
    );
}

/// R-POL-1: the examples do what their comments say.
#[test]
fn examples_do_what_they_say() {
    let all = PolicySet::build(EXAMPLES.map(|(name, text)| (name, 1, text))).unwrap();
    let payer = principal(1, &["payments"], &[]);
    let (inside, outside) = (from("10.2.3.4"), from("203.0.113.9"));
    let secret = "kv/prod/payments/db";
    assert_eq!(reason(&all, &payer, Action::Read, secret, &inside), Reason::Permitted);
    assert_eq!(
        reason(&all, &payer, Action::Read, secret, &from("::ffff:10.2.3.4")),
        Reason::Permitted,
        "a mapped address"
    );
    assert_eq!(
        reason(&all, &payer, Action::Read, secret, &context()),
        Reason::Permitted,
        "the Unix socket"
    );
    assert_eq!(reason(&all, &payer, Action::Read, secret, &outside), Reason::Forbidden);
    assert_eq!(reason(&all, &payer, Action::Write, secret, &inside), Reason::NoPermit);

    let admin = principal(2, &["admin"], &[]);
    assert_eq!(
        reason(&all, &admin, Action::PolicyWrite, "sys/policy/x", &inside),
        Reason::Permitted
    );
    let stale = Context {
        token_age_secs: 3_601,
        ..inside
    };
    assert_eq!(
        reason(&all, &admin, Action::PolicyWrite, "sys/policy/x", &stale),
        Reason::Forbidden
    );
    for action in [Action::Read, Action::Issue, Action::Write, Action::Destroy] {
        assert_eq!(reason(&all, &admin, action, secret, &inside), Reason::NoPermit);
    }

    let auditor = principal(3, &["audit", "payments"], &[]);
    assert_eq!(
        reason(&all, &auditor, Action::AuditRead, "sys/audit", &inside),
        Reason::Permitted
    );
    assert_eq!(reason(&all, &auditor, Action::Read, secret, &inside), Reason::Forbidden);

    let setup = Context {
        purpose: Purpose::Setup,
        ..context()
    };
    let recover = Context {
        purpose: Purpose::Recover,
        ..context()
    };
    let nobody = principal(4, &[], &[]);
    assert_eq!(
        reason(&all, &nobody, Action::SlotWrite, "sys/operator", &setup),
        Reason::Permitted
    );
    assert_eq!(
        reason(&all, &nobody, Action::SlotWrite, "sys/operator", &recover),
        Reason::NoPermit
    );
    assert_eq!(
        reason(&all, &nobody, Action::PolicyWrite, "sys/policy/x", &recover),
        Reason::Permitted
    );
    assert_eq!(
        reason(&all, &nobody, Action::SlotWrite, "sys/operator", &context()),
        Reason::NoPermit
    );

    let clerk = |tags: &[(&str, &str)]| principal(5, &[], tags);
    let hired = clerk(&[("department", "finance"), ("contract", "permanent")]);
    assert_eq!(
        reason(&all, &hired, Action::List, "kv/prod/finance", &inside),
        Reason::Permitted
    );
    let lent = clerk(&[("department", "finance")]);
    assert_eq!(
        reason(&all, &lent, Action::List, "kv/prod/finance", &inside),
        Reason::Forbidden
    );
    let saturday = Context {
        now_unix_secs: NOON + 2 * 86_400,
        ..setup
    };
    assert_eq!(
        reason(&all, &hired, Action::Write, "kv/prod/x", &saturday),
        Reason::Forbidden
    );
    assert_eq!(
        reason(&all, &hired, Action::Write, "kv/dev/x", &saturday),
        Reason::Permitted
    );
}

/// The times of a call: before 1970, at the edges of a day and a week, and beyond what Cedar can say.
#[test]
fn time_is_taken_apart_in_utc() {
    let ann = principal(1, &[], &[]);
    let at = |now_unix_secs, condition: &str| {
        let set = set(&format!("permit (principal, action, resource) when {{ {condition} }};"));
        reason(
            &set,
            &ann,
            Action::Read,
            "kv/a",
            &Context {
                now_unix_secs,
                ..context()
            },
        )
    };
    let is = |weekday: u8, hour: u8, minute: u8, now: &str| {
        format!(
            "context.weekday_utc == {weekday} && context.hour_utc == {hour} && context.minute_utc == {minute} \
             && context.now == datetime(\"{now}\")"
        )
    };
    assert_eq!(at(NOON, &is(4, 12, 0, "2026-10-01T12:00:00Z")), Reason::Permitted);
    assert_eq!(at(0, &is(4, 0, 0, "1970-01-01T00:00:00Z")), Reason::Permitted);
    assert_eq!(at(-1, &is(3, 23, 59, "1969-12-31T23:59:59Z")), Reason::Permitted);
    assert_eq!(
        at(1_709_251_199, &is(4, 23, 59, "2024-02-29T23:59:59Z")),
        Reason::Permitted
    );
    for beyond in [253_402_300_800, i64::MAX, i64::MIN] {
        assert_eq!(
            at(beyond, "context.now > datetime(\"2000-01-01\")"),
            Reason::NotARequest
        );
        assert_eq!(
            at(beyond, "context.hour_utc >= 0 && context.weekday_utc >= 1"),
            Reason::Permitted
        );
    }
}

/// Names, groups and attributes are data: what looks like policy text in them means nothing.
#[test]
fn hostile_names_are_only_names() {
    let guarded = set(r#"permit (principal in S::Group::"admin", action, resource);
           permit (principal, action, resource) when { principal.name == "root" || principal.hasTag("root") };"#);
    let hostile = [
        r#"admin""#,
        r#"x", S::Group::"admin"#,
        r#"S::Group::"admin""#,
        "admin\0",
        " admin",
        "Admin",
        "\u{202e}nimda",
        "admin/../admin",
        "a\\u{64}min",
        "*",
        "?principal",
        "\n",
        "admin\u{301}",
    ];
    for name in hostile {
        let one = |s: &str| BTreeSet::from([s.to_owned()]);
        let tags = BTreeMap::from([(name.to_owned(), name.to_owned())]);
        let who = Principal::new([7; 16], name, one(name), tags).unwrap();
        assert_eq!(
            reason(&guarded, &who, Action::Read, "kv/a", &context()),
            Reason::NoPermit,
            "{name:?}"
        );
    }
    assert_eq!(
        reason(
            &guarded,
            &principal(1, &["admin"], &[]),
            Action::Read,
            "kv/a",
            &context()
        ),
        Reason::Permitted
    );
}
