//! The configuration file: strict keys, every error names the key and the line, no secret values in it.
//! May touch: limit (what a rate is). Reading order: this file (what there is), `rates.rs` (how often anybody may ask), `check.rs` (what serde cannot
//! say), `lines.rs` (which line a key stands on), `files.rs` (what the keys name on the disk), `error.rs`.

mod check;
mod error;
mod files;
mod lines;
mod rates;

pub use error::ConfigError;
use lines::Lines;
pub use rates::Rates;

use serde::Deserialize;
use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};
use toml::Spanned;

/// Where the file is when nobody says.
pub const PATH_DEFAULT: &str = "/etc/strongroom/strongroom.toml";
/// A larger file is refused unread.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Everything an operator sets. Unknown keys are errors.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where clients come in.
    pub listener: Listener,
    /// Where records go.
    pub store: Store,
    /// PKCS#11 tokens by name (`[hsm.NAME]`, name `[a-z0-9-]{1,32}`).
    pub hsm: BTreeMap<String, Hsm>,
    /// The audit log.
    pub audit: Audit,
    /// Bounds that operators may move.
    pub limits: Limits,
    /// The daemon's own log (not the audit log).
    pub log: Log,
    /// Where its keys stand.
    #[serde(skip)]
    lines: Lines,
}

/// `[listener]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listener {
    /// gRPC over TLS. Default `[::]:8470`.
    pub address: Spanned<SocketAddr>,
    /// PEM certificate chain, leaf first. Without it (and `tls_key`) only the Unix socket is served.
    pub tls_cert: Option<Spanned<PathBuf>>,
    /// PEM private key (PKCS#8, SEC1 or PKCS#1).
    pub tls_key: Option<Spanned<PathBuf>>,
    /// Allow TLS 1.2 clients too. Default false: TLS 1.3 alone.
    pub tls12: bool,
    /// Where clients believe they are, `https://HOST:PORT` without a slash behind: what DPoP proofs must be for. Without it none is taken.
    pub origin: Option<Spanned<String>>,
    /// Whether DPoP proofs must carry a nonce of the daemon's: `required` (default) or `off`.
    pub dpop_nonce: DpopNonce,
    /// Unix socket. Default `/run/strongroom/strongroom.sock`.
    pub socket: Spanned<PathBuf>,
    /// Prometheus metrics and health over plain HTTP. Default `127.0.0.1:9470`; `metrics_off = true` serves none.
    pub metrics: Spanned<SocketAddr>,
    /// Serve no metrics.
    pub metrics_off: bool,
}

/// What DPoP proofs must carry (RFC 9449, 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DpopNonce {
    /// A nonce of the daemon's, of the last minutes.
    Required,
    /// None: for clients that cannot. Proofs may then be made ahead, and none is taken of the first seconds after a start.
    Off,
}

/// `[store]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// `fjall` (default), `sled` (needs `accept_risk`) or `memory` (nothing survives; for trials).
    pub backend: Spanned<Backend>,
    /// The data directory. Default `/var/lib/strongroom`.
    pub path: Spanned<PathBuf>,
    /// Required for a backend with a known hole; the value repeats what is accepted (docs/KNOWN_ISSUES).
    pub accept_risk: Option<Spanned<String>>,
    /// Below this much free space, writes are refused until there is more. 0 to 1 TiB; default 256 MiB.
    pub reserve_mib: u64,
    /// Memory for cached (encrypted) records and blocks, 4 to 65,536. Default 40 MiB.
    pub cache_mib: Spanned<u64>,
    /// `xaes-256-gcm` (default) or `aes-256-gcm` (counted).
    pub cipher: Cipher,
}

/// Storage backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Log-structured, durable: the default.
    Fjall,
    /// Loses acknowledged writes on power loss: see docs/KNOWN_ISSUES.
    Sled,
    /// Keeps nothing.
    Memory,
}

/// Record encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Cipher {
    /// C2SP XAES-256-GCM: 192-bit random nonces.
    #[serde(rename = "xaes-256-gcm")]
    Xaes256Gcm,
    /// AES-256-GCM, 96-bit random nonces, seals counted.
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm,
}

/// `[hsm.NAME]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hsm {
    /// The PKCS#11 module (.so).
    pub module: Spanned<PathBuf>,
    /// The token's label; or `serial`.
    pub token: Option<Spanned<String>>,
    /// The token's serial number.
    pub serial: Option<Spanned<String>>,
    /// A file with the PIN (mode 0600 or 0400); or `pin_credential`, or `pin_prompt`.
    pub pin_file: Option<Spanned<PathBuf>>,
    /// A systemd credential's name (`LoadCredential=`).
    pub pin_credential: Option<Spanned<String>>,
    /// Ask for the PIN on the terminal at start.
    #[serde(default)]
    pub pin_prompt: bool,
    /// `auto` (self-test at set-up), `gcm`, `kw`, `cbc-hmac`, `oaep`.
    #[serde(default)]
    pub mechanism: Mechanism,
    /// Environment of the module, such as `SOFTHSM2_CONF`. No secrets here.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// How a KEK seals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// The first that passes the self-test: GCM, KW, CBC+HMAC, OAEP-SHA256.
    #[default]
    Auto,
    /// `CKM_AES_GCM`.
    Gcm,
    /// `CKM_AES_KEY_WRAP`.
    Kw,
    /// `CKM_AES_CBC` with HMAC-SHA256.
    CbcHmac,
    /// RSA-OAEP with SHA-256.
    Oaep,
}

/// `[audit]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// Segment files. Default: `audit` below the data directory.
    pub path: Option<Spanned<PathBuf>>,
    /// `synced` (default): every record is durable before its answer. `written`: that of a read or a refusal is written before it and synced at most
    /// 50 ms later, so that a power loss can lose it and the death of the daemon cannot; all others as with `synced`.
    pub sync: Spanned<AuditSync>,
    /// Paths in clear (default) or as keyed hashes.
    pub paths: AuditPaths,
    /// Size of a segment file, 1 to 1024 MiB. Default 16.
    pub segment_mib: Spanned<u64>,
}

/// When a read or a refusal counts as recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuditSync {
    /// Durable before the answer (D2).
    #[default]
    Synced,
    /// Written before the answer, synced within 50 ms (D1).
    Written,
}

/// How paths stand in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuditPaths {
    /// Auditors read them.
    #[default]
    Clear,
    /// Keyed hashes.
    Hash,
}

/// `[limits]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at once, 1 to 1,000,000. Default 4096.
    pub connections_max: usize,
    /// Requests in flight at once, over all connections, 1 to 1,000,000. Default 1024.
    pub requests_max: usize,
    /// Streams of one connection, 1 to 65,536. Default 256.
    pub streams_per_connection_max: u32,
    /// A request that names no deadline gets this, 1 to 86,400. Default 30 s.
    pub request_secs_default: u64,
    /// A new connection must finish its handshake within this, 1 to 3600. Default 10 s.
    pub handshake_secs: u64,
    /// Connections of one source (an address; of IPv6 the /64) at once, 1 to 1,000,000. Default 2048.
    pub connections_per_source_max: usize,
    /// While more than half of the reads and changes take longer than this in the daemon, fewer requests are let in at once; 1 to 60,000. Default 250 ms.
    pub latency_target_ms: u64,
    /// Leases of one identity, those that are being revoked included, 1 to 1,000,000,000. Default 10,000.
    pub leases_per_identity_max: u64,
    /// Leases of one mount, 1 to 1,000,000,000. Default 1,000,000.
    pub leases_per_mount_max: u64,
    /// How often anybody may ask: `[limits.rates]`.
    pub rates: Rates,
}

/// `[log]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info` (default), `debug`, `trace`.
    pub level: Spanned<String>,
    /// `json` (default) or `text`.
    pub format: LogFormat,
}

/// Shape of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}

fn unspanned<T>(value: T) -> Spanned<T> {
    Spanned::new(0..0, value)
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            address: unspanned(SocketAddr::from(([0u16; 8], 8470))),
            tls_cert: None,
            tls_key: None,
            tls12: false,
            origin: None,
            dpop_nonce: DpopNonce::Required,
            socket: unspanned("/run/strongroom/strongroom.sock".into()),
            metrics: unspanned(SocketAddr::from(([127, 0, 0, 1], 9470))),
            metrics_off: false,
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            backend: unspanned(Backend::Fjall),
            path: unspanned("/var/lib/strongroom".into()),
            accept_risk: None,
            reserve_mib: 256,
            cache_mib: unspanned(40),
            cipher: Cipher::Xaes256Gcm,
        }
    }
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            path: None,
            sync: unspanned(AuditSync::default()),
            paths: AuditPaths::default(),
            segment_mib: unspanned(16),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            requests_max: 1024,
            streams_per_connection_max: 256,
            request_secs_default: 30,
            handshake_secs: 10,
            connections_per_source_max: 2048,
            latency_target_ms: 250,
            leases_per_identity_max: 10_000,
            leases_per_mount_max: 1_000_000,
            rates: Rates::default(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: unspanned("info".into()),
            format: LogFormat::default(),
        }
    }
}

impl Config {
    /// Reads and checks a file.
    /// # Errors
    /// [`ConfigError`]: names the file, the line and the key.
    pub fn load(path: &std::path::Path) -> Result<Self, ConfigError> {
        let io = |source| ConfigError::Read {
            file: path.into(),
            source,
        };
        if std::fs::metadata(path).map_err(io)?.len() > FILE_BYTES_MAX {
            return Err(ConfigError::TooLarge { file: path.into() });
        }
        let text = std::fs::read_to_string(path).map_err(io)?;
        Self::parse(&text).map_err(|problem| ConfigError::Invalid {
            file: path.into(),
            problem,
        })
    }

    /// Parses and checks a text; the error says key and line.
    /// # Errors
    /// What is wrong, in words, with key and line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut config: Self = toml::from_str(text).map_err(|error| unread(text, &error))?;
        check::check(&config).map_err(|problem| problem.locate(text))?;
        config.lines = Lines::of(text);
        Ok(config)
    }

    /// Where the segments are.
    pub fn audit_dir(&self) -> PathBuf {
        self.audit.path.as_ref().map_or_else(
            || self.store.path.get_ref().join("audit"),
            |path| path.get_ref().clone(),
        )
    }
}

/// What is wrong, with line and key and never the value: a secret may stand where none belongs.
fn unread(text: &str, error: &toml::de::Error) -> String {
    let at = error.span().map_or(0, |span| span.start.min(text.len()));
    let before = text.get(..at).unwrap_or_default();
    let line = text
        .get(before.rfind('\n').map_or(0, |end| end + 1)..)
        .unwrap_or_default();
    let line = line.lines().next().unwrap_or_default();
    // Only what is written as keys are: the line may be anything, and end in `=` as base64 does.
    let plain = |key: &&str| !key.is_empty() && key.bytes().all(|b| matches!(b, b'a'..=b'z' | b'_' | b'.' | b'-'));
    let key = line.split_once('=').map(|(key, _)| key.trim()).filter(plain);
    let key = key.map_or_else(String::new, |key| format!("{key}: "));
    format!(
        "line {}: {key}{}",
        before.matches('\n').count() + 1,
        without_value(error.message())
    )
}

/// serde tells a value of the wrong kind by its content, in quotes or backticks; the first such thing is the value, what was expected follows.
fn without_value(message: &str) -> String {
    let tells = ["invalid type", "invalid value", "unknown variant"];
    if !tells.iter().any(|words| message.starts_with(words)) {
        return message.to_owned();
    }
    let (head, told) = message.split_at(message.find(['"', '`']).unwrap_or(message.len()));
    let rest = told
        .rfind(", expected")
        .and_then(|at| told.get(at..))
        .unwrap_or_default();
    format!("{}{rest}", head.trim_end())
}

#[cfg(test)]
mod tests;
