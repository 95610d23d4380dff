//! `strongroom policy simulate`: what was decided in the past, decided again under a change that is only proposed.

use super::{
    cases::{Question, binding, purpose, unix_secs},
    documents::{self, Change},
};
use crate::{
    context::Context,
    failure::{Exit, Failure},
    output::{Answer, Human},
};
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use strongroom_audit::{ParamValue, Record, Stage, Transport};
use strongroom_client::v1;
use strongroom_policy::{Context as Call, Decision, Peer, PolicySet, Principal};

/// Decisions that change, told apart; what is more is only counted.
const CHANGES_MAX: usize = 10_000;

/// The change, and which part of the past.
#[derive(Debug, Args)]
pub struct Simulate {
    #[command(flatten)]
    change: Change,
    /// The last so many records of the audit log
    #[arg(long, short = 'n', default_value_t = 10_000, value_name = "NUMBER")]
    last: u32,
    /// All records from this sequence number on
    #[arg(long, value_name = "SEQ", conflicts_with = "last")]
    from: Option<u64>,
}

/// Why a record cannot be decided again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Skipped {
    Undecided,
    Older,
    Attributes,
    Hashed,
    Strange,
}

impl Skipped {
    const fn words(self) -> &'static str {
        match self {
            Self::Undecided => "nothing was decided (the daemon's own acts, log-ins that failed, strangers)",
            Self::Older => "it was written before records said what was asked",
            Self::Attributes => "the caller had more attributes than a record keeps",
            Self::Hashed => "its path is hashed (audit.paths)",
            Self::Strange => "it cannot be read",
        }
    }
}

/// What was asked then; an error says why that is not known.
fn question(record: &Record<'_>) -> Result<(Question, bool), Skipped> {
    let (Some(policy), Some(identity), Some(path)) = (&record.policy, &record.identity, &record.path) else {
        return Err(Skipped::Undecided);
    };
    // An act's request and its outcome are one decision.
    if record.stage == Stage::Request {
        return Err(Skipped::Undecided);
    }
    let asked = policy.asked.as_ref().ok_or(Skipped::Older)?;
    if identity.without_attributes {
        return Err(Skipped::Attributes);
    }
    if path.starts_with("hmac-sha256:") {
        return Err(Skipped::Hashed);
    }
    let attributes = identity.attributes.iter().map(|(key, value)| match value {
        ParamValue::Text(text) => Ok((key.to_owned(), text.clone().into_owned())),
        _ => Err(Skipped::Strange),
    });
    let attributes = attributes.collect::<Result<_, _>>()?;
    let groups = identity.groups.iter().map(|group| group.clone().into_owned()).collect();
    let peer = match &record.source {
        Some(source) if source.transport == Transport::Unix => Some(Peer::Unix),
        Some(source) => source
            .addr
            .as_ref()
            .and_then(|addr| addr.parse::<std::net::SocketAddr>().ok())
            .map(|addr| Peer::Tls(addr.ip())),
        None => None,
    };
    let question = || {
        Some(Question {
            principal: Principal::new(identity.id.0, &identity.name, groups, attributes).ok()?,
            action: asked.action.parse().ok()?,
            path: path.clone().into_owned(),
            call: Call {
                own: asked.own,
                peer: peer?,
                now_unix_secs: unix_secs(&record.time)?,
                purpose: purpose(&asked.purpose)?,
                token_age_secs: asked.age_secs,
                binding: binding(&asked.binding)?,
                strength: asked.strength,
            },
        })
    };
    Ok((question().ok_or(Skipped::Strange)?, policy.decision == "allow"))
}

/// Decisions of one kind that change.
struct Changed {
    count: u64,
    last: String,
    then_by: Vec<String>,
    would_by: Vec<String>,
    reason: String,
}

#[derive(Default)]
struct Replay {
    records: u64,
    decided: u64,
    /// Decided otherwise by the present policies than in the past.
    drifted: u64,
    skipped: BTreeMap<Skipped, u64>,
    /// By identity, action, path and whether it would be allowed.
    changed: BTreeMap<(String, String, String, bool), Changed>,
    more: u64,
}

impl Replay {
    fn record(&mut self, json: &str, now: &PolicySet, would: &PolicySet) {
        self.records += 1;
        let parsed = serde_json::from_str::<Record<'_>>(json).map_err(|_| Skipped::Strange);
        let (question, then, time) = match parsed.and_then(|record| Ok((question(&record)?, record.time.into_owned())))
        {
            Ok(((question, then), time)) => (question, then, time),
            Err(skipped) => {
                *self.skipped.entry(skipped).or_default() += 1;
                return;
            }
        };
        self.decided += 1;
        let (now, would) = (question.put_to(now), question.put_to(would));
        self.drifted += u64::from(now.allowed != then);
        if now.allowed != would.allowed {
            self.change(&question, &now, &would, time);
        }
    }

    fn change(&mut self, question: &Question, now: &Decision, would: &Decision, time: String) {
        let key = (
            question.principal.name().to_owned(),
            question.action.to_string(),
            question.path.clone(),
            would.allowed,
        );
        if !self.changed.contains_key(&key) && self.changed.len() >= CHANGES_MAX {
            self.more += 1;
            return;
        }
        let names = |decision: &Decision| decision.deciding.iter().map(ToString::to_string).collect();
        let entry = self.changed.entry(key).or_insert_with(|| Changed {
            count: 0,
            last: String::new(),
            then_by: names(now),
            would_by: names(would),
            reason: would.reason.to_string(),
        });
        entry.count += 1;
        entry.last = time;
    }

    fn told(self) -> Answer {
        let word = |allowed: bool| if allowed { "allow" } else { "deny" };
        let changed: Vec<Value> = self
            .changed
            .iter()
            .map(|((identity, action, path, would), changed)| {
                json!({
                    "identity": identity, "action": action, "path": path,
                    "now": word(!would), "would": word(*would), "count": changed.count, "last": changed.last,
                    "now_by": changed.then_by, "would_by": changed.would_by, "reason": changed.reason,
                })
            })
            .collect();
        let skipped: Vec<Value> = self
            .skipped
            .iter()
            .map(|(why, count)| json!({"count": count, "why": why.words()}))
            .collect();
        let json = json!({
            "records": self.records, "decided": self.decided, "drifted": self.drifted, "skipped": skipped,
            "changed": changed, "more_changed": self.more,
        });
        let mut text = format!("{} records, {} of them decided again\n", self.records, self.decided);
        for (why, count) in &self.skipped {
            text.push_str(&format!("  {count} left out: {}\n", why.words()));
        }
        if self.drifted > 0 {
            text.push_str(&format!(
                "  {} were decided otherwise then: policies have changed since\n",
                self.drifted
            ));
        }
        for ((identity, action, path, would), changed) in &self.changed {
            let by = if changed.would_by.is_empty() {
                changed.reason.clone()
            } else {
                changed.would_by.join(" ")
            };
            text.push_str(&format!(
                "would {}: {identity} {action} {path}, {} times, last {} ({by})\n",
                word(*would),
                changed.count,
                changed.last
            ));
        }
        if self.more > 0 {
            text.push_str(&format!("and {} more\n", self.more));
        }
        if self.changed.is_empty() {
            text.push_str("no decision would change\n");
        }
        let exit = if self.changed.is_empty() {
            Exit::Done
        } else {
            Exit::Other
        };
        Answer::new(json, Human::Text(text)).exit(exit)
    }
}

impl Simulate {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        if self.change.paths.is_empty() && self.change.delete.is_empty() {
            return Err(Failure::usage(
                "no change is proposed",
                "give --policies PATH or --delete NAME",
            ));
        }
        let client = context.client().await?;
        let stored = documents::stored(&client).await?;
        let now = documents::set(context, &stored)?;
        let would = documents::set(context, &self.change.applied(stored)?)?;
        let request = v1::AuditTailRequest {
            from_seq: self.from,
            last: if self.from.is_some() { 0 } else { self.last },
            follow: false,
        };
        let mut stream = client
            .stubs()
            .audit()
            .tail(request)
            .await
            .map_err(|status| client.error(&status))?
            .into_inner();
        let mut replay = Replay::default();
        while let Some(line) = stream.message().await.map_err(|status| client.error(&status))? {
            replay.record(&line.record_json, &now, &would);
        }
        Ok(replay.told())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(path: &str, decision: &str, more: &str) -> String {
        format!(
            r#"{{"v":1,"time":"2026-10-01T12:00:00.000Z","boot":"{id}","stage":"response","identity":{{"id":"{id}","name":"ann","groups":["eng"]}},
            "source":{{"transport":"tls","addr":"10.0.0.7:4711"}},"op":"kv.get","path":"{path}","policy":{{"hash":"00","decision":"{decision}"{more}}},
            "outcome":{{"code":"OK"}}}}"#,
            id = "01".repeat(16),
        )
    }

    /// R-POL-2: what changes is listed and counted; what cannot be decided again is said, not guessed.
    #[test]
    fn the_past_is_decided_again() {
        let asked = r#","asked":{"action":"read","purpose":"session","age_secs":5,"binding":"none","strength":1}"#;
        let now = PolicySet::build([(
            "a",
            1,
            r#"permit (principal in S::Group::"eng", action, resource in S::Path::"kv");"#,
        )])
        .unwrap();
        let would = PolicySet::build([(
            "a",
            2,
            r#"permit (principal in S::Group::"eng", action, resource in S::Path::"kv/a");"#,
        )])
        .unwrap();
        let mut replay = Replay::default();
        for line in [
            record("kv/a", "allow", asked),
            record("kv/b", "allow", asked),
            record("kv/b", "deny", asked),
            record("kv/b", "allow", ""),
            record("hmac-sha256:v1:00", "allow", asked),
            "{}".to_owned(),
            r#"{"v":1,"time":"2026-10-01T12:00:00.000Z","boot":"00000000000000000000000000000000","stage":"system","op":"daemon.start"}"#.to_owned(),
        ] {
            replay.record(&line, &now, &would);
        }
        assert_eq!((replay.records, replay.decided, replay.drifted), (7, 3, 1));
        let skipped: Vec<_> = replay.skipped.values().copied().collect();
        assert_eq!(skipped, [1, 1, 1, 1]);
        let (key, changed) = replay.changed.iter().next().unwrap();
        assert_eq!(
            (key.0.as_str(), key.2.as_str(), key.3, changed.count),
            ("ann", "kv/b", false, 2)
        );
        assert_eq!(replay.changed.len(), 1);
    }
}
