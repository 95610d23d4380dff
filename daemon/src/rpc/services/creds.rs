//! `strongroom.v1.Creds`.

use super::Services;
use crate::{
    engine::Issued,
    gate::ops::creds as ops,
    rpc::parse::{optional_time, path},
};
use bytes::Bytes;
use std::collections::BTreeMap;
use strongroom_proto::v1::{self, creds_server};
use tonic::{Request, Response, Status, async_trait};

#[async_trait]
impl creds_server::Creds for Services {
    async fn issue(&self, request: Request<v1::CredsIssueRequest>) -> Result<Response<v1::CredsIssueResponse>, Status> {
        let parse = |m: v1::CredsIssueRequest| {
            Ok(ops::Issue {
                role: path("role", &m.role)?,
                ttl_secs: m.ttl_secs,
            })
        };
        self.unary(request, parse, issued).await
    }

    async fn rotate(
        &self,
        request: Request<v1::CredsRotateRequest>,
    ) -> Result<Response<v1::CredsRotateResponse>, Status> {
        let parse = |m: v1::CredsRotateRequest| {
            Ok(ops::Rotate {
                role: path("role", &m.role)?,
            })
        };
        self.unary(request, parse, |rotated| v1::CredsRotateResponse {
            rotated_at: rotated.rotated.to_string(),
            rotates_at: optional_time(rotated.rotates),
        })
        .await
    }
}

fn issued(issued: Issued) -> v1::CredsIssueResponse {
    match issued {
        Issued::Dynamic { lease, fields } => v1::CredsIssueResponse {
            lease_id: lease.id.to_string(),
            fields: wire(fields),
            ttl_secs: lease.ttl_secs,
            expires_at: lease.expires.to_string(),
            renewable: lease.expires < lease.max_expires,
            ..Default::default()
        },
        Issued::Static {
            fields,
            rotated,
            rotates,
        } => v1::CredsIssueResponse {
            fields: wire(fields),
            rotated_at: optional_time(rotated),
            rotates_at: optional_time(rotates),
            ..Default::default()
        },
    }
}

pub(super) fn wire(fields: crate::engine::Fields) -> BTreeMap<String, Bytes> {
    fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), Bytes::copy_from_slice(value.expose())))
        .collect()
}
