//! `strongroom group`: sets of identities. A group is a name that identities carry; it is there while somebody is in it.

use crate::{
    context::Context,
    failure::Failure,
    identity,
    output::{Answer, Human},
};
use clap::Subcommand;
use serde_json::json;
use std::collections::BTreeMap;
use strongroom_client::{Client, Error, v1};

/// Identities asked for in one page.
const PAGE: u32 = 1000;

#[derive(Debug, Subcommand)]
pub enum Group {
    /// Make a group of these members; identities that are not there yet are made
    #[command(after_help = "\
Examples:
  strongroom group create payments alice bob")]
    Create {
        /// `[a-z0-9][a-z0-9._-]{0,63}`
        group: String,
        /// Identities
        #[arg(required = true)]
        members: Vec<String>,
    },
    /// List groups, with how many identities are in each
    #[command(after_help = "\
Examples:
  strongroom group list")]
    List,
    /// Show who is in a group
    #[command(after_help = "\
Examples:
  strongroom group show payments")]
    Show {
        /// The group
        group: String,
    },
    /// Put identities into a group; their live tokens gain what it may at once
    #[command(after_help = "\
Examples:
  strongroom group add payments carol")]
    Add {
        /// The group
        group: String,
        /// Identities; they must exist
        #[arg(required = true)]
        members: Vec<String>,
    },
    /// Take identities out of a group; their live tokens lose what it may at once
    #[command(after_help = "\
Examples:
  strongroom group remove payments bob")]
    Remove {
        /// The group
        group: String,
        /// Identities
        #[arg(required = true)]
        members: Vec<String>,
    },
    /// Take everybody out of a group; policies and trusts that name it stay as they are
    #[command(after_help = "\
Examples:
  strongroom group delete payments")]
    Delete {
        /// The group
        group: String,
    },
}

impl Group {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        let client = context.client().await?;
        match self {
            Self::Create { group, members } => {
                let there = identities(&client, Some(group.clone())).await?;
                if !there.is_empty() {
                    return Err(Failure::other(
                        format!("{group}: there is such a group, of {}", there.len()),
                        format!("`strongroom group add {group} NAME` puts somebody into it"),
                    ));
                }
                each(&client, &group, &members, Edit::Create).await
            }
            Self::List => list(&client).await,
            Self::Show { group } => Ok(identity::listed(&identities(&client, Some(group)).await?)),
            Self::Add { group, members } => each(&client, &group, &members, Edit::Add).await,
            Self::Remove { group, members } => each(&client, &group, &members, Edit::Remove).await,
            Self::Delete { group } => {
                let members = identities(&client, Some(group.clone())).await?;
                let members: Vec<_> = members.into_iter().map(|member| member.name).collect();
                each(&client, &group, &members, Edit::Remove).await
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Edit {
    Create,
    Add,
    Remove,
}

/// One change a member; the first that fails ends it, and says how far it came.
async fn each(client: &Client, group: &str, members: &[String], edit: Edit) -> Result<Answer, Failure> {
    for (done, member) in members.iter().enumerate() {
        let groups = vec![group.to_owned()];
        let (add_groups, remove_groups) = match edit {
            Edit::Create | Edit::Add => (groups, Vec::new()),
            Edit::Remove => (Vec::new(), groups),
        };
        let request = v1::IdentityPutRequest {
            name: member.clone(),
            add_groups,
            remove_groups,
            must_exist: edit != Edit::Create,
            ..Default::default()
        };
        let changed = client.change(request, |s, r| async move { s.identity().put(r).await });
        changed.await.map_err(|error| {
            Failure::from(error).during(&format!("{member}, after {done} of {} were changed", members.len()))
        })?;
    }
    let word = if edit == Edit::Remove { "taken out" } else { "put in" };
    let json = json!({"group": group, "members": members});
    Ok(Answer::said(json, format!("{group}: {} {word}", members.len())))
}

async fn list(client: &Client) -> Result<Answer, Failure> {
    let mut groups = BTreeMap::<String, Vec<String>>::new();
    for identity in identities(client, None).await? {
        for group in identity.groups {
            groups.entry(group).or_default().push(identity.name.clone());
        }
    }
    let json: Vec<_> = groups
        .iter()
        .map(|(group, members)| json!({"group": group, "members": members}))
        .collect();
    let rows = groups
        .iter()
        .map(|(group, members)| vec![group.clone(), members.len().to_string()]);
    Ok(Answer::new(
        json!({"groups": json}),
        Human::Table {
            head: vec!["group", "members"],
            rows: rows.collect(),
        },
    ))
}

/// Every identity that the caller may see, or every member of a group.
pub async fn identities(client: &Client, group: Option<String>) -> Result<Vec<v1::IdentityInfo>, Error> {
    let mut request = v1::IdentityListRequest {
        page_size: PAGE,
        group: group.unwrap_or_default(),
        ..Default::default()
    };
    let mut found = Vec::new();
    loop {
        let page = client
            .read(request.clone(), |s, r| async move { s.identity().list(r).await })
            .await?;
        found.extend(page.identities);
        if page.next_page_token.is_empty() {
            return Ok(found);
        }
        request.page_token = page.next_page_token;
    }
}
