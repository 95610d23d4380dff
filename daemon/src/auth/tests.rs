use super::{trust::Times, *};
use crate::{
    base::{
        random::OsRandom,
        time::{ManualClock, Timestamp},
    },
    policy::{
        Action, Claim, Purpose,
        testing::{self as permits, permit_under},
    },
    store::{Change, testing},
};
use serde_json::{Value, json};
use std::net::Ipv4Addr;

const VECTORS: &str = include_str!("../../../tests/vectors/tokens/tokens.json");

pub(super) fn whole(text: &str, check_only: bool) -> Put<'_> {
    Put {
        text,
        client_secret: None,
        cas: None,
        check_only,
    }
}

pub(super) struct Lab {
    store: Arc<Store>,
    tokens: Arc<TokenRoom>,
    pub(super) room: AuthRoom,
    clock: Arc<ManualClock>,
}

impl Lab {
    pub(super) async fn at(secs: u64) -> Self {
        Self::over(
            testing::store().await,
            Arc::new(ManualClock::at(Timestamp(secs * 1000))),
        )
        .await
    }
    async fn over(store: Arc<Store>, clock: Arc<ManualClock>) -> Self {
        let tokens = TokenRoom::load(&store, clock.clone(), Arc::new(OsRandom))
            .await
            .unwrap();
        let tokens = Arc::new(tokens);
        let room = AuthRoom::load(&store, Arc::clone(&tokens), clock.clone(), Arc::new(OsRandom))
            .await
            .unwrap();
        Self {
            store,
            tokens,
            room,
            clock,
        }
    }
    pub(super) async fn commit(&self, change: Change) {
        self.store.commit(change, Vec::new()).await.unwrap();
    }
    pub(super) async fn put(&self, name: &str, definition: &Value) -> Result<Written, AuthError> {
        let path = format!("sys/trust/{name}");
        let permit = permits::permit(Action::TrustWrite, &path);
        let text = definition.to_string();
        let put = self.room.put(&permit, name, &whole(&text, false)).await?;
        self.commit(put.0).await;
        Ok(put.1)
    }
    async fn jwt(&self, trust: &str, text: &str) -> Result<Recognised, Refused> {
        let proof = Proof::Jwt(SecretBytes::from(text.as_bytes()));
        let recognised = self.room.recognise(trust, &proof, &Connection::default(), None).await;
        recognised.map_err(|unrecognised| unrecognised.refused)
    }
}

/// R-AUTH-2: 193 tokens that an independent library (joserfc) or a hand made: those of seven platforms pass, 171 hostile ones meet exactly
/// the refusal that is theirs. They are those of `tests/jose/rows.json`, at a time that stands still.
#[tokio::test]
async fn hostile_tokens_meet_their_refusal() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let now = vectors["now_secs"].as_u64().unwrap();
    // Trusts are older than the tokens.
    let lab = Lab::at(now - 20_000).await;
    lab.room.recalled();
    for (name, definition) in vectors["trusts"].as_object().unwrap() {
        lab.put(name, definition).await.unwrap();
    }
    lab.clock.jump_to(Timestamp(now * 1000));
    let (mut refused, mut wrong) = (0, Vec::new());
    for case in vectors["cases"].as_array().unwrap() {
        let text = |name: &str| case[name].as_str().unwrap();
        let got = match lab.jwt(text("trust"), text("token")).await {
            Ok(_) => "ok",
            Err(refused) => refused.word(),
        };
        refused += usize::from(text("expect") != "ok");
        if got != text("expect") {
            wrong.push(format!("{}: {got}, not {}", text("name"), text("expect")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(refused >= 170, "{refused}");
}

/// R-AUTH-2: what a believed token gives: groups of the bindings, claims as attributes, an id that follows from issuer and subject.
#[tokio::test]
async fn a_token_becomes_groups_and_claims() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let now = vectors["now_secs"].as_u64().unwrap();
    let lab = Lab::at(now - 20_000).await;
    lab.room.recalled();
    lab.put("github", &vectors["trusts"]["github"]).await.unwrap();
    lab.put("kubernetes", &vectors["trusts"]["kubernetes"]).await.unwrap();
    lab.clock.jump_to(Timestamp(now * 1000));
    let token = |name: &str| {
        let cases = vectors["cases"].as_array().unwrap();
        let case = cases.iter().find(|case| case["name"] == name).unwrap();
        case["token"].as_str().unwrap().to_owned()
    };
    let arrival = lab.jwt("", &token("github, environment")).await.unwrap().arrival;
    assert_eq!(arrival.groups, ["ci-deploy".to_owned()].into());
    assert_eq!(arrival.attributes["claim:repository_id"], "4711");
    assert_eq!(arrival.attributes["login:trust"], "github");
    assert!(!arrival.attributes.contains_key("claim:aud"));
    let pod = lab.jwt("", &token("kubernetes, ES256")).await.unwrap().arrival;
    assert_eq!(pod.attributes["claim:kubernetes.io/serviceaccount/uid"], "uid-1");
    let one = lab.tokens.arrive(arrival.clone()).unwrap();
    let other = lab.tokens.arrive(Arrival {
        subject: "somebody else".to_owned(),
        ..arrival.clone()
    });
    assert_ne!(one.identity().id(), other.unwrap().identity().id());
    assert_eq!(one.identity().id(), lab.tokens.arrive(arrival).unwrap().identity().id());
}

fn github(bind: &Value) -> Value {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let mut trust = vectors["trusts"]["github"].clone();
    trust["jwt"]["bind"] = bind.clone();
    trust
}

/// Trusts that are too wide, and a part of what must be said of each.
fn wide() -> Vec<(Value, &'static str)> {
    let one = |claims: Value| github(&json!([{"claims": claims, "groups": ["g"]}]));
    let with = |key: &str, value: Value| {
        let mut trust = one(json!({"repository_id": "1", "ref": "refs/heads/main"}));
        trust["jwt"][key] = value;
        trust
    };
    let platform = |platform: &str, claims: Value| {
        let mut trust = one(claims);
        trust["jwt"]["platform"] = platform.into();
        trust
    };
    vec![
        (github(&json!([])), "nobody may log in"),
        (one(json!({})), "bind `repository_id`"),
        (
            one(json!({"repository": "acme/pay", "ref": "refs/heads/main"})),
            "taken over after a rename",
        ),
        (
            one(json!({"repository_owner_id": "7", "environment": "prod"})),
            "bind `repository_id`",
        ),
        (one(json!({"repository_id": "1"})), "every branch"),
        (
            one(json!({"repository_id": "1", "ref": "refs/heads/*"})),
            "no wildcards",
        ),
        (one(json!({"repository_id": "1", "ref": ""})), "1 to 512 bytes"),
        (one(json!({"repository_id": "1", "ref": []})), "1 to 32 values"),
        (
            one(json!({"repository_id": "1", "environment": "p", "event_name": "pull_request_target"})),
            "strangers",
        ),
        (
            one(json!({"repository_id": "1", "environment": "p", "event_name": ["push", "workflow_run"]})),
            "strangers",
        ),
        (
            one(json!({"repository_id": "1", "environment": "p", "event_name": "pull_request"})),
            "repository_visibility",
        ),
        (
            one(
                json!({"repository_id": "1", "environment": "p", "event_name": "pull_request", "repository_visibility": ["private", "public"]}),
            ),
            "repository_visibility",
        ),
        (
            one(json!({"repository_id": "1", "job_workflow_ref": "a/b/.github/workflows/c.yml@main"})),
            "full commit hash",
        ),
        (
            one(json!({"repository_id": "1", "ref": "r", "aud": "x"})),
            "binds nobody",
        ),
        (
            with("audience", "https://github.com/acme".into()),
            "choose one of your own",
        ),
        (with("audience", "".into()), "audience"),
        (
            with("audience", "https://token.actions.githubusercontent.com".into()),
            "everybody",
        ),
        (with("max_age_secs", 90_000.into()), "60 to 86400"),
        (
            with("keys", json!({"fetch": {"url": "http://keys.example.com/"}})),
            "https://HOST/PATH",
        ),
        (
            with(
                "keys",
                json!({"fetch": {"url": "https://keys.example.com/", "ca_pem": "x"}}),
            ),
            "no certificate",
        ),
        (with("keys", json!({"static": {"jwks": {"keys": []}}})), "no key"),
        (
            with(
                "keys",
                json!({"static": {"jwks": {"keys": [{"kty": "oct", "k": "AAAA"}]}}}),
            ),
            "only public keys",
        ),
        (
            platform("gitlab", json!({"namespace_id": "5", "ref": "main"})),
            "bind `project_id`",
        ),
        (platform("gitlab", json!({"project_id": "5"})), "every branch"),
        (
            platform("gitlab", json!({"project_id": "5", "ref_protected": true})),
            "as text",
        ),
        (
            platform(
                "gitlab",
                json!({"project_id": "5", "ref": "m", "pipeline_source": "merge_request_event"}),
            ),
            "merge requests",
        ),
        (
            platform("circleci", json!({"sub": "x", "oidc.circleci.com/vcs-ref": "r"})),
            "project-id",
        ),
        (
            platform("circleci", json!({"oidc.circleci.com/project-id": "p"})),
            "every branch",
        ),
        (platform("jenkins", json!({"build_number": 1})), "bind `sub`"),
        (
            platform("kubernetes", json!({"sub": "system:serviceaccount:a:b"})),
            "serviceaccount/uid",
        ),
        (
            platform("buildkite", json!({"pipeline_slug": "p", "build_branch": "main"})),
            "bind `pipeline_id`",
        ),
        (platform("generic", json!({"email": "a@example.com"})), "bind `sub`"),
    ]
}

/// R-AUTH-2: a trust that is too wide is refused when it is written, and says why; nothing of it is kept.
#[tokio::test]
async fn wide_trusts_are_refused_with_reasons() {
    let lab = Lab::at(1_795_000_000).await;
    for (trust, reason) in wide() {
        let error = lab.put("wide", &trust).await.unwrap_err().to_string();
        assert!(error.contains(reason), "{reason}: {error}");
    }
    assert!(lab.room.trust("wide").is_none());
}

/// R-AUTH-2: what is no trust is refused; one trust an issuer; what was written is there again.
#[tokio::test]
async fn trusts_are_parsed_strictly_and_kept() {
    let lab = Lab::at(1_795_000_000).await;
    for (trust, reason) in [
        (json!({"jwt": 1}), "not understood"),
        (json!({}), "exactly one method"),
        (
            json!({"unix": {"bind": [{"uid": 1}]}, "role": {"groups": ["g"]}}),
            "exactly one method",
        ),
        (
            json!({"unix": {"bind": [{"uid": 1, "groups": ["Bad Group"]}]}}),
            "a name is",
        ),
        (json!({"unix": {"bind": [{"uid": 1}, {"uid": 1}]}}), "twice"),
        (
            json!({"unix": {"bind": [{"uid": 1}]}, "token": {"ttl_secs": 90_000}}),
            "24 hours",
        ),
        (json!({"unix": {"bind": [{"uid": 1}]}, "tokens": {}}), "not understood"),
        (
            json!({"role": {"groups": [], "networks": ["10.0.0.1/8"]}}),
            "not understood",
        ),
    ] {
        let error = lab.put("wrong", &trust).await.unwrap_err().to_string();
        assert!(error.contains(reason), "{reason}: {error}");
    }
    assert!(lab.room.trust("wrong").is_none());
    let claims = json!({"repository_id": "1", "ref": ["refs/heads/main", "refs/heads/release"]});
    let good = github(&json!([{"claims": claims, "groups": ["g"]}]));
    lab.put("good", &good).await.unwrap();
    assert!(matches!(lab.put("second", &good).await, Err(AuthError::IssuerTaken(name)) if name == "good"));
    assert_eq!(lab.put("good", &good).await.unwrap().version, 2);
    let again = Lab::over(lab.store, lab.clock).await;
    assert_eq!(again.room.trust("good").unwrap().times.version, 2, "stored");
}

/// R-AUTH-1: nobody hands out through a trust what is not theirs; a repeated key is no definition.
#[tokio::test]
async fn whoever_writes_a_trust_gives_only_what_is_theirs() {
    let lab = Lab::at(1_795_000_000).await;
    let writer = r#"permit(principal, action == S::Action::"trust_write", resource in S::Path::"sys/trust");
        permit(principal, action == S::Action::"token_create", resource == S::Path::"sys/group/guests");"#;
    let caller = permits::caller("ann", &["own"], Purpose::Session);
    let permit = permit_under(writer, &caller, Action::TrustWrite, "sys/trust/t", Claim::Policy).unwrap();
    for (groups, good) in [
        (json!(["own"]), true),
        (json!(["own", "guests"]), true),
        (json!(["own", "admins"]), false),
    ] {
        let text = json!({"unix": {"bind": [{"uid": 7, "groups": groups}]}}).to_string();
        let put = lab.room.put(&permit, "t", &whole(&text, true)).await;
        assert_eq!(put.is_ok(), good, "{text}");
    }
    let twice = r#"{"unix":{"bind":[{"uid":7,"groups":[],"groups":["own"]}]}}"#;
    assert!(lab.room.put(&permit, "t", &whole(twice, true)).await.is_err());
    assert!(
        lab.room.put(&permit, "u", &whole("{}", true)).await.is_err(),
        "another trust"
    );
    assert!(lab.room.trust("t").is_none(), "checked only");
}

/// R-AUTH-1: a Unix peer logs in as what the kernel says it is, and nobody over TLS.
#[tokio::test]
async fn a_unix_peer_is_whom_the_kernel_names() {
    let lab = Lab::at(1_795_000_000).await;
    let trust = json!({"unix": {"bind": [{"uid": 1000, "groups": ["apps"]}]}});
    lab.put("local", &trust).await.unwrap();
    let by = |uid, trust: &'static str| {
        let from = Connection {
            uid,
            ..Connection::default()
        };
        let lab = &lab;
        async move {
            let found = lab.room.recognise(trust, &Proof::Peer, &from, None).await;
            found.map(|found| found.arrival.groups).map_err(|error| error.refused)
        }
    };
    assert_eq!(by(Some(1000), "local").await, Ok(["apps".to_owned()].into()));
    assert_eq!(by(Some(0), "local").await, Err(Refused::NoBinding));
    assert_eq!(by(None, "local").await, Err(Refused::Peer));
    assert_eq!(by(Some(1000), "other").await, Err(Refused::NoTrust));
}

/// R-AUTH-1: a secret id logs in once, from where it may, while it lives; a copy is noticed and names the session that used it first.
#[tokio::test]
async fn a_secret_id_is_good_once() {
    let lab = Lab::at(1_795_000_000).await;
    lab.put(
        "app",
        &json!({"role": {"groups": ["app"], "networks": ["10.0.0.0/8", "127.0.0.0/8"]}}),
    )
    .await
    .unwrap();
    lab.put("other", &json!({"role": {"groups": ["other"]}})).await.unwrap();
    let make = |networks: &[&str]| {
        let networks: Vec<_> = networks.iter().map(|network| (*network).to_owned()).collect();
        let permit = permits::permit(Action::TrustWrite, "sys/trust/app");
        lab.room.make_secret(&permit, "app", 60, &networks).unwrap()
    };
    let log_in = |role_id: TrustId, secret: String, ip: Option<[u8; 4]>| {
        let proof = Proof::Role {
            role_id,
            secret_id: SecretBytes::from(secret.as_bytes()),
        };
        let from = Connection {
            ip: ip.map(|ip| Ipv4Addr::from(ip).into()),
            ..Connection::default()
        };
        let room = &lab.room;
        async move { room.recognise("", &proof, &from, None).await }
    };
    let (change, made) = make(&["10.1.0.0/16"]);
    let text = made.text.expose().to_owned();
    let inside = Some([10, 1, 2, 3]);
    let refused = |result: Result<Recognised, Unrecognised>| result.unwrap_err().refused;
    assert_eq!(
        refused(log_in(made.role_id, text.clone(), inside).await),
        Refused::Secret,
        "not committed"
    );
    lab.commit(change).await;
    for (role_id, secret, ip, want) in [
        (crate::token::trust_id("other"), text.clone(), inside, Refused::Secret),
        (TrustId::from_bytes([0; 16]), text.clone(), inside, Refused::Secret),
        (made.role_id, text[..50].to_owned(), inside, Refused::Secret),
        (
            made.role_id,
            "srm_at_00000000000000000000000000000000000000000002j02ey".to_owned(),
            inside,
            Refused::Secret,
        ),
        (made.role_id, text.clone(), Some([10, 2, 0, 1]), Refused::Network),
        (made.role_id, text.clone(), Some([192, 0, 2, 1]), Refused::Network),
        (made.role_id, text.clone(), None, Refused::Network),
    ] {
        assert_eq!(refused(log_in(role_id, secret, ip).await), want, "{ip:?}");
    }
    let found = log_in(made.role_id, text.clone(), inside).await.unwrap();
    let caller = lab.tokens.arrive(found.arrival).unwrap();
    let used = lab.room.use_up(found.secret.unwrap(), caller.session()).await.unwrap();
    lab.commit(used).await;
    assert_eq!(
        lab.room.use_up(found.secret.unwrap(), caller.session()).await.err(),
        Some(Refused::SecretReused)
    );
    let copy = log_in(made.role_id, text.clone(), inside).await.unwrap_err();
    assert_eq!(
        (copy.refused, copy.copied),
        (Refused::SecretReused, Some(caller.session()))
    );
    lab.clock.advance(Duration::from_secs(61));
    assert_eq!(
        refused(log_in(made.role_id, text, inside).await),
        Refused::Secret,
        "expired"
    );
    lab.commit(lab.room.sweep().unwrap()).await;
    assert!(lab.room.sweep().is_none());
}

/// docs/FORMATS: the stored form stays; a change of it is a new format.
#[test]
fn golden() {
    let definition = Definition::parse(r#"{"unix":{"bind":[{"uid":7,"groups":["g"]}]}}"#).unwrap();
    let times = Times {
        version: 3,
        created: Timestamp(1),
        updated: Timestamp(2),
    };
    let trust = Trust::new("t", times, definition, None).unwrap();
    let want = r#"{"format":1,"times":{"version":3,"created":1,"updated":2},"definition":{"unix":{"bind":[{"uid":7,"groups":["g"]}]},"token":{"ttl_secs":900,"max_ttl_secs":0,"end_leases":true}}}"#;
    assert_eq!(String::from_utf8(trust.encode().unwrap()).unwrap(), want);
    assert!(Trust::decode("t", want.as_bytes()).is_some());
    for (from, to) in [
        ("\"format\":1", "\"format\":2"),
        ("\"uid\":7", "\"uid\":-7"),
        ("{", "{\"more\":1,"),
    ] {
        assert!(
            Trust::decode("t", want.replacen(from, to, 1).as_bytes()).is_none(),
            "{to}"
        );
    }
}
