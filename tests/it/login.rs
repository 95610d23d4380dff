//! Logging in: the real daemon believes tokens of an issuer that the test plays, app roles, and the kernel.

use crate::world::{World, eventually, failure, shared, value};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use strongroom_client::{Error, v1};
pub use strongroom_tests::issuer::{Issuer, jwk, now, sign};

pub fn put_trust(world: &World, name: &str, trust: &Value) {
    world
        .cli()
        .ok_with(&["trust", "put", name, "-"], trust.to_string().as_bytes());
}

fn log_in(world: &World, jwt: &str) -> Value {
    let ran = world
        .lab
        .cli()
        .run_with(&["--output", "json", "login", "jwt", "-", "--show"], jwt.as_bytes());
    assert_eq!(ran.code, 0, "{ran:?}");
    serde_json::from_str(&ran.out).unwrap()
}

fn refused(world: &World, jwt: &str) -> Value {
    let args = ["--output", "json", "login", "jwt", "-", "--show"];
    failure(&world.lab.cli().run_with(&args, jwt.as_bytes()))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// The records of log-ins, as they stand in the log.
fn login_records(world: &World) -> Vec<Value> {
    let out = world
        .cli()
        .ok(&["--output", "json", "audit", "tail", "--last", "10000"]);
    out.lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|line| line.get("record").cloned().unwrap_or(line))
        .filter(|record| record["op"] == "login.login")
        .collect()
}

/// R-AUTH-1, R-AUTH-2, R-AUTH-4: from a job's token to a secret by command line: claims decide in policies, a token logs in once, what is
/// refused is recorded with its reason, and `logout` ends it at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_logs_in_reads_and_leaves() {
    let world = &shared().world;
    let issuer = Issuer::new("jobs");
    put_trust(world, "jobs", &issuer.trust(&["jobs"]));
    world.put_policy(
        "jobs",
        r#"permit(principal in S::Group::"jobs", action == S::Action::"read", resource in S::Path::"kv/jobs")
when { principal.hasTag("claim:ref") && principal.getTag("claim:ref") == "main" };"#,
    );
    world.client().await.put("kv/jobs/a", &value("x"), None).await.unwrap();
    let jwt = issuer.token("j1", json!({}));
    let got = log_in(world, &jwt);
    assert_eq!(
        (got["sealed"].clone(), got["groups"][0].clone()),
        (true.into(), "jobs".into()),
        "{got}"
    );
    assert_eq!(got["attributes"]["claim:ref"], "main");
    let job = world.lab.cli().with_token(&text(&got["token"]));
    job.ok(&["kv", "get", "kv/jobs/a"]);
    assert_eq!(job.json(&["token", "show"])["identity"], "login:jobs");
    // Over TLS as well: a sealed token is not tied to a place.
    world
        .lab
        .client(&text(&got["token"]))
        .await
        .get("kv/jobs/a")
        .await
        .unwrap();
    assert_eq!(refused(world, &jwt)["reason"], "LOGIN_REFUSED");
    let dev = log_in(world, &issuer.token("j2", json!({"ref": "dev"})));
    let denied = world
        .lab
        .cli()
        .with_token(&text(&dev["token"]))
        .run(&["--output", "json", "kv", "get", "kv/jobs/a"]);
    assert_eq!(failure(&denied)["reason"], "DENIED", "its claim is another");
    let stranger = issuer.forged();
    let forged = refused(world, &stranger.token("j3", json!({})));
    assert!(
        !text(&forged["message"]).contains("signature"),
        "a stranger hears no more than no: {forged}"
    );
    let audience = refused(world, &issuer.token("j4", json!({"aud": "other"})));
    assert!(
        text(&audience["message"]).contains("audience"),
        "whoever the issuer signed for may know: {audience}"
    );
    job.ok(&["logout"]);
    assert_eq!(
        failure(&job.run(&["--output", "json", "kv", "get", "kv/jobs/a"]))["reason"],
        "TOKEN_INVALID"
    );
    let records = login_records(world);
    let words: BTreeSet<_> = records
        .iter()
        .filter_map(|record| record["params"]["refused"].as_str())
        .collect();
    for word in ["replayed", "signature", "audience"] {
        assert!(words.contains(word), "{word}: {words:?}");
    }
    let good: Vec<_> = records
        .iter()
        .filter(|record| record["outcome"]["code"] == "OK" && record["identity"]["name"] == "login:jobs")
        .collect();
    assert!(
        good.iter()
            .all(|record| record["params"]["used"].is_string() && record["params"]["sealed"] == true),
        "{good:?}"
    );
    assert!(good.len() >= 2);
}

/// R-AUTH-2: `ci explain` shows each check and what policies would say, and uses nothing up; a `forbid` on `log_in` counts.
#[tokio::test(flavor = "multi_thread")]
async fn ci_explain_says_why_and_why_not() {
    let world = &shared().world;
    let issuer = Issuer::new("explained");
    put_trust(world, "explained", &issuer.trust(&["explained"]));
    world.put_policy(
        "explained",
        r#"permit(principal in S::Group::"explained", action == S::Action::"read", resource in S::Path::"kv/explained");
forbid(principal, action == S::Action::"log_in", resource == S::Path::"sys/login/explained")
when { principal.hasTag("claim:ref") && principal.getTag("claim:ref") == "blocked" };"#,
    );
    let explain = |jwt: &str, code: i32| {
        let args = [
            "--output",
            "json",
            "ci",
            "explain",
            "-",
            "--can",
            "read:kv/explained/a",
            "--can",
            "read:kv/other",
        ];
        let ran = world.cli().run_with(&args, jwt.as_bytes());
        assert_eq!(ran.code, code, "{ran:?}");
        serde_json::from_str::<Value>(&ran.out).unwrap()
    };
    let jwt = issuer.token("e1", json!({}));
    for _ in 0..2 {
        let told = explain(&jwt, 0);
        assert_eq!(
            (told["accepted"].clone(), told["trust"].clone()),
            (true.into(), "explained".into()),
            "{told}"
        );
        let allowed: Vec<_> = told["decisions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["allowed"].clone())
            .collect();
        assert_eq!(allowed, [true, false]);
    }
    log_in(world, &jwt);
    let failed = |told: &Value| {
        let checks = told["checks"].as_array().unwrap();
        checks
            .iter()
            .filter(|check| check["passed"] == false)
            .map(|check| text(&check["name"]))
            .collect::<Vec<_>>()
    };
    assert_eq!(failed(&explain(&jwt, 3)), ["single use", "outcome"]);
    let told = explain(&issuer.token("e2", json!({"sub": "other"})), 3);
    assert_eq!(failed(&told), ["binding", "outcome"]);
    assert!(told.to_string().contains("`sub` must be `job`, is `other`"), "{told}");
    assert_eq!(
        refused(world, &issuer.token("e3", json!({"ref": "blocked"})))["reason"],
        "DENIED"
    );
    let nobody = world.token("nobody-explains", &[]);
    let ran = world
        .lab
        .cli()
        .with_token(&nobody)
        .run_with(&["--output", "json", "ci", "explain", "-"], jwt.as_bytes());
    assert_eq!(failure(&ran)["reason"], "DENIED", "it needs `trust_read`");
}

/// R-AUTH-2: a trust that is too wide is refused by the daemon with every reason, `--check` writes nothing, and a deleted trust takes its
/// tokens along.
#[test]
fn trusts_by_command_line() {
    let world = &shared().world;
    let cli = world.cli();
    let issuer = Issuer::new("wide");
    let mut wide = issuer.trust(&["wide"]);
    wide["jwt"]["bind"] = json!([{"claims": {"ref": "main*"}, "groups": ["wide"]}]);
    let ran = cli.run_with(
        &["--output", "json", "trust", "put", "wide", "-"],
        wide.to_string().as_bytes(),
    );
    let message = text(&failure(&ran)["message"]);
    assert!(
        message.contains("no wildcards") && message.contains("bind `sub`"),
        "{message}"
    );
    let good = issuer.trust(&["wide"]).to_string();
    cli.ok_with(&["trust", "put", "wide", "-", "--check"], good.as_bytes());
    let names = || {
        let listed = cli.json(&["trust", "list"]);
        let trusts = listed["trusts"].as_array().unwrap();
        trusts.iter().map(|trust| text(&trust["name"])).collect::<Vec<_>>()
    };
    assert!(!names().contains(&"wide".to_owned()));
    cli.ok_with(&["trust", "put", "wide", "-", "--cas", "0"], good.as_bytes());
    assert!(names().contains(&"wide".to_owned()));
    let printed: Value = serde_json::from_str(&cli.ok(&["trust", "get", "wide"])).unwrap();
    assert_eq!(printed["jwt"]["issuer"], issuer.name);
    let show = |token: &str| {
        world
            .lab
            .cli()
            .with_token(token)
            .run(&["--output", "json", "token", "show"])
            .code
    };
    let first = text(&log_in(world, &issuer.token("w1", json!({})))["token"]);
    assert_eq!(show(&first), 0);
    cli.ok(&["trust", "end", "wide"]);
    assert_eq!(show(&first), 3);
    std::thread::sleep(std::time::Duration::from_millis(20));
    let second = text(&log_in(world, &issuer.token("w2", json!({})))["token"]);
    assert_eq!(show(&second), 0);
    cli.ok(&["trust", "delete", "wide"]);
    assert_eq!(show(&second), 3);
    assert_eq!(
        refused(world, &issuer.token("w3", json!({})))["reason"],
        "LOGIN_REFUSED"
    );
}

/// R-AUTH-4: used tokens are known after a restart by the log alone; a storm of log-ins grows nothing in the store; revocation survives.
#[test]
fn log_ins_survive_a_restart_without_a_write() {
    let mut world = World::open();
    let issuer = Issuer::new("restart");
    put_trust(&world, "restart", &issuer.trust(&["restart"]));
    let used: Vec<_> = (0..40).map(|n| issuer.token(&format!("r{n}"), json!({}))).collect();
    let tokens: Vec<_> = used.iter().map(|jwt| text(&log_in(&world, jwt)["token"])).collect();
    let unused = issuer.token("unused", json!({}));
    let show = |world: &World, token: &str| {
        world
            .lab
            .cli()
            .with_token(token)
            .run(&["--output", "json", "token", "show"])
            .code
    };
    world.lab.cli().with_token(&tokens[0]).ok(&["logout"]);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    world.restart();
    world.unseal("daily");
    // At once: nothing from before the unseal is believed. Soon: what was not used is.
    for jwt in &used {
        assert_eq!(refused(&world, jwt)["reason"], "LOGIN_REFUSED");
    }
    let args = ["--output", "json", "login", "jwt", "-", "--show"];
    eventually("an unused token of before the restart logs in", || {
        world.lab.cli().run_with(&args, unused.as_bytes()).code == 0
    });
    let again = refused(&world, &used[7]);
    assert!(text(&again["message"]).contains("replayed"), "the log told: {again}");
    assert_eq!(show(&world, &tokens[0]), 3, "revoked before the restart");
    assert_eq!(show(&world, &tokens[1]), 0);
    log_in(&world, &issuer.token("after", json!({})));
}

/// R-AUTH-2, R-LEASE-1: a job's lease ends with its log-out, and with its trust.
#[test]
fn a_jobs_leases_end_with_it() {
    let world = &shared().world;
    let issuer = Issuer::new("leases");
    put_trust(world, "job-leases", &issuer.trust(&["job-leases"]));
    world.put_policy(
        "job-leases",
        r#"permit(principal in S::Group::"job-leases", action == S::Action::"issue", resource in S::Path::"pg");"#,
    );
    let issue = |jti: &str| {
        let token = text(&log_in(world, &issuer.token(jti, json!({})))["token"]);
        let cli = world.lab.cli().with_token(&token);
        let lease = text(&cli.json(&["creds", "issue", "pg/readers", "--ttl", "5m"])["lease_id"]);
        (cli, lease)
    };
    let gone = |lease: &str| world.cli().run(&["--output", "json", "lease", "show", lease]).code != 0;
    let ((one, first), (_two, second)) = (issue("l1"), issue("l2"));
    assert!(!gone(&first) && !gone(&second));
    one.ok(&["logout"]);
    eventually("the lease of the job that left is gone", || gone(&first));
    assert!(!gone(&second));
    world.cli().ok(&["trust", "end", "job-leases"]);
    eventually("the lease of the trust that ended is gone", || gone(&second));
}

/// R-AUTH-1: an app role logs in once with its secret id; a copy is noticed, and costs whoever was first the session.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_role_logs_in_and_a_copy_is_noticed() {
    let world = &shared().world;
    put_trust(
        world,
        "billing",
        &json!({"role": {"groups": ["billing"], "networks": ["127.0.0.0/8"]}}),
    );
    let made = world.cli().json(&["trust", "make-secret", "billing", "--ttl", "2m"]);
    let (role, secret) = (text(&made["role_id"]), text(&made["secret_id"]));
    let log_in = || {
        let args = ["--output", "json", "login", "role", &role, "-", "--show"];
        world.lab.cli().run_with(&args, secret.as_bytes())
    };
    let got: Value = serde_json::from_str(&log_in().out).unwrap();
    let token = text(&got["token"]);
    let show = || {
        world
            .lab
            .cli()
            .with_token(&token)
            .run(&["--output", "json", "token", "show"])
            .code
    };
    assert_eq!((got["groups"][0].clone(), show()), ("billing".into(), 0));
    assert_eq!(failure(&log_in())["reason"], "LOGIN_REFUSED");
    assert_eq!(show(), 3, "nobody knows which of the two is the thief");
    let out = world.cli().ok(&["--output", "json", "audit", "tail", "--last", "1000"]);
    assert!(out.contains("login.secret-copied"), "an alert");
    assert!(!out.contains(&secret), "the secret id is in no record");
}

/// R-AUTH-1: a Unix peer logs in as its user, and only on the socket.
#[tokio::test(flavor = "multi_thread")]
async fn a_unix_peer_logs_in() {
    let world = &shared().world;
    let uid = rustix::process::geteuid().as_raw();
    put_trust(
        world,
        "local",
        &json!({"unix": {"bind": [{"uid": uid, "groups": ["local-users"]}]}}),
    );
    let args = ["--output", "json", "login", "peer", "local"];
    let mine: Value = serde_json::from_str(&world.lab.cli().ok(&args)).unwrap();
    assert_eq!(mine["groups"][0], "local-users");
    assert!(
        mine["token"].is_null() && mine["file"].is_string(),
        "kept, not shown: {mine}"
    );
    assert_eq!(
        failure(&world.lab.cli().over_tls(&world.lab).run(&args))["reason"],
        "LOGIN_REFUSED"
    );
    let cached = std::fs::read_to_string(mine["file"].as_str().unwrap()).unwrap();
    let own = world.lab.client(cached.trim()).await;
    let shown = own
        .read(
            v1::TokenGetRequest::default(),
            |s, r| async move { s.token().get(r).await },
        )
        .await
        .unwrap();
    assert_eq!(shown.attributes["claim:uid"], uid.to_string());
    std::fs::remove_file(mine["file"].as_str().unwrap()).unwrap();
}

/// R-POL-3: a source that keeps failing is made to wait; a good token from elsewhere is not.
#[test]
fn failures_are_rate_limited_by_source() {
    let world = World::open();
    let issuer = Issuer::new("storm");
    put_trust(&world, "storm", &issuer.trust(&[]));
    let over_tls = world.lab.cli().over_tls(&world.lab);
    let args = ["--output", "json", "login", "jwt", "-", "--show"];
    let mut reasons = BTreeSet::new();
    for _ in 0..40 {
        reasons.insert(text(&failure(&over_tls.run_with(&args, b"a.b.c"))["reason"]));
        if reasons.contains("OVERLOADED") {
            break;
        }
    }
    assert!(
        reasons.contains("LOGIN_REFUSED") && reasons.contains("OVERLOADED"),
        "{reasons:?}"
    );
    log_in(&world, &issuer.token("s1", json!({})));
}

/// 1,000 pipelines at once against one trust (R-AUTH-4): each gets its token, none is stored, none is let in twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_pipelines_store_nothing() {
    let world = World::open();
    let issuer = Issuer::new("fleet");
    put_trust(&world, "fleet", &issuer.trust(&["fleet"]));
    let client = world.client().await;
    let jwts: Vec<_> = (0..1000)
        .map(|n| issuer.token(&format!("f{}", n % 900), json!({"run": n})))
        .collect();
    let mut work = tokio::task::JoinSet::new();
    for jwt in jwts {
        let client = client.clone();
        work.spawn(async move {
            let request = v1::LoginRequest {
                proof: Some(v1::login_request::Proof::Jwt(jwt)),
                ..Default::default()
            };
            loop {
                match client
                    .once(request.clone(), |s, r| async move { s.login().login(r).await })
                    .await
                {
                    Ok(done) => return Some(done.accessor),
                    Err(Error::Unauthenticated(_)) => return None,
                    Err(error) if error.is_retryable() => {
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
        });
    }
    let done = work.join_all().await;
    let accessors: BTreeSet<_> = done.into_iter().flatten().collect();
    // 100 of them came with the `jti` of another; their refusals come from one address and may be made to wait.
    assert_eq!(accessors.len(), 900, "each `jti` logs in once");
    let metrics = world.daemon().metrics();
    let tokens = metrics
        .lines()
        .find(|line| line.starts_with("strongroom_tokens "))
        .unwrap_or("none");
    assert_eq!(
        tokens, "strongroom_tokens 1",
        "only the set-up token is kept: {metrics}"
    );
}
