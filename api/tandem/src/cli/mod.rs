//! The command line. Each command: `--output table|json`, exit codes that scripts can trust (0 done, 1 failed or a
//! check does not hold, 2 wrong usage), errors that name the cause and the next step.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is where output belongs")]

mod account;
mod alarm;
mod apply;
mod audit;
mod backup;
mod billing;
mod change;
mod config_command;
mod doctor;
mod journal;
mod local;
mod migrate;
mod output;
mod remote;
mod report;
mod snmp;
mod tenants;
mod token;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::Config;
pub(crate) use local::Local;
pub use output::Output;
pub(crate) use output::table;

/// Communications as a service: provisioning, rated billing files, SNMP alarms, monthly reports, around a SIP core.
#[derive(Debug, Parser)]
#[command(name = "tandem", version, about, max_term_width = 100)]
struct Cli {
    /// Configuration file (TOML). Without one: defaults and environment (TANDEM_SECTION__KEY).
    #[arg(long, global = true, env = "TANDEM_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// How results are printed.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon.
    Serve,
    /// Show the main job end to end in a throw-away directory, in less than a minute.
    Demo(crate::demo::DemoArgs),
    /// Bring the store's schema to this version of the program.
    Migrate,
    /// Check, show or describe the configuration.
    #[command(subcommand)]
    Config(config_command::ConfigCommand),
    /// The first account of an installation.
    #[command(subcommand)]
    Account(account::AccountCommand),
    /// API tokens.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Billing files: pull them as a BSS does, prove that they are complete.
    #[command(subcommand)]
    Billing(billing::BillingCommand),
    /// Alarms of this node.
    #[command(subcommand)]
    Alarm(alarm::AlarmCommand),
    /// Make what a file says so: tenants in YAML, or many objects in JSON Lines or CSV.
    Apply(apply::ApplyArgs),
    /// Write what there is as a file for 'apply'.
    Export(apply::ExportArgs),
    /// Changes: what was done, and taking it back.
    #[command(subcommand)]
    Change(change::ChangeCommand),
    /// Reports: run them, list and fetch their runs.
    #[command(subcommand)]
    Report(report::ReportCommand),
    /// SNMP: the MIB, a test notification.
    #[command(subcommand)]
    Snmp(snmp::SnmpCommand),
    /// The journal of this node: how large, how far read, whole, and what it says.
    #[command(subcommand)]
    Journal(journal::JournalCommand),
    /// Copy the installation, also while the daemon runs.
    Backup(backup::BackupArgs),
    /// Make the installation again from a copy, in an empty data directory and database.
    Restore(backup::RestoreArgs),
    /// Look for what is wrong with this installation, and say what to do.
    Doctor,
    /// The audit trail.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Place or answer SIP calls (for tests and load).
    Call(crate::call::CallArgs),
    /// Print completions for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// Any failure of a command, for people.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Parses the command line, runs the command, and says how it went.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("error: {failure}");
            let mut source = failure.source();
            while let Some(cause) = source {
                eprintln!("  because: {cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let output = cli.output;
    let config = || Config::load(cli.config.as_deref());
    match cli.command {
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "tandem", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Config(command) => config_command::run(command, config),
        Command::Snmp(command) => in_runtime(snmp::run(command, config()?)),
        Command::Call(args) => in_runtime(async move { Ok(crate::call::run(args, output == Output::Json).await?) }),
        Command::Demo(args) => in_runtime(crate::demo::run(args, output == Output::Json)),
        Command::Serve => {
            let config = config()?;
            let log = crate::logging::install(&config.log)?;
            let reload = crate::reload::Reload { file: cli.config.clone(), log };
            in_runtime(async move {
                crate::daemon::serve(config, reload).await?;
                Ok(ExitCode::SUCCESS)
            })
        }
        Command::Migrate => in_runtime(migrate::run(config()?)),
        Command::Account(command) => in_runtime(account::run(command, config()?, output)),
        Command::Token(command) => in_runtime(token::run(command, config()?, output)),
        Command::Billing(command) => in_runtime(billing::run(command, config()?, output)),
        Command::Alarm(command) => in_runtime(alarm::run(command, config()?, output)),
        Command::Apply(args) => in_runtime(apply::apply(args, config()?, output)),
        Command::Export(args) => in_runtime(apply::export(args, config()?)),
        Command::Change(command) => in_runtime(change::run(command, config()?, output)),
        Command::Report(command) => in_runtime(report::run(command, config()?, output)),
        Command::Journal(command) => in_runtime(journal::run(command, config()?, output)),
        Command::Backup(args) => in_runtime(backup::backup(args, config()?, output)),
        Command::Restore(args) => in_runtime(backup::restore(args, config()?, output)),
        Command::Doctor => in_runtime(doctor::run(config(), output)),
        Command::Audit(command) => in_runtime(audit::run(command, config()?, output)),
    }
}

fn in_runtime(work: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}
