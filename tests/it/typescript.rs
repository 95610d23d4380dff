//! The TypeScript client, on the real daemon: compiled from its lock file, then its own tests.

use crate::{bound, world::shared};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};
use strongroom_tests::lab::binary;

/// Copies a folder's own files: what is built or installed in it stays behind.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (name, place) = (entry.file_name(), to.join(entry.file_name()));
        match entry.file_type().unwrap().is_dir() {
            true if name != "node_modules" && name != "dist" => copy(&entry.path(), &place),
            true => {}
            false => drop(fs::copy(entry.path(), place).unwrap()),
        }
    }
}

fn run(command: &mut Command) -> String {
    let ran = command.output().expect("node and npm (scripts/deps installs them)");
    let told = format!(
        "{}{}",
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr)
    );
    assert!(ran.status.success(), "{command:?}: {told}");
    told
}

/// The package, installed and compiled once.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        // Beside the binaries: what npm installs stays for the next time, and out of the tree.
        let place: PathBuf = binary("strongroom").parent().unwrap().join("client-typescript");
        let package = place.join("client/typescript");
        copy(&tree.join("client/typescript"), &package);
        copy(&tree.join("proto/strongroom"), &place.join("proto/strongroom"));
        run(Command::new("/usr/bin/npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&package));
        run(Command::new("/usr/bin/npm")
            .args(["run", "build"])
            .current_dir(&package));
        package
    })
}

/// R-OPS-6: the TypeScript client compiles strictly, reads, writes, fetches, watches, holds secrets fresh, and tells errors apart.
/// R-OPS-8: keys encrypt and sign for it.
#[test]
fn the_typescript_client_works() {
    let world = &shared().world;
    let cli = world.cli();
    cli.ok(&[
        "role",
        "put",
        "pg/node",
        "group=readers",
        "default_ttl=5s",
        "max_ttl=8s",
    ]);
    crate::transit::keys(world, "tr-node");
    let package = built();
    let token = world.lab.dir().join("node-token");
    fs::write(&token, &world.root).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let told = run(Command::new("/usr/bin/node")
        .args(["--test", "--test-reporter=tap", "test/real-daemon.test.mjs"])
        .current_dir(package)
        .env("ADDRESS", format!("https://localhost:{}", world.lab.address.port()))
        .env("CA", world.lab.ca())
        .env("TOKEN_FILE", &token));
    assert!(told.contains("# pass 7") && told.contains("# fail 0"), "{told}");
    assert!(!told.contains("canary-in-node"));
}

/// R-AUTH-3, R-POL-3: the TypeScript client makes a key, proves it with each call, learns the daemon's nonces, and waits as it is told.
#[test]
fn the_typescript_client_proves_its_key_and_waits() {
    let (package, dir) = (built(), tempfile::tempdir().unwrap());
    let (key, token) = (dir.path().join("token.key"), dir.path().join("token"));
    let make = "import('strongroom-client').then(({ ProofKey }) => process.stdout.write(ProofKey.generate().pem()))";
    let made = run(Command::new("/usr/bin/node").args(["-e", make]).current_dir(package));
    fs::write(&key, made).unwrap();
    let world = bound::slow_world(&key, &token);
    let told = run(Command::new("/usr/bin/node")
        .args(["--test", "--test-reporter=tap", "test/bound.test.mjs"])
        .current_dir(package)
        .env("ADDRESS", format!("https://localhost:{}", world.lab.address.port()))
        .env("CA", world.lab.ca())
        .env("TOKEN_FILE", &token)
        .env("PROOF_KEY", &key));
    assert!(told.contains("# pass 3") && told.contains("# fail 0"), "{told}");
}
