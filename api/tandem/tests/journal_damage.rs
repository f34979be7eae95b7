//! `tandem journal verify` and `stat` on files that were cut or written over: a finding with its place and a failure, or
//! none; never a panic.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at what must not be")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use db::journal::{Journal, JournalReader};
use model::event::fact::{Fact, Heartbeat};
use model::time::Timestamp;
use serde_json::Value;
use tandem::config::Config;
use testkit::{ManualClock, soak};

const SEED: u64 = 0xd15d;
/// Each is two processes.
const ROUNDS: u64 = 25;
const RECORDS: u32 = 400;

fn ask(config: &Path, what: &str) -> (bool, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_tandem"))
        .args(["journal", what, "--output", "json", "--config"])
        .arg(config)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code().is_some() && !complaint.contains("panicked"), "{what}: {complaint}");
    let answer = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    assert!(output.status.success() || !answer.is_null() || !complaint.trim().is_empty(), "{what}: a failure says why");
    (output.status.success(), answer)
}

#[test]
fn the_command_tells_what_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.node.data_dir = dir.path().join("data");
    config.sip.transport.advertised = "192.0.2.9".parse().ok();
    std::fs::create_dir_all(&config.node.data_dir).unwrap();
    let file = dir.path().join("tandem.toml");
    std::fs::write(&file, toml::to_string(&config).unwrap()).unwrap();
    let (journal, _) = Journal::open(&config.node.data_dir, Arc::new(ManualClock::default()), "0.1.0").unwrap();
    for n in 0..RECORDS {
        let fact = Fact::Heartbeat(Heartbeat { at: Timestamp(i64::from(n)), calls_up: n, stopping: Some(n % 2 == 0) });
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        journal.append(&fact, Some(Box::new(move |durable| tell.send(durable).unwrap()))).unwrap();
        assert!(told.recv().unwrap());
    }
    journal.close();
    let (sound, report) = ask(&file, "verify");
    assert!(sound && report["finding"].is_null(), "{report}");
    let records = report["records"].as_u64().unwrap();
    assert!(records >= u64::from(RECORDS), "{report}");
    let folder = config.node.data_dir.join("journal");
    let path = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let path = path.into_iter().find(|path| path.extension().is_some_and(|e| e == "journal")).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let mut found = 0;
    soak::campaign("tandem journal verify", SEED, ROUNDS, |_, random| {
        let mut octets = whole.clone();
        let at = random.below(octets.len());
        if random.below(2) == 0 {
            octets.truncate(at);
        } else {
            let noise = random.octets(1_024);
            octets.iter_mut().skip(at).zip(noise).for_each(|(octet, noise)| *octet = noise);
        }
        for beside in ["-wal", "-shm"] {
            let mut name = path.clone().into_os_string();
            name.push(beside);
            drop(std::fs::remove_file(name));
        }
        std::fs::write(&path, octets).unwrap();
        let (sound, report) = ask(&file, "verify");
        // The command says so itself, and agrees with the library.
        assert_eq!(sound, JournalReader::open(&config.node.data_dir).verify().is_ok(), "{report}");
        if sound {
            assert!(report["records"].as_u64().unwrap() <= records, "{report}");
        } else {
            found += 1;
        }
        ask(&file, "stat");
    });
    assert!(found > 3, "{found} findings");
}
