//! What most suites stand on: a vault, and OpenBao beside it, with the same secrets.

use crate::{
    Fault, Options, Peer,
    contest::{Contender, Role},
    limits::VALUE_BYTES,
    load::{self, Callers, Paths, Until},
    openbao::OpenBao,
    strongroom::Strongroom,
};
use std::sync::Arc;
use strongroom_proto::v1;

/// Connections that write the secrets.
const WRITERS: usize = 8;

/// Both, running and open.
pub struct Stage {
    /// Ours.
    pub ours: Strongroom,
    /// `None`: it was left out.
    pub peer: Option<OpenBao>,
}

impl Stage {
    /// Starts them.
    /// # Errors
    /// One does not come up, or the peer cannot be had.
    pub async fn set(options: &Options) -> Result<Self, Fault> {
        let ours = Strongroom::start(options.durability).await?;
        let peer = match options.peer {
            Peer::Openbao => Some(OpenBao::start(ours.lab()).await?),
            Peer::None => None,
        };
        Ok(Self { ours, peer })
    }

    /// Writes secrets `kv/r/s0` and so on, of 1 KiB, into both.
    /// # Errors
    /// A write fails.
    pub async fn seed(&self, secrets: u64) -> Result<(), Fault> {
        let paths = || Paths::Read(Arc::default());
        let mut writers = self.ours.writers(WRITERS, VALUE_BYTES, paths()).await?;
        load::run(&mut writers, Until::Calls(secrets)).await?;
        if let Some(bao) = &self.peer {
            let mut writers = bao.writers(WRITERS, VALUE_BYTES, paths()).await?;
            load::run(&mut writers, Until::Calls(secrets)).await?;
        }
        Ok(())
    }

    /// Puts a trust into our vault.
    /// # Errors
    /// It is refused.
    pub async fn trust(&self, name: &str, definition: &serde_json::Value) -> Result<(), Fault> {
        let put = v1::TrustPutRequest {
            name: name.to_owned(),
            definition: definition.to_string(),
            ..Default::default()
        };
        let admin = self.ours.admin().await?;
        admin
            .change(put, |stubs, request| async move { stubs.trust().put(request).await })
            .await?;
        Ok(())
    }

    /// Ours as a contender.
    pub fn ours(&self, callers: Callers) -> Contender {
        Contender {
            name: "strongroom".into(),
            role: Role::Ours,
            durability: self.ours.durability,
            pid: Some(self.ours.pid()),
            callers,
        }
    }

    /// Another way to use ours.
    pub fn ours_otherwise(&self, how: &str, callers: Callers) -> Contender {
        Contender {
            name: format!("strongroom, {how}"),
            role: Role::Other,
            ..self.ours(callers)
        }
    }

    /// OpenBao as a contender.
    pub fn peer(bao: &OpenBao, durability: &'static str, callers: Callers) -> Contender {
        Contender {
            name: format!("openbao {}", crate::openbao::VERSION),
            role: Role::Peer,
            durability,
            pid: Some(bao.pid()),
            callers,
        }
    }

    /// Another way to use OpenBao.
    pub fn peer_otherwise(bao: &OpenBao, how: &str, durability: &'static str, callers: Callers) -> Contender {
        let peer = Self::peer(bao, durability, callers);
        Contender {
            name: format!("{}, {how}", peer.name),
            role: Role::Other,
            ..peer
        }
    }

    /// What must be said wherever both are compared.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.peer.is_some() {
            notes.push(
                "OpenBao writes its audit log without a sync (D1); its writes sync raft. Ours at D2 promise more"
                    .into(),
            );
        }
        notes
    }
}
