//! What can be wrong with the configuration.

use std::path::PathBuf;

/// Names the file, the line and the key.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: give the right file with --config", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Over 1 MiB.
    #[error("{}: larger than 1 MiB, this is no configuration", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
    },
    /// A key or value is wrong.
    #[error("{}: {problem}", file.display())]
    Invalid {
        /// The file.
        file: PathBuf,
        /// Key, line and what is wrong.
        problem: String,
    },
}
