//! A kryoptic token of a test's own.

use std::fs;
use std::path::{Path, PathBuf};

use strongroom_hsm::{HsmConfig, Launcher, Pin, PinSource, TokenSelector, softhsm};
use zeroize::Zeroizing;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_strongroom-hsm-worker");
const PIN: &str = "user-1234-kry"; // 8 bytes at least
const SO_PIN: &str = "so-87654321";

pub fn launcher() -> Launcher {
    Launcher::exec(PROGRAM, &["hsm-worker"])
}

/// Its configuration, named `name`. What it holds lies in `dir/token`.
pub fn create(dir: &Path, name: &str) -> HsmConfig {
    let storage = dir.join("token");
    for part in [&storage, &dir.join("state")] {
        fs::create_dir_all(part).unwrap();
    }
    let conf = dir.join("token.conf");
    let database = storage.join("token.sql");
    fs::write(
        &conf,
        format!("[[slots]]\nslot = 1\ndbtype = \"sqlite\"\ndbargs = \"{}\"\n", database.display()),
    )
    .unwrap();
    fs::write(dir.join("pin"), PIN).unwrap();
    fs::set_permissions(dir.join("pin"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut config = HsmConfig::new(
        name,
        module(),
        TokenSelector::Label("vault-kry".into()),
        PinSource::File(dir.join("pin")),
        dir.join("state"),
    );
    config
        .env
        .insert("KRYOPTIC_CONF".into(), conf.to_str().unwrap().into());
    let pin = |text: &str| Pin::new(Zeroizing::new(text.as_bytes().to_vec())).unwrap();
    softhsm::provision(&config, &pin(SO_PIN), &pin(PIN), &launcher()).unwrap();
    config
}

/// Built with this package.
fn module() -> PathBuf {
    let module = Path::new(PROGRAM).parent().unwrap().join("deps/libstrongroom_kryoptic.so");
    assert!(
        module.exists(),
        "{} is missing: cargo builds it with this test",
        module.display()
    );
    module
}
