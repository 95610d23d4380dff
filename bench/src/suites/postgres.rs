//! `issue-postgres` and `revoke-postgres`: accounts made and ended in a real PostgreSQL, beside OpenBao and beside the same statements sent by
//! hand. The database runs on all cores, as a server of its own would; it, not we, spends most of the time.

use crate::{
    Fault, Options, Peer,
    contest::{Contender, Figure, Role, hold},
    host,
    load::{self, Answered, Caller, Callers, Leases, Until, put, take},
    openbao::{self, OpenBao},
    report::Found,
    strongroom::Strongroom,
};
use serde_json::json;
use std::sync::{
    Arc, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use strongroom_proto::v1;
use strongroomd::engine::postgres::testing::{MANAGER, ROOT, ROOT_SECRET, Server};

const CONNS: usize = 16;
/// Accounts revoked in one window.
const REVOCATIONS: u64 = 200;
/// The testing server's settings the other way round: durable, silent, and with the housekeeping that servers have.
const SETTINGS: &str = "fsync = on\nfull_page_writes = on\nautovacuum = on\nlog_statement = 'none'\nlog_min_duration_statement = -1\nlog_connections = off\nmax_connections = 200\n";
/// Some verifier (RFC 7677's example): what the server does with it costs the same for each.
const VERIFIER: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
const CREATE: &str = r#"CREATE ROLE "{{name}}" LOGIN IN ROLE readers ROLE strongroom_manager PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';"#;

struct Stage {
    server: Server,
    ours: Strongroom,
    peer: Option<OpenBao>,
}

async fn stage(options: &Options) -> Result<Stage, Fault> {
    let server = host::starting_on(&[host::SERVER_CORE, host::LOAD_CORE], || {
        let server = Server::start_with(SETTINGS)?;
        server.prepare()?;
        Ok(server)
    })?;
    let ours = Strongroom::start(options.durability).await?;
    let admin = ours.admin().await?;
    let mount = v1::MountEnableRequest {
        path: "pg".into(),
        kind: "postgres".into(),
        ..Default::default()
    };
    admin
        .change(
            mount,
            |stubs, request| async move { stubs.mount().enable(request).await },
        )
        .await?;
    let config = v1::MountConfigureRequest {
        path: "pg".into(),
        config_json: server.config_json(),
        root_secret: ROOT_SECRET.into(),
        ..Default::default()
    };
    admin
        .change(config, |stubs, request| async move {
            stubs.mount().configure(request).await
        })
        .await?;
    let definition = json!({ "group": "readers", "default_ttl": "2h", "max_ttl": "24h" }).to_string();
    let role = v1::RolePutRequest {
        path: "pg/readers".into(),
        definition_json: definition,
        ..Default::default()
    };
    admin
        .change(
            role,
            |stubs, request| async move { stubs.mount().put_role(request).await },
        )
        .await?;
    let peer = match options.peer {
        Peer::Openbao => Some(peer(&ours, &server).await?),
        Peer::None => None,
    };
    Ok(Stage { server, ours, peer })
}

/// Two roles: `plain` with the revocation that OpenBao has by default, `drop` with nothing but a drop.
async fn peer(ours: &Strongroom, server: &Server) -> Result<OpenBao, Fault> {
    let bao = OpenBao::start(ours.lab()).await?;
    bao.admin("PUT", "sys/mounts/database", &json!({ "type": "database" }))
        .await?;
    let url = format!(
        "postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/postgres?sslmode=disable",
        server.port()
    );
    let config = json!({
        "plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "connection_url": url,
        "username": ROOT, "password": ROOT_SECRET, "max_open_connections": CONNS, "max_idle_connections": CONNS,
    });
    bao.admin("PUT", "database/config/pg", &config).await?;
    let plain = json!({ "db_name": "pg", "creation_statements": [CREATE], "default_ttl": "2h", "max_ttl": "24h" });
    let mut drop = plain.clone();
    drop["revocation_statements"] = json!([r#"DROP ROLE IF EXISTS "{{name}}";"#]);
    bao.admin("PUT", "database/roles/plain", &plain).await?;
    bao.admin("PUT", "database/roles/drop", &drop).await?;
    Ok(bao)
}

impl Stage {
    fn ours(&self, callers: Callers) -> Contender {
        Contender {
            name: "strongroom".into(),
            role: Role::Ours,
            durability: self.ours.durability,
            pid: Some(self.ours.pid()),
            callers,
        }
    }

    async fn raw(&self, conns: usize, act: Act, accounts: &Leases) -> Result<Contender, Fault> {
        let counted = Arc::new(AtomicU64::new(0));
        let mut callers = Callers::new();
        for _ in 0..conns {
            let mut config = tokio_postgres::Config::new();
            config
                .host("127.0.0.1")
                .port(self.server.port())
                .dbname("postgres")
                .user(ROOT)
                .password(ROOT_SECRET);
            let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
            // Ends with the client; a failure shows in the next statement.
            tokio::spawn(connection);
            callers.push(Box::new(Raw {
                client,
                act,
                accounts: accounts.clone(),
                counted: counted.clone(),
            }));
        }
        Ok(Contender {
            name: "limit: the same SQL by hand".into(),
            role: Role::Limit,
            durability: "-",
            pid: None,
            callers,
        })
    }
}

/// Accounts made.
/// # Errors
/// Any failed request.
pub async fn issue(options: &Options) -> Result<Vec<Found>, Fault> {
    let stage = stage(options).await?;
    let conns = options.conns.unwrap_or(CONNS);
    let mut contenders = vec![stage.ours(stage.ours.issuers(conns, &Leases::default()).await?)];
    if let Some(bao) = &stage.peer {
        let callers = bao.issuers(conns, "plain", &Leases::default()).await?;
        contenders.push(Contender {
            name: openbao_name(""),
            role: Role::Peer,
            durability: "synced, D1",
            pid: Some(bao.pid()),
            callers,
        });
    }
    contenders.push(stage.raw(conns, Act::Make, &Leases::default()).await?);
    let rows = hold(options, &mut contenders).await?;
    Ok(vec![Found {
        suite: "issue-postgres",
        what: format!("{conns} connections, group role, SCRAM with 4096 iterations, PostgreSQL 15 with fsync on both cores"),
        rows,
        figure: Figure::Rate,
        facts: vec![("conns".into(), conns.into())],
        notes: vec!["by hand: CREATE ROLE alone, nothing recorded anywhere; CPU is that of the secrets manager, not of PostgreSQL".into()],
    }])
}

fn openbao_name(how: &str) -> String {
    format!("openbao {}{how}", openbao::VERSION)
}

/// One who revokes: the contender, and how it comes to accounts.
struct Revoking {
    contender: Contender,
    makers: Callers,
    left: Leases,
}

/// Accounts ended.
/// # Errors
/// Any failed request.
pub async fn revoke(options: &Options) -> Result<Vec<Found>, Fault> {
    let stage = stage(options).await?;
    let conns = options.conns.unwrap_or(CONNS);
    let count = options.size.unwrap_or(REVOCATIONS);
    let mut revoking = revokers(&stage, conns).await?;
    let mut rows: Vec<_> = revoking.iter().map(|one| one.contender.row()).collect();
    for _ in 0..options.rounds {
        for (one, row) in revoking.iter_mut().zip(&mut rows) {
            load::run(&mut one.makers, Until::Calls(count)).await?;
            row.windows.push(one.contender.window(Until::Calls(count)).await?);
            row.rss_mb = one.contender.pid.map_or(0.0, host::rss_mb);
            let left = one.left.lock().unwrap_or_else(PoisonError::into_inner).len();
            if left != 0 {
                return Err(format!("{left} accounts were not revoked").into());
            }
        }
    }
    Ok(vec![Found {
        suite: "revoke-postgres",
        what: format!(
            "{conns} connections, {count} accounts a window; ours: locked, sessions ended, dropped, proven gone on a connection of its own"
        ),
        rows,
        figure: Figure::Rate,
        facts: vec![("conns".into(), conns.into()), ("size".into(), count.into())],
        notes: vec![
            "by hand: the statements of our revocation, the proof on the same connection, nothing recorded anywhere"
                .into(),
        ],
    }])
}

async fn revokers(stage: &Stage, conns: usize) -> Result<Vec<Revoking>, Fault> {
    let left = Leases::default();
    let contender = stage.ours(stage.ours.revokers(conns, &left).await?);
    let mut all = vec![Revoking {
        contender,
        makers: stage.ours.issuers(conns, &left).await?,
        left,
    }];
    if let Some(bao) = &stage.peer {
        for (role, how, part) in [("drop", ", drop only", Role::Peer), ("plain", ", default", Role::Other)] {
            let left = Leases::default();
            let callers = bao.revokers(conns, &left).await?;
            let contender = Contender {
                name: openbao_name(how),
                role: part,
                durability: "synced, D1",
                pid: Some(bao.pid()),
                callers,
            };
            all.push(Revoking {
                contender,
                makers: bao.issuers(conns, role, &left).await?,
                left,
            });
        }
    }
    let left = Leases::default();
    let contender = stage.raw(conns, Act::End, &left).await?;
    let makers = stage.raw(conns, Act::Make, &left).await?.callers;
    all.push(Revoking {
        contender,
        makers,
        left,
    });
    Ok(all)
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Make,
    End,
}

/// The same SQL by hand, on connections that stay.
struct Raw {
    client: tokio_postgres::Client,
    act: Act,
    accounts: Leases,
    counted: Arc<AtomicU64>,
}

impl Caller for Raw {
    fn call(&mut self) -> Answered<'_> {
        Box::pin(async {
            match self.act {
                Act::Make => self.make().await,
                Act::End => self.end(&take(&self.accounts)?).await,
            }
        })
    }
}

impl Raw {
    async fn make(&self) -> Result<(), Fault> {
        let account = format!("raw_{}", self.counted.fetch_add(1, Ordering::Relaxed));
        let sql = format!(
            "CREATE ROLE \"{account}\" LOGIN IN ROLE readers ROLE {MANAGER} PASSWORD '{VERIFIER}' VALID UNTIL '2099-01-01'"
        );
        self.client.batch_execute(&sql).await?;
        put(&self.accounts, account);
        Ok(())
    }

    async fn end(&self, account: &str) -> Result<(), Fault> {
        self.client
            .batch_execute(&format!("ALTER ROLE \"{account}\" NOLOGIN"))
            .await?;
        let held = "SELECT r.oid,
                (SELECT count(pg_terminate_backend(a.pid)) FROM pg_stat_activity a WHERE a.usesysid = r.oid AND a.pid <> pg_backend_pid()),
                ARRAY(SELECT DISTINCT coalesce(d.datname, current_database())::text FROM pg_shdepend s LEFT JOIN pg_database d ON d.oid = s.dbid
                      WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid)
            FROM pg_roles r WHERE r.rolname = $1";
        self.client.query_one(held, &[&account]).await?;
        self.client
            .batch_execute(&format!("DROP ROLE IF EXISTS \"{account}\""))
            .await?;
        let row = self
            .client
            .query_one("SELECT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = $1)", &[&account])
            .await?;
        if row.try_get::<_, bool>(0)? {
            Err("an account is still there".into())
        } else {
            Ok(())
        }
    }
}
