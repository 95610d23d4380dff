//! The engine on a real Redis.

use super::{
    Redis,
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
        Definition, Engine, EngineError, Kind, Root, Surroundings,
        conformance::{Bench, Piped, Session, around, conformance, dynamic, field, seen, unseen},
    },
    lease::Durable,
};

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

/// By `redis-cli`. It connects anew when its connection was closed, and so asks again whether the password works.
struct Client(Piped, String);

#[async_trait::async_trait]
impl Session for Client {
    async fn alive(&mut self) -> bool {
        let id = self.0.ask("CLIENT ID").await.unwrap_or_default();
        if self.1.is_empty() {
            self.1.clone_from(&id);
        }
        // The same connection as at the beginning.
        id.parse::<u64>().is_ok() && self.1 == id
    }
    async fn works(&mut self) -> bool {
        self.0.ask("GET items").await.as_deref() == Some("3")
    }
}

#[async_trait::async_trait]
impl Bench for Real {
    const KIND: Kind = Kind::Redis;
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
        r#"{"rules":["~items","+get","+ping","+client|id"]}"#
    }
    fn account(&self) -> &'static str {
        "app"
    }
    async fn log_in(&self, name: &str, secret: &[u8]) -> Option<Box<dyn Session>> {
        let mut client = Client(
            self.server.session(name, std::str::from_utf8(secret).unwrap()),
            String::new(),
        );
        client.alive().await.then(|| Box::new(client) as Box<dyn Session>)
    }
    fn accounts(&self) -> Vec<String> {
        let mut names = self.users();
        names.retain(|name| name.starts_with("sr_"));
        names
    }
    fn roots(&self) -> Vec<String> {
        let mut names = self.users();
        names.retain(|name| {
            let user = self.server.admin(&["ACL", "GETUSER", name]).unwrap();
            name != "admin" && user.contains("+acl|setuser")
        });
        names
    }
    fn drop_by_hand(&self, name: &str) {
        self.server.admin(&["ACL", "DELUSER", name]).unwrap();
    }
    fn log(&self) -> String {
        self.server.log()
    }
    fn logged(&self) -> &'static str {
        "DELUSER\nsr_conformance_"
    }
    fn stop(&mut self) {
        self.server.stop().unwrap();
    }
    fn resume(&mut self) {
        self.server.resume().unwrap();
    }
    fn cripple(&self) -> &'static str {
        self.server.admin(&["ACL", "SETUSER", ROOT, "-client|kill"]).unwrap();
        "+client|kill"
    }
    fn mend(&self) {
        self.server.admin(&["ACL", "SETUSER", ROOT, "+client|kill"]).unwrap();
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
    fn users(&self) -> Vec<String> {
        let out = self.server.admin(&["ACL", "USERS"]).unwrap();
        out.lines().map(str::to_owned).collect()
    }

    fn engine(&self) -> Redis {
        Redis::open(&self.config_json(), &root(), &self.around).unwrap()
    }
}

/// R-LEASE-3: what was revoked does not come back with the server's next start, and what lives does.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_brings_back_what_lives_and_nothing_else() {
    let mut real = Real::start();
    let engine = real.engine();
    let role = dynamic(real.role());
    let durable = Durable::for_test();
    let expires = SystemClock::default().now().plus_secs(600);
    let mut made = Vec::new();
    for name in ["stays", "goes"] {
        let plan = engine.plan(LeaseId::random(&OsRandom), name, &role).await.unwrap();
        let fields = engine.create(&durable, &plan, &role, expires).await.unwrap();
        made.push((plan, fields));
    }
    engine
        .revoke(&durable, &made[1].0, &seen(real.around.boot))
        .await
        .unwrap();
    let saved = real.server.saved();
    assert!(saved.contains(&made[0].0.account) && !saved.contains(&made[1].0.account));
    real.stop();
    real.resume();
    assert!(real.works(&made[0].0.account, field(&made[0].1, "password")).await);
    assert!(!real.works(&made[1].0.account, field(&made[1].1, "password")).await);
}

/// R-LEASE-1: each right that is missing is named with its remedy; accounts and rules with power are not handed out.
#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_test_names_what_is_missing() {
    let real = Real::start();
    let try_it = async || {
        let engine = real.engine();
        let plan = engine.test_plan(LeaseId::random(&OsRandom)).await?;
        engine.test(&Durable::for_test(), &plan).await
    };
    assert_eq!(try_it().await.unwrap().len(), 6);
    assert!(real.accounts().is_empty(), "nothing stays");
    for right in [
        "acl|setuser",
        "acl|deluser",
        "acl|getuser",
        "acl|list",
        "acl|save",
        "client|list",
        "client|kill",
    ] {
        real.server
            .admin(&["ACL", "SETUSER", ROOT, &format!("-{right}")])
            .unwrap();
        let error = try_it().await.unwrap_err().to_string();
        assert!(error.contains(&format!("+{right}")), "{right}: {error}");
        real.server
            .admin(&["ACL", "SETUSER", ROOT, &format!("+{right}")])
            .unwrap();
    }
    let engine = real.engine();
    for (definition, complaint) in [
        (r#"{"rules":["~*","+@all"]}"#, "power over the server"),
        (r#"{"rules":["~*",">clear"]}"#, "only ~keys"),
        (r#"{"type":"static","account":"strongroom"}"#, "rotate-root"),
        (r#"{"type":"static","account":"admin"}"#, "not the engine's to change"),
        (r#"{"type":"static","account":"ghost"}"#, "does not exist"),
        (r#"{"type":"static","account":"two words"}"#, "without spaces"),
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
    assert!(stranger.alive().await);
    let earlier = BootId::random(&OsRandom);
    engine
        .revoke(&Durable::for_test(), &plan, &unseen(earlier, true))
        .await
        .unwrap();
    assert!(!stranger.alive().await);
}

/// TLS: `verify-full` checks chain and name, `require` encrypts.
#[tokio::test(flavor = "multi_thread")]
async fn tls_verifies_the_server() {
    let mut real = Real::start();
    let (ca, other) = (certificate_authority(), certificate_authority());
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &ca.1).unwrap().pem();
    real.server.install_tls(&certificate, &key.serialize_pem()).unwrap();
    let with = |mode: &str, pem: &str| {
        let ca = serde_json::to_string(pem).unwrap();
        real.config_json().replace(
            "\"sslmode\":\"disable\"",
            &format!("\"sslmode\":\"{mode}\",\"ca_pem\":{ca}"),
        )
    };
    for (config, good) in [
        (with("verify-full", &ca.0), true),
        (with("verify-full", &other.0), false),
        (with("require", &other.0), true),
        (real.config_json(), false),
    ] {
        let engine = Redis::open(&config, &root(), &real.around).unwrap();
        let role = dynamic(real.role());
        let planned = engine.plan(LeaseId::random(&OsRandom), "tls", &role).await;
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
