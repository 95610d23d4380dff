//! `strongroom.v1.Identity`.

use super::Services;
use crate::{
    gate::ops::identity as ops,
    rpc::parse::{cursor, cursor_text, page_size},
    token::{Edit, IdentityInfo},
};
use strongroom_proto::v1::{self, identity_server};
use tonic::{Request, Response, Status, async_trait};

#[async_trait]
impl identity_server::Identity for Services {
    async fn list(
        &self,
        request: Request<v1::IdentityListRequest>,
    ) -> Result<Response<v1::IdentityListResponse>, Status> {
        let parse = |m: v1::IdentityListRequest| {
            Ok(ops::List {
                group: (!m.group.is_empty()).then_some(m.group),
                after: cursor(&m.page_token)?,
                limit: page_size(m.page_size)?,
            })
        };
        self.unary(request, parse, |(found, next)| v1::IdentityListResponse {
            identities: found.into_iter().map(wire).collect(),
            next_page_token: cursor_text(next.as_deref()),
        })
        .await
    }

    async fn get(&self, request: Request<v1::IdentityGetRequest>) -> Result<Response<v1::IdentityInfo>, Status> {
        let parse = |m: v1::IdentityGetRequest| {
            Ok(ops::Get {
                name: (!m.name.is_empty()).then_some(m.name),
            })
        };
        self.unary(request, parse, wire).await
    }

    async fn put(&self, request: Request<v1::IdentityPutRequest>) -> Result<Response<v1::IdentityInfo>, Status> {
        let parse = |m: v1::IdentityPutRequest| {
            Ok(ops::Put {
                name: m.name,
                edit: Edit {
                    add_groups: m.add_groups.into_iter().collect(),
                    remove_groups: m.remove_groups.into_iter().collect(),
                    set_attributes: m.set_attributes,
                    remove_attributes: m.remove_attributes.into_iter().collect(),
                    must_exist: m.must_exist,
                },
            })
        };
        self.unary(request, parse, wire).await
    }
}

fn wire(info: IdentityInfo) -> v1::IdentityInfo {
    v1::IdentityInfo {
        id: info.id.to_string(),
        name: info.principal.name().to_owned(),
        groups: info.principal.groups().iter().cloned().collect(),
        attributes: info.principal.attributes().clone(),
        tokens: info.tokens as u64,
    }
}
