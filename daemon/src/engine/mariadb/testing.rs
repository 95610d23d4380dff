//! Test support: a throw-away MariaDB for tests, demo and benches. Real server, private port and directory, every statement
//! in its log. Not used by the daemon itself.

#[cfg(test)]
use crate::engine::conformance::Piped;
use crate::engine::testing::{Place, free_port, output, stop, wait_for};
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Where Debian puts the server.
const SERVER: &str = "/usr/sbin/mariadbd";
/// What the tables are made with and the server runs with: small, and not synced.
const SETTINGS: &str = "\
innodb_data_file_path=ibdata1:8M:autoextend
innodb_log_file_size=4M
innodb_undo_tablespaces=0
innodb_buffer_pool_size=16M
innodb_flush_log_at_trx_commit=0
innodb_fast_shutdown=2
key_buffer_size=1M
";

/// The role that marks accounts, as [`Server::prepare`] makes it.
pub const MARKER: &str = "strongroom_lab";
/// The root account that [`Server::prepare`] makes.
pub const ROOT: &str = "strongroom";
/// Its password.
pub const ROOT_SECRET: &str = "canary-root-secret-0123456789abcdef";

/// A running (or stopped) server. Dropping it stops it and removes its directory.
pub struct Server {
    place: Place,
    port: u16,
    settings: String,
    process: Option<Child>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server(port {})", self.port)
    }
}

impl Server {
    /// Makes a data directory and starts the server. The administrator `root` comes in by the Unix socket without a password.
    /// # Errors
    /// When MariaDB is not installed, or does not start.
    pub fn start() -> io::Result<Self> {
        if !Path::new(SERVER).exists() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "MariaDB is not installed: apt-get install mariadb-server",
            ));
        }
        let mut server = Self {
            place: Place::new("mariadb", "mysql")?,
            port: free_port()?,
            settings: String::new(),
            process: None,
        };
        server.copy_tables()?;
        server.resume()?;
        Ok(server)
    }

    /// The system tables take seconds to make, so that they are made once and copied.
    fn copy_tables(&self) -> io::Result<()> {
        let ready = std::env::temp_dir().join("sr-mariadb-tables-1");
        if !ready.exists() {
            self.place.write("tables.cnf", &format!("[mysqld]\n{SETTINGS}"))?;
            let new = self.place.dir().join("new");
            output(
                self.place
                    .command("mariadb-install-db")
                    .arg(format!(
                        "--defaults-file={}",
                        self.place.dir().join("tables.cnf").display()
                    ))
                    .arg(format!("--datadir={}", new.display()))
                    .args(["--auth-root-authentication-method=normal", "--skip-test-db"]),
            )?;
            // Whoever comes second finds it there.
            let _ = fs::rename(new, &ready);
        }
        output(Command::new("cp").arg("-a").arg(&ready).arg(self.data())).map(drop)
    }

    /// Starts a stopped server and waits until it takes connections.
    /// # Errors
    /// When it does not.
    pub fn resume(&mut self) -> io::Result<()> {
        let dir = self.place.dir().display();
        let port = self.port;
        self.place.write(
            "my.cnf",
            &format!(
                "[mysqld]\n{SETTINGS}datadir={dir}/data\nsocket={dir}/socket\nport={port}\nbind_address=127.0.0.1\nskip_name_resolve\npid_file={dir}/pid\n\
                 general_log=1\ngeneral_log_file={dir}/general\nmax_connections=150\nplugin_maturity=unknown\n{}",
                self.settings
            ),
        )?;
        let mut command = self.place.command(SERVER);
        command.arg(format!("--defaults-file={dir}/my.cnf"));
        self.process = Some(self.place.spawn(command)?);
        wait_for("MariaDB did not start", || self.admin("DO 1").is_ok())
    }

    /// Stops the server at once; sessions die.
    /// # Errors
    /// When it does not stop.
    pub fn stop(&mut self) -> io::Result<()> {
        match self.process.take() {
            Some(child) => stop(child, rustix::process::Signal::TERM),
            None => Ok(()),
        }
    }

    /// Gives the server a certificate and key (PEM) and starts it again.
    /// # Errors
    /// When it does not take them.
    pub fn install_tls(&mut self, certificate: &str, key: &str) -> io::Result<()> {
        let certificate = self.place.write("server.crt", certificate)?;
        let key = self.place.write("server.key", key)?;
        self.settings = format!("ssl_cert={}\nssl_key={}\n", certificate.display(), key.display());
        self.stop()?;
        self.resume()
    }

    /// The `mariadb` client as the administrator, over the Unix socket. What it does is not in the log: that is searched for
    /// what the engine did.
    fn administrator(&self) -> Command {
        let mut command = Command::new("mariadb");
        command
            .args([
                "--no-defaults",
                "--batch",
                "--skip-column-names",
                "--unbuffered",
                "--skip-reconnect",
            ])
            .args(["--user=root", "--init-command=SET SESSION sql_log_off = 1"])
            .arg(format!("--socket={}/socket", self.place.dir().display()))
            .stdin(Stdio::null());
        command
    }

    /// The `mariadb` client as somebody, over TCP.
    fn somebody(&self, name: &str, password: &str) -> Command {
        let mut command = Command::new("mariadb");
        command
            .args([
                "--no-defaults",
                "--batch",
                "--skip-column-names",
                "--unbuffered",
                "--skip-reconnect",
            ])
            .args([
                "--host=127.0.0.1",
                &format!("--port={}", self.port),
                &format!("--user={name}"),
            ])
            .env("MYSQL_PWD", password)
            .stdin(Stdio::null());
        command
    }

    /// Runs SQL as the administrator; returns its output, tab-separated.
    /// # Errors
    /// With the client's complaint.
    pub fn admin(&self, sql: &str) -> io::Result<String> {
        output(self.administrator().args(["--execute", sql]))
    }

    /// Runs SQL as somebody.
    /// # Errors
    /// With the client's complaint.
    pub fn as_user(&self, name: &str, password: &str, sql: &str) -> io::Result<String> {
        output(self.somebody(name, password).args(["--execute", sql]))
    }

    /// An open session of somebody.
    #[cfg(test)]
    pub(crate) fn session(&self, name: &str, password: &str) -> Piped {
        Piped::open(&mut self.somebody(name, password).into())
    }

    /// An open session of the administrator.
    #[cfg(test)]
    pub(crate) fn admin_session(&self) -> Piped {
        Piped::open(&mut self.administrator().into())
    }

    /// What the engine's README asks an administrator to do, and something to work with: marker, root account, role
    /// `readers` that may read table `items` of database `shop`, and an existing account `app`.
    /// # Errors
    /// With the client's complaint.
    pub fn prepare(&self) -> io::Result<()> {
        self.admin(&format!(
            "CREATE ROLE {MARKER};
             CREATE USER {ROOT} IDENTIFIED BY '{ROOT_SECRET}';
             GRANT {MARKER} TO {ROOT} WITH ADMIN OPTION;
             GRANT CREATE USER, PROCESS, CONNECTION ADMIN ON *.* TO {ROOT};
             GRANT UPDATE ON mysql.* TO {ROOT};
             GRANT SELECT (User, Host, is_role, Super_priv, Create_user_priv, Grant_priv, File_priv) ON mysql.user TO {ROOT};
             GRANT SELECT ON mysql.roles_mapping TO {ROOT};
             CREATE DATABASE shop;
             CREATE TABLE shop.items (id INT, name VARCHAR(20));
             INSERT INTO shop.items VALUES (1, 'item 1'), (2, 'item 2'), (3, 'item 3');
             CREATE ROLE readers;
             GRANT SELECT ON shop.* TO readers;
             GRANT readers TO {ROOT} WITH ADMIN OPTION;
             CREATE USER app IDENTIFIED BY 'set-by-hand-once';
             GRANT SELECT ON shop.* TO app"
        ))
        .map(drop)
    }

    /// The mount configuration for this server, JSON.
    pub fn config_json(&self) -> String {
        format!(
            r#"{{"host":"127.0.0.1","port":{},"username":"{ROOT}","marker":"{MARKER}","database":"shop","sslmode":"disable","connect_timeout_secs":2,"statement_timeout_secs":3}}"#,
            self.port
        )
    }

    /// TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.place.dir().join("data")
    }

    /// Every statement that was sent to the server, as it came, but for those of [`Server::admin`].
    pub fn statements(&self) -> String {
        self.place.read("general")
    }

    /// Everything else that the server has said.
    pub fn log(&self) -> String {
        self.place.read("log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}
