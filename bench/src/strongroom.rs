//! The daemon under load: a laboratory with SoftHSM, TLS 1.3, its default store and audit log, and a token that one policy allows what the
//! bench does. Only from outside.

use crate::{
    Durability, Fault, host,
    load::{Answered, Caller, Callers},
};
use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use strongroom_client::Client;
use strongroom_proto::v1::{self, kv_client::KvClient};
use strongroom_tests::{Lab, daemon::http, lab::binary};
use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};

/// How long it may take to come up.
const PATIENCE: Duration = Duration::from_secs(60);

const POLICY: &str = r#"
permit (principal in S::Group::"bench", action in [S::Action::"read", S::Action::"write"], resource in S::Path::"kv");
permit (principal in S::Group::"bench", action in [S::Action::"issue", S::Action::"revoke"], resource in S::Path::"pg");
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
        let lab = Lab::new();
        // The daemon refuses `audit.sync = "written"`: there is no D1 to measure, and a D2 figure is called one.
        let durability = match durability {
            Durability::D0 => {
                return Err("the daemon has no mode without an audit log (D0), and figures are not faked".into());
            }
            Durability::D1 => "D2 (D1 asked)",
            Durability::D2 => "D2",
        };
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
        self.client(&self.setup).await
    }

    async fn client(&self, token: &str) -> Result<Client, Fault> {
        let address = format!("https://localhost:{}", self.lab.address.port());
        let client = Client::builder()
            .address(address)
            .ca_file(self.lab.ca())
            .token(token)
            .timeout(PATIENCE);
        Ok(client.connect().await?)
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
            clients.push(self.client(&self.token).await?);
        }
        Ok(clients)
    }

    /// Reads secrets `0..secrets` in turn.
    /// # Errors
    /// A connection fails.
    pub async fn readers(&self, conns: usize, secrets: u64, value_bytes: usize) -> Result<Callers, Fault> {
        let clients = self.clients(conns).await?;
        let readers = clients.into_iter().enumerate().map(|(at, client)| {
            Box::new(Reader {
                kv: client.stubs().kv(),
                next: at as u64,
                secrets,
                value_bytes,
            }) as Box<dyn Caller>
        });
        Ok(readers.collect())
    }

    /// Writes secrets; each connection has [`WRITER_PATHS`] of its own.
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

/// Leases that were issued and not yet revoked.
pub type Leases = Arc<Mutex<Vec<String>>>;

/// Takes one.
/// # Errors
/// None is left.
pub fn take(leases: &Leases) -> Result<String, Fault> {
    leases
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .pop()
        .ok_or_else(|| "no lease is left".into())
}

/// Adds one.
pub fn put(leases: &Leases, lease: String) {
    leases.lock().unwrap_or_else(PoisonError::into_inner).push(lease);
}

/// Where writers write.
#[derive(Clone)]
pub enum Paths {
    /// Every connection goes round among some paths of its own: new versions of them.
    Rounds,
    /// A new path each time, counted over all connections, a hundred folders.
    New(Arc<AtomicU64>),
    /// The same, where readers look.
    Read(Arc<AtomicU64>),
}

/// Paths that a writer goes round among.
pub const WRITER_PATHS: u64 = 16;

impl Paths {
    /// The next path of the writer `at`, which has done `done`; below the mount.
    pub fn next(&self, at: usize, done: u64) -> String {
        match self {
            Self::Rounds => format!("w{at}/s{}", done % WRITER_PATHS),
            Self::New(count) => {
                let n = count.fetch_add(1, Ordering::Relaxed);
                format!("f{}/s{n}", n % 100)
            }
            Self::Read(count) => format!("r/s{}", count.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

type Kv = KvClient<strongroom_client::Transport>;

struct Reader {
    kv: Kv,
    next: u64,
    secrets: u64,
    value_bytes: usize,
}

impl Caller for Reader {
    fn call(&mut self) -> Answered<'_> {
        Box::pin(async {
            let path = format!("kv/r/s{}", self.next % self.secrets);
            self.next += 1;
            let reply = self.kv.get(v1::KvGetRequest { path, select: None }).await?.into_inner();
            match reply.fields.get("value").map(bytes::Bytes::len) {
                Some(length) if length == self.value_bytes => Ok(()),
                other => Err(format!("a value of {} bytes came as {other:?}", self.value_bytes).into()),
            }
        })
    }
}

struct Writer {
    kv: Kv,
    at: usize,
    paths: Paths,
    done: u64,
    value: bytes::Bytes,
}

impl Caller for Writer {
    fn call(&mut self) -> Answered<'_> {
        Box::pin(async {
            let path = format!("kv/{}", self.paths.next(self.at, self.done));
            self.done += 1;
            let fields = [("value".to_owned(), self.value.clone())].into();
            self.kv
                .put(v1::KvPutRequest {
                    path,
                    fields,
                    ..Default::default()
                })
                .await?;
            Ok(())
        })
    }
}

struct Issuer {
    client: Client,
    leases: Leases,
}

impl Caller for Issuer {
    fn call(&mut self) -> Answered<'_> {
        Box::pin(async {
            let request = v1::CredsIssueRequest {
                role: "pg/readers".into(),
                ..Default::default()
            };
            let reply = self
                .client
                .stubs()
                .creds()
                .issue(Request::new(request))
                .await?
                .into_inner();
            put(&self.leases, reply.lease_id);
            Ok(())
        })
    }
}

struct Revoker {
    client: Client,
    leases: Leases,
}

impl Caller for Revoker {
    fn call(&mut self) -> Answered<'_> {
        Box::pin(async {
            let what = Some(v1::lease_revoke_request::What::Id(take(&self.leases)?));
            let request = v1::LeaseRevokeRequest {
                what,
                wait: true,
                ..Default::default()
            };
            let reply = self
                .client
                .stubs()
                .lease()
                .revoke(Request::new(request))
                .await?
                .into_inner();
            if reply.gone == 1 {
                Ok(())
            } else {
                Err(format!("{} of 1 accounts proven gone", reply.gone).into())
            }
        })
    }
}

/// A channel of our own to any TLS server of the laboratory, for the bare limit.
/// # Errors
/// It does not connect.
pub async fn bare_channel(lab: &Lab, port: u16) -> Result<Channel, Fault> {
    use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(lab.ca())?)?;
    let mut config = crate::openbao::tls(roots)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config));
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let tls = tls.clone();
        async move {
            let tcp = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
            tcp.set_nodelay(true)?;
            let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(tls.connect(name, tcp).await?))
        }
    });
    let endpoint = tonic::transport::Endpoint::from_shared(format!("https://localhost:{port}"))?;
    Ok(endpoint.connect_with_connector(connector).await?)
}

/// Reads from the bare service exactly as [`Strongroom::readers`] do.
pub fn bare_reader(channel: Channel, token: &str, value_bytes: usize) -> Result<Box<dyn Caller>, Fault> {
    let bearer: MetadataValue<Ascii> = format!("Bearer {token}").parse()?;
    Ok(Box::new(BareReader {
        kv: KvClient::new(channel),
        bearer,
        next: 0,
        value_bytes,
    }))
}

struct BareReader {
    kv: KvClient<Channel>,
    bearer: MetadataValue<Ascii>,
    next: u64,
    value_bytes: usize,
}

impl Caller for BareReader {
    fn call(&mut self) -> Answered<'_> {
        Box::pin(async {
            let path = format!("kv/r/s{}", self.next % 256);
            self.next += 1;
            let mut request = Request::new(v1::KvGetRequest { path, select: None });
            request.metadata_mut().insert("authorization", self.bearer.clone());
            let reply = self.kv.get(request).await?.into_inner();
            let right = reply
                .fields
                .get("value")
                .is_some_and(|value| value.len() == self.value_bytes);
            if right { Ok(()) } else { Err("a wrong value".into()) }
        })
    }
}
