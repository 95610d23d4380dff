//! Who may name whom. ARCHITECTURE, "Rooms", says why; ADR 0011 says where the table differs from the first plan.

use crate::{none, source};

/// Each room of the daemon, and the rooms above it in this list that it may name. What comes later may not be named: the order is the
/// direction of the edges, so there can be no circle.
const ROOMS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("limit", &["base"]),
    ("config", &["limit"]),
    ("process", &[]),
    ("audit", &["base"]),
    ("notice", &["base"]),
    ("store", &["base", "audit", "notice"]),
    ("seal", &["base"]),
    ("vault", &["base", "audit", "store", "seal"]),
    ("policy", &["base", "store"]),
    ("token", &["base", "store", "policy"]),
    ("auth", &["base", "store", "policy", "token"]),
    ("mount", &["base", "store", "policy"]),
    ("kv", &["base", "notice", "store", "policy", "mount"]),
    ("transit", &["base", "store", "policy", "mount"]),
    ("lease", &["base", "audit", "notice", "store", "policy"]),
    ("engine", &["base", "audit", "notice", "store", "policy", "lease"]),
    (
        "gate",
        &[
            "base", "limit", "audit", "notice", "store", "seal", "vault", "policy", "token", "auth", "mount", "kv",
            "transit", "lease", "engine",
        ],
    ),
    ("http", &["gate"]),
    // The words of requests and answers are the rooms' own types; whatever they do is behind the gate.
    (
        "rpc",
        &[
            "base", "process", "limit", "config", "audit", "seal", "vault", "policy", "token", "auth", "kv", "transit",
            "lease", "engine", "gate",
        ],
    ),
    (
        "assemble",
        &[
            "base", "limit", "config", "process", "audit", "store", "seal", "vault", "gate", "http", "rpc",
        ],
    ),
];

/// A word of Rust, and the only places that may name it in code that ships.
const WORDS: &[(&str, &[&str])] = &[
    ("cryptoki", &["hsm/"]),
    ("cryptoki_sys", &["hsm/"]),
    ("cedar_policy", &["policy/"]),
    ("fjall", &["daemon/src/store/"]),
    ("sled", &["daemon/src/store/"]),
    ("tokio_postgres", &["daemon/src/engine/postgres/", "bench/"]),
    ("mysql_async", &["daemon/src/engine/mariadb/"]),
    ("redis", &["daemon/src/engine/redis/", "daemon/src/engine/mod.rs"]),
    ("vsss_rs", &["daemon/src/seal/quorum/"]),
    (
        "tonic",
        &[
            "daemon/src/rpc/",
            "daemon/src/gate/outcome.rs",
            "client/",
            "proto/",
            "bench/",
        ],
    ),
    (
        "strongroom_hsm",
        &[
            "daemon/src/seal/",
            "daemon/src/vault/",
            "daemon/src/assemble/",
            "daemon/src/gate/",
            "daemon/src/main.rs",
            "hsm/",
        ],
    ),
];

/// Each crate, and the crates of this workspace that it may be built on; in this order, so there can be no circle.
const CRATES: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("hsm", &[]),
    ("audit", &[]),
    ("policy", &[]),
    ("client", &["proto", "audit", "policy"]),
    ("daemon", &["proto", "hsm", "audit", "policy"]),
    ("tests", &["proto", "hsm", "audit", "client", "daemon"]),
    ("bench", &["proto", "client", "tests", "daemon"]),
];

#[test]
fn the_tables_point_downwards_only() {
    for table in [ROOMS, CRATES] {
        for (at, (name, may)) in table.iter().enumerate() {
            for other in *may {
                assert!(
                    table[..at].iter().any(|(above, _)| above == other),
                    "{name} may name {other}, which does not come before it"
                );
            }
        }
    }
}

#[test]
fn rooms_name_only_rooms_below_them() {
    let mut findings = Vec::new();
    for source in source::sources() {
        let Some(rest) = source.path.strip_prefix("daemon/src/") else {
            continue;
        };
        let Some((room, _)) = rest.split_once('/') else {
            continue;
        };
        let Some((_, may)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            findings.push(format!("{}: the room {room} is not in the table", source.path));
            continue;
        };
        for (line, named) in rooms_named(&source.shipped) {
            if named != room && !may.contains(&named.as_str()) {
                findings.push(format!("{}:{line}: {room} names crate::{named}", source.path));
            }
        }
    }
    none(&findings, "an edge that the table of rooms does not have");
}

/// First words after `crate::`, also within braces, with their lines. `failpoint` is a macro of `base`.
fn rooms_named(code: &str) -> Vec<(usize, String)> {
    let mut named = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let whole_word = code[..at]
            .chars()
            .next_back()
            .is_none_or(|c| !(c.is_alphanumeric() || c == '_'));
        if !whole_word {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + "crate::".len()..];
        if rest.starts_with('{') {
            named.extend(
                first_words(&rest[1..source::closing(rest, 0)])
                    .into_iter()
                    .map(|word| (line, word)),
            );
        } else {
            named.push((line, word(rest).to_owned()));
        }
    }
    named
        .into_iter()
        .map(|(line, word)| (line, if word == "failpoint" { "base".to_owned() } else { word }))
        .collect()
}

/// Of `a::b, c::{d, e}`: a, c.
fn first_words(group: &str) -> Vec<String> {
    let (mut words, mut depth, mut fresh) = (Vec::new(), 0, true);
    for (at, char) in group.char_indices() {
        match char {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            _ if fresh && char.is_alphanumeric() => {
                words.push(word(&group[at..]).to_owned());
                fresh = false;
            }
            _ => {}
        }
    }
    words
}

fn word(text: &str) -> &str {
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .unwrap_or(text.len());
    &text[..end]
}

#[test]
fn grouped_names_are_read() {
    let named = rooms_named(
        "use crate::{audit::{Trail, a::b}, base::id, lease}; crate::failpoint!(); pub(in crate::store) x; my_crate::no",
    );
    let words: Vec<_> = named.iter().map(|(_, word)| word.as_str()).collect();
    assert_eq!(words, ["audit", "base", "lease", "base", "store"]);
}

#[test]
fn words_stay_where_they_belong() {
    let mut findings = Vec::new();
    for source in source::sources() {
        for (name, places) in WORDS {
            if places.iter().any(|place| source.path.starts_with(place)) {
                continue;
            }
            let found = source.shipped.match_indices(&format!("{name}::")).find(|(at, _)| {
                source.shipped[..*at]
                    .chars()
                    .next_back()
                    .is_none_or(|c| !(c.is_alphanumeric() || c == '_' || c == ':'))
            });
            if let Some((at, _)) = found {
                findings.push(format!(
                    "{}:{}: names {name}",
                    source.path,
                    source.shipped[..at].matches('\n').count() + 1
                ));
            }
        }
    }
    none(&findings, "a name outside of the only places that may use it");
}

#[test]
fn crates_are_built_on_crates_below_them() {
    let mut findings = Vec::new();
    for (name, may) in CRATES {
        let manifest = source::read(&format!("{name}/Cargo.toml"));
        for line in manifest.lines() {
            let Some(key) = line
                .split(['.', ' ', '='])
                .next()
                .filter(|key| key.starts_with("strongroom"))
            else {
                continue;
            };
            let needed = if key == "strongroomd" {
                "daemon"
            } else {
                key.trim_start_matches("strongroom-")
            };
            if !may.contains(&needed) {
                findings.push(format!("{name}/Cargo.toml: is built on {needed}"));
            }
        }
    }
    none(&findings, "an edge that the table of crates does not have");
}
