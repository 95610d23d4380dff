//! The ceremony: shares of one slot towards one operation, by one holder or several.

use super::PATIENCE;
use crate::{
    context::Context,
    failure::Failure,
    input::{self, Source},
    output::{Answer, Human},
};
use clap::Args;
use serde_json::{Value, json};
use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
};
use strongroom_client::{Client, Error, Secret, v1};

/// Which slot, which session, and where shares come from. Never the shares themselves.
#[derive(Debug, Args)]
pub struct Factors {
    /// The slot whose factors are presented [default: the only one]
    #[arg(long, visible_alias = "with-slot", value_name = "NAME")]
    slot: Option<String>,
    /// The nonce that the first holder was given
    #[arg(long, value_name = "NONCE")]
    session: Option<String>,
    /// A file with a share, `-` for stdin; several may be given. Without it: a prompt, or stdin
    #[arg(long = "share-file", value_name = "FILE")]
    share_files: Vec<PathBuf>,
    /// Run a session once more that has every share, but failed (the HSM was away): presents nothing
    #[arg(long, requires = "session", conflicts_with = "share_files")]
    again: bool,
}

/// How far the ceremony got.
#[derive(Debug)]
pub struct Presented {
    pub done: bool,
    pub answer: v1::PresentResponse,
    /// What the next holder types.
    next_command: String,
}

impl Presented {
    pub fn warnings(&self) -> Value {
        json!(self.answer.warnings)
    }
}

pub async fn status(client: &Client) -> Result<v1::StatusResponse, Failure> {
    Ok(client
        .read(v1::StatusRequest {}, |s, r| async move { s.operator().status(r).await })
        .await?)
}

/// Presents what this holder has. `again` is the command without the flags of [`Factors`].
pub async fn ceremony(
    context: &Context,
    client: &Client,
    status: &v1::StatusResponse,
    operation: v1::operation::Kind,
    factors: &Factors,
    again: &str,
) -> Result<Presented, Failure> {
    let slot = choose(status, factors.slot.as_deref())?;
    let shares = match slot.factors.contains("quorum") {
        true if factors.again => vec![("session".to_owned(), Secret::new(Vec::new()))],
        true => factors.shares(context, &slot.name)?,
        false => vec![("the HSM".to_owned(), Secret::new(Vec::new()))],
    };
    let client = context.patient(client, PATIENCE);
    let mut session = factors.session.clone().unwrap_or_default();
    let mut last = None;
    for (name, share) in &shares {
        let request = v1::PresentRequest {
            slot: slot.name.clone(),
            session: session.clone(),
            share: share.expose_str()?.to_owned(),
            operation: Some(v1::Operation {
                kind: Some(operation.clone()),
            }),
            ..Default::default()
        };
        let answer = client
            .change(request, |s, r| async move { s.operator().present(r).await })
            .await
            .map_err(|error| {
                let goes_on = !session.is_empty() && may_pass(&error);
                let failure = Failure::from(error).during(name);
                match goes_on {
                    false => failure,
                    true => failure.next(format!(
                        "the session goes on; present that share again (or, once every share is in, --again instead of one): {}",
                        command(context, again, &slot.name, &session)
                    )),
                }
            })?;
        // The last one ends the session, which then counts nothing any more.
        let far = match answer.done {
            true => String::new(),
            false => format!(", {} of {}", answer.have, answer.need),
        };
        context.out.notice(&format!("{name}: accepted{far}"));
        session.clone_from(&answer.session);
        let done = answer.done;
        last = Some(answer);
        if done {
            break;
        }
    }
    let Some(answer) = last else {
        return Err(Failure::usage(
            "there is no share",
            "give one at the prompt, on stdin, or with --share-file",
        ));
    };
    for warning in &answer.warnings {
        context.out.notice(&format!("warning: {warning}"));
    }
    let next_command = command(context, again, &slot.name, &session);
    Ok(Presented {
        done: answer.done,
        answer,
        next_command,
    })
}

/// Whether the session stays complete and its operation may be run again: what failed is not a share, and passes.
fn may_pass(error: &Error) -> bool {
    let passes = [
        "HSM_UNAVAILABLE",
        "HSM_PIN_REFUSED",
        "STORAGE_FULL",
        "AUDIT_UNAVAILABLE",
        "STORAGE_UNAVAILABLE",
    ];
    matches!(error, Error::Unavailable(_) | Error::Indeterminate(_))
        || error.reason().is_some_and(|reason| passes.contains(&reason))
}

/// What is shown while more holders are needed.
pub fn unfinished(context: &Context, presented: &Presented) -> Answer {
    let Presented {
        answer, next_command, ..
    } = presented;
    let json = json!({
        "done": false,
        "have": answer.have,
        "need": answer.need,
        "session": answer.session,
        "expires_in_secs": answer.expires_in_secs,
        "next_command": next_command,
        "warnings": answer.warnings,
    });
    context
        .out
        .notice("the nonce is for the other holders of this slot alone: with it a session can be given up");
    let text = format!(
        "{} of {} shares. The session ends in {} s. The next holder types:\n  {next_command}\n",
        answer.have, answer.need, answer.expires_in_secs,
    );
    Answer::new(json, Human::Text(text))
}

/// The slot that is named, or the only one.
fn choose<'a>(status: &'a v1::StatusResponse, name: Option<&str>) -> Result<&'a v1::Slot, Failure> {
    let names = || {
        status
            .slots
            .iter()
            .map(|s| format!("{} ({})", s.name, s.factors))
            .collect::<Vec<_>>()
            .join(", ")
    };
    match (name, status.slots.as_slice()) {
        (_, []) => Err(Failure {
            kind: "blank",
            reason: None,
            request_id: None,
            message: "there are no key slots: the vault was never initialised".to_owned(),
            next: "`strongroom operator init` on the daemon's host".to_owned(),
            exit: crate::failure::Exit::Sealed,
        }),
        (None, [only]) => Ok(only),
        (None, _) => Err(Failure::usage(
            "there are several key slots",
            format!("name one with --slot: {}", names()),
        )),
        (Some(name), slots) => slots.iter().find(|slot| slot.name == name).ok_or_else(|| {
            Failure::usage(
                format!("there is no key slot `{name}`"),
                format!("the slots are: {}", names()),
            )
        }),
    }
}

impl Factors {
    /// This holder's shares, each with a name for messages that is not the share.
    fn shares(&self, context: &Context, slot: &str) -> Result<Vec<(String, Secret)>, Failure> {
        if !self.share_files.is_empty() {
            let mut shares = Vec::new();
            for path in &self.share_files {
                let text = match path.as_os_str() == "-" {
                    true => context.bytes(&Source::Stdin, "share")?,
                    false => input::private_file(path)?,
                };
                let name = path.display().to_string();
                shares.extend(input::shares(&text)?.into_iter().map(|share| (name.clone(), share)));
            }
            return Ok(shares);
        }
        if io::stdin().is_terminal() {
            let share = input::one_line(&context.bytes(&Source::Prompt, &format!("share of slot `{slot}`"))?);
            return Ok(vec![("share".to_owned(), share)]);
        }
        let shares = input::shares(&context.bytes(&Source::Stdin, "share")?)?;
        Ok(shares
            .into_iter()
            .enumerate()
            .map(|(i, share)| (format!("share in line {}", i + 1), share))
            .collect())
    }
}

fn command(context: &Context, again: &str, slot: &str, session: &str) -> String {
    let address = match &context.settings.address_flag {
        Some(address) => format!(" --address {address}"),
        None => String::new(),
    };
    format!("strongroom{address} {again} --slot {slot} --session {session}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(slots: &[(&str, &str)]) -> v1::StatusResponse {
        let slots = slots
            .iter()
            .map(|(n, f)| v1::Slot {
                name: (*n).into(),
                factors: (*f).into(),
                ..Default::default()
            })
            .collect();
        v1::StatusResponse {
            slots,
            ..Default::default()
        }
    }

    /// R-SEAL-3: an operator who names no slot is told which there are.
    #[test]
    fn the_slot_is_the_only_one_or_the_named_one() {
        let one = with(&[("daily", "hsm+quorum:3/5")]);
        let two = with(&[("daily", "hsm+quorum:3/5"), ("break-glass", "quorum:4/7")]);
        assert_eq!(choose(&one, None).unwrap().name, "daily");
        assert_eq!(choose(&two, Some("break-glass")).unwrap().factors, "quorum:4/7");
        let unnamed = choose(&two, None).unwrap_err();
        assert!(
            unnamed
                .next
                .contains("daily (hsm+quorum:3/5), break-glass (quorum:4/7)"),
            "{}",
            unnamed.next
        );
        assert_eq!(choose(&two, Some("dayli")).unwrap_err().exit.code(), 2);
        assert_eq!(choose(&with(&[]), None).unwrap_err().exit.code(), 5);
    }
}
