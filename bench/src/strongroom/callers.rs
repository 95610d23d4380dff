//! What one connection asks of the daemon, again and again.

use crate::load::{Answered, Caller, Leases, Paths, put, take};
use strongroom_client::Client;
use strongroom_proto::v1::{self, kv_client::KvClient};
use tonic::Request;

/// Writes secrets.
pub struct Writer {
    pub kv: KvClient<strongroom_client::Transport>,
    pub at: usize,
    pub paths: Paths,
    pub done: u64,
    pub value: bytes::Bytes,
}

impl Caller for Writer {
    fn call(&mut self) -> Answered<'_> {
        Box::pin(async {
            let path = format!("kv/{}", self.paths.next(self.at, self.done));
            self.done += 1;
            let fields = [("value".to_owned(), self.value.clone())].into();
            self.kv
                .put(v1::KvPutRequest {
                    path,
                    fields,
                    ..Default::default()
                })
                .await?;
            Ok(())
        })
    }
}

/// Issues credentials of `pg/readers`.
pub struct Issuer {
    pub client: Client,
    pub leases: Leases,
}

impl Caller for Issuer {
    fn call(&mut self) -> Answered<'_> {
        Box::pin(async {
            let request = v1::CredsIssueRequest {
                role: "pg/readers".into(),
                ..Default::default()
            };
            let reply = self
                .client
                .stubs()
                .creds()
                .issue(Request::new(request))
                .await?
                .into_inner();
            put(&self.leases, reply.lease_id);
            Ok(())
        })
    }
}

/// Revokes leases, each proven gone.
pub struct Revoker {
    pub client: Client,
    pub leases: Leases,
}

impl Caller for Revoker {
    fn call(&mut self) -> Answered<'_> {
        Box::pin(async {
            let what = Some(v1::lease_revoke_request::What::Id(take(&self.leases)?));
            let request = v1::LeaseRevokeRequest {
                what,
                wait: true,
                ..Default::default()
            };
            let reply = self
                .client
                .stubs()
                .lease()
                .revoke(Request::new(request))
                .await?
                .into_inner();
            if reply.gone == 1 {
                Ok(())
            } else {
                Err(format!("{} of 1 accounts proven gone", reply.gone).into())
            }
        })
    }
}
