//! `strongroom policy test`: cases in a file, and what the policies say to them.

use super::documents::{self, Change, Documents};
use crate::{
    context::Context,
    failure::{Exit, Failure},
    input,
    output::{Answer, Human},
};
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::SystemTime,
};
use strongroom_policy::{Action, Binding, Context as Call, Decision, Peer, PolicySet, Principal, Purpose, Request};

/// What to test, and on which policies.
#[derive(Debug, Args)]
pub struct Test {
    /// The cases: TOML, or JSON when the file's name ends with .json
    file: PathBuf,
    #[command(flatten)]
    change: Change,
    /// Begin with the daemon's policies, and put those of --policies over them. Without --policies that is so anyway
    #[arg(long)]
    stored: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "case")]
    cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expect {
    Allow,
    Deny,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Transport {
    Tls,
    Unix,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Case {
    name: String,
    identity: String,
    id: String,
    groups: BTreeSet<String>,
    attributes: BTreeMap<String, String>,
    action: String,
    path: String,
    expect: Option<Expect>,
    by: Option<BTreeSet<String>>,
    own: bool,
    transport: Transport,
    ip: IpAddr,
    time: String,
    purpose: String,
    token_age_secs: u64,
    binding: String,
    strength: Option<u8>,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            name: String::new(),
            identity: "somebody".to_owned(),
            id: "0".repeat(32),
            groups: BTreeSet::new(),
            attributes: BTreeMap::new(),
            action: String::new(),
            path: String::new(),
            expect: None,
            by: None,
            own: false,
            transport: Transport::Tls,
            ip: Ipv4Addr::LOCALHOST.into(),
            time: String::new(),
            purpose: "session".to_owned(),
            token_age_secs: 0,
            binding: "none".to_owned(),
            strength: None,
        }
    }
}

/// A question to the policies.
pub struct Question {
    pub principal: Principal,
    pub action: Action,
    pub path: String,
    pub call: Call,
}

impl Question {
    /// What a set says to it.
    pub fn put_to(&self, set: &PolicySet) -> Decision {
        set.weigh(&Request {
            principal: &self.principal,
            action: self.action,
            path: &self.path,
            context: &self.call,
        })
    }
}

/// The id of 32 hex digits.
pub fn id(text: &str) -> Option<[u8; 16]> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

pub fn purpose(word: &str) -> Option<Purpose> {
    [Purpose::Session, Purpose::Setup, Purpose::Recover]
        .into_iter()
        .find(|purpose| purpose.as_str() == word)
}

pub fn binding(word: &str) -> Option<Binding> {
    [Binding::None, Binding::Certificate, Binding::Key]
        .into_iter()
        .find(|binding| binding.as_str() == word)
}

/// Seconds since 1970 of an RFC 3339 time.
pub fn unix_secs(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
}

impl Case {
    fn question(&self) -> Result<Question, String> {
        let now = || {
            let since = SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default();
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        };
        let id = id(&self.id).ok_or("id: 32 lower-case hex digits")?;
        let binding = binding(&self.binding).ok_or("binding: none, certificate or key")?;
        Ok(Question {
            principal: Principal::new(id, &self.identity, self.groups.clone(), self.attributes.clone())
                .map_err(|error| format!("identity: {error}"))?,
            action: self
                .action
                .parse()
                .map_err(|error| format!("action `{}`: {error}", self.action))?,
            path: self.path.clone(),
            call: Call {
                own: self.own,
                peer: match self.transport {
                    Transport::Unix => Peer::Unix,
                    Transport::Tls => Peer::Tls(self.ip),
                },
                now_unix_secs: match self.time.as_str() {
                    "" => now(),
                    time => unix_secs(time).ok_or("time: such as 2026-10-01T12:00:00Z")?,
                },
                purpose: purpose(&self.purpose).ok_or("purpose: session, setup or recover")?,
                token_age_secs: self.token_age_secs,
                binding,
                strength: self.strength.unwrap_or(if binding == Binding::None { 1 } else { 3 }),
            },
        })
    }
}

fn cases(text: &str, is_json: bool) -> Result<Vec<Case>, String> {
    let file: File = match is_json {
        true => serde_json::from_str(text).map_err(|error| error.to_string())?,
        false => toml::from_str(text).map_err(|error| error.to_string())?,
    };
    match file.cases.is_empty() {
        true => Err("there is no case in it".to_owned()),
        false => Ok(file.cases),
    }
}

/// A case, what was said to it, and whether that is what was expected.
struct Tried {
    name: String,
    who: String,
    asked: String,
    expected: bool,
    said: Decision,
    passed: bool,
}

fn attempt(index: usize, case: &Case, set: &PolicySet) -> Result<Tried, String> {
    let name = match case.name.as_str() {
        "" => format!("case {}", index + 1),
        name => name.to_owned(),
    };
    let Some(expect) = &case.expect else {
        return Err(format!("{name}: expect: \"allow\" or \"deny\""));
    };
    let expected = matches!(expect, Expect::Allow);
    let question = case.question().map_err(|error| format!("{name}: {error}"))?;
    let said = question.put_to(set);
    let deciding: BTreeSet<String> = said.deciding.iter().map(ToString::to_string).collect();
    let passed = said.allowed == expected && case.by.as_ref().is_none_or(|by| *by == deciding);
    let groups: Vec<_> = case.groups.iter().map(String::as_str).collect();
    Ok(Tried {
        who: match groups.is_empty() {
            true => case.identity.clone(),
            false => format!("{} ({})", case.identity, groups.join(" ")),
        },
        asked: format!("{} {}", case.action, case.path),
        name,
        expected,
        said,
        passed,
    })
}

impl Test {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        let text = input::file(&self.file)?;
        let is_json = self.file.extension().is_some_and(|extension| extension == "json");
        let wrong = |error: String| {
            Failure::usage(
                format!("{}: {error}", self.file.display()),
                "`strongroom policy test --help` shows a case",
            )
        };
        let cases = cases(text.expose_str()?, is_json).map_err(wrong)?;
        let begin = match self.stored || self.change.paths.is_empty() {
            true => documents::stored(&context.client().await?).await?,
            false => Documents::new(),
        };
        let set = documents::set(context, &self.change.applied(begin)?)?;
        let tried = cases
            .iter()
            .enumerate()
            .map(|(index, case)| attempt(index, case, &set))
            .collect::<Result<Vec<_>, _>>()
            .map_err(wrong)?;
        Ok(told(&tried))
    }
}

fn word(allowed: bool) -> &'static str {
    if allowed { "allow" } else { "deny" }
}

fn told(tried: &[Tried]) -> Answer {
    let failed = tried.iter().filter(|tried| !tried.passed).count();
    let json: Vec<Value> = tried
        .iter()
        .map(|tried| {
            json!({
                "name": tried.name,
                "passed": tried.passed,
                "expected": word(tried.expected),
                "got": word(tried.said.allowed),
                "reason": tried.said.reason.to_string(),
                "deciding": tried.said.deciding,
                "errors": tried.said.errors,
            })
        })
        .collect();
    let rows = tried.iter().map(|tried| {
        let by = tried.said.deciding.iter().map(ToString::to_string).collect::<Vec<_>>();
        vec![
            if tried.passed { "ok" } else { "FAILED" }.to_owned(),
            tried.name.clone(),
            tried.who.clone(),
            tried.asked.clone(),
            word(tried.expected).to_owned(),
            word(tried.said.allowed).to_owned(),
            match by.is_empty() {
                true => tried.said.reason.to_string(),
                false => by.join(" "),
            },
        ]
    });
    let human = Human::Table {
        head: vec!["", "case", "who", "asks", "expected", "got", "because"],
        rows: rows.collect(),
    };
    let json = json!({"passed": tried.len() - failed, "failed": failed, "cases": json});
    Answer::new(json, human).exit(if failed == 0 { Exit::Done } else { Exit::Other })
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICIES: &str = r#"
        @id("read") permit (principal in S::Group::"payments", action == S::Action::"read", resource in S::Path::"kv/prod");
        @id("night") forbid (principal, action, resource) when { context.hour_utc < 6 };
        @id("net") forbid (principal, action, resource) unless { context.ip.isInRange(ip("10.0.0.0/8")) };
        @id("bound") permit (principal, action == S::Action::"write", resource in S::Path::"kv/prod")
            when { context.auth_strength >= 3 && principal.hasTag("department") && principal.getTag("department") == "finance" };"#;

    fn run(text: &str, is_json: bool) -> Result<Vec<(bool, bool)>, String> {
        let set = PolicySet::build([("p", 1, POLICIES)]).unwrap();
        let tried = cases(text, is_json)?
            .iter()
            .enumerate()
            .map(|(i, case)| attempt(i, case, &set))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(tried.iter().map(|tried| (tried.passed, tried.said.allowed)).collect())
    }

    /// R-POL-2: who, action, path and circumstances of a case reach the policies; what is not expected fails.
    #[test]
    fn cases_ask_what_they_say() {
        let toml = r#"
            [[case]]
            name = "in time, from inside"
            groups = ["payments"]
            action = "read"
            path = "kv/prod/db"
            ip = "10.1.2.3"
            time = "2026-10-01T12:00:00Z"
            expect = "allow"
            by = ["p#read"]
            [[case]]
            groups = ["payments"]
            action = "read"
            path = "kv/prod/db"
            ip = "10.1.2.3"
            time = "2026-10-01T03:00:00Z"
            expect = "deny"
            by = ["p#night"]
            [[case]]
            groups = ["payments"]
            action = "read"
            path = "kv/prod/db"
            time = "2026-10-01T12:00:00Z"
            expect = "allow"
            [[case]]
            attributes = { department = "finance" }
            binding = "key"
            action = "write"
            path = "kv/prod/db"
            ip = "10.1.2.3"
            time = "2026-10-01T12:00:00Z"
            expect = "allow"
            by = ["p#read"]
        "#;
        let want = [(true, true), (true, false), (false, false), (false, true)];
        assert_eq!(run(toml, false).unwrap(), want);
        let json = r#"{"case": [{"action": "renew", "path": "pg/a", "own": true, "ip": "10.0.0.1", "time": "2026-10-01T12:00:00Z",
            "expect": "allow", "by": ["builtin:own"]}]}"#;
        assert_eq!(run(json, true).unwrap(), [(true, true)]);
    }

    #[test]
    fn what_is_no_case_is_said() {
        for (text, word) in [
            ("", "case"),
            ("case = []", "no case"),
            ("[[case]]\nacton = \"read\"", "acton"),
            (
                "[[case]]\naction = \"raed\"\npath = \"kv/a\"\nexpect = \"deny\"",
                "raed",
            ),
            ("[[case]]\naction = \"read\"\npath = \"kv/a\"", "expect"),
            (
                "[[case]]\naction = \"read\"\npath = \"kv/a\"\nexpect = \"deny\"\ntime = \"noon\"",
                "time",
            ),
            (
                "[[case]]\naction = \"read\"\npath = \"kv/a\"\nexpect = \"deny\"\nip = \"300.0.0.1\"",
                "ip",
            ),
        ] {
            let error = run(text, false).unwrap_err();
            assert!(error.contains(word), "{text:?}: {error}");
        }
    }
}
