//! Names of users and groups, as the files of the system have them; numbers stand for themselves.

use crate::failure::Failure;

/// A user's id.
pub fn uid(name: &str) -> Result<u32, Failure> {
    find(name, "/etc/passwd", "user")
}

/// A group's id.
pub fn gid(name: &str) -> Result<u32, Failure> {
    find(name, "/etc/group", "group")
}

fn find(name: &str, file: &str, what: &str) -> Result<u32, Failure> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    let text = std::fs::read_to_string(file).unwrap_or_default();
    lookup(&text, name).ok_or_else(|| {
        let words = format!("no {what} `{name}` in {file}");
        Failure::usage(words, "give the number, if the name comes from a directory service")
    })
}

/// `name:x:id:...`
fn lookup(text: &str, name: &str) -> Option<u32> {
    let mut lines = text.lines().map(|line| line.split(':'));
    lines.find_map(|mut words| (words.next() == Some(name)).then(|| words.nth(1)?.parse().ok())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found() {
        let text = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/:/bin/false\nbad:x:no:1\n";
        for (name, want) in [
            ("root", Some(0)),
            ("app", Some(1000)),
            ("bad", None),
            ("ap", None),
            ("", None),
        ] {
            assert_eq!(lookup(text, name), want, "{name}");
        }
        assert_eq!(uid("4711").ok(), Some(4711));
    }
}
