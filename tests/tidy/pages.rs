//! The pages that people read: links lead somewhere, commands exist, what is packaged is accepted, ADRs have their parts.

use crate::{none, source};
use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::{Command, Output},
};
use strongroomd::config::Config;

fn pages() -> Vec<(PathBuf, String)> {
    source::files(&[".md"])
        .into_iter()
        .map(|path| (path.clone(), fs::read_to_string(path).expect("a page can be read")))
        .collect()
}

#[test]
fn links_lead_somewhere() {
    let mut findings = Vec::new();
    for (path, text) in pages() {
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://") && !link.starts_with('#') && !link.contains(' ')) {
            let file = link.split('#').next().unwrap_or(link);
            if !path.parent().expect("a page lies in a folder").join(file).exists() {
                findings.push(format!("{}: {link}", source::relative(&path)));
            }
        }
    }
    none(&findings, "a link to nothing");
}

#[test]
fn the_packaged_configuration_is_accepted_as_it_is_and_with_every_line_in_force() {
    let text = source::read("packaging/strongroom.toml");
    Config::parse(&text).unwrap_or_else(|error| panic!("packaging/strongroom.toml: {error}"));
    // Lines of the form `#key = value` are settings with their defaults; `#| key = value` are alternatives to one above.
    let all: String = text
        .lines()
        .map(|line| {
            line.strip_prefix('#')
                .filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
                .unwrap_or(line)
                .to_owned()
                + "\n"
        })
        .collect();
    assert!(all != text, "no setting is shown with its default");
    Config::parse(&all).unwrap_or_else(|error| panic!("packaging/strongroom.toml with every line in force: {error}"));
}

#[test]
fn every_key_of_the_configuration_is_in_the_packaged_one() {
    let (code, text) = (
        source::read("daemon/src/config/mod.rs"),
        source::read("packaging/strongroom.toml"),
    );
    // `[limits.rates]` with their defaults, which the packaged file repeats.
    let rates = source::read("daemon/src/config/rates.rs");
    let rates = rates.lines().filter_map(|line| line.trim().split_once(" = Rate::"));
    let rates: Vec<_> = rates.map(|(key, _)| key.to_owned()).collect();
    assert!(rates.len() > 10, "the rates are found");
    let keys = code
        .lines()
        .map(str::trim)
        .filter_map(|line| line.strip_prefix("pub "))
        .filter_map(|line| line.split_once(':'));
    let keys = keys.map(|(key, _)| key).filter(|key| {
        key.chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    });
    let missing: Vec<_> = keys
        .chain(rates.iter().map(String::as_str))
        .filter(|key| {
            !text.contains(&format!("{key} ="))
                && !text.contains(&format!("[{key}"))
                && !text.contains(&format!(".{key}]"))
        })
        .map(str::to_owned)
        .collect();
    none(&missing, "a key that packaging/strongroom.toml does not show");
}

#[test]
fn the_unit_gives_the_daemon_what_it_needs() {
    let unit = source::read("packaging/strongroomd.service");
    for line in [
        "Type=notify",
        "LimitMEMLOCK=infinity",
        "LimitCORE=0",
        "KillMode=mixed",
        "LoadCredential=hsm-pin:/etc/strongroom/hsm-pin",
    ] {
        assert!(
            unit.lines().any(|have| have == line),
            "packaging/strongroomd.service lacks {line}"
        );
    }
}

#[test]
fn decisions_are_numbered_and_have_their_parts() {
    let adrs: Vec<_> = source::files(&[".md"])
        .into_iter()
        .map(|path| source::relative(&path))
        .filter(|path| path.starts_with("docs/adr/"))
        .collect();
    let mut findings = Vec::new();
    for (number, path) in adrs.iter().filter(|path| !path.ends_with("README.md")).enumerate() {
        let text = source::read(path);
        if !path.starts_with(&format!("docs/adr/{:04}-", number + 1)) {
            findings.push(format!("{path}: should be number {}", number + 1));
        }
        let parts = [
            "## Context",
            "## Options",
            "## Decision",
            "## Consequences",
            "## How to undo",
        ];
        findings.extend(
            parts
                .iter()
                .filter(|part| !text.contains(*part))
                .map(|part| format!("{path}: no {part}")),
        );
        if text.lines().count() > 70 {
            findings.push(format!("{path}: longer than a page"));
        }
        if !source::read("docs/adr/README.md").contains(path.trim_start_matches("docs/adr/")) {
            findings.push(format!("{path}: not in docs/adr/README.md"));
        }
    }
    none(&findings, "docs/adr");
}

#[test]
fn commands_on_pages_exist_with_their_flags() {
    let mut helps: BTreeMap<Vec<String>, Result<String, String>> = BTreeMap::new();
    let mut findings = Vec::new();
    // FORMATS quotes texts that are hashed, STATUS promises that are not kept yet.
    for (path, text) in pages()
        .into_iter()
        .filter(|(path, _)| !path.ends_with("docs/FORMATS.md") && !path.ends_with("docs/STATUS.md"))
    {
        for command in commands(&text) {
            let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
            let is_word =
                |word: &&String| word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-');
            let call: Vec<String> = words.iter().take(4).take_while(is_word).cloned().collect();
            let help = helps.entry(call.clone()).or_insert_with(|| help(&call));
            match help {
                Err(error) => findings.push(format!("{}: `{command}`: {error}", source::relative(&path))),
                Ok(help) => {
                    let flags = words
                        .iter()
                        .filter(|word| word.starts_with("--") && word.len() > 2)
                        .map(|word| word.split(['=', ')', ',']).next().unwrap_or(word));
                    findings.extend(
                        flags
                            .filter(|flag| !help.contains(*flag))
                            .map(|flag| format!("{}: `{command}`: no {flag}", source::relative(&path))),
                    );
                }
            }
        }
    }
    assert!(
        helps.len() > 10,
        "only {} commands were found on all pages",
        helps.len()
    );
    none(&findings, "a command that the program does not have");
}

/// Commands of a page: in backticks, and lines of blocks marked `sh`, without what follows a comment or a pipe.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (number, block) in text.split("```").enumerate() {
        if number % 2 == 1 {
            let shell = ["sh\n", "console\n"].iter().any(|kind| block.starts_with(kind));
            let lines = block.lines().skip(1).filter(|_| shell);
            found.extend(
                lines
                    .flat_map(|line| line.split('|'))
                    .map(|part| part.trim().trim_start_matches("$ ").to_owned()),
            );
        } else {
            found.extend(block.split('`').skip(1).step_by(2).map(|word| word.replace('\n', " ")));
        }
    }
    found.retain(|command| {
        ["strongroom ", "strongroomd "]
            .iter()
            .any(|program| command.starts_with(program))
    });
    found
        .into_iter()
        .map(|command| command.split(" #").next().unwrap_or(&command).trim().to_owned())
        .collect()
}

fn help(call: &[String]) -> Result<String, String> {
    let Some((program, words)) = call.split_first() else {
        return Err("no command".to_owned());
    };
    let Output { status, stdout, stderr } = Command::new(strongroom_tests::lab::binary(program))
        .args(words)
        .arg("--help")
        .env_clear()
        .output()
        .map_err(|error| error.to_string())?;
    if status.success() {
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&stderr)
            .lines()
            .next()
            .unwrap_or("fails")
            .to_owned())
    }
}
