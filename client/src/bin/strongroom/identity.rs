//! `strongroom identity`: whom tokens speak for.

use crate::{
    cli::pair,
    context::Context,
    failure::Failure,
    group::identities,
    output::{Answer, Human},
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use strongroom_client::v1;

#[derive(Debug, Subcommand)]
pub enum Identity {
    /// List identities
    #[command(after_help = "\
Examples:
  strongroom identity list
  strongroom identity list --group payments --output json")]
    List {
        /// Only members of this group
        #[arg(long, value_name = "GROUP")]
        group: Option<String>,
    },
    /// Show an identity: its id, groups, attributes and how many tokens it has
    #[command(after_help = "\
Examples:
  strongroom identity show
  strongroom identity show deployer")]
    Show {
        /// The identity [default: yourself]
        #[arg(default_value = "", hide_default_value = true)]
        name: String,
    },
    /// Make an identity, or change its groups and attributes; that holds for all its tokens at once
    #[command(after_help = "\
Examples:
  strongroom identity put deployer --add-group ci --attribute team=payments
  strongroom identity put deployer --remove-group ci --remove-attribute team")]
    Put(Put),
}

/// What to change.
#[derive(Debug, Args)]
pub struct Put {
    /// `[a-z0-9][a-z0-9._-]{0,63}`
    name: String,
    /// Put it into this group
    #[arg(long = "add-group", value_name = "GROUP")]
    add_groups: Vec<String>,
    /// Take it out of this group
    #[arg(long = "remove-group", value_name = "GROUP")]
    remove_groups: Vec<String>,
    /// Give it this attribute
    #[arg(long = "attribute", value_name = "KEY=VALUE", value_parser = pair)]
    attributes: Vec<(String, String)>,
    /// Take this attribute away
    #[arg(long = "remove-attribute", value_name = "KEY")]
    remove_attributes: Vec<String>,
    /// Fail when there is no such identity
    #[arg(long)]
    must_exist: bool,
}

impl Identity {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        let client = context.client().await?;
        match self {
            Self::List { group } => Ok(listed(&identities(&client, group).await?)),
            Self::Show { name } => {
                let request = v1::IdentityGetRequest { name };
                Ok(shown(
                    &client
                        .read(request, |s, r| async move { s.identity().get(r).await })
                        .await?,
                ))
            }
            Self::Put(put) => {
                let request = v1::IdentityPutRequest {
                    name: put.name,
                    add_groups: put.add_groups,
                    remove_groups: put.remove_groups,
                    set_attributes: put.attributes.into_iter().collect(),
                    remove_attributes: put.remove_attributes,
                    must_exist: put.must_exist,
                    ..Default::default()
                };
                let changed = client.change(request, |s, r| async move { s.identity().put(r).await });
                Ok(shown(&changed.await?))
            }
        }
    }
}

fn json(identity: &v1::IdentityInfo) -> Value {
    json!({
        "id": identity.id,
        "name": identity.name,
        "groups": identity.groups,
        "attributes": identity.attributes,
        "tokens": identity.tokens,
    })
}

fn attributes(identity: &v1::IdentityInfo) -> String {
    let pairs: Vec<_> = identity
        .attributes
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.join(" ")
}

fn shown(identity: &v1::IdentityInfo) -> Answer {
    let pairs = [
        ("name", identity.name.clone()),
        ("id", identity.id.clone()),
        ("groups", identity.groups.join(" ")),
        ("attributes", attributes(identity)),
        ("tokens", identity.tokens.to_string()),
    ];
    Answer::pairs(json(identity), pairs)
}

/// A table of identities.
pub fn listed(identities: &[v1::IdentityInfo]) -> Answer {
    let rows = identities.iter().map(|identity| {
        vec![
            identity.name.clone(),
            identity.groups.join(" "),
            attributes(identity),
            identity.tokens.to_string(),
            identity.id.clone(),
        ]
    });
    Answer::new(
        json!({"identities": identities.iter().map(json).collect::<Vec<_>>()}),
        Human::Table {
            head: vec!["name", "groups", "attributes", "tokens", "id"],
            rows: rows.collect(),
        },
    )
}
