//! Fetching an issuer's keys: the one thing that a log-in makes the daemon ask of the outside, hence the narrowest of clients.
//!
//! https only, one request, no redirects (CVE-2026-49478 of Fulcio: a redirect substituted the keys), no proxies, no credentials; bounded
//! in size and time; the addresses behind the name are looked at before any is connected to, and private ones are refused unless the trust
//! says otherwise. Nothing of a stranger's token becomes part of the request: the URL is the trust's.
//!
//! Keys are kept for an hour, a key that is not among them is looked for at most twice a minute, and keys that cannot be fetched anew are
//! used for a day.

use super::{
    jwks::{JWKS_BYTES_MAX, KeySet},
    jws::Compact,
};
use arc_swap::ArcSwapOption;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, Uri, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpStream, sync::Mutex, time::timeout};
use tokio_rustls::TlsConnector;

/// The whole of a fetch.
const PATIENCE: Duration = Duration::from_secs(8);
/// Keys are fetched anew when they are older.
const FRESH: Duration = Duration::from_secs(3600);
/// Between two fetches, whatever asks for them.
const PAUSE: Duration = Duration::from_secs(30);
/// Keys that cannot be fetched anew are used no longer.
const STALE: Duration = Duration::from_secs(24 * 3600);
const URL_BYTES_MAX: usize = 512;
/// Where systems keep their authorities.
const BUNDLES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// Why keys could not be fetched. For the daemon's log and the operator; never for whoever logs in.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not an https URL with a host.
    #[error("keys are fetched by https from a host's name or address")]
    Url,
    /// The authorities cannot be read.
    #[error("the authorities for the key server are not usable: {0}")]
    Authorities(String),
    /// The name has no address.
    #[error("the name of the key server does not resolve")]
    Name(#[source] std::io::Error),
    /// A private address.
    #[error("the key server's address {0} is not a public one: `allow_private` permits it")]
    Private(IpAddr),
    /// Cannot be reached.
    #[error("the key server cannot be reached")]
    Connect(#[source] std::io::Error),
    /// The conversation failed.
    #[error("the key server does not speak HTTP")]
    Http(#[source] hyper::Error),
    /// Not 200: redirects are not followed.
    #[error("the key server answered {0}; redirects are not followed")]
    Status(StatusCode),
    /// Too large, or broken off.
    #[error("the key server's answer is larger than 64 KiB or broke off")]
    Body,
    /// No keys in it.
    #[error("the key server's answer is no key set: {0}")]
    Keys(&'static str),
    /// Too slow.
    #[error("the key server did not answer in time")]
    Slow,
}

struct Kept {
    keys: Arc<KeySet>,
    at: Duration,
}

/// An issuer's keys, fetched when they are needed.
pub struct Fetched {
    url: Uri,
    tls: Arc<ClientConfig>,
    allow_private: bool,
    kept: ArcSwapOption<Kept>,
    /// When it was last tried; one fetch at a time.
    tried: Mutex<Option<Duration>>,
}

/// What is wrong with where keys are to be fetched from, in words.
pub fn faults(url: Option<&str>, ca_pem: Option<&str>) -> Vec<String> {
    let mut faults = Vec::new();
    match url {
        None => faults.push(
            "keys: this platform has no place where keys are published: give `fetch.url` or `static.jwks`".to_owned(),
        ),
        Some(url) if parse(url).is_none() => faults.push(
            "keys: the URL must be https://HOST/PATH, at most 512 bytes, without user, query or fragment".to_owned(),
        ),
        Some(_) => {}
    }
    if let Some(pem) = ca_pem
        && let Err(error) = roots(pem.as_bytes(), true)
    {
        faults.push(format!("keys: {error}"));
    }
    faults
}

fn parse(url: &str) -> Option<Uri> {
    let uri: Uri = (url.len() <= URL_BYTES_MAX && !url.contains('#')).then(|| url.parse().ok())??;
    let authority = uri.authority()?;
    let plain = uri.scheme_str() == Some("https") && !authority.as_str().contains('@') && uri.query().is_none();
    (plain && !authority.host().is_empty()).then_some(uri)
}

fn roots(pem: &[u8], strict: bool) -> Result<RootCertStore, FetchError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| FetchError::Authorities(error.to_string()))?;
        match roots.add(certificate) {
            Err(error) if strict => return Err(FetchError::Authorities(error.to_string())),
            // A system's bundle may hold one that rustls does not take; the others still count.
            _ => {}
        }
    }
    if roots.is_empty() {
        return Err(FetchError::Authorities("no certificate".to_owned()));
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, FetchError> {
    let pem = BUNDLES.iter().find_map(|path| std::fs::read(path).ok());
    roots(
        &pem.ok_or_else(|| FetchError::Authorities("this system has no bundle of them".to_owned()))?,
        false,
    )
}

impl Fetched {
    /// Keys at `url`; nothing is fetched yet.
    /// # Errors
    /// `Url`, `Authorities`.
    pub fn new(url: &str, ca_pem: Option<&str>, allow_private: bool) -> Result<Self, FetchError> {
        let roots = match ca_pem {
            Some(pem) => roots(pem.as_bytes(), true)?,
            None => system_roots()?,
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| FetchError::Authorities(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            url: parse(url).ok_or(FetchError::Url)?,
            tls: Arc::new(tls),
            allow_private,
            kept: ArcSwapOption::empty(),
            tried: Mutex::new(None),
        })
    }

    /// The keys, with the one that `token` means if the issuer has it. `now` is monotonic. `None`: there are none to be had.
    pub async fn keys(&self, token: &Compact<'_>, now: Duration) -> Option<Arc<KeySet>> {
        let usable = |kept: &Kept| now.saturating_sub(kept.at) < FRESH && kept.keys.has(token);
        if let Some(kept) = self.kept.load().as_deref().filter(|kept| usable(kept)) {
            return Some(Arc::clone(&kept.keys));
        }
        let mut tried = self.tried.lock().await;
        // Whoever waited for another's fetch finds its keys.
        let settled = self.kept.load().as_deref().is_some_and(usable);
        if !settled && tried.is_none_or(|at| now.saturating_sub(at) >= PAUSE) {
            *tried = Some(now);
            match self.fetch().await {
                Ok(keys) => self.kept.store(Some(Arc::new(Kept {
                    keys: Arc::new(keys),
                    at: now,
                }))),
                Err(error) => {
                    tracing::warn!(url = %self.url, cause = %error, "an issuer's keys could not be fetched");
                }
            }
        }
        let kept = self.kept.load();
        let kept = kept.as_deref().filter(|kept| now.saturating_sub(kept.at) < STALE)?;
        Some(Arc::clone(&kept.keys))
    }

    async fn fetch(&self) -> Result<KeySet, FetchError> {
        let bytes = timeout(PATIENCE, self.get()).await.map_err(|_| FetchError::Slow)??;
        KeySet::lenient(&bytes).map_err(FetchError::Keys)
    }

    async fn get(&self) -> Result<Vec<u8>, FetchError> {
        let host = self.url.host().ok_or(FetchError::Url)?.trim_matches(['[', ']']);
        let address = self.address(host).await?;
        let stream = TcpStream::connect(address).await.map_err(FetchError::Connect)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| FetchError::Url)?;
        let stream = TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, stream)
            .await
            .map_err(FetchError::Connect)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(FetchError::Http)?;
        let conversation = async {
            let authority = self.url.authority().map_or(host, |authority| authority.as_str());
            let request = Request::get(self.url.path())
                .header("host", authority)
                .header("accept", "application/json")
                .header("user-agent", "strongroomd")
                .body(Empty::<bytes::Bytes>::new())
                .map_err(|_| FetchError::Url)?;
            let answer = sender.send_request(request).await.map_err(FetchError::Http)?;
            if answer.status() != StatusCode::OK {
                return Err(FetchError::Status(answer.status()));
            }
            let body = Limited::new(answer.into_body(), JWKS_BYTES_MAX).collect().await;
            Ok(body.map_err(|_| FetchError::Body)?.to_bytes().to_vec())
        };
        // The connection is driven beside the conversation and ends with it.
        tokio::pin!(connection);
        tokio::pin!(conversation);
        tokio::select! {
            answer = &mut conversation => answer,
            ended = &mut connection => match ended {
                Ok(()) => conversation.await,
                Err(error) => Err(FetchError::Http(error)),
            },
        }
    }

    /// Every address is looked at, so that no mixture of good and bad ones gets through; the first is taken.
    async fn address(&self, host: &str) -> Result<SocketAddr, FetchError> {
        let port = self.url.port_u16().unwrap_or(443);
        let addresses: Vec<_> = tokio::net::lookup_host((host, port))
            .await
            .map_err(FetchError::Name)?
            .collect();
        if !self.allow_private
            && let Some(private) = addresses.iter().find(|address| !is_public(address.ip()))
        {
            return Err(FetchError::Private(private.ip()));
        }
        addresses.first().copied().ok_or(FetchError::Url)
    }
}

/// Whether an address is of the public Internet (IANA's special-purpose registries).
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    let special = v4.is_private()
        || v4.is_loopback()
        || v4.is_link_local()
        || v4.is_broadcast()
        || v4.is_documentation()
        || v4.is_multicast();
    !(special
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 198 && (b == 18 || b == 19))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99))
}

fn is_public_v6(v6: Ipv6Addr) -> bool {
    let [a, b, ..] = v6.segments();
    // Global unicast is 2000::/3; out of it go documentation, Teredo and 6to4 (which carry IPv4 addresses of any kind).
    a & 0xe000 == 0x2000 && !(a == 0x2001 && (b == 0x0db8 || b < 0x0200)) && a != 0x2002 && a != 0x3fff
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R-AUTH-2: no private address unless allowed.
    #[test]
    fn private_addresses_are_known() {
        for (address, public) in [
            ("140.82.121.4", true),
            ("2606:50c0:8000::153", true),
            ("127.0.0.1", false),
            ("10.1.2.3", false),
            ("172.16.0.1", false),
            ("192.168.1.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("0.0.0.0", false),
            ("198.18.0.1", false),
            ("192.0.0.8", false),
            ("224.0.0.1", false),
            ("240.0.0.1", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("::", false),
            ("::ffff:10.0.0.1", false),
            ("::ffff:140.82.121.4", true),
            ("64:ff9b::a00:1", false),
            ("fc00::1", false),
            ("fe80::1", false),
            ("ff02::1", false),
            ("2001:db8::1", false),
            ("2001::1", false),
            ("2002:a00:1::1", false),
        ] {
            assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
        }
    }

    #[test]
    fn only_plain_https_is_fetched() {
        for (url, good) in [
            ("https://token.actions.githubusercontent.com/.well-known/jwks", true),
            ("https://[2606:50c0::1]:8443/keys", true),
            ("http://example.com/keys", false),
            ("https://user@example.com/keys", false),
            ("https://example.com/keys?x=1", false),
            ("https://example.com/keys#x", false),
            ("/keys", false),
            ("https:///keys", false),
            ("file:///etc/passwd", false),
        ] {
            assert_eq!(parse(url).is_some(), good, "{url}");
        }
    }
}
