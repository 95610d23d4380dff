//! The engine on a real RabbitMQ.

use super::{
    RabbitMq,
    amqp::Connection,
    testing::{MARKER, ROOT, ROOT_SECRET, Server},
};
use crate::{
    base::{id::LeaseId, random::OsRandom, secret::SecretBytes, time::Timestamp},
    engine::{
        Definition, Engine, EngineError, Fields, Kind, Root, Surroundings,
        conformance::{Bench, Session, around, conformance, dynamic, field, seen},
        http::path,
        password,
    },
    lease::{Durable, Plan},
};
use serde_json::{Value, json};

conformance!(super::Real);

struct Real {
    server: Server,
    around: Surroundings,
}

fn root() -> Root {
    Root {
        account: ROOT.to_owned(),
        secret: SecretBytes::from(ROOT_SECRET.as_bytes()),
    }
}

/// An open connection of AMQP.
struct Client(Connection);

#[async_trait::async_trait]
impl Session for Client {
    async fn alive(&mut self) -> bool {
        self.0.alive().await
    }
    async fn works(&mut self) -> bool {
        self.0.reads("items").await
    }
}

#[async_trait::async_trait]
impl Bench for Real {
    const KIND: Kind = Kind::RabbitMq;
    fn start() -> Self {
        Self {
            server: Server::start().unwrap(),
            around: around(),
        }
    }
    fn config_json(&self) -> String {
        self.server.config_json()
    }
    fn root(&self) -> Root {
        root()
    }
    fn role(&self) -> &'static str {
        r#"{"vhosts":{"/":{"read":"^items$"}}}"#
    }
    fn account(&self) -> &'static str {
        "app"
    }
    async fn log_in(&self, name: &str, secret: &[u8]) -> Option<Box<dyn Session>> {
        if name.starts_with(ROOT) {
            // A root account needs no virtual host; here it gets one, so that it can have a connection. Where it is gone, none.
            let nothing = r#"{"configure":"","write":"","read":""}"#;
            let _ = self
                .server
                .admin("PUT", &path(&["api", "permissions", "/", name]), nothing);
        }
        let password = std::str::from_utf8(secret).unwrap();
        let connection = Connection::open(self.server.amqp_port(), name, password, "/").await?;
        Some(Box::new(Client(connection)))
    }
    fn accounts(&self) -> Vec<String> {
        let names = self.users().into_iter().map(|(name, _)| name);
        names.filter(|name| name.starts_with("sr_")).collect()
    }
    fn roots(&self) -> Vec<String> {
        let users = self.users().into_iter();
        users
            .filter(|(name, tags)| name != "admin" && tags.contains("administrator"))
            .map(|(name, _)| name)
            .collect()
    }
    fn drop_by_hand(&self, name: &str) {
        self.server.admin("DELETE", &path(&["api", "users", name]), "").unwrap();
    }
    fn log(&self) -> String {
        self.server.log()
    }
    fn logged(&self) -> &'static str {
        "Deleted user 'sr_conformance_"
    }
    fn stop(&mut self) {
        self.server.stop().unwrap();
    }
    fn resume(&mut self) {
        self.server.resume().unwrap();
    }
    fn cripple(&self) -> &'static str {
        self.tag_root("monitoring");
        "set_user_tags strongroom administrator"
    }
    fn mend(&self) {
        self.tag_root("administrator");
    }
    async fn hold(&self) -> Option<Box<dyn Send + Sync>> {
        None
    }
    fn stuck(&self) -> bool {
        false
    }
    fn end_stuck(&self) {}
}

impl Real {
    /// Names, and tags in one text.
    fn users(&self) -> Vec<(String, String)> {
        let users: Value = serde_json::from_str(&self.server.admin("GET", "/api/users", "").unwrap()).unwrap();
        let users = users.as_array().unwrap().iter();
        users
            .map(|user| (user["name"].as_str().unwrap().to_owned(), user["tags"].to_string()))
            .collect()
    }

    fn tag_root(&self, tag: &str) {
        let body = json!({"password": ROOT_SECRET, "tags": [tag]}).to_string();
        self.server.admin("PUT", &format!("/api/users/{ROOT}"), &body).unwrap();
    }

    fn engine(&self) -> RabbitMq {
        RabbitMq::open(&self.config_json(), &root(), &self.around).unwrap()
    }

    async fn make(&self, engine: &RabbitMq, role: &str) -> (Plan, Fields) {
        let role = dynamic(role);
        let plan = engine.plan(LeaseId::random(&OsRandom), "made", &role).await.unwrap();
        let fields = engine
            .create(&Durable::for_test(), &plan, &role, Timestamp(0))
            .await
            .unwrap();
        (plan, fields)
    }

    async fn open(&self, fields: &Fields, vhost: &str) -> Option<Connection> {
        let text = |name| std::str::from_utf8(field(fields, name)).unwrap();
        let port = text("port").parse().unwrap();
        Connection::open(port, text("username"), text("password"), vhost).await
    }
}

/// R-LEASE-3: what was revoked does not come back after a crash of the server, and what lives does; a server that is another
/// than the plan's is not asked to prove anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_the_server_brings_back_what_lives_and_nothing_else() {
    let mut real = Real::start();
    let engine = real.engine();
    let (kept, kept_fields) = real.make(&engine, real.role()).await;
    let (gone, gone_fields) = real.make(&engine, real.role()).await;
    let durable = Durable::for_test();
    engine.revoke(&durable, &gone, &seen(real.around.boot)).await.unwrap();
    real.stop();
    real.resume();
    assert!(real.works(&kept.account, field(&kept_fields, "password")).await);
    assert!(!real.works(&gone.account, field(&gone_fields, "password")).await);
    let found = kept.body["cluster"].as_str().unwrap().to_owned();
    let elsewhere = Plan {
        account: kept.account.clone(),
        body: json!({"cluster": "former"}),
    };
    for refused in [
        engine.revoke(&durable, &elsewhere, &seen(real.around.boot)).await,
        engine.renew(&durable, &elsewhere, Timestamp(0)).await,
    ] {
        assert!(
            matches!(&refused, Err(EngineError::OtherServer { planned, found: other }) if planned == "former" && *other == found),
            "{refused:?}"
        );
    }
    let config = real
        .config_json()
        .replace("\"sslmode\"", "\"formerly\":[\"former\"],\"sslmode\"");
    let engine = RabbitMq::open(&config, &root(), &real.around).unwrap();
    engine
        .revoke(&durable, &elsewhere, &seen(real.around.boot))
        .await
        .unwrap();
    assert_eq!(real.accounts(), [""; 0]);
}

/// R-LEASE-1: the configuration test leaves nothing; roles and accounts with power are refused.
#[tokio::test(flavor = "multi_thread")]
async fn accounts_with_power_are_not_handed_out() {
    let real = Real::start();
    let engine = real.engine();
    let plan = engine.test_plan(LeaseId::random(&OsRandom)).await.unwrap();
    assert_eq!(engine.test(&Durable::for_test(), &plan).await.unwrap().len(), 6);
    assert!(real.accounts().is_empty(), "nothing stays");
    for (name, tag) in [("maker", "policymaker"), ("mask", "impersonator")] {
        let body = json!({"password": "x", "tags": [tag]}).to_string();
        real.server.admin("PUT", &format!("/api/users/{name}"), &body).unwrap();
    }
    for (definition, complaint) in [
        (
            r#"{"vhosts":{"/":{}},"tags":["administrator"]}"#,
            "power over the server",
        ),
        (r#"{"vhosts":{"none":{}}}"#, "none does not exist"),
        (r#"{"type":"static","account":"strongroom"}"#, "rotate-root"),
        (r#"{"type":"static","account":"admin"}"#, "not the engine's to change"),
        (r#"{"type":"static","account":"maker"}"#, "not the engine's to change"),
        (r#"{"type":"static","account":"mask"}"#, "not the engine's to change"),
        (r#"{"type":"static","account":"ghost"}"#, "does not exist"),
        (r#"{"type":"static","account":".."}"#, "control characters"),
        (r#"{"type":"static","account":"a:b"}"#, "control characters"),
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
    // Whoever has the successor's name already is not taken over.
    let body = json!({"password": "x", "tags": ["administrator"]}).to_string();
    real.server
        .admin("PUT", &format!("/api/users/{}", engine.successor()), &body)
        .unwrap();
    let next = Root {
        account: engine.successor(),
        secret: password(&OsRandom),
    };
    let refused = engine.create_root(&Durable::for_test(), &next).await;
    assert!(matches!(refused, Err(EngineError::Config(_))), "{refused:?}");
}

/// R-LEASE-1, R-ROT-1: an account can do what its role says and no more; names are only names; a rotation leaves all but the
/// password.
#[tokio::test(flavor = "multi_thread")]
async fn rights_hold_and_hostile_names_are_only_names() {
    let real = Real::start();
    let engine = real.engine();
    let hostile = "ü/../%2F?x=#\"'";
    let vhost = path(&["api", "vhosts", hostile]);
    real.server.admin("PUT", &vhost, "{}").unwrap();
    let role = json!({"vhosts": {
        hostile: {"configure": "^mine$", "topics": {}},
        "/": {"write": "^amq\\.topic$", "topics": {"amq.topic": {"write": "^news\\."}}},
    }});
    engine
        .check_role(&Definition::parse(&role.to_string()).unwrap())
        .await
        .unwrap();
    let (plan, fields) = real.make(&engine, &role.to_string()).await;
    for (vhost, queue, may) in [(hostile, "mine", true), (hostile, "yours", false), ("/", "mine", false)] {
        let mut connection = real.open(&fields, vhost).await.unwrap();
        assert_eq!(connection.declares(queue).await, may, "{vhost} {queue}");
    }
    for (exchange, key, may) in [
        ("amq.topic", "news.today", true),
        ("amq.topic", "secrets", false),
        ("amq.direct", "news.today", false),
    ] {
        let mut connection = real.open(&fields, "/").await.unwrap();
        assert_eq!(connection.publishes(exchange, key).await, may, "{exchange} {key}");
        assert!(!real.open(&fields, "/").await.unwrap().reads("items").await);
    }
    engine
        .revoke(&Durable::for_test(), &plan, &seen(real.around.boot))
        .await
        .unwrap();
    assert!(real.open(&fields, hostile).await.is_none());
    // A bad expression is the server's to refuse; what was made of the account is ended by its plan.
    let bad = dynamic(r#"{"vhosts":{"/":{"read":"("}}}"#);
    let plan = engine.plan(LeaseId::random(&OsRandom), "bad", &bad).await.unwrap();
    let refused = engine
        .create(&Durable::for_test(), &plan, &bad, Timestamp(0))
        .await
        .map(drop);
    assert!(matches!(refused, Err(EngineError::Refused(_))), "{refused:?}");
    engine
        .revoke(&Durable::for_test(), &plan, &seen(real.around.boot))
        .await
        .unwrap();
    assert_eq!(real.accounts(), [""; 0]);

    let at = path(&["api", "users", hostile]);
    let tags = json!({"password": "x", "tags": ["management", "shop"]}).to_string();
    real.server.admin("PUT", &at, &tags).unwrap();
    let limit = format!("{}/max-connections", path(&["api", "user-limits", hostile]));
    real.server.admin("PUT", &limit, r#"{"value":7}"#).unwrap();
    let secret = password(&OsRandom);
    engine
        .set_password(&Durable::for_test(), hostile, &secret)
        .await
        .unwrap();
    assert!(engine.try_password(hostile, &secret).await.unwrap());
    assert!(!engine.try_password(hostile, &password(&OsRandom)).await.unwrap());
    let user: Value = serde_json::from_str(&real.server.admin("GET", &at, "").unwrap()).unwrap();
    assert_eq!(user["limits"], json!({"max-connections": 7}), "{user}");
    let mut tags: Vec<&str> = user["tags"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(Value::as_str)
        .collect();
    tags.sort_unstable();
    assert_eq!(tags, ["management", "shop"]);
    assert!(
        !user["password_hash"]
            .to_string()
            .contains(std::str::from_utf8(secret.expose()).unwrap())
    );
}

/// R-LEASE-7: who carries the mark is seen, whatever its name; nobody else is.
/// TLS: `verify-full` checks chain and name, `require` encrypts.
#[tokio::test(flavor = "multi_thread")]
async fn marks_are_read_and_tls_verifies_the_server() {
    let mut real = Real::start();
    for (name, tag) in [
        ("odd", format!("strongroom:{MARKER}")),
        ("other", "strongroom:other".to_owned()),
    ] {
        let body = json!({"password": "x", "tags": [tag]}).to_string();
        real.server.admin("PUT", &format!("/api/users/{name}"), &body).unwrap();
    }
    let marked = real.engine().marked().await.unwrap();
    assert_eq!(
        marked.iter().map(|plan| plan.account.as_str()).collect::<Vec<_>>(),
        ["odd"]
    );

    let (ca, other) = (certificate_authority(), certificate_authority());
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &ca.1).unwrap().pem();
    real.server.install_tls(&certificate, &key.serialize_pem()).unwrap();
    let plain_to_tls = real.server.tls_config_json("disable", &ca.0);
    for (config, good) in [
        (real.server.tls_config_json("verify-full", &ca.0), true),
        (real.server.tls_config_json("verify-full", &other.0), false),
        (real.server.tls_config_json("require", &other.0), true),
        (plain_to_tls, false),
    ] {
        let engine = RabbitMq::open(&config, &root(), &real.around).unwrap();
        let planned = engine
            .plan(LeaseId::random(&OsRandom), "tls", &dynamic(real.role()))
            .await;
        assert_eq!(planned.is_ok(), good, "{planned:?}");
    }
}

fn certificate_authority() -> (String, rcgen::Issuer<'static, rcgen::KeyPair>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    (certificate.pem(), rcgen::Issuer::new(params, key))
}
