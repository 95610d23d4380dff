//! `strongroom operator slots`: the ways to open the vault. A change needs an existing slot's factors.

use super::{init::slot_spec, present, present::Factors, shares::Delivery};
use crate::{
    context::Context,
    failure::Failure,
    output::{Answer, Human, or_dash},
};
use clap::Subcommand;
use serde_json::json;
use std::path::PathBuf;
use strongroom_client::v1::{self, operation::Kind};

#[derive(Debug, Subcommand)]
pub enum Slots {
    /// List key slots
    #[command(after_help = "\
Examples:
  strongroom operator slots list")]
    List,
    /// Add a slot; prints its shares, once
    #[command(after_help = "\
Examples:
  strongroom operator slots add break-glass=quorum:4/7 --with-slot daily
  strongroom operator slots add break-glass=quorum:4/7 --with-slot daily --share-file 1.share --share-file 2.share --shares-dir /mnt/usb")]
    Add {
        /// NAME=FACTORS[@HSM,...], as for `operator init`
        #[arg(value_parser = slot_spec)]
        spec: v1::SlotSpec,
        /// Which slot authorises this, and its shares.
        #[command(flatten)]
        factors: Factors,
        /// Write each new share to a file of its own (mode 0600) in this directory
        #[arg(long, value_name = "DIR")]
        shares_dir: Option<PathBuf>,
    },
    /// Remove a slot: its shares open nothing any more, except old backups
    #[command(after_help = "\
Examples:
  strongroom operator slots remove break-glass --with-slot daily")]
    Remove {
        /// The slot to remove
        name: String,
        /// Which slot authorises this, and its shares.
        #[command(flatten)]
        factors: Factors,
    },
    /// Give a slot new shares and a new seed; prints the shares, once
    #[command(after_help = "\
Examples:
  strongroom operator slots rekey daily=hsm+quorum:3/5 --with-slot daily
  strongroom operator slots rekey daily=hsm+quorum:2/4 --with-slot break-glass --shares-dir /mnt/usb")]
    Rekey {
        /// NAME=FACTORS[@HSM,...]: the slot, and the factors that it gets
        #[arg(value_parser = slot_spec)]
        spec: v1::SlotSpec,
        /// Which slot authorises this, and its shares.
        #[command(flatten)]
        factors: Factors,
        /// Write each new share to a file of its own (mode 0600) in this directory
        #[arg(long, value_name = "DIR")]
        shares_dir: Option<PathBuf>,
    },
    /// Prove that shares still open their slot, and note when
    #[command(after_help = "\
Examples:
  strongroom operator slots verify --slot break-glass")]
    Verify(Factors),
}

impl Slots {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        match self {
            Self::List => list(context).await,
            Self::Add {
                spec,
                factors,
                shares_dir,
            } => {
                let again = format!(
                    "operator slots add {}{}",
                    spec_text(&spec),
                    dir_flag(shares_dir.as_ref())
                );
                let done = format!("slot `{}` added", spec.name);
                change(context, Kind::AddSlot(spec), &factors, shares_dir, &again, &done).await
            }
            Self::Remove { name, factors } => {
                let again = format!("operator slots remove {name}");
                let done = format!("slot `{name}` removed; destroy old backups, which it still opens");
                change(
                    context,
                    Kind::RemoveSlot(v1::RemoveSlot { name }),
                    &factors,
                    None,
                    &again,
                    &done,
                )
                .await
            }
            Self::Rekey {
                spec,
                factors,
                shares_dir,
            } => {
                let again = format!(
                    "operator slots rekey {}{}",
                    spec_text(&spec),
                    dir_flag(shares_dir.as_ref())
                );
                let done = format!("slot `{}` has new shares; destroy the old ones", spec.name);
                change(
                    context,
                    Kind::RekeySlot(v1::RekeySlot { slot: Some(spec) }),
                    &factors,
                    shares_dir,
                    &again,
                    &done,
                )
                .await
            }
            Self::Verify(factors) => {
                let kind = Kind::VerifySlot(v1::VerifySlot {});
                change(
                    context,
                    kind,
                    &factors,
                    None,
                    "operator slots verify",
                    "the slot opens with these factors",
                )
                .await
            }
        }
    }
}

async fn change(
    context: &Context,
    kind: Kind,
    factors: &Factors,
    shares_dir: Option<PathBuf>,
    again: &str,
    done: &str,
) -> Result<Answer, Failure> {
    let delivery = Delivery::prepare(shares_dir)?;
    let client = context.client().await?;
    let status = present::status(&client).await?;
    let mut presented = present::ceremony(context, &client, &status, kind, factors, again).await?;
    if !presented.done {
        return Ok(present::unfinished(context, &presented));
    }
    let mut json = json!({"done": true, "warnings": presented.warnings()});
    let mut text = format!("{done}\n");
    if let Some(shares) = presented.answer.shares.take() {
        let sheet = delivery.hand_out(shares);
        json["shares"] = sheet.json;
        text = format!("{text}\n{}", sheet.text);
    }
    Ok(Answer::new(json, Human::Text(text)).shown_once())
}

async fn list(context: &Context) -> Result<Answer, Failure> {
    let client = context.client().await?;
    let list = client
        .read(v1::ListSlotsRequest {}, |s, r| async move {
            s.operator().list_slots(r).await
        })
        .await?;
    let json = json!({"slots": list.slots.iter().map(super::status::slot_json).collect::<Vec<_>>()});
    let rows = list
        .slots
        .iter()
        .map(|s| {
            vec![
                s.name.clone(),
                s.factors.clone(),
                or_dash(&s.hsms.join(", ")),
                or_dash(&s.share_set),
                s.created_at.clone(),
                or_dash(&s.verified_at),
            ]
        })
        .collect();
    let head = vec!["name", "factors", "hsms", "share set", "created", "verified"];
    Ok(Answer::new(json, Human::Table { head, rows }))
}

fn spec_text(spec: &v1::SlotSpec) -> String {
    let hsms = if spec.hsms.is_empty() {
        String::new()
    } else {
        format!("@{}", spec.hsms.join(","))
    };
    format!("{}={}{hsms}", spec.name, spec.factors)
}

fn dir_flag(dir: Option<&PathBuf>) -> String {
    dir.map_or_else(String::new, |dir| format!(" --shares-dir {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The command that the next holder is shown means the same slot.
    #[test]
    fn a_slot_is_written_as_it_is_read() {
        for text in ["daily=hsm+quorum:3/5", "auto=hsm@a,b", "break-glass=quorum:4/7"] {
            assert_eq!(spec_text(&slot_spec(text).unwrap()), text);
        }
    }
}
