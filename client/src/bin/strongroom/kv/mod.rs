//! `strongroom kv`: versioned secrets. Reading order: this file, `fields` (how values come in and go out), `versions`
//! (history and metadata).

mod fields;
mod versions;

use crate::{
    context::Context,
    failure::Failure,
    output::{Answer, Human},
};
use clap::Subcommand;
use serde_json::json;
use strongroom_client::{SecretVersion, Select};

pub use fields::{field_alone, fields_json, fields_pairs};

/// Names asked for in one page.
const PAGE: u32 = 1000;

#[derive(Debug, Subcommand)]
pub enum Kv {
    /// Write a new version of a secret
    ///
    /// A FIELD is NAME=- (stdin), NAME=@FILE, NAME (asks without echo), `-` or `@FILE` for the field `value`.
    /// Stdin and files are taken byte for byte, a line end at their end included.
    #[command(after_help = "\
Examples:
  printf %s \"$PASSWORD\" | strongroom kv put kv/prod/db password=-
  strongroom kv put kv/prod/tls certificate=@tls.crt key=@tls.key
  strongroom kv put kv/prod/db password
  strongroom kv put kv/prod/db --literal user=app port=5432
  strongroom kv put kv/prod/motd - < motd.txt
  strongroom kv put kv/prod/db --from-json - --cas 3 < fields.json")]
    Put {
        /// `kv/prod/db`
        path: String,
        /// NAME=-, NAME=@FILE, NAME, `-` or `@FILE`
        #[arg(value_name = "FIELD", required_unless_present = "from_json")]
        fields: Vec<String>,
        /// Accept NAME=VALUE. Other users of this machine and the shell's history see such values
        #[arg(long)]
        literal: bool,
        /// Take the fields from a JSON object of texts: a file, or `-` for stdin
        #[arg(long, value_name = "FILE", conflicts_with_all = ["fields", "literal"])]
        from_json: Option<String>,
        /// Write only if this version is current; 0: only if there is none
        #[arg(long, value_name = "VERSION")]
        cas: Option<u64>,
    },
    /// Read a secret
    #[command(after_help = "\
Examples:
  strongroom kv get kv/prod/db
  strongroom kv get kv/prod/db --field password | pbcopy
  strongroom kv get kv/prod/tls --field key > tls.key
  strongroom kv get kv/prod/db --version 3 --output json
  strongroom kv get kv/prod/db --label previous

JSON: {path, version, created_at, labels, fields, fields_base64}; a field that is not UTF-8 is under fields_base64.
With --field: {path, version, field, value | value_base64}.")]
    Get {
        /// `kv/prod/db`
        path: String,
        /// Print this field alone: its bytes and nothing else (with --output json: an object)
        #[arg(long, short, value_name = "NAME")]
        field: Option<String>,
        /// This version instead of the current one
        #[arg(long, value_name = "VERSION", conflicts_with = "label")]
        version: Option<u64>,
        /// The version with this label: current, previous, pending, or one of your own
        #[arg(long, value_name = "LABEL")]
        label: Option<String>,
    },
    /// List names that you may see
    #[command(after_help = "\
Examples:
  strongroom kv list
  strongroom kv list kv/prod
  strongroom kv list kv --recursive --limit 10000 --output json
  strongroom kv list kv --recursive --search database")]
    List {
        /// A mount or folder; without it the kv mounts
        #[arg(default_value = "", hide_default_value = true)]
        path: String,
        /// Everything below, not only this folder
        #[arg(long, short)]
        recursive: bool,
        /// Only names that contain this text, upper and lower case alike
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        search: String,
        /// Most names to print
        #[arg(long, default_value_t = 1000, value_name = "NUMBER")]
        limit: usize,
    },
    /// Delete versions softly; `undelete` brings them back
    #[command(after_help = "\
Examples:
  strongroom kv delete kv/prod/db
  strongroom kv delete kv/prod/db --versions 1,2")]
    Delete {
        /// `kv/prod/db`
        path: String,
        /// These versions [default: the current one]
        #[arg(long, value_name = "VERSION,...", value_delimiter = ',')]
        versions: Vec<u64>,
    },
    /// Bring deleted versions back
    #[command(after_help = "\
Examples:
  strongroom kv undelete kv/prod/db --versions 3")]
    Undelete {
        /// `kv/prod/db`
        path: String,
        /// These versions
        #[arg(long, value_name = "VERSION,...", value_delimiter = ',', required = true)]
        versions: Vec<u64>,
    },
    /// Destroy versions for good: nothing brings them back
    ///
    /// After --all the path is as if it had never been: a new secret there begins at version 1 again, so that a --cas noted before may fit it.
    /// To keep counting, destroy the versions by their numbers.
    #[command(after_help = "\
Examples:
  strongroom kv destroy kv/prod/db --versions 1,2
  strongroom kv destroy kv/prod/db --all")]
    Destroy {
        /// `kv/prod/db`
        path: String,
        /// These versions; one with a label is refused
        #[arg(
            long,
            value_name = "VERSION,...",
            value_delimiter = ',',
            required_unless_present = "all"
        )]
        versions: Vec<u64>,
        /// Every version, and the metadata
        #[arg(long, conflicts_with = "versions")]
        all: bool,
    },
    /// Show the versions of a secret
    #[command(after_help = "\
Examples:
  strongroom kv history kv/prod/db")]
    History {
        /// `kv/prod/db`
        path: String,
    },
    /// Show or change metadata: custom entries, labels, how many versions are kept
    #[command(after_help = "\
Examples:
  strongroom kv metadata kv/prod/db
  strongroom kv metadata kv/prod/db --set owner=payments --versions-max 20
  strongroom kv metadata kv/prod/db --unset owner --cas-required true
  strongroom kv metadata kv/prod/db --label stable=3")]
    Metadata(versions::Metadata),
}

impl Kv {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        match self {
            Self::Put {
                path,
                fields,
                literal,
                from_json,
                cas,
            } => {
                let fields = match from_json {
                    Some(from) => fields::of_json(context, &from)?,
                    None => fields::collect(context, &fields, literal)?,
                };
                let version = context.client().await?.put(&path, &fields, cas).await?;
                Ok(Answer::said(
                    json!({"path": path, "version": version}),
                    format!("{path}: version {version}"),
                ))
            }
            Self::Get {
                path,
                field,
                version,
                label,
            } => {
                let select = version
                    .map(Select::Version)
                    .or(label.map(Select::Label))
                    .unwrap_or_default();
                let secret = context.client().await?.get_at(&path, select).await?;
                match field {
                    Some(name) => {
                        let json = json!({"path": secret.path, "version": secret.version});
                        Ok(field_alone(json, &name, secret.field(&name)?))
                    }
                    None => Ok(shown(&secret)),
                }
            }
            Self::List {
                path,
                recursive,
                search,
                limit,
            } => list(context, path, strongroom_client::List { recursive, search }, limit).await,
            Self::Delete { path, versions } => versions::delete(context, path, versions).await,
            Self::Undelete { path, versions } => versions::undelete(context, path, versions).await,
            Self::Destroy { path, versions, all } => versions::destroy(context, path, versions, all).await,
            Self::History { path } => Ok(versions::history_shown(
                &path,
                &versions::history(&context.client().await?, &path).await?,
            )),
            Self::Metadata(metadata) => metadata.run(context).await,
        }
    }
}

fn shown(secret: &SecretVersion) -> Answer {
    let (fields, fields_base64) = fields_json(&secret.fields);
    let json = json!({
        "path": secret.path,
        "version": secret.version,
        "created_at": secret.created_at,
        "labels": secret.labels,
        "fields": fields,
        "fields_base64": fields_base64,
    });
    let rows = fields_pairs(&secret.fields)
        .into_iter()
        .map(|(name, value)| vec![name, value])
        .collect();
    Answer::new(
        json,
        Human::Table {
            head: vec!["field", "value"],
            rows,
        },
    )
}

async fn list(
    context: &Context,
    path: String,
    listing: strongroom_client::List,
    limit: usize,
) -> Result<Answer, Failure> {
    let client = context.client().await?;
    let (mut names, mut token) = (Vec::new(), None);
    loop {
        let page = client.list_page(&path, &listing, PAGE, token).await?;
        names.extend(page.names);
        token = page.next;
        if token.is_none() || names.len() > limit {
            break;
        }
    }
    let truncated = token.is_some() || names.len() > limit;
    names.truncate(limit);
    if !truncated {
        names.sort();
    }
    if truncated {
        context.out.notice(&format!(
            "only the first {limit} names, in the order of storage; --limit shows more"
        ));
    }
    let rows = names.iter().map(|name| vec![name.clone()]).collect();
    let json = json!({"path": path, "names": names, "truncated": truncated});
    Ok(Answer::new(
        json,
        Human::Table {
            head: vec!["name"],
            rows,
        },
    ))
}
