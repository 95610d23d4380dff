//! What one connection asks of OpenBao, again and again.

use super::https::{Dial, Https};
use crate::{
    Fault,
    load::{Answered, Caller, Leases, Paths, Turn, put, take},
};
use bytes::Bytes;
use serde_json::json;

/// One request.
pub struct Question {
    /// Of HTTP.
    pub method: &'static str,
    /// Below `/v1/`.
    pub path: String,
    /// JSON, or nothing.
    pub body: Bytes,
    /// What stands in a right answer.
    pub expect: &'static str,
}

impl Question {
    async fn ask(self, https: &mut Https) -> Result<(), Fault> {
        let answer = https.send(self.method, &self.path, self.body).await?;
        let expected = self.expect.as_bytes();
        match answer.windows(expected.len()).any(|part| part == expected) {
            true => Ok(()),
            false => Err(format!("{}: no {:?} in the answer", self.path, self.expect).into()),
        }
    }
}

/// Asks what a function says.
pub struct Asking<F> {
    pub https: Https,
    pub turn: Turn,
    pub ask: F,
}

impl<F: Fn(u64) -> Result<Question, Fault> + Send> Caller for Asking<F> {
    fn call(&mut self) -> Answered<'_> {
        let question = (self.ask)(self.turn.next());
        Box::pin(async move { question?.ask(&mut self.https).await })
    }
}

/// The same, each on a connection of its own.
pub struct Newcomer<F> {
    pub dial: Dial,
    pub turn: Turn,
    pub ask: F,
}

impl<F: Fn(u64) -> Result<Question, Fault> + Send> Caller for Newcomer<F> {
    fn call(&mut self) -> Answered<'_> {
        let question = (self.ask)(self.turn.next());
        Box::pin(async move { question?.ask(&mut self.dial.https().await?).await })
    }
}

/// See [`super::OpenBao`].
pub struct Reader {
    pub https: Https,
    pub next: u64,
    pub secrets: u64,
    pub value_bytes: usize,
}

impl Caller for Reader {
    fn call(&mut self) -> Answered<'_> {
        Box::pin(async {
            let path = format!("kv/data/r/s{}", self.next % self.secrets);
            self.next += 1;
            let answer = self.https.send("GET", &path, Bytes::new()).await?;
            if answer.len() > self.value_bytes {
                Ok(())
            } else {
                Err("a short answer".into())
            }
        })
    }
}

/// See [`super::OpenBao`].
pub struct Writer {
    pub https: Https,
    pub at: usize,
    pub paths: Paths,
    pub done: u64,
    pub body: Bytes,
}

impl Caller for Writer {
    fn call(&mut self) -> Answered<'_> {
        Box::pin(async {
            let path = format!("kv/data/{}", self.paths.next(self.at, self.done));
            self.done += 1;
            self.https.send("PUT", &path, self.body.clone()).await?;
            Ok(())
        })
    }
}

/// See [`super::OpenBao`].
pub struct Issuer {
    pub https: Https,
    pub role: &'static str,
    pub leases: Leases,
}

impl Caller for Issuer {
    fn call(&mut self) -> Answered<'_> {
        Box::pin(async {
            let answer = self
                .https
                .ask("GET", &format!("database/creds/{}", self.role), None)
                .await?;
            let lease = answer["lease_id"].as_str().ok_or("no lease")?;
            put(&self.leases, lease.to_owned());
            Ok(())
        })
    }
}

/// See [`super::OpenBao`].
pub struct Revoker {
    pub https: Https,
    pub leases: Leases,
}

impl Caller for Revoker {
    fn call(&mut self) -> Answered<'_> {
        Box::pin(async {
            let body = json!({ "lease_id": take(&self.leases)?, "sync": true });
            self.https.ask("PUT", "sys/leases/revoke", Some(&body)).await?;
            Ok(())
        })
    }
}
