//! The MIB under the eyes of libsmi and net-snmp, and traps as net-snmp's receiver logs them.
//!
//! The base modules come from the npm package `net-snmp`: Debian ships those of the IETF in none of its free packages.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use fault::catalogue::{AlarmType, detector};
use fault::port::AlarmAuthority as _;
use fault::resource::Condition;
use fault_store::{NodeAlarms, Sender, SenderOptions};
use model::time::Clock as _;

use testkit::{World, wait_until};

use crate::user::{Authentication, Privacy};
use crate::{Engine, SnmpConfig, SnmpKind, SnmpTargetConfig, SnmpUserConfig, engine_id, mib, sinks};

const MISSING: &str = "run make test, it installs smitools, snmp, snmptrapd (and npm)";
/// The npm package with the base modules.
const BASE_MODULES: &str = "net-snmp@3.29.2";
/// Longest wait for a program that does a second's work.
const PATIENCE: Duration = Duration::from_secs(30);
/// A port that was free may be taken before the receiver binds it.
const PORTS_TRIED_MAX: usize = 5;

/// Both modules and what they import, in a directory that goes when the last test has done with it.
pub(crate) struct Modules {
    pub(crate) base: PathBuf,
    pub(crate) ours: PathBuf,
    pub(crate) persistent: PathBuf,
    // Held for its Drop.
    _dir: tempfile::TempDir,
}

pub(crate) fn modules() -> Arc<Modules> {
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

pub(crate) fn run(command: &mut Command) -> Output {
    let program = command.get_program().to_string_lossy().into_owned();
    match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) => panic!("{program}: {error}; {MISSING}"),
    }
}

pub(crate) fn text(octets: &[u8]) -> String {
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
    check("TANDEM-MIB::tandemResyncBegin", ".1.3.6.1.4.1.32473.1.0.6");
    check("TANDEM-MIB::tandemActiveAlarmText.17", ".1.3.6.1.4.1.32473.1.4.11.1.7.17");
    check("TANDEM-MIB::tandemTargetEpoch.'nms'", ".1.3.6.1.4.1.32473.1.4.12.1.3.110.109.115");
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
    async fn start(config: &str) -> Self {
        for _ in 0..PORTS_TRIED_MAX {
            if let Some(receiver) = Self::try_start(config).await {
                return receiver;
            }
        }
        panic!("snmptrapd started on none of {PORTS_TRIED_MAX} free ports")
    }

    async fn try_start(text: &str) -> Option<Self> {
        let modules = modules();
        let dir = tempfile::tempdir().unwrap();
        let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (config, log) = (dir.path().join("snmptrapd.conf"), dir.path().join("log"));
        std::fs::write(&config, text).unwrap();
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

const COMMUNITY: &str = "authCommunity log traps\n";

/// A node whose notifications go to the targets of `config`.
struct Node {
    world: World,
    alarms: NodeAlarms,
    sender: Sender,
    db: db::Db,
    _dir: tempfile::TempDir,
}

impl Node {
    async fn start(config: &SnmpConfig, engine: Option<&Engine>) -> Self {
        let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
        let clock: Arc<dyn model::time::Clock> = world.clock.clone();
        let targets = sinks(config, &clock, engine).unwrap();
        let names = targets.iter().map(|(name, _)| name.clone()).collect();
        let db = db::node::open(dir.path()).await.unwrap();
        let alarms = NodeAlarms::new(db.clone(), "node-a", names, world.ids.clone());
        let options = SenderOptions { heartbeat: Some(Duration::from_secs(60)), ..SenderOptions::default() };
        let sender = Sender::new(&alarms, targets, options);
        Self { world, alarms, sender, db, _dir: dir }
    }

    async fn observe(&self, conditions: &[Condition]) {
        self.alarms.observe(detector::TRUNKS, conditions.to_vec(), self.world.clock.now().utc).await.unwrap();
    }

    async fn drain(&self) {
        self.sender.drain(self.world.clock.now()).await.unwrap();
    }

    /// Until nothing waits any more; each round is a minute later.
    async fn drain_all(&self) {
        wait_until(PATIENCE * 4, async || {
            self.drain().await;
            self.world.clock.advance_ms(60_000);
            self.sender.pending().await.unwrap() == 0
        })
        .await;
    }
}

fn down(name: &str) -> Condition {
    Condition {
        alarm_type: AlarmType::TrunkDown,
        resource: format!("trunk:{name}"),
        path: None,
        severity: None,
        text: format!("trunk {name} left 2 OPTIONS unanswered"),
    }
}

#[tokio::test]
async fn the_receiver_logs_raise_and_clear_by_their_names() {
    let receiver = TrapReceiver::start(COMMUNITY).await;
    let target = SnmpTargetConfig::v2c("nms", receiver.address, "traps");
    let node = Node::start(&SnmpConfig { targets: vec![target], ..SnmpConfig::default() }, None).await;
    for conditions in [vec![down("carrier-a")], vec![down("carrier-a")], vec![]] {
        node.observe(&conditions).await;
        node.drain().await;
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
            "TANDEM-MIB::tandemNotificationResync.0 = INTEGER: false(2)",
        ];
        for part in same.iter().chain(&expected) {
            assert!(line.contains(part), "{part}\nis not in\n{line}");
        }
    }
    assert!(clear.contains("TANDEM-MIB::tandemAlarmCount.0 = Gauge32: 2"), "{clear}");
    let heartbeat = receiver.logged("TANDEM-MIB::tandemHeartbeat").await;
    assert!(heartbeat.contains("TANDEM-MIB::tandemHeartbeatPeriod.0 = Gauge32: 60"), "{heartbeat}");
}

#[tokio::test]
async fn the_receiver_logs_a_test_by_each_kind() {
    let receiver = TrapReceiver::start(COMMUNITY).await;
    let clock: Arc<dyn model::time::Clock> = World::new().clock;
    for kind in [SnmpKind::Trap, SnmpKind::Inform] {
        let name = format!("{kind:?}").to_lowercase();
        let target = SnmpTargetConfig { kind: Some(kind), ..SnmpTargetConfig::v2c(&name, receiver.address, "traps") };
        SnmpConfig::default().sink(&target, &clock, None).unwrap().send_test("node-a").await.unwrap();
        let line = receiver.logged(&format!("Test of the target {name}; nothing is wrong")).await;
        assert!(line.contains("TANDEM-MIB::tandemTestNotification"), "{line}");
    }
}

const PROTOCOLS: [(&str, Authentication, &str); 4] = [
    ("one", Authentication::Sha1, "SHA"),
    ("two", Authentication::Sha256, "SHA-256"),
    ("three", Authentication::Sha384, "SHA-384"),
    ("five", Authentication::Sha512, "SHA-512"),
];

fn users() -> std::collections::BTreeMap<String, SnmpUserConfig> {
    let user = |authentication| SnmpUserConfig::new(authentication, "authentic1", Privacy::Aes128, "private12");
    PROTOCOLS.iter().map(|(name, authentication, _)| ((*name).to_owned(), user(*authentication))).collect()
}

/// The users at the receiver's own engine, for informs, and at ours, for traps.
fn receiver_of_users(engine: &Engine) -> String {
    let id: String = engine.id().iter().map(|octet| format!("{octet:02x}")).collect();
    let line = |(name, _, protocol): &(&str, Authentication, &str)| {
        let keys = format!("{name} {protocol} authentic1 AES private12");
        format!("createUser {keys}\ncreateUser -e 0x{id} {keys}\nauthUser log {name}\n")
    };
    PROTOCOLS.iter().map(line).collect()
}

#[tokio::test]
async fn v3_traps_and_informs_arrive_encrypted_with_each_hash() {
    let engine = Engine::start(engine_id(32_473, [7; 16]), 1).unwrap();
    let receiver = TrapReceiver::start(&receiver_of_users(&engine)).await;
    let mut config = SnmpConfig { users: users(), ..SnmpConfig::default() };
    for (user, ..) in &PROTOCOLS {
        for (kind, name) in [(SnmpKind::Trap, "trap"), (SnmpKind::Inform, "inform")] {
            let target = SnmpTargetConfig::v3(&format!("{name}-{user}"), receiver.address, user);
            config.targets.push(SnmpTargetConfig { kind: Some(kind), inform_timeout_ms: 10_000, ..target });
        }
    }
    let clock: Arc<dyn model::time::Clock> = World::new().clock;
    for target in &config.targets {
        config.sink(target, &clock, Some(&engine)).unwrap().send_test("node-a").await.unwrap();
        let line = receiver.logged(&format!("Test of the target {};", target.name)).await;
        assert!(line.contains("TANDEM-MIB::tandemTestNotification"), "{line}");
    }
    // The next run of the program: the receiver goes on with its boots
    let engine = Engine::start(engine_id(32_473, [7; 16]), 2).unwrap();
    let target = SnmpTargetConfig { name: "after".to_owned(), ..config.targets[2].clone() };
    config.sink(&target, &clock, Some(&engine)).unwrap().send_test("node-a").await.unwrap();
    receiver.logged("Test of the target after;").await;
    // Boots of before are a replay, and a wrong key is a stranger: neither is logged, what follows is
    let old = Engine::start(engine_id(32_473, [7; 16]), 1).unwrap();
    let target = SnmpTargetConfig { name: "replay".to_owned(), ..target };
    config.sink(&target, &clock, Some(&old)).unwrap().send_test("node-a").await.unwrap();
    let target = SnmpTargetConfig { name: "last".to_owned(), ..target };
    config.sink(&target, &clock, Some(&engine)).unwrap().send_test("node-a").await.unwrap();
    receiver.logged("Test of the target last;").await;
    assert!(!std::fs::read_to_string(&receiver.log).unwrap().contains("target replay;"));
    let stranger = SnmpUserConfig::new(Authentication::Sha256, "another-one", Privacy::Aes128, "private12");
    config.users.insert("two".to_owned(), stranger);
    let target = SnmpTargetConfig { kind: Some(SnmpKind::Inform), inform_timeout_ms: 500, ..target };
    let refused = config.sink(&target, &clock, None).unwrap().send_test("node-a").await;
    assert!(refused.is_err(), "the receiver does not acknowledge what it cannot trust");
}

/// A path to the receiver that loses datagrams of both directions, by a seed.
struct LossyPath {
    address: SocketAddr,
    forwarded: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for LossyPath {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl LossyPath {
    async fn start(receiver: SocketAddr, seed: u64, lost_of_100: u64) -> Self {
        let near = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let far = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        far.connect(receiver).await.unwrap();
        let (address, forwarded) = (near.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&forwarded);
        // The same datagrams are lost on every run.
        let mut random = testkit::Random::new(seed);
        let mut kept = move || random.draw() % 100 >= lost_of_100;
        let task = tokio::spawn(async move {
            let (mut there, mut back) = (vec![0; 2_048], vec![0; 2_048]);
            let mut sender = None;
            loop {
                tokio::select! {
                    Ok((octets, from)) = near.recv_from(&mut there) => {
                        sender = Some(from);
                        if kept() && far.send(&there[..octets]).await.is_ok() {
                            counted.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                    Ok(octets) = far.recv(&mut back) => {
                        if let Some(to) = sender.filter(|_| kept()) {
                            let _ = near.send_to(&back[..octets], to).await;
                        }
                    }
                }
            }
        });
        Self { address, forwarded, task }
    }
}

/// What an NMS makes of the log: the alarms that it believes to be active, and whether it has missed something.
#[derive(Debug, Default, PartialEq)]
struct Nms {
    epoch: u64,
    last: u64,
    active: std::collections::BTreeSet<u64>,
    lost: bool,
    whole: bool,
    heartbeats: usize,
}

impl Nms {
    fn read(log: &str) -> (Self, usize) {
        let (mut nms, mut lines) = (Self::default(), 0);
        let number = |line: &str, object: &str| -> u64 {
            let rest = line.split_once(&format!("TANDEM-MIB::{object}.0 = Gauge32: ")).map_or("0", |(_, rest)| rest);
            rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
        };
        for line in log.lines().filter(|line| line.contains("snmpTrapOID.0 = OID: TANDEM-MIB::")) {
            lines += 1;
            let name = line.split_once("OID: TANDEM-MIB::").unwrap().1.split_whitespace().next().unwrap();
            let (epoch, sequence) =
                (number(line, "tandemNotificationEpoch"), number(line, "tandemNotificationSequence"));
            if name == "tandemHeartbeat" {
                nms.heartbeats += 1;
                nms.lost |= (epoch, sequence) != (nms.epoch, nms.last);
                continue;
            }
            if (epoch, sequence) == (nms.epoch, nms.last) {
                // The same once more: its acknowledgement was lost
                continue;
            }
            if epoch != nms.epoch {
                let heartbeats = nms.heartbeats;
                nms = Self { epoch, heartbeats, ..Self::default() };
            }
            nms.lost |= sequence != nms.last + 1;
            nms.last = sequence;
            match name {
                "tandemAlarmRaise" => drop(nms.active.insert(number(line, "tandemAlarmId"))),
                "tandemAlarmClear" => drop(nms.active.remove(&number(line, "tandemAlarmId"))),
                "tandemResyncEnd" => {
                    nms.whole = !nms.lost && number(line, "tandemAlarmActiveCount") == nms.active.len() as u64;
                }
                _ => {}
            }
        }
        (nms, lines)
    }
}

/// The picture of the NMS once it has logged all that came through.
async fn settled(receiver: &TrapReceiver, path: &LossyPath) -> Nms {
    let mut found = None;
    wait_until(PATIENCE, async || {
        let (nms, lines) = Nms::read(&std::fs::read_to_string(&receiver.log).unwrap_or_default());
        found = Some(nms);
        lines == path.forwarded.load(Ordering::SeqCst)
    })
    .await;
    found.unwrap()
}

async fn thirty_alarms(node: &Node) {
    let conditions: Vec<_> = (0..30).map(|n| down(&format!("t{n:02}"))).collect();
    for n in (1..=30).chain((4..30).rev()) {
        node.observe(&conditions[..n]).await;
        node.drain().await;
        node.world.clock.advance_ms(1_000);
    }
}

#[tokio::test]
async fn a_loss_of_traps_is_noticed_by_sequence_and_mended_by_a_resync() {
    const SEED: u64 = 20_261_125;
    let receiver = TrapReceiver::start(COMMUNITY).await;
    let path = LossyPath::start(receiver.address, SEED, 20).await;
    let target = SnmpTargetConfig::v2c("nms", path.address, "traps");
    let name = target.target_name().unwrap();
    let node = Node::start(&SnmpConfig { targets: vec![target], ..SnmpConfig::default() }, None).await;
    thirty_alarms(&node).await;
    let nms = settled(&receiver, &path).await;
    assert!(nms.lost, "seed {SEED}: a fifth of 56 notifications is lost, and the sequence says so: {nms:?}");
    let active: std::collections::BTreeSet<u64> =
        node.alarms.active().await.unwrap().iter().map(|alarm| u64::from(alarm.id)).collect();
    assert_eq!(active.len(), 4);
    // The operator asks again until the sequence of an epoch is whole; a heartbeat confirms its last place
    let mut rounds = 0;
    let mended = loop {
        rounds += 1;
        assert!(rounds <= 60, "seed {SEED}: not mended in 60 rounds");
        node.alarms.resync(&name, node.world.clock.now().utc).await.unwrap();
        node.drain().await;
        node.world.clock.advance_ms(60_000);
        let nms = settled(&receiver, &path).await;
        if nms.whole && !nms.lost {
            break nms;
        }
    };
    assert_eq!(mended.active, active);
    assert!(mended.heartbeats > 0);
    // Nothing happens any more, and the loss of the very last one would be told by a heartbeat
    let before = settled(&receiver, &path).await.heartbeats;
    let mut nms = Nms::default();
    for _ in 0..20 {
        node.drain().await;
        node.world.clock.advance_ms(60_000);
        nms = settled(&receiver, &path).await;
        if nms.heartbeats > before {
            break;
        }
    }
    assert!(nms.heartbeats > before && !nms.lost, "{nms:?}");
}

#[tokio::test]
async fn v3_informs_survive_the_same_path_without_a_loss() {
    const SEED: u64 = 42;
    let engine = Engine::start(engine_id(32_473, [9; 16]), 1).unwrap();
    let receiver = TrapReceiver::start(&receiver_of_users(&engine)).await;
    let path = LossyPath::start(receiver.address, SEED, 20).await;
    let target = SnmpTargetConfig { inform_timeout_ms: 200, ..SnmpTargetConfig::v3("nms", path.address, "two") };
    let config = SnmpConfig { targets: vec![target], users: users(), ..SnmpConfig::default() };
    let node = Node::start(&config, Some(&engine)).await;
    thirty_alarms(&node).await;
    node.drain_all().await;
    let failed = "SELECT COUNT(*) FROM outbox WHERE state <> 'sent'";
    let failed: i64 = db::on_db!(&node.db, c => sqlx::query_scalar(failed).fetch_one(c).await).unwrap();
    assert_eq!(failed, 0, "seed {SEED}");
    // What was acknowledged was logged before
    let (nms, lines) = Nms::read(&std::fs::read_to_string(&receiver.log).unwrap());
    assert!(lines >= 56 && !nms.lost, "seed {SEED}: {nms:?}");
    assert_eq!((nms.epoch, nms.last, nms.active.len()), (1, 56, 4));
}
