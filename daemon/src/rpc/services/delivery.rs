//! `strongroom.v1.Delivery`.

use super::{Services, creds::wire};
use crate::{
    engine::Issued,
    gate::{
        Delivery, Failure, Operation as _, Watching, code_of,
        ops::delivery::{
            Goods, ITEMS_MAX, Mark,
            fetch::{Fetch, Fetched, Item},
            watch::{Event, Item as WatchedItem, Watch, What},
        },
    },
    kv::Select,
    lease::{Lease, State},
    rpc::{
        parse::{id, malformed, optional_time, path},
        status::status,
    },
};
use bytes::Bytes;
use std::pin::Pin;
use strongroom_proto::v1::{self, delivered, delivery_server, fetch_item, watch_item, watch_response};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, async_trait};

/// The longest lead of a warning: leases live at most a day.
const WARN_SECS_MAX: u64 = crate::base::limits::LEASE_TTL_MAX_SECS;

#[async_trait]
impl delivery_server::Delivery for Services {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchResponse, Status>> + Send>>;

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<v1::FetchResponse>, Status> {
        self.unary(request, fetch, |fetched| v1::FetchResponse {
            items: fetched.into_iter().map(part).collect(),
        })
        .await
    }

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (call, message) = self.take(request)?;
        let (id, values) = (call.id.to_string(), !message.without_values);
        let opened = match watch(message) {
            Ok(items) => self.gate.watch(call, items, values).await,
            Err(failure) => self.gate.refuse_malformed(call, Watch::NAME, failure).await,
        };
        let watching = opened.map_err(|failure| status(&failure, &id))?;
        // Asked for the next when the reader has room: nothing is sent ahead.
        let stream = futures::stream::unfold(Some(watching), |watching| async {
            let mut watching: Watching = watching?;
            match watching.next().await {
                Ok(delivery) => Some((Ok(delivered_to(&watching, delivery)), Some(watching))),
                Err(failure) => Some((Err(status(&failure, &watching.id().to_string())), None)),
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

/// 1 to 64 of them.
fn items<T, R>(items: Vec<T>, parse: impl Fn(T) -> Result<R, Failure>) -> Result<Vec<R>, Failure> {
    if items.is_empty() || items.len() > ITEMS_MAX {
        return Err(malformed("items", format_args!("1 to {ITEMS_MAX} of them")));
    }
    items.into_iter().map(parse).collect()
}

fn fetch(m: v1::FetchRequest) -> Result<Fetch, Failure> {
    let parse = |item: v1::FetchItem| {
        Ok(Item {
            name: String::new(),
            path: path("items.path", &item.path)?,
            select: match item.select {
                None => Select::Current,
                Some(fetch_item::Select::Version(version)) => Select::Version(version),
                Some(fetch_item::Select::Label(label)) => Select::Label(label),
            },
            ttl_secs: item.ttl_secs,
        })
    };
    let bundle = (!m.bundle.is_empty()).then(|| path("bundle", &m.bundle)).transpose()?;
    Ok(Fetch {
        items: match bundle.is_some() && m.items.is_empty() {
            true => Vec::new(),
            false => items(m.items, parse)?,
        },
        bundle: bundle.map(Item::plain),
    })
}

fn watch(m: v1::WatchRequest) -> Result<Vec<WatchedItem>, Failure> {
    let parse = |item: v1::WatchItem| {
        if item.warn_secs > WARN_SECS_MAX {
            return Err(malformed("items.warn_secs", format_args!("at most {WARN_SECS_MAX}")));
        }
        let select = match item.label {
            label if label.is_empty() => Select::Current,
            label => Select::Label(label),
        };
        Ok(WatchedItem {
            what: match item.what {
                Some(watch_item::What::Path(text)) => What::Path {
                    path: path("items.path", &text)?,
                    select,
                },
                Some(watch_item::What::LeaseId(text)) => What::Lease(id("items.lease_id", &text)?),
                None => return Err(malformed("items", "each names a path or a lease")),
            },
            warn_secs: item.warn_secs,
            seen: Mark::parse(&item.resume).map_err(|error| malformed("items.resume", error))?,
        })
    };
    items(m.items, parse)
}

fn part(fetched: Fetched) -> v1::Delivered {
    let resume = match &fetched.goods {
        Goods::Credential(Issued::Dynamic { .. }) => String::new(),
        goods => goods.mark().to_text(),
    };
    let asked = (!fetched.name.is_empty()).then(|| v1::FetchItem {
        path: fetched.path.as_str().to_owned(),
        select: match fetched.select {
            Select::Current => None,
            Select::Version(version) => Some(fetch_item::Select::Version(version)),
            Select::Label(label) => Some(fetch_item::Select::Label(label)),
        },
        ttl_secs: fetched.ttl_secs,
    });
    v1::Delivered {
        resume,
        name: fetched.name,
        asked,
        ..delivered(fetched.path.as_str(), fetched.goods, fetched.remaining_secs)
    }
}

fn delivered(path: &str, goods: Goods, remaining_secs: Option<u64>) -> v1::Delivered {
    let (fields, kind) = match goods {
        Goods::Secret(secret) => {
            let fields = secret.fields.expose();
            let fields = fields.map(|(name, value)| (name.to_owned(), Bytes::copy_from_slice(value)));
            let kind = v1::DeliveredSecret {
                version: secret.version,
                created_at: secret.created.to_string(),
                labels: secret.labels,
            };
            (fields.collect(), delivered::Kind::Secret(kind))
        }
        Goods::Credential(Issued::Dynamic { lease, fields }) => {
            let kind = v1::DeliveredLease {
                lease_id: lease.id.to_string(),
                expires_at: lease.expires.to_string(),
                ttl_secs: lease.ttl_secs,
                renewable: lease.expires < lease.max_expires,
            };
            (wire(fields), delivered::Kind::Lease(kind))
        }
        Goods::Credential(Issued::Static {
            fields,
            rotated,
            rotates,
        }) => {
            let kind = v1::DeliveredAccount {
                rotated_at: optional_time(rotated),
                rotates_at: optional_time(rotates),
            };
            (wire(fields), delivered::Kind::Account(kind))
        }
    };
    v1::Delivered {
        path: path.to_owned(),
        fields,
        kind: Some(kind),
        remaining_secs,
        ..Default::default()
    }
}

fn delivered_to(watching: &Watching, delivery: Delivery) -> v1::WatchResponse {
    let path = delivery.path.map(|path| path.as_str().to_owned()).unwrap_or_default();
    let resume = delivery.resume.map(Mark::to_text).unwrap_or_default();
    let event = match delivery.event {
        Event::Changed(goods, remaining_secs) => {
            let mut changed = delivered(&path, *goods, remaining_secs);
            changed.resume.clone_from(&resume);
            if !watching.values() {
                changed.fields.clear();
            }
            watch_response::Event::Changed(changed)
        }
        Event::Gone => watch_response::Event::Gone(v1::WatchGone { path }),
        Event::LeaseDue(lease, left) => watch_response::Event::Lease(due(&lease, left)),
        Event::LeaseGone(id) => watch_response::Event::Lease(v1::WatchLease {
            lease_id: id.to_string(),
            state: "gone".to_owned(),
            ..Default::default()
        }),
        Event::Refused(failure) => watch_response::Event::Refused(v1::WatchRefused {
            path,
            reason: failure.reason.as_str().to_owned(),
            message: failure.message.into_owned(),
            code: u32::try_from(i32::from(code_of(failure.reason))).unwrap_or_default(),
        }),
    };
    v1::WatchResponse {
        item: u32::try_from(delivery.item).unwrap_or(u32::MAX),
        resume,
        event: Some(event),
    }
}

fn due(lease: &Lease, remaining_secs: u64) -> v1::WatchLease {
    let state = match lease.state {
        State::Revoking => "revoking",
        State::Intent | State::Active => "expiring",
    };
    v1::WatchLease {
        lease_id: lease.id.to_string(),
        role: lease.role.as_str().to_owned(),
        state: state.to_owned(),
        remaining_secs,
        expires_at: lease.expires.to_string(),
        renewable: lease.state != State::Revoking && lease.expires < lease.max_expires,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// R-KV-3, R-KV-4, fuzz: any items are taken or refused with the field's name, never a panic.
        #[test]
        fn hostile_requests(text in "\\PC{0,60}|[a-z/]{1,9}", resume in "\\PC{0,30}", label in "\\PC{0,9}", count in 0_usize..70, secs: u64, lease: bool) {
            let what = if lease { watch_item::What::LeaseId(text.clone()) } else { watch_item::What::Path(text.clone()) };
            let item = v1::WatchItem { what: Some(what), label, warn_secs: secs, resume };
            match watch(v1::WatchRequest { items: vec![item; count], without_values: lease }) {
                Ok(items) => prop_assert!(!items.is_empty() && items.len() <= ITEMS_MAX),
                Err(failure) => prop_assert!(failure.message.starts_with("items")),
            }
            let item = v1::FetchItem { path: text, select: None, ttl_secs: secs };
            match fetch(v1::FetchRequest { items: vec![item; count], ..Default::default() }) {
                Ok(fetch) => prop_assert!(!fetch.items.is_empty() && fetch.items.len() <= ITEMS_MAX),
                Err(failure) => prop_assert!(failure.message.starts_with("items")),
            }
        }
    }

    #[test]
    fn an_item_must_name_something() {
        let nothing = v1::WatchItem::default();
        let request = v1::WatchRequest {
            items: vec![nothing],
            without_values: false,
        };
        assert_eq!(
            watch(request).err().unwrap().message,
            "items: each names a path or a lease"
        );
    }
}
