//! `strongroom.v1.Lease`.

use super::Services;
use crate::{
    gate::{Failure, ops::lease as ops},
    lease::{Lease, State},
    rpc::parse::{cursor, cursor_text, id, malformed, page_size, path},
};
use strongroom_proto::v1::{self, lease_revoke_request::What, lease_server};
use tonic::{Request, Response, Status, async_trait};

#[async_trait]
impl lease_server::Lease for Services {
    async fn get(&self, request: Request<v1::LeaseGetRequest>) -> Result<Response<v1::LeaseInfo>, Status> {
        self.unary(request, |m: v1::LeaseGetRequest| Ok(ops::Get(id("id", &m.id)?)), info)
            .await
    }

    async fn list(&self, request: Request<v1::LeaseListRequest>) -> Result<Response<v1::LeaseListResponse>, Status> {
        self.unary(request, list, |(leases, next)| v1::LeaseListResponse {
            leases: leases.into_iter().map(info).collect(),
            next_page_token: cursor_text(next.as_deref()),
        })
        .await
    }

    async fn renew(&self, request: Request<v1::LeaseRenewRequest>) -> Result<Response<v1::LeaseRenewResponse>, Status> {
        let parse = |m: v1::LeaseRenewRequest| {
            Ok(ops::Renew {
                id: id("id", &m.id)?,
                ttl_secs: m.ttl_secs,
            })
        };
        self.unary(request, parse, |(lease, ttl_secs)| v1::LeaseRenewResponse {
            ttl_secs,
            expires_at: lease.expires.to_string(),
        })
        .await
    }

    async fn revoke(
        &self,
        request: Request<v1::LeaseRevokeRequest>,
    ) -> Result<Response<v1::LeaseRevokeResponse>, Status> {
        self.unary(request, revoke, |revoked| v1::LeaseRevokeResponse {
            queued: revoked.queued,
            gone: revoked.gone,
        })
        .await
    }
}

/// People write mounts with a slash at the end.
fn prefix(text: &str) -> &str {
    text.strip_suffix('/').unwrap_or(text)
}

fn list(m: v1::LeaseListRequest) -> Result<ops::List, Failure> {
    let prefix = prefix(&m.prefix);
    let prefix = if prefix.is_empty() {
        None
    } else {
        Some(path("prefix", prefix)?)
    };
    Ok(ops::List {
        prefix,
        after: cursor(&m.page_token)?,
        limit: page_size(m.page_size)?,
    })
}

fn revoke(m: v1::LeaseRevokeRequest) -> Result<ops::Revoke, Failure> {
    let what = match m.what {
        Some(What::Id(text)) => ops::What::One(id("id", &text)?),
        Some(What::Prefix(text)) => ops::What::Prefix(path("prefix", prefix(&text))?),
        Some(What::Identity(name)) => ops::What::Identity(name),
        Some(What::All(_)) => ops::What::All,
        None => return Err(malformed("what", "give an id, a prefix, an identity or all")),
    };
    Ok(ops::Revoke { what, wait: m.wait })
}

fn info(lease: Lease) -> v1::LeaseInfo {
    let revoking = lease.state == State::Revoking;
    v1::LeaseInfo {
        id: lease.id.to_string(),
        role: lease.role.to_string(),
        state: match lease.state {
            State::Intent => "intent",
            State::Active => "active",
            State::Revoking => "revoking",
        }
        .to_owned(),
        account: lease.plan.account.clone(),
        identity: lease.identity.to_string(),
        created_at: lease.created.to_string(),
        expires_at: lease.expires.to_string(),
        max_expires_at: lease.max_expires.to_string(),
        ttl_secs: lease.ttl_secs,
        attempts: lease.attempts,
        last_error: lease.last_error.unwrap_or_default(),
        next_attempt_at: if revoking { lease.due.to_string() } else { String::new() },
    }
}
