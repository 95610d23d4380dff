//! `strongroom operator`: the seal and those who hold its shares.
//!
//! Reading order: `init`, `present` (the ceremony that unseal, slots and recover share), `shares` (how
//! shares go out, once), `slots`, `status`.

mod init;
mod present;
mod shares;
mod slots;
mod status;

use crate::{
    context::Context,
    failure::Failure,
    output::{Answer, Human},
};
use clap::{Subcommand, ValueEnum};
use present::Factors;
use serde_json::json;
use std::time::Duration;
use strongroom_client::{Secret, v1};

pub use status::state_name;

/// For work with an HSM, which makes and wraps keys.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Subcommand)]
pub enum Operator {
    /// Create the vault; prints shares and a set-up token, once
    ///
    /// Only over the Unix socket, from root or the daemon's own user. A slot is NAME=FACTORS; FACTORS are
    /// `hsm`, `quorum:K/N` or `hsm+quorum:K/N`; `@HSM,...` behind them names HSMs [default: all configured].
    #[command(after_help = "\
Examples:
  strongroom operator init
  strongroom operator init --slot daily=hsm+quorum:3/5 --slot break-glass=quorum:4/7
  strongroom operator init --slot daily=hsm+quorum:3/5 --shares-dir /mnt/usb --save-token
  strongroom operator init --slot daily=hsm@primary,backup

JSON: {cluster_id, slots: [{slot, shares | files}], setup_token | token_file, setup_token_ttl_secs, audit_genesis, warnings}.")]
    Init(init::Init),
    /// Present shares to unseal the vault
    ///
    /// Each holder presents their own share; the first is given a session nonce for the others. The share comes
    /// from a prompt, from stdin when that is not a terminal (one a line), or from files.
    #[command(after_help = "\
Examples:
  strongroom operator unseal
  strongroom operator unseal --slot daily --session 5f0c2d6a9b1e4837
  strongroom operator unseal --slot daily --share-file 1.share --share-file 2.share --share-file 3.share
  strongroom operator unseal --slot break-glass < my.share
  strongroom operator unseal --slot daily --session 5f0c2d6a9b1e4837 --again")]
    Unseal(Factors),
    /// Give up a session that others began or that went wrong
    #[command(after_help = "\
Examples:
  strongroom operator abandon --session 5f0c2d6a9b1e4837")]
    Abandon {
        /// Its nonce
        #[arg(long, value_name = "NONCE")]
        session: String,
    },
    /// Let an HSM try its PIN again after it was refused and has been mended
    ///
    /// Only over the Unix socket, from root or the daemon's own user. Tokens lock themselves after a few wrong PINs: mend the PIN first.
    #[command(after_help = "\
Examples:
  strongroom operator forgive-pin primary")]
    ForgivePin {
        /// Its name in the configuration, `[hsm.NAME]`
        #[arg(value_name = "NAME")]
        hsm: String,
    },
    /// Seal the vault: wipes the keys; nothing is served until it is unsealed
    ///
    /// Waits, for some seconds at most, for the requests in flight.
    #[command(after_help = "\
Examples:
  strongroom operator seal")]
    Seal,
    /// Show the vault's state, HSMs, sessions and warnings; exit code 5 unless it is open
    #[command(after_help = "\
Examples:
  strongroom operator status
  strongroom operator status --output json | jq -r .state")]
    Status,
    /// Key slots: the ways to open the vault
    #[command(
        subcommand,
        after_help = "\
Examples:
  strongroom operator slots list
  strongroom operator slots add break-glass=quorum:4/7 --with-slot daily"
    )]
    Slots(slots::Slots),
    /// Rotate a key
    #[command(after_help = "\
Examples:
  strongroom operator rotate data
  strongroom operator rotate root
  strongroom operator rotate hsm --hsm primary

data: a new generation of data keys; old data stays readable and is re-encrypted in the background.
root: a new root key, wrapped again for every slot.
hsm: a new key-encryption key in the HSM; the old one is destroyed after a check.")]
    Rotate {
        /// data, root or hsm
        key: Key,
        /// This HSM alone, by its name in the configuration
        #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
        hsm: String,
    },
    /// List the damaged records that were met: each is refused, the rest of the vault goes on
    ///
    /// One leaves the list when it is written anew or deleted. What a lost value was is in a backup, if there is one.
    #[command(after_help = "\
Examples:
  strongroom operator quarantine
  strongroom operator quarantine --output json | jq -r .records[]")]
    Quarantine,
    /// Say that the wall clock is right after a leap that holds the expiry of leases
    ///
    /// A leap of more than five minutes is not believed for an hour: a wrong clock would end every lease at once. `operator status` shows it.
    #[command(after_help = "\
Examples:
  strongroom operator confirm-time")]
    ConfirmTime,
    /// Mint a one-hour token for policy and auth alone, with a slot's factors: the way back when every admin
    /// token is dead or a policy refuses everyone
    #[command(after_help = "\
Examples:
  strongroom operator recover --slot daily
  strongroom operator recover --slot break-glass --share-file a.share --share-file b.share --save-token")]
    Recover {
        /// Which slot, and its shares.
        #[command(flatten)]
        factors: Factors,
        /// Write the token to ~/.config/strongroom/token instead of showing it
        #[arg(long)]
        save_token: bool,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Key {
    Data,
    Root,
    Hsm,
}

impl Operator {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        match self {
            Self::Init(init) => init.run(context).await,
            Self::Unseal(factors) => unseal(context, &factors).await,
            Self::ForgivePin { hsm } => {
                let client = context.client_without_token().await?;
                let request = v1::ForgivePinRequest { hsm: hsm.clone() };
                client
                    .once(request, |s, r| async move { s.operator().forgive_pin(r).await })
                    .await?;
                let text = format!("{hsm}: its PIN is tried again at its next use");
                Ok(Answer::said(json!({ "hsm": hsm }), &text))
            }
            Self::Abandon { session } => {
                let client = context.client_without_token().await?;
                client
                    .once(v1::AbandonRequest { session }, |s, r| async move {
                        s.operator().abandon(r).await
                    })
                    .await?;
                Ok(Answer::said(
                    json!({"abandoned": true}),
                    "the session is given up; nothing of it is kept",
                ))
            }
            Self::Seal => {
                let client = context.patient_client(PATIENCE).await?;
                client
                    .change(
                        v1::SealRequest::default(),
                        |s, r| async move { s.operator().seal(r).await },
                    )
                    .await?;
                Ok(Answer::said(json!({"state": "sealed"}), "sealed"))
            }
            Self::Status => status::run(context).await,
            Self::Slots(slots) => slots.run(context).await,
            Self::Rotate { key, hsm } => rotate(context, key, hsm).await,
            Self::Quarantine => {
                let request = v1::ListQuarantineRequest {};
                let client = context.client().await?;
                let listed = client
                    .read(request, |s, r| async move { s.operator().list_quarantine(r).await })
                    .await?;
                let rows = listed.records.iter().map(|record| vec![record.clone()]).collect();
                let json = json!({"records": listed.records, "met": listed.met});
                let head = vec!["record"];
                Ok(Answer::new(json, Human::Table { head, rows }))
            }
            Self::ConfirmTime => {
                let client = context.client().await?;
                let request = v1::ConfirmTimeRequest::default();
                let done = client
                    .change(request, |s, r| async move { s.operator().confirm_time(r).await })
                    .await?;
                let text = format!("the vault goes by {}", done.vault_time);
                Ok(Answer::said(json!({"vault_time": done.vault_time}), text))
            }
            Self::Recover { factors, save_token } => recover(context, &factors, save_token).await,
        }
    }
}

async fn unseal(context: &Context, factors: &Factors) -> Result<Answer, Failure> {
    let client = context.client_without_token().await?;
    let status = present::status(&client).await?;
    if status.state() == v1::VaultState::Open {
        return Ok(Answer::said(
            json!({"done": true, "state": "open"}),
            "the vault is open already",
        ));
    }
    let operation = v1::operation::Kind::Unseal(v1::Unseal {});
    let presented = present::ceremony(context, &client, &status, operation, factors, "operator unseal").await?;
    Ok(match presented.done {
        false => present::unfinished(context, &presented),
        true => Answer::said(
            json!({"done": true, "state": "open", "warnings": presented.warnings()}),
            "unsealed",
        ),
    })
}

async fn recover(context: &Context, factors: &Factors, save_token: bool) -> Result<Answer, Failure> {
    let client = context.client_without_token().await?;
    let status = present::status(&client).await?;
    let operation = v1::operation::Kind::Recover(v1::Recover {});
    let again = if save_token {
        "operator recover --save-token"
    } else {
        "operator recover"
    };
    let presented = present::ceremony(context, &client, &status, operation, factors, again).await?;
    if !presented.done {
        return Ok(present::unfinished(context, &presented));
    }
    let mut json =
        json!({"done": true, "token_ttl_secs": presented.answer.token_ttl_secs, "warnings": presented.warnings()});
    let minutes = presented.answer.token_ttl_secs / 60;
    let text = if save_token {
        let path = crate::token::save(&Secret::from(presented.answer.token.as_str()))?;
        json["token_file"] = json!(path);
        format!(
            "{} holds a token for policy and auth, for {minutes} minutes",
            path.display()
        )
    } else {
        json["token"] = json!(presented.answer.token);
        format!(
            "token for policy and auth, for {minutes} minutes, shown once:\n  {}",
            presented.answer.token
        )
    };
    Ok(Answer::said(json, text).shown_once())
}

async fn rotate(context: &Context, key: Key, hsm: String) -> Result<Answer, Failure> {
    if !hsm.is_empty() && !matches!(key, Key::Hsm) {
        return Err(Failure::usage("--hsm belongs to `rotate hsm` alone", "leave it out"));
    }
    let (kind, word) = match key {
        Key::Data => (v1::KeyKind::Data, "data"),
        Key::Root => (v1::KeyKind::Root, "root"),
        Key::Hsm => (v1::KeyKind::Hsm, "hsm"),
    };
    context.out.notice(&format!("rotating the {word} key"));
    let request = v1::RotateRequest {
        key: kind.into(),
        hsm,
        ..Default::default()
    };
    let client = context.patient_client(PATIENCE).await?;
    let done = client
        .change(request, |s, r| async move { s.operator().rotate(r).await })
        .await?;
    for warning in &done.warnings {
        context.out.notice(&format!("warning: {warning}"));
    }
    let json = json!({"key": word, "generation": done.generation, "warnings": done.warnings});
    Ok(Answer::said(
        json,
        format!("{word} key: generation {}", done.generation),
    ))
}
