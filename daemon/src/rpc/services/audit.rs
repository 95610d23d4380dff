//! `strongroom.v1.Audit`.

use super::Services;
use crate::{
    audit::Tail,
    gate::{Failure, Reason, ops::audit as ops},
    rpc::{parse::malformed, status::status},
};
use data_encoding::HEXLOWER;
use std::{pin::Pin, sync::Arc};
use strongroom_proto::v1::{self, audit_server};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, async_trait};

/// Records on their way to one reader.
const TAIL_AHEAD: usize = 256;
/// Records before the end that a tail may begin with.
const LAST_MAX: u32 = 10_000;

#[async_trait]
impl audit_server::Audit for Services {
    type TailStream = Pin<Box<dyn Stream<Item = Result<v1::AuditTailResponse, Status>> + Send>>;

    async fn tail(&self, request: Request<v1::AuditTailRequest>) -> Result<Response<Self::TailStream>, Status> {
        let vault = Arc::clone(self.gate.vault());
        let parse = |m: v1::AuditTailRequest| {
            if m.last > LAST_MAX {
                return Err(malformed("last", format_args!("at most {LAST_MAX}")));
            }
            Ok(ops::Tail {
                vault,
                from_seq: m.from_seq,
                last: m.last.into(),
                follow: m.follow,
            })
        };
        let Ok(place) = Arc::clone(&self.tails).try_acquire_owned() else {
            return Err(status(
                &Failure::with(Reason::Overloaded, "too many tails of the log at once"),
                "",
            ));
        };
        let reader = self.reader(&request);
        self.unary(request, parse, |tail| {
            let (out, stream) = mpsc::channel(TAIL_AHEAD);
            tokio::spawn(async move {
                let _place = place;
                tokio::select! {
                    () = follow(tail, &out) => {}
                    () = reader.leaves() => {
                        // The reader may be gone already.
                        let _ = out.send(Err(status(&Reason::Unauthenticated.into(), ""))).await;
                    }
                }
            });
            Box::pin(ReceiverStream::new(stream)) as Self::TailStream
        })
        .await
    }

    async fn hash(&self, request: Request<v1::AuditHashRequest>) -> Result<Response<v1::AuditHashResponse>, Status> {
        let parse = |m: v1::AuditHashRequest| Ok(ops::Hash { value: m.value });
        self.unary(request, parse, |hash| v1::AuditHashResponse { hash }).await
    }

    async fn head(&self, request: Request<v1::AuditHeadRequest>) -> Result<Response<v1::AuditHeadResponse>, Status> {
        let vault = Arc::clone(self.gate.vault());
        self.unary(
            request,
            |_| Ok(ops::Head(vault)),
            |head| v1::AuditHeadResponse {
                seq: head.seq,
                head: HEXLOWER.encode(&head.hash),
            },
        )
        .await
    }
}

/// Feeds one reader until it leaves, the log ends, or the log cannot be read on.
async fn follow(mut tail: Tail, out: &mpsc::Sender<Result<v1::AuditTailResponse, Status>>) {
    loop {
        let lines = tokio::select! {
            lines = tail.next() => lines,
            () = out.closed() => return,
        };
        let lines = match lines {
            Ok(Some(lines)) => lines,
            Ok(None) => return,
            Err(error) => {
                tracing::error!(%error, "a tail of the audit log ends early");
                // The reader may be gone already.
                let _ = out.send(Err(status(&Failure::new(Reason::Damaged), ""))).await;
                return;
            }
        };
        for line in lines {
            let record_json = String::from_utf8_lossy(&line.record).into_owned();
            if out
                .send(Ok(v1::AuditTailResponse {
                    seq: line.seq,
                    record_json,
                }))
                .await
                .is_err()
            {
                return;
            }
        }
    }
}
