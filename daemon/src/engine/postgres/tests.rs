//! The engine on a real PostgreSQL 15.

use super::{
    Postgres,
    testing::{ROOT, ROOT_SECRET, Server},
};
use crate::{
    base::{
        id::{BootId, LeaseId},
        random::OsRandom,
        secret::SecretBytes,
        time::{Clock, SystemClock},
    },
    engine::{
        Definition, Engine, EngineError, Fields, Kind, Root, Surroundings,
        conformance::{Bench, Session, around, conformance, dynamic, field, seen, unseen},
        password,
    },
    lease::{Durable, Plan},
};
use std::{sync::Arc, time::Duration};
use tokio_postgres::{Client, NoTls};

conformance!(super::Real);

struct Real {
    server: Server,
    config: String,
    around: Surroundings,
}

impl Real {
    fn postgres(&self) -> Postgres {
        Postgres::open(&self.config, &root(), &self.around).unwrap()
    }

    async fn connect(&self, database: &str, name: &str, secret: &[u8]) -> Result<Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config
            .host("127.0.0.1")
            .port(self.server.port())
            .user(name)
            .password(secret)
            .dbname(database)
            .application_name("client");
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

fn root() -> Root {
    Root {
        account: ROOT.to_owned(),
        secret: SecretBytes::from(ROOT_SECRET.as_bytes()),
    }
}

#[async_trait::async_trait]
impl Session for Client {
    async fn alive(&mut self) -> bool {
        self.query("SELECT 1", &[]).await.is_ok()
    }
    async fn works(&mut self) -> bool {
        self.query("SELECT * FROM items", &[])
            .await
            .is_ok_and(|rows| rows.len() == 3)
    }
}

/// A `CREATE ROLE` that waits for a lock.
const STUCK: &str =
    "FROM pg_stat_activity WHERE query LIKE 'CREATE ROLE%' AND state = 'active' AND wait_event_type = 'Lock'";

#[async_trait::async_trait]
impl Bench for Real {
    const KIND: Kind = Kind::Postgres;
    fn start() -> Self {
        let server = Server::start().unwrap();
        server.prepare().unwrap();
        let config = server.config_json();
        Self {
            server,
            config,
            around: around(),
        }
    }
    fn config_json(&self) -> String {
        self.config.clone()
    }
    fn root(&self) -> Root {
        root()
    }
    fn role(&self) -> &'static str {
        r#"{"group":"readers"}"#
    }
    fn account(&self) -> &'static str {
        "app"
    }
    async fn log_in(&self, name: &str, secret: &[u8]) -> Option<Box<dyn Session>> {
        let client = self.connect("postgres", name, secret).await.ok()?;
        Some(Box::new(client))
    }
    fn accounts(&self) -> Vec<String> {
        self.lines("SELECT rolname FROM pg_roles WHERE rolname LIKE 'sr\\_%' ORDER BY 1")
    }
    fn roots(&self) -> Vec<String> {
        self.lines("SELECT rolname FROM pg_roles WHERE rolcreaterole AND rolcanlogin AND NOT rolsuper")
    }
    fn drop_by_hand(&self, name: &str) {
        self.lines(&format!("DROP ROLE \"{name}\""));
    }
    fn log(&self) -> String {
        self.server.log()
    }
    fn logged(&self) -> &'static str {
        "PASSWORD E'SCRAM-SHA-256$4096:"
    }
    fn stop(&mut self) {
        self.server.stop().unwrap();
    }
    fn resume(&mut self) {
        self.server.resume().unwrap();
    }
    fn cripple(&self) -> &'static str {
        self.lines("ALTER ROLE strongroom NOCREATEROLE");
        "CREATEROLE"
    }
    fn mend(&self) {
        self.lines("ALTER ROLE strongroom CREATEROLE");
    }
    async fn hold(&self) -> Option<Box<dyn Send + Sync>> {
        Some(Box::new(lock_pg_authid(self).await))
    }
    fn stuck(&self) -> bool {
        self.lines(&format!("SELECT count(*) {STUCK}")) == ["1"]
    }
    fn end_stuck(&self) {
        self.lines(&format!("SELECT pg_terminate_backend(pid) {STUCK}"));
    }
}

impl Real {
    fn lines(&self, sql: &str) -> Vec<String> {
        let out = self.server.admin("postgres", sql).unwrap();
        out.lines().map(str::to_owned).collect()
    }

    fn exists(&self, name: &str) -> bool {
        self.lines("SELECT rolname FROM pg_roles")
            .iter()
            .any(|role| role == name)
    }

    async fn make(&self, engine: &dyn Engine) -> (Plan, Fields) {
        let role = dynamic(self.role());
        let plan = engine.plan(LeaseId::random(&OsRandom), "readers", &role).await.unwrap();
        let expires = SystemClock::default().now().plus_secs(600);
        let fields = engine
            .create(&Durable::for_test(), &plan, &role, expires)
            .await
            .unwrap();
        (plan, fields)
    }
}

/// The server's log sees verifiers only, and which run of the daemon a session belongs to.
#[tokio::test(flavor = "multi_thread")]
async fn every_password_in_the_servers_log_is_a_verifier() {
    let real = Real::start();
    let engine = real.postgres();
    let (plan, _) = real.make(&engine).await;
    let durable = Durable::for_test();
    engine
        .set_password(&durable, "app", &password(&OsRandom))
        .await
        .unwrap();
    engine.revoke(&durable, &plan, &seen(real.around.boot)).await.unwrap();
    let log = real.server.log();
    let passwords: Vec<&str> = log.lines().filter(|line| line.contains("PASSWORD ")).collect();
    assert!(passwords.len() >= 2);
    for line in passwords {
        assert!(line.contains("PASSWORD E'SCRAM-SHA-256$"), "{line}");
    }
    assert!(
        log.contains(&format!("strongroom/{}", real.around.boot)),
        "sessions name the run of the daemon"
    );
}

/// R-LEASE-3: what an account owns in two databases goes to its group, with names that nobody should use.
#[tokio::test(flavor = "multi_thread")]
async fn owned_objects_survive_their_owner_and_hostile_names_are_only_names() {
    let mut real = Real::start();
    let admin = |sql: &str| real.server.admin("postgres", sql).unwrap();
    admin("CREATE DATABASE \"Shop \"\"; DROP DATABASE postgres; --\"");
    admin("CREATE ROLE \"Wri\"\"ters'; DROP TABLE items; --\" NOLOGIN");
    admin("GRANT \"Wri\"\"ters'; DROP TABLE items; --\" TO strongroom_manager");
    for database in ["postgres", "Shop \"; DROP DATABASE postgres; --"] {
        real.server
            .admin(
                database,
                "GRANT CREATE ON SCHEMA public TO \"Wri\"\"ters'; DROP TABLE items; --\"",
            )
            .unwrap();
    }
    real.config = real.config.replace(
        "\"sslmode\"",
        "\"databases\":[\"Shop \\\"; DROP DATABASE postgres; --\"],\"sslmode\"",
    );
    let engine = real.postgres();
    let definition = r#"{"group":"Wri\"ters'; DROP TABLE items; --"}"#;
    engine
        .check_role(&Definition::parse(definition).unwrap())
        .await
        .unwrap();
    let role = dynamic(definition);
    let plan = engine
        .plan(LeaseId::random(&OsRandom), "a\"; DROP ROLE app; --", &role)
        .await
        .unwrap();
    let fields = engine
        .create(
            &Durable::for_test(),
            &plan,
            &role,
            SystemClock::default().now().plus_secs(600),
        )
        .await
        .unwrap();
    let mut sessions = Vec::new();
    for database in ["postgres", "Shop \"; DROP DATABASE postgres; --"] {
        let client = real
            .connect(database, &plan.account, field(&fields, "password"))
            .await
            .unwrap();
        client.batch_execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (7); CREATE VIEW seen AS SELECT n FROM kept; CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; GRANT SELECT ON kept TO PUBLIC").await.unwrap();
        sessions.push(client);
    }
    let quoted = format!("\"{}\"", plan.account.replace('"', "\"\""));
    admin(&format!(
        "CREATE TABLE theirs (n int); ALTER TABLE theirs OWNER TO \"Wri\"\"ters'; DROP TABLE items; --\"; GRANT SELECT ON theirs TO {quoted}"
    ));
    admin(&format!("GRANT SELECT ON items TO {quoted}"));
    // What the superuser granted only they can take back: locked, held, and said.
    let held = engine
        .revoke(&Durable::for_test(), &plan, &seen(real.around.boot))
        .await;
    assert!(
        matches!(&held, Err(EngineError::Remains(text)) if text.contains("privileges for table public.items")),
        "{held:?}"
    );
    assert!(
        real.connect("postgres", &plan.account, field(&fields, "password"))
            .await
            .is_err()
    );
    admin(&format!("REVOKE SELECT ON items FROM {quoted}"));
    engine
        .revoke(&Durable::for_test(), &plan, &seen(real.around.boot))
        .await
        .unwrap();
    for (client, database) in sessions
        .into_iter()
        .zip(["postgres", "Shop \"; DROP DATABASE postgres; --"])
    {
        assert!(
            client.query("SELECT 1", &[]).await.is_err(),
            "an open session's next statement fails"
        );
        assert_eq!(
            real.server
                .admin(
                    database,
                    "SELECT n, (SELECT tableowner FROM pg_tables WHERE tablename = 'kept') FROM seen"
                )
                .unwrap(),
            "7|Wri\"ters'; DROP TABLE items; --"
        );
    }
    assert!(
        real.connect("postgres", &plan.account, field(&fields, "password"))
            .await
            .is_err()
    );
    assert_eq!(
        real.server.admin("postgres", "SELECT count(*) FROM items").unwrap(),
        "3"
    );
    assert!(real.exists("app"));
}

/// R-LEASE-3: proofs in a row share one young connection; one that died proves nothing and is replaced; none is kept.
#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_proven_gone_by_a_witness_that_is_young() {
    const WITNESS: &str = "FROM pg_stat_activity WHERE usename = 'strongroom' AND query LIKE '%usesysid = ANY%'";
    let real = Real::start();
    let engine = real.postgres();
    let witnesses = || real.lines(&format!("SELECT pid {WITNESS}"));
    let end_one = async || {
        let (plan, _) = real.make(&engine).await;
        engine
            .revoke(&Durable::for_test(), &plan, &seen(real.around.boot))
            .await
            .unwrap();
        assert!(!real.exists(&plan.account));
        witnesses()
    };
    let first = end_one().await;
    assert_eq!(first.len(), 1);
    assert_eq!(
        end_one().await,
        first,
        "a second proof within a second asks the same witness"
    );
    real.lines(&format!("SELECT pg_terminate_backend(pid) {WITNESS}"));
    let next = end_one().await;
    assert_eq!(next.len(), 1);
    assert_ne!(next, first);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(witnesses().is_empty(), "it is closed once it is a second old");
    assert_ne!(end_one().await, next);
}

/// R-LEASE-3: whoever may read a static role has its account: none that has power over the server, over accounts, or is Strongroom's own.
#[tokio::test(flavor = "multi_thread")]
async fn accounts_of_power_are_nobodys_static_role() {
    let real = Real::start();
    let engine = real.postgres();
    let (plan, _) = real.make(&engine).await;
    for sql in [
        "CREATE ROLE maker LOGIN CREATEROLE",
        "CREATE ROLE unseen LOGIN BYPASSRLS",
        "CREATE ROLE shell LOGIN; GRANT pg_execute_server_program TO shell",
        "CREATE ROLE over NOLOGIN CREATEROLE; CREATE ROLE under LOGIN; GRANT over TO under",
        "CREATE ROLE sibling LOGIN; GRANT strongroom_manager TO sibling",
        "CREATE ROLE mute NOLOGIN",
    ] {
        real.lines(sql);
    }
    let check = async |account: &str| {
        let definition = Definition::parse(&format!(r#"{{"type":"static","account":"{account}"}}"#))?;
        engine.check_role(&definition).await
    };
    check("app").await.unwrap();
    for account in [
        "maker",
        "unseen",
        "shell",
        "under",
        "sibling",
        "mute",
        "strongroom",
        "nobody",
        &plan.account,
    ] {
        let refused = check(account).await;
        assert!(
            matches!(&refused, Err(EngineError::Config(text)) if text.contains("account")),
            "{account}: {refused:?}"
        );
        let changed = engine
            .set_password(&Durable::for_test(), account, &password(&OsRandom))
            .await;
        assert!(changed.is_err(), "{account}: nor later");
    }
}

/// R-LEASE-2: the daemon died while its CREATE ROLE stood in the server, waiting for a lock. The account must not appear
/// after it was declared never to have been.
#[tokio::test(flavor = "multi_thread")]
async fn a_create_stuck_in_the_server_is_ended_before_absence_is_believed() {
    let real = Real::start();
    let dead = Surroundings {
        boot: BootId::random(&OsRandom),
        ..real.around.clone()
    };
    let former = Postgres::open(&real.config, &root(), &dead).unwrap();
    let role = dynamic(real.role());
    let plan = former.plan(LeaseId::random(&OsRandom), "stuck", &role).await.unwrap();
    let holder = lock_pg_authid(&real).await;
    let stuck = {
        let (plan, role) = (plan.clone(), role.clone());
        tokio::spawn(async move {
            former
                .create(
                    &Durable::for_test(),
                    &plan,
                    &role,
                    SystemClock::default().now().plus_secs(60),
                )
                .await
                .map(drop)
        })
    };
    wait_for(
        &real,
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE ROLE%' AND wait_event_type = 'Lock'",
        "1",
    )
    .await;
    // The daemon dies without a word to the server: the statement stays there.
    stuck.abort();
    let next = real.postgres();
    next.revoke(&Durable::for_test(), &plan, &unseen(dead.boot, true))
        .await
        .unwrap();
    wait_for(
        &real,
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE ROLE%' AND state = 'active'",
        "0",
    )
    .await;
    drop(holder);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!real.exists(&plan.account));
    // The same within one run: its pool goes on, only the session that speaks of the account ends.
    let plan = next.plan(LeaseId::random(&OsRandom), "stuck", &role).await.unwrap();
    let holder = lock_pg_authid(&real).await;
    let next = Arc::new(next);
    let (engine, copy) = (next.clone(), plan.clone());
    let stuck = tokio::spawn(async move {
        engine
            .create(
                &Durable::for_test(),
                &copy,
                &role,
                SystemClock::default().now().plus_secs(60),
            )
            .await
            .map(drop)
    });
    wait_for(
        &real,
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE ROLE%' AND wait_event_type = 'Lock'",
        "1",
    )
    .await;
    stuck.abort();
    next.revoke(&Durable::for_test(), &plan, &unseen(real.around.boot, true))
        .await
        .unwrap();
    drop(holder);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!real.exists(&plan.account));
}

/// A superuser's transaction that makes every CREATE ROLE wait (and lets log-ins and reads through).
async fn lock_pg_authid(real: &Real) -> Client {
    let mut config = tokio_postgres::Config::new();
    config
        .host_path(real.server.socket_dir())
        .port(real.server.port())
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

async fn wait_for(real: &Real, sql: &str, want: &str) {
    for _ in 0..200 {
        if real.server.admin("postgres", sql).unwrap() == want {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never {want}: {sql}");
}

/// R-LEASE-1: the configuration test runs the whole cycle, and each thing that is missing is named with its remedy.
#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_test_names_what_is_missing() {
    let real = Real::start();
    let try_it = async || {
        let engine = real.postgres();
        let plan = engine.test_plan(LeaseId::random(&OsRandom)).await?;
        engine.test(&Durable::for_test(), &plan).await
    };
    let checks = try_it().await.unwrap();
    assert_eq!(checks.len(), 6, "{checks:?}");
    assert_eq!(
        real.server
            .admin("postgres", "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'sr\\_%'")
            .unwrap(),
        "0",
        "nothing stays"
    );
    for (break_it, mend_it, complaint) in [
        (
            "ALTER ROLE strongroom NOCREATEROLE",
            "ALTER ROLE strongroom CREATEROLE",
            "CREATEROLE",
        ),
        (
            "REVOKE pg_signal_backend FROM strongroom_manager",
            "GRANT pg_signal_backend TO strongroom_manager",
            "GRANT pg_signal_backend",
        ),
        (
            "REVOKE pg_read_all_stats FROM strongroom_manager",
            "GRANT pg_read_all_stats TO strongroom_manager",
            "GRANT pg_read_all_stats",
        ),
        (
            "REVOKE strongroom_manager FROM strongroom",
            "GRANT strongroom_manager TO strongroom",
            "GRANT strongroom_manager TO strongroom",
        ),
        (
            "ALTER ROLE strongroom_manager LOGIN",
            "ALTER ROLE strongroom_manager NOLOGIN",
            "NOLOGIN",
        ),
    ] {
        real.server.admin("postgres", break_it).unwrap();
        let error = try_it().await.unwrap_err().to_string();
        assert!(error.contains(complaint), "{break_it}: {error}");
        real.server.admin("postgres", mend_it).unwrap();
    }
    let engine = real.postgres();
    for (before, definition, complaint) in [
        ("SELECT 1", r#"{"group":"nobody"}"#, "does not exist"),
        (
            "CREATE ROLE mine NOLOGIN",
            r#"{"group":"mine"}"#,
            "GRANT mine TO strongroom_manager",
        ),
        (
            "CREATE ROLE boss NOLOGIN SUPERUSER",
            r#"{"group":"boss"}"#,
            "must not be handed out",
        ),
        (
            "CREATE ROLE files NOLOGIN IN ROLE pg_write_server_files",
            r#"{"group":"files"}"#,
            "must not be handed out",
        ),
        ("SELECT 1", r#"{"group":"strongroom_manager"}"#, "engine's own"),
        ("SELECT 1", r#"{"type":"static","account":"strongroom"}"#, "rotate-root"),
        ("SELECT 1", r#"{"type":"static","account":"postgres"}"#, "superuser"),
        ("SELECT 1", r#"{"type":"static","account":"ghost"}"#, "does not exist"),
    ] {
        real.server.admin("postgres", before).unwrap();
        let error = engine
            .check_role(&Definition::parse(definition).unwrap())
            .await
            .unwrap_err();
        assert!(
            matches!(&error, EngineError::Config(text) if text.contains(complaint)),
            "{definition}: {error}"
        );
    }
}

/// A server that is another than the plan's is not asked to prove anything; one that was upgraded is named in `formerly`.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_bound_to_its_server_and_an_outage_is_an_outage() {
    let mut real = Real::start();
    let engine = real.postgres();
    let (mut plan, _) = real.make(&engine).await;
    let system = plan.body["system"].as_str().unwrap().to_owned();
    plan.body["system"] = "1234".into();
    let other = engine
        .revoke(&Durable::for_test(), &plan, &seen(real.around.boot))
        .await;
    assert!(
        matches!(&other, Err(EngineError::OtherServer { planned, found }) if planned == "1234" && *found == system),
        "{other:?}"
    );
    let config = real
        .config
        .replace("\"sslmode\"", "\"formerly\":[\"1234\"],\"sslmode\"");
    let upgraded = Postgres::open(&config, &root(), &real.around).unwrap();
    real.server.stop().unwrap();
    for _ in 0..2 {
        let down = upgraded
            .revoke(&Durable::for_test(), &plan, &seen(real.around.boot))
            .await
            .unwrap_err();
        assert!(down.is_outage(), "{down:?}");
    }
    assert!(
        engine
            .try_password("app", &password(&OsRandom))
            .await
            .unwrap_err()
            .is_outage()
    );
    real.server.resume().unwrap();
    upgraded
        .revoke(&Durable::for_test(), &plan, &seen(real.around.boot))
        .await
        .unwrap();
    assert!(!real.exists(&plan.account));
}

/// TLS as libpq has it: `verify-full` checks chain and name, `require` encrypts.
#[tokio::test(flavor = "multi_thread")]
async fn tls_verifies_the_server() {
    let real = Real::start();
    let (ca, other) = (certificate_authority(), certificate_authority());
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .unwrap()
        .signed_by(&key, &ca.1)
        .unwrap();
    real.server
        .install_tls(&certificate.pem(), &key.serialize_pem())
        .unwrap();
    let with = |mode: &str, pem: &str| {
        let ca = serde_json::to_string(pem).unwrap();
        real.config.replace(
            "\"sslmode\":\"disable\"",
            &format!("\"sslmode\":\"{mode}\",\"ca_pem\":{ca}"),
        )
    };
    for (config, good) in [
        (with("verify-full", &ca.0), true),
        (with("verify-full", &other.0), false),
        (with("require", &other.0), true),
    ] {
        let engine = Postgres::open(&config, &root(), &real.around).unwrap();
        let planned = engine
            .plan(LeaseId::random(&OsRandom), "tls", &dynamic(real.role()))
            .await;
        assert_eq!(planned.is_ok(), good, "{planned:?}");
        if good {
            assert_eq!(real.server.admin("postgres", "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'strongroom'").unwrap(), "t");
        }
    }
}

fn certificate_authority() -> (String, rcgen::Issuer<'static, rcgen::KeyPair>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    (certificate.pem(), rcgen::Issuer::new(params, key))
}
