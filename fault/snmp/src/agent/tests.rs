//! The agent under net-snmp's programs.

use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use db::system::SystemClock;
use fault::catalogue::{AlarmType, detector};
use fault::port::{AlarmAuthority as _, TargetName};
use fault::resource::{Condition, Severity};
use fault_store::{NodeAlarms, Sender, SenderOptions};
use testkit::{World, wait_until};

use super::*;
use crate::receivers::{modules, run, text};
use crate::user::{Authentication, Privacy};
use crate::{SnmpTargetConfig, SnmpUserConfig};

/// Longest wait for what the next picture shows.
const PATIENCE: Duration = Duration::from_secs(30);
/// `snmpEngineID.0` and `snmpEngineBoots.0` of the SNMP-FRAMEWORK-MIB, which is not among the base modules.
const ENGINE_ID: &str = "1.3.6.1.6.3.10.2.1.1.0";
const BOOTS: &str = "1.3.6.1.6.3.10.2.1.2.0";

pub(super) struct Served {
    pub(super) agent: Agent,
    alarms: NodeAlarms,
    sender: Arc<Sender>,
    db: db::Db,
    world: World,
    dir: tempfile::TempDir,
}

pub(super) fn config() -> SnmpConfig {
    let mut config = SnmpConfig::default();
    let user = |password: &str| SnmpUserConfig::new(Authentication::Sha256, password, Privacy::Aes128, "private12");
    config.users.insert("noc".to_owned(), user("authentic1"));
    config.users.insert("sender".to_owned(), user("authentic2"));
    config.targets = vec![SnmpTargetConfig::v3("nms", "127.0.0.1:9".parse().unwrap(), "sender")];
    let community = |community: &str, sources: &[&str]| CommunityConfig {
        community: community.to_owned(),
        sources: sources.iter().map(|network| network.parse().unwrap()).collect(),
    };
    config.agent.listen = "127.0.0.1:0".parse().ok();
    config.agent.communities.insert("nms".to_owned(), community("monitor", &[]));
    config.agent.communities.insert("far".to_owned(), community("elsewhere", &["198.51.100.0/24"]));
    config.agent.users = vec!["noc".to_owned()];
    config.agent.contact = "noc@example.net".to_owned();
    config.agent.location = "Rack 7".to_owned();
    config
}

pub(super) async fn serve(config: &SnmpConfig) -> Served {
    serve_in(config, tempfile::tempdir().unwrap()).await
}

async fn serve_in(config: &SnmpConfig, dir: tempfile::TempDir) -> Served {
    let world = World::new();
    let db = db::node::open(dir.path()).await.unwrap();
    let boot = fault_store::engine_boot(&db, crate::engine_id(config.enterprise_number, [3; 16])).await.unwrap();
    let engine = Engine::start(boot.engine_id, boot.boots).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let targets = crate::sinks(config, &clock, Some(&engine)).unwrap();
    let names = targets.iter().map(|(name, _)| name.clone()).collect();
    let alarms = NodeAlarms::new(db.clone(), "node-a", names, world.ids.clone());
    let sender = Arc::new(Sender::new(&alarms, targets, SenderOptions::default()));
    let view: Arc<dyn NodeView> = Arc::clone(&sender) as _;
    let agent = Agent::start(config, "9.9", &engine, view, clock).await.unwrap();
    Served { agent, alarms, sender, db, world, dir }
}

impl Served {
    pub(super) async fn observe(&self, names: &[String]) {
        let condition = |name: &String| Condition {
            alarm_type: AlarmType::TrunkDown,
            resource: format!("trunk:{name}"),
            path: None,
            severity: name.starts_with('c').then_some(Severity::Critical),
            text: format!("trunk {name} does not answer"),
        };
        let conditions = names.iter().map(condition).collect();
        self.alarms.observe(detector::TRUNKS, conditions, self.world.clock.now().utc).await.unwrap();
    }

    /// Runs a program of net-snmp against the agent: whether it was content, and what it said.
    async fn ask(&self, program: &str, credentials: &[&str], rest: &[&str]) -> (bool, String) {
        ask(self.agent.local_addr(), program, credentials, rest).await
    }

    pub(super) async fn end(self) -> tempfile::TempDir {
        self.agent.stop().await;
        drop((self.alarms, self.sender));
        self.db.close().await;
        self.dir
    }
}

async fn ask(address: SocketAddr, program: &str, credentials: &[&str], rest: &[&str]) -> (bool, String) {
    let modules = modules();
    let path = format!("{}:{}", modules.base.display(), modules.ours.display());
    let mut command = Command::new(program);
    command
        .args(["-r", "0", "-t", "10", "-M", &path, "-m", "TANDEM-MIB:TANDEM-SMI-MIB:SNMPv2-MIB"])
        .args(credentials)
        .arg(address.to_string())
        .args(rest)
        .env("SNMP_PERSISTENT_DIR", &modules.persistent);
    let output = tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

const V2C: &[&str] = &["-v2c", "-c", "monitor"];
const V3: &[&str] =
    &["-v3", "-u", "noc", "-l", "authPriv", "-a", "SHA-256", "-A", "authentic1", "-x", "AES", "-X", "private12"];

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn system_group_and_alarm_table_are_walked_by_every_version_and_request() {
    let served = serve(&config()).await;
    served.observe(&names(&["carrier-a", "b"])).await;
    for credentials in [V2C, V3] {
        let (_, system) = served.ask("snmpwalk", credentials, &["SNMPv2-MIB::system"]).await;
        for line in [
            "SNMPv2-MIB::sysDescr.0 = STRING: Tandem 9.9, management plane",
            "SNMPv2-MIB::sysObjectID.0 = OID: TANDEM-SMI-MIB::tandem",
            "SNMPv2-MIB::sysUpTime.0 = Timeticks:",
            "SNMPv2-MIB::sysContact.0 = STRING: noc@example.net",
            "SNMPv2-MIB::sysName.0 = STRING: node-a",
            "SNMPv2-MIB::sysLocation.0 = STRING: Rack 7",
            "SNMPv2-MIB::sysServices.0 = INTEGER: 72",
        ] {
            assert!(system.contains(line), "{line}\nis not in\n{system}");
        }
        let (_, walked) = served.ask("snmpwalk", credentials, &["TANDEM-MIB::tandemActiveAlarmTable"]).await;
        let expected = [
            "tandemActiveAlarmType.1 = STRING: trunk_down",
            "tandemActiveAlarmType.2 = STRING: trunk_down",
            "tandemActiveAlarmResource.1 = STRING: trunk:b",
            "tandemActiveAlarmResource.2 = STRING: trunk:carrier-a",
            "tandemActiveAlarmSeverity.1 = INTEGER: major(4)",
            "tandemActiveAlarmSeverity.2 = INTEGER: critical(3)",
            "tandemActiveAlarmEventType.1 = INTEGER: communicationsAlarm(2)",
            "tandemActiveAlarmText.2 = STRING: trunk carrier-a does not answer",
            "tandemActiveAlarmRaisedTime.1 = STRING: 2026-1-1,0:0:0.0,+0:0",
            "tandemActiveAlarmCount.1 = Gauge32: 1",
            "tandemActiveAlarmAcknowledged.1 = INTEGER: false(2)",
        ];
        for line in expected {
            assert!(walked.contains(line), "{line}\nis not in\n{walked}");
        }
        assert_eq!(walked.lines().count(), 24, "{walked}");
        let (_, bulk) = served.ask("snmpbulkwalk", credentials, &["TANDEM-MIB::tandemActiveAlarmTable"]).await;
        assert_eq!(bulk, walked, "GETNEXT and GETBULK see the same");
        let (_, got) = served.ask("snmpget", credentials, &["TANDEM-MIB::tandemActiveAlarmText.2"]).await;
        assert!(walked.contains(got.trim()), "{got}");
        let wanted = [
            "TANDEM-MIB::tandemAlarmActiveCount.0",
            "TANDEM-MIB::tandemAlarmCriticalCount.0",
            "TANDEM-MIB::tandemTargetKind.'nms'",
            "TANDEM-MIB::tandemTargetWaiting.'nms'",
            "TANDEM-MIB::tandemActiveAlarmText.3",
            "TANDEM-MIB::tandemAlarmId.0",
            BOOTS,
        ];
        let (_, got) = served.ask("snmpget", credentials, &wanted).await;
        let values: Vec<&str> = got.lines().map(|line| line.split_once(" = ").unwrap().1).collect();
        let expected = [
            "Gauge32: 2",
            "Gauge32: 1",
            "INTEGER: informV3(4)",
            "Gauge32: 2",
            "No Such Instance currently exists at this OID",
            "No Such Object available on this agent at this OID",
            "INTEGER: 1",
        ];
        assert_eq!(values, expected, "{got}");
    }
    served.observe(&names(&["b"])).await;
    wait_until(PATIENCE, async || {
        let (_, walked) = served.ask("snmpbulkwalk", V2C, &["TANDEM-MIB::tandemActiveAlarmResource"]).await;
        walked.trim() == "TANDEM-MIB::tandemActiveAlarmResource.1 = STRING: trunk:b"
    })
    .await;
    let nms = TargetName::snmp("nms").unwrap();
    served.alarms.resync(&nms, served.world.clock.now().utc).await.unwrap();
    wait_until(PATIENCE, async || {
        served.ask("snmpget", V2C, &["TANDEM-MIB::tandemTargetEpoch.'nms'"]).await.1.contains("Gauge32: 2")
    })
    .await;
    served.end().await;
}

#[tokio::test]
async fn a_large_table_is_walked_in_order() {
    let served = serve(&config()).await;
    let many: Vec<String> = (0..300).map(|n| format!("t{n:04}")).collect();
    served.observe(&many).await;
    let (_, walked) = served.ask("snmpbulkwalk", &["-On", "-v2c", "-c", "monitor"], &["1.3.6.1.4.1.32473"]).await;
    let oids: Vec<Vec<u32>> = walked
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .map(|(oid, _)| oid.trim_start_matches('.').split('.').map(|arc| arc.parse().unwrap()).collect())
        .collect();
    assert!(oids.len() > 300 * 12, "{} objects", oids.len());
    assert!(oids.is_sorted_by(|a, b| a < b));
    served.end().await;
}

#[tokio::test]
async fn strangers_get_no_answer_and_are_counted() {
    let served = serve(&config()).await;
    let silent = async |credentials: &[&str]| {
        // The later -t wins
        let credentials = [&["-t", "0.5"], credentials].concat();
        let (answered, said) = served.ask("snmpget", &credentials, &["SNMPv2-MIB::sysName.0"]).await;
        assert!(
            !answered && !said.contains("node-a") && said.to_lowercase().contains("timeout"),
            "{credentials:?}: {said}"
        );
    };
    silent(&["-v2c", "-c", "guess"]).await;
    silent(&["-v2c", "-c", "elsewhere"]).await;
    silent(&["-v1", "-c", "monitor"]).await;
    let v3 = |user: &'static str, password: &'static str| {
        ["-v3", "-u", user, "-l", "authPriv", "-a", "SHA-256", "-A", password, "-x", "AES", "-X", "private12"]
    };
    silent(&v3("nobody", "authentic1")).await;
    silent(&v3("noc", "wrong-guess")).await;
    // It is a user of notifications, not of the agent
    silent(&v3("sender", "authentic2")).await;
    silent(&["-v3", "-u", "noc", "-l", "noAuthNoPriv"]).await;
    // Authenticated and in clear is refused with a word, for it is the user
    let clear = ["-v3", "-u", "noc", "-l", "authNoPriv", "-a", "SHA-256", "-A", "authentic1"];
    let (answered, said) = served.ask("snmpget", &clear, &["SNMPv2-MIB::sysName.0"]).await;
    assert!(!answered && !said.contains("node-a"), "{said}");
    let counts = served.agent.counts();
    let of = |counter: &std::sync::atomic::AtomicU32| counter.load(Ordering::Relaxed);
    assert_eq!((of(&counts.communities), of(&counts.versions), of(&counts.users)), (2, 1, 4));
    wait_until(PATIENCE, async || {
        served.ask("snmpget", V2C, &["SNMPv2-MIB::snmpInBadCommunityNames.0"]).await.1.contains("Counter32: 2")
    })
    .await;
    // Nothing can be set
    let (set, said) = served.ask("snmpset", V2C, &["SNMPv2-MIB::sysContact.0", "s", "me"]).await;
    assert!(!set, "{said}");
    // Who knows the library's own port and a community still comes through no door
    let (answered, said) = ask(served.agent.library.local_addr(), "snmpget", V2C, &["SNMPv2-MIB::sysName.0"]).await;
    assert!(!answered && !said.contains("node-a"), "{said}");
    served.end().await;
}

#[tokio::test]
async fn a_source_off_the_list_or_too_fast_gets_no_answer() {
    let mut far = config();
    far.agent.sources = vec!["198.51.100.0/24".parse().unwrap()];
    let served = serve(&far).await;
    let (answered, _) =
        served.ask("snmpget", &["-t", "0.5", "-v2c", "-c", "monitor"], &["SNMPv2-MIB::sysName.0"]).await;
    assert!(!answered);
    assert_eq!(served.agent.counts().foreign.load(Ordering::Relaxed), 1);
    served.end().await;
    let mut slow = config();
    slow.agent.requests_per_second = 1;
    let served = serve(&slow).await;
    let (_, walked) = served.ask("snmpwalk", &["-t", "0.5", "-v2c", "-c", "monitor"], &["SNMPv2-MIB::system"]).await;
    assert!(walked.contains("sysDescr.0") && walked.contains("Timeout"), "{walked}");
    assert!(served.agent.counts().excess.load(Ordering::Relaxed) > 0);
    served.end().await;
}

#[tokio::test]
async fn boots_grow_with_each_start_and_the_identifier_stays() {
    let mut dir = tempfile::tempdir().unwrap();
    let mut id = String::new();
    for boots in 1..=3 {
        let served = serve_in(&config(), dir).await;
        let wanted = [ENGINE_ID, BOOTS];
        let (_, got) = served.ask("snmpget", V3, &wanted).await;
        let (engine, rest) = got.split_once('\n').unwrap();
        assert!(rest.contains(&format!("INTEGER: {boots}")), "{got}");
        assert!(id.is_empty() || id == engine, "{id} {engine}");
        engine.clone_into(&mut id);
        dir = served.end().await;
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut config = config();
    config.agent.listen = taken.local_addr().ok();
    let dir = tempfile::tempdir().unwrap();
    let db = db::node::open(dir.path()).await.unwrap();
    let alarms = NodeAlarms::new(db, "node-a", Vec::new(), World::new().ids);
    let view: Arc<dyn NodeView> = Arc::new(Sender::new(&alarms, Vec::new(), SenderOptions::default()));
    let engine = Engine::start(crate::engine_id(1, [1; 16]), 1).unwrap();
    let refused = Agent::start(&config, "9.9", &engine, view, Arc::new(SystemClock)).await;
    assert!(matches!(refused, Err(AgentError::Listen { .. })));
}
