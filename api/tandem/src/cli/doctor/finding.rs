//! What a doctor says, and from which measurement: pure, one function per subject.

use std::net::SocketAddr;
use std::path::Path;

use provisioning_store::{KeyFileError, OpenError};
use serde::Serialize;

/// Free space below which the next start or the journal's ballast may fail: four ballast files.
const SPACE_BROKEN_BYTES: u64 = 4 * db::journal::BALLAST_BYTES;
/// Free space below which somebody should act: some days of a small installation.
const SPACE_LOW_BYTES: u64 = 1024 * 1024 * 1024;
/// A commit of the journal waits for one such write; its limit for new calls is 250 ms.
const SYNC_SLOW_MS: u64 = 50;
/// Files are closed and reports are cut by the clock: a second is seen in no total, a minute in each.
const CLOCK_OFF_MS: i64 = 1_000;
const CLOCK_BROKEN_MS: i64 = 60_000;
/// RTP and RTCP of two legs.
const DESCRIPTORS_PER_SESSION: u64 = 4;
/// Descriptors beside those of media sessions: clients, databases, files.
const DESCRIPTORS_BESIDE: u64 = 512;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// It could not be looked at here.
    NotChecked,
    /// It works, and may not for long, or not well.
    Warning,
    /// It does not work.
    Broken,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What, such as `port sip`.
    pub check: String,
    /// How bad.
    pub severity: Severity,
    /// What was found.
    pub text: String,
    /// What to do; empty when nothing is.
    pub next: String,
}

impl Finding {
    pub fn ok(check: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(check, Severity::Ok, text, "")
    }

    pub fn not_checked(check: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(check, Severity::NotChecked, text, "")
    }

    pub fn new(check: impl Into<String>, severity: Severity, text: impl Into<String>, next: impl Into<String>) -> Self {
        Self { check: check.into(), severity, text: text.into(), next: next.into() }
    }
}

/// The daemon of this configuration, as its admin port answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Daemon {
    /// Nobody answers.
    Away,
    /// It is ready.
    Ready,
    /// It answers, and cannot do its work.
    NotReady(String),
    /// Somebody else answers there.
    Stranger(String),
}

pub fn daemon(address: SocketAddr, found: &Daemon) -> Finding {
    let check = "daemon";
    match found {
        Daemon::Away => Finding::ok(check, "does not run"),
        Daemon::Ready => Finding::ok(check, "runs and is ready"),
        Daemon::NotReady(why) => Finding::new(
            check,
            Severity::Broken,
            format!("runs and is not ready: {why}"),
            "see the other findings and its log",
        ),
        Daemon::Stranger(what) => {
            let text = format!("another program answers at {address}: {what}");
            Finding::new(check, Severity::Broken, text, "stop it, or change admin.listen")
        }
    }
}

/// A port that the daemon wants; `taken` is what the system said when it was tried.
pub fn port(key: &str, address: SocketAddr, taken: Option<&std::io::Error>, daemon: &Daemon) -> Finding {
    let check = format!("port {key}");
    match (taken, daemon) {
        (None, Daemon::Ready | Daemon::NotReady(_)) => {
            let text = format!("{address} is free, although the daemon runs: it listens elsewhere");
            Finding::new(check, Severity::Warning, text, "the file changed since its start: restart it")
        }
        (None, _) => Finding::ok(check, format!("{address} is free")),
        (Some(error), Daemon::Ready | Daemon::NotReady(_)) if error.kind() == std::io::ErrorKind::AddrInUse => {
            Finding::ok(check, format!("{address} is used by the running daemon"))
        }
        (Some(error), _) => {
            let next = format!("stop what listens there (ss -lnp), or change {key}");
            Finding::new(check, Severity::Broken, format!("{address} cannot be used: {error}"), next)
        }
    }
}

/// `offset_ms`: clock of the database minus clock of this machine.
pub fn clock_offset(offset_ms: i64) -> Finding {
    let text = format!("that of the database is {offset_ms} ms from that of this machine");
    let severity = match offset_ms.saturating_abs() {
        CLOCK_BROKEN_MS.. => Severity::Broken,
        CLOCK_OFF_MS.. => Severity::Warning,
        _ => return Finding::ok("clock", text),
    };
    Finding::new("clock", severity, text, "let NTP set both clocks")
}

/// The certificate of the HTTP face: `loaded` is its identity, none for HTTP in clear, or why it cannot be used;
/// `trouble` is what the detector would raise.
pub fn certificate<E>(loaded: Result<Option<&Path>, E>, trouble: Option<(fault::resource::Severity, String)>) -> Finding
where
    E: std::fmt::Display,
{
    let check = "certificate http.tls";
    match (loaded, trouble) {
        (Ok(None), _) => Finding::ok(check, "none is configured: HTTP is served in clear"),
        (Ok(Some(file)), None) => Finding::ok(check, format!("{} and its key can be used", file.display())),
        (Ok(Some(_)), Some((severity, text))) => {
            let severity = match severity {
                fault::resource::Severity::Critical => Severity::Broken,
                _ => Severity::Warning,
            };
            Finding::new(check, severity, text, "renew it, then reload the daemon (SIGHUP)")
        }
        (Err(error), _) => {
            let next = "correct the file; the daemon does not start so, and one that runs keeps what it has";
            Finding::new(check, Severity::Broken, error.to_string(), next)
        }
    }
}

/// What users that are neither the owner of the HTTP face's key nor of its group may do with it, by its mode; none:
/// nothing.
pub fn key_exposed(key: &Path, mode: u32) -> Option<Finding> {
    let (verb, next) = match (mode & 0o004 != 0, mode & 0o002 != 0) {
        (true, false) => ("read", "chmod 640 or 600, and issue a new key unless nobody has read it"),
        (false, true) => ("write", "chmod 640 or 600, and check that the key is the one that you installed"),
        (true, true) => ("read and write", "chmod 640 or 600, and issue a new key"),
        (false, false) => return None,
    };
    let text = format!("every user of this machine can {verb} {}", key.display());
    Some(Finding::new("key http.tls", Severity::Warning, text, next))
}

/// Whether the system says that NTP keeps its clock; none: it says nothing.
pub fn clock_synchronised(synchronised: Option<bool>) -> Finding {
    let check = "clock synchronised";
    match synchronised {
        Some(true) => Finding::ok(check, "by NTP"),
        Some(false) => Finding::new(
            check,
            Severity::Warning,
            "the clock of this machine is not synchronised: times of calls drift",
            "start an NTP client, such as chrony or systemd-timesyncd",
        ),
        None => Finding::not_checked(check, "the system does not tell (no timedatectl)"),
    }
}

pub fn space(check: &str, path: &Path, free_bytes: u64) -> Finding {
    let check = format!("space {check}");
    let text = format!("{} MiB are free for {}", free_bytes / (1024 * 1024), path.display());
    let severity = match free_bytes {
        SPACE_LOW_BYTES.. => return Finding::ok(check, text),
        SPACE_BROKEN_BYTES.. => Severity::Warning,
        _ => Severity::Broken,
    };
    Finding::new(check, severity, text, "free space, or move the directory to a larger disk")
}

/// The middle one of a few small writes that were waited for, milliseconds.
pub fn sync_latency(path: &Path, median_ms: u64) -> Finding {
    let text = format!("a small write to {} is on the disk after {median_ms} ms", path.display());
    if median_ms <= SYNC_SLOW_MS {
        return Finding::ok("disk latency", text);
    }
    let next = "answers of calls wait for it: put node.data_dir on a faster disk, or find what else uses this one";
    Finding::new("disk latency", Severity::Warning, text, next)
}

/// Versions of the schema: of the store and of this program.
pub fn schema(applied: i64, known: i64) -> Finding {
    let check = "schema";
    match applied.cmp(&known) {
        std::cmp::Ordering::Equal => Finding::ok(check, format!("version {applied}, that of this program")),
        std::cmp::Ordering::Less => {
            let text = format!("version {applied}, this program wants {known}");
            Finding::new(check, Severity::Warning, text, "run `tandem migrate`, or start the daemon, which does")
        }
        std::cmp::Ordering::Greater => {
            let text = format!("version {applied}, newer than {known}, the one of this program");
            Finding::new(check, Severity::Broken, text, "install the newer version of the program again")
        }
    }
}

/// What `PRAGMA quick_check` found in a file.
pub fn integrity(file: &str, found: &[String]) -> Finding {
    let check = format!("integrity {file}");
    match found.first() {
        None => Finding::ok(check, "quick_check finds nothing"),
        Some(first) => Finding::new(
            check,
            Severity::Broken,
            format!("quick_check finds {}, first: {first}", found.len()),
            "stop the daemon, keep the damaged file, and go back to a copy of the data directory",
        ),
    }
}

/// Whether key file and store belong together.
pub fn key(opened: Result<(), &OpenError>) -> Finding {
    let check = "key file";
    let Err(error) = opened else { return Finding::ok(check, "is that of the store, for its owner alone") };
    let next = match error {
        OpenError::Empty => "run `tandem account init`",
        OpenError::Missing { .. } | OpenError::Foreign { .. } | OpenError::Key(KeyFileError::Malformed { .. }) => {
            "put the key file of this installation back"
        }
        OpenError::Key(KeyFileError::Exposed { .. }) => "chmod 600, and think about who read it",
        OpenError::Key(_) => "check owner and mode of the data directory",
        OpenError::Store(_) => "see the finding about the database",
    };
    Finding::new(check, Severity::Broken, error.to_string(), next)
}

/// The hard limit of open files, up to which the daemon raises its own.
pub fn descriptors(hard: u64, media_sessions: usize) -> Finding {
    let sessions = u64::try_from(media_sessions).unwrap_or(u64::MAX);
    let needed = sessions.saturating_mul(DESCRIPTORS_PER_SESSION).saturating_add(DESCRIPTORS_BESIDE);
    let text = format!("{hard} may be open, {needed} are needed for {sessions} media sessions");
    if hard >= needed {
        return Finding::ok("descriptors", text);
    }
    Finding::new("descriptors", Severity::Broken, text, "raise LimitNOFILE (ulimit -Hn), or lower media.sessions")
}

/// A bound of the kernel on socket buffers and what is configured.
pub fn socket_buffer(name: &str, bound: Option<usize>, wanted: usize) -> Finding {
    let check = format!("kernel {name}");
    match bound {
        None => Finding::not_checked(check, "it cannot be read here"),
        Some(bound) if bound >= wanted => Finding::ok(check, format!("{bound} octets, {wanted} are wanted")),
        Some(bound) => Finding::new(
            check,
            Severity::Warning,
            format!("{bound} octets, sip.transport.socket_buffer_bytes wants {wanted}: bursts may be lost"),
            format!("sysctl -w {name}={wanted}"),
        ),
    }
}

/// Addresses that a host name has.
pub fn resolved(host: &str, found: Result<usize, String>) -> Finding {
    let check = format!("DNS {host}");
    let why = match found {
        Ok(0) => "has no address".to_owned(),
        Ok(count) => return Finding::ok(check, format!("{count} addresses")),
        Err(why) => format!("cannot be resolved: {why}"),
    };
    Finding::new(check, Severity::Broken, why, "check the name, and the resolver of this machine")
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;

    fn check(found: &Finding, severity: Severity) {
        assert_eq!(found.severity, severity, "{found:?}");
        assert_eq!(found.next.is_empty(), severity <= Severity::NotChecked, "{found:?}");
        assert!(!found.text.is_empty(), "{found:?}");
    }

    #[test]
    fn ports_and_daemon() {
        let at: SocketAddr = "127.0.0.1:5060".parse().expect("an address");
        let (used, denied) = (Error::from(ErrorKind::AddrInUse), Error::from(ErrorKind::PermissionDenied));
        let not_ready = Daemon::NotReady("store".into());
        let stranger = Daemon::Stranger("404".into());
        for (taken, daemon, severity) in [
            (None, &Daemon::Away, Severity::Ok),
            (None, &Daemon::Ready, Severity::Warning),
            (Some(&used), &Daemon::Ready, Severity::Ok),
            (Some(&used), &not_ready, Severity::Ok),
            (Some(&used), &Daemon::Away, Severity::Broken),
            (Some(&used), &stranger, Severity::Broken),
            (Some(&denied), &Daemon::Away, Severity::Broken),
        ] {
            check(&port("sip.transport.listen", at, taken, daemon), severity);
        }
        for (found, severity) in [
            (&Daemon::Away, Severity::Ok),
            (&Daemon::Ready, Severity::Ok),
            (&not_ready, Severity::Broken),
            (&stranger, Severity::Broken),
        ] {
            check(&daemon(at, found), severity);
        }
    }

    #[test]
    fn clocks() {
        for (offset, severity) in [
            (0, Severity::Ok),
            (-999, Severity::Ok),
            (1_000, Severity::Warning),
            (-59_999, Severity::Warning),
            (60_000, Severity::Broken),
            (i64::MIN, Severity::Broken),
        ] {
            check(&clock_offset(offset), severity);
        }
        check(&clock_synchronised(Some(true)), Severity::Ok);
        check(&clock_synchronised(Some(false)), Severity::Warning);
        check(&clock_synchronised(None), Severity::NotChecked);
    }

    #[test]
    fn certificates() {
        use fault::resource::Severity as Alarm;
        let file = Path::new("certificate.pem");
        let trouble = |severity| Some((severity, "the certificate of certificate.pem expires at …".to_owned()));
        for (loaded, trouble, severity) in [
            (Ok(None), None, Severity::Ok),
            (Ok(Some(file)), None, Severity::Ok),
            (Ok(Some(file)), trouble(Alarm::Warning), Severity::Warning),
            (Ok(Some(file)), trouble(Alarm::Critical), Severity::Broken),
            (Err("http.tls.key: …"), None, Severity::Broken),
        ] {
            check(&certificate(loaded, trouble), severity);
        }
    }

    #[test]
    fn keys_that_others_may_use() {
        let found = |mode| key_exposed(Path::new("key.pem"), mode).map(|finding| finding.text);
        for (mode, verb) in [(0o100_644, "can read key"), (0o602, "can write key"), (0o666, "can read and write key")] {
            assert!(found(mode).is_some_and(|text| text.contains(verb)), "{mode:o}");
        }
        for mode in [0o100_600, 0o640, 0o660, 0o771] {
            assert_eq!(found(mode), None, "{mode:o}");
        }
    }

    #[test]
    fn disk_and_limits() {
        let path = Path::new("data");
        for (free, severity) in [
            (u64::MAX, Severity::Ok),
            (SPACE_LOW_BYTES, Severity::Ok),
            (SPACE_LOW_BYTES - 1, Severity::Warning),
            (SPACE_BROKEN_BYTES - 1, Severity::Broken),
        ] {
            check(&space("data", path, free), severity);
        }
        check(&sync_latency(path, 50), Severity::Ok);
        check(&sync_latency(path, 51), Severity::Warning);
        check(&descriptors(4 * 100 + 512, 100), Severity::Ok);
        check(&descriptors(4 * 100 + 511, 100), Severity::Broken);
        check(&socket_buffer("net.core.rmem_max", Some(8), 8), Severity::Ok);
        check(&socket_buffer("net.core.rmem_max", Some(7), 8), Severity::Warning);
        check(&socket_buffer("net.core.rmem_max", None, 8), Severity::NotChecked);
    }

    #[test]
    fn store_key_and_names() {
        check(&schema(3, 3), Severity::Ok);
        check(&schema(2, 3), Severity::Warning);
        check(&schema(4, 3), Severity::Broken);
        check(&integrity("store.db", &[]), Severity::Ok);
        check(&integrity("store.db", &["row missing".to_owned()]), Severity::Broken);
        check(&resolved("mail.example", Ok(2)), Severity::Ok);
        check(&resolved("mail.example", Ok(0)), Severity::Broken);
        check(&resolved("mail.example", Err("no such host".into())), Severity::Broken);
        check(&key(Ok(())), Severity::Ok);
        let path = std::path::PathBuf::from("secrets.key");
        for error in [
            OpenError::Empty,
            OpenError::Missing { path: path.clone() },
            OpenError::Foreign { path: path.clone() },
            OpenError::Key(KeyFileError::Exposed { path: path.clone(), mode: 0o644 }),
            OpenError::Key(KeyFileError::Malformed { path }),
        ] {
            check(&key(Err(&error)), Severity::Broken);
        }
    }
}
