//! Addresses of a daemon: `https://host:port` or `unix:/path`.

use crate::error::Error;
use std::{fmt, path::PathBuf, str::FromStr};

/// The daemon's TCP port when the address names none.
pub const DEFAULT_PORT: u16 = 8470;
/// Where the daemon listens locally by default.
pub const DEFAULT_SOCKET: &str = "/run/strongroom/strongroom.sock";

/// Where a daemon listens. Parsed from `https://host`, `https://[::1]:8470`, `unix:/absolute/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// TLS over TCP. `host` is a name or a bare IP address (no brackets).
    Tls {
        /// Name or IP address; the server's certificate must carry it.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// A Unix socket, absolute path.
    Unix(PathBuf),
}

impl Address {
    /// The URI that HTTP/2 sees; for a socket a fixed name.
    pub(crate) fn origin(&self) -> String {
        match self {
            Self::Unix(_) => "http://strongroom.local".to_owned(),
            Self::Tls { .. } => self.to_string(),
        }
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
            return match path.is_absolute() {
                true => Ok(Self::Unix(path)),
                false => Err(Error::Config(format!(
                    "address `{text}`: the socket's path must be absolute"
                ))),
            };
        }
        let bad = |why: &str| {
            Error::Config(format!(
                "address `{text}`: {why}; write https://HOST:{DEFAULT_PORT} or unix:{DEFAULT_SOCKET}"
            ))
        };
        let uri: http::Uri = text.parse().map_err(|_| bad("not an address"))?;
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") => return Err(bad("plain text over a network is not offered")),
            _ => return Err(bad("no https:// or unix: in front")),
        }
        if uri.path() != "/" || uri.query().is_some() {
            return Err(bad("nothing may follow the port"));
        }
        let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        if authority.contains('@') {
            return Err(bad("no user or password belongs in it"));
        }
        let host = uri.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err(bad("no host"));
        }
        Ok(Self::Tls {
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(DEFAULT_PORT),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tls { host, port } if host.contains(':') => write!(f, "https://[{host}]:{port}"),
            Self::Tls { host, port } => write!(f, "https://{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, shown: &str) {
        assert_eq!(
            text.parse::<Address>().map(|a| a.to_string()).as_deref(),
            Ok(shown),
            "{text}"
        );
    }

    #[test]
    fn addresses_parse_and_show_canonically() {
        check("https://vault.example.com", "https://vault.example.com:8470");
        check("https://vault.example.com:443/", "https://vault.example.com:443");
        check("https://[::1]:8470", "https://[::1]:8470");
        check("https://127.0.0.1:1", "https://127.0.0.1:1");
        check("unix:/run/s.sock", "unix:/run/s.sock");
        check("unix:///run/s.sock", "unix:/run/s.sock");
    }

    /// R-OPS-2: plain text is refused, not silently upgraded; every error shows what to write.
    #[test]
    fn wrong_addresses_say_what_to_write() {
        for text in [
            "http://a:1",
            "a:1",
            "",
            "https://",
            "https://a/b",
            "https://u:p@a",
            "unix:relative",
            "ftp://a",
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(matches!(&error, Error::Config(_)), "{text}");
            assert!(
                error.to_string().contains("https://HOST") || error.to_string().contains("absolute"),
                "{error}"
            );
        }
    }
}
