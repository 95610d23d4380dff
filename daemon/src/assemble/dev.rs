//! `strongroomd dev`: a throw-away daemon to try things on. SoftHSM, TLS by a certificate made now, one `hsm` slot, unsealed.
#![allow(clippy::print_stdout)] // it speaks to whoever started it

use super::{Fatal, start};
use crate::{
    audit::Source,
    config::Config,
    gate::{Call, Doom, Gate, Origin},
    rpc::Place,
    seal::SlotSpec,
};
use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use strongroom_hsm::{Launcher, PinSource, TokenSelector, softhsm};

/// Runs until it is told to stop; without `dir`, nothing of it remains.
/// # Errors
/// SoftHSM is missing, or whatever keeps a daemon from running.
pub fn dev(listen: SocketAddr, dir: Option<PathBuf>) -> Result<(), Fatal> {
    let temporary = Temporary::new(dir)?;
    let config = Config::parse(&config_text(&temporary.path, listen)?)?;
    let dir = temporary.path.clone();
    start(config, None, move |gate, place| async move {
        introduce(&gate, &place, &dir).await
    })
}

/// A directory that goes when the daemon does, unless the user named it.
struct Temporary {
    path: PathBuf,
    keep: bool,
}

impl Temporary {
    fn new(dir: Option<PathBuf>) -> Result<Self, Fatal> {
        let keep = dir.is_some();
        let path = dir.unwrap_or_else(|| std::env::temp_dir().join(format!("strongroom-dev-{}", std::process::id())));
        let mut builder = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .recursive(keep)
            .create(&path)
            .map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        Ok(Self {
            path: path.canonicalize()?,
            keep,
        })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.keep {
            // What cannot be removed lies in the system's temporary directory.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn config_text(dir: &Path, listen: SocketAddr) -> Result<String, Fatal> {
    let launcher = Launcher::exec(std::env::current_exe()?, &["hsm-worker"]);
    let hsm = softhsm::create(&dir.join("softhsm"), "dev", "strongroom-dev", &launcher)?;
    let (TokenSelector::Label(label), PinSource::File(pin)) = (&hsm.token, &hsm.pin) else {
        return Err("the SoftHSM token has neither label nor PIN file".into());
    };
    if !dir.join("server.key").exists() {
        let pair =
            rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()])?;
        fs::write(dir.join("ca.pem"), pair.cert.pem())?;
        write_private(&dir.join("server.key"), pair.signing_key.serialize_pem().as_bytes())?;
    }
    let env: Vec<String> = hsm
        .env
        .iter()
        .map(|(key, value)| format!("{key} = {value:?}"))
        .collect();
    Ok(format!(
        "[listener]\naddress = \"{listen}\"\ntls_cert = \"{dir}/ca.pem\"\ntls_key = \"{dir}/server.key\"\nsocket = \"{dir}/strongroom.sock\"\nmetrics_off = true\n\
         [store]\npath = \"{dir}/data\"\nreserve_mib = 16\n[audit]\nsegment_mib = 4\n[log]\nlevel = \"warn\"\nformat = \"text\"\n\
         [hsm.dev]\nmodule = {module:?}\ntoken = {label:?}\npin_file = {pin:?}\nenv = {{ {env} }}\n",
        dir = dir.display(),
        module = hsm.module,
        env = env.join(", "),
    ))
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?
        .write_all(bytes)
}

/// Makes the vault if there is none, and says how to use it.
async fn introduce(gate: &Arc<Gate>, place: &Place, dir: &Path) -> Result<(), Fatal> {
    let token_file = dir.join("token");
    if !gate.is_open() {
        let source = Source::Unix(rustix::process::geteuid().as_raw());
        let call = Call {
            origin: Origin {
                source,
                doom: Doom::default(),
            },
            id: gate.request_id(),
            token: None,
            key: None,
            place: None,
        };
        let founded = gate.init(call, vec![SlotSpec::parse("dev", "hsm", &[])?]).await?;
        let token = founded.token.ok_or("no set-up token could be made: the log says why")?;
        write_private(&token_file, token.text.expose().as_bytes())?;
    }
    let address = place
        .address
        .map(|address| format!("https://localhost:{}", address.port()))
        .unwrap_or_default();
    println!(
        "Strongroom dev: for trying things, not for secrets. It is unsealed, and everything ends with it.\n\n\
         In another terminal:\n\n  \
         export STRONGROOM_ADDR={address}\n  \
         export STRONGROOM_CACERT={dir}/ca.pem\n  \
         export STRONGROOM_TOKEN=$(cat {token})\n\n  \
         strongroom mount enable kv --kind kv\n  \
         echo -n s3cret | strongroom kv put kv/hello -\n  \
         strongroom kv get kv/hello\n\n\
         The token may do everything and lives one hour. Stop with Ctrl-C.",
        dir = dir.display(),
        token = token_file.display(),
    );
    Ok(())
}
