//! TLS for the listener: rustls with aws-lc-rs, TLS 1.3 (1.2 by choice), X25519MLKEM768 first, certificates reloaded without a restart.

use arc_swap::ArcSwap;
use rustls::{
    DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{
        ClientHello, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Certificate or key unusable.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read as PEM.
    #[error("cannot read {} as PEM: {what}", file.display())]
    Pem {
        /// The file.
        file: PathBuf,
        /// What rustls says.
        what: String,
    },
    /// No certificate in the file.
    #[error("{} holds no certificate", file.display())]
    Empty {
        /// The file.
        file: PathBuf,
    },
    /// The key does not fit, or is of an unknown kind.
    #[error("certificate and key of listener.tls_cert and listener.tls_key do not work together")]
    Pair(#[source] rustls::Error),
    /// rustls refuses the combination.
    #[error("TLS set-up refused")]
    Setup(#[source] rustls::Error),
}

/// The listener's certificate, exchanged whole by [`Certificate::reload`].
#[derive(Debug)]
pub struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    current: ArcSwap<CertifiedKey>,
}

impl Certificate {
    /// Loads chain and key.
    /// # Errors
    /// [`TlsError`] names the file.
    pub fn load(cert: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        let current = ArcSwap::from_pointee(read(cert, key)?);
        Ok(Arc::new(Self {
            cert: cert.into(),
            key: key.into(),
            current,
        }))
    }
    /// Reads the same files again; new connections get what is there now. On an error the old pair stays.
    /// # Errors
    /// [`TlsError`] names the file.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.store(Arc::new(read(&self.cert, &self.key)?));
        Ok(())
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn read(cert: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let pem = |file: &Path| {
        let file = file.to_path_buf();
        move |error: rustls::pki_types::pem::Error| TlsError::Pem {
            file,
            what: error.to_string(),
        }
    };
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(pem(cert))?;
    if chain.is_empty() {
        return Err(TlsError::Empty { file: cert.into() });
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(pem(key))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(TlsError::Pair)
}

/// Asks for a client certificate and takes any, or none: the handshake proves that the client holds its key. Whether it means anything is
/// for log-in methods to decide, and for tokens that are bound to it.
#[derive(Debug)]
struct AnyCertificate;

impl ClientCertVerifier for AnyCertificate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn client_auth_mandatory(&self) -> bool {
        false
    }
    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &provider().signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &provider().signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// The one crypto provider of the daemon. With `prefer-post-quantum`, X25519MLKEM768 is its first group.
pub fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

/// The listener's TLS: HTTP/2 only, no early data.
/// # Errors
/// [`TlsError::Setup`].
pub fn server_config(certificate: Arc<Certificate>, tls12: bool) -> Result<Arc<ServerConfig>, TlsError> {
    let versions: &[_] = if tls12 { &[&TLS13, &TLS12] } else { &[&TLS13] };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(versions)
        .map_err(TlsError::Setup)?
        .with_client_cert_verifier(Arc::new(AnyCertificate))
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R-OPS-2: the hybrid group comes first.
    #[test]
    fn hybrid_key_exchange_is_preferred() {
        assert_eq!(
            provider().kx_groups.first().map(|group| group.name()),
            Some(rustls::NamedGroup::X25519MLKEM768)
        );
    }

    /// R-OPS-2: certificates reload without a restart; a broken file keeps the old pair.
    #[test]
    fn reload_takes_the_new_pair_or_keeps_the_old() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
        let write = || {
            let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            std::fs::write(&cert, pair.cert.pem()).unwrap();
            std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
        };
        write();
        let served = Certificate::load(&cert, &key).unwrap();
        let first = served.current.load().cert.clone();
        write();
        served.reload().unwrap();
        let second = served.current.load().cert.clone();
        assert_ne!(first, second);
        std::fs::write(&cert, "nonsense").unwrap();
        assert!(served.reload().unwrap_err().to_string().contains("c.pem"));
        assert_eq!(served.current.load().cert, second);
    }
}
