//! A daemon that does what its script says, on a Unix socket, in a runtime of its own so that it can die.

use std::{
    collections::{HashMap, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};
use strongroom_client::{Client, v1};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// What a call gets instead of its usual answer.
#[derive(Debug, Clone)]
pub enum Step {
    /// A status with a reason of Strongroom's domain.
    Fail(Code, &'static str),
    /// No answer, ever.
    Hang,
}

/// What a call carried.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub call: &'static str,
    pub authorization: Option<String>,
    pub has_deadline: bool,
    pub key: String,
    /// The share, the id, or the field `value`: whatever the test looks at.
    pub text: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    script: HashMap<&'static str, VecDeque<Step>>,
    seen: Vec<Seen>,
    /// What `Kv.Get` answers.
    fields: Vec<(String, Vec<u8>)>,
    /// Lives that `Lease.Renew` gives, one after the other.
    renewals: VecDeque<u64>,
    unsealed: bool,
    shares: u32,
}

#[derive(Debug, Clone, Default)]
struct Service(Arc<Mutex<State>>);

/// The daemon's handle; dropping it kills it.
pub struct Fake {
    pub dir: tempfile::TempDir,
    service: Service,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Fake {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut fake = Self {
            dir,
            service: Service::default(),
            runtime: None,
        };
        fake.revive();
        fake
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("fake.sock")
    }

    pub fn address(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    /// Ends the process, as it were: every connection breaks.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(2));
        }
    }

    pub fn revive(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        serve(&runtime, &self.socket(), self.service.clone());
        self.runtime = Some(runtime);
    }

    /// The next calls of `call` end like this, one step each.
    pub fn script(&self, call: &'static str, steps: &[Step]) {
        self.service
            .0
            .lock()
            .unwrap()
            .script
            .entry(call)
            .or_default()
            .extend(steps.iter().cloned());
    }

    pub fn set_fields(&self, fields: &[(&str, &[u8])]) {
        let fields = fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.to_vec()))
            .collect();
        self.service.0.lock().unwrap().fields = fields;
    }

    pub fn set_renewals(&self, secs: &[u64]) {
        self.service.0.lock().unwrap().renewals = secs.iter().copied().collect();
    }

    pub fn seen(&self, call: &str) -> Vec<Seen> {
        self.service
            .0
            .lock()
            .unwrap()
            .seen
            .iter()
            .filter(|seen| seen.call == call)
            .cloned()
            .collect()
    }

    /// Waits, bounded, until a call was seen so often.
    pub async fn until_seen(&self, call: &str, times: usize) {
        for _ in 0..200 {
            if self.seen(call).len() >= times {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{call} was not called {times} times: {:?}", self.seen(call));
    }

    pub async fn client(&self, timeout: Duration) -> Client {
        let builder = Client::builder()
            .address(self.address())
            .token("srm_at_canary")
            .timeout(timeout);
        builder.connect().await.unwrap()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn serve(runtime: &tokio::runtime::Runtime, socket: &Path, service: Service) {
    // A socket of the one that was killed.
    let _ = std::fs::remove_file(socket);
    let _inside = runtime.enter();
    let listener = tokio::net::UnixListener::bind(socket).unwrap();
    let server = tonic::transport::Server::builder()
        .add_service(v1::kv_server::KvServer::new(service.clone()))
        .add_service(v1::creds_server::CredsServer::new(service.clone()))
        .add_service(v1::lease_server::LeaseServer::new(service.clone()))
        .add_service(v1::operator_server::OperatorServer::new(service))
        .serve_with_incoming(UnixListenerStream::new(listener));
    runtime.spawn(server);
}

impl Service {
    /// How many credentials were asked for.
    fn issued(&self) -> usize {
        self.0
            .lock()
            .unwrap()
            .seen
            .iter()
            .filter(|seen| seen.call == "creds.issue")
            .count()
    }

    /// Notes the call, then does what the script says about it.
    async fn enter<T>(&self, call: &'static str, request: &Request<T>, key: &str, text: &[u8]) -> Result<(), Status> {
        let metadata = request.metadata();
        let authorization = metadata
            .get("authorization")
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned);
        let has_deadline = metadata.contains_key("grpc-timeout");
        let step = {
            let mut state = self.0.lock().unwrap();
            state.seen.push(Seen {
                call,
                authorization,
                has_deadline,
                key: key.to_owned(),
                text: text.to_vec(),
            });
            state.script.get_mut(call).and_then(VecDeque::pop_front)
        };
        match step {
            None => Ok(()),
            Some(Step::Hang) => std::future::pending().await,
            Some(Step::Fail(code, reason)) => {
                let details = ErrorDetails::with_error_info(reason, "strongroom", HashMap::new());
                Err(Status::with_error_details(
                    code,
                    format!("the fake says {reason}"),
                    details,
                ))
            }
        }
    }
}

/// Methods that no test calls.
macro_rules! unused {
    ($($method:ident: $request:ident => $response:ident),* $(,)?) => {$(
        fn $method<'a, 'b>(
            &'a self,
            _: Request<v1::$request>,
        ) -> std::pin::Pin<Box<dyn Future<Output = Result<Response<v1::$response>, Status>> + Send + 'b>>
        where
            'a: 'b,
            Self: 'b,
        {
            Box::pin(async { Err(Status::unimplemented("not part of the fake")) })
        }
    )*};
}

#[tonic::async_trait]
impl v1::kv_server::Kv for Service {
    async fn get(&self, request: Request<v1::KvGetRequest>) -> Result<Response<v1::KvGetResponse>, Status> {
        self.enter("kv.get", &request, "", request.get_ref().path.as_bytes())
            .await?;
        let fields = self
            .0
            .lock()
            .unwrap()
            .fields
            .iter()
            .map(|(n, v)| (n.clone(), v.clone().into()))
            .collect();
        Ok(Response::new(v1::KvGetResponse {
            fields,
            version: 3,
            ..Default::default()
        }))
    }

    async fn put(&self, request: Request<v1::KvPutRequest>) -> Result<Response<v1::KvPutResponse>, Status> {
        let put = request.get_ref();
        let value = put.fields.get("value").cloned().unwrap_or_default();
        self.enter("kv.put", &request, &put.idempotency_key, &value).await?;
        Ok(Response::new(v1::KvPutResponse {
            version: 4,
            ..Default::default()
        }))
    }

    unused!(
        list: KvListRequest => KvListResponse,
        delete: KvDeleteRequest => KvDeleteResponse,
        undelete: KvUndeleteRequest => KvUndeleteResponse,
        destroy: KvDestroyRequest => KvDestroyResponse,
        history: KvHistoryRequest => KvHistoryResponse,
        set_metadata: KvSetMetadataRequest => KvSetMetadataResponse,
    );
}

#[tonic::async_trait]
impl v1::creds_server::Creds for Service {
    async fn issue(&self, request: Request<v1::CredsIssueRequest>) -> Result<Response<v1::CredsIssueResponse>, Status> {
        self.enter("creds.issue", &request, &request.get_ref().idempotency_key, b"")
            .await?;
        let role = &request.get_ref().role;
        let fields = [
            ("username".to_owned(), "u1".into()),
            ("password".to_owned(), "p1".into()),
        ]
        .into();
        let lease_id = if role.ends_with("static") {
            String::new()
        } else {
            format!("lease-{}", self.issued())
        };
        let expires_at = "first".to_owned();
        let answer = v1::CredsIssueResponse {
            lease_id,
            fields,
            ttl_secs: 2,
            expires_at,
            renewable: true,
            ..Default::default()
        };
        Ok(Response::new(answer))
    }

    unused!(rotate: CredsRotateRequest => CredsRotateResponse);
}

#[tonic::async_trait]
impl v1::lease_server::Lease for Service {
    async fn renew(&self, request: Request<v1::LeaseRenewRequest>) -> Result<Response<v1::LeaseRenewResponse>, Status> {
        self.enter(
            "lease.renew",
            &request,
            &request.get_ref().idempotency_key,
            request.get_ref().id.as_bytes(),
        )
        .await?;
        let ttl_secs = self.0.lock().unwrap().renewals.pop_front().unwrap_or(2);
        Ok(Response::new(v1::LeaseRenewResponse {
            ttl_secs,
            expires_at: format!("renewed for {ttl_secs}"),
        }))
    }

    async fn revoke(
        &self,
        request: Request<v1::LeaseRevokeRequest>,
    ) -> Result<Response<v1::LeaseRevokeResponse>, Status> {
        let id = match &request.get_ref().what {
            Some(v1::lease_revoke_request::What::Id(id)) => id.clone(),
            _ => String::new(),
        };
        self.enter(
            "lease.revoke",
            &request,
            &request.get_ref().idempotency_key,
            id.as_bytes(),
        )
        .await?;
        Ok(Response::new(v1::LeaseRevokeResponse { queued: 1, gone: 1 }))
    }

    unused!(get: LeaseGetRequest => LeaseInfo, list: LeaseListRequest => LeaseListResponse);
}

/// Shares that open the fake: any three.
const NEED: u32 = 3;

#[tonic::async_trait]
impl v1::operator_server::Operator for Service {
    async fn status(&self, request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        self.enter("operator.status", &request, "", b"").await?;
        let open = self.0.lock().unwrap().unsealed;
        let state = if open {
            v1::VaultState::Open
        } else {
            v1::VaultState::Sealed
        };
        let slot = v1::Slot {
            name: "daily".into(),
            factors: "hsm+quorum:3/5".into(),
            ..Default::default()
        };
        let answer = v1::StatusResponse {
            state: state.into(),
            slots: vec![slot],
            ..Default::default()
        };
        Ok(Response::new(answer))
    }

    async fn present(&self, request: Request<v1::PresentRequest>) -> Result<Response<v1::PresentResponse>, Status> {
        let present = request.get_ref();
        self.enter(
            "operator.present",
            &request,
            &present.idempotency_key,
            present.share.as_bytes(),
        )
        .await?;
        let mut state = self.0.lock().unwrap();
        state.shares += 1;
        let done = state.shares == NEED;
        state.unsealed |= done;
        Ok(Response::new(v1::PresentResponse {
            session: "nonce-1".into(),
            have: state.shares,
            need: NEED,
            done,
            expires_in_secs: 600,
            ..Default::default()
        }))
    }

    async fn init(&self, request: Request<v1::InitRequest>) -> Result<Response<v1::InitResponse>, Status> {
        self.enter("operator.init", &request, "", b"").await?;
        let shares = request.into_inner().slots.into_iter().map(|slot| v1::SlotShares {
            shares: vec![format!("{}-share-1", slot.name), format!("{}-share-2", slot.name)],
            slot: slot.name,
        });
        Ok(Response::new(v1::InitResponse {
            shares: shares.collect(),
            setup_token: "srm_at_setup".into(),
            setup_token_ttl_secs: 3600,
            ..Default::default()
        }))
    }

    unused!(
        abandon: AbandonRequest => AbandonResponse,
        forgive_pin: ForgivePinRequest => ForgivePinResponse,
        seal: SealRequest => SealResponse,
        list_slots: ListSlotsRequest => ListSlotsResponse,
        rotate: RotateRequest => RotateResponse,
        list_quarantine: ListQuarantineRequest => ListQuarantineResponse,
        confirm_time: ConfirmTimeRequest => ConfirmTimeResponse,
    );
}
