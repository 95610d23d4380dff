//! `strongroom policy`: Cedar policies: written, explained, and tried before they are written.

mod cases;
mod documents;
mod simulate;
mod who_can;

use crate::{
    cli::pair,
    context::Context,
    failure::{Exit, Failure},
    input::Source,
    output::{Answer, Human},
};
use clap::Subcommand;
use serde_json::json;
use strongroom_client::{Client, v1};

/// Names asked for in one page.
const PAGE: u32 = 1000;

#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Write a policy; it is checked against the schema first
    #[command(after_help = "\
Examples:
  strongroom policy put readers readers.cedar
  strongroom policy put readers - < readers.cedar
  strongroom policy put readers readers.cedar --cas 3")]
    Put {
        /// `[a-z0-9-]{1,64}`
        name: String,
        /// The Cedar text: a file, or `-` for stdin
        file: String,
        /// Write only if this version is current; 0: only if there is none
        #[arg(long, value_name = "VERSION")]
        cas: Option<u64>,
    },
    /// Print a policy's text
    #[command(after_help = "\
Examples:
  strongroom policy get readers
  strongroom policy get readers > readers.cedar")]
    Get {
        /// The policy
        name: String,
    },
    /// List policies
    #[command(after_help = "\
Examples:
  strongroom policy list")]
    List,
    /// Delete a policy
    #[command(after_help = "\
Examples:
  strongroom policy delete readers")]
    Delete {
        /// The policy
        name: String,
    },
    /// Tell what would be decided, and by which policies; exit code 3 when it would be denied
    #[command(after_help = "\
Examples:
  strongroom policy explain read kv/prod/db
  strongroom policy explain issue pg/readers --identity deployer --group ci --attribute team=payments")]
    Explain {
        /// `read`, `write`, `issue`, ...: the schema lists them
        action: String,
        /// The path it acts on
        path: String,
        /// Of this identity [default: yourself]
        #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
        identity: String,
        /// As if it were in these groups
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
        /// As if it had these attributes
        #[arg(long = "attribute", value_name = "KEY=VALUE", value_parser = pair)]
        attributes: Vec<(String, String)>,
    },
    /// Put cases to the policies, and compare with what is expected; exit code 1 when one differs
    ///
    /// Without --policies the daemon's are tested; with it those of the files alone, and no daemon is needed; with --stored too, the daemon's
    /// as they would be with the files put over them.
    #[command(after_help = "\
Examples:
  strongroom policy test cases.toml
  strongroom policy test cases.toml --policies policies/
  strongroom policy test cases.toml --stored --policies readers.cedar --delete old-readers

A case; only action, path and expect must be there:
  [[case]]
  name = \"payments reads its own\"
  identity = \"pay-api\"                     # its name; id = \"9f86...\" for policies that name one
  groups = [\"payments\"]
  attributes = { department = \"finance\" }
  action = \"read\"
  path = \"kv/prod/payments/db\"
  expect = \"allow\"                         # or \"deny\"
  by = [\"readers#payments\"]                # exactly these decide
  ip = \"10.1.2.3\"                          # or transport = \"unix\"
  time = \"2026-10-01T12:00:00Z\"
  own = false                               # what it acts on is its own
  purpose = \"session\"
  token_age_secs = 0
  binding = \"none\"                         # certificate, key
  strength = 1")]
    Test(cases::Test),
    /// Decide the past again under a proposed change, and list what would come out otherwise; exit code 1 when something would
    ///
    /// Reads the audit log (which takes `audit_read`) and the policies (`policy_read`). Nothing is written.
    #[command(after_help = "\
Examples:
  strongroom policy simulate --policies readers.cedar
  strongroom policy simulate --delete old-readers --from 0 --output json")]
    Simulate(simulate::Simulate),
    /// Tell who could do something, and on which conditions
    ///
    /// Conditions on the caller are settled; those on the call (address, time, transport, ...) are named. Sessions of log-ins stand
    /// under their trust.
    #[command(after_help = "\
Examples:
  strongroom policy who-can read kv/prod/db
  strongroom policy who-can issue pg/readers --output json")]
    WhoCan(who_can::WhoCan),
}

impl Policy {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        match self {
            Self::Put { name, file, cas } => put(context, name, &file, cas).await,
            Self::Get { name } => {
                let request = v1::PolicyGetRequest { name };
                let got = context
                    .client()
                    .await?
                    .read(request, |s, r| async move { s.policy().get(r).await })
                    .await?;
                let json =
                    json!({"name": got.name, "version": got.version, "updated_at": got.updated_at, "text": got.text});
                let text = if got.text.ends_with('\n') {
                    got.text
                } else {
                    got.text + "\n"
                };
                Ok(Answer::new(json, Human::Text(text)))
            }
            Self::List => list(context).await,
            Self::Test(test) => test.run(context).await,
            Self::Simulate(simulate) => simulate.run(context).await,
            Self::WhoCan(who_can) => who_can.run(context).await,
            Self::Delete { name } => {
                let request = v1::PolicyDeleteRequest {
                    name: name.clone(),
                    ..Default::default()
                };
                context
                    .client()
                    .await?
                    .change(request, |s, r| async move { s.policy().delete(r).await })
                    .await?;
                Ok(Answer::said(json!({"name": name}), format!("{name}: deleted")))
            }
            Self::Explain {
                action,
                path,
                identity,
                groups,
                attributes,
            } => {
                let attributes = attributes.into_iter().collect();
                let request = v1::PolicyExplainRequest {
                    action,
                    path,
                    identity,
                    groups,
                    attributes,
                };
                let client = context.client().await?;
                Ok(explained(
                    client
                        .read(request, |s, r| async move { s.policy().explain(r).await })
                        .await?,
                ))
            }
        }
    }
}

async fn put(context: &Context, name: String, file: &str, cas: Option<u64>) -> Result<Answer, Failure> {
    let source = if file == "-" {
        Source::Stdin
    } else {
        Source::File(file.into())
    };
    let text = context.bytes(&source, "policy")?;
    let request = v1::PolicyPutRequest {
        name: name.clone(),
        text: text.expose_str()?.to_owned(),
        cas,
        ..Default::default()
    };
    let done = context
        .client()
        .await?
        .change(request, |s, r| async move { s.policy().put(r).await })
        .await?;
    for warning in &done.warnings {
        context.out.notice(&format!("warning: {warning}"));
    }
    let json = json!({"name": name, "version": done.version, "warnings": done.warnings});
    Ok(Answer::said(json, format!("{name}: version {}", done.version)))
}

/// Every policy that the caller may read, in order.
async fn names(client: &Client) -> Result<Vec<String>, Failure> {
    let mut request = v1::PolicyListRequest {
        page_size: PAGE,
        ..Default::default()
    };
    let mut names = Vec::new();
    loop {
        let page = client
            .read(request.clone(), |s, r| async move { s.policy().list(r).await })
            .await?;
        names.extend(page.names);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    names.sort();
    Ok(names)
}

async fn list(context: &Context) -> Result<Answer, Failure> {
    let names = names(&context.client().await?).await?;
    let rows = names.iter().map(|name| vec![name.clone()]).collect();
    Ok(Answer::new(
        json!({"names": names}),
        Human::Table {
            head: vec!["name"],
            rows,
        },
    ))
}

fn explained(told: v1::PolicyExplainResponse) -> Answer {
    let json = json!({
        "allowed": told.allowed,
        "deciding": told.deciding,
        "errors": told.errors,
        "considered": told.considered,
        "reason": told.reason,
    });
    let mut pairs = vec![
        (
            "decision".to_owned(),
            if told.allowed { "allow" } else { "deny" }.to_owned(),
        ),
        ("reason".to_owned(), told.reason),
        ("considered".to_owned(), format!("{} policies", told.considered)),
    ];
    pairs.extend(
        told.deciding
            .into_iter()
            .map(|policy| ("decided by".to_owned(), policy)),
    );
    pairs.extend(told.errors.into_iter().map(|error| ("error".to_owned(), error)));
    let exit = if told.allowed { Exit::Done } else { Exit::Denied };
    Answer::new(json, Human::Pairs(pairs)).exit(exit)
}
