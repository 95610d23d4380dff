//! The engine on a real MariaDB.

use super::{
    MariaDb,
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
        conformance::{Bench, Piped, Session, around, conformance, dynamic, field, seen, unseen},
    },
    lease::{Durable, Plan},
};

conformance!(super::Real);

struct Real {
    server: Server,
    config: String,
    around: Surroundings,
}

fn root() -> Root {
    Root {
        account: ROOT.to_owned(),
        secret: SecretBytes::from(ROOT_SECRET.as_bytes()),
    }
}

/// By the `mariadb` client.
struct Client(Piped);

#[async_trait::async_trait]
impl Session for Client {
    async fn alive(&mut self) -> bool {
        self.0.ask("SELECT 'alive';").await.as_deref() == Some("alive")
    }
    async fn works(&mut self) -> bool {
        self.0.ask("SELECT COUNT(*) FROM shop.items;").await.as_deref() == Some("3")
    }
}

/// A `CREATE USER` that waits for a lock.
const STUCK: &str = "FROM information_schema.PROCESSLIST WHERE INFO LIKE 'CREATE USER%' AND STATE LIKE 'Waiting%'";

#[async_trait::async_trait]
impl Bench for Real {
    const KIND: Kind = Kind::MariaDb;
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
        r#"{"role":"readers"}"#
    }
    fn account(&self) -> &'static str {
        "app"
    }
    async fn log_in(&self, name: &str, secret: &[u8]) -> Option<Box<dyn Session>> {
        let mut client = Client(self.server.session(name, std::str::from_utf8(secret).unwrap()));
        client.alive().await.then(|| Box::new(client) as Box<dyn Session>)
    }
    fn accounts(&self) -> Vec<String> {
        self.lines("SELECT User FROM mysql.user WHERE User LIKE 'sr\\_%' ORDER BY 1")
    }
    fn roots(&self) -> Vec<String> {
        self.lines("SELECT User FROM mysql.user WHERE Create_user_priv = 'Y' AND User <> 'root'")
    }
    fn drop_by_hand(&self, name: &str) {
        self.lines(&format!("DROP USER `{name}`"));
    }
    fn log(&self) -> String {
        self.server.statements() + &self.server.log()
    }
    fn logged(&self) -> &'static str {
        "IDENTIFIED VIA mysql_native_password USING '*"
    }
    fn stop(&mut self) {
        self.server.stop().unwrap();
    }
    fn resume(&mut self) {
        self.server.resume().unwrap();
    }
    fn cripple(&self) -> &'static str {
        self.lines("REVOKE CONNECTION ADMIN ON *.* FROM strongroom");
        "GRANT CONNECTION ADMIN ON *.*"
    }
    fn mend(&self) {
        self.lines("GRANT CONNECTION ADMIN ON *.* TO strongroom");
    }
    async fn hold(&self) -> Option<Box<dyn Send + Sync>> {
        let mut client = Client(self.server.admin_session());
        client
            .0
            .ask("FLUSH TABLES WITH READ LOCK; SELECT 'held';")
            .await
            .unwrap();
        Some(Box::new(client))
    }
    fn stuck(&self) -> bool {
        self.lines(&format!("SELECT COUNT(*) {STUCK}")) == ["1"]
    }
    fn end_stuck(&self) {
        for id in self.lines(&format!("SELECT ID {STUCK}")) {
            self.lines(&format!("KILL {id}"));
        }
    }
}

impl Real {
    fn lines(&self, sql: &str) -> Vec<String> {
        let out = self.server.admin(sql).unwrap();
        out.lines().map(str::to_owned).collect()
    }

    fn engine(&self) -> MariaDb {
        MariaDb::open(&self.config, &root(), &self.around).unwrap()
    }

    async fn make(&self, engine: &MariaDb, name: &str, role: &str) -> (Plan, Fields) {
        let role = dynamic(role);
        let plan = engine.plan(LeaseId::random(&OsRandom), name, &role).await.unwrap();
        let expires = SystemClock::default().now().plus_secs(600);
        let fields = engine
            .create(&Durable::for_test(), &plan, &role, expires)
            .await
            .unwrap();
        (plan, fields)
    }
}

/// Names that nobody should use are only names; rights can be given without a role, in one database that looks like others.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_are_only_names() {
    let real = Real::start();
    real.lines(
        "CREATE ROLE `wri``ters'; DROP DATABASE shop; -- x`; GRANT `wri``ters'; DROP DATABASE shop; -- x` TO strongroom WITH ADMIN OPTION;
         GRANT SELECT ON shop.* TO `wri``ters'; DROP DATABASE shop; -- x`;
         CREATE DATABASE `my_shop`; CREATE TABLE my_shop.kept (n INT); CREATE DATABASE `my1shop`; CREATE TABLE my1shop.secret (n INT);
         GRANT SELECT, INSERT ON `my\\_shop`.* TO strongroom WITH GRANT OPTION",
    );
    let engine = real.engine();
    let role = r#"{"role":"wri`ters'; DROP DATABASE shop; -- x"}"#;
    engine.check_role(&Definition::parse(role).unwrap()).await.unwrap();
    let (plan, fields) = real.make(&engine, "a`; DROP USER app; -- ", role).await;
    assert!(real.works(&plan.account, field(&fields, "password")).await);
    engine
        .revoke(&Durable::for_test(), &plan, &seen(real.around.boot))
        .await
        .unwrap();
    let role = r#"{"grants":[{"privileges":["SELECT","INSERT"],"database":"my_shop"}],"host":"127.0.0.%"}"#;
    let (plan, fields) = real.make(&engine, "w", role).await;
    let secret = std::str::from_utf8(field(&fields, "password")).unwrap();
    let run = |sql: &str| real.server.as_user(&plan.account, secret, sql);
    assert_eq!(
        run("INSERT INTO my_shop.kept VALUES (7); SELECT n FROM my_shop.kept").unwrap(),
        "7"
    );
    assert!(
        run("SELECT * FROM my1shop.secret").is_err(),
        "`_` is a letter, not a pattern"
    );
    engine
        .revoke(&Durable::for_test(), &plan, &seen(real.around.boot))
        .await
        .unwrap();
    assert!(run("DO 1").is_err() && real.accounts().is_empty());
    assert_eq!(real.lines("SELECT COUNT(*) FROM shop.items"), ["3"]);
    assert!(real.lines("SELECT User FROM mysql.user").contains(&"app".to_owned()));
}

/// R-LEASE-1: each thing that is missing is named with its remedy; roles and accounts with power are not handed out.
#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_test_names_what_is_missing() {
    let real = Real::start();
    let try_it = async || {
        let engine = real.engine();
        let plan = engine.test_plan(LeaseId::random(&OsRandom)).await?;
        let tried = engine.test(&Durable::for_test(), &plan).await;
        if tried.is_err() {
            engine
                .revoke(&Durable::for_test(), &plan, &seen(real.around.boot))
                .await?;
        }
        tried
    };
    assert_eq!(try_it().await.unwrap().len(), 6);
    assert!(real.accounts().is_empty(), "nothing stays");
    for (what, complaint) in [
        ("CREATE USER ON *.*", "GRANT CREATE USER"),
        ("PROCESS ON *.*", "GRANT PROCESS"),
        ("CONNECTION ADMIN ON *.*", "GRANT CONNECTION ADMIN"),
        ("UPDATE ON mysql.*", "GRANT UPDATE ON mysql.*"),
        ("SELECT ON mysql.roles_mapping", "GRANT SELECT ON mysql.roles_mapping"),
    ] {
        real.lines(&format!("REVOKE {what} FROM strongroom"));
        let error = try_it().await.unwrap_err().to_string();
        assert!(error.contains(complaint), "{what}: {error}");
        real.lines(&format!("GRANT {what} TO strongroom"));
    }
    real.lines("REVOKE ADMIN OPTION FOR strongroom_lab FROM strongroom");
    let error = try_it().await.unwrap_err().to_string();
    assert!(error.contains("GRANT `strongroom_lab` TO"), "{error}");
    let engine = real.engine();
    real.lines("CREATE ROLE mine; CREATE ROLE boss; GRANT SUPER ON *.* TO boss; CREATE ROLE deep; GRANT boss TO deep; CREATE USER chief; GRANT FILE ON *.* TO chief");
    for (definition, complaint) in [
        (r#"{"role":"nobody"}"#, "does not exist"),
        (r#"{"role":"mine"}"#, "GRANT `mine` TO `strongroom` WITH ADMIN OPTION"),
        (r#"{"role":"boss"}"#, "must not be handed out"),
        (r#"{"role":"deep"}"#, "must not be handed out"),
        (r#"{"role":"strongroom_lab"}"#, "not the marker"),
        (r#"{"type":"static","account":"strongroom"}"#, "rotate-root"),
        (r#"{"type":"static","account":"chief"}"#, "not the engine's to change"),
        (
            r#"{"type":"static","account":"root@localhost"}"#,
            "not the engine's to change",
        ),
        (r#"{"type":"static","account":"ghost"}"#, "does not exist"),
        (r#"{"type":"static","account":"readers"}"#, "does not exist"),
    ] {
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

/// A server without the marker is a stranger: that an account is not there means nothing. R-LEASE-3.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_bound_to_its_server() {
    let real = Real::start();
    let engine = real.engine();
    let (plan, _) = real.make(&engine, "readers", real.role()).await;
    real.lines("DROP ROLE strongroom_lab");
    let other = engine
        .revoke(&Durable::for_test(), &plan, &seen(real.around.boot))
        .await;
    assert!(matches!(&other, Err(EngineError::OtherServer { .. })), "{other:?}");
    real.lines("CREATE ROLE strongroom_lab");
    engine
        .revoke(&Durable::for_test(), &plan, &seen(real.around.boot))
        .await
        .unwrap();
    assert!(real.accounts().is_empty());
}

/// R-LEASE-2: a former run of the daemon left a session that could still make the account.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_are_not_ours_end_before_absence_is_believed() {
    let real = Real::start();
    let engine = real.engine();
    let plan = engine
        .plan(LeaseId::random(&OsRandom), "never", &dynamic(real.role()))
        .await
        .unwrap();
    let mut stranger = real.log_in(ROOT, ROOT_SECRET.as_bytes()).await.unwrap();
    let mut app = real.log_in("app", b"set-by-hand-once").await.unwrap();
    let earlier = BootId::random(&OsRandom);
    engine
        .revoke(&Durable::for_test(), &plan, &unseen(earlier, true))
        .await
        .unwrap();
    assert!(!stranger.alive().await && app.alive().await);
}

/// TLS: `verify-full` checks chain and name, `require` encrypts.
#[tokio::test(flavor = "multi_thread")]
async fn tls_verifies_the_server() {
    let mut real = Real::start();
    let (ca, other) = (certificate_authority(), certificate_authority());
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = |name: &str| {
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.signed_by(&key, &ca.1).unwrap().pem()
    };
    let with = |mode: &str, pem: &str| {
        let ca = serde_json::to_string(pem).unwrap();
        real.config.replace(
            "\"sslmode\":\"disable\"",
            &format!("\"sslmode\":\"{mode}\",\"ca_pem\":{ca}"),
        )
    };
    let (full, wrong, require) = (
        with("verify-full", &ca.0),
        with("verify-full", &other.0),
        with("require", &other.0),
    );
    let plans = async |real: &Real, config: &str| {
        let engine = MariaDb::open(config, &root(), &real.around).unwrap();
        let role = dynamic(real.role());
        let planned = engine.plan(LeaseId::random(&OsRandom), "tls", &role).await;
        planned.is_ok()
    };
    assert!(!plans(&real, &full).await, "a server without TLS is refused");
    real.server
        .install_tls(&certificate("127.0.0.1"), &key.serialize_pem())
        .unwrap();
    real.lines("ALTER USER strongroom REQUIRE SSL");
    let plain = real.config.clone();
    for (config, good) in [(&full, true), (&wrong, false), (&require, true), (&plain, false)] {
        assert_eq!(plans(&real, config).await, good, "{config}");
    }
    real.server
        .install_tls(&certificate("db.example.com"), &key.serialize_pem())
        .unwrap();
    assert!(!plans(&real, &full).await, "another name");
}

fn certificate_authority() -> (String, rcgen::Issuer<'static, rcgen::KeyPair>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    (certificate.pem(), rcgen::Issuer::new(params, key))
}
