//! Headers, sizes, leftovers.

use crate::{
    none,
    source::{self, Source, closing},
};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
/// Of a file of tests.
const TEST_FILE_LINES_MAX: usize = 800;
/// Of a test that is a table of cases, or one long story.
const TEST_LINES_MAX: usize = 120;

/// Files that are longer, and how long they may be. An entry that is no longer needed fails: take it out.
const LONG_FILES: &[(&str, usize)] = &[];
/// Functions that are longer, as `path: name`, and how long they may be. The same.
const LONG_FUNCTIONS: &[(&str, usize)] = &[];
/// Where code that ships may end the process or the thread, how often at most, and why it cannot happen or must.
const PANICS: &[(&str, usize, &str)] = &[
    (
        "daemon/src/base/page.rs",
        2,
        "HKDF gives 32 bytes, HMAC takes keys of every length",
    ),
    ("daemon/src/base/random.rs", 1, "stopping is better than weak keys"),
    (
        "daemon/src/engine/postgres/config.rs",
        1,
        "a constant of eight letters is a name",
    ),
    (
        "daemon/src/engine/postgres/scram.rs",
        1,
        "HMAC takes keys of every length",
    ),
    ("daemon/src/token/pepper.rs", 1, "HMAC takes keys of every length"),
    ("policy/src/words.rs", 4, "the schema is a constant; a test parses it"),
];

#[test]
fn every_file_begins_with_what_it_is() {
    // `tests.rs` is what its parent says.
    let bare = source::sources()
        .iter()
        .filter(|source| !source.text.starts_with("//! ") && !source.path.ends_with("/tests.rs"));
    none(
        &bare.map(|source| source.path.clone()).collect::<Vec<_>>(),
        "no `//!` header on the first line",
    );
}

#[test]
fn every_room_says_what_it_may_touch_and_how_to_read_it() {
    let silent = |source: &&Source| {
        let header: String = source.text.lines().take_while(|line| line.starts_with("//!")).collect();
        let room = source
            .path
            .strip_prefix("daemon/src/")
            .is_some_and(|rest| rest.ends_with("/mod.rs") && rest.matches('/').count() == 1);
        room && !(header.to_lowercase().contains("reading order")
            && (header.contains("May touch") || header.contains("May use") || header.contains("composition root")))
    };
    let silent: Vec<_> = source::sources()
        .iter()
        .filter(silent)
        .map(|source| source.path.clone())
        .collect();
    none(&silent, "a room's header says what it may touch, and the reading order");
}

#[test]
fn files_stay_short() {
    let of = |ships: bool| {
        let sources = source::sources()
            .iter()
            .filter(move |source| source.shipped.is_empty() != ships);
        sources.map(|source| (source.path.clone(), source.text.lines().count()))
    };
    let rule = "a file is too long: it is usually two rooms";
    none(&over(of(true), FILE_LINES_MAX, LONG_FILES), rule);
    none(&over(of(false), TEST_FILE_LINES_MAX, &[]), rule);
}

#[test]
fn functions_stay_short() {
    let of = |ships: bool| {
        source::sources().iter().flat_map(move |source| {
            let code = if ships { &source.shipped } else { &source.code };
            let named = functions(code).into_iter();
            named.map(|(name, lines)| (format!("{}: {name}", source.path), lines))
        })
    };
    none(
        &over(of(true), FUNCTION_LINES_MAX, LONG_FUNCTIONS),
        "a function is too long: it is usually two steps",
    );
    none(
        &over(of(false), TEST_LINES_MAX, &[]),
        "a test is too long: it is usually two stories",
    );
}

/// What is longer than `max` and than its entry, and entries that nothing needs.
fn over(lengths: impl Iterator<Item = (String, usize)>, max: usize, entries: &[(&str, usize)]) -> Vec<String> {
    let (mut findings, mut needed) = (Vec::new(), Vec::new());
    for (name, lines) in lengths.filter(|(_, lines)| *lines > max) {
        let allowed = entries
            .iter()
            .find(|(entry, _)| *entry == name)
            .map_or(max, |(_, allowed)| *allowed);
        if lines > allowed {
            findings.push(format!("{name}: {lines} lines, {allowed} allowed"));
        }
        needed.push(name);
    }
    findings.extend(
        entries
            .iter()
            .filter(|(entry, _)| !needed.iter().any(|name| name == entry))
            .map(|(entry, _)| format!("{entry}: needs no exception any more")),
    );
    findings
}

/// Functions, and the lines of code of their bodies, without comments and empty lines (clippy counts alike).
fn functions(code: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if code[..at]
            .chars()
            .next_back()
            .is_some_and(|c| c.is_alphanumeric() || c == '_')
        {
            continue;
        }
        let rest = &code[at..];
        let name: String = rest[3..]
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        let Some(open) = rest
            .find('{')
            .filter(|open| !name.is_empty() && !rest[..*open].contains(';'))
        else {
            continue;
        };
        let lines = rest[open + 1..closing(rest, open)].lines();
        found.push((name, lines.filter(|line| !line.trim().is_empty()).count()));
    }
    found
}

#[test]
fn nothing_is_left_lying_about() {
    let mut findings = Vec::new();
    let (marks, macros) = (["FIX", "XX"], ["todo!", "unimplemented!", "dbg!"]);
    let marks = [
        format!("{}ME", marks[0]),
        format!("{}X", marks[1]),
        ["TO", "DO"].concat(),
    ];
    for source in source::sources() {
        for (number, (line, code)) in source.text.lines().zip(source.code.lines()).enumerate() {
            let in_comment = line
                .find("//")
                .is_some_and(|at| marks.iter().any(|mark| line[at..].contains(mark.as_str())));
            if in_comment || macros.iter().any(|name| code.contains(name)) {
                findings.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    none(&findings, "something unfinished");
}

#[test]
fn code_that_ships_does_not_panic() {
    let words = [
        ".unwrap()",
        ".expect(",
        "panic!(",
        "unreachable!(",
        ".unwrap_err()",
        ".expect_err(",
    ];
    let mut findings = Vec::new();
    for Source { path, shipped, .. } in source::sources() {
        let count: usize = words.iter().map(|word| shipped.matches(word).count()).sum();
        let allowed = PANICS
            .iter()
            .find(|(entry, ..)| entry == path)
            .map(|(_, allowed, _)| *allowed);
        if count > allowed.unwrap_or(0) {
            findings.push(format!(
                "{path}: {count} unwrap, expect, panic or unreachable, {} allowed",
                allowed.unwrap_or(0)
            ));
        }
        if count == 0 && allowed.is_some() {
            findings.push(format!("{path}: needs no exception any more"));
        }
    }
    none(&findings, "code that ships may not panic");
}

#[test]
fn no_machine_is_named() {
    let mut findings = Vec::new();
    let (work, home, tmp) = (
        ["/wo", "rk/"].concat(),
        ["/ro", "ot/"].concat(),
        ["\"/t", "mp"].concat(),
    );
    for source in source::sources().iter().filter(|source| !source.shipped.is_empty()) {
        let shipped = source
            .text
            .lines()
            .zip(source.shipped.lines())
            .enumerate()
            .filter(|(_, (_, shipped))| !shipped.trim().is_empty());
        findings.extend(
            shipped
                .filter(|(_, (line, _))| line.contains(&tmp))
                .map(|(number, _)| format!("{}:{}", source.path, number + 1)),
        );
    }
    for path in source::files(&[
        ".rs", ".md", ".toml", ".sh", ".proto", ".cedar", ".service", "Makefile", "deps", "run",
    ]) {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let named = text
            .lines()
            .enumerate()
            .filter(|(_, line)| line.contains(&work) || line.contains(&home));
        findings.extend(named.map(|(number, _)| format!("{}:{}", source::relative(&path), number + 1)));
    }
    none(&findings, "a path of some machine");
}
