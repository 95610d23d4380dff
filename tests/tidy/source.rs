//! The repository's own files. Rust is read twice: as written, and as `code`, where comments and the content of strings are blanks, so
//! that a brace in a string is no brace.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// One Rust file.
pub struct Source {
    /// From the repository's root, with `/`.
    pub path: String,
    /// As written.
    pub text: String,
    /// Without comments and string contents; lines and columns stay where they were.
    pub code: String,
    /// `code` without what only tests compile; empty for a file that only tests compile.
    pub shipped: String,
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests crate lies in the workspace")
}

/// All files with one of these endings, sorted, from the root.
pub fn files(endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)
            .expect("a folder of the repository can be read")
            .flatten()
        {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() {
                if name != "target" && (!name.starts_with('.') || name == ".ci") {
                    folders.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

pub fn relative(path: &Path) -> String {
    path.strip_prefix(root())
        .expect("below the root")
        .to_string_lossy()
        .replace('\\', "/")
}

pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every Rust file of the repository.
pub fn sources() -> &'static [Source] {
    static SOURCES: OnceLock<Vec<Source>> = OnceLock::new();
    SOURCES.get_or_init(|| {
        let mut sources: Vec<Source> = files(&[".rs"])
            .into_iter()
            .map(|path| {
                let text = fs::read_to_string(&path).expect("a source can be read");
                let code = blank(&text);
                Source {
                    path: relative(&path),
                    shipped: code.clone(),
                    code,
                    text,
                }
            })
            .collect();
        let mut tests = BTreeSet::new();
        for source in &mut sources {
            let (shipped, modules) = without_tests(&source.code);
            source.shipped = shipped;
            tests.extend(modules.iter().flat_map(|module| homes(&source.path, module)));
        }
        let in_tests = |path: &str| {
            let segments = ["/tests/", "/examples/", "/benches/"];
            path.starts_with("tests/")
                || segments.iter().any(|s| path.contains(s))
                || tests.iter().any(|home| path.starts_with(home.as_str()))
        };
        for source in &mut sources {
            if in_tests(&source.path) {
                source.shipped = String::new();
            }
        }
        sources
    })
}

/// Where the module `name`, declared in `path`, may lie: a file, or a folder.
fn homes(path: &str, name: &str) -> [String; 2] {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    let folder = ["/mod", "/lib", "/main"]
        .iter()
        .find_map(|last| stem.strip_suffix(last))
        .unwrap_or(stem);
    [format!("{folder}/{name}.rs"), format!("{folder}/{name}/")]
}

/// Blanks what `#[cfg(test)]` stands before, and names the modules that it stands before.
fn without_tests(code: &str) -> (String, Vec<String>) {
    let (mut shipped, mut modules) = (code.to_owned(), Vec::new());
    for attribute in ["#[cfg(test)]", "#[cfg(all(test, unix))]"] {
        let mut from = 0;
        while let Some(at) = shipped[from..].find(attribute).map(|at| at + from) {
            let rest = &shipped[at..];
            let (brace, semicolon) = (rest.find('{'), rest.find(';'));
            let end = match (brace, semicolon) {
                (Some(brace), semicolon) if semicolon.is_none_or(|semicolon| brace < semicolon) => {
                    closing(rest, brace) + 1
                }
                (_, Some(semicolon)) => semicolon + 1,
                _ => rest.len(),
            };
            if let Some(name) = rest[..end]
                .trim_end_matches(';')
                .rsplit_once("mod ")
                .map(|(_, name)| name.trim())
            {
                modules.extend(
                    name.chars()
                        .all(|c| c.is_alphanumeric() || c == '_')
                        .then(|| name.to_owned()),
                );
            }
            let blanks: String = shipped[at..at + end]
                .chars()
                .map(|c| if c == '\n' { '\n' } else { ' ' })
                .collect();
            shipped.replace_range(at..at + end, &blanks);
            from = at;
        }
    }
    (shipped, modules)
}

/// The brace that closes the one at `open`; the end of the text if none does.
pub fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return at,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len() - 1
}

/// Blanks comments, and the contents of strings and characters.
pub fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = at + token(&bytes[at..], at.checked_sub(1).map(|before| bytes[before]));
        if end > at + 1 {
            for byte in &mut out[at..end] {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8(out).expect("only whole comments and strings are blanked")
}

/// The length of the comment, string or character that begins here; 1 if none does.
fn token(rest: &[u8], before: Option<u8>) -> usize {
    let until = |end: &[u8], from: usize| {
        rest[from..]
            .windows(end.len())
            .position(|w| w == end)
            .map_or(rest.len(), |p| from + p + end.len())
    };
    let in_word = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match rest {
        [b'/', b'/', ..] => until(b"\n", 0) - 1,
        [b'/', b'*', ..] => until(b"*/", 2),
        [b'r', b'"', ..] if !in_word => until(b"\"", 2),
        [b'r', b'#', b'"' | b'#', ..] if !in_word => {
            let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
            until(&[&b"\""[..], &vec![b'#'; hashes]].concat(), hashes + 2)
        }
        [b'"', ..] => escaped(rest, b'"'),
        // A lifetime has no closing quote right after its first character.
        [b'\'', b'\\', ..] => escaped(rest, b'\''),
        [b'\'', first, ..] => {
            let width = std::str::from_utf8(&rest[1..rest.len().min(5)]).map_or_else(
                |e| e.valid_up_to().max(1),
                |s| s.chars().next().map_or(1, char::len_utf8),
            );
            if *first != b'\'' && rest.get(1 + width) == Some(&b'\'') {
                width + 2
            } else {
                1
            }
        }
        _ => 1,
    }
}

fn escaped(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

#[test]
fn comments_strings_and_characters_are_blanked_and_nothing_else_is() {
    for (text, code) in [
        ("a // { b\nc", "a       \nc"),
        ("x /* { */ y", "x         y"),
        ("f(\"{\\\"}\") }", "f(      ) }"),
        ("r#\"{\"}\"# {", "          {"),
        ("'{' '\\'' &'a {", "          &'a {"),
        ("'ä' {", "     {"),
        ("for\"{\"", "for   "),
    ] {
        assert_eq!(
            blank(text).split_whitespace().collect::<Vec<_>>(),
            code.split_whitespace().collect::<Vec<_>>(),
            "{text}"
        );
    }
}

#[test]
fn what_only_tests_compile_is_told_apart() {
    let (shipped, modules) = without_tests("a #[cfg(test)]\nmod tests;\nb #[cfg(test)]\nmod x { fn y() { } } c");
    assert_eq!(
        (shipped.split_whitespace().collect::<String>().as_str(), modules),
        ("abc", vec!["tests".to_owned()])
    );
}
