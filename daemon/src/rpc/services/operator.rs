//! `strongroom.v1.Operator`.

use super::Services;
use crate::{
    gate::{Failure, Founded, Gate, Presented, Reason, Status as Told, ops::operator as ops},
    rpc::{parse::malformed, status::status},
    seal::{Nonce, Operation, ShareText, SlotName, SlotSpec},
    token::Created,
    vault::{SlotInfo, VaultState},
};
use std::{future::Future, sync::Arc};
use strongroom_proto::v1::{self, operation::Kind, operator_server};
use tonic::{Request, Response, Status, async_trait};

/// Slots that one `init` may make.
const INIT_SLOTS_MAX: usize = crate::base::limits::SLOTS_MAX;

#[async_trait]
impl operator_server::Operator for Services {
    async fn status(&self, request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let (call, _) = self.take(request)?;
        let id = call.id.to_string();
        let told = self.gate.status(call).await.map_err(|failure| status(&failure, &id))?;
        Ok(Response::new(status_response(told)))
    }

    async fn init(&self, request: Request<v1::InitRequest>) -> Result<Response<v1::InitResponse>, Status> {
        let (call, message) = self.take(request)?;
        let id = call.id.to_string();
        let founded = match init_specs(&message) {
            Ok(specs) => {
                apart(Arc::clone(&self.gate), move |gate| async move {
                    gate.init(call, specs).await
                })
                .await
            }
            Err(malformed) => self.gate.refuse_malformed(call, "operator.init", malformed).await,
        };
        founded
            .map(|founded| Response::new(init_response(founded)))
            .map_err(|failure| status(&failure, &id))
    }

    async fn present(&self, request: Request<v1::PresentRequest>) -> Result<Response<v1::PresentResponse>, Status> {
        let (call, message) = self.take(request)?;
        let id = call.id.to_string();
        let presented = match factor(&message) {
            Ok((slot, session, operation)) => {
                let share = (!message.share.is_empty()).then(|| zeroize::Zeroizing::new(message.share));
                apart(Arc::clone(&self.gate), move |gate| async move {
                    gate.present(
                        call,
                        slot,
                        session,
                        share.as_ref().map(|share| share.as_str()),
                        operation,
                    )
                    .await
                })
                .await
            }
            Err(malformed) => self.gate.refuse_malformed(call, "operator.present", malformed).await,
        };
        presented
            .map(|presented| Response::new(present_response(presented)))
            .map_err(|failure| status(&failure, &id))
    }

    async fn abandon(&self, request: Request<v1::AbandonRequest>) -> Result<Response<v1::AbandonResponse>, Status> {
        let (call, message) = self.take(request)?;
        let id = call.id.to_string();
        let abandoned = match nonce(&message.session) {
            Ok(session) => self.gate.abandon(call, session).await,
            Err(malformed) => self.gate.refuse_malformed(call, "operator.abandon", malformed).await,
        };
        abandoned
            .map(|()| Response::new(v1::AbandonResponse {}))
            .map_err(|failure| status(&failure, &id))
    }

    async fn forgive_pin(
        &self,
        request: Request<v1::ForgivePinRequest>,
    ) -> Result<Response<v1::ForgivePinResponse>, Status> {
        let (call, message) = self.take(request)?;
        let id = call.id.to_string();
        let forgiven = self.gate.forgive_pin(call, &message.hsm).await;
        forgiven
            .map(|()| Response::new(v1::ForgivePinResponse {}))
            .map_err(|failure| status(&failure, &id))
    }

    async fn seal(&self, request: Request<v1::SealRequest>) -> Result<Response<v1::SealResponse>, Status> {
        let vault = Arc::clone(self.gate.vault());
        self.unary(request, |_| Ok(ops::Seal(vault)), |()| v1::SealResponse {})
            .await
    }

    async fn list_slots(
        &self,
        request: Request<v1::ListSlotsRequest>,
    ) -> Result<Response<v1::ListSlotsResponse>, Status> {
        let vault = Arc::clone(self.gate.vault());
        self.unary(
            request,
            |_| Ok(ops::ListSlots(vault)),
            |slots| v1::ListSlotsResponse {
                slots: slots.into_iter().map(slot).collect(),
            },
        )
        .await
    }

    async fn list_quarantine(
        &self,
        request: Request<v1::ListQuarantineRequest>,
    ) -> Result<Response<v1::ListQuarantineResponse>, Status> {
        self.unary(
            request,
            |_| Ok(ops::ListQuarantine),
            |(records, met)| v1::ListQuarantineResponse { records, met },
        )
        .await
    }

    async fn confirm_time(
        &self,
        request: Request<v1::ConfirmTimeRequest>,
    ) -> Result<Response<v1::ConfirmTimeResponse>, Status> {
        self.unary(
            request,
            |_| Ok(ops::ConfirmTime),
            |time| v1::ConfirmTimeResponse {
                vault_time: time.to_string(),
            },
        )
        .await
    }

    async fn rotate(&self, request: Request<v1::RotateRequest>) -> Result<Response<v1::RotateResponse>, Status> {
        let vault = Arc::clone(self.gate.vault());
        let parse = |m: v1::RotateRequest| {
            let keys = match m.key() {
                v1::KeyKind::Data => ops::Keys::Data,
                v1::KeyKind::Root => ops::Keys::Root,
                v1::KeyKind::Hsm => ops::Keys::Hsm((!m.hsm.is_empty()).then_some(m.hsm)),
                v1::KeyKind::Unspecified => return Err(malformed("key", "one of data, root, hsm")),
            };
            Ok(ops::Rotate { vault, keys })
        };
        self.unary(request, parse, |generation| v1::RotateResponse {
            generation,
            warnings: Vec::new(),
        })
        .await
    }
}

/// In a task of its own, to the end, whether or not the caller stays: half an `init` would lose shares.
async fn apart<T, F>(gate: Arc<Gate>, work: impl FnOnce(Arc<Gate>) -> F) -> Result<T, Failure>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Failure>> + Send + 'static,
{
    tokio::spawn(work(gate))
        .await
        .unwrap_or_else(|_| Err(Reason::Internal.into()))
}

fn nonce(text: &str) -> Result<Nonce, Failure> {
    text.parse().map_err(|error| malformed("session", error))
}

fn spec(message: &v1::SlotSpec) -> Result<SlotSpec, Failure> {
    Ok(SlotSpec::parse(&message.name, &message.factors, &message.hsms)?)
}

fn init_specs(message: &v1::InitRequest) -> Result<Vec<SlotSpec>, Failure> {
    if message.slots.is_empty() || message.slots.len() > INIT_SLOTS_MAX {
        return Err(malformed("slots", format_args!("1 to {INIT_SLOTS_MAX}")));
    }
    message.slots.iter().map(spec).collect()
}

fn slot_name(text: &str) -> Result<SlotName, Failure> {
    Ok(text.parse::<SlotName>()?)
}

type Factor = (SlotName, Option<Nonce>, Option<Operation>);

fn factor(message: &v1::PresentRequest) -> Result<Factor, Failure> {
    let session = if message.session.is_empty() {
        None
    } else {
        Some(nonce(&message.session)?)
    };
    let kind = message.operation.as_ref().and_then(|operation| operation.kind.as_ref());
    Ok((slot_name(&message.slot)?, session, kind.map(operation).transpose()?))
}

fn operation(kind: &Kind) -> Result<Operation, Failure> {
    Ok(match kind {
        Kind::Unseal(_) => Operation::Unseal,
        Kind::AddSlot(wanted) => Operation::AddSlot(spec(wanted)?),
        Kind::RemoveSlot(removal) => Operation::RemoveSlot(slot_name(&removal.name)?),
        Kind::RekeySlot(rekey) => Operation::RekeySlot(spec(
            rekey
                .slot
                .as_ref()
                .ok_or_else(|| malformed("slot", "say which, and its factors"))?,
        )?),
        Kind::VerifySlot(_) => Operation::VerifySlot,
        Kind::Recover(_) => Operation::Recover,
    })
}

fn shares((slot, shares): (SlotName, Vec<ShareText>)) -> v1::SlotShares {
    v1::SlotShares {
        slot: slot.as_str().to_owned(),
        shares: shares.iter().map(|share| share.expose().to_owned()).collect(),
    }
}

fn slot(info: SlotInfo) -> v1::Slot {
    let time = |time: Option<crate::base::time::Timestamp>| time.map(|time| time.to_string()).unwrap_or_default();
    v1::Slot {
        name: info.name.as_str().to_owned(),
        factors: if info.damaged {
            "damaged".to_owned()
        } else {
            info.factors
        },
        hsms: info.hsms,
        share_set: info.share_set,
        created_at: time(info.created),
        verified_at: time(info.verified),
    }
}

fn status_response(told: Told) -> v1::StatusResponse {
    let state = match told.state {
        VaultState::Blank => v1::VaultState::Blank,
        VaultState::Sealed => v1::VaultState::Sealed,
        VaultState::Open => v1::VaultState::Open,
    };
    v1::StatusResponse {
        state: state.into(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster_id: told.cluster_id,
        store_backend: told.store_backend.to_owned(),
        audit_sync: told.audit_sync.to_owned(),
        hsms: told
            .hsms
            .into_iter()
            .map(|hsm| v1::HsmStatus {
                name: hsm.name,
                state: hsm.state.to_owned(),
                detail: hsm.detail,
                respawns: hsm.respawns,
            })
            .collect(),
        sessions: told
            .sessions
            .into_iter()
            .map(|session| v1::SessionStatus {
                slot: session.slot.as_str().to_owned(),
                operation: session.operation.to_owned(),
                have: session.have.into(),
                need: session.need.into(),
                expires_in_secs: session.expires_in_secs,
            })
            .collect(),
        slots: told.slots.into_iter().map(slot).collect(),
        audit_seq: told.audit_seq,
        audit_head: told.audit_head,
        quarantined: told.quarantined,
        targets_down: told.targets_down,
        leases_revoking: told.revoking.leases,
        leases_revoking_oldest_secs: told.revoking.oldest_secs,
        warnings: told.warnings,
        uptime_secs: told.uptime_secs,
    }
}

fn init_response(founded: Founded) -> v1::InitResponse {
    let (setup_token, setup_token_ttl_secs) = token_text(founded.token);
    v1::InitResponse {
        cluster_id: founded.cluster_id,
        shares: founded
            .shares
            .into_iter()
            .filter(|(_, shares)| !shares.is_empty())
            .map(shares)
            .collect(),
        setup_token,
        setup_token_ttl_secs,
        audit_genesis: founded.audit_genesis,
        warnings: founded.warnings,
    }
}

/// A token's text, for the one answer that shows it, and its life.
fn token_text(created: Option<Created>) -> (String, u64) {
    created.map_or((String::new(), 0), |created| {
        (created.text.expose().to_owned(), created.ttl_secs)
    })
}

fn present_response(presented: Presented) -> v1::PresentResponse {
    let (token, token_ttl_secs) = token_text(presented.token);
    v1::PresentResponse {
        session: presented.session,
        have: presented.have.into(),
        need: presented.need.into(),
        done: presented.done,
        expires_in_secs: presented.expires_in_secs,
        shares: presented.shares.map(shares),
        token,
        token_ttl_secs,
        warnings: presented.warnings,
    }
}
