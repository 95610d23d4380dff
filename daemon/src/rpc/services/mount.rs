//! `strongroom.v1.Mount`: mounts and roles.

use super::Services;
use crate::{
    gate::ops::mount as ops,
    rpc::parse::{bounded, cursor, cursor_text, malformed, page_size, path},
};
use strongroom_proto::v1::{self, mount_server};
use tonic::{Request, Response, Status, async_trait};

#[async_trait]
impl mount_server::Mount for Services {
    async fn enable(
        &self,
        request: Request<v1::MountEnableRequest>,
    ) -> Result<Response<v1::MountEnableResponse>, Status> {
        let parse = |m: v1::MountEnableRequest| {
            let kind = m.kind.parse().map_err(|error| malformed("kind", error))?;
            Ok(ops::Enable {
                path: path("path", &m.path)?,
                kind,
                description: m.description,
            })
        };
        self.unary(request, parse, |()| v1::MountEnableResponse {}).await
    }

    async fn disable(
        &self,
        request: Request<v1::MountDisableRequest>,
    ) -> Result<Response<v1::MountDisableResponse>, Status> {
        let parse = |m: v1::MountDisableRequest| {
            Ok(ops::Disable {
                path: path("path", &m.path)?,
                revoke_leases: m.revoke_leases,
            })
        };
        self.unary(request, parse, |()| v1::MountDisableResponse {}).await
    }

    async fn list(&self, request: Request<v1::MountListRequest>) -> Result<Response<v1::MountListResponse>, Status> {
        self.unary(
            request,
            |_| Ok(ops::List),
            |mounts| v1::MountListResponse {
                mounts: mounts
                    .into_iter()
                    .map(|(mount, state)| v1::MountInfo {
                        path: mount.path().to_string(),
                        kind: mount.kind().as_str().to_owned(),
                        description: mount.description().to_owned(),
                        created_at: mount.created().to_string(),
                        state: state.to_owned(),
                    })
                    .collect(),
            },
        )
        .await
    }

    async fn get_config(
        &self,
        request: Request<v1::MountGetConfigRequest>,
    ) -> Result<Response<v1::MountGetConfigResponse>, Status> {
        let parse = |m: v1::MountGetConfigRequest| {
            Ok(ops::GetConfig {
                path: path("path", &m.path)?,
            })
        };
        self.unary(request, parse, |config| v1::MountGetConfigResponse {
            config_json: config.unwrap_or_default(),
        })
        .await
    }

    async fn configure(
        &self,
        request: Request<v1::MountConfigureRequest>,
    ) -> Result<Response<v1::MountConfigureResponse>, Status> {
        let parse = |m: v1::MountConfigureRequest| {
            Ok(ops::Configure {
                path: path("path", &m.path)?,
                config: bounded("config_json", m.config_json)?,
                root_secret: m.root_secret,
                skip_test: m.skip_test,
            })
        };
        self.unary(request, parse, |checks| v1::MountConfigureResponse { checks })
            .await
    }

    async fn rotate_root(
        &self,
        request: Request<v1::MountRotateRootRequest>,
    ) -> Result<Response<v1::MountRotateRootResponse>, Status> {
        let parse = |m: v1::MountRotateRootRequest| {
            Ok(ops::RotateRoot {
                path: path("path", &m.path)?,
            })
        };
        self.unary(request, parse, |account| v1::MountRotateRootResponse { account })
            .await
    }

    async fn reconcile(
        &self,
        request: Request<v1::MountReconcileRequest>,
    ) -> Result<Response<v1::MountReconcileResponse>, Status> {
        let parse = |m: v1::MountReconcileRequest| {
            Ok(ops::Reconcile {
                path: path("path", &m.path)?,
                remove: m.remove,
            })
        };
        self.unary(request, parse, |report| v1::MountReconcileResponse {
            accounts: report.accounts as u64,
            strays: report.strays,
            stray_count: report.stray_count as u64,
            removing: report.removing as u64,
            foreign: report.foreign,
            missing: report.missing.iter().map(ToString::to_string).collect(),
            missing_count: report.missing_count as u64,
        })
        .await
    }

    async fn put_role(&self, request: Request<v1::RolePutRequest>) -> Result<Response<v1::RolePutResponse>, Status> {
        let parse = |m: v1::RolePutRequest| {
            Ok(ops::PutRole {
                path: path("path", &m.path)?,
                definition: bounded("definition_json", m.definition_json)?,
            })
        };
        self.unary(request, parse, |()| v1::RolePutResponse {}).await
    }

    async fn get_role(&self, request: Request<v1::RoleGetRequest>) -> Result<Response<v1::RoleGetResponse>, Status> {
        let name = request.get_ref().path.clone();
        let parse = |m: v1::RoleGetRequest| {
            Ok(ops::GetRole {
                path: path("path", &m.path)?,
            })
        };
        self.unary(request, parse, |(definition_json, created)| v1::RoleGetResponse {
            path: name,
            definition_json,
            created_at: created.to_string(),
        })
        .await
    }

    async fn list_roles(
        &self,
        request: Request<v1::RoleListRequest>,
    ) -> Result<Response<v1::RoleListResponse>, Status> {
        let parse = |m: v1::RoleListRequest| {
            Ok(ops::ListRoles {
                mount: path("mount", &m.mount)?,
                after: cursor(&m.page_token)?,
                limit: page_size(m.page_size)?,
            })
        };
        self.unary(request, parse, |(names, next)| v1::RoleListResponse {
            names,
            next_page_token: cursor_text(next.as_deref()),
        })
        .await
    }

    async fn delete_role(
        &self,
        request: Request<v1::RoleDeleteRequest>,
    ) -> Result<Response<v1::RoleDeleteResponse>, Status> {
        let parse = |m: v1::RoleDeleteRequest| {
            Ok(ops::DeleteRole {
                path: path("path", &m.path)?,
            })
        };
        self.unary(request, parse, |()| v1::RoleDeleteResponse {}).await
    }
}
