//! `tandem snmp`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Subcommand;
use db::system::SystemClock;

use super::Failure;
use crate::config::Config;

/// What an NMS operator needs.
#[derive(Debug, Subcommand)]
pub enum SnmpCommand {
    /// Print the MIB modules for the configured enterprise number, or write them into a directory.
    Mib {
        /// Where to write them; left out: both to standard output.
        #[arg(long, value_name = "DIR")]
        directory: Option<PathBuf>,
    },
    /// Send a test notification to every configured target.
    Test,
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
        SnmpCommand::Test => {
            if config.snmp.targets.is_empty() {
                return Err("no target is configured; add [[snmp.targets]] with name and address".into());
            }
            let oids = fault_snmp::objects::Oids::new(config.snmp.enterprise_number);
            for target in &config.snmp.targets {
                let sink = fault_snmp::SnmpSink::new(target, oids, Arc::new(SystemClock));
                sink.send_test(&config.node.name).await?;
                println!("{}: a test trap left for {}", target.name, target.address);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
