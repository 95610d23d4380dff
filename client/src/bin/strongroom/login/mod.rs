//! `strongroom login` and `strongroom logout`: from a proof to a token, and the end of it. `oidc` has the two log-ins of people, `browser`
//! waits for what a browser brings.

mod browser;
mod oidc;

use crate::{
    context::Context,
    failure::Failure,
    input::Source,
    output::{Answer, or_dash},
    settings::{key_cache, token_cache},
    token::{save, save_key},
};
use clap::{Args, Subcommand};
use serde_json::json;
use std::{fs, io, path::PathBuf};
use strongroom_client::{Client, Error, ProofKey, Secret, v1};

#[derive(Debug, Subcommand)]
pub enum Login {
    /// As a person, at the OpenID provider that a trust names: in a browser on this machine, or with a code that is typed anywhere
    #[command(after_help = "\
Examples:
  strongroom login oidc people
  strongroom login oidc people --no-browser
  strongroom login oidc people --device
  strongroom login oidc people --dpop")]
    Oidc {
        /// The trust
        trust: String,
        /// Show a code to type at the provider, on any device: for a terminal whose machine has no browser
        #[arg(long, conflicts_with_all = ["no_browser", "port"])]
        device: bool,
        /// Only show the URL; a browser on this machine must open it
        #[arg(long)]
        no_browser: bool,
        /// The port on 127.0.0.1 that the browser comes back to [default: the trust's, or any]
        #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
        port: Option<u16>,
        #[command(flatten)]
        keep: Keep,
    },
    /// With a JSON Web Token that a CI platform, Kubernetes or another issuer made
    #[command(after_help = "\
Examples:
  strongroom login jwt - < token.jwt
  strongroom login jwt @/var/run/secrets/strongroom/token --trust cluster-a
  strongroom login jwt - --show --output json < token.jwt
  strongroom login jwt - --dpop < token.jwt")]
    Jwt {
        /// Where the JWT comes from: `-`, `@FILE` or `prompt`
        #[arg(default_value = "-", value_name = "SOURCE")]
        from: Source,
        /// The trust [default: the one that names the JWT's issuer]
        #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
        trust: String,
        #[command(flatten)]
        keep: Keep,
    },
    /// As an app role: a role id, and a secret id that is good once
    #[command(after_help = "\
Examples:
  strongroom login role 1f3a5c7e9b1d4f6082a4c6e8f0b2d4e6 - < secret-id.txt
  strongroom login role 1f3a5c7e9b1d4f6082a4c6e8f0b2d4e6 @/run/app/secret-id --show")]
    Role {
        /// The role's id, which is public
        role_id: String,
        /// Where the secret id comes from: `-`, `@FILE` or `prompt`
        #[arg(default_value = "prompt", value_name = "SOURCE")]
        from: Source,
        #[command(flatten)]
        keep: Keep,
    },
    /// By the client certificate of the connection (--client-cert, --client-key); the token is bound to it
    #[command(after_help = "\
Examples:
  strongroom login certificate services --client-cert pay.pem --client-key pay.key")]
    Certificate {
        /// The trust
        trust: String,
        #[command(flatten)]
        keep: Keep,
    },
    /// As the user that runs this command, on the daemon's own machine
    #[command(after_help = "\
Examples:
  strongroom login peer local-services")]
    Peer {
        /// The trust
        trust: String,
        #[command(flatten)]
        keep: Keep,
    },
}

/// Where the token goes.
#[derive(Debug, Args)]
pub struct Keep {
    /// Show the token instead of writing ~/.config/strongroom/token
    #[arg(long)]
    show: bool,
    /// Bind the token to the client certificate of this connection: it is of no use without that
    #[arg(long, conflicts_with = "dpop")]
    bind: bool,
    /// Bind the token to a key (DPoP): it is of no use without that. The key is made when its file (--proof-key) is not there
    #[arg(long)]
    dpop: bool,
}

/// End the token that the commands use, with its session, its leases, and ~/.config/strongroom/token
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  strongroom logout")]
pub struct Logout;

impl Login {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        use v1::login_request::Proof;
        let (trust, proof, keep) = match self {
            Self::Oidc {
                trust,
                device,
                no_browser,
                port,
                keep,
            } => {
                let client = keep.client(context).await?;
                let done = match device {
                    true => oidc::by_device(context, &client, trust, keep.binding()).await?,
                    false => oidc::by_browser(context, &client, trust, keep.binding(), port, !no_browser).await?,
                };
                return answer(done, &keep);
            }
            Self::Jwt { from, trust, keep } => {
                let jwt = context.line(&from, "JWT")?;
                (trust, Proof::Jwt(jwt.expose_str()?.to_owned()), keep)
            }
            Self::Role { role_id, from, keep } => {
                let secret = context.line(&from, "secret id")?;
                let role = v1::LoginRole {
                    role_id,
                    secret_id: secret.expose_str()?.to_owned(),
                };
                (String::new(), Proof::Role(role), keep)
            }
            Self::Certificate { trust, keep } => (trust, Proof::Certificate(v1::LoginCertificate {}), keep),
            Self::Peer { trust, keep } => (trust, Proof::Peer(v1::LoginPeer {}), keep),
        };
        let request = v1::LoginRequest {
            trust,
            proof: Some(proof),
            binding: keep.binding().into(),
        };
        answer(log_in(&keep.client(context).await?, request).await?, &keep)
    }
}

/// Never repeated by itself: a proof may be good once only.
async fn log_in(client: &Client, request: v1::LoginRequest) -> Result<v1::LoginResponse, Error> {
    client
        .once(request, |s, r| async move { s.login().login(r).await })
        .await
}

impl Keep {
    fn binding(&self) -> v1::LoginBinding {
        match (self.bind, self.dpop) {
            (true, _) => v1::LoginBinding::Certificate,
            (_, true) => v1::LoginBinding::Dpop,
            _ => v1::LoginBinding::None,
        }
    }

    async fn client(&self, context: &Context) -> Result<Client, Failure> {
        if self.dpop {
            context.client_with_key(&proof_key(context)?).await
        } else {
            context.client_without_token().await
        }
    }
}

/// The key's file, made when it is not there.
fn proof_key(context: &Context) -> Result<PathBuf, Failure> {
    let path = match &context.settings.proof_key {
        Some(path) => path.clone(),
        None => key_cache().ok_or_else(|| {
            Failure::usage(
                "there is no home directory to keep a key in",
                "set HOME, or give --proof-key FILE",
            )
        })?,
    };
    if !path.exists() {
        let (_, pem) = ProofKey::generate()?;
        save_key(&path, &Secret::from(pem.as_str()))?;
    }
    Ok(path)
}

fn answer(done: v1::LoginResponse, keep: &Keep) -> Result<Answer, Failure> {
    let mut json = json!({
        "accessor": done.accessor,
        "session": done.session,
        "ttl_secs": done.ttl_secs,
        "expires_at": done.expires_at,
        "trust": done.trust,
        "groups": done.groups,
        "attributes": done.attributes,
        "sealed": done.sealed,
    });
    let kept = if keep.show {
        json["token"] = json!(done.token);
        ("token", done.token)
    } else {
        let path = save(&Secret::from(done.token))?;
        json["file"] = json!(path);
        ("file", path.display().to_string())
    };
    let rest = [
        ("trust", done.trust),
        ("groups", or_dash(&done.groups.join(", "))),
        ("accessor", done.accessor),
        ("expires_at", done.expires_at),
    ];
    let [a, b, c, d] = rest;
    let answer = Answer::pairs(json, [kept, a, b, c, d]);
    Ok(if keep.show { answer.shown_once() } else { answer })
}

impl Logout {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        let request = v1::TokenRevokeRequest {
            session: true,
            ..Default::default()
        };
        let client = context.client().await?;
        let ended = client
            .change(request, |s, r| async move { s.token().revoke(r).await })
            .await;
        // What has ended already is ended.
        let ended = match ended {
            Err(Error::Unauthenticated(_)) => false,
            other => other.map(|_| true)?,
        };
        for file in [token_cache(), key_cache()].into_iter().flatten() {
            if let Err(error) = fs::remove_file(&file)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(Failure::other(
                    format!("the token is ended, but {} cannot be removed: {error}", file.display()),
                    "remove it",
                ));
            }
        }
        let said = if ended {
            "logged out"
        } else {
            "the token had ended already"
        };
        Ok(Answer::said(json!({"ended": ended}), said.to_owned()))
    }
}
