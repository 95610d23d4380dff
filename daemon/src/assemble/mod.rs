//! The composition root: the only place that joins kinds together. Starts everything in the right order, and ends it in the reverse one.
//! Reading order: `command` (the command line), this file (`run`), `parts` (from configuration to parts), `dev` (a throw-away daemon), `repair` (going on after a loss), `logging`.

mod command;
mod dev;
mod logging;
mod parts;
mod repair;

pub use command::command;
pub use dev::{dev, dev_in_temporary};
pub use repair::repair;

use crate::{
    config::Config,
    gate::Gate,
    http,
    process::{self, Reach},
    rpc,
};
use std::{error::Error, future::Future, path::PathBuf, sync::Arc, time::Duration};
use strongroom_hsm::{HsmConfig, Launcher};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Whatever keeps the daemon from running, with its causes.
pub type Fatal = Box<dyn Error + Send + Sync>;

/// How long the end waits for requests in flight.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);

/// Runs the daemon until it is told to stop. `file` is read again on SIGHUP.
/// # Errors
/// What kept it from starting, or ended it.
pub fn run(config: Config, file: PathBuf) -> Result<(), Fatal> {
    start(config, Some(file), |_, _| async { Ok(()) })
}

/// Hardens the process, starts the HSM supervisor while programs may still be started, then everything else.
fn start<F>(config: Config, file: Option<PathBuf>, ready: impl FnOnce(Arc<Gate>, rpc::Place) -> F) -> Result<(), Fatal>
where
    F: Future<Output = Result<(), Fatal>>,
{
    let mut notes = process::limits()?;
    let level = logging::start(&config)?;
    let hsms = parts::hsm_configs(&config);
    let pins = parts::ask_pins(&hsms)?;
    prepare_directories(&config)?;
    let launcher = Launcher::supervised(&std::env::current_exe()?, &["hsm-supervisor"], &hsms)?;
    notes.extend(process::landlock(&reach(&config, file.as_deref(), &hsms))?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    notes.extend(process::seccomp()?);
    if cfg!(feature = "bench-no-audit") {
        notes.push("this build leaves no evidence of reads: it is for benches alone".to_owned());
    }
    for note in notes {
        tracing::warn!("{note}");
    }
    runtime.block_on(async {
        let hsms = parts::start_hsms(hsms, &launcher, pins)?;
        let bound = rpc::bind(&config).await?;
        let gate = parts::gate(&config, hsms).await?;
        serve(config, file, level, bound, gate, ready).await
    })
}

async fn serve<F>(
    config: Config,
    file: Option<PathBuf>,
    level: logging::Level,
    bound: rpc::Bound,
    gate: Arc<Gate>,
    ready: impl FnOnce(Arc<Gate>, rpc::Place) -> F,
) -> Result<(), Fatal>
where
    F: Future<Output = Result<(), Fatal>>,
{
    let (stop, stopping) = watch::channel(false);
    let mut background = tokio::task::JoinSet::new();
    background.spawn(Arc::clone(&gate).tend());
    if !config.listener.metrics_off {
        let listener = http::bind(*config.listener.metrics.get_ref()).await?;
        background.spawn(http::serve(listener, Arc::clone(&gate)));
    }
    background.spawn(heed_signals(stop, file, level, bound.certificate.clone()));
    let place = bound.place();
    tracing::info!(address = ?place.address, socket = %place.socket.display(), "listening");
    gate.open_by_itself().await;
    ready(Arc::clone(&gate), place).await?;
    // Only under systemd is there anybody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let mut patience = stopping.clone();
    let served = tokio::select! {
        served = bound.serve(&config, Arc::clone(&gate), stopping) => served,
        () = async {
            // An error means that nobody can say stop any more: then nobody waits either.
            let _ = patience.wait_for(|stop| *stop).await;
            tokio::time::sleep(DRAIN_PATIENCE).await;
        } => Ok(()),
    };
    background.shutdown().await;
    gate.close().await;
    served.map_err(Into::into)
}

/// SIGTERM and SIGINT drain, a second one stops at once; SIGHUP reads certificate and log level again.
async fn heed_signals(
    stop: watch::Sender<bool>,
    file: Option<PathBuf>,
    level: logging::Level,
    certificate: Option<Arc<rpc::Certificate>>,
) {
    let (Ok(mut term), Ok(mut int), Ok(mut hup)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        signal(SignalKind::hangup()),
    ) else {
        tracing::error!("signals cannot be heeded: stop the daemon with SIGKILL");
        return std::future::pending().await;
    };
    loop {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            _ = hup.recv() => {
                reload(file.as_deref(), &level, certificate.as_deref());
                continue;
            }
        }
        if stop.send_replace(true) {
            tracing::warn!("a second signal: stopping at once");
            std::process::exit(1);
        }
        tracing::info!("draining; a second signal stops at once");
    }
}

fn reload(file: Option<&std::path::Path>, level: &logging::Level, certificate: Option<&rpc::Certificate>) {
    match file.map(Config::load) {
        Some(Ok(config)) => level.set(&config),
        Some(Err(error)) => tracing::error!(%error, "the configuration was not read again"),
        None => {}
    }
    match certificate.map(rpc::Certificate::reload) {
        Some(Ok(())) => tracing::info!("the certificate was read again"),
        Some(Err(error)) => tracing::error!(%error, "the certificate stays the old one"),
        None => {}
    }
}

fn prepare_directories(config: &Config) -> Result<(), Fatal> {
    let socket = config.listener.socket.get_ref();
    for dir in [
        config.store.path.get_ref().clone(),
        config.audit_dir(),
        config.store.path.get_ref().join("hsm"),
    ] {
        std::fs::create_dir_all(&dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
    }
    if let Some(dir) = socket.parent()
        && !dir.exists()
    {
        std::fs::create_dir_all(dir)?;
        // The umask is for files with secrets; the socket decides by itself who may do what.
        std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    Ok(())
}

/// All that the daemon itself touches once it runs; HSMs are their workers' matter.
fn reach(config: &Config, file: Option<&std::path::Path>, hsms: &[HsmConfig]) -> Reach {
    let listener = &config.listener;
    // Whole directories: what is renewed by renaming is another file afterwards.
    let folder = |path: &std::path::Path| {
        path.canonicalize()
            .ok()
            .and_then(|path| path.parent().map(PathBuf::from))
    };
    let certificates = [&listener.tls_cert, &listener.tls_key]
        .into_iter()
        .flatten()
        .filter_map(|path| folder(path.get_ref()));
    let resolver = folder(std::path::Path::new("/etc/resolv.conf"));
    let socket = listener.socket.get_ref().parent().map(PathBuf::from);
    let mut listen = vec![listener.address.get_ref().port()];
    if !config.listener.metrics_off {
        listen.push(listener.metrics.get_ref().port());
    }
    Reach {
        read: certificates.chain(file.and_then(folder)).chain(resolver).collect(),
        write: [config.store.path.get_ref().clone(), config.audit_dir()]
            .into_iter()
            .chain(socket)
            .chain(hsms.iter().map(|hsm| hsm.state_dir.clone()))
            .collect(),
        listen,
    }
}
