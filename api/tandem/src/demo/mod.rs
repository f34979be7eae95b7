//! `tandem demo`: the main job end to end, in a throw-away directory, on free loopback ports, through public interfaces.

mod alarm;
mod billing;
mod books;
pub mod calls;
mod check;
pub mod installation;
pub mod process;
mod report;
pub mod sinks;
pub mod world;

pub use self::report::this_month;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::json;

use self::calls::{Expected, Party, Placed};
use self::check::Checks;
use self::installation::{Installation, configure, send_mail_to, send_traps_to};
use self::sinks::{SmtpSink, TrapReceiver};
use self::world::World;

/// How often the demo looks whether something has come about.
const LOOK_PERIOD: Duration = Duration::from_millis(50);
/// How long it waits for it.
const LOOK_MAX: Duration = Duration::from_secs(15);
/// How long the calls of the kill are up before it.
const UP_BEFORE_KILL: Duration = Duration::from_millis(2_300);

/// Arguments of `tandem demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// For scripts: no progress on the terminal.
    #[arg(long)]
    ci: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// Leave the directory, for `tandem serve --config DIR/tandem.toml`.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Any failure of the demo.
pub type DemoError = Box<dyn std::error::Error + Send + Sync>;

/// Something did not come about in time.
#[derive(Debug, thiserror::Error)]
#[error("{0} did not come about in time")]
pub struct NotInTime(&'static str);

/// Looks until `look` finds something.
///
/// # Errors
/// [`NotInTime`], or what `look` fails with.
pub async fn await_some<T, E: Into<DemoError>>(
    what: &'static str,
    mut look: impl AsyncFnMut() -> Result<Option<T>, E>,
) -> Result<T, DemoError> {
    let mut period = tokio::time::interval(LOOK_PERIOD);
    for _ in 0..LOOK_MAX.as_millis() / LOOK_PERIOD.as_millis() {
        period.tick().await;
        if let Some(found) = look().await.map_err(Into::into)? {
            return Ok(found);
        }
    }
    Err(NotInTime(what).into())
}

/// Waits until every consumer of the journal and of the feed has read all there is.
///
/// # Errors
/// When that takes too long, or the daemon does not answer.
pub async fn await_settled(installation: &Installation) -> Result<(), DemoError> {
    let url = format!("http://{}/metrics", installation.config.admin.listen);
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
    // Two looks in a row: a record may be on its way from one consumer to the feed of the next.
    let mut quiet = 0;
    await_some("a quiet journal", async || {
        let text = http.get(&url).send().await?.text().await?;
        let lags: Vec<&str> = text.lines().filter(|line| line.starts_with("tandem_consumer_lag_records{")).collect();
        let settled = !lags.is_empty() && lags.iter().all(|line| line.ends_with(" 0"));
        quiet = if settled { quiet + 1 } else { 0 };
        Ok::<_, reqwest::Error>((quiet >= 12).then_some(()))
    })
    .await
}

/// Where things are, for people who go on by hand.
#[derive(Debug, Serialize)]
struct Whereabouts {
    graphql: String,
    billing_streams: String,
    reports: String,
    metrics: String,
    sip: String,
    report_html: String,
    billing_files: String,
    directory: String,
}

/// Runs the demo and says how it went.
///
/// # Errors
/// When a step cannot be done at all; a check that does not hold is no error but exit code 1.
pub async fn run(args: DemoArgs, json: bool) -> Result<ExitCode, DemoError> {
    let json = json || args.json;
    let progress = if args.ci || json { ProgressBar::hidden() } else { ProgressBar::new(8) };
    progress.set_style(ProgressStyle::with_template("{elapsed_precise} [{bar:24}] {pos}/{len} {msg}")?);
    progress.enable_steady_tick(Duration::from_millis(120));

    let temporary;
    let dir: &Path = if let Some(keep) = &args.keep {
        crate::data_dir::create(keep)?;
        keep
    } else {
        temporary = tempfile::tempdir()?;
        temporary.path()
    };
    let dir = dir.canonicalize()?;
    let mut checks = Checks::default();
    let mut whereabouts = play(&dir, &progress, &mut checks).await?;
    progress.finish_and_clear();
    let all_hold = checks.all_hold();
    if args.keep.is_none() {
        // The directory goes; the report is for a person to look at.
        let kept = std::env::temp_dir().join("tandem-demo-report.html");
        std::fs::copy(&whereabouts.report_html, &kept)?;
        whereabouts.report_html = kept.display().to_string();
    }
    print(&checks, &whereabouts, json, args.keep.as_deref())?;
    Ok(if all_hold { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn step(progress: &ProgressBar, number: u64, text: &'static str) {
    progress.set_position(number - 1);
    progress.set_message(text);
}

async fn play(dir: &Path, progress: &ProgressBar, checks: &mut Checks) -> Result<Whereabouts, DemoError> {
    step(progress, 1, "starting the daemon");
    let (traps, mails) = (TrapReceiver::start().await?, SmtpSink::start().await?);
    let mut config = configure(dir)?;
    send_traps_to(&mut config, traps.address());
    send_mail_to(&mut config, mails.address());
    let installation = Installation::prepare(&std::env::current_exe()?, dir, config).await?;
    let daemon = installation.start().await?;

    step(progress, 2, "provisioning through GraphQL");
    let server = installation.config.sip.transport.listen;
    let carrier = calls::start_carrier(server).await?;
    let provider = installation.client()?;
    let world = world::provision(provider, &installation.provider_account, carrier.local_addr()).await?;
    checks.equal("accounts, subscribers provisioned", "6, 20", count_world(&world).await?);
    checks.equal("extension 100 of Alpha and of Beta", "2 subscribers", extensions_100(&world).await?);
    checks.equal("South's token sees North's customers", "no", foreign_customers(&world).await?);

    step(progress, 3, "placing 50 SIP calls with RTP");
    let party = calls::register(&world, server, carrier).await?;
    let plans = calls::plan(&world);
    checks.equal("calls placed", 50, plans.len());
    let mut placed = party.run(plans, || progress.tick()).await?;
    check_calls(checks, &placed);

    step(progress, 4, "killing the daemon in the middle of calls");
    let plans = calls::plan_for_the_kill(&world);
    let handles = party.bring_up(&plans).await?;
    tokio::time::sleep(UP_BEFORE_KILL).await;
    daemon.kill().await?;
    let daemon = installation.start().await?;
    for handle in handles {
        handle.abandon().await;
    }
    let after = party.run(calls::plan_after_the_kill(&world), || progress.tick()).await?;
    let works = after.iter().all(Placed::as_expected);
    checks.equal("registrations and calls after the restart", true, works);
    placed.extend(after);
    await_settled(&installation).await?;
    let estimated = books::estimated_calls(&world).await?;
    books::check_estimates(checks, &plans, &estimated);

    step(progress, 5, "pulling the billing file as a BSS");
    let expected = books::expected_lines(&placed, &plans, &estimated);
    let file = billing::pull_and_check(checks, &world, expected).await?;

    step(progress, 6, "taking the trunk down and up");
    alarm::trunk_down_and_up(checks, &world, &party, &traps).await?;

    step(progress, 7, "running the monthly report");
    let html = report::run_and_check(checks, &world, &mails, dir, &placed, plans.len(), &file).await?;

    step(progress, 8, "stopping the daemon");
    let status = daemon.terminate().await?;
    checks.equal("the daemon drains on SIGTERM", "exit status: 0", status);
    let base = installation.base_url();
    write_handover(dir, &installation, &world, &party)?;
    Ok(Whereabouts {
        graphql: format!("{base}/graphql"),
        billing_streams: format!("{base}/billing/streams"),
        reports: format!("{base}/reports/runs"),
        metrics: format!("http://{}/metrics", installation.config.admin.listen),
        sip: format!("udp:{server}"),
        report_html: html.display().to_string(),
        billing_files: installation.config.billing_files_dir().display().to_string(),
        directory: dir.display().to_string(),
    })
}

fn check_calls(checks: &mut Checks, placed: &[Placed]) {
    let mut kinds: Vec<&str> = placed.iter().map(|call| call.plan.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds {
        let calls: Vec<&Placed> = placed.iter().filter(|call| call.plan.kind == kind).collect();
        let good = calls.iter().filter(|call| call.as_expected()).count();
        let mut found = format!("{good} of {}", calls.len());
        if let Some(bad) = calls.iter().find(|call| !call.as_expected()) {
            found = format!("{found} (one got {} {})", bad.outcome.status, bad.outcome.reason);
        }
        checks.verdict(&format!("calls: {kind}"), format!("{0} of {0}", calls.len()), found, good == calls.len());
    }
    let answered = placed.iter().filter(|call| matches!(call.plan.expected, Expected::Answered(_)));
    let silent = answered.filter(|call| call.outcome.rtp_received == 0 || call.outcome.rtp_sent == 0).count();
    checks.equal("answered calls without RTP both ways", 0, silent);
}

async fn count_world(world: &World) -> Result<String, DemoError> {
    const QUERY: &str = "{ accounts(first: 100) { nodes { id } } subscribers(first: 100) { nodes { id } } }";
    let data = world.provider.graphql(QUERY, json!({})).await?;
    let count = |list: &str| data[list]["nodes"].as_array().map_or(0, Vec::len);
    Ok(format!("{}, {}", count("accounts"), count("subscribers")))
}

async fn extensions_100(world: &World) -> Result<String, DemoError> {
    const QUERY: &str = "query($a: ID!, $b: ID!) { a: subscribers(first: 100, accountId: $a) { nodes { extension } } \
                         b: subscribers(first: 100, accountId: $b) { nodes { extension } } }";
    let (a, b) = (&world.customers[0].account, &world.customers[1].account);
    let data = world.resellers[0].client.graphql(QUERY, json!({ "a": a, "b": b })).await?;
    let found = ["a", "b"].into_iter().filter_map(|list| data[list]["nodes"].as_array()).flatten();
    Ok(format!("{} subscribers", found.filter(|node| node["extension"] == "100").count()))
}

async fn foreign_customers(world: &World) -> Result<&'static str, DemoError> {
    const QUERY: &str = "query($id: ID!) { accounts(first: 100) { nodes { name } } node(id: $id) { id } }";
    let south = &world.resellers[1].client;
    let data = south.graphql(QUERY, json!({ "id": world.customers[0].account })).await?;
    let names: Vec<&str> =
        data["accounts"]["nodes"].as_array().into_iter().flatten().filter_map(|node| node["name"].as_str()).collect();
    let leaks = names.iter().any(|name| ["North", "Alpha GmbH", "Beta OG"].contains(name)) || !data["node"].is_null();
    Ok(if leaks { "yes" } else { "no" })
}

/// What someone needs to go on by hand after `--keep`.
fn write_handover(dir: &Path, at: &Installation, world: &World, party: &Party) -> Result<(), DemoError> {
    let phones: Vec<_> = world
        .phones
        .iter()
        .map(|phone| {
            json!({
                "aor": format!("sip:{}@{}", phone.username, world.customers[phone.customer].domain),
                "password": phone.password.expose(), "extension": phone.extension, "number": phone.number,
            })
        })
        .collect();
    let tokens = json!({
        "provider": at.token.expose(), "bss": world.bss_token.expose(),
        "north": world.resellers[0].token.expose(), "south": world.resellers[1].token.expose(),
    });
    let handover = json!({
        "config": at.config_file, "graphql": format!("{}/graphql", at.base_url()),
        "billing": format!("{}/billing/streams", at.base_url()), "sip": at.config.sip.transport.listen,
        "metrics": format!("http://{}/metrics", at.config.admin.listen),
        "trunk": party.carrier.local_addr(), "tokens": tokens, "phones": phones,
        "billing_files": at.config.billing_files_dir(), "reports": at.config.reports_dir(), "log": at.log_file,
    });
    std::fs::write(dir.join("demo.json"), serde_json::to_string_pretty(&handover)?)?;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the result of a command")]
fn print(checks: &Checks, whereabouts: &Whereabouts, as_json: bool, kept: Option<&Path>) -> Result<(), DemoError> {
    if as_json {
        let report = json!({ "checks": checks.list(), "urls": whereabouts });
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    let mut table = crate::cli::table(&["", "check", "expected", "found"]);
    for check in checks.list() {
        let mark = if check.ok { "ok" } else { "FAILED" };
        table.add_row([mark, &check.name, &check.expected, &check.found]);
    }
    println!("{table}");
    println!("report   {}", whereabouts.report_html);
    match kept {
        Some(_) => {
            println!("files    {}", whereabouts.billing_files);
            println!("go on    tandem serve --config {}/tandem.toml", whereabouts.directory);
            println!("         GraphQL {}, tokens and phones in demo.json there", whereabouts.graphql);
        }
        None => {
            println!("keep it  tandem demo --keep DIR leaves everything for `tandem serve --config DIR/tandem.toml`")
        }
    }
    let failed = checks.list().iter().filter(|check| !check.ok).count();
    println!("{} checks, {failed} failed", checks.list().len());
    Ok(())
}
