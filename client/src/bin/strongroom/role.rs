//! `strongroom role`: what kind of credential a mount makes.

use crate::{
    context::Context,
    failure::Failure,
    mount::{object_shown, settings_of},
    output::{Answer, Human},
};
use clap::Subcommand;
use serde_json::json;
use strongroom_client::v1;

/// Names asked for in one page.
const PAGE: u32 = 1000;

#[derive(Debug, Subcommand)]
pub enum Role {
    /// Write a role; the engine's README lists its settings
    #[command(after_help = "\
Examples:
  strongroom role put pg/readers group=readers default_ttl=1h max_ttl=24h
  strongroom role put pg/app type=static account=app rotation_period=24h
  strongroom role put pg/readers --from-json readers.json")]
    Put {
        /// MOUNT/NAME, `pg/readers`
        path: String,
        /// KEY=VALUE; a value that reads as JSON is that, all else is text
        #[arg(value_name = "SETTING", required_unless_present = "from_json")]
        settings: Vec<String>,
        /// Take the definition from a JSON object: a file, or `-` for stdin
        #[arg(long, value_name = "FILE", conflicts_with = "settings")]
        from_json: Option<String>,
    },
    /// Show a role
    #[command(after_help = "\
Examples:
  strongroom role get pg/readers
  strongroom role get pg/readers --output json | jq .definition")]
    Get {
        /// MOUNT/NAME
        path: String,
    },
    /// List the roles of a mount
    #[command(after_help = "\
Examples:
  strongroom role list pg")]
    List {
        /// The mount
        mount: String,
    },
    /// Delete a role; its leases live on until their expiry
    #[command(after_help = "\
Examples:
  strongroom role delete pg/readers")]
    Delete {
        /// MOUNT/NAME
        path: String,
    },
}

impl Role {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        match self {
            Self::Put {
                path,
                settings,
                from_json,
            } => {
                let definition = settings_of(context, &settings, from_json.as_deref())?.unwrap_or_else(|| json!({}));
                let request = v1::RolePutRequest {
                    path: path.clone(),
                    definition_json: definition.to_string(),
                    ..Default::default()
                };
                context
                    .client()
                    .await?
                    .change(request, |s, r| async move { s.mount().put_role(r).await })
                    .await?;
                Ok(Answer::said(json!({"path": path}), format!("{path}: written")))
            }
            Self::Get { path } => {
                let request = v1::RoleGetRequest { path };
                let role = context
                    .client()
                    .await?
                    .read(request, |s, r| async move { s.mount().get_role(r).await })
                    .await?;
                let (definition, mut pairs) = object_shown(&role.definition_json)?;
                pairs.push(("created_at".to_owned(), role.created_at.clone()));
                let json = json!({"path": role.path, "definition": definition, "created_at": role.created_at});
                Ok(Answer::new(json, Human::Pairs(pairs)))
            }
            Self::List { mount } => list(context, mount).await,
            Self::Delete { path } => {
                let request = v1::RoleDeleteRequest {
                    path: path.clone(),
                    ..Default::default()
                };
                context
                    .client()
                    .await?
                    .change(request, |s, r| async move { s.mount().delete_role(r).await })
                    .await?;
                Ok(Answer::said(json!({"path": path}), format!("{path}: deleted")))
            }
        }
    }
}

async fn list(context: &Context, mount: String) -> Result<Answer, Failure> {
    let client = context.client().await?;
    let mut request = v1::RoleListRequest {
        mount: mount.clone(),
        page_size: PAGE,
        ..Default::default()
    };
    let mut names = Vec::new();
    loop {
        let page = client
            .read(request.clone(), |s, r| async move { s.mount().list_roles(r).await })
            .await?;
        names.extend(page.names);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    names.sort();
    let rows = names.iter().map(|name| vec![name.clone()]).collect();
    Ok(Answer::new(
        json!({"mount": mount, "names": names}),
        Human::Table {
            head: vec!["name"],
            rows,
        },
    ))
}
