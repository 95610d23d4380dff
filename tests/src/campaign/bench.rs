//! What the suites with a real daemon stand on: token, PostgreSQL behind a proxy, the daemon (killed and started again at will), and a client.

use super::{Tried, doing, proxy::Proxy};
use crate::{Daemon, Lab, lab::RATES_OFF};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use strongroom_client::{Client, v1};
use strongroomd::engine::postgres::testing::{ROOT_SECRET, Server};

/// A call's patience: short, so that a load does not wait for a daemon that was killed.
pub const CALL: Duration = Duration::from_secs(4);
/// What set-up calls may take on a busy machine.
const SET_UP: Duration = Duration::from_secs(60);
const POLICY: &str = "permit(principal in S::Group::\"campaign\", action, resource);";
const SLOT: &str = "daily";
/// The slot `quorum:2/3`.
pub const GLASS: &str = "glass";

/// See the module. Fields end in this order: the daemon before what it stands on.
pub struct Bench {
    daemon: Option<Daemon>,
    pub proxy: Proxy,
    pub server: Server,
    pub lab: Lab,
    shares: Vec<String>,
    /// Of a second slot, which needs no token: [`GLASS`].
    pub glass: Vec<String>,
    pub token: String,
}

impl Bench {
    /// Everything up: vault open, mounts `kv` and `pg`, roles `pg/readers` (dynamic) and `pg/app` (static).
    pub async fn set() -> Tried<Self> {
        let server =
            tokio::task::spawn_blocking(|| Server::start().and_then(|server| server.prepare().map(|()| server)))
                .await??;
        let proxy = Proxy::start(server.port()).await?;
        let mut lab = tokio::task::spawn_blocking(Lab::new).await?;
        lab.log_level = "info";
        lab.extra = RATES_OFF.to_owned();
        let daemon = Daemon::start(&lab);
        let mut bench = Self {
            daemon: Some(daemon),
            proxy,
            server,
            lab,
            shares: Vec::new(),
            glass: Vec::new(),
            token: String::new(),
        };
        bench.found().await?;
        Ok(bench)
    }

    async fn found(&mut self) -> Tried<()> {
        let client = self.client_with(None).await?.with_timeout(SET_UP);
        let slot = v1::SlotSpec {
            name: SLOT.into(),
            factors: "hsm+quorum:2/3".into(),
            hsms: vec!["main".into()],
        };
        let glass = v1::SlotSpec {
            name: GLASS.into(),
            factors: "quorum:2/3".into(),
            hsms: Vec::new(),
        };
        let request = v1::InitRequest {
            slots: vec![slot, glass],
        };
        let made = client
            .once(request, |s, r| async move { s.operator().init(r).await })
            .await
            .map_err(doing("init"))?;
        for shares in made.shares {
            *(if shares.slot == GLASS {
                &mut self.glass
            } else {
                &mut self.shares
            }) = shares.shares;
        }
        let setup = self.client_with(Some(&made.setup_token)).await?.with_timeout(SET_UP);
        if self.state(&client).await? != v1::VaultState::Open {
            self.unseal().await?;
        }
        let put = v1::PolicyPutRequest {
            name: "campaign".into(),
            text: POLICY.into(),
            ..Default::default()
        };
        setup
            .change(put, |s, r| async move { s.policy().put(r).await })
            .await
            .map_err(doing("policy"))?;
        let ask = v1::TokenCreateRequest {
            identity: "campaign".into(),
            groups: vec!["campaign".into()],
            ttl_secs: 24 * 3600,
            max_ttl_secs: 24 * 3600,
            ..Default::default()
        };
        let token = setup
            .change(ask, |s, r| async move { s.token().create(r).await })
            .await
            .map_err(doing("token"))?;
        self.token = token.token;
        self.mounts(&setup).await
    }

    async fn mounts(&self, client: &Client) -> Tried<()> {
        for (path, kind) in [("kv", "kv"), ("pg", "postgres")] {
            let enable = v1::MountEnableRequest {
                path: path.into(),
                kind: kind.into(),
                ..Default::default()
            };
            client
                .change(enable, |s, r| async move { s.mount().enable(r).await })
                .await
                .map_err(doing("mount"))?;
        }
        let direct = self.server.config_json();
        let config_json = direct.replace(
            &format!("\"port\":{}", self.server.port()),
            &format!("\"port\":{}", self.proxy.port),
        );
        let configure = v1::MountConfigureRequest {
            path: "pg".into(),
            config_json,
            root_secret: ROOT_SECRET.into(),
            ..Default::default()
        };
        client
            .change(configure, |s, r| async move { s.mount().configure(r).await })
            .await
            .map_err(doing("mount config"))?;
        for (path, definition) in [
            (
                "pg/readers",
                r#"{"group":"readers","default_ttl":"1h","max_ttl":"24h"}"#,
            ),
            ("pg/app", r#"{"type":"static","account":"app","rotation_period":"24h"}"#),
        ] {
            let put = v1::RolePutRequest {
                path: path.into(),
                definition_json: definition.into(),
                ..Default::default()
            };
            client
                .change(put, |s, r| async move { s.mount().put_role(r).await })
                .await
                .map_err(doing(path))?;
        }
        Ok(())
    }

    /// A client with the campaign's token.
    pub async fn client(&self) -> Tried<Client> {
        Ok(self.client_with(Some(&self.token)).await?.with_timeout(CALL))
    }

    async fn client_with(&self, token: Option<&str>) -> Tried<Client> {
        let mut builder = Client::builder().address(format!("unix:{}", self.lab.socket().display()));
        if let Some(token) = token {
            builder = builder.token(token);
        }
        builder.connect().await.map_err(doing("connecting"))
    }

    /// The same over TLS, through a proxy that listens on `port`.
    pub async fn client_over(&self, port: u16, token: Option<&str>) -> Result<Client, strongroom_client::Error> {
        let address = format!("https://localhost:{port}");
        let mut builder = Client::builder().address(address).ca_file(self.lab.ca()).timeout(CALL);
        if let Some(token) = token {
            builder = builder.token(token);
        }
        builder.connect().await
    }

    /// Of the daemon that runs.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Daemon::pid)
    }

    pub async fn state(&self, client: &Client) -> Tried<v1::VaultState> {
        let status = client
            .read(v1::StatusRequest {}, |s, r| async move { s.operator().status(r).await })
            .await?;
        Ok(status.state())
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.kill9();
        }
    }

    /// SIGTERM, and waits.
    pub fn stop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop();
        }
    }

    /// Starts it; it comes up sealed.
    pub fn start(&mut self) -> Tried<()> {
        let started = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| Daemon::start(&self.lab)));
        self.daemon = Some(started.map_err(|_| "the daemon does not start again")?);
        Ok(())
    }

    /// The daemon's last words, for whoever must find out.
    pub fn tail(&self) -> String {
        let log = std::fs::read_to_string(self.lab.dir().join("daemon.log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(12).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Presents a share; the session.
    async fn present(&self, client: &Client, session: &str, share: &str) -> Tried<v1::PresentResponse> {
        let operation = v1::Operation {
            kind: Some(v1::operation::Kind::Unseal(v1::Unseal {})),
        };
        let request = v1::PresentRequest {
            slot: SLOT.into(),
            session: session.into(),
            share: share.into(),
            operation: Some(operation),
            ..Default::default()
        };
        Ok(client
            .change(request, |s, r| async move { s.operator().present(r).await })
            .await?)
    }

    /// Two holders present their shares.
    pub async fn unseal(&self) -> Tried<()> {
        let client = self.client_with(None).await?.with_timeout(SET_UP);
        let [first, second, ..] = &self.shares[..] else {
            return Err("there are no shares".into());
        };
        let begun = self
            .present(&client, "", first)
            .await
            .map_err(doing("the first share"))?;
        let done = self
            .present(&client, &begun.session, second)
            .await
            .map_err(doing("the second share"))?;
        if done.done {
            Ok(())
        } else {
            Err("two shares did not open the vault".into())
        }
    }

    /// Accounts that the engine made, as the server has them.
    pub fn accounts(&self) -> Tried<BTreeSet<String>> {
        let rows = self
            .server
            .admin("postgres", r"SELECT rolname FROM pg_roles WHERE rolname LIKE 'sr\_%'")?;
        Ok(rows
            .lines()
            .map(str::to_owned)
            .filter(|name| !name.is_empty())
            .collect())
    }

    /// Every lease that is not gone: id, account, state.
    pub async fn leases(&self, client: &Client) -> Tried<Vec<v1::LeaseInfo>> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = v1::LeaseListRequest {
                prefix: "pg".into(),
                page_size: 1000,
                page_token,
            };
            let page = client
                .read(request, |s, r| async move { s.lease().list(r).await })
                .await
                .map_err(doing("lease list"))?;
            all.extend(page.leases);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// Logs in to the database, past the proxy.
    pub async fn log_in(&self, user: &str, password: &str) -> Result<(), tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config
            .host("127.0.0.1")
            .port(self.server.port())
            .dbname("postgres")
            .user(user)
            .password(password);
        let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
        let driver = tokio::spawn(connection);
        let asked = client.query_one("SELECT 1", &[]).await.map(drop);
        driver.abort();
        asked
    }

    /// The log must be whole up to a torn tail, which a killed daemon may leave.
    pub fn evidence(&self) -> Option<String> {
        match strongroom_audit::verify(&self.lab.audit_dir(), &strongroom_audit::Options::default()) {
            Err(error) => Some(error.to_string()),
            Ok(report) => report.findings.first().map(ToString::to_string),
        }
    }

    /// Records in the log.
    pub fn records(&self) -> u64 {
        strongroom_audit::verify(&self.lab.audit_dir(), &strongroom_audit::Options::default())
            .map_or(0, |report| report.records)
    }
}

/// Asks until it is so, or `patience` is over; the last answer.
pub async fn until<T, F: Future<Output = Tried<T>>>(
    patience: Duration,
    mut ask: impl FnMut() -> F,
    so: impl Fn(&T) -> bool,
) -> Tried<T> {
    let began = Instant::now();
    loop {
        let answer = ask().await;
        match answer {
            Ok(answer) if so(&answer) || began.elapsed() > patience => return Ok(answer),
            Err(error) if began.elapsed() > patience => return Err(error),
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}
