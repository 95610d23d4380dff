//! `strongroom.v1.Kv`.

use super::Services;
use crate::{
    base::limits::PATH_BYTES_MAX,
    gate::{Failure, ops::kv as ops},
    kv::{Destroy, ListQuery, Secret, Select, Settings, VersionInfo, VersionState},
    rpc::parse::{cursor, cursor_text, malformed, page_size, path},
};
use bytes::Bytes;
use strongroom_proto::v1::{self, kv_get_request, kv_server};
use tonic::{Request, Response, Status, async_trait};

#[async_trait]
impl kv_server::Kv for Services {
    async fn get(&self, request: Request<v1::KvGetRequest>) -> Result<Response<v1::KvGetResponse>, Status> {
        self.unary(request, get, secret).await
    }

    async fn put(&self, request: Request<v1::KvPutRequest>) -> Result<Response<v1::KvPutResponse>, Status> {
        let parse = |m: v1::KvPutRequest| {
            Ok(ops::Put {
                path: path("path", &m.path)?,
                fields: m.fields,
                cas: m.cas,
            })
        };
        self.unary(request, parse, |written| v1::KvPutResponse {
            version: written.version,
            created_at: written.created.to_string(),
        })
        .await
    }

    async fn list(&self, request: Request<v1::KvListRequest>) -> Result<Response<v1::KvListResponse>, Status> {
        self.unary(request, list, |listing| v1::KvListResponse {
            entries: listing
                .entries
                .into_iter()
                .map(|e| v1::KvEntry {
                    name: e.name,
                    folder: e.folder,
                })
                .collect(),
            next_page_token: cursor_text(listing.next.as_deref()),
        })
        .await
    }

    async fn delete(&self, request: Request<v1::KvDeleteRequest>) -> Result<Response<v1::KvDeleteResponse>, Status> {
        let parse = |m: v1::KvDeleteRequest| {
            Ok(ops::Delete {
                path: path("path", &m.path)?,
                versions: m.versions,
            })
        };
        self.unary(request, parse, |()| v1::KvDeleteResponse {}).await
    }

    async fn undelete(
        &self,
        request: Request<v1::KvUndeleteRequest>,
    ) -> Result<Response<v1::KvUndeleteResponse>, Status> {
        let parse = |m: v1::KvUndeleteRequest| {
            Ok(ops::Undelete {
                path: path("path", &m.path)?,
                versions: m.versions,
            })
        };
        self.unary(request, parse, |()| v1::KvUndeleteResponse {}).await
    }

    async fn destroy(&self, request: Request<v1::KvDestroyRequest>) -> Result<Response<v1::KvDestroyResponse>, Status> {
        let parse = |m: v1::KvDestroyRequest| {
            let what = if m.all {
                Destroy::All
            } else {
                Destroy::Versions(m.versions)
            };
            Ok(ops::Destroy {
                path: path("path", &m.path)?,
                what,
            })
        };
        self.unary(request, parse, |()| v1::KvDestroyResponse {}).await
    }

    async fn history(&self, request: Request<v1::KvHistoryRequest>) -> Result<Response<v1::KvHistoryResponse>, Status> {
        let parse = |m: v1::KvHistoryRequest| {
            Ok(ops::History {
                path: path("path", &m.path)?,
            })
        };
        self.unary(request, parse, |told| v1::KvHistoryResponse {
            versions: told.versions.into_iter().map(version).collect(),
            current: told.current,
            versions_max: told.versions_max,
            custom: told.custom,
            cas_required: told.cas_required,
        })
        .await
    }

    async fn set_metadata(
        &self,
        request: Request<v1::KvSetMetadataRequest>,
    ) -> Result<Response<v1::KvSetMetadataResponse>, Status> {
        let parse = |m: v1::KvSetMetadataRequest| {
            let settings = Settings {
                custom: m.custom.map(|custom| custom.entries),
                versions_max: m.versions_max,
                cas_required: m.cas_required,
                labels: m.labels,
            };
            Ok(ops::SetMetadata {
                path: path("path", &m.path)?,
                settings,
            })
        };
        self.unary(request, parse, |()| v1::KvSetMetadataResponse {}).await
    }
}

fn get(m: v1::KvGetRequest) -> Result<ops::Get, Failure> {
    let select = match m.select {
        None => Select::Current,
        Some(kv_get_request::Select::Version(version)) => Select::Version(version),
        Some(kv_get_request::Select::Label(label)) => Select::Label(label),
    };
    Ok(ops::Get {
        path: path("path", &m.path)?,
        select,
    })
}

fn secret(secret: Secret) -> v1::KvGetResponse {
    let fields = secret
        .fields
        .expose()
        .map(|(name, value)| (name.to_owned(), Bytes::copy_from_slice(value)));
    v1::KvGetResponse {
        fields: fields.collect(),
        version: secret.version,
        created_at: secret.created.to_string(),
        labels: secret.labels,
    }
}

fn list(m: v1::KvListRequest) -> Result<ops::List, Failure> {
    // People write folders with a slash at the end.
    let folder = m.path.strip_suffix('/').unwrap_or(&m.path);
    let path = if folder.is_empty() {
        None
    } else {
        Some(path("path", folder)?)
    };
    if m.search.len() > PATH_BYTES_MAX {
        return Err(malformed("search", format_args!("at most {PATH_BYTES_MAX} bytes")));
    }
    let query = ListQuery {
        recursive: m.recursive,
        limit: page_size(m.page_size)?,
        after: cursor(&m.page_token)?,
        search: m.search,
    };
    Ok(ops::List { path, query })
}

fn version(info: VersionInfo) -> v1::KvVersion {
    let deleted = match info.state {
        VersionState::Deleted(at) => at.to_string(),
        VersionState::Live | VersionState::Destroyed => String::new(),
    };
    v1::KvVersion {
        version: info.version,
        created_at: info.created.to_string(),
        deleted_at: deleted,
        destroyed: info.state == VersionState::Destroyed,
        labels: info.labels,
    }
}
