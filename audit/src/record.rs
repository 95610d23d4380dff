//! One record: a JSON object on one line, at most 65,535 bytes. Its place in the log is not inside it; the chain gives it.

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, MapAccess, Visitor},
    ser::SerializeMap,
};
use std::{borrow::Cow, fmt};

/// The longest encoded record: entries of a C2SP tile carry a 16-bit length.
pub const RECORD_BYTES_MAX: usize = 65_535;
/// The record version written by this code.
pub const RECORD_VERSION: u8 = 1;
/// The longest single text a record keeps when it would be too long otherwise.
pub const TEXT_BYTES_MAX: usize = 512;
/// The longest name (of a policy, a parameter) and parameter it keeps then.
pub const NAME_BYTES_MAX: usize = 128;
/// The most policies, and the most parameters, a record keeps when it would be too long otherwise.
pub const LISTED_MAX: usize = 16;

/// 128 bits, 32 lower-case hex digits in the log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Id(pub [u8; 16]);

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        hex(&self.0, &mut [0; 32], out)
    }
}

fn hex<S: Serializer>(bytes: &[u8], text: &mut [u8], out: S) -> Result<S::Ok, S::Error> {
    data_encoding::HEXLOWER.encode_mut(bytes, text);
    out.serialize_str(std::str::from_utf8(text).unwrap_or_default())
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(from)?;
        let bytes = data_encoding::HEXLOWER
            .decode(text.as_bytes())
            .map_err(D::Error::custom)?;
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| D::Error::custom("an id is 32 hex digits"))
    }
}

/// When in a request's life the record was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Before an act outside: durable before the act.
    Request,
    /// The outcome: durable before the answer.
    Response,
    /// The daemon on its own: start, expiry, sweeps, summaries.
    System,
    /// Something a person should look at.
    Alert,
    /// What opening the log after a crash had to mend.
    Recovery,
}

/// The way a request came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP with TLS.
    Tls,
    /// The Unix socket.
    Unix,
}

/// Where a request came from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Source<'a> {
    /// TLS or the Unix socket.
    pub transport: Transport,
    /// `address:port` of the peer, for TLS.
    #[serde(borrow, skip_serializing_if = "Option::is_none", default)]
    pub addr: Option<Cow<'a, str>>,
    /// The peer's user id (SO_PEERCRED), for the Unix socket.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub uid: Option<u32>,
}

/// Who was identified.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity<'a> {
    /// The stable id.
    pub id: Id,
    /// The name at that time.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// The groups at that time, of whoever asked for something that was decided.
    #[serde(borrow, skip_serializing_if = "Vec::is_empty", default)]
    pub groups: Vec<Cow<'a, str>>,
    /// The attributes at that time.
    #[serde(borrow, skip_serializing_if = "Params::is_empty", default)]
    pub attributes: Params<'a>,
    /// There were more groups and attributes than a record keeps, so none of them are here.
    #[serde(skip_serializing_if = "is_false", default)]
    pub without_attributes: bool,
}

/// What policy said and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Policy<'a> {
    /// Hash of the whole policy set, hex.
    #[serde(borrow)]
    pub hash: Cow<'a, str>,
    /// `allow` or `deny`.
    #[serde(borrow)]
    pub decision: Cow<'a, str>,
    /// Names of the policies that decided.
    #[serde(borrow, skip_serializing_if = "Vec::is_empty", default)]
    pub deciding: Vec<Cow<'a, str>>,
    /// Policies that failed to evaluate; any makes the decision `deny`.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub errors: u32,
    /// What was asked, so that it can be asked again (of other policies).
    #[serde(borrow, skip_serializing_if = "Option::is_none", default)]
    pub asked: Option<Asked<'a>>,
}

/// A question to the policies: with the identity, the path, the source and the time all that they can look at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Asked<'a> {
    /// The action, as policies name it.
    #[serde(borrow)]
    pub action: Cow<'a, str>,
    /// As an act on the caller's own.
    #[serde(skip_serializing_if = "is_false", default)]
    pub own: bool,
    /// What the token was made for.
    #[serde(borrow)]
    pub purpose: Cow<'a, str>,
    /// The token's age, in seconds.
    pub age_secs: u64,
    /// The key that the token is bound to.
    #[serde(borrow)]
    pub binding: Cow<'a, str>,
    /// How surely it was who it said.
    pub strength: u8,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the shape serde wants
fn is_false(value: &bool) -> bool {
    !*value
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the shape serde wants
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// How it ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Outcome<'a> {
    /// gRPC status name, `OK`, `PERMISSION_DENIED`, ...
    #[serde(borrow)]
    pub code: Cow<'a, str>,
    /// Reason of docs/ERRORS, when it failed.
    #[serde(borrow, skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Cow<'a, str>>,
    /// The lease that was issued, renewed or revoked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lease: Option<Id>,
    /// The version that was read or written.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub version: Option<u64>,
    /// How many things were returned or touched.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub count: Option<u64>,
}

/// An allow-listed parameter's value. There is no variant for a secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ParamValue<'a> {
    /// A yes or no.
    Bool(bool),
    /// A number.
    Number(u64),
    /// A path, a name, an id, a keyed hash.
    #[serde(borrow)]
    Text(Cow<'a, str>),
    /// Stands for a text that was too long to keep: `{"len":N}`.
    Oversize {
        /// Bytes of what is not there.
        len: u64,
    },
}

/// Parameters, in the order of their names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Params<'a>(Vec<(Cow<'a, str>, ParamValue<'a>)>);

impl<'a> Params<'a> {
    /// Sets one; a second value for the same name replaces the first.
    pub fn set(&mut self, name: impl Into<Cow<'a, str>>, value: ParamValue<'a>) {
        let name = name.into();
        match self.0.binary_search_by(|(known, _)| known.cmp(&name)) {
            Ok(at) => {
                if let Some(entry) = self.0.get_mut(at) {
                    entry.1 = value;
                }
            }
            Err(at) => self.0.insert(at, (name, value)),
        }
    }
    /// The value under `name`.
    pub fn get(&self, name: &str) -> Option<&ParamValue<'a>> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }
    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ParamValue<'a>)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Params<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut map = out.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Params<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Params<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of parameters")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut params = Params::default();
                while let Some((name, value)) = map.next_entry::<String, ParamValue<'de>>()? {
                    params.set(name, value);
                }
                Ok(params)
            }
        }
        from.deserialize_map(Entries)
    }
}

/// One record. The order of the fields here is the order in the file; absent fields are left out. Readers ignore fields they do not know.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record<'a> {
    /// [`RECORD_VERSION`].
    pub v: u8,
    /// Wall time, RFC 3339 UTC with milliseconds.
    #[serde(borrow)]
    pub time: Cow<'a, str>,
    /// The run of the daemon.
    pub boot: Id,
    /// When in a request's life.
    pub stage: Stage,
    /// The request; its records share it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request: Option<Id>,
    /// Who, when it is known.
    #[serde(borrow, skip_serializing_if = "Option::is_none", default)]
    pub identity: Option<Identity<'a>>,
    /// Public handle of the token used.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub accessor: Option<Id>,
    /// The log-in the token came from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session: Option<Id>,
    /// From where.
    #[serde(borrow, skip_serializing_if = "Option::is_none", default)]
    pub source: Option<Source<'a>>,
    /// What: `kv.get`, `creds.issue`, ...
    #[serde(borrow)]
    pub op: Cow<'a, str>,
    /// On what: the canonical path, or its keyed hash with `audit.paths = "hash"`.
    #[serde(borrow, skip_serializing_if = "Option::is_none", default)]
    pub path: Option<Cow<'a, str>>,
    /// What policy said.
    #[serde(borrow, skip_serializing_if = "Option::is_none", default)]
    pub policy: Option<Policy<'a>>,
    /// Allow-listed parameters.
    #[serde(borrow, skip_serializing_if = "Params::is_empty", default)]
    pub params: Params<'a>,
    /// How it ended; absent in stage `request`.
    #[serde(borrow, skip_serializing_if = "Option::is_none", default)]
    pub outcome: Option<Outcome<'a>>,
}

impl Record<'_> {
    /// The bytes that go into the log. A record over [`RECORD_BYTES_MAX`] keeps its facts and loses its bulk: long texts become
    /// `{"len":N}` (parameters) or are cut at [`TEXT_BYTES_MAX`], lists at [`LISTED_MAX`].
    pub fn encode(&self) -> Encoded {
        let mut out = Vec::with_capacity(768);
        self.write(&mut out);
        if out.len() > RECORD_BYTES_MAX {
            out.clear();
            self.clone().shrunk().write(&mut out);
        }
        Encoded(out.into())
    }

    fn write(&self, out: &mut Vec<u8>) {
        // Writing into memory cannot fail, and no map here has keys that are not text.
        let written = serde_json::to_writer(&mut *out, self);
        debug_assert!(written.is_ok());
    }

    /// At most 16 policies and 16 parameters of 128 bytes each and a dozen texts of 512: far from the limit even with six bytes for one.
    fn shrunk(mut self) -> Self {
        for text in [&mut self.time, &mut self.op] {
            cut(text);
        }
        if let Some(text) = &mut self.path {
            cut(text);
        }
        if let Some(identity) = &mut self.identity {
            cut(&mut identity.name);
            identity.without_attributes |= !identity.attributes.is_empty() || !identity.groups.is_empty();
            identity.groups.clear();
            identity.attributes = Params::default();
        }
        if let Some(addr) = self.source.as_mut().and_then(|source| source.addr.as_mut()) {
            cut(addr);
        }
        if let Some(policy) = &mut self.policy {
            policy.deciding.truncate(LISTED_MAX);
            policy.deciding.iter_mut().for_each(|name| cut_to(name, NAME_BYTES_MAX));
            cut(&mut policy.hash);
            cut(&mut policy.decision);
            if let Some(asked) = &mut policy.asked {
                for text in [&mut asked.action, &mut asked.purpose, &mut asked.binding] {
                    cut_to(text, NAME_BYTES_MAX);
                }
            }
        }
        if let Some(outcome) = &mut self.outcome {
            cut(&mut outcome.code);
            if let Some(reason) = &mut outcome.reason {
                cut(reason);
            }
        }
        self.params.0.truncate(LISTED_MAX);
        for (name, value) in &mut self.params.0 {
            cut_to(name, NAME_BYTES_MAX);
            if let ParamValue::Text(text) = value
                && text.len() > NAME_BYTES_MAX
            {
                *value = ParamValue::Oversize { len: text.len() as u64 };
            }
        }
        self
    }
}

fn cut(text: &mut Cow<'_, str>) {
    cut_to(text, TEXT_BYTES_MAX);
}

fn cut_to(text: &mut Cow<'_, str>, bytes_max: usize) {
    if text.len() > bytes_max {
        *text = Cow::Owned(
            text.get(..text.floor_char_boundary(bytes_max))
                .unwrap_or_default()
                .to_owned(),
        );
    }
}

/// The bytes of one record: at most [`RECORD_BYTES_MAX`]. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Encoded(Bytes);

impl Encoded {
    /// The JSON, without a newline.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
    /// What it takes inside a frame: itself and its 16-bit length.
    pub fn frame_bytes(&self) -> usize {
        self.0.len() + 2
    }
}

impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

#[cfg(test)]
mod tests;
