//! `strongroom mount`: engines at paths.

use crate::{
    context::Context,
    failure::Failure,
    input::{self, Source},
    output::{Answer, Human, or_dash},
};
use clap::Subcommand;
use serde_json::{Map, Value, json};
use std::time::Duration;
use strongroom_client::{Error, v1};

/// For work that the engine does in its target.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Subcommand)]
pub enum Mount {
    /// Put an engine at a path
    #[command(after_help = "\
Examples:
  strongroom mount enable kv --kind kv
  strongroom mount enable pg --kind postgres --description 'orders'")]
    Enable {
        /// `kv`, `pg`, `team/kv`
        path: String,
        /// kv, mariadb, postgres, rabbitmq, redis or transit; `mount types` says what each is
        #[arg(long)]
        kind: String,
        /// Words for people
        #[arg(long, default_value = "", hide_default_value = true)]
        description: String,
    },
    /// Remove an engine: once it holds no secret; its leases are revoked first
    #[command(after_help = "\
Examples:
  strongroom mount disable pg
  strongroom mount disable pg --revoke-leases")]
    Disable {
        /// The mount
        path: String,
        /// Revoke the leases that live; without this they forbid it
        #[arg(long)]
        revoke_leases: bool,
    },
    /// List the kinds of engines and what they are configured with
    #[command(after_help = "\
Examples:
  strongroom mount types")]
    Types,
    /// List mounts
    #[command(after_help = "\
Examples:
  strongroom mount list")]
    List,
    /// Show a mount's configuration, or write and test it
    ///
    /// Without settings it shows what is there. With settings it writes the whole configuration: what is left
    /// out goes back to its default. A value that reads as JSON (5432, true, ["a"]) is that, @FILE is the text of a
    /// file, all else is text.
    #[command(after_help = "\
Examples:
  strongroom mount config pg
  strongroom mount config pg host=db.example.com dbname=orders username=strongroom manager=strongroom_manager --root-secret @root.pw
  strongroom mount config pg --from-json pg.json --root-secret prompt
  printf %s \"$ROOT\" | strongroom mount config pg host=/run/postgresql username=strongroom manager=strongroom_manager --root-secret -
  strongroom mount config my host=db.example.com username=strongroom marker=strongroom_orders ca_pem=@ca.pem --root-secret prompt
  strongroom mount config cache host=/run/redis/redis.sock username=strongroom marker=orders sslmode=disable --root-secret prompt
  strongroom mount config pg --test")]
    Config {
        /// The mount
        path: String,
        /// KEY=VALUE, the engine's settings; never its password
        #[arg(value_name = "SETTING")]
        settings: Vec<String>,
        /// Take the settings from a JSON object: a file, or `-` for stdin
        #[arg(long, value_name = "FILE", conflicts_with = "settings")]
        from_json: Option<String>,
        /// Where the engine's root password comes from: `-`, `@FILE` or `prompt` [default: keep the present one]
        #[arg(long, value_name = "SOURCE")]
        root_secret: Option<Source>,
        /// Do not test against the target
        #[arg(long)]
        skip_test: bool,
        /// Test what is there, without a change
        #[arg(long, conflicts_with_all = ["settings", "from_json", "root_secret", "skip_test"])]
        test: bool,
    },
    /// Rotate the engine's own root credential
    #[command(after_help = "\
Examples:
  strongroom mount rotate-root pg")]
    RotateRoot {
        /// The mount
        path: String,
    },
}

impl Mount {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        match self {
            Self::Enable {
                path,
                kind,
                description,
            } => {
                let request = v1::MountEnableRequest {
                    path: path.clone(),
                    kind: kind.clone(),
                    description,
                    ..Default::default()
                };
                context
                    .client()
                    .await?
                    .change(request, |s, r| async move { s.mount().enable(r).await })
                    .await?;
                Ok(Answer::said(
                    json!({"path": path, "kind": kind}),
                    format!("{path}: enabled, kind {kind}"),
                ))
            }
            Self::Disable { path, revoke_leases } => {
                let request = v1::MountDisableRequest {
                    path: path.clone(),
                    revoke_leases,
                    ..Default::default()
                };
                let client = context.patient_client(PATIENCE).await?;
                client
                    .change(request, |s, r| async move { s.mount().disable(r).await })
                    .await
                    .map_err(|error| match &error {
                        // What stands in the way, and the command that clears it, are in the daemon's words.
                        Error::Conflict(refusal) if refusal.reason == "NOT_POSSIBLE" => {
                            Failure::from(error).next("run the command that is named above")
                        }
                        _ => error.into(),
                    })?;
                Ok(Answer::said(json!({"path": path}), format!("{path}: disabled")))
            }
            Self::Types => Ok(types()),
            Self::List => list(context).await,
            Self::Config {
                path,
                settings,
                from_json,
                root_secret,
                skip_test,
                test,
            } => {
                let settings = settings_of(context, &settings, from_json.as_deref())?;
                match (settings, root_secret) {
                    (None, None) if !test => show(context, path).await,
                    (settings, secret) => configure(context, path, settings, secret, skip_test).await,
                }
            }
            Self::RotateRoot { path } => {
                let request = v1::MountRotateRootRequest {
                    path: path.clone(),
                    ..Default::default()
                };
                let client = context.patient_client(PATIENCE).await?;
                let rotated = client
                    .change(request, |s, r| async move { s.mount().rotate_root(r).await })
                    .await?;
                let said = format!("{path}: the root credential is now {}", rotated.account);
                Ok(Answer::said(json!({"path": path, "account": rotated.account}), said))
            }
        }
    }
}

/// The settings from the words or the JSON; `None` when there are neither.
pub fn settings_of(context: &Context, words: &[String], from_json: Option<&str>) -> Result<Option<Value>, Failure> {
    match from_json {
        Some(from) => {
            let source = if from == "-" {
                Source::Stdin
            } else {
                Source::File(from.into())
            };
            Ok(Some(Value::Object(input::json_object(
                &context.bytes(&source, "settings")?,
            )?)))
        }
        None if words.is_empty() => Ok(None),
        None => input::object(words).map(Some),
    }
}

/// A JSON object that the daemon sent as text, and its pairs for people.
pub fn object_shown(text: &str) -> Result<(Value, Vec<(String, String)>), Failure> {
    let object: Map<String, Value> = serde_json::from_str(text).map_err(|e| {
        Failure::other(
            format!("the daemon sent no JSON object: {e}"),
            "use a client of the daemon's version",
        )
    })?;
    let pairs = object
        .iter()
        .map(|(key, value)| match value {
            Value::String(text) => (key.clone(), text.clone()),
            other => (key.clone(), other.to_string()),
        })
        .collect();
    Ok((Value::Object(object), pairs))
}

/// Kind, what it is, and its settings: those that must be given, then `[the others]`. The engines' READMEs say what each means.
const TYPES: &[[&str; 3]] = &[
    ["kv", "versioned secrets", "-"],
    [
        "mariadb",
        "MariaDB 10.11 accounts",
        "host username marker [port database sslmode ca_pem connect_timeout_secs statement_timeout_secs connections]",
    ],
    [
        "postgres",
        "PostgreSQL 15 accounts",
        "host username manager [port dbname sslmode ca_pem connect_timeout_secs statement_timeout_secs connections databases formerly]",
    ],
    [
        "rabbitmq",
        "RabbitMQ 3.10 users",
        "host username marker [port sslmode ca_pem connect_timeout_secs statement_timeout_secs connections amqp_host amqp_port formerly]",
    ],
    [
        "redis",
        "Redis 7 ACL users",
        "host username marker [port sslmode ca_pem connect_timeout_secs statement_timeout_secs connections]",
    ],
    ["transit", "keys that encrypt and sign", "-"],
];

fn types() -> Answer {
    let json: Vec<_> = TYPES
        .iter()
        .map(|[kind, what, settings]| json!({"kind": kind, "what": what, "settings": settings}))
        .collect();
    let rows = TYPES
        .iter()
        .map(|row| row.iter().map(ToString::to_string).collect())
        .collect();
    Answer::new(
        json!({"types": json}),
        Human::Table {
            head: vec!["kind", "what", "settings"],
            rows,
        },
    )
}

async fn list(context: &Context) -> Result<Answer, Failure> {
    let client = context.client().await?;
    let list = client
        .read(v1::MountListRequest {}, |s, r| async move { s.mount().list(r).await })
        .await?;
    let rows = list
        .mounts
        .iter()
        .map(|m| {
            vec![
                m.path.clone(),
                m.kind.clone(),
                m.state.clone(),
                m.created_at.clone(),
                or_dash(&m.description),
            ]
        })
        .collect();
    let mounts: Vec<_> = list
        .mounts
        .iter()
        .map(|m| {
            json!({
                "path": m.path,
                "kind": m.kind,
                "state": m.state,
                "created_at": m.created_at,
                "description": m.description,
            })
        })
        .collect();
    Ok(Answer::new(
        json!({"mounts": mounts}),
        Human::Table {
            head: vec!["path", "kind", "state", "created", "description"],
            rows,
        },
    ))
}

async fn show(context: &Context, path: String) -> Result<Answer, Failure> {
    let request = v1::MountGetConfigRequest { path: path.clone() };
    let got = context
        .client()
        .await?
        .read(request, |s, r| async move { s.mount().get_config(r).await })
        .await?;
    let (config, pairs) = object_shown(&got.config_json)?;
    Ok(Answer::new(
        json!({"path": path, "config": config}),
        Human::Pairs(pairs),
    ))
}

async fn configure(
    context: &Context,
    path: String,
    settings: Option<Value>,
    secret: Option<Source>,
    skip_test: bool,
) -> Result<Answer, Failure> {
    let root_secret = match &secret {
        Some(source) => context.line(source, "root password")?.expose().to_vec(),
        None => Vec::new(),
    };
    let client = context.patient_client(PATIENCE).await?;
    let config_json = match settings {
        Some(settings) => settings.to_string(),
        // Only the secret changes, or nothing does: the configuration stays as it is.
        None => {
            let request = v1::MountGetConfigRequest { path: path.clone() };
            client
                .read(request, |s, r| async move { s.mount().get_config(r).await })
                .await?
                .config_json
        }
    };
    let request = v1::MountConfigureRequest {
        path: path.clone(),
        config_json,
        root_secret: root_secret.into(),
        skip_test,
        ..Default::default()
    };
    let done = client
        .change(request, |s, r| async move { s.mount().configure(r).await })
        .await?;
    let mut text = format!("{path}: configured\n");
    for check in &done.checks {
        text.push_str(&format!("  {check}\n"));
    }
    Ok(Answer::new(
        json!({"path": path, "checks": done.checks}),
        Human::Text(text),
    ))
}
