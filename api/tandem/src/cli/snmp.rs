//! `tandem snmp`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;
use db::system::{SystemClock, SystemIds};
use fault_snmp::{SnmpKind, SnmpTargetConfig, SnmpVersion};
use model::time::Clock;

use super::Failure;
use crate::config::Config;

/// How long the daemon may take to send a test: it looks at its queue twice a second.
const DAEMON_PATIENCE: Duration = Duration::from_secs(15);
/// How often its outcome is looked at.
const LOOK_PERIOD: Duration = Duration::from_millis(100);

/// What an NMS operator needs.
#[derive(Debug, Subcommand)]
pub enum SnmpCommand {
    /// Print the MIB modules for the configured enterprise number, or write them into a directory.
    Mib {
        /// Where to write them; left out: both to standard output.
        #[arg(long, value_name = "DIR")]
        directory: Option<PathBuf>,
    },
    /// Send a test notification to every configured target, as trap or inform, v2c or v3.
    Test,
    /// Show the engine of this node, which receivers of v3 traps must know.
    Engine,
}

pub async fn run(command: SnmpCommand, config: Config) -> Result<ExitCode, Failure> {
    match command {
        SnmpCommand::Mib { directory } => {
            for (name, text) in fault_snmp::mib::render(config.snmp.enterprise_number) {
                match &directory {
                    Some(directory) => {
                        std::fs::create_dir_all(directory)?;
                        std::fs::write(directory.join(name), text)?;
                        println!("{}", directory.join(name).display());
                    }
                    None => print!("{text}"),
                }
            }
        }
        SnmpCommand::Test => return test(&config).await,
        SnmpCommand::Engine => {
            crate::data_dir::create(&config.node.data_dir)?;
            let node_db = db::node::open(&config.node.data_dir).await?;
            let engine = fault_store::engine_known(&node_db).await?;
            node_db.close().await;
            let engine = engine.ok_or("this node has no engine yet; it gets one when the daemon first starts")?;
            println!("engine id {}, boots {}", crate::daemon::hex_of(&engine.engine_id), engine.boots);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Sends a test to every target by its kind. A v3 trap is sent by the engine of this node, whose time only one process
/// knows: the daemon while it runs, else this command.
async fn test(config: &Config) -> Result<ExitCode, Failure> {
    if config.snmp.targets.is_empty() {
        return Err("no target is configured; add [[snmp.targets]] with name and address".into());
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let by_engine = |target: &SnmpTargetConfig| target.version == SnmpVersion::V3 && target.kind() == SnmpKind::Trap;
    let mut engine = None;
    let mut held = None;
    if config.snmp.targets.iter().any(by_engine) {
        crate::data_dir::create(&config.node.data_dir)?;
        held = crate::data_dir::lock(&config.node.data_dir).ok();
        if held.is_some() {
            let node_db = db::node::open(&config.node.data_dir).await?;
            engine = Some(crate::daemon::start_engine(config, &node_db).await?);
            node_db.close().await;
        }
    }
    let mut failed = false;
    for target in &config.snmp.targets {
        let (name, address) = (&target.name, target.address);
        let outcome = if by_engine(target) && engine.is_none() {
            through_daemon(config, target, &*clock).await
        } else {
            let sink = config.snmp.sink(target, &clock, engine.as_ref())?;
            sink.send_test(&config.node.name).await.map_err(Failure::from)
        };
        match (outcome, target.kind()) {
            (Ok(()), SnmpKind::Trap) => println!("{name}: a test trap left for {address}"),
            (Ok(()), SnmpKind::Inform) => println!("{name}: {address} acknowledged a test inform"),
            (Err(error), _) => {
                failed = true;
                eprintln!("{name}: the test did not reach {address}: {error}");
            }
        }
    }
    drop(held);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Puts the test into the daemon's queue, and waits until it left.
async fn through_daemon(config: &Config, target: &SnmpTargetConfig, clock: &dyn Clock) -> Result<(), Failure> {
    let node_db = db::node::open(&config.node.data_dir).await?;
    let (node, ids) = (&config.node.name, Arc::new(SystemIds));
    let alarms = fault_store::NodeAlarms::new(node_db.clone(), node, Vec::new(), ids);
    let text = fault_snmp::test_text(&target.name);
    let message = alarms.enqueue_test(&target.target_name()?, &text, clock.now().utc).await?;
    let mut looks = tokio::time::interval(LOOK_PERIOD);
    let outcome = tokio::time::timeout(DAEMON_PATIENCE, async {
        loop {
            looks.tick().await;
            if let Some(outcome) = alarms.message_outcome(message).await? {
                return Ok::<_, Failure>(outcome);
            }
        }
    });
    let outcome = outcome.await;
    node_db.close().await;
    match outcome {
        Ok(outcome) => Ok(outcome??),
        Err(_) => Err("the daemon has not sent it yet; does it know this target? Restart it after a change".into()),
    }
}
