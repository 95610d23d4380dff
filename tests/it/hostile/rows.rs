//! From a row of the table to a token: base, changes, what stands for what is known only now, and what is done to the text. `tests/jose/README.md` says how a row is read.

use super::makers::{Header, Maker};
use crate::login::now;
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256, Sha512};
use std::collections::{BTreeMap, BTreeSet};

const TABLE: &str = include_str!("../../jose/rows.json");

/// The table.
pub struct Table {
    /// Names and kinds.
    pub keys: Value,
    bases: Map<String, Value>,
    trusts: Map<String, Value>,
    pub tokens: Vec<Row>,
    pub proofs: Vec<Row>,
}

/// One token or proof, and the word of its refusal.
#[derive(Clone)]
pub struct Row {
    pub name: String,
    pub expect: String,
    /// The libraries that do not make it by themselves.
    pub hand: Vec<String>,
    /// The trust that is named with it.
    pub trust: String,
    /// A proof for a log-in.
    pub login: bool,
    is_proof: bool,
    spec: Value,
}

/// When a token is made, and what a proof is for.
#[derive(Default)]
pub struct Surroundings {
    /// Another time than now, in seconds.
    pub now: Option<u64>,
    pub nonce: String,
    /// A nonce of a former run.
    pub before: String,
    pub htu: String,
    pub token: Option<String>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Row {
    fn new(spec: &Value, is_proof: bool) -> Self {
        let known = [
            "name",
            "expect",
            "hand",
            "trust",
            "login",
            "same_as",
            "text",
            "of",
            "claims",
            "payload",
            "edit",
            "header",
            "header_text",
            "key",
            "alg",
            "token_of",
            "then",
        ];
        let names = spec.as_object().unwrap().keys();
        for name in names {
            assert!(known.contains(&name.as_str()), "{name} in {spec}");
        }
        let hand = spec["hand"].as_array().cloned().unwrap_or_default();
        Self {
            name: text(&spec["name"]),
            expect: text(&spec["expect"]),
            hand: hand.iter().map(text).collect(),
            trust: text(&spec["trust"]),
            login: spec["login"] == true,
            is_proof,
            spec: spec.clone(),
        }
    }

    fn key(&self) -> &str {
        self.spec["key"]
            .as_str()
            .unwrap_or(if self.is_proof { "ec" } else { "rsa" })
    }

    fn algorithm(&self) -> &str {
        self.spec["alg"]
            .as_str()
            .unwrap_or(if self.is_proof { "ES256" } else { "RS256" })
    }

    /// The key that the token of a proof's call is bound to.
    pub fn holder(&self) -> &str {
        let key = if self.key().starts_with("secret:") {
            "ec"
        } else {
            self.key()
        };
        self.spec["token_of"].as_str().unwrap_or(key)
    }
}

impl Table {
    pub fn read() -> Self {
        let table: Value = serde_json::from_str(TABLE).unwrap();
        let map = |name: &str| table[name].as_object().unwrap().clone();
        let rows = |name: &str| {
            let rows = table[name].as_array().unwrap().iter();
            rows.map(|row| Row::new(row, name == "proofs")).collect()
        };
        let table = Self {
            keys: table["keys"].clone(),
            bases: map("claims"),
            trusts: map("trusts"),
            tokens: rows("tokens"),
            proofs: rows("proofs"),
        };
        let mut names = BTreeSet::new();
        let all = table.tokens.iter().chain(&table.proofs);
        all.for_each(|row| assert!(names.insert(&row.name), "two rows `{}`", row.name));
        table
    }

    /// The trusts, in the keys of `maker`.
    pub fn trusts(&self, maker: &Maker) -> Vec<(String, Value)> {
        let with_name = |key: &str| {
            let mut jwk = maker.jwk(key, false);
            for (member, value) in [("kid", &self.keys[key]["kid"]), ("alg", &self.keys[key]["alg"])] {
                if !value.is_null() {
                    jwk.insert(member.to_owned(), value.clone());
                }
            }
            Value::Object(jwk)
        };
        let filled = |trust: &Value| {
            let mut trust = trust.clone();
            for key in trust["jwt"]["keys"]["static"]["jwks"]["keys"].as_array_mut().unwrap() {
                *key = with_name(text(key).strip_prefix("@jwk:").unwrap());
            }
            trust
        };
        self.trusts
            .iter()
            .map(|(name, trust)| (name.clone(), filled(trust)))
            .collect()
    }

    /// A proof by `key` with nothing wrong.
    pub fn plain_proof(&self, key: &str) -> Row {
        let algorithm = match key {
            "rsa" => "RS256",
            "rsa2" => "PS256",
            "ec384" => "ES384",
            "ed" => "EdDSA",
            _ => "ES256",
        };
        Row::new(
            &json!({"name": format!("to bind to {key}"), "key": key, "alg": algorithm}),
            true,
        )
    }

    fn header(&self, row: &Row) -> Value {
        let given = &row.spec["header"];
        if !row.is_proof {
            let usual = json!({"alg": row.algorithm(), "typ": "JWT", "kid": self.keys[row.key()]["kid"]});
            return if given.is_null() { usual } else { given.clone() };
        }
        let mut header = json!({"typ": "dpop+jwt", "alg": row.algorithm(), "jwk": format!("@jwk:{}", row.key())});
        patch(&mut header, given);
        header
    }

    /// The base's claims and the changes of `spec`, unless the payload is given.
    fn claims(&self, spec: &Value, is_proof: bool) -> Value {
        let base = if is_proof {
            "proof".to_owned()
        } else {
            text(&spec["of"])
        };
        let mut claims = self
            .bases
            .get(&base)
            .unwrap_or_else(|| panic!("no base {base}"))
            .clone();
        patch(&mut claims, &spec["claims"]);
        claims
    }
}

fn patch(value: &mut Value, with: &Value) {
    let (Some(value), Some(with)) = (value.as_object_mut(), with.as_object()) else {
        return;
    };
    value.extend(with.clone());
}

/// The texts that were made, by the names of their rows.
#[derive(Default)]
pub struct Texts {
    made: BTreeMap<String, String>,
    serial: u64,
}

/// What fills a row in.
struct Filling<'f> {
    maker: &'f Maker,
    around: &'f Surroundings,
    serial: u64,
}

impl Texts {
    /// The text of a row, made now.
    pub fn of(&mut self, row: &Row, table: &Table, maker: &mut Maker, around: &Surroundings) -> String {
        let made = match (row.spec["same_as"].as_str(), row.spec["text"].as_str()) {
            (Some(other), _) => self.made[other].clone(),
            (_, Some(text)) => text.to_owned(),
            _ => self.signed(row, table, maker, around),
        };
        self.made.insert(row.name.clone(), made.clone());
        made
    }

    fn signed(&mut self, row: &Row, table: &Table, maker: &mut Maker, around: &Surroundings) -> String {
        let mut make = |texts: &mut Self, spec: &Value| {
            texts.serial += 1;
            let filling = Filling {
                maker: &*maker,
                around,
                serial: texts.serial,
            };
            let header = match spec["header_text"].as_str() {
                Some(text) => Header::Text(text.to_owned()),
                None => Header::Members(filling.filled(&table.header(row)).unwrap()),
            };
            let payload = filling.payload(spec, table, row.is_proof);
            maker.sign(&row.name, &header, &payload, row.key(), row.algorithm())
        };
        let mut token = make(self, &row.spec);
        for step in row.spec["then"].as_array().unwrap_or(&Vec::new()) {
            let (what, with) = step.as_object().unwrap().iter().next().unwrap();
            let parts: Vec<_> = token.split('.').map(ToOwned::to_owned).collect();
            let with_text = long(&text(with));
            token = match what.as_str() {
                "signature" => format!("{}.{}.{with_text}", parts[0], parts[1]),
                "signature_of" => {
                    let other = make(self, &spec_of(&row.spec, with));
                    format!("{}.{}.{}", parts[0], parts[1], other.rsplit('.').next().unwrap())
                }
                "payload" => {
                    let other = make(self, &spec_of(&row.spec, with));
                    format!("{}.{}.{}", parts[0], other.split('.').nth(1).unwrap(), parts[2])
                }
                "cut" => format!("{}.{}", parts[0], parts[1]),
                "append" => format!("{token}{with_text}"),
                "prepend" => format!("{with_text}{token}"),
                "insert" => format!("{}{with_text}{}", &token[..30], &token[30..]),
                other => panic!("{other}"),
            };
        }
        token
    }
}

/// Another token under the same header: of the base of `row`, with other claims.
fn spec_of(row: &Value, other: &Value) -> Value {
    let mut spec = json!({ "of": row["of"] });
    patch(&mut spec, other);
    spec
}

/// `@many:A:3` is `AAA`.
fn long(text: &str) -> String {
    match text.strip_prefix("@many:").and_then(|many| many.split_once(':')) {
        Some((what, times)) => what.repeat(times.parse().unwrap()),
        None => text.to_owned(),
    }
}

impl Filling<'_> {
    fn payload(&self, spec: &Value, table: &Table, is_proof: bool) -> Vec<u8> {
        if let Some(payload) = spec["payload"].as_str() {
            return payload.as_bytes().to_vec();
        }
        let text = self.filled(&table.claims(spec, is_proof)).unwrap().to_string();
        let Some([from, to]) = spec["edit"].as_array().map(Vec::as_slice) else {
            return text.into_bytes();
        };
        let (head, tail) = text
            .split_once(from.as_str().unwrap())
            .expect("what is edited is there");
        let to = match to["hex"].as_str() {
            Some(hex) => HEXLOWER.decode(hex.as_bytes()).unwrap(),
            None => to.as_str().unwrap().as_bytes().to_vec(),
        };
        [head.as_bytes(), &to, tail.as_bytes()].concat()
    }

    /// The value with what stands for something put in its place; `None` for what is to be absent.
    fn filled(&self, value: &Value) -> Option<Value> {
        Some(match value {
            Value::Object(members) => {
                let members = members.iter();
                let filled = members.filter_map(|(name, value)| Some((name.clone(), self.filled(value)?)));
                Value::Object(filled.collect())
            }
            Value::Array(values) => values.iter().filter_map(|value| self.filled(value)).collect(),
            Value::String(text) => match text.strip_prefix('@') {
                Some("absent") => return None,
                // A log-in has no token to be a digest of.
                Some("ath") if self.around.token.is_none() => return None,
                Some(word) => self.word(word),
                None => value.clone(),
            },
            _ => value.clone(),
        })
    }

    fn word(&self, word: &str) -> Value {
        let token = || self.around.token.clone().unwrap_or_default();
        let (kind, rest) = word.split_once(':').unwrap_or((word, ""));
        let maker = self.maker;
        match (kind, rest) {
            ("many", _) => long(&format!("@{word}")).into(),
            ("text", time) => self.moment(time).to_string().into(),
            ("jti", "") => format!("{}-{}", maker.name, self.serial).into(),
            ("jti", name) => format!("{}-{name}", maker.name).into(),
            ("jwk", key) => maker.jwk(key, false).into(),
            ("private", key) => maker.jwk(key, true).into(),
            ("htu", _) => self.around.htu.clone().into(),
            ("token", _) => token().into(),
            ("ath", "") => BASE64URL_NOPAD.encode(&Sha256::digest(token())).into(),
            ("ath", "base64") => BASE64.encode(&Sha256::digest(token())).into(),
            ("ath", "sha512") => BASE64URL_NOPAD.encode(&Sha512::digest(token())).into(),
            ("ath", "hex") => HEXLOWER.encode(&Sha256::digest(token())).into(),
            ("sha256", text) => BASE64URL_NOPAD.encode(&Sha256::digest(text)).into(),
            ("nonce", "") => self.around.nonce.clone().into(),
            ("nonce", "before") => self.around.before.clone().into(),
            ("nonce", "cut") => self.around.nonce[1..].into(),
            ("nonce", more) => format!("{}{more}", self.around.nonce).into(),
            _ if word.starts_with("now") => self.moment(word),
            _ => panic!("@{word}"),
        }
    }

    /// `now-10`, `now+60.25`: seconds since 1970.
    fn moment(&self, text: &str) -> Value {
        let now = self.around.now.unwrap_or_else(now);
        let shift = text.strip_prefix("now").unwrap();
        match shift.parse::<i64>() {
            Ok(whole) => now.checked_add_signed(whole).unwrap().into(),
            // Seconds are few enough to be exact.
            Err(_) => json!(f64::from(u32::try_from(now).unwrap()) + shift.parse::<f64>().unwrap()),
        }
    }
}
