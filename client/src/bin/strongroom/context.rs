//! What every command is given: the settings, the ways out, and the ways in.

use crate::{
    failure::Failure,
    input::{self, Source},
    output::Out,
    settings::{Settings, TokenFrom},
};
use std::{cell::Cell, path::Path, time::Duration};
use strongroom_client::{Client, Secret};

/// One run of the program.
#[derive(Debug)]
pub struct Context {
    pub settings: Settings,
    pub out: Out,
    /// Stdin holds one thing only.
    stdin_used: Cell<bool>,
}

impl Context {
    pub fn new(settings: Settings, out: Out) -> Self {
        Self {
            settings,
            out,
            stdin_used: Cell::new(false),
        }
    }

    /// Connects, with the token if there is one.
    pub async fn client(&self) -> Result<Client, Failure> {
        let token = match &self.settings.token {
            Some(from) => Some(self.token(from)?),
            None => None,
        };
        self.connect(token, self.settings.proof_key.as_deref()).await
    }

    /// Connects without a token: status, init, unseal and recover need none.
    pub async fn client_without_token(&self) -> Result<Client, Failure> {
        self.connect(None, None).await
    }

    /// Connects without a token, with a key that the one to come is to be bound to.
    pub async fn client_with_key(&self, key: &Path) -> Result<Client, Failure> {
        self.connect(None, Some(key)).await
    }

    /// [`client`](Self::client) for work that takes long: waits this long unless `--timeout` says otherwise.
    pub async fn patient_client(&self, patience: Duration) -> Result<Client, Failure> {
        let client = self.client().await?;
        Ok(self.patient(&client, patience))
    }

    /// The same client, waiting longer unless `--timeout` says otherwise.
    pub fn patient(&self, client: &Client, patience: Duration) -> Client {
        client.with_timeout(self.settings.timeout.unwrap_or(patience))
    }

    async fn connect(&self, token: Option<Secret>, key: Option<&Path>) -> Result<Client, Failure> {
        let mut builder = Client::builder().address(&self.settings.address);
        if let Some(path) = &self.settings.ca_cert {
            builder = builder.ca_file(path);
        }
        if let Some((chain, key)) = &self.settings.client_cert {
            builder = builder.client_certificate(chain, key);
        }
        if let Some(key) = key {
            // Only looked at: whoever can read it holds what the token is bound to.
            input::private_file(key)?;
            builder = builder.proof_key(key);
        }
        if let Some(timeout) = self.settings.timeout {
            builder = builder.timeout(timeout);
        }
        if let Some(token) = token {
            builder = builder.token(token);
        }
        Ok(builder.connect().await?)
    }

    /// The token from where the settings say it is.
    pub fn token(&self, from: &TokenFrom) -> Result<Secret, Failure> {
        match from {
            TokenFrom::Environment(token) if token.expose().is_empty() => Err(Failure::usage(
                "STRONGROOM_TOKEN is set, but there is no token in it",
                "put a token there, or unset it: then the saved token counts (`strongroom token save`)",
            )),
            TokenFrom::Environment(token) => Ok(Secret::from(token.expose())),
            TokenFrom::File(path) if path.as_os_str() == "-" => self.line(&Source::Stdin, "token"),
            TokenFrom::File(path) | TokenFrom::Cache(path) => Ok(input::one_line(&input::private_file(path)?)),
        }
    }

    /// A secret of one line (token, share, password): the line end is not part of it.
    pub fn line(&self, source: &Source, what: &str) -> Result<Secret, Failure> {
        let secret = match source {
            Source::File(path) => input::private_file(path)?,
            other => self.bytes(other, what)?,
        };
        let line = input::one_line(&secret);
        if line.expose().is_empty() {
            return Err(Failure::usage(
                format!("the {what} is empty"),
                "give it on stdin, in a file, or at the prompt",
            ));
        }
        Ok(line)
    }

    /// A secret, every byte of it.
    pub fn bytes(&self, source: &Source, what: &str) -> Result<Secret, Failure> {
        match source {
            Source::File(path) => input::file(path),
            Source::Prompt => input::prompt(what),
            Source::Stdin => {
                if self.stdin_used.replace(true) {
                    return Err(Failure::usage(
                        format!("stdin was read already and cannot give the {what} too"),
                        "use @FILE or the prompt for one of the two",
                    ));
                }
                input::stdin()
            }
        }
    }
}
