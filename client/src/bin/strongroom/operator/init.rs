//! `strongroom operator init`.

use super::{
    PATIENCE,
    shares::{Delivery, Sheet},
};
use crate::{
    context::Context,
    failure::Failure,
    output::{Answer, Human},
};
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;
use strongroom_client::{Secret, v1};

/// What `init` makes when no slot is named.
const DEFAULT_SLOT: &str = "daily=hsm+quorum:3/5";

/// A new vault.
#[derive(Debug, Args)]
pub struct Init {
    /// A key slot, NAME=FACTORS[@HSM,...] [default: daily=hsm+quorum:3/5]
    #[arg(long = "slot", value_name = "NAME=FACTORS", value_parser = slot_spec)]
    slots: Vec<v1::SlotSpec>,
    /// Write each share to a file of its own (mode 0600) in this directory instead of showing it
    #[arg(long, value_name = "DIR")]
    shares_dir: Option<PathBuf>,
    /// Write the set-up token to ~/.config/strongroom/token instead of showing it
    #[arg(long)]
    save_token: bool,
}

impl Init {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        let mut slots = self.slots;
        if slots.is_empty() {
            slots.push(slot_spec(DEFAULT_SLOT).map_err(|e| Failure::other(e, "name the slots with --slot"))?);
        }
        if slots.len() == 1 {
            context.out.notice(
                "note: a single slot. When it cannot be opened (lost shares, a dead HSM) everything is lost. Add \
                 another: `strongroom operator slots add break-glass=quorum:4/7`, or a second HSM.",
            );
        }
        // Before anything is made: what cannot be written later must fail now.
        let delivery = Delivery::prepare(self.shares_dir)?;
        let client = context.patient(&context.client_without_token().await?, PATIENCE);
        context
            .out
            .notice("creating the vault; an HSM may take a while to make its key");
        let made = client
            .once(
                v1::InitRequest { slots },
                |s, r| async move { s.operator().init(r).await },
            )
            .await
            .map_err(|e| Failure::from(e).during("init"))?;
        let sheets = made
            .shares
            .into_iter()
            .map(|shares| delivery.hand_out(shares))
            .collect::<Vec<_>>();

        let mut json = json!({
            "cluster_id": made.cluster_id,
            "slots": sheets.iter().map(|sheet| sheet.json.clone()).collect::<Vec<_>>(),
            "setup_token_ttl_secs": made.setup_token_ttl_secs,
            "audit_genesis": made.audit_genesis,
            "warnings": made.warnings,
        });
        let mut text = format!("cluster  {}\n\n", made.cluster_id);
        text.extend(sheets.iter().map(|sheet: &Sheet| sheet.text.clone()));
        let minutes = made.setup_token_ttl_secs / 60;
        text.push_str(&hand_out_token(
            context,
            &made.setup_token,
            minutes,
            self.save_token,
            &mut json,
        ));
        text.push_str(&format!(
            "\nGenesis of the audit log. Keep it elsewhere, `strongroom audit verify --genesis` takes it:\n  {}\n",
            made.audit_genesis
        ));
        for warning in &made.warnings {
            text.push_str(&format!("\nwarning: {warning}\n"));
        }
        Ok(Answer::new(json, Human::Text(text)).shown_once())
    }
}

/// Saves or shows the set-up token. One that could not be saved is shown rather than lost.
fn hand_out_token(context: &Context, token: &str, minutes: u64, save: bool, json: &mut Value) -> String {
    match save.then(|| crate::token::save(&Secret::from(token))) {
        Some(Ok(path)) => {
            json["token_file"] = json!(path);
            let path = path.display();
            return format!("The set-up token is in {path}. It may do everything and ends in {minutes} minutes.\n");
        }
        Some(Err(failure)) => context.out.notice(&format!("warning: {}", failure.message)),
        None => {}
    }
    json["setup_token"] = json!(token);
    format!(
        "Set-up token. It may do everything, ends in {minutes} minutes, and is shown once; keep it with\n\
         `strongroom token save`, then make policies and tokens of your own:\n  {token}\n"
    )
}

/// Parses `NAME=FACTORS[@HSM,...]`.
pub fn slot_spec(text: &str) -> Result<v1::SlotSpec, String> {
    let wrong =
        || "write NAME=FACTORS, for example daily=hsm+quorum:3/5, break-glass=quorum:4/7 or auto=hsm".to_owned();
    let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
    let (factors, hsms) = match rest.split_once('@') {
        Some((factors, hsms)) => (factors, hsms.split(',').map(str::to_owned).collect()),
        None => (rest, Vec::new()),
    };
    let quorum = match factors.split_once('+') {
        Some(("hsm", quorum)) => Some(quorum),
        Some(_) => return Err(wrong()),
        None if factors == "hsm" => None,
        None => Some(factors),
    };
    if let Some(quorum) = quorum {
        let (k, n) = quorum
            .strip_prefix("quorum:")
            .and_then(|q| q.split_once('/'))
            .ok_or_else(wrong)?;
        let (k, n): (u8, u8) = (k.parse().map_err(|_| wrong())?, n.parse().map_err(|_| wrong())?);
        if k == 0 || k > n {
            return Err(format!(
                "{k} of {n} shares cannot be: the first number is how many are needed of the second"
            ));
        }
    }
    let names_ok = !name.is_empty() && hsms.iter().all(|hsm: &String| !hsm.is_empty());
    if !names_ok || (!hsms.is_empty() && !factors.starts_with("hsm")) {
        return Err(wrong());
    }
    Ok(v1::SlotSpec {
        name: name.to_owned(),
        factors: factors.to_owned(),
        hsms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R-SEAL-2: every kind of slot can be written; anything else says how.
    #[test]
    fn slots_parse() {
        for (text, name, factors, hsms) in [
            (DEFAULT_SLOT, "daily", "hsm+quorum:3/5", 0),
            ("break-glass=quorum:4/7", "break-glass", "quorum:4/7", 0),
            ("auto=hsm", "auto", "hsm", 0),
            ("auto=hsm@a,b", "auto", "hsm", 2),
            ("d=hsm+quorum:1/1@a", "d", "hsm+quorum:1/1", 1),
        ] {
            let spec = slot_spec(text).unwrap();
            assert_eq!(
                (spec.name.as_str(), spec.factors.as_str(), spec.hsms.len()),
                (name, factors, hsms),
                "{text}"
            );
        }
        for wrong in [
            "daily",
            "=hsm",
            "d=",
            "d=quorum",
            "d=quorum:5/3",
            "d=quorum:0/3",
            "d=quorum:a/b",
            "d=quorum:3/999",
            "d=hsm+",
            "d=tpm",
            "d=hsm@",
            "d=hsm@a,,b",
            "d=quorum:2/3@a",
            "d=quorum:2/3+hsm",
        ] {
            assert!(slot_spec(wrong).is_err(), "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_slot_text_parses_or_is_refused(text in ".{0,60}") {
            let _ = slot_spec(&text);
        }
    }
}
