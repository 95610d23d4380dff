//! `strongroom audit`: the append-only log.

use crate::{
    context::Context,
    failure::{Exit, Failure},
    input::Source,
    output::{Answer, Human},
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::{io, path::PathBuf};
use strongroom_audit::{ChainHead, Id, KnownHead, Options, Report};
use strongroom_client::{Error, v1};

#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Show records, oldest first; a line each
    #[command(after_help = "\
Examples:
  strongroom audit tail
  strongroom audit tail --last 100 --follow
  strongroom audit tail --from 0 --output json | jq .record.op

With --output json each line is one object, {seq, record}.")]
    Tail(Tail),
    /// Verify the log's files, offline: finds any changed, removed or cut-off record
    ///
    /// Whoever can edit the files could write the whole log anew: only a head that was noted elsewhere
    /// (`strongroom audit head`) proves that this did not happen. Give every head you have.
    #[command(after_help = "\
Examples:
  strongroom audit verify /var/lib/strongroom/audit
  strongroom audit verify /backup/audit --head 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08/1234

Exit code 1 when anything is wrong. A torn tail alone (a write that a crash cut short) is told apart.")]
    Verify(Verify),
    /// Print the head of the log, to be kept elsewhere
    #[command(after_help = "\
Examples:
  strongroom audit head
  strongroom audit head --output json >> heads.jsonl")]
    Head,
    /// The keyed hash under which a value stands in the log, to look for it there
    #[command(after_help = "\
Examples:
  strongroom audit hash
  strongroom audit hash - < suspected-token.txt")]
    Hash {
        /// Where the value comes from: `-`, `@FILE` or `prompt`
        #[arg(default_value = "prompt", value_name = "SOURCE")]
        from: Source,
    },
}

/// Which records.
#[derive(Debug, Args)]
pub struct Tail {
    /// The last so many
    #[arg(long, short = 'n', default_value_t = 20, value_name = "NUMBER")]
    last: u32,
    /// From this sequence number on
    #[arg(long, value_name = "SEQ", conflicts_with = "last")]
    from: Option<u64>,
    /// Stay and show what comes
    #[arg(long, short)]
    follow: bool,
}

/// What to verify, and against what.
#[derive(Debug, Args)]
pub struct Verify {
    /// The directory of segment files, better a copy
    dir: PathBuf,
    /// A head that was noted elsewhere, HASH or HASH/SEQ; several may be given
    #[arg(long = "head", value_name = "HEAD")]
    heads: Vec<KnownHead>,
    /// The genesis that `operator init` printed
    #[arg(long, value_name = "HEX", value_parser = genesis)]
    genesis: Option<KnownHead>,
    /// The cluster's id, 32 hex digits
    #[arg(long, value_name = "HEX", value_parser = cluster)]
    cluster: Option<Id>,
    /// Where the log begins, HASH/SEQ, when older segments were archived
    #[arg(long, value_name = "HEAD")]
    start: Option<ChainHead>,
}

fn genesis(text: &str) -> Result<KnownHead, String> {
    let hash = text
        .strip_suffix("/0")
        .unwrap_or(text)
        .parse::<KnownHead>()
        .map_err(|e| e.to_string())?
        .hash;
    Ok(KnownHead { hash, seq: Some(0) })
}

fn cluster(text: &str) -> Result<Id, String> {
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .map(Id)
        .ok_or_else(|| "a cluster's id is 32 hex digits".to_owned())
}

impl Audit {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        match self {
            Self::Tail(tail) => tail.run(context).await,
            Self::Verify(verify) => verify.run(context),
            Self::Head => {
                let client = context.client().await?;
                let head = client
                    .read(v1::AuditHeadRequest {}, |s, r| async move { s.audit().head(r).await })
                    .await?;
                let text = if head.head.contains('/') {
                    head.head.clone()
                } else {
                    format!("{}/{}", head.head, head.seq)
                };
                Ok(Answer::said(json!({"seq": head.seq, "head": text}), text))
            }
            Self::Hash { from } => {
                let value = context.line(&from, "value")?;
                let request = v1::AuditHashRequest {
                    value: value.expose().to_vec().into(),
                };
                let client = context.client().await?;
                let hash = client
                    .read(request, |s, r| async move { s.audit().hash(r).await })
                    .await?
                    .hash;
                Ok(Answer::said(json!({"hash": hash}), hash))
            }
        }
    }
}

impl Tail {
    async fn run(self, context: &Context) -> Result<Answer, Failure> {
        let client = context.client().await?;
        let request = v1::AuditTailRequest {
            from_seq: self.from,
            last: if self.from.is_some() { 0 } else { self.last },
            follow: self.follow,
        };
        let mut stream = client
            .stubs()
            .audit()
            .tail(request)
            .await
            .map_err(|s| client.error(&s))?
            .into_inner();
        loop {
            match stream.message().await {
                Ok(Some(item)) => {
                    let record: Value =
                        serde_json::from_str(&item.record_json).unwrap_or(Value::String(item.record_json));
                    let written = context
                        .out
                        .item(&json!({"seq": item.seq, "record": record}), &line(item.seq, &record));
                    match written {
                        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(Answer::raw(Vec::new())),
                        other => other
                            .map_err(|e| Failure::other(format!("cannot write: {e}"), "check the output's disk"))?,
                    }
                }
                Ok(None) => return Ok(Answer::raw(Vec::new())),
                Err(status) => {
                    let error: Error = client.error(&status);
                    return Err(Failure::from(error).next("start again with --from and the last sequence number shown"));
                }
            }
        }
    }
}

/// A record in one line: sequence, time, stage, who, what, where, how it ended.
fn line(seq: u64, record: &Value) -> String {
    let text = |pointer: &str| {
        record
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or("-")
            .to_owned()
    };
    let decision = match record.pointer("/policy/decision").and_then(Value::as_str) {
        Some("deny") => " denied by policy",
        _ => "",
    };
    let reason = match record.pointer("/outcome/reason").and_then(Value::as_str) {
        Some(reason) => format!(" {reason}"),
        None => String::new(),
    };
    let line = format!(
        "{seq:>8}  {}  {:<8}  {:<16}  {:<16}  {:<24}  {}{reason}{decision}",
        text("/time"),
        text("/stage"),
        text("/identity/name"),
        text("/op"),
        text("/path"),
        text("/outcome/code"),
    );
    line.trim_end().to_owned()
}

impl Verify {
    fn run(self, context: &Context) -> Result<Answer, Failure> {
        let unproven = self.heads.is_empty();
        let heads = self.heads.into_iter().chain(self.genesis).collect();
        let options = Options {
            cluster: self.cluster,
            heads,
            start: self.start,
        };
        context.out.notice(&format!("verifying {}", self.dir.display()));
        let report = strongroom_audit::verify(&self.dir, &options).map_err(|error| {
            let cause = std::error::Error::source(&error)
                .map(ToString::to_string)
                .unwrap_or_default();
            Failure::usage(
                format!("{error}: {cause}"),
                "name the directory that holds the segment files",
            )
        })?;
        if report.is_clean() && unproven {
            context
                .out
                .notice("no --head was given: a log that was cut short or wholly rewritten would look the same");
        }
        Ok(verdict(&report))
    }
}

fn verdict(report: &Report) -> Answer {
    let findings: Vec<_> = report
        .findings
        .iter()
        .map(|f| json!({"file": f.file, "offset": f.offset, "seq": f.seq, "what": f.what.to_string()}))
        .collect();
    let torn = report
        .torn
        .as_ref()
        .map(|t| json!({"file": t.file, "offset": t.offset, "bytes": t.bytes, "seq": t.seq}));
    let word = match (report.findings.is_empty(), report.torn.is_none()) {
        (true, true) => "clean",
        (true, false) => "torn",
        (false, _) => "damaged",
    };
    let json = json!({
        "verdict": word,
        "segments": report.segments,
        "records": report.records,
        "first": report.first.map(|head| head.to_string()),
        "head": report.head.map(|head| head.to_string()),
        "findings": findings,
        "more_findings": report.more_findings,
        "torn": torn,
    });
    let mut text = format!("{word}: {} records in {} segments\n", report.records, report.segments);
    for finding in &report.findings {
        text.push_str(&format!("  {finding}\n"));
    }
    if report.more_findings > 0 {
        text.push_str(&format!("  and {} more\n", report.more_findings));
    }
    if let Some(torn) = &report.torn {
        text.push_str(&format!(
            "  {}: byte {}, record {}: {} bytes are no whole record: a write that a crash cut short, or a changed last record\n",
            torn.file.display(), torn.offset, torn.seq, torn.bytes,
        ));
    }
    if let Some(head) = report.head.filter(|_| word == "clean") {
        text.push_str(&format!("head {head}\n"));
    }
    let exit = if word == "clean" { Exit::Done } else { Exit::Other };
    Answer::new(json, Human::Text(text)).exit(exit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_line() {
        let record = json!({
            "time": "2026-01-02T03:04:05.678Z", "stage": "response", "op": "kv.get", "path": "kv/a",
            "identity": {"id": "00", "name": "alice"}, "policy": {"hash": "x", "decision": "deny"},
            "outcome": {"code": "PERMISSION_DENIED", "reason": "DENIED"},
        });
        let line = line(7, &record);
        for word in [
            "7",
            "2026-01-02T03:04:05.678Z",
            "alice",
            "kv.get",
            "kv/a",
            "PERMISSION_DENIED DENIED",
            "denied by policy",
        ] {
            assert!(line.contains(word), "{word}: {line}");
        }
        assert!(!super::line(1, &json!("damaged")).is_empty());
    }

    #[test]
    fn heads_are_checked_at_the_edge() {
        let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        assert_eq!(genesis(hash).unwrap().seq, Some(0));
        assert_eq!(genesis(&format!("{hash}/0")).unwrap(), genesis(hash).unwrap());
        assert!(genesis("abc").is_err());
        assert!(cluster("00112233445566778899aabbccddeeff").is_ok());
        assert!(cluster("0011").is_err());
    }

    /// R-AUDIT-2: an empty directory is not a clean log.
    #[test]
    fn nothing_is_not_clean() {
        let dir = tempfile::tempdir().unwrap();
        let report = strongroom_audit::verify(dir.path(), &Options::default()).unwrap();
        let answer = verdict(&report);
        assert!(format!("{answer:?}").contains("damaged"), "{answer:?}");
    }
}
