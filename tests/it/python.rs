//! The Python client, on the real daemon: its own tests, run by Debian's Python with Debian's grpcio.

use crate::{bound, world::shared};
use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

/// Where Debian's packages are, which `scripts/deps` installs.
const PYTHON: &str = "/usr/bin/python3";

/// R-OPS-6: the Python client reads, writes, fetches, watches, holds secrets fresh, tells errors apart,
/// and speaks the wire of this tree. R-OPS-8: keys encrypt and sign for it.
#[test]
fn the_python_client_works() {
    let world = &shared().world;
    world.cli().ok(&[
        "role",
        "put",
        "pg/python",
        "group=readers",
        "default_ttl=5s",
        "max_ttl=8s",
    ]);
    crate::transit::keys(world, "tr-python");
    let dir = tempfile::tempdir().unwrap();
    let (token, descriptor) = (dir.path().join("token"), dir.path().join("descriptor.bin"));
    fs::write(&token, &world.root).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&descriptor, strongroom_proto::DESCRIPTOR).unwrap();
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client/python");
    let ran = python(&client)
        .arg(client.join("tests/real_daemon.py"))
        .env("ADDRESS", format!("https://localhost:{}", world.lab.address.port()))
        .env("CA", world.lab.ca())
        .env("TOKEN_FILE", &token)
        .env("DESCRIPTOR", &descriptor)
        .output()
        .expect("Debian's python3 (scripts/deps installs grpcio for it)");
    let told = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{told}{}", String::from_utf8_lossy(&ran.stdout));
    assert!(told.contains("Ran 8 tests"), "{told}");
    assert!(!told.contains("canary-in-python"));
}

fn python(client: &Path) -> Command {
    let mut command = Command::new(PYTHON);
    command
        .env_clear()
        .env("PYTHONPATH", client.join("src"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// R-AUTH-3, R-POL-3: the Python client makes a key, proves it with each call, learns the daemon's nonces, and waits as it is told.
#[test]
fn the_python_client_proves_its_key_and_waits() {
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client/python");
    let dir = tempfile::tempdir().unwrap();
    let (key, token) = (dir.path().join("token.key"), dir.path().join("token"));
    let make = "import sys, strongroom; sys.stdout.buffer.write(strongroom.ProofKey.generate().pem())";
    let made = python(&client).args(["-c", make]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    fs::write(&key, &made.stdout).unwrap();
    let world = bound::slow_world(&key, &token);
    let ran = python(&client)
        .arg(client.join("tests/bound.py"))
        .env("ADDRESS", format!("https://localhost:{}", world.lab.address.port()))
        .env("CA", world.lab.ca())
        .env("TOKEN_FILE", &token)
        .env("PROOF_KEY", &key)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && told.contains("Ran 3 tests"), "{told}");
}
