//! People log in at a real OpenID provider (npm `oidc-provider`): in a browser that the test plays, and with a code that is typed.

use crate::{
    login::put_trust,
    world::{PATIENCE, World, failure, reason, shared, value},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::Instant,
};
use strongroom_client::v1;
use strongroom_tests::{Cli, Ran, lab::binary};
use tokio::sync::Mutex;

const CLIENT_SECRET: &str = "a client secret: %&=+";

/// The provider, in its own process; it ends with its standard input, hence with this process at the latest.
struct Provider {
    process: Child,
    issuer: String,
    ca: PathBuf,
    place: PathBuf,
}

/// One for all tests here; what it is told to answer next is one test's at a time.
fn provider() -> &'static Mutex<Provider> {
    static PROVIDER: OnceLock<Mutex<Provider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Mutex::new(Provider::start(&shared().world)))
}

/// Beside the binaries: what npm installs stays for the next time, and out of the tree.
fn install() -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("oidc");
    let place = binary("strongroom").parent().unwrap().join("test-oidc");
    fs::create_dir_all(&place).unwrap();
    for name in ["package.json", "package-lock.json", "provider.mjs", "browser.mjs"] {
        fs::copy(from.join(name), place.join(name)).unwrap();
    }
    let mut npm = Command::new("/usr/bin/npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(&place);
    let ran = npm.output().expect("node and npm (scripts/deps installs them)");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    place
}

impl Provider {
    fn start(world: &World) -> Self {
        let (place, dir) = (install(), world.lab.dir());
        let mut process = Command::new("/usr/bin/node")
            .arg("provider.mjs")
            .current_dir(&place)
            .env("CERT", dir.join("server.pem"))
            .env("KEY", dir.join("server.key"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("node (scripts/deps installs it)");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let issuer = lines
            .by_ref()
            .map(Result::unwrap)
            .find(|line| line.starts_with("https://"))
            .expect("the provider listens");
        // Whatever it says later is read, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            process,
            issuer,
            ca: world.lab.ca(),
            place,
        }
    }

    /// A trust in its people of the group `vault-admins`, as `client`.
    fn trust(&self, client: &str, more: Value) -> Value {
        let mut oidc = json!({
            "issuer": self.issuer, "client_id": client, "scopes": ["groups", "email"],
            "ca_pem": fs::read_to_string(&self.ca).unwrap(), "allow_private": true,
            "bind": [{"claims": {"groups": "vault-admins"}, "groups": ["people"]}],
        });
        oidc.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "oidc": oidc })
    }

    /// Somebody's browser, from `url` to its last page.
    fn browse(&self, url: &str, who: &str) -> String {
        let mut node = Command::new("/usr/bin/node");
        node.args(["browser.mjs", url, who]).current_dir(&self.place);
        let ran = node.env("NODE_EXTRA_CA_CERTS", &self.ca).output().unwrap();
        let page = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert!(ran.status.success(), "{page}{}", String::from_utf8_lossy(&ran.stderr));
        page
    }

    /// What its token endpoint does next instead of what it should.
    fn next(&self, how: &Value) {
        let script = "fetch(process.argv[1]).then((answer) => process.exit(answer.ok ? 0 : 1))";
        let is: String = how.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect();
        let mut node = Command::new("/usr/bin/node");
        node.args(["-e", script, &format!("{}/test/next?is={is}", self.issuer)]);
        assert!(node.env("NODE_EXTRA_CA_CERTS", &self.ca).status().unwrap().success());
    }

    /// From `strongroom login` through `who`'s browser to what the command says; and the page that the browser was left with.
    fn log_in(&self, cli: &Cli, trust: &str, who: &str) -> (Ran, String) {
        let started = Started::new(cli, &["login", "oidc", trust, "--no-browser", "--show"]);
        let page = self.browse(started.asked["open"].as_str().unwrap(), who);
        (started.end(), page)
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// A `strongroom login` that waits for a person.
struct Started {
    process: Child,
    /// What it asked for.
    asked: Value,
    rest: std::thread::JoinHandle<String>,
}

impl Started {
    fn new(cli: &Cli, args: &[&str]) -> Self {
        let mut process = cli
            .command(&[&["--output", "json"], args].concat())
            .spawn()
            .expect("strongroom starts");
        let mut stderr = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        let asked = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let rest = std::thread::spawn(move || stderr.lines().map_while(Result::ok).collect());
        Self { process, asked, rest }
    }

    fn end(self) -> Ran {
        let output = self.process.wait_with_output().unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: self.rest.join().unwrap(),
        }
    }
}

fn parsed(ran: &Ran) -> Value {
    assert_eq!(ran.code, 0, "{ran:?}");
    serde_json::from_str(&ran.out).unwrap()
}

fn put_with_secret(world: &World, name: &str, trust: &Value) {
    let file = world.lab.dir().join(format!("{name}.secret"));
    fs::write(&file, CLIENT_SECRET).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let source = format!("@{}", file.display());
    let args = ["trust", "put", name, "-", "--client-secret", &source];
    world.cli().ok_with(&args, trust.to_string().as_bytes());
}

/// The words with which log-ins of people were refused, in their order.
fn refusals(world: &World) -> Vec<String> {
    let out = world
        .cli()
        .ok(&["--output", "json", "audit", "tail", "--last", "10000"]);
    let records = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let records = records.map(|line| line.get("record").cloned().unwrap_or(line));
    let people = records.filter(|record| record["params"]["method"] == "oidc");
    people
        .filter_map(|record| record["params"]["refused"].as_str().map(str::to_owned))
        .collect()
}

/// R-AUTH-1: a person logs in with a browser, by a public client and by one with a secret (in the header, and in the form): groups follow from
/// claims through the trust, the token works, and who is in no bound group, or goes back at the provider, does not get in.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_logs_in_with_a_browser() {
    let (world, provider) = (&shared().world, provider().lock().await);
    let cli = world.lab.cli();
    world.put_policy(
        "people",
        r#"permit(principal in S::Group::"people", action == S::Action::"read", resource in S::Path::"kv/people")
when { principal.hasTag("claim:sub") && principal.getTag("claim:sub") == "ann" };"#,
    );
    world
        .client()
        .await
        .put("kv/people/a", &value("x"), None)
        .await
        .unwrap();
    put_trust(world, "people", &provider.trust("public", json!({})));
    for client in ["secret", "post"] {
        put_with_secret(world, &format!("people-{client}"), &provider.trust(client, json!({})));
    }
    for trust in ["people", "people-secret", "people-post"] {
        let (ran, page) = provider.log_in(&cli, trust, "ann");
        let got = parsed(&ran);
        assert!(page.contains("You are logged in"), "{page}");
        assert_eq!(
            (&got["groups"], &got["trust"]),
            (&json!(["people"]), &json!(trust)),
            "{got}"
        );
        assert_eq!(got["attributes"]["login:method"], "oidc");
        let token = got["token"].as_str().unwrap();
        world.lab.cli().with_token(token).ok(&["kv", "get", "kv/people/a"]);
    }
    let (ran, page) = provider.log_in(&cli, "people", "bob");
    assert_eq!(failure(&ran)["reason"], "LOGIN_REFUSED");
    assert!(page.contains("You are not logged in"), "{page}");
    let (ran, _) = provider.log_in(&cli, "people", "cancel");
    let message = failure(&ran)["message"].as_str().unwrap().to_owned();
    assert!(message.contains("access_denied"), "{message}");
    assert!(refusals(world).contains(&"no-binding".to_owned()));
    // What the trust keeps is told to nobody.
    let told = world.cli().json(&["trust", "get", "people-secret"]);
    assert_eq!(told["has_client_secret"], true);
    assert!(!told.to_string().contains("a client secret"), "{told}");
}

/// R-AUTH-1: what a provider that has gone wrong answers is refused, each for its own reason (OpenID Connect Core 1.0, 3.1.3.7), and what was
/// begun is good once.
#[test]
fn a_provider_gone_wrong_is_not_believed() {
    // Its own: refusals are counted by source.
    let (world, provider) = (&World::open(), provider().blocking_lock());
    let cli = world.lab.cli();
    put_trust(
        world,
        "wrong-people",
        &provider.trust("public", json!({"algorithms": ["RS256", "PS256"]})),
    );
    let now = strongroom_tests::issuer::now();
    for (how, word) in [
        (json!({"claims": {"nonce": "another"}}), "nonce"),
        (json!({"without": ["nonce"]}), "nonce"),
        (json!({"claims": {"nonce": 7}}), "nonce"),
        (json!({"claims": {"aud": "other"}}), "audience"),
        (json!({"claims": {"aud": ["public", "other"]}}), "audience"),
        (json!({"claims": {"azp": "other"}}), "audience"),
        (json!({"claims": {"iss": "https://evil.example.com"}}), "unknown-issuer"),
        (json!({"claims": {"exp": now - 100}}), "expired"),
        (json!({"without": ["exp"]}), "times"),
        (json!({"without": ["iat"]}), "times"),
        (json!({"claims": {"iat": now - 3000}}), "too-old"),
        (json!({"claims": {"iat": now + 3000, "exp": now + 3300}}), "not-yet"),
        (json!({"without": ["sub"]}), "subject"),
        (json!({"claims": {"groups": "vault-admins-2"}}), "no-binding"),
        (json!({"foreign": true}), "signature"),
        (json!({"foreign": true, "header": {"kid": "other"}}), "no-key"),
        (json!({"header": {"alg": "RS384"}}), "algorithm"),
        (json!({"header": {"typ": "at+jwt"}}), "type"),
        (json!({"error": "invalid_grant"}), "code"),
        (json!({"error": "invalid_client"}), "provider-unavailable"),
        (json!({"redirect": "https://localhost:1/token"}), "provider-unavailable"),
        (json!({"text": "<html>"}), "provider-unavailable"),
        (json!({"text": {"access_token": "x"}}), "provider-unavailable"),
        (json!({"fill": 70_000}), "provider-unavailable"),
    ] {
        provider.next(&how);
        let (ran, _) = provider.log_in(&cli, "wrong-people", "ann");
        assert_eq!(failure(&ran)["reason"], "LOGIN_REFUSED", "{how}");
        assert_eq!(refusals(world).last().map(String::as_str), Some(word), "{how}");
    }
    // So that the refusals above are refusals of what they say.
    provider.next(&json!({"claims": {"azp": "public"}}));
    parsed(&provider.log_in(&cli, "wrong-people", "ann").0);
}

/// R-AUTH-1: with a code that is typed elsewhere: pending, asked too often, confirmed; refused by the person; only where the trust says so.
#[test]
fn a_person_logs_in_with_a_typed_code() {
    let (world, provider) = (&shared().world, provider().blocking_lock());
    let cli = world.lab.cli();
    put_trust(world, "terminal", &provider.trust("terminal", json!({"device": true})));
    put_trust(world, "no-terminal", &provider.trust("terminal", json!({})));
    let args = ["login", "oidc", "terminal", "--device", "--show"];
    let url = |started: &Started| {
        let (url, code) = (
            started.asked["open"].as_str().unwrap(),
            started.asked["user_code"].as_str().unwrap(),
        );
        assert!(started.asked["complete"].as_str().unwrap().contains(code));
        format!("{url}?user_code={code}")
    };
    provider.next(&json!({"error": "slow_down"}));
    let started = Started::new(&cli, &args);
    let began = Instant::now();
    while refusals(world).iter().filter(|word| *word == "slow-down").count() == 0 {
        assert!(began.elapsed() < PATIENCE, "it asks while nobody has typed the code");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    provider.browse(&url(&started), "ann");
    let got = parsed(&started.end());
    assert_eq!(got["groups"], json!(["people"]), "{got}");
    let started = Started::new(&cli, &args);
    provider.browse(&url(&started), "refuse");
    let refused = failure(&started.end());
    assert!(
        refused["message"].as_str().unwrap().contains("provider-denied"),
        "{refused}"
    );
    let ran = cli.run(&["--output", "json", "login", "oidc", "no-terminal", "--device"]);
    assert!(failure(&ran)["message"].as_str().unwrap().contains("no-flow"));
}

/// A browser comes to `listener`: what it brings, by name.
fn brought(listener: &TcpListener) -> BTreeMap<String, String> {
    let (mut stream, _) = listener.accept().unwrap();
    let mut line = String::new();
    BufReader::new(stream.try_clone().unwrap())
        .read_line(&mut line)
        .unwrap();
    let page = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    stream.write_all(page.as_bytes()).unwrap();
    let query = line.split([' ', '?']).nth(2).unwrap();
    let plain = |text: &str| text.replace("%3A", ":").replace("%2F", "/");
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), plain(value))).collect()
}

/// R-AUTH-1: the daemon holds the interval that the provider told: who asks too early hears that nobody has typed the code, and the provider hears
/// nothing of it; beginnings have a rate, which log-ins with a browser do not share.
#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_holds_the_providers_interval() {
    let (world, provider) = (&World::open(), provider().lock().await);
    put_trust(world, "paced", &provider.trust("terminal", json!({"device": true})));
    let client = world.lab.client(&world.root).await;
    let begin = |port| {
        let request = v1::LoginBeginRequest {
            trust: "paced".to_owned(),
            port,
        };
        let client = client.clone();
        async move {
            client
                .once(request, |s, r| async move { s.login().begin(r).await })
                .await
        }
    };
    let begun = begin(0).await.unwrap();
    let ask = || {
        let proof = v1::LoginOidc {
            handle: begun.handle.clone(),
            code: begun.device_code.clone(),
            iss: None,
            port: 0,
        };
        let request = v1::LoginRequest {
            trust: "paced".to_owned(),
            proof: Some(v1::login_request::Proof::Oidc(proof)),
            binding: 0,
        };
        client.once(request, |s, r| async move { s.login().login(r).await })
    };
    // The provider's next answer, whenever it is asked.
    provider.next(&json!({"error": "slow_down"}));
    let (since, mut early) = (Instant::now(), 0);
    loop {
        let asked = since.elapsed();
        match reason(ask().await).as_str() {
            "LOGIN_PENDING" => early += 1,
            "LOGIN_SLOW_DOWN" => break,
            other => panic!("{other}"),
        }
        assert!(asked.as_secs() < begun.interval_secs + 30, "its turn has come");
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
    assert!(
        since.elapsed().as_secs() + 1 >= begun.interval_secs && early > 0,
        "{early} early ones"
    );
    assert_eq!(reason(ask().await), "LOGIN_PENDING", "slower from now on");
    // At once: how long each takes says nothing about the rate.
    let mut crowd = tokio::task::JoinSet::new();
    (0..100).for_each(|_| drop(crowd.spawn(begin(0))));
    let answers = crowd.join_all().await;
    let refused = answers.into_iter().filter_map(Result::err);
    let refused: Vec<_> = refused.filter(|error| error.reason() == Some("OVERLOADED")).collect();
    assert!(!refused.is_empty(), "beginnings have a rate");
    assert!(refused.iter().all(|error| !error.retry_after().is_zero()));
    begin(8250).await.expect("a browser's log-in begins all the same");
}

/// R-AUTH-1: a code logs in only with the handle that it was begun with (PKCE), at the trust (as it was then) and place of that handle, beside the issuer's own
/// name (RFC 9207), and once. By the wire, without the command line's own checks.
#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_good_for_what_was_begun_only() {
    let (world, provider) = (&World::open(), provider().lock().await);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = u32::from(listener.local_addr().unwrap().port());
    for trust in ["begun", "begun-too"] {
        put_trust(world, trust, &provider.trust("public", json!({})));
    }
    let client = world.lab.client(&world.root).await;
    let begin = |trust: &str| {
        let (client, trust) = (client.clone(), trust.to_owned());
        async move {
            let request = v1::LoginBeginRequest { trust, port };
            client
                .once(request, |s, r| async move { s.login().begin(r).await })
                .await
                .unwrap()
        }
    };
    let log_in = |trust: &str, oidc: v1::LoginOidc| {
        let (client, trust) = (client.clone(), trust.to_owned());
        async move {
            let proof = Some(v1::login_request::Proof::Oidc(oidc));
            let request = v1::LoginRequest {
                trust,
                proof,
                binding: 0,
            };
            client
                .once(request, |s, r| async move { s.login().login(r).await })
                .await
        }
    };
    let (other, elsewhere) = (begin("begun").await, begin("begun-too").await);
    let evil = || Some("https://evil.example.com".to_owned());
    for (case, word) in [
        ("another handle", "code"),
        ("another trust's handle", "handle"),
        ("another trust", "handle"),
        ("another port", "handle"),
        ("no port", "handle"),
        ("no issuer", "unknown-issuer"),
        ("another issuer", "unknown-issuer"),
        ("another code", "code"),
        ("no handle", "handle"),
        ("a trust that was written anew", "handle"),
        ("", ""),
    ] {
        let begun = begin("begun").await;
        assert!(begun.redirect_uri.ends_with(&format!(":{port}/callback")) && begun.user_code.is_empty());
        assert!(
            !begun.url.contains(&begun.handle),
            "whoever sees the URL does not see the handle"
        );
        let waiting = listener.try_clone().unwrap();
        let browser = std::thread::spawn(move || brought(&waiting));
        provider.browse(&begun.url, "ann");
        let got = browser.join().unwrap();
        assert_eq!((&got["state"], &got["iss"]), (&begun.state, &provider.issuer));
        let mut oidc = v1::LoginOidc {
            handle: begun.handle,
            code: got["code"].clone(),
            iss: Some(got["iss"].clone()),
            port,
        };
        match case {
            "another handle" => oidc.handle.clone_from(&other.handle),
            "another trust's handle" => oidc.handle.clone_from(&elsewhere.handle),
            "another port" => oidc.port += 1,
            "no port" => oidc.port = 0,
            "no issuer" => oidc.iss = None,
            "another issuer" => oidc.iss = evil(),
            "another code" => oidc.code.push('x'),
            "no handle" => oidc.handle.clear(),
            "a trust that was written anew" => put_trust(world, "begun", &provider.trust("public", json!({}))),
            _ => {}
        }
        let trust = if case == "another trust" { "begun-too" } else { "begun" };
        let done = log_in(trust, oidc.clone()).await;
        if word.is_empty() {
            assert_eq!(done.unwrap().groups, ["people"]);
            log_in(trust, oidc).await.unwrap_err();
            assert_eq!(refusals(world).last().map(String::as_str), Some("replayed"));
            continue;
        }
        assert_eq!(reason(done), "LOGIN_REFUSED", "{case}");
        assert_eq!(refusals(world).last().map(String::as_str), Some(word), "{case}");
    }
}
