//! `strongroom agent` on the real daemon: its socket, who may ask, files that stay fresh, and what it does while the daemon is away.

use crate::{
    bound,
    world::{PATIENCE, World, eventually, reason, shared, value},
};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use strongroom_client::{Client, Event, Follow};
use strongroom_tests::lab::binary;
use tokio::time::timeout;

/// A running agent and its directory.
struct Agent {
    child: Child,
    dir: tempfile::TempDir,
}

impl Agent {
    /// With these lines of configuration; `@` stands for its directory, `ME` for this user's id.
    fn start(world: &World, lines: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (config, _) = configure(world, dir.path(), lines);
        let child = command(&config).spawn().unwrap();
        let agent = Self { child, dir };
        eventually("the agent answers", || agent.socket().exists());
        agent
    }
    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    fn socket(&self) -> PathBuf {
        self.at("agent.sock")
    }
    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap_or_default()
    }
    /// A client of the agent, without a token.
    async fn client(&self) -> Client {
        let address = format!("unix:{}", self.socket().display());
        Client::builder().address(address).connect().await.unwrap()
    }
    /// SIGTERM, and its exit code.
    fn stop(mut self) -> i32 {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configure(world: &World, dir: &Path, lines: &str) -> (PathBuf, PathBuf) {
    let (config, token) = (dir.join("agent.toml"), dir.join("token"));
    fs::write(&token, &world.root).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let head = format!(
        "address = \"https://localhost:{}\"\nca_cert = \"{}\"\ntoken_file = \"@/token\"\nsocket = \"@/agent.sock\"\n",
        world.lab.address.port(),
        world.lab.ca().display(),
    );
    let me = rustix::process::geteuid().as_raw().to_string();
    let text = format!("{head}{lines}")
        .replace('@', &dir.display().to_string())
        .replace("ME", &me);
    fs::write(&config, text).unwrap();
    (config, token)
}

fn command(config: &Path) -> Command {
    let mut command = Command::new(binary("strongroom"));
    command.arg("agent").arg("--config").arg(config);
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// R-OPS-6: programs of this machine ask the agent without a token; the kernel tells who they are, and each gets what is theirs alone.
#[tokio::test(flavor = "multi_thread")]
async fn the_agent_serves_its_users() {
    let world = &shared().world;
    let root = world.client().await;
    root.put("kv/agent/a", &value("one"), None).await.unwrap();
    root.put("kv/agent/theirs", &value("x"), None).await.unwrap();
    let agent = Agent::start(
        world,
        "[[allow]]\nuid = ME\npaths = [\"kv/agent/a\", \"pg/readers\"]\n[[allow]]\nuid = 4000000\npaths = [\"kv/agent/theirs\"]\n",
    );
    let client = agent.client().await;
    let fetched = client.fetch(["kv/agent/a", "pg/readers"]).await.unwrap();
    assert_eq!(fetched[0].field("value").unwrap().expose(), b"one");
    let again = client.fetch(["pg/readers"]).await.unwrap();
    assert_eq!(
        again[0].lease_id(),
        fetched[1].lease_id(),
        "one account for all who ask"
    );
    for paths in [
        vec!["kv/agent/theirs"],
        vec!["kv/agent/a", "kv/agent/theirs"],
        vec!["kv/other"],
    ] {
        assert_eq!(reason(client.fetch(paths).await), "DENIED");
    }
    assert_eq!(reason(client.fetch(Vec::<String>::new()).await), "MALFORMED");
    assert_eq!(reason(client.watch([Follow::path("kv/agent/theirs")]).await), "DENIED");

    let mut stream = client
        .watch([Follow::path("kv/agent/a").resume(&fetched[0].resume)])
        .await
        .unwrap();
    root.put("kv/agent/a", &value("two"), None).await.unwrap();
    let event = timeout(PATIENCE, stream.next()).await.unwrap().unwrap();
    assert!(matches!(event, Event::Changed(0, held) if held.field("value").unwrap().expose() == b"two"));
    let cli = Command::new(binary("strongroom"))
        .args([
            "--address",
            &format!("unix:{}", agent.socket().display()),
            "fetch",
            "kv/agent/a",
            "--output",
            "json",
        ])
        .env_clear()
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&cli.stdout).contains("\"two\""), "{cli:?}");
    let account = String::from_utf8(fetched[1].field("username").unwrap().expose().to_vec()).unwrap();
    let socket = agent.socket();
    assert_eq!(agent.stop(), 0);
    assert!(!socket.exists());
    let sql = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{account}'");
    assert_eq!(
        shared().server.admin("postgres", &sql).unwrap(),
        "0",
        "revoked at its end"
    );
}

/// R-OPS-6: files are made from templates with mode and owner, whole or not at all, and who uses them is told at every change.
#[tokio::test(flavor = "multi_thread")]
async fn the_agent_keeps_files_fresh() {
    let world = &shared().world;
    let root = world.client().await;
    root.put("kv/files/a", &value("pass\"word"), None).await.unwrap();
    let agent = Agent::start(
        world,
        r#"
[[file]]
path = "@/app.json"
text = "{\"password\": {{ kv/files/a#value | json }}}"
mode = "0640"
owner = "ME"
command = ["/bin/sh", "-c", "cat @/app.json >> @/told; echo >> @/told"]
"#,
    );
    let file = agent.at("app.json");
    assert_eq!(agent.text("app.json"), r#"{"password": "pass\"word"}"#);
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o640);
    let before = fs::metadata(&file).unwrap().ino();
    root.put("kv/files/a", &value("next"), None).await.unwrap();
    eventually("written anew, and told", || agent.text("told").lines().count() == 2);
    assert_eq!(agent.text("app.json"), r#"{"password": "next"}"#);
    assert_ne!(fs::metadata(&file).unwrap().ino(), before, "replaced, not overwritten");
    assert!(agent.text("told").ends_with("{\"password\": \"next\"}\n"));
    let left: Vec<_> = fs::read_dir(agent.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(
        left.iter().all(|name| !name.to_string_lossy().ends_with(".strongroom")),
        "{left:?}"
    );
}

/// R-OPS-6: `--once` writes the files and ends; what is wrong in the configuration ends with exit code 2 and is named.
#[test]
fn the_agent_runs_once_or_says_what_is_wrong() {
    let world = &shared().world;
    world.cli().ok_with(&["kv", "put", "kv/once", "value=-"], b"v");
    let dir = tempfile::tempdir().unwrap();
    let (config, token) = configure(
        world,
        dir.path(),
        "[[file]]\npath = \"@/f\"\ntext = \"{{ kv/once#value }}\"\n",
    );
    assert!(command(&config).arg("--once").status().unwrap().success());
    assert_eq!(fs::read_to_string(dir.path().join("f")).unwrap(), "v");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    let ran = command(&config).arg("--once").stderr(Stdio::piped()).output().unwrap();
    assert_eq!(ran.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&ran.stderr).contains("can be read by others"));
    let (config, _) = configure(
        world,
        dir.path(),
        "[[file]]\npath = \"@/f\"\ntext = \"{{ kv/once }}\"\n",
    );
    let ran = command(&config).arg("--once").stderr(Stdio::piped()).output().unwrap();
    assert_eq!(ran.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&ran.stderr).contains("line 1: write {{ PATH#FIELD }}"));
}

/// R-OPS-6: the daemon is killed: the agent goes on with what it knows, and catches up when the daemon is back.
#[tokio::test(flavor = "multi_thread")]
async fn the_agent_outlives_the_daemon() {
    let mut world = World::open();
    world.client().await.put("kv/a", &value("before"), None).await.unwrap();
    let agent = Agent::start(&world, "[[allow]]\nuid = ME\npaths = [\"kv/a\"]\n");
    let client = agent.client().await;
    world.take_daemon().kill9();
    let held = client.fetch(["kv/a"]).await.unwrap();
    assert_eq!(held[0].field("value").unwrap().expose(), b"before");
    world.start();
    world.unseal("daily");
    world.client().await.put("kv/a", &value("after"), None).await.unwrap();
    let mut stream = client
        .watch([Follow::path("kv/a").resume(&held[0].resume)])
        .await
        .unwrap();
    let event = timeout(PATIENCE, stream.next()).await.unwrap().unwrap();
    assert!(matches!(event, Event::Changed(0, held) if held.field("value").unwrap().expose() == b"after"));
}

/// R-AUTH-3: an agent whose token is bound to a key proves it by itself, also for the stream that it follows; without the key it does not start.
#[tokio::test(flavor = "multi_thread")]
async fn the_agent_proves_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let (key, token) = (dir.path().join("token.key"), dir.path().join("bound"));
    let (_, pem) = strongroom_client::ProofKey::generate().unwrap();
    fs::write(&key, pem.as_bytes()).unwrap();
    let mut world = bound::slow_world(&key, &token);
    let root = world.client().await;
    world.root = fs::read_to_string(&token).unwrap();
    let lines = "[[allow]]\nuid = ME\npaths = [\"kv/bound/a\"]\n";
    let agent = Agent::start(&world, &format!("proof_key = \"{}\"\n{lines}", key.display()));
    let client = agent.client().await;
    let fetched = client.fetch(["kv/bound/a"]).await.unwrap();
    assert_eq!(fetched[0].field("value").unwrap().expose(), b"x");
    let mut stream = client
        .watch([Follow::path("kv/bound/a").resume(&fetched[0].resume)])
        .await
        .unwrap();
    root.put("kv/bound/a", &value("y"), None).await.unwrap();
    match timeout(PATIENCE, stream.next()).await.unwrap().unwrap() {
        Event::Changed(0, changed) => assert_eq!(changed.field("value").unwrap().expose(), b"y"),
        other => panic!("{other:?}"),
    }
    assert_eq!(agent.stop(), 0);
    let other = tempfile::tempdir().unwrap();
    let (config, _) = configure(&world, other.path(), lines);
    assert!(
        !command(&config).arg("--once").status().unwrap().success(),
        "without its key"
    );
}
