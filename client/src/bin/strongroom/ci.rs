//! `strongroom ci`: what a job's token can do, and why not.

use crate::{
    context::Context,
    failure::{Exit, Failure},
    input::Source,
    output::{Answer, Human},
};
use clap::Subcommand;
use serde_json::json;
use strongroom_client::{Client, v1};

#[derive(Debug, Subcommand)]
pub enum Ci {
    /// Every check of a JWT, whom it would log in, and what that one could do; uses nothing up. Exit code 3 when it would be refused
    #[command(after_help = "\
Examples:
  strongroom ci explain - < token.jwt
  strongroom ci explain @token.jwt --can read:kv/prod/db --can issue:pg/readers")]
    Explain {
        /// Where the JWT comes from: `-`, `@FILE` or `prompt`
        #[arg(default_value = "-", value_name = "SOURCE")]
        from: Source,
        /// Also ask whether policies would let it do this
        #[arg(long = "can", value_name = "ACTION:PATH", value_parser = act)]
        acts: Vec<(String, String)>,
    },
}

fn act(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((action, path)) if !action.is_empty() && !path.is_empty() => Ok((action.to_owned(), path.to_owned())),
        _ => Err("write ACTION:PATH, such as read:kv/prod/db".to_owned()),
    }
}

impl Ci {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        let Self::Explain { from, acts } = self;
        let jwt = context.line(&from, "JWT")?;
        let request = v1::LoginExplainRequest {
            jwt: jwt.expose_str()?.to_owned(),
        };
        let client = context.client().await?;
        let told = client
            .read(request, |s, r| async move { s.login().explain(r).await })
            .await?;
        let mut decisions = Vec::new();
        if told.accepted {
            for (action, path) in acts {
                decisions.push(decision(&client, &told, action, path).await?);
            }
        }
        Ok(answer(told, decisions))
    }
}

/// What was asked, whether it is allowed, and who decided.
struct Decision {
    action: String,
    path: String,
    said: v1::PolicyExplainResponse,
}

async fn decision(
    client: &Client,
    told: &v1::LoginExplainResponse,
    action: String,
    path: String,
) -> Result<Decision, Failure> {
    let request = v1::PolicyExplainRequest {
        action: action.clone(),
        path: path.clone(),
        identity: format!("login:{}", told.trust),
        groups: told.groups.clone(),
        attributes: told.attributes.clone(),
    };
    let said = client
        .read(request, |s, r| async move { s.policy().explain(r).await })
        .await?;
    Ok(Decision { action, path, said })
}

fn answer(told: v1::LoginExplainResponse, decisions: Vec<Decision>) -> Answer {
    let checks: Vec<_> = told
        .checks
        .iter()
        .map(|check| json!({"name": check.name, "passed": check.passed, "detail": check.detail}))
        .collect();
    let decided: Vec<_> = decisions
        .iter()
        .map(|one| {
            json!({"action": one.action, "path": one.path, "allowed": one.said.allowed, "deciding": one.said.deciding, "reason": one.said.reason})
        })
        .collect();
    let json = json!({
        "trust": told.trust,
        "accepted": told.accepted,
        "identity": told.identity,
        "groups": told.groups,
        "attributes": told.attributes,
        "ttl_secs": told.ttl_secs,
        "checks": checks,
        "decisions": decided,
    });
    let word = |passed: bool| if passed { "yes" } else { "NO" }.to_owned();
    let mut rows: Vec<_> = told
        .checks
        .into_iter()
        .map(|check| vec![check.name, word(check.passed), check.detail])
        .collect();
    rows.extend(
        told.groups
            .into_iter()
            .map(|group| vec!["group".to_owned(), word(true), group]),
    );
    rows.extend(
        told.attributes
            .into_iter()
            .map(|(key, value)| vec!["attribute".to_owned(), word(true), format!("{key} = {value}")]),
    );
    rows.extend(decisions.into_iter().map(|one| {
        let by = one.said.deciding.join(", ");
        vec![
            format!("can {}", one.action),
            word(one.said.allowed),
            format!("{}: {} {by}", one.path, one.said.reason),
        ]
    }));
    let exit = if told.accepted { Exit::Done } else { Exit::Denied };
    let head = vec!["check", "passed", "detail"];
    Answer::new(json, Human::Table { head, rows }).exit(exit)
}
