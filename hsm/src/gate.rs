//! The gate before every log-in. Tokens lock after as few as three wrong PINs, so a refused log-in is never
//! repeated: the refusal is a small file that outlives restarts, and only an operator's act removes it.
//!
//! The attempt is written down *before* it is made and crossed out after, so a crash in the middle counts:
//! two attempts of unknown outcome close the gate as a refusal does. A changed PIN file does not open it:
//! a file's time says nothing (systemd makes credentials anew at each start), and keeping even a hash of a
//! refused PIN would help guess the right one. What opens it: `Hsm::forgive_pin`, a newly given prompted
//! PIN, or deleting the file.

use std::fs::{self, File};
use std::io::{ErrorKind as Io, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{ErrorKind, HsmError};
use crate::wire::{PinFlags, TokenIdentity};

/// Attempts whose outcome nobody saw (worker died or hung in `C_Login`) before the gate closes.
const UNKNOWN_MAX: u8 = 2;
/// Longest state file that is read (bytes).
const FILE_BYTES_MAX: u64 = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Record {
    Clear,
    Unknown(u8),
    Refused,
}

/// Remembers refusals in a directory; one file per token and module.
pub(crate) struct Gate {
    dir: PathBuf,
    module: PathBuf,
    /// An operator allowed one try in spite of the token's warnings.
    forgiven: bool,
}

/// Leave to log in once. Must be settled.
#[must_use]
pub(crate) struct Attempt {
    file: PathBuf,
    token: String,
}

impl Gate {
    pub(crate) fn new(dir: &Path, module: &Path) -> Self {
        // One module under two names is one module.
        let module = fs::canonicalize(module).unwrap_or_else(|_| module.to_owned());
        Self {
            dir: dir.to_owned(),
            module,
            forgiven: false,
        }
    }

    /// Asks for leave to log in to this token, and writes the attempt down.
    pub(crate) fn attempt(&mut self, token: &TokenIdentity, flags: PinFlags) -> Result<Attempt, HsmError> {
        let file = self.file(token);
        let forgiven = std::mem::take(&mut self.forgiven);
        let held = |why: &str| {
            HsmError::new(
                ErrorKind::AuthHeld,
                format!("token {}: {why}; record {}", token.serial, file.display()),
            )
        };
        let record = if forgiven { Record::Clear } else { read(&file)? };
        let tried = match record {
            Record::Refused => return Err(held("an earlier log-in was refused")),
            Record::Unknown(n) if n >= UNKNOWN_MAX => return Err(held("the worker died in earlier log-ins")),
            Record::Unknown(n) => n,
            Record::Clear => 0,
        };
        if flags.any() && !forgiven {
            return Err(held(match (flags.locked, flags.final_try) {
                (true, _) => "the token reports its PIN as locked",
                (_, true) => "the token reports one last try",
                _ => "the token reports wrong PINs",
            }));
        }
        let attempt = Attempt {
            file,
            token: token.serial.clone(),
        };
        attempt.write(Record::Unknown(tried + 1))?;
        Ok(attempt)
    }

    /// An operator's act: the next attempt is granted whatever is recorded and whatever the token warns of.
    pub(crate) fn forgive(&mut self) {
        self.forgiven = true;
    }

    fn file(&self, token: &TokenIdentity) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        let mut hash = Sha256::new();
        hash.update((token.serial.len() as u32).to_be_bytes());
        hash.update(&token.serial);
        hash.update(self.module.as_os_str().as_bytes());
        let name: String = hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect();
        self.dir.join(format!("hsm-login-{name}"))
    }
}

impl Attempt {
    /// The token let us in, or did not get to judge the PIN.
    pub(crate) fn passed(self) -> Result<(), HsmError> {
        match fs::remove_file(&self.file) {
            Err(e) if e.kind() != Io::NotFound => Err(failed(&self.file, &e)),
            _ => Ok(()),
        }
    }

    /// The token refused the PIN.
    pub(crate) fn refused(self) -> Result<(), HsmError> {
        self.write(Record::Refused)
    }

    fn write(&self, record: Record) -> Result<(), HsmError> {
        let state = match record {
            Record::Clear => "clear".to_owned(),
            Record::Unknown(n) => format!("unknown {n}"),
            Record::Refused => "refused".to_owned(),
        };
        let text = format!(
            "{state}\nLast log-in to token {}. Deleting this file allows another try; tokens lock after a few.\n",
            self.token
        );
        store(&self.file, &text).map_err(|e| failed(&self.file, &e))
    }
}

/// Replaces the file durably: written aside, synced, renamed, directory synced.
fn store(file: &Path, text: &str) -> std::io::Result<()> {
    let aside = file.with_extension("new");
    let mut out = File::create(&aside)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    fs::rename(&aside, file)?;
    match file.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// A record that cannot be understood counts as a refusal: the safe reading.
fn read(file: &Path) -> Result<Record, HsmError> {
    let mut text = String::new();
    match File::open(file).and_then(|f| f.take(FILE_BYTES_MAX).read_to_string(&mut text)) {
        Err(e) if e.kind() == Io::NotFound => return Ok(Record::Clear),
        Err(e) if e.kind() != Io::InvalidData => return Err(failed(file, &e)),
        _ => {}
    }
    let mut words = text.lines().next().unwrap_or_default().split(' ');
    Ok(match (words.next(), words.next().and_then(|n| n.parse().ok())) {
        (Some("clear"), None) => Record::Clear,
        (Some("unknown"), Some(n)) => Record::Unknown(n),
        _ => Record::Refused,
    })
}

fn failed(file: &Path, error: &std::io::Error) -> HsmError {
    HsmError::new(
        ErrorKind::Device,
        format!("record of log-ins {}: {error}", file.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> TokenIdentity {
        TokenIdentity {
            serial: "00ab".into(),
            ..TokenIdentity::default()
        }
    }

    /// A gate as after a restart.
    fn gate(dir: &Path) -> Gate {
        Gate::new(dir, Path::new("/no/module.so"))
    }

    /// R-SEAL-6: a refused log-in is not repeated, across restarts, until an operator says so.
    #[test]
    fn refusal_outlives_restart() {
        let dir = tempfile::tempdir().unwrap();
        gate(dir.path())
            .attempt(&token(), PinFlags::default())
            .unwrap()
            .refused()
            .unwrap();
        for _ in 0..2 {
            let error = gate(dir.path()).attempt(&token(), PinFlags::default()).err().unwrap();
            assert_eq!(error.kind, ErrorKind::AuthHeld);
        }
        let other = TokenIdentity {
            serial: "00ac".into(),
            ..token()
        };
        gate(dir.path())
            .attempt(&other, PinFlags::default())
            .unwrap()
            .passed()
            .unwrap();
        let mut forgiving = gate(dir.path());
        forgiving.forgive();
        forgiving
            .attempt(&token(), PinFlags::default())
            .unwrap()
            .passed()
            .unwrap();
        gate(dir.path())
            .attempt(&token(), PinFlags::default())
            .unwrap()
            .passed()
            .unwrap();
    }

    #[test]
    fn two_unknown_outcomes_close() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..UNKNOWN_MAX {
            let _crashed = gate(dir.path()).attempt(&token(), PinFlags::default()).unwrap();
        }
        assert!(gate(dir.path()).attempt(&token(), PinFlags::default()).is_err());
    }

    /// A forgiveness is for one try: the second refusal closes again.
    #[test]
    fn forgiven_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut gate = gate(dir.path());
        let low = PinFlags {
            count_low: true,
            ..PinFlags::default()
        };
        assert!(gate.attempt(&token(), low).is_err());
        gate.forgive();
        gate.attempt(&token(), low).unwrap().refused().unwrap();
        assert!(gate.attempt(&token(), PinFlags::default()).is_err());
    }

    #[test]
    fn warnings_and_damaged_records_hold() {
        let dir = tempfile::tempdir().unwrap();
        for flags in [
            PinFlags {
                count_low: true,
                ..PinFlags::default()
            },
            PinFlags {
                final_try: true,
                ..PinFlags::default()
            },
            PinFlags {
                locked: true,
                ..PinFlags::default()
            },
        ] {
            assert!(gate(dir.path()).attempt(&token(), flags).is_err(), "{flags:?}");
        }
        let file = gate(dir.path()).file(&token());
        for damage in [&b""[..], b"unknown", b"unknown 999", b"\xff\xff"] {
            fs::write(&file, damage).unwrap();
            assert!(
                gate(dir.path()).attempt(&token(), PinFlags::default()).is_err(),
                "{damage:?}"
            );
        }
    }
}
