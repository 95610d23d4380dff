//! The same for programs without an async runtime: every call waits. Background work (renewals, the stream of changes) runs on one thread
//! that ends with the last handle. Not for use inside an async runtime.
//!
//! ```no_run
//! # use strongroom_client::{Client, blocking, Error};
//! # fn run() -> Result<(), Error> {
//! let builder = Client::builder().address("https://vault.example.com:8470").token_file("/run/myapp/token");
//! let secrets = blocking::secrets(builder, ["kv/prod/mail", "pg/readers"])?;
//! let mail = secrets.get("kv/prod/mail")?;
//! # let _ = mail.field("password")?.expose();
//! secrets.close();
//! # Ok(())
//! # }
//! ```

use crate::{
    Builder, Delivered, Error, Fields, Health, LeasedCredential, Refusal, SecretVersion, Want, held::Secrets as Held,
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{runtime::Runtime, sync::watch};

fn runtime() -> Result<Arc<Runtime>, Error> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("strongroom")
        .enable_all()
        .build()
        .map(Arc::new)
        .map_err(|error| Error::Internal(Refusal::local("NO_THREAD", format!("cannot start a thread: {error}"))))
}

/// Connects.
/// # Errors
/// As [`Builder::connect`].
pub fn connect(builder: Builder) -> Result<Client, Error> {
    let runtime = runtime()?;
    let inner = runtime.block_on(builder.connect())?;
    Ok(Client { inner, runtime })
}

/// Connects, fetches, and holds fresh.
/// # Errors
/// As [`Builder::secrets`].
pub fn secrets<W: Into<Want>>(builder: Builder, wants: impl IntoIterator<Item = W>) -> Result<Secrets, Error> {
    let wants: Vec<Want> = wants.into_iter().map(Into::into).collect();
    held(builder.secrets(wants))
}

/// Connects, fetches what a bundle lists, and holds it fresh.
/// # Errors
/// As [`Builder::bundle`].
pub fn bundle(builder: Builder, path: impl Into<String>) -> Result<Secrets, Error> {
    held(builder.bundle(path))
}

fn held(fetching: impl Future<Output = Result<crate::Secrets, Error>>) -> Result<Secrets, Error> {
    let runtime = runtime()?;
    let inner = runtime.block_on(fetching)?;
    let changes = Mutex::new(inner.changes());
    Ok(Secrets {
        inner,
        changes,
        runtime,
    })
}

/// A connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    inner: crate::Client,
    runtime: Arc<Runtime>,
}

impl Client {
    /// The current version of a secret.
    /// # Errors
    /// As [`crate::Client::get`].
    pub fn get(&self, path: &str) -> Result<SecretVersion, Error> {
        self.runtime.block_on(self.inner.get(path))
    }

    /// Writes a new version.
    /// # Errors
    /// As [`crate::Client::put`].
    pub fn put(&self, path: &str, fields: &Fields, cas: Option<u64>) -> Result<u64, Error> {
        self.runtime.block_on(self.inner.put(path, fields, cas))
    }

    /// Many secrets and credentials in one round trip.
    /// # Errors
    /// As [`crate::Client::fetch`].
    pub fn fetch<W: Into<Want>>(&self, wants: impl IntoIterator<Item = W>) -> Result<Vec<Delivered>, Error> {
        self.runtime.block_on(self.inner.fetch(wants))
    }

    /// A credential of a role.
    /// # Errors
    /// As [`crate::Client::issue`].
    pub fn issue(&self, role: &str, ttl: Option<Duration>) -> Result<LeasedCredential, Error> {
        self.runtime.block_on(self.inner.issue(role, ttl))
    }

    /// Revokes a lease and waits for the proof.
    /// # Errors
    /// As [`crate::Client::revoke`].
    pub fn revoke(&self, lease_id: &str) -> Result<bool, Error> {
        self.runtime.block_on(self.inner.revoke(lease_id))
    }

    /// The client within, for calls that are not here: `client.wait(|client| async move { client.list("kv").await })`.
    pub fn wait<F: Future>(&self, call: impl FnOnce(crate::Client) -> F) -> F::Output {
        self.runtime.block_on(call(self.inner.clone()))
    }
}

/// An application's secrets, held fresh: see [`crate::Secrets`].
#[derive(Debug)]
pub struct Secrets {
    inner: Held,
    changes: Mutex<watch::Receiver<u64>>,
    runtime: Arc<Runtime>,
}

impl Secrets {
    /// The newest known value. Never waits.
    /// # Errors
    /// As [`crate::Secrets::get`].
    pub fn get(&self, path: &str) -> Result<Arc<Delivered>, Error> {
        self.inner.get(path)
    }

    /// Waits until something has changed since the start or the last such call, at most `patience`; whether it did.
    #[must_use]
    pub fn wait_for_change(&self, patience: Duration) -> bool {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        self.runtime
            .block_on(async { tokio::time::timeout(patience, changes.changed()).await.is_ok() })
    }

    /// Whether what is held is known to be the newest.
    #[must_use]
    pub fn health(&self) -> Health {
        self.inner.health().borrow().clone()
    }

    /// A client over the same connection, for other calls.
    #[must_use]
    pub fn client(&self) -> Client {
        Client {
            inner: self.inner.client().clone(),
            runtime: Arc::clone(&self.runtime),
        }
    }

    /// Stops, and revokes what was leased. Returns how many leases are not proven gone; they end at their expiry.
    pub fn close(self) -> usize {
        self.runtime.block_on(self.inner.close())
    }
}
