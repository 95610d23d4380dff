//! A mount's configuration: tested by the whole cycle before it is kept, shown without secrets, forgotten with the mount.

use super::{
    Engine, EngineError, EngineRoom, Kind, MountRef, ROOT_SECRET_BYTES_MAX, RoomError, Root,
    stored::{Held, Kept, Setup, mount_key, named_key, replace},
};
use crate::{
    audit::{Outcome, Trail},
    base::{
        format::Format1,
        id::{LeaseId, MountId},
        limits::LEASE_TTL_MIN_SECS,
        secret::SecretBytes,
    },
    lease::{Ask, Birth, Durable, Lease},
    policy::Permit,
    store::{Change, Version},
};
use std::sync::Arc;
use strongroom_policy::Action;

impl EngineRoom {
    /// Writes a mount's configuration after it was tested by the whole cycle from create to drop (unless `skip_test`).
    /// Without `root_secret` the present one stays. Commits by itself; on `Ok` the response record is durable. Returns what
    /// the test did, line by line.
    /// # Errors
    /// `Engine` with the step that failed; nothing is changed then.
    pub async fn configure(
        &self,
        permit: &Permit,
        trail: &Trail,
        mount: &MountRef,
        config_json: &str,
        root_secret: Option<SecretBytes>,
        skip_test: bool,
    ) -> Result<Vec<String>, RoomError> {
        permit.covers(Action::MountWrite, &mount.path)?;
        let present = self.engines.setup(mount.id).await?;
        if present
            .as_ref()
            .is_some_and(|held| held.value.next.is_some() || held.value.retiring.is_some())
        {
            return Err(RoomError::Rotating);
        }
        let root = root_of(mount.kind, present.as_ref(), config_json, root_secret)?;
        let engine = mount.kind.open(config_json, &root, &self.engines.around)?;
        let version = present.as_ref().map(|held| held.version);
        let setup = Setup {
            format: Format1,
            kind: mount.kind,
            path: mount.path.clone(),
            config: engine.config_json(),
            account: root.account,
            secret: Kept(root.secret),
            next: None,
            retiring: None,
            rotated: present.and_then(|held| held.value.rotated),
        };
        let write = |change: &mut Change| {
            replace(change, &self.engines.setups, &mount_key(&mount.id), version, &setup);
            self.engines.switch_with(change, mount.id, Arc::clone(&engine));
        };
        if skip_test {
            let mut change = Change::new();
            write(&mut change);
            self.engines
                .store
                .commit(change, vec![trail.response(&Outcome::ok())])
                .await?;
            return Ok(vec!["not tested".to_owned()]);
        }
        let ask = self.trial_ask(mount, version, &*engine).await?;
        let (plan, tried, boot) = (ask.plan.clone(), Arc::clone(&engine), self.engines.around.boot);
        let test = |durable: Durable, _: Lease| async move {
            match tried.test(&durable, &plan).await {
                Ok(checks) => Ok(checks),
                Err(error) => {
                    // A server that answers has either not made the account, or lets go of it now.
                    let seen = Birth::of_test(boot);
                    let settled = !error.is_outage() && tried.revoke(&durable, &plan, &seen).await.is_ok();
                    Err((error.into(), settled))
                }
            }
        };
        Ok(self.leases.trial(permit, trail, ask, test, write).await?)
    }

    /// The test's throw-away account is tracked like any other: a crash in the middle leaves an intent.
    async fn trial_ask(
        &self,
        mount: &MountRef,
        version: Option<Version>,
        engine: &dyn Engine,
    ) -> Result<Ask, RoomError> {
        let id = LeaseId::random(&*self.engines.around.random);
        Ok(Ask {
            id,
            mount: mount.id,
            role: mount.role_path("configuration-test")?,
            config_version: version.map_or(0, |version| version.0),
            plan: engine.test_plan(id).await?,
            ttl_secs: LEASE_TTL_MIN_SECS,
            max_ttl_secs: LEASE_TTL_MIN_SECS,
            deadline: engine.deadline(),
        })
    }

    /// Whether the mount has a configuration.
    /// # Errors
    /// `Store`.
    pub async fn is_configured(&self, mount: MountId) -> Result<bool, RoomError> {
        Ok(self.engines.setup(mount).await?.is_some())
    }

    /// A mount's configuration, JSON, without secrets; `None` when there is none yet.
    /// # Errors
    /// `Store`.
    pub async fn config(&self, permit: &Permit, mount: &MountRef) -> Result<Option<String>, RoomError> {
        permit.covers(Action::MountRead, &mount.path)?;
        Ok(self.engines.setup(mount.id).await?.map(|held| held.value.config))
    }

    /// What goes with a mount that is disabled: configuration, roles, static accounts.
    /// # Errors
    /// `LeasesLive` while one does.
    pub async fn forget(&self, permit: &Permit, mount: &MountRef) -> Result<(Change, ()), RoomError> {
        permit.covers(Action::MountWrite, &mount.path)?;
        if self.leases.any_of(mount.id).await? {
            return Err(RoomError::LeasesLive);
        }
        let mut change = Change::new();
        change.delete(&self.engines.setups, &mount_key(&mount.id));
        for view in [&self.engines.roles, &self.engines.statics] {
            let mut from = None;
            loop {
                let page = view.scan_names(&mount_key(&mount.id), from.as_ref(), 1000).await?;
                for child in page.children {
                    change.delete(view, &named_key(&mount.id, &child.name));
                }
                match page.next {
                    Some(next) => from = Some(next),
                    None => break,
                }
            }
        }
        let engines = Arc::clone(&self.engines);
        let id = mount.id;
        change.then(move || engines.close(id));
        Ok((change, ()))
    }
}

/// The root credential that a new configuration means.
fn root_of(
    kind: Kind,
    present: Option<&Held<Setup>>,
    config_json: &str,
    root_secret: Option<SecretBytes>,
) -> Result<Root, RoomError> {
    let configured = kind.configured_account(config_json)?;
    if let Some(secret) = root_secret {
        if secret.is_empty() || secret.len() > ROOT_SECRET_BYTES_MAX {
            return Err(EngineError::Config(format!("root secret: 1 to {ROOT_SECRET_BYTES_MAX} bytes")).into());
        }
        return Ok(Root {
            account: configured,
            secret,
        });
    }
    let missing = || EngineError::Config("root secret: needed for a new root account".to_owned());
    let setup = &present.ok_or_else(missing)?.value;
    if setup.kind.configured_account(&setup.config)? != configured {
        return Err(missing().into());
    }
    if setup.kind.configured_server(&setup.config)? != kind.configured_server(config_json)? {
        return Err(
            EngineError::Config("root secret: needed when host, port, sslmode or ca_pem change".to_owned()).into(),
        );
    }
    Ok(Root {
        account: setup.account.clone(),
        secret: setup.secret.copy(),
    })
}
