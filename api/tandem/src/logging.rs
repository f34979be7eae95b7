//! Log lines: to stderr, as text or JSON. The level can be changed while the process runs.

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::config::{LogConfig, LogFormat};

/// The SNMP library logs each failure of a message as an error, and a target that is away fails for hours. We log the
/// first where it is handled, and raise an alarm; who wants every one names the module in `log.level`.
const QUIET: &str = "async_snmp::client";

/// A level that cannot be put in force.
#[derive(Debug, thiserror::Error)]
pub enum LevelError {
    /// It cannot be read.
    #[error("log.level cannot be read: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The subscriber is gone, or another one is in force.
    #[error("the log of this process cannot be changed: {0}")]
    Reload(#[from] reload::Error),
}

/// Changes the level of the process's log.
#[derive(Debug, Clone)]
pub struct LogControl(reload::Handle<EnvFilter, Registry>);

impl LogControl {
    /// The filter as a layer, and what changes it.
    pub(crate) fn new(filter: EnvFilter) -> (reload::Layer<EnvFilter, Registry>, Self) {
        let (layer, handle) = reload::Layer::new(filter);
        (layer, Self(handle))
    }

    /// Puts another level or filter in force, for every thread at once.
    ///
    /// # Errors
    /// [`LevelError`]; the old one stays in force then.
    pub fn set_level(&self, level: &str) -> Result<(), LevelError> {
        Ok(self.0.reload(filter(level)?)?)
    }

    /// The most that the filter in force lets through. `tracing::enabled!` would ask what all subscribers of the process
    /// want together, those of other tests too.
    #[cfg(test)]
    pub(crate) fn max_level(&self) -> Option<tracing::level_filters::LevelFilter> {
        self.0.with_current(tracing_subscriber::Layer::<Registry>::max_level_hint).ok().flatten()
    }
}

/// Installs the subscriber of the process. A second call changes nothing.
///
/// # Errors
/// When the filter cannot be read.
pub fn install(config: &LogConfig) -> Result<LogControl, tracing_subscriber::filter::ParseError> {
    let (filter, control) = LogControl::new(filter(&config.level)?);
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
    Ok(control)
}

fn filter(level: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    let filter: EnvFilter = level.parse()?;
    if level.contains(QUIET) { Ok(filter) } else { Ok(filter.add_directive(format!("{QUIET}=off").parse()?)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_quiet_unless_it_is_asked_for() {
        let check = |level: &str, quiet| {
            let shown = filter(level).expect("it is a filter").to_string();
            assert_eq!(shown.contains("async_snmp::client=off"), quiet, "{shown}");
        };
        check("info", true);
        check("warn,tandem=debug", true);
        check("info,async_snmp::client=debug", false);
        assert!(filter("tandem=loudly").is_err());
    }
}
