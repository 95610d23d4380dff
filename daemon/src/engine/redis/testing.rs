//! Test support: a throw-away Redis for tests, demo and benches. Real server, private port and directory. Not used by the
//! daemon itself.

#[cfg(test)]
use crate::engine::conformance::Piped;
use crate::engine::testing::{Place, free_port, output, stop, wait_for};
use std::{
    fmt, io,
    path::Path,
    process::{Child, Command, Stdio},
};

/// Where Debian puts the server.
const SERVER: &str = "/usr/bin/redis-server";
/// The administrator's password.
const ADMIN_SECRET: &str = "admin-of-the-lab";

/// What marks accounts here.
pub const MARKER: &str = "lab";
/// The root account that the server begins with.
pub const ROOT: &str = "strongroom";
/// Its password.
pub const ROOT_SECRET: &str = "canary-root-secret-0123456789abcdef";
/// The rights that the engine's README asks for.
pub const ROOT_RULES: &str = "resetkeys resetchannels -@all +acl|setuser +acl|deluser +acl|getuser +acl|list +acl|save +client|id +client|list +client|kill +ping";

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
    /// Starts a server with an administrator, the root account as the README asks, a key `items`, and an existing account `app`.
    /// # Errors
    /// When Redis is not installed, or does not start.
    pub fn start() -> io::Result<Self> {
        if !Path::new(SERVER).exists() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "Redis is not installed: apt-get install redis-server",
            ));
        }
        let mut server = Self {
            place: Place::new("redis", "redis")?,
            port: free_port()?,
            settings: String::new(),
            process: None,
        };
        server.settings = format!("port {}\n", server.port);
        server.place.write(
            "users.acl",
            &format!(
                "user default off\nuser admin on >{ADMIN_SECRET} ~* &* +@all\nuser {ROOT} on >{ROOT_SECRET} {ROOT_RULES}\nuser app on >set-by-hand-once ~items +@read +ping +client|id\n"
            ),
        )?;
        server.resume()?;
        server.admin(&["ACL", "SAVE"])?;
        server.admin(&["SET", "items", "3"])?;
        Ok(server)
    }

    /// Starts a stopped server and waits until it takes connections.
    /// # Errors
    /// When it does not.
    pub fn resume(&mut self) -> io::Result<()> {
        let dir = self.place.dir().display();
        self.place.write(
            "redis.conf",
            &format!(
                "bind 127.0.0.1\ndir {dir}\naclfile {dir}/users.acl\nsave \"\"\nappendonly yes\nappendfsync everysec\nslowlog-log-slower-than 0\nslowlog-max-len 4096\n{}",
                self.settings
            ),
        )?;
        let mut command = self.place.command(SERVER);
        command.arg(self.place.dir().join("redis.conf"));
        self.process = Some(self.place.spawn(command)?);
        wait_for("Redis did not start", || self.admin(&["PING"]).is_ok())
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

    /// Gives the server a certificate and key (PEM) and starts it again with TLS instead of a plain port.
    /// # Errors
    /// When it does not take them.
    pub fn install_tls(&mut self, certificate: &str, key: &str) -> io::Result<()> {
        let certificate = self.place.write("server.crt", certificate)?;
        let key = self.place.write("server.key", key)?;
        self.settings = format!(
            "port 0\ntls-port {}\ntls-auth-clients no\ntls-cert-file {c}\ntls-key-file {}\ntls-ca-cert-file {c}\n",
            self.port,
            key.display(),
            c = certificate.display()
        );
        self.stop()?;
        self.resume()
    }

    fn client(&self, name: &str, password: &str, words: &[&str]) -> Command {
        let mut command = Command::new("redis-cli");
        command
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &self.port.to_string(),
                "--no-auth-warning",
                "--user",
                name,
            ])
            .env("REDISCLI_AUTH", password)
            .stdin(Stdio::null());
        if self.settings.contains("tls-port") {
            command.args(["--tls", "--insecure"]);
        }
        command.args(words);
        command
    }

    /// Says a command as the administrator, by `redis-cli`.
    /// # Errors
    /// With the client's complaint.
    pub fn admin(&self, words: &[&str]) -> io::Result<String> {
        output(self.client("admin", ADMIN_SECRET, &["-e"]).args(words))
    }

    /// An open session of somebody.
    #[cfg(test)]
    pub(crate) fn session(&self, name: &str, password: &str) -> Piped {
        Piped::open(&mut self.client(name, password, &[]).into())
    }

    /// The mount configuration for this server, JSON.
    pub fn config_json(&self) -> String {
        format!(
            r#"{{"host":"127.0.0.1","port":{},"username":"{ROOT}","marker":"{MARKER}","sslmode":"disable","connect_timeout_secs":2,"statement_timeout_secs":3}}"#,
            self.port
        )
    }

    /// Everything that the server has said or was told: its log, and the slow log, in which every command is, a word a line.
    pub fn log(&self) -> String {
        self.place.read("log") + &self.admin(&["SLOWLOG", "GET", "4096"]).unwrap_or_default()
    }

    /// The ACL file, as the server last saved it.
    pub fn saved(&self) -> String {
        self.place.read("users.acl")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}
