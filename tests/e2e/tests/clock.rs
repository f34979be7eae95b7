//! A wall clock that is set while the daemon runs: it is seen, told, and no call becomes longer or shorter by it. The
//! daemon alone sees the other clock, by libfaketime; its monotonic clock stays that of the machine, as the kernel's
//! does.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tandem::call::{Account, Agent, AgentConfig, CallRequest, Progress};
use tandem::demo::await_settled;
use tandem_e2e::ledger::{journaled_calls, store, usage};
use tandem_e2e::{Engine, TestInstallation, install, program, provision};
use testkit::wait_until;
use tokio::process::Command;

/// How long an alarm may take until it is seen.
const SEEN_MAX: Duration = Duration::from_secs(30);
/// How far what the phone and the daemon measured of one call may lie apart: the way of a few packets, on a busy
/// machine.
const APART_MAX_MS: u64 = 10_000;

/// A program that is `tandem` with the clock that `file` says: an offset in seconds.
fn with_clock_of(file: &Path) -> std::path::PathBuf {
    let wrapper = file.with_file_name("tandem-with-another-clock");
    let script = format!(
        "#!/bin/sh\nset -e\nLD_PRELOAD=$(ls /usr/lib/*/faketime/libfaketimeMT.so.1)\nFAKETIME_TIMESTAMP_FILE='{}'\n\
         FAKETIME_NO_CACHE=1\nFAKETIME_DONT_FAKE_MONOTONIC=1\nexport LD_PRELOAD FAKETIME_TIMESTAMP_FILE FAKETIME_NO_CACHE \
         FAKETIME_DONT_FAKE_MONOTONIC\nexec '{}' \"$@\"\n",
        file.display(),
        program().display()
    );
    std::fs::write(&wrapper, script).expect("it can be written");
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o700)).expect("it is ours");
    wrapper
}

/// Sets the daemon's wall clock, in one step: it reads the file at any moment.
fn set_clock(file: &Path, offset: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, offset).expect("it can be written");
    std::fs::rename(&new, file).expect("it can be renamed");
}

/// The texts of the active alarms about the clock, as `tandem alarm list` gives them.
async fn clock_alarms(at: &TestInstallation) -> Vec<String> {
    let config = &at.installation.config_file;
    let mut listing = Command::new(program());
    listing.args(["alarm", "list", "--output", "json", "--config"]).arg(config).stdin(Stdio::null());
    let ran = listing.output().await.expect("it runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let alarms: Vec<serde_json::Value> = serde_json::from_slice(&ran.stdout).expect("JSON");
    let ours = alarms.iter().filter(|alarm| alarm["type"] == "clock_stepped");
    ours.map(|alarm| alarm["text"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_the_clock_is_an_alarm_and_changes_no_duration() {
    let mut at = install(Engine::Sqlite, |_| {}).await;
    let clock = at.dir.path().join("clock");
    set_clock(&clock, "+0");
    at.installation.program = with_clock_of(&clock);
    let daemon = at.installation.start().await.expect("it starts; faketime is installed by `make test`");
    let (any, server) = (SocketAddr::from(([127, 0, 0, 1], 0)), at.installation.config.sip.transport.listen);
    let carrier = tandem::demo::process::free_udp().expect("a free port");
    let world = provision(&at.installation, carrier).await;
    let phones = Agent::start(AgentConfig::new(any, server)).await.expect("phones");
    let mut accounts = Vec::new();
    for phone in world.phones_of(0).take(2) {
        let account = Account::new(&*phone.username, world.customers[0].domain, phone.password.expose());
        accounts.push(phones.register(account).await.expect("it registers"));
    }
    assert!(clock_alarms(&at).await.is_empty(), "a busy start is no step");

    let request =
        CallRequest { hang_up_after_ms: None, ..CallRequest::new(accounts[0], &*world.phones[1].extension, 0) };
    let mut call = phones.place(request).await.expect("it is placed");
    assert!(call.reached(Progress::Answered).await);
    set_clock(&clock, "+7200");
    wait_until(SEEN_MAX, async || clock_alarms(&at).await.len() == 1).await;
    let raised = clock_alarms(&at).await;
    assert!(raised[0].contains("set forward by 7"), "{raised:?}");
    call.hang_up().await;
    let outcome = call.outcome().await.expect("it ends");
    assert_eq!(outcome.bye_status, Some(200), "{outcome:?}");

    // Set right again: a step as well, which does not make a second alarm of it.
    set_clock(&clock, "+0");
    let told = || std::fs::read_to_string(&at.installation.log_file).expect("a log");
    wait_until(SEEN_MAX, async || told().matches("the wall clock of this machine was set").count() == 2).await;
    assert_eq!(clock_alarms(&at).await, raised);

    await_settled(&at.installation).await.expect("everything is consumed");
    let calls = journaled_calls(&at.installation.config);
    let (id, journaled) = calls.first_key_value().expect("one call");
    let measured = u64::try_from(journaled.duration_ms).expect("no negative duration");
    assert!(measured.abs_diff(outcome.talk_ms) < APART_MAX_MS, "{measured} and {}", outcome.talk_ms);
    assert!(!journaled.estimated && calls.len() == 1);
    let db = store(&at.installation.config).await;
    let billed = usage(&db).await;
    assert!(
        billed.iter().all(|row| row.0 == *id && row.2 == journaled.duration_ms) && !billed.is_empty(),
        "{billed:?}"
    );
    db.close().await;
    let status = daemon.terminate().await.expect("it stops");
    assert!(status.success(), "{status}");
}
