//! The way to a service that speaks our wire: the daemon, or the bare one. The same client library and the same stubs for both.

use super::PATIENCE;
use crate::{
    Fault,
    load::{Answered, Caller, Callers, Turn},
};
use std::path::PathBuf;
use strongroom_client::{Client, Stubs};
use strongroom_tests::Lab;

/// Where, and as whom.
#[derive(Clone)]
pub struct Door {
    address: String,
    ca: PathBuf,
    token: String,
    certificate: Option<(PathBuf, PathBuf)>,
}

/// What a connection asks, given the number of the request.
pub trait Ask: Fn(Stubs, u64) -> Answered<'static> + Send + Sync + Clone + 'static {}
impl<F: Fn(Stubs, u64) -> Answered<'static> + Send + Sync + Clone + 'static> Ask for F {}

impl Door {
    /// On this machine, with the authority of `lab`.
    pub fn new(port: u16, lab: &Lab, token: &str) -> Self {
        Self {
            address: format!("https://localhost:{port}"),
            ca: lab.ca(),
            token: token.to_owned(),
            certificate: None,
        }
    }

    /// The same with another token.
    pub fn with(&self, token: &str) -> Self {
        Self {
            token: token.to_owned(),
            ..self.clone()
        }
    }

    /// The same with a client certificate.
    pub fn showing(&self, certificate: &(PathBuf, PathBuf)) -> Self {
        Self {
            certificate: Some(certificate.clone()),
            ..self.clone()
        }
    }

    /// Connects, with a handshake in full.
    /// # Errors
    /// No connection, no TLS.
    pub async fn client(&self) -> Result<Client, Fault> {
        let mut client = Client::builder()
            .address(&self.address)
            .ca_file(&self.ca)
            .token(self.token.as_str())
            .timeout(PATIENCE);
        if let Some((chain, key)) = &self.certificate {
            client = client.client_certificate(chain, key);
        }
        Ok(client.connect().await?)
    }

    /// One TLS connection for each caller.
    /// # Errors
    /// A connection fails.
    pub async fn callers(&self, conns: usize, ask: impl Ask) -> Result<Callers, Fault> {
        let mut callers = Callers::new();
        for at in 0..conns {
            let stubs = self.client().await?.stubs();
            callers.push(Box::new(Asking {
                stubs,
                turn: Turn::new(at, conns),
                ask: ask.clone(),
            }));
        }
        Ok(callers)
    }

    /// Connects anew for each request.
    pub fn newcomers(&self, conns: usize, ask: impl Ask) -> Callers {
        let newcomer = |at| {
            Box::new(Newcomer {
                door: self.clone(),
                turn: Turn::new(at, conns),
                ask: ask.clone(),
            }) as Box<dyn Caller>
        };
        (0..conns).map(newcomer).collect()
    }
}

struct Asking<F> {
    stubs: Stubs,
    turn: Turn,
    ask: F,
}

impl<F: Ask> Caller for Asking<F> {
    fn call(&mut self) -> Answered<'_> {
        (self.ask)(self.stubs.clone(), self.turn.next())
    }
}

struct Newcomer<F> {
    door: Door,
    turn: Turn,
    ask: F,
}

impl<F: Ask> Caller for Newcomer<F> {
    fn call(&mut self) -> Answered<'_> {
        let turn = self.turn.next();
        Box::pin(async move {
            let stubs = self.door.client().await?.stubs();
            let answered = (self.ask)(stubs, turn);
            answered.await
        })
    }
}
