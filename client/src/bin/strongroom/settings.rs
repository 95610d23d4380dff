//! Where settings come from: flags, the environment, the config file, defaults; in this order.

use crate::{cli::Globals, failure::Failure, output::Format};
use clap::ValueEnum as _;
use serde::Deserialize;
use std::{
    env, io,
    path::{Path, PathBuf},
    time::Duration,
};
use strongroom_client::{DEFAULT_SOCKET, Secret};
use toml::Spanned;

/// Largest config file read.
const CONFIG_BYTES_MAX: u64 = 64 << 10;

/// What every command goes by.
#[derive(Debug)]
pub struct Settings {
    pub address: String,
    /// Flags that a person must repeat for another command to reach the same daemon.
    pub address_flag: Option<String>,
    pub ca_cert: Option<PathBuf>,
    /// Chain and key.
    pub client_cert: Option<(PathBuf, PathBuf)>,
    /// The key that the token is bound to.
    pub proof_key: Option<PathBuf>,
    pub token: Option<TokenFrom>,
    pub output: Format,
    pub timeout: Option<Duration>,
}

/// Where the token is.
#[derive(Debug)]
pub enum TokenFrom {
    /// `STRONGROOM_TOKEN`, which is set, be it to nothing: somebody meant a token, and another one in its place would act as somebody else.
    Environment(Secret),
    /// Named by a flag or the config file.
    File(PathBuf),
    /// [`token_cache`], which exists.
    Cache(PathBuf),
}

/// `config.toml`: exactly these keys.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    address: Option<String>,
    ca_cert: Option<PathBuf>,
    token_file: Option<PathBuf>,
    output: Option<Spanned<String>>,
    timeout: Option<Spanned<String>>,
}

/// Brings the sources together.
/// # Errors
/// A usage failure that names the file, the line and the key.
pub fn resolve(flags: &Globals) -> Result<Settings, Failure> {
    let file = match directory().map(|dir| dir.join("config.toml")) {
        Some(path) => load(&path)?,
        None => Loaded::default(),
    };
    let from_flag = env::var_os("STRONGROOM_ADDR").is_none_or(|v| flags.address.as_deref() != v.to_str());
    let address_flag = flags.address.clone().filter(|_| from_flag);
    let address = flags
        .address
        .clone()
        .or(file.address)
        .unwrap_or_else(|| format!("unix:{DEFAULT_SOCKET}"));
    let token = match (&flags.token_file, env::var("STRONGROOM_TOKEN")) {
        (Some(path), _) => Some(TokenFrom::File(path.clone())),
        (None, Ok(token)) => Some(TokenFrom::Environment(Secret::from(token))),
        // No text, so no token either: told where one is needed.
        (None, Err(env::VarError::NotUnicode(_))) => Some(TokenFrom::Environment(Secret::new(Vec::new()))),
        (None, Err(env::VarError::NotPresent)) => file
            .token_file
            .map(TokenFrom::File)
            .or_else(|| token_cache().filter(|path| path.exists()).map(TokenFrom::Cache)),
    };
    // The key beside the token cache goes with that token alone.
    let beside = || match &token {
        Some(TokenFrom::Cache(_)) => key_cache().filter(|path| path.exists()),
        _ => None,
    };
    let proof_key = flags.proof_key.clone().or_else(beside);
    Ok(Settings {
        address,
        address_flag,
        client_cert: flags.client_cert.clone().zip(flags.client_key.clone()),
        ca_cert: flags.ca_cert.clone().or(file.ca_cert),
        proof_key,
        token,
        output: flags.output.or(file.output).unwrap_or_default(),
        timeout: flags.timeout.or(file.timeout),
    })
}

/// `~/.config/strongroom`, or under `XDG_CONFIG_HOME`.
fn directory() -> Option<PathBuf> {
    let config = env::var_os("XDG_CONFIG_HOME")
        .filter(|v| !v.is_empty())
        .map(PathBuf::from);
    config
        .or_else(|| env::home_dir().map(|home| home.join(".config")))
        .map(|dir| dir.join("strongroom"))
}

/// `~/.config/strongroom/token`; `None` without a home directory.
pub fn token_cache() -> Option<PathBuf> {
    directory().map(|dir| dir.join("token"))
}

/// `~/.config/strongroom/token.key`.
pub fn key_cache() -> Option<PathBuf> {
    directory().map(|dir| dir.join("token.key"))
}

#[derive(Debug, Default)]
struct Loaded {
    address: Option<String>,
    ca_cert: Option<PathBuf>,
    token_file: Option<PathBuf>,
    output: Option<Format>,
    timeout: Option<Duration>,
}

fn load(path: &Path) -> Result<Loaded, Failure> {
    let unreadable = |e: io::Error| {
        Failure::usage(
            format!("cannot read {}: {e}", path.display()),
            "correct the file's mode, or remove it",
        )
    };
    let text = match std::fs::metadata(path) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Loaded::default());
        }
        Err(e) => return Err(unreadable(e)),
        Ok(metadata) if metadata.len() > CONFIG_BYTES_MAX => {
            return Err(Failure::usage(
                format!("{} is larger than 64 KiB", path.display()),
                "remove what is not needed",
            ));
        }
        Ok(_) => std::fs::read_to_string(path).map_err(unreadable)?,
    };
    parse(&text).map_err(|(line, message)| {
        Failure::usage(
            format!("{}, line {line}: {message}", path.display()),
            "the keys are address, ca_cert, token_file, output, timeout",
        )
    })
}

/// The line (from 1) and what is wrong there. The line itself is not shown: it may hold a secret that
/// somebody put into the wrong file.
fn parse(text: &str) -> Result<Loaded, (usize, String)> {
    let line = |at: usize| text.bytes().take(at).filter(|b| *b == b'\n').count() + 1;
    let config: Config = toml::from_str(text).map_err(|e| {
        (
            line(e.span().map_or(0, |span| span.start)),
            e.message().trim().to_owned(),
        )
    })?;
    let output = config.output.map(|value| {
        let at = line(value.span().start);
        Format::from_str(value.get_ref(), false).map_err(|_| (at, "output: write \"table\" or \"json\"".to_owned()))
    });
    let timeout = config.timeout.map(|value| {
        let at = line(value.span().start);
        crate::cli::duration(value.get_ref()).map_err(|why| (at, format!("timeout: {why}")))
    });
    Ok(Loaded {
        address: config.address,
        ca_cert: config.ca_cert,
        token_file: config.token_file,
        output: output.transpose()?,
        timeout: timeout.transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read() {
        let text =
            "address = \"https://a\"\nca_cert = \"/ca\"\ntoken_file = \"/t\"\noutput = \"json\"\ntimeout = \"3s\"\n";
        let loaded = parse(text).unwrap();
        assert_eq!(loaded.address.as_deref(), Some("https://a"));
        assert_eq!(loaded.ca_cert, Some("/ca".into()));
        assert_eq!(loaded.token_file, Some("/t".into()));
        assert_eq!(loaded.output, Some(Format::Json));
        assert_eq!(loaded.timeout, Some(Duration::from_secs(3)));
        assert!(parse("").is_ok());
    }

    /// R-OPS-4: strict keys; every error names the key and the line, and never the line's content.
    #[test]
    fn errors_name_the_key_and_the_line() {
        for (text, at, word) in [
            ("address = \"https://a\"\nadress = \"x\"\n", 2, "adress"),
            ("token = \"canary\"\n", 1, "token"),
            ("\n\noutput = \"yaml\"\n", 3, "output"),
            ("# c\ntimeout = \"soon\"\n", 2, "timeout"),
            ("address = 5\n", 1, "string"),
            ("address = \"a\"\naddress = \"b\"\n", 2, "duplicate"),
            ("address = \n", 1, ""),
        ] {
            let (line, message) = parse(text).unwrap_err();
            assert_eq!(line, at, "{text}: {message}");
            assert!(message.contains(word), "{text}: {message}");
            assert!(!message.contains("canary"), "{message}");
        }
    }
}
