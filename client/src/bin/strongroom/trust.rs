//! `strongroom trust`: whom log-ins believe.

use crate::{
    cli::{duration, secs},
    context::Context,
    failure::Failure,
    input::Source,
    output::{Answer, Human, or_dash},
};
use clap::Subcommand;
use serde_json::json;
use std::time::Duration;
use strongroom_client::{Secret, v1};

#[derive(Debug, Subcommand)]
pub enum Trust {
    /// Write a trust; one that is too wide is refused, with every reason
    #[command(after_help = "\
Examples:
  strongroom trust put github github.json
  strongroom trust put github github.json --check
  strongroom trust put github - --cas 3 < github.json
  strongroom trust put people people.json --client-secret @client-secret.txt")]
    Put {
        /// `[a-z0-9-]{1,48}`
        name: String,
        /// The definition, JSON: a file, or `-` for stdin
        file: String,
        /// Write only if this version is current; 0: only if there is none
        #[arg(long, value_name = "VERSION")]
        cas: Option<u64>,
        /// Only say what is wrong with it
        #[arg(long)]
        check: bool,
        /// Where the client secret of an OIDC trust comes from: `-`, `@FILE` or `prompt` [default: the present one stays, for the same client]
        #[arg(long, value_name = "SOURCE")]
        client_secret: Option<Source>,
    },
    /// Print a trust's definition
    #[command(after_help = "\
Examples:
  strongroom trust get github > github.json")]
    Get {
        /// The trust
        name: String,
    },
    /// List trusts
    #[command(after_help = "\
Examples:
  strongroom trust list")]
    List,
    /// Delete a trust, and end every token that came from it
    #[command(after_help = "\
Examples:
  strongroom trust delete github")]
    Delete {
        /// The trust
        name: String,
    },
    /// End every token that came from a trust until now, with its leases; the trust stays
    #[command(after_help = "\
Examples:
  strongroom trust end github")]
    End {
        /// The trust
        name: String,
    },
    /// Make a secret id of an app role; it is shown once, and good for one log-in
    #[command(after_help = "\
Examples:
  strongroom trust make-secret billing
  strongroom trust make-secret billing --ttl 2m --network 10.1.0.0/16 --output json")]
    MakeSecret {
        /// The trust
        name: String,
        /// How long it is good [default: 10m, at most 24h]
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        ttl: Option<Duration>,
        /// Networks that it may be used from
        #[arg(long = "network", value_name = "CIDR")]
        networks: Vec<String>,
    },
}

impl Trust {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        match self {
            Self::Put {
                name,
                file,
                cas,
                check,
                client_secret,
            } => {
                let secret = client_secret
                    .map(|from| context.line(&from, "client secret"))
                    .transpose()?;
                put(context, name, &file, secret, cas, check).await
            }
            Self::Get { name } => get(context, name).await,
            Self::List => list(context).await,
            Self::Delete { name } => {
                let request = v1::TrustDeleteRequest {
                    name: name.clone(),
                    ..Default::default()
                };
                let client = context.client().await?;
                client
                    .change(request, |s, r| async move { s.trust().delete(r).await })
                    .await?;
                Ok(Answer::said(
                    json!({"name": name}),
                    format!("{name}: deleted; every token that came from it is ended"),
                ))
            }
            Self::End { name } => {
                let request = v1::TrustEndRequest {
                    name: name.clone(),
                    ..Default::default()
                };
                let client = context.client().await?;
                client
                    .change(request, |s, r| async move { s.trust().end(r).await })
                    .await?;
                Ok(Answer::said(
                    json!({"name": name}),
                    format!("{name}: every token that came from it until now is ended"),
                ))
            }
            Self::MakeSecret { name, ttl, networks } => {
                let request = v1::TrustMakeSecretRequest {
                    name,
                    ttl_secs: secs(ttl),
                    networks,
                    ..Default::default()
                };
                let client = context.client().await?;
                let made = client
                    .change(request, |s, r| async move { s.trust().make_secret(r).await })
                    .await?;
                let json = json!({"secret_id": made.secret_id, "role_id": made.role_id, "expires_at": made.expires_at});
                let pairs = [
                    ("secret_id", made.secret_id),
                    ("role_id", made.role_id),
                    ("expires_at", made.expires_at),
                ];
                Ok(Answer::pairs(json, pairs).shown_once())
            }
        }
    }
}

async fn put(
    context: &Context,
    name: String,
    file: &str,
    client_secret: Option<Secret>,
    cas: Option<u64>,
    check: bool,
) -> Result<Answer, Failure> {
    let source = if file == "-" {
        Source::Stdin
    } else {
        Source::File(file.into())
    };
    let text = context.bytes(&source, "trust")?;
    let request = v1::TrustPutRequest {
        name: name.clone(),
        definition: text.expose_str()?.to_owned(),
        cas,
        check_only: check,
        client_secret: client_secret
            .map(|secret| secret.expose_str().map(str::to_owned))
            .transpose()?,
        ..Default::default()
    };
    let client = context.client().await?;
    let done = client
        .change(request, |s, r| async move { s.trust().put(r).await })
        .await?;
    for warning in &done.warnings {
        context.out.notice(&format!("warning: {warning}"));
    }
    let json = json!({"name": name, "version": done.version, "warnings": done.warnings, "checked_only": check});
    let said = if check {
        format!("{name}: nothing is wrong with it; it was not written")
    } else {
        format!("{name}: version {}", done.version)
    };
    Ok(Answer::said(json, said))
}

async fn get(context: &Context, name: String) -> Result<Answer, Failure> {
    let client = context.client().await?;
    let request = v1::TrustGetRequest { name };
    let got = client
        .read(request, |s, r| async move { s.trust().get(r).await })
        .await?;
    let definition: serde_json::Value = serde_json::from_str(&got.definition)
        .map_err(|error| Failure::other("the daemon's answer is no JSON", error.to_string()))?;
    if !got.role_id.is_empty() {
        context.out.notice(&format!("role id: {}", got.role_id));
    }
    let json = json!({
        "name": got.name,
        "version": got.version,
        "updated_at": got.updated_at,
        "role_id": got.role_id,
        "has_client_secret": got.has_client_secret,
        "definition": definition,
    });
    Ok(Answer::new(json, Human::Text(got.definition + "\n")))
}

async fn list(context: &Context) -> Result<Answer, Failure> {
    let client = context.client().await?;
    let got = client
        .read(v1::TrustListRequest {}, |s, r| async move { s.trust().list(r).await })
        .await?;
    let trusts: Vec<_> = got
        .trusts
        .iter()
        .map(|trust| json!({"name": trust.name, "method": trust.method, "issuer": trust.issuer, "version": trust.version}))
        .collect();
    let rows = got
        .trusts
        .iter()
        .map(|trust| {
            vec![
                trust.name.clone(),
                trust.method.clone(),
                or_dash(&trust.issuer),
                trust.version.to_string(),
            ]
        })
        .collect();
    let head = vec!["name", "method", "issuer", "version"];
    Ok(Answer::new(json!({"trusts": trusts}), Human::Table { head, rows }))
}
