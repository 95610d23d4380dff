//! Test support: a throw-away PostgreSQL 15 for tests, demo and benches. Real server, private port and directory, no fsync,
//! every statement in its log. Runs as an unprivileged user when the caller is root, for the server refuses root.
//! Not used by the daemon itself.

use crate::engine::testing::{Place, free_port, output, stop, wait_for};
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Where Debian puts the server's programs; the others are tried in turn.
const BIN_DIRS: [&str; 3] = [
    "/usr/lib/postgresql/15/bin",
    "/usr/pgsql-15/bin",
    "/usr/local/pgsql/bin",
];

/// A running (or stopped) server. Dropping it stops it and removes its directory.
pub struct Server {
    bin: PathBuf,
    place: Place,
    port: u16,
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
        let mut server = Self {
            bin,
            place: Place::new("pg", "postgres")?,
            port: free_port()?,
            process: None,
        };
        server.initialise(settings)?;
        server.resume()?;
        Ok(server)
    }

    fn initialise(&self, settings: &str) -> io::Result<()> {
        output(
            self.command("initdb")
                .args([
                    "--no-sync",
                    "--no-instructions",
                    "--auth=trust",
                    "--username=postgres",
                    "--encoding=UTF8",
                    "--locale=C",
                    "--pgdata",
                ])
                .arg(self.data()),
        )?;
        fs::write(
            self.data().join("pg_hba.conf"),
            "local all postgres trust\nhost all all 127.0.0.1/32 scram-sha-256\n",
        )?;
        let dir = self.place.dir().display();
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
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data());
        self.process = Some(self.place.spawn(command)?);
        wait_for("PostgreSQL did not start", || {
            self.admin("postgres", "SELECT 1").is_ok()
        })
    }

    /// Stops the server at once; sessions die.
    /// # Errors
    /// When it does not stop.
    pub fn stop(&mut self) -> io::Result<()> {
        match self.process.take() {
            Some(child) => stop(child, rustix::process::Signal::QUIT),
            None => Ok(()),
        }
    }

    /// Gives the server a certificate and key (PEM) and turns TLS on.
    /// # Errors
    /// When the files cannot be written or the server does not take them.
    pub fn install_tls(&self, certificate: &str, key: &str) -> io::Result<()> {
        for (name, text) in [("data/server.crt", certificate), ("data/server.key", key)] {
            self.place.write(name, text)?;
        }
        self.admin("postgres", "ALTER SYSTEM SET ssl = on")?;
        self.admin("postgres", "SELECT pg_reload_conf()")?;
        std::thread::sleep(std::time::Duration::from_millis(500));
        Ok(())
    }

    /// Runs SQL as the superuser, by `psql` over the Unix socket; returns its output, unaligned.
    /// # Errors
    /// With psql's complaint.
    pub fn admin(&self, database: &str, sql: &str) -> io::Result<String> {
        output(
            Command::new(self.bin.join("psql"))
                .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database])
                .args(["-p", &self.port.to_string(), "-h"])
                .arg(self.place.dir())
                .args(["-c", sql])
                // What the test itself does is not what its log is searched for.
                .env("PGOPTIONS", "-c log_statement=none -c log_min_duration_statement=-1")
                .stdin(Stdio::null()),
        )
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
        self.place.dir()
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.place.dir().join("data")
    }

    /// Everything the server has logged: every statement, as it came.
    pub fn log(&self) -> String {
        self.place.read("log")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = self.place.command(&self.bin.join(program).to_string_lossy());
        command.env_remove("PGDATA");
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}
