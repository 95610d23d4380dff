//! Test support that all kinds' real servers share: a directory and an unprivileged user to run as, a free port, a process
//! that can be stopped. Not used by the daemon itself.

use std::{
    fs, io,
    net::TcpListener,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// How long a server may take to start or stop.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// `nobody`, where there is no user of the server's own.
const NOBODY: u32 = 65_534;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Where a throw-away server lives and as whom it runs: nobody special when we are root, for servers refuse root. Dropping it
/// removes the directory.
#[derive(Debug)]
pub struct Place {
    dir: PathBuf,
    user: Option<(u32, u32)>,
}

impl Place {
    /// A new directory; the server's user is `user` if there is one.
    /// # Errors
    /// When it cannot be made.
    pub fn new(name: &str, user: &str) -> io::Result<Self> {
        let dir = loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let dir = std::env::temp_dir().join(format!("sr-{name}-{}-{count}", std::process::id()));
            match fs::create_dir(&dir) {
                // Left by a process of the same number that was killed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => break made.map(|()| dir)?,
            }
        };
        let place = Self {
            dir,
            user: unprivileged(user)?,
        };
        place.give(&place.dir)?;
        fs::set_permissions(&place.dir, fs::Permissions::from_mode(0o711))?;
        Ok(place)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes a file that only the server reads.
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.dir.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        self.give(&path)?;
        Ok(path)
    }

    /// What a file holds, as text; empty when it is not there.
    pub fn read(&self, name: &str) -> String {
        fs::read(self.dir.join(name))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    fn give(&self, path: &Path) -> io::Result<()> {
        match self.user {
            Some((uid, gid)) => chown(path, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }

    /// A program that runs here, as the server's user.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command.current_dir(&self.dir).stdin(Stdio::null());
        command
    }

    /// Starts `command` with its output in the file `log`.
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, mut command: Command) -> io::Result<Child> {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))?;
        command.stdout(log.try_clone()?).stderr(log).spawn()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Tries `ready` until it is.
/// # Errors
/// `TimedOut` with `words` after [`PATIENCE`].
pub fn wait_for(words: &str, ready: impl FnMut() -> bool) -> io::Result<()> {
    wait_within(PATIENCE, words, ready)
}

/// The same with another limit.
/// # Errors
/// `TimedOut` with `words` after `limit`.
pub fn wait_within(limit: Duration, words: &str, mut ready: impl FnMut() -> bool) -> io::Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < limit {
        if ready() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(30));
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, words.to_owned()))
}

/// Signals a server and waits for its end.
/// # Errors
/// When it has to be killed.
pub fn stop(mut child: Child, signal: rustix::process::Signal) -> io::Result<()> {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        // A server that has gone needs no signal.
        let _ = rustix::process::kill_process(pid, signal);
    }
    match wait_for("the server did not stop", || {
        child.try_wait().is_ok_and(|ended| ended.is_some())
    }) {
        Ok(()) => Ok(()),
        Err(_) => child.kill(),
    }
}

/// A port that was free a moment ago, and below those that the kernel gives to outgoing connections: one of them could take it while its server is
/// down. No two are the same in one process.
/// # Errors
/// When there is none.
pub fn free_port() -> io::Result<u16> {
    use std::{
        hash::{BuildHasher, RandomState},
        sync::{
            LazyLock,
            atomic::{AtomicU64, Ordering},
        },
    };
    const FROM: u64 = 10_000;
    const MANY: u64 = 20_000;
    static NEXT: LazyLock<AtomicU64> =
        LazyLock::new(|| AtomicU64::new(RandomState::new().hash_one(std::process::id()) >> 1));
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..MANY {
        let port = FROM + NEXT.fetch_add(1, Ordering::Relaxed) % MANY;
        let port = u16::try_from(port).map_err(io::Error::other)?;
        match TcpListener::bind(("127.0.0.1", port)) {
            Ok(_) => return Ok(port),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Several, each another.
/// # Errors
/// When there are none.
pub fn free_ports<const N: usize>() -> io::Result<[u16; N]> {
    let mut ports = [0; N];
    for port in &mut ports {
        *port = free_port()?;
    }
    Ok(ports)
}

/// Output of a program that must succeed, trimmed.
/// # Errors
/// With what it complained.
pub fn output(command: &mut Command) -> io::Result<String> {
    let out = command.output()?;
    if out.status.success() {
        Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&out.stderr).into_owned()))
    }
}

/// The user to run as: `preferred` or nobody when we are root, ourselves otherwise.
fn unprivileged(preferred: &str) -> io::Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd")?;
    let found = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        (name == preferred).then_some((uid, gid))
    });
    Ok(Some(found.unwrap_or((NOBODY, NOBODY))))
}
