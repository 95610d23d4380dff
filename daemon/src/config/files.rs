//! What the keys name on the disk: whether it is there, whether this process may use it, and whether others may not. Errors name key and line, never
//! the value: a PIN may stand where its file's name belongs.

use super::{Config, ConfigError, Hsm, check::Problem};
use rustix::fs::{Access, access};
use std::{
    fs::{self, File, Metadata},
    io::{ErrorKind, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Variables of a module with such an ending name files of its own.
const FILE_VARIABLES: [&str; 4] = ["CONF", "CONFIG", "CFG", "FILE"];
/// Others than the owner.
const OTHERS: u32 = 0o077;
/// Everybody.
const WORLD: u32 = 0o007;
/// Everybody writes.
const WORLD_WRITES: u32 = 0o002;

impl Config {
    /// Looks at every file and directory that the daemon cannot go without, as this process may use them; changes nothing.
    /// # Errors
    /// The first key whose file is missing, unreadable, of the wrong mode, or in the wrong place.
    pub fn look(&self, file: &Path) -> Result<(), ConfigError> {
        self.tls_files()
            .and_then(|()| self.directories())
            .map_err(|problem| ConfigError::Invalid {
                file: file.into(),
                problem: problem.find(&self.lines),
            })
    }

    /// Looks at the files of the HSMs too: a daemon starts without them, since another slot may open the vault, and tells in its status. Returns
    /// what could not be looked at, in words.
    /// # Errors
    /// As [`Config::look`].
    pub fn look_at_all(&self, file: &Path) -> Result<Vec<String>, ConfigError> {
        let mut notes = Vec::new();
        if rustix::process::geteuid().is_root() {
            notes.push("looked at as root, who may read everything: run it as the daemon's user as well".to_owned());
        }
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        self.hsm
            .iter()
            .try_for_each(|(name, hsm)| hsm_files(name, hsm, credentials.as_deref(), &mut notes))
            .map_err(|problem| ConfigError::Invalid {
                file: file.into(),
                problem: problem.find(&self.lines),
            })?;
        self.look(file)?;
        Ok(notes)
    }

    /// An error about `key` that was found outside this room.
    pub fn wrong(&self, file: &Path, key: &str, what: &str) -> ConfigError {
        ConfigError::Invalid {
            file: file.into(),
            problem: Problem::of(key, what).find(&self.lines),
        }
    }

    fn tls_files(&self) -> Result<(), Problem> {
        if let Some(cert) = &self.listener.tls_cert {
            readable(
                "listener.tls_cert",
                cert.get_ref(),
                "put the PEM certificate chain there",
            )?;
        }
        if let Some(key) = &self.listener.tls_key {
            let found = readable("listener.tls_key", key.get_ref(), "put the PEM private key there")?;
            private("listener.tls_key", &found, WORLD, "chmod 0600 (0640 for a group)")?;
        }
        Ok(())
    }

    fn directories(&self) -> Result<(), Problem> {
        let (store, audit) = (
            real("store.path", self.store.path.get_ref())?,
            real("audit.path", &self.audit_dir())?,
        );
        let apart = "the log needs a directory of its own: leave audit.path out (`audit` below store.path), or name one outside store.path";
        // Below the store only the place that nothing else uses, which is the default.
        if audit.starts_with(&store) && audit != store.join("audit") || store.starts_with(&audit) {
            return Err(Problem::of("audit.path", apart));
        }
        writable("store.path", &store)?;
        writable("audit.path", &audit)?;
        match self.listener.socket.get_ref().parent() {
            Some(parent) => writable("listener.socket", &real("listener.socket", parent)?),
            None => Err(Problem::of("listener.socket", "names no file")),
        }
    }
}

fn hsm_files(name: &str, hsm: &Hsm, credentials: Option<&Path>, notes: &mut Vec<String>) -> Result<(), Problem> {
    let key = |field: &str| format!("hsm.{name}.{field}");
    readable(
        &key("module"),
        hsm.module.get_ref(),
        "install the token's PKCS#11 module, or correct the path",
    )?;
    for (variable, value) in &hsm.env {
        if value.starts_with('/') && FILE_VARIABLES.iter().any(|ending| variable.ends_with(ending)) {
            readable(
                &key(&format!("env.{variable}")),
                Path::new(value),
                "the module reads it: correct the path",
            )?;
        }
    }
    if let Some(file) = &hsm.pin_file {
        pin(&key("pin_file"), file.get_ref(), true)?;
    }
    if let Some(credential) = &hsm.pin_credential {
        match credentials {
            // systemd gives it to the service alone, whatever its mode says.
            Some(dir) => pin(&key("pin_credential"), &dir.join(credential.get_ref()), false)?,
            None => notes.push(format!(
                "{} was not looked at: systemd gives it to the service alone",
                key("pin_credential")
            )),
        }
    }
    Ok(())
}

fn pin(key: &str, path: &Path, ours_alone: bool) -> Result<(), Problem> {
    let found = readable(key, path, "put the PIN there, alone in the file")?;
    if found.len() == 0 {
        return Err(Problem::of(key, "the file is empty: put the PIN there"));
    }
    if ours_alone {
        private(key, &found, OTHERS, "chmod 0600 or 0400")?;
    }
    Ok(())
}

/// A file that opens for reading, and what it is like.
fn readable(key: &str, path: &Path, mend: &str) -> Result<Metadata, Problem> {
    let problem = |error: &std::io::Error| Problem::of(key, format!("{}: {mend}", words(error)));
    let found = fs::metadata(path).map_err(|error| problem(&error))?;
    if !found.is_file() {
        return Err(Problem::of(key, format!("is no regular file: {mend}")));
    }
    let opened = File::open(path).and_then(|mut file| file.read(&mut [0u8; 1]));
    opened.map(|_| found).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => {
            Problem::of(key, "this user may not read it: give it to the daemon's user (chown)")
        }
        _ => problem(&error),
    })
}

fn private(key: &str, found: &Metadata, others: u32, mend: &str) -> Result<(), Problem> {
    let mode = found.mode() & 0o777;
    if mode & others == 0 {
        return Ok(());
    }
    Err(Problem::of(
        key,
        format!("others may use the file (mode {mode:04o}): {mend}"),
    ))
}

/// The path with its links followed as far as it exists; what does not exist yet stays as it is written.
fn real(key: &str, path: &Path) -> Result<PathBuf, Problem> {
    let dots = |part| matches!(part, std::path::Component::ParentDir);
    if !path.is_absolute() || path.components().any(dots) {
        return Err(Problem::of(
            key,
            "write the whole path, from / on and without `..`: the daemon may be started anywhere",
        ));
    }
    let there = existing(path);
    let mut real = there.canonicalize().map_err(|error| Problem::of(key, words(&error)))?;
    real.extend(path.strip_prefix(there).unwrap_or(path).components());
    Ok(real)
}

/// The nearest part of `path` that exists.
fn existing(path: &Path) -> &Path {
    path.ancestors()
        .find(|part| part.symlink_metadata().is_ok())
        .unwrap_or(Path::new("/"))
}

/// A directory that this process may write to, or make.
fn writable(key: &str, path: &Path) -> Result<(), Problem> {
    let there = existing(path);
    let found = fs::metadata(there).map_err(|error| Problem::of(key, words(&error)))?;
    if !found.is_dir() {
        return Err(Problem::of(
            key,
            "there is a file in the way of this directory: move it",
        ));
    }
    if there == path && found.mode() & WORLD_WRITES != 0 && key != "listener.socket" {
        return Err(Problem::of(key, "everybody may write to the directory: chmod 0700"));
    }
    access(there, Access::WRITE_OK | Access::EXEC_OK).map_err(|_| {
        let what = if there == path {
            "this user may not write to the directory: give it to the daemon's user (chown)"
        } else {
            "this user may not make the directory: make it, and give it to the daemon's user (chown)"
        };
        Problem::of(key, what)
    })
}

fn words(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => "there is no such file".to_owned(),
        ErrorKind::PermissionDenied => "this user may not look there".to_owned(),
        // The kernel's words; the path is not in them.
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            for (name, mode) in [
                ("module.so", 0o644),
                ("pin", 0o600),
                ("c.pem", 0o644),
                ("k.pem", 0o640),
                ("soft.conf", 0o644),
            ] {
                place.file(name, "x", mode);
            }
            place
        }
        fn file(&self, name: &str, content: &str, mode: u32) {
            let path = self.0.path().join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        fn text(&self) -> String {
            let dir = self.0.path().canonicalize().unwrap();
            format!(
                "[listener]\nsocket = \"{dir}/s.sock\"\ntls_cert = \"{dir}/c.pem\"\ntls_key = \"{dir}/k.pem\"\n[store]\npath = \"{dir}/data\"\n[hsm.a]\nmodule = \"{dir}/module.so\"\ntoken = \"t\"\npin_file = \"{dir}/pin\"\nenv = {{ SOFTHSM2_CONF = \"{dir}/soft.conf\", OTHER = \"/nowhere\" }}\n",
                dir = dir.display()
            )
        }
        fn look(&self, text: &str) -> Result<Vec<String>, String> {
            let config = Config::parse(text).unwrap();
            config
                .look_at_all(Path::new("f.toml"))
                .map_err(|error| error.to_string())
        }
        #[track_caller]
        fn refused(&self, text: &str, words: &[&str]) {
            let error = self.look(text).unwrap_err();
            for word in words {
                assert!(error.contains(word), "{error:?} lacks {word:?}");
            }
            assert!(
                !error.contains(self.0.path().to_str().unwrap()),
                "a value is shown: {error}"
            );
        }
    }

    /// R-OPS-4: every file that is named is there, is readable and is nobody else's business; the error names key and line, and no value.
    #[test]
    fn every_named_file_is_looked_at() {
        let place = Place::new();
        place.look(&place.text()).unwrap();
        for (name, line, key) in [
            ("c.pem", "line 3", "listener.tls_cert"),
            ("k.pem", "line 4", "listener.tls_key"),
            ("module.so", "line 8", "hsm.a.module"),
            ("pin", "line 10", "hsm.a.pin_file"),
            ("soft.conf", "line 11", "hsm.a.env.SOFTHSM2_CONF"),
        ] {
            let path = place.0.path().join(name);
            fs::rename(&path, place.0.path().join("away")).unwrap();
            place.refused(&place.text(), &[line, key, "there is no such file"]);
            fs::create_dir(&path).unwrap();
            place.refused(&place.text(), &[line, key, "no regular file"]);
            fs::remove_dir(&path).unwrap();
            fs::rename(place.0.path().join("away"), &path).unwrap();
        }
        for (name, mode, mend) in [("pin", 0o640, "chmod 0600"), ("k.pem", 0o604, "chmod 0600")] {
            let before = fs::metadata(place.0.path().join(name)).unwrap().mode();
            place.file(name, "x", mode);
            place.refused(&place.text(), &["others may use", mend]);
            place.file(name, "x", before & 0o777);
        }
        place.file("pin", "", 0o600);
        place.refused(&place.text(), &["line 10", "empty"]);
    }

    /// R-OPS-4: directories can be made or written, and the log's is not the store's.
    #[test]
    fn directories_are_apart_and_writable() {
        let place = Place::new();
        let dir = place.0.path().canonicalize().unwrap();
        let with = |audit: &str| format!("{}[audit]\npath = \"{audit}\"\n", place.text());
        let (data, link) = (dir.join("data"), dir.join("link"));
        fs::create_dir(&data).unwrap();
        symlink(&data, &link).unwrap();
        place.look(&with(&format!("{}/audit", data.display()))).unwrap();
        place.look(&with(&format!("{}/log", dir.display()))).unwrap();
        for bad in [
            format!("{}", data.display()),
            format!("{}/", data.display()),
            format!("{}/engine", data.display()),
            format!("{}", link.display()),
            format!("{}/x/y", link.display()),
            format!("{}", dir.display()),
        ] {
            place.refused(&with(&bad), &["line 13", "audit.path", "of its own"]);
        }
        place.refused(&with("var/log"), &["line 13", "whole path"]);
        place.refused(&with("/var/../log"), &["line 13", "whole path"]);
        place.refused(
            &with(&format!("{}/pin/log", dir.display())),
            &["line 13", "file in the way"],
        );
        fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).unwrap();
        place.refused(&place.text(), &["line 6", "store.path", "chmod 0700"]);
    }

    /// A credential of systemd's is looked at where systemd puts it, and only there.
    #[test]
    fn credentials_are_looked_at_in_the_service_alone() {
        let place = Place::new();
        let text = place.text().replace("pin_file = \"", "pin_credential = \"pin\" # \"");
        let config = Config::parse(&text).unwrap();
        let mut notes = Vec::new();
        hsm_files("a", &config.hsm["a"], None, &mut notes).unwrap();
        assert!(notes[0].contains("hsm.a.pin_credential"), "{notes:?}");
        hsm_files("a", &config.hsm["a"], Some(place.0.path()), &mut notes).unwrap();
        fs::remove_file(place.0.path().join("pin")).unwrap();
        let missing = hsm_files("a", &config.hsm["a"], Some(place.0.path()), &mut notes).unwrap_err();
        assert!(missing.find(&config.lines).contains("line 10: hsm.a.pin_credential"));
    }
}
