//! The engine room with the lease room, a store, and a real server. The rooms can crash and come back.

use super::{Bench, Session, field};
use crate::{
    audit::{Paths, Recorder, Trail},
    base::{
        id::{BootId, MountId, SessionId},
        path::Path,
        random::OsRandom,
        time::SystemClock,
    },
    engine::{EngineRoom, Engines, Fields, Issued, MountRef, Report, RoomError, Surroundings},
    lease::{self, Grounds, Lease, LeaseRoom, Scope},
    policy::{Action, Permit, testing::permit},
    store::{
        Algorithm, Change, Store,
        testing::{Rig, init},
    },
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Every session is live and every mount open: the lease room's own tests see to the rest.
struct Everything;

impl Grounds for Everything {
    fn session_live(&self, _: &mut Change, _: SessionId) {}
    fn mount_open(&self, _: &mut Change, _: MountId) {}
}

/// See the module.
pub(crate) struct Lab<B: Bench> {
    pub bench: B,
    pub store: Arc<Store>,
    pub mount: MountRef,
    pub boot: BootId,
    rooms: Option<Rooms>,
}

struct Rooms {
    engines: EngineRoom,
    leases: Arc<LeaseRoom>,
}

impl<B: Bench> Lab<B> {
    pub async fn new() -> Self {
        let bench = B::start();
        let store = init(&Rig::default().open(), Algorithm::default()).await;
        let mount = MountRef {
            id: MountId::random(&OsRandom),
            path: path("db"),
            kind: B::KIND,
        };
        let mut lab = Self {
            bench,
            store,
            mount,
            boot: BootId::random(&OsRandom),
            rooms: None,
        };
        lab.open().await;
        lab
    }

    /// Configured, with the roles `readers` (dynamic) and `app` (static).
    pub async fn ready() -> Self {
        let lab = Self::new().await;
        lab.configure(false).await.unwrap();
        lab.put_role("readers", &lab.readers()).await.unwrap();
        lab.put_role("app", &lab.app()).await.unwrap();
        lab
    }

    /// The bench's role with a life of one hour, two at most.
    pub fn readers(&self) -> String {
        let role = self.bench.role().strip_suffix('}').unwrap();
        format!(r#"{role},"default_ttl":"1h","max_ttl":"2h"}}"#)
    }

    pub fn app(&self) -> String {
        format!(r#"{{"type":"static","account":"{}"}}"#, self.bench.account())
    }

    /// As after kill -9 and unseal: tasks are dropped where they are, and another boot opens the same disk.
    pub async fn open(&mut self) {
        self.rooms = None;
        self.boot = BootId::random(&OsRandom);
        let clock = Arc::new(SystemClock::default());
        let recorder = Recorder::new(self.boot, clock.clone(), Paths::Clear);
        let around = Surroundings {
            boot: self.boot,
            clock: clock.clone(),
            random: Arc::new(OsRandom),
        };
        let engines = Engines::new(&self.store, &recorder, around);
        let around = lease::Surroundings {
            store: self.store.clone(),
            recorder,
            clock,
            random: Arc::new(OsRandom),
            boot: self.boot,
            grounds: Arc::new(Everything),
            quotas: lease::Quotas {
                per_identity: u64::MAX,
                per_mount: u64::MAX,
            },
        };
        let leases = Arc::new(LeaseRoom::open(around, engines.clone()).await.unwrap());
        self.rooms = Some(Rooms {
            engines: EngineRoom::open(engines, leases.clone()),
            leases,
        });
    }

    fn rooms(&self) -> &Rooms {
        self.rooms.as_ref().unwrap()
    }
    pub fn engines(&self) -> &EngineRoom {
        &self.rooms().engines
    }
    pub fn leases(&self) -> &LeaseRoom {
        &self.rooms().leases
    }
    pub fn trail(&self) -> Trail {
        Trail::of_system(
            &Recorder::new(self.boot, Arc::new(SystemClock::default()), Paths::Clear),
            "test",
        )
    }

    pub async fn configure(&self, skip_test: bool) -> Result<Vec<String>, RoomError> {
        self.engines()
            .configure(
                &permit(Action::MountWrite, "db"),
                &self.trail(),
                &self.mount,
                &self.bench.config_json(),
                Some(self.bench.root().secret),
                skip_test,
            )
            .await
    }

    pub async fn put_role(&self, name: &str, json: &str) -> Result<(), RoomError> {
        let permit = permit(Action::RoleWrite, &format!("db/{name}"));
        let (change, ()) = self.engines().put_role(&permit, &self.mount, name, json).await?;
        self.store.commit(change, Vec::new()).await?;
        Ok(())
    }

    pub async fn issue(&self, ttl_secs: u64) -> Result<(Lease, Fields), RoomError> {
        let permit = permit(Action::Issue, "db/readers");
        match self
            .engines()
            .issue(&permit, &self.trail(), &self.mount, "readers", ttl_secs)
            .await?
        {
            Issued::Dynamic { lease, fields } => Ok((*lease, fields)),
            Issued::Static { .. } => panic!("not dynamic"),
        }
    }

    pub async fn read_app(&self) -> Result<Fields, RoomError> {
        match self
            .engines()
            .issue(&permit(Action::Issue, "db/app"), &self.trail(), &self.mount, "app", 0)
            .await?
        {
            Issued::Static { fields, .. } => Ok(fields),
            Issued::Dynamic { .. } => panic!("not static"),
        }
    }

    pub async fn rotate_app(&self) -> Result<(), RoomError> {
        self.engines()
            .rotate(&permit(Action::Rotate, "db/app"), &self.trail(), &self.mount, "app")
            .await
            .map(drop)
    }

    pub async fn rotate_root(&self) -> Result<String, RoomError> {
        self.engines()
            .rotate_root(&permit(Action::Rotate, "db"), &self.trail(), &self.mount)
            .await
    }

    pub async fn reconcile(&self, remove: bool) -> Report {
        let action = if remove { Action::Revoke } else { Action::MountRead };
        self.engines()
            .reconcile(&permit(action, "db"), &self.trail(), &self.mount, remove)
            .await
            .unwrap()
    }

    /// Revokes one lease, waiting for it.
    pub async fn revoke(&self, lease: &Lease, patience: Option<Duration>) -> lease::Revoked {
        self.leases()
            .revoke(&revoke("db/readers"), &self.trail(), lease.id, patience)
            .await
            .unwrap()
    }

    pub async fn revoke_all(&self) {
        let scope = Scope::Mount(self.mount.id);
        self.leases()
            .revoke_scope(&revoke("db"), &self.trail(), scope, Some(Duration::from_secs(20)))
            .await
            .unwrap();
        self.all_gone().await;
    }

    /// A log-in with what was issued.
    pub async fn log_in(&self, fields: &Fields) -> Option<Box<dyn Session>> {
        let name = std::str::from_utf8(field(fields, "username")).unwrap();
        self.bench.log_in(name, field(fields, "password")).await
    }

    /// A log-in that works.
    pub async fn must_log_in(&self, fields: &Fields) -> Box<dyn Session> {
        let mut session = self.log_in(fields).await.expect("the credential works");
        assert!(session.works().await);
        session
    }

    pub async fn all(&self) -> Vec<Lease> {
        self.leases().list(None, None, 1000).await.unwrap().leases
    }

    /// R-LEASE-2: every account has a lease or an intent.
    pub async fn nothing_untracked(&self) {
        let accounts = self.bench.accounts();
        let tracked: Vec<String> = self.all().await.into_iter().map(|lease| lease.plan.account).collect();
        let now = self.bench.accounts();
        assert!(
            accounts
                .iter()
                .all(|account| tracked.contains(account) || !now.contains(account)),
            "{accounts:?} against {tracked:?}"
        );
    }

    pub async fn until(&self, words: &str, good: impl AsyncFn() -> bool) {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(60) {
            if good().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!(
            "never: {words}; accounts {:?}, leases {:#?}",
            self.bench.accounts(),
            self.all().await
        );
    }

    pub async fn all_gone(&self) {
        self.until("all gone", async || {
            self.all().await.is_empty() && self.bench.accounts().is_empty()
        })
        .await;
    }
}

pub(crate) fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

pub(crate) fn revoke(at: &str) -> Permit {
    permit(Action::Revoke, at)
}
