//! `tandem report`: through the daemon's public interfaces, with the rights of the token.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::remote::Remote;
use super::{Failure, Output};
use crate::client::Client;
use crate::config::Config;

/// How often an unfinished run is asked for.
const POLL: Duration = Duration::from_millis(200);
/// How long a run may take until the command gives up; the run itself goes on.
const RUN_MAX: Duration = Duration::from_secs(300);

/// What to do with reports.
#[derive(Debug, Subcommand)]
pub enum ReportCommand {
    /// The runs within the token's reach, oldest first.
    List {
        #[command(flatten)]
        remote: Remote,
    },
    /// Run the monthly report of an account and wait until it is finished.
    Run {
        #[command(flatten)]
        remote: Remote,
        /// The account, itself and all below: its global id.
        #[arg(long)]
        account: String,
        /// The month in the account's zone, YYYY-MM.
        #[arg(long)]
        period: String,
        /// Mail it to this address; may be given up to 20 times.
        #[arg(long = "to", value_name = "ADDRESS")]
        recipients: Vec<String>,
    },
    /// Write a finished report to a file, or to standard output.
    Fetch {
        #[command(flatten)]
        remote: Remote,
        /// The run, as 'list' and 'run' show it.
        run: String,
        /// Which form.
        #[arg(long, value_enum, default_value_t = Form::Html)]
        form: Form,
        /// Where to; left out: standard output.
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
}

/// A form of a report.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Form {
    /// One page with charts.
    Html,
    /// All figures.
    Csv,
    /// All figures as a workbook, one sheet per table.
    Xlsx,
}

pub async fn run(command: ReportCommand, config: Config, output: Output) -> Result<ExitCode, Failure> {
    match command {
        ReportCommand::List { remote } => {
            let runs = remote.client(&config)?.get_all("/reports/runs").await?;
            print(&runs, output)?;
        }
        ReportCommand::Run { remote, account, period, recipients } => {
            let client = remote.client(&config)?;
            let input = json!({ "accountId": account, "period": period, "recipients": recipients });
            let made = client.mutate("reportRun", input).await?;
            let run = finished(&client, &made.id).await?;
            let done = run["state"] == "finished";
            print(&[run], output)?;
            return Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        ReportCommand::Fetch { remote, run, form, to } => {
            let form = match form {
                Form::Html => "html",
                Form::Csv => "csv",
                Form::Xlsx => "xlsx",
            };
            let bytes = remote.client(&config)?.get(&format!("/reports/runs/{run}/{form}")).await?;
            match to {
                Some(file) => std::fs::write(&file, bytes).map_err(|error| format!("{}: {error}", file.display()))?,
                None => std::io::stdout().write_all(&bytes)?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn finished(client: &Client, run: &str) -> Result<Value, Failure> {
    let path = format!("/reports/runs/{run}");
    let wait = async {
        loop {
            let run = client.get_json(&path).await?;
            if run["state"] == "finished" || run["state"] == "failed" {
                return Ok::<_, Failure>(run);
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let late = |_| format!("the run {run} is not finished after {} s; see 'tandem report list'", RUN_MAX.as_secs());
    tokio::time::timeout(RUN_MAX, wait).await.map_err(late)?
}

fn print(runs: &[Value], output: Output) -> Result<(), Failure> {
    let columns = ["id", "definition", "period", "revision", "provisional", "state", "error"];
    let rows = runs.iter().map(|run| columns.iter().map(|column| super::output::cell(&run[*column])).collect());
    super::output::print(output, &runs, &columns, rows)
}
