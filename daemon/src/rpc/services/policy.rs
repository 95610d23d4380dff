//! `strongroom.v1.Policy`.

use super::Services;
use crate::{
    gate::{Failure, ops::policy as ops},
    policy::Principal,
    rpc::parse::{cursor, cursor_text, malformed, page_size, path},
};
use std::sync::Arc;
use strongroom_proto::v1::{self, policy_server};
use tonic::{Request, Response, Status, async_trait};

#[async_trait]
impl policy_server::Policy for Services {
    async fn put(&self, request: Request<v1::PolicyPutRequest>) -> Result<Response<v1::PolicyPutResponse>, Status> {
        let parse = |m: v1::PolicyPutRequest| {
            Ok(ops::Put {
                name: m.name,
                text: m.text,
                cas: m.cas,
            })
        };
        self.unary(request, parse, |version| v1::PolicyPutResponse {
            version,
            warnings: Vec::new(),
        })
        .await
    }

    async fn get(&self, request: Request<v1::PolicyGetRequest>) -> Result<Response<v1::PolicyGetResponse>, Status> {
        self.unary(
            request,
            |m: v1::PolicyGetRequest| Ok(ops::Get { name: m.name }),
            |policy| v1::PolicyGetResponse {
                name: policy.name,
                text: policy.text,
                version: policy.version,
                updated_at: policy.updated.to_string(),
            },
        )
        .await
    }

    async fn list(&self, request: Request<v1::PolicyListRequest>) -> Result<Response<v1::PolicyListResponse>, Status> {
        let parse = |m: v1::PolicyListRequest| {
            Ok(ops::List {
                after: cursor(&m.page_token)?,
                limit: page_size(m.page_size)?,
            })
        };
        self.unary(request, parse, |(names, next)| v1::PolicyListResponse {
            names,
            next_page_token: cursor_text(next.as_deref()),
        })
        .await
    }

    async fn delete(
        &self,
        request: Request<v1::PolicyDeleteRequest>,
    ) -> Result<Response<v1::PolicyDeleteResponse>, Status> {
        let parse = |m: v1::PolicyDeleteRequest| Ok(ops::Delete { name: m.name });
        self.unary(request, parse, |()| v1::PolicyDeleteResponse {}).await
    }

    async fn explain(
        &self,
        request: Request<v1::PolicyExplainRequest>,
    ) -> Result<Response<v1::PolicyExplainResponse>, Status> {
        self.unary(request, explain, |said| v1::PolicyExplainResponse {
            allowed: said.allowed,
            deciding: said.deciding.iter().map(ToString::to_string).collect(),
            errors: said.errors,
            considered: said.considered,
            reason: said.reason,
        })
        .await
    }
}

/// Somebody else by name is as they are stored; with groups or attributes, as the message says, so that what is not there yet can be asked.
fn explain(m: v1::PolicyExplainRequest) -> Result<ops::Explain, Failure> {
    let action = m.action.parse().map_err(|error| malformed("action", error))?;
    let whom = if m.identity.is_empty() {
        None
    } else {
        let principal = Principal::new(
            [0; 16],
            &m.identity,
            m.groups.into_iter().collect(),
            m.attributes.into_iter().collect(),
        );
        Some(Arc::new(principal.map_err(|error| malformed("identity", error))?))
    };
    Ok(ops::Explain {
        action,
        path: path("path", &m.path)?,
        whom,
    })
}
