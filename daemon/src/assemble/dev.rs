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
use std::{fs, net::SocketAddr, os::unix::fs::OpenOptionsExt, path::Path, sync::Arc};
use strongroom_hsm::{Launcher, PinSource, TokenSelector, softhsm};

/// Runs in `dir` until it is told to stop. Tethered, it also ends with the process that started it.
/// # Errors
/// SoftHSM is missing, or whatever keeps a daemon from running.
pub fn dev(listen: SocketAddr, dir: &Path, tethered: bool) -> Result<(), Fatal> {
    if tethered {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    }
    make_private(dir, true)?;
    let dir = dir.canonicalize()?;
    let config = Config::parse(&config_text(&dir, listen)?)?;
    start(config, None, move |gate, place| async move {
        introduce(&gate, &place, &dir).await
    })
}

/// The same in a temporary directory, of which nothing remains. A process of its own is the daemon: once it is shut in, it may remove
/// what is in its directory, never the directory itself.
/// # Errors
/// As [`dev`], or the daemon ended with a failure.
pub fn dev_in_temporary(listen: SocketAddr) -> Result<(), Fatal> {
    let dir = std::env::temp_dir().join(format!("strongroom-dev-{}", std::process::id()));
    make_private(&dir, false)?;
    let ended = watched(listen, &dir);
    std::fs::remove_dir_all(&dir)?;
    match ended? {
        status if status.success() => Ok(()),
        status => Err(format!("the daemon ended with {status}").into()),
    }
}

/// The daemon as a child in a group of its own, to which signals are passed on.
fn watched(listen: SocketAddr, dir: &Path) -> Result<std::process::ExitStatus, Fatal> {
    use rustix::process::{Pid, Signal, kill_process};
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut child = tokio::process::Command::new(std::env::current_exe()?)
            .args(["dev", "--tethered", "--listen", &listen.to_string(), "--dir"])
            .arg(dir)
            .process_group(0)
            .spawn()?;
        loop {
            tokio::select! {
                ended = child.wait() => return Ok(ended?),
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
            if let Some(pid) = pid {
                // One that has ended meanwhile is waited for next.
                let _ = kill_process(pid, Signal::TERM);
            }
        }
    })
}

fn make_private(dir: &Path, may_exist: bool) -> Result<(), Fatal> {
    let mut builder = fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .recursive(may_exist)
        .create(dir)
        .map_err(|error| format!("cannot make {}: {error}", dir.display()).into())
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
                chain: Vec::new().into(),
            },
            id: gate.request_id(),
            shown: None,
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
