//! Test support: a throw-away RabbitMQ for tests, demo and benches. Real server, private ports, directory and port mapper.
//! Not used by the daemon itself.

use crate::engine::testing::{Place, free_ports, stop, wait_for, wait_within};
use data_encoding::BASE64;
use parking_lot::Mutex;
use std::{
    fmt,
    io::{self, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command},
    time::Duration,
};

/// Where Debian puts the server; the wrapper in `/usr/sbin` wants to be root or the package's own user.
const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const PORT_MAPPER: &str = "/usr/bin/epmd";
/// The administrator's password.
const ADMIN_SECRET: &str = "admin-of-the-lab";
/// Erlang starts slowly, on a busy machine very slowly.
const PATIENCE: Duration = Duration::from_secs(180);
/// An answer of the management API at most.
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);
/// A port that was free may be somebody's by the time that the server wants it.
const TRIES: u32 = 3;

/// What marks accounts here.
pub const MARKER: &str = "lab";
/// The root account that the server begins with.
pub const ROOT: &str = "strongroom";
/// Its password.
pub const ROOT_SECRET: &str = "canary-root-secret-0123456789abcdef";

/// One of them boots at a time: several at once would take longer than one after the other.
static BOOTING: Mutex<()> = Mutex::new(());

/// A running (or stopped) server. Dropping it stops it and removes its directory.
pub struct Server {
    place: Place,
    /// Of AMQP, the management API, the same with TLS, Erlang's distribution, the port mapper.
    ports: [u16; 5],
    tls: String,
    mapper: Option<Child>,
    process: Option<Child>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server(ports {:?})", self.ports)
    }
}

impl Server {
    /// Starts a server with an administrator, the root account as the README asks, an empty queue `items`, and an existing
    /// account `app` that may read it.
    /// # Errors
    /// When RabbitMQ is not installed, or does not start.
    pub fn start() -> io::Result<Self> {
        if !Path::new(SERVER).exists() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "RabbitMQ is not installed: apt-get install rabbitmq-server",
            ));
        }
        let mut last = io::Error::other("never tried");
        for _ in 0..TRIES {
            match Self::try_start() {
                Ok(server) => return Ok(server),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn try_start() -> io::Result<Self> {
        let mut server = Self {
            place: Place::new("rabbitmq", "rabbitmq")?,
            ports: free_ports()?,
            tls: String::new(),
            mapper: None,
            process: None,
        };
        server.place.write("enabled_plugins", "[rabbitmq_management].\n")?;
        // Its own port mapper: the server would leave one behind.
        let [.., port] = server.ports;
        let mut mapper = server.command(PORT_MAPPER);
        mapper.args(["-port", &port.to_string(), "-address", "127.0.0.1"]);
        server.mapper = Some(server.place.spawn(mapper)?);
        wait_for("epmd did not start", || TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        server.resume()?;
        for (path, body) in [
            (
                format!("/api/users/{ROOT}"),
                format!(r#"{{"password":"{ROOT_SECRET}","tags":["administrator"]}}"#),
            ),
            (
                "/api/users/app".to_owned(),
                r#"{"password":"set-by-hand-once","tags":["shop"]}"#.to_owned(),
            ),
            (
                "/api/permissions/%2F/app".to_owned(),
                r#"{"configure":"","write":"","read":"^items$"}"#.to_owned(),
            ),
            ("/api/queues/%2F/items".to_owned(), r#"{"durable":true}"#.to_owned()),
        ] {
            server.admin("PUT", &path, &body)?;
        }
        Ok(server)
    }

    /// A program here, told where everything is and to leave the machine's own RabbitMQ alone.
    fn command(&self, program: &str) -> Command {
        let dir = self.place.dir();
        let [amqp, _, _, distribution, mapper] = self.ports;
        let mut command = self.place.command(program);
        command
            .env("HOME", dir)
            .env("ERL_EPMD_PORT", mapper.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_CONFIG_FILE", dir.join("rabbitmq.conf"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", dir.join("advanced.config"))
            .env("RABBITMQ_GENERATED_CONFIG_DIR", dir.join("generated"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("enabled_plugins"))
            .env("RABBITMQ_MNESIA_BASE", dir.join("data"))
            .env("RABBITMQ_LOG_BASE", dir.join("logs"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_PID_FILE", dir.join("pid"))
            .env("RABBITMQ_NODENAME", format!("strongroom{amqp}@localhost"))
            .env("RABBITMQ_DIST_PORT", distribution.to_string())
            // One scheduler that does not spin: the tests need the processor.
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none",
            )
            // The script becomes the server instead of waiting beside it.
            .env("RUNNING_UNDER_SYSTEMD", "1")
            .env_remove("NOTIFY_SOCKET");
        command
    }

    /// Starts a stopped server and waits until it takes connections.
    /// # Errors
    /// When it does not.
    pub fn resume(&mut self) -> io::Result<()> {
        let [amqp, management, ..] = self.ports;
        self.place.write(
            "rabbitmq.conf",
            &format!(
                "listeners.tcp.1 = 127.0.0.1:{amqp}\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management}\n\
                 default_user = admin\ndefault_pass = {ADMIN_SECRET}\n\
                 log.console = true\nlog.console.level = debug\nlog.file = false\n{}",
                self.tls
            ),
        )?;
        let _booting = BOOTING.lock();
        let mut child = self.place.spawn(self.command(SERVER))?;
        let mut ended = false;
        let up = wait_within(PATIENCE, "RabbitMQ did not start", || {
            ended = child.try_wait().is_ok_and(|status| status.is_some());
            ended || (self.admin("GET", "/api/whoami", "").is_ok() && TcpStream::connect(("127.0.0.1", amqp)).is_ok())
        });
        self.process = Some(child);
        if ended {
            return Err(io::Error::other(format!("RabbitMQ ended: {}", self.place.read("log"))));
        }
        up
    }

    /// Stops the server at once, as a power cut of its machine would; sessions die.
    /// # Errors
    /// When it does not stop.
    pub fn stop(&mut self) -> io::Result<()> {
        match self.process.take() {
            Some(child) => stop(child, rustix::process::Signal::KILL),
            None => Ok(()),
        }
    }

    /// Gives the server a certificate and key (PEM) and starts it again with a management API by TLS as well.
    /// # Errors
    /// When it does not take them.
    pub fn install_tls(&mut self, certificate: &str, key: &str) -> io::Result<()> {
        let certificate = self.place.write("server.crt", certificate)?;
        let key = self.place.write("server.key", key)?;
        let [_, _, port, ..] = self.ports;
        self.tls = format!(
            "management.ssl.ip = 127.0.0.1\nmanagement.ssl.port = {port}\nmanagement.ssl.cacertfile = {c}\n\
             management.ssl.certfile = {c}\nmanagement.ssl.keyfile = {}\n",
            key.display(),
            c = certificate.display()
        );
        self.stop()?;
        self.resume()
    }

    /// The port of AMQP.
    pub fn amqp_port(&self) -> u16 {
        let [amqp, ..] = self.ports;
        amqp
    }

    /// Asks the management API as the administrator, by a client that is not the engine's.
    /// # Errors
    /// With the answer, where it is no success.
    pub fn admin(&self, method: &str, path: &str, body: &str) -> io::Result<String> {
        self.ask("admin", ADMIN_SECRET, method, path, body)
    }

    /// The same as somebody.
    /// # Errors
    /// With the answer, where it is no success.
    pub fn ask(&self, name: &str, password: &str, method: &str, path: &str, body: &str) -> io::Result<String> {
        let [_, management, ..] = self.ports;
        let mut stream = TcpStream::connect(("127.0.0.1", management))?;
        stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
        let who = BASE64.encode(format!("{name}:{password}").as_bytes());
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nauthorization: Basic {who}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        match head.split(' ').nth(1) {
            Some(status) if status.starts_with('2') => Ok(body.to_owned()),
            _ => Err(io::Error::other(answer)),
        }
    }

    /// The mount configuration for this server, JSON.
    pub fn config_json(&self) -> String {
        let [amqp, management, ..] = self.ports;
        format!(
            r#"{{"host":"127.0.0.1","port":{management},"username":"{ROOT}","marker":"{MARKER}","sslmode":"disable","amqp_port":{amqp},"connect_timeout_secs":5,"statement_timeout_secs":5}}"#
        )
    }

    /// The same by TLS, once it has a certificate.
    pub fn tls_config_json(&self, sslmode: &str, ca_pem: &str) -> String {
        let [_, management, tls, ..] = self.ports;
        self.config_json()
            .replace(&format!("\"port\":{management},"), &format!("\"port\":{tls},"))
            .replace(
                "\"sslmode\":\"disable\"",
                &format!(
                    "\"sslmode\":\"{sslmode}\",\"ca_pem\":{}",
                    serde_json::Value::from(ca_pem)
                ),
            )
    }

    /// Everything that the server has said, down to its debug messages.
    pub fn log(&self) -> String {
        self.place.read("log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop();
        if let Some(mapper) = self.mapper.take() {
            let _ = stop(mapper, rustix::process::Signal::KILL);
        }
    }
}
