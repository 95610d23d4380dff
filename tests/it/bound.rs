//! Tokens that are bound to a key (R-AUTH-3): of no use to a thief, on any call.

use crate::{
    login::{Issuer, jwk, now, put_trust, sign},
    world::{World, failure, value},
};
use data_encoding::BASE64URL_NOPAD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    PKCS_ECDSA_P256_SHA256,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{fs, path::Path, time::Duration};
use strongroom_client::{Client, Error, v1};
use strongroom_tests::Lab;
use tonic::Request;

/// A certificate for `name` by `ca`, as `FILE.pem` and `FILE.key`.
fn certificate(dir: &Path, ca: &CertifiedIssuer<'_, KeyPair>, file: &str, name: &str) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, ca).unwrap();
    fs::write(dir.join(format!("{file}.pem")), certificate.pem()).unwrap();
    fs::write(dir.join(format!("{file}.key")), key.serialize_pem()).unwrap();
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// R-AUTH-1, R-AUTH-3: a service logs in by its certificate; the token works with that certificate and with nothing else: not without one,
/// not with another of the same name, not on the Unix socket, not to show, renew or revoke it.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_logs_in_and_its_token_is_bound() {
    let world = World::open();
    let (dir, ca) = (world.lab.dir(), authority());
    certificate(dir, &ca, "pay", "pay.example.com");
    certificate(dir, &ca, "twin", "pay.example.com");
    certificate(dir, &ca, "other", "other.example.com");
    certificate(dir, &authority(), "stranger", "pay.example.com");
    let bind = json!([{"dns": "pay.example.com", "groups": ["pay"]}]);
    for (name, max) in [("services", 900), ("stored", 3600)] {
        let token = json!({"ttl_secs": 900, "max_ttl_secs": max});
        put_trust(
            &world,
            name,
            &json!({"certificate": {"ca_pem": ca.pem(), "bind": bind}, "token": token}),
        );
    }
    world.put_policy(
        "pay",
        r#"permit(principal in S::Group::"pay", action == S::Action::"read", resource in S::Path::"kv/pay");"#,
    );
    world.client().await.put("kv/pay/a", &value("x"), None).await.unwrap();
    let path = |file: &str| dir.join(file).display().to_string();
    let with = |token: Option<&str>, file: Option<&str>, args: &[&str]| {
        let mut cli = world.lab.cli().over_tls(&world.lab);
        if let Some(token) = token {
            cli = cli.with_token(token);
        }
        let mut all = vec!["--output", "json"];
        all.extend(args);
        let files = file.map(|file| (path(&format!("{file}.pem")), path(&format!("{file}.key"))));
        if let Some((cert, key)) = &files {
            all.extend(["--client-cert", cert, "--client-key", key]);
        }
        cli.run(&all)
    };
    for refused in [None, Some("other"), Some("stranger")] {
        let ran = with(None, refused, &["login", "certificate", "services", "--show"]);
        assert_eq!(failure(&ran)["reason"], "LOGIN_REFUSED", "{refused:?}");
    }
    for trust in ["services", "stored"] {
        let ran = with(None, Some("pay"), &["login", "certificate", trust, "--show"]);
        let got: Value = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
        assert_eq!(
            (got["groups"][0].clone(), got["sealed"].clone()),
            ("pay".into(), (trust == "services").into())
        );
        let bearer = text(&got["token"]);
        let accessor = text(&got["accessor"]);
        let token = Some(bearer.as_str());
        assert_eq!(with(token, Some("pay"), &["kv", "get", "kv/pay/a"]).code, 0);
        for thief in [None, Some("twin"), Some("other")] {
            for args in [
                &["kv", "get", "kv/pay/a"][..],
                &["token", "show"],
                &["token", "renew"],
                &["token", "revoke", "--own"],
                &["token", "revoke", &accessor, "--session"],
                &["token", "create"],
            ] {
                assert_eq!(
                    failure(&with(token, thief, args))["reason"],
                    "POSSESSION",
                    "{thief:?} {args:?}"
                );
            }
        }
        let local = world
            .lab
            .cli()
            .with_token(&bearer)
            .run(&["--output", "json", "kv", "get", "kv/pay/a"]);
        assert_eq!(failure(&local)["reason"], "POSSESSION");
        assert_eq!(with(token, Some("pay"), &["token", "revoke", "--own"]).code, 0);
        assert_eq!(
            failure(&with(token, Some("pay"), &["kv", "get", "kv/pay/a"]))["reason"],
            "TOKEN_INVALID"
        );
    }
    let issuer = Issuer::new("bound");
    put_trust(&world, "bound", &issuer.trust(&["pay"]));
    let files = (path("other.pem"), path("other.key"));
    let jwt = issuer.token("b1", json!({}));
    let args = [
        "--output",
        "json",
        "login",
        "jwt",
        "-",
        "--show",
        "--bind",
        "--client-cert",
        &files.0,
        "--client-key",
        &files.1,
    ];
    let ran = world.lab.cli().over_tls(&world.lab).run_with(&args, jwt.as_bytes());
    let token =
        text(&serde_json::from_str::<Value>(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"))["token"]);
    assert_eq!(
        with(Some(&token), Some("other"), &["kv", "get", "kv/pay/a"]).code,
        0,
        "any certificate can be bound to"
    );
    assert_eq!(
        failure(&with(Some(&token), Some("pay"), &["kv", "get", "kv/pay/a"]))["reason"],
        "POSSESSION"
    );
}

/// A key that signs DPoP proofs.
struct Holder {
    key: KeyPair,
    origin: String,
    jti: std::cell::Cell<u64>,
}

impl Holder {
    fn claims(&self, path: &str, token: Option<&str>) -> Value {
        self.jti.set(self.jti.get() + 1);
        let mut claims = json!({
            "htm": "POST", "htu": format!("{}{path}", self.origin), "iat": now(), "jti": format!("p{}", self.jti.get()),
        });
        if let Some(token) = token {
            claims["ath"] = BASE64URL_NOPAD.encode(&Sha256::digest(token.as_bytes())).into();
        }
        claims
    }
    fn sign(&self, claims: &Value) -> String {
        sign(
            &self.key,
            &json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk(&self.key)}),
            claims,
        )
    }
    fn proof(&self, path: &str, token: Option<&str>) -> String {
        self.sign(&self.claims(path, token))
    }
}

async fn read(client: &Client, proofs: &[&str]) -> Result<(), Error> {
    let message = v1::KvGetRequest {
        path: "kv/pay/a".to_owned(),
        ..Default::default()
    };
    let mut request = Request::new(message);
    for proof in proofs {
        request.metadata_mut().append("dpop", proof.parse().unwrap());
    }
    let answer = client.stubs().kv().get(request).await;
    answer.map(drop).map_err(|status| client.error(&status))
}

const GET: &str = "/strongroom.v1.Kv/Get";

/// R-AUTH-3, RFC 9449: a token bound to a DPoP key needs a fresh proof of it for every call; each thing wrong with a proof alone refuses.
#[tokio::test(flavor = "multi_thread")]
async fn a_dpop_token_needs_a_fresh_proof_for_each_call() {
    let mut lab = Lab::with_tokens(&[]);
    let origin = format!("https://localhost:{}", lab.address.port());
    lab.listener = format!("origin = \"{origin}\"\ndpop_nonce = \"off\"");
    let world = World::opened(lab);
    // Proofs of the first seconds may have been taken by the run before: none of them is taken.
    tokio::time::sleep(Duration::from_millis(3100)).await;
    let issuer = Issuer::new("dpop");
    put_trust(&world, "dpop", &issuer.trust(&["pay"]));
    world.put_policy(
        "pay",
        r#"permit(principal in S::Group::"pay", action == S::Action::"read", resource in S::Path::"kv/pay");"#,
    );
    world.client().await.put("kv/pay/a", &value("x"), None).await.unwrap();
    let holder = |origin: &str| Holder {
        key: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
        origin: origin.to_owned(),
        jti: std::cell::Cell::new(0),
    };
    let (mine, thief) = (holder(&origin), holder(&origin));
    let stranger = world.client_builder().token("x").connect().await.unwrap();
    let log_in = |proof: Option<String>, jti: &str| {
        let message = v1::LoginRequest {
            proof: Some(v1::login_request::Proof::Jwt(issuer.token(jti, json!({})))),
            binding: v1::LoginBinding::Dpop.into(),
            ..Default::default()
        };
        let mut request = Request::new(message);
        if let Some(proof) = proof {
            request.metadata_mut().insert("dpop", proof.parse().unwrap());
        }
        // Without a token: a proof for a log-in is over none.
        let world = &world;
        async move { bare(world).await.login(request).await.map(tonic::Response::into_inner) }
    };
    assert!(log_in(None, "d0").await.is_err(), "no proof, no binding");
    let login = "/strongroom.v1.Login/Login";
    let done = log_in(Some(mine.proof(login, None)), "d1").await.unwrap();
    stranger.set_token(done.token.as_str()).unwrap();
    let token = Some(done.token.as_str());
    let client = stranger;
    read(&client, &[&mine.proof(GET, token)]).await.unwrap();
    let used = mine.proof(GET, token);
    read(&client, &[&used]).await.unwrap();
    let with = |name: &str, to: Value| {
        let mut claims = mine.claims(GET, token);
        claims[name] = to;
        mine.sign(&claims)
    };
    let elsewhere = format!("https://vault.example.com{GET}");
    for (what, proofs) in [
        ("none", Vec::new()),
        ("used before", vec![used.clone()]),
        ("two", vec![mine.proof(GET, token), mine.proof(GET, token)]),
        ("of another key", vec![thief.proof(GET, token)]),
        (
            "for another method of ours",
            vec![mine.proof("/strongroom.v1.Kv/Put", token)],
        ),
        ("for another token", vec![mine.proof(GET, Some("srm_at_x"))]),
        ("over no token", vec![mine.proof(GET, None)]),
        ("for another host", vec![with("htu", elsewhere.into())]),
        ("for GET", vec![with("htm", "GET".into())]),
        ("old", vec![with("iat", (now() - 120).into())]),
        ("of tomorrow", vec![with("iat", (now() + 86_400).into())]),
        ("rubbish", vec!["a.b.c".to_owned()]),
    ] {
        let proofs: Vec<_> = proofs.iter().map(String::as_str).collect();
        let error = read(&client, &proofs).await.unwrap_err();
        assert_eq!(error.reason(), Some("POSSESSION"), "a proof {what}");
    }
    read(&client, &[&mine.proof(GET, token)]).await.unwrap();
    let revoke = |proof: Option<String>| {
        let mut request = Request::new(v1::TokenRevokeRequest::default());
        if let Some(proof) = proof {
            request.metadata_mut().insert("dpop", proof.parse().unwrap());
        }
        let client = client.clone();
        async move {
            client
                .stubs()
                .token()
                .revoke(request)
                .await
                .map_err(|status| client.error(&status))
        }
    };
    assert_eq!(
        revoke(None).await.unwrap_err().reason(),
        Some("POSSESSION"),
        "not even to revoke it"
    );
    revoke(Some(mine.proof("/strongroom.v1.Token/Revoke", token)))
        .await
        .unwrap();
    let error = read(&client, &[&mine.proof(GET, token)]).await.unwrap_err();
    assert_eq!(error.reason(), Some("TOKEN_INVALID"));
}

/// R-AUTH-3: `login --dpop` makes a key and binds the token to it; the commands prove it by themselves, and the token without it is of no use.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_binds_and_proves_by_itself() {
    let mut lab = Lab::with_tokens(&[]);
    lab.listener = format!("origin = \"https://localhost:{}\"", lab.address.port());
    let world = World::opened(lab);
    let issuer = Issuer::new("dpop");
    put_trust(&world, "dpop", &issuer.trust(&["pay"]));
    world.put_policy(
        "pay",
        r#"permit(principal in S::Group::"pay", action == S::Action::"read", resource in S::Path::"kv/pay");"#,
    );
    world.client().await.put("kv/pay/a", &value("x"), None).await.unwrap();
    let key = world.lab.dir().join("proof.key").display().to_string();
    let cli = || world.lab.cli().over_tls(&world.lab);
    let args = [
        "--output",
        "json",
        "login",
        "jwt",
        "-",
        "--show",
        "--dpop",
        "--proof-key",
        &key,
    ];
    let ran = cli().run_with(&args, issuer.token("c1", json!({})).as_bytes());
    let got: Value = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
    let token = text(&got["token"]);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&key).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let get = ["--output", "json", "kv", "get", "kv/pay/a"];
    for _ in 0..2 {
        assert_eq!(
            cli()
                .with_token(&token)
                .run(&[&get[..], &["--proof-key", &key]].concat())
                .code,
            0
        );
    }
    assert_eq!(failure(&cli().with_token(&token).run(&get))["reason"], "POSSESSION");
    let (_, other) = strongroom_client::ProofKey::generate().unwrap();
    let theirs = world.lab.dir().join("other.key").display().to_string();
    fs::write(&theirs, other.as_bytes()).unwrap();
    fs::set_permissions(&theirs, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let loose = cli()
        .with_token(&token)
        .run(&[&get[..], &["--proof-key", &theirs]].concat());
    assert!(
        loose.err.contains("read by others") || loose.out.contains("read by others"),
        "{loose:?}"
    );
    fs::set_permissions(&theirs, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let stolen = cli()
        .with_token(&token)
        .run(&[&get[..], &["--proof-key", &theirs]].concat());
    assert_eq!(failure(&stolen)["reason"], "POSSESSION");
    let local = world
        .lab
        .cli()
        .with_token(&token)
        .run(&[&get[..], &["--proof-key", &key]].concat());
    assert!(
        failure(&local)["message"].as_str().unwrap().contains("TLS"),
        "{local:?}"
    );
}

/// The log-in service, over a connection without a token.
async fn bare(world: &World) -> v1::login_client::LoginClient<strongroom_client::Transport> {
    let address = format!("https://localhost:{}", world.lab.address.port());
    let client = Client::builder()
        .address(address)
        .ca_file(world.lab.ca())
        .connect()
        .await
        .unwrap();
    client.stubs().login()
}

/// A world that lets few reads through, and in the file `token` a token that reads `kv/bound` and is bound to the key in the file `key`.
pub fn slow_world(key: &Path, token: &Path) -> World {
    let mut lab = Lab::with_tokens(&[]);
    lab.listener = format!("origin = \"https://localhost:{}\"", lab.address.port());
    lab.extra = "[limits.rates]\nreads_per_token = \"20/m burst 8\"\n".to_owned();
    let world = World::opened(lab);
    let issuer = Issuer::new("bound");
    put_trust(&world, "bound", &issuer.trust(&["bound"]));
    world.put_policy(
        "bound",
        r#"permit(principal in S::Group::"bound", action == S::Action::"read", resource in S::Path::"kv/bound");"#,
    );
    world.cli().ok_with(&["kv", "put", "kv/bound/a", "-"], b"x");
    fs::set_permissions(key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let key = key.display().to_string();
    let args = [
        "--output",
        "json",
        "login",
        "jwt",
        "-",
        "--show",
        "--dpop",
        "--proof-key",
        &key,
    ];
    let ran = world
        .lab
        .cli()
        .over_tls(&world.lab)
        .run_with(&args, issuer.token("b1", json!({})).as_bytes());
    let got: Value = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
    fs::write(token, text(&got["token"])).unwrap();
    fs::set_permissions(token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    world
}
