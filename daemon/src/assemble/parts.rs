//! From configuration to parts: HSMs, disk, vault, gate.

use super::Fatal;
use crate::{
    audit::{Paths, Recorder, Refusals, Settings},
    base::{
        id::BootId,
        random::{OsRandom, Random},
        time::{Clock, SystemClock},
    },
    config::{self, AuditPaths, AuditSync, Backend, Cipher, Config, DpopNonce},
    gate::{Foundations, Gate, HsmSigners, Quotas, Rooms, Setting},
    limit::{Bounds, Limiter, Rates},
    seal::{Token, Tokens},
    store::{Algorithm, Caches, Change, Disk, DiskConfig, EngineKind, Evidence, Store},
    vault::{Parts, Vault},
};
use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};
use strongroom_hsm::{Hsm, HsmConfig, Launcher, Mechanism, MechanismChoice, Pin, PinSource, TokenSelector};
use zeroize::Zeroizing;

/// The tokens of the configuration, as the hsm crate wants them. The record of refused log-ins lies in the data directory.
pub fn hsm_configs(config: &Config) -> Vec<HsmConfig> {
    let state = config.store.path.get_ref().join("hsm");
    config
        .hsm
        .iter()
        .map(|(name, hsm)| hsm_config(name, hsm, &state))
        .collect()
}

fn hsm_config(name: &str, hsm: &config::Hsm, state: &Path) -> HsmConfig {
    let token = match (&hsm.token, &hsm.serial) {
        (Some(label), _) => TokenSelector::Label(label.get_ref().clone()),
        (None, serial) => TokenSelector::Serial(
            serial
                .as_ref()
                .map(|serial| serial.get_ref().clone())
                .unwrap_or_default(),
        ),
    };
    let pin = match (&hsm.pin_file, &hsm.pin_credential) {
        (Some(file), _) => PinSource::File(file.get_ref().clone()),
        (None, Some(name)) => PinSource::Credential(name.get_ref().clone()),
        (None, None) => PinSource::Prompted,
    };
    let mut made = HsmConfig::new(name, hsm.module.get_ref(), token, pin, state);
    made.env.clone_from(&hsm.env);
    made.mechanism = match hsm.mechanism {
        config::Mechanism::Auto => MechanismChoice::Auto,
        config::Mechanism::Gcm => MechanismChoice::Only(Mechanism::Gcm),
        config::Mechanism::Kw => MechanismChoice::Only(Mechanism::Kw),
        config::Mechanism::CbcHmac => MechanismChoice::Only(Mechanism::CbcHmac),
        config::Mechanism::Oaep => MechanismChoice::Only(Mechanism::OaepSha256),
    };
    made
}

/// Asks on the terminal for the PINs that are to be asked for, before anything else starts.
/// # Errors
/// No terminal, or no PIN.
pub fn ask_pins(configs: &[HsmConfig]) -> Result<Vec<(String, Pin)>, Fatal> {
    let prompted = configs.iter().filter(|config| config.pin == PinSource::Prompted);
    prompted
        .map(|config| {
            let text = rpassword::prompt_password(format!("PIN of [hsm.{}]: ", config.name)).map_err(|error| {
                let name = &config.name;
                format!("hsm.{name}.pin_prompt: the PIN cannot be asked for: {error}; start in a terminal, or give it by `pin_file` or `pin_credential`")
            })?;
            Ok((config.name.clone(), Pin::new(Zeroizing::new(text.into_bytes()))?))
        })
        .collect()
}

/// Starts an actor for each token; none of them waits for its token.
/// # Errors
/// A configuration out of bounds.
pub fn start_hsms(configs: Vec<HsmConfig>, launcher: &Launcher, pins: Vec<(String, Pin)>) -> Result<Vec<Hsm>, Fatal> {
    let hsms = configs
        .into_iter()
        .map(|config| Hsm::start(config, launcher.clone()))
        .collect::<Result<Vec<_>, _>>()?;
    for (name, pin) in pins {
        if let Some(hsm) = hsms.iter().find(|hsm| hsm.name() == name) {
            hsm.give_pin(pin)?;
        }
    }
    Ok(hsms)
}

/// Where and how the store lies.
pub fn disk_config(config: &Config) -> DiskConfig {
    DiskConfig {
        evidence: match config.audit.sync.get_ref() {
            AuditSync::Synced => Evidence::Synced,
            AuditSync::Written => Evidence::Written,
        },
        dir: config.store.path.get_ref().clone(),
        engine: match config.store.backend.get_ref() {
            Backend::Fjall => EngineKind::Fjall,
            Backend::Sled => EngineKind::Sled,
            Backend::Memory => EngineKind::Memory,
        },
        reserve_bytes: config.store.reserve_mib << 20,
        caches: Caches::of(config.store.cache_mib.get_ref() << 20),
        audit: Settings {
            dir: config.audit_dir(),
            segment_bytes: config.audit.segment_mib.get_ref() << 20,
        },
    }
}

/// Opens the disk and builds vault and gate over it.
/// # Errors
/// The store or the log does not open.
pub async fn gate(config: &Config, hsms: Vec<Hsm>) -> Result<Arc<Gate>, Fatal> {
    let random: Arc<dyn Random> = Arc::new(OsRandom);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let boot = BootId::random(&*random);
    let paths = match config.audit.paths {
        AuditPaths::Clear => Paths::Clear,
        AuditPaths::Hash => Paths::Hash,
    };
    let recorder = Recorder::new(boot, Arc::clone(&clock), paths);
    let (settings, chance) = (disk_config(config), Arc::clone(&random));
    let (disk, torn) = tokio::task::spawn_blocking(move || Disk::open(&settings, chance)).await??;
    if let Some(torn) = torn {
        tracing::warn!("a torn tail of the audit log was cut off: a crash came while it was written");
        disk.raw()
            .commit(Change::new(), vec![recorder.torn_tail(&torn)])
            .await?;
    }
    let from = Arc::new(Foundations {
        clock: Arc::clone(&clock),
        random: Arc::clone(&random),
        boot,
        recorder,
        signers: Arc::new(HsmSigners::new(hsms.clone())),
        quotas: Quotas {
            per_identity: config.limits.leases_per_identity_max,
            per_mount: config.limits.leases_per_mount_max,
        },
        refusals: Refusals::default(),
        founding: AtomicBool::new(false),
    });
    let foundations = Arc::clone(&from);
    let tokens = hsms.iter().map(|hsm| Arc::new(hsm.clone()) as Arc<dyn Token>).collect();
    let vault = Vault::new(Parts {
        disk,
        tokens: Tokens::new(tokens),
        algorithm: match config.store.cipher {
            Cipher::Xaes256Gcm => Algorithm::Xaes256Gcm,
            Cipher::Aes256Gcm => Algorithm::Aes256Gcm,
        },
        drain: Duration::from_secs(crate::base::limits::SEAL_DRAIN_SECS),
        clock,
        random,
        build: Box::new(move |store: Arc<Store>| {
            let from = Arc::clone(&foundations);
            Box::pin(async move { Rooms::open(store, &from).await })
        }),
    })
    .await?;
    let limits = limiter(&config.limits);
    Ok(Gate::new(Arc::new(vault), from, limits, hsms, setting(config)))
}

fn limiter(limits: &config::Limits) -> Limiter {
    let rates = &limits.rates;
    let rates = Rates {
        handshakes_per_source: rates.handshakes_per_source,
        calls_per_source: rates.calls_per_source,
        logins_per_source: rates.logins_per_source,
        relief_per_source: rates.relief_per_source,
        reads: [rates.reads_per_identity, rates.reads_per_token],
        changes: [rates.changes_per_identity, rates.changes_per_token],
        acts: [rates.acts_per_identity, rates.acts_per_token],
        relief: [rates.relief_per_identity, rates.relief_per_token],
        all: [rates.logins, rates.reads, rates.changes, rates.acts],
    };
    let bounds = Bounds {
        requests_max: limits.requests_max,
        latency_target: Duration::from_millis(limits.latency_target_ms),
        connections_per_source_max: limits.connections_per_source_max,
    };
    Limiter::new(rates, &bounds)
}

fn setting(config: &Config) -> Setting {
    let mut warnings = Vec::new();
    if let Some(risk) = &config.store.accept_risk {
        warnings.push(format!(
            "the store runs on {:?}, and the operator accepted: {}",
            config.store.backend.get_ref(),
            risk.get_ref()
        ));
    }
    if *config.store.backend.get_ref() == Backend::Memory {
        warnings.push("the store is in memory: nothing survives the daemon".to_owned());
    }
    if *config.audit.sync.get_ref() == AuditSync::Written {
        warnings.push(
            "audit.sync is \"written\": a power loss can lose the records of reads and refusals of the last 50 ms"
                .to_owned(),
        );
    }
    Setting {
        store_backend: match config.store.backend.get_ref() {
            Backend::Fjall => "fjall",
            Backend::Sled => "sled",
            Backend::Memory => "memory",
        },
        audit_sync: match config.audit.sync.get_ref() {
            AuditSync::Synced => "synced",
            AuditSync::Written => "written",
        },
        warnings,
        origin: config.listener.origin.as_ref().map(|origin| origin.get_ref().clone()),
        nonces: config.listener.dpop_nonce == DpopNonce::Required,
    }
}
