//! What `strace` tells of a process, line by line, as calls that ended. It stops every thread at both ends of a call, so that what it printed as
//! ended before it printed another as begun did happen before it.

use crate::campaign::{Tried, doing};
use std::collections::HashMap;

/// A system call that ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Call {
    pub name: String,
    pub args: Vec<String>,
    pub result: i64,
    /// How many lines there were when it began, and how many events.
    pub began: Moment,
}

/// A place in a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    pub line: u64,
    pub event: usize,
}

/// Joins the halves of calls during which other threads were heard.
#[derive(Default)]
pub struct Parser {
    open: HashMap<String, (String, Moment)>,
}

impl Parser {
    /// One line, `PID NAME(ARGS) = RESULT` or a half of it; the call that it ends.
    pub fn line(&mut self, line: &str, now: Moment) -> Tried<Option<Call>> {
        let Some((pid, text)) = line.split_once(' ') else {
            return Ok(None);
        };
        let text = text.trim();
        // `+++ exited with 0 +++`, `--- SIGCHLD ---`.
        if text.starts_with(['+', '-']) {
            return Ok(None);
        }
        if let Some(begun) = text.strip_suffix("<unfinished ...>") {
            self.open.insert(pid.to_owned(), (begun.trim_end().to_owned(), now));
            return Ok(None);
        }
        let Some(resumed) = text.strip_prefix("<... ") else {
            return call(text, now).map(Some);
        };
        let (_, rest) = resumed.split_once(" resumed>").ok_or("a resumed call without a name")?;
        let (begun, when) = self.open.remove(pid).ok_or("a call is resumed that never began")?;
        // The cut lies between arguments, or behind the last.
        let glue = if begun.ends_with(',') { " " } else { "" };
        call(&format!("{begun}{glue}{}", rest.trim_start()), when).map(Some)
    }
}

fn call(text: &str, began: Moment) -> Tried<Call> {
    let bad = || {
        format!(
            "strace told what is not understood: {}",
            text.chars().take(120).collect::<String>()
        )
    };
    let (name, rest) = text.split_once('(').ok_or_else(bad)?;
    let (args, result) = rest
        .rsplit_once(") ")
        .or_else(|| rest.rsplit_once(')'))
        .ok_or_else(bad)?;
    let result = result.trim_start().strip_prefix('=').ok_or_else(bad)?.trim_start();
    let result = result.split(' ').next().unwrap_or_default();
    Ok(Call {
        name: name.to_owned(),
        args: args.split(", ").map(|arg| arg.trim().to_owned()).collect(),
        // `?`: the process ended in it.
        result: if result == "?" {
            -1
        } else {
            number(result).map_err(doing(bad()))?
        },
        began,
    })
}

/// A decimal or hexadecimal number.
pub fn number(text: &str) -> Tried<i64> {
    Ok(match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16)?,
        None => text.parse()?,
    })
}

/// A string as `-xx` prints it: `"\x2f\x74"`. One that was cut short is an error.
pub fn bytes(text: &str) -> Tried<Vec<u8>> {
    let inner = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .ok_or("a string is not whole")?
        .as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    inner
        .chunks(4)
        .map(|piece| match piece {
            [b'\\', b'x', high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect::<Option<Vec<u8>>>()
        .ok_or_else(|| "a string that is not hexadecimal".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_joined_and_keep_when_they_began() {
        let mut parser = Parser::default();
        let at = |line, event| Moment { line, event };
        let lines = [
            r#"7 openat(AT_FDCWD, "\x2f\x61", O_RDWR|O_CREAT, 0666) = 5"#,
            "7 fdatasync(5 <unfinished ...>",
            r#"8 write(1, "\x61\x0a", 2 <unfinished ...>"#,
            "7 <... fdatasync resumed>)         = 0",
            "8 <... write resumed>) = 2",
            "9 read(0x3,  <unfinished ...>",
            "9 <... read resumed>0x7ffd, 0x20) = 0x1f",
            "7 openat(AT_FDCWD, \"\\x62\", O_RDONLY) = -1 ENOENT (No such file or directory)",
            "9 +++ exited with 0 +++",
        ];
        let told: Vec<_> = lines
            .iter()
            .zip(0..)
            .filter_map(|(line, nth)| parser.line(line, at(nth, 10)).unwrap())
            .map(|call| (call.name, call.args.join("|"), call.result, call.began.line))
            .collect();
        let expected = [
            ("openat", "AT_FDCWD|\"\\x2f\\x61\"|O_RDWR|O_CREAT|0666", 5, 0),
            ("fdatasync", "5", 0, 1),
            ("write", "1|\"\\x61\\x0a\"|2", 2, 2),
            ("read", "0x3|0x7ffd|0x20", 31, 5),
            ("openat", "AT_FDCWD|\"\\x62\"|O_RDONLY", -1, 7),
        ];
        assert_eq!(told.len(), expected.len());
        for (told, (name, args, result, began)) in told.iter().zip(expected) {
            assert_eq!(told, &(name.to_owned(), args.to_owned(), result, began));
        }
    }

    #[test]
    fn what_is_not_whole_is_an_error() {
        assert_eq!(bytes(r#""\x00\xff""#).unwrap(), [0, 255]);
        for text in [r#""\x00"..."#, r#""ab""#, "", r#""\x0""#] {
            assert!(bytes(text).is_err(), "{text}");
        }
        let mut parser = Parser::default();
        for line in ["7 write(1", "7 <... write resumed>) = 1", "7 fsync(3) x 4"] {
            assert!(parser.line(line, Moment::default()).is_err(), "{line}");
        }
    }
}
