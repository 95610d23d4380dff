//! Strongroom's client library: connect, read and write secrets, hold leased credentials.
//!
//! ```no_run
//! use std::time::Duration;
//! use strongroom_client::{Client, Secret};
//!
//! # async fn run() -> Result<(), strongroom_client::Error> {
//! let client = Client::builder()
//!     .address("https://vault.example.com:8470")
//!     .ca_file("/etc/myapp/strongroom-ca.pem")
//!     .token_file("/run/myapp/token")
//!     .connect()
//!     .await?;
//!
//! let secret = client.get("kv/prod/db").await?;
//! let password: &Secret = secret.field("password")?;
//! # let _ = password.expose();
//!
//! // A PostgreSQL account of our own, renewed in the background for as long as `account` lives.
//! let account = client.issue_kept("pg/readers", Some(Duration::from_secs(3600))).await?;
//! let user = account.credential().field("username")?.expose_str()?;
//! # let _ = user;
//! account.close().await?; // revokes it now instead of at its expiry
//! # Ok(())
//! # }
//! ```
//!
//! An application that wants its secrets and nothing else asks for them in one call, and holds them fresh:
//!
//! ```no_run
//! # use strongroom_client::Client;
//! # async fn run() -> Result<(), strongroom_client::Error> {
//! let secrets = Client::builder()
//!     .address("https://vault.example.com:8470")
//!     .token_file("/run/myapp/token")
//!     .secrets(["kv/prod/mail", "pg/readers"])
//!     .await?;
//! let mail = secrets.get("kv/prod/mail")?;      // from memory, the newest that was heard of
//! let mut changes = secrets.changes();
//! changes.changed().await.ok();                 // something is new: rotated, rewritten, issued anew
//! # let _ = mail.field("password")?.expose();
//! secrets.close().await;                        // revokes what was leased
//! # Ok(())
//! # }
//! ```
//!
//! # What it takes care of
//! - TLS 1.3 with X25519MLKEM768 preferred, or a Unix socket; never plain text over a network.
//! - A deadline on every call, and a random idempotency key on every change: an attempt repeated
//!   after `Unavailable` is applied once. Nothing else is retried.
//! - [`Error`] says what happened and what to do next; a change whose outcome is unknown is
//!   [`Error::Indeterminate`], never a success or a plain failure.
//! - [`Secret`] is wiped on drop and never printed; what [`Secrets`] holds lies in locked memory. The HTTP/2 buffers below it are not ours to wipe.
//!
//! # Reading order
//! `secret` (`locked`), `error`, `connect` (builder, address, TLS), `transport` (token, proof of its key), `call` (deadline, retry), `kv`,
//! `creds`, `kept` (background renewal), `delivery` (many at once, and their changes), `followed` and `held` (an application's secrets, kept fresh), `cache` (and over restarts),
//! `blocking`. It may use the wire (`strongroom-proto`), never daemon code.

pub mod blocking;
mod cache;
mod call;
mod connect;
mod creds;
mod delivery;
mod error;
mod followed;
mod held;
mod kept;
mod kv;
mod locked;
mod login;
mod secret;
mod transit;
mod transport;
mod want;

pub use cache::Cache;
pub use call::{Change, Client, Stubs};
pub use connect::{Address, Builder, DEFAULT_PORT, DEFAULT_SOCKET, ProofKey};
pub use creds::LeasedCredential;
pub use delivery::{Delivered, Event, Follow, Kind, WatchStream};
pub use error::{Error, Refusal};
pub use held::{Health, Secrets};
pub use kept::{Keep, KeptCredential, KeptLease, KeptToken, LeaseState};
pub use kv::{List, Listing, SecretVersion, Select};
pub use login::LogIn;
pub use secret::{Fields, Secret};
/// The wire, for calls that this library does not wrap: see [`Client::read`] and [`Client::change`].
pub use strongroom_proto::v1;
pub use transit::{DataKey, Signature};
pub use transport::Transport;
pub use want::Want;

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
