//! Our decisions against those of cedar-go, an independent implementation of Cedar, over random policy sets and requests. It looks at all policies;
//! ours looks at a slice: so the index, the one-by-one evaluation, the hand-made requests and Cedar itself are all compared at once.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use serde::Deserialize;
use serde_json::{Value, json};

use super::cases;
use super::sliced::{Question, context_json, policy, principal_json, question};
use crate::words::LANGUAGE;
use crate::{Action, PolicySet, ROOT, Reason, Request};

/// Pairs of a set and a request when nobody says (`STRONGROOM_CEDAR_GO_PAIRS`). The bar is 100,000.
const PAIRS: usize = 10_000;
/// Requests a set.
const QUESTIONS: usize = 100;

#[derive(Deserialize)]
struct Answer {
    allow: bool,
    reasons: Vec<String>,
    failed: bool,
}

/// Every action and its groups, as entities.
fn actions() -> Value {
    let entity = |action: &Action| {
        let uid = action.entity().unwrap().uid();
        let groups = LANGUAGE.schema.action_entities().unwrap();
        let parents = groups.ancestors(&uid).into_iter().flatten();
        let parents: Vec<_> = parents
            .map(|group| json!({ "type": "S::Action", "id": group.id().unescaped() }))
            .collect();
        json!({ "uid": { "type": "S::Action", "id": action.as_str() }, "attrs": {}, "parents": parents })
    };
    Action::ALL.iter().map(entity).collect()
}

fn asked(question: &Question) -> Value {
    let path = |path: &str| json!({ "type": "S::Path", "id": path });
    let mut entities = vec![
        principal_json(&question.principal),
        json!({ "uid": path(ROOT), "attrs": {}, "parents": [] }),
    ];
    let mut parent = ROOT.to_owned();
    for segment in question.path.split('/').filter(|segment| !segment.is_empty()) {
        let whole = if parent == ROOT {
            segment.to_owned()
        } else {
            format!("{parent}/{segment}")
        };
        entities.push(json!({ "uid": path(&whole), "attrs": {}, "parents": [path(&parent)] }));
        parent = whole;
    }
    json!({
        "entities": entities,
        "request": {
            "principal": { "type": "S::Identity", "id": question.principal.id() },
            "action": { "type": "S::Action", "id": question.action.as_str() },
            "resource": path(question.path),
            "context": context_json(&question.context),
        },
    })
}

/// What was said, by Strongroom's one rule on top of Cedar's: a policy that fails refuses, unless a forbid does anyway.
fn reason(answer: &Answer) -> (Reason, Vec<String>) {
    match (answer.allow, answer.reasons.is_empty()) {
        (false, false) => (Reason::Forbidden, answer.reasons.clone()),
        _ if answer.failed => (Reason::Error, Vec::new()),
        (false, true) => (Reason::NoPermit, Vec::new()),
        (true, _) => (Reason::Permitted, answer.reasons.clone()),
    }
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name} is no number"))
    })
}

/// The other side, built from `policy/cedar-go`; `None` where there is no Go, which is said, and which CI does not accept.
fn cedar_go() -> Option<std::process::Child> {
    let found = Command::new("go")
        .arg("version")
        .output()
        .is_ok_and(|ran| ran.status.success());
    if !found {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI needs Go to compare decisions with cedar-go"
        );
        eprintln!(
            "NOT COMPARED: there is no Go here, so decisions were not compared with those of cedar-go. Install Go 1.26 or newer."
        );
        return None;
    }
    let started = Command::new("go")
        .args(["run", "."])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/cedar-go"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    Some(started.expect("go run starts"))
}

/// R-POL-1, R-POL-2: on random pairs of policy set and request two implementations of Cedar decide alike, and name the same policies.
#[test]
fn another_implementation_decides_alike() {
    let Some(mut go) = cedar_go() else { return };
    let (mut to, from) = (go.stdin.take().unwrap(), BufReader::new(go.stdout.take().unwrap()));
    let pairs = number("STRONGROOM_CEDAR_GO_PAIRS", PAIRS);
    let seed = u64::try_from(number("STRONGROOM_CEDAR_GO_SEED", 1)).unwrap();
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(cases(1), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let sets = prop::collection::vec(prop::collection::vec(policy(), 1..6), 0..8);
    let questions = prop::collection::vec(question(), QUESTIONS);
    let (mut lines, mut told, mut seen) = (from.lines(), 0, std::collections::BTreeMap::new());
    writeln!(to, "{}", actions()).unwrap();
    while told < pairs {
        let documents = sets.new_tree(&mut runner).unwrap().current();
        let questions = questions.new_tree(&mut runner).unwrap().current();
        let texts = documents
            .iter()
            .enumerate()
            .map(|(d, policies)| (format!("d{d}"), 1, policies.concat()));
        let set = PolicySet::build(texts).unwrap();
        let named = documents.iter().enumerate().flat_map(|(d, policies)| {
            policies
                .iter()
                .enumerate()
                .map(move |(i, text)| json!({ "id": format!("d{d}#{}", i + 1), "text": text }))
        });
        let line = json!({ "policies": named.collect::<Vec<_>>(), "questions": questions.iter().map(asked).collect::<Vec<_>>() });
        writeln!(to, "{line}").unwrap();
        let line = lines.next().expect("cedar-go ended: its words are above").unwrap();
        let answers: Vec<Answer> = serde_json::from_str(&line).unwrap();
        assert_eq!(answers.len(), questions.len());
        for (question, answer) in questions.iter().zip(&answers) {
            let Question {
                principal,
                action,
                path,
                context,
            } = question;
            let ours = set.decide(&Request {
                principal,
                action: *action,
                path,
                context,
            });
            let deciding: Vec<_> = ours.deciding.iter().map(ToString::to_string).collect();
            assert_eq!(
                (ours.reason, deciding),
                reason(answer),
                "seed {seed}: {question:?} of {documents:#?}"
            );
            *seen.entry(format!("{:?}", ours.reason)).or_insert(0_u32) += 1;
            told += 1;
        }
    }
    drop(to);
    assert!(go.wait().unwrap().success());
    println!("{told} pairs, decided alike: {seen:?}");
    let least = u32::try_from(told / 1000).unwrap();
    for reason in ["Permitted", "Forbidden", "NoPermit", "Error"] {
        assert!(
            seen.get(reason).is_some_and(|count| *count > least),
            "{reason} is compared too: {seen:?}"
        );
    }
}
