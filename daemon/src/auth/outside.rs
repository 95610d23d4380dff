//! The one client by which log-ins make the daemon ask something of the outside, hence the narrowest of clients: an issuer's keys, what an
//! OpenID provider publishes of itself, and its token endpoint.
//!
//! https only, one request a connection, no redirects (CVE-2026-49478 of Fulcio: a redirect substituted the keys), no proxies, no cookies; bounded
//! in size, time and number; the addresses behind the name are looked at before any is connected to, and private ones are refused unless the
//! trust says otherwise.

use crate::base::secret::SecretBytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode, Uri, body::Bytes, client::conn::http1};
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
use tokio::{net::TcpStream, sync::Semaphore, time::timeout};
use tokio_rustls::TlsConnector;

/// The whole of a conversation.
const PATIENCE: Duration = Duration::from_secs(8);
/// Conversations of one trust at once; who comes then is told to come again.
const AT_ONCE_MAX: usize = 16;
const URL_BYTES_MAX: usize = 512;
/// Where systems keep their authorities.
const BUNDLES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// Why nothing came back. For the daemon's log and the operator; never for whoever logs in.
#[derive(Debug, thiserror::Error)]
pub enum OutsideError {
    /// Not an https URL with a host.
    #[error("only https URLs with a host's name or address are asked")]
    Url,
    /// The authorities cannot be read.
    #[error("the authorities for the server are not usable: {0}")]
    Authorities(String),
    /// The name has no address.
    #[error("the name of the server does not resolve")]
    Name(#[source] std::io::Error),
    /// A private address.
    #[error("the server's address {0} is not a public one: `allow_private` permits it")]
    Private(IpAddr),
    /// Cannot be reached.
    #[error("the server cannot be reached")]
    Connect(#[source] std::io::Error),
    /// The conversation failed.
    #[error("the server does not speak HTTP")]
    Http(#[source] hyper::Error),
    /// Not 200: redirects are not followed.
    #[error("the server answered {0}; redirects are not followed")]
    Status(StatusCode),
    /// Too large, or broken off.
    #[error("the server's answer is too large or broke off")]
    Body,
    /// Not what was asked for.
    #[error("the server's answer is not usable: {0}")]
    Answer(&'static str),
    /// Too slow.
    #[error("the server did not answer in time")]
    Slow,
    /// As many conversations as there may be.
    #[error("too many are asking this server already")]
    Busy,
}

/// See the module. Clones share the bound on conversations.
#[derive(Clone)]
pub struct Client {
    tls: Arc<ClientConfig>,
    allow_private: bool,
    places: Arc<Semaphore>,
}

/// What is sent. Nothing of a stranger's but what [`form`] has encoded.
struct Sent<'s> {
    form: Option<&'s SecretBytes>,
    authorization: Option<&'s SecretBytes>,
}

/// What is wrong with where something is to be asked, in words. `what` names the key of the trust.
pub fn faults(what: &str, text: &str, ca_pem: Option<&str>) -> Vec<String> {
    let mut faults = Vec::new();
    if url(text).is_none() {
        faults.push(format!(
            "{what}: the URL must be https://HOST/PATH, at most 512 bytes, without user, query or fragment"
        ));
    }
    if let Some(pem) = ca_pem
        && let Err(error) = roots(pem.as_bytes(), true)
    {
        faults.push(format!("{what}: {error}"));
    }
    faults
}

/// An URL that may be asked.
pub fn url(text: &str) -> Option<Uri> {
    let uri: Uri = (text.len() <= URL_BYTES_MAX && !text.contains('#')).then(|| text.parse().ok())??;
    let authority = uri.authority()?;
    let plain = uri.scheme_str() == Some("https") && !authority.as_str().contains('@') && uri.query().is_none();
    (plain && !authority.host().is_empty()).then_some(uri)
}

/// `application/x-www-form-urlencoded`: everything but letters, digits and `-._~` is escaped.
pub fn form(pairs: &[(&str, &str)]) -> SecretBytes {
    let mut text = Vec::new();
    for (at, (name, value)) in pairs.iter().enumerate() {
        if at > 0 {
            text.push(b'&');
        }
        escape(name, &mut text);
        text.push(b'=');
        escape(value, &mut text);
    }
    SecretBytes::new(text)
}

fn escape(text: &str, to: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => to.push(byte),
            other => to.extend(format!("%{other:02X}").bytes()),
        }
    }
}

fn roots(pem: &[u8], strict: bool) -> Result<RootCertStore, OutsideError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| OutsideError::Authorities(error.to_string()))?;
        match roots.add(certificate) {
            Err(error) if strict => return Err(OutsideError::Authorities(error.to_string())),
            // A system's bundle may hold one that rustls does not take; the others still count.
            _ => {}
        }
    }
    if roots.is_empty() {
        return Err(OutsideError::Authorities("no certificate".to_owned()));
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, OutsideError> {
    let pem = BUNDLES.iter().find_map(|path| std::fs::read(path).ok());
    roots(
        &pem.ok_or_else(|| OutsideError::Authorities("this system has no bundle of them".to_owned()))?,
        false,
    )
}

impl Client {
    /// Nothing is asked yet. `ca_pem`: authorities of the servers' certificates; default: the system's.
    /// # Errors
    /// `Authorities`.
    pub fn new(ca_pem: Option<&str>, allow_private: bool) -> Result<Self, OutsideError> {
        let roots = match ca_pem {
            Some(pem) => roots(pem.as_bytes(), true)?,
            None => system_roots()?,
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| OutsideError::Authorities(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            tls: Arc::new(tls),
            allow_private,
            places: Arc::new(Semaphore::new(AT_ONCE_MAX)),
        })
    }

    /// The same client, with this many conversations of its own at once.
    pub fn apart(&self, at_once: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(at_once)),
            ..self.clone()
        }
    }

    /// What is at `url`, at most `bytes_max`.
    /// # Errors
    /// [`OutsideError`]; `Status` for anything but 200.
    pub async fn get(&self, url: &Uri, bytes_max: usize) -> Result<Vec<u8>, OutsideError> {
        let nothing = Sent {
            form: None,
            authorization: None,
        };
        match self.ask(url, nothing, bytes_max).await? {
            (StatusCode::OK, body) => Ok(body),
            (status, _) => Err(OutsideError::Status(status)),
        }
    }

    /// What `url` answers to a form, at most `bytes_max`, whatever the status.
    /// # Errors
    /// [`OutsideError`].
    pub async fn post(
        &self,
        url: &Uri,
        form: &SecretBytes,
        authorization: Option<&SecretBytes>,
        bytes_max: usize,
    ) -> Result<(StatusCode, Vec<u8>), OutsideError> {
        let form = Some(form);
        self.ask(url, Sent { form, authorization }, bytes_max).await
    }

    async fn ask(&self, url: &Uri, sent: Sent<'_>, bytes_max: usize) -> Result<(StatusCode, Vec<u8>), OutsideError> {
        let _place = self.places.try_acquire().map_err(|_| OutsideError::Busy)?;
        timeout(PATIENCE, self.talk(url, sent, bytes_max))
            .await
            .map_err(|_| OutsideError::Slow)?
    }

    async fn talk(&self, url: &Uri, sent: Sent<'_>, bytes_max: usize) -> Result<(StatusCode, Vec<u8>), OutsideError> {
        let host = url.host().ok_or(OutsideError::Url)?.trim_matches(['[', ']']);
        let address = self.address(host, url.port_u16().unwrap_or(443)).await?;
        let stream = TcpStream::connect(address).await.map_err(OutsideError::Connect)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| OutsideError::Url)?;
        let stream = TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, stream)
            .await
            .map_err(OutsideError::Connect)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(OutsideError::Http)?;
        let request = request(url, &sent)?;
        let conversation = async {
            let answer = sender.send_request(request).await.map_err(OutsideError::Http)?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), bytes_max).collect().await;
            Ok((status, body.map_err(|_| OutsideError::Body)?.to_bytes().to_vec()))
        };
        // The connection is driven beside the conversation and ends with it.
        tokio::pin!(connection);
        tokio::pin!(conversation);
        tokio::select! {
            answer = &mut conversation => answer,
            ended = &mut connection => match ended {
                Ok(()) => conversation.await,
                Err(error) => Err(OutsideError::Http(error)),
            },
        }
    }

    /// Every address is looked at, so that no mixture of good and bad ones gets through; the first is taken.
    async fn address(&self, host: &str, port: u16) -> Result<SocketAddr, OutsideError> {
        let addresses: Vec<_> = tokio::net::lookup_host((host, port))
            .await
            .map_err(OutsideError::Name)?
            .collect();
        if !self.allow_private
            && let Some(private) = addresses.iter().find(|address| !is_public(address.ip()))
        {
            return Err(OutsideError::Private(private.ip()));
        }
        addresses.first().copied().ok_or(OutsideError::Url)
    }
}

fn request(url: &Uri, sent: &Sent<'_>) -> Result<Request<Full<Bytes>>, OutsideError> {
    let authority = url.authority().ok_or(OutsideError::Url)?.as_str();
    let mut request = match sent.form {
        None => Request::get(url.path()),
        Some(_) => Request::post(url.path()).header("content-type", "application/x-www-form-urlencoded"),
    };
    request = request
        .header("host", authority)
        .header("accept", "application/json")
        .header("user-agent", "strongroomd");
    if let Some(authorization) = sent.authorization {
        let mut value = http::HeaderValue::from_bytes(authorization.expose()).map_err(|_| OutsideError::Url)?;
        value.set_sensitive(true);
        request = request.header("authorization", value);
    }
    let body = sent.form.map(|form| Bytes::copy_from_slice(form.expose()));
    request
        .body(Full::new(body.unwrap_or_default()))
        .map_err(|_| OutsideError::Url)
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
        for (text, good) in [
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
            assert_eq!(url(text).is_some(), good, "{text}");
        }
    }
}
