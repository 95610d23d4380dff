//! `strongroom auth`: which ways there are to log in. A method is there when a trust uses it; trusts are written with `strongroom trust`.

use crate::{
    context::Context,
    failure::Failure,
    output::{Answer, Human, or_dash},
};
use clap::Subcommand;
use serde_json::{Value, json};
use strongroom_client::{Client, v1};

#[derive(Debug, Subcommand)]
pub enum Auth {
    /// List every method, the trusts that use it, and how to log in with it
    #[command(after_help = "\
Examples:
  strongroom auth list
  strongroom auth list --output json")]
    List,
    /// Show how to log in by one trust, and what that gives
    #[command(after_help = "\
Examples:
  strongroom auth show people")]
    Show {
        /// The trust
        trust: String,
    },
}

/// The daemon's word, whom it is for, and the command, with `TRUST` where the trust's name belongs.
const METHODS: [(&str, &str, &str); 5] = [
    ("oidc", "people, by an OpenID provider", "strongroom login oidc TRUST"),
    (
        "jwt",
        "pipelines, pods and other machines with a JWT",
        "strongroom login jwt @FILE --trust TRUST",
    ),
    (
        "role",
        "applications with a secret id",
        "strongroom login role ROLE_ID @FILE",
    ),
    (
        "certificate",
        "services with a client certificate",
        "strongroom login certificate TRUST --client-cert FILE --client-key FILE",
    ),
    (
        "unix",
        "users of the daemon's own machine",
        "strongroom login peer TRUST",
    ),
];

fn command(method: &str) -> &'static str {
    METHODS
        .iter()
        .find(|(word, ..)| *word == method)
        .map_or("a newer strongroom knows how", |(.., command)| command)
}

impl Auth {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        let client = context.client().await?;
        match self {
            Self::List => list(&client).await,
            Self::Show { trust } => show(&client, trust).await,
        }
    }
}

async fn list(client: &Client) -> Result<Answer, Failure> {
    let got = client
        .read(v1::TrustListRequest {}, |s, r| async move { s.trust().list(r).await })
        .await?;
    let methods = METHODS.map(|(method, who, command)| {
        let used = got.trusts.iter().filter(|trust| trust.method == method);
        (
            method,
            who,
            command,
            used.map(|trust| trust.name.clone()).collect::<Vec<_>>(),
        )
    });
    let json: Vec<_> = methods
        .iter()
        .map(|(method, who, command, trusts)| json!({"method": method, "for": who, "on": !trusts.is_empty(), "trusts": trusts, "command": command}))
        .collect();
    let rows = methods
        .into_iter()
        .map(|(method, who, command, trusts)| {
            vec![
                method.to_owned(),
                or_dash(&trusts.join(", ")),
                who.to_owned(),
                command.to_owned(),
            ]
        })
        .collect();
    let head = vec!["method", "trusts", "for", "log in with"];
    Ok(Answer::new(json!({"methods": json}), Human::Table { head, rows }))
}

async fn show(client: &Client, name: String) -> Result<Answer, Failure> {
    let request = v1::TrustGetRequest { name };
    let got = client
        .read(request, |s, r| async move { s.trust().get(r).await })
        .await?;
    let definition: Value = serde_json::from_str(&got.definition)
        .map_err(|error| Failure::other("the daemon's answer is no JSON", error.to_string()))?;
    let method = METHODS
        .iter()
        .map(|(method, ..)| *method)
        .find(|method| definition.get(method).is_some());
    let method = method.unwrap_or("unknown");
    let part = definition.get(method).cloned().unwrap_or_default();
    let (ttl, max_ttl) = (secs(&definition, "ttl_secs"), secs(&definition, "max_ttl_secs"));
    let groups = groups(&part);
    let mut command = command(method)
        .replace("TRUST", &got.name)
        .replace("ROLE_ID", &or_dash(&got.role_id));
    if part.get("device") == Some(&true.into()) {
        command.push_str(" [--device]");
    }
    let json = json!({
        "trust": got.name, "method": method, "issuer": part.get("issuer"), "groups": groups, "ttl_secs": ttl,
        "max_ttl_secs": max_ttl.max(ttl), "sealed": max_ttl.max(ttl) <= 900, "command": command,
        "has_client_secret": got.has_client_secret,
    });
    let issuer = part.get("issuer").and_then(Value::as_str).unwrap_or_default();
    let pairs = [
        ("trust", got.name),
        ("method", method.to_owned()),
        ("issuer", or_dash(issuer)),
        ("groups", or_dash(&groups.join(", "))),
        ("tokens live", format!("{ttl} s, renewed up to {} s", max_ttl.max(ttl))),
        ("log in with", command),
    ];
    Ok(Answer::pairs(json, pairs))
}

/// A number of the trust's `token`.
fn secs(definition: &Value, name: &str) -> u64 {
    let token = definition.get("token");
    token
        .and_then(|token| token.get(name))
        .and_then(Value::as_u64)
        .unwrap_or(0)
}

/// Every group that it can give.
fn groups(part: &Value) -> Vec<String> {
    let bindings = part.get("bind").and_then(Value::as_array).into_iter().flatten();
    let lists = bindings.chain([part]).filter_map(|one| one.get("groups")?.as_array());
    let mut groups: Vec<_> = lists
        .flatten()
        .filter_map(|group| group.as_str().map(str::to_owned))
        .collect();
    groups.sort();
    groups.dedup();
    groups
}
