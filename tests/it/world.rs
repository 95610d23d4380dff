//! A vault that is open, with a database beside it: one for all tests, or one of a test's own.
#![allow(unsafe_code)] // one call, see `end_with_the_process`

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};
use strongroom_client::{Builder, Client, Error, Fields, Secret};
use strongroom_tests::{Cli, Daemon, Lab, Ran};
use strongroomd::engine::postgres::testing::{ROOT_SECRET, Server};

/// How long anything may take that has no bound of its own.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A laboratory, its daemon, and what `init` gave.
pub struct World {
    // In this order they end.
    daemon: Option<Daemon>,
    pub lab: Lab,
    /// Texts by slot.
    pub shares: BTreeMap<String, Vec<String>>,
    /// The set-up token.
    pub root: String,
    pub genesis: String,
}

impl World {
    /// Started and initialised with `slots` (`NAME=FACTORS`), sealed unless one of them opens by itself.
    pub fn sealed(lab: Lab, slots: &[&str]) -> Self {
        let daemon = lab.start();
        let mut args = vec!["operator", "init"];
        slots.iter().for_each(|slot| args.extend(["--slot", slot]));
        let made = lab.cli().json(&args);
        let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
        let list = |value: &serde_json::Value| value.as_array().expect("a list").iter().map(text).collect::<Vec<_>>();
        let slots = made["slots"].as_array().expect("slots");
        let shares = slots
            .iter()
            .map(|slot| (text(&slot["slot"]), list(&slot["shares"])))
            .collect();
        let (root, genesis) = (text(&made["setup_token"]), text(&made["audit_genesis"]));
        Self {
            daemon: Some(daemon),
            lab,
            shares,
            root,
            genesis,
        }
    }

    /// With one slot `daily=quorum:2/3`, open, a kv mount at `kv`. No HSM.
    pub fn open() -> Self {
        Self::opened(Lab::with_tokens(&[]))
    }

    pub fn opened(lab: Lab) -> Self {
        let world = Self::sealed(lab, &["daily=quorum:2/3"]);
        world.unseal("daily");
        world.cli().ok(&["mount", "enable", "kv", "--kind", "kv"]);
        world
    }

    pub fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("the daemon runs")
    }
    /// Takes the daemon away, for the test to end it.
    pub fn take_daemon(&mut self) -> Daemon {
        self.daemon.take().expect("the daemon runs")
    }
    /// Starts a daemon where there is none.
    pub fn start(&mut self) {
        assert!(self.daemon.is_none(), "one daemon at a time");
        self.daemon = Some(self.lab.start());
    }
    /// SIGTERM and a new start.
    pub fn restart(&mut self) {
        assert!(self.take_daemon().stop().success(), "SIGTERM ends with exit code 0");
        self.start();
    }

    /// The command line with the set-up token, over the Unix socket.
    pub fn cli(&self) -> Cli {
        self.lab.cli().with_token(&self.root)
    }
    /// A client with the set-up token, over TLS.
    pub async fn client(&self) -> Client {
        self.lab.client(&self.root).await
    }
    /// The same, not yet connected.
    pub fn client_builder(&self) -> Builder {
        let address = format!("https://localhost:{}", self.lab.address.port());
        Client::builder()
            .address(address)
            .ca_file(self.lab.ca())
            .token(self.root.as_str())
    }
    /// `blank`, `sealed` or `open`.
    pub fn state(&self) -> String {
        self.status()["state"].as_str().expect("a state").to_owned()
    }
    /// What `operator status` says, whatever its exit code.
    pub fn status(&self) -> serde_json::Value {
        let ran = self.lab.cli().run(&["--output", "json", "operator", "status"]);
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("status ({error}): {ran:?}"))
    }
    pub fn share(&self, slot: &str, index: usize) -> &str {
        &self.shares[slot][index]
    }
    /// All shares of a slot, a line each: more than are needed, in the order they were given out.
    pub fn lines(&self, slot: &str) -> String {
        self.shares[slot].join("\n")
    }
    /// Opens the vault with a slot's shares.
    #[track_caller]
    pub fn unseal(&self, slot: &str) {
        self.cli()
            .ok_with(&["operator", "unseal", "--slot", slot], self.lines(slot).as_bytes());
    }
    /// A token for somebody, by the command line.
    pub fn token(&self, identity: &str, groups: &[&str]) -> String {
        self.token_with(identity, groups, &[])["token"]
            .as_str()
            .expect("a token")
            .to_owned()
    }
    pub fn token_with(&self, identity: &str, groups: &[&str], more: &[&str]) -> serde_json::Value {
        let mut args = vec!["token", "create", "--identity", identity];
        groups.iter().for_each(|group| args.extend(["--group", group]));
        args.extend(more);
        self.cli().json(&args)
    }
    pub fn put_policy(&self, name: &str, text: &str) {
        self.cli().ok_with(&["policy", "put", name, "-"], text.as_bytes());
    }
    /// Puts PostgreSQL at `pg`, with the role `pg/readers`.
    pub fn mount_postgres(&self, server: &Server) {
        let cli = self.cli();
        cli.ok(&["mount", "enable", "pg", "--kind", "postgres"]);
        let config = self.lab.dir().join("pg.json");
        std::fs::write(&config, server.config_json()).expect("the mount's configuration is written");
        let config = config.display().to_string();
        cli.ok_with(
            &["mount", "config", "pg", "--from-json", &config, "--root-secret", "-"],
            ROOT_SECRET.as_bytes(),
        );
        cli.ok(&[
            "role",
            "put",
            "pg/readers",
            "group=readers",
            "default_ttl=10m",
            "max_ttl=1h",
        ]);
    }
}

/// A prepared PostgreSQL. Loud where it is missing.
pub fn postgres() -> Server {
    let server = Server::start().expect("PostgreSQL 15 (scripts/deps installs it)");
    server.prepare().expect("the database is prepared");
    server
}

/// The open vault that most tests share: no test of these may seal, stop or fill it.
pub struct Shared {
    pub world: World,
    pub server: Server,
}

static SHARED: OnceLock<Mutex<Option<&'static Shared>>> = OnceLock::new();

/// See [`Shared`]. Made by the first test that asks.
pub fn shared() -> &'static Shared {
    let mut slot = locked();
    if let Some(shared) = *slot {
        return shared;
    }
    let server = postgres();
    let world = World::opened(Lab::with_tokens(&[]));
    world.mount_postgres(&server);
    world.cli().ok(&[
        "role",
        "put",
        "pg/app",
        "type=static",
        "account=app",
        "rotation_period=24h",
    ]);
    let shared: &'static Shared = Box::leak(Box::new(Shared { world, server }));
    *slot = Some(shared);
    drop(slot);
    end_with_the_process();
    shared
}

fn locked() -> MutexGuard<'static, Option<&'static Shared>> {
    SHARED
        .get_or_init(Mutex::default)
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

/// Statics are never dropped, so the shared daemon and server are ended by hand when the test binary exits.
fn end_with_the_process() {
    extern "C" fn end() {
        if let Some(shared) = locked().take() {
            let shared = std::ptr::from_ref(shared).cast_mut();
            // SAFETY: it came from `Box::leak` above and is taken once; the tests are over, for this runs inside `exit`.
            drop(unsafe { Box::from_raw(shared) });
        }
    }
    // SAFETY: `end` is a plain function without captures that does not unwind into C: a panic there ends the process, which is ending.
    assert_eq!(unsafe { libc::atexit(end) }, 0, "an exit handler can be registered");
}

/// One field `value`.
pub fn value(text: &str) -> Fields {
    [("value".to_owned(), Secret::from(text))].into()
}

/// The daemon's stable word for what went wrong.
#[track_caller]
pub fn reason<T: Debug>(result: Result<T, Error>) -> String {
    let error = result.expect_err("an error");
    error
        .reason()
        .unwrap_or_else(|| panic!("no reason in {error:?}"))
        .to_owned()
}

/// The failure of a command that ran with `--output json`.
#[track_caller]
pub fn failure(ran: &Ran) -> serde_json::Value {
    assert_ne!(ran.code, 0, "it went through: {ran:?}");
    let parsed: serde_json::Value = serde_json::from_str(&ran.err).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
    parsed["error"].clone()
}

/// Looks again and again until it holds.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "still not: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
