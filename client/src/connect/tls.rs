//! Trust and TLS 1.3: rustls with aws-lc-rs, X25519MLKEM768 first.

use super::ConnectFailure;
use crate::error::{Error, find};
use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use std::{io, path::Path, path::PathBuf, sync::Arc};

/// Where systems keep the bundle of CAs they trust; the first that exists is used.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Largest CA bundle read: 8 MiB; the system's are about 200 KiB.
const BUNDLE_BYTES_MAX: u64 = 8 << 20;

/// Which CAs to believe.
#[derive(Debug, Clone, Default)]
pub(super) enum Trust {
    /// The system's bundle, or the one that `SSL_CERT_FILE` names.
    #[default]
    System,
    /// A PEM file, and nothing else.
    File(PathBuf),
    /// PEM text, and nothing else.
    Pem(Vec<u8>),
}

pub(super) fn config(trust: &Trust, identity: Option<&(PathBuf, PathBuf)>) -> Result<Arc<ClientConfig>, Error> {
    let (name, pem) = match trust {
        Trust::Pem(pem) => ("CA certificate".to_owned(), pem.clone()),
        Trust::File(path) => (path.display().to_string(), read(path)?),
        Trust::System => {
            let path = system_bundle()?;
            (path.display().to_string(), read(&path)?)
        }
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| Error::Config(format!("{name}: not PEM: {e}")))?;
        // A system bundle may hold a certificate that rustls does not take; the others still count.
        if let Err(e) = roots.add(certificate)
            && !matches!(trust, Trust::System)
        {
            return Err(Error::Config(format!("{name}: not a CA certificate: {e}")));
        }
    }
    if roots.is_empty() {
        return Err(Error::Config(format!("{name}: no certificate in it")));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| Error::Tls(e.to_string()))?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let fault = |file: &Path, e: &dyn std::fmt::Display| {
                Error::Config(format!("client certificate {}: {e}", file.display()))
            };
            let certificates = CertificateDer::pem_file_iter(chain)
                .and_then(Iterator::collect)
                .map_err(|e| fault(chain, &e))?;
            let private = PrivateKeyDer::from_pem_file(key).map_err(|e| fault(key, &e))?;
            builder
                .with_client_auth_cert(certificates, private)
                .map_err(|e| fault(chain, &e))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn system_bundle() -> Result<PathBuf, Error> {
    if let Some(path) = std::env::var_os("SSL_CERT_FILE") {
        return Ok(PathBuf::from(path));
    }
    SYSTEM_BUNDLES
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .ok_or_else(|| {
            Error::Config(
                "no system CA bundle found; name the CA certificate (--ca-cert, STRONGROOM_CACERT)".to_owned(),
            )
        })
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let fault = |e: io::Error| Error::Config(format!("CA certificate {}: {e}", path.display()));
    if std::fs::metadata(path).map_err(fault)?.len() > BUNDLE_BYTES_MAX {
        return Err(Error::Config(format!(
            "CA certificate {}: larger than 8 MiB",
            path.display()
        )));
    }
    std::fs::read(path).map_err(fault)
}

/// What a failed handshake means, in words that name the way on.
pub(super) fn explain(error: &io::Error) -> ConnectFailure {
    let Some(tls) = find::<rustls::Error>(error)
        .or_else(|| error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()))
    else {
        // The network, a proxy, or a daemon that goes down: worth another try, unlike what TLS itself refuses.
        return ConnectFailure::Reach(format!(
            "the handshake broke off: {error}; is this the TLS port of strongroomd?"
        ));
    };
    ConnectFailure::Tls(match tls {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the server's certificate is not signed by a CA that is trusted here; name its CA with --ca-cert or \
             STRONGROOM_CACERT"
                .to_owned()
        }
        rustls::Error::InvalidCertificate(CertificateError::BadSignature) => {
            "the server's certificate was signed by another CA of the same name than the one trusted here; was the CA \
             made anew? Name the present one with --ca-cert or STRONGROOM_CACERT"
                .to_owned()
        }
        rustls::Error::InvalidCertificate(
            e @ (CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }),
        ) => format!("the server's certificate does not carry this host name: {e}"),
        rustls::Error::InvalidCertificate(
            e @ (CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }),
        ) => format!("the server's certificate is out of its time: {e}; check both clocks"),
        other => other.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_ca_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty.pem");
        std::fs::write(&empty, "nothing here\n").unwrap();
        for (trust, word) in [
            (Trust::File(empty), "empty.pem"),
            (Trust::File(dir.path().join("absent.pem")), "absent.pem"),
            (
                Trust::Pem(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec()),
                "CA certificate",
            ),
        ] {
            let error = config(&trust, None).unwrap_err();
            assert!(matches!(&error, Error::Config(m) if m.contains(word)), "{error}");
        }
    }

    /// R-OPS-2: hybrid post-quantum key exchange is offered first.
    #[test]
    fn post_quantum_comes_first() {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        assert_eq!(
            provider.kx_groups.first().map(|g| g.name()),
            Some(rustls::NamedGroup::X25519MLKEM768)
        );
    }
}
