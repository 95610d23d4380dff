//! The server of a mount, as every kind's configuration describes it: bounds, whom to believe, TLS.

use super::EngineError;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Connections of one mount, its proofs excepted.
const CONNECTIONS_MAX: usize = 64;
/// A host name, an address or a Unix socket.
const HOST_BYTES_MAX: usize = 255;
/// Longest connect timeout.
const CONNECT_TIMEOUT_MAX_SECS: u64 = 60;
/// Longest statement timeout; with the connect timeout it stays below a revocation's claim.
const STATEMENT_TIMEOUT_MAX_SECS: u64 = 30;

/// How the server proves itself; the words are libpq's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum SslMode {
    /// Plain: for a Unix socket or a private wire.
    Disable,
    /// Encrypted, server not authenticated.
    Require,
    /// Encrypted, certificate and name verified against `ca_pem`.
    #[default]
    VerifyFull,
}

/// The keys that all kinds share.
pub(super) struct Server<'c> {
    pub host: &'c str,
    pub port: u16,
    pub sslmode: SslMode,
    pub ca_pem: Option<&'c str>,
    pub connect_timeout_secs: u64,
    pub statement_timeout_secs: u64,
    pub connections: usize,
}

pub(super) fn connect_timeout() -> u64 {
    5
}
pub(super) fn statement_timeout() -> u64 {
    10
}
pub(super) fn connections() -> usize {
    16
}

impl Server<'_> {
    /// # Errors
    /// `Config` naming the key that is out of bounds.
    pub fn check(&self) -> Result<(), EngineError> {
        let (connect, statement) = (CONNECT_TIMEOUT_MAX_SECS, STATEMENT_TIMEOUT_MAX_SECS);
        first_that_fails([
            (
                (1..=HOST_BYTES_MAX).contains(&self.host.len()),
                format!("host: 1 to {HOST_BYTES_MAX} bytes"),
            ),
            (self.port != 0, "port: not 0".to_owned()),
            (
                (1..=connect).contains(&self.connect_timeout_secs),
                format!("connect_timeout_secs: 1 to {connect}"),
            ),
            (
                (1..=statement).contains(&self.statement_timeout_secs),
                format!("statement_timeout_secs: 1 to {statement}"),
            ),
            (
                (1..=CONNECTIONS_MAX).contains(&self.connections),
                format!("connections: 1 to {CONNECTIONS_MAX}"),
            ),
            (
                self.sslmode != SslMode::VerifyFull || !cas(self.ca_pem)?.is_empty(),
                "ca_pem: certificates in PEM are needed for sslmode verify-full".to_owned(),
            ),
        ])
    }

    /// Server and trust in one text, to be compared.
    pub fn identity(&self) -> String {
        format!("{:?}", (self.host, self.port, self.sslmode, self.ca_pem))
    }
}

/// The text of the first rule that does not hold, as a `Config` error.
pub(super) fn first_that_fails(rules: impl IntoIterator<Item = (bool, String)>) -> Result<(), EngineError> {
    match rules.into_iter().find(|(fits, _)| !fits) {
        Some((_, text)) => Err(EngineError::Config(format!("configuration: {text}"))),
        None => Ok(()),
    }
}

/// The certificates of `ca_pem`.
pub(super) fn cas(pem: Option<&str>) -> Result<Vec<CertificateDer<'static>>, EngineError> {
    CertificateDer::pem_slice_iter(pem.unwrap_or_default().as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| EngineError::Config("configuration: ca_pem: not PEM".to_owned()))
}

/// What a TLS session to the server is opened with; `None`: plain.
pub(super) fn tls(sslmode: SslMode, ca_pem: Option<&str>) -> Result<Option<ClientConfig>, EngineError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| EngineError::Config(format!("configuration: TLS: {error}")))?;
    Ok(Some(match sslmode {
        SslMode::Disable => return Ok(None),
        SslMode::Require => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
            .with_no_client_auth(),
        SslMode::VerifyFull => {
            let mut roots = RootCertStore::empty();
            for certificate in cas(ca_pem)? {
                roots
                    .add(certificate)
                    .map_err(|error| EngineError::Config(format!("configuration: ca_pem: {error}")))?;
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
    }))
}

/// `sslmode=require` as libpq means it: encrypted, whoever answers.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
