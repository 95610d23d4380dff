//! The agent's configuration: exactly these keys.

use super::{
    file::{Rendered, Tell},
    template::Template,
    users,
};
use crate::failure::Failure;
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// Largest configuration or template read.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The socket's mode unless `socket_mode` says otherwise: who may have what is decided by `[[allow]]`.
const SOCKET_MODE: u32 = 0o666;

/// See the help of `strongroom agent`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub address: Option<String>,
    pub ca_cert: Option<PathBuf>,
    pub token_file: PathBuf,
    pub proof_key: Option<PathBuf>,
    pub socket: Option<PathBuf>,
    #[serde(default = "socket_mode", deserialize_with = "mode")]
    pub socket_mode: u32,
    #[serde(default)]
    pub allow: Vec<Allow>,
    #[serde(default)]
    file: Vec<File>,
}

/// Who may ask for what.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allow {
    user: Option<String>,
    uid: Option<u32>,
    pub paths: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    path: PathBuf,
    text: Option<String>,
    template: Option<PathBuf>,
    #[serde(default = "file_mode", deserialize_with = "mode")]
    mode: u32,
    owner: Option<String>,
    group: Option<String>,
    command: Option<Vec<String>>,
    signal: Option<String>,
    pid_file: Option<PathBuf>,
}

fn socket_mode() -> u32 {
    SOCKET_MODE
}
fn file_mode() -> u32 {
    0o600
}

/// An octal text, as `chmod` takes it.
fn mode<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let text = String::deserialize(from)?;
    u32::from_str_radix(&text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| serde::de::Error::custom("a mode is an octal text such as \"0640\""))
}

/// Paths by the user ids that may have them.
pub type Allowed = BTreeMap<u32, BTreeSet<String>>;

impl Config {
    /// Reads it.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        toml::from_str(&read(path)?)
            .map_err(|error| Failure::usage(format!("{}: {error}", path.display()), "see `strongroom agent --help`"))
    }

    /// Who may have what.
    pub fn allowed(&self) -> Result<Allowed, Failure> {
        let mut allowed = Allowed::new();
        for allow in &self.allow {
            let uid = match (allow.uid, &allow.user) {
                (Some(uid), None) => uid,
                (None, Some(name)) => users::uid(name)?,
                _ => return Err(wrong("[[allow]] names one of `user` and `uid`")),
            };
            allowed.entry(uid).or_default().extend(allow.paths.iter().cloned());
        }
        Ok(allowed)
    }

    /// The files to keep.
    pub fn files(&self) -> Result<Vec<Rendered>, Failure> {
        self.file.iter().map(File::rendered).collect()
    }
}

impl File {
    fn rendered(&self) -> Result<Rendered, Failure> {
        let place = self.path.display();
        let text = match (&self.text, &self.template) {
            (Some(text), None) => text.clone(),
            (None, Some(path)) => read(path)?,
            _ => return Err(wrong(format!("{place}: a [[file]] has one of `text` and `template`"))),
        };
        let template = Template::parse(&text).map_err(|error| wrong(format!("{place}: {error}")))?;
        let tell = match (&self.command, &self.signal, &self.pid_file) {
            (None, None, None) => Tell::Nobody,
            (Some(command), None, None) if !command.is_empty() => Tell::Command(command.clone()),
            (None, Some(signal), Some(pid_file)) => Tell::signal(signal, pid_file.clone()).map_err(wrong)?,
            _ => return Err(wrong(format!("{place}: either `command`, or `signal` and `pid_file`"))),
        };
        let owner = self.owner.as_deref().map(users::uid).transpose()?;
        let group = self.group.as_deref().map(users::gid).transpose()?;
        Ok(Rendered::new(
            self.path.clone(),
            template,
            (self.mode, owner, group),
            tell,
        ))
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    let failed =
        |error: std::io::Error| Failure::usage(format!("cannot read {}: {error}", path.display()), "check the file");
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(wrong(format!("{}: larger than 1 MiB", path.display())));
    }
    std::fs::read_to_string(path).map_err(failed)
}

fn wrong(words: impl Into<String>) -> Failure {
    Failure::usage(words, "see `strongroom agent --help`")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Strict: what is not known is refused, with its name.
    #[test]
    fn table() {
        let parse = |text: &str| toml::from_str::<Config>(&format!("token_file = \"t\"\n{text}"));
        assert!(parse("").is_ok());
        for (text, named) in [
            ("sokcet = \"x\"", "sokcet"),
            ("socket_mode = \"999\"", "octal"),
            ("[[file]]\npath = \"x\"\nmode = \"1777\"", "octal"),
            ("[[allow]]\nusers = 1\npaths = []", "users"),
        ] {
            assert!(parse(text).unwrap_err().to_string().contains(named), "{text}");
        }
        for text in [
            "[[file]]\npath = \"x\"",
            "[[file]]\npath = \"x\"\ntext = \"a\"\ntemplate = \"b\"",
            "[[file]]\npath = \"x\"\ntext = \"a\"\nsignal = \"HUP\"",
            "[[file]]\npath = \"x\"\ntext = \"a\"\nsignal = \"NOPE\"\npid_file = \"p\"",
            "[[file]]\npath = \"x\"\ntext = \"{{ kv/a }}\"",
            "[[file]]\npath = \"x\"\ntext = \"a\"\nowner = \"no such user\"",
        ] {
            assert!(parse(text).unwrap().files().is_err(), "{text}");
        }
        assert!(parse("[[allow]]\npaths = []").unwrap().allowed().is_err());
    }
}
