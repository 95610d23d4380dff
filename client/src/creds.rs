//! Credentials in real systems, and their leases.

use crate::{
    call::Client,
    error::Error,
    secret::{Fields, Secret, field, fields_from_wire},
    v1,
};
use std::time::Duration;

/// A credential made for the caller (dynamic role, leased), or the present one of a static role.
#[derive(Debug)]
pub struct LeasedCredential {
    /// `pg/readers`.
    pub role: String,
    /// `None` for a static role: it rotates instead of expiring.
    pub lease_id: Option<String>,
    /// `username`, `password`, and where to connect: `host`, `port`, `database`.
    pub fields: Fields,
    /// Life from now, at issue.
    pub ttl: Duration,
    /// RFC 3339, UTC; empty for a static role.
    pub expires_at: String,
    /// Whether renewing can extend it.
    pub renewable: bool,
    /// Static roles: when it rotates next, RFC 3339; empty otherwise.
    pub rotates_at: String,
    /// Static roles: when it rotated last, RFC 3339; empty otherwise.
    pub rotated_at: String,
}

impl LeasedCredential {
    /// One field.
    /// # Errors
    /// [`Error::NotFound`] that lists the names there are.
    pub fn field(&self, name: &str) -> Result<&Secret, Error> {
        field(&self.fields, name, &self.role)
    }
}

impl Client {
    /// A credential of a role. `ttl` at least 5 s and at most the role's maximum; `None`: its default.
    /// # Errors
    /// [`Error::Indeterminate`]: one may have been made; it is revoked at its expiry by the daemon.
    pub async fn issue(&self, role: &str, ttl: Option<Duration>) -> Result<LeasedCredential, Error> {
        let request = v1::CredsIssueRequest {
            role: role.to_owned(),
            ttl_secs: secs(ttl),
            ..Default::default()
        };
        let made = self
            .change(request, |s, r| async move { s.creds().issue(r).await })
            .await?;
        Ok(LeasedCredential {
            role: role.to_owned(),
            lease_id: (!made.lease_id.is_empty()).then_some(made.lease_id),
            fields: fields_from_wire(made.fields),
            ttl: Duration::from_secs(made.ttl_secs),
            expires_at: made.expires_at,
            renewable: made.renewable,
            rotates_at: made.rotates_at,
            rotated_at: made.rotated_at,
        })
    }

    /// Extends a lease; returns its life from now and its expiry (RFC 3339). The daemon caps both at
    /// the role's maximum.
    /// # Errors
    /// [`Error::NotFound`] or [`Error::Denied`] once it is gone.
    pub async fn renew(&self, lease_id: &str, ttl: Option<Duration>) -> Result<(Duration, String), Error> {
        let request = v1::LeaseRenewRequest {
            id: lease_id.to_owned(),
            ttl_secs: secs(ttl),
            ..Default::default()
        };
        let renewed = self
            .change(request, |s, r| async move { s.lease().renew(r).await })
            .await?;
        Ok((Duration::from_secs(renewed.ttl_secs), renewed.expires_at))
    }

    /// Revokes a lease and waits for the proof that it is gone: `true`; `false` when it is queued and
    /// the daemon goes on trying.
    /// # Errors
    /// Those of the call.
    pub async fn revoke(&self, lease_id: &str) -> Result<bool, Error> {
        let request = v1::LeaseRevokeRequest {
            what: Some(v1::lease_revoke_request::What::Id(lease_id.to_owned())),
            wait: true,
            ..Default::default()
        };
        let revoked = self
            .change(request, |s, r| async move { s.lease().revoke(r).await })
            .await?;
        Ok(revoked.gone >= revoked.queued)
    }

    /// Extends the client's own token; returns its life from now and its expiry (RFC 3339).
    /// # Errors
    /// [`Error::Unauthenticated`] once it is dead.
    pub async fn renew_token(&self, ttl: Option<Duration>) -> Result<(Duration, String), Error> {
        let request = v1::TokenRenewRequest {
            ttl_secs: secs(ttl),
            ..Default::default()
        };
        let renewed = self
            .change(request, |s, r| async move { s.token().renew(r).await })
            .await?;
        Ok((Duration::from_secs(renewed.ttl_secs), renewed.expires_at))
    }
}

/// Whole seconds, rounded up; 0 asks for the default.
pub(crate) fn secs(ttl: Option<Duration>) -> u64 {
    ttl.map_or(0, |ttl| ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0))
}
