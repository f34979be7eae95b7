//! The HTTP face over TLS, as operators and their programs see it: curl, openssl, our own command line; the certificate
//! is replaced by SIGHUP.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use db::system::SystemClock;
use model::time::Clock as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tandem_e2e::{Engine, TestInstallation, install, program};
use testkit::wait_until;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::process::Command;

/// How long a reload or an alarm may take until it is seen.
const SEEN_MAX: Duration = Duration::from_secs(30);

/// The files that the daemon is told of.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    /// A new certificate in them, its own authority, that ends at the begin of the day that is `days` from now. A
    /// client that trusts it alone keeps a copy, named `kept`.
    fn issue(&self, days: i64, kept: &str) -> PathBuf {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let end = SystemClock.now().utc.plus_ms(days * 86_400_000).to_string();
        let mut date = end.split(['-', 'T']);
        let mut next = || date.next().expect("an instant has a date");
        let (year, month, day) = (next(), next(), next());
        let number = "digits";
        params.not_after =
            rcgen::date_time_ymd(year.parse().expect(number), month.parse().expect(number), day.parse().expect(number));
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        let kept = self.certificate.with_file_name(kept);
        for (file, text) in
            [(&self.certificate, &certificate), (&kept, &certificate), (&self.key, &key.serialize_pem())]
        {
            std::fs::write(file, text).expect("it can be written");
        }
        kept
    }
}

async fn run(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Output {
    let ran = Command::new(program).args(args).stdin(Stdio::null()).env_remove("TANDEM_TOKEN").output();
    ran.await.expect("the program is installed by `make test`")
}

/// The list of reports, by curl, which trusts `ca` alone: whether the daemon gave it.
async fn curl(at: &TestInstallation, ca: &Path, more: &[&str]) -> bool {
    let token = format!("Authorization: Bearer {}", at.installation.token.expose());
    let url = format!("https://localhost:{}/reports/runs", at.installation.config.http.listen.port());
    let ca = ca.to_str().expect("UTF-8");
    let resolve = format!("localhost:{}:127.0.0.1", at.installation.config.http.listen.port());
    let args =
        ["-fsS", "--noproxy", "*", "--max-time", "20", "--resolve", &resolve, "--cacert", ca, "-H", &token, &url];
    let ran = run("curl", &[&args, more].concat()).await;
    let text = String::from_utf8_lossy(&ran.stdout);
    assert!(!ran.status.success() || text.contains("\"items\""), "{text}");
    ran.status.success()
}

/// The value of a counter, 0 before it was first counted.
async fn counter(at: &TestInstallation, name_and_labels: &str) -> String {
    let url = format!("http://{}/metrics", at.installation.config.admin.listen);
    let text = String::from_utf8(run("curl", &["-fsS", "--noproxy", "*", &url]).await.stdout).expect("UTF-8");
    let line = text.lines().find_map(|line| line.strip_prefix(name_and_labels));
    line.map_or("0", str::trim).to_owned()
}

/// The severities of the active alarms about certificates, as `tandem alarm list` gives them.
async fn certificate_alarms(at: &TestInstallation) -> Vec<String> {
    let config = at.installation.config_file.to_str().expect("UTF-8");
    let ran = run(program(), &["alarm", "list", "--output", "json", "--config", config]).await;
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let alarms: Vec<serde_json::Value> = serde_json::from_slice(&ran.stdout).expect("JSON");
    let ours = alarms.iter().filter(|alarm| alarm["type"] == "certificate_expiring");
    ours.map(|alarm| alarm["severity"].as_str().unwrap_or_default().to_owned()).collect()
}

/// What `tandem doctor` finds of certificate and key, and how bad.
async fn doctor(at: &TestInstallation) -> Vec<(String, String)> {
    let config = at.installation.config_file.to_str().expect("UTF-8");
    let ran = run(program(), &["doctor", "--output", "json", "--config", config]).await;
    let found: serde_json::Value = serde_json::from_slice(&ran.stdout).expect("JSON");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let findings = found["findings"].as_array().expect("findings").iter();
    let findings = findings.map(|finding| (text(&finding["check"]), text(&finding["severity"])));
    findings.filter(|(check, _)| check.ends_with("http.tls")).collect()
}

#[tokio::test]
async fn a_certificate_is_shown_and_replaced_by_sighup_and_a_wrong_pair_is_not() {
    let mut files = None;
    let at = install(Engine::Sqlite, |config| {
        let folder = config.node.data_dir.parent().expect("the data lie in the installation's directory");
        let made = Files { certificate: folder.join("certificate.pem"), key: folder.join("key.pem") };
        (config.http.tls.certificate, config.http.tls.key) = (made.certificate.clone(), made.key.clone());
        files = Some(made);
    })
    .await;
    let files = files.expect("the configuration was made");

    // Without the files there is no start, and the reason is named.
    let refused = run(program(), &["serve", "--config", at.installation.config_file.to_str().expect("UTF-8")]).await;
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && text.contains("error: http.tls.certificate"), "{text}");

    let first = files.issue(400, "first.pem");
    let daemon = at.installation.start().await.expect("it starts");
    let pid = daemon.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw).expect("it runs");
    let hang_up = || kill(pid, Signal::SIGHUP).expect("it hears");
    assert!(curl(&at, &first, &[]).await);
    assert!(curl(&at, &first, &["--tls-max", "1.2"]).await);

    // openssl: 1.3 and 1.2 are spoken, 1.1 is not; what a client is shown is what the file holds.
    let listen = at.installation.config.http.listen.to_string();
    for (version, spoken) in [("-tls1_3", true), ("-tls1_2", true), ("-tls1_1", false)] {
        let args = ["s_client", "-connect", &listen, "-cipher", "DEFAULT@SECLEVEL=0", version];
        let shown = run("openssl", &args).await;
        let text = String::from_utf8_lossy(&shown.stdout);
        let file = std::fs::read_to_string(&first).expect("it is there").replace("\r\n", "\n");
        assert_eq!(text.contains(file.trim()), spoken, "{version}: {text}");
    }

    // The doctor finds the certificate good, and the key open to everybody until it is not.
    let finding = |check: &str, severity: &str| (check.to_owned(), severity.to_owned());
    let (good, open) = (finding("certificate http.tls", "ok"), finding("key http.tls", "warning"));
    for (mode, found) in [(0o644, vec![good.clone(), open]), (0o600, vec![good])] {
        std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(mode)).expect("it is ours");
        assert_eq!(doctor(&at).await, found, "{mode:o}");
    }

    // Our own command line: with the authority, and not without.
    let token_file = at.dir.path().join("token");
    std::fs::write(&token_file, at.installation.token.expose()).expect("it can be written");
    let url = format!("https://localhost:{}", at.installation.config.http.listen.port());
    let (token_file, ca) = (token_file.to_str().expect("UTF-8"), first.to_str().expect("UTF-8"));
    let command = ["report", "list", "--url", &url, "--token-file", token_file];
    assert!(!run(program(), &command).await.status.success());
    let listed = run(program(), &[&command[..], &["--ca", ca]].concat()).await;
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));

    // Who never ends a handshake is in nobody's way.
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(at.installation.config.http.listen).await.expect("it is taken");
        stream.write_all(&[22, 3, 1, 2, 0, 1]).await.expect("it is taken");
        slow.push(stream);
    }
    assert!(curl(&at, &first, &[]).await);

    // Renewed on the disk: shown after SIGHUP, not before.
    let second = files.issue(100, "second.pem");
    assert!(curl(&at, &first, &[]).await && !curl(&at, &second, &[]).await);
    hang_up();
    wait_until(SEEN_MAX, async || curl(&at, &second, &[]).await).await;
    assert!(!curl(&at, &first, &[]).await);

    // A key of another certificate: refused, counted, and the old pair stays.
    std::fs::write(&files.key, rcgen::KeyPair::generate().expect("a key").serialize_pem()).expect("it can be written");
    hang_up();
    wait_until(SEEN_MAX, async || counter(&at, "tandem_reloads_total{outcome=\"refused\"}").await == "1").await;
    assert!(curl(&at, &second, &[]).await);
    assert_eq!(counter(&at, "tandem_reloads_total{outcome=\"done\"}").await, "1");
    let log = std::fs::read_to_string(&at.installation.log_file).expect("a log");
    assert!(log.contains("http.tls.key") && !log.contains("PRIVATE"), "{log}");

    // Near its end: an alarm, which the next certificate clears.
    let third = files.issue(5, "third.pem");
    hang_up();
    wait_until(SEEN_MAX, async || certificate_alarms(&at).await == ["critical"]).await;
    assert!(curl(&at, &third, &[]).await);
    let fourth = files.issue(20, "fourth.pem");
    hang_up();
    wait_until(SEEN_MAX, async || certificate_alarms(&at).await == ["warning"]).await;
    let last = files.issue(90, "last.pem");
    hang_up();
    wait_until(SEEN_MAX, async || certificate_alarms(&at).await.is_empty()).await;
    assert!(curl(&at, &last, &[]).await && !curl(&at, &fourth, &[]).await);

    let status = daemon.terminate().await.expect("it stops");
    assert!(status.success(), "handshakes that never end do not hold the stop: {status}");
    drop(slow);
}
