//! The engine's own root credential: create a second, test it, switch, retire the first. R-ROT-1, R-ROT-3.
//!
//! Each step is durable before the next: `next` (successor intended), the switch with `retiring`, then nothing. Whatever a
//! crash leaves goes on at the next unseal, and every step may be repeated.

use super::{
    Engine, EngineError, EngineRoom, Engines, MountRef, RoomError, Root, password,
    stored::{Held, Kept, NextRoot, Setup, mount_key, replace},
};
use crate::{
    audit::{Encoded, Outcome, Trail},
    base::id::MountId,
    failpoint,
    policy::Permit,
    store::{Change, Cursor, StoreError},
};
use std::sync::Arc;
use strongroom_policy::Action;

/// Mounts read at once.
const PAGE: usize = 256;

impl EngineRoom {
    /// Rotates a mount's root credential; returns the account that is used from now on. Commits by itself; on `Ok` the
    /// response record is durable.
    /// # Errors
    /// `Unconfigured`, `Engine`. A rotation that was begun goes on by itself.
    pub async fn rotate_root(&self, permit: &Permit, trail: &Trail, mount: &MountRef) -> Result<String, RoomError> {
        permit.covers(Action::Rotate, &mount.path)?;
        self.engines.rotate_root(mount.id, trail, true).await
    }
}

impl Engines {
    /// Runs a rotation, or what is left of one, to its end.
    async fn rotate_root(self: &Arc<Self>, mount: MountId, trail: &Trail, begin: bool) -> Result<String, RoomError> {
        let turn = self.turn(mount, "");
        let _turn = turn.lock().await;
        let mut held = self.setup(mount).await?.ok_or(RoomError::Unconfigured)?;
        if held.value.retiring.is_some() {
            held = self.retire(mount, held, trail).await?;
            // What was asked for now was under way already.
            return Ok(held.value.account);
        }
        if held.value.next.is_none() && !begin {
            return Ok(held.value.account);
        }
        let engine = self.engine(mount).await?;
        if held.value.next.is_none() {
            let next = NextRoot {
                account: engine.successor(),
                secret: Kept(password(&*self.around.random)),
            };
            held = self
                .put_setup(
                    mount,
                    held.version,
                    Setup {
                        next: Some(next),
                        ..held.value
                    },
                    vec![trail.request()],
                    None,
                )
                .await?;
        }
        failpoint!(self.around.boot, "root.after-intent");
        let (held, former) = self.succeed(mount, held, &engine).await?;
        failpoint!(self.around.boot, "root.after-switch");
        former.drain().await;
        Ok(self.retire(mount, held, trail).await?.value.account)
    }

    /// Makes the successor, tests it, and switches to it. Returns the former engine.
    async fn succeed(
        self: &Arc<Self>,
        mount: MountId,
        held: Held<Setup>,
        engine: &Arc<dyn Engine>,
    ) -> Result<(Held<Setup>, Arc<dyn Engine>), RoomError> {
        let durable = held.durable();
        let Held { value: setup, version } = held;
        let Some(next) = &setup.next else {
            return Err(RoomError::Rotating);
        };
        let root = Root {
            account: next.account.clone(),
            secret: next.secret.copy(),
        };
        if let Err(error) = engine.create_root(&durable, &root).await {
            // Nothing was made where the configuration itself forbids it: the mount goes on as before.
            if matches!(error, EngineError::Config(_)) {
                self.put_setup(mount, version, Setup { next: None, ..setup }, Vec::new(), None)
                    .await?;
            }
            return Err(error.into());
        }
        failpoint!(self.around.boot, "root.after-create");
        let successor = setup.kind.open(&setup.config, &root, &self.around)?;
        // It must be able to work, not only to log in.
        successor.check_root().await?;
        failpoint!(self.around.boot, "root.after-test");
        let setup = Setup {
            retiring: Some(setup.account),
            account: root.account,
            secret: Kept(root.secret),
            next: None,
            rotated: Some(self.around.clock.now()),
            ..setup
        };
        let held = self
            .put_setup(mount, version, setup, Vec::new(), Some(successor))
            .await?;
        Ok((held, Arc::clone(engine)))
    }

    async fn retire(
        self: &Arc<Self>,
        mount: MountId,
        held: Held<Setup>,
        trail: &Trail,
    ) -> Result<Held<Setup>, RoomError> {
        let engine = self.engine(mount).await?;
        if let Some(former) = &held.value.retiring {
            engine.retire_root(&held.durable(), former).await?;
        }
        failpoint!(self.around.boot, "root.after-retire");
        self.put_setup(
            mount,
            held.version,
            Setup {
                retiring: None,
                ..held.value
            },
            vec![trail.response(&Outcome::ok())],
            None,
        )
        .await
    }

    async fn put_setup(
        self: &Arc<Self>,
        mount: MountId,
        version: crate::store::Version,
        setup: Setup,
        records: Vec<Encoded>,
        engine: Option<Arc<dyn Engine>>,
    ) -> Result<Held<Setup>, RoomError> {
        let mut change = Change::new();
        replace(&mut change, &self.setups, &mount_key(&mount), Some(version), &setup);
        if let Some(engine) = engine {
            self.switch_with(&mut change, mount, engine);
        }
        let committed = self.store.commit(change, records).await?;
        Ok(Held {
            value: setup,
            version: committed.version,
        })
    }

    async fn interrupted(&self) -> Result<Vec<(MountId, crate::base::path::Path)>, StoreError> {
        let (mut found, mut from): (Vec<_>, Option<Cursor>) = (Vec::new(), None);
        loop {
            let page = self.setups.scan(&[], from.as_ref(), PAGE).await?;
            for entry in page.entries {
                let mount = entry
                    .key
                    .first()
                    .and_then(|part| part.raw_array())
                    .map(MountId::from_bytes);
                let setup = serde_json::from_slice::<Setup>(&entry.record.value).ok();
                if let (Some(mount), Some(setup)) = (mount, setup)
                    && (setup.next.is_some() || setup.retiring.is_some())
                {
                    found.push((mount, setup.path));
                }
            }
            match page.next {
                Some(next) => from = Some(next),
                None => return Ok(found),
            }
        }
    }
}

/// Takes up every rotation of a root credential that was interrupted.
pub(super) async fn resume_all(engines: &Arc<Engines>) {
    let found = match engines.interrupted().await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "interrupted root rotations could not be read");
            return;
        }
    };
    let resumed = found.into_iter().map(async |(mount, path)| {
        let trail = engines.trail("mount.rotate-root", &path);
        if let Err(error) = engines.rotate_root(mount, &trail, false).await {
            tracing::warn!(mount = %path, %error, "a root rotation could not be finished yet; it is tried again");
        }
    });
    futures::future::join_all(resumed).await;
}
