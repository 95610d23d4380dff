//! The index against Cedar without one, over generated policies and requests; and what we build by
//! hand for Cedar against what the schema says.

use cedar_policy::{Authorizer, Decision as Cedar, Entities, Entity, PolicyId, ValidationMode, Validator};
use proptest::prelude::*;
use serde_json::json;

use super::{NOON, cases};
use crate::words::{LANGUAGE, uid};
use crate::{Action, Binding, Context, Peer, PolicySet, Principal, Purpose, ROOT, Reason, Request};

/// Names chosen to be prefixes of each other.
const PATHS: &[&str] = &[
    ROOT, "a", "ab", "a/a", "a/b", "a/bb", "ab/b", "a/b/a", "a/b/b", "a/bb/a", "a/b/a/b",
];
const GROUPS: &[&str] = &["g", "gg", "h"];

fn id(i: u8) -> String {
    format!("{i:02x}").repeat(16)
}

fn head(kind: &'static str, ids: Vec<String>, others: &'static [&'static str]) -> impl Strategy<Value = String> {
    let name = prop::sample::select(ids);
    (0_u8..4, name, prop::sample::select(others.to_vec())).prop_map(move |(form, id, group)| match (form, kind) {
        (0, _) => kind.to_owned(),
        (1, "principal") => format!("principal == S::Identity::\"{id}\""),
        (2, "principal") => format!("principal in S::Group::\"{group}\""),
        (_, "principal") => format!("principal is S::Identity in S::Group::\"{group}\""),
        (1, _) => format!("resource == S::Path::\"{id}\""),
        (2, _) => format!("resource in S::Path::\"{id}\""),
        (_, _) => format!("resource is S::Path in S::Path::\"{group}\""),
    })
}

fn action_head() -> impl Strategy<Value = String> {
    let one = || prop::sample::select(vec!["read", "write", "list", "issue", "revoke", "seal"]);
    let group = prop::sample::select(vec!["any", "kv_read", "kv_write", "leases", "operator", "inspect"]);
    prop_oneof![
        Just("action".to_owned()),
        one().prop_map(|a| format!("action == S::Action::\"{a}\"")),
        (one(), one()).prop_map(|(a, b)| format!("action in [S::Action::\"{a}\", S::Action::\"{b}\"]")),
        group.clone().prop_map(|g| format!("action in S::Action::\"{g}\"")),
        (one(), group).prop_map(|(a, g)| format!("action in [S::Action::\"{a}\", S::Action::\"{g}\"]")),
    ]
}

/// Conditions over everything there is, some of which fail to evaluate for some requests.
const CONDITIONS: &[&str] = &[
    "",
    "",
    "",
    "",
    "",
    "when { context.own }",
    "unless { context.own }",
    "when { context.ip.isInRange(ip(\"10.0.0.0/8\")) }",
    "unless { context.transport == S::Transport::\"unix\" }",
    "when { principal.hasTag(\"t\") && principal.getTag(\"t\") == \"v\" }",
    "when { principal.name like \"n1*\" }",
    "when { resource in S::Path::\"a/b\" }",
    "unless { principal in S::Group::\"g\" }",
    "when { context[\"\\u{6f}wn\"] || context has own && context[\"ip\"].isLoopback() }",
    "unless { if principal.hasTag(if context.transport == S::Transport::\"tls\" then \"t\" else \"u\") then context.own else action == S::Action::\"read\" }",
    "when { {a: context}.a.own && [context].contains(context) && resource == S::Path::\"a/b\" }",
    "when { context.hour_utc < 12 && context.minute_utc >= 30 }",
    "when { context.own || action in S::Action::\"kv_read\" }",
    "when { context.weekday_utc > 5 }",
    "when { context.now < datetime(\"2026-10-02\") }",
    "when { context.token_purpose == S::Purpose::\"setup\" }",
    "when { context.token_binding == S::Binding::\"key\" }",
    "unless { context.auth_strength >= 2 }",
    "when { context.token_age_secs * 4611686018427387904 > 5 }",
    "when { context.token_age_secs + 9223372036854775807 > 5 }",
];

/// One of the above, or several joined: by `&&`, `||`, `!` and `if`.
fn condition() -> impl Strategy<Value = String> {
    // Parts that say something of whatever they are joined with, whatever the scope.
    let part = |text: &&&str| !text.contains("action") && !text.contains("resource ==");
    let parts = CONDITIONS
        .iter()
        .filter(part)
        .filter_map(|text| text.strip_prefix("when {")?.strip_suffix('}'));
    let atom = prop::sample::select(parts.map(str::to_owned).collect::<Vec<_>>());
    let joined = atom.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) && ({b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) || ({b})")),
            inner.clone().prop_map(|a| format!("!({a})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("if ({a}) then ({b}) else ({c})")),
        ]
    });
    let clause =
        (prop::sample::select(vec!["when", "unless"]), joined).prop_map(|(word, body)| format!("{word} {{ {body} }}"));
    prop_oneof![
        3 => prop::sample::select(CONDITIONS).prop_map(str::to_owned),
        2 => clause,
    ]
}

pub(super) fn policy() -> impl Strategy<Value = String> {
    let paths = PATHS.iter().map(|s| (*s).to_owned()).collect();
    (
        prop::bool::weighted(0.7),
        head("principal", (0..3).map(id).collect(), GROUPS),
        action_head(),
        head("resource", paths, PATHS),
        condition(),
    )
        .prop_map(|(permit, principal, action, resource, condition)| {
            let effect = if permit { "permit" } else { "forbid" };
            format!("{effect} ({principal}, {action}, {resource}) {condition};\n")
        })
}

#[derive(Debug)]
pub(super) struct Question {
    pub principal: Principal,
    pub action: Action,
    pub path: &'static str,
    pub context: Context,
}

pub(super) fn question() -> impl Strategy<Value = Question> {
    let principal = (
        0_u8..3,
        prop::sample::subsequence(GROUPS, 0..=3),
        prop::option::of(prop::sample::select(vec!["v", "w"])),
    );
    let peer = prop::sample::select(vec![
        Peer::Unix,
        Peer::Tls([10, 1, 2, 3].into()),
        Peer::Tls("::ffff:10.1.2.3".parse().unwrap()),
        Peer::Tls("2001:db8::1".parse().unwrap()),
    ]);
    let purpose = prop::sample::select(vec![Purpose::Session, Purpose::Setup, Purpose::Recover]);
    let bound = prop::sample::select(vec![
        (Binding::None, 1),
        (Binding::None, 2),
        (Binding::Certificate, 3),
        (Binding::Key, 3),
    ]);
    let context = (
        any::<bool>(),
        peer,
        NOON - 500_000..NOON + 500_000,
        purpose,
        0_u64..4,
        bound,
    );
    let context = context.prop_map(
        |(own, peer, now_unix_secs, purpose, token_age_secs, (binding, strength))| Context {
            own,
            peer,
            now_unix_secs,
            purpose,
            token_age_secs,
            binding,
            strength,
        },
    );
    let action = prop::sample::select(Action::ALL);
    (principal, action, prop::sample::select(PATHS), context).prop_map(|((id, groups, tag), action, path, context)| {
        let groups = groups.into_iter().map(str::to_owned).collect();
        let tags = tag.into_iter().map(|tag| ("t".to_owned(), tag.to_owned())).collect();
        Question {
            principal: Principal::new([id; 16], &format!("n{id}"), groups, tags).unwrap(),
            action,
            path,
            context,
        }
    })
}

/// The principal, as Cedar's JSON has it.
pub(super) fn principal_json(who: &Principal) -> serde_json::Value {
    json!({
        "uid": { "type": "S::Identity", "id": who.id() },
        "attrs": { "name": who.name() },
        "tags": who.attributes(),
        "parents": who.groups().iter().map(|g| json!({ "type": "S::Group", "id": g })).collect::<Vec<_>>(),
    })
}

/// The context, as Cedar's JSON has it.
pub(super) fn context_json(context: &Context) -> serde_json::Value {
    let time = jiff::tz::Offset::UTC.to_datetime(jiff::Timestamp::from_second(context.now_unix_secs).unwrap());
    let (transport, ip) = match context.peer {
        Peer::Unix => ("unix", "0.0.0.0".to_owned()),
        Peer::Tls(ip) => ("tls", ip.to_canonical().to_string()),
    };
    json!({
        "own": context.own,
        "transport": { "__entity": { "type": "S::Transport", "id": transport } },
        "ip": { "__extn": { "fn": "ip", "arg": ip } },
        "now": { "__extn": { "fn": "datetime", "arg": time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string() } },
        "hour_utc": time.hour(),
        "minute_utc": time.minute(),
        "weekday_utc": time.weekday().to_monday_one_offset(),
        "token_purpose": { "__entity": { "type": "S::Purpose", "id": context.purpose.as_str() } },
        "token_age_secs": context.token_age_secs,
        "token_binding": { "__entity": { "type": "S::Binding", "id": context.binding.as_str() } },
        "auth_strength": context.strength,
    })
}

/// The model: Cedar over all policies at once, its entities as a hierarchy of direct parents and its
/// context from JSON, both validated against the schema. Only the rule for errors is added.
fn model(policies: &cedar_policy::PolicySet, question: &Question) -> (Reason, Vec<String>) {
    let (who, context) = (&question.principal, &question.context);
    let mut entities = vec![Entity::with_uid(uid(&LANGUAGE.path, ROOT))];
    let mut parent = ROOT.to_owned();
    for segment in question.path.split('/').filter(|segment| !segment.is_empty()) {
        let path = if parent == ROOT {
            segment.to_owned()
        } else {
            format!("{parent}/{segment}")
        };
        let above = [uid(&LANGUAGE.path, &parent)].into();
        entities.push(Entity::new_no_attrs(uid(&LANGUAGE.path, &path), above));
        parent = path;
    }
    let schema = &LANGUAGE.schema;
    entities.push(Entity::from_json_value(principal_json(who), Some(schema)).unwrap());
    entities.extend(
        who.groups()
            .iter()
            .map(|group| Entity::with_uid(uid(&LANGUAGE.group, group))),
    );
    let entities = Entities::from_entities(entities, Some(schema)).unwrap();

    let context = context_json(context);
    let action = question.action.entity().unwrap().uid();
    let context = cedar_policy::Context::from_json_value(context, Some((schema, &action))).unwrap();
    let (principal, resource) = (uid(&LANGUAGE.identity, who.id()), uid(&LANGUAGE.path, question.path));
    let request = cedar_policy::Request::new(principal, action, resource, context, Some(schema)).unwrap();

    let response = Authorizer::new().is_authorized(&request, policies, &entities);
    let mut deciding: Vec<_> = response.diagnostics().reason().map(ToString::to_string).collect();
    deciding.sort();
    let failed = response.diagnostics().errors().next().is_some();
    match (response.decision(), deciding.is_empty()) {
        (Cedar::Deny, false) => (Reason::Forbidden, deciding),
        (_, _) if failed => (Reason::Error, Vec::new()),
        (Cedar::Deny, true) => (Reason::NoPermit, deciding),
        (Cedar::Allow, _) => (Reason::Permitted, deciding),
    }
}

/// All the policies in one Cedar set, under the ids that ours gives them.
fn unsliced(documents: &[Vec<String>]) -> cedar_policy::PolicySet {
    let policies = documents.iter().enumerate().flat_map(|(d, policies)| {
        policies.iter().enumerate().map(move |(i, text)| {
            cedar_policy::Policy::parse(Some(PolicyId::new(format!("d{d}#{}", i + 1))), text).unwrap()
        })
    });
    cedar_policy::PolicySet::from_policies(policies).unwrap()
}

proptest! {
    #![proptest_config(cases(100))]

    /// R-POL-1, R-POL-2: a decision over the slice, and the policies named as deciding it, are those
    /// of Cedar over the whole set. 100 sets with 60 questions each.
    #[test]
    fn a_slice_decides_like_the_whole(
        documents in prop::collection::vec(prop::collection::vec(policy(), 1..6), 0..5),
        questions in prop::collection::vec(question(), 60),
    ) {
        let texts = documents.iter().enumerate().map(|(d, policies)| (format!("d{d}"), 1, policies.concat()));
        let set = PolicySet::build(texts).unwrap();
        let whole = unsliced(&documents);
        for question in &questions {
            let Question { principal, action, path, context } = question;
            let decision = set.decide(&Request { principal, action: *action, path, context });
            let deciding = decision.deciding.iter().map(ToString::to_string).collect::<Vec<_>>();
            prop_assert_eq!((decision.reason, deciding), model(&whole, question), "{:?}", question);
            prop_assert_eq!(decision.allowed, decision.reason == Reason::Permitted);
        }
    }

    /// What is made by hand for Cedar is what the schema describes.
    #[test]
    fn requests_conform_to_the_schema(question in question()) {
        let Question { principal, action, path, context } = &question;
        let request = Request { principal, action: *action, path, context };
        let (request, entities) = request.express(u16::MAX).unwrap();
        let schema = Some(&LANGUAGE.schema);
        let (who, what, whither) = (request.principal().unwrap(), request.action().unwrap(), request.resource().unwrap());
        let context = request.context().unwrap().clone();
        cedar_policy::Request::new(who.clone(), what.clone(), whither.clone(), context, schema).unwrap();
        Entities::from_entities(entities.iter().cloned(), schema).unwrap();
    }

    /// The generator makes what `check` accepts; otherwise the comparison would compare little.
    #[test]
    fn generated_policies_are_valid(text in policy()) {
        let set = text.parse().unwrap();
        let result = Validator::new(LANGUAGE.schema.clone()).validate(&set, ValidationMode::Strict);
        prop_assert!(result.validation_passed_without_warnings(), "{text}");
    }
}
