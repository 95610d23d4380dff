//! `strongroom token`: API tokens, and the one this user keeps.

use crate::{
    cli::{duration, pair, secs},
    context::Context,
    failure::Failure,
    input::Source,
    output::{Answer, Human, or_dash},
    settings::token_cache,
};
use clap::{Args, Subcommand};
use serde_json::json;
use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};
use strongroom_client::{Secret, v1};

#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token; it is shown once
    #[command(after_help = "\
Examples:
  strongroom token create
  strongroom token create --identity deployer --group ci --ttl 30m --output json
  strongroom token create --identity alice --group admins --ttl 8h --save
  strongroom token create --identity alice --exactly

Without --exactly, an identity that is there keeps its groups and attributes when none are given.")]
    Create(Create),
    /// Show what is known of a token; never the token itself
    #[command(after_help = "\
Examples:
  strongroom token show
  strongroom token show 0f3a5c7e9b1d4f6082a4c6e8f0b2d4e6")]
    Show {
        /// The token's accessor [default: your own token]
        #[arg(default_value = "", hide_default_value = true)]
        accessor: String,
    },
    /// Extend a token, at most to its maximum
    #[command(after_help = "\
Examples:
  strongroom token renew
  strongroom token renew 0f3a5c7e9b1d4f6082a4c6e8f0b2d4e6 --ttl 15m")]
    Renew {
        /// The token's accessor [default: your own token]
        #[arg(default_value = "", hide_default_value = true)]
        accessor: String,
        /// How long it lives from now
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        ttl: Option<Duration>,
    },
    /// End a token, or a whole session with every token and lease that came from it
    #[command(after_help = "\
Examples:
  strongroom token revoke --own
  strongroom token revoke 0f3a5c7e9b1d4f6082a4c6e8f0b2d4e6 --session")]
    Revoke {
        /// Which token.
        #[command(flatten)]
        which: Which,
        /// The whole session, its leases included
        #[arg(long)]
        session: bool,
    },
    /// Keep a token for the commands to come: checks it, then writes ~/.config/strongroom/token, mode 0600
    #[command(after_help = "\
Examples:
  strongroom token save
  strongroom token save - < token.txt")]
    Save {
        /// Where the token comes from: `-`, `@FILE` or `prompt`
        #[arg(default_value = "prompt", value_name = "SOURCE")]
        from: Source,
    },
    /// Remove ~/.config/strongroom/token; the token itself lives on until it expires or is revoked
    #[command(after_help = "\
Examples:
  strongroom token forget")]
    Forget,
}

/// What the new token may be.
#[derive(Debug, Args)]
pub struct Create {
    /// Whom it speaks for [default: yourself]
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    identity: String,
    /// Groups of a new identity
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// Attributes of a new identity, for policies
    #[arg(long = "attribute", value_name = "KEY=VALUE", value_parser = pair)]
    attributes: Vec<(String, String)>,
    /// Groups and attributes become exactly those given, also when that is none
    #[arg(long, requires = "identity")]
    exactly: bool,
    /// How long it lives [default: 15m, at most 24h]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ttl: Option<Duration>,
    /// How long it can be renewed
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    max_ttl: Option<Duration>,
    /// Revoke its leases when it merely expires
    #[arg(long)]
    end_leases: bool,
    /// Write it to ~/.config/strongroom/token instead of showing it
    #[arg(long)]
    save: bool,
}

/// Exactly one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// The token's accessor
    accessor: Option<String>,
    /// Your own token
    #[arg(long)]
    own: bool,
}

impl Token {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        match self {
            Self::Create(create) => create.run(context).await,
            Self::Show { accessor } => {
                let request = v1::TokenGetRequest { accessor };
                let token = context
                    .client()
                    .await?
                    .read(request, |s, r| async move { s.token().get(r).await })
                    .await?;
                Ok(shown(&token))
            }
            Self::Renew { accessor, ttl } => {
                let request = v1::TokenRenewRequest {
                    accessor,
                    ttl_secs: secs(ttl),
                    ..Default::default()
                };
                let client = context.client().await?;
                let done = client
                    .change(request, |s, r| async move { s.token().renew(r).await })
                    .await?;
                let json = json!({"ttl_secs": done.ttl_secs, "expires_at": done.expires_at});
                Ok(Answer::pairs(
                    json,
                    [("ttl_secs", done.ttl_secs.to_string()), ("expires_at", done.expires_at)],
                ))
            }
            Self::Revoke { which, session } => {
                let accessor = which.accessor.unwrap_or_default();
                let request = v1::TokenRevokeRequest {
                    accessor,
                    session,
                    ..Default::default()
                };
                let client = context.client().await?;
                let done = client
                    .change(request, |s, r| async move { s.token().revoke(r).await })
                    .await?;
                let said = format!(
                    "{} tokens ended, {} leases queued for revocation",
                    done.tokens, done.leases_queued
                );
                Ok(Answer::said(
                    json!({"tokens": done.tokens, "leases_queued": done.leases_queued}),
                    said,
                ))
            }
            Self::Save { from } => save_checked(context, &from).await,
            Self::Forget => {
                let path = cache()?;
                match fs::remove_file(&path) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => Err(unwritable(&path, &e)),
                    _ => Ok(Answer::said(
                        json!({"file": path}),
                        format!("{} is gone", path.display()),
                    )),
                }
            }
        }
    }
}

impl Create {
    async fn run(self, context: &Context) -> Result<Answer, Failure> {
        let request = v1::TokenCreateRequest {
            identity: self.identity,
            groups: self.groups,
            attributes: self.attributes.into_iter().collect(),
            ttl_secs: secs(self.ttl),
            max_ttl_secs: secs(self.max_ttl),
            end_leases: self.end_leases,
            exactly: self.exactly,
            ..Default::default()
        };
        let client = context.client().await?;
        let made = client
            .change(request, |s, r| async move { s.token().create(r).await })
            .await?;
        let mut json = json!({
            "accessor": made.accessor,
            "session": made.session,
            "ttl_secs": made.ttl_secs,
            "expires_at": made.expires_at,
        });
        let kept = if self.save {
            let path = save(&Secret::from(made.token))?;
            json["file"] = json!(path);
            ("file", path.display().to_string())
        } else {
            json["token"] = json!(made.token);
            ("token", made.token)
        };
        let rest = [
            ("accessor", made.accessor),
            ("session", made.session),
            ("expires_at", made.expires_at),
        ];
        let [a, b, c] = rest;
        Ok(Answer::pairs(json, [kept, a, b, c]).shown_once())
    }
}

async fn save_checked(context: &Context, from: &Source) -> Result<Answer, Failure> {
    let token = context.line(from, "token")?;
    let client = context.client_without_token().await?;
    client.set_token(Secret::from(token.expose()))?;
    let known = client
        .read(
            v1::TokenGetRequest::default(),
            |s, r| async move { s.token().get(r).await },
        )
        .await?;
    let path = save(&token)?;
    let said = format!(
        "{} holds the token of {}, which expires {}",
        path.display(),
        known.identity,
        known.expires_at
    );
    let json =
        json!({"file": path, "identity": known.identity, "accessor": known.accessor, "expires_at": known.expires_at});
    Ok(Answer::said(json, said))
}

/// Writes the token cache, readable by this user alone, whole or not at all.
pub fn save(token: &Secret) -> Result<PathBuf, Failure> {
    let path = cache()?;
    write_private(&path, token).map_err(|e| unwritable(&path, &e))?;
    Ok(path)
}

/// Writes a key's file, readable by this user alone, whole or not at all.
pub fn save_key(path: &Path, pem: &Secret) -> Result<(), Failure> {
    write_private(path, pem).map_err(|e| unwritable(path, &e))
}

fn cache() -> Result<PathBuf, Failure> {
    token_cache().ok_or_else(|| {
        Failure::usage(
            "there is no home directory to keep a token in",
            "set HOME, or use STRONGROOM_TOKEN",
        )
    })
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::other(
        format!("cannot write {}: {error}", path.display()),
        "check the directory's owner and mode",
    )
}

fn write_private(path: &Path, token: &Secret) -> io::Result<()> {
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    private_directory(directory)?;
    let draft = directory.join(format!(".token-{}", std::process::id()));
    let written = private_new_file(&draft)
        .and_then(|mut file| {
            file.write_all(token.expose())?;
            file.write_all(b"\n")?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&draft);
    }
    written
}

/// Makes a directory, and those above it, that this user alone may enter; leaves one that exists.
pub fn private_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Makes a file that did not exist, mode 0600.
pub fn private_new_file(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn shown(token: &v1::TokenInfo) -> Answer {
    let attributes: Vec<_> = token
        .attributes
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let json = json!({
        "accessor": token.accessor,
        "identity": token.identity,
        "groups": token.groups,
        "attributes": token.attributes,
        "purpose": token.purpose,
        "session": token.session,
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "max_expires_at": token.max_expires_at,
        "ttl_secs": token.ttl_secs,
    });
    let pairs = [
        ("accessor", token.accessor.clone()),
        ("identity", token.identity.clone()),
        ("groups", or_dash(&token.groups.join(", "))),
        ("attributes", or_dash(&attributes.join(", "))),
        ("purpose", token.purpose.clone()),
        ("session", token.session.clone()),
        ("created_at", token.created_at.clone()),
        ("expires_at", token.expires_at.clone()),
        ("max_expires_at", or_dash(&token.max_expires_at)),
    ];
    Answer::new(
        json,
        Human::Pairs(pairs.map(|(name, value)| (name.to_owned(), value)).into()),
    )
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// R-TOK-5: the token cache is mode 0600 in a directory of mode 0700, also over a file that was open to all.
    #[test]
    fn the_cache_is_private_and_replaced_whole() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/strongroom/token");
        write_private(&path, &Secret::from("one")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        write_private(&path, &Secret::from("two")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777,
            0o700
        );
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "no draft left"
        );
    }
}
