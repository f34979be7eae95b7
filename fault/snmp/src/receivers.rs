//! The MIB under the eyes of libsmi and net-snmp, and traps as net-snmp's receiver logs them.
//!
//! The base modules come from the npm package `net-snmp`: Debian ships those of the IETF in none of its free packages.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use fault::catalogue::{AlarmType, detector};
use fault::port::AlarmAuthority as _;
use fault::resource::Condition;
use fault_store::{NodeAlarms, Sender};
use model::time::Clock as _;

use testkit::{World, wait_until};

use crate::objects::Oids;
use crate::{SnmpConfig, SnmpSink, SnmpTargetConfig, SnmpVersion, mib, sinks};

const MISSING: &str = "run make test, it installs smitools, snmp, snmptrapd (and npm)";
/// The npm package with the base modules.
const BASE_MODULES: &str = "net-snmp@3.29.2";
/// Longest wait for a program that does a second's work.
const PATIENCE: Duration = Duration::from_secs(30);
/// A port that was free may be taken before the receiver binds it.
const PORTS_TRIED_MAX: usize = 5;

/// Both modules and what they import, in a directory that goes when the last test has done with it.
struct Modules {
    base: PathBuf,
    ours: PathBuf,
    persistent: PathBuf,
    // Held for its Drop.
    _dir: tempfile::TempDir,
}

fn modules() -> Arc<Modules> {
    static SHARED: Mutex<Weak<Modules>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let modules = Arc::new(unpack());
        *shared = Arc::downgrade(&modules);
        modules
    })
}

fn unpack() -> Modules {
    let dir = tempfile::tempdir().unwrap();
    let packed =
        run(Command::new("npm").args(["pack", "--silent", "--pack-destination"]).arg(dir.path()).arg(BASE_MODULES));
    assert!(packed.status.success(), "npm could not fetch {BASE_MODULES}: {}", text(&packed.stderr));
    let archive = dir.path().join(text(&packed.stdout).trim());
    let unpacked = run(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(dir.path()));
    assert!(unpacked.status.success(), "{}", text(&unpacked.stderr));
    let ours = dir.path().join("ours");
    std::fs::create_dir(&ours).unwrap();
    for (name, module) in mib::render(32_473) {
        std::fs::write(ours.join(name), module).unwrap();
    }
    let persistent = dir.path().join("persistent");
    std::fs::create_dir_all(persistent.join("cert_indexes")).unwrap();
    std::fs::create_dir_all(persistent.join("mib_indexes")).unwrap();
    Modules { base: dir.path().join("package/lib/mibs"), ours, persistent, _dir: dir }
}

fn run(command: &mut Command) -> Output {
    let program = command.get_program().to_string_lossy().into_owned();
    match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) => panic!("{program}: {error}; {MISSING}"),
    }
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

fn committed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/mib").join(name)
}

#[test]
fn the_committed_modules_are_the_rendered_ones() {
    for (name, module) in mib::render(32_473) {
        let path = committed(name);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &module).unwrap();
        }
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(stored == module, "schemas/mib/{name} is not what the catalogue says: run this test with UPDATE=1");
    }
}

#[test]
fn the_linter_has_nothing_to_say() {
    let modules = modules();
    let lint = |files: &[PathBuf]| {
        let path = format!("{}:{}", modules.ours.display(), modules.base.display());
        // An empty configuration, so that what the machine has set does not matter
        let config = modules.ours.join("smi.conf");
        std::fs::write(&config, "").unwrap();
        let output = run(Command::new("smilint").args(["-l", "6", "-c"]).arg(config).args(files).env("SMIPATH", path));
        text(&output.stdout) + &text(&output.stderr)
    };
    let ours: Vec<PathBuf> = mib::render(32_473).iter().map(|(name, _)| modules.ours.join(name)).collect();
    assert_eq!(lint(&ours), "");
    // It exits with 0 whatever it finds: make sure that it looks at all
    let broken = modules.ours.join("BROKEN-MIB");
    std::fs::write(
        &broken,
        std::fs::read_to_string(&ours[1])
            .unwrap()
            .replace("TANDEM-MIB", "BROKEN-MIB")
            .replace("{ tandemNotificationObjects 5 }", "{ nobodyKnows 5 }"),
    )
    .unwrap();
    let findings = lint(&[broken]);
    assert!(findings.contains("nobodyKnows"), "{findings}");
}

fn translate(arguments: &[&str]) -> String {
    let modules = modules();
    let path = format!("{}:{}", modules.base.display(), modules.ours.display());
    let output = run(Command::new("snmptranslate")
        .args(["-M", &path, "-m", "TANDEM-MIB:TANDEM-SMI-MIB:SNMPv2-MIB"])
        .args(arguments)
        // It would make directories of its own on the machine, and say so
        .env("SNMP_PERSISTENT_DIR", &modules.persistent));
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

#[test]
fn names_and_numbers_translate_both_ways() {
    let _held = modules();
    let check = |name: &str, number: &str| {
        assert_eq!(translate(&["-On", name]), number);
        assert_eq!(translate(&[number]), name);
    };
    check("TANDEM-MIB::tandemAlarmRaise", ".1.3.6.1.4.1.32473.1.0.1");
    check("TANDEM-MIB::tandemTestNotification", ".1.3.6.1.4.1.32473.1.0.9");
    check("TANDEM-MIB::tandemAlarmSeverity.0", ".1.3.6.1.4.1.32473.1.1.7.0");
    check("TANDEM-MIB::tandemAlarmTypeTrunkDown", ".1.3.6.1.4.1.32473.1.3.1");
    let described = translate(&["-Td", "TANDEM-MIB::tandemAlarmTypeJournalLag"]);
    assert!(described.contains("Action: Free space"), "{described}");
}

/// net-snmp's receiver on a port of its own; it ends with the test.
struct TrapReceiver {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
    _dir: tempfile::TempDir,
    _modules: Arc<Modules>,
}

impl Drop for TrapReceiver {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl TrapReceiver {
    async fn start() -> Self {
        for _ in 0..PORTS_TRIED_MAX {
            if let Some(receiver) = Self::try_start().await {
                return receiver;
            }
        }
        panic!("snmptrapd started on none of {PORTS_TRIED_MAX} free ports")
    }

    async fn try_start() -> Option<Self> {
        let modules = modules();
        let dir = tempfile::tempdir().unwrap();
        let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (config, log) = (dir.path().join("snmptrapd.conf"), dir.path().join("log"));
        std::fs::write(&config, "authCommunity log traps\n").unwrap();
        let path = format!("{}:{}", modules.base.display(), modules.ours.display());
        // Daemons lie in a directory that is not on every user's path
        let search = format!("{}:/usr/local/sbin:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let child = Command::new("snmptrapd")
            .args(["-f", "-C", "-M", &path, "-m", "TANDEM-MIB:TANDEM-SMI-MIB:SNMPv2-MIB", "-n", "-c"])
            .arg(&config)
            .arg("-Lf")
            .arg(&log)
            .arg(format!("udp:{address}"))
            .env("PATH", search)
            .env("SNMP_PERSISTENT_DIR", dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = child.unwrap_or_else(|error| panic!("snmptrapd: {error}; {MISSING}"));
        let mut receiver = Self { child, address, log, _dir: dir, _modules: modules };
        let mut ended = false;
        wait_until(PATIENCE, async || {
            ended = receiver.child.try_wait().unwrap().is_some();
            ended || UdpSocket::bind(address).is_err()
        })
        .await;
        (!ended).then_some(receiver)
    }

    /// The log as soon as it holds `needle`, from there on.
    async fn logged(&self, needle: &str) -> String {
        let mut found = None;
        wait_until(PATIENCE, async || {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            // The line is there as a whole once it ends
            found = log.lines().find(|line| line.contains(needle)).map(str::to_owned);
            found.is_some() && log.ends_with('\n')
        })
        .await;
        found.unwrap()
    }
}

fn target(address: SocketAddr) -> SnmpTargetConfig {
    SnmpTargetConfig { name: "nms".into(), address, version: SnmpVersion::V2c, community: "traps".into() }
}

#[tokio::test]
async fn the_receiver_logs_raise_and_clear_by_their_names() {
    let receiver = TrapReceiver::start().await;
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let config = SnmpConfig { targets: vec![target(receiver.address)], ..SnmpConfig::default() };
    let clock: Arc<dyn model::time::Clock> = world.clock.clone();
    let targets = sinks(&config, &clock).unwrap();
    let names = targets.iter().map(|(name, _)| name.clone()).collect();
    let node_db = db::node::open(dir.path()).await.unwrap();
    let alarms = NodeAlarms::open(node_db.clone(), "node-a", names, world.ids.clone()).await.unwrap();
    let sender = Sender::new(node_db, "node-a", targets);
    let down = Condition {
        alarm_type: AlarmType::TrunkDown,
        resource: "trunk:carrier-a".to_owned(),
        path: None,
        severity: None,
        text: "trunk carrier-a left 2 OPTIONS unanswered".to_owned(),
    };
    for conditions in [vec![down.clone()], vec![down], vec![]] {
        alarms.observe(detector::TRUNKS, conditions, world.clock.now().utc).await.unwrap();
        sender.drain(world.clock.now()).await.unwrap();
    }
    let raise = receiver.logged("TANDEM-MIB::tandemAlarmRaise").await;
    let clear = receiver.logged("TANDEM-MIB::tandemAlarmClear").await;
    for (line, expected) in
        [(&raise, ["Sequence.0 = Gauge32: 1", "major(4)"]), (&clear, ["Sequence.0 = Gauge32: 2", "cleared(1)"])]
    {
        let same = [
            "TANDEM-MIB::tandemAlarmId.0 = Gauge32: 1",
            "TANDEM-MIB::tandemAlarmType.0 = STRING: trunk_down",
            "TANDEM-MIB::tandemAlarmResource.0 = STRING: trunk:carrier-a",
            "TANDEM-MIB::tandemAlarmEventType.0 = INTEGER: communicationsAlarm(2)",
            "TANDEM-MIB::tandemAlarmText.0 = STRING: trunk carrier-a left 2 OPTIONS unanswered",
            "TANDEM-MIB::tandemAlarmRaisedTime.0 = STRING: 2026-1-1,0:0:0.0,+0:0",
        ];
        for part in same.iter().chain(&expected) {
            assert!(line.contains(part), "{part}\nis not in\n{line}");
        }
    }
    assert!(clear.contains("TANDEM-MIB::tandemAlarmCount.0 = Gauge32: 2"), "{clear}");
}

#[tokio::test]
async fn the_receiver_logs_a_test() {
    let receiver = TrapReceiver::start().await;
    let sink = SnmpSink::new(&target(receiver.address), Oids::new(32_473), World::new().clock);
    sink.send_test("node-a").await.unwrap();
    let line = receiver.logged("TANDEM-MIB::tandemTestNotification").await;
    assert!(line.contains("Test of the target nms; nothing is wrong"), "{line}");
}
