//! Many secrets and credentials in one round trip, and a stream that tells of their changes.

use crate::{
    call::Client,
    creds::secs,
    error::{Error, Refusal},
    secret::{Fields, Secret, field, fields_from_wire, fields_to_wire},
    v1::{self, delivered, watch_item, watch_response},
    want::Want,
};
use std::time::Duration;
use tonic::Code;

/// What a delivered thing is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A version of a secret.
    Secret {
        /// From 1.
        version: u64,
        /// RFC 3339, UTC.
        created_at: String,
        /// Labels that point at this version.
        labels: Vec<String>,
    },
    /// A new account, leased.
    Lease {
        /// To renew and revoke it.
        lease_id: String,
        /// RFC 3339, UTC.
        expires_at: String,
        /// Life from one renewal to the next.
        ttl: Duration,
        /// Whether renewing can extend it.
        renewable: bool,
    },
    /// The present password of an existing account.
    Account {
        /// RFC 3339, UTC.
        rotated_at: String,
        /// RFC 3339, UTC; empty when it rotates on demand only.
        rotates_at: String,
    },
}

/// A secret or credential, as it was delivered.
#[derive(Debug)]
pub struct Delivered {
    /// What a bundle calls it; else empty.
    pub name: String,
    /// As asked.
    pub path: String,
    /// The values. Empty in a stream that was opened without them.
    pub fields: Fields,
    /// What it is.
    pub kind: Kind,
    /// For how long it is good unless something is done; `None`: until it is changed.
    pub remaining: Option<Duration>,
    /// For [`Follow::resume`]: this was seen. Empty for a lease.
    pub resume: String,
}

impl Delivered {
    /// One field.
    /// # Errors
    /// [`Error::NotFound`] that lists the names there are.
    pub fn field(&self, name: &str) -> Result<&Secret, Error> {
        field(&self.fields, name, &self.path)
    }

    /// The lease's id, if it is one.
    #[must_use]
    pub fn lease_id(&self) -> Option<&str> {
        match &self.kind {
            Kind::Lease { lease_id, .. } => Some(lease_id),
            Kind::Secret { .. } | Kind::Account { .. } => None,
        }
    }

    /// As it came over the wire, for a program that hands it on.
    #[must_use]
    pub fn to_wire(&self) -> v1::Delivered {
        let kind = match &self.kind {
            Kind::Secret {
                version,
                created_at,
                labels,
            } => delivered::Kind::Secret(v1::DeliveredSecret {
                version: *version,
                created_at: created_at.clone(),
                labels: labels.clone(),
            }),
            Kind::Lease {
                lease_id,
                expires_at,
                ttl,
                renewable,
            } => delivered::Kind::Lease(v1::DeliveredLease {
                lease_id: lease_id.clone(),
                expires_at: expires_at.clone(),
                ttl_secs: ttl.as_secs(),
                renewable: *renewable,
            }),
            Kind::Account { rotated_at, rotates_at } => delivered::Kind::Account(v1::DeliveredAccount {
                rotated_at: rotated_at.clone(),
                rotates_at: rotates_at.clone(),
            }),
        };
        v1::Delivered {
            path: self.path.clone(),
            fields: fields_to_wire(&self.fields),
            kind: Some(kind),
            remaining_secs: self.remaining.map(|left| left.as_secs()),
            resume: self.resume.clone(),
            name: self.name.clone(),
            asked: None,
        }
    }

    /// Its values in locked memory.
    pub(crate) fn locked(mut self) -> Self {
        let fields = std::mem::take(&mut self.fields);
        self.fields = fields.into_iter().map(|(name, value)| (name, value.locked())).collect();
        self
    }

    pub(crate) fn from_wire(wire: v1::Delivered) -> Result<Self, Error> {
        let kind = match wire.kind {
            Some(delivered::Kind::Secret(secret)) => Kind::Secret {
                version: secret.version,
                created_at: secret.created_at,
                labels: secret.labels,
            },
            Some(delivered::Kind::Lease(lease)) => Kind::Lease {
                lease_id: lease.lease_id,
                expires_at: lease.expires_at,
                ttl: Duration::from_secs(lease.ttl_secs),
                renewable: lease.renewable,
            },
            Some(delivered::Kind::Account(account)) => Kind::Account {
                rotated_at: account.rotated_at,
                rotates_at: account.rotates_at,
            },
            None => return Err(strange("something of a kind that this library does not know")),
        };
        Ok(Self {
            name: wire.name,
            path: wire.path,
            fields: fields_from_wire(wire.fields),
            kind,
            remaining: wire.remaining_secs.map(Duration::from_secs),
            resume: wire.resume,
        })
    }
}

/// The daemon speaks a later dialect.
fn strange(what: &str) -> Error {
    let words = format!("the daemon sent {what}: a newer client is needed");
    Error::Unsupported(Refusal::local("UNKNOWN_ANSWER", words))
}

/// One thing to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follow {
    what: watch_item::What,
    label: String,
    warn: Option<Duration>,
    resume: String,
}

impl Follow {
    /// A secret's current version, or a static role's password.
    #[must_use]
    pub fn path(path: impl Into<String>) -> Self {
        Self::what(watch_item::What::Path(path.into()))
    }

    /// A lease: told ahead of its expiry, and of its end.
    #[must_use]
    pub fn lease(lease_id: impl Into<String>) -> Self {
        Self::what(watch_item::What::LeaseId(lease_id.into()))
    }

    fn what(what: watch_item::What) -> Self {
        Self {
            what,
            label: String::new(),
            warn: None,
            resume: String::new(),
        }
    }

    /// Of a secret: another label than `current`.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Of a lease: how long before its expiry to be told; else at a third of its life.
    #[must_use]
    pub fn warn(mut self, warn: Duration) -> Self {
        self.warn = Some(warn);
        self
    }

    /// What was seen already, from [`Delivered::resume`] or [`Event`]: only what is newer comes.
    #[must_use]
    pub fn resume(mut self, resume: impl Into<String>) -> Self {
        self.resume = resume.into();
        self
    }

    /// The path, unless it is a lease.
    pub(crate) fn path_asked(&self) -> Option<&str> {
        match &self.what {
            watch_item::What::Path(path) => Some(path),
            watch_item::What::LeaseId(_) => None,
        }
    }

    fn wire(&self) -> v1::WatchItem {
        v1::WatchItem {
            what: Some(self.what.clone()),
            label: self.label.clone(),
            warn_secs: secs(self.warn),
            resume: self.resume.clone(),
        }
    }
}

/// What happened to one of the things that are followed. Each names its place in the order asked, from 0.
#[derive(Debug)]
pub enum Event {
    /// This is the present secret or password.
    Changed(usize, Delivered),
    /// There is no such secret, version or account (any more, or yet).
    Gone(usize, String),
    /// A lease comes to its end: `expiring`, `revoking`, or `gone`.
    Lease {
        /// Which.
        item: usize,
        /// `expiring`, `revoking`, `gone`.
        state: String,
        /// Life left.
        remaining: Duration,
        /// Whether a renewal can still prolong it.
        renewable: bool,
    },
    /// One is refused or cannot be read, and nothing more comes of it; the others go on. Open another stream to ask for it again.
    Refused {
        /// Which.
        item: usize,
        /// Its path; empty for a lease.
        path: String,
        /// Why.
        error: Error,
    },
}

/// An open stream of events. Remembers what was seen, so that [`resumed`](WatchStream::resumed) goes on after it.
#[derive(Debug)]
pub struct WatchStream {
    stream: tonic::Streaming<v1::WatchResponse>,
    items: Vec<Follow>,
    client: Client,
    values: bool,
}

impl WatchStream {
    /// The next event; waits for it.
    /// # Errors
    /// Why the stream ended; of what was followed and is refused, the last. After [`Error::Unavailable`] and [`Error::Sealed`] it can be
    /// [`resumed`](Self::resumed).
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            let response = match self.stream.message().await {
                Ok(Some(response)) => response,
                Ok(None) => {
                    let refusal = Refusal::local("STREAM_ENDED", "the stream has ended: open it again");
                    return Err(Error::Unavailable(refusal));
                }
                Err(status) => return Err(self.client.error(&status)),
            };
            let item = usize::try_from(response.item).unwrap_or(usize::MAX);
            let Some(follow) = self.items.get_mut(item) else {
                return Err(strange("word of something that was not asked for"));
            };
            follow.resume = response.resume;
            match response.event {
                Some(watch_response::Event::Changed(changed)) => {
                    return Ok(Event::Changed(item, Delivered::from_wire(changed)?));
                }
                Some(watch_response::Event::Gone(gone)) => return Ok(Event::Gone(item, gone.path)),
                Some(watch_response::Event::Lease(lease)) => {
                    return Ok(Event::Lease {
                        item,
                        state: lease.state,
                        remaining: Duration::from_secs(lease.remaining_secs),
                        renewable: lease.renewable,
                    });
                }
                Some(watch_response::Event::Refused(refused)) => {
                    let code = Code::from(i32::try_from(refused.code).unwrap_or_default());
                    let refusal = Refusal::local(&refused.reason, refused.message);
                    return Ok(Event::Refused {
                        item,
                        path: refused.path,
                        error: Error::from_reason(refusal, code),
                    });
                }
                // Of a later daemon, and nothing that was asked for.
                None => {}
            }
        }
    }

    /// Opens the stream again, after what was seen.
    /// # Errors
    /// As [`Client::watch`].
    pub async fn resumed(&self) -> Result<Self, Error> {
        self.client.watch_with(self.items.clone(), self.values).await
    }

    /// What is followed, each with the mark of what was seen.
    #[must_use]
    pub fn items(&self) -> &[Follow] {
        &self.items
    }
}

impl Follow {
    /// The mark of what was seen, to keep across restarts; empty at the beginning.
    #[must_use]
    pub fn seen(&self) -> &str {
        &self.resume
    }
}

impl Client {
    /// Many secrets and credentials in one round trip, in the order asked: all of them, or an error that names the first that failed.
    /// At most 64, of them 16 roles, and 3 MiB.
    ///
    /// ```no_run
    /// # use strongroom_client::{Client, Error};
    /// # async fn run(client: Client) -> Result<(), Error> {
    /// let fetched = client.fetch(["kv/prod/db", "kv/prod/mail", "pg/readers"]).await?;
    /// let mail = fetched[1].field("password")?;
    /// # let _ = mail.expose();
    /// # Ok(())
    /// # }
    /// ```
    /// # Errors
    /// Those of the call; nothing was handed out then.
    pub async fn fetch<W: Into<Want>>(&self, wants: impl IntoIterator<Item = W>) -> Result<Vec<Delivered>, Error> {
        let wants: Vec<Want> = wants.into_iter().map(Into::into).collect();
        Ok(self
            .fetch_all(&wants, None)
            .await?
            .into_iter()
            .map(|(_, one)| one)
            .collect())
    }

    /// What a bundle lists, in one round trip, in the order of the names by which it calls them ([`Delivered::name`]). A bundle is a secret whose
    /// fields are those names and whose values are `ref:` and a path: `strongroom kv put kv/apps/shop db=ref:pg/readers mail=ref:kv/prod/mail --literal`. After a path may stand
    /// `?label=stable`, `?version=3` or `?ttl=1h`.
    /// # Errors
    /// As [`fetch`](Self::fetch); a secret that is no bundle is [`Error::Conflict`].
    pub async fn fetch_bundle(&self, bundle: &str) -> Result<Vec<Delivered>, Error> {
        Ok(self
            .fetch_all(&[], Some(bundle))
            .await?
            .into_iter()
            .map(|(_, one)| one)
            .collect())
    }

    /// Each with how it was asked for.
    pub(crate) async fn fetch_all(
        &self,
        wants: &[Want],
        bundle: Option<&str>,
    ) -> Result<Vec<(Want, Delivered)>, Error> {
        let request = v1::FetchRequest {
            items: wants.iter().map(Want::to_wire).collect(),
            bundle: bundle.unwrap_or_default().to_owned(),
            ..Default::default()
        };
        // An answer that is lost on its way is asked for again under its key: the daemon takes back what it told of, and makes it anew.
        let fetched = self
            .change(request, |s, r| async move { s.delivery().fetch(r).await })
            .await?;
        let mut wants = wants.iter();
        let pair = |mut wire: v1::Delivered| {
            let listed = wire.asked.take().map(Want::from_wire);
            let want = listed
                .or_else(|| wants.next().cloned())
                .unwrap_or_else(|| Want::new(wire.path.clone()));
            Ok((want, Delivered::from_wire(wire)?))
        };
        fetched.items.into_iter().map(pair).collect()
    }

    /// Follows secrets, static roles and leases, at most 64: each as it is now unless `resume` says that it was seen, then every change.
    /// # Errors
    /// Those of the call. What is refused is told by the stream ([`Event::Refused`]), unless everything is.
    pub async fn watch(&self, items: impl IntoIterator<Item = Follow>) -> Result<WatchStream, Error> {
        self.watch_with(items.into_iter().collect(), true).await
    }

    /// [`watch`](Client::watch); `values = false`: only word of changes.
    /// # Errors
    /// As [`watch`](Client::watch).
    pub async fn watch_with(&self, items: Vec<Follow>, values: bool) -> Result<WatchStream, Error> {
        let request = v1::WatchRequest {
            items: items.iter().map(Follow::wire).collect(),
            without_values: !values,
        };
        // A stream has no deadline, its opening has.
        let opening = self.read(request, |s, r| {
            let request = tonic::Request::new(r.into_inner());
            async move { s.delivery().watch(request).await }
        });
        Ok(WatchStream {
            stream: opening.await?,
            items,
            client: self.clone(),
            values,
        })
    }
}
