//! Log lines: to stderr, as text or JSON.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogConfig, LogFormat};

/// Installs the subscriber of the process. A second call changes nothing.
///
/// # Errors
/// When the filter cannot be read.
pub fn install(config: &LogConfig) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter: EnvFilter = config.level.parse()?;
    let registry = tracing_subscriber::registry().with(filter);
    // A second installation fails; the first one, which the process began with, stays in force.
    let _already_installed = match config.format {
        LogFormat::Text => {
            registry.with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(true)).try_init()
        }
        LogFormat::Json => {
            registry.with(tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr)).try_init()
        }
    };
    Ok(())
}
