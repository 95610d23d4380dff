//! docs/STATUS: every promise is done, partly or not yet, and nothing is called done that no test cites.

use crate::{
    none,
    source::{self, sources},
};
use std::collections::{BTreeMap, BTreeSet};

/// The families of promises, and how many each has.
const FAMILIES: &[(&str, usize)] = &[
    ("SEAL", 7),
    ("STORE", 6),
    ("KV", 4),
    ("LEASE", 7),
    ("ROT", 4),
    ("AUTH", 5),
    ("POL", 4),
    ("TOK", 8),
    ("KEY", 4),
    ("AUDIT", 5),
    ("WATCH", 2),
    ("AI", 1),
    ("OPS", 8),
];
const STATES: [&str; 3] = ["done", "partly", "not yet"];

struct Row {
    id: String,
    promise: String,
    state: String,
    rest: String,
}

fn rows() -> Vec<Row> {
    let page = source::read("docs/STATUS.md");
    let cells = |line: &str| {
        line.trim()
            .trim_matches('|')
            .split(" | ")
            .map(|cell| cell.trim().to_owned())
            .collect::<Vec<_>>()
    };
    page.lines()
        .filter(|line| line.starts_with("| R-"))
        .map(|line| match <[String; 4]>::try_from(cells(line)) {
            Ok([id, promise, state, rest]) => Row {
                id,
                promise,
                state,
                rest,
            },
            Err(cells) => panic!("docs/STATUS.md: {} cells instead of 4: {line}", cells.len()),
        })
        .collect()
}

#[test]
fn every_promise_has_its_row() {
    let found: Vec<_> = rows().into_iter().map(|row| row.id).collect();
    let wanted: Vec<_> = FAMILIES
        .iter()
        .flat_map(|(family, count)| (1..=*count).map(move |number| format!("R-{family}-{number}")))
        .collect();
    assert_eq!(found, wanted);
}

#[test]
fn a_promise_is_done_only_with_a_test_that_cites_it() {
    let (cited, tests) = (citations(), tests());
    let mut findings = Vec::new();
    for Row {
        id,
        promise,
        state,
        rest,
    } in rows()
    {
        if !STATES.contains(&state.as_str()) {
            findings.push(format!("{id}: {state:?} is none of {STATES:?}"));
        }
        if promise.len() < 20 || state != "not yet" && rest.is_empty() {
            findings.push(format!("{id}: says too little"));
        }
        if state == "done" && !cited.contains_key(&id) {
            findings.push(format!("{id}: done, but no test cites it"));
        }
        let named: Vec<_> = named_tests(&rest).collect();
        if state == "done"
            && !named
                .iter()
                .any(|name| cited.get(&id).is_some_and(|by| by.contains(name)))
        {
            findings.push(format!("{id}: done, but its row names no test that cites it"));
        }
        findings.extend(
            named
                .iter()
                .filter(|name| !tests.contains(*name))
                .map(|name| format!("{id}: there is no test {name}")),
        );
    }
    none(&findings, "docs/STATUS.md");
}

#[test]
fn tests_cite_promises_that_exist() {
    let known: BTreeSet<_> = rows().into_iter().map(|row| row.id).collect();
    let unknown: Vec<_> = citations()
        .into_iter()
        .filter(|(id, _)| !known.contains(id))
        .map(|(id, by)| format!("{id}, cited by {by:?}"))
        .collect();
    none(&unknown, "a promise that docs/STATUS.md does not have");
}

#[test]
fn what_the_threat_model_calls_code_names_its_test() {
    let (page, tests) = (source::read("docs/THREAT_MODEL.md"), tests());
    let mut findings = Vec::new();
    for line in page.lines().filter(|line| line.contains("| code |")) {
        let named: Vec<_> = named_tests(line).collect();
        if named.is_empty() {
            findings.push(format!("no test: {line}"));
        }
        findings.extend(
            named
                .iter()
                .filter(|name| !tests.contains(*name))
                .map(|name| format!("there is no test {name}: {line}")),
        );
    }
    let labels = ["| code |", "| operator |", "| not mitigated |"];
    let rows = page.lines().filter(|line| {
        line.starts_with("| ")
            && !line.starts_with("| ---")
            && !line.contains("| by |")
            && line.matches(" | ").count() >= 2
    });
    findings.extend(
        rows.filter(|line| !labels.iter().any(|label| line.contains(label)))
            .map(|line| format!("no label: {line}")),
    );
    assert!(page.contains("| code |"), "the page has no table");
    none(&findings, "docs/THREAT_MODEL.md");
}

/// Words in backticks that can only be names of tests: three words or more joined by underscores, or `hsm::name`.
fn named_tests(text: &str) -> impl Iterator<Item = String> {
    let quoted = text
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect::<Vec<_>>();
    let plain = |word: &str| {
        word.chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    quoted
        .into_iter()
        .filter_map(move |word| match word.strip_prefix("hsm::") {
            Some(name) => Some(name.to_owned()),
            None if word.matches('_').count() >= 2 && plain(&word) => Some(word),
            None => None,
        })
}

/// Names of all test functions.
fn tests() -> BTreeSet<String> {
    blocks().map(|(name, _)| name).collect()
}

/// Promises, and the tests whose comment cites them.
fn citations() -> BTreeMap<String, BTreeSet<String>> {
    let mut cited: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, comment) in blocks() {
        for id in comment
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
            .filter(|word| word.starts_with("R-"))
        {
            cited.entry(id.to_owned()).or_default().insert(name.clone());
        }
    }
    cited
}

/// Each test function, or scenario of a suite, and the comment and attributes right above it.
fn blocks() -> impl Iterator<Item = (String, String)> {
    sources().iter().flat_map(|source| {
        let mut block = String::new();
        let mut found = Vec::new();
        for line in source.text.lines().map(str::trim_start) {
            if line.starts_with("///") || line.starts_with("#[") {
                block.push_str(line);
                block.push('\n');
                continue;
            }
            let is_test = block
                .lines()
                .any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"));
            // A scenario of the engines' conformance suite: a macro makes it a test of every kind, and what the macro leaves out is
            // dead code to the compiler.
            let is_scenario = line.starts_with("pub(crate) async fn ") && line.contains("<B: Bench>()");
            if let Some(name) = line
                .trim_start_matches("pub(crate) ")
                .trim_start_matches("async ")
                .strip_prefix("fn ")
                .filter(|_| is_test || is_scenario)
            {
                let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                found.push((name, std::mem::take(&mut block)));
            }
            block.clear();
        }
        found
    })
}
