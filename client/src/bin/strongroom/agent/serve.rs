//! The agent's socket: `strongroom.v1.Delivery` from memory, for the users that `[[allow]]` names. Any client of Strongroom can ask, without a
//! token: the kernel tells who is at the other end.

use super::{config::Allowed, door};
use crate::failure::Failure;
use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::{Arc, Weak},
};
use strongroom_client::{
    Delivered, Secrets,
    v1::{self, delivery_server, watch_item, watch_response},
};
use tokio::{net::UnixListener, sync::watch};
use tokio_stream::Stream;
use tonic::{
    Code, Request, Response, Status,
    transport::server::{Server, UdsConnectInfo},
};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Items of one call, as the daemon has it.
const ITEMS_MAX: usize = 64;
/// Calls and streams of one connection at once.
const STREAMS_MAX: u32 = 64;

/// Serves until it is dropped.
pub async fn serve(listener: UnixListener, secrets: &Arc<Secrets>, allowed: Allowed) -> Result<(), Failure> {
    let visitors = door::visitors(listener, &allowed);
    let desk = Desk {
        secrets: Arc::downgrade(secrets),
        allowed: Arc::new(allowed),
    };
    Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .add_service(delivery_server::DeliveryServer::new(desk))
        .serve_with_incoming(visitors)
        .await
        .map_err(|error| Failure::other(format!("the socket failed: {error}"), "start the agent again"))
}

/// Connections outlive the agent's end by a moment: they do not keep its secrets.
struct Desk {
    secrets: Weak<Secrets>,
    allowed: Arc<Allowed>,
}

/// With the reason that clients match on.
fn refusal(code: Code, reason: &str, words: impl Into<String>) -> Status {
    let details = ErrorDetails::with_error_info(reason, "strongroom", HashMap::new());
    Status::with_error_details(code, words, details)
}

impl Desk {
    /// Whether the process at the other end may have these; all or none.
    fn check<'p, T>(&self, request: &Request<T>, paths: impl Iterator<Item = &'p str>) -> Result<(), Status> {
        let peer = request
            .extensions()
            .get::<UdsConnectInfo>()
            .and_then(|info| info.peer_cred);
        let mine = peer.and_then(|peer| self.allowed.get(&peer.uid()));
        let (mut count, denied) = (0, |path: &str| {
            let words = format!("{path}: the agent does not hold it for this user");
            refusal(Code::PermissionDenied, "DENIED", words)
        });
        for path in paths {
            count += 1;
            if !mine.is_some_and(|mine| mine.contains(path)) {
                return Err(denied(path));
            }
        }
        match count {
            1..=ITEMS_MAX => Ok(()),
            _ => Err(refusal(
                Code::InvalidArgument,
                "MALFORMED",
                format!("items: 1 to {ITEMS_MAX} of them"),
            )),
        }
    }

    fn secrets(&self) -> Result<Arc<Secrets>, Status> {
        let ending = || {
            refusal(
                Code::Unavailable,
                "STOPPING",
                "the agent is stopping: connect again in a moment",
            )
        };
        self.secrets.upgrade().ok_or_else(ending)
    }

    fn held(&self, path: &str) -> Result<Arc<Delivered>, Status> {
        let gone = |_| {
            refusal(
                Code::NotFound,
                "NOT_FOUND",
                format!("{path}: it was deleted, or is refused to the agent now"),
            )
        };
        self.secrets()?.get(path).map_err(gone)
    }
}

/// What an item was when it was last sent.
fn mark(held: Option<&Delivered>) -> String {
    match held {
        None => "-".to_owned(),
        Some(held) => held.lease_id().map_or_else(|| held.resume.clone(), str::to_owned),
    }
}

#[tonic::async_trait]
impl delivery_server::Delivery for Desk {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchResponse, Status>> + Send>>;

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<v1::FetchResponse>, Status> {
        self.check(&request, request.get_ref().items.iter().map(|item| item.path.as_str()))?;
        let mut items = Vec::new();
        for item in &request.get_ref().items {
            if item.select.is_some() || item.ttl_secs != 0 {
                let words = "the agent holds current versions and roles' defaults only: ask the daemon";
                return Err(refusal(Code::InvalidArgument, "MALFORMED", words));
            }
            let held = self.held(&item.path)?;
            items.push(v1::Delivered {
                resume: mark(Some(&held)),
                ..held.to_wire()
            });
        }
        Ok(Response::new(v1::FetchResponse { items }))
    }

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let path_of = |item: &v1::WatchItem| match &item.what {
            Some(watch_item::What::Path(path)) if item.label.is_empty() => path.clone(),
            // Nobody may have an empty path: refused below.
            _ => String::new(),
        };
        let paths: Vec<String> = request.get_ref().items.iter().map(path_of).collect();
        self.check(&request, paths.iter().map(String::as_str))?;
        let request = request.into_inner();
        let items = paths.into_iter().zip(request.items.into_iter().map(|item| item.resume));
        let state = Following {
            items: items.collect(),
            values: !request.without_values,
            changes: self.secrets()?.changes(),
            secrets: Weak::clone(&self.secrets),
            ready: VecDeque::new(),
            looked: false,
        };
        let stream = futures::stream::unfold(state, |mut state| async {
            let next = state.next().await?;
            Some((Ok(next), state))
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

/// A program that follows.
struct Following {
    /// Paths, and what was sent of them.
    items: Vec<(String, String)>,
    values: bool,
    changes: watch::Receiver<u64>,
    secrets: Weak<Secrets>,
    ready: VecDeque<v1::WatchResponse>,
    looked: bool,
}

impl Following {
    /// The next event; `None` when the agent ends.
    async fn next(&mut self) -> Option<v1::WatchResponse> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            if self.looked {
                self.changes.changed().await.ok()?;
            }
            self.looked = true;
            self.look()?;
        }
    }

    fn look(&mut self) -> Option<()> {
        let secrets = self.secrets.upgrade()?;
        for (item, (path, seen)) in (0_u32..).zip(&mut self.items) {
            let held = secrets.get(path).ok();
            let now = mark(held.as_deref());
            if now == *seen {
                continue;
            }
            seen.clone_from(&now);
            let event = match held {
                None => watch_response::Event::Gone(v1::WatchGone { path: path.clone() }),
                Some(held) => {
                    let mut wire = held.to_wire();
                    wire.resume.clone_from(&now);
                    if !self.values {
                        wire.fields.clear();
                    }
                    watch_response::Event::Changed(wire)
                }
            };
            self.ready.push_back(v1::WatchResponse {
                item,
                resume: now,
                event: Some(event),
            });
        }
        Some(())
    }
}
