//! SIGHUP: the configuration is read again, and what can change while the daemon runs is put in force: the log level,
//! and certificate and key of the HTTP face. What cannot be used changes nothing.

use std::path::PathBuf;

use api_http::{Tls, TlsError};

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
    #[error(transparent)]
    Tls(#[from] TlsError),
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
    /// what was changed; `tls` is that of the HTTP face, where it has one.
    pub fn run(&self, running: &mut Config, tls: Option<&Tls>) {
        let outcome = match self.apply(running, tls) {
            Ok(Reloaded { level, needs_restart }) => {
                let rest = if needs_restart { "; other keys changed as well and wait for a restart" } else { "" };
                if let Some(tls) = tls {
                    let identity = tls.identity();
                    let (file, expires_at) = (identity.file().display(), identity.not_after());
                    tracing::warn!(certificate = %file, %expires_at, "new connections are shown this certificate");
                }
                tracing::warn!(level, "the configuration was read again: this log level is in force{rest}");
                "done"
            }
            Err(error) => {
                let error = with_sources(&error);
                tracing::error!(error, "the configuration cannot be used: everything stays as it was");
                "refused"
            }
        };
        metrics::counter!("tandem_reloads_total", "outcome" => outcome).increment(1);
    }

    fn apply(&self, running: &mut Config, tls: Option<&Tls>) -> Result<Reloaded, ReloadError> {
        let mut read = Config::load(self.file.as_deref())?;
        // Between clear and TLS a listener does not change.
        let shown = tls.filter(|_| read.http.tls.is_on());
        let identity = shown.map(|tls| Ok::<_, TlsError>((tls, read.http.tls.load()?))).transpose()?;
        self.log.set_level(&read.log.level)?;
        let level = read.log.level.clone();
        running.log.level.clone_from(&level);
        read.log.level.clone_from(&running.log.level);
        if let Some((tls, Some(identity))) = identity {
            tls.replace(identity);
            let (running, read) = (&mut running.http.tls, &read.http.tls);
            running.certificate.clone_from(&read.certificate);
            running.key.clone_from(&read.key);
        }
        Ok(Reloaded { level, needs_restart: read != *running })
    }
}

/// The error with its causes: the file's name alone does not say why it cannot be read.
fn with_sources(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(Some(error), |error| error.source());
    let mut texts: Vec<String> = sources.map(ToString::to_string).collect();
    // some say what their source says
    texts.dedup();
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use tracing::level_filters::LevelFilter;
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
        // The control reaches the filter only while a subscriber holds it.
        let _subscriber = registry().with(filter);
        let reload = Reload { file: Some(file.clone()), log };
        let level = || reload.log.max_level();
        assert_eq!(level(), Some(LevelFilter::INFO));
        write("[log]\nlevel = \"debug\"\n");
        let done = reload.apply(&mut running, None).expect("it can be used");
        assert_eq!(done, Reloaded { level: "debug".into(), needs_restart: false });
        assert_eq!(level(), Some(LevelFilter::DEBUG));

        for bad in ["[log]\nlevel = \"a=b=c\"\n", "[log]\nlevle = \"info\"\n", "[node]\nname = \"No Name\"\n"] {
            write(bad);
            let before = running.clone();
            assert!(reload.apply(&mut running, None).is_err(), "{bad}");
            assert_eq!(running, before);
            assert_eq!(level(), Some(LevelFilter::DEBUG), "the old level stays: {bad}");
        }
        write("[log]\nlevel = \"info\"\n[mail]\nhost = \"mail.example\"\n");
        let done = reload.apply(&mut running, None).expect("it can be used");
        assert_eq!(done, Reloaded { level: "info".into(), needs_restart: true });
        assert_eq!(level(), Some(LevelFilter::INFO));
    }

    #[test]
    fn a_new_pair_is_put_in_force_and_a_wrong_one_keeps_the_old() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, certificate, key) =
            (dir.path().join("tandem.toml"), dir.path().join("certificate.pem"), dir.path().join("key.pem"));
        let issue = || {
            let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
            std::fs::write(&certificate, made.cert.pem()).expect("the file can be written");
            std::fs::write(&key, made.signing_key.serialize_pem()).expect("the file can be written");
        };
        let write = |level: &str, certificate: &std::path::Path| {
            let mut config = Config::default();
            config.log.level = level.into();
            config.http.tls.certificate = certificate.into();
            config.http.tls.key.clone_from(&key);
            std::fs::write(&file, config.to_toml()).expect("the file can be written");
        };
        issue();
        write("info", &certificate);
        let mut running = Config::load(Some(&file)).expect("it can be used");
        let tls = Tls::new(running.http.tls.load().expect("a pair").expect("TLS is on"));
        let (_filter, log) = LogControl::new(EnvFilter::new("info"));
        let reload = Reload { file: Some(file.clone()), log };

        // Another name of the certificate's file is put in force too.
        issue();
        let renamed = dir.path().join("renewed.pem");
        std::fs::rename(&certificate, &renamed).expect("it can be renamed");
        write("info", &renamed);
        let done = reload.apply(&mut running, Some(&tls)).expect("it can be used");
        assert_eq!(done, Reloaded { level: "info".into(), needs_restart: false });
        assert_eq!(tls.identity().file(), renamed);

        // The key is that of another certificate: nothing changes, not even the level.
        issue();
        write("debug", &renamed);
        let before = running.clone();
        let refused = reload.apply(&mut running, Some(&tls)).expect_err("a wrong pair");
        assert!(refused.to_string().contains("http.tls.key"), "{refused}");
        assert_eq!((tls.identity().file(), &running), (renamed.as_path(), &before));

        // TLS is turned off: that waits for a restart.
        std::fs::write(&file, "").expect("the file can be written");
        assert!(reload.apply(&mut running, Some(&tls)).expect("it can be used").needs_restart);
        assert!(running.http.tls.is_on());
    }
}
