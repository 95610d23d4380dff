//! `strongroom policy who-can`: who could do something, and on which conditions. Nothing is guessed: what depends on the circumstances of a
//! call is named.

use super::documents;
use crate::{
    context::Context,
    failure::Failure,
    group::identities,
    output::{Answer, Human},
};
use clap::Args;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use strongroom_client::{Client, Error, v1};
use strongroom_policy::{
    Action, Binding, Clause, Context as Call, Peer, PolicySet, Principal, Prospect, Purpose, Request, needs_no_policy,
};

/// What about.
#[derive(Debug, Args)]
pub struct WhoCan {
    /// `read`, `write`, `issue`, ...: the schema lists them
    action: String,
    /// The path it acts on
    path: String,
}

/// Somebody who could.
struct Row {
    kind: &'static str,
    name: String,
    tokens: Option<u64>,
    groups: Vec<String>,
    prospect: Prospect,
    /// Allowed whatever the circumstances.
    always: bool,
}

impl WhoCan {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        let action: Action = self.action.parse().map_err(|error| {
            Failure::usage(
                format!("{}: {error}", self.action),
                "the policy language lists the actions",
            )
        })?;
        let client = context.client().await?;
        let set = documents::set(context, &documents::stored(&client).await?)?;
        let (mut rows, mut notes) = (Vec::new(), Vec::new());
        let everybody = identities(&client, None).await?;
        for identity in &everybody {
            rows.extend(of_identity(&set, action, &self.path, identity));
        }
        match trusts(&client).await {
            Ok(trusts) => rows.extend(
                trusts
                    .iter()
                    .filter_map(|trust| of_trust(&set, action, &self.path, trust)),
            ),
            Err(Error::Denied(_)) => notes.push("trusts are not shown: that takes `trust_read`".to_owned()),
            Err(error) => return Err(error.into()),
        }
        rows.extend(named(&set, action, &self.path, &everybody));
        notes.extend(powers(action, &self.path, &everybody));
        Ok(told(action, &self.path, rows, notes))
    }
}

fn principal(id: [u8; 16], name: &str, groups: &[String], attributes: BTreeMap<String, String>) -> Option<Principal> {
    Principal::new(id, name, groups.iter().cloned().collect(), attributes).ok()
}

fn of_identity(set: &PolicySet, action: Action, path: &str, identity: &v1::IdentityInfo) -> Option<Row> {
    let id = super::cases::id(&identity.id)?;
    let who = principal(id, &identity.name, &identity.groups, identity.attributes.clone())?;
    let prospect = set.prospect(&who, true, action, path);
    prospect.could().then(|| Row {
        kind: "identity",
        name: identity.name.clone(),
        tokens: Some(identity.tokens),
        groups: identity.groups.clone(),
        always: prospect.always(),
        prospect,
    })
}

/// A trust's name, and every group that it can give.
struct Trust {
    name: String,
    groups: Vec<String>,
}

async fn trusts(client: &Client) -> Result<Vec<Trust>, Error> {
    let listed = client
        .read(v1::TrustListRequest {}, |s, r| async move { s.trust().list(r).await })
        .await?;
    let mut trusts = Vec::new();
    for summary in listed.trusts {
        let request = v1::TrustGetRequest { name: summary.name };
        let got = client
            .read(request, |s, r| async move { s.trust().get(r).await })
            .await?;
        let mut groups = BTreeSet::new();
        collect_groups(&serde_json::from_str(&got.definition).unwrap_or_default(), &mut groups);
        trusts.push(Trust {
            name: got.name,
            groups: groups.into_iter().collect(),
        });
    }
    Ok(trusts)
}

/// Whatever stands under `groups`, at any depth.
fn collect_groups(value: &Value, groups: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                match (key.as_str(), value) {
                    ("groups", Value::Array(names)) => {
                        groups.extend(names.iter().filter_map(Value::as_str).map(str::to_owned));
                    }
                    _ => collect_groups(value, groups),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect_groups(value, groups)),
        _ => {}
    }
}

/// Whoever a trust lets in, if it gives them all the groups that it can; what it says of them (claims) is not known.
fn of_trust(set: &PolicySet, action: Action, path: &str, trust: &Trust) -> Option<Row> {
    let who = principal(
        [0; 16],
        &format!("login:{}", trust.name),
        &trust.groups,
        BTreeMap::new(),
    )?;
    let mut prospect = set.prospect(&who, false, action, path);
    if !prospect.could() {
        return None;
    }
    if !trust.groups.is_empty() {
        // Which groups a log-in gets depends on its proof; a permit for everybody would be a row of its own.
        let open = prospect.permits.iter_mut().filter(|permit| permit.condition.is_empty());
        open.for_each(|permit| permit.condition = "the log-in gets the group that the policy names".to_owned());
    }
    Some(Row {
        kind: "trust",
        name: trust.name.clone(),
        tokens: None,
        groups: trust.groups.clone(),
        always: prospect.always(),
        prospect,
    })
}

/// Groups and ids in permits that no known identity has: whoever gets them could.
fn named(set: &PolicySet, action: Action, path: &str, everybody: &[v1::IdentityInfo]) -> Vec<Row> {
    let (groups, ids) = set.named_by(action, path);
    let has = |group: &String| everybody.iter().any(|identity| identity.groups.contains(group));
    let known = |id: &String| everybody.iter().any(|identity| identity.id == *id);
    let group_rows = groups.into_iter().filter(|group| !has(group)).filter_map(|group| {
        let who = principal([0; 16], "whoever", std::slice::from_ref(&group), BTreeMap::new())?;
        Some((
            "group without known members",
            group,
            set.prospect(&who, false, action, path),
        ))
    });
    let id_rows = ids.into_iter().filter(|id| !known(id)).filter_map(|id| {
        let who = principal(super::cases::id(&id)?, "whoever", &[], BTreeMap::new())?;
        Some(("id of nobody known", id, set.prospect(&who, false, action, path)))
    });
    group_rows
        .chain(id_rows)
        .filter(|(_, _, prospect)| prospect.could())
        .map(|(kind, name, prospect)| Row {
            kind,
            name,
            tokens: None,
            groups: Vec::new(),
            always: prospect.always(),
            prospect,
        })
        .collect()
}

/// What no policy gives.
fn powers(action: Action, path: &str, everybody: &[v1::IdentityInfo]) -> Vec<String> {
    let mut notes = Vec::new();
    let held = |name: &str| {
        everybody
            .iter()
            .find(|identity| identity.name == name)
            .map_or(0, |identity| identity.tokens)
    };
    if held("setup") > 0 {
        notes.push(format!(
            "{} set-up tokens may do it unless a policy forbids them",
            held("setup")
        ));
    }
    let recovers = principal([0; 16], "recover", &[], BTreeMap::new()).is_some_and(|principal| {
        let context = Call {
            own: false,
            peer: Peer::Unix,
            now_unix_secs: 0,
            purpose: Purpose::Recover,
            token_age_secs: 0,
            binding: Binding::None,
            strength: 1,
        };
        let request = Request {
            principal: &principal,
            action,
            path,
            context: &context,
        };
        PolicySet::default().weigh(&request).allowed
    });
    if recovers {
        notes.push(format!(
            "{} recovery tokens may do it whatever the policies say; operators with a slot's factors can make one",
            held("recover")
        ));
    }
    if needs_no_policy(action) {
        notes.push("every caller may do it to what is its own, unless a policy forbids it".to_owned());
    }
    notes
}

fn clauses(clauses: &[Clause]) -> Vec<Value> {
    clauses
        .iter()
        .map(|clause| json!({"policy": clause.id, "condition": clause.condition}))
        .collect()
}

fn told(action: Action, path: &str, rows: Vec<Row>, notes: Vec<String>) -> Answer {
    let who: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "kind": row.kind, "name": row.name, "tokens": row.tokens, "groups": row.groups, "always": row.always,
                "permits": clauses(&row.prospect.permits), "forbids": clauses(&row.prospect.forbids),
            })
        })
        .collect();
    let json = json!({"action": action.to_string(), "path": path, "who": who, "notes": notes});
    let mut text = String::new();
    for row in &rows {
        let tokens = row
            .tokens
            .map(|tokens| format!(", {tokens} tokens"))
            .unwrap_or_default();
        let sure = if row.always { "always" } else { "on conditions" };
        text.push_str(&format!("{} {}: {sure}{tokens}\n", row.kind, row.name));
        let lines = [
            ("permitted by", &row.prospect.permits),
            ("unless forbidden by", &row.prospect.forbids),
        ];
        for (word, list) in lines {
            for clause in list {
                let condition = match clause.condition.as_str() {
                    "" => String::new(),
                    condition => format!(": {condition}"),
                };
                text.push_str(&format!("    {word} {}{condition}\n", clause.id));
            }
        }
    }
    if rows.is_empty() {
        text.push_str("nobody, by policy\n");
    }
    for note in &notes {
        text.push_str(&format!("note: {note}\n"));
    }
    Answer::new(json, Human::Text(text))
}
