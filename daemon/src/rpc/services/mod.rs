//! One file a service: message to operation, reply to message. Nothing is decided here.

mod audit;
mod auth;
mod creds;
mod delivery;
mod identity;
mod kv;
mod lease;
mod mount;
mod operator;
mod policy;
mod token;
mod transit;

use super::{
    keyed::Keyed,
    layer::{Called, Taken},
    parse::{idempotency_key, malformed},
    status::status,
};
use crate::{
    base::{limits::REQUEST_BYTES_MAX, secret::SecretBytes},
    gate::{Call, ChangeKey, Failure, Gate, Operation, Origin, Place, Reason, Shown},
    token::SEALED_TOKEN_BYTES_MAX,
};
use prost::Message;
use sha2::{Digest, Sha256};
use std::{sync::Arc, time::Duration};
use strongroom_proto::v1;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, metadata::MetadataMap, transport::server::Router};

/// A longer bearer value is no token of ours.
const TOKEN_BYTES_MAX: usize = SEALED_TOKEN_BYTES_MAX;
/// Tails of the log at once.
const TAILS_MAX: usize = 32;
/// How often a stream's reader is looked at again.
const READER_EVERY: Duration = Duration::from_secs(2);
/// How often the health service looks at the seal.
const HEALTH_EVERY: Duration = Duration::from_millis(200);

/// All services, over one gate.
#[derive(Clone)]
struct Services {
    gate: Arc<Gate>,
    /// Tails of the log at once.
    tails: Arc<Semaphore>,
}

/// Who reads a stream. Looked at again and again while the stream lives.
struct StreamReader {
    gate: Arc<Gate>,
    token: Option<SecretBytes>,
}

impl StreamReader {
    /// Returns when the token has ended or the vault is sealed.
    async fn leaves(&self) {
        let mut tick = tokio::time::interval(READER_EVERY);
        loop {
            tick.tick().await;
            if !self.gate.knows(self.token.as_ref()) {
                return;
            }
        }
    }
}

/// Adds every service of `strongroom.v1`.
pub(super) fn add<L>(router: Router<L>, gate: Arc<Gate>) -> Router<L> {
    use v1::{
        audit_server::AuditServer, creds_server::CredsServer, delivery_server::DeliveryServer,
        identity_server::IdentityServer, kv_server::KvServer, lease_server::LeaseServer, login_server::LoginServer,
        mount_server::MountServer, operator_server::OperatorServer, policy_server::PolicyServer,
        token_server::TokenServer, transit_server::TransitServer, trust_server::TrustServer,
    };
    let services = Services {
        gate,
        tails: Arc::new(Semaphore::new(TAILS_MAX)),
    };
    macro_rules! add {
        ($router:expr $(, $server:ident)*) => {
            $router$(.add_service(
                $server::new(services.clone())
                    .max_decoding_message_size(REQUEST_BYTES_MAX)
                    .max_encoding_message_size(4 * REQUEST_BYTES_MAX),
            ))*
        };
    }
    add!(
        router,
        OperatorServer,
        KvServer,
        MountServer,
        CredsServer,
        DeliveryServer,
        LeaseServer,
        TokenServer,
        PolicyServer,
        AuditServer,
        LoginServer,
        TrustServer,
        IdentityServer,
        TransitServer
    )
}

/// Keeps the health service true: `SERVING` for the whole while the vault is open, for `strongroom.v1.Operator` always.
pub(super) async fn report_health(reporter: tonic_health::server::HealthReporter, gate: Arc<Gate>) {
    use tonic_health::ServingStatus::{NotServing, Serving};
    reporter.set_service_status("strongroom.v1.Operator", Serving).await;
    let mut known = None;
    let mut tick = tokio::time::interval(HEALTH_EVERY);
    loop {
        tick.tick().await;
        let open = gate.is_open();
        if known != Some(open) {
            known = Some(open);
            let state = if open { Serving } else { NotServing };
            for service in [
                "",
                "strongroom.v1.Kv",
                "strongroom.v1.Creds",
                "strongroom.v1.Delivery",
                "strongroom.v1.Lease",
                "strongroom.v1.Token",
                "strongroom.v1.Transit",
            ] {
                reporter.set_service_status(service, state).await;
            }
        }
    }
}

impl Services {
    /// Takes the facts of the call, parses the message, goes through the gate, words the reply.
    async fn unary<M, O, R>(
        &self,
        request: Request<M>,
        parse: impl FnOnce(M) -> Result<O, Failure> + Send,
        word: impl FnOnce(O::Reply) -> R + Send,
    ) -> Result<Response<R>, Status>
    where
        M: Keyed + Message + Send,
        O: Operation,
    {
        let (mut call, mut message) = self.take(request)?;
        let id = call.id;
        let parsed = idempotency_key(message.take_key()).and_then(|key| {
            call.key = key.map(|text| ChangeKey {
                text,
                content: Sha256::digest(message.encode_to_vec()).into(),
            });
            parse(message)
        });
        let reply = match parsed {
            Ok(op) => self.gate.run(call, op).await,
            Err(malformed) => self.gate.refuse_malformed(call, O::NAME, malformed).await,
        };
        reply
            .map(|reply| Response::new(word(reply)))
            .map_err(|failure| status(&failure, &id.to_string()))
    }

    fn reader<M>(&self, request: &Request<M>) -> StreamReader {
        StreamReader {
            gate: Arc::clone(&self.gate),
            token: bearer(request.metadata()),
        }
    }

    /// The source comes from the socket, the token from `authorization: Bearer`. From here on the gate answers for the record.
    fn take<M>(&self, request: Request<M>) -> Result<(Call, M), Status> {
        let (metadata, extensions, message) = request.into_parts();
        let Some(origin) = extensions.get::<Origin>().cloned() else {
            return Err(status(&Failure::new(Reason::Internal), ""));
        };
        // There is one namespace yet. Whoever means another must not be answered from this one.
        if metadata
            .get_all("x-strongroom-namespace")
            .iter()
            .any(|name| !matches!(name.as_bytes(), b"" | b"root"))
        {
            let failure = malformed("x-strongroom-namespace", "there are no namespaces yet: leave it out");
            return Err(status(&failure, ""));
        }
        if let Some(taken) = extensions.get::<Taken>() {
            taken.set();
        }
        let token = bearer(&metadata);
        let called = extensions.get::<Called>();
        let shown = proof(&metadata)
            .zip(called)
            .map(|(proof, called)| Shown::new(Arc::clone(&self.gate), proof, Arc::clone(&called.0)));
        Ok((
            Call {
                origin,
                id: self.gate.request_id(),
                shown,
                token,
                key: None,
                place: extensions.get::<Place>().cloned(),
            },
            message,
        ))
    }
}

/// The one DPoP proof; two are none (RFC 9449, 4.3).
fn proof(metadata: &MetadataMap) -> Option<&str> {
    let mut proofs = metadata.get_all("dpop").iter();
    let proof = proofs.next().filter(|_| proofs.next().is_none())?;
    proof.to_str().ok()
}

/// The token of `authorization: Bearer`, unread.
fn bearer(metadata: &MetadataMap) -> Option<SecretBytes> {
    let value = metadata.get("authorization")?.as_bytes().strip_prefix(b"Bearer ")?;
    (value.len() <= TOKEN_BYTES_MAX).then(|| SecretBytes::from(value))
}
