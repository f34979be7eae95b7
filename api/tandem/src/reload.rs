//! SIGHUP: the configuration is read again, and what can change while the daemon runs is put in force: the log level.
//! A configuration that cannot be used changes nothing.

use std::path::PathBuf;

use crate::config::{Config, ConfigError};
use crate::logging::{LevelError, LogControl};

/// What a reload needs.
#[derive(Debug)]
pub struct Reload {
    /// The file that the daemon was started with; none: environment alone.
    pub file: Option<PathBuf>,
    /// The log of the process.
    pub log: LogControl,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Level(#[from] LevelError),
}

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reloaded {
    level: String,
    /// Whether the file says something else too, which waits for a restart.
    needs_restart: bool,
}

impl Reload {
    /// Reads the configuration again, and says in the log what came of it. `running` is what is in force, and keeps
    /// what was changed.
    pub fn run(&self, running: &mut Config) {
        match self.apply(running) {
            Ok(Reloaded { level, needs_restart: false }) => {
                tracing::warn!(level, "the configuration was read again: this log level is in force");
            }
            Ok(Reloaded { level, needs_restart: true }) => tracing::warn!(
                level,
                "the configuration was read again: this log level is in force; other keys changed as well and wait for a restart"
            ),
            Err(error) => {
                tracing::error!(%error, "the configuration cannot be used: everything stays as it was");
            }
        }
    }

    fn apply(&self, running: &mut Config) -> Result<Reloaded, ReloadError> {
        let mut read = Config::load(self.file.as_deref())?;
        self.log.set_level(&read.log.level)?;
        let level = read.log.level.clone();
        running.log.level.clone_from(&level);
        read.log.level.clone_from(&running.log.level);
        Ok(Reloaded { level, needs_restart: read != *running })
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::{EnvFilter, registry};

    use super::*;

    #[test]
    fn a_level_is_put_in_force_and_a_bad_configuration_changes_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("tandem.toml");
        let write = |text: &str| std::fs::write(&file, text).expect("the file can be written");
        write("[log]\nlevel = \"info\"\n");
        let mut running = Config::load(Some(&file)).expect("it can be used");
        let (filter, log) = LogControl::new(EnvFilter::new("info"));
        let subscriber = registry().with(filter);
        let reload = Reload { file: Some(file.clone()), log };
        tracing::subscriber::with_default(subscriber, || {
            let is_debug = || tracing::enabled!(tracing::Level::DEBUG);
            assert!(!is_debug());
            write("[log]\nlevel = \"debug\"\n");
            let done = reload.apply(&mut running).expect("it can be used");
            assert_eq!(done, Reloaded { level: "debug".into(), needs_restart: false });
            assert!(is_debug(), "the level is in force");

            for bad in ["[log]\nlevel = \"a=b=c\"\n", "[log]\nlevle = \"info\"\n", "[node]\nname = \"No Name\"\n"] {
                write(bad);
                let before = running.clone();
                assert!(reload.apply(&mut running).is_err(), "{bad}");
                assert_eq!(running, before);
                assert!(is_debug(), "the old level stays: {bad}");
            }
            write("[log]\nlevel = \"info\"\n[mail]\nhost = \"mail.example\"\n");
            let done = reload.apply(&mut running).expect("it can be used");
            assert_eq!(done, Reloaded { level: "info".into(), needs_restart: true });
            assert!(!is_debug());
        });
    }
}
