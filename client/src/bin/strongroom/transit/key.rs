//! The life of keys: made, shown, rotated, narrowed, trimmed, deleted.

use crate::{
    context::Context,
    failure::Failure,
    output::{Answer, Human},
};
use clap::Subcommand;
use serde_json::json;
use strongroom_client::{Client, v1};

/// Names asked for in one page.
const PAGE: u32 = 1000;

#[derive(Debug, Subcommand)]
pub enum Key {
    /// Make a key
    #[command(after_help = "\
Examples:
  strongroom transit key create transit/orders --kind aes256-gcm
  strongroom transit key create transit/releases --kind ed25519
  strongroom transit key create transit/root --kind ecdsa-p256 --hsm main")]
    Create {
        /// `transit/orders`
        key: String,
        /// aes256-gcm, hmac-sha256, ed25519, ecdsa-p256, ecdsa-p384, rsa-pss-2048, rsa-pss-3072, rsa-pss-4096 or ml-dsa-65
        #[arg(long)]
        kind: String,
        /// Make it in this HSM of the daemon's, which it never leaves: ecdsa-p256 or rsa-pss-3072
        #[arg(long, value_name = "NAME")]
        hsm: Option<String>,
    },
    /// List the keys of a mount
    #[command(after_help = "\
Examples:
  strongroom transit key list transit")]
    List {
        /// `transit`
        mount: String,
    },
    /// Show a key: its kind, versions and public keys
    #[command(after_help = "\
Examples:
  strongroom transit key show transit/releases --output json
  strongroom transit key show transit/releases --public-key 1 > release.pem")]
    Show {
        /// `transit/orders`
        key: String,
        /// Print this version's public key alone, in PEM
        #[arg(long, value_name = "VERSION")]
        public_key: Option<u32>,
    },
    /// Add a version, which encrypts and signs from now on
    #[command(after_help = "\
Examples:
  strongroom transit key rotate transit/orders")]
    Rotate {
        /// `transit/orders`
        key: String,
    },
    /// Say which versions are in use and whether the key may be deleted
    #[command(after_help = "\
Examples:
  strongroom transit key configure transit/orders --min-decryption-version 3
  strongroom transit key configure transit/orders --allow-deletion true")]
    Configure {
        /// `transit/orders`
        key: String,
        /// Older versions neither decrypt nor verify
        #[arg(long, value_name = "VERSION")]
        min_decryption_version: Option<u32>,
        /// Whether `delete` works
        #[arg(long, value_name = "true|false")]
        allow_deletion: Option<bool>,
    },
    /// Erase old versions for good: what they encrypted is lost
    #[command(after_help = "\
Examples:
  strongroom transit key trim transit/orders --before 3")]
    Trim {
        /// `transit/orders`
        key: String,
        /// Versions before this one; at most the minimum decryption version
        #[arg(long, value_name = "VERSION")]
        before: u32,
    },
    /// Erase a key for good: what it encrypted is lost
    #[command(after_help = "\
Examples:
  strongroom transit key configure transit/orders --allow-deletion true
  strongroom transit key delete transit/orders")]
    Delete {
        /// `transit/orders`
        key: String,
    },
}

/// A change of a key, and its answer.
macro_rules! change {
    ($client:ident, $method:ident, $request:expr) => {
        $client
            .change($request, |s, r| async move { s.transit().$method(r).await })
            .await?
    };
}

impl Key {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        let client = context.client().await?;
        match self {
            Self::Create { key: path, kind, hsm } => {
                let (json, said) = (json!({"path": path, "kind": kind}), format!("{path}: made"));
                let request = v1::TransitCreateKeyRequest {
                    path,
                    kind,
                    hsm: hsm.unwrap_or_default(),
                    ..Default::default()
                };
                change!(client, create_key, request);
                Ok(Answer::said(json, said))
            }
            Self::List { mount } => list(&client, mount).await,
            Self::Show { key, public_key } => show(&client, key, public_key).await,
            Self::Rotate { key: path } => {
                let request = v1::TransitRotateKeyRequest {
                    path: path.clone(),
                    ..Default::default()
                };
                let version = change!(client, rotate_key, request).version;
                let said = format!("{path}: version {version}");
                Ok(Answer::said(json!({"path": path, "version": version}), said))
            }
            Self::Configure {
                key: path,
                min_decryption_version,
                allow_deletion: deletion_allowed,
            } => {
                let (json, said) = (json!({"path": path}), format!("{path}: configured"));
                let request = v1::TransitConfigureKeyRequest {
                    path,
                    min_decryption_version,
                    deletion_allowed,
                    ..Default::default()
                };
                change!(client, configure_key, request);
                Ok(Answer::said(json, said))
            }
            Self::Trim { key: path, before } => {
                let said = format!("{path}: versions before {before} are erased");
                let json = json!({"path": path, "oldest_version": before});
                let request = v1::TransitTrimKeyRequest {
                    path,
                    oldest_version: before,
                    ..Default::default()
                };
                change!(client, trim_key, request);
                Ok(Answer::said(json, said))
            }
            Self::Delete { key: path } => {
                let (json, said) = (json!({"path": path}), format!("{path}: erased"));
                change!(
                    client,
                    delete_key,
                    v1::TransitDeleteKeyRequest {
                        path,
                        ..Default::default()
                    }
                );
                Ok(Answer::said(json, said))
            }
        }
    }
}

async fn show(client: &Client, path: String, public_key: Option<u32>) -> Result<Answer, Failure> {
    let request = v1::TransitGetKeyRequest { path: path.clone() };
    let shown = client
        .read(request, |s, r| async move { s.transit().get_key(r).await })
        .await?;
    match public_key {
        Some(version) => public(shown, version),
        None => Ok(key_shown(&path, shown)),
    }
}

async fn list(client: &Client, mount: String) -> Result<Answer, Failure> {
    let (mut names, mut token) = (Vec::new(), String::new());
    loop {
        let request = v1::TransitListKeysRequest {
            mount: mount.clone(),
            page_size: PAGE,
            page_token: token,
        };
        let page = client
            .read(request, |s, r| async move { s.transit().list_keys(r).await })
            .await?;
        names.extend(page.names);
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    names.sort();
    let rows = names.iter().map(|name| vec![name.clone()]).collect();
    let json = json!({"mount": mount, "names": names});
    Ok(Answer::new(
        json,
        Human::Table {
            head: vec!["name"],
            rows,
        },
    ))
}

fn public(shown: v1::TransitGetKeyResponse, version: u32) -> Result<Answer, Failure> {
    let found = shown.versions.into_iter().find(|known| known.version == version);
    match found {
        Some(known) if !known.public_key_pem.is_empty() => Ok(Answer::raw(known.public_key_pem.into_bytes())),
        _ => Err(Failure::usage(
            format!("version {version} has no public key"),
            "`strongroom transit key show` lists kind and versions",
        )),
    }
}

fn key_shown(path: &str, shown: v1::TransitGetKeyResponse) -> Answer {
    let versions: Vec<_> = shown
        .versions
        .iter()
        .map(|known| json!({"version": known.version, "created_at": known.created_at, "public_key_pem": known.public_key_pem}))
        .collect();
    let json = json!({
        "path": path,
        "id": shown.id,
        "kind": shown.kind,
        "hsm": shown.hsm,
        "latest_version": shown.latest_version,
        "min_decryption_version": shown.min_decryption_version,
        "deletion_allowed": shown.deletion_allowed,
        "created_at": shown.created_at,
        "versions": versions,
    });
    let oldest = shown.versions.first().map_or(0, |known| known.version);
    Answer::pairs(
        json,
        [
            ("kind", shown.kind),
            (
                "kept in",
                if shown.hsm.is_empty() {
                    "the vault".to_owned()
                } else {
                    format!("HSM {}", shown.hsm)
                },
            ),
            ("versions", format!("{oldest} to {}", shown.latest_version)),
            ("decrypts from", shown.min_decryption_version.to_string()),
            ("may be deleted", shown.deletion_allowed.to_string()),
            ("made", shown.created_at),
            ("id", shown.id),
        ],
    )
}
