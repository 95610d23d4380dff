//! The daemon's own log: to standard error, JSON or text, with a level that SIGHUP may change. Never a secret: what may be logged is decided
//! where it is logged, and the canary test looks.

use super::Fatal;
use crate::config::{Config, LogFormat};
use tracing_subscriber::{EnvFilter, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt};

/// Changes the level while running.
pub struct Level(reload::Handle<EnvFilter, Registry>);

impl Level {
    /// Takes the level of a configuration that was read again.
    pub fn set(&self, config: &Config) {
        if let Err(error) = self.0.reload(filter(config)) {
            tracing::warn!(%error, "the log level was not changed");
        }
    }
}

/// Ours at the level that was asked for; libraries at `warn`, for their debug output may hold what they carry.
fn filter(config: &Config) -> EnvFilter {
    EnvFilter::new(format!(
        "warn,strongroomd={level},strongroom_hsm={level}",
        level = config.log.level.get_ref()
    ))
}

/// Sets the log up, once a process.
/// # Errors
/// There is a log already.
pub fn start(config: &Config) -> Result<Level, Fatal> {
    let (filter, handle) = reload::Layer::new(filter(config));
    let registry = tracing_subscriber::registry().with(filter);
    match config.log.format {
        LogFormat::Json => registry
            .with(fmt::layer().json().with_writer(std::io::stderr))
            .try_init()?,
        LogFormat::Text => registry.with(fmt::layer().with_writer(std::io::stderr)).try_init()?,
    }
    Ok(Level(handle))
}
