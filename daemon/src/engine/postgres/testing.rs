//! Test support: a throw-away PostgreSQL 15 for tests, demo and benches. Real server, private port and directory, no fsync,
//! every statement in its log. Runs as an unprivileged user when the caller is root, for the server refuses root.
//! Not used by the daemon itself.

use std::{
    fmt, fs, io,
    net::TcpListener,
    os::unix::fs::{PermissionsExt, chown},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// Where Debian puts the server's programs; the others are tried in turn.
const BIN_DIRS: [&str; 3] = [
    "/usr/lib/postgresql/15/bin",
    "/usr/pgsql-15/bin",
    "/usr/local/pgsql/bin",
];
/// How long the server may take to start or stop.
const PATIENCE: Duration = Duration::from_secs(30);
/// `nobody`, where there is no user `postgres`.
const NOBODY: u32 = 65_534;

/// A running (or stopped) server. Dropping it stops it and removes its directory.
pub struct Server {
    bin: PathBuf,
    dir: PathBuf,
    port: u16,
    user: Option<(u32, u32)>,
    process: Option<Child>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server(port {})", self.port)
    }
}

/// The manager role that [`Server::prepare`] makes.
pub const MANAGER: &str = "strongroom_manager";
/// The root account that [`Server::prepare`] makes.
pub const ROOT: &str = "strongroom";
/// Its password.
pub const ROOT_SECRET: &str = "canary-root-secret-0123456789abcdef";

static COUNT: AtomicU32 = AtomicU32::new(0);

impl Server {
    /// Initialises a cluster and starts it. Superuser `postgres` comes in by the Unix socket without a password; everybody
    /// else by TCP with SCRAM.
    /// # Errors
    /// When PostgreSQL 15 is not installed, or does not start.
    pub fn start() -> io::Result<Self> {
        Self::start_with("")
    }

    /// As [`Server::start`], with more lines for `postgresql.conf`.
    /// # Errors
    /// As [`Server::start`].
    pub fn start_with(settings: &str) -> io::Result<Self> {
        let bin = BIN_DIRS
            .iter()
            .map(PathBuf::from)
            .find(|dir| dir.join("postgres").exists())
            .ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::NotFound,
                    "PostgreSQL 15 is not installed: apt-get install postgresql-15",
                )
            })?;
        let dir = std::env::temp_dir().join(format!(
            "sr-pg-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        ));
        fs::create_dir(&dir)?;
        let mut server = Self {
            bin,
            dir,
            port: free_port()?,
            user: unprivileged()?,
            process: None,
        };
        if let Some((uid, gid)) = server.user {
            chown(&server.dir, Some(uid), Some(gid))?;
        }
        fs::set_permissions(&server.dir, fs::Permissions::from_mode(0o711))?;
        server.initialise(settings)?;
        server.resume()?;
        Ok(server)
    }

    fn initialise(&self, settings: &str) -> io::Result<()> {
        let out = self
            .command("initdb")
            .args([
                "--no-sync",
                "--no-instructions",
                "--auth=trust",
                "--username=postgres",
                "--encoding=UTF8",
                "--locale=C",
                "--pgdata",
            ])
            .arg(self.data())
            .stdin(Stdio::null())
            .output()?;
        if !out.status.success() {
            return Err(io::Error::other(format!(
                "initdb: {}",
                String::from_utf8_lossy(&out.stderr)
            )));
        }
        fs::write(
            self.data().join("pg_hba.conf"),
            "local all postgres trust\nhost all all 127.0.0.1/32 scram-sha-256\n",
        )?;
        let dir = self.dir.display();
        let port = self.port;
        let conf = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{dir}'\nfsync = off\nfull_page_writes = off\nsynchronous_commit = on\n\
             log_statement = 'all'\nlog_min_duration_statement = 0\nlog_connections = on\nlog_line_prefix = '%m [%p] %u@%d %a '\nmax_connections = 120\nshared_buffers = 32MB\n\
             autovacuum = off\npassword_encryption = 'scram-sha-256'\n{settings}\n"
        );
        let path = self.data().join("postgresql.conf");
        let mut text = fs::read_to_string(&path)?;
        text.push_str(&conf);
        fs::write(path, text)
    }

    /// Starts a stopped server and waits until it takes connections.
    /// # Errors
    /// When it does not.
    pub fn resume(&mut self) -> io::Result<()> {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_path())?;
        let child = self
            .command("postgres")
            .arg("-D")
            .arg(self.data())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.process = Some(child);
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if self.admin("postgres", "SELECT 1").is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("PostgreSQL did not start: {}", self.log()),
        ))
    }

    /// Stops the server at once; sessions die.
    /// # Errors
    /// When it does not stop.
    pub fn stop(&mut self) -> io::Result<()> {
        let Some(mut child) = self.process.take() else {
            return Ok(());
        };
        self.signal(&child, rustix::process::Signal::QUIT);
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        child.kill()
    }

    /// Gives the server a certificate and key (PEM) and turns TLS on.
    /// # Errors
    /// When the files cannot be written or the server does not take them.
    pub fn install_tls(&self, certificate: &str, key: &str) -> io::Result<()> {
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let path = self.data().join(name);
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            if let Some((uid, gid)) = self.user {
                chown(&path, Some(uid), Some(gid))?;
            }
        }
        self.admin("postgres", "ALTER SYSTEM SET ssl = on")?;
        self.admin("postgres", "SELECT pg_reload_conf()")?;
        std::thread::sleep(Duration::from_millis(500));
        Ok(())
    }

    fn signal(&self, child: &Child, signal: rustix::process::Signal) {
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            // A server that has gone needs no signal.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Runs SQL as the superuser, by `psql` over the Unix socket; returns its output, unaligned.
    /// # Errors
    /// With psql's complaint.
    pub fn admin(&self, database: &str, sql: &str) -> io::Result<String> {
        let out = Command::new(self.bin.join("psql"))
            .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-p", &self.port.to_string(), "-h"])
            .arg(&self.dir)
            .args(["-c", sql])
            // What the test itself does is not what its log is searched for.
            .env("PGOPTIONS", "-c log_statement=none -c log_min_duration_statement=-1")
            .stdin(Stdio::null())
            .output()?;
        if out.status.success() {
            Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
        } else {
            Err(io::Error::other(String::from_utf8_lossy(&out.stderr).into_owned()))
        }
    }

    /// What the engine's README asks an administrator to do, and something to work with: manager role, root account, group
    /// `readers` that may read table `items` of database `postgres`, and an existing account `app`.
    /// # Errors
    /// With psql's complaint.
    pub fn prepare(&self) -> io::Result<()> {
        self.admin(
            "postgres",
            &format!(
                "CREATE ROLE {MANAGER} NOLOGIN;
                 GRANT pg_signal_backend, pg_read_all_stats TO {MANAGER};
                 CREATE ROLE {ROOT} LOGIN CREATEROLE PASSWORD '{ROOT_SECRET}' IN ROLE {MANAGER};
                 CREATE ROLE readers NOLOGIN;
                 GRANT readers TO {MANAGER};
                 CREATE TABLE items AS SELECT n AS id, 'item ' || n AS name FROM generate_series(1, 3) n;
                 GRANT SELECT ON items TO readers;
                 CREATE ROLE app LOGIN PASSWORD 'set-by-hand-once' IN ROLE readers;"
            ),
        )
        .map(drop)
    }

    /// The mount configuration for this server, JSON.
    pub fn config_json(&self) -> String {
        format!(
            r#"{{"host":"127.0.0.1","port":{},"dbname":"postgres","username":"{ROOT}","manager":"{MANAGER}","sslmode":"disable","connect_timeout_secs":2,"statement_timeout_secs":3}}"#,
            self.port
        )
    }

    /// TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Directory of the Unix socket.
    pub fn socket_dir(&self) -> &Path {
        &self.dir
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Everything the server has logged: every statement, as it came.
    pub fn log(&self) -> String {
        fs::read(self.log_path())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command.current_dir(&self.dir).env_remove("PGDATA");
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The user to run as: nobody special when we are root, ourselves otherwise.
fn unprivileged() -> io::Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd")?;
    let postgres = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        (name == "postgres").then_some((uid, gid))
    });
    Ok(Some(postgres.unwrap_or((NOBODY, NOBODY))))
}
