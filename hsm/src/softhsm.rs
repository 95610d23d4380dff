//! Throw-away tokens: SoftHSM2 in a directory of its own, for tests and `strongroomd dev`. Not a root of trust:
//! whoever reads the directory has the keys as far as the PIN is guessable, and the PIN lies beside them.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::config::{HsmConfig, PinSource, TokenSelector};
use crate::error::{ErrorKind, HsmError};
use crate::launch::Launcher;
use crate::pin::Pin;
use crate::wire::{Channel, Reply, Request};

/// Names the module when it is not in a usual place.
pub const MODULE_VAR: &str = "STRONGROOM_SOFTHSM_MODULE";
/// Where distributions put it.
const MODULES: [&str; 5] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
];
/// How long making a token may take.
const PROVISION_TIMEOUT: Duration = Duration::from_secs(30);

/// The SoftHSM module of this machine: `$STRONGROOM_SOFTHSM_MODULE`, or where distributions put it.
#[must_use]
pub fn module() -> Option<PathBuf> {
    match std::env::var_os(MODULE_VAR) {
        Some(path) => Some(PathBuf::from(path)),
        None => MODULES.iter().map(PathBuf::from).find(|p| p.exists()),
    }
}

/// Makes a SoftHSM token called `label` in `dir` (made if need be, mode 0700) with a random PIN in `dir/pin`
/// (mode 0600), and returns its configuration, named `name`. A directory that holds this token already is used
/// as it is. `launcher` starts the worker that does it; it must exec (`Launcher::exec`).
///
/// Layout: `dir/softhsm2.conf`, `dir/tokens/`, `dir/pin`, and `dir/state/` for the record of log-ins.
/// # Errors
/// `Device` when SoftHSM is not installed or the directory cannot be written.
pub fn create(dir: &Path, name: &str, label: &str, launcher: &Launcher) -> Result<HsmConfig, HsmError> {
    let module = module().ok_or_else(|| {
        HsmError::new(
            ErrorKind::Device,
            format!("SoftHSM2 not found: install softhsm2 or set {MODULE_VAR}"),
        )
    })?;
    let failed = |e: std::io::Error| HsmError::new(ErrorKind::Device, format!("{}: {e}", dir.display()));
    for part in [dir, &dir.join("tokens"), &dir.join("state")] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(part)
            .map_err(failed)?;
    }
    let dir = dir.canonicalize().map_err(failed)?;
    let conf = dir.join("softhsm2.conf");
    let text = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nobjectstore.umask = 0077\nlog.level = ERROR\n\
         slots.removable = false\n",
        dir.join("tokens").display()
    );
    fs::write(&conf, text).map_err(failed)?;
    let pin_file = dir.join("pin");
    let mut config = HsmConfig::new(
        name,
        module,
        TokenSelector::Label(label.to_owned()),
        PinSource::File(pin_file.clone()),
        dir.join("state"),
    );
    config
        .env
        .insert("SOFTHSM2_CONF".to_owned(), conf.to_string_lossy().into_owned());
    if !pin_file.exists() {
        let pin = random_pin()?;
        let (so_pin, user) = (Pin::new(random_pin()?)?, Pin::new(pin.clone())?);
        provision(&config, &so_pin, &user, launcher)?;
        let mut out = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&pin_file)
            .map_err(failed)?;
        out.write_all(&pin).and_then(|()| out.sync_all()).map_err(failed)?;
    }
    Ok(config)
}

/// Makes the token that `config` names by label in the first free slot of its module, whoever made the module.
/// A slot that holds a token is never touched.
/// # Errors
/// `KeyExists` when a token of that label is there, `Device` when no slot is free, `AuthFailed` when the token does
/// not like the PINs (SoftHSM wants 4 to 255 bytes, kryoptic 8 and more).
pub fn provision(config: &HsmConfig, so_pin: &Pin, pin: &Pin, launcher: &Launcher) -> Result<(), HsmError> {
    config.check()?;
    let TokenSelector::Label(label) = &config.token else {
        return Err(HsmError::invalid("a new token is named by label"));
    };
    let bytes = |pin: &Pin| Zeroizing::new(pin.expose().to_vec());
    let request = Request::Provision {
        label: label.clone(),
        so_pin: bytes(so_pin),
        pin: bytes(pin),
    };
    let lost = |e: std::io::Error| HsmError::new(ErrorKind::Crashed, format!("worker: {e}"));
    let deadline = Some(Instant::now() + PROVISION_TIMEOUT);
    let (process, stream) = launcher.start(config)?;
    let mut channel = Channel::new(stream);
    let answer = channel
        .send(&request.encode(), deadline)
        .and_then(|()| channel.receive(deadline))
        .map_err(lost);
    launcher.end(process);
    match Reply::decode(&answer?)? {
        Reply::Done => Ok(()),
        Reply::Failed(error) => Err(error),
        _ => Err(HsmError::protocol("unexpected answer")),
    }
}

/// 128 random bits in hex.
fn random_pin() -> Result<Zeroizing<Vec<u8>>, HsmError> {
    let mut bytes = Zeroizing::new([0_u8; 16]);
    getrandom::fill(&mut bytes[..]).map_err(|e| HsmError::new(ErrorKind::Device, format!("getrandom: {e}")))?;
    let digit = |n: u8| char::from_digit(u32::from(n), 16).map_or(b'0', |c| c as u8);
    let mut pin = Zeroizing::new(Vec::with_capacity(32));
    for byte in bytes.iter() {
        pin.extend([digit(byte >> 4), digit(byte & 15)]);
    }
    Ok(pin)
}
