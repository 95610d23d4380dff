//! A file that is made from a template: written whole or not at all, never readable by others in between; who uses it is told.

use super::template::Template;
use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use strongroom_client::Secrets;

/// How long a command that is told may take.
const COMMAND_PATIENCE: Duration = Duration::from_secs(60);

/// Who is told when the file has changed.
#[derive(Debug)]
pub enum Tell {
    /// Nobody.
    Nobody,
    /// This command is run.
    Command(Vec<String>),
    /// The process whose number stands in the file gets the signal.
    Signal(rustix::process::Signal, PathBuf),
}

impl Tell {
    /// By the signal's name, with or without `SIG`.
    pub fn signal(name: &str, pid_file: PathBuf) -> Result<Self, String> {
        use rustix::process::Signal;
        let signal = match name.strip_prefix("SIG").unwrap_or(name) {
            "HUP" => Signal::HUP,
            "INT" => Signal::INT,
            "TERM" => Signal::TERM,
            "USR1" => Signal::USR1,
            "USR2" => Signal::USR2,
            _ => return Err(format!("`{name}` is none of HUP, INT, TERM, USR1, USR2")),
        };
        Ok(Self::Signal(signal, pid_file))
    }
}

/// One file.
#[derive(Debug)]
pub struct Rendered {
    path: PathBuf,
    template: Template,
    mode: u32,
    owner: Option<u32>,
    group: Option<u32>,
    tell: Tell,
    /// It was written, and who uses it does not know yet.
    untold: bool,
}

/// What a look at a file came to.
#[derive(Debug, Default)]
pub struct Refreshed {
    /// It was written anew.
    pub written: bool,
    /// Who uses it could not be told, and why: it is tried again.
    pub untold: Option<String>,
}

impl Rendered {
    /// At `path`, with mode, owner and group.
    pub fn new(path: PathBuf, template: Template, rights: (u32, Option<u32>, Option<u32>), tell: Tell) -> Self {
        let (mode, owner, group) = rights;
        Self {
            path,
            template,
            mode,
            owner,
            group,
            tell,
            untold: false,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The secrets that stand in it.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.template.paths()
    }

    /// Writes it if it is not what it should be, and tells until that works. The error says which file.
    pub async fn refresh(&mut self, secrets: &Secrets) -> Result<Refreshed, String> {
        let content = self.template.render(|path| secrets.get(path));
        let content = content.map_err(|error| self.named(&error))?;
        self.bring(&content).await
    }

    async fn bring(&mut self, content: &[u8]) -> Result<Refreshed, String> {
        let mut refreshed = Refreshed::default();
        if !self.is_right(content) {
            self.write(content).map_err(|error| self.named(&error.to_string()))?;
            (refreshed.written, self.untold) = (true, true);
        }
        if self.untold {
            match self.tell().await {
                Ok(()) => self.untold = false,
                Err(error) => refreshed.untold = Some(self.named(&format!("written, but {error}"))),
            }
        }
        Ok(refreshed)
    }

    fn named(&self, error: &str) -> String {
        format!("{}: {error}", self.path.display())
    }

    fn is_right(&self, content: &[u8]) -> bool {
        let Ok(metadata) = fs::symlink_metadata(&self.path) else {
            return false;
        };
        metadata.is_file()
            && metadata.mode() & 0o7777 == self.mode
            && self.owner.is_none_or(|owner| owner == metadata.uid())
            && self.group.is_none_or(|group| group == metadata.gid())
            && metadata.len() == content.len() as u64
            && fs::read(&self.path).is_ok_and(|present| zeroize::Zeroizing::new(present).as_slice() == content)
    }

    /// Beside it, then renamed: a reader sees the old one or the new one.
    fn write(&self, content: &[u8]) -> io::Result<()> {
        let (Some(dir), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return Err(io::Error::other("not the place of a file"));
        };
        let mut beside = std::ffi::OsString::from(".");
        beside.push(name);
        beside.push(".strongroom");
        let beside = dir.join(beside);
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let written = self
            .write_beside(&beside, content)
            .and_then(|()| fs::rename(&beside, &self.path));
        if written.is_err() {
            // The error that is told says more.
            let _ = fs::remove_file(&beside);
        }
        written
    }

    fn write_beside(&self, beside: &Path, content: &[u8]) -> io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(beside)?;
        file.write_all(content)?;
        if self.owner.is_some() || self.group.is_some() {
            std::os::unix::fs::fchown(&file, self.owner, self.group)?;
        }
        // After the owner: giving a file away may clear bits, and the mode opens it only to whom it belongs by now.
        file.set_permissions(fs::Permissions::from_mode(self.mode))?;
        file.sync_all()
    }

    async fn tell(&self) -> Result<(), String> {
        match &self.tell {
            Tell::Nobody => Ok(()),
            Tell::Command(words) => run(words).await,
            Tell::Signal(signal, pid_file) => {
                let text = fs::read_to_string(pid_file).map_err(|error| format!("{}: {error}", pid_file.display()))?;
                let pid = text.trim().parse().ok().filter(|pid| *pid > 1);
                let pid = pid
                    .and_then(rustix::process::Pid::from_raw)
                    .ok_or("there is no process number in pid_file")?;
                rustix::process::kill_process(pid, *signal).map_err(|error| format!("the signal was not sent: {error}"))
            }
        }
    }
}

async fn run(words: &[String]) -> Result<(), String> {
    let Some((program, arguments)) = words.split_first() else {
        return Ok(());
    };
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .env_remove("STRONGROOM_TOKEN")
        .kill_on_drop(true);
    match tokio::time::timeout(COMMAND_PATIENCE, command.status()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("`{program}` ended with {status}")),
        Ok(Err(error)) => Err(format!("`{program}` did not start: {error}")),
        Err(_) => Err(format!("`{program}` was ended after {} s", COMMAND_PATIENCE.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R-OPS-6: a reload that fails (the program does not run yet) is tried again until it works, and then not any more.
    #[tokio::test]
    async fn a_failed_reload_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let (ready, told) = (dir.path().join("ready"), dir.path().join("told"));
        let script = format!("test -e {} && echo told >> {}", ready.display(), told.display());
        let words = ["/bin/sh", "-c", &script].map(str::to_owned).to_vec();
        let place = dir.path().join("file");
        let mut file = Rendered::new(
            place.clone(),
            Template::parse("x").unwrap(),
            (0o600, None, None),
            Tell::Command(words),
        );
        for (written, refused) in [(true, true), (false, true)] {
            let refreshed = file.bring(b"x").await.unwrap();
            assert_eq!((refreshed.written, refreshed.untold.is_some()), (written, refused));
        }
        assert_eq!(fs::read(&place).unwrap(), b"x", "the file is there all the same");
        fs::write(&ready, "").unwrap();
        for _ in 0..2 {
            let refreshed = file.bring(b"x").await.unwrap();
            assert!(!refreshed.written && refreshed.untold.is_none());
        }
        assert_eq!(fs::read_to_string(&told).unwrap(), "told\n", "once");
    }
}
