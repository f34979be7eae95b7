//! `tandem call`: places or answers calls from the command line, for tests and load.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use comfy_table::Table;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tokio::task::JoinSet;

use super::agent::{Agent, AgentConfig, CallHandle, StartError};
use super::types::{Account, Behaviour, CallOutcome, CallRequest, Caller, PlaceError, Progress, RegisterError, Talk};

/// The environment's place for the password.
const PASSWORD_VARIABLE: &str = "TANDEM_CALL_PASSWORD";
/// Most calls of one run; their outcomes are kept until the end.
const CALLS_MAX: u32 = 1_000_000;
/// Rows that the table shows; JSON has all.
const ROWS_MAX: usize = 50;

/// Place SIP calls through a server, or answer them, with RTP.
#[derive(Debug, Clone, Args)]
pub struct CallArgs {
    /// The server's SIP address over UDP.
    #[arg(long, value_name = "IP:PORT")]
    pub server: SocketAddr,
    /// Our own address for SIP and RTP.
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:0")]
    pub local: SocketAddr,
    /// The account's user name.
    #[arg(long, requires = "domain", required_unless_present = "from")]
    pub user: Option<String>,
    /// The account's SIP domain.
    #[arg(long)]
    pub domain: Option<String>,
    /// File whose first line is the password; otherwise the variable TANDEM_CALL_PASSWORD is read.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Call as a carrier from this number: no account, no registration.
    #[arg(long, value_name = "NUMBER", conflicts_with = "user")]
    pub from: Option<String>,
    /// The number, extension or user to call.
    #[arg(long, required_unless_present = "answer", conflicts_with = "answer")]
    pub to: Option<String>,
    /// Register and answer calls until `--calls` of them have ended.
    #[arg(long, requires = "user")]
    pub answer: bool,
    /// How long to talk, seconds; as answerer 0 means: until the far end hangs up.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    pub duration: f64,
    /// How many calls.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(CALLS_MAX)))]
    pub calls: u32,
    /// Calls begun per second.
    #[arg(long, default_value_t = 1.0)]
    pub rate: f64,
    /// Give up after this many seconds without an answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    pub ring_timeout: f64,
}

/// Why the calls could not be tried.
#[derive(Debug, thiserror::Error)]
pub enum CallFailure {
    /// The agent did not start.
    #[error("the caller could not be started")]
    Start(#[source] StartError),
    /// The password could not be read.
    #[error("the password could not be read from {path}")]
    PasswordFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Neither file nor variable.
    #[error("no password: give --password-file, or set {PASSWORD_VARIABLE}")]
    NoPassword,
    /// A number of seconds or a rate that can't be.
    #[error("--{argument} must be a number from {min} to {max}")]
    Number {
        /// Which argument.
        argument: &'static str,
        /// Least value.
        min: f64,
        /// Greatest value.
        max: f64,
    },
    /// The registration failed.
    #[error("the account could not be registered")]
    Register(#[source] RegisterError),
    /// The call could not be tried.
    #[error("the call could not be placed")]
    Place(#[source] PlaceError),
    /// The report could not be written as JSON.
    #[error("the result could not be written as JSON")]
    Json(#[source] serde_json::Error),
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Report {
    placed: usize,
    answered: usize,
    failed: usize,
    rtp_sent: u64,
    rtp_received: u64,
    calls: Vec<CallOutcome>,
}

impl Report {
    fn new(calls: Vec<CallOutcome>) -> Self {
        let answered = calls.iter().filter(|call| call.is_answered()).count();
        Self {
            placed: calls.len(),
            answered,
            failed: calls.len().saturating_sub(answered),
            rtp_sent: calls.iter().fold(0, |sum, call| sum.saturating_add(call.rtp_sent)),
            rtp_received: calls.iter().fold(0, |sum, call| sum.saturating_add(call.rtp_received)),
            calls,
        }
    }
}

/// Runs `tandem call` and prints a table, or JSON. The exit code is 0 when every call was answered.
///
/// # Errors
/// When the calls could not even be tried.
pub async fn run(args: CallArgs, json: bool) -> Result<ExitCode, CallFailure> {
    let report = execute(&args).await?;
    print(&report, json)?;
    Ok(if report.failed == 0 && report.placed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn execute(args: &CallArgs) -> Result<Report, CallFailure> {
    let talk = seconds("duration", args.duration)?;
    let ring_timeout = seconds("ring-timeout", args.ring_timeout)?;
    let agent = Agent::start(AgentConfig::new(args.local, args.server)).await.map_err(CallFailure::Start)?;
    let outcomes = match &args.to {
        Some(to) => {
            let request = CallRequest {
                caller: caller(&agent, args).await?,
                to: to.clone(),
                hang_up_after_ms: Some(millis(talk)),
                cancel_after_ms: None,
                ring_timeout_ms: millis(ring_timeout),
            };
            place_all(&agent, args, &request).await?
        }
        None => answer_all(&agent, args, talk).await?,
    };
    Ok(Report::new(outcomes))
}

async fn caller(agent: &Agent, args: &CallArgs) -> Result<Caller, CallFailure> {
    if let Some(number) = &args.from {
        return Ok(Caller::Number(number.clone()));
    }
    agent.add(account(args)?).await.map(Caller::Account).map_err(CallFailure::Register)
}

fn account(args: &CallArgs) -> Result<Account, CallFailure> {
    let user = args.user.clone().unwrap_or_default();
    let domain = args.domain.clone().unwrap_or_default();
    Ok(Account::new(user, domain, password(args)?))
}

fn password(args: &CallArgs) -> Result<String, CallFailure> {
    let Some(path) = &args.password_file else {
        return std::env::var(PASSWORD_VARIABLE).map_err(|_| CallFailure::NoPassword);
    };
    let text =
        std::fs::read_to_string(path).map_err(|source| CallFailure::PasswordFile { path: path.clone(), source })?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

async fn place_all(agent: &Agent, args: &CallArgs, request: &CallRequest) -> Result<Vec<CallOutcome>, CallFailure> {
    let rate = number("rate", args.rate, 0.001, 10_000.0)?;
    let progress = progress(args.calls, "calls ended");
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
    let mut running = JoinSet::new();
    let mut outcomes = Vec::new();
    let mut left = args.calls;
    while left > 0 || !running.is_empty() {
        tokio::select! {
            _ = ticks.tick(), if left > 0 => {
                let handle = agent.place(request.clone()).await.map_err(CallFailure::Place)?;
                running.spawn(follow(handle, args.calls == 1));
                left = left.saturating_sub(1);
            }
            Some(ended) = running.join_next() => {
                // A task that only waits can't panic; an agent that is gone ends all of them.
                let outcome = ended.unwrap_or(Err(PlaceError::Gone)).map_err(CallFailure::Place)?;
                outcomes.push(outcome);
                progress.inc(1);
            }
        }
    }
    progress.finish_and_clear();
    Ok(outcomes)
}

/// Waits for the end of a call; of one that is alone it says when it is up.
async fn follow(mut handle: CallHandle, alone: bool) -> Result<CallOutcome, PlaceError> {
    if alone && handle.reached(Progress::Answered).await {
        say("the call is up");
    }
    handle.outcome().await
}

/// What goes on, for whoever waits for it; the result alone goes to stdout.
#[expect(clippy::print_stderr, reason = "what goes on is told on stderr")]
fn say(text: &str) {
    eprintln!("{text}");
}

async fn answer_all(agent: &Agent, args: &CallArgs, talk: Duration) -> Result<Vec<CallOutcome>, CallFailure> {
    let talk = if talk.is_zero() { Talk::UntilFarEnd } else { Talk::Ms(millis(talk)) };
    let account = account(args)?.behaving(Behaviour::Answer { after_ms: 0, talk });
    let id = agent.register(account).await.map_err(CallFailure::Register)?;
    say("registered: calls are answered");
    let progress = progress(args.calls, "calls answered and ended");
    let wanted = usize::try_from(args.calls).unwrap_or(usize::MAX);
    let mut outcomes = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    while outcomes.len() < wanted {
        tokio::select! {
            _ = ticks.tick() => {
                let ended = agent.take_received();
                progress.inc(u64::try_from(ended.len()).unwrap_or_default());
                outcomes.extend(ended);
            }
            // Interrupted: what was answered so far is the result.
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    progress.finish_and_clear();
    agent.unregister(id).await.map_err(CallFailure::Register)?;
    Ok(outcomes)
}

/// Visible on a terminal only.
fn progress(calls: u32, what: &'static str) -> ProgressBar {
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(u64::from(calls)), target);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar
}

#[expect(clippy::print_stdout, reason = "the result of a command line goes to stdout")]
fn print(report: &Report, json: bool) -> Result<(), CallFailure> {
    if json {
        println!("{}", serde_json::to_string_pretty(report).map_err(CallFailure::Json)?);
        return Ok(());
    }
    let mut table = Table::new();
    table.set_header(["to", "status", "reason", "talk ms", "RTP sent", "RTP received", "released by", "Call-ID"]);
    for call in report.calls.iter().take(ROWS_MAX) {
        table.add_row([
            call.to.clone(),
            call.status.to_string(),
            call.reason.clone(),
            call.talk_ms.to_string(),
            call.rtp_sent.to_string(),
            call.rtp_received.to_string(),
            call.released_by.map_or("-", model::event::fact::ReleasedBy::as_str).to_owned(),
            call.call_id.clone(),
        ]);
    }
    println!("{table}");
    if report.calls.len() > ROWS_MAX {
        println!("… and {} more: --output json has all", report.calls.len().saturating_sub(ROWS_MAX));
    }
    let Report { placed, answered, failed, rtp_sent, rtp_received, .. } = report;
    println!("{placed} calls, {answered} answered, {failed} failed; RTP {rtp_sent} sent, {rtp_received} received");
    Ok(())
}

fn number(argument: &'static str, value: f64, min: f64, max: f64) -> Result<f64, CallFailure> {
    if (min..=max).contains(&value) { Ok(value) } else { Err(CallFailure::Number { argument, min, max }) }
}

fn seconds(argument: &'static str, value: f64) -> Result<Duration, CallFailure> {
    number(argument, value, 0.0, 86_400.0).map(Duration::from_secs_f64)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        call: CallArgs,
    }

    fn parse(line: &str) -> Result<CallArgs, clap::Error> {
        Cli::try_parse_from(std::iter::once("call").chain(line.split(' '))).map(|cli| cli.call)
    }

    #[test]
    fn says_which_arguments_belong_together() {
        let right = ["--user a --domain d --to 1", "--from +43 --to 1", "--user a --domain d --answer --calls 3"];
        let wrong =
            ["--to 1", "--user a --to 1", "--user a --domain d", "--from 1 --answer", "--from 1 --to 1 --calls 0"];
        for line in right {
            assert!(parse(&format!("--server 127.0.0.1:5060 {line}")).is_ok(), "{line}");
        }
        for line in wrong {
            assert!(parse(&format!("--server 127.0.0.1:5060 {line}")).is_err(), "{line}");
        }
    }

    #[tokio::test]
    async fn places_calls_at_a_rate_and_reports() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let talk = Behaviour::Answer { after_ms: 0, talk: Talk::UntilFarEnd };
        let config = AgentConfig::new(any, any).trunk("1", talk).trunk("2", Behaviour::Busy);
        let carrier = Agent::start(config).await.unwrap();
        let line =
            |to| format!("--server {} --from 9 --to {to} --calls 3 --rate 100 --duration 0.1", carrier.local_addr());
        let report = execute(&parse(&line("1")).unwrap()).await.unwrap();
        assert_eq!((report.placed, report.answered, report.failed), (3, 3, 0));
        assert!(report.rtp_sent >= 6, "{report:?}");
        let report = execute(&parse(&line("2")).unwrap()).await.unwrap();
        assert_eq!((report.placed, report.answered, report.failed), (3, 0, 3));
        print(&report, true).unwrap();
        print(&report, false).unwrap();
        let failure = execute(&parse(&line("1 --ring-timeout -1").replace(" -1", "=-1")).unwrap()).await.unwrap_err();
        assert!(failure.to_string().starts_with("--ring-timeout must be"), "{failure}");
    }
}
