//! Text that is wrong, and text that is hostile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use proptest::prelude::*;

use super::cases;
use crate::limits::{MESSAGE_BYTES_MAX, PROBLEMS_MAX, TEXT_BYTES_MAX};
use crate::words::{LANGUAGE, actions_of};
use crate::{Action, EXAMPLES, Problems, check};

fn refused(text: &str) -> Problems {
    check("test", text).map(|_| ()).expect_err(text)
}

/// R-POL-1: every example is valid, and its ids are as its annotations say.
#[test]
fn examples_are_valid() {
    for (name, text) in EXAMPLES {
        let checked = check(name, text).unwrap_or_else(|problems| panic!("{name}: {problems}"));
        assert_eq!(checked.name(), name);
        assert!(checked.ids().all(|id| id.starts_with(&format!("{name}#"))));
    }
    let checked = check(
        "d",
        "permit (principal, action, resource);\n@id(\"x\") forbid (principal, action, resource);",
    )
    .unwrap();
    assert_eq!(checked.ids().collect::<Vec<_>>(), ["d#1", "d#x"]);
}

/// The policies in the README are valid, and its table of groups is the schema's.
#[test]
fn the_readme_is_true() {
    let readme = include_str!("../../README.md");
    let snippets: Vec<_> = readme
        .split("```cedar\n")
        .skip(1)
        .filter_map(|s| s.split("```").next())
        .collect();
    assert!(snippets.len() >= 2);
    for text in snippets {
        check("readme", text).unwrap_or_else(|problems| panic!("{text}\n{problems}"));
    }
    let mut documented = BTreeMap::new();
    for line in readme.lines().filter(|line| line.starts_with("| `")) {
        let mut words = line.split('`').skip(1).step_by(2);
        let group = words.next().unwrap();
        documented.insert(group, words.collect::<BTreeSet<_>>());
    }
    for group in LANGUAGE
        .schema
        .action_groups()
        .filter(|group| group.id().unescaped() != "any")
    {
        let members = actions_of(group);
        let members = Action::ALL.iter().filter(|action| members & action.bit() != 0);
        let members: BTreeSet<_> = members.map(|action| action.as_str()).collect();
        assert_eq!(documented.get(group.id().unescaped()), Some(&members), "{group}");
    }
}

/// R-POL-1: what is refused when a policy is written, where it says it is, and in which words.
#[test]
fn wrong_policies_are_refused_with_their_place() {
    let when = |condition: &str| format!("permit (principal, action, resource)\nwhen {{ {condition} }};");
    let table: &[(&str, &str, Option<u32>)] = &[
        ("", "1 to 256", None),
        ("// nothing", "1 to 256", None),
        ("permit (principal, action, resource)", "unexpected end", Some(1)),
        ("\n\npermit (principal, action);", "", Some(3)),
        (
            "permit (principal == ?principal, action, resource);",
            "templates are not accepted",
            None,
        ),
        (
            "permit (principal in S::Team::\"a\", action, resource);",
            "S::Team",
            Some(1),
        ),
        (
            "permit (principal, action == S::Action::\"raed\", resource);",
            "raed",
            Some(1),
        ),
        (
            "permit (principal, action == S::Action::\"any\", resource);",
            "",
            Some(1),
        ),
        ("permit (principal in S::Path::\"kv\", action, resource);", "", Some(1)),
        (
            "permit (principal, action, resource in S::Path::\"kv/\");",
            "can never match",
            None,
        ),
        (
            "permit (principal, action, resource in S::Path::\"kv/*\");",
            "wildcards",
            None,
        ),
        (
            "permit (principal, action, resource in S::Path::\"kv/../pg\");",
            "can never match",
            None,
        ),
        (
            "permit (principal == S::Identity::\"ann\", action, resource);",
            "32 lower-case hex",
            None,
        ),
        (&when("resource in S::Path::\"/kv\""), "can never match", None),
        (&when("context.risk > 50"), "risk", Some(2)),
        (&when("context.token_age_secs > \"5\""), "", Some(2)),
        (
            &when("principal.getTag(\"department\") == \"x\""),
            "department",
            Some(2),
        ),
        (&when("context.transport == S::Transport::\"http\""), "http", Some(2)),
        (&when("context.transport == \"tls\""), "", Some(2)),
        (&when("false"), "", Some(1)),
        (&when("S::Path::\"kv/a\" in S::Path::\"kv\""), "", Some(2)),
        (&when("ip(\"10.0.0.0/99\").isIpv4()"), "", Some(2)),
        (&when("context.ip.isInRange(ip(context.own))"), "", Some(2)),
        (
            "@id(\"a\") permit (principal, action, resource); @id(\"a\") forbid (principal, action, resource);",
            "two policies",
            None,
        ),
        ("@id(\"\") permit (principal, action, resource);", "is not an id", None),
        (
            "@id(\"a#b\") permit (principal, action, resource);",
            "is not an id",
            None,
        ),
        (
            "@id(\"2\") permit (principal, action, resource); permit (principal, action, resource);",
            "two policies",
            None,
        ),
    ];
    for (text, words, line) in table {
        let problems = refused(text);
        let shown = problems.to_string();
        assert!(shown.contains(words), "{text}\n-> {shown}");
        assert_eq!(
            problems.list[0].place.map(|(line, _)| line),
            *line,
            "{text}\n-> {shown}"
        );
    }
    assert_eq!(refused("\u{e9}\u{e9}").list[0].place, Some((1, 1)));
    let place =
        refused("// \u{e9}\u{e9}\npermit (principal, action, resource) when { \"\u{e9}\u{e9}\" == context.risk };")
            .list[0]
            .place;
    assert_eq!(place, Some((2, 53)), "columns count characters");
}

/// A document's name is `[a-z0-9-]{1,64}`.
#[test]
fn names_are_plain() {
    let text = "permit (principal, action, resource);";
    for name in ["a", "0", "-", &"a".repeat(64)] {
        assert!(check(name, text).is_ok(), "{name}");
    }
    for name in ["", "A", "a b", "a/b", "a#1", " root", "\u{e9}", "a_b", &"a".repeat(65)] {
        assert!(check(name, text).is_err(), "{name}");
    }
}

/// Problems are listed up to a bound, in bounded words, in order of place.
#[test]
fn problems_are_bounded() {
    let long = "x".repeat(10_000);
    let text = format!("permit (principal in S::Nope::\"{long}\", action, resource);\n").repeat(6)
        + &"permit (principal, action, resource) when { context.nope };\n".repeat(50);
    let problems = refused(&text[..text.len().min(TEXT_BYTES_MAX)]);
    assert!(!problems.list.is_empty() && problems.list.len() <= PROBLEMS_MAX);
    let many = refused(&"permit (principal, action, resource) when { context.nope };\n".repeat(50));
    assert_eq!((many.list.len(), many.more), (PROBLEMS_MAX, 50 - PROBLEMS_MAX));
    assert!(many.list.is_sorted_by_key(|problem| problem.place));
    for problem in problems.list.iter().chain(&many.list) {
        assert!(problem.message.len() <= MESSAGE_BYTES_MAX);
        assert!(problem.help.as_ref().is_none_or(|help| help.len() <= MESSAGE_BYTES_MAX));
    }
}

/// Texts made to exhaust the stack or the clock. Runs on a stack of 1 MiB, half of what the daemon's
/// threads have; an overflow would end the test process. The time is printed.
#[test]
fn deep_and_heavy_texts_are_refused_or_survived() {
    let when = |condition: String| format!("permit (principal, action, resource) when {{ {condition} }};");
    let chain = |link: &str, count: usize| when(format!("context.own{}", link.repeat(count)));
    let mut texts = vec![
        "(".repeat(TEXT_BYTES_MAX),
        "permit".repeat(10_000),
        "permit (principal, action, resource);".repeat(256),
        "permit (principal, action, resource);".repeat(257),
        "x".repeat(TEXT_BYTES_MAX + 1),
        "\"\\".repeat(30_000),
        format!("@id(\"{}\") permit (principal, action, resource);", "a".repeat(60_000)),
        when(format!("context.ip in [{}]", "principal,".repeat(6_000))),
        when(format!("[{}].contains(principal.name)", "\"a\",".repeat(15_000))),
        when(format!(
            "[{}].contains(principal.name)",
            (0..8_000).map(|i| format!("\"{i}\",")).collect::<String>()
        )),
    ];
    for count in [20, 90, 160, 240, 330, 480, 900, 10_000] {
        texts.extend([
            chain(" && context.own", count),
            chain(" || context.own", count),
            chain(" == context.own", count),
            when(format!("context.token_age_secs{} > 1", " + 1".repeat(count))),
            when(format!(
                "context.token_age_secs{} > 1",
                " - context.token_age_secs".repeat(count)
            )),
            when(format!("{}context.own", "!".repeat(count))),
            when(format!("{}context.own{}", "(".repeat(count), ")".repeat(count))),
            when(format!("{}context.own{}", "!(".repeat(count), ")".repeat(count))),
            when(format!("{}1{} == 1", "[".repeat(count), "]".repeat(count))),
            when(format!("{}1{} == 1", "{a:".repeat(count), "}".repeat(count))),
            when(format!("context{}", ".own".repeat(count))),
            when(format!("context{}", "[\"own\"]".repeat(count))),
            when(format!("principal{}", ".getTag(\"a\")".repeat(count))),
            when(format!("{}context.own", "if context.own then true else ".repeat(count))),
            when(format!("{} true else context.own", "if ".repeat(count))),
            when(format!(
                "{}{}",
                "if ".repeat(count),
                " then context.own else context.own".repeat(count)
            )),
            when(format!(
                "context.own{}",
                " && principal.hasTag(\"a\") || principal.name like \"*a*\"".repeat(count)
            )),
            "when { context.own } unless { context.own } ".repeat(count),
            format!(
                "permit (principal, action, resource) {};",
                "when { context.own } ".repeat(count)
            ),
            format!("{} permit (principal, action, resource);", "@a(\"b\") ".repeat(count)),
            when(format!("{}::\"x\" == principal", "S::".repeat(count))),
        ]);
    }
    let run = move || {
        let (mut accepted, mut slowest) = (0, (std::time::Duration::ZERO, 0));
        for (index, text) in texts.iter().enumerate() {
            let began = Instant::now();
            let result = check("test", text);
            slowest = slowest.max((began.elapsed(), index));
            if let Ok(checked) = result {
                accepted += 1;
                let set = crate::PolicySet::assemble([(1, checked)]).unwrap();
                super::reason(
                    &set,
                    &super::principal(1, &[], &[("a", "b")]),
                    crate::Action::Read,
                    "kv/a",
                    &super::context(),
                );
            }
        }
        let head: String = texts[slowest.1].chars().take(120).collect();
        println!(
            "{accepted} of {} accepted; slowest {:?}: {head}",
            texts.len(),
            slowest.0
        );
    };
    std::thread::Builder::new()
        .stack_size(1 << 20)
        .spawn(run)
        .unwrap()
        .join()
        .unwrap();
}

proptest! {
    #![proptest_config(cases(256))]

    /// Any text at all is answered, never with a panic.
    #[test]
    fn any_text_is_answered(text in "\\PC{0,200}", name in "\\PC{0,10}") {
        let _ = check(&name, &text);
    }

    /// Text out of the language's own pieces, in any order.
    #[test]
    fn any_words_are_answered(words in prop::collection::vec(prop::sample::select(WORDS), 0..60)) {
        let _ = check("test", &words.join(" "));
        let _ = check("test", &words.concat());
    }

    /// A valid document with bytes cut out, doubled or replaced.
    #[test]
    fn damaged_examples_are_answered(
        example in 0..EXAMPLES.len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..12, "\\PC{0,3}"), 1..4),
    ) {
        let mut text: Vec<char> = EXAMPLES[example].1.chars().collect();
        for (at, cut, put) in damage {
            let at = at.index(text.len());
            let end = (at + cut).min(text.len());
            text.splice(at..end, put.chars());
            prop_assume!(!text.is_empty());
        }
        let text: String = text.into_iter().collect();
        if let Err(problems) = check("test", &text) {
            prop_assert!(!problems.list.is_empty());
            prop_assert!(!problems.to_string().is_empty());
        }
    }
}

const WORDS: &[&str] = &[
    "permit",
    "forbid",
    "(",
    ")",
    "principal",
    "action",
    "resource",
    ",",
    ";",
    "when",
    "unless",
    "{",
    "}",
    "==",
    "in",
    "has",
    "like",
    "is",
    "if",
    "then",
    "else",
    "context",
    ".",
    "own",
    "S::Path::\"kv\"",
    "S::Group::\"a\"",
    "S::Action::\"read\"",
    "S",
    "::",
    "\"",
    "\\",
    "//",
    "\n",
    "?principal",
    "@id",
    "(\"a\")",
    "&&",
    "||",
    "!",
    "-",
    "+",
    "*",
    "<",
    "1",
    "9223372036854775808",
    "\"*\"",
    "[",
    "]",
    "ip(\"10.0.0.0/8\")",
    "datetime(\"2026-13-01\")",
    "true",
    "getTag",
    "hasTag",
    "permit (principal, action, resource)",
    "\u{202e}",
    "\u{0}",
];
