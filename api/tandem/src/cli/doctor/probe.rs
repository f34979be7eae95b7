//! What a doctor measures. Each probe has a bound, so that a dead host is a finding and no wait.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use db::system::SystemClock;
use db::{Db, DbError, SqliteOptions};
use model::time::Clock as _;
use nix::sys::resource::{Resource, getrlimit};
use provisioning_store::ProvisioningStore;

use super::finding::{self, Daemon, Finding, Severity};
use crate::config::Config;

/// How long a host on the network may take.
const NETWORK_MAX: Duration = Duration::from_secs(3);
/// Writes whose middle one is told: enough that one hiccup of the disk is not.
const SYNCS: usize = 5;
/// Octets of such a write: about a commit of the journal.
const SYNC_BYTES: usize = 4_096;

fn with_sources(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(Some(error), |error| error.source());
    sources.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Space, rights and speed of the directories.
pub async fn disk(config: &Config) -> Vec<Finding> {
    let (data, billing) = (config.node.data_dir.clone(), config.billing_files_dir());
    let probed = tokio::task::spawn_blocking(move || {
        let mut findings = vec![writable("data directory", &data)];
        let journal = data.join(db::journal::FOLDER);
        findings.extend(free("data directory", &data));
        findings.extend(free("journal", &journal));
        findings.extend(free("billing files", &billing));
        if billing.exists() {
            findings.push(writable("billing files", &billing));
        }
        findings.extend(latency(if journal.is_dir() { &journal } else { &data }));
        findings
    });
    probed.await.unwrap_or_default()
}

fn writable(check: &str, path: &Path) -> Finding {
    match tempfile::NamedTempFile::new_in(path) {
        Ok(_) => Finding::ok(check, format!("{} can be written", path.display())),
        Err(error) => {
            let text = format!("{} cannot be written: {error}", path.display());
            let next = "check path, owner and mode; `tandem account init` makes the directory";
            Finding::new(check, Severity::Broken, text, next)
        }
    }
}

fn free(check: &str, path: &Path) -> Option<Finding> {
    // One that is not there yet is told elsewhere.
    let found = nix::sys::statvfs::statvfs(path).ok()?;
    let (blocks, size): (u64, u64) = (found.blocks_available(), found.fragment_size());
    Some(finding::space(check, path, blocks.saturating_mul(size)))
}

fn latency(path: &Path) -> Option<Finding> {
    use std::io::Write as _;
    let mut file = tempfile::tempfile_in(path).ok()?;
    let mut took = Vec::new();
    for _ in 0..SYNCS {
        let begin = SystemClock.now().mono;
        file.write_all(&[0; SYNC_BYTES]).and_then(|()| file.sync_data()).ok()?;
        took.push(SystemClock.now().mono.saturating_duration_since(begin));
    }
    took.sort_unstable();
    let median = took.get(SYNCS / 2)?;
    Some(finding::sync_latency(path, u64::try_from(median.as_millis()).unwrap_or(u64::MAX)))
}

/// The store: there, current, whole, its clock, its key.
pub async fn store(config: &Config) -> Vec<Finding> {
    let unreachable = |error: &DbError| {
        let next = if config.database.url.is_empty() {
            "check owner and mode of store.db"
        } else {
            "check database.url, the server and the way to it"
        };
        Finding::new("database", Severity::Broken, with_sources(error), next)
    };
    let store = match crate::storage::open_existing_store(config).await {
        Ok(Some(store)) => store,
        Ok(None) => {
            let text = "there is no store in the data directory";
            let next = "check node.data_dir; in a new installation run `tandem account init`";
            return vec![Finding::new("database", Severity::Broken, text, next)];
        }
        Err(error) => return vec![unreachable(&error)],
    };
    let versions = match store.schema_versions().await {
        Ok(versions) => versions,
        Err(error) => return vec![unreachable(&error)],
    };
    let mut findings = vec![Finding::ok("database", "answers"), finding::schema(versions.0, versions.1)];
    if matches!(store, Db::Sqlite(_)) {
        findings.push(match store.quick_check().await {
            Ok(found) => finding::integrity("store.db", &found),
            Err(error) => finding::integrity("store.db", &[with_sources(&error)]),
        });
    }
    let before = SystemClock.now().utc;
    match store.clock().await {
        Ok(Some(clock)) => findings.push(finding::clock_offset(clock.0.saturating_sub(before.0))),
        Ok(None) => findings.push(Finding::ok("clock", "the store has that of this machine")),
        Err(error) => findings.push(unreachable(&error)),
    }
    findings.push(if versions.0 == versions.1 {
        let opened = ProvisioningStore::open(store.clone(), &crate::storage::key_file(config)).await;
        finding::key(opened.as_ref().map(|_| ()))
    } else {
        Finding::not_checked("key file", "the schema of the store is another one")
    });
    store.close().await;
    findings
}

/// The node's own database, when it is there.
pub async fn node_database(config: &Config) -> Vec<Finding> {
    let path = config.node.data_dir.join(db::node::FILE);
    if !path.is_file() {
        return Vec::new();
    }
    let found = async {
        let node = Db::open_sqlite(&SqliteOptions { path }).await?;
        let found = node.quick_check().await;
        node.close().await;
        found
    };
    let found = found.await.unwrap_or_else(|error| vec![with_sources(&error)]);
    vec![finding::integrity(db::node::FILE, &found)]
}

/// The daemon, and the ports that it wants.
pub async fn ports(config: &Config) -> Vec<Finding> {
    let (sip, http, admin) = (config.sip.transport.listen, config.http.listen, config.admin.listen);
    let daemon = daemon(admin).await;
    let taken = [
        ("sip.transport.listen", sip, UdpSocket::bind(sip).err()),
        ("http.listen", http, TcpListener::bind(http).err()),
        ("admin.listen", admin, TcpListener::bind(admin).err()),
    ];
    let ports = taken.iter().map(|(key, address, error)| finding::port(key, *address, error.as_ref(), &daemon));
    std::iter::once(finding::daemon(admin, &daemon)).chain(ports).collect()
}

async fn daemon(mut admin: SocketAddr) -> Daemon {
    // What listens everywhere is asked on loopback.
    if admin.ip().is_unspecified() {
        let v4 = admin.is_ipv4();
        admin.set_ip(if v4 { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) });
    }
    let Ok(client) = reqwest::Client::builder().no_proxy().timeout(NETWORK_MAX).build() else { return Daemon::Away };
    let Ok(answer) = client.get(format!("http://{admin}/readyz")).send().await else { return Daemon::Away };
    let status = answer.status();
    let body: serde_json::Value = answer.json().await.unwrap_or_default();
    match body.get("ready").and_then(serde_json::Value::as_bool) {
        Some(true) => Daemon::Ready,
        Some(false) => Daemon::NotReady(body.get("checks").map(ToString::to_string).unwrap_or_default()),
        None => Daemon::Stranger(format!("HTTP {status}")),
    }
}

/// Certificate and key of the HTTP face, as they lie on the disk: what is wrong with one hides nothing of the other.
pub fn certificate(config: &Config) -> Vec<Finding> {
    let limits = &config.http.tls;
    let loaded = limits.load().map_err(|error| with_sources(&error));
    let trouble = match &loaded {
        Ok(Some(identity)) => crate::wiring::certificate::expiry(identity, limits, SystemClock.now().utc),
        _ => None,
    };
    let found = loaded.as_ref().map(|some| some.as_ref().map(|found| found.file()));
    let mut findings = vec![finding::certificate(found, trouble)];
    if limits.is_on()
        && let Ok(found) = std::fs::metadata(&limits.key)
    {
        findings.extend(finding::key_exposed(&limits.key, found.permissions().mode()));
    }
    findings
}

/// Whether NTP keeps the clock of this machine, as systemd tells it.
pub async fn synchronised() -> Finding {
    let mut asked = tokio::process::Command::new("timedatectl");
    asked.args(["show", "--property=NTPSynchronized", "--value"]).stdin(Stdio::null()).kill_on_drop(true);
    let told = tokio::time::timeout(NETWORK_MAX, asked.output()).await;
    let told = told.ok().and_then(Result::ok).map(|output| output.stdout);
    finding::clock_synchronised(match told.as_deref().map(<[u8]>::trim_ascii) {
        Some(b"yes") => Some(true),
        Some(b"no") => Some(false),
        _ => None,
    })
}

/// Limits of process and kernel.
pub fn limits(config: &Config) -> Vec<Finding> {
    let wanted = config.sip.transport.socket_buffer_bytes;
    let bound = |file: &str| std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
    let mut findings = vec![
        finding::socket_buffer("net.core.rmem_max", bound("/proc/sys/net/core/rmem_max"), wanted),
        finding::socket_buffer("net.core.wmem_max", bound("/proc/sys/net/core/wmem_max"), wanted),
    ];
    findings.push(match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) => finding::descriptors(hard, config.media.sessions),
        Err(error) => Finding::not_checked("descriptors", error.to_string()),
    });
    findings
}

/// The mail server: its name, and whether it takes connections.
pub async fn mail(config: &Config) -> Vec<Finding> {
    let (host, port) = (config.mail.host.as_str(), config.mail.port);
    if host.is_empty() {
        return vec![Finding::ok("mail server", "none is configured: reports wait in the outbox")];
    }
    let looked = tokio::time::timeout(NETWORK_MAX, tokio::net::lookup_host((host, port))).await;
    let looked = looked
        .map_err(|_| "no answer in time".to_owned())
        .and_then(|found| found.map(Iterator::collect::<Vec<_>>).map_err(|error| error.to_string()));
    let mut findings = vec![finding::resolved(host, looked.as_ref().map(Vec::len).map_err(Clone::clone))];
    let addresses = looked.unwrap_or_default();
    if addresses.is_empty() {
        return findings;
    }
    let reached = tokio::time::timeout(NETWORK_MAX, tokio::net::TcpStream::connect(addresses.as_slice())).await;
    let failed = match reached {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("no answer in time".to_owned()),
    };
    findings.push(match failed {
        None => Finding::ok("mail server", format!("{host}:{port} takes connections")),
        Some(why) => {
            let next = "check mail.host and mail.port, the server and the firewalls between";
            Finding::new("mail server", Severity::Broken, format!("{host}:{port} cannot be reached: {why}"), next)
        }
    });
    findings
}

/// What the SNMP targets' configuration warns of. Whether traps arrive, `tandem snmp test` shows.
pub fn snmp(config: &Config) -> Vec<Finding> {
    if config.snmp.targets.is_empty() {
        return vec![Finding::ok("SNMP targets", "none are configured: alarms are not sent")];
    }
    match config.snmp.check() {
        Ok(warnings) if warnings.is_empty() => {
            vec![Finding::ok("SNMP targets", format!("{} with names of their own", config.snmp.targets.len()))]
        }
        Ok(warnings) => {
            let warning =
                |text| Finding::new("SNMP targets", Severity::Warning, text, "see [snmp] of the configuration");
            warnings.into_iter().map(warning).collect()
        }
        Err(error) => {
            vec![Finding::new("SNMP targets", Severity::Broken, error.to_string(), "see [snmp] of the configuration")]
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;

    #[test]
    fn a_certificate_that_has_expired_hides_no_key_that_all_can_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 2, 1);
        let certificate = params.self_signed(&key).expect("a certificate");
        let mut config = Config::default();
        let tls = &mut config.http.tls;
        (tls.certificate, tls.key) = (dir.path().join("certificate.pem"), dir.path().join("key.pem"));
        std::fs::write(&tls.certificate, certificate.pem()).expect("it can be written");
        std::fs::write(&tls.key, key.serialize_pem()).expect("it can be written");
        let file = tls.key.clone();
        let seen = |mode| {
            std::fs::set_permissions(&file, Permissions::from_mode(mode)).expect("it is ours");
            let findings = super::certificate(&config);
            findings.into_iter().map(|finding| (finding.check, finding.severity)).collect::<Vec<_>>()
        };
        let expired = || ("certificate http.tls".to_owned(), Severity::Broken);
        assert_eq!(seen(0o600), [expired()]);
        assert_eq!(seen(0o644), [expired(), ("key http.tls".to_owned(), Severity::Warning)]);
    }
}
