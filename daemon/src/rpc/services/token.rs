//! `strongroom.v1.Token`.

use super::Services;
use crate::{
    base::id::Accessor,
    gate::{Failure, ops::token as ops},
    rpc::parse::id,
    token::NewToken,
};
use strongroom_proto::v1::{self, token_server};
use tonic::{Request, Response, Status, async_trait};

#[async_trait]
impl token_server::Token for Services {
    async fn create(
        &self,
        request: Request<v1::TokenCreateRequest>,
    ) -> Result<Response<v1::TokenCreateResponse>, Status> {
        let parse = |m: v1::TokenCreateRequest| {
            Ok(ops::Create(NewToken {
                identity: (!m.identity.is_empty()).then_some(m.identity),
                groups: m.groups.into_iter().collect(),
                attributes: m.attributes,
                ttl_secs: m.ttl_secs,
                max_ttl_secs: m.max_ttl_secs,
                end_leases: m.end_leases,
                exactly: m.exactly,
            }))
        };
        self.unary(request, parse, |created| v1::TokenCreateResponse {
            token: created.text.expose().to_owned(),
            accessor: created.accessor.to_string(),
            ttl_secs: created.ttl_secs,
            expires_at: created.expires.to_string(),
            session: created.session.to_string(),
        })
        .await
    }

    async fn get(&self, request: Request<v1::TokenGetRequest>) -> Result<Response<v1::TokenInfo>, Status> {
        let parse = |m: v1::TokenGetRequest| Ok(ops::Get(accessor(&m.accessor)?));
        self.unary(request, parse, |info| v1::TokenInfo {
            accessor: info.accessor.to_string(),
            identity: info.principal.name().to_owned(),
            groups: info.principal.groups().iter().cloned().collect(),
            attributes: info.principal.attributes().clone(),
            created_at: info.issued.to_string(),
            expires_at: info.expires.to_string(),
            max_expires_at: info.max_expires.to_string(),
            session: info.session.to_string(),
            purpose: info.purpose.as_str().to_owned(),
            ttl_secs: info.ttl_secs,
        })
        .await
    }

    async fn renew(&self, request: Request<v1::TokenRenewRequest>) -> Result<Response<v1::TokenRenewResponse>, Status> {
        let parse = |m: v1::TokenRenewRequest| {
            Ok(ops::Renew {
                accessor: accessor(&m.accessor)?,
                ttl_secs: m.ttl_secs,
            })
        };
        self.unary(request, parse, |renewed| v1::TokenRenewResponse {
            ttl_secs: renewed.ttl_secs,
            expires_at: renewed.expires.to_string(),
        })
        .await
    }

    async fn revoke(
        &self,
        request: Request<v1::TokenRevokeRequest>,
    ) -> Result<Response<v1::TokenRevokeResponse>, Status> {
        let parse = |m: v1::TokenRevokeRequest| {
            Ok(ops::Revoke {
                accessor: accessor(&m.accessor)?,
                session: m.session,
            })
        };
        self.unary(request, parse, |(tokens, leases_queued)| v1::TokenRevokeResponse {
            tokens,
            leases_queued,
        })
        .await
    }
}

/// Empty: the caller's own.
fn accessor(text: &str) -> Result<Option<Accessor>, Failure> {
    if text.is_empty() {
        Ok(None)
    } else {
        id("accessor", text).map(Some)
    }
}
