//! What serde cannot say: pairs, ranges, names.

use super::{Backend, Config, Hsm, Lines};
use std::ops::{Range, RangeInclusive};
use toml::Spanned;

/// The largest reserve, 1 TiB.
const RESERVE_MIB_MAX: u64 = 1 << 20;
/// What the kernel takes as the path of a Unix socket.
const SOCKET_BYTES_MAX: usize = 107;

/// What an operator repeats to run on sled; docs/KNOWN_ISSUES explains it.
pub const SLED_RISK: &str = "sled may lose acknowledged writes on power loss";

/// A key that is wrong, and where it stands.
#[derive(Debug)]
pub struct Problem {
    key: String,
    at: Option<Range<usize>>,
    what: String,
}

impl Problem {
    fn at<T>(key: impl Into<String>, value: &Spanned<T>, what: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            at: Some(value.span()).filter(|span| !span.is_empty()),
            what: what.into(),
        }
    }
    /// Of a key whose place the file's lines tell.
    pub fn of(key: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            at: None,
            what: what.into(),
        }
    }
    /// `line 3: hsm.main.token: ...`; of a key that the file leaves out, that its default is meant.
    pub fn locate(&self, text: &str) -> String {
        match self.at.as_ref().and_then(|span| text.get(..span.start)) {
            Some(before) => self.on(before.matches('\n').count() + 1),
            None => self.find(&Lines::of(text)),
        }
    }
    /// The same by the lines that were kept.
    pub fn find(&self, lines: &Lines) -> String {
        match lines.line(&self.key) {
            Some(line) => self.on(line),
            None => format!("{} (not in the file: its default): {}", self.key, self.what),
        }
    }
    fn on(&self, line: usize) -> String {
        format!("line {line}: {}: {}", self.key, self.what)
    }
}

/// Checks everything, first problem first.
pub fn check(config: &Config) -> Result<(), Problem> {
    listener(config)?;
    if let Some(origin) = &config.listener.origin {
        let host = origin.get_ref().strip_prefix("https://").unwrap_or_default();
        if host.is_empty() || host.contains(['/', '?', '#', '@']) {
            return Err(Problem::at(
                "listener.origin",
                origin,
                "https://HOST:PORT, without a slash behind",
            ));
        }
    }
    store(config)?;
    for (name, hsm) in &config.hsm {
        check_hsm(name, hsm)?;
    }
    let segment = &config.audit.segment_mib;
    if !(1..=1024).contains(segment.get_ref()) {
        return Err(Problem::at("audit.segment_mib", segment, "1 to 1024"));
    }
    limits(config)?;
    let level = &config.log.level;
    if !["error", "warn", "info", "debug", "trace"].contains(&level.get_ref().as_str()) {
        return Err(Problem::at(
            "log.level",
            level,
            "one of error, warn, info, debug, trace",
        ));
    }
    Ok(())
}

/// Bounds of what operators may move: 0 stands for nothing here, and no number may overflow what is made of it.
fn limits(config: &Config) -> Result<(), Problem> {
    let limits = &config.limits;
    let size = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let million: RangeInclusive<u64> = 1..=1_000_000;
    for (key, value, range) in [
        ("connections_max", size(limits.connections_max), million.clone()),
        ("requests_max", size(limits.requests_max), million.clone()),
        (
            "streams_per_connection_max",
            limits.streams_per_connection_max.into(),
            1..=65_536,
        ),
        ("request_secs_default", limits.request_secs_default, 1..=86_400),
        ("handshake_secs", limits.handshake_secs, 1..=3600),
        (
            "connections_per_source_max",
            size(limits.connections_per_source_max),
            million,
        ),
        ("latency_target_ms", limits.latency_target_ms, 1..=60_000),
        (
            "leases_per_identity_max",
            limits.leases_per_identity_max,
            1..=1_000_000_000,
        ),
        ("leases_per_mount_max", limits.leases_per_mount_max, 1..=1_000_000_000),
    ] {
        if !range.contains(&value) {
            return Err(Problem::of(
                format!("limits.{key}"),
                format!("{} to {}", range.start(), range.end()),
            ));
        }
    }
    Ok(())
}

fn listener(config: &Config) -> Result<(), Problem> {
    let listener = &config.listener;
    let (grpc, metrics) = (listener.address.get_ref(), listener.metrics.get_ref());
    let everywhere = grpc.ip().is_unspecified() || metrics.ip().is_unspecified();
    if listener.tls_cert.is_some()
        && !listener.metrics_off
        && grpc.port() != 0
        && grpc.port() == metrics.port()
        && (everywhere || grpc.ip() == metrics.ip())
    {
        return Err(Problem::of(
            if listener.metrics.span().is_empty() {
                "listener.address"
            } else {
                "listener.metrics"
            },
            "gRPC (listener.address) and metrics (listener.metrics) would listen on one port: give each its own, or metrics_off = true",
        ));
    }
    if listener.socket.get_ref().as_os_str().len() > SOCKET_BYTES_MAX {
        return Err(Problem::of(
            "listener.socket",
            format!("a Unix socket's path has at most {SOCKET_BYTES_MAX} bytes: choose a shorter one"),
        ));
    }
    match (&config.listener.tls_cert, &config.listener.tls_key) {
        (Some(cert), None) => Err(Problem::at(
            "listener.tls_cert",
            cert,
            "needs listener.tls_key beside it",
        )),
        (None, Some(key)) => Err(Problem::at(
            "listener.tls_key",
            key,
            "needs listener.tls_cert beside it",
        )),
        _ => Ok(()),
    }
}

fn store(config: &Config) -> Result<(), Problem> {
    if !(4..=65_536).contains(config.store.cache_mib.get_ref()) {
        return Err(Problem::at("store.cache_mib", &config.store.cache_mib, "4 to 65536"));
    }
    if config.store.reserve_mib > RESERVE_MIB_MAX {
        return Err(Problem::of(
            "store.reserve_mib",
            format!("0 (no reserve) to {RESERVE_MIB_MAX}"),
        ));
    }
    let accepted = config.store.accept_risk.as_ref();
    match (config.store.backend.get_ref(), accepted) {
        (Backend::Sled, Some(text)) if text.get_ref() == SLED_RISK => Ok(()),
        (Backend::Sled, Some(text)) => Err(Problem::at(
            "store.accept_risk",
            text,
            format!("to run on sled, write exactly: accept_risk = \"{SLED_RISK}\""),
        )),
        (Backend::Sled, None) => Err(Problem::at(
            "store.backend",
            &config.store.backend,
            format!(
                "sled is not durable on power loss (docs/KNOWN_ISSUES); use fjall, or add accept_risk = \"{SLED_RISK}\""
            ),
        )),
        (Backend::Fjall | Backend::Memory, _) => Ok(()),
    }
}

fn check_hsm(name: &str, hsm: &Hsm) -> Result<(), Problem> {
    let key = |field: &str| format!("hsm.{name}.{field}");
    let named = (1..=32).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !named {
        return Err(Problem::at(
            key("module"),
            &hsm.module,
            "the HSM's name is 1 to 32 of a-z 0-9 -",
        ));
    }
    match (&hsm.token, &hsm.serial) {
        (Some(_), Some(serial)) => {
            return Err(Problem::at(
                key("serial"),
                serial,
                "give either token (its label) or serial",
            ));
        }
        (None, None) => {
            return Err(Problem::at(
                key("module"),
                &hsm.module,
                "needs token (its label) or serial: slot numbers change",
            ));
        }
        _ => {}
    }
    let sources =
        usize::from(hsm.pin_file.is_some()) + usize::from(hsm.pin_credential.is_some()) + usize::from(hsm.pin_prompt);
    if sources != 1 {
        return Err(Problem::at(
            key("module"),
            &hsm.module,
            "needs exactly one of pin_file, pin_credential (systemd), pin_prompt = true; a PIN never stands in this file",
        ));
    }
    for variable in hsm.env.keys() {
        let upper = variable.to_ascii_uppercase();
        if variable.is_empty() || upper.contains("PIN") && !upper.contains("SPIN") || variable.contains(['=', '\0']) {
            return Err(Problem::at(
                key("env"),
                &hsm.module,
                format!("variable {variable:?} is not passed on: no PINs in the environment"),
            ));
        }
    }
    Ok(())
}
