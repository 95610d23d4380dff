//! What the operator says about one token.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::HsmError;
use crate::name::Mechanism;

/// Which token of the module. Slot numbers change when a token is initialised, so they are not offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSelector {
    /// `CKA_LABEL` of the token, 1 to 32 bytes. Two tokens of one label are refused.
    Label(String),
    /// Serial number of the token, 1 to 16 bytes.
    Serial(String),
}

/// Where the PIN comes from. Never from an argument or the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinSource {
    /// A file with the PIN (1 to 256 bytes; one line end is dropped), read by the worker at each log-in.
    File(PathBuf),
    /// `$CREDENTIALS_DIRECTORY/NAME`, as systemd provides it; read like a file.
    Credential(String),
    /// Given by a person through `Hsm::give_pin`, kept in locked memory, sent to the worker at each log-in.
    Prompted,
}

impl PinSource {
    /// The file to read, if there is one.
    pub(crate) fn path(&self) -> Result<Option<PathBuf>, HsmError> {
        self.path_in(std::env::var_os("CREDENTIALS_DIRECTORY"))
    }

    fn path_in(&self, credentials: Option<OsString>) -> Result<Option<PathBuf>, HsmError> {
        match self {
            Self::Prompted => Ok(None),
            Self::File(path) => Ok(Some(path.clone())),
            Self::Credential(name) => match credentials {
                Some(dir) => Ok(Some(Path::new(&dir).join(name))),
                None => Err(HsmError::new(
                    crate::ErrorKind::PinNeeded,
                    "CREDENTIALS_DIRECTORY is not set: not started by systemd with LoadCredential",
                )),
            },
        }
    }
}

/// How new KEKs seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MechanismChoice {
    /// The first of `Mechanism::ALL` that passes the self-test on this token.
    #[default]
    Auto,
    /// This one or none.
    Only(Mechanism),
}

impl std::str::FromStr for MechanismChoice {
    type Err = HsmError;

    /// `auto`, `gcm`, `kw`, `cbc-hmac` or `oaep-sha256`.
    fn from_str(text: &str) -> Result<Self, HsmError> {
        let named = Mechanism::ALL.into_iter().find(|m| m.as_str() == text).map(Self::Only);
        named
            .or((text == "auto").then_some(Self::Auto))
            .ok_or_else(|| HsmError::invalid("mechanism: one of auto, gcm, kw, cbc-hmac, oaep-sha256"))
    }
}

/// Deadlines, changed only by tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// One call, waiting in the queue included.
    pub call: Duration,
    /// `create` and `self_test`, which make keys; also starting a worker.
    pub keygen: Duration,
    /// Between two probes of an idle token.
    pub probe: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(5),
            keygen: Duration::from_secs(60),
            probe: Duration::from_secs(10),
        }
    }
}

/// One token: `[hsm.NAME]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HsmConfig {
    /// NAME: 1 to 32 of `a-z 0-9 _ -`. Also names the state file.
    pub name: String,
    /// The PKCS#11 module, absolute.
    pub module: PathBuf,
    /// Which token of it.
    pub token: TokenSelector,
    /// Where its PIN comes from.
    pub pin: PinSource,
    /// How new KEKs seal.
    pub mechanism: MechanismChoice,
    /// Variables the module needs (`SOFTHSM2_CONF`), nothing else reaches the worker. Not for secrets:
    /// `/proc` shows them. Names of the loader (`LD_`, `GLIBC_`) are refused.
    pub env: BTreeMap<String, String>,
    /// A directory that outlives restarts; keeps the record of refused log-ins.
    pub state_dir: PathBuf,
    /// When not empty, the worker shuts itself in with landlock: these paths may be read and written (the
    /// token's directory), the system's libraries, the module's folder and the PIN file read, nothing else.
    pub landlock_paths: Vec<PathBuf>,
    /// Deadlines.
    pub deadlines: Deadlines,
}

/// Most variables of one token.
pub(crate) const ENV_MAX: usize = 32;
/// Most landlock paths of one token.
pub(crate) const LANDLOCK_PATHS_MAX: usize = 32;
/// Longest path, name or value.
pub(crate) const TEXT_BYTES_MAX: usize = 4096;

impl HsmConfig {
    /// A configuration with the defaults for everything that has one.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        module: impl Into<PathBuf>,
        token: TokenSelector,
        pin: PinSource,
        state_dir: impl Into<PathBuf>,
    ) -> Self {
        Self {
            name: name.into(),
            module: module.into(),
            token,
            pin,
            mechanism: MechanismChoice::Auto,
            env: BTreeMap::new(),
            state_dir: state_dir.into(),
            landlock_paths: Vec::new(),
            deadlines: Deadlines::default(),
        }
    }

    /// Checks what can be checked without touching the token.
    /// # Errors
    /// `Invalid`, naming the setting.
    pub fn check(&self) -> Result<(), HsmError> {
        let named = (1..=32).contains(&self.name.len())
            && self
                .name
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
        let selected = match &self.token {
            TokenSelector::Label(l) => (1..=32).contains(&l.len()),
            TokenSelector::Serial(s) => (1..=16).contains(&s.len()),
        };
        let pin = match &self.pin {
            PinSource::File(path) => path.is_absolute() && short(path),
            PinSource::Credential(name) => {
                !name.is_empty() && name.len() <= 255 && !name.contains('/') && !name.starts_with('.')
            }
            PinSource::Prompted => true,
        };
        let landlock = self.landlock_paths.len() <= LANDLOCK_PATHS_MAX
            && self.landlock_paths.iter().all(|p| p.is_absolute() && short(p));
        let rules = [
            (named, "name: 1 to 32 of a-z 0-9 _ -"),
            (
                self.module.is_absolute() && short(&self.module),
                "module: an absolute path",
            ),
            (selected, "token: a label of 1 to 32 bytes or a serial of 1 to 16"),
            (pin, "pin: an absolute file, or the plain name of a credential"),
            (
                env_fits(&self.env),
                "env: at most 32 plain variables, none of the loader (LD_, GLIBC_)",
            ),
            (self.state_dir.is_absolute(), "state_dir: an absolute path"),
            (landlock, "landlock_paths: at most 32 absolute paths"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(HsmError::invalid(format!("[hsm.{}] {rule}", self.name))),
            None => Ok(()),
        }
    }
}

fn short(path: &Path) -> bool {
    path.to_str()
        .is_some_and(|p| p.len() <= TEXT_BYTES_MAX && !p.contains('\0'))
}

/// The loader's own variables would run code of the caller's choice in the worker.
pub(crate) fn env_fits(env: &BTreeMap<String, String>) -> bool {
    env.len() <= ENV_MAX
        && env.iter().all(|(name, value)| {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                && !name.starts_with("LD_")
                && !name.starts_with("GLIBC_")
                && value.len() <= TEXT_BYTES_MAX
                && name.len() <= TEXT_BYTES_MAX
                && !value.contains('\0')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let good = HsmConfig::new(
            "main",
            "/usr/lib/module.so",
            TokenSelector::Label("vault".into()),
            PinSource::File("/etc/pin".into()),
            "/var/lib/state",
        );
        good.check().unwrap();
        type Spoil = fn(&mut HsmConfig);
        let bad: [(&str, Spoil); 9] = [
            ("name", |c| c.name = "Main".into()),
            ("module", |c| c.module = "module.so".into()),
            ("token", |c| c.token = TokenSelector::Label(String::new())),
            ("pin", |c| c.pin = PinSource::File("pin".into())),
            ("pin", |c| c.pin = PinSource::Credential("../pin".into())),
            ("env", |c| _ = c.env.insert("LD_PRELOAD".into(), "/evil.so".into())),
            ("env", |c| _ = c.env.insert("A=B".into(), String::new())),
            ("state_dir", |c| c.state_dir = "state".into()),
            ("landlock_paths", |c| c.landlock_paths = vec!["x".into()]),
        ];
        for (setting, spoil) in bad {
            let mut config = good.clone();
            spoil(&mut config);
            let error = config.check().unwrap_err();
            assert!(error.detail.contains(setting), "{setting}: {error}");
        }
    }

    #[test]
    fn sources_and_choices() {
        let credential = PinSource::Credential("hsm-pin".into());
        let path = credential.path_in(Some("/run/credentials/x".into())).unwrap();
        assert_eq!(path, Some("/run/credentials/x/hsm-pin".into()));
        assert_eq!(credential.path_in(None).unwrap_err().kind, crate::ErrorKind::PinNeeded);
        assert_eq!(PinSource::Prompted.path_in(None).unwrap(), None);
        assert_eq!("auto".parse(), Ok(MechanismChoice::Auto));
        assert_eq!("cbc-hmac".parse(), Ok(MechanismChoice::Only(Mechanism::CbcHmac)));
        assert!("cbc".parse::<MechanismChoice>().is_err());
    }
}
