//! The daemon under load: a laboratory with SoftHSM, TLS 1.3, its default store and audit log, and a token that one policy allows what the
//! bench does. Only from outside. Reading order: this file, `door` (connections), `asks` and `callers` (what one asks).

pub mod asks;
mod callers;
mod door;

pub use door::Door;

use crate::{
    Durability, Fault, host,
    load::{Caller, Callers, Leases, Paths},
};
use callers::{Issuer, Revoker, Writer};
use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use strongroom_client::Client;
use strongroom_proto::v1;
use strongroom_tests::{
    Lab,
    daemon::http,
    lab::{RATES_OFF, binary},
};

/// How long it may take to come up.
const PATIENCE: Duration = Duration::from_secs(60);

const POLICY: &str = r#"
permit (principal in S::Group::"bench", action in [S::Action::"read", S::Action::"write"], resource in S::Path::"kv");
permit (principal in S::Group::"bench", action in [S::Action::"issue", S::Action::"revoke"], resource in S::Path::"pg");
permit (principal in S::Group::"bench", action in [S::Action::"encrypt", S::Action::"sign"], resource in S::Path::"tr");
permit (principal in S::Group::"bench", action == S::Action::"token_create", resource == S::Path::"sys/token/made");
"#;

/// A running, open vault.
pub struct Strongroom {
    lab: Lab,
    child: Child,
    token: String,
    setup: String,
    /// What answers wait for, truly.
    pub durability: &'static str,
}

impl Strongroom {
    /// Starts a new vault on the server's core.
    /// # Errors
    /// It does not come up.
    pub async fn start(durability: Durability) -> Result<Self, Fault> {
        if cfg!(feature = "bench-no-audit") != (durability == Durability::D0) {
            return Err(
                "D0 needs a build of its own: `make bench DURABILITY=d0`, and such a build measures nothing else"
                    .into(),
            );
        }
        let mut lab = Lab::new();
        lab.extra = RATES_OFF.to_owned();
        let durability = match durability {
            Durability::D0 => "D0",
            Durability::D1 => "D1",
            Durability::D2 => "D2",
        };
        if durability == "D1" {
            lab.audit = "sync = \"written\"".into();
        }
        let child = spawn(&lab)?;
        let mut vault = Self {
            lab,
            child,
            token: String::new(),
            setup: String::new(),
            durability,
        };
        vault.await_http("/health", "alive")?;
        vault.found().await?;
        Ok(vault)
    }

    /// The daemon's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.lab.data()
    }
    /// Directory, certificate and key, for others to use too.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }
    /// A client that may do everything for an hour.
    /// # Errors
    /// It does not connect.
    pub async fn admin(&self) -> Result<Client, Fault> {
        self.door().with(&self.setup).client().await
    }

    /// The way in, with a token that the bench's policy allows what it does.
    pub fn door(&self) -> Door {
        Door::new(self.lab.address.port(), &self.lab, &self.token)
    }

    /// Over the Unix socket, where root may open and found.
    async fn local(&self) -> Result<Client, Fault> {
        Ok(Client::builder()
            .address(format!("unix:{}", self.lab.socket().display()))
            .timeout(PATIENCE)
            .connect()
            .await?)
    }

    async fn found(&mut self) -> Result<(), Fault> {
        let local = self.local().await?;
        let slot = v1::SlotSpec {
            name: "main".into(),
            factors: "hsm".into(),
            hsms: Vec::new(),
        };
        let init = v1::InitRequest { slots: vec![slot] };
        self.setup = local
            .once(
                init,
                |stubs, request| async move { stubs.operator().init(request).await },
            )
            .await?
            .setup_token;
        let admin = self.admin().await?;
        let policy = v1::PolicyPutRequest {
            name: "bench".into(),
            text: POLICY.into(),
            ..Default::default()
        };
        admin
            .change(
                policy,
                |stubs, request| async move { stubs.policy().put(request).await },
            )
            .await?;
        let mount = v1::MountEnableRequest {
            path: "kv".into(),
            kind: "kv".into(),
            ..Default::default()
        };
        admin
            .change(
                mount,
                |stubs, request| async move { stubs.mount().enable(request).await },
            )
            .await?;
        let token = v1::TokenCreateRequest {
            identity: "bench".into(),
            groups: vec!["bench".into()],
            ttl_secs: 4 * 3600,
            max_ttl_secs: 4 * 3600,
            ..Default::default()
        };
        self.token = admin
            .change(
                token,
                |stubs, request| async move { stubs.token().create(request).await },
            )
            .await?
            .token;
        Ok(())
    }

    fn await_http(&mut self, path: &str, word: &str) -> Result<(), Fault> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if http(self.lab.metrics, path).is_some_and(|text| text.contains(word)) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("strongroomd ended with {status}:\n{}", self.log()).into());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Err(format!("strongroomd does not come up:\n{}", self.log()).into())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.lab.dir().join("daemon.log")).unwrap_or_default()
    }

    /// Ends the daemon in order, starts it again and waits until the vault is open; from start to open.
    /// # Errors
    /// It does not come up.
    pub fn restart(&mut self) -> Result<Duration, Fault> {
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.child),
            rustix::process::Signal::TERM,
        )?;
        self.child.wait()?;
        let began = Instant::now();
        self.child = spawn(&self.lab)?;
        self.await_http("/ready", "200 OK")?;
        Ok(began.elapsed())
    }

    /// Seals the vault, then opens it by its HSM: how long the opening took, the HSM's part included.
    /// # Errors
    /// A call failed.
    pub async fn reseal(&self) -> Result<Duration, Fault> {
        let admin = self.admin().await?;
        admin
            .change(v1::SealRequest::default(), |stubs, request| async move {
                stubs.operator().seal(request).await
            })
            .await?;
        let local = self.local().await?;
        let began = Instant::now();
        let unseal = v1::operation::Kind::Unseal(v1::Unseal {});
        let present = v1::PresentRequest {
            slot: "main".into(),
            operation: Some(v1::Operation { kind: Some(unseal) }),
            ..Default::default()
        };
        let presented = local
            .change(present, |stubs, request| async move {
                stubs.operator().present(request).await
            })
            .await?;
        if !presented.done {
            return Err("the vault did not open".into());
        }
        Ok(began.elapsed())
    }

    /// One TLS connection for each caller.
    async fn clients(&self, conns: usize) -> Result<Vec<Client>, Fault> {
        let mut clients = Vec::new();
        for _ in 0..conns {
            clients.push(self.door().client().await?);
        }
        Ok(clients)
    }

    /// Writes secrets; each connection has [`crate::load::WRITER_PATHS`] of its own.
    /// # Errors
    /// A connection fails.
    pub async fn writers(&self, conns: usize, value_bytes: usize, paths: Paths) -> Result<Callers, Fault> {
        let clients = self.clients(conns).await?;
        let writers = clients.into_iter().enumerate().map(|(at, client)| {
            let value = bytes::Bytes::from(vec![b'v'; value_bytes]);
            Box::new(Writer {
                kv: client.stubs().kv(),
                at,
                paths: paths.clone(),
                done: 0,
                value,
            }) as Box<dyn Caller>
        });
        Ok(writers.collect())
    }

    /// Issues credentials of role `pg/readers`; the leases go to `leases`.
    /// # Errors
    /// A connection fails.
    pub async fn issuers(&self, conns: usize, leases: &Leases) -> Result<Callers, Fault> {
        let clients = self.clients(conns).await?;
        let issuers = clients.into_iter().map(|client| {
            Box::new(Issuer {
                client,
                leases: leases.clone(),
            }) as Box<dyn Caller>
        });
        Ok(issuers.collect())
    }

    /// Revokes leases from `leases`, each proven gone before the answer.
    /// # Errors
    /// A connection fails.
    pub async fn revokers(&self, conns: usize, leases: &Leases) -> Result<Callers, Fault> {
        let clients = self.clients(conns).await?;
        let revokers = clients.into_iter().map(|client| {
            Box::new(Revoker {
                client,
                leases: leases.clone(),
            }) as Box<dyn Caller>
        });
        Ok(revokers.collect())
    }
}

impl Drop for Strongroom {
    fn drop(&mut self) {
        // Whatever is left of it goes with the laboratory.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The laboratory's configuration with the daemon's own defaults for log level and segments.
fn spawn(lab: &Lab) -> Result<Child, Fault> {
    let file = lab.write_config();
    let text = fs::read_to_string(&file)?
        .replace("level = \"debug\"", "level = \"warn\"")
        .replace("segment_mib = 4\n", "");
    fs::write(&file, text)?;
    host::starting_on(&[host::SERVER_CORE], || {
        let log = File::options()
            .create(true)
            .append(true)
            .open(lab.dir().join("daemon.log"))?;
        let mut command = Command::new(binary("strongroomd"));
        command
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(command.spawn()?)
    })
}
