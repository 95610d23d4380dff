//! The engine room with the lease room, a store, and a real PostgreSQL 15.

use super::{
    EngineRoom, Engines, Fields, Issued, Kind, MountRef, RoomError, Surroundings,
    conformance::field,
    postgres::testing::{ROOT_SECRET, Server},
};
use crate::{
    audit::{Paths, Recorder, Trail},
    base::{
        failpoint,
        id::{BootId, LeaseId, MountId, SessionId},
        path::Path,
        random::OsRandom,
        secret::SecretBytes,
        time::SystemClock,
    },
    lease::{self, Grounds, Lease, LeaseError, LeaseRoom, Scope, State},
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
use tokio_postgres::{Client, NoTls};

/// Every session is live and every mount open: the lease room's own tests see to the rest.
struct Everything;

impl Grounds for Everything {
    fn session_live(&self, _: &mut Change, _: SessionId) {}
    fn mount_open(&self, _: &mut Change, _: MountId) {}
}

/// A vault on one disk and a server; the rooms can crash and come back.
struct Lab {
    server: Server,
    store: Arc<Store>,
    mount: MountRef,
    boot: BootId,
    rooms: Option<Rooms>,
}

struct Rooms {
    engines: EngineRoom,
    leases: Arc<LeaseRoom>,
}

impl Lab {
    async fn new() -> Self {
        let server = Server::start().unwrap();
        server.prepare().unwrap();
        let store = init(&Rig::default().open(), Algorithm::default()).await;
        let mount = MountRef {
            id: MountId::random(&OsRandom),
            path: path("pg"),
            kind: Kind::Postgres,
        };
        let mut lab = Self {
            server,
            store,
            mount,
            boot: BootId::random(&OsRandom),
            rooms: None,
        };
        lab.open().await;
        lab
    }

    /// Configured, with the roles `readers` (dynamic) and `app` (static).
    async fn ready() -> Self {
        let lab = Self::new().await;
        lab.configure(false).await.unwrap();
        lab.put_role("readers", r#"{"group":"readers","default_ttl":"1h","max_ttl":"2h"}"#)
            .await
            .unwrap();
        lab.put_role("app", r#"{"type":"static","account":"app"}"#)
            .await
            .unwrap();
        lab
    }

    /// As after kill -9 and unseal: tasks are dropped where they are, and another boot opens the same disk.
    async fn open(&mut self) {
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
    fn engines(&self) -> &EngineRoom {
        &self.rooms().engines
    }
    fn leases(&self) -> &LeaseRoom {
        &self.rooms().leases
    }
    fn trail(&self) -> Trail {
        Trail::of_system(
            &Recorder::new(self.boot, Arc::new(SystemClock::default()), Paths::Clear),
            "test",
        )
    }

    async fn configure(&self, skip_test: bool) -> Result<Vec<String>, RoomError> {
        let secret = Some(SecretBytes::from(ROOT_SECRET.as_bytes()));
        self.engines()
            .configure(
                &permit(Action::MountWrite, "pg"),
                &self.trail(),
                &self.mount,
                &self.server.config_json(),
                secret,
                skip_test,
            )
            .await
    }

    async fn put_role(&self, name: &str, json: &str) -> Result<(), RoomError> {
        let (change, ()) = self
            .engines()
            .put_role(
                &permit(Action::RoleWrite, &format!("pg/{name}")),
                &self.mount,
                name,
                json,
            )
            .await?;
        self.store.commit(change, Vec::new()).await?;
        Ok(())
    }

    async fn issue(&self, ttl_secs: u64) -> Result<(Lease, Fields), RoomError> {
        match self
            .engines()
            .issue(
                &permit(Action::Issue, "pg/readers"),
                &self.trail(),
                &self.mount,
                "readers",
                ttl_secs,
            )
            .await?
        {
            Issued::Dynamic { lease, fields } => Ok((*lease, fields)),
            Issued::Static { .. } => panic!("not dynamic"),
        }
    }

    async fn read_app(&self) -> Result<Fields, RoomError> {
        match self
            .engines()
            .issue(&permit(Action::Issue, "pg/app"), &self.trail(), &self.mount, "app", 0)
            .await?
        {
            Issued::Static { fields, .. } => Ok(fields),
            Issued::Dynamic { .. } => panic!("not static"),
        }
    }

    async fn rotate_app(&self) -> Result<(), RoomError> {
        self.engines()
            .rotate(&permit(Action::Rotate, "pg/app"), &self.trail(), &self.mount, "app")
            .await
            .map(drop)
    }

    async fn rotate_root(&self) -> Result<String, RoomError> {
        self.engines()
            .rotate_root(&permit(Action::Rotate, "pg"), &self.trail(), &self.mount)
            .await
    }

    async fn connect(&self, fields: &Fields) -> Result<Client, tokio_postgres::Error> {
        let text = |name| std::str::from_utf8(field(fields, name)).unwrap();
        let mut config = tokio_postgres::Config::new();
        config
            .host(text("host"))
            .port(text("port").parse().unwrap())
            .dbname(text("database"))
            .user(text("username"))
            .password(text("password"));
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// A superuser's transaction that makes every CREATE ROLE wait.
    async fn lock_pg_authid(&self) -> Client {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(self.server.socket_dir())
            .port(self.server.port())
            .user("postgres")
            .dbname("postgres");
        let (client, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
            .batch_execute("BEGIN; LOCK TABLE pg_authid IN SHARE MODE")
            .await
            .unwrap();
        client
    }

    fn admin(&self, sql: &str) -> String {
        self.server.admin("postgres", sql).unwrap()
    }

    /// Accounts in the server that look like ours.
    fn accounts(&self) -> Vec<String> {
        self.admin("SELECT rolname FROM pg_roles WHERE rolname LIKE 'sr\\_%' ORDER BY 1")
            .lines()
            .map(str::to_owned)
            .collect()
    }

    async fn all(&self) -> Vec<Lease> {
        self.leases().list(None, None, 1000).await.unwrap().leases
    }

    /// R-LEASE-2: every account has a lease or an intent.
    async fn nothing_untracked(&self) {
        let accounts = self.accounts();
        let tracked: Vec<String> = self.all().await.into_iter().map(|lease| lease.plan.account).collect();
        let now = self.accounts();
        assert!(
            accounts
                .iter()
                .all(|account| tracked.contains(account) || !now.contains(account)),
            "{accounts:?} against {tracked:?}"
        );
    }

    async fn until(&self, words: &str, good: impl AsyncFn() -> bool) {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(40) {
            if good().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!(
            "never: {words}; accounts {:?}, leases {:#?}",
            self.accounts(),
            self.all().await
        );
    }

    async fn all_gone(&self) {
        self.until("all gone", async || {
            self.all().await.is_empty() && self.accounts().is_empty()
        })
        .await;
    }
}

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

fn revoke(at: &str) -> Permit {
    permit(Action::Revoke, at)
}

/// R-LEASE-1, R-LEASE-3: the whole life at the real server: logs in, works, dies at its time with its session open.
#[tokio::test(flavor = "multi_thread")]
async fn a_credential_lives_and_dies() {
    let lab = Lab::ready().await;
    assert!(
        lab.all().await.is_empty() && lab.accounts().is_empty(),
        "the configuration test left nothing"
    );
    let (lease, fields) = lab.issue(0).await.unwrap();
    assert_eq!(
        (lease.ttl_secs, lease.max_expires.0 - lease.created.0),
        (3600, 7_200_000),
        "default and maximum"
    );
    assert_eq!(lab.issue(100_000).await.unwrap().0.ttl_secs, 7200);
    let client = lab.connect(&fields).await.unwrap();
    assert_eq!(client.query("SELECT name FROM items", &[]).await.unwrap().len(), 3);
    let done = lab
        .leases()
        .revoke(
            &revoke("pg/readers"),
            &lab.trail(),
            lease.id,
            Some(Duration::from_secs(10)),
        )
        .await
        .unwrap();
    assert_eq!(done.gone, 1);
    assert!(client.query("SELECT 1", &[]).await.is_err() && lab.connect(&fields).await.is_err());
    let (short, fields) = lab.issue(5).await.unwrap();
    let client = lab.connect(&fields).await.unwrap();
    lab.until("expired", async || lab.leases().get(short.id).await.is_err())
        .await;
    assert!(
        client.query("SELECT 1", &[]).await.is_err(),
        "an open session's next statement fails"
    );
    assert!(lab.connect(&fields).await.is_err(), "a log-in is refused");
    lab.leases()
        .revoke_scope(
            &revoke("pg"),
            &lab.trail(),
            Scope::Mount(lab.mount.id),
            Some(Duration::from_secs(10)),
        )
        .await
        .unwrap();
    lab.all_gone().await;
}

/// R-LEASE-2: the daemon dies at each step of issuing and revoking; after the next unseal nothing untracked remains.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_step_leaves_nothing_untracked() {
    let mut lab = Lab::ready().await;
    for point in ["lease.after-intent", "lease.after-create", "lease.after-activation"] {
        let armed = failpoint::arm(lab.boot, point);
        tokio::select! {
            answer = lab.issue(3600) => panic!("{point}: {:?}", answer.map(|_| ())),
            () = armed.reached() => {}
        }
        lab.nothing_untracked().await;
        lab.open().await;
        lab.nothing_untracked().await;
    }
    // What was activated is a lease like any other; the others are undone once their creators cannot act any more.
    lab.until("intents are undone", async || {
        lab.all().await.iter().all(|lease| lease.state == State::Active) && lab.accounts().len() == 1
    })
    .await;
    let lease = lab.all().await[0].id;
    for point in ["lease.revoke.before-act", "lease.revoke.after-act"] {
        let armed = failpoint::arm(lab.boot, point);
        lab.leases()
            .revoke(&revoke("pg/readers"), &lab.trail(), lease, None)
            .await
            .unwrap();
        armed.reached().await;
        lab.nothing_untracked().await;
        lab.open().await;
        if point == "lease.revoke.before-act" {
            assert_eq!(lab.all().await.len(), 1, "a revocation under way is not forgotten");
        }
    }
    lab.all_gone().await;
}

/// R-LEASE-2: `CREATE ROLE` stands in the server behind a lock when the daemon dies.
#[tokio::test(flavor = "multi_thread")]
async fn a_create_stuck_in_the_server_never_surfaces() {
    let mut lab = Lab::ready().await;
    let holder = lab.lock_pg_authid().await;
    tokio::select! {
        answer = lab.issue(3600) => panic!("{:?}", answer.map(|_| ())),
        () = lab.until("stuck", async || lab.admin(STUCK) == "1") => {}
    }
    lab.open().await;
    assert_eq!(lab.all().await.len(), 1);
    lab.until("believed", async || lab.all().await.is_empty()).await;
    holder.batch_execute("ROLLBACK").await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(lab.accounts(), [""; 0]);
}

/// R-LEASE-3: the server goes away during each act; it is tried again for as long as it takes, visibly.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_is_waited_for() {
    let mut lab = Lab::ready().await;
    let (lease, fields) = lab.issue(3600).await.unwrap();
    lab.server.stop().unwrap();
    assert!(
        matches!(lab.issue(3600).await, Err(RoomError::Engine(error)) if error.is_outage()),
        "no intent for a server that is down"
    );
    let renewed = lab
        .leases()
        .renew(&permit(Action::Renew, "pg/readers"), &lab.trail(), lease.id, 0)
        .await;
    assert!(matches!(renewed, Err(LeaseError::Target(error)) if error.outage));
    let done = lab
        .leases()
        .revoke(
            &revoke("pg/readers"),
            &lab.trail(),
            lease.id,
            Some(Duration::from_secs(1)),
        )
        .await
        .unwrap();
    assert_eq!((done.queued, done.gone), (1, 0));
    lab.until("failures are shown", async || {
        lab.leases().get(lease.id).await.unwrap().attempts > 0
    })
    .await;
    let stuck = lab.leases().get(lease.id).await.unwrap();
    assert!(
        stuck.state == State::Revoking && stuck.last_error.is_some(),
        "{stuck:?}"
    );
    lab.server.resume().unwrap();
    lab.all_gone().await;
    assert!(lab.connect(&fields).await.is_err());
    // It dies in the middle of making an account.
    let holder = lab.lock_pg_authid().await;
    let (answer, ()) = tokio::join!(lab.issue(3600), async {
        lab.until("stuck", async || lab.admin(STUCK) == "1").await;
        lab.admin("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CREATE ROLE%'");
    });
    assert!(
        matches!(answer, Err(RoomError::Lease(LeaseError::Target(_)))),
        "{:?}",
        answer.map(|_| ())
    );
    assert_eq!(lab.all().await.len(), 1, "not believed before its time");
    drop(holder);
    lab.all_gone().await;
}

/// A `CREATE ROLE` that waits for a lock.
const STUCK: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE ROLE%' AND wait_event_type = 'Lock'";

/// R-ROT-1: fifty rotations under a client that reads and logs in all the time. Between its reading and its log-in a rotation may come;
/// who then reads again gets in.
#[tokio::test(flavor = "multi_thread")]
async fn a_static_account_rotates_under_a_client() {
    let lab = Lab::ready().await;
    lab.until("first password", async || lab.read_app().await.is_ok()).await;
    let long_lived = lab.connect(&lab.read_app().await.unwrap()).await.unwrap();
    let rotations = async {
        for _ in 0..50 {
            lab.rotate_app().await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let client = async {
        for _ in 0..150 {
            let mut tries = 5;
            while lab.connect(&lab.read_app().await.unwrap()).await.is_err() {
                tries -= 1;
                assert!(tries > 0, "five passwords in a row were dead");
            }
        }
    };
    tokio::join!(rotations, client);
    assert!(long_lived.query("SELECT 1", &[]).await.is_ok(), "open sessions go on");
    let fields = lab.read_app().await.unwrap();
    lab.connect(&fields).await.unwrap();
    assert!(
        !lab.server
            .log()
            .contains(std::str::from_utf8(field(&fields, "password")).unwrap())
    );
}

/// R-ROT-3: the daemon dies at each step of a rotation; the password that is read afterwards works, and rotation goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_static_rotation_survives_a_crash_at_any_step() {
    let mut lab = Lab::ready().await;
    lab.until("first password", async || lab.read_app().await.is_ok()).await;
    for point in ["static.after-intent", "static.after-set", "static.after-test"] {
        let armed = failpoint::arm(lab.boot, point);
        tokio::select! {
            answer = lab.rotate_app() => panic!("{point}: {answer:?}"),
            () = armed.reached() => {}
        }
        lab.open().await;
        lab.connect(&lab.read_app().await.unwrap()).await.unwrap();
        lab.rotate_app().await.unwrap();
        lab.connect(&lab.read_app().await.unwrap()).await.unwrap();
    }
}

/// R-ROT-1: the root credential rotates five times while leases made by every predecessor are used and revoked.
#[tokio::test(flavor = "multi_thread")]
async fn the_root_credential_rotates_and_successors_revoke_what_predecessors_made() {
    let lab = Lab::ready().await;
    let mut made = Vec::new();
    for round in 0..5 {
        made.push(lab.issue(3600).await.unwrap());
        let (rotated, issued) = tokio::join!(lab.rotate_root(), lab.issue(3600));
        assert_eq!(
            rotated.unwrap(),
            if round % 2 == 0 { "strongroom_b" } else { "strongroom_a" }
        );
        made.push(issued.unwrap());
        let roots =
            "SELECT string_agg(rolname, ',') FROM pg_roles WHERE rolcreaterole AND rolcanlogin AND NOT rolsuper";
        assert_eq!(
            lab.admin(roots),
            if round % 2 == 0 { "strongroom_b" } else { "strongroom_a" }
        );
    }
    for (_, fields) in &made {
        lab.connect(fields).await.unwrap();
    }
    lab.leases()
        .revoke_scope(
            &revoke("pg"),
            &lab.trail(),
            Scope::Mount(lab.mount.id),
            Some(Duration::from_secs(20)),
        )
        .await
        .unwrap();
    lab.all_gone().await;
    assert!(!lab.server.log().contains(ROOT_SECRET));
}

/// R-ROT-3: the daemon dies at each step of a root rotation; it goes on at the next unseal, and the mount works.
#[tokio::test(flavor = "multi_thread")]
async fn a_root_rotation_survives_a_crash_at_any_step() {
    let mut lab = Lab::ready().await;
    for point in [
        "root.after-intent",
        "root.after-create",
        "root.after-test",
        "root.after-switch",
        "root.after-retire",
    ] {
        let armed = failpoint::arm(lab.boot, point);
        tokio::select! {
            answer = lab.rotate_root() => panic!("{point}: {answer:?}"),
            () = armed.reached() => {}
        }
        lab.open().await;
        let roots = "SELECT count(*) FROM pg_roles WHERE rolcreaterole AND rolcanlogin AND NOT rolsuper";
        lab.until("one root account", async || {
            lab.admin(roots) == "1" && lab.issue(5).await.is_ok()
        })
        .await;
    }
    lab.rotate_root().await.unwrap();
    lab.all_gone().await;
}

/// R-LEASE-1: a configuration is tested before it is kept; a mount with leases is not forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn a_mount_is_tested_before_it_is_kept() {
    let lab = Lab::new().await;
    assert!(matches!(lab.issue(0).await, Err(RoomError::NoRole)));
    lab.admin("ALTER ROLE strongroom NOCREATEROLE");
    let refused = lab.configure(false).await.unwrap_err().to_string();
    assert!(refused.contains("CREATEROLE"), "{refused}");
    assert!(lab.all().await.is_empty(), "the test's own intent is settled");
    assert!(
        lab.engines()
            .config(&permit(Action::MountRead, "pg"), &lab.mount)
            .await
            .unwrap()
            .is_none()
    );
    lab.admin("ALTER ROLE strongroom CREATEROLE");
    assert_eq!(lab.configure(false).await.unwrap().len(), 6);
    let shown = lab
        .engines()
        .config(&permit(Action::MountRead, "pg"), &lab.mount)
        .await
        .unwrap()
        .unwrap();
    assert!(shown.contains("127.0.0.1") && !shown.contains(ROOT_SECRET));
    lab.put_role("readers", r#"{"group":"readers"}"#).await.unwrap();
    assert!(matches!(
        lab.put_role("x/y", r#"{"group":"readers"}"#).await,
        Err(RoomError::RoleName)
    ));
    lab.put_role("app", r#"{"type":"static","account":"app"}"#)
        .await
        .unwrap();
    assert!(matches!(
        lab.put_role("other", r#"{"type":"static","account":"app"}"#).await,
        Err(RoomError::AccountTaken(_))
    ));
    assert!(matches!(
        lab.put_role("app", r#"{"group":"readers"}"#).await,
        Err(RoomError::WrongRole(_))
    ));
    let (lease, _) = lab.issue(0).await.unwrap();
    let write = permit(Action::MountWrite, "pg");
    assert!(matches!(
        lab.engines().forget(&write, &lab.mount).await.map(drop),
        Err(RoomError::LeasesLive)
    ));
    lab.leases()
        .revoke(
            &revoke("pg/readers"),
            &lab.trail(),
            lease.id,
            Some(Duration::from_secs(10)),
        )
        .await
        .unwrap();
    let (change, ()) = lab.engines().forget(&write, &lab.mount).await.unwrap();
    lab.store.commit(change, Vec::new()).await.unwrap();
    assert!(matches!(lab.issue(0).await, Err(RoomError::NoRole)));
    assert!(matches!(
        lab.leases().get(LeaseId::random(&OsRandom)).await,
        Err(LeaseError::Unknown)
    ));
}
