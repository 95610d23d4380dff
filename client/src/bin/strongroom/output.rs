//! How answers go out: tables for people, one JSON object for programs. Never an escape sequence: what
//! the daemon or a stored value says is cleaned of control characters before a person sees it.

use crate::failure::{Exit, Failure};
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;
use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

/// How to print.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// What a command found out, in both shapes.
#[derive(Debug)]
pub struct Answer {
    json: Value,
    human: Human,
    exit: Exit,
    shown_once: bool,
}

/// The shape for people.
#[derive(Debug)]
pub enum Human {
    /// Columns under a head.
    Table {
        head: Vec<&'static str>,
        rows: Vec<Vec<String>>,
    },
    /// One thing: names and values.
    Pairs(Vec<(String, String)>),
    /// Words, with their own line ends.
    Text(String),
    /// Exactly these bytes, also in JSON mode when there is no JSON of them; a line end follows on a terminal only.
    Raw(Vec<u8>),
}

impl Answer {
    pub fn new(json: Value, human: Human) -> Self {
        Self {
            json,
            human,
            exit: Exit::Done,
            shown_once: false,
        }
    }

    /// One sentence for people.
    pub fn said(json: Value, sentence: impl Into<String>) -> Self {
        let mut text = sentence.into();
        text.push('\n');
        Self::new(json, Human::Text(text))
    }

    /// Names and values for people.
    pub fn pairs<const N: usize>(json: Value, pairs: [(&str, String); N]) -> Self {
        Self::new(
            json,
            Human::Pairs(pairs.map(|(name, value)| (name.to_owned(), value)).into()),
        )
    }

    /// Bytes for a script or a file, in JSON mode too.
    pub fn raw(bytes: Vec<u8>) -> Self {
        Self::new(Value::Null, Human::Raw(bytes))
    }

    /// Holds what nobody can show again (shares, tokens): it is a failure when it cannot be written.
    #[must_use]
    pub fn shown_once(mut self) -> Self {
        self.shown_once = true;
        self
    }

    /// Another exit code than 0 although the command worked (`operator status` of a sealed vault).
    #[must_use]
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }
}

/// Stdout and stderr.
#[derive(Debug)]
pub struct Out {
    format: Format,
}

impl Out {
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    /// The last thing a command prints. A reader that went away (`| head`) is no failure, unless what it
    /// did not read cannot be shown again.
    pub fn answer(&self, answer: &Answer) -> ExitCode {
        match self.write(answer) {
            Ok(()) => ExitCode::from(answer.exit.code()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe && !answer.shown_once => {
                ExitCode::from(answer.exit.code())
            }
            Err(error) => self.fail(&Failure::other(
                format!("cannot write the answer: {error}"),
                match answer.shown_once {
                    true => "what was made was shown to nobody: remove it, or make it anew",
                    false => "check the output's disk",
                },
            )),
        }
    }

    fn write(&self, answer: &Answer) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        match (&answer.human, self.format) {
            (Human::Raw(bytes), format) if format == Format::Table || answer.json.is_null() => {
                stdout.write_all(bytes)?;
                if stdout.is_terminal() {
                    stdout.write_all(b"\n")?;
                }
            }
            (_, Format::Json) => {
                serde_json::to_writer_pretty(&mut stdout, &answer.json)?;
                stdout.write_all(b"\n")?;
            }
            (human, Format::Table) => stdout.write_all(render(human).as_bytes())?,
        }
        stdout.flush()
    }

    /// One item of a stream: a JSON line, or a line for people.
    pub fn item(&self, json: &Value, line: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        match self.format {
            Format::Json => writeln!(stdout, "{json}")?,
            Format::Table => writeln!(stdout, "{}", clean(line))?,
        }
        stdout.flush()
    }

    /// Something a person should know while they wait or before they go on; programs are not told.
    pub fn notice(&self, text: &str) {
        if self.format == Format::Table {
            // Nothing can be done when stderr is closed.
            let _ = writeln!(io::stderr().lock(), "{}", clean(text));
        }
    }

    /// What must be done elsewhere before the command goes on, on stderr; programs are told too.
    pub fn asked(&self, json: &Value, text: &str) {
        let mut stderr = io::stderr().lock();
        // Nothing can be done when stderr is closed.
        let _ = match self.format {
            Format::Json => writeln!(stderr, "{json}"),
            Format::Table => writeln!(stderr, "{}", clean(text)),
        };
    }

    /// A failure on stderr, in the chosen format, and its exit code.
    pub fn fail(&self, failure: &Failure) -> ExitCode {
        let mut stderr = io::stderr().lock();
        // As above: the exit code still tells.
        let _ = match self.format {
            Format::Json => writeln!(stderr, "{}", failure.json()),
            Format::Table => {
                let id = failure
                    .request_id
                    .as_ref()
                    .map(|id| format!("  req: {id}\n"))
                    .unwrap_or_default();
                writeln!(
                    stderr,
                    "error: {}\n{} next: {}",
                    clean(&failure.message),
                    clean(&id),
                    clean(&failure.next)
                )
            }
        };
        ExitCode::from(failure.exit.code())
    }
}

fn render(human: &Human) -> String {
    match human {
        Human::Text(text) => clean(text),
        Human::Raw(_) => String::new(),
        Human::Pairs(pairs) => {
            let rows = pairs
                .iter()
                .map(|(name, value)| [clean(name), clean(value)].to_vec())
                .collect();
            table(None, rows)
        }
        Human::Table { rows, .. } if rows.is_empty() => "nothing\n".to_owned(),
        Human::Table { head, rows } => {
            let rows = rows
                .iter()
                .map(|row| row.iter().map(|cell| clean(cell)).collect())
                .collect();
            table(Some(head), rows)
        }
    }
}

fn table(head: Option<&[&str]>, rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    if let Some(head) = head {
        table.set_header(head.iter().map(|word| word.to_uppercase()).collect::<Vec<_>>());
    }
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

/// Control characters, except line ends, as visible escapes: a stored value must not drive a terminal.
pub fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => cleaned.push(c),
            '\t' => cleaned.push_str("    "),
            c if c.is_control() || is_bidi(c) => cleaned.extend(c.escape_default()),
            c => cleaned.push(c),
        }
    }
    cleaned
}

/// Characters that reorder text, so that what is read differs from what is there.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `-` for what is not there.
pub fn or_dash(text: &str) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Piped or not, no escape sequence reaches a terminal from a value.
    #[test]
    fn control_characters_become_visible() {
        let hostile = "a\u{1b}[31mred\u{7}\u{9b}2J\u{202e}x\r\nline";
        let shown = clean(hostile);
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
        assert!(!shown.contains('\u{202e}'));
        assert!(shown.contains("\\u{1b}[31mred"), "{shown}");
    }

    #[test]
    fn tables_align_without_trailing_blanks() {
        let text = render(&Human::Table {
            head: vec!["name", "state"],
            rows: vec![vec!["kv".into(), "ready".into()], vec!["postgres".into(), "-".into()]],
        });
        assert_eq!(text, "NAME      STATE\nkv        ready\npostgres  -\n");
        assert_eq!(
            render(&Human::Table {
                head: vec!["a"],
                rows: vec![]
            }),
            "nothing\n"
        );
    }

    #[test]
    fn pairs_have_no_head() {
        let answer = Answer::pairs(json!({}), [("version", "3".to_owned()), ("at", "now".to_owned())]);
        assert_eq!(render(&answer.human), "version  3\nat       now\n");
    }
}
