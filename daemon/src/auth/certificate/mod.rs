//! Log-in by the client certificate of the connection (R-AUTH-1). The token is always bound to that certificate (R-AUTH-3).
//!
//! Trusts: the authorities that the trust names, and its revocation lists, which must be valid: no list that covers a certificate, or one that
//! has expired, is a refusal. Chains, times, purposes and signatures are rustls's (webpki) to check; names are compared exactly, wildcards in a
//! certificate name nobody. Limits: 16 authorities, 16 lists, 64 bindings. The handshake itself takes any certificate: it proves the key, and
//! this module decides whether that means anything.

use super::Refused;
use crate::base::time::Timestamp;
use rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

const AUTHORITIES_MAX: usize = 16;
const LISTS_MAX: usize = 16;
const BINDINGS_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 512;

/// `certificate` of a trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// Authorities, PEM. Their own, not the Internet's: whoever they certify is compared with the bindings.
    pub ca_pem: String,
    /// Revocation lists, PEM. Given one, every certificate must be covered by a list that has not expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crl_pem: Option<String>,
    /// Who may log in: the first that fits counts.
    pub bind: Vec<Name>,
}

/// A name in a certificate's subject alternative names; the common name is never looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Name {
    /// A DNS name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<String>,
    /// A URI, such as `spiffe://example.com/pay`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// What it gets.
    #[serde(default)]
    pub groups: BTreeSet<String>,
}

/// A certificate trust in force.
pub struct CertificateTrust {
    bind: Vec<Name>,
    verifier: Arc<dyn ClientCertVerifier>,
}

/// Who a certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// `dns:NAME` or `uri:NAME`.
    pub subject: String,
    /// What it gets.
    pub groups: BTreeSet<String>,
}

/// SHA-256 of a certificate, as tokens are bound to it (RFC 8705 `x5t#S256`).
pub fn thumbprint(leaf: &[u8]) -> [u8; 32] {
    Sha256::digest(leaf).into()
}

impl CertificateTrust {
    /// Puts a definition into force.
    /// # Errors
    /// In words, what is wrong with it.
    pub fn new(definition: &Certificate) -> Result<Self, Vec<String>> {
        let faults = definition.faults();
        if !faults.is_empty() {
            return Err(faults);
        }
        let one = |fault: String| vec![fault];
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(definition.ca_pem.as_bytes()) {
            let authority = authority.map_err(|error| one(format!("ca_pem: {error}")))?;
            roots.add(authority).map_err(|error| one(format!("ca_pem: {error}")))?;
        }
        if roots.is_empty() || roots.len() > AUTHORITIES_MAX {
            return Err(one("ca_pem: 1 to 16 certificates".to_owned()));
        }
        let lists =
            CertificateRevocationListDer::pem_slice_iter(definition.crl_pem.as_deref().unwrap_or_default().as_bytes())
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| one(format!("crl_pem: {error}")))?;
        if lists.len() > LISTS_MAX || (definition.crl_pem.is_some() && lists.is_empty()) {
            return Err(one("crl_pem: 1 to 16 lists".to_owned()));
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .with_crls(lists)
            .enforce_revocation_expiration()
            .build()
            .map_err(|error| one(format!("crl_pem: {error}")))?;
        Ok(Self {
            bind: definition.bind.clone(),
            verifier,
        })
    }

    /// Who the connection's certificate is: `chain` is as it was sent, leaf first; its key was proved by the handshake.
    /// # Errors
    /// [`Refused::Certificate`] unless an authority vouches for it now; [`Refused::NoBinding`].
    pub fn recognise(&self, chain: &[Box<[u8]>], now: Timestamp) -> Result<Named, Refused> {
        let (leaf, rest) = chain.split_first().ok_or(Refused::Certificate)?;
        let leaf = CertificateDer::from(&leaf[..]);
        let rest: Vec<_> = rest.iter().map(|der| CertificateDer::from(&der[..])).collect();
        let now = UnixTime::since_unix_epoch(Duration::from_millis(now.0));
        self.verifier.verify_client_cert(&leaf, &rest, now).map_err(|error| {
            tracing::info!(%error, "a client certificate was refused");
            Refused::Certificate
        })?;
        let parsed = webpki::EndEntityCert::try_from(&leaf).map_err(|_| Refused::Certificate)?;
        let dns: BTreeSet<_> = parsed.valid_dns_names().map(str::to_ascii_lowercase).collect();
        let uris: BTreeSet<_> = parsed.valid_uri_names().collect();
        let found = self.bind.iter().find_map(|name| match (&name.dns, &name.uri) {
            (Some(want), None) if dns.contains(want.as_str()) => Some((format!("dns:{want}"), name)),
            (None, Some(want)) if uris.contains(want.as_str()) => Some((format!("uri:{want}"), name)),
            _ => None,
        });
        let (subject, name) = found.ok_or(Refused::NoBinding)?;
        Ok(Named {
            subject,
            groups: name.groups.clone(),
        })
    }
}

impl Certificate {
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.bind.is_empty() || self.bind.len() > BINDINGS_MAX {
            faults.push("bind: 1 to 64 names".to_owned());
        }
        for (at, name) in self.bind.iter().enumerate() {
            let fault = match (&name.dns, &name.uri) {
                (Some(dns), None) if dns.contains('*') => "there are no wildcards",
                (Some(dns), None) if *dns != dns.to_ascii_lowercase() => "a DNS name in lower case",
                (Some(text), None) | (None, Some(text)) if (1..=NAME_BYTES_MAX).contains(&text.len()) => continue,
                (Some(_), None) | (None, Some(_)) => "1 to 512 bytes",
                _ => "give exactly one of `dns`, `uri`",
            };
            faults.push(format!("bind[{at}]: {fault}"));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, ExtendedKeyUsagePurpose,
        IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
    };

    type Authority = CertifiedIssuer<'static, KeyPair>;

    fn authority(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn leaf(
        by: &Authority,
        names: &[SanType],
        serial: u64,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Vec<Box<[u8]>> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names.to_vec();
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "pay.example.com");
        change(&mut params);
        let certificate = params.signed_by(&KeyPair::generate().unwrap(), by).unwrap();
        vec![certificate.der().to_vec().into()]
    }

    fn revoked(by: &Authority, serial: u64, next: i32) -> String {
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2025, 1, 1),
            next_update: date_time_ymd(next, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: date_time_ymd(2025, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(by).unwrap().pem().unwrap()
    }

    fn dns(name: &str) -> SanType {
        SanType::DnsName(name.try_into().unwrap())
    }

    /// R-AUTH-1: chain, time, purpose, name and revocation each refuse alone.
    #[test]
    fn certificates_are_believed_only_whole() {
        let (ca, other) = (authority("ours"), authority("theirs"));
        let uri = SanType::URI("spiffe://example.com/pay".try_into().unwrap());
        let name = |dns: Option<&str>, uri: Option<&str>, group: &str| Name {
            dns: dns.map(str::to_owned),
            uri: uri.map(str::to_owned),
            groups: [group.to_owned()].into(),
        };
        let definition = Certificate {
            ca_pem: ca.pem(),
            crl_pem: Some(revoked(&ca, 13, 2100)),
            bind: vec![
                name(Some("pay.example.com"), None, "pay"),
                name(None, Some("spiffe://example.com/pay"), "spiffe"),
            ],
        };
        let trust = CertificateTrust::new(&definition).unwrap();
        let now = Timestamp(1_795_000_000_000);
        let by = |chain: &[Box<[u8]>]| trust.recognise(chain, now).map(|named| named.subject);
        let plain = |_: &mut CertificateParams| {};
        let pay = [dns("pay.example.com")];
        assert_eq!(by(&leaf(&ca, &pay, 1, plain)), Ok("dns:pay.example.com".to_owned()));
        assert_eq!(
            by(&leaf(&ca, &[dns("x.example.com"), uri], 2, plain)),
            Ok("uri:spiffe://example.com/pay".to_owned())
        );
        let server =
            |params: &mut CertificateParams| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let past = |params: &mut CertificateParams| params.not_after = date_time_ymd(2026, 1, 1);
        let future = |params: &mut CertificateParams| params.not_before = date_time_ymd(2030, 1, 1);
        for (chain, want) in [
            (Vec::new(), Refused::Certificate),
            (vec![Box::from(&b"nonsense"[..])], Refused::Certificate),
            (leaf(&other, &pay, 1, plain), Refused::Certificate),
            (leaf(&ca, &pay, 13, plain), Refused::Certificate),
            (leaf(&ca, &pay, 1, server), Refused::Certificate),
            (leaf(&ca, &pay, 1, past), Refused::Certificate),
            (leaf(&ca, &pay, 1, future), Refused::Certificate),
            (leaf(&ca, &[], 1, plain), Refused::NoBinding),
            (leaf(&ca, &[dns("*.example.com")], 1, plain), Refused::NoBinding),
            (leaf(&ca, &[dns("x.pay.example.com")], 1, plain), Refused::NoBinding),
        ] {
            assert_eq!(by(&chain), Err(want));
        }
        let stale = CertificateTrust::new(&Certificate {
            crl_pem: Some(revoked(&ca, 13, 2026)),
            ..definition.clone()
        });
        assert!(
            stale.unwrap().recognise(&leaf(&ca, &pay, 1, plain), now).is_err(),
            "an expired list vouches for nobody"
        );
        for (wrong, reason) in [
            (
                Certificate {
                    ca_pem: String::new(),
                    ..definition.clone()
                },
                "ca_pem",
            ),
            (
                Certificate {
                    crl_pem: Some("x".to_owned()),
                    ..definition.clone()
                },
                "crl_pem",
            ),
            (
                Certificate {
                    bind: Vec::new(),
                    ..definition.clone()
                },
                "1 to 64",
            ),
            (
                Certificate {
                    bind: vec![name(Some("*.example.com"), None, "g")],
                    ..definition.clone()
                },
                "wildcards",
            ),
            (
                Certificate {
                    bind: vec![name(Some("Pay.example.com"), None, "g")],
                    ..definition.clone()
                },
                "lower case",
            ),
            (
                Certificate {
                    bind: vec![name(Some("a"), Some("b"), "g")],
                    ..definition.clone()
                },
                "exactly one",
            ),
        ] {
            let faults = CertificateTrust::new(&wrong).err().unwrap().join("; ");
            assert!(faults.contains(reason), "{reason}: {faults}");
        }
    }
}
